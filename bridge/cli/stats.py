"""``report-bridge stats``: what became of the reports, and why, from the ledger."""

from __future__ import annotations

import argparse
import time
from math import inf
from typing import Any, Final

from bridge.cli import ledger_arguments, summary, terminal
from bridge.cli.advice import read_advice, spell_advice
from bridge.cli.ledger_arguments import csv_line
from bridge.cli.terminal import Screen, print_lines, share
from bridge.cli.times import show_time
from bridge.core import exits
from bridge.core.model import Listing
from bridge.core.text import escape, plural
from bridge.ledger.rows import select_listing
from bridge.ledger.statistics import IN_FLIGHT

HELP = "Count what became of the reports, and why: reasons, ages, latencies, pauses, advice. Times are UTC."

_TAIL: Final = 31


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    add = parser.add_argument
    ledger_arguments.add_span_flags(parser)
    add("--by", choices=summary.GROUPS, default="day", metavar="WHAT", help="|".join(summary.GROUPS))
    add("--method", metavar="NAME", help="only reports with this method")
    add("--account", metavar="HEX", help="only reports of this account, as lists show it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    add("--html", metavar="FILE", help="write a page with charts that needs no network")


def run(args: argparse.Namespace) -> int:
    """Count, print and return 0."""
    facts = _read(args)
    if args.html is not None:
        from bridge.cli.page import render_page

        with ledger_arguments.writing(args.html) as write:
            write(render_page(facts, time.time()))
        print_lines([escape(args.html)])
    elif args.json:
        terminal.print_json({name: value for name, value in facts.items() if name != "timeline"})
    elif args.csv:
        names = (facts["by"], "reports", *summary.STATES, "error16")
        rows = [names, *([row[name] for name in names] for row in facts["groups"])]
        terminal.print_text("".join(map(csv_line, rows)))
    else:
        print_lines(render(facts, Screen()))
    return exits.DONE


def _read(args: argparse.Namespace) -> dict[str, Any]:
    from bridge.reports.methods import methods

    with terminal.progress("counting") as tell, ledger_arguments.reading(args) as (settings, reader):
        endpoint = ledger_arguments.chosen_endpoint(settings)
        listing = Listing(endpoint, args.since, args.until, method=args.method)
        figures = reader.figures(listing, args.account, tuple(methods()), tell)
        facts = summary.summarise(figures, args.by)
        facts |= read_advice(reader, settings, endpoint, args.account or "")
        if args.account is None and figures.cells:
            # The figures know the hours only; within one of them the question is cheap in any ledger.
            hours = [cell.hour * 3600.0 for cell in figures.cells]
            for name, find, hour in (("first", "min", min(hours)), ("last", "max", max(hours))):
                low, high = max(hour, args.since or 0.0), min(hour + 3600.0, args.until or inf)
                rest, values = select_listing(listing._replace(since_wall=low, until_wall=high))
                found = reader.ask(f"SELECT {find}(r.recorded_wall) {rest}", values, True)[0][0]
                facts[name] = show_time(float(found or low), "%Y-%m-%dT%H:%MZ")
    for name, wall in (("since", args.since), ("until", args.until)):
        facts[name] = None if wall is None else show_time(wall, "%Y-%m-%dT%H:%M:%SZ")
    return facts


# --- for people ------------------------------------------------------------------------------


def render(facts: dict[str, Any], screen: Screen) -> list[str]:
    """Return the lines for a terminal or for a file."""
    if not facts["reports"]:
        return ["No report fits."]

    def wrap(*texts: str, indent: str = "") -> list[str]:
        return [line for text in texts for line in screen.wrap(text, indent, always=True)]

    sections = {
        f"{plural(facts['reports'], 'report')}, {facts['first']} to {facts['last']}": [],
        "What became of them": _outcomes(facts, screen),
        "Refused, by code": _reasons(facts["refused"], screen),
        "Not sent, by reason": _reasons(facts["notSent"], screen),
        summary.AGES: _ages(facts["ages"], screen),
        "How long the last attempt took": _latency(facts["latency"], screen),
        "Pauses that opened": wrap(*summary.tell_pauses(facts["pauses"])),
        f"By {facts['by']}": _groups(facts, screen),
    }
    for title, told in spell_advice(facts).items():
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


def _ages(ages: dict[str, Any], screen: Screen) -> list[str]:
    told, bins = screen.wrap(summary.tell_ages(ages), always=True), ages["bins"]
    if not ages["known"]:
        return told
    bars = [_parts(row["accepted"], sum(row[fate] for fate in summary.FATES)) for row in bins]
    lines = screen.table(*summary.count_table("seconds", bins, summary.FATES), left=0, bars=bars)
    wall = f"{'-' * 8} the wall: the API forgets the task {'-' * 8}"
    lines.insert(1 + summary.WALL_AT, screen.paint(wall, "bad"))
    return [*told, *lines]


def _parts(good: int, whole: int) -> list[tuple[int, str]]:
    return [(good, "blue"), (whole - good, "bad")]


def _latency(latency: dict[str, Any], screen: Screen) -> list[str]:
    if not latency["attempts"]:
        return []
    rows = {"all": latency, **latency["methods"]}
    table = [
        (name, f"{row['attempts']:,}", f"{row['p50Ms']:,} ms", f"{row['p95Ms']:,} ms")
        for name, row in rows.items()
    ]
    return screen.table(("method", "reports", "p50", "p95"), table)


def _groups(facts: dict[str, Any], screen: Screen) -> list[str]:
    by, groups = facts["by"], facts["groups"]
    shown = groups[-_TAIL:] if by in ("day", "hour") else groups[:_TAIL]
    bars = [_parts(row["accepted"], row["reports"]) for row in shown]
    lines = screen.table(*summary.count_table(by, shown, summary.COLUMNS), bars=bars)
    if len(shown) < len(groups):
        lines.append(f"More in --csv and --json: {plural(len(groups) - len(shown), 'row')}.")
    return lines
