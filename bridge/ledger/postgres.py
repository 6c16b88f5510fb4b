"""The ledger of a fleet in a PostgreSQL database.

Its one session, which is made, kept alive, lost and made again under the same name, and the transactions in
it. What the operations do is in `bridge.ledger.transactions`. Must not decide about pauses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from bridge.core.redact import Secret
from bridge.ledger import postgres_trouble as words
from bridge.ledger.owners import name_instance
from bridge.ledger.port import Notice, Operation, Policy, Seen
from bridge.ledger.postgres_batch import PostgresBatch
from bridge.ledger.postgres_link import Link, LinkLost, ServerRefused, connect, translated
from bridge.ledger.postgres_schema import QUERIES, VERSION, dump, identify, migrate
from bridge.ledger.postgres_trouble import AGAIN, PASSING, explain, trouble
from bridge.ledger.transfer import OPERATIONS, READS
from bridge.ledger.trouble import CORRUPT, FOREIGN, NEWER, READONLY, REPLACED, UNREADABLE, LedgerTrouble

_Result = TypeVar("_Result")
_READ_ONLY: Final = "25006"
IDLE_S: Final = 3.5
"""The server ends a session that is silent for so long: so neighbours learn of a bridge that froze or
vanished. Three beats and a half: one may be late."""
BEAT_S: Final = 1.0
"""Silence after which something is said."""
RETRY_S: Final = 1.0
"""Longest wait between two tries to connect, by chance down to half; shorter than the grace that neighbours
give, so that a bridge that lives keeps its reports when a server restarts."""
QUICK_RETRY_S: Final = 0.05
"""The same while an operation waits for a session."""
STATEMENT_S: Final = 2.0
"""Longest time the server may spend on one statement: the contract's bound for a ledger that is locked."""
BACK_S: Final = 1.0
"""How long an operation waits for a session that has just been lost. A server that merely ended the session
lets us in again in milliseconds; without the wait, a bridge that was frozen and wakes up would decide
without the ledger about reports that are a neighbour's by now."""
_OFFSET_TRIES: Final = 3
"""Measurements of the clock's offset; the one with the shortest round trip counts."""
CLOCK_S: Final = 0.5
"""How far the server's clock may move against ours, beside what a round trip leaves open, before times on it
are translated anew. A standby that took over may have another clock; two good ones differ by milliseconds."""
GRACE_S: Final = 2.0
"""How long a lock stays free before its instance counts as dead. A bridge that lives is back within a second
of the server's return; as much again is for a busy machine."""
_IDLE_MS: Final = round(IDLE_S * 1000)
_SETTINGS: Final = {
    "search_path": "report_bridge, pg_temp",
    "statement_timeout": round(STATEMENT_S * 1000),
    "lock_timeout": round(STATEMENT_S * 1000),
    "idle_in_transaction_session_timeout": _IDLE_MS,
    "idle_session_timeout": _IDLE_MS,
    "client_connection_check_interval": 1000,
    "tcp_keepalives_idle": 2,
    "tcp_keepalives_interval": 1,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": _IDLE_MS,
    # Only look-ups by index are ever right here, also while the statistics know of no rows.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}


class PostgresStore:
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
        boot_clock: seconds since boot, suspend included.
        wall_clock: UNIX seconds.
        password: one that the usual sources do not have.
        instance: the name that this process had before, so that its rows stay its own.
        busy_s: seconds to wait for a lock of another bridge.
        random_bytes: chance, for names, secrets and the moment of a try.

    Raises:
        LedgerTrouble: it can be neither made nor read.
    """

    kind = "postgres"
    grace_s = GRACE_S
    """Seconds that a neighbour without a session still counts as alive."""

    def __init__(
        self,
        url: str,
        *,
        policy: Policy,
        boot_clock: Callable[[], float],
        wall_clock: Callable[[], float],
        password: Secret | None = None,
        instance: str | None = None,
        busy_s: float = STATEMENT_S,
        trusts_clock: bool = False,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.instance = instance or name_instance(None, random_bytes)
        self.busy_s = busy_s
        """Longest wait for another bridge's lock."""
        self.secret = b""
        self.durable = True
        """True if the server syncs what it commits."""
        self.clock_offset_s = 0.0
        """Boot clock plus this is the ledger's timeline, which is the server's clock."""
        self.trouble: LedgerTrouble | None = None
        """Why the ledger could not be written when it was opened; None once it could."""
        self.is_newer = False
        """True once a newer version has changed the ledger so that this one must not write."""
        self._connect = partial(connect, url, password)
        self.boot_clock, self.wall_clock = boot_clock, wall_clock
        self._random_bytes = random_bytes
        self._link: Link | None = None
        self._why_lost = trouble(UNREADABLE)
        self._lost_at = time.monotonic()
        self._is_closed = False
        self._timeline = 0
        """The highest that was met; a server with a lower one knows nothing of what was written since."""
        self._retry_at = 0.0
        self.notices: list[Notice] = []
        self._batch = PostgresBatch(policy, self)
        self.seen: Seen = self._batch.seen
        """The pauses as this store last read or wrote them."""
        self._is_committing = False
        self.wait_for_link()
        if not trusts_clock:
            self._batch.opened_at = boot_clock() + self.clock_offset_s

    def is_alive(self, instance: str) -> bool:
        """True if an instance still runs."""
        return self._in_session(lambda _: self._batch.is_alive(instance))

    # --- a session ---------------------------------------------------------------------------

    def _join(self, link: Link) -> None:
        """Make this session ours. The first one makes the ledger; later ones must find the same.

        Raises:
            LedgerTrouble: it cannot be ours; it is closed then.
        """
        is_first = not self.secret
        try:
            with translated():
                set_up = [(QUERIES["set_up"], [dump(_SETTINGS)]), (QUERIES["condition"], [])]
                ((self.durable, is_standby, is_readonly, link.pid, takes_all),) = link.run(set_up)[1]
                if not takes_all:
                    raise LedgerTrouble(FOREIGN, words.NOT_UTF8)
                found = identify(link.ask)
                if is_first and found.version < VERSION and not is_readonly:
                    found = migrate(link, self._random_bytes)
                if found.version == 0:
                    raise trouble(READONLY if is_first else REPLACED)
                rows = link.ask(QUERIES["secret"])
                secret = rows[0][0] if rows else b""
                round_trip_s, offset_s = min(self._compare_clocks(link) for _ in range(_OFFSET_TRIES))
                if is_first:
                    if len(secret) != 32:
                        raise trouble(CORRUPT)
                    self.secret, self.clock_offset_s = secret, offset_s
                    if found.is_newer:
                        self.trouble = trouble(NEWER)
                    elif is_readonly or found.version < VERSION:
                        self.trouble = trouble(READONLY)
                elif secret != self.secret:
                    raise trouble(REPLACED)
                elif self._has_moved(round_trip_s, offset_s):
                    # Opened anew it is the same ledger, with its times told in ours as they are now.
                    raise LedgerTrouble(REPLACED, words.CLOCK_MOVED)
                if not is_readonly:
                    timeline = self._timeline
                    with suppress(ServerRefused):  # Not every server tells it.
                        timeline = link.ask(QUERIES["timeline"])[0][0]
                    if timeline < self._timeline:
                        raise LedgerTrouble(UNREADABLE, words.FORMER_SERVER)
                    self._timeline = timeline
                if not is_standby:
                    self.hold(link)
        except BaseException:
            link.close()
            raise
        self._link = link

    def hold(self, link: Link) -> None:
        """Own the rows of our instance; a former session of ours may still have them."""
        name = [self.instance]
        link.run([(QUERIES["end_former_session"], name), (QUERIES["hold"], name)])
        link.is_held = True

    def _tell_time(self, epoch: float) -> tuple[float, float]:
        """The timeline and the wall at a time of the server: both are its clock, whatever ours says."""
        return epoch, epoch

    def _compare_clocks(self, link: Link) -> tuple[float, float]:
        """A round trip, and the server's time minus the boot clock, as exact as half of it."""
        before = self.boot_clock()
        ((told, oldest_writer),) = link.ask(QUERIES["beat"])
        after = self.boot_clock()
        self.is_newer = oldest_writer > VERSION
        return after - before, self._tell_time(told)[0] - (before + after) / 2

    def _has_moved(self, round_trip_s: float, offset_s: float) -> bool:
        """True if the server's clock is no more the one that the ledger was opened with."""
        return abs(offset_s - self.clock_offset_s) > CLOCK_S + round_trip_s

    # --- in use ------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """The session.

        Raises:
            LedgerTrouble: there is none.
        """
        if self._link is None:
            raise LedgerTrouble(self._why_lost.kind, self._why_lost.sentence)
        return self._link

    def wait_for_link(self) -> Link:
        """The session, if need be made anew in the moment after it was lost."""
        while self._link is None and not self._is_closed and time.monotonic() < self._lost_at + BACK_S:
            if not self._come_back():
                if not self.secret and self._why_lost.sentence not in PASSING:
                    break  # But a server that restarts is no reason to begin without it.
                time.sleep(QUICK_RETRY_S)
        return self.link

    def lose(self) -> None:
        """The session is gone: let the pulse bring another."""
        if self._link is not None:
            self._link.close()
            self._link = None
            self._lost_at = time.monotonic()
            self._why_lost = trouble(UNREADABLE)
            self._retry_at = 0.0

    def close(self) -> None:
        """Let go of the session and, with it, of the instance's lock. Idempotent."""
        self._is_closed = True
        if self._link is not None:
            with suppress(ServerRefused):
                # Asked for, so that the lock is free when this returns, and not a moment later. If it cannot
                # be, the server lets go when it misses the session.
                self._link.run([(QUERIES["let_go"], [self.instance])], 1.0)
        self.lose()

    def tend(self) -> float | None:
        """Show that this bridge lives, or try to come back; seconds until it is time again."""
        if self._is_closed:
            return None
        if self._link is not None:
            silent_s = time.monotonic() - self._link.used_at
            if silent_s < BEAT_S * 0.9:
                return BEAT_S - silent_s
            has_moved = False
            with suppress(ServerRefused):
                has_moved = self._has_moved(*self._compare_clocks(self._link))
            if not has_moved and not self._link.is_lost:
                return BEAT_S
            # Whoever makes the next session finds out the same, and says so.
            self.lose()
        if time.monotonic() >= self._retry_at:
            if self._come_back():
                return BEAT_S
            # Not all at the same moment.
            self._retry_at = time.monotonic() + RETRY_S * (0.5 + self._random_bytes(1)[0] / 512)
        return max(0.0, self._retry_at - time.monotonic())

    def _come_back(self) -> bool:
        """Make a new session."""
        try:
            self._join(self._connect())
        except LedgerTrouble as why:
            self._why_lost = why
            return False
        return True

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
                    why = explain(state)
                    why.is_in_doubt = isinstance(met, LinkLost) and self._is_committing
                    raise why from None

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
