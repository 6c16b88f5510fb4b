"""``report-bridge history``: what the ledger remembers: list, follow, show, export, prune, path."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final

from bridge.cli import ledger_arguments
from bridge.cli.ledger_arguments import NotPossible
from bridge.cli.terminal import Progress, Screen, print_json, print_lines, print_text, spell, warn
from bridge.cli.times import DAY_S, parse_time, show_time
from bridge.core import exits
from bridge.core.exits import UsageError
from bridge.core.model import HISTORY_S, Listing, Prune, Row
from bridge.core.text import escape, escape_cell, plural, suggest
from bridge.reports.answers import rfc3339
from bridge.server.methods import show_record
from bridge.settings import Settings, load
from bridge.settings.parsing import is_database

HELP = "Read and tidy up what the ledger remembers; a bridge may be at work on it."

FIELDS: Final = (
    "taskId", "method", "account", "state", "outcome", "code", "kind", "attempts", "recordedAt", "finishedAt",
    "endpoint", "taskType", "ageSeconds", "latencyMs",
)  # fmt: skip
"""Columns of an export: those of a record on the wire, then what only the ledger tells."""
COLUMNS: Final[Mapping[str, Callable[[Row], str]]] = {
    "recorded": lambda row: show_time(row.recorded_wall),
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
_PAGE: Final = 1000
_COUNTED: Final = 100_000
"""A list says how many reports there are up to here; a count of many more takes longer than the list."""
_STEP: Final = 500
_FOLLOW_S: Final = 600.0
"""How far back changes are looked for while following: a report ends within minutes."""
_LOOK_S: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument(
        "action", nargs="?", choices=tuple(_ACTIONS), default="list", metavar="ACTION", help="see below"
    )
    parser.add_argument("task", nargs="?", metavar="TASK", help="task id, for show")
    ledger_arguments.add_filter_flags(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="most reports (list: 50)")
    parser.add_argument("--columns", metavar="A,B", help=f"list: of {', '.join(COLUMNS)}")
    parser.add_argument("--follow", action="store_true", help="list: go on with what comes, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="list and show: print JSON")
    parser.add_argument(
        "--format", choices=("csv", "jsonl"), metavar="NAME", help="export: csv (default) or jsonl"
    )
    parser.add_argument("--output", metavar="FILE", help="export: write to this file")
    parser.add_argument("--before", metavar="TIME", help="prune: delete what was recorded before")


def run(args: argparse.Namespace) -> int:
    """Do one of the actions and return the exit code."""
    if (args.task is not None) != (args.action == "show"):
        raise UsageError(
            "history show takes a task id, such as `report-bridge history show 123`."
            if args.action == "show"
            else f"history {args.action} takes no further word; only show takes a task id."
        )
    action, taken = _ACTIONS[args.action]
    for name in sorted(set().union(*(names for _, names in _ACTIONS.values())) - taken):
        # Pruning must not look as if it could be filtered.
        if getattr(args, name) not in (None, False):
            raise UsageError(
                f"history {args.action} does not take --{name}; see `report-bridge history --help`."
            )
    action(args)
    return exits.DONE


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 62):
        raise argparse.ArgumentTypeError("takes a whole number from 1 on")
    return int(text)


def _listing(args: argparse.Namespace, settings: Settings, limit: int) -> Listing:
    since, until = ledger_arguments.read_span(args)
    endpoint = ledger_arguments.chosen_endpoint(settings)
    return Listing(endpoint, since, until, args.outcome, args.method, limit)


# --- list and show ---------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> None:
    columns = _choose_columns(args.columns)
    most = args.limit or (10 if args.follow else 50)
    with ledger_arguments.reading(args) as (settings, reader):
        listing = _listing(args, settings, min(most, _PAGE))
        rows: list[Row] = []
        for page in reader.pages(listing):
            rows += page
            if len(rows) >= most:
                break
        del rows[most:]
        if args.follow:
            if args.until is not None:
                raise UsageError("history --follow goes on for ever: it takes no --until.")
            rows.reverse()
            show = _Lines(columns, args.json)
            show(rows)
            _follow(lambda since: reader.pages(listing._replace(since_wall=since, limit=_PAGE)), rows, show)
        if args.json:
            print_text("".join(json.dumps(show_record(row)) + "\n" for row in rows))
            return
        if not rows:
            print_text("No report fits.\n")
            return
        lines = Screen().table(_head(columns), _cells(columns, rows), left=len(columns))
        if len(rows) == most and args.limit is None:
            whole = reader.count(listing, _COUNTED)
            if whole > most:
                more = " or more" if whole == _COUNTED else ""
                lines.append(f"{most} of {whole}{more}; --limit shows more, export all.")
        print_lines(lines)


def _choose_columns(text: str | None) -> list[str]:
    chosen = list(COLUMNS)[:_USUAL] if text is None else text.split(",")
    for name in chosen:
        if name not in COLUMNS:
            nearest = suggest(name, COLUMNS)
            raise UsageError(
                f"--columns has a name that is no column{nearest} There are {', '.join(COLUMNS)}."
            )
    return chosen


def _head(columns: list[str]) -> list[str]:
    return ["recorded (UTC)" if name == "recorded" else name for name in columns]


def _cells(columns: list[str], rows: list[Row]) -> list[list[str]]:
    return [[COLUMNS[name](row) for name in columns] for row in rows]


class _Lines:
    """Prints rows one after the other, in columns that stay where they are."""

    _WIDTHS: Final = {"recorded": 19, "task": 16, "method": 27, "outcome": 8, "code": 6, "kind": 24}

    def __init__(self, columns: list[str], is_json: bool) -> None:
        self._columns = columns
        self._is_json = is_json
        self._is_first = True

    def __call__(self, rows: list[Row]) -> None:
        if self._is_json:
            print_text("".join(json.dumps(show_record(row)) + "\n" for row in rows))
        else:
            widest = ["x" * self._WIDTHS.get(name, 8) for name in self._columns]
            cells = [widest, *_cells(self._columns, rows)]
            lines = Screen().table(_head(self._columns), cells, left=len(self._columns))[: len(cells) + 1]
            print_text("".join(f"{line}\n" for line in ([lines[0]] if self._is_first else []) + lines[2:]))
            self._is_first = False
        if sys.stdout is not None:
            sys.stdout.flush()


def _follow(
    read: Callable[[float], Iterator[tuple[Row, ...]]], shown: list[Row], show: Callable[[list[Row]], None]
) -> None:
    """Show every report as it is recorded, and again when it ends."""
    known = {row.seq: row.outcome for row in shown}
    began = shown[0].recorded_wall if shown else time.time()
    while True:
        time.sleep(_LOOK_S)
        rows = [row for page in read(max(began, time.time() - _FOLLOW_S)) for row in page]
        news = [row for row in reversed(rows) if known.get(row.seq, "new") != row.outcome]
        if news:
            show(news)
        known = {row.seq: row.outcome for row in (*shown, *rows)}


def _show(args: argparse.Namespace) -> None:
    if not (args.task.isascii() and args.task.isdigit() and len(args.task) <= 16 and int(args.task)):
        raise UsageError("A task id is a whole number, such as 2151574698.")
    with ledger_arguments.reading(args) as (settings, reader):
        found = reader.find(int(args.task), ledger_arguments.chosen_endpoint(settings))
        if not found.rows:
            place = "in the database" if is_database(settings.ledger) else f"at {settings.ledger}"
            raise NotPossible(f"The ledger {place} has no report of task {args.task}.")
        stories = [(row, reader.events(row.seq)) for row in found.rows]
    if not found.is_whole:
        warn("the server is too slow to look for older reports with this id (ids are used again)")
    if args.json:
        told = [
            {
                **_record(row),
                "detail": dict(row.detail),
                "events": [
                    {"at": rfc3339(event.at_wall), "event": event.name, **event.data} for event in events
                ],
            }
            for row, events in stories
        ]
        print_json({"reports": told})
        return
    screen = Screen()
    lines: list[str] = []
    for row, events in stories:
        record = {name: value for name, value in _record(row).items() if value is not None}
        told_more = {name: value for name, value in row.detail.items() if name not in record}
        lines += [""] if lines else []
        lines += [*screen.fields({**record, **told_more}), "", screen.paint("what happened", "bold")]
        for event in events:
            told_of = [f"{name} {spell(value)}" for name, value in event.data.items() if value is not None]
            first = f"{rfc3339(event.at_wall)}  {escape(event.name):<16}"
            lines += screen.wrap(", ".join(told_of), " " * 42, first) if told_of else [first.rstrip()]
    print_lines(lines)


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
    with ledger_arguments.reading(args) as (settings, reader):
        listing = _listing(args, settings, _PAGE)
        progress = Progress("exporting")
        whole = min(reader.count(listing), args.limit or 1 << 62)
        written = 0
        with _output(args.output) as file:
            write = _write_jsonl(file) if args.format == "jsonl" else _write_csv(file)
            for page in reader.pages(listing):
                for row in page[: whole - written]:
                    write(_record(row))
                written += min(len(page), whole - written)
                progress.tell(written, whole)
                if written >= whole:
                    break
        progress.end()
    if args.output is not None:
        warn(f"{plural(written, 'report')} written to {args.output}")


def _write_jsonl(file: IO[str]) -> Callable[[Mapping[str, Any]], object]:
    return lambda record: file.write(json.dumps(record) + "\n")


def _write_csv(file: IO[str]) -> Callable[[Mapping[str, Any]], object]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    return lambda record: writer.writerow([to_cell(record[name]) for name in FIELDS])


def to_cell(value: Any) -> Any:
    """Return a value for a cell of a CSV file: text in it can neither steer a terminal nor be a formula."""
    return escape_cell(value) if isinstance(value, str) else value


@contextmanager
def _output(path: str | None) -> Iterator[IO[str]]:
    if path is None:
        if sys.stdout is not None:
            yield sys.stdout
        return
    try:
        # What was reported, when and for whom is nobody else's business.
        mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(path, mode, 0o600), "w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise NotPossible(f"The file {path} cannot be written ({error.strerror}).") from None


# --- prune and path --------------------------------------------------------------------------


def _prune(args: argparse.Namespace) -> None:
    now = time.time()
    before = now - HISTORY_S if args.before is None else parse_time(args.before, now, "--before")
    if before > now - DAY_S:
        raise UsageError("Reports younger than a day guard their tasks against a second report; they stay.")
    with ledger_arguments.reading(args) as (settings, reader):
        if (trouble := reader.try_write()) is not None:
            raise trouble
        whole = reader.count(Listing(None, until_wall=before))
    progress = Progress("pruning")
    deleted = 0
    with ledger_arguments.explaining(settings):
        store = ledger_arguments.open_store(settings)
        try:
            while gone := int(store.transact([Prune(before, _STEP)])[0]):
                deleted += gone
                progress.tell(deleted, whole)
                # A bridge that waits for the lock polls; without a pause it would never get its turn.
                time.sleep(0.01)
        finally:
            store.close()
    progress.end()
    was = "was" if deleted == 1 else "were"
    print_text(f"{plural(deleted, 'report')} from before {show_time(before)} UTC {was} deleted.\n")


def _path(args: argparse.Namespace) -> None:
    ledger_arguments.print_place(load(args.given, os.environ))


_FILTERS: Final = {"since", "until", "outcome", "method", "limit"}
_ACTIONS: Final[Mapping[str, tuple[Callable[[argparse.Namespace], None], set[str]]]] = {
    "list": (_list, {*_FILTERS, "json", "columns", "follow"}),
    "show": (_show, {"json"}),
    "export": (_export, {*_FILTERS, "format", "output"}),
    "prune": (_prune, {"before"}),
    "path": (_path, set()),
}
"""What each action does, and the flags it takes."""
