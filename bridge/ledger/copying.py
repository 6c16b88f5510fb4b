"""Copies a ledger into one of any kind: reports with their stories, pauses, and the secret.

The copy can be broken off anywhere and goes on where it was. What is written is the same statements for a
file and for a server. Imported by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from bridge.core.model import Listing
from bridge.core.redact import Secret
from bridge.ledger import sqlite_file
from bridge.ledger.postgres_link import Statement, connect, translated
from bridge.ledger.postgres_rows import QUERIES, dump
from bridge.ledger.rows import COLUMNS, PAUSE_COLUMNS
from bridge.ledger.statistics import Reader
from bridge.ledger.trouble import NEWER, LedgerTrouble

STEP: Final = 500
"""Reports in one commit: a second of work is lost at most when a copy is broken off."""
WAIT_S: Final = 60.0
"""Longest wait for one step of a copy on a server."""
_BUSY_S: Final = 10.0
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


class NotCopied(Exception):
    """The copy cannot be made. The text is a sentence for people."""


class Target(NamedTuple):
    """Where a copy is written."""

    write: Callable[[Sequence[Statement]], None]
    """Runs statements in one commit."""
    revision: tuple[str, ...]
    """The column, if there is one, in which this kind counts the changes of a row."""


def open_target(ledger: str, password: Secret | None) -> AbstractContextManager[Target]:
    """Open a ledger that exists for a copy.

    Args:
        ledger: a ``postgresql://`` URL or a path.
        password: for a server, one that the usual sources do not have.
    """
    return _open_server(ledger, password) if "://" in ledger else _open_file(ledger)


@contextmanager
def _open_file(path: str) -> Iterator[Target]:
    """A file, which is whole by itself when it is closed."""

    def write(statements: Sequence[Statement]) -> None:
        with sqlite_file.writing(connection):
            for text, values in statements:
                connection.execute(text, values)

    with sqlite_file.translated(writing=True):
        connection = sqlite_file.connect(path, _BUSY_S, writable=True)
        sqlite_file.configure(connection, writable=True)
    try:
        yield Target(write, ())
    finally:
        sqlite_file.leave_wal(connection, is_in_place=True)
        connection.close()


@contextmanager
def _open_server(url: str, password: Secret | None) -> Iterator[Target]:

    def write(statements: Sequence[Statement]) -> None:
        cleaned = [(text, [_clean(value) for value in values]) for text, values in statements]
        around = [(QUERIES[name], ()) for name in ("begin", "skip_numbers", "commit")]
        with translated():
            link.run([around[0], *cleaned, *around[1:]], WAIT_S)

    settings = {"search_path": "report_bridge, pg_temp", "statement_timeout": f"{WAIT_S:.0f}s"}
    with closing(connect(url, password)) as link:
        with translated():
            link.ask(QUERIES["set_up"], dump(settings))
        yield Target(write, ("revision",))


def _clean(value: Any) -> Any:
    """A value for the server. A zero character, which its texts cannot hold, becomes a space."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return value.replace("\0", " ").replace("\\u0000", " ") if isinstance(value, str) else value


def copy(source: Reader, there: Reader, target: Target, progress: Callable[[int, int], None]) -> int:
    """Copy all reports; how many were copied now.

    Args:
        there: reads what is written to the target.
        progress: told how many of how many are there.

    Raises:
        NotCopied: one of the ledgers is in use, or they cannot become one.
        LedgerTrouble: one of them cannot be read, or not be written.
    """
    if source.health()["isNewer"]:
        raise LedgerTrouble(NEWER)
    if source.is_at_work():
        raise NotCopied("A bridge works on the ledger that is to be copied: end it first.")
    # Accounts are named with the secret, so the copy has the same; its name tells nothing of it.
    secret = bytes(source.ask(_META, ("secret",))[0][0])
    mark = "copied_from_" + blake2b(secret, digest_size=8, person=b"copy").hexdigest()
    already, total, copied = there.count(Listing(None)), source.count(Listing(None)), 0
    found = there.ask(_META, (mark,))
    position = int(found[0][0]) if found else 0
    if position < 0:
        raise NotCopied(
            "This ledger was copied before, and completely: use the copy, or begin with an empty one."
        )
    accounts = source.accounts()
    begun: list[Statement] = [(_ADD_ACCOUNT, name) for _, *name in accounts]
    if not found:
        if already:
            raise NotCopied("The ledger that is to be written holds other reports: begin with an empty one.")
        begun += [(_SET_META, ["secret", secret]), (_SET_META, [mark, "0"])]
    target.write(begun)
    known = {tuple(name): number for number, *name in there.accounts()}
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
        target.write([*statements, (_SET_META, [mark, str(position)])])
        copied += len(reports)
        progress(already + copied, total)
    return copied


def _add(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Statement]:
    """The statements that store rows, which may have more than the columns."""
    marks = ", ".join(f"${nth}" for nth in range(1, len(columns) + 1))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    return [(statement, row[: len(columns)]) for row in rows]
