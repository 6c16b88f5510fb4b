"""The checks of ``report-bridge doctor`` for a ledger on a server: driver, version, rights, session, clock.

A check changes nothing, never raises, and no message holds the address's user or password.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from bridge.cli.checks import FAILED, OK, WARNING, Check
from bridge.core.text import plural
from bridge.engine.clock import SystemClock
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.ledger.postgres_reader import PostgresReader

DRIVER: Final = "psycopg"
SKEW_S: Final = 1.0
"""A difference of the clocks above this is worth a look. The ledger's times are the server's all the same."""
_INSTALL: Final = "In the project's folder: pip install '.[fleet]'"
_MIGRATE: Final = "Run `report-bridge ledger migrate` as a role that may make a schema."


def check_server(settings: Settings, full: bool) -> Iterator[Check]:
    """Whether reports can be remembered on the server of the settings.

    Args:
        full: look for false reports, too, which reads all of them.
    """
    if find_spec(DRIVER) is None:
        yield Check("driver", FAILED, f"{DRIVER} is missing, which a ledger on PostgreSQL needs", _INSTALL)
        return
    from bridge.ledger.postgres_reader import PostgresReader
    from bridge.ledger.postgres_trouble import NO_DRIVER

    try:
        reader = PostgresReader.connect(settings.ledger, settings.ledger_password, SystemClock.wall())
    except LedgerTrouble as trouble:
        if trouble.sentence == NO_DRIVER:
            yield Check("driver", FAILED, f"{DRIVER} cannot be loaded", _INSTALL)
            return
        yield _driver()
        yield Check("ledger", FAILED, "the ledger's server cannot be used", trouble.sentence)
        return
    try:
        yield _driver()
        yield from _check_reader(reader, full)
    except LedgerTrouble as trouble:
        yield Check("ledger", FAILED, "the ledger cannot be read", trouble.sentence)
    finally:
        reader.close()


def _driver() -> Check:
    return Check("driver", OK, f"{DRIVER} {metadata.version(DRIVER)}")


def _check_reader(reader: PostgresReader, full: bool) -> Iterator[Check]:
    health = reader.health()
    has_ledger = health["schemaVersion"] != 0
    yield _check_ledger(reader, health) if has_ledger else _check_place(health)
    yield _check_condition(health)
    if has_ledger:
        yield from _check_schema(health)
        yield _check_rights(health)
    yield _check_session(reader)
    yield _check_drift(health)
    if has_ledger and not health["lacking"] and not health["isNewer"]:
        yield _check_integrity(reader, full)


def _check_place(health: Mapping[str, Any]) -> Check:
    if health["mayCreate"]:
        return Check("ledger", OK, f"there is none yet; the first report makes it in {health['path']}")
    return Check("ledger", FAILED, "there is none yet, and this role may not make it", _MIGRATE)


def _check_ledger(reader: PostgresReader, health: Mapping[str, Any]) -> Check:
    if health["isNewer"]:
        fix = "Install the newer version of report-bridge; a bridge of this one only reads it."
        return Check("ledger", FAILED, "a newer version has changed the ledger", fix)
    trouble = reader.try_write()
    if trouble is not None:
        return Check("ledger", FAILED, f"{health['path']} cannot be written now", trouble.sentence)
    size = f"{health['sizeBytes'] / 1_048_576:.1f} MiB"
    others = plural(health["sessions"], "other session")
    reports = plural(health["reports"], "report")
    return Check("ledger", OK, f"{reports}, {size}, {others}, can be written: {health['path']}")


def _check_condition(health: Mapping[str, Any]) -> Check:
    name = f"PostgreSQL {health['serverVersion'].partition(' ')[0]}"
    if health["isStandby"]:
        fix = "Give both hosts in the address, with target_session_attrs=read-write."
        return Check("server", WARNING, f"{name} is a standby, which takes no writes", fix)
    if not health["isDurable"]:
        fix = "Set fsync and synchronous_commit to on; until then answers say durable: false."
        return Check("server", WARNING, f"{name} does not sync what it commits", fix)
    return Check("server", OK, name)


def _check_schema(health: Mapping[str, Any]) -> Iterator[Check]:
    version = health["schemaVersion"]
    if version is None:
        # Which right is missing for that is told by the next check.
        return
    from bridge.ledger.postgres_schema import VERSION

    if version < VERSION:
        yield Check("schema", WARNING, f"version {version}; this program makes it {VERSION}", _MIGRATE)
    else:
        yield Check("schema", OK, f"version {version}")


def _check_rights(health: Mapping[str, Any]) -> Check:
    lacking = health["lacking"]
    if not lacking:
        return Check("rights", OK, "the role may do what a bridge does")
    fix = "Grant it as the owner of the tables; docs/fleet.md has the statements."
    return Check("rights", FAILED, f"the role lacks {', '.join(lacking)}", fix)


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
        which = "ahead of" if skew_s > 0 else "behind"
        fix = "Let NTP keep both clocks; the ledger's times are the server's."
        return Check("drift", WARNING, f"this clock is {abs(skew_s):.1f} s {which} the ledger server's", fix)
    # Not more exact than half of the way there and back.
    return Check(
        "drift",
        OK,
        f"this clock is {abs(skew_s) * 1000:.0f} ms off the ledger server's, {round_trip_ms:.1f} ms away",
    )


def _check_integrity(reader: PostgresReader, full: bool) -> Check:
    damage = reader.check(full)
    if damage:
        fix = "Repair what is named, or restore the database: " + "; ".join(damage)
        return Check("integrity", FAILED, f"the ledger is damaged ({plural(len(damage), 'finding')})", fix)
    return Check(
        "integrity", OK, "no damage was found" if full else "no damage was found; --full reads every report"
    )
