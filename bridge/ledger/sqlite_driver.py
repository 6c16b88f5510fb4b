"""The library under the SQLite ledger: apsw, which brings a current SQLite, or else what Python has.

The SQLite of most Pythons has a flaw that forbids a write-ahead log with several processes; a commit then
syncs three times instead of once. Where apsw cannot be loaded the ledger still works.
Must not know what is in a ledger. Imported by the ledger's SQLite modules and `bridge.cli.version`.
"""

from __future__ import annotations

import os
from typing import Any, Final, Protocol, cast


def _load() -> Any:
    """The library; set ``_BRIDGE_STOCK_SQLITE=1`` for Python's own (the tests do both)."""
    if os.environ.get("_BRIDGE_STOCK_SQLITE") != "1":
        try:
            import apsw
        except ImportError:
            pass
        else:
            return apsw
    import sqlite3

    return sqlite3


library: Final[Any] = _load()
IS_STOCK: Final = library.__name__ == "sqlite3"
"""True if it is Python's own."""
Error: Final[type[Exception]] = library.Error
sqlite_version: Final[str] = library.sqlite_version if IS_STOCK else library.sqlite_lib_version()


class Connection(Protocol):
    """What the ledger needs of a connection. Thread safety: one thread at a time."""

    @property
    def in_transaction(self) -> bool:
        """True between the beginning and the end of a transaction."""

    @property
    def total_changes(self) -> Any:
        """For `count_changes`."""

    def execute(self, statement: str, values: Any = ..., /) -> Any:
        """Run one statement; returns its cursor."""

    def close(self) -> None:
        """Let go of the file."""


def count_changes(connection: Connection) -> int:
    """Rows that were changed since a connection was opened."""
    count: Any = connection.total_changes
    return int(count if IS_STOCK else count())


def connect(uri: str, busy_s: float) -> Connection:
    """Open a database that any one thread at a time may use; no transaction begins by itself.

    Raises:
        Error: It cannot be opened.
    """
    if IS_STOCK:
        stock: Connection = library.connect(
            uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        return stock
    names = ("SQLITE_OPEN_READWRITE", "SQLITE_OPEN_CREATE", "SQLITE_OPEN_URI")
    connection = library.Connection(uri, flags=sum(getattr(library, name) for name in names))
    # A plan that looks at bound values is made anew whenever they change, which takes longer than the answer.
    connection.config(library.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.execute(f"PRAGMA busy_timeout = {round(busy_s * 1000)}")
    return cast("Connection", connection)


def code_of(error: Exception) -> int:
    """The extended result code of an error; that of an internal one if it has none.

    Source: https://sqlite.org/rescode.html
    """
    name = "sqlite_errorcode" if IS_STOCK else "extendedresult"
    return int(getattr(error, name, library.SQLITE_INTERNAL))


def is_complete(statement: str) -> bool:
    """True if a text ends a statement."""
    return bool(library.complete_statement(statement) if IS_STOCK else library.complete(statement))
