"""The scenario file: its shape, its schema, and how it is read.

The control endpoint takes the same parts in the same words, so there is one description of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bridge.upstream.simulator.checks import Flag, Integer, List, Named, Node, NotValid, Number, Shape, Text
from bridge.upstream.simulator.fault_table import FAULT, MAX_TASK_ID, NAMED
from bridge.upstream.simulator.world import ACCOUNT_STATES, KINDS, POOLS

_WALL = Number(0, 100_000_000_000, "UNIX seconds on the simulator's clock")
_KEY = Text(longest=10_000, note="the account's key; only its fingerprint is kept")
_FINGERPRINT = Text(longest=12, note="the first 12 hex digits of the key's SHA-256")

TASK: Final = Named(
    "task",
    Shape(
        {
            "taskId": Integer(1, MAX_TASK_ID, "left out: the next free one from 1000000 on"),
            "kind": Text(*KINDS),
            "languagePool": Text(*POOLS),
            "endTime": _WALL,
            "ageSeconds": Number(-86_400, 100_000_000, "completed so long ago; default 0"),
            "endedInError": Flag("the task ended in error, so it cannot be reported"),
            "reported": Flag("the task was reported before"),
            "clientKey": _KEY,
            "account": _FINGERPRINT,
        },
        required=("kind",),
        not_both=(("endTime", "ageSeconds"), ("clientKey", "account")),
        note="a task; without clientKey or account it belongs to whoever asks",
    ),
)

ACCOUNT: Final = Named(
    "account",
    Shape(
        {"clientKey": _KEY, "account": _FINGERPRINT, "state": Text(*ACCOUNT_STATES)},
        required=("state",),
        one_of=("clientKey", "account"),
        note="an account and how it is answered",
    ),
)

SETTINGS: Final = Named(
    "settings",
    Shape(
        {
            "auto": Flag("an id that nobody created is a fresh task; default true"),
            "magic": Flag("the magic ids work; default true"),
            "strict": Flag("refuse members other than clientKey and taskId with error 24; default true"),
            "spelling": Text("CAPCHA", "CAPTCHA", note="spelling of error 16; default CAPCHA"),
            "contentType": Text("application/json", "text/html; charset=utf-8", note="of verdicts"),
            "latencySeconds": Number(0, 86_400, "wait so long before every answer; default 0"),
            "clockSkewSeconds": Number(
                -100_000_000, 100_000_000, "the simulator's clock runs ahead; default 0"
            ),
            "windowSeconds": Number(0, 86_400, "length of the report window; default 60"),
            "otherKeys": Text(*ACCOUNT_STATES, note="state of keys that are in no account; default ok"),
        },
        note="how the simulated upstream behaves",
    ),
)

PART_FIELDS: Final[Mapping[str, Node]] = {
    "settings": SETTINGS,
    "accounts": List(ACCOUNT),
    "tasks": List(TASK),
    "faults": List(FAULT),
}

STEP: Final = Shape(
    {
        "atSeconds": Number(0, 31_536_000, "seconds after the start"),
        **PART_FIELDS,
        "clearFaults": Flag("disarm all faults, before this step arms its own"),
        "disconnect": Flag("close all idle connections"),
    },
    required=("atSeconds",),
    note="changes at one moment",
)

SCENARIO: Final = Shape(
    {
        "$schema": Text(longest=1000),
        "description": Text(longest=10_000),
        **PART_FIELDS,
        "steps": List(STEP, "in any order"),
    },
    note="what the simulator does, from its start on; all times are in seconds",
)


def parse_scenario(text: str) -> dict[str, Any]:
    """Read a scenario.

    Raises:
        NotValid: it is not JSON or not of the documented shape; the sentence names the place.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        line = getattr(problem, "lineno", None)
        where = f" (line {line})" if line is not None else ""
        raise NotValid("", f"is not JSON{where}") from None
    SCENARIO.check(value)
    checked: dict[str, Any] = value
    return checked


def load_scenario(path: str) -> dict[str, Any]:
    """Read a scenario file.

    Raises:
        NotValid: as `parse_scenario`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotValid("", "is not UTF-8") from None
    return parse_scenario(text)


def length_s(scenario: Mapping[str, Any]) -> float:
    """Return when the last thing happens: a step begins, or a fault of limited length ends."""
    end = 0.0
    for step in ({"atSeconds": 0.0, **scenario}, *scenario.get("steps", ())):
        end = max(end, step["atSeconds"])
        for fault in step.get("faults", ()):
            end = max(end, step["atSeconds"] + fault.get("forSeconds", 0.0))
    return end


def scenario_schema() -> dict[str, Any]:
    """Return the draft-07 schema of a scenario file, as `schemas/scenario.json` holds it."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Scenario of report-bridge simulate",
        **SCENARIO.schema(),
        "definitions": {one.name: one.node.schema() for one in (TASK, ACCOUNT, SETTINGS, *NAMED)},
    }
