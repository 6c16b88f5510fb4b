"""Totality of the table of events: what the code says is in the table, and the table says nothing more."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import bridge
from bridge.core.events import events

PACKAGE = Path(bridge.__file__).parent
SAYERS = {"emit", "event", "note", "_notify", "_tell", "_on_event", "append", "_emit"}
"""Functions that are given an event's name and fields, or append them as notices."""


def said() -> Iterator[tuple[str, str, set[str]]]:
    """Yield place, event name and literal field names of every event that the code can say."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name not in SAYERS:
                continue
            first, *rest = node.args
            if isinstance(first, ast.Tuple) and len(first.elts) == 2:
                first, *rest = first.elts
            elif name == "append":
                continue
            names = _strings(first)
            fields = {keyword.arg for keyword in node.keywords if keyword.arg}
            for extra in rest:
                if isinstance(extra, ast.Dict):
                    fields |= {str(key.value) for key in extra.keys if isinstance(key, ast.Constant)}
            for text in names:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text, fields


def _strings(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return _strings(node.body) + _strings(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_every_event_that_is_said_is_a_row() -> None:
    """No code says an event, or gives it a field, that the table does not have."""
    wrong = []
    for place, name, fields in said():
        if name not in events():
            wrong.append(f"{place} says {name}, which is no row")
        elif fields - set(events()[name].fields):
            wrong.append(f"{place} gives {name} the fields {sorted(fields - set(events()[name].fields))}")
    assert wrong == []


def test_every_row_is_said_somewhere() -> None:
    """No row is left over: each event's name stands in the code outside the table."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert [name for name in events() if f'"{name}"' not in text] == []
