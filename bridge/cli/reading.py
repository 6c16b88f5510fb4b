"""What the commands for the ledger share: their flags, and opening it with a sentence if that fails."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge.cli import moments
from bridge.core.exits import REFUSED, ConfigError, ExitError
from bridge.core.model import OUTCOMES
from bridge.ledger.figures import NoLedger, Reader, open_reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.ops.clock import boot_clock, wall_clock
from bridge.settings import Settings, load
from bridge.settings_parse import is_database

if TYPE_CHECKING:
    from bridge.ledger.port import Store

_BUSY_S = 10.0
"""How long a command waits for a bridge that is committing: it is in no hurry."""


class NothingToRead(ExitError):
    """There is no ledger, or it cannot be read."""

    exit_code = REFUSED


def add_span_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--since`` and ``--until``."""
    parser.add_argument("--since", metavar="TIME", help=f"recorded at or after: {moments.HELP}")
    parser.add_argument("--until", metavar="TIME", help="recorded before")


def add_filter_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose reports."""
    add_span_flags(parser)
    parser.add_argument("--outcome", choices=OUTCOMES, help="only reports with this outcome")
    parser.add_argument("--method", metavar="NAME", help="only reports with this method")


def read_span(args: argparse.Namespace) -> tuple[float | None, float | None]:
    """Return the two moments as UNIX seconds.

    Raises:
        UsageError: one of them is no moment.
    """
    now = time.time()
    since = None if args.since is None else moments.parse_moment(args.since, now, "--since")
    until = None if args.until is None else moments.parse_moment(args.until, now, "--until")
    return since, until


def chosen_endpoint(settings: Settings) -> str | None:
    """The upstream that was asked for; None if none was, and then reports to any are read."""
    return None if settings.origin("url") == "default" else settings.url


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[tuple[Settings, Reader]]:
    """Open the ledger of the settings for as long as the block lasts.

    Raises:
        ConfigError: the settings cannot be used, or the server that they name.
        NothingToRead: there is no ledger, or it cannot be read.
    """
    settings = load(args.given, os.environ)
    with explaining(settings):
        reader = open_reader(settings.ledger, boot_clock(), wall_clock(), settings.ledger_password)
        try:
            yield settings, reader
        finally:
            reader.close()


@contextmanager
def explaining(settings: Settings) -> Iterator[None]:
    """Turn what the ledger says into a sentence and an exit code.

    Raises:
        ConfigError: a server cannot be used as it is configured.
        NothingToRead: a file cannot be used.
    """
    try:
        yield
    except NoLedger as reason:
        raise _refusal(settings, str(reason)) from None
    except LedgerTrouble as trouble:
        raise _refusal(settings, trouble.sentence) from None


def _refusal(settings: Settings, sentence: str) -> ExitError:
    if is_database(settings.ledger):
        # Where the address is written down, and nothing of the address: it may hold a password.
        return ConfigError(f"{sentence} The ledger is set by {settings.origin('ledger')}.")
    return NothingToRead(sentence)


def open_store(settings: Settings) -> Store:
    """Open the ledger of the settings for a command that changes it, making it if it is missing.

    Args:
        settings: name a file or a server; a ledger in memory ends with its bridge.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """
    from bridge.reports.pauses import PausePolicy

    policy = PausePolicy("command")
    if is_database(settings.ledger):
        from bridge.ledger.postgres import PostgresStore

        return PostgresStore.open(
            settings.ledger,
            policy=policy,
            machine="command",
            boot_clock=boot_clock,
            wall_clock=wall_clock,
            password=settings.ledger_password,
        )
    from bridge.ledger.sqlite import SqliteStore

    return SqliteStore.open(
        settings.ledger,
        policy=policy,
        machine="command",
        boot_clock=boot_clock,
        wall_clock=wall_clock,
        busy_s=_BUSY_S,
    )
