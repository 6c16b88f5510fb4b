"""What the commands that read the ledger share: their flags, and opening it with a sentence if that fails."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.cli import moments
from bridge.core.exits import REFUSED, ExitError
from bridge.core.model import OUTCOMES
from bridge.ledger.figures import NoLedger, Reader, open_reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.ops.clock import boot_clock, wall_clock
from bridge.settings import Settings, load


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
        ConfigError: the settings cannot be used.
        NothingToRead: there is no ledger, or it cannot be read.
    """
    settings = load(args.given, os.environ)
    with explaining():
        reader = open_reader(settings.ledger, boot_clock(), wall_clock())
        try:
            yield settings, reader
        finally:
            reader.close()


@contextmanager
def explaining() -> Iterator[None]:
    """Turn what the ledger says into a sentence and an exit code."""
    try:
        yield
    except NoLedger as reason:
        raise NothingToRead(str(reason)) from None
    except LedgerTrouble as trouble:
        raise NothingToRead(trouble.sentence) from None
