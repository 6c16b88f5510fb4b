"""Opens a SQLite ledger: connection, settings that are read back, schema, and what errors mean.

Never changes a database that is not a ledger. Imported by `bridge.ledger.sqlite` only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from bridge.ledger import sqlite_driver as sqlite3
from bridge.ledger.port import Notice
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

ROLLBACK_JOURNAL: Final = "truncate"
"""Measured with synchronous=FULL on ext4 and tmpfs: up to 10 % less time and processor than DELETE and
PERSIST for single commits, equal in groups of 64."""

_CODES: Final[Mapping[int, str]] = {
    getattr(sqlite3.library, "SQLITE_" + name): kind
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
    code = sqlite3.code_of(error)
    kind = _CODES.get(code) or _CODES.get(code & 0xFF, UNREADABLE)
    if writing and code & 0xFF == sqlite3.library.SQLITE_CANTOPEN:
        return LedgerTrouble(READONLY)  # The journal cannot be made in the ledger's directory.
    if not writing and kind in (FULL, READONLY):
        return LedgerTrouble(UNREADABLE)  # Reading may need a write: a crash left a journal to roll back.
    return LedgerTrouble(kind)


def is_wal_sound(sqlite_version: str) -> bool:
    """True if this SQLite may use a write-ahead log with several processes.

    Source: https://sqlite.org/wal.html#walresetbug
    """
    version = tuple(map(int, sqlite_version.split(".")))[:3]
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def connect(path: str | None, busy_s: float, writable: bool) -> sqlite3.Connection:
    """Open a connection that any one thread may use; an existing file only, or memory."""
    uri = "file::memory:"
    if path is not None:
        escaped = os.path.abspath(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        uri = f"file:{escaped}?mode={'rw' if writable else 'ro'}"
    return sqlite3.connect(uri, busy_s)


def identify(connection: sqlite3.Connection) -> int:
    """The version of the ledger in an open file; 0 if it is new.

    Raises:
        LedgerTrouble: ``foreign`` if it is another program's database.
    """
    # Read at one moment: another bridge may be making the ledger just now.
    is_outermost = not connection.in_transaction
    if is_outermost:
        connection.execute("BEGIN")
    try:
        application = get(connection, "application_id")
        version = int(get(connection, "user_version"))
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    finally:
        if is_outermost:
            connection.execute("ROLLBACK")
    if application == APPLICATION_ID:
        return version
    if application or version or not is_empty:
        raise LedgerTrouble(FOREIGN, "The ledger's path is another program's database: choose another path.")
    return 0


def configure(connection: sqlite3.Connection, writable: bool, may_switch: bool = True) -> list[Notice]:
    """Make the connection careful, and a file survive a loss of power.

    Args:
        may_switch: False if others are at work on it: one whose SQLite should use no write-ahead log
            could not keep this one from switching to it.
    """
    notices: list[Notice] = []
    for name, value in (
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("temp_store", "MEMORY"),
        ("cache_size", "-8000"),  # KiB; holds most of the identity index of a million reports
        ("secure_delete", "FAST"),
    ):
        connection.execute(f"PRAGMA {name} = {value}")
    if not writable:
        return notices
    found = get(connection, "journal_mode")
    has_log = is_wal_sound(sqlite3.sqlite_version) and (may_switch or found == "wal")
    wanted = "wal" if has_log else ROLLBACK_JOURNAL
    if found not in (wanted, "memory"):
        got = _switch_journal(connection, wanted, found)
        if got == "wal" != wanted:
            notices.append(("ledger_wal_kept", {"sqlite": sqlite3.sqlite_version}))
    if get(connection, "synchronous") != 2:
        notices.append(("ledger_not_durable", {"sqlite": sqlite3.sqlite_version}))
    return notices


def _switch_journal(connection: sqlite3.Connection, wanted: str, found: str) -> str:
    busy_ms = get(connection, "busy_timeout")
    # To leave or enter WAL needs to be alone: then it works at once, else waiting would not help.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        return str(connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0])
    except sqlite3.Error as error:
        if _CODES.get(sqlite3.code_of(error) & 0xFF) != LOCKED:
            raise
        return found
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(busy_ms)}")


def leave_wal(connection: sqlite3.Connection, is_in_place: bool) -> None:
    """Make the ledger one file again before it is closed, if nobody else uses it. Best effort.

    So it can be copied, read from a read-only disk, and opened by a SQLite that should not use such a log.

    Args:
        is_in_place: False if another file has taken its place, wherever it is now.
    """
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout = 0")
        if is_in_place:
            connection.execute("PRAGMA journal_mode = delete").fetchone()
        else:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def migrate(connection: sqlite3.Connection, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
    """Bring the file to this version in one transaction, once, however many open it together.

    Raises:
        LedgerTrouble: ``newer`` if somebody else brought it further meanwhile.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = identify(connection)
        if version > VERSION:
            raise LedgerTrouble(NEWER)
        for name in MIGRATIONS[version:]:
            for statement in split_script(_load(name)):
                connection.execute(statement)
        if version == 0:
            connection.execute("INSERT INTO meta (name, value) VALUES ('secret', ?)", (random_bytes(32),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that failed, if the failure left one open."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # Then the next opener rolls the journal back.


def split_script(script: str) -> list[str]:
    """Cut a script into statements; ``executescript`` would commit what is open before it."""
    statements: list[str] = []
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.is_complete(part):
            statements.append(part)
            part = ""
    return statements


def is_damaged(connection: sqlite3.Connection) -> bool:
    """True if a file of up to `QUICK_CHECK_BYTES` does not pass a check."""
    size = get(connection, "page_count") * get(connection, "page_size")
    return size <= QUICK_CHECK_BYTES and find_damage(connection, full=False) != ()


def find_damage(connection: sqlite3.Connection, full: bool) -> tuple[str, ...]:
    """Run SQLite's own check; at most ten findings."""
    found = connection.execute(f"PRAGMA {'integrity_check' if full else 'quick_check'}(10)").fetchall()
    return tuple(str(values[0]) for values in found if values[0] != "ok")


def get(connection: sqlite3.Connection, pragma: str) -> Any:
    """The value of a setting, read back from the library."""
    values = connection.execute(f"PRAGMA {pragma}").fetchone()
    return None if values is None else values[0]


def _load(name: str) -> str:
    # The module's own loader reads files next to the module: plain files or members of an archive alike.
    loader: Any = __spec__.loader
    read: Callable[[str], bytes] = loader.get_data
    return read(os.path.join(os.path.dirname(__file__), name)).decode("utf-8")


@contextmanager
def translated(writing: bool) -> Iterator[None]:
    """Errors of the library become the ledger's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, writing) from error


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes; what fails is undone."""
    with translated(writing=True):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
