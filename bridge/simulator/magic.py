"""The published table of magic task ids: each has a fixed effect and needs no set-up.

The numbers are a promise to users: rows may be added, never moved. `docs/simulator.md` shows this
table, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from bridge.simulator import replies
from bridge.simulator.faults import ENCODINGS, FAULTS
from bridge.simulator.model import IMAGE_KINDS, Task

BASE: Final = 9_000_000_000_000_000
"""First magic id. The last usable id is 2**53 - 1 = BASE + 7_199_254_740_991."""

FAULTS_AT: Final = 1000
STATUSES_AT: Final = 2000
SITUATIONS_AT: Final = 3000
VARIANTS_AT: Final = 3100
_ONCE: Final = ((1, 999, 5000), (1001, 1499, 500), (2200, 2599, 2000), (3101, 3499, 500))
"""Numbers from and to, and what to add to one so that only the first call about the id is broken."""


class Situation(NamedTuple):
    """A task in a state that the rules have something to say about."""

    name: str
    summary: str
    changes: Mapping[str, Any] = {}
    """What is different from a fresh task, unless it depends on the method or the window."""


SITUATIONS: Final[Mapping[int, Situation]] = {
    1: Situation("late", "the task was completed 30 s longer ago than the window: error 16"),
    2: Situation("duplicate", "the task was reported before: error 16", {"reported": True}),
    3: Situation("wrong_kind", "the task is of a kind that the called method does not fit: error 16"),
    4: Situation(
        "language", "an image task of the Russian pool: error 16", {"kind": "image", "language_pool": "rn"}
    ),
    5: Situation("ended_in_error", "the task ended in error: error 16", {"ended_in_error": True}),
    6: Situation("other_account", "the task belongs to another account: error 16", {"account": "0" * 12}),
    7: Situation("no_such_task", "the id was never issued: error 16"),
    8: Situation("other_spelling", "as 7, answered with `ERROR_NO_SUCH_CAPTCHA_ID`"),
    9: Situation(
        "plain_v2",
        "a plain reCAPTCHA V2 task: `reportCorrectRecaptcha` is taken and ignored",
        {"kind": "recaptcha_v2"},
    ),
    10: Situation("nearly_late", "completed 5 s before the window ends: taken, unless the call is slow"),
}
OTHER_SPELLING: Final = SITUATIONS[8]

Variant = tuple[str, Mapping[str, Any]]


def _run(first: int, fault: str, param: str, *values: Any) -> dict[int, Variant]:
    """Return variants of a fault that differ in one parameter, numbered from `first` on."""
    return {number: (fault, {param: value}) for number, value in enumerate(values, first)}


VARIANTS: Final[Mapping[int, Variant]] = {
    1: ("status", {"status": 429, "retryAfterSeconds": 1}),
    2: ("status", {"status": 429, "retryAfterSeconds": 2, "retryAfterForm": "date"}),
    3: ("status", {"status": 429, "retryAfterSeconds": 120}),
    4: ("status", {"status": 429, "retryAfterForm": "junk"}),
    5: ("status", {"status": 503, "retryAfterSeconds": 1}),
    6: ("status", {"status": 503, "retryAfterSeconds": 2, "retryAfterForm": "date"}),
    7: ("status", {"status": 503, "retryAfterSeconds": 120}),
    8: ("status", {"status": 500, "taken": True}),
    **_run(9, "redirect", "status", 301, 302, 308),
    12: ("hang", {"taken": True}),
    13: ("html", {"taken": True}),
    14: ("empty", {"taken": True}),
    **_run(15, "latency", "seconds", 5, 15),
    17: ("gzip", {"bytes": 209_715_200}),
    **_run(18, "verdict_status", "status", 404, 429, 403),
    **_run(30, "not_object", "text", "null", '"success"', "{}", '{"errorId":0,"status":"succ'),
    34: ("not_object", {"text": '{"errorId":0,"errorId":16,"status":"success"}'}),
    35: ("not_object", {"text": '{"errorId":0,"status":"success","more":{"a":[1]}}'}),
    40: ("error_id_type", {"missing": True}),
    **_run(41, "error_id_type", "errorId", None, True, 0.5, -1, 2**31, [0]),
    50: ("error", {"errorId": 2**31 - 1, "errorCode": "ERROR_HIGHEST"}),
    51: ("error", {"errorId": 12, "errorCode": "ERROR_BAD_DUPLICATES"}),
    52: ("error", {"errorId": 16, "errorCode": replies.OTHER_SPELLING}),
    53: ("error", {"errorId": 16, "errorCode": None}),
    54: ("error", {"errorId": 9999, "errorCode": "ERROR_KEY_DOES_NOT_EXIST"}),
    55: ("error", {"errorId": 24, "errorDescription": "line one\nline two\tand \x1b[31mred\x1b[0m \x00"}),
    **_run(60, "wrong_date", "skewSeconds", 300.0, -300.0),
    **_run(62, "wrong_date", "form", "missing", "junk"),
    **_run(70, "echo_key", "encoding", *ENCODINGS),
    85: ("close_idle", {"seconds": 1.0}),
}
"""Faults of the table above with other parameters, by number after `VARIANTS_AT`."""


class Effect(NamedTuple):
    """What a magic id does."""

    fault: str | None
    params: Mapping[str, Any]
    only_first: bool
    situation: Situation | None = None


def look_up(task_id: int) -> Effect | None:
    """Return what a task id does, or None if it is an ordinary one."""
    return _effects().get(task_id - BASE)


@cache
def _effects() -> Mapping[int, Effect]:
    broken: dict[int, Variant] = {
        **{number: ("error", {"errorId": number, "errorCode": None}) for number in range(1, FAULTS_AT)},
        **{FAULTS_AT + kind.number: (name, {}) for name, kind in FAULTS.items() if kind.number},
        **{STATUSES_AT + status: ("status", {"status": status}) for status in range(200, 600)},
        **{VARIANTS_AT + number: variant for number, variant in VARIANTS.items()},
    }
    effects = {
        number: Effect(fault, FAULTS[fault].fill(given), False) for number, (fault, given) in broken.items()
    }
    for first, last, shift in _ONCE:
        for number in effects.keys() & range(first, last + 1):
            effects[number + shift] = effects[number]._replace(only_first=True)
    for number, situation in SITUATIONS.items():
        effects[SITUATIONS_AT + number] = Effect(None, {}, False, situation)
    return effects


def place(task: Task, situation: Situation | None, window_s: float) -> bool:
    """Bring the fresh task of a magic id into its situation, if any; False if it was never issued."""
    if situation is None:
        return True
    vars(task).update(situation.changes)
    match situation.name:
        case "late":
            task.end_time -= window_s + 30
        case "nearly_late":
            task.end_time -= max(window_s - 5, 0)
        case "wrong_kind":
            task.kind = "recaptcha_v2" if task.kind in IMAGE_KINDS else "image"
    return situation.name not in ("no_such_task", "other_spelling")


def describe() -> dict[str, Any]:
    """Return the table as the control endpoint shows it."""
    errors = {number: replies.error_code(number) for number in sorted(replies.ERRORS) if number < FAULTS_AT}
    faults = {FAULTS_AT + kind.number: name for name, kind in FAULTS.items() if kind.number}
    situations = {SITUATIONS_AT + number: row.name for number, row in SITUATIONS.items()}
    return {
        "base": BASE,
        "errors": [{"taskId": BASE + number, "errorCode": code} for number, code in errors.items()],
        "faults": [{"taskId": BASE + number, "fault": name} for number, name in faults.items()],
        "statuses": {"from": BASE + STATUSES_AT + 200, "to": BASE + STATUSES_AT + 599},
        "situations": [{"taskId": BASE + number, "situation": name} for number, name in situations.items()],
        "variants": [
            {"taskId": BASE + VARIANTS_AT + number, "fault": name, "params": dict(given)}
            for number, (name, given) in VARIANTS.items()
        ],
    }
