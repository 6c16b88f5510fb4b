"""``report-bridge stats``: what became of the reports, and why: in the terminal, or as a page with charts.

The page is one file that loads nothing, for a phone or a desk, light or dark. Its charts are plain elements
whose heights and widths are shares; the page's style puts them in their places and has the colours.
Everything foreign is escaped. Every chart has its numbers in a table behind it.
"""

from __future__ import annotations

import argparse
import html
import time
from collections.abc import Iterable, Sequence
from math import ceil, inf, log10
from string import Template
from typing import Any, Final

from bridge import __version__
from bridge.cli import ledger, summary, terminal
from bridge.cli.commands import read_text
from bridge.cli.terminal import Screen, print_lines, share
from bridge.core.model import Listing
from bridge.core.text import escape, plural
from bridge.ledger.rows import select_listing
from bridge.ledger.statistics import IN_FLIGHT
from bridge.reports.methods import methods

_TAIL: Final = 31
_AXES: Final = {
    "seconds": "seconds since the worker finished; steps of 5 s up to the wall, wider after it",
    "ms": "milliseconds; steps grow to the right",
}
_MOST_GROUPS: Final = 400
_MOST_BARS: Final = 10
_NARROWEST: Final = 250
"""Pixels that a chart has for its columns on a small phone; one character of a label takes up to 7."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    add = parser.add_argument
    ledger.add_span_flags(parser)
    add("--by", choices=summary.GROUPS, default="day", metavar="WHAT", help="|".join(summary.GROUPS))
    add("--method", choices=tuple(methods()), metavar="NAME", help="only reports with this method")
    add("--account", metavar="HEX", help="only reports of this account, as lists show it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    add("--html", metavar="FILE", help="write a page with charts that needs no network")


def run(args: argparse.Namespace) -> None:
    """Count and print."""
    facts = _read(args)
    if args.html is not None:
        with ledger.writing(args.html) as write:
            write(render_page(facts, time.time()))
        print_lines([escape(args.html)])
    elif args.json:
        terminal.print_json({name: value for name, value in facts.items() if name != "timeline"})
    elif args.csv:
        names = (facts["by"], "reports", *summary.STATES, "error16")
        rows = [names, *([row[name] for name in names] for row in facts["groups"])]
        terminal.print_text("".join(map(ledger.csv_line, rows)))
    else:
        print_lines(render(facts, Screen()))


def _read(args: argparse.Namespace) -> dict[str, Any]:
    with terminal.progress("counting") as tell, ledger.reading(args) as (settings, endpoint, reader):
        listing = Listing(endpoint, args.since, args.until, method=args.method)
        figures = reader.figures(listing, args.account, tuple(methods()), tell)
        facts = summary.summarise(figures, args.by)
        facts |= summary.read_advice(reader, settings, endpoint, args.account or "")
        if args.account is None and figures.cells:
            # The figures know the hours only; within one of them the question is cheap in any ledger.
            hours = [cell.hour * 3600.0 for cell in figures.cells]
            for name, find, hour in (("first", "min", min(hours)), ("last", "max", max(hours))):
                low, high = max(hour, args.since or 0.0), min(hour + 3600.0, args.until or inf)
                rest, values = select_listing(listing._replace(since_wall=low, until_wall=high))
                found = reader.ask(f"SELECT {find}(r.recorded_wall) {rest}", values, True)[0][0]
                facts[name] = ledger.show_time(float(found or low), "%Y-%m-%dT%H:%MZ")
    for name, wall in (("since", args.since), ("until", args.until)):
        facts[name] = None if wall is None else ledger.show_time(wall, "%Y-%m-%dT%H:%M:%SZ")
    return facts


# --- for people ------------------------------------------------------------------------------


def render(facts: dict[str, Any], screen: Screen) -> list[str]:
    """Return the lines for a terminal or for a file."""
    if not facts["reports"]:
        return ["No report fits."]

    def wrap(*texts: str, indent: str = "") -> list[str]:
        return [line for text in texts for line in screen.wrap(text, indent, always=True)]

    _, ages, latency, pauses, groups = summary.charts(facts)
    sections = {
        f"{plural(facts['reports'], 'report')}, {facts['first']} to {facts['last']}": [],
        "What became of them": _outcomes(facts, screen),
        "Refused, by code": _reasons(facts["refused"], screen),
        "Not sent, by reason": _reasons(facts["notSent"], screen),
        ages.title: wrap(ages.words) + _table(ages, screen),
        latency.title: wrap(latency.words) + _methods(facts["latency"]["methods"], screen),
        pauses.title: wrap(pauses.words),
        groups.title: _groups(groups, screen),
    }
    for title, told in summary.spell_advice(facts).items():
        sections[title] = wrap(*told, indent="  ")
    sections["What these figures do not tell"] = wrap(*facts["notes"])
    lines: list[str] = []
    for title, body in sections.items():
        if body or not lines:
            lines += ["", screen.paint(title, "bold"), *body]
    return lines[1:]


def _outcomes(facts: dict[str, Any], screen: Screen) -> list[str]:
    outcomes, whole = facts["outcomes"], facts["reports"]
    shown = [name for name in summary.STATES if outcomes[name] or name != IN_FLIGHT]
    table = [(summary.MEANINGS[name], f"{outcomes[name]:,}", share(outcomes[name], whole)) for name in shown]
    bars = [[(outcomes[name], name)] for name in shown]
    return screen.table(("outcome", "reports", "share"), table, bars=bars)


def _reasons(rows: list[dict[str, Any]], screen: Screen) -> list[str]:
    lines = []
    for row in rows:
        causes = ", ".join(f"{cause} {many:,}" for cause, many in row["causes"].items())
        text = f"{row['kind']}" + (f" ({causes})" if causes else "")
        lines += screen.wrap(text, f"{row['reports']:>10,}  {row['code']:>6}  ")
        if screen.is_terminal:
            lines += [screen.paint(line, "dim") for line in screen.wrap(row["advice"], " " * 20)]
    return lines


def _table(chart: summary.Chart, screen: Screen) -> list[str]:
    if not chart.counted():
        return []
    bars = []
    for row in chart.rows:
        whole = row.get("reports") or sum(row[name] for name in chart.names)
        bars.append([(row["accepted"], "ok"), (whole - row["accepted"], "bad")])
    lines = screen.table(*chart.table(), bars=bars)
    if chart.unit == "seconds":
        wall = f"{'-' * 8} the wall: the API forgets the task {'-' * 8}"
        lines.insert(1 + summary.WALL_AT, screen.paint(wall, "bad"))
    return lines


def _methods(methods: dict[str, dict[str, Any]], screen: Screen) -> list[str]:
    table = [
        (name, f"{row['attempts']:,}", f"{row['p50Ms']:,} ms", f"{row['p95Ms']:,} ms")
        for name, row in methods.items()
    ]
    return screen.table(("method", "reports", "p50", "p95"), table) if table else []


def _groups(chart: summary.Chart, screen: Screen) -> list[str]:
    shown = chart.rows[-_TAIL:] if chart.unit in ("day", "hour") else chart.rows[:_TAIL]
    lines = _table(chart._replace(rows=shown), screen)
    if len(shown) < len(chart.rows):
        lines.append(f"More in --csv and --json: {plural(len(chart.rows) - len(shown), 'row')}.")
    return lines


# --- the page --------------------------------------------------------------------------------


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
        cards = [*map(_draw_columns, charts), _draw_groups(groups)]
        cards.insert(2, _draw_reasons(facts))
        content = f'{_totals(facts)}{_advice(facts)}<div class="charts">{"".join(cards)}</div>'
    return Template(read_text("page.html")).substitute(
        span=markup(span),
        content=content,
        notes="".join(f'<p class="soft">{markup(note)}</p>' for note in facts["notes"]),
        version=markup(__version__),
        made=ledger.show_time(made_wall, "%Y-%m-%d %H:%M"),
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


# --- its charts ----------------------------------------------------------------------------------


def _draw_reasons(facts: dict[str, Any]) -> str:
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
    table = _html_table(["code", "outcome", "reports", "meaning", "what to do"], rows)
    drawn = f'<ol class="bars">{_items(bars[:_MOST_BARS])}</ol>'
    return _figure(title, "", ["refused", "not_sent"], drawn, table)


def _draw_groups(chart: summary.Chart) -> str:
    chart = chart._replace(rows=chart.rows[-_MOST_GROUPS:])
    rows = f"<summary>{plural(len(chart.rows), 'row')}</summary>{_html_table(*chart.table())}"
    return _card(chart.title, "", f"<details open>{rows}</details>")


def _draw_columns(chart: summary.Chart) -> str:
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
    return _figure(title, words, names, drawn, _html_table(*chart.table()), _AXES.get(unit, ""))


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


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{markup(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{markup(text)}</td>' for text in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table of numbers"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
