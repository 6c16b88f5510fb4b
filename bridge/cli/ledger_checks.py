"""The checks of ``report-bridge doctor`` for the ledger, in a file or on a server.

A check changes nothing, never raises, and no message holds the address's user or password.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from bridge.cli.checks import FAILED, OK, WARNING, Check, spell_skew
from bridge.cli.ledger_arguments import open_reader
from bridge.cli.version import version_of
from bridge.core.text import plural
from bridge.engine import SystemClock
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings
from bridge.settings.parsing import is_database
from bridge.settings.table import MEMORY

if TYPE_CHECKING:
    from bridge.ledger.postgres_reader import PostgresReader

DRIVER: Final = "psycopg"
QUICK_BYTES: Final = 16 * 1024 * 1024
"""Ledgers up to this size are looked through for damage; 30 ms a MiB were measured."""
SKEW_S: Final = 1.0
"""A difference of the clocks above this is worth a look. The ledger's times are the server's all the same."""
_MIGRATE: Final = "Run `report-bridge ledger migrate` as a role that may make a schema."


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
        except LedgerTrouble as trouble:
            yield Check("ledger", FAILED, "the ledger cannot be read", trouble.sentence)


def _check_store(reader: Reader, health: Mapping[str, Any]) -> Check:
    if health["isNewer"]:
        fix = "Install the newer version of report-bridge; a bridge of this one only reads it."
        return Check("ledger", FAILED, "a newer version has changed the ledger", fix)
    try:
        reader.try_write()
    except LedgerTrouble as trouble:
        return Check("ledger", FAILED, f"{health['path']} cannot be written now", trouble.sentence)
    told = [plural(health["reports"], "report"), _show_size(health)]
    if "sessions" in health:
        told.append(plural(health["sessions"], "other session"))
    return Check("ledger", OK, f"{', '.join(told)}, can be written: {health['path']}")


def _show_size(health: Mapping[str, Any]) -> str:
    return f"{health['sizeBytes'] / 1_048_576:.1f} MiB"


def _check_integrity(reader: Reader, full: bool, fix: str) -> Check:
    damage = reader.check(full)
    if damage:
        told = f"the ledger is damaged ({plural(len(damage), 'finding')})"
        return Check("integrity", FAILED, told, f"{fix} Found: {'; '.join(damage)}")
    return Check("integrity", OK, "no damage was found" + ("" if full else "; --full reads every report"))


# --- in a file -------------------------------------------------------------------------------


def _check_file(settings: Settings, full: bool) -> Iterator[Check]:
    from bridge.ledger.files import NETWORK_KINDS

    path = settings.ledger
    try:
        reader = open_reader(settings)
    except NoLedger:
        yield _check_folder(path)
        return
    with closing(reader):
        health = reader.health()
        yield _check_store(reader, health)
        modes = stat.S_IMODE(os.stat(path).st_mode)
        if modes & 0o077 and os.name == "posix":
            yield Check(
                "ledger", WARNING, f"others may open the ledger (mode {modes:04o})", f"chmod 600 {path}"
            )
        told = f"SQLite {health['sqliteVersion']}, journal {health['journalMode']}"
        yield Check("sqlite", OK, told)
        if health["filesystem"] in NETWORK_KINDS:
            fix = "Put the ledger on a local disk: locks over a network cannot be relied on."
            yield Check("ledger", WARNING, f"the ledger is on {health['filesystem']}", fix)
        if full or health["sizeBytes"] <= QUICK_BYTES:
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
        yield Check("driver", FAILED, f"{DRIVER} cannot be loaded", NO_DRIVER)
        return
    yield Check("driver", OK, f"{DRIVER} {version_of(DRIVER)}")
    with closing(PostgresReader(settings.ledger, settings.ledger_password, SystemClock.wall())) as reader:
        health = reader.health()
        has_ledger = health["schemaVersion"] != 0
        if has_ledger:
            yield _check_store(reader, health)
        elif health["mayCreate"]:
            yield Check("ledger", OK, f"there is none yet; the first report makes it in {health['path']}")
        else:
            yield Check("ledger", FAILED, "there is none yet, and this role may not make it", _MIGRATE)
        yield _check_condition(health)
        if has_ledger:
            yield from _check_tables(health)
        yield _check_session(reader)
        yield _check_drift(health)
        if has_ledger and not health["lacking"] and not health["isNewer"]:
            fix = "Repair what is named, or restore the database."
            yield _check_integrity(reader, full, fix)


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


def _check_session(reader: PostgresReader) -> Check:
    try:
        is_pooled = reader.is_pooled()
    except LedgerTrouble as trouble:
        return Check("session", WARNING, "a second session was not to be had", trouble.sentence)
    if is_pooled:
        fix = "Connect to the server itself, or let the pooler work in session mode."
        return Check("session", FAILED, "a pooler gives the session to others between transactions", fix)
    return Check("session", OK, "the session stays ours between transactions, as far as could be seen")


def _check_drift(health: Mapping[str, Any]) -> Check:
    skew_s, round_trip_ms = health["clockSkewS"], health["roundTripS"] * 1000
    if abs(skew_s) > SKEW_S:
        fix = "Let NTP keep both clocks; the ledger's times are the server's."
        return Check("drift", WARNING, spell_skew(skew_s, "the ledger server's"), fix)
    # Not more exact than half of the way there and back.
    told = f"this clock is {abs(skew_s) * 1000:.0f} ms off the ledger server's, {round_trip_ms:.1f} ms away"
    return Check("drift", OK, told)
