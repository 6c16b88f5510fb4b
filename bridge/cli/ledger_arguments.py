"""What the commands for the ledger share: flags, opening it with a sentence if that fails, and files."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from bridge.cli import times
from bridge.cli.terminal import print_text, warn
from bridge.core.exits import REFUSED, ConfigError, ExitError
from bridge.core.text import escape, escape_cell
from bridge.engine import SystemClock
from bridge.ledger import reading as ledgers
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.parsing import is_database, mask_password
from bridge.settings.table import MEMORY

if TYPE_CHECKING:
    from bridge.ledger.port import Store

_BUSY_S = 10.0
"""How long a command waits for a bridge that is committing: it is in no hurry."""


class NotPossible(ExitError):
    """There is no ledger, it cannot be read, or something is wrong with it."""

    exit_code = REFUSED


def add_span_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--since`` and ``--until``."""
    parser.add_argument("--since", type=times.parse_time, metavar="TIME", help=f"from {times.HELP}")
    parser.add_argument("--until", type=times.parse_time, metavar="TIME", help="to, written the same way")


def chosen_endpoint(settings: Settings) -> str | None:
    """The upstream that was asked for; None if none was, and then reports to any are read."""
    return None if settings.origin("url") == "default" else settings.url


def show_place(settings: Settings) -> str:
    """Return where the ledger is, without a password."""
    return escape(mask_password(settings.ledger))


def print_place(settings: Settings) -> None:
    """Print where the ledger is, and say on stderr if nothing is there."""
    ledger = settings.ledger
    print_text(f"{show_place(settings)}\n")
    if ledger == MEMORY:
        warn("nothing is there: the running bridge alone can read it")
    elif not is_database(ledger) and not os.path.isfile(ledger):
        warn("nothing is there: the first report makes it")


def open_reader(settings: Settings) -> Reader:
    """Open the ledger of the settings for reading; see `bridge.ledger.reading.open_reader`."""
    clocks = (SystemClock.now(), SystemClock.wall())
    return ledgers.open_reader(settings.ledger, *clocks, settings.ledger_password)


@contextmanager
def reading(args: argparse.Namespace, to_write: bool = False) -> Iterator[tuple[Settings, Reader]]:
    """Open the ledger of the settings for as long as the block lasts.

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
            yield settings, reader
    except (NoLedger, LedgerTrouble) as error:
        if is_database(settings.ledger):
            # Where the address is written down, and nothing of the address: it may hold a password.
            raise ConfigError(f"{error} The ledger is set by {settings.origin('ledger')}.") from None
        raise NotPossible(str(error)) from None


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
