"""Writes the tables of docs/operations.md: events, figures, exit codes and states of the ledger.

The page is written by hand; what stands between two marks, ``<!-- begin NAME -->`` and ``<!-- end NAME -->``,
comes from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from bridge.core.events import events
from bridge.core.exits import EXITS
from bridge.ledger.trouble import READABLE, SENTENCES
from bridge.ops.metrics import render as render_figures

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
_MARKED = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->\n)", re.DOTALL)


def render() -> str:
    """Return the text of docs/operations.md with its tables as they should be.

    Raises:
        KeyError: the page marks a table that is not known here.
    """
    page = _PAGE.read_text(encoding="utf-8")
    missing = set(TABLES) - {found[2] for found in _MARKED.finditer(page)}
    if missing:
        raise KeyError(f"docs/operations.md has no place for {', '.join(sorted(missing))}")
    return _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def _events() -> str:
    return _table(
        ("Event", "Level", "When", "Fields"),
        (
            (
                f"`{name}`",
                row.level,
                row.description,
                "<br>".join(f"`{field}` {kind}" for field, kind in row.fields.items()) or "none",
            )
            for name, row in events().items()
        ),
    )


def _exit_codes() -> str:
    return _table(("Exit code", "Meaning"), ((str(code), meaning) for code, meaning in EXITS.items()))


def _ledger_states() -> str:
    return _table(
        ("State", "Meaning and way out", "Duplicates and pauses are"),
        (
            (f"`{kind}`", sentence, "still read from it" if kind in READABLE else "known from memory only")
            for kind, sentence in SENTENCES.items()
        ),
    )


def _figures() -> str:
    lines = render_figures(_SAMPLE, 0.0).splitlines()
    rows: list[tuple[str, str, str, str]] = []
    for number, line in enumerate(lines):
        if line.startswith("# HELP "):
            name, _, help = line.removeprefix("# HELP ").partition(" ")
            kind = lines[number + 1].rpartition(" ")[2]
            labels = re.findall(r'(\w+)="', lines[number + 2]) if number + 2 < len(lines) else []
            rows.append((f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels) or "none", help))
    return _table(("Figure", "Type", "Labels", "Meaning"), rows)


_SAMPLE: Final[Mapping[str, object]] = {
    "startedWall": 0.0,
    "outcomes": {"accepted": 0},
    "codes": {"16": 0},
    "inFlight": 0,
    "queued": 0,
    "latencyMs": {"count": 0, "p50": 0, "p95": 0, "p99": 0},
    "latencySumMs": 0,
    "replays": 0,
    "droppedLogLines": 0,
    "pauses": [{"scope": "key", "cause": "x", "state": "open"}],
    "advice": [{"kind": "few_tasks"}],
    "ledger": {"durable": True, "healthy": True, "owed": 0},
}

TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "events": _events,
    "exit-codes": _exit_codes,
    "figures": _figures,
    "ledger-states": _ledger_states,
}
"""Name of a mark -> what stands there."""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
