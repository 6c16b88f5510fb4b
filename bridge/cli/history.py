"""``report-bridge history``: what the ledger remembers: list, show, export, prune, path."""

from __future__ import annotations

import argparse
import csv
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final

from bridge.cli import reading
from bridge.cli.main import print_text
from bridge.cli.moments import DAY_S, parse_moment, show_time
from bridge.cli.show import Progress, Screen, warn
from bridge.core import exits
from bridge.core.exits import ExitError, UsageError
from bridge.core.model import HISTORY_S, Listing, Prune, Row
from bridge.methods import show_record
from bridge.settings import Settings, load
from bridge.settings.parsing import is_database, mask_password

HELP = "Read and tidy up what the ledger remembers; a bridge may be at work on it."
EPILOG = """actions:
  list             reports, newest first
  show TASK        one report and everything that happened to it
  export           all reports as CSV or JSON lines, newest first
  prune            delete reports older than 90 days (or --before), never one younger than a day
  path             print where the ledger is

examples:
  report-bridge history list --since 24h --outcome refused
  report-bridge history show 2151574698
  report-bridge history export --format csv --output reports.csv
  report-bridge history prune --before 30d"""

ACTIONS: Final = ("list", "show", "export", "prune", "path")
FIELDS: Final = (
    "taskId", "method", "account", "state", "outcome", "code", "kind", "attempts", "recordedAt", "finishedAt",
    "endpoint", "taskType", "ageSeconds", "latencyMs",
)  # fmt: skip
"""Columns of an export: those of a record on the wire, then what only the ledger tells."""
_PAGE: Final = 1000
_COUNTED: Final = 100_000
"""A list says how many reports there are up to here; a count of many more takes longer than the list."""
_STEP: Final = 500


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="|".join(ACTIONS))
    parser.add_argument("task", nargs="?", metavar="TASK", help="task id, for show")
    reading.add_filter_flags(parser)
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="most reports; list shows 50 if not told"
    )
    parser.add_argument("--json", action="store_true", help="list and show: print JSON")
    parser.add_argument(
        "--format", choices=("csv", "jsonl"), default="csv", help="of an export (default csv)"
    )
    parser.add_argument("--output", metavar="FILE", help="export: write here instead of standard output")
    parser.add_argument("--before", metavar="TIME", help="prune: delete what was recorded before")


def run(args: argparse.Namespace) -> int:
    """Do one of the actions and return the exit code."""
    if (args.task is not None) != (args.action == "show"):
        raise UsageError(
            "history show takes a task id, such as `report-bridge history show 123`."
            if args.action == "show"
            else f"history {args.action} takes no further word; only show takes a task id."
        )
    _refuse_idle_flags(args)
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "export": _export,
        "prune": _prune,
        "path": _path,
    }
    return actions[args.action](args)


_TAKES: Final[Mapping[str, frozenset[str]]] = {
    "list": frozenset({"since", "until", "outcome", "method", "limit", "json"}),
    "show": frozenset({"json"}),
    "export": frozenset({"since", "until", "outcome", "method", "limit", "output"}),
    "prune": frozenset({"before"}),
    "path": frozenset(),
}


def _refuse_idle_flags(args: argparse.Namespace) -> None:
    """Refuse a flag that the action would ignore: pruning must not look as if it could be filtered."""
    for name in sorted(frozenset().union(*_TAKES.values()) - _TAKES[args.action]):
        if getattr(args, name) not in (None, False):
            raise UsageError(
                f"history {args.action} does not take --{name}; see `report-bridge history --help`."
            )


def _positive(text: str) -> int:
    value = int(text)
    if not 0 < value < 1 << 62:
        raise ValueError
    return value


def _listing(args: argparse.Namespace, endpoint: str | None, limit: int) -> Listing:
    since, until = reading.read_span(args)
    return Listing(endpoint, since, until, args.outcome, args.method, limit)


# --- list and show ---------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    most = args.limit or 50
    with reading.reading(args) as (settings, reader):
        listing = _listing(args, reading.chosen_endpoint(settings), min(most, _PAGE))
        rows: list[Row] = []
        for page in reader.pages(listing):
            rows += page
            if len(rows) >= most:
                break
        del rows[most:]
        if args.json:
            print_text("".join(json.dumps(show_record(row)) + "\n" for row in rows))
            return exits.DONE
        if not rows:
            print_text("No report fits.\n")
            return exits.DONE
        screen = Screen()
        head = ("recorded (UTC)", "task", "method", "outcome", "code", "kind", "tries", "account")
        table = [
            (
                show_time(row.recorded_wall),
                str(row.task.task_id),
                row.method,
                row.outcome or row.state,
                str(row.code or ""),
                "" if row.kind == row.outcome else row.kind or "",
                str(row.attempts),
                row.task.account[:8],
            )
            for row in rows
        ]
        lines = screen.table(head, table, left=len(head))
        if len(rows) == most and args.limit is None:
            whole = reader.count(listing, _COUNTED)
            if whole > most:
                more = " or more" if whole == _COUNTED else ""
                lines.append(f"{most} of {whole}{more}; --limit shows more, export all.")
        print_text("\n".join(lines) + "\n")
    return exits.DONE


