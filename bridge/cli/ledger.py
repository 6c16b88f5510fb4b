"""``report-bridge ledger``: look after the ledger itself: copy, check, migrate, path."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from bridge.cli.ledger_arguments import NotPossible, open_store, print_place, reading, show_place
from bridge.cli.terminal import print_lines, progress
from bridge.core import exits
from bridge.core.text import plural
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.parsing import has_password
from bridge.settings.table import MEMORY

if TYPE_CHECKING:
    from bridge.ledger.copying import End

HELP = "Look after the ledger itself: copy it, check it, bring it to this version."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    actions = ("copy", "check", "migrate", "path")
    parser.add_argument("action", choices=actions, metavar="ACTION", help="|".join(actions))
    parser.add_argument("places", nargs="*", metavar="LEDGER", help="for copy: from where, and to where")
    parser.add_argument("--full", action="store_true", help="check: read every report, which takes a while")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        UsageError: the words do not fit the action.
        NotPossible: it cannot be done, or something is wrong with the ledger.
    """
    wanted = 2 if args.action == "copy" else 0
    if len(args.places) != wanted:
        told = "takes two ledgers: from where, and to where" if wanted else "takes its ledger by --ledger"
        raise exits.UsageError(f"ledger {args.action} {told}")
    settings = load(args.given, os.environ)
    try:
        if args.action == "copy":
            _copy(settings, *args.places)
        elif args.action == "path":
            print_place(settings)
        elif _look(args, settings):
            return exits.REFUSED
    except LedgerTrouble as trouble:
        raise NotPossible(trouble.sentence) from None
    return exits.DONE


def _copy(settings: Settings, source: str, target: str) -> None:
    from bridge.ledger.copying import NotCopied, copy

    try:
        with (
            progress("copying") as tell,
            closing(_open_end(settings, source, make=False)) as first,
            closing(_open_end(settings, target, make=True)) as second,
        ):
            copied = copy(first, second, tell)
    except NotCopied as reason:
        raise NotPossible(str(reason)) from None
    print_lines([f"{plural(copied, 'report')} copied; the copy is complete."])


def _open_end(settings: Settings, place: str, make: bool) -> End:
    from bridge.ledger.copying import PostgresEnd, SqliteEnd

    if place.startswith(("postgresql://", "postgres://")):
        if has_password(place):
            raise exits.UsageError(
                "a password on the command line can be read by others: use a service or pass file"
            )
        return PostgresEnd(place, settings.ledger_password, make)
    if place == MEMORY or "://" in place:
        raise exits.UsageError("a ledger to copy is a path or a postgresql:// URL")
    return SqliteEnd(os.path.abspath(os.path.expanduser(place)), make)


def _look(args: argparse.Namespace, settings: Settings) -> Sequence[str]:
    """Check or migrate, and say which version it is; returns the damage that was found."""
    is_check, place = args.action == "check", show_place(settings)
    if settings.ledger == MEMORY:
        raise exits.UsageError(
            "a ledger in memory ends with its bridge: name a file or a database with --ledger"
        )
    if not is_check:
        open_store(settings).close()
    with reading(args) as (_, reader):
        found = reader.check(args.full) if is_check else ()
        health = reader.health()
    version = f"version {health['schemaVersion']}"
    if not is_check:
        print_lines([f"{place}: {version}"])
        return ()
    lines = [f"{place}: {plural(health['reports'], 'report')}, {version}"]
    skew_s = health.get("clockSkewS", 0.0)
    if abs(skew_s) > 2.0:
        which = "ahead of" if skew_s > 0 else "behind"
        lines.append(f"this host's clock is {abs(skew_s):.0f} s {which} the server's")
    print_lines([*lines, *(found or ["no damage found"])])
    return found
