"""The error table ``schemas/errors.json`` as values, and the one exception that crosses module borders.

The table decides codes, messages, retries and pauses; no other module repeats them.
Must not know reports, wire or upstream. Imported by every layer; the table is read on first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from bridge.core.resources import load_json

TABLE: Final = "errors.json"
UNKNOWN_CODE: Final = "unknown_code"
"""Kind of the row for every upstream error that the table does not name."""
SECTIONS: Final = ("wire", "upstream", "http", "failures")


class Row(NamedTuple):
    """One row of the table; the columns are explained in ``schemas/errors.schema.json``."""

    section: str
    """``wire``, ``upstream``, ``http`` or ``failures``."""
    kind: str
    code: int | None
    """Wire code of a row of ``wire``; None elsewhere."""
    error_id: int | None
    error_codes: tuple[str, ...]
    message: str
    outcome: str | None
    retryable: bool
    """Default of the wire member: may the caller try again."""
    retry: str
    """What the bridge itself does next; the words of `bridge.core.model.Verdict.next`."""
    pause: str | None
    """Name of the pause rule that the event feeds."""
    cause: str
    advice: str
    wire: str | None
    """For ``http`` and ``failures``: the kind of the wire row the event becomes."""
    detail: str | None
    """For ``failures``: the word in the wire member ``cause``."""
    statuses: tuple[int, int] | None
    """For ``http``: first and last status; the first row that holds a status counts."""
    retry_after: bool
    """For ``http``: True if the row needs a readable Retry-After header."""
    failure: str | None
    """For ``failures``: the word of `bridge.core.model.Exchange.failure`."""
    sent: bool | None
    """For ``failures``: whether the first byte of the request had left."""
    source: str | None


class PauseRule(NamedTuple):
    """When one kind of pause opens, and how long it lasts; lengths in seconds."""

    name: str
    scope: str
    """Wire scope: ``key``, ``address``, ``method``, ``quality`` or ``transport``."""
    per: tuple[str, ...]
    """What one pause is about: some of ``account``, ``machine``, ``method``, in this order."""
    threshold: int
    """Events that open it."""
    consecutive: bool
    """True if any other event between them starts the count again."""
    window_s: float | None
    """Events older than this do not count; None: age does not matter."""
    first_s: float | None
    """Until the first probe; None if only a person ends the pause."""
    factor: float
    """What a failed probe multiplies the length by."""
    max_s: float | None
    manual: bool
    """True if only a person, or another key, ends it."""
    lifted_by_context: bool
    """True if a start with another url, proxy or CA ends it."""


class _Table(NamedTuple):
    rows: Mapping[str, Row]
    by_code: Mapping[str, Row]
    by_id: Mapping[int, Row]
    statuses: tuple[Row, ...]
    failures: Mapping[tuple[str | None, bool | None], Row]
    pauses: Mapping[str, PauseRule]
    hints: Mapping[str, str]
    warnings: Mapping[str, str]
    rules: Mapping[str, str]


@cache
def _table() -> _Table:
    source = load_json(TABLE)
    rows = {entry["kind"]: _make_row(section, entry) for section in SECTIONS for entry in source[section]}
    return _Table(
        rows,
        {code: row for row in rows.values() for code in row.error_codes},
        {row.error_id: row for row in rows.values() if row.error_id is not None},
        tuple(row for row in rows.values() if row.section == "http"),
        {(row.failure, row.sent): row for row in rows.values() if row.section == "failures"},
        {entry["name"]: _make_rule(entry) for entry in source["pauses"]},
        {entry["kind"]: entry["message"] for entry in source["hints"]},
        {entry["kind"]: entry["message"] for entry in source["warnings"]},
        {entry["kind"]: entry["message"] for entry in source["rules"]},
    )


def _make_row(section: str, entry: Mapping[str, Any]) -> Row:
    statuses = entry.get("statuses")
    return Row(
        section,
        entry["kind"],
        entry.get("code"),
        entry.get("errorId"),
        tuple(entry.get("errorCodes", ())),
        entry["message"],
        entry["outcome"],
        entry["retryable"],
        entry["retry"],
        entry["pause"],
        entry["cause"],
        entry["advice"],
        entry.get("wire"),
        entry.get("detail"),
        (statuses[0], statuses[1]) if statuses else None,
        entry.get("retryAfter", False),
        entry.get("failure"),
        entry.get("sent"),
        entry.get("source"),
    )


def _make_rule(entry: Mapping[str, Any]) -> PauseRule:
    return PauseRule(
        entry["name"],
        entry["scope"],
        tuple(entry["per"]),
        entry["threshold"],
        entry["consecutive"],
        entry["windowSeconds"],
        entry["firstSeconds"],
        entry["factor"],
        entry["maxSeconds"],
        entry["manual"],
        entry["liftedByContext"],
    )


def rows(section: str | None = None) -> tuple[Row, ...]:
    """List the rows of one section, or of all, in the table's order."""
    return tuple(row for row in _table().rows.values() if section is None or row.section == section)