def _show(args: argparse.Namespace) -> int:
    if not (args.task.isascii() and args.task.isdigit() and len(args.task) <= 16 and int(args.task)):
        raise UsageError("A task id is a whole number, such as 2151574698.")
    with reading.reading(args) as (settings, reader):
        found = reader.find(int(args.task), reading.chosen_endpoint(settings))
        if not found.rows:
            place = "in the database" if is_database(settings.ledger) else f"at {settings.ledger}"
            raise reading.NothingToRead(f"The ledger {place} has no report of task {args.task}.")
        stories = [(row, reader.events(row.seq)) for row in found.rows]
    if not found.is_whole:
        warn("the server is too slow to look for older reports of this id, from when it was another task's")
    if args.json:
        told = [
            {
                **_record(row),
                "detail": dict(row.detail),
                "events": [
                    {"at": show_time(e.at_wall, "%Y-%m-%dT%H:%M:%S.%fZ"), "event": e.name, **e.data}
                    for e in events
                ],
            }
            for row, events in stories
        ]
        print_text(json.dumps({"reports": told}, indent=2) + "\n")
        return exits.DONE
    screen = Screen()
    lines: list[str] = []
    for row, events in stories:
        lines += [""] if lines else []
        record = {name: value for name, value in _record(row).items() if value is not None}
        lines += [f"{screen.paint(f'{name:<12}', 'bold')}{value}" for name, value in record.items()]
        lines += [f"{name:<12}{_spell(value)}" for name, value in row.detail.items() if name not in record]
        lines += ["", screen.paint("what happened", "bold")]
        for event in events:
            data = ", ".join(
                f"{name} {_spell(value)}" for name, value in event.data.items() if value is not None
            )
            lines.append(
                f"{show_time(event.at_wall, '%Y-%m-%d %H:%M:%S.%f')[:-3]}  {event.name:<16}{data}".rstrip()
            )
    print_text("\n".join(lines) + "\n")
    return exits.DONE


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_spell(item) for item in value)
    if isinstance(value, dict):
        return str(value.get("message") or json.dumps(value))
    return value if isinstance(value, str) else json.dumps(value)


def _record(row: Row) -> dict[str, Any]:
    return {
        **show_record(row),
        "endpoint": row.task.endpoint,
        "taskType": row.facts.task_type,
        "ageSeconds": None if row.facts.age_s is None else round(row.facts.age_s, 1),
        "latencyMs": row.latency_ms,
    }


# --- export ----------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> int:
    with reading.reading(args) as (settings, reader):
        listing = _listing(args, reading.chosen_endpoint(settings), _PAGE)
        progress = Progress("exporting")
        whole = min(reader.count(listing), args.limit or 1 << 62)
        written = 0
        with _output(args.output) as file:
            write = _writer(file, args.format)
            for page in reader.pages(listing):
                for row in page[: whole - written]:
                    write(_record(row))
                written += min(len(page), whole - written)
                progress.tell(written, whole)
                if written >= whole:
                    break
        progress.end()
    if args.output is not None:
        warn(f"{written} reports written to {args.output}")
    return exits.DONE


def _writer(file: IO[str], form: str) -> Callable[[Mapping[str, Any]], object]:
    if form == "csv":
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        return writer.writerow
    return lambda record: file.write(json.dumps(record) + "\n")


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
        raise OutputRefused(f"The file {path} cannot be written ({error.strerror}).") from None


class OutputRefused(ExitError):
    """The file for the output cannot be written."""

    exit_code = exits.REFUSED


# --- prune and path --------------------------------------------------------------------------


def _prune(args: argparse.Namespace) -> int:
    now = time.time()
    before = now - HISTORY_S if args.before is None else parse_moment(args.before, now, "--before")
    if before > now - DAY_S:
        raise UsageError("Reports younger than a day guard their tasks against a second report; they stay.")
    with reading.reading(args) as (settings, reader):
        if (trouble := reader.try_write()) is not None:
            raise trouble
        whole = reader.count(Listing(None, until_wall=before))
    progress = Progress("pruning")
    deleted = _delete(settings, before, lambda done: progress.tell(min(done, whole), whole))
    progress.end()
    print_text(f"{deleted} reports from before {show_time(before)} UTC were deleted.\n")
    return exits.DONE


def _delete(settings: Settings, before: float, tell: Callable[[int], None]) -> int:
    deleted = 0
    with reading.explaining(settings):
        store = reading.open_store(settings)
        try:
            while gone := int(store.transact([Prune(before, _STEP)])[0]):
                deleted += gone
                tell(deleted)
                # A bridge that waits for the lock polls; without a pause it would never get its turn.
                time.sleep(0.01)
        finally:
            store.close()
    return deleted


def _path(args: argparse.Namespace) -> int:
    ledger = load(args.given, os.environ).ledger
    print_text(f"{mask_password(ledger) if '://' in ledger else ledger}\n")
    try:
        exists = ledger != "memory" and ("://" in ledger or stat.S_ISREG(os.stat(ledger).st_mode))
    except OSError:
        exists = False
    if not exists:
        why = "the running bridge alone can read it" if ledger == "memory" else "the first report makes it"
        warn(f"nothing is there: {why}")
    return exits.DONE
