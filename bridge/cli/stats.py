"""``report-bridge stats``: what became of the reports, and why, from the ledger."""

from __future__ import annotations

import argparse
import csv
import io
import os
import time
from typing import Any, Final

from bridge.cli import ledger_arguments
from bridge.cli.advice import read_advice, spell_claim
from bridge.cli.history import to_cell
from bridge.cli.ledger_arguments import NotPossible
from bridge.cli.summary import FATES, GROUPS, STATES, WALL_S, summarise
from bridge.cli.terminal import (
    OUTCOME_COLOURS,
    Progress,
    Screen,
    print_json,
    print_lines,
    print_text,
    share,
    warn,
)
from bridge.cli.times import show_instant, show_time
from bridge.core import exits
from bridge.core.model import Listing
from bridge.core.text import escape, plural
from bridge.ledger.statistics import Reader, Span

HELP = "Count what became of the reports, and why: reasons, ages, latencies, pauses, advice. Times are UTC."

_TITLES: Final = {
    "accepted": "accepted by the API",
    "refused": "refused",
    "unknown": "unknown (perhaps taken)",
    "not_sent": "not sent",
    "in_flight": "in flight",
}
_TAIL: Final = 31


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    ledger_arguments.add_span_flags(parser)
    parser.add_argument("--by", choices=GROUPS, default="day", metavar="WHAT", help="|".join(GROUPS))
    parser.add_argument("--method", metavar="NAME", help="only reports with this method")
    parser.add_argument("--account", metavar="HEX", help="only reports of this account, as lists show it")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    parser.add_argument("--html", metavar="FILE", help="write a page with charts that needs no network")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")


def run(args: argparse.Namespace) -> int:
    """Count, print and return 0."""
    since, until = ledger_arguments.read_span(args)
    summary = _read(args, since, until)
    if args.html is not None or args.open:
        return _write_page(args, summary)
    if args.json:
        print_json({name: value for name, value in summary.items() if name != "timeline"})
    elif args.csv:
        print_text(_to_csv(summary))
    else:
        print_lines(render(summary, Screen()))
    return exits.DONE


def _read(args: argparse.Namespace, since: float | None, until: float | None) -> dict[str, Any]:
    from bridge.reports.methods import methods

    progress = Progress("counting")
    with ledger_arguments.reading(args) as (settings, reader):
        endpoint = ledger_arguments.chosen_endpoint(settings)
        span = Span(since, until, endpoint, args.account, args.method)
        figures = reader.figures(span, tuple(methods()), progress.tell)
        summary = summarise(figures, args.by)
        summary |= read_advice(reader, settings, endpoint, args.account or "")
        if args.account is None and figures.cells:
            hours = [cell.hour for cell in figures.cells]
            listing = Listing(endpoint, since, until, None, args.method, 1)
            summary["first"] = _minute_of(reader, listing, min(hours), range(60))
            summary["last"] = _minute_of(reader, listing, max(hours), range(59, -1, -1))
    progress.end()
    summary["since"] = show_instant(since)
    summary["until"] = show_instant(until)
    return summary


def _minute_of(reader: Reader, listing: Listing, hour: int, minutes: range) -> str:
    """The first of some minutes of an hour that has a report; the figures know the hours only."""
    for minute in minutes:
        start = hour * 3600.0 + minute * 60.0
        low = start if listing.since_wall is None else max(start, listing.since_wall)
        high = start + 60.0 if listing.until_wall is None else min(start + 60.0, listing.until_wall)
        if low < high and reader.count(listing._replace(since_wall=low, until_wall=high), 1):
            return show_time(start, "%Y-%m-%dT%H:%MZ")
    return show_time(hour * 3600.0, "%Y-%m-%dT%H:%MZ")


