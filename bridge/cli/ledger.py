"""``report-bridge ledger``: look after the ledger itself; and what all commands share that read it.

That is actions, times, which are UTC as in the records, opening it with a sentence if that fails, and files.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from bridge.cli.terminal import print_lines, progress
from bridge.core.exits import DONE, REFUSED, ConfigError, ExitError, UsageError
from bridge.core.model import Listing
from bridge.core.text import escape, escape_cell, hide_keys, plural
from bridge.engine import SystemClock
from bridge.ledger import reading as opening
from bridge.ledger.port import Store
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.parsing import is_database, mask_password
from bridge.settings.table import MEMORY

DAY_S: Final = 86_400.0
_BUSY_S: Final = 10.0
"""How long a command waits for a bridge that is committing: it is in no hurry."""
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
_TIMES: Final = "2026-01-31T08:00Z, UNIX seconds, or how long ago: 24h, 7d"
Actions = Mapping[str, tuple[Callable[[argparse.Namespace], int | None], Collection[str]]]
"""What each action of a command does, and which of the command's arguments it takes."""


class NotPossible(ExitError):
    """There is no ledger, it cannot be read, or something is wrong with it."""

    exit_code = REFUSED


def run_action(command: str, actions: Actions, args: argparse.Namespace) -> int | None:
    """Do what was asked for.

    Raises:
        UsageError: the action would ignore an argument, and look as if it kept to it.
    """
    action, taken = actions[args.action]
    for name in sorted({name for _, names in actions.values() for name in names}.difference(taken)):
        if getattr(args, name) not in (None, False, []):
            what = "a further word" if name in ("task", "places") else f"--{name}"
            takers = " and ".join(other for other, (_, names) in actions.items() if name in names)
            told = f"{command} {args.action} does not take {what}, which is for {takers}"
            hint = (
                "name the ledger with --ledger"
                if name == "places"
                else f"see `report-bridge {command} --help`"
            )
            raise UsageError(f"{told}; {hint}.")
    return action(args)


