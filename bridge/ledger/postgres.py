"""The ledger of a fleet in a PostgreSQL database.

The door to it: opening, transactions, and the health of the server. What the operations do is in
`bridge.ledger.transactions`, the session in `bridge.ledger.postgres_session`. Must not decide about pauses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from bridge.core.counting import Operation, Tallies
from bridge.core.model import Listing, Look, Pauses, Task
from bridge.core.redact import Secret
from bridge.ledger.owners import name_instance
from bridge.ledger.port import EventRow, Forget, Known, Notice, Policy, Restore, Seen, Teach
from bridge.ledger.postgres_batch import PostgresBatch
from bridge.ledger.postgres_link import Link, LinkLost, Rows, ServerRefused, Statement
from bridge.ledger.postgres_neighbours import GRACE_S, Neighbours
from bridge.ledger.postgres_rows import QUERIES, certain
from bridge.ledger.postgres_schema import identify
from bridge.ledger.postgres_session import STATEMENT_S, Session, translated
from bridge.ledger.postgres_trouble import AGAIN, GONE, POOLED, explain, trouble
from bridge.ledger.transactions import READS
from bridge.ledger.transfer import OPERATIONS, ask
from bridge.ledger.trouble import FOREIGN, NEWER, UNREADABLE, LedgerTrouble

_Result = TypeVar("_Result")
_Q: Final = QUERIES
MOST_TRIES: Final = 20
"""How often a batch that lost a race is tried again at least, before the ledger counts as locked."""
MOST_SESSIONS: Final = 2
"""How often a batch is tried on a new session, if the old one ended before anything was written."""
COUNTED: Final = 100_000
"""Up to so many reports their number is counted; above, the server's estimate does."""
CHECK_S: Final = 600.0
_READ_ONLY: Final = "25006"


