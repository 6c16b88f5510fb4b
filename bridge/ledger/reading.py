"""Opens a ledger for people, whatever kind it is, and copies one into another: reports with their stories,
pauses, and the secret.

A copy can be broken off anywhere and goes on where it was. What is written is the same statements for a file
and for a server. Imported by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

from bridge.core.model import Listing
from bridge.core.redact import Secret
from bridge.ledger.rows import COLUMNS, PAUSE_COLUMNS, Statement
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import FOREIGN, LOCKED, NEWER, LedgerTrouble

STEP: Final = 500
"""Reports in one commit: a second of work is lost at most when a copy is broken off."""
_REPORT: Final = (*(name for name in COLUMNS if name not in ("account_id", "detail")), "detail", "current")
# What has no detail is empty in one kind only. Last is the revision, which is the number of events.
_REPORTS: Final = f"""
    SELECT r.account_id, {", ".join(_REPORT[:-2])}, coalesce(detail, '{{}}'), current,
           (SELECT count(*) FROM events AS e WHERE e.report = r.seq)
    FROM reports AS r WHERE seq > $1 ORDER BY seq LIMIT {STEP}
"""
_EVENT: Final = ("report", "nth", "at_wall", "name", "data")
_EVENTS: Final = (
    f"SELECT {', '.join(_EVENT)} FROM events WHERE report > $1 AND report <= $2 ORDER BY report, nth"
)
_PAUSE: Final = ("endpoint", *PAUSE_COLUMNS)
_PAUSES: Final = f"SELECT {', '.join(_PAUSE)}, 1 FROM pauses"
_DROP_PAUSE: Final = "DELETE FROM pauses WHERE endpoint = $1 AND subject = $2 AND rule = $3"
_ADD_ACCOUNT: Final = "INSERT INTO accounts (endpoint, account) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_META: Final = "SELECT value FROM meta WHERE name = $1"
_SET_META: Final = (
    "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_AT_WORK: Final = "A bridge works on the ledger that is to be copied: end it first."
_COPIED: Final = "This ledger was copied before, and completely: use the copy, or begin with an empty one."
_OTHERS: Final = "The ledger that is to be written holds other reports: begin with an empty one."


def open_reader(ledger: str, boot_s: float, wall: float, password: Secret | None = None) -> Reader:
    """Open the ledger of the settings for reading.

    Args:
        ledger: ``memory``, a ``postgresql://`` URL or a path.
        boot_s: seconds since boot now, suspend included.
        wall: UNIX seconds now.
        password: for a server, one that the usual sources do not have.

    Raises:
        NoLedger: there is none, or none that can be read from outside.
        LedgerTrouble: it is there and cannot be read.
    """
    if ledger == "memory":
        raise NoLedger(
            "The ledger is kept in memory, so only the running bridge can read it: "
            "call bridge.listReports there, or name a file with --ledger."
        )
    if "://" in ledger:
        from bridge.ledger.postgres_reader import PostgresReader

        return PostgresReader.open(ledger, password, wall)
    from bridge.ledger.sqlite_reader import SqliteReader

    return SqliteReader(ledger, boot_s, wall)


# --- copies ----------------------------------------------------------------------------------


def copy(source: Reader, target: Reader, progress: Callable[[int, int], None]) -> int:
    """Copy all reports; how many were copied now.

    Args:
        progress: told how many of how many are there.

    Raises:
        LedgerTrouble: one of the ledgers is in use, cannot be read or not be written, or they cannot
            become one.
    """
    if source.health()["isNewer"]:
        raise LedgerTrouble(NEWER)
    if source.is_at_work():
        raise LedgerTrouble(LOCKED, _AT_WORK)
    # Accounts are named with the secret, so the copy has the same; its name tells nothing of it.
    secret = bytes(source.ask(_META, ("secret",))[0][0])
    mark = "copied_from_" + blake2b(secret, digest_size=8, person=b"copy").hexdigest()
    already, total, copied = target.count(Listing(None)), source.count(Listing(None)), 0
    found = target.ask(_META, (mark,))
    position = int(found[0][0]) if found else 0
    if position < 0:
        raise LedgerTrouble(FOREIGN, _COPIED)
    accounts = source.accounts()
    begun: list[Statement] = [(_ADD_ACCOUNT, name) for _, *name in accounts]
    if not found:
        if already:
            raise LedgerTrouble(FOREIGN, _OTHERS)
        begun += [(_SET_META, ["secret", secret]), (_SET_META, [mark, "0"])]
    target.write(begun)
    known = {tuple(name): number for number, *name in target.accounts()}
    numbers = {number: known[tuple(name)] for number, *name in accounts}
    progress(already, total)
    while position >= 0:
        reports = [(numbers[row[0]], *row[1:]) for row in source.ask(_REPORTS, (position,), True)]
        if reports:
            first, position = position, reports[-1][1]
            statements = _add("reports", ("account_id", *_REPORT, *target.revision), reports)
            statements += _add("events", _EVENT, source.ask(_EVENTS, (first, position), True))
        else:
            position = -1
            pauses = source.ask(_PAUSES, (), True)
            statements = [(_DROP_PAUSE, row[:3]) for row in pauses]
            statements += _add("pauses", (*_PAUSE, *target.revision), pauses)
        target.write([*statements, (_SET_META, [mark, str(position)]), *target.renumber])
        copied += len(reports)
        progress(already + copied, total)
    return copied


def _add(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Statement]:
    """The statements that store rows, which may have more than the columns."""
    marks = ", ".join(f"${nth}" for nth in range(1, len(columns) + 1))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    return [(statement, row[: len(columns)]) for row in rows]
