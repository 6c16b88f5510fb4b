"""``report-bridge ledger``: look after the ledger itself: copy, check, migrate."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from typing import Final

from bridge.cli import ledgers
from bridge.cli.terminal import print_lines, progress
from bridge.core import exits
from bridge.core.model import Listing
from bridge.core.text import plural
from bridge.ledger.copying import NotCopied, copy, open_target
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load
from bridge.settings.table import MEMORY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("action", choices=tuple(_ACTIONS), metavar="ACTION", help="|".join(_ACTIONS))
    parser.add_argument("places", nargs="*", metavar="LEDGER", help="for copy: from where, and to where")
    parser.add_argument("--full", action="store_true", help="check: read every report, which takes a while")


def run(args: argparse.Namespace) -> int | None:
    """Do one of the actions; the exit code says whether something is wrong with the ledger."""
    try:
        return ledgers.run_action("ledger", _ACTIONS, args)
    except (LedgerTrouble, NoLedger, NotCopied) as trouble:
        raise ledgers.NotPossible(str(trouble)) from None


def _make(settings: Settings) -> None:
    """Make the ledger, or bring it to this version."""
    if settings.ledger == MEMORY:
        raise exits.UsageError("a ledger in memory ends with its bridge: name a file or a database")
    with closing(ledgers.open_store(settings)) as store:
        if store.trouble is not None:
            raise store.trouble


def _copy(args: argparse.Namespace) -> None:
    if len(args.places) != 2:
        raise exits.UsageError("ledger copy takes two ledgers: from where, and to where")
    source, target = (load({**args.given, "ledger": place}, os.environ) for place in args.places)
    with progress("copying") as tell, closing(ledgers.open_reader(source)) as reader:
        _make(target)
        with (
            open_target(target.ledger, target.ledger_password) as end,
            closing(ledgers.open_reader(target)) as there,
        ):
            copied = copy(reader, there, end, tell)
    print_lines([f"{plural(copied, 'report')} copied; the copy is complete."])


def _migrate(args: argparse.Namespace) -> None:
    _make(load(args.given, os.environ))
    with ledgers.reading(args) as (settings, reader):
        print_lines([_describe(settings, reader)])


def _check(args: argparse.Namespace) -> int:
    with ledgers.reading(args) as (settings, reader):
        damage = reader.check(args.full)
        print_lines([_describe(settings, reader), *(damage or ["no damage found"])])
    return exits.REFUSED if damage else exits.DONE


def _describe(settings: Settings, reader: Reader) -> str:
    reports = plural(reader.count(Listing(None)), "report")
    return f"{ledgers.show_place(settings)}: {reports}, version {reader.version}"


_ACTIONS: Final[ledgers.Actions] = {
    "copy": (_copy, ("places",)),
    "check": (_check, ("full",)),
    "migrate": (_migrate, ()),
}
