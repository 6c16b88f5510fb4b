"""The ledger in one SQLite file, or in memory with the same code.

The door to it: opening, transactions, and the health of the file. What the operations do is in
`bridge.ledger.transactions`. Must not decide about pauses, and must not bridge trouble.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners, name_instance
from bridge.ledger.port import Notice, Operation, Policy
from bridge.ledger.sqlite_batch import Raced, SqliteBatch
from bridge.ledger.transfer import OPERATIONS, READS
from bridge.ledger.trouble import CORRUPT, LOCKED, NEWER, READABLE, READONLY, LedgerTrouble

QUEUE: Final = 5
"""So many times as long a lock is waited for among bridges at work: then it is a queue of theirs."""
_Result = TypeVar("_Result")
_DAY_S: Final = 86_400.0
_IN_USE: Final = (
    "Another bridge still uses the ledger that was at this path before; it lets go of it within seconds."
)


class SqliteStore(SqliteBatch):
    """A ledger in SQLite; fits `bridge.ledger.port.Store`.

    Making one makes the file if it is missing. A ledger that can be read but not written is opened too;
    `trouble` then says why, and everything that writes raises.

    Thread safety: none. One thread at a time, which need not be the one that opened it.

    Args:
        path: the file, or None for memory.
        boot_clock: seconds since boot, suspend included.
        wall_clock: UNIX seconds.
        busy_s: seconds to wait for a lock of another process.
        private_directory: True if the file's directory is the program's own and may be repaired.
        trusts_clock: True for a command: who gives it knows what time it is, and what to delete.
        instance: the name of this bridge, if it has one already.
        boot_id: names this boot; the system does by default.
        random_bytes: chance, for names and secrets.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """

    def __init__(
        self,
        path: str | None,
        *,
        policy: Policy,
        boot_clock: Callable[[], float],
        wall_clock: Callable[[], float],
        busy_s: float = 2.0,
        private_directory: bool = False,
        trusts_clock: bool = False,
        instance: str | None = None,
        boot_id: Callable[[], str | None] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        prepared = None if path is None else files.prepare(path, private_directory)
        boot = None if path is None else (boot_id or files.boot_id)()
        self.kind = "memory" if path is None else "sqlite"
        self.secret = b""
        self.clock_offset_s = 0.0
        self.notices: list[Notice] = [] if prepared is None else list(prepared.notices)
        self.trouble: LedgerTrouble | None = None
        self.durable = path is not None
        """True if a commit survives the end of this process."""
        self.busy_s = busy_s
        """Seconds to wait for a lock of another process."""
        self._path = path or ""
        self._opened = None if prepared is None else prepared.found
        """Which file it is; None for memory."""
        self._companions: dict[str, os.stat_result] = {}
        """Beside the file while there is a write-ahead log."""
        self._boot_clock, self._wall_clock = boot_clock, wall_clock
        self._trusts_clock = trusts_clock
        self._is_closed = False
        owners = Owners(path, instance or name_instance(boot, random_bytes))
        neighbours = owners.live_marks()
        if self._opened is not None:
            owners.mark = f"{self._opened.st_dev}:{self._opened.st_ino}"
        of_others = [mark for mark in neighbours if mark not in ("", owners.mark)]
        if of_others and files.find_companions(self._path):
            # Their log may be what lies beside this file, and would be taken for this file's.
            raise LedgerTrouble(LOCKED, _IN_USE)
        self._is_alone = neighbours == of_others
        writable = prepared is None or prepared.writable
        with sqlite_file.translated(writing=False):
            connection = sqlite_file.connect(path, busy_s, writable)
        super().__init__(connection, policy, owners)
        try:
            self._patiently(partial(self._start, writable, boot, random_bytes))
        except BaseException:
            self.close()
            raise

    # --- opening -----------------------------------------------------------------------------

    def _patiently(self, action: Callable[[], _Result]) -> _Result:
        """Do something, and again as long as others commit while it waits: then bridges wait for each other.

        SQLite's own wait is not fair: in a crowd somebody may wait long although nobody has it for long.
        """
        began_at = self._boot_clock()
        while True:
            try:
                return action()
            except LedgerTrouble as trouble:
                if (
                    trouble.kind != LOCKED
                    or not 0.0 < self._boot_clock() - began_at < QUEUE * self.busy_s
                    or not files.has_changed(self._path, self._wall_clock(), self.busy_s)
                    or not self._owners.live_marks()
                ):
                    raise

    @sqlite_file.translated(writing=False)
    def _start(self, writable: bool, boot: str | None, random_bytes: Callable[[int], bytes]) -> None:
        connection = self._connection
        self.trouble = None
        version = sqlite_file.identify(connection)
        if version > sqlite_file.VERSION:
            self.trouble = LedgerTrouble(NEWER)
        elif not writable:
            self.trouble = LedgerTrouble(READONLY)
        if version and self._is_alone and sqlite_file.is_damaged(connection):
            # Before anything is written: what is damaged is left as it was found. Who has it open has looked.
            raise LedgerTrouble(CORRUPT)
        if self.trouble is None:
            try:
                # Before anything is locked, so that others know that it is a bridge for whom they wait.
                self._owners.hold()
                with sqlite_file.translated(writing=True):
                    sqlite_file.configure(connection, writable=True)
                    if version < sqlite_file.VERSION:
                        sqlite_file.migrate(connection, random_bytes)
                        version = sqlite_file.VERSION
                    if boot is not None and self._find_timeline(boot) is None:
                        wall = self._wall_clock()
                        begun = (boot, wall - self._boot_clock(), wall)
                        with sqlite_file.writing(connection):
                            connection.execute("INSERT OR IGNORE INTO boots VALUES (?, ?, ?)", begun)
            except LedgerTrouble as trouble:
                if trouble.kind not in READABLE:
                    raise
                self.trouble = trouble
        if self.trouble is not None:
            if version == 0:
                raise self.trouble
            sqlite_file.configure(connection, writable=False)
            if self.trouble.kind == NEWER:
                connection.pragma("query_only", "ON")
        if connection.pragma("synchronous") != 2:
            self.durable = False
            self.notices.append(("ledger_not_durable", {"sqlite": sqlite_file.sqlite_version}))
        self._join(boot)
        if self._opened is not None:
            self._companions = files.find_companions(self._path)

    def _find_timeline(self, boot: str | None) -> tuple[float, float] | None:
        """What makes the timeline of the boot clock, and when this boot's first bridge came."""
        found = self._connection.execute("SELECT offset_s, first_wall FROM boots WHERE boot_id = ?", (boot,))
        known: tuple[float, float] | None = found.get
        return known

    def _join(self, boot: str | None) -> None:
        """Learn the secret and the timeline."""
        secret = self._connection.execute("SELECT value FROM meta WHERE name = 'secret'").get
        if secret is None:
            raise LedgerTrouble(CORRUPT)
        self.secret = secret
        known = self._find_timeline(boot)
        if known is None:
            self.clock_offset_s = self._wall_clock() - self._boot_clock()
            return
        self.clock_offset_s, first_wall = known
        before = "SELECT max(recorded_wall) FROM reports WHERE recorded_wall < ?"
        newest = self._connection.execute(before, (first_wall,)).get
        if newest is not None and first_wall - newest > _DAY_S and not self._trusts_clock:
            # Nobody was here for long, or the clock is wrong: history is kept until a day has shown.
            self.pruned_from = first_wall + _DAY_S

    # --- transactions ------------------------------------------------------------------------

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none; see `bridge.ledger.port.Store`.

        Raises:
            LedgerTrouble: nothing of it has happened, except that a failed commit may have.
        """
        if READS.issuperset(map(type, operations)):
            return self._patiently(partial(self._commit, operations, "BEGIN"))
        if self._opened is not None:
            if self.trouble is not None and self.trouble.kind == NEWER:
                raise self.trouble
            files.verify(self._path, self._opened)
            self._owners.hold()
        write = partial(self._commit, operations, "BEGIN IMMEDIATE")
        try:
            results = self._patiently(write)
        except Raced:
            # Nothing is remembered any more, so what is decided upon now is what was read.
            results = self._patiently(write)
        self.trouble = None
        return results

    def _commit(self, operations: Sequence[Any], opening: str) -> list[Any]:
        """Everything that happens to SQLite after opening happens in here; errors change type here."""
        connection = self._connection
        self.clear()
        self.wall = self._wall_clock()
        self.now = self._boot_clock() + self.clock_offset_s
        try:
            connection.set_busy_timeout(round(self.busy_s * 1000))
            self._execute(opening)
            self.forget_theirs(is_reading=opening == "BEGIN")
            self.prepare(operations)
            results = [OPERATIONS[type(operation)](self, operation) for operation in operations]
            self.flush()
            self._execute("COMMIT")
        except BaseException as error:
            sqlite_file.roll_back(connection)
            self.forget_own()
            if isinstance(error, sqlite_file.Error):
                raise sqlite_file.translate(error, writing=opening != "BEGIN") from error
            raise
        self.remember_own()
        return results

    def tend(self) -> float | None:
        """Nothing is ever due."""
        return None

    # --- the rest ---------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the file and of the owner's lock. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            sqlite_file.roll_back(self._connection)
            is_ours = self._opened is None or files.is_in_place(self._path, self._opened)
            if is_ours and self._opened is not None:
                self._companions = files.find_companions(self._path)
            if self.trouble is None and self._companions:
                sqlite_file.leave_wal(self._connection, is_ours)
            if not is_ours:
                # While they are still open, so that no other file can have got their numbers.
                files.remove_companions(self._companions)
            self._connection.close()
        finally:
            self._owners.release()