def find_row(kind: str) -> Row:
    """Find the row of a kind in any section.

    Raises:
        KeyError: no section has it.
    """
    return _table().rows[kind]


def wire_row(kind: str) -> Row:
    """Find the row whose kind and message a wire error may carry: one of ``wire`` or ``upstream``.

    Raises:
        KeyError: the kind is in neither section.
    """
    row = _table().rows[kind]
    if row.section not in ("wire", "upstream"):
        raise KeyError(kind)
    return row


def upstream_row(error_id: int, error_code: str | None) -> Row:
    """Find the row of an upstream error; it is always found.

    A known ``errorCode`` wins, because one number is printed for two codes and some codes have
    no number; then the ``errorId``; else it is the row ``unknown_code``.
    """
    table = _table()
    row = table.by_code.get(error_code) if error_code is not None else None
    return row or table.by_id.get(error_id) or table.rows[UNKNOWN_CODE]


def http_row(status: int, has_retry_after: bool) -> Row | None:
    """Find the row of an HTTP status that came without a JSON verdict; None outside 200 to 599.

    Args:
        status: the answer's status.
        has_retry_after: True if a readable Retry-After header came with it.
    """
    for row in _table().statuses:
        first, last = row.statuses or (0, -1)
        if first <= status <= last and (has_retry_after or not row.retry_after):
            return row
    return None


def failure_row(failure: str, is_sent: bool) -> Row:
    """Find the row of an exchange that failed; it is always found.

    Whatever a failure is called: once a byte has left nothing is certain, and before that
    nothing was delivered.

    Args:
        failure: the word of `bridge.core.model.Exchange.failure`.
        is_sent: True once the first byte of the request may have left.
    """
    table = _table()
    row = table.failures.get((failure, is_sent))
    return row or table.rows["connection_reset" if is_sent else "connect_failure"]


def pause_rules() -> Mapping[str, PauseRule]:
    """Return every pause rule by its name."""
    return _table().pauses


def hint(kind: str, **numbers: int | str) -> dict[str, str]:
    """Make the wire form of a hint.

    Args:
        kind: row of the table's section ``hints``.
        numbers: values for the sentence's places; numbers, or words of the bridge's own tables.

    Raises:
        KeyError: unknown kind, or a place without a value.
    """
    return {"kind": kind, "message": _table().hints[kind].format(**numbers)}


def warning(kind: str, **places: int | str) -> dict[str, str]:
    """Make the wire form of a warning.

    Args:
        kind: row of the table's section ``warnings``.
        places: values for the sentence's places, as for `hint`.

    Raises:
        KeyError: unknown kind, or a place without a value.
    """
    return {"kind": kind, "message": _table().warnings[kind].format(**places)}


def rule(kind: str) -> dict[str, str]:
    """Make the members of ``error.data`` that say what is wrong with a message.

    Raises:
        KeyError: unknown kind.
    """
    return {"rule": kind, "sentence": _table().rules[kind]}


class BridgeError(Exception):
    """A call that ends in a wire error; the only exception that crosses module borders.

    Args:
        kind: row of the sections ``wire`` or ``upstream``.
        data: other members of the wire error's ``data``.
        code: wire code, needed for kinds of ``upstream``, whose code is the upstream's ``errorId``.
    """

    def __init__(self, kind: str, data: Mapping[str, Any] | None = None, code: int | None = None) -> None:
        row = wire_row(kind)
        super().__init__(row.message)
        self.kind = kind
        self.message = row.message
        self.code: int = _pick_code(row, data, code)
        self.data: dict[str, Any] = {"kind": kind, **(data or {})}


def _pick_code(row: Row, data: Mapping[str, Any] | None, code: int | None) -> int:
    for candidate in (code, row.code, (data or {}).get("errorId"), row.error_id):
        if candidate is not None:
            return int(candidate)
    raise ValueError(f"kind {row.kind!r} has no code of its own; hand one in")
