"""Charts as inline SVG: stacked columns and bars. No script, no network; colours are the page's variables.

Each chart is an image with a title and a description; the page puts the same numbers in a table behind it.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import Any, Final

from bridge.core.text import escape

WIDTH: Final = 340
HEIGHT: Final = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 6, 16, 34


def markup(text: str) -> str:
    """Foreign text as a page may hold it: neither markup nor anything that turns the reading direction."""
    return html.escape(escape(text))


def columns(
    name: str,
    title: str,
    description: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[int]],
    marks: Sequence[tuple[float, str]] = (),
    at_edges: bool = False,
) -> str:
    """Stacked columns.

    Args:
        name: unique on the page; a part of the ids.
        labels: one for each column; as many are written as there is room for.
        series: colour variable -> one value for each column; drawn from the bottom.
        at_edges: True if a label says where its column begins.
        marks: upright lines: between which columns (2.0: before the third), and their text.
    """
    count = max(len(labels), 1)
    most = max([sum(values) for values in zip(*series.values(), strict=True)], default=0)
    top = nice_ceiling(most)
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = width / count
    gap = min(2.0, step * 0.2)
    parts = [_grid(top, height)]
    for index in range(count if labels else 0):
        base = 0.0
        for colour, values in series.items():
            tall = values[index] / top * height
            if tall:
                x, y = _LEFT + index * step + gap / 2, _TOP + height - base - tall
                parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{step - gap:.1f}" height="{max(tall, 0.6):.1f}" '
                    f'fill="var(--{colour})"/>'
                )
                base += tall
    every = max(1, ceil(count / max(1, int(width // (max(map(len, labels), default=1) * 6.5 + 10)))))
    for index in range(0, len(labels), every):
        # A label may not leave the picture: 7 units a character are a little more than it takes.
        x = min(_LEFT + (index + (0.0 if at_edges else 0.5)) * step, WIDTH - len(labels[index]) * 3.5)
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 16}" text-anchor="middle">{markup(labels[index])}</text>'
        )
    for nth, (at, text) in enumerate(marks):
        x = _LEFT + at * step
        room = len(text) * 7 + 4
        is_left = x - room > _LEFT and (nth == 0 or x + room > WIDTH)
        side, shift = ("end", -4) if is_left else ("start", 4)
        parts.append(f'<line class="wall" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{_TOP + height}"/>')
        parts.append(
            f'<text class="strong" x="{x + shift:.1f}" y="13" text-anchor="{side}">{markup(text)}</text>'
        )
    return _image(name, title, description, HEIGHT, parts)


def bars(name: str, title: str, description: str, rows: Sequence[tuple[str, int, str]]) -> str:
    """Bars that lie, each with its label above and its number at the end.

    Args:
        rows: label, value and colour variable.
    """
    most = max([value for _, value, _ in rows], default=0) or 1
    parts = []
    room = WIDTH - 70
    for index, (label, value, colour) in enumerate(rows):
        y = index * 36
        wide = max(value / most * room, 2.0)
        parts.append(f'<text x="0" y="{y + 12}">{markup(label)}</text>')
        parts.append(
            f'<rect x="0" y="{y + 17}" width="{wide:.1f}" height="12" rx="2" fill="var(--{colour})"/>'
        )
        parts.append(f'<text class="strong" x="{wide + 6:.1f}" y="{y + 27}">{value:,}</text>')
    return _image(name, title, description, max(36 * len(rows), 36), parts)


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


def _grid(top: float, height: float) -> str:
    lines = []
    for part in (0.0, 0.5, 1.0):
        if top * part % 1:
            continue  # half a report is none
        y = _TOP + height * (1 - part)
        lines.append(f'<line class="axis" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{short(top * part)}</text>')
    return "".join(lines)


def _image(name: str, title: str, description: str, height: float, parts: Sequence[Any]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{markup(title)}</title><desc id="{name}-d">{markup(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )
