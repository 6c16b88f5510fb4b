"""``report-bridge ledger``: look after the ledger itself: copy, check, migrate."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import closing

from bridge.cli.ledger_arguments import NotPossible, open_reader, open_store, reading, show_place
from bridge.cli.terminal import print_lines, progress
from bridge.core import exits
from bridge.core.model import Listing
from bridge.core.text import plural
from bridge.ledger.reading import copy
from bridge.ledger.statistics import NoLedger
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.table import MEMORY

HELP = "Look after the ledger itself: copy it, check it, bring it to this version."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    actions = ("copy", "check", "migrate")
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
    try:
        if args.action == "copy":
            _copy(*(load({**args.given, "ledger": place}, os.environ) for place in args.places))
            return exits.DONE
        if args.action == "migrate":
            _make(load(args.given, os.environ))
        return _look(args)
    except LedgerTrouble as trouble:
        raise NotPossible(trouble.sentence) from None


def _make(settings: Settings) -> None:
    """Make the ledger, or bring it to this version."""
    if settings.ledger == MEMORY:
        raise exits.UsageError("a ledger in memory ends with its bridge: name a file or a database")
    with closing(open_store(settings)) as store:
        if store.trouble is not None:
            raise store.trouble


def _copy(source: Settings, target: Settings) -> None:
    try:
        with progress("copying") as tell, closing(open_reader(source)) as reader:
            _make(target)
            with closing(open_reader(target)) as there:
                copied = copy(reader, there, tell)
    except NoLedger as reason:
        raise NotPossible(str(reason)) from None
    print_lines([f"{plural(copied, 'report')} copied; the copy is complete."])


def _look(args: argparse.Namespace) -> int:
    """Say which version it is; for a check, also what damage was found."""
    damage: Sequence[str] = ()
    with reading(args) as (settings, reader):
        reports = plural(reader.count(Listing(None)), "report")
        lines = [f"{show_place(settings)}: {reports}, version {reader.version}"]
        if args.action == "check":
            damage = reader.check(args.full)
            lines += damage or ["no damage found"]
    print_lines(lines)
    return exits.REFUSED if damage else exits.DONE
