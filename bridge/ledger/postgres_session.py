"""The one session of a PostgreSQL ledger: made, kept alive, lost, and made again under the same name.

Knows sessions, locks of instances and clocks, and no report. Imported by `bridge.ledger.postgres` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from bridge.core.redact import Secret
from bridge.ledger.postgres_link import Link, LinkLost, ServerRefused, connect
from bridge.ledger.postgres_neighbours import Neighbours
from bridge.ledger.postgres_rows import QUERIES, certain, dump
from bridge.ledger.postgres_schema import VERSION, Found, identify, migrate
from bridge.ledger.postgres_trouble import CLOCK_MOVED, FORMER_SERVER, GONE, PASSING, explain, trouble
from bridge.ledger.trouble import CORRUPT, NEWER, READONLY, REPLACED, UNREADABLE, LedgerTrouble

_Q: Final = QUERIES
IDLE_S: Final = 3.5
"""The server ends a session that is silent for so long: so neighbours learn of a bridge that froze or
vanished. Three beats and a half: one may be late."""
BEAT_S: Final = 1.0
"""Silence after which something is said."""
RETRY_FIRST_S: Final = 0.05
RETRY_MOST_S: Final = 1.0
"""Longest wait between two tries to connect; shorter than the grace that neighbours give, so that a bridge
that lives keeps its reports when a server restarts."""
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

Clocks = tuple[Callable[[], float], Callable[[], float]]
"""Seconds since boot, and UNIX seconds of this host."""
Times = Callable[[float], tuple[float, float]]
"""The server's time as the ledger's timeline and wall."""


class Session:
    """Where statements run.

    Args:
        url: the address.
        password: one that the usual sources do not have.
        instance: the name under which rows are owned.
        neighbours: is told when everybody's sessions may have broken.
        clocks: of this host.
        tell_time: turns the server's time into the ledger's.
        busy_s: seconds to wait for a lock of another bridge.
        random_bytes: chance, for the secret of a new ledger and the moment of a try.
    """

    def __init__(
        self,
        url: str,
        password: Secret | None,
        instance: str,
        neighbours: Neighbours,
        clocks: Clocks,
        tell_time: Times,
        busy_s: float,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.secret = b""
        self.durable = True
        self.clock_offset_s = 0.0
        self.clock_skew_s = 0.0
        """This host's clock minus the server's."""
        self.trouble: LedgerTrouble | None = None
        self.is_newer = False
        """True once a newer version has changed the ledger so that this one must not write."""
        self.lock_timeout_s = busy_s
        self._url, self._password = url, password
        self._instance = instance.encode()
        self._neighbours = neighbours
        self._boot_clock, self._wall_clock = clocks
        self._tell_time = tell_time
        self._random_bytes = random_bytes
        self._link: Link | None = None
        self._why_lost = trouble(UNREADABLE)
        self._lost_at = 0.0
        self._is_closed = False
        self._timeline = 0
        """The highest that was met; a server with a lower one knows nothing of what was written since."""
        self._retry_s = RETRY_FIRST_S
        self._retry_at = 0.0

    def open(self) -> None:
        """Make the first session, and the ledger if there is none.

        Raises:
            LedgerTrouble: it can be neither made nor read.
        """
        link = self._connect_first()
        try:
            with translated():
                found, is_readonly = self._set_up(link)
                if found.version < VERSION and not is_readonly:
                    found = migrate(link, self._random_bytes)
                if found.version == 0:
                    raise trouble(READONLY)
                self.is_newer = found.is_newer
                if found.is_newer:
                    self.trouble = trouble(NEWER)
                elif is_readonly or found.version < VERSION:
                    self.trouble = trouble(READONLY)
                self.secret = _read_secret(link)
                if len(self.secret) != 32:
                    raise trouble(CORRUPT)
                if not is_readonly:
                    self._timeline = _read_timeline(link)
                    self.hold(link)
                self.clock_offset_s, _ = self._measure(link, _OFFSET_TRIES)
        except BaseException:
            link.close()
            raise
        self._link = link

    def _connect_first(self) -> Link:
        """Connect, if need be a moment later: a server that restarts is no reason to begin without it."""
        deadline = time.monotonic() + BACK_S
        while True:
            try:
                return connect(self._url, self._password)
            except LedgerTrouble as why:
                if why.sentence not in PASSING or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_FIRST_S)

    def _set_up(self, link: Link) -> tuple[Found, bool]:
        """Make a session careful; the ledger's version and whether the server takes no writes."""
        idle_ms = round(IDLE_S * 1000)
        options = {
            "search_path": "report_bridge, pg_temp",
            "statement_timeout": round(STATEMENT_S * 1000),
            "lock_timeout": max(1, round(self.lock_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": idle_ms,
            "idle_session_timeout": idle_ms,
            "client_connection_check_interval": 1000,
            "tcp_keepalives_idle": 2,
            "tcp_keepalives_interval": 1,
            "tcp_keepalives_count": 3,
            "tcp_user_timeout": idle_ms,
            # Only look-ups by index are ever right here, also while the statistics know of no rows.
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "plan_cache_mode": "force_generic_plan",
            "jit": "off",
        }
        given = {name: str(value) for name, value in options.items()}
        _, condition, ((pid,),) = link.run([(_Q["set_up"], [dump(given)]), (_Q["condition"], []), (_PID, [])])
        ((is_standby, _, is_synced, is_synchronous, is_readonly),) = condition
        link.pid = int(certain(pid))
        self.durable = is_synced == is_synchronous == b"t"
        return identify(link), b"t" in (is_standby, is_readonly)

    def hold(self, link: Link) -> None:
        """Own the rows of our instance; a former session of ours may still have them."""
        name = [self._instance]
        link.run([(_Q["end_former_session"], name), (_Q["hold"], name)])
        link.is_held = True

    def let_go(self) -> None:
        """Show that this instance is gone."""
        link = self._link
        if link is not None and not link.is_lost:
            link.is_held = False
            try:
                link.run([(_Q["let_go"], [self._instance])], 1.0)
            except (LinkLost, ServerRefused):
                return  # Then the server lets go when it misses the session.

    def _measure(self, link: Link, tries: int) -> tuple[float, float]:
        """The server's time minus the boot clock, as exact as half a round trip, and that round trip."""
        best: tuple[float, float] | None = None
        for _ in range(tries):
            before = self._boot_clock()
            (((told,),),) = link.run([(_TIME, [])])
            after = self._boot_clock()
            now, wall = self._tell_time(float(certain(told)))
            if best is None or after - before < best[1]:
                best = now - (before + after) / 2, after - before
                self.clock_skew_s = self._wall_clock() - wall
        assert best is not None
        return best

    def _has_moved(self, offset_s: float, round_trip_s: float) -> bool:
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
                time.sleep(RETRY_FIRST_S)
        return self.link

    def lose(self) -> None:
        """The session is gone: let the pulse bring another."""
        if self._link is not None:
            self._link.close()
            self._link = None
            self._lost_at = time.monotonic()
            self._why_lost = trouble(UNREADABLE)
            self._retry_s, self._retry_at = RETRY_FIRST_S, 0.0

    def close(self) -> None:
        """Let go of the session and, with it, of the instance's lock. Idempotent."""
        self._is_closed = True
        # Asked for, so that the lock is free when this returns, and not a moment later.
        self.let_go()
        if self._link is not None:
            self._link.close()
            self._link = None

    def tend(self) -> float | None:
        """Say something after a while of silence, or try to come back; seconds until it is time again."""
        if self._is_closed:
            return None
        now = time.monotonic()
        if self._link is not None:
            silent_s = now - self._link.used_at
            if silent_s < BEAT_S * 0.9:
                return BEAT_S - silent_s
            self._beat(self._link)
            if self._link is not None:
                return BEAT_S
        if now >= self._retry_at:
            if self._come_back():
                return BEAT_S
            # Not all at the same moment.
            self._retry_at = time.monotonic() + self._retry_s * (0.5 + self._random_bytes(1)[0] / 512)
            self._retry_s = min(self._retry_s * 2, RETRY_MOST_S)
        return max(0.0, self._retry_at - time.monotonic())

    def _beat(self, link: Link) -> None:
        before = self._boot_clock()
        try:
            (((told, oldest),),) = link.run([(_Q["beat"], [])])
        except LinkLost:
            self.lose()
            return
        except ServerRefused as refusal:
            if refusal.state in GONE:
                self.lose()
            return
        after = self._boot_clock()
        self.is_newer = int(certain(oldest)) > VERSION
        now, wall = self._tell_time(float(certain(told)))
        self.clock_skew_s = self._wall_clock() - wall
        if self._has_moved(now - (before + after) / 2, after - before):
            # Whoever makes the next session finds out the same, and says so.
            self.lose()

    def _come_back(self) -> bool:
        """Make a new session."""
        try:
            link = connect(self._url, self._password)
        except LedgerTrouble as why:
            self._why_lost = why
            return False
        try:
            with translated():
                found, is_readonly = self._set_up(link)
                if found.version == 0 or _read_secret(link) != self.secret:
                    raise trouble(REPLACED)
                if self._has_moved(*self._measure(link, 1)):
                    # Opened anew it is the same ledger, with its times told in ours as they are now.
                    raise LedgerTrouble(REPLACED, CLOCK_MOVED)
                if not is_readonly:
                    timeline = _read_timeline(link)
                    if 0 < timeline < self._timeline:
                        raise LedgerTrouble(UNREADABLE, FORMER_SERVER)
                    self._timeline = max(timeline, self._timeline)
                    self.hold(link)
        except LedgerTrouble as why:
            self._why_lost = why
            link.close()
            return False
        self._neighbours.forgive()
        self.is_newer = found.is_newer
        self._link = link
        return True


_PID: Final = "SELECT pg_backend_pid()"
_TIME: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"


def _read_timeline(link: Link) -> int:
    """The server's timeline; 0 where that is not told."""
    try:
        return int(certain(link.run([(_Q["timeline"], [])])[0][0][0]))
    except ServerRefused:
        return 0


def _read_secret(link: Link) -> bytes:
    rows = link.run([(_Q["secret"], [])])[0]
    return bytes.fromhex(certain(rows[0][0])) if rows else b""


@contextmanager
def translated() -> Iterator[None]:
    """The errors of the door become the ledger's."""
    try:
        yield
    except ServerRefused as refusal:
        raise explain(refusal.state) from None
    except LinkLost:
        raise trouble(UNREADABLE) from None
