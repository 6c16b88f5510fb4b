"""Charts as inline SVG: stacked columns and bars. No script, no network; colours are the page's variables.

The page gives each its title and description, and puts the same numbers in a table behind it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate
from math import ceil, log10
from typing import Final

from bridge.cli.summary import Rows
from bridge.core.text import escape

WIDTH: Final = 340
HEIGHT: Final = 230
Picture = tuple[int, str]
"""Height and content."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 6, 16, 34


def markup(text: str) -> str:
    """Foreign text as a page may hold it: neither markup nor anything that turns the reading direction."""
    return html.escape(escape(text))


def columns(
    labels: Sequence[str], rows: Rows, shown: Sequence[str], wall: tuple[int, str] | None = None
) -> Picture:
    """Stacked columns.

    Args:
        labels: where each column begins; as many are written as there is room for.
        rows: the values of each column by colour variable.
        shown: which of them, from the bottom.
        wall: an upright line: before which column, and its text.
    """
    top = nice_ceiling(max((sum(row[name] for name in shown) for row in rows), default=0))
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = width / max(len(rows), 1)
    gap = min(2.0, step * 0.2)
    parts = []
    # Half a report is none.
    for part in (0.0, 1.0) if top % 2 else (0.0, 0.5, 1.0):
        y = _TOP + height * (1 - part)
        parts.append(f'<line class="axis" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 5, y + 4, short(top * part), 'text-anchor="end"'))
    for index, row in enumerate(rows):
        x = _LEFT + index * step + gap / 2
        tall = [row[name] / top * height for name in shown]
        for name, of, reached in zip(shown, tall, accumulate(tall), strict=True):
            if of:
                parts.append(_rect(x, _TOP + height - reached, step - gap, max(of, 0.6), name))
    every = max(1, ceil(len(rows) / max(1, int(width // (max(map(len, labels), default=1) * 6.5 + 10)))))
    for index, label in list(enumerate(labels))[::every]:
        # A label may not leave the picture: 7 units a character are a little more than it takes.
        x = min(_LEFT + index * step, WIDTH - len(label) * 3.5)
        parts.append(_text(x, HEIGHT - 16, label, 'text-anchor="middle"'))
    if wall is not None:
        x = _LEFT + wall[0] * step
        parts.append(f'<line class="wall" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{_TOP + height}"/>')
        parts.append(_text(x - 4, 13, wall[1], 'class="strong" text-anchor="end"'))
    return HEIGHT, "".join(parts)


def bars(rows: Sequence[tuple[str, int, str]]) -> Picture:
    """Bars that lie, each with its label above and its number at the end.

    Args:
        rows: label, value and colour variable.
    """
    most = max(value for _, value, _ in rows)
    parts = []
    for index, (label, value, colour) in enumerate(rows):
        y, wide = index * 36, max(value / most * (WIDTH - 70), 2.0)
        parts.append(_text(0, y + 12, label) + _rect(0, y + 17, wide, 12, colour))
        parts.append(_text(wide + 6, y + 27, f"{value:,}", 'class="strong"'))
    return 36 * len(rows), "".join(parts)


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 ... so that an axis ends at a round number."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** int(log10(value)) if value >= 1 else 1.0
    return next(unit * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= unit * factor)


def short(value: float) -> str:
    """A number for an axis: 1500 as 1.5k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="var(--{colour})"/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{markup(text)}</text>'