def add_span_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--since`` and ``--until``."""
    parser.add_argument("--since", type=parse_time, metavar="TIME", help=f"from {_TIMES}")
    parser.add_argument("--until", type=parse_time, metavar="TIME", help="to, written the same way")


def parse_time(text: str) -> float:
    """Turn a date, a UNIX time or a length back from now into UNIX seconds; without a zone it is UTC.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if ago:
        return max(0.0, time.time() - float(ago[1]) * _UNITS[ago[2]])
    if re.fullmatch(r"\d{5,11}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a time: {_TIMES}") from None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def show_time(wall: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(wall, UTC).strftime(form)


def show_length(seconds: float) -> str:
    """Return a length of time in the unit that fits it."""
    for unit, length in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def show_place(settings: Settings) -> str:
    """Return where the ledger is, without a password."""
    return escape(hide_keys(mask_password(settings.ledger)))


def open_reader(settings: Settings) -> Reader:
    """Open the ledger of the settings for reading; see `bridge.ledger.reading.open_reader`."""
    clocks = (SystemClock.now(), SystemClock.wall())
    return opening.open_reader(settings.ledger, *clocks, settings.ledger_password)


@contextmanager
def reading(
    args: argparse.Namespace, to_write: bool = False
) -> Iterator[tuple[Settings, str | None, Reader]]:
    """Open the ledger of the settings for as long as the block lasts.

    Returns:
        the settings; the upstream that was asked for, None if none was, and then reports to any are read;
        and the reader.

    Args:
        to_write: also make sure that it could be written.

    Raises:
        ConfigError: the settings cannot be used, or the server that they name.
        NotPossible: there is no ledger, or it cannot be read, or not written.
    """
    settings = load(args.given, os.environ)
    try:
        with closing(open_reader(settings)) as reader:
            if to_write:
                reader.try_write()
            yield settings, None if settings.origin("url") == "default" else settings.url, reader
    except (NoLedger, LedgerTrouble) as error:
        if is_database(settings.ledger):
            # Where the address is written down, and nothing of the address: it may hold a password.
            raise ConfigError(f"{error} The ledger is set by {settings.origin('ledger')}.") from None
        raise _explain(settings, error) from None


def _explain(settings: Settings, error: NoLedger | LedgerTrouble) -> NotPossible:
    """Say which ledger cannot be used; that there is none says so itself."""
    place = "" if isinstance(error, NoLedger) else f"{show_place(settings)}: "
    return NotPossible(f"{place}{error}")


def open_store(settings: Settings) -> Store:
    """Open the ledger of the settings for a command that changes it, making it if it is missing.

    Args:
        settings: name a file or a server; a ledger in memory ends with its bridge.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """
    from bridge.reports.pauses import PausePolicy

    options: dict[str, Any] = {
        "policy": PausePolicy("command"),
        "boot_clock": SystemClock.now,
        "wall_clock": SystemClock.wall,
        "trusts_clock": True,
    }
    if is_database(settings.ledger):
        from bridge.ledger.postgres import PostgresStore

        return PostgresStore(settings.ledger, password=settings.ledger_password, **options)
    from bridge.ledger.sqlite import SqliteStore

    return SqliteStore(settings.ledger, busy_s=_BUSY_S, **options)


# --- files of figures ------------------------------------------------------------------------


@contextmanager
def writing(path: str) -> Iterator[Callable[[str], object]]:
    """Open a file for as long as the block lasts and hand out what writes a text into it.

    What was reported, when and for whom is nobody else's business, so it is the user's alone.

    Raises:
        NotPossible: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file.write
    except OSError as error:
        raise NotPossible(f"The file {path} cannot be written ({error.strerror}).") from None


def csv_line(values: Iterable[Any]) -> str:
    """Return a line of a CSV file: text in it can neither steer a terminal nor be a formula."""
    line = io.StringIO()
    cells = (escape_cell(value) if isinstance(value, str) else value for value in values)
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


# --- the command -----------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("action", choices=tuple(_ACTIONS), metavar="ACTION", help="|".join(_ACTIONS))
    parser.add_argument("places", nargs="*", metavar="LEDGER", help="for copy: from where, and to where")
    parser.add_argument("--full", action="store_true", help="check: read every report, which takes a while")


def run(args: argparse.Namespace) -> int | None:
    """Do one of the actions; the exit code says whether something is wrong with the ledger."""
    return run_action("ledger", _ACTIONS, args)


def _make(settings: Settings) -> None:
    """Make the ledger, or bring it to this version."""
    if settings.ledger == MEMORY:
        raise UsageError("a ledger in memory ends with its bridge: name a file or a database")
    try:
        with closing(open_store(settings)) as store:
            if store.trouble is not None:
                raise store.trouble
    except LedgerTrouble as trouble:
        raise _explain(settings, trouble) from None


def _copy(args: argparse.Namespace) -> None:
    if len(args.places) != 2:
        raise UsageError("ledger copy takes two ledgers: from where, and to where")
    source, target = (load({**args.given, "ledger": place}, os.environ) for place in args.places)
    if source.ledger == target.ledger:
        raise UsageError("ledger copy takes two ledgers, and these are one")
    about = source
    try:
        with progress("copying") as tell, closing(open_reader(source)) as reader:
            about = target
            _make(target)
            with closing(open_reader(target)) as there:
                copied = opening.copy(reader, there, tell)
    except (NoLedger, LedgerTrouble) as error:
        raise _explain(about, error) from None
    print_lines([f"{plural(copied, 'report')} copied; the copy is complete."])


def _migrate(args: argparse.Namespace) -> None:
    _make(load(args.given, os.environ))
    with reading(args) as (settings, _, reader):
        print_lines([_describe(settings, reader)])


def _check(args: argparse.Namespace) -> int:
    with reading(args) as (settings, _, reader):
        damage = reader.check(args.full)
        print_lines([_describe(settings, reader), *(damage or ["no damage found"])])
    return REFUSED if damage else DONE


def _describe(settings: Settings, reader: Reader) -> str:
    reports = plural(reader.count(Listing(None)), "report")
    return f"{show_place(settings)}: {reports}, version {reader.version}"


_ACTIONS: Final[Actions] = {
    "copy": (_copy, ("places",)),
    "check": (_check, ("full",)),
    "migrate": (_migrate, ()),
}
