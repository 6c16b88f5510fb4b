"""Reads a SQLite ledger for people, also while bridges work on it.

One statement per step, over a bounded number of reports: with a rollback journal nobody can commit
while a statement reads, and a bridge waits 2 s at most. Imported by `bridge.ledger.statistics` only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, Final

from bridge.core.model import Listing, PauseState, Row
from bridge.ledger import files, sqlite_file
from bridge.ledger import sqlite_batch as sql
from bridge.ledger.rows import PAUSE_COLUMNS, Value, to_pause, to_row
from bridge.ledger.statistics import Found, NoLedger, Reader, Rows, Tally, move
from bridge.ledger.trouble import CORRUPT, UNREADABLE, LedgerTrouble

_CHUNK: Final = 200
"""Rows counted at once: with more of them alive the garbage collector takes longer than the counting."""
BUSY_S: Final = 10.0
"""How long a reader waits for a bridge that is committing."""


class SqliteReader(Reader):
    """A SQLite ledger opened for reading.

    Thread safety: none.
    """

    step = 50_000  # about 60 ms were measured, so a bridge that commits hardly notices
    syntax: ClassVar[Mapping[str, str]] = {
        "hour": "CAST(r.recorded_wall / 3600 AS INTEGER)",
        "age": "CAST(r.age_s AS INTEGER)",
        "cause": "json_extract(r.detail, '$.cause')",
        "status": "json_extract(r.detail, '$.httpStatus')",
    }

    def __init__(self, connection: sqlite_file.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._clocks: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def open(cls, path: str, boot_s: float, wall: float) -> SqliteReader:
        """Open a ledger that exists.

        Args:
            boot_s: seconds since boot now, suspend included.
            wall: UNIX seconds now.

        Raises:
            NoLedger: there is no file.
            LedgerTrouble: it cannot be read.
        """
        try:
            is_empty = os.stat(path).st_size == 0
        except (FileNotFoundError, NotADirectoryError):
            is_empty = True
        except OSError as error:
            raise LedgerTrouble(UNREADABLE) from error
        if is_empty:
            raise NoLedger(f"There is no ledger at {path} yet: the first report makes it.")
        if not os.path.isfile(path):
            raise LedgerTrouble(UNREADABLE)
        reader = cls(_connect(path), path)
        reader._clocks = (boot_s, wall)
        try:
            with reader._reading() as execute:
                if sqlite_file.identify(reader._connection) == 0:
                    raise NoLedger(f"There is no ledger at {path} yet: the first report makes it.")
                execute("SELECT max(seq) FROM reports")
        except BaseException:
            reader.close()
            raise
        return reader

    @contextmanager
    def _reading(self) -> Iterator[Callable[..., Any]]:
        try:
            yield self._connection.execute
        except sqlite_file.Error as error:
            raise sqlite_file.translate(error, writing=False) from error

    def ask(self, statement: str, values: Sequence[Value] = (), is_slow: bool = False) -> Rows:
        """Run one statement that changes nothing."""
        with self._reading() as execute:
            found: Rows = execute(statement, sql.named(values)).fetchall()
            return found

    def tally(self, statement: str, values: Sequence[Value]) -> Tally:
        """Count the reports that a statement selects: a GROUP BY would sort a million rows three times."""
        tally: Tally = (Counter(), Counter(), Counter())
        with self._reading() as execute:
            found = iter(execute(statement, sql.named(values)))
            while rows := list(islice(found, _CHUNK)):
                hours, methods, outcomes, codes, causes, accounts, ages, latencies = zip(*rows, strict=True)
                tally[0].update(zip(hours, methods, outcomes, codes, causes, strict=True))
                tally[1].update(zip(accounts, methods, outcomes, codes, ages, strict=True))
                tally[2].update(zip(methods, latencies, strict=True))
        return tally

    # --- lists -------------------------------------------------------------------------------

    def page(self, listing: Listing) -> tuple[Row, ...]:
        """The first reports of a listing, newest first."""
        with self._reading() as execute:
            return sql.list_rows(execute, listing, listing.limit)

    def find(self, task_id: int, endpoint: str | None) -> Found:
        """The reports of a task id."""
        rows = []
        for number, place, account in self.accounts():
            if endpoint in (None, place):
                with self._reading() as execute:
                    found = execute(sql.FIND, (number, task_id)).fetchall()
                    if found:
                        # The identity index holds the newest report of a task.
                        older = sql.FIND.replace("current = 1", "current = 0")
                        found += execute(older, (number, task_id)).fetchall()
                rows += [to_row(values, place, account) for values in found]
        return Found(tuple(sorted(rows, key=lambda row: -row.seq)), True)

    def pauses(self) -> tuple[tuple[str, PauseState], ...]:
        """The pauses that are not closed, each with its endpoint, their instants as UNIX seconds."""
        found = self.ask(
            f"SELECT {', '.join(PAUSE_COLUMNS)}, endpoint FROM pauses WHERE state <> 'closed' "
            "ORDER BY endpoint, rule, subject"
        )
        shift_s = self._to_wall()
        return tuple((endpoint, move(to_pause(values), shift_s)) for *values, endpoint in found)

    def _to_wall(self) -> float:
        known = self.ask("SELECT offset_s FROM boots WHERE boot_id = $1", (files.boot_id() or "",))
        boot_s, wall = self._clocks
        # Before this boot's first bridge there is no timeline yet; it will begin at the wall clock.
        return wall - boot_s - float(known[0][0]) if known else 0.0

    def shift_s(self, wall: float) -> float | None:
        """What makes UNIX time of a moment of the timeline; None if an older version made the ledger."""
        has_counts = self.ask("SELECT count(*) FROM sqlite_master WHERE name = 'tallies'")[0][0]
        return self._to_wall() if has_counts else None

    # --- health ------------------------------------------------------------------------------

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger."""
        get = sqlite_file.get
        connection = self._connection
        with self._reading() as execute:
            return {
                "kind": "sqlite",
                "path": self._path,
                "journalMode": get(connection, "journal_mode"),
                "sqliteVersion": sqlite_file.sqlite_version,
                "schemaVersion": get(connection, "user_version"),
                "isNewer": get(connection, "user_version") > sqlite_file.VERSION,
                "sizeBytes": int(get(connection, "page_count")) * int(get(connection, "page_size")),
                "reports": execute("SELECT count(*) FROM reports").fetchone()[0],
                "filesystem": files.file_system(os.path.dirname(self._path)),
            }

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten."""
        with self._reading():
            return sqlite_file.find_damage(self._connection, full)

    def try_write(self) -> LedgerTrouble | None:
        """Begin a write and take it back; None if a bridge could write now."""
        connection = None
        try:
            connection = sqlite_file.connect(self._path, 2.0, True)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite_file.Error as error:
            return sqlite_file.translate(error, writing=True)
        finally:
            if connection is not None:
                connection.close()
        return None

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""
        self._connection.close()


def _connect(path: str) -> sqlite_file.Connection:
    """Open without the right to change, yet able to tidy up after a crash, which reading may need."""
    for writable in (True, False):
        try:
            connection = sqlite_file.connect(path, BUSY_S, writable)
        except sqlite_file.Error as error:
            if writable:
                continue
            raise sqlite_file.translate(error, writing=False) from error
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA mmap_size = 1073741824")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite_file.Error as error:
            connection.close()
            trouble = sqlite_file.translate(error, writing=False)
            if writable and trouble.kind != CORRUPT:
                continue
            raise trouble from error
        return connection
    raise LedgerTrouble(UNREADABLE)