def _to_csv(summary: dict[str, Any]) -> str:
    text = io.StringIO()
    names = [summary["by"], "reports", *STATES, "error16"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([to_cell(row[name]) for name in names] for row in summary["groups"])
    return text.getvalue()


def _write_page(args: argparse.Namespace, summary: dict[str, Any]) -> int:
    from bridge.cli.page import render_page

    text = render_page(summary, time.time())
    path = args.html
    if path is None:
        import tempfile

        descriptor, path = tempfile.mkstemp(".html", "report-bridge-")
        os.close(descriptor)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise NotPossible(f"The page cannot be written to {path} ({error.strerror}).") from None
    print_lines([escape(path)])
    if args.open:
        import webbrowser

        if not webbrowser.open("file://" + os.path.abspath(path)):
            warn("no browser could be started; open the file by hand")
    return exits.DONE


# --- for people ------------------------------------------------------------------------------


def render(summary: dict[str, Any], screen: Screen) -> list[str]:
    """Return the lines for a terminal or for a file."""
    if not summary["reports"]:
        return ["No report fits."]
    span = f"{plural(summary['reports'], 'report')}, {summary['first']} to {summary['last']}"
    lines = [screen.paint(span, "bold")]
    lines += ["", *_outcomes(summary, screen)]
    lines += _reasons(summary["refused"], "Refused, by code", screen)
    lines += _reasons(summary["notSent"], "Not sent, by reason", screen)
    lines += _ages(summary["ages"], screen)
    lines += _latency(summary["latency"], screen)
    lines += _pauses(summary["pauses"], screen)
    lines += _groups(summary, screen)
    lines += advice_lines(summary, screen)
    lines.append("")
    for note in summary["notes"]:
        lines += screen.wrap(note, always=True)
    return lines


def advice_lines(summary: dict[str, Any], screen: Screen) -> list[str]:
    """What the last day advises, and what is claimed."""
    lines = []
    if summary["advice"]:
        lines += ["", screen.paint("Advice, from the last 24 hours", "bold")]
        for advice in summary["advice"]:
            lines += screen.wrap(advice["message"], "  ", f"! {advice['account']}: ", always=True)
    if summary["claims"]:
        lines += ["", screen.paint("At stake in the last 24 hours: claims, not refunds", "bold")]
        for claim in summary["claims"]:
            lines += screen.wrap(spell_claim(claim), "  ", always=True)
    return lines


def _outcomes(summary: dict[str, Any], screen: Screen) -> list[str]:
    lines = []
    for name in STATES:
        count = summary["outcomes"][name]
        if not count and name == "in_flight":
            continue
        line = f"{_TITLES[name]:<24}{count:>12,}{share(count, summary['reports']):>8}"
        if screen.has_bars:
            bar = screen.bar(count, summary["reports"], screen.width - 48)
            line += "  " + screen.paint(bar, OUTCOME_COLOURS[name])
        lines.append(line.rstrip())
    return lines


def _reasons(rows: list[dict[str, Any]], title: str, screen: Screen) -> list[str]:
    if not rows:
        return []
    lines = ["", screen.paint(title, "bold")]
    for row in rows:
        causes = ", ".join(f"{cause} {many:,}" for cause, many in row["causes"].items())
        text = f"{row['kind']}" + (f" ({causes})" if causes else "")
        lines += screen.wrap(text, " " * 20, f"{row['reports']:>10,}  {row['code']:>6}  ")
        if screen.is_terminal:
            lines += [screen.paint(line, "dim") for line in screen.wrap(row["advice"], " " * 20)]
    return lines


def _ages(ages: dict[str, Any], screen: Screen) -> list[str]:
    lines = [
        "",
        screen.paint(f"Age of the task when the report came in, against the {WALL_S}-second wall", "bold"),
    ]
    if not ages["known"]:
        return [*lines, "No report told completedAt, so no age is known. Pass the endTime of getTaskResult."]
    lines.append(
        f"half came within {ages['p50']} s, 95% within {ages['p95']} s; "
        f"{ages['past60']:,} of {ages['known']:,} came after the wall"
    )
    most = max(sum(row[name] for name in FATES) for row in ages["bins"])
    head = f"{'seconds':>10}{'accepted':>12}{'error 16':>10}{'too late':>10}{'other':>10}"
    lines.append(screen.paint(head, "dim"))
    for row in ages["bins"]:
        if row["from"] == WALL_S:
            lines.append(screen.paint(f"{'-' * 8} the wall: the API forgets the task {'-' * 8}", "bad"))
        name = f"{row['from']}+" if row["to"] is None else f"{row['from']}-{row['to']}"
        line = (
            f"{name:>10}{row['accepted']:>12,}{row['error16']:>10,}{row['tooLate']:>10,}{row['other']:>10,}"
        )
        room = screen.width - len(line) - 2
        if screen.has_bars and room >= 8:
            good = screen.bar(row["accepted"], most, room)
            bad = screen.bar(sum(row[fate] for fate in FATES[1:]), most, room)
            line += "  " + screen.paint(good, "blue") + screen.paint(bad, "bad")
        lines.append(line.rstrip())
    if ages["unknown"]:
        lines.append(f"{'unknown':>10}{ages['unknown']:>12,} without completedAt")
    return lines


def _latency(latency: dict[str, Any], screen: Screen) -> list[str]:
    if not latency["attempts"]:
        return []
    rows = [("all", latency), *latency["methods"].items()]
    table = [
        (name, f"{row['attempts']:,}", f"{row['p50Ms']:,} ms", f"{row['p95Ms']:,} ms") for name, row in rows
    ]
    title = screen.paint("How long the last attempt took", "bold")
    return ["", title, *screen.table(("method", "reports", "p50", "p95"), table)]


def _pauses(pauses: list[dict[str, Any]], screen: Screen) -> list[str]:
    if not pauses:
        return ["", "No pause opened."]
    table = [(row["rule"], row["cause"], f"{row['openings']:,}", row["lastHour"]) for row in pauses]
    title = screen.paint("Pauses that opened", "bold")
    return ["", title, *screen.table(("rule", "cause", "times", "last"), table, left=2)]


def _groups(summary: dict[str, Any], screen: Screen) -> list[str]:
    by, groups = summary["by"], summary["groups"]
    shown = groups[-_TAIL:] if by in ("day", "hour") else groups[:_TAIL]
    head = (f"by {by}", "reports", "accepted", "refused", "(error 16)", "unknown", "not sent")
    names = ("reports", "accepted", "refused", "error16", "unknown", "not_sent")
    table = [(str(row[by]), *(f"{row[name]:,}" for name in names)) for row in shown]
    title, *body = screen.table(head, table)
    room = screen.width - max(map(len, body)) - 2
    if screen.has_bars and room >= 8:
        most = max(row["reports"] for row in shown)
        wide = max(map(len, body))
        for index, row in enumerate(shown):
            good = screen.paint(screen.bar(row["accepted"], most, room), "blue")
            bad = screen.paint(screen.bar(row["reports"] - row["accepted"], most, room - 1), "bad")
            body[index] = f"{body[index]:<{wide}}  {good}{bad}"
    lines = ["", title, *body]
    if len(shown) < len(groups):
        lines.append(f"More in --csv and --json: {plural(len(groups) - len(shown), 'row')}.")
    return lines
