"""The ledger of a fleet in a PostgreSQL database.

The sessions, the transactions, and the health of the server. What the operations do is in
`postgres_steps`. Must not decide about pauses (the policy does).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

from bridge.core.model import Claim, Claimed, Gate, Listing, Look, Operation, Pauses, Task, Window
from bridge.core.redact import Secret
from bridge.ledger.postgres_link import Link, LinkLost, Rows, ServerRefused, Statement, connect
from bridge.ledger.postgres_neighbours import GRACE_S, Neighbours
from bridge.ledger.postgres_pulse import BEAT_S, IDLE_S, Pulse
from bridge.ledger.postgres_reads import account_arrays
from bridge.ledger.postgres_rows import QUERIES, certain, dump
from bridge.ledger.postgres_schema import VERSION, Found, identify, migrate
from bridge.ledger.postgres_steps import PostgresSteps
from bridge.ledger.postgres_trouble import AGAIN, GONE, POOLED, explain, trouble
from bridge.ledger.questions import READS
from bridge.ledger.steps import STEPS
from bridge.ledger.store import EventRow, Notice, Policy
from bridge.ledger.trouble import (
    CORRUPT,
    FOREIGN,
    NEWER,
    READONLY,
    REPLACED,
    UNREADABLE,
    LedgerTrouble,
)

_Q: Final = QUERIES
_ALL: Final[Mapping[type, Callable[[Any, Any], Any]]] = {**READS, **STEPS}
STATEMENT_S: Final = 2.0
"""Longest time the server may spend on one statement: the contract's bound for a ledger that is locked."""
MOST_TRIES: Final = 20
"""How often a batch that lost a race is tried again at least, before the ledger counts as locked."""
COUNTED: Final = 100_000
"""Up to so many reports their number is counted; above, the server's estimate does."""
CHECK_S: Final = 600.0
_OFFSET_TRIES: Final = 3
"""Measurements of the clock's offset; the one with the shortest round trip counts."""


def make_instance() -> str:
    """A random name for a bridge instance, for all its sessions."""
    return os.urandom(10).hex()


