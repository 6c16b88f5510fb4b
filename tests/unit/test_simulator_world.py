"""The vendor's rules as the simulator reads them, without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import replies
from bridge.simulator.world import KINDS, METHODS, Settings, Task, World, read_body

NOW = 1_700_000_000.0
KEY = "0123456789abcdef0123456789abcdef"
OWN = "a" * 12

FITS = {
    "reportIncorrectImageCaptcha": {"image", "coordinates"},
    "reportIncorrectRecaptcha": {
        "recaptcha_v2",
        "recaptcha_v2_enterprise",
        "recaptcha_v3",
        "recaptcha_v3_enterprise",
    },
    "reportCorrectRecaptcha": {
        "recaptcha_v2",
        "recaptcha_v2_enterprise",
        "recaptcha_v3",
        "recaptcha_v3_enterprise",
    },
    "reportIncorrectHcaptcha": {"hcaptcha"},
}


def make_body(**members: Any) -> bytes:
    """Return a report's body; members given replace the good ones."""
    return json.dumps({"clientKey": KEY, "taskId": 7} | members).encode()


def make_world(**settings: Any) -> World:
    """Return an empty world with settings."""
    made = Settings()
    for name, value in settings.items():
        setattr(made, name, value)
    return World(made)


def report(
    world: World, method: str = "reportIncorrectImageCaptcha", now: float = NOW, body: bytes = b""
) -> tuple[int, str]:
    """Report task 7; return error id and reason."""
    judgement = world.judge(method, read_body(body or make_body(), world.settings.strict), OWN, now)
    assert json.loads(judgement.body)["errorId"] == judgement.error_id
    return judgement.error_id, judgement.reason


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_method_must_fit_the_kind(method: str, kind: str) -> None:
    """A report is taken exactly if its method is made for the kind of the task."""
    world = make_world()
    world.add(Task(7, kind, NOW))
    expected = 0 if kind in FITS[method] else 16
    assert report(world, method)[0] == expected
    assert world.tasks[7].reported is (expected == 0)


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(0, (0, "taken")), (59.9, (0, "taken")), (60, (0, "taken")), (60.1, (16, "late")), (-5, (0, "taken"))],
)
def test_window_is_sixty_seconds(age: float, verdict: tuple[int, str]) -> None:
    """A report counts up to 60 s after the task's end and not later."""
    world = make_world()
    world.add(Task(7, "image", NOW - age))
    assert report(world) == verdict


def test_window_can_be_made_shorter() -> None:
    """The setting for the window replaces the 60 s."""
    world = make_world(window_s=2)
    world.add(Task(7, "image", NOW - 3))
    assert report(world) == (16, "late")


def test_second_report_is_a_duplicate() -> None:
    """A task has one report."""
    world = make_world()
    assert report(world) == (0, "taken")
    assert report(world) == (16, "duplicate")


def test_one_report_whatever_the_method() -> None:
    """Correct and incorrect reports of one task share the one report."""
    world = make_world()
    world.add(Task(7, "recaptcha_v3", NOW))
    assert report(world, "reportCorrectRecaptcha") == (0, "taken")
    assert report(world, "reportIncorrectRecaptcha") == (16, "duplicate")


def test_praise_of_plain_v2_is_ignored() -> None:
    """A correct report of a plain V2 task is taken and flagged."""
    world = make_world()
    world.add(Task(7, "recaptcha_v2", NOW))
    assert report(world, "reportCorrectRecaptcha") == (0, "ignored")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"language_pool": "rn"}, "language"),
        ({"ended_in_error": True}, "ended_in_error"),
        ({"account": "b" * 12}, "other_account"),
        ({"reported": True}, "duplicate"),
    ],
)
def test_task_state_refuses(changed: dict[str, Any], reason: str) -> None:
    """Each state that forbids a report gives error 16 and leaves the task alone."""
    world = make_world()
    world.add(Task(7, "image", NOW, **changed))
    assert report(world) == (16, reason)


def test_language_counts_for_images_only() -> None:
    """A Russian pool does not stop a report about a token."""
    world = make_world()
    world.add(Task(7, "recaptcha_v2", NOW, language_pool="rn"))
    assert report(world, "reportIncorrectRecaptcha") == (0, "taken")


def test_auto_mode_makes_a_task_per_account() -> None:
    """An unknown id is a fresh task of the caller's, so that two accounts may use the same id."""
    world = make_world()
    assert report(world) == (0, "taken")
    facts = read_body(make_body(), True)
    assert world.judge("reportIncorrectImageCaptcha", facts, "b" * 12, NOW).taken


