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
from bridge.cli.advice import spell_advice
from bridge.cli.terminal import share
from bridge.cli.times import show_time
from bridge.core.text import escape, plural

_AXES: Final = {
    "s": "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
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
        timeline, ages = facts["timeline"], facts["ages"]
        told = " ".join(summary.tell_pauses(facts["pauses"]))
        charts = (
            _columns("Outcomes over time", summary.STATES, **timeline),
            _columns(summary.AGES, summary.FATES, "s", ages["bins"], summary.tell_ages(ages)),
            _reasons(facts),
            _latency(facts["latency"]),
            _columns("Pauses: when the bridge stopped itself", ["pauses"], **timeline, words=told),
            _groups(facts),
        )
        content = f'{_totals(facts)}{_advice(facts)}<div class="charts">{"".join(charts)}</div>'
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
        for title, lines in spell_advice(facts).items()
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
    return _figure(
        title, "", ["refused", "not_sent"], f'<ol class="bars">{_items(bars[:_MOST_BARS])}</ol>', table
    )


def _latency(latency: dict[str, Any]) -> str:
    title, words = "How long the last attempt took", "Nothing was sent."
    if latency["attempts"]:
        words = f"Half took at most {latency['p50Ms']:,} ms, 95% at most {latency['p95Ms']:,} ms."
    return _columns(title, ["reports"], "ms", latency["bins"], words)


def _groups(facts: dict[str, Any]) -> str:
    by, groups = facts["by"], facts["groups"][-_MOST_GROUPS:]
    table = _table(*summary.count_table(by, groups, summary.COLUMNS))
    rows = f"<details open><summary>{plural(len(groups), 'row')}</summary>{table}</details>"
    return _card(f"By {by}", "", rows)


def _columns(title: str, names: Sequence[str], unit: str, rows: summary.Rows, words: str = "") -> str:
    """What happened by day or hour, or from one edge to the next, with a table of its numbers.

    Args:
        names: what is counted; of that, what there is none of is not shown.
        words: if there is nothing at all, all that is shown.
    """
    shown = [name for name in names if any(row[name] for row in rows)]
    if not shown:
        return _card(title, words)
    top = nice_ceiling(max(sum(row[name] for name in shown) for row in rows))
    # Half a report is none.
    ticks = (short(top * part) for part in ((1.0, 0.0) if top % 2 else (1.0, 0.5, 0.0)))
    stacks = [
        "".join(
            f'<i style="height:{row[name] / top:.2%};--c:var(--{name})"></i>' for name in shown if row[name]
        )
        for row in rows
    ]
    if unit == "s":
        stacks[summary.WALL_AT] += f"<b>wall: {summary.WALL_S} s</b>"
    labels = [short(row["from"]) if "from" in row else row[unit].partition("-")[2] for row in rows]
    # So many columns share a label that the longest one has room.
    every = ceil(len(rows) * (max(map(len, labels)) * 7 + 8) / _NARROWEST)
    below = labels[: len(rows) - every + 1 : every]
    chart = (
        f'<ul class="axis">{_items(ticks)}</ul><ol class="columns">{_items(stacks)}</ol>'
        f'<ol class="labels" style="--w:{every / len(rows):.3%}">{_items(below)}</ol>'
    )
    table = _table(*summary.count_table(unit, rows, shown))
    return _figure(title, words, shown, chart, table, _AXES.get(unit, ""))


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
