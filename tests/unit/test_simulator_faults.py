"""Which fault breaks a call, for how long, and what the published tables say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import magic
from bridge.simulator.faults import FAULTS, FaultType
from bridge.simulator.scenario import SCENARIO, check
from bridge.simulator.state import State

DOC = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
IMAGE = "reportIncorrectImageCaptcha"
TOKEN = "reportIncorrectRecaptcha"
FAULT = SCENARIO["properties"]["faults"]["items"]


def summary_of(kind: FaultType) -> str:
    """Return what a fault does, as the documentation says it."""
    sentence = (kind.play.__doc__ or "").removesuffix(".")
    return sentence[0].lower() + sentence[1:]


def make_book(*wanted: dict[str, Any]) -> State:
    """Return a state with faults armed at time 0."""
    for fault in wanted:
        check(fault, FAULT)
    return State({"faults": list(wanted)}, lambda: 0.0, lambda: 0.0)


def pick(book: State, method: str = IMAGE, task_id: int | None = 7, now: float = 1.0) -> str | None:
    """Return the name of the fault that breaks a call."""
    book.now = lambda: now
    fault = book.pick("call", method, task_id)
    return None if fault is None else str(fault["fault"])


def test_closest_tie_wins() -> None:
    """A fault of the task goes before one of the method, that before one of all."""
    book = make_book(
        {"fault": "html"},
        {"fault": "empty", "method": IMAGE},
        {"fault": "gzip", "taskId": 7},
        {"fault": "garbage"},
    )
    assert pick(book) == "gzip"
    assert pick(book, task_id=8) == "empty"
    assert pick(book, TOKEN, 8) == "html"
    assert pick(book, TOKEN, None) == "html"


def test_count_and_skip_are_used_up() -> None:
    """A fault lets some calls pass, breaks some, and is gone."""
    book = make_book({"fault": "html", "skip": 2, "count": 2})
    assert [pick(book) for _ in range(6)] == [None, None, "html", "html", None, None]
    assert book.list("faults") == []


def test_skipping_fault_gives_way() -> None:
    """While a fault lets calls pass, the next one in rank has them."""
    book = make_book({"fault": "empty"}, {"fault": "html", "taskId": 7, "skip": 1})
    assert [pick(book), pick(book)] == ["empty", "html"]


def test_fault_ends_with_its_time() -> None:
    """A fault of limited length is disarmed after it."""
    book = make_book({"fault": "html", "forSeconds": 10})
    assert pick(book, now=9.9) == "html"
    assert pick(book, now=10.0) is None


def test_early_faults_act_before_reading_unless_tied() -> None:
    """`reset_before` acts on the connection, but on the call if it has to know the call."""
    book = make_book({"fault": "reset_before", "count": 1}, {"fault": "reset_before", "taskId": 7})
    assert pick(book) == "reset_before"
    assert pick(book, task_id=8) is None
    early = book.pick("begin")
    assert early is not None
    assert book.pick("begin") is None


def test_disarming_by_number_or_all() -> None:
    """One fault or all can be disarmed, and the number disarmed is told."""
    book = make_book({"fault": "html"}, {"fault": "empty"})
    assert book.clear_faults(1) == 1
    assert book.clear_faults(1) == 0
    assert pick(book) == "empty"
    assert book.clear_faults() == 1


def test_parameters_have_defaults() -> None:
    """An armed fault has every parameter, and each default is of its documented shape."""
    for name, kind in FAULTS.items():
        needed = {"forSeconds": 1} if name == "refuse" else {}
        (fault,) = make_book({"fault": name, **needed}).list("faults")
        assert fault["fault"] == name
        assert {param: fault[param] for param in kind.params} == kind.params
        check({"fault": name, **kind.params, **needed}, FAULT)


def test_numbers_are_unique_and_pinned() -> None:
    """The published numbers of faults stay what they are."""
    numbers = {name: kind.number for name, kind in FAULTS.items() if kind.number}
    assert sorted(numbers.values()) == list(range(1, 34))
    pinned = {"latency": 1, "hang": 2, "reset_after": 5, "status": 16, "echo_key": 27, "raw": 33}
    assert {name: numbers[name] for name in pinned} == pinned


def render_markdown() -> str:
    """Return the table of magic ids as the documentation shows it."""
    told = magic.describe()
    summaries = {name: summary_of(kind) for name, kind in FAULTS.items()}
    # What a situation is stands in the documentation alone.
    summaries |= dict(re.findall(r"^\| 90000000000030\d\d \| `(\w+)` \| (.+) \|$", DOC, re.MULTILINE))
    lines = [
        f"All ids are {magic.BASE} plus a number; the highest task id is {2**53 - 1}.",
        "",
        "| Numbers | Effect | Only on the first call about the id |",
        "| --- | --- | --- |",
        "| 1 to 999 | answers that `errorId`; 16 in the spelling of the method | add 5000 |",
        "| 1001 to 1499 | the faults below, with their defaults | add 500 |",
        "| 2200 to 2599 | answers HTTP status number - 2000 | add 2000 |",
        "| 3001 to 3099 | the situations below | |",
        "| 3101 to 3499 | the variants below | add 500 |",
    ]
    tables: list[tuple[str, str, str, Callable[..., str]]] = [
        ("| Error |", "errors", "errorCode", lambda row: ""),
        ("| Fault | What it does |", "faults", "fault", lambda row: f" {summaries[row['fault']]} |"),
        (
            "| Situation | What it is |",
            *("situations", "situation"),
            lambda row: f" {summaries[row['situation']]} |",
        ),
        ("| Fault | With |", "variants", "fault", lambda row: f" `{json.dumps(row['params'])}` |"),
    ]
    for head, part, name, more in tables:
        lines += ["", f"| Task id {head}", "| --- " * head.count("|") + "|"]
        lines += [f"| {row['taskId']} | `{row[name]}` |{more(row)}" for row in told[part]]
    return "\n".join(lines) + "\n"


def test_documented_magic_table_is_the_code() -> None:
    """The table of magic ids in the documentation is the one in the code."""
    written = DOC.split("<!-- magic:begin -->\n")[1].split("<!-- magic:end -->")[0]
    assert written == render_markdown()


def test_every_fault_is_documented() -> None:
    """Each fault has its line in the documentation, with its summary and parameters."""
    for name, kind in FAULTS.items():
        line = next(line for line in DOC.splitlines() if line.startswith(f"| `{name}` |"))
        assert summary_of(kind) in line
        assert all(f"`{param}`" in line for param in kind.params)


def test_every_error_id_has_a_magic_id() -> None:
    """Ids 1 to 999 above the base answer the error of that number, with its usual code."""
    for number in range(1, 1000):
        effect = magic.look_up(magic.BASE + number)
        assert (effect.fault, effect.params["errorId"]) == ("error", number)
        assert effect.params["errorCode"] is None
        assert effect.only_first is False


@pytest.mark.parametrize(
    ("number", "shift", "fault", "changed"),
    [
        (21, 5000, "error", {"errorId": 21}),
        (1001, 500, "latency", {}),
        (1033, 500, "raw", {}),
        (2404, 2000, "status", {"status": 404}),
        (3101, 500, "status", {"status": 429, "retryAfterSeconds": 1}),
    ],
)
def test_groups_have_a_first_call_only_twin(
    number: int, shift: int, fault: str, changed: dict[str, Any]
) -> None:
    """Each group has a second range that breaks the first call only."""
    for twin, only_first in ((number, False), (number + shift, True)):
        effect = magic.look_up(magic.BASE + twin)
        assert (effect.fault, effect.only_first) == (fault, only_first)
        assert {name: effect.params[name] for name in changed} == changed
        assert set(effect.params) == set(FAULTS[fault].params)


@pytest.mark.parametrize(
    "number", [-1, 0, 1000, 1034, 1499, 1534, 2000, 2199, 2600, 3000, 3099, 3499, 6000, 10**9]
)
def test_other_numbers_are_ordinary(number: int) -> None:
    """Ids in no table have no effect."""
    assert magic.look_up(magic.BASE + number) is magic.ORDINARY


def test_variants_are_as_documented() -> None:
    """Every variant is a fault that could be armed with those parameters."""
    for name, params in magic.VARIANTS.values():
        check({"fault": name, **params}, FAULT)
