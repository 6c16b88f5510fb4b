"""The vendor's rules as the simulator reads them, without a socket."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import replies
from bridge.simulator.model import KINDS, METHODS, Model, make_task, read_body
from bridge.simulator.scenario import DEFAULTS

NOW = 1_700_000_000.0
KEY = "0123456789abcdef0123456789abcdef"
OWN = "a" * 12

TOKENS = {"recaptcha_v2", "recaptcha_v2_enterprise", "recaptcha_v3", "recaptcha_v3_enterprise"}
FITS = {
    "reportIncorrectImageCaptcha": {"image", "coordinates"},
    "reportIncorrectRecaptcha": TOKENS,
    "reportCorrectRecaptcha": TOKENS,
    "reportIncorrectHcaptcha": {"hcaptcha"},
}


def make_body(**members: Any) -> bytes:
    """Return a report's body; members given replace the good ones."""
    return json.dumps({"clientKey": KEY, "taskId": 7} | members).encode()


def make_model(**settings: Any) -> Model:
    """Return an empty model with settings."""
    return Model({**DEFAULTS, **settings})


def report(
    model: Model, method: str = "reportIncorrectImageCaptcha", now: float = NOW, body: bytes = b""
) -> tuple[int, str]:
    """Report task 7; return error id and reason."""
    judgement = model.judge(method, read_body(body or make_body()), OWN, now)
    assert json.loads(judgement.body)["errorId"] == judgement.error_id
    return judgement.error_id, judgement.reason


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_method_must_fit_the_kind(method: str, kind: str) -> None:
    """A report is taken exactly if its method is made for the kind of the task."""
    model = make_model()
    model.tasks[7] = make_task(7, kind, NOW)
    expected = 0 if kind in FITS[method] else 16
    assert report(model, method)[0] == expected
    assert model.tasks[7]["reported"] is (expected == 0)


@pytest.mark.parametrize(
    ("age", "settings", "verdict"),
    [
        *((age, {}, (0, "taken")) for age in (0, 59.9, 60, -5)),
        (60.1, {}, (16, "late")),
        (3, {"windowSeconds": 2}, (16, "late")),
    ],
)
def test_window_is_sixty_seconds(age: float, settings: dict[str, Any], verdict: tuple[int, str]) -> None:
    """A report counts up to 60 s after the task's end and not later, or as long as the setting says."""
    model = make_model(**settings)
    model.tasks[7] = make_task(7, "image", NOW - age)
    assert report(model) == verdict


@pytest.mark.parametrize("method", ["reportCorrectRecaptcha", "reportIncorrectRecaptcha"])
def test_second_report_is_a_duplicate(method: str) -> None:
    """A task has one report, which correct and incorrect reports share."""
    model = make_model()
    model.tasks[7] = make_task(7, "recaptcha_v3", NOW)
    assert report(model, "reportCorrectRecaptcha") == (0, "taken")
    assert report(model, method) == (16, "duplicate")


def test_praise_of_plain_v2_is_ignored() -> None:
    """A correct report of a plain V2 task is taken and flagged."""
    model = make_model()
    model.tasks[7] = make_task(7, "recaptcha_v2", NOW)
    assert report(model, "reportCorrectRecaptcha") == (0, "ignored")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"languagePool": "rn"}, "language"),
        ({"endedInError": True}, "ended_in_error"),
        ({"account": "b" * 12}, "other_account"),
        ({"reported": True}, "duplicate"),
    ],
)
def test_task_state_refuses(changed: dict[str, Any], reason: str) -> None:
    """Each state that forbids a report gives error 16 and leaves the task alone."""
    model = make_model()
    model.tasks[7] = make_task(7, "image", NOW, **changed)
    assert report(model) == (16, reason)


def test_language_counts_for_images_only() -> None:
    """A Russian pool does not stop a report about a token."""
    model = make_model()
    model.tasks[7] = make_task(7, "recaptcha_v2", NOW, languagePool="rn")
    assert report(model, "reportIncorrectRecaptcha") == (0, "taken")


def test_auto_mode_makes_a_task_per_account() -> None:
    """An unknown id is a fresh task of the caller's, so that two accounts may use the same id."""
    model = make_model()
    assert report(model) == (0, "taken")
    facts = read_body(make_body())
    assert model.judge("reportIncorrectImageCaptcha", facts, "b" * 12, NOW).taken


def test_fresh_task_ages_from_its_first_call() -> None:
    """A fresh task is completed at the first call, so it is too old a minute after."""
    model = make_model()
    model.find(7, "reportIncorrectImageCaptcha", OWN, NOW)
    assert report(model, now=NOW + 61) == (16, "late")


