"""``report-bridge stats``: what became of the reports, and why, from the ledger."""

from __future__ import annotations

import argparse
import time
from math import inf
from typing import Any, Final

from bridge.cli import ledger, summary, terminal
from bridge.cli.terminal import Screen, print_lines, share
from bridge.core.model import Listing
from bridge.core.text import escape, plural
from bridge.ledger.rows import select_listing
from bridge.ledger.statistics import IN_FLIGHT, Span

_TAIL: Final = 31


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    add = parser.add_argument
    ledger.add_span_flags(parser)
    add("--by", choices=summary.GROUPS, default="day", metavar="WHAT", help="|".join(summary.GROUPS))
    add("--method", metavar="NAME", help="only reports with this method")
    add("--account", metavar="HEX", help="only reports of this account, as lists show it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    add("--html", metavar="FILE", help="write a page with charts that needs no network")


def run(args: argparse.Namespace) -> None:
    """Count and print."""
    facts = _read(args)
    if args.html is not None:
        from bridge.cli.page import render_page

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
    from bridge.reports.methods import methods

    with terminal.progress("counting") as tell, ledger.reading(args) as (settings, endpoint, reader):
        span = Span(args.since, args.until, endpoint, args.account, args.method)
        figures = reader.figures(span, tuple(methods()), tell)
        facts = summary.summarise(figures, args.by)
        facts |= summary.read_advice(reader, settings, endpoint, args.account or "")
        if args.account is None and figures.cells:
            # The figures know the hours only; within one of them the question is cheap in any ledger.
            hours = [cell.hour * 3600.0 for cell in figures.cells]
            for name, find, hour in (("first", "min", min(hours)), ("last", "max", max(hours))):
                low, high = max(hour, args.since or 0.0), min(hour + 3600.0, args.until or inf)
                rest, values = select_listing(Listing(endpoint, low, high, None, args.method))
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
        whole = row["reports"] if "reports" in row else sum(row[name] for name in chart.names)
        good = row.get("accepted", whole)
        bars.append([(good, "ok"), (whole - good, "bad")])
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
