"""Reads a SQLite ledger for people, also while bridges work on it.

One statement per step, over a bounded number of reports: with a rollback journal nobody can commit
while a statement reads, and a bridge waits 2 s at most. Imported by `bridge.ledger.statistics` only.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Final

from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners
from bridge.ledger.rows import Rows, Statement
from bridge.ledger.statistics import Kind, NoLedger, Reader
from bridge.ledger.trouble import UNREADABLE, LedgerTrouble

_CHUNK: Final = 200
"""Rows counted at once: with more of them alive the garbage collector takes longer than the counting."""
BUSY_S: Final = 10.0
"""How long a reader waits for a bridge that is committing."""
_MISSING: Final = "There is no ledger at {} yet: the first report makes it."
_SETTINGS: Final = (
    ("query_only", "ON"),
    ("trusted_schema", "OFF"),
    ("temp_store", "MEMORY"),
    ("mmap_size", 1 << 30),
)


class SqliteReader(Reader):
    """A SQLite ledger opened for reading.

    Thread safety: none.

    Args:
        path: a ledger that exists.
        boot_s: seconds since boot now, suspend included.
        wall: UNIX seconds now.

    Raises:
        NoLedger: there is no file.
        LedgerTrouble: it cannot be read.
    """

    step = 50_000  # about 100 ms were measured, so a bridge that commits hardly notices
    is_newest = "r.current = 1"
    revision = renumber = ()

    def __init__(self, path: str, boot_s: float, wall: float) -> None:
        self._path = path
        self._booted_at = wall - boot_s
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise NoLedger(_MISSING.format(path)) from None
        except OSError as error:
            raise LedgerTrouble(UNREADABLE) from error
        if not is_file:
            raise LedgerTrouble(UNREADABLE)
        with sqlite_file.translated(writing=False):
            # Reading may need to tidy up after a crash. SQLite itself makes do with less where it must.
            self._connection = sqlite_file.connect(path, BUSY_S, writable=True)
            try:
                for name, value in _SETTINGS:
                    self._connection.pragma(name, value)
                self.version = sqlite_file.identify(self._connection)
                if self.version == 0:
                    raise NoLedger(_MISSING.format(path))
            except BaseException:
                self.close()
                raise

    def ask(self, statement: str, values: Sequence[Any] = (), is_slow: bool = False) -> Rows:
        """Run one statement that changes nothing."""
        with sqlite_file.translated(writing=False):
            found: Rows = self._connection.execute(statement, values).fetchall()
            return found

    def tally(self, rows: str, values: Sequence[Any], kinds: Sequence[Kind]) -> list[Counter[Any]]:
        """Count here: for a GROUP BY SQLite would sort all rows, once for each kind."""
        names = list(dict.fromkeys(name for kind in kinds for name in kind))
        counters: list[Counter[Any]] = [Counter() for _ in kinds]
        with sqlite_file.translated(writing=False):
            found = iter(self._connection.execute(f"SELECT {', '.join(names)} FROM ({rows})", values))
            while chunk := list(islice(found, _CHUNK)):
                columns = dict(zip(names, zip(*chunk, strict=True), strict=True))
                for kind, counter in zip(kinds, counters, strict=True):
                    counter.update(zip(*(columns[name] for name in kind), strict=True))
        return counters

    def shift_s(self) -> float:
        """What makes UNIX time of a moment of the timeline."""
        known = self.ask("SELECT offset_s FROM boots WHERE boot_id = $1", (files.boot_id() or "",))
        # Before this boot's first bridge there is no timeline yet; it will begin at the wall clock.
        return self._booted_at - float(known[0][0]) if known else 0.0

    # --- health ------------------------------------------------------------------------------

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger."""
        ask = self._connection.pragma
        with sqlite_file.translated(writing=False):
            return {
                "path": self._path,
                "journalMode": ask("journal_mode"),
                "sqliteVersion": sqlite_file.sqlite_version,
                "isNewer": self.version > sqlite_file.VERSION,
                "sizeBytes": ask("page_count") * ask("page_size"),
                "reports": self.ask("SELECT count(*) FROM reports")[0][0],
                "filesystem": files.file_system(os.path.dirname(self._path)),
            }

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten."""
        with sqlite_file.translated(writing=False):
            return sqlite_file.find_damage(self._connection, full)

    def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one commit."""
        with (
            sqlite_file.translated(writing=True),
            closing(sqlite_file.connect(self._path, BUSY_S, True)) as connection,
            sqlite_file.writing(connection),
        ):
            for text, values in statements:
                connection.execute(text, values)

    def is_at_work(self) -> bool:
        """True if a bridge works on the ledger now."""
        return bool(Owners(self._path, "reader").live_marks())

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""
        self._connection.close()
