"""``report-bridge ledger``: look after the ledger itself: copy, check, migrate, path."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from bridge.cli.main import print_text
from bridge.cli.reading import open_store
from bridge.core import exits
from bridge.core.exits import ExitError, UsageError
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, load

if TYPE_CHECKING:
    from bridge.ledger.copying import End
    from bridge.ledger.port import Store

HELP = "Look after the ledger itself: copy it, check it, bring it to this version."
EPILOG = """actions:
  copy FROM TO     copy a ledger into an empty one, of either kind; goes on where it was broken off
  check            look for damage; with --full, read everything
  migrate          make the tables, or bring them to this version, and change nothing else
  path             print where the ledger is, without a password

examples:
  report-bridge ledger copy ~/.local/state/report-bridge/ledger.sqlite3 postgresql://bridge@db.example/bridge
  report-bridge ledger check --full --ledger postgresql://bridge@db.example/bridge
  report-bridge ledger migrate --ledger postgresql://owner@db.example/bridge"""

ACTIONS: Final = ("copy", "check", "migrate", "path")


class LedgerRefused(ExitError):
    """The ledger is not as it should be, or cannot be reached."""

    exit_code = exits.REFUSED


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="|".join(ACTIONS))
    parser.add_argument("places", nargs="*", metavar="LEDGER", help="for copy: from where, and to where")
    parser.add_argument("--full", action="store_true", help="check: read every report, which takes a while")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code.

    Raises:
        UsageError: the words do not fit the action.
        LedgerRefused: it cannot be done, or something is wrong with the ledger.
    """
    wanted = 2 if args.action == "copy" else 0
    if len(args.places) != wanted:
        told = "takes two ledgers: from where, and to where" if wanted else "takes its ledger by --ledger"
        raise UsageError(f"ledger {args.action} {told}")
    settings = load(args.given, os.environ)
    try:
        if args.action == "copy":
            return _copy(settings, *args.places)
        if args.action == "path":
            print_text(f"{_show(settings.ledger)}\n")
            return exits.DONE
        return _check(settings, args.full) if args.action == "check" else _migrate(settings)
    except LedgerTrouble as trouble:
        raise LedgerRefused(trouble.sentence) from None


def _copy(settings: Settings, source: str, target: str) -> int:
    from bridge.ledger.copying import NotCopied, copy

    shows = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        if shows:
            share = 1.0 if total == 0 else min(1.0, done / total)
            print(f"\r[{'#' * int(share * 20):<20}] {done:,} of {total:,} reports ", end="", file=sys.stderr)

    try:
        first = _open_end(settings, source, make=False)
        try:
            second = _open_end(settings, target, make=True)
            try:
                copied = copy(first, second, tell)
            finally:
                second.close()
        finally:
            first.close()
    except NotCopied as reason:
        raise LedgerRefused(str(reason)) from None
    finally:
        if shows:
            print(file=sys.stderr)
    reports = "report" if copied == 1 else "reports"
    print_text(f"{copied:,} {reports} copied; the copy is complete.\n")
    return exits.DONE


def _open_end(settings: Settings, place: str, make: bool) -> End:
    if place.startswith(("postgresql://", "postgres://")):
        if _has_password(place):
            raise UsageError(
                "a password on the command line can be read by others: use a service or pass file"
            )
        from bridge.ledger.postgres_copy import PostgresEnd

        return PostgresEnd(place, settings.ledger_password, make)
    if place == "memory" or "://" in place:
        raise UsageError("a ledger to copy is a path or a postgresql:// URL")
    from bridge.ledger.sqlite_copy import SqliteEnd

    return SqliteEnd(os.path.abspath(os.path.expanduser(place)), make)


def _has_password(url: str) -> bool:
    from bridge.settings_parse import has_password

    return has_password(url)


def _open(settings: Settings) -> Store:
    if settings.ledger == "memory":
        raise UsageError("a ledger in memory ends with its bridge: name a file or a database with --ledger")
    return open_store(settings)


def _check(settings: Settings, full: bool) -> int:
    if "://" not in settings.ledger and settings.ledger != "memory" and not os.path.exists(settings.ledger):
        raise LedgerRefused(f"There is no ledger at {settings.ledger}.")
    store = _open(settings)
    try:
        found = store.check(full)
        health = store.health()
    finally:
        store.close()
    skew_s = health.get("clock_skew_s", 0.0)
    lines = [f"{_show(settings.ledger)}: {health['reports']:,} reports, version {health['schema_version']}"]
    if abs(skew_s) > 2.0:
        lines.append(
            f"this host's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the server's"
        )
    lines += found or ["no damage found"]
    print_text("\n".join(lines) + "\n")
    return exits.REFUSED if found else exits.DONE


def _migrate(settings: Settings) -> int:
    store = _open(settings)
    try:
        version = store.health()["schema_version"]
    finally:
        store.close()
    print_text(f"{_show(settings.ledger)}: version {version}\n")
    return exits.DONE


def _show(ledger: str) -> str:
    """The ledger without what is secret."""
    if "://" not in ledger:
        return ledger
    scheme, _, rest = ledger.partition("://")
    authority, slash, path = rest.partition("?")[0].partition("/")
    user, at, host = authority.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"
