"""The ledger of a fleet in a PostgreSQL database.

Its transactions. What the operations do is in `bridge.ledger.transactions`, the session that they run in
is in `bridge.ledger.postgres_session`. Must not decide about pauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from bridge.ledger.port import Notice, Operation, Policy, Seen
from bridge.ledger.postgres_batch import GRACE_S, PostgresBatch
from bridge.ledger.postgres_link import Link, LinkLost, Rows, ServerRefused, Statement
from bridge.ledger.postgres_rows import QUERIES
from bridge.ledger.postgres_session import Session
from bridge.ledger.postgres_trouble import AGAIN, POOLED, explain, trouble
from bridge.ledger.transfer import OPERATIONS, READS
from bridge.ledger.trouble import FOREIGN, NEWER, LedgerTrouble

_Result = TypeVar("_Result")
_Q: Final = QUERIES
_READ_ONLY: Final = "25006"


class PostgresStore(Session):
    """A ledger in PostgreSQL; fits `bridge.ledger.port.Store`.

    Making one makes the tables if they are missing. A ledger that can be read but not written is opened too;
    `trouble` then says why.

    When its session breaks it is made again under the same name, so rows and locks are the same bridge's;
    after a moment's tries everything raises, and `tend` goes on trying. The server ends a session that says
    nothing for a while: whoever owns the store must call `tend` as often as that says.

    Thread safety: none.

    Args:
        url: ``postgresql://…`` as libpq reads it.
        grace_s: seconds that a neighbour without a session still counts as alive.
        trusts_clock: True for a command: who gives it knows what time it is, and what to delete.
        session: what a `Session` takes.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """

    kind = "postgres"

    def __init__(
        self,
        url: str,
        *,
        policy: Policy,
        grace_s: float = GRACE_S,
        trusts_clock: bool = False,
        **session: Any,
    ) -> None:
        self.notices: list[Notice] = []
        super().__init__(url, **session)
        self._batch = PostgresBatch(policy, self.instance, self._run, self._wall_clock, grace_s)
        if not trusts_clock:
            self._batch.opened_at = self._boot_clock() + self.clock_offset_s
        self._is_committing = False

    @property
    def seen(self) -> Seen:
        """The pauses as this store last read or wrote them."""
        return self._batch.seen

    def is_alive(self, instance: str) -> bool:
        """True if an instance still runs."""
        return self._in_session(lambda: self._read([], lambda batch: batch.is_alive(instance)))

    # --- transactions ------------------------------------------------------------------------

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none; see `bridge.ledger.port.Store`.

        Raises:
            LedgerTrouble: nothing of it has happened, except that a failed commit may have.
        """
        if all(type(operation) in READS for operation in operations):
            return self._in_session(lambda: self._read(operations, lambda batch: _perform(batch, operations)))
        if self.is_newer:
            raise trouble(NEWER)
        return self._in_session(lambda: self._write(operations))

    def _in_session(self, action: Callable[[], _Result]) -> _Result:
        """Do something, and do it again for a while if a race or the session was lost."""
        deadline = time.monotonic() + self.busy_s
        while True:
            self._is_committing = False
            try:
                return action()
            except ServerRefused as refusal:
                # A session that ended takes with it what was not committed, unless that was asked for.
                is_lost = isinstance(refusal, LinkLost)
                may_try = not self._is_committing if is_lost else refusal.state in AGAIN
                if not may_try or time.monotonic() > deadline:
                    raise explain(refusal.state) from None

    def _write(self, operations: Sequence[Any]) -> list[Any]:
        batch = self._batch
        with self._transaction() as link:
            if not link.is_held:
                # The server took no writes when this session began.
                self.hold(link)
            batch.number_accounts(operations)
            self._note_time(link, *batch.begin(operations))
            results = _perform(batch, operations)
            writes = batch.pending()
            self._is_committing = True
            self._run([*writes, (_Q["commit"], [])])
            batch.settle_changes()
        batch.commit()
        self.trouble = None
        return results

    def _read(self, operations: Sequence[Any], find: Callable[[PostgresBatch], _Result]) -> _Result:
        batch = self._batch
        with self._transaction() as link:
            self._note_time(link, *batch.begin(operations, is_reading=True))
            found = find(batch)
            self._run([(_Q["commit"], [])])
        return found

    @contextmanager
    def _transaction(self) -> Iterator[Link]:
        """Everything that happens after opening happens in here; what fails is undone."""
        link = self.wait_for_link()
        self._batch.clear()
        self._batch.durable, self._batch.busy_s = self.durable, self.busy_s
        self._batch.free_since = link.free_since
        try:
            yield link
        except BaseException as met:
            if not link.is_idle:
                with suppress(ServerRefused):
                    link.ask(_Q["roll_back"])
            if link.is_lost or (isinstance(met, ServerRefused) and met.state == _READ_ONLY):
                # It may be a standby now: look whether the address leads to a server that takes writes.
                self.lose()
            raise

    def _note_time(self, link: Link, told: float, pid: int) -> None:
        if pid != link.pid:
            # The session's lock would be somebody else's.
            raise LedgerTrouble(FOREIGN, POOLED)
        self._batch.now, self._batch.wall = self._tell_time(told)

    def _run(self, statements: Sequence[Statement]) -> list[Rows]:
        return self.link.run(statements)


def _perform(batch: PostgresBatch, operations: Sequence[Any]) -> list[Any]:
    return [OPERATIONS[type(operation)](batch, operation) for operation in operations]
