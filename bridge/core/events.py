"""The table of events ``schemas/events.json`` as values: every notable thing that can happen, spelled once.

The log is one reader of it, ``docs/operations.md`` another. Nothing here logs anything; the table is read on
first use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

LEVELS: Final = ("debug", "info", "warning", "error")
"""From the quietest."""


class EventRow(NamedTuple):
    """One kind of event."""

    level: str
    """One of `LEVELS`."""
    sentence: str
    """Template over the fields, ``{name}``; a field that is missing is shown as ``?``."""
    description: str
    """When it is said, for the operator's documentation."""
    fields: Mapping[str, str]
    """Name to type: ``string`` ``integer`` ``number`` ``boolean``, with ``?`` if it may be null."""


@cache
def events() -> Mapping[str, EventRow]:
    """Return every event by its name, in the order of the documentation."""
    from bridge.core.resources import load_json  # not needed by those who ask for the levels alone

    table = load_json("events.json")["events"]
    return {entry["name"]: EventRow._make(entry[column] for column in EventRow._fields) for entry in table}


def render_sentence(name: str, fields: Mapping[str, Any]) -> str:
    """Return the sentence of an event with its fields filled in.

    Args:
        name: a row of `events`.
        fields: numbers and texts for the template; missing ones are shown as ``?``.
    """
    return events()[name].sentence.format_map(defaultdict(lambda: "?", fields))
