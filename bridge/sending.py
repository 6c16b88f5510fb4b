"""Makes the attempts: a connection is waited for on a worker, an answer in the loop.

Without a loop an attempt stays on its worker to the end. Decides nothing about reports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.core.model import Exchange
from bridge.ops.clock import boot_clock
from bridge.ops.loop import Loop
from bridge.ops.workers import Workers
from bridge.reports.flight import Attempt

if TYPE_CHECKING:
    from bridge.upstream.attempt import Attempt as Way
    from bridge.upstream.client import Client

STALE_S: Final = 2.5
"""An attempt that could not be made so long after its beginning is not made: neighbours take over what
a silent bridge had begun, at the earliest after 3.5 s."""

Done = Callable[[Exchange], None]

_NOT_MADE: Final = Exchange("connect", sent=False)
"""Another attempt asks the ledger again whose the report is; that it is too late would be untrue."""


def _is_stale(decided_boot: float) -> bool:
    """True if this process was stopped for so long that somebody else may have taken the report over."""
    return boot_clock() - decided_boot > STALE_S


class Sender:
    """Sends attempts and tells what became of them.

    Args:
        client: the HTTP client, or None while it is not loaded.
        load: loads the client and returns it; takes a while, the first time.
        ended: takes each exchange with its attempt and what to call with it.
        elsewhere: calls soon, outside of the caller's step.

    Thread safety: any thread may `send`; answers come in the loop's thread, without a loop on a worker.
    """

    def __init__(
        self,
        load: Callable[[], Client],
        workers: Workers,
        loop: Loop | None,
        *,
        ended: Callable[[Attempt, Exchange], None],
        elsewhere: Callable[[Callable[[], None]], None],
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self._load = load
        self._workers = workers
        self._loop = loop
        self._ended = ended
        self._elsewhere = elsewhere
        self._on_bug = on_bug
        self.client: Client | None = None

    def send(self, attempt: Attempt, done: Done, decided_boot: float) -> None:
        """Make one attempt; `done` is called exactly once, with a loop not before this returns.

        Args:
            decided_boot: when its beginning was committed, on the boot clock.
        """
        loop, client = self._loop, self.client
        if loop is None or client is None:
            self._hand_over(attempt, done, decided_boot)
        elif loop.is_mine():
            self._begin(loop, client, attempt, done, decided_boot)
        else:
            loop.post(partial(self._begin, loop, client, attempt, done, decided_boot))

    # --- in the loop -------------------------------------------------------------------------

    def _begin(self, loop: Loop, client: Client, attempt: Attempt, done: Done, decided_boot: float) -> None:
        if _is_stale(decided_boot):
            loop.post(partial(self._tell, attempt, done, _NOT_MADE))
            return
        try:
            way = self._set_out(client, attempt, decided_boot)
        except Exception as bug:
            self._on_bug(bug)
            loop.post(partial(self._tell, attempt, done, _NOT_MADE))
            return
        if way.is_out:
            self._await(loop, client, attempt, done, way)
        elif way.is_over:
            loop.post(partial(self._end, client, attempt, done, way))
        else:
            self._hand_over(attempt, done, decided_boot, way)

    @staticmethod
    def _set_out(client: Client, attempt: Attempt, decided_boot: float) -> Way:
        left_s = max(0.0, attempt.connect_by_s - (boot_clock() - decided_boot))
        return client.begin(
            attempt.method,
            attempt.key,
            attempt.task_id,
            deadline_s=attempt.deadline_s,
            connect_by_s=left_s,
        )

    def _await(self, loop: Loop, client: Client, attempt: Attempt, done: Done, way: Way) -> None:
        connection = way.connection
        assert connection is not None
        descriptor = connection.sock.fileno()
        if not connection.is_watched:
            try:
                loop.watch(descriptor)
            except OSError as error:  # the system watches no more for this user
                self._on_bug(error)
                self._hand_over(attempt, done, boot_clock(), way)
                return
            connection.is_watched = True
        loop.wait(descriptor, way.until, partial(self._look, loop, client, attempt, done, way))

    def _look(self, loop: Loop, client: Client, attempt: Attempt, done: Done, way: Way) -> None:
        has_come = client.has_come(way)
        if has_come or boot_clock() >= way.until:
            self._end(client, attempt, done, way)
        elif has_come is None:
            self._hand_over(attempt, done, boot_clock(), way)
        else:
            self._await(loop, client, attempt, done, way)

    # --- on a worker -------------------------------------------------------------------------

    def _hand_over(self, attempt: Attempt, done: Done, decided_boot: float, way: Way | None = None) -> None:
        try:
            self._workers.run(partial(self._work, attempt, done, decided_boot, way))
        except RuntimeError as error:
            self._on_bug(error)
            is_out = way is not None and way.sent
            # If it is out, nobody will read what the upstream says.
            exchange = Exchange("reset", sent=True) if is_out else _NOT_MADE
            self._elsewhere(partial(self._tell, attempt, done, exchange))

    def _work(self, attempt: Attempt, done: Done, decided_boot: float, way: Way | None) -> None:
        loop = self._loop
        try:
            client = self.client = self._load()
            if way is None:
                if _is_stale(decided_boot):
                    self._tell(attempt, done, _NOT_MADE)
                    return
                way = self._set_out(client, attempt, decided_boot)
            elif _is_stale(decided_boot):
                way.leave_until = 0.0
            was_out = way.is_out
            client.go_on(way)
        except Exception as bug:
            self._on_bug(bug)
            # Without a client nothing has left; else nobody knows how far it came.
            self._tell(attempt, done, _NOT_MADE if way is None else Exchange("reset", sent=True))
            return
        if loop is not None and way.is_out and not was_out:
            # Its answer may have come already, unseen: a descriptor that is watched says so only once.
            loop.post(partial(self._look, loop, client, attempt, done, way))
        else:
            self._end(client, attempt, done, way)

    def _end(self, client: Client, attempt: Attempt, done: Done, way: Way) -> None:
        try:
            exchange = client.end(way)
        except Exception as bug:
            self._on_bug(bug)
            # Nobody knows how far it came, so it counts as delivered perhaps.
            exchange = Exchange("reset", sent=True)
        self._tell(attempt, done, exchange)

    def _tell(self, attempt: Attempt, done: Done, exchange: Exchange) -> None:
        self._ended(attempt, exchange)
        if self._loop is None or self._loop.is_mine():
            done(exchange)
        else:
            self._loop.post(partial(done, exchange))
