"""What a check of ``report-bridge doctor`` finds, and its checks for the ledger, in a file or on a server.

A check changes nothing, never raises, and no message holds the address's user or password.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple

from bridge.cli.ledger import open_reader
from bridge.cli.version import version_of
from bridge.core.text import escape, hide_keys, plural
from bridge.engine import SystemClock
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings
from bridge.settings.parsing import is_database
from bridge.settings.table import MEMORY

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"
_DRIVER: Final = "psycopg"
_QUICK_BYTES: Final = 16 * 1024 * 1024
"""Ledgers up to this size are looked through for damage; 30 ms a MiB were measured."""
_SKEW_S: Final = 1.0
"""A difference of the clocks above this is worth a look. The ledger's times are the server's all the same."""
_MIGRATE: Final = "Run `report-bridge ledger migrate` as a role that may make a schema."


class Check(NamedTuple):
    """What one check found."""

    name: str
    status: str
    message: str
    fix: str | None = None


def check_clock(name: str, ahead_s: float, most_s: float, whose: str, agreed: str) -> Check:
    """Whether this machine's clock agrees with another one.

    Args:
        agreed: what to say if they are no more than `most_s` apart.
    """
    if abs(ahead_s) <= most_s:
        return Check(name, OK, agreed)
    where = "ahead of" if ahead_s > 0 else "behind"
    fix = "Let NTP keep the clocks (systemd: timedatectl set-ntp true); till then the other one counts."
    return Check(name, WARNING, f"this clock is {abs(ahead_s):.1f} s {where} {whose}", fix)


def check_ledger(settings: Settings, full: bool) -> Iterator[Check]:
    """Whether reports can be remembered.

    Args:
        full: look for damage in a large file, too, and for what only a reading of every report shows.
    """
    if settings.ledger == MEMORY and settings.sandbox:
        yield Check("ledger", OK, "the sandbox remembers in memory")
    elif settings.ledger == MEMORY:
        fix = "Name a file with --ledger; without one, duplicates and crashes are not covered."
        yield Check("ledger", WARNING, "reports are remembered in memory only", fix)
    else:
        try:
            yield from (_check_server if is_database(settings.ledger) else _check_file)(settings, full)
        except NoLedger:
            yield _check_folder(settings.ledger)
        except LedgerTrouble as trouble:
            # Nothing of a server's address: it may hold a password.
            what = "the ledger" if is_database(settings.ledger) else escape(hide_keys(settings.ledger))
            yield Check("ledger", FAILED, f"{what} cannot be read", trouble.sentence)


def _check_store(reader: Reader, health: Mapping[str, Any]) -> Check:
    if health["isNewer"]:
        fix = "Install the newer version of report-bridge; a bridge of this one only reads it."
        return Check("ledger", FAILED, "a newer version has changed the ledger", fix)
    try:
        reader.try_write()
    except LedgerTrouble as trouble:
        return Check("ledger", FAILED, f"{health['path']} cannot be written now", trouble.sentence)
    told = f"{plural(health['reports'], 'report')}, {_show_size(health)}"
    if "sessions" in health:
        told += f", {plural(health['sessions'], 'other session')}"
    return Check("ledger", OK, f"{told}, can be written: {health['path']}")


def _show_size(health: Mapping[str, Any]) -> str:
    return f"{health['sizeBytes'] / 1_048_576:.1f} MiB"


def _check_integrity(reader: Reader, full: bool, fix: str) -> Check:
    if damage := reader.check(full):
        told = f"the ledger is damaged ({plural(len(damage), 'finding')})"
        return Check("integrity", FAILED, told, f"{fix} Found: {'; '.join(damage)}")
    return Check("integrity", OK, "no damage was found" + ("" if full else "; --full reads every report"))


# --- in a file -------------------------------------------------------------------------------


def _check_file(settings: Settings, full: bool) -> Iterator[Check]:
    from bridge.ledger.files import NETWORK_KINDS

    path = settings.ledger
    with closing(open_reader(settings)) as reader:
        health = reader.health()
        yield _check_store(reader, health)
        modes = stat.S_IMODE(os.stat(path).st_mode)
        if modes & 0o077 and os.name == "posix":
            told = f"others may open the ledger (mode {modes:04o})"
            yield Check("ledger", WARNING, told, f"chmod 600 {path}")
        yield Check("sqlite", OK, f"SQLite {health['sqliteVersion']}, journal {health['journalMode']}")
        if health["filesystem"] in NETWORK_KINDS:
            fix = "Put the ledger on a local disk: locks over a network cannot be relied on."
            yield Check("ledger", WARNING, f"the ledger is on {health['filesystem']}", fix)
        if full or health["sizeBytes"] <= _QUICK_BYTES:
            fix = "Move the file away; the next start makes a new one. Keep the old one for `history export`."
            yield _check_integrity(reader, full, fix)
        else:
            told = f"not looked for in {_show_size(health)}; --full looks, and bridges wait for it"
            yield Check("integrity", OK, told)


def _check_folder(path: str) -> Check:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if os.access(folder, os.W_OK | os.X_OK):
        return Check("ledger", OK, f"there is none yet; the first report makes {path}")
    fix = f"Allow {folder} to be written, or use --ledger."
    return Check("ledger", FAILED, f"{path} cannot be made", fix)


# --- on a server -----------------------------------------------------------------------------


def _check_server(settings: Settings, full: bool) -> Iterator[Check]:
    from bridge.ledger.postgres_link import has_driver
    from bridge.ledger.postgres_reader import PostgresReader
    from bridge.ledger.postgres_trouble import NO_DRIVER

    if not has_driver():
        yield Check("driver", FAILED, f"{_DRIVER} cannot be loaded", NO_DRIVER)
        return
    yield Check("driver", OK, f"{_DRIVER} {version_of(_DRIVER)}")
    with closing(PostgresReader(settings.ledger, settings.ledger_password, SystemClock.wall())) as reader:
        health = reader.health()
        yield _check_condition(health)
        if health["schemaVersion"] != 0:
            yield _check_store(reader, health)
            yield from _check_tables(health)
        elif health["mayCreate"]:
            yield Check("ledger", OK, f"there is none yet; the first report makes it in {health['path']}")
        else:
            yield Check("ledger", FAILED, "there is none yet, and this role may not make it", _MIGRATE)
        yield _check_session(reader.is_pooled)
        ahead_s = health["clockSkewS"]
        # Not more exact than half of the way there and back.
        agreed = f"this clock is {abs(ahead_s) * 1000:.0f} ms off the ledger server's, "
        agreed += f"{health['roundTripS'] * 1000:.1f} ms away"
        yield check_clock("drift", ahead_s, _SKEW_S, "the ledger server's", agreed)
        if health["schemaVersion"] != 0 and not health["lacking"] and not health["isNewer"]:
            yield _check_integrity(reader, full, "Repair what is named, or restore the database.")


def _check_condition(health: Mapping[str, Any]) -> Check:
    name = f"PostgreSQL {health['serverVersion'].partition(' ')[0]}"
    if health["isStandby"]:
        fix = "Give both hosts in the address, with target_session_attrs=read-write."
        return Check("server", WARNING, f"{name} is a standby, which takes no writes", fix)
    if not health["isDurable"]:
        fix = "Set fsync and synchronous_commit to on; until then answers say durable: false."
        return Check("server", WARNING, f"{name} does not sync what it commits", fix)
    return Check("server", OK, name)


def _check_tables(health: Mapping[str, Any]) -> Iterator[Check]:
    from bridge.ledger.postgres_schema import VERSION

    version, lacking = health["schemaVersion"], health["lacking"]
    # Without the right to read it there is no version; which right that is, the next check tells.
    if version is not None and version < VERSION:
        yield Check("schema", WARNING, f"version {version}; this program makes it {VERSION}", _MIGRATE)
    elif version is not None:
        yield Check("schema", OK, f"version {version}")
    if lacking:
        fix = "Grant it as the owner of the tables; docs/fleet.md has the statements."
        yield Check("rights", FAILED, f"the role lacks {', '.join(lacking)}", fix)
    else:
        yield Check("rights", OK, "the role may do what a bridge does")


def _check_session(ask: Callable[[], bool]) -> Check:
    try:
        is_pooled = ask()
    except LedgerTrouble as trouble:
        return Check("session", WARNING, "a second session was not to be had", trouble.sentence)
    if is_pooled:
        fix = "Connect to the server itself, or let the pooler work in session mode."
        return Check("session", FAILED, "a pooler gives the session to others between transactions", fix)
    return Check("session", OK, "the session stays ours between transactions, as far as could be seen")
