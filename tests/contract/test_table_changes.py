"""Every single change of the error and the method table is seen by the properties of the mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain, combinations
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

import pytest

from bridge.core import errors
from bridge.core.resources import load_json
from bridge.reports import methods
from tests.contract import frozen
from tests.process import ROOT

PAUSES: Final = {row.name for row in frozen.MAPPING["pauses"]} | {None}
WORDS: Final[dict[str, set[Any]]] = {
    "retry": {"done", "again", "again_once", "again_refused", "wait"},
    "outcome": {"refused", "unknown", "not_sent", None},
    "pause": PAUSES,
    "wire": {"outcome_unknown", "upstream_http", "upstream_unreachable", "window_closed"},
    "detail": {"dns", "connect", "tls", "certificate", "proxy", None},
    "scope": {"key", "address", "method", "quality", "transport"},
    "polarity": {"incorrect", "correct"},
}
"""Columns with a closed list of words."""
PROSE: Final = {"message", "cause", "advice", "source", "summary"}
"""Columns for people, which may be reworded."""
NEW: Final = "ERROR_BRAND_NEW"


def other_values(column: str, value: Any) -> Iterator[Any]:
    """List what a cell could hold by mistake."""
    if column in WORDS:
        yield from WORDS[column] - {value}
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, None)
    elif isinstance(value, str):
        yield value + "x"
    elif value is None:
        yield 60
    elif column == "statuses":
        first, last = value
        yield from ([first + 1, last], [first - 1, last], [first, last + 1], [first, last - 1])
    else:
        yield from ([left for left in value if left != item] for item in value)
        yield [*value, NEW]


def damage(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[int], list[dict[str, Any]]]]:
    """Make all lists with one row left out, one cell changed, or one cell of two rows swapped.

    Two rows that differ in one cell alone are not swapped in it: they would only change places.

    Returns:
        What was done, to which rows, and the list.
    """
    for at, row in enumerate(rows):
        yield "left out", [at], rows[:at] + rows[at + 1 :]
        for column in row.keys() - PROSE:
            for value in other_values(column, row[column]):
                yield f"{column} {value}", [at], [*rows[:at], {**row, column: value}, *rows[at + 1 :]]
    for (at, one), (to, two) in combinations(enumerate(rows), 2):
        columns = [column for column in one.keys() - PROSE if one[column] != two[column]]
        if len(columns) > 1:
            for column in columns:
                swapped = list(rows)
                swapped[at], swapped[to] = {**one, column: two[column]}, {**two, column: one[column]}
                yield f"{column} swapped", [at, to], swapped


def is_seen(module: ModuleType, table: Any, faults: Callable[[], Iterator[Any]]) -> bool:
    """Tell whether the properties fail with another table in place of the module's own."""
    # As at first use: the module loads its table, and gets this one.
    load = cache(module._table.__wrapped__)
    forget_all(module)
    with patch.object(module, "load_json", lambda _: table), patch.object(module, "_table", load):
        try:
            return next(faults(), None) is not None
        except LookupError:
            return True
        finally:
            forget_all(module)


def forget_all(module: ModuleType) -> None:
    """Let a module remember no answer that it has made of its table."""
    for function in vars(module).values():
        if function is not module._table and hasattr(function, "cache_clear"):
            function.cache_clear()


def look_for_refusals(kinds: set[str]) -> Iterator[Any]:
    """Find faults of the upstream's errors; of those rows alone, to be quick."""
    rows = [row for row in frozen.MAPPING["upstream"] if row.kind in kinds]
    return chain(frozen.refusal_faults(4711, NEW, rows), frozen.cell_faults())


def look_at_cells(_kinds: set[str]) -> Iterator[Any]:
    """Find faults of what no answer shows."""
    return frozen.cell_faults()


def look_for_events(_kinds: set[str]) -> Iterator[Any]:
    """Find faults of attempts without a verdict."""
    statuses = (frozen.status_faults(status, b"") for status in frozen.CORNERS)
    return chain(frozen.failure_faults("gremlins"), *statuses, frozen.cell_faults())


@pytest.mark.parametrize(
    ("section", "look", "least"),
    [
        ("upstream", look_for_refusals, 4000),
        ("http", look_for_events, 500),
        ("failures", look_for_events, 300),
        ("wire", look_at_cells, 400),
        ("pauses", look_at_cells, 400),
    ],
)
def test_every_change_of_the_error_table_is_seen(section: str, look: Any, least: int) -> None:
    """A row left out, a cell changed or two cells swapped makes a property fail, whichever it is."""
    table = load_json("errors.json")
    assert list(look({row["kind"] for row in table["upstream"]})) == []
    names = [row.get("kind") for row in table[section]]
    unseen, count = [], 0
    for what, at, rows in damage(table[section]):
        count += 1
        if not is_seen(errors, {**table, section: rows}, partial(look, {names[each] for each in at})):
            unseen.append((what, at))
    assert unseen == []
    assert count > least


def test_every_change_of_the_method_table_is_seen() -> None:
    """A method or type left out, added, moved or swapped, and every changed flag, makes a property fail."""
    table = load_json("methods.json")
    look = partial(frozen.type_faults, str, NEW)
    assert list(look()) == []
    uncovered = "uncoveredTaskTypes"
    changed = [
        *(((what, at), {**table, "methods": rows}) for what, at, rows in damage(table["methods"])),
        *(
            ((uncovered, left), {**table, uncovered: left})
            for left in other_values(uncovered, table[uncovered])
        ),
    ]
    assert [what for what, other in changed if not is_seen(methods, other, look)] == []
    assert len(changed) > 100


def test_nothing_else_reads_the_frozen_lists() -> None:
    """No program, generator, client or other test knows the lists by name, so none can make them agree."""
    readers = [
        path.name
        for folder in ("bridge", "scripts", "tests", "clients", "bench", "schemas")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".ts", ".go", ".json", ".mjs") and "node_modules" not in path.parts
        if re.search(r"\bmapping\.json|\btask_types\.json", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["frozen.py"]
