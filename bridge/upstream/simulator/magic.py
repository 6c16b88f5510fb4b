"""The published table of magic task ids: each has a fixed effect and needs no set-up.

The numbers are a promise to users: rows may be added, never moved. `docs/simulator.md` shows this
table as `render_markdown` writes it, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from bridge.upstream.simulator import replies
from bridge.upstream.simulator.fault_table import FAULTS, MAX_TASK_ID
from bridge.upstream.simulator.scripts import ENCODINGS
from bridge.upstream.simulator.world import IMAGE_KINDS, METHODS, Task

BASE: Final = 9_000_000_000_000_000
"""First magic id. The last usable id is 2**53 - 1 = BASE + 7_199_254_740_991."""

ERRORS_AT: Final = 0
FAULTS_AT: Final = 1000
STATUSES_AT: Final = 2000
SITUATIONS_AT: Final = 3000
VARIANTS_AT: Final = 3100
ONCE: Final[Mapping[int, int]] = {FAULTS_AT: 500, STATUSES_AT: 2000, VARIANTS_AT: 500, ERRORS_AT: 5000}
"""Group -> what to add to an id so that only the first call about it is broken."""


class Situation(NamedTuple):
    """A task in a state that the rules have something to say about."""

    name: str
    summary: str


SITUATIONS: Final[Mapping[int, Situation]] = {
    1: Situation("late", "the task was completed 30 s longer ago than the window: error 16"),
    2: Situation("duplicate", "the task was reported before: error 16"),
    3: Situation("wrong_kind", "the task is of a kind that the called method does not fit: error 16"),
    4: Situation("language", "an image task of the Russian pool: error 16"),
    5: Situation("ended_in_error", "the task ended in error: error 16"),
    6: Situation("other_account", "the task belongs to another account: error 16"),
    7: Situation("no_such_task", "the id was never issued: error 16"),
    8: Situation("other_spelling", "as 7, answered with `ERROR_NO_SUCH_CAPTCHA_ID`"),
    9: Situation("plain_v2", "a plain reCAPTCHA V2 task: `reportCorrectRecaptcha` is taken and ignored"),
    10: Situation("nearly_late", "completed 5 s before the window ends: taken, unless the call is slow"),
}

VARIANTS: Final[Mapping[int, tuple[str, Mapping[str, Any]]]] = {
    1: ("status", {"status": 429, "retryAfterSeconds": 1}),
    2: ("status", {"status": 429, "retryAfterSeconds": 2, "retryAfterForm": "date"}),
    3: ("status", {"status": 429, "retryAfterSeconds": 120}),
    4: ("status", {"status": 429, "retryAfterForm": "junk"}),
    5: ("status", {"status": 503, "retryAfterSeconds": 1}),
    6: ("status", {"status": 503, "retryAfterSeconds": 2, "retryAfterForm": "date"}),
    7: ("status", {"status": 503, "retryAfterSeconds": 120}),
    8: ("status", {"status": 500, "taken": True}),
    9: ("redirect", {"status": 301}),
    10: ("redirect", {"status": 302}),
    11: ("redirect", {"status": 308}),
    12: ("hang", {"taken": True}),
    13: ("html", {"taken": True}),
    14: ("empty", {"taken": True}),
    15: ("latency", {"seconds": 5}),
    16: ("latency", {"seconds": 15}),
    17: ("gzip", {"bytes": 209_715_200}),
    18: ("verdict_status", {"status": 404}),
    19: ("verdict_status", {"status": 429}),
    20: ("verdict_status", {"status": 403}),
    30: ("not_object", {"text": "null"}),
    31: ("not_object", {"text": '"success"'}),
    32: ("not_object", {"text": "{}"}),
    33: ("not_object", {"text": '{"errorId":0,"status":"succ'}),
    34: ("not_object", {"text": '{"errorId":0,"errorId":16,"status":"success"}'}),
    35: ("not_object", {"text": '{"errorId":0,"status":"success","more":{"a":[1]}}'}),
    40: ("error_id_type", {"missing": True}),
    41: ("error_id_type", {"errorId": None}),
    42: ("error_id_type", {"errorId": True}),
    43: ("error_id_type", {"errorId": 0.5}),
    44: ("error_id_type", {"errorId": -1}),
    45: ("error_id_type", {"errorId": 2**31}),
    46: ("error_id_type", {"errorId": [0]}),
    50: ("error", {"errorId": 2**31 - 1, "errorCode": "ERROR_HIGHEST"}),
    51: ("error", {"errorId": 12, "errorCode": "ERROR_BAD_DUPLICATES"}),
    52: ("error", {"errorId": 16, "errorCode": replies.OTHER_SPELLING}),
    53: ("error", {"errorId": 16, "errorCode": None}),
    54: ("error", {"errorId": 9999, "errorCode": "ERROR_KEY_DOES_NOT_EXIST"}),
    55: ("error", {"errorId": 24, "errorDescription": "line one\nline two\tand \x1b[31mred\x1b[0m \x00"}),
    60: ("wrong_date", {"skewSeconds": 300.0}),
    61: ("wrong_date", {"skewSeconds": -300.0}),
    62: ("wrong_date", {"form": "missing"}),
    63: ("wrong_date", {"form": "junk"}),
    **{70 + at: ("echo_key", {"encoding": name}) for at, name in enumerate(ENCODINGS)},
    85: ("close_idle", {"seconds": 1.0}),
}
"""Faults of the table above with other parameters, by number after `VARIANTS_AT`."""


class Effect(NamedTuple):
    """What a magic id does."""

    fault: str | None
    params: Mapping[str, Any]
    situation: str | None
    only_first: bool


def look_up(task_id: int) -> Effect | None:
    """Return what a task id does, or None if it is an ordinary one."""
    number = task_id - BASE
    if not 0 < number < 6000:
        return None
    known = _cache.get(number)
    if known is None:
        known = _cache[number] = _resolve(number)
    return known[0]


_cache: dict[int, tuple[Effect | None]] = {}
_NUMBERED: Final = {kind.number: name for name, kind in FAULTS.items() if kind.number}


def _resolve(number: int) -> tuple[Effect | None]:
    effect = _effect(number, False)
    if effect is None:
        for group, shift in ONCE.items():
            effect = _effect(number - shift, True)
            if effect is not None and _group_of(number - shift) == group:
                break
            effect = None
    return (effect,)


def _group_of(number: int) -> int:
    for start in (VARIANTS_AT, SITUATIONS_AT, STATUSES_AT, FAULTS_AT):
        if number >= start:
            return start
    return ERRORS_AT


def _effect(number: int, only_first: bool) -> Effect | None:
    if number <= ERRORS_AT:
        return None
    if number < FAULTS_AT:
        return _made("error", {"errorId": number, "errorCode": replies.error_code(number)}, only_first)
    if number - FAULTS_AT in _NUMBERED:
        return _made(_NUMBERED[number - FAULTS_AT], {}, only_first)
    if 200 <= number - STATUSES_AT <= 599:
        return _made("status", {"status": number - STATUSES_AT}, only_first)
    situation = SITUATIONS.get(number - SITUATIONS_AT)
    if situation is not None:
        return Effect(None, {}, situation.name, only_first)
    variant = VARIANTS.get(number - VARIANTS_AT)
    return _made(variant[0], variant[1], only_first) if variant is not None else None


def _made(fault: str, changed: Mapping[str, Any], only_first: bool) -> Effect:
    params = {name: default for name, (_, default) in FAULTS[fault].params.items()}
    return Effect(fault, {**params, **changed}, None, only_first)


def make_task(situation: str, task_id: int, method: str, account: str, now_s: float, window_s: float) -> Task:
    """Return the task of a situation other than ``no_such_task`` and ``other_spelling``."""
    task = Task(task_id, METHODS[method][1], now_s, account=account)
    if situation == "late":
        task.end_time = now_s - window_s - 30
    elif situation == "nearly_late":
        task.end_time = now_s - max(window_s - 5, 0)
    elif situation == "duplicate":
        task.reported = True
    elif situation == "wrong_kind":
        task.kind = "recaptcha_v2" if task.kind in IMAGE_KINDS else "image"
    elif situation == "language":
        task.kind, task.language_pool = "image", "rn"
    elif situation == "ended_in_error":
        task.ended_in_error = True
    elif situation == "other_account":
        task.account = "0" * 12
    elif situation == "plain_v2":
        task.kind = "recaptcha_v2"
    return task


def describe() -> dict[str, Any]:
    """Return the table as the control endpoint shows it."""
    return {
        "base": BASE,
        "errors": [
            {"taskId": BASE + number, "errorCode": replies.error_code(number)} for number in _listed()
        ],
        "faults": [{"taskId": BASE + FAULTS_AT + kind.number, "fault": name} for name, kind in _ordered()],
        "statuses": {"from": BASE + STATUSES_AT + 200, "to": BASE + STATUSES_AT + 599},
        "situations": [
            {"taskId": BASE + SITUATIONS_AT + number, "situation": row.name}
            for number, row in SITUATIONS.items()
        ],
        "variants": [
            {"taskId": BASE + VARIANTS_AT + number, "fault": name, "params": dict(params)}
            for number, (name, params) in VARIANTS.items()
        ],
    }


def _listed() -> list[int]:
    return [number for number in sorted(replies.ERRORS) if number < FAULTS_AT]


def _ordered() -> list[tuple[str, Any]]:
    return sorted(
        ((name, kind) for name, kind in FAULTS.items() if kind.number), key=lambda row: row[1].number
    )


def render_markdown() -> str:
    """Return the table as `docs/simulator.md` shows it."""
    import json

    lines = [
        f"All ids are {BASE} plus a number; the highest task id is {MAX_TASK_ID}.",
        "",
        "| Numbers | Effect | Only on the first call about the id |",
        "| --- | --- | --- |",
        "| 1 to 999 | answers that `errorId` | add 5000 |",
        "| 1001 to 1499 | the faults below, with their defaults | add 500 |",
        "| 2200 to 2599 | answers HTTP status number - 2000 | add 2000 |",
        "| 3001 to 3099 | the situations below | |",
        "| 3101 to 3499 | the variants below | add 500 |",
        "",
        "| Task id | Error |",
        "| --- | --- |",
    ]
    lines += [f"| {BASE + number} | `{replies.error_code(number)}` |" for number in _listed()]
    lines += ["", "| Task id | Fault | What it does |", "| --- | --- | --- |"]
    lines += [
        f"| {BASE + FAULTS_AT + kind.number} | `{name}` | {kind.summary} |" for name, kind in _ordered()
    ]
    lines += ["", "| Task id | Situation | What it is |", "| --- | --- | --- |"]
    lines += [
        f"| {BASE + SITUATIONS_AT + number} | `{row.name}` | {row.summary} |"
        for number, row in SITUATIONS.items()
    ]
    lines += ["", "| Task id | Fault | With |", "| --- | --- | --- |"]
    lines += [
        f"| {BASE + VARIANTS_AT + number} | `{name}` | `{json.dumps(dict(params), ensure_ascii=True)}` |"
        for number, (name, params) in sorted(VARIANTS.items())
    ]
    return "\n".join(lines) + "\n"