class PostgresStore:
    """A ledger in PostgreSQL; fits `bridge.ledger.store.Store`. Made by `PostgresStore.open`.

    It holds one session. When that breaks, a thread of its own brings it back; until then everything
    raises at once. The name of the instance stays, so rows and locks are the same bridge's again.

    Thread safety: none but with that thread.
    """

    kind = "postgres"

    def __init__(
        self,
        url: str,
        password: Secret | None,
        policy: Policy,
        clocks: tuple[Callable[[], float], Callable[[], float]],
        instance: str,
        busy_s: float,
        grace_s: float,
    ) -> None:
        self.durable = True
        self.secret = b""
        self.clock_offset_s = 0.0
        self.clock_skew_s = 0.0
        """This host's clock minus the server's."""
        self.instance = instance
        self.notices: list[Notice] = []
        self.trouble: LedgerTrouble | None = None
        """Why the ledger could not be written when it was opened; None once it could."""
        self.busy_s = busy_s
        """Longest wait for another bridge's lock."""
        self._url, self._password = url, password
        self._boot_clock, self._wall_clock = clocks
        self._neighbours = Neighbours(grace_s)
        self._owners = Owner(self)
        self._steps = PostgresSteps(policy, instance, self._neighbours, self._wall_clock)
        self._steps.durable = True
        self._lock = Lock()
        self._link: Link | None = None
        self._why_lost = trouble(UNREADABLE)
        self._lock_timeout_s = 0.0
        self._is_careful = False
        self._is_closed = False
        self._is_newer = False
        self._on_statement: Callable[[str], Any] | None = None
        self._pulse = Pulse(self._beat, self._reconnect)

    # --- opening -----------------------------------------------------------------------------

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

        Raises:
            LedgerTrouble: it can be neither made nor read.
        """
        clocks = (boot_clock, wall_clock)
        store = cls(url, password, policy, clocks, instance or make_instance(), busy_s, grace_s)
        link = connect(url, password)
        try:
            with _translated():
                store._start(link)
        except BaseException:
            link.close()
            raise
        store._link = link
        store._pulse.start()
        return store

    def _start(self, link: Link) -> None:
        """Make a new session ours, and learn what this ledger is."""
        found, is_readonly = self._enter(link)
        if found.version < VERSION and not is_readonly:
            found = migrate(link)
        if found.version == 0:
            raise trouble(READONLY)
        if found.is_newer:
            self._is_newer = True
            self.trouble = trouble(NEWER)
        elif is_readonly or found.version < VERSION:
            self.trouble = trouble(READONLY)
        rows = link.run([(_Q["secret"], [])])[0]
        if not rows:
            raise trouble(CORRUPT)
        self.secret = bytes.fromhex(certain(rows[0][0]))
        self._hold(link, is_readonly)
        self.clock_offset_s = self._measure(link)

    def _enter(self, link: Link) -> tuple[Found, bool]:
        """Set the session up; the ledger's version and whether the server takes no writes."""
        ms = round(STATEMENT_S * 1000)
        options = {
            "search_path": "report_bridge, pg_temp",
            "statement_timeout": ms,
            "lock_timeout": round(self.busy_s * 1000),
            "idle_in_transaction_session_timeout": round(IDLE_S * 1000),
            "idle_session_timeout": round(IDLE_S * 1000),
            "client_connection_check_interval": 1000,
            "tcp_keepalives_idle": 2,
            "tcp_keepalives_interval": 1,
            "tcp_keepalives_count": 3,
            "tcp_user_timeout": round(IDLE_S * 1000),
            # Only look-ups by index are ever right here, also while the statistics know of no rows.
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
        }
        given = {name: str(value) for name, value in options.items()}
        _, condition, (clock,) = link.run([(_Q["set_up"], [dump(given)]), (_Q["condition"], []), (_PID, [])])
        ((is_standby, _, is_synced, is_synchronous, is_readonly),) = condition
        link.pid = int(certain(clock[0]))
        self._lock_timeout_s = self.busy_s
        self.durable = self._steps.durable = is_synchronous == b"t"
        if is_synced != b"t" or not self.durable:
            self.notices.append(("ledger_not_durable", {"sqlite": "PostgreSQL"}))
        return identify(link), b"t" in (is_standby, is_readonly)

    def _hold(self, link: Link, is_readonly: bool) -> None:
        """Own the rows of our instance; a former session of ours may still have them."""
        if is_readonly:
            return
        name = [self.instance.encode()]
        link.run([(_Q["end_former_session"], name), (_Q["hold"], name)])

    def _measure(self, link: Link) -> float:
        """The server's time minus the boot clock, as exact as half a round trip."""
        best: tuple[float, float] | None = None
        for _ in range(_OFFSET_TRIES):
            before = self._boot_clock()
            (((told, _, _),),) = link.run([(_Q["clock"], [b"0"])])
            after = self._boot_clock()
            now, wall = self._tell_time(float(certain(told)))
            if best is None or after - before < best[0]:
                best = after - before, now - (before + after) / 2
                self.clock_skew_s = self._wall_clock() - wall
        assert best is not None
        return best[1]

    def _tell_time(self, epoch: float) -> tuple[float, float]:
        """The timeline and the wall of a transaction: both are the server's clock, whatever ours says."""
        return epoch, epoch

    # --- the session -------------------------------------------------------------------------

    def _beat(self) -> bool:
        """Say something if nothing was said for a while; True if there is a session."""
        with self._lock:
            link = self._link
            if link is None:
                return self._is_closed
            if time.monotonic() - link.used_at < BEAT_S * 0.9:
                return True
            try:
                (((told, _, oldest),),) = link.run([(_Q["beat"], [])])
            except LinkLost:
                self._lose()
                return False
            except ServerRefused as refusal:
                if refusal.state in GONE:
                    self._lose()
                    return False
                return True
            self._is_newer = int(certain(oldest)) > VERSION
            self.clock_skew_s = self._wall_clock() - float(certain(told))
            return True

    def _reconnect(self) -> bool:
        """Make a new session on the thread of the pulse."""
        try:
            link = connect(self._url, self._password)
        except LedgerTrouble as why:
            self._why_lost = why
            return False
        try:
            with _translated():
                found, is_readonly = self._enter(link)
                if found.version == 0:
                    raise trouble(REPLACED)
                rows = link.run([(_Q["secret"], [])])[0]
                if not rows or bytes.fromhex(certain(rows[0][0])) != self.secret:
                    raise trouble(REPLACED)
                self._hold(link, is_readonly)
        except LedgerTrouble as why:
            self._why_lost = why
            link.close()
            return False
        with self._lock:
            if self._is_closed:
                link.close()
                return True
            self._neighbours.forgive()
            self._is_newer = found.is_newer
            former, self._link = self._link, link
        if former is not None:
            former.close()
        return True

    def _lose(self) -> None:
        """The session is gone: let the pulse bring another."""
        if self._link is not None:
            self._link.close()
            self._link = None
            self._why_lost = trouble(UNREADABLE)
            self._pulse.hurry()

    def _ready(self) -> Link:
        if self._link is None:
            raise LedgerTrouble(self._why_lost.kind, self._why_lost.sentence)
        return self._link

    # --- transactions ------------------------------------------------------------------------

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none; see `bridge.ledger.store.Store`.

        Raises:
            LedgerTrouble: nothing of it has happened, except that a failed commit may have.
        """
        if all(type(operation) in READS for operation in operations):
            return self._read_all(operations, READS)
        if self._is_newer:
            raise trouble(NEWER)
        with self._lock:
            deadline = time.monotonic() + self.busy_s
            tries = 0
            while True:
                try:
                    results = self._write(operations)
                except ServerRefused as refusal:
                    tries += 1
                    self._is_careful = True
                    if refusal.state not in AGAIN or (tries > MOST_TRIES and time.monotonic() > deadline):
                        raise explain(refusal.state) from None
                else:
                    self.trouble = None
                    return results

    def _write(self, operations: Sequence[Operation]) -> list[Any]:
        steps = self._steps
        link = self._ready()
        with self._transaction(link):
            self._number_accounts(link, operations)
            opening: list[Statement] = [(_Q["begin"], [])]
            if self._lock_timeout_s != self.busy_s:
                opening.insert(0, (f"SET lock_timeout = {max(1, round(self.busy_s * 1000))}", []))
            reads = steps.prepare(operations, self._is_careful)
            answers = self._run([*opening, *reads])[len(opening) :]
            self._lock_timeout_s = self.busy_s
            self._set_time(link, answers[0])
            steps.take(answers)
            results = [_ALL[type(operation)](steps, operation) for operation in operations]
            self._run([*steps.pending(), (_Q["commit"], [])])
            self._is_careful = steps.is_restless
            return results

    def _number_accounts(self, link: Link, operations: Sequence[Operation]) -> None:
        """Know the number of every account that is claimed for; a new one is made in a commit of its own."""
        known = self._steps.account_ids
        names = {
            (op.task.endpoint, op.task.account): None
            for op in operations
            if type(op) is Claim and (op.task.endpoint, op.task.account) not in known
        }
        if not names:
            return
        pairs = account_arrays(names)
        _, rows = self._run([(_Q["add_accounts"], pairs), (_Q["find_accounts"], pairs)])
        self._steps.take_accounts(rows)

    def read(self, operation: Look | Listing | Pauses) -> Any:
        """Run one operation that changes nothing, also while the ledger cannot be written."""
        return self._read_all([operation], READS)[0]

    def _read_all(
        self, operations: Sequence[Any], table: Mapping[type, Callable[[Any, Any], Any]]
    ) -> list[Any]:
        with self._reading(operations) as steps:
            return [table[type(operation)](steps, operation) for operation in operations]

    def peek(self, claim: Claim) -> Claimed | None:
        """What a claim would meet, without writing; None if nothing known forbids to send."""
        with self._reading([claim]) as steps:
            return steps.peek(claim)

    def peek_gate(self, task: Task, method: str, window: Window | None = None) -> Gate:
        """What the gate would say to an attempt, without writing."""
        with self._reading([Look(task)]) as steps:
            return steps.peek_gate(task, method, window)

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        with self._reading([]) as steps:
            return steps.events(seq)

    @contextmanager
    def _reading(self, operations: Sequence[Any]) -> Iterator[PostgresSteps]:
        with self._lock, _translated():
            link, steps = self._ready(), self._steps
            with self._transaction(link):
                reads = steps.prepare([op for op in operations if hasattr(op, "task")], False)
                # Numbers for new reports cannot be had from a server that takes no writes.
                reads[0] = (_Q["clock"], [b"0"])
                _, *answers = self._run([(_Q["begin_reading"], []), *reads])
                self._set_time(link, answers[0])
                steps.take(answers)
                yield steps
                self._run([(_Q["commit"], [])])

    @contextmanager
    def _transaction(self, link: Link) -> Iterator[None]:
        """Everything that happens after opening happens in here; what fails is undone."""
        self._steps.run = self._run
        try:
            yield
        except LinkLost:
            self._lose()
            raise trouble(UNREADABLE) from None
        except BaseException as error:
            if isinstance(error, ServerRefused) and error.state in GONE:
                self._lose()
                raise explain(error.state) from None
            if isinstance(error, ServerRefused) and error.state == "25006":
                # It may be a standby now: look whether the address leads to a server that takes writes.
                self._lose()
            elif not link.is_idle:
                try:
                    link.run([(_Q["roll_back"], [])])
                except (LinkLost, ServerRefused):
                    self._lose()
            raise

    def _run(self, statements: Sequence[tuple[str, Sequence[bytes | None]]]) -> list[Rows]:
        if self._on_statement is not None:
            for text, _ in statements:
                self._on_statement(text)
        return self._ready().run(statements)

    def _set_time(self, link: Link, clock: Rows) -> None:
        told, pid, _ = clock[0]
        if int(certain(pid)) != link.pid:
            # The session's lock would be somebody else's.
            raise LedgerTrouble(FOREIGN, POOLED)
        self._steps.now, self._steps.wall = self._tell_time(float(certain(told)))

    # --- health ------------------------------------------------------------------------------

    def health(self, integrity: bool = False) -> dict[str, Any]:
        """The state of the ledger for people and monitors.

        Args:
            integrity: also check for damage, which reads everything.
        """
        with self._lock, _translated():
            link = self._ready()
            with self._transaction(link):
                started_at = time.monotonic()
                (((told, _, _),), ((is_standby, version, _, _, _),), ((size, estimate, sessions),)) = (
                    self._run([(_Q["beat"], []), (_Q["condition"], []), (_Q["size"], [])])
                )
                round_trip_s = time.monotonic() - started_at
                reports = int(certain(estimate))
                if reports <= COUNTED:
                    reports = int(certain(self._run([(_Q["count_reports"], [])])[0][0][0]))
                found = identify(link)
            skew_s = self._wall_clock() - self._tell_time(float(certain(told)))[1]
            report = {
                "kind": self.kind,
                "path": link.host,
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
        with self._lock, _translated():
            link = self._ready()
            names = ["find_damage", *(["find_false_reports"] if full else [])]
            with self._transaction(link):
                link.run(
                    [
                        (_Q["begin_reading"], []),
                        (f"SET LOCAL statement_timeout = {round(CHECK_S * 1000)}", []),
                    ]
                )
                found = [certain(row[0]) for name in names for row in link.run([(_Q[name], [])], CHECK_S)[0]]
                link.run([(_Q["commit"], [])])
            return tuple(found[:10])

    def on_statement(self, callback: Callable[[str], Any] | None) -> None:
        """Call back with the text of every statement that runs; None to stop."""
        self._on_statement = callback

    @property
    def round_trips(self) -> int:
        """How often the server was asked in this session."""
        return 0 if self._link is None else self._link.round_trips

    def close(self) -> None:
        """Let go of the session and, with it, of the instance's lock. Idempotent."""
        self._pulse.stop()
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
            if link is not None:
                # Asked for, so that the lock is free when this returns, and not a moment later.
                self._owners.release(link)
                link.close()


class Owner:
    """The lock that shows that this instance lives; the session holds it."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def release(self, link: Link | None = None) -> None:
        """Show that this instance is gone."""
        link = link or self._store._link
        if link is not None and not link.is_lost:
            try:
                link.run([(_Q["let_go"], [self._store.instance.encode()])], 1.0)
            except (LinkLost, ServerRefused):
                return  # Then the server lets go when it misses the session.


_PID: Final = "SELECT pg_backend_pid()"


@contextmanager
def _translated() -> Iterator[None]:
    """The errors of the door become the ledger's."""
    try:
        yield
    except ServerRefused as refusal:
        raise explain(refusal.state) from None
    except LinkLost:
        raise trouble(UNREADABLE) from None
