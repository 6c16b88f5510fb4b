"""The door to apsw: opens a SQLite ledger, sets it up and reads that back, and says what errors mean.

apsw brings a SQLite that may use a write-ahead log with several processes; that of most Pythons has a flaw
that forbids it. Never changes a database that is not a ledger. Imported by the ledger's SQLite modules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

import apsw

from bridge.ledger.rows import load
from bridge.ledger.trouble import (
    CORRUPT,
    FOREIGN,
    FULL,
    LOCKED,
    NEWER,
    READONLY,
    UNREADABLE,
    LedgerTrouble,
)

APPLICATION_ID: Final = 0x52_42_4C_31
"""``RBL1`` in the header of the file: a ledger of this program."""

MIGRATIONS: Final = ("sqlite.sql", "sqlite_2.sql")
"""Scripts beside this module; the n-th makes version n of version n-1."""
VERSION: Final = len(MIGRATIONS)

QUICK_CHECK_BYTES: Final = 1024 * 1024
"""Files up to this size are checked for damage when they are opened: 30 ms a MiB were measured, and while
it lasts other bridges cannot commit. Damage in larger files is met by the statement that reads it."""

Connection = apsw.Connection
Error = apsw.Error
sqlite_version: Final = apsw.sqlite_lib_version()

JOURNAL: Final = "wal"
"""A commit syncs once with it, and three times with a journal that rolls back."""

_CODES: Final[Mapping[int, str]] = {
    getattr(apsw, "SQLITE_" + name): kind
    for kind, names in (
        (FULL, "FULL"),
        (READONLY, "READONLY PERM"),
        (LOCKED, "BUSY LOCKED PROTOCOL"),
        (CORRUPT, "CORRUPT NOTADB CONSTRAINT MISMATCH ERROR"),
        # Quotas and file size limits come as failed writes, not as a full disk.
        (FULL, "IOERR_WRITE IOERR_FSYNC IOERR_DIR_FSYNC IOERR_TRUNCATE"),
    )
    for name in names.split()
}
"""Extended or primary result code -> kind. What is missing is ``unreadable``."""


def translate(error: Exception, writing: bool) -> LedgerTrouble:
    """Say what an error of the library means; the caller chains it as the cause.

    Args:
        writing: True if a write was asked for, so that reading may still be possible.

    Source: https://sqlite.org/rescode.html
    """
    code = getattr(error, "extendedresult", apsw.SQLITE_INTERNAL)
    kind = _CODES.get(code) or _CODES.get(code & 0xFF, UNREADABLE)
    if writing and code & 0xFF == apsw.SQLITE_CANTOPEN:
        return LedgerTrouble(READONLY)  # The journal cannot be made in the ledger's directory.
    if not writing and kind in (FULL, READONLY):
        return LedgerTrouble(UNREADABLE)  # Reading may need a write: a crash left a journal to roll back.
    return LedgerTrouble(kind)


def connect(path: str | None, busy_s: float, writable: bool) -> Connection:
    """Open an existing file, or memory, for any one thread at a time; no transaction begins by itself.

    Raises:
        Error: it cannot be opened.
    """
    flags = apsw.SQLITE_OPEN_READWRITE if writable else apsw.SQLITE_OPEN_READONLY
    connection = Connection(":memory:" if path is None else os.path.abspath(path), flags=flags)
    # A plan that looks at bound values is made anew whenever they change, which takes longer than the answer.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_timeout(round(busy_s * 1000))
    return connection


def identify(connection: Connection) -> int:
    """The version of the ledger in an open file; 0 if it is new.

    Raises:
        LedgerTrouble: ``foreign`` if it is another program's database.
    """
    # Read at one moment: another bridge may be making the ledger just now.
    with connection:
        application = connection.pragma("application_id")
        version = int(connection.pragma("user_version"))
        is_empty = not connection.execute("SELECT 1 FROM sqlite_master").fetchall()
    if application == APPLICATION_ID:
        return version
    if application or version or not is_empty:
        raise LedgerTrouble(FOREIGN, "The ledger's path is another program's database: choose another path.")
    return 0


def configure(connection: Connection, writable: bool) -> None:
    """Make the connection careful, and a file survive a loss of power."""
    for name, value in (
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("temp_store", "MEMORY"),
        ("cache_size", "-8000"),  # KiB; holds most of the identity index of a million reports
        ("secure_delete", "FAST"),
    ):
        connection.pragma(name, value)
    if writable and connection.pragma("journal_mode") not in (JOURNAL, "memory"):
        busy_ms = connection.pragma("busy_timeout")
        # To enter it needs to be alone: then it works at once, else waiting would not help.
        connection.set_busy_timeout(0)
        try:
            with suppress(apsw.BusyError):
                connection.pragma("journal_mode", JOURNAL)
        finally:
            connection.set_busy_timeout(busy_ms)


def leave_wal(connection: Connection, is_in_place: bool) -> None:
    """Make the ledger one file again before it is closed, if nobody else uses it. Best effort.

    So it can be copied, read from a read-only disk, and opened by a SQLite that should not use such a log.

    Args:
        is_in_place: False if another file has taken its place, wherever it is now.
    """
    with suppress(Error):
        connection.set_busy_timeout(0)
        if is_in_place:
            connection.pragma("journal_mode", "delete")
        else:
            connection.pragma("wal_checkpoint", "TRUNCATE")


def migrate(connection: Connection, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
    """Bring the file to this version in one transaction, once, however many open it together.

    Raises:
        LedgerTrouble: ``newer`` if somebody else brought it further meanwhile.
    """
    with writing(connection):
        version = identify(connection)
        if version > VERSION:
            raise LedgerTrouble(NEWER)
        for name in MIGRATIONS[version:]:
            connection.execute(load(name))
        if version == 0:
            connection.execute("INSERT INTO meta (name, value) VALUES ('secret', ?)", (random_bytes(32),))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", VERSION)


def roll_back(connection: Connection) -> None:
    """End a transaction that failed, if the failure left one open."""
    with suppress(Error):  # Then the next opener rolls the journal back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def is_damaged(connection: Connection) -> bool:
    """True if a file of up to `QUICK_CHECK_BYTES` does not pass a check."""
    size = connection.pragma("page_count") * connection.pragma("page_size")
    return size <= QUICK_CHECK_BYTES and find_damage(connection, full=False) != ()


def find_damage(connection: Connection, full: bool) -> tuple[str, ...]:
    """Run SQLite's own check; at most ten findings."""
    found = connection.execute(f"PRAGMA {'integrity_check' if full else 'quick_check'}(10)").fetchall()
    return tuple(str(values[0]) for values in found if values[0] != "ok")


@contextmanager
def translated(writing: bool) -> Iterator[None]:
    """Errors of the library become the ledger's."""
    try:
        yield
    except Error as error:
        raise translate(error, writing) from error


@contextmanager
def writing(connection: Connection) -> Iterator[None]:
    """One transaction that writes; what fails is undone."""
    with translated(writing=True):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