def test_fresh_task_ages_from_its_first_call() -> None:
    """A fresh task is completed at the first call, so it is too old a minute after."""
    world = make_world()
    world.find(7, "reportIncorrectImageCaptcha", OWN, NOW)
    assert report(world, now=NOW + 61) == (16, "late")


def test_without_auto_unknown_ids_are_refused() -> None:
    """With auto mode off an id that nobody created is error 16."""
    assert report(make_world(auto=False)) == (16, "no_such_task")


def test_unknown_method_is_fourteen() -> None:
    """A wrong method name wins over everything else."""
    assert report(make_world(), "reportIncorrectRecaptchaa", body=b"junk") == (14, "no_such_method")


@pytest.mark.parametrize(
    ("state", "error_id"),
    [
        ("ok", 0),
        ("unknown", 1),
        ("zero_balance", 10),
        ("ip_not_allowed", 11),
        ("ip_blocked", 21),
        ("suspended", 55),
    ],
)
def test_account_state_decides(state: str, error_id: int) -> None:
    """Each state of an account has its error, and a refused key takes nothing."""
    world = make_world()
    world.accounts[OWN] = state
    assert report(world)[0] == error_id
    assert bool(world.fresh) is (error_id == 0)


def test_other_keys_follow_their_setting() -> None:
    """Keys in no account have the state that the setting gives."""
    world = make_world(other_keys="unknown")
    assert report(world) == (1, "key_unknown")
    world.accounts[OWN] = "ok"
    assert report(world) == (0, "taken")


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
    world = make_world()
    judged = world.judge("reportIncorrectImageCaptcha", read_body(body, True), OWN, NOW)
    assert (judged.error_id, judged.reason) == verdict
    assert not world.fresh


def test_lenient_mode_lets_other_members_pass() -> None:
    """Without strictness further members change nothing, and stay visible."""
    world = make_world(strict=False)
    body = make_body(softId=3)
    assert report(world, body=body) == (0, "taken")
    assert read_body(body, False).body_keys == ("clientKey", "taskId", "softId")


def test_repeated_members_stay_visible() -> None:
    """Names that are sent twice are listed twice."""
    assert read_body(b'{"taskId":1,"clientKey":"k","taskId":1}', True).body_keys == (
        "taskId",
        "clientKey",
        "taskId",
    )


@pytest.mark.parametrize(
    ("spelling", "code"),
    [("CAPCHA", "ERROR_NO_SUCH_CAPCHA_ID"), ("CAPTCHA", "ERROR_NO_SUCH_CAPTCHA_ID")],
)
def test_both_spellings_of_sixteen(spelling: str, code: str) -> None:
    """The setting chooses how error 16 is spelled."""
    world = make_world(spelling=spelling, auto=False)
    judged = world.judge("reportIncorrectImageCaptcha", read_body(make_body(), True), OWN, NOW)
    assert json.loads(judged.body)["errorCode"] == code
    other = world.judge("reportIncorrectImageCaptcha", read_body(b"{}", True), OWN, NOW)
    assert json.loads(other.body)["errorCode"] == "ERROR_KEY_DOES_NOT_EXIST"


@given(st.binary(max_size=200))
def test_any_body_is_read(body: bytes) -> None:
    """No bytes make the reader raise."""
    facts = read_body(body, True)
    assert facts.refusal is not None or (facts.client_key and facts.task_id)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_any_json_is_judged(value: Any) -> None:
    """Any JSON in place of the task id gets a verdict, never an exception."""
    world = make_world()
    body = json.dumps({"clientKey": KEY, "taskId": value}).encode()
    assert report(world, body=body) == (24, "task_id_missing")


def test_forgets_oldest_fresh_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh tasks are bounded; the oldest go first."""
    monkeypatch.setattr("bridge.simulator.world.MAX_TASKS", 3)
    world = make_world()
    for task_id in range(1, 6):
        world.find(task_id, "reportIncorrectHcaptcha", OWN, NOW)
    assert [task_id for _, task_id in world.fresh] == [3, 4, 5]


def test_new_ids_avoid_created_ones() -> None:
    """An id handed out is one that no created task has."""
    world = make_world()
    world.add(Task(1_000_000, "image", NOW))
    assert [world.new_id(), world.new_id()] == [1_000_001, 1_000_002]


def test_every_error_has_code_and_description() -> None:
    """The table of errors is complete in itself."""
    for error_id, (code, description) in replies.ERRORS.items():
        assert error_id > 0
        assert code.startswith("ERROR_")
        assert description.endswith(".")
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