def test_without_auto_unknown_ids_are_refused() -> None:
    """With auto mode off an id that nobody created is error 16."""
    assert report(make_model(auto=False)) == (16, "no_such_task")


def test_unknown_method_is_fourteen() -> None:
    """A wrong method name wins over everything else."""
    assert report(make_model(), "reportIncorrectRecaptchaa", body=b"junk") == (14, "no_such_method")


@pytest.mark.parametrize(
    ("state", "error_id"),
    [
        *(("ok", 0), ("unknown", 1), ("zero_balance", 10)),
        *(("ip_not_allowed", 11), ("ip_blocked", 21), ("suspended", 55)),
    ],
)
def test_account_state_decides(state: str, error_id: int) -> None:
    """Each state of an account has its error, for figures as for reports, and a refused key takes nothing."""
    model = make_model()
    model.accounts[OWN] = state
    assert report(model)[0] == ask_spending(model)["errorId"] == error_id
    assert bool(model.fresh) is (error_id == 0)


def test_other_keys_follow_their_setting() -> None:
    """Keys in no account have the state that the setting gives."""
    model = make_model(otherKeys="unknown")
    assert report(model) == (1, "key_unknown")
    model.accounts[OWN] = "ok"
    assert report(model) == (0, "taken")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"", (22, "body_not_json")),
        (b"{", (22, "body_not_json")),
        (b"\xff\xfe{}", (22, "body_not_json")),
        (b"[" * 100_000, (22, "body_not_json")),
        (b"[]", (22, "body_not_object")),
        (b"7", (22, "body_not_object")),
        (b"{}", (1, "key_missing")),
        (make_body(clientKey=""), (1, "key_missing")),
        (make_body(clientKey=None), (1, "key_missing")),
        (make_body(clientKey=5), (1, "key_missing")),
        (make_body(taskId="7"), (24, "task_id_missing")),
        (make_body(taskId=True), (24, "task_id_missing")),
        (make_body(taskId=7.0), (24, "task_id_missing")),
        (make_body(taskId=0), (24, "task_id_missing")),
        (make_body(taskId=None), (24, "task_id_missing")),
        (make_body(languagePool="en"), (24, "body_members")),
        (b'{"clientKey":"k","taskId":7,"taskId":8}', (24, "body_members")),
    ],
)
def test_bad_body_is_refused(body: bytes, verdict: tuple[int, str]) -> None:
    """Every body but the documented one is refused, each kind of mistake with its own error."""
    model = make_model()
    judged = model.judge("reportIncorrectImageCaptcha", read_body(body), OWN, NOW)
    assert (judged.error_id, judged.reason) == verdict
    assert not model.fresh


def test_lenient_mode_lets_other_members_pass() -> None:
    """Without strictness further members change nothing, and stay visible, repeated ones twice."""
    body = make_body(softId=3)
    assert report(make_model(strict=False), body=body) == (0, "taken")
    assert read_body(body).body_keys == ("clientKey", "taskId", "softId")
    repeated = b'{"taskId":1,"clientKey":"k","taskId":1}'
    assert read_body(repeated).body_keys == ("taskId", "clientKey", "taskId")


@pytest.mark.parametrize(
    ("spelling", "image", "token"),
    [
        ("BY_METHOD", "ERROR_NO_SUCH_CAPCHA_ID", "ERROR_NO_SUCH_CAPTCHA_ID"),
        ("CAPCHA", "ERROR_NO_SUCH_CAPCHA_ID", "ERROR_NO_SUCH_CAPCHA_ID"),
        ("CAPTCHA", "ERROR_NO_SUCH_CAPTCHA_ID", "ERROR_NO_SUCH_CAPTCHA_ID"),
    ],
)
def test_both_spellings_of_sixteen(spelling: str, image: str, token: str) -> None:
    """Each method spells error 16 as its page does, unless the setting chooses one spelling for all."""
    model = make_model(spelling=spelling, auto=False)

    def code_of(method: str, body: bytes) -> str:
        code: str = json.loads(model.judge(method, read_body(body), OWN, NOW).body)["errorCode"]
        return code

    assert code_of("reportIncorrectImageCaptcha", make_body()) == image
    assert code_of("reportIncorrectHcaptcha", make_body()) == image
    assert code_of("reportIncorrectRecaptcha", make_body()) == token
    assert code_of("reportCorrectRecaptcha", make_body()) == token
    assert code_of("reportCorrectRecaptcha", b"{}") == "ERROR_KEY_DOES_NOT_EXIST"


