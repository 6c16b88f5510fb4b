"""The page with charts: one file that loads nothing, for a phone or a desk, light or dark.

Charts are plain elements whose heights and widths are shares; the page's style puts them in their places
and has the colours. Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from math import ceil, log10
from string import Template
from typing import Any, Final

from bridge import __version__
from bridge.cli import summary
from bridge.cli.ledger import show_time
from bridge.cli.terminal import share
from bridge.core.text import escape, plural

_AXES: Final = {
    "seconds": "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
    "ms": "milliseconds; steps grow to the right",
}
_MOST_GROUPS: Final = 400
_MOST_BARS: Final = 10
_NARROWEST: Final = 250
"""Pixels that a chart has for its columns on a small phone; one character of a label takes up to 7."""


def render_page(facts: dict[str, Any], made_wall: float) -> str:
    """Return the page.

    Args:
        facts: of `bridge.cli.summary.summarise`, with its advice.
        made_wall: UNIX seconds now.
    """
    span = "No report fits."
    content = '<p class="card">There is nothing to show for this span: no report was recorded.</p>'
    if facts["reports"]:
        first, last = (facts[name].replace("T", " ").removesuffix("Z") for name in ("first", "last"))
        span = f"{plural(facts['reports'], 'report')}, recorded {first} to {last} UTC"
        *charts, groups = summary.charts(facts)
        cards = [*map(_columns, charts), _groups(groups)]
        cards.insert(2, _reasons(facts))
        content = f'{_totals(facts)}{_advice(facts)}<div class="charts">{"".join(cards)}</div>'
    with open(os.path.join(os.path.dirname(__file__), "page.html"), encoding="utf-8") as file:
        page = Template(file.read())
    return page.substitute(
        span=markup(span),
        content=content,
        notes="".join(f'<p class="soft">{markup(note)}</p>' for note in facts["notes"]),
        version=markup(__version__),
        made=show_time(made_wall, "%Y-%m-%d %H:%M"),
    )


def markup(text: str) -> str:
    """Foreign text as a page may hold it: neither markup nor anything that turns the reading direction."""
    return html.escape(escape(text))


def _totals(facts: dict[str, Any]) -> str:
    cards = [
        f'<div style="--c:var(--{name})"><dt>{summary.MEANINGS[name]}</dt>'
        f"<dd>{count:,} <small>{share(count, facts['reports'])}</small></dd></div>"
        for name, count in facts["outcomes"].items()
        if count or name != "in_flight"
    ]
    return f'<dl class="totals">{"".join(cards)}</dl>'


def _advice(facts: dict[str, Any]) -> str:
    return "".join(
        f'<h2>{title}</h2><ul class="advice">{_items(map(markup, lines))}</ul>'
        for title, lines in summary.spell_advice(facts).items()
        if lines
    )


# --- charts ----------------------------------------------------------------------------------


def _reasons(facts: dict[str, Any]) -> str:
    title = "Why reports were refused or not sent"
    found = sorted([*facts["refused"], *facts["notSent"]], key=lambda row: -row["reports"])
    if not found:
        return _card(title, "None was.")
    bars, rows = [], []
    for row in found:
        part, reports = row["reports"] / found[0]["reports"], f"{row['reports']:,}"
        bar = f'<i style="--w:{part:.3f};--c:var(--{row["outcome"]})"></i> <b>{reports}</b>'
        bars.append(f"{row['code']} {row['kind']}<br>{bar}")
        causes = "".join(f" {cause}: {many:,}." for cause, many in row["causes"].items())
        outcome, meaning = summary.NAMES[row["outcome"]], row["message"] + causes
        rows.append([str(row["code"]), outcome, reports, meaning, row["advice"]])
    table = _table(["code", "outcome", "reports", "meaning", "what to do"], rows)
    drawn = f'<ol class="bars">{_items(bars[:_MOST_BARS])}</ol>'
    return _figure(title, "", ["refused", "not_sent"], drawn, table)


def _groups(chart: summary.Chart) -> str:
    chart = chart._replace(rows=chart.rows[-_MOST_GROUPS:])
    rows = f"<summary>{plural(len(chart.rows), 'row')}</summary>{_table(*chart.table())}"
    return _card(chart.title, "", f"<details open>{rows}</details>")


def _columns(chart: summary.Chart) -> str:
    chart = chart._replace(names=chart.counted())
    title, words, unit, names, rows = chart
    if not names:
        return _card(title, words)
    top = nice_ceiling(max(sum(row[name] for name in names) for row in rows))
    # Half a report is none.
    ticks = (short(top * part) for part in ((1.0, 0.0) if top % 2 else (1.0, 0.5, 0.0)))
    stacks = [
        "".join(
            f'<i style="height:{row[name] / top:.2%};--c:var(--{name})"></i>' for name in names if row[name]
        )
        for row in rows
    ]
    if unit == "seconds":
        stacks[summary.WALL_AT] += f"<b>wall: {summary.WALL_S} s</b>"
    labels = [short(row["from"]) if "from" in row else row[unit][5:] for row in rows]
    # So many columns share a label that the longest one has room.
    every = ceil(len(rows) * (max(map(len, labels)) * 7 + 8) / _NARROWEST)
    below = labels[: len(rows) - every + 1 : every]
    drawn = (
        f'<ul class="axis">{_items(ticks)}</ul><ol class="columns">{_items(stacks)}</ol>'
        f'<ol class="labels" style="--w:{every / len(rows):.3%}">{_items(below)}</ol>'
    )
    return _figure(title, words, names, drawn, _table(*chart.table()), _AXES.get(unit, ""))


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 ... so that an axis ends at a round number."""
    unit = 10.0 ** int(log10(max(value, 1)))
    return next(unit * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= unit * factor)


def short(value: float) -> str:
    """A number for an axis: 1500 as 1.5k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


# --- their parts -----------------------------------------------------------------------------


def _card(title: str, words: str, content: str = "") -> str:
    return f'<section class="card"><h2>{markup(title)}</h2><p>{markup(words)}</p>{content}</section>'


def _figure(title: str, words: str, shown: Sequence[str], chart: str, table: str, axis: str = "") -> str:
    names = ", ".join(summary.NAMES[name] for name in shown)
    described = f"{title}. {words} By colour: {names}. The table has the numbers."
    legend = (f'<i style="--c:var(--{name})"></i>{summary.NAMES[name]}' for name in shown)
    return _card(
        title,
        words,
        f'<ul class="legend">{_items(legend)}</ul>'
        f'<div class="chart" role="img" aria-label="{markup(described)}">{chart}</div>'
        f'<p class="soft">{axis}</p><details><summary>Numbers</summary>{table}</details>',
    )


def _items(contents: Iterable[str]) -> str:
    return "".join(f"<li>{content}</li>" for content in contents)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{markup(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{markup(text)}</td>' for text in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table of numbers"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
