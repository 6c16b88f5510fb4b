"""The ledger's disk: commits that take time and locks, and a store whose door can be shut.

The store is the real one, on a real file in memory. What fails here fails at its door.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

from bridge.core.model import Sweep, Swept
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import FULL, LOCKED, READONLY, UNREADABLE, LedgerTrouble

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

_LOOK_S = 0.03
_BRIEFLY_S = 1.0
"""How long somebody may have the lock before that is a trouble."""
_SWEEPS_ASKED = 10
"""In a quiet world every so manyth sweep is asked."""


class Disk:
    """What the ledger lies on."""

    def __init__(self, world: World, path: str, commit_s: float, opening_s: float) -> None:
        self.world = world
        self.path = path
        self._commit_s = commit_s
        self._opening_s = opening_s
        self.state = ""
        self.slow_s = 0.0
        self.well_since = 0.0
        """When its last trouble ended."""
        self.holder: Process | None = None
        """Who has the lock that writing needs."""
        self._held_since = 0.0

    def enter(self, process: Process, writing: bool, busy_s: float) -> None:
        """Begin a transaction.

        Raises:
            LedgerTrouble: it cannot be begun.
        """
        loop = process.loop
        if self.state == "unreadable":
            raise LedgerTrouble(UNREADABLE)
        if not writing:
            return
        if self.state == "full":
            raise LedgerTrouble(FULL)
        if self.state == "readonly":
            raise LedgerTrouble(READONLY)
        waited_s = 0.0
        while self.state == "locked" or self.holder not in (None, process):
            if waited_s >= busy_s:
                raise LedgerTrouble(LOCKED)
            loop.sleep(_LOOK_S)
            waited_s += _LOOK_S
        self.holder = process
        self._held_since = self.world.now
        if self.slow_s:
            loop.sleep(self.slow_s)

    def leave(self, process: Process) -> None:
        """The transaction is committed; the answer is on its way."""
        process.loop.sleep(self._commit_s)
        self.release(process)
        if self.state == "doubt" and process.chance.chance(0.3):
            raise LedgerTrouble(UNREADABLE)

    def release(self, process: Process) -> None:
        """Let go of the lock."""
        if self.holder is process:
            self.holder = None
            if self.world.now - self._held_since > _BRIEFLY_S:
                self.well_since = self.world.now

    @property
    def is_well(self) -> bool:
        """True if nothing is wrong with it, and nobody has had the lock for long."""
        is_held = self.holder is not None and self.world.now - self._held_since > _BRIEFLY_S
        return not (self.state or self.slow_s or is_held)

    def touch(self) -> None:
        """Show when the ledger was changed, by the clock of this world."""
        wall = self.world.host.wall()
        for suffix in ("", "-wal"):
            try:
                os.utime(self.path + suffix, (wall, wall))
            except OSError:
                continue

    def opens(self, process: Process) -> None:
        """Opening takes a while, with the lock held."""
        if self._opening_s:
            process.loop.sleep(self._opening_s)


class SimStore(SqliteStore):
    """The real store behind a door."""

    arriving: ClassVar[Process]
    """Whose store is being opened."""

    def __init__(self, place: str | None, **options: Any) -> None:
        self.process = type(self).arriving
        self.disk = None if place is None else self.process.world.disk
        self._sweeps = 0
        super().__init__(place, **options)
        self.process.stores.append(self)

    def _start(self, *arguments: Any) -> None:
        if self.disk is None:
            super()._start(*arguments)
            return
        self.disk.enter(self.process, True, self.busy_s)
        try:
            self.disk.opens(self.process)
            super()._start(*arguments)
            self.disk.touch()
        finally:
            self.disk.release(self.process)

    def _commit(self, operations: Any, opening: str) -> list[Any]:
        disk, process = self.disk, self.process
        if disk is None:
            results = super()._commit(operations, opening)
            process.world.history.note_commit(process, self, operations, results)
            return results
        is_write = opening != "BEGIN"
        disk.enter(process, is_write, self.busy_s)
        try:
            results = super()._commit(operations, opening)
            process.world.history.note_commit(process, self, operations, results)
            if is_write:
                if disk.world.is_crowded:
                    disk.touch()
                try:
                    disk.leave(process)
                except LedgerTrouble:
                    process.world.history.note_doubt(self, operations)
                    raise
        finally:
            disk.release(process)
        return results

    def transact(self, operations: Any) -> list[Any]:
        if self.disk is not None and len(operations) == 1 and type(operations[0]) is Sweep:
            # With nothing open there is nothing to sweep up. Asking takes most of the time of a quiet world.
            self._sweeps += 1
            is_quiet = not self.disk.state and not self.process.world.history.open
            if is_quiet and self._sweeps % _SWEEPS_ASKED:
                return [Swept((), ())]
        return super().transact(operations)

    def die(self) -> None:
        """Let go as the kernel does for a process that is killed: nothing is said, nothing tidied up."""
        if self._is_closed:
            return
        self._is_closed = True
        self._connection.close()
        descriptor, self._owners._descriptor = self._owners._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)
