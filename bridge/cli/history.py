"""``report-bridge history``: what the ledger remembers: list, follow, show, export, prune, path."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from itertools import chain, islice
from typing import Any, Final, NoReturn

from bridge.cli import ledger
from bridge.cli.commands import number
from bridge.cli.terminal import Screen, print_json, print_lines, print_text, progress, spell, warn
from bridge.core import exits
from bridge.core.model import HISTORY_S, OUTCOMES, Listing, Prune, Row
from bridge.core.text import escape, plural, rfc3339, suggest
from bridge.ledger.statistics import Reader
from bridge.reports.methods import methods
from bridge.server.methods import show_record
from bridge.settings import load
from bridge.settings.parsing import is_database, parse_integer
from bridge.settings.table import MEMORY

FIELDS: Final = (
    "taskId", "method", "account", "state", "outcome", "code", "kind", "attempts", "recordedAt", "finishedAt",
    "endpoint", "taskType", "ageSeconds", "latencyMs",
)  # fmt: skip
"""Columns of an export: those of a record on the wire, then what only the ledger tells."""
COLUMNS: Final[Mapping[str, Callable[[Row], str]]] = {
    "recorded": lambda row: ledger.show_time(row.recorded_wall),
    "task": lambda row: str(row.task.task_id),
    "method": lambda row: row.method,
    "outcome": lambda row: row.outcome or row.state,
    "code": lambda row: str(row.code or ""),
    "kind": lambda row: "" if row.kind == row.outcome else row.kind or "",
    "tries": lambda row: str(row.attempts),
    "account": lambda row: row.task.account[:8],
    "type": lambda row: row.facts.task_type or "",
    "age": lambda row: "" if row.facts.age_s is None else f"{row.facts.age_s:.1f} s",
    "took": lambda row: "" if row.latency_ms is None else f"{row.latency_ms} ms",
    "upstream": lambda row: row.task.endpoint,
}
"""Columns of a list, the important ones first; `_USUAL` of them are shown if none is chosen."""
_USUAL: Final = 8
_WIDTHS: Final = {"recorded": 19, "task": 16, "method": 27, "outcome": 8, "code": 6, "kind": 24}
"""Of columns that stay where they are; the others have 8."""
_PAGE: Final = 1000
_COUNTED: Final = 100_000
"""A list says how many reports there are up to here; a count of many more takes longer than the list."""
_STEP: Final = 500
_FOLLOW_S: Final = 600.0
"""How far back changes are looked for while following: a report ends within minutes."""
_LOOK_S: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    add = parser.add_argument
    count = number(parse_integer, 1, 1 << 62, "takes a whole number from 1 on")
    add("action", nargs="?", choices=tuple(_ACTIONS), default="list", metavar="ACTION", help="see below")
    add("task", nargs="?", type=count, metavar="TASK", help="task id, for show")
    ledger.add_span_flags(parser)
    add("--outcome", choices=OUTCOMES, metavar="NAME", help="|".join(OUTCOMES))
    add("--method", choices=tuple(methods()), metavar="NAME", help="only reports with this method")
    add("--limit", type=count, metavar="N", help="most reports (list: 50)")
    add("--columns", type=_columns, metavar="A,B", help=f"list: of {', '.join(COLUMNS)}")
    add("--follow", action="store_true", help="list: go on with what comes, until Ctrl-C")
    add("--json", action="store_true", help="list and show: print JSON")
    add("--format", choices=("csv", "jsonl"), metavar="NAME", help="export: csv (default) or jsonl")
    add("--output", metavar="FILE", help="export: write to this file")
    add("--before", type=ledger.parse_time, metavar="TIME", help="prune: delete what was recorded before")


def run(args: argparse.Namespace) -> None:
    """Do one of the actions."""
    ledger.run_action("history", _ACTIONS, args)


def _columns(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in COLUMNS:
            known = f"{suggest(name, COLUMNS)} There are {', '.join(COLUMNS)}"
            raise argparse.ArgumentTypeError(f"has a name that is no column{known}")
    return names


def _listing(args: argparse.Namespace, endpoint: str | None, limit: int = _PAGE) -> Listing:
    return Listing(endpoint, args.since, args.until, args.outcome, args.method, limit)


def _read(reader: Reader, listing: Listing, most: int | None = None) -> Iterator[Row]:
    return islice(chain.from_iterable(reader.pages(listing)), most)


# --- list and show ---------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> None:
    columns = args.columns or list(COLUMNS)[:_USUAL]
    most = args.limit or (10 if args.follow else 50)
    if args.follow and args.until is not None:
        raise exits.UsageError("history --follow goes on for ever: it takes no --until.")
    with ledger.reading(args) as (_, endpoint, reader):
        listing = _listing(args, endpoint, min(most, _PAGE))
        rows = list(_read(reader, listing, most))
        if args.follow:
            _follow(reader, listing, rows, None if args.json else columns)
        is_cut = len(rows) == most and args.limit is None and not args.json
        whole = reader.count(listing, _COUNTED) if is_cut else most
    if args.json:
        print_text(_to_jsonl(rows))
    elif rows:
        print_lines(_to_table(rows, columns))
        if whole > most:
            more = " or more" if whole == _COUNTED else ""
            print_lines([f"{most} of {whole}{more}; --limit shows more, export all."])
    else:
        print_lines(["No report fits."])


def _to_table(rows: list[Row], columns: list[str], *first: list[str]) -> list[str]:
    head = ["recorded (UTC)" if name == "recorded" else name for name in columns]
    cells = [[COLUMNS[name](row) for name in columns] for row in rows]
    return Screen().table(head, [*first, *cells], left=len(columns))


def _to_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(show_record(row)) + "\n" for row in rows)


def _follow(reader: Reader, listing: Listing, rows: list[Row], columns: list[str] | None) -> NoReturn:
    """Print every report as it is recorded, and again when it ends.

    Args:
        rows: what to begin with, newest first.
        columns: None prints JSON.
    """
    widest = ["x" * _WIDTHS.get(name, 8) for name in columns or ()]
    if columns is not None:
        print_lines(_to_table([], columns, widest)[:1])
    began = rows[-1].recorded_wall if rows else time.time()
    known: dict[int, str | None] = {}
    while True:
        news = [row for row in reversed(rows) if known.get(row.seq, "new") != row.outcome]
        if columns is None:
            print_text(_to_jsonl(news))
        elif news:
            print_lines(_to_table(news, columns, widest)[2 : len(news) + 2])
        print_text("", flush=True)
        known = {row.seq: row.outcome for row in rows}
        time.sleep(_LOOK_S)
        since = max(began, time.time() - _FOLLOW_S)
        rows = list(_read(reader, listing._replace(since_wall=since, limit=_PAGE)))


def _show(args: argparse.Namespace) -> None:
    if args.task is None:
        raise exits.UsageError("history show takes a task id, such as `report-bridge history show 123`.")
    with ledger.reading(args) as (settings, endpoint, reader):
        found = reader.find(args.task, endpoint)
        if not found:
            place = "in the database" if is_database(settings.ledger) else f"at {settings.ledger}"
            raise ledger.NotPossible(f"The ledger {place} has no report of task {args.task}.")
        reports = []
        for row in found:
            events = []
            for event in reader.events(row.seq):
                # What an attempt met is a kind of event in the table of errors.
                told = {"met" if name == "event" else name: value for name, value in event.data.items()}
                events.append({"at": rfc3339(event.at_wall), "event": event.name, **told})
            detail = dict(row.detail) if row.outcome else {}
            reports.append({**_record(row), "detail": detail, "events": events})
    if args.json:
        print_json({"reports": reports})
    else:
        screen = Screen()
        print_lines([line for report in reports for line in ("", *_tell(report, screen))][1:])


def _tell(report: dict[str, Any], screen: Screen) -> list[str]:
    events, detail = report.pop("events"), report.pop("detail")
    record = {name: value for name, value in report.items() if value is not None}
    lines = screen.fields({**record, **detail, **record})
    lines += ["", screen.paint("what happened", "bold")]
    for event in events:
        first = f"{event.pop('at')}  {escape(event.pop('event')):<16}"
        told = [f"{name} {spell(value)}" for name, value in event.items() if value is not None]
        lines += screen.wrap(", ".join(told), first) if told else [first.rstrip()]
    return lines


def _record(row: Row) -> dict[str, Any]:
    return {
        **show_record(row),
        "endpoint": row.task.endpoint,
        "taskType": row.facts.task_type,
        "ageSeconds": None if row.facts.age_s is None else round(row.facts.age_s, 1),
        "latencyMs": row.latency_ms,
    }


# --- export ----------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> None:
    with ledger.reading(args) as (_, endpoint, reader):
        listing = _listing(args, endpoint)
        whole = min(reader.count(listing), args.limit or 1 << 62)
        written, is_csv = 0, args.format != "jsonl"
        output = nullcontext(print_text) if args.output is None else ledger.writing(args.output)
        with progress("exporting") as tell, output as write:
            if is_csv:
                write(ledger.csv_line(FIELDS))
            for written, row in enumerate(_read(reader, listing, whole), 1):
                record = _record(row)
                write(ledger.csv_line(record.values()) if is_csv else f"{json.dumps(record)}\n")
                if written % _STEP == 0 or written == whole:
                    tell(written, whole)
    if args.output is not None:
        warn(f"{plural(written, 'report')} written to {args.output}")


# --- prune and path --------------------------------------------------------------------------


def _prune(args: argparse.Namespace) -> None:
    now = time.time()
    before = now - HISTORY_S if args.before is None else args.before
    if before > now - ledger.DAY_S:
        raise exits.UsageError(
            "Reports younger than a day guard their tasks against a second report; they stay."
        )
    deleted = 0
    with ledger.reading(args, to_write=True) as (settings, _, reader), progress("pruning") as tell:
        whole = reader.count(Listing(None, until_wall=before))
        with closing(ledger.open_store(settings)) as store:
            while gone := int(store.transact([Prune(before, _STEP)])[0]):
                deleted += gone
                tell(deleted, whole)
                # A bridge that waits for the lock polls; without a pause it would never get its turn.
                time.sleep(0.01)
    print_text(f"{plural(deleted, 'report')} deleted: all from before {ledger.show_time(before)} UTC.\n")


def _path(args: argparse.Namespace) -> None:
    settings = load(args.given, os.environ)
    print_lines([ledger.show_place(settings)])
    if settings.ledger == MEMORY:
        warn("nothing is there: the running bridge alone can read it")
    elif not is_database(settings.ledger) and not os.path.isfile(settings.ledger):
        warn("nothing is there: the first report makes it")


_FILTERS: Final = ("since", "until", "outcome", "method", "limit")
_ACTIONS: Final[ledger.Actions] = {
    "list": (_list, (*_FILTERS, "json", "columns", "follow")),
    "show": (_show, ("task", "json")),
    "export": (_export, (*_FILTERS, "format", "output")),
    "prune": (_prune, ("before",)),
    "path": (_path, ()),
}
