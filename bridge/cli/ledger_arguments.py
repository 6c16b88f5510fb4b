"""What the commands for the ledger share: their flags, and opening it with a sentence if that fails."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.cli import times
from bridge.cli.terminal import print_text, warn
from bridge.core.exits import REFUSED, ConfigError, ExitError
from bridge.core.model import OUTCOMES
from bridge.core.text import escape
from bridge.engine.clock import SystemClock
from bridge.ledger.reading import open_reader
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.parsing import is_database, mask_password
from bridge.settings.table import MEMORY

if TYPE_CHECKING:
    from bridge.ledger.port import Store

SETTINGS = ("url", "ledger")
"""The settings that reading a ledger needs."""
_BUSY_S = 10.0
"""How long a command waits for a bridge that is committing: it is in no hurry."""


class NotPossible(ExitError):
    """There is no ledger, it cannot be read, or something is wrong with it."""

    exit_code = REFUSED


def add_span_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--since`` and ``--until``."""
    parser.add_argument("--since", metavar="TIME", help=f"from {times.HELP}")
    parser.add_argument("--until", metavar="TIME", help="to, written the same way")


def add_filter_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose reports."""
    add_span_flags(parser)
    parser.add_argument("--outcome", choices=OUTCOMES, metavar="NAME", help="|".join(OUTCOMES))
    parser.add_argument("--method", metavar="NAME", help="only reports with this method")


def read_span(args: argparse.Namespace) -> tuple[float | None, float | None]:
    """Return the two times as UNIX seconds.

    Raises:
        UsageError: one of them is no time.
    """
    now = time.time()
    since = None if args.since is None else times.parse_time(args.since, now, "--since")
    return since, None if args.until is None else times.parse_time(args.until, now, "--until")


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


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[tuple[Settings, Reader]]:
    """Open the ledger of the settings for as long as the block lasts.

    Raises:
        ConfigError: the settings cannot be used, or the server that they name.
        NotPossible: there is no ledger, or it cannot be read.
    """
    settings = load(args.given, os.environ)
    with explaining(settings):
        reader = open_reader(settings.ledger, SystemClock.now(), SystemClock.wall(), settings.ledger_password)
        try:
            yield settings, reader
        finally:
            reader.close()


@contextmanager
def explaining(settings: Settings) -> Iterator[None]:
    """Turn what the ledger says into a sentence and an exit code.

    Raises:
        ConfigError: a server cannot be used as it is configured.
        NotPossible: a file cannot be used.
    """
    try:
        yield
    except (NoLedger, LedgerTrouble) as trouble:
        sentence = trouble.sentence if isinstance(trouble, LedgerTrouble) else str(trouble)
        if is_database(settings.ledger):
            # Where the address is written down, and nothing of the address: it may hold a password.
            raise ConfigError(f"{sentence} The ledger is set by {settings.origin('ledger')}.") from None
        raise NotPossible(sentence) from None


def open_store(settings: Settings) -> Store:
    """Open the ledger of the settings for a command that changes it, making it if it is missing.

    Args:
        settings: name a file or a server; a ledger in memory ends with its bridge.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """
    from bridge.reports.pauses import PausePolicy

    clock = SystemClock()
    policy = PausePolicy("command")
    if is_database(settings.ledger):
        from bridge.ledger.postgres import PostgresStore

        return PostgresStore(
            settings.ledger,
            policy=policy,
            machine="command",
            boot_clock=clock.now,
            wall_clock=clock.wall,
            password=settings.ledger_password,
            trusts_clock=True,
        )
    from bridge.ledger.sqlite import SqliteStore

    return SqliteStore.open(
        settings.ledger,
        policy=policy,
        machine="command",
        boot_clock=clock.now,
        wall_clock=clock.wall,
        busy_s=_BUSY_S,
        trusts_clock=True,
    )
