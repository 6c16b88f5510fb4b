"""Tests of `bridge.core.errors`; what its rows say is frozen in the vectors of the mapping."""

from __future__ import annotations

import jsonschema
import pytest

from bridge.core import errors
from bridge.core.errors import BridgeError
from bridge.core.resources import load_json


def test_the_table_fits_its_schema() -> None:
    """The table obeys the schema beside it."""
    jsonschema.Draft7Validator(load_json("errors.schema.json")).validate(load_json("errors.json"))


def test_kinds_ids_and_codes_are_unique() -> None:
    """No kind is the name of two rows, and no number and no code of the upstream belongs to two."""
    table, rows = load_json("errors.json"), errors.rows("upstream")
    for names in (
        [row["kind"] for section in errors.SECTIONS for row in table[section]],
        [row["kind"] for section in ("hints", "warnings") for row in table[section]],
        [row.error_id for row in rows if row.error_id is not None],
        [code for row in rows for code in row.error_codes],
    ):
        assert len(set(names)) == len(names)


def test_every_row_names_rows_that_exist() -> None:
    """A row's pause and wire row exist, and each outcome agrees with its wire row's."""
    rules = errors.pause_rules()
    for row in errors.rows():
        assert row.pause is None or row.pause in rules
        if row.wire is not None:
            wire = errors.find_row(row.wire)
            assert (wire.section, wire.outcome) == ("wire", row.outcome)


def test_every_pause_is_fed_by_a_row() -> None:
    """No pause rule is without a row that feeds it."""
    assert {row.pause for row in errors.rows() if row.pause} == set(errors.pause_rules())


def test_statuses_are_covered_once() -> None:
    """Every status from 200 to 599 has a row, with and without Retry-After; no other has."""
    for status in range(200, 600):
        for has_retry_after in (True, False):
            row = errors.http_row(status, has_retry_after)
            assert row is not None
            assert row.section == "http"
    assert [errors.http_row(status, True) for status in (-1, 0, 101, 199, 600, 999)] == [None] * 6


@pytest.mark.parametrize(
    ("error_id", "code", "kind"),
    [
        (16, None, "no_such_captcha"),
        (16, "ERROR_NO_SUCH_CAPTCHA_ID", "no_such_captcha"),
        (999, "ERROR_NO_SUCH_CAPCHA_ID", "no_such_captcha"),
        (12, "ERROR_BAD_DUPLICATES", "bad_duplicates"),
        (12, "ERROR_NEW", "captcha_unsolvable"),
        (999, "ERROR_NEW", "unknown_code"),
        (999, None, "unknown_code"),
        (16, "error_key_does_not_exist", "no_such_captcha"),
    ],
)
def test_a_known_code_wins_over_the_number(error_id: int, code: str | None, kind: str) -> None:
    """A known errorCode decides, else the errorId, else the row for everything new."""
    assert errors.upstream_row(error_id, code).kind == kind


@pytest.mark.parametrize(
    ("failure", "is_sent", "kind"),
    [
        ("dns", False, "dns_failure"),
        ("dns", True, "connection_reset"),
        ("reset", True, "connection_reset"),
        ("reset", False, "connect_failure"),
        ("gremlins", True, "connection_reset"),
        ("gremlins", False, "connect_failure"),
    ],
)
def test_every_failure_has_a_row(failure: str, is_sent: bool, kind: str) -> None:
    """What left the host decides when the failure's word does not fit."""
    assert errors.failure_row(failure, is_sent).kind == kind


def test_a_find_row_is_one_the_wire_may_carry() -> None:
    """Rows of events that always become another kind have no code, so no error is made of them."""
    assert errors.find_row("window_closed").code == -32010
    assert errors.find_row("no_such_captcha").error_id == 16
    assert errors.find_row("http_forbidden").pause == "address_blocked"
    with pytest.raises(AssertionError):
        errors.BridgeError("http_forbidden")
    with pytest.raises(KeyError):
        errors.find_row("none_such")


def test_hints_and_warnings_are_told_by_kind() -> None:
    """A hint takes its numbers, most warnings have none, and an unknown kind is a mistake."""
    assert "61" in errors.hint("too_old", seconds=61)["message"]
    assert errors.warning("ignored_by_vendor")["kind"] == "ignored_by_vendor"
    with pytest.raises(KeyError):
        errors.hint("too_old")
    with pytest.raises(KeyError):
        errors.hint("none_such")
    with pytest.raises(KeyError):
        errors.warning("none_such")


def test_only_advice_has_places_to_fill() -> None:
    """Other warnings are fixed sentences; a place without a figure is a mistake."""
    places = [row["kind"] for row in load_json("errors.json")["warnings"] if "{" in row["message"]]
    assert places == ["few_tasks", "rate_jump", "rate_high", "many_refused", "often_late", "tasks_unknown"]
    assert "12 of 30" in errors.warning("many_refused", refused=12, sent=30)["message"]
    with pytest.raises(KeyError):
        errors.warning("many_refused", refused=12)


def test_an_error_carries_its_row() -> None:
    """An error takes code and message from the table and puts its kind into the data."""
    error = BridgeError("invalid_params", {"pointer": "/taskId"})
    assert (error.code, error.kind) == (-32602, "invalid_params")
    assert error.data == {"kind": "invalid_params", "pointer": "/taskId"}
    assert str(error) == error.message == errors.find_row("invalid_params").message


def test_an_upstream_error_takes_the_upstreams_number() -> None:
    """It has the number that came, and cannot be made without; only rows of the table become errors."""
    assert BridgeError("unknown_code", code=4711).code == 4711
    with pytest.raises(AssertionError, match="rate_limit"):
        BridgeError("rate_limit")
    with pytest.raises(KeyError):
        BridgeError("none_such")