class PostgresStore:
    """A ledger in PostgreSQL; fits `bridge.ledger.port.Store`. Made by `PostgresStore.open`.

    It holds one session. When that breaks it is made again under the same name, so rows and locks are the
    same bridge's; after a moment's tries everything raises, and `tend` goes on trying. The server ends a
    session that says nothing for a while: whoever owns the store must call `tend` as often as that says.

    Thread safety: none.
    """

    def __init__(
        self,
        url: str,
        password: Secret | None,
        policy: Policy,
        clocks: tuple[Callable[[], float], Callable[[], float]],
        instance: str,
        busy_s: float,
        grace_s: float,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.kind = "postgres"
        self.durable = True
        """True if the server syncs what it commits."""
        self.secret = b""
        self.clock_offset_s = 0.0
        """Boot clock plus this is the ledger's timeline, which is the server's clock."""
        self.notices: list[Notice] = []
        self.instance = instance
        self.busy_s = busy_s
        """Longest wait for another bridge's lock."""
        self._wall_clock = clocks[1]
        neighbours = Neighbours(grace_s)
        self._session = Session(
            url, password, instance, neighbours, clocks, self._tell_time, busy_s, random_bytes
        )
        self._batch = PostgresBatch(policy, instance, neighbours, self._wall_clock)
        self._is_careful = False
        self._is_committing = False
        self._on_statement: Callable[[str], Any] | None = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        policy: Policy,
        machine: str,
        boot_clock: Callable[[], float],
        wall_clock: Callable[[], float],
        password: Secret | None = None,
        instance: str | None = None,
        busy_s: float = STATEMENT_S,
        grace_s: float = GRACE_S,
        trusts_clock: bool = False,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> PostgresStore:
        """Open a ledger, making its tables if they are missing.

        A ledger that can be read but not written is opened too; `trouble` then says why.

        Args:
            url: ``postgresql://…`` as libpq reads it.
            machine: an identity of this machine; unused, since sessions show where they come from.
            boot_clock: seconds since boot, suspend included.
            wall_clock: UNIX seconds.
            password: one that the usual sources do not have.
            instance: the name that this process had before, so that its rows stay its own.
            busy_s: seconds to wait for a lock of another bridge.
            grace_s: seconds that a neighbour without a session still counts as alive.
            trusts_clock: True for a command: who gives it knows what time it is, and what to delete.
            random_bytes: chance, for names and secrets.

        Raises:
            LedgerTrouble: it can be neither made nor read.
        """
        clocks = (boot_clock, wall_clock)
        name = instance or name_instance(None, random_bytes)
        store = cls(url, password, policy, clocks, name, busy_s, grace_s, random_bytes)
        session = store._session
        session.open()
        store.durable = store._batch.durable = session.durable
        store.secret, store.clock_offset_s = session.secret, session.clock_offset_s
        if not trusts_clock:
            store._batch.opened_at = boot_clock() + store.clock_offset_s
        return store

    @property
    def trouble(self) -> LedgerTrouble | None:
        """Why the ledger could not be written when it was opened; None once it could."""
        return self._session.trouble

    @property
    def clock_skew_s(self) -> float:
        """This host's clock minus the server's, in seconds."""
        return self._session.clock_skew_s

    @property
    def seen(self) -> Seen:
        """The pauses as this store last read or wrote them."""
        return self._batch.seen

    def is_alive(self, instance: str) -> bool:
        """True if an instance still runs."""
        return self._read([], lambda batch: batch.is_alive(instance))

    def tend(self) -> float | None:
        """Show that this bridge lives, or try to come back; seconds until it is time again."""
        return self._session.tend()

    def _tell_time(self, epoch: float) -> tuple[float, float]:
        """The timeline and the wall of a transaction: both are the server's clock, whatever ours says."""
        return epoch, epoch

    # --- transactions ------------------------------------------------------------------------

    def transact(self, operations: Sequence[Operation | Restore | Teach | Forget]) -> list[Any]:
        """Run all operations in order in one transaction, or none; see `bridge.ledger.port.Store`.

        Raises:
            LedgerTrouble: nothing of it has happened, except that a failed commit may have.
        """
        if all(type(operation) in READS for operation in operations):
            return self._read_all(operations)
        if self._session.is_newer:
            raise trouble(NEWER)
        deadline = time.monotonic() + self.busy_s
        races = sessions = 0
        while True:
            link = self._session.wait_for_link()
            try:
                results = self._write(link, operations)
            except LinkLost:
                sessions += 1
                if self._is_committing or sessions > MOST_SESSIONS or time.monotonic() > deadline:
                    raise trouble(UNREADABLE) from None
            except ServerRefused as refusal:
                races += 1
                self._is_careful = True
                if refusal.state not in AGAIN or (races > MOST_TRIES and time.monotonic() > deadline):
                    raise explain(refusal.state) from None
            else:
                self._session.trouble = None
                return results

    def _write(self, link: Link, operations: Sequence[Any]) -> list[Any]:
        batch, session = self._batch, self._session
        self._is_committing = False
        with self._transaction(link):
            if not link.is_held:
                # The server took no writes when this session began.
                session.hold(link)
            accounts = batch.number_accounts(operations)
            if accounts:
                # In a commit of their own, so that nobody waits for the batch.
                batch.take_accounts(self._run(accounts)[-1])
            opening: list[Statement] = [(_Q["begin"], [])]
            if session.lock_timeout_s != self.busy_s:
                opening.insert(0, (f"SET lock_timeout = {max(1, round(self.busy_s * 1000))}", []))
            reads = batch.plan(operations, self._is_careful)
            answers = self._run([*opening, *reads])[len(opening) :]
            session.lock_timeout_s = self.busy_s
            self._set_time(link, answers[0])
            batch.take(answers)
            results = [OPERATIONS[type(operation)](batch, operation) for operation in operations]
            writes = batch.pending()
            self._is_committing = True
            self._run([*writes, (_Q["commit"], [])])
            batch.settle_changes()
            self._is_careful = batch.is_restless
        batch.commit()
        return results

    def read(self, operation: Look | Listing | Pauses | Tallies) -> Any:
        """Run one operation that changes nothing, also while the ledger cannot be written."""
        return self._read_all([operation])[0]

    def _read_all(self, operations: Sequence[Any]) -> list[Any]:
        for operation in operations:
            if type(operation) not in READS:
                raise KeyError(type(operation))
        return self._read(
            operations,
            lambda batch: [OPERATIONS[type(operation)](batch, operation) for operation in operations],
        )

    def ask(self, task: Task, method: str | None = None) -> Known:
        """What is known about a task and an attempt with a method; needs no right to write."""
        return self._read([Look(task)], lambda batch: ask(batch, task, method))

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        return self._read([], lambda batch: batch.events(seq))

    def _read(self, operations: Sequence[Any], find: Callable[[PostgresBatch], _Result]) -> _Result:
        """Find something out in a transaction; in a new session, if the server has dropped this one."""
        with translated():
            try:
                return self._read_once(operations, find)
            except LinkLost:
                return self._read_once(operations, find)

    def _read_once(self, operations: Sequence[Any], find: Callable[[PostgresBatch], _Result]) -> _Result:
        link, batch = self._session.wait_for_link(), self._batch
        with self._transaction(link):
            reads = batch.plan(operations, is_careful=False, is_reading=True)
            _, *answers = self._run([(_Q["begin_reading"], []), *reads])
            self._set_time(link, answers[0])
            batch.take(answers)
            found = find(batch)
            self._run([(_Q["commit"], [])])
        return found

    @contextmanager
    def _transaction(self, link: Link) -> Iterator[None]:
        """Everything that happens after opening happens in here; what fails is undone."""
        self._batch.clear()
        self._batch.ask_server = self._run
        try:
            yield
        except LinkLost:
            self._session.lose()
            raise
        except ServerRefused as refusal:
            if refusal.state in GONE:
                self._session.lose()
                raise LinkLost from None
            self._roll_back(link)
            if refusal.state == _READ_ONLY:
                # It may be a standby now: look whether the address leads to a server that takes writes.
                self._session.lose()
            raise
        except BaseException:
            self._roll_back(link)
            raise

    def _roll_back(self, link: Link) -> None:
        if link.is_idle:
            return
        try:
            link.run([(_Q["roll_back"], [])])
        except (LinkLost, ServerRefused):
            self._session.lose()

    def _run(self, statements: Sequence[Statement]) -> list[Rows]:
        if self._on_statement is not None:
            for text, _ in statements:
                self._on_statement(text)
        return self._session.link.run(statements)

    def _set_time(self, link: Link, clock: Rows) -> None:
        told, pid, *_ = clock[0]
        if int(certain(pid)) != link.pid:
            # The session's lock would be somebody else's.
            raise LedgerTrouble(FOREIGN, POOLED)
        self._batch.now, self._batch.wall = self._tell_time(float(certain(told)))

    # --- health ------------------------------------------------------------------------------

    def health(self, integrity: bool = False) -> dict[str, Any]:
        """The state of the ledger for people and monitors.

        Args:
            integrity: also check for damage, which reads everything.
        """
        with translated():
            link = self._session.wait_for_link()
            with self._transaction(link):
                started_at = time.monotonic()
                ((told, _),), ((is_standby, version, *_),), ((size, estimate, sessions),) = self._run(
                    [(_Q["beat"], []), (_Q["condition"], []), (_Q["size"], [])]
                )
                round_trip_s = time.monotonic() - started_at
                reports = int(certain(estimate))
                if reports <= COUNTED:
                    reports = int(certain(self._run([(_Q["count_reports"], [])])[0][0][0]))
                found = identify(link)
            skew_s = self._wall_clock() - self._tell_time(float(certain(told)))[1]
            report: dict[str, Any] = {
                "kind": self.kind,
                "path": link.place,
                "durable": self.durable,
                "trouble": None if self.trouble is None else self.trouble.kind,
                "server_version": certain(version),
                "schema_version": found.version,
                "is_standby": is_standby == b"t",
                "size_bytes": int(certain(size)),
                "sessions": int(certain(sessions)),
                "reports": reports,
                "clock_skew_s": round(skew_s, 3),
                "round_trip_ms": round(round_trip_s * 1000, 2),
            }
        if integrity:
            report["integrity"] = self.check(full=True)
        return report

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten.

        Args:
            full: also read every report.
        """
        with translated():
            link = self._session.wait_for_link()
            names = ["find_damage", *(["find_false_reports"] if full else [])]
            with self._transaction(link):
                patience = f"SET LOCAL statement_timeout = {round(CHECK_S * 1000)}"
                link.run([(_Q["begin_reading"], []), (patience, [])])
                found = [certain(row[0]) for name in names for row in link.run([(_Q[name], [])], CHECK_S)[0]]
                link.run([(_Q["commit"], [])])
            return tuple(found[:10])

    def on_statement(self, callback: Callable[[str], Any] | None) -> None:
        """Call back with the text of every statement that runs; None to stop."""
        self._on_statement = callback

    @property
    def round_trips(self) -> int:
        """How often the server was asked in this session."""
        return self._session.link.round_trips

    def leave(self) -> None:
        """Show neighbours that this instance is gone, though its session is not."""
        self._session.let_go()

    def close(self) -> None:
        """Let go of the session and, with it, of the instance's lock. Idempotent."""
        self._session.close()
