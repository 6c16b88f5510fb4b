"""The ledger of a fleet in a PostgreSQL database.

Its transactions. What the operations do is in `bridge.ledger.transactions`, the session that they run in
is in `bridge.ledger.postgres_session`. Must not decide about pauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from bridge.ledger.port import Notice, Operation, Policy, Seen
from bridge.ledger.postgres_batch import PostgresBatch
from bridge.ledger.postgres_link import Link, LinkLost, ServerRefused
from bridge.ledger.postgres_rows import QUERIES
from bridge.ledger.postgres_session import Session
from bridge.ledger.postgres_trouble import AGAIN, explain, trouble
from bridge.ledger.transfer import OPERATIONS, READS
from bridge.ledger.trouble import FOREIGN, NEWER

_Result = TypeVar("_Result")
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
        trusts_clock: True for a command: who gives it knows what time it is, and what to delete.
        session: what a `Session` takes.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """

    kind = "postgres"

    def __init__(self, url: str, *, policy: Policy, trusts_clock: bool = False, **session: Any) -> None:
        self.notices: list[Notice] = []
        super().__init__(url, **session)
        self._batch = PostgresBatch(policy, self)
        if not trusts_clock:
            self._batch.opened_at = self.boot_clock() + self.clock_offset_s
        self._is_committing = False

    @property
    def seen(self) -> Seen:
        """The pauses as this store last read or wrote them."""
        return self._batch.seen

    def is_alive(self, instance: str) -> bool:
        """True if an instance still runs."""
        return self._in_session(lambda _: self._batch.is_alive(instance))

    # --- transactions ------------------------------------------------------------------------

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none; see `bridge.ledger.port.Store`.

        Raises:
            LedgerTrouble: nothing of it has happened, except that a failed commit may have.
        """
        is_reading = READS.issuperset(map(type, operations))
        if self.is_newer and not is_reading:
            raise trouble(NEWER)
        return self._in_session(lambda link: self._perform(link, operations, is_reading))

    def _in_session(self, action: Callable[[Link], _Result]) -> _Result:
        """Do something, and do it again for a while if a race or the session was lost; undo what fails."""
        deadline = time.monotonic() + self.busy_s
        while True:
            self._is_committing = False
            link = self.wait_for_link()
            self._batch.clear()
            try:
                return action(link)
            except BaseException as met:
                if not link.is_idle:
                    with suppress(ServerRefused):
                        link.ask(QUERIES["roll_back"])
                state = met.state if isinstance(met, ServerRefused) else None
                if link.is_lost or state == _READ_ONLY:
                    # It may be a standby now: look whether the address leads to a server that takes writes.
                    self.lose()
                if state is None:
                    raise
                # A session that ended takes with it what was not committed, unless that was asked for.
                may_try = not self._is_committing if isinstance(met, LinkLost) else state in AGAIN
                if not may_try or time.monotonic() > deadline:
                    raise explain(state) from None

    def _perform(self, link: Link, operations: Sequence[Any], is_reading: bool) -> list[Any]:
        batch = self._batch
        batch.durable = self.durable
        if not is_reading:
            if not link.is_held:
                # The server took no writes when this session began.
                self.hold(link)
            batch.number_accounts(operations)
        told, pid = batch.begin(operations, is_reading)
        if pid != link.pid:
            # The session's lock would be somebody else's.
            raise trouble(FOREIGN)
        batch.now, batch.wall = self._tell_time(told)
        results = [OPERATIONS[type(operation)](batch, operation) for operation in operations]
        writes = [] if is_reading else batch.pending()
        self._is_committing = not is_reading
        link.run([*writes, (QUERIES["commit"], [])])
        if not is_reading:
            batch.settle_changes()
            batch.remember_own()
            self.trouble = None
        return results
