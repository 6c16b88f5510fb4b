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

BASE: Final = 9_000_000_000_000_000
"""First magic id. The last usable id is 2**53 - 1 = BASE + 7_199_254_740_991."""

FAULTS_AT: Final = 1000
STATUSES_AT: Final = 2000
SITUATIONS_AT: Final = 3000
VARIANTS_AT: Final = 3100
_ONCE: Final = ((1, 999, 5000), (1001, 1499, 500), (2200, 2599, 2000), (3101, 3499, 500))
"""Numbers from and to, and what to add to one so that only the first call about the id is broken."""


SITUATIONS: Final[Mapping[int, tuple[str, Mapping[str, Any]]]] = {
    1: ("late", {}),  # completed 30 s longer ago than the window
    2: ("duplicate", {"reported": True}),
    3: ("wrong_kind", {}),
    4: ("language", {"kind": "image", "languagePool": "rn"}),
    5: ("ended_in_error", {"endedInError": True}),
    6: ("other_account", {"account": "0" * 12}),
    7: ("no_such_task", {}),
    8: ("other_spelling", {}),  # as 7, and how its error is spelled
    9: ("plain_v2", {"kind": "recaptcha_v2"}),
    10: ("nearly_late", {}),  # completed 5 s before the window ends
}
"""Tasks in states that the rules have something to say about, by number after `SITUATIONS_AT`: the name, and
what is different from a fresh task unless that depends on the method or the window."""

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
    """What a task id does by itself."""

    fault: str | None = None
    params: Mapping[str, Any] = {}
    only_first: bool = False
    situation: str = ""
    changes: Mapping[str, Any] = {}


ORDINARY: Final = Effect()
"""Nothing."""


def look_up(task_id: int) -> Effect:
    """Return what a task id does."""
    return _effects().get(task_id - BASE, ORDINARY)


@cache
def _effects() -> Mapping[int, Effect]:
    broken: dict[int, Variant] = {
        **{number: ("error", {"errorId": number, "errorCode": None}) for number in range(1, FAULTS_AT)},
        **{FAULTS_AT + kind.number: (name, {}) for name, kind in FAULTS.items() if kind.number},
        **{STATUSES_AT + status: ("status", {"status": status}) for status in range(200, 600)},
        **{VARIANTS_AT + number: variant for number, variant in VARIANTS.items()},
    }
    effects = {number: Effect(fault, FAULTS[fault].fill(given)) for number, (fault, given) in broken.items()}
    for first, last, shift in _ONCE:
        for number in effects.keys() & range(first, last + 1):
            effects[number + shift] = effects[number]._replace(only_first=True)
    for number, (situation, changes) in SITUATIONS.items():
        effects[SITUATIONS_AT + number] = Effect(situation=situation, changes=changes)
    return effects


def describe() -> dict[str, Any]:
    """Return the table as the control endpoint shows it."""
    errors = {number: replies.error_code(number) for number in sorted(replies.ERRORS) if number < FAULTS_AT}
    faults = {FAULTS_AT + kind.number: name for name, kind in FAULTS.items() if kind.number}
    situations = {SITUATIONS_AT + number: name for number, (name, _) in SITUATIONS.items()}
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
