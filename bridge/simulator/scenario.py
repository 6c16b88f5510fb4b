"""The scenario file: its shape, its schema, and how it is read.

The control endpoint takes the same parts in the same words, so there is one description of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.simulator.faults import FAULT, MAX_TASK_ID
from bridge.simulator.model import ACCOUNT_STATES, KINDS, POOLS
from bridge.simulator.replies import JSON
from bridge.simulator.shapes import (
    DEFINITIONS,
    NotValid,
    Schema,
    array,
    check,
    flag,
    integer,
    named,
    number,
    read_json,
    shape,
    text,
)

_OWNER: Final = {
    "clientKey": text(longest=10_000, note="the account's key; only its fingerprint is kept"),
    "account": text(longest=12, note="the first 12 hex digits of the key's SHA-256"),
}

_TASK: Final = shape(
    "a task; without clientKey or account it belongs to whoever asks",
    "kind",
    ("endTime", "ageSeconds"),
    ("clientKey", "account"),
    taskId=integer(1, MAX_TASK_ID, "left out: the next free one from 1000000 on"),
    kind=text(*KINDS),
    languagePool=text(*POOLS),
    endTime=number(0, 100_000_000_000, "UNIX seconds on the simulator's clock"),
    ageSeconds=number(-86_400, 100_000_000, "completed so long ago; default 0"),
    endedInError=flag("the task ended in error, so it cannot be reported"),
    reported=flag("the task was reported before"),
    **_OWNER,
)

_ACCOUNT: Final = {
    **shape("an account and how it is answered", "state", state=text(*ACCOUNT_STATES), **_OWNER),
    "oneOf": [{"required": [name]} for name in _OWNER],
}

_SPENDING: Final = shape(
    "figures of getSpendingStats; without clientKey or account for whoever asks",
    "queue",
    "volume",
    ("clientKey", "account"),
    queue=text(longest=200, note="name of the queue, as the figures show it"),
    volume=integer(0, 1_000_000_000, "tasks in each of the hours"),
    money=number(0, 1_000_000_000, "spent in each of the hours; default: what the tasks cost"),
    hoursAgo=integer(0, 8760, "0, the default: the hour that goes on now"),
    hours=integer(1, 8760, "so many hours, from that one on back; default 1"),
    **_OWNER,
)

_SETTINGS: Final[Mapping[str, tuple[Any, Schema]]] = {
    "auto": (True, flag("an id that nobody created is a fresh task")),
    "magic": (True, flag("the magic ids work")),
    "strict": (True, flag("refuse members that are not documented with error 24")),
    "spelling": ("BY_METHOD", text("BY_METHOD", "CAPCHA", "CAPTCHA", note="of error 16")),
    "contentType": (JSON, text(JSON, "text/html; charset=utf-8", note="of verdicts")),
    "latencySeconds": (0.0, number(0, 86_400, "wait so long before every answer")),
    "clockSkewSeconds": (0.0, number(-100_000_000, 100_000_000, "the simulator's clock runs ahead")),
    "windowSeconds": (60.0, number(0, 86_400, "length of the report window")),
    "otherKeys": ("ok", text(*ACCOUNT_STATES, note="state of keys that are in no account")),
    "numbersAsStrings": (False, flag("getSpendingStats sends its numbers as strings")),
    "emptyHours": (True, flag("getSpendingStats sends hours without tasks, too")),
}
DEFAULTS: Final = {name: default for name, (default, _) in _SETTINGS.items()}
"""What can be changed about the simulated upstream while it runs, as it is at first."""
SETTINGS: Final = shape(
    "how the simulated upstream behaves",
    **{name: {**node, "default": default} for name, (default, node) in _SETTINGS.items()},
)

LISTS: Final = {
    "accounts": named("account", _ACCOUNT),
    "tasks": named("task", _TASK),
    "spending": named("spending", _SPENDING),
    "faults": FAULT,
}
"""What can be made or set, several at a time, and its shape."""
_PARTS: Final = {"settings": named("settings", SETTINGS), **{name: array(one) for name, one in LISTS.items()}}

_STEP: Final = shape(
    "changes at one moment",
    "atSeconds",
    atSeconds=number(0, 31_536_000, "seconds after the start"),
    clearFaults=flag("disarm all faults, before this step arms its own"),
    disconnect=flag("close all idle connections"),
    **_PARTS,
)

SCENARIO: Final = shape(
    "what the simulator does, from its start on; all times are in seconds",
    **{"$schema": text(longest=1000)},
    description=text(longest=10_000),
    steps=array(_STEP, "in any order"),
    **_PARTS,
)


def parse_scenario(text: str) -> dict[str, Any]:
    """Read a scenario.

    Raises:
        NotValid: it is not JSON or not of the documented shape; the sentence names the place.
    """
    scenario: dict[str, Any] = read_json(text)
    check(scenario, SCENARIO)
    return scenario


def load_scenario(path: str) -> dict[str, Any]:
    """Read a scenario file.

    Raises:
        NotValid: as `parse_scenario`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return parse_scenario(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise NotValid("", "is not UTF-8") from None


def length_s(scenario: Mapping[str, Any]) -> float:
    """Return when the last thing happens: a step begins, or a fault of limited length ends."""
    ends = [0.0]
    for step in (scenario, *scenario.get("steps", ())):
        begin = step.get("atSeconds", 0.0)
        ends += [begin, *(begin + fault.get("forSeconds", 0.0) for fault in step.get("faults", ()))]
    return max(ends)


def scenario_schema() -> dict[str, Any]:
    """Return the draft-07 schema of a scenario file, as `schemas/scenario.json` holds it."""
    head = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Scenario of report-bridge simulate",
    }
    return {**head, **SCENARIO, "definitions": DEFINITIONS}