@given(st.binary(max_size=200))
def test_any_body_is_read(body: bytes) -> None:
    """No bytes make the reader raise."""
    facts = read_body(body)
    assert facts.problem or set(facts.members) == set(facts.body_keys)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_json_is_judged(value: Any) -> None:
    """Any JSON in place of the task id gets a verdict, never an exception."""
    model = make_model()
    body = json.dumps({"clientKey": KEY, "taskId": value}).encode()
    assert report(model, body=body) == (24, "task_id_missing")


def test_forgets_oldest_fresh_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh tasks are bounded; the oldest go first."""
    monkeypatch.setattr("bridge.simulator.model.MAX_TASKS", 3)
    model = make_model()
    for task_id in range(1, 6):
        model.find(task_id, "reportIncorrectHcaptcha", OWN, NOW)
    assert [task_id for _, task_id in model.fresh] == [3, 4, 5]


def test_new_ids_avoid_created_ones() -> None:
    """An id handed out is one that no created task has."""
    model = make_model()
    model.tasks[1_000_000] = make_task(1_000_000, "image", NOW)
    assert [model.new_id(), model.new_id()] == [1_000_001, 1_000_002]


def test_every_error_has_a_code() -> None:
    """The table of errors is complete in itself."""
    for error_id, code in replies.ERRORS.items():
        assert error_id > 0
        assert code.startswith("ERROR_")
    assert replies.error_code(777) == "ERROR_SIMULATED_777"


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (1709164799.9, "Wed, 28 Feb 2024 23:59:59 GMT"),
    ],
)
def test_date_is_an_http_date(wall: float, text: str) -> None:
    """Dates have the one form that HTTP wants."""
    assert replies.http_date(wall) == text


# --- figures ----------------------------------------------------------------------------------


def ask_spending(model: Model, now: float = NOW, **members: Any) -> Any:
    """Ask for figures; return the answer's JSON."""
    body = json.dumps({"clientKey": KEY, **members}).encode()
    return json.loads(model.judge("getSpendingStats", read_body(body), OWN, now).body)


def test_records_are_hours_that_do_not_begin_at_full_ones() -> None:
    """Left to itself the answer has 24 records of an hour, the last of them the one that goes on."""
    data = ask_spending(make_model())["data"]
    assert len(data) == 24
    assert all(record["dateTill"] - record["dateFrom"] == 3599 for record in data)
    assert all(record["dateFrom"] % 3600 == 1_550_533_500 % 3600 == 2700 for record in data)
    assert [later["dateFrom"] - one["dateFrom"] for one, later in pairwise(data)] == [3600] * 23
    assert data[-1]["dateFrom"] <= NOW <= data[-1]["dateTill"]


@pytest.mark.parametrize(("age_s", "records"), [(24 * 3600, 24), (3600, 2), (0, 1), (-7200, 0), (10**6, 24)])
def test_date_says_where_the_day_begins(age_s: int, records: int) -> None:
    """The first record holds the date, and hours to come are left out."""
    date = int(NOW) - age_s
    data = ask_spending(make_model(), date=date)["data"]
    assert len(data) == records
    assert not data or data[0]["dateFrom"] <= date <= data[0]["dateTill"]


def test_task_counts_in_the_hour_of_its_end() -> None:
    """A task is counted once, where it ended; one put over it takes its place."""
    model = make_model(emptyHours=False)
    model.tasks[7] = make_task(7, "recaptcha_v2", NOW - 7200)
    model.tasks[7] = make_task(7, "recaptcha_v2", NOW - 3600)
    [record] = ask_spending(model, queue="Recaptcha Proxyless")["data"]
    assert (record["volume"], record["money"]) == (1, 0.002)
    assert record["dateFrom"] <= NOW - 3600 <= record["dateTill"]
    assert ask_spending(model, queue="English ImageToText")["data"] == []


def test_numbers_can_come_as_strings() -> None:
    """The setting puts every number of a record into a string."""
    model = make_model(numbersAsStrings=True)
    model.tasks[7] = make_task(7, "image", NOW)
    record = ask_spending(model)["data"][-1]
    assert all(isinstance(value, str) for value in record.values())
    assert (int(record["volume"]), float(record["money"])) == (1, 0.00067)


@pytest.mark.parametrize(
    ("settings", "members", "error_id"),
    [
        *(({}, bad, 24) for bad in ({"date": "1550533500"}, {"date": 1.5}, {"queue": 5}, {"softId": True})),
        ({}, {"taskId": 7}, 24),
        ({}, {"softId": 3, "ip": "192.0.2.1"}, 0),
        ({"strict": False}, {"more": 1}, 0),
    ],
)
def test_figures_want_the_documented_members(
    settings: dict[str, Any], members: dict[str, Any], error_id: int
) -> None:
    """A member of the wrong type, or one that is not documented, is refused; filters are taken."""
    assert ask_spending(make_model(**settings), **members)["errorId"] == error_id
