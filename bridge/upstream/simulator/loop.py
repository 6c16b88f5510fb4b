"""A single-threaded loop over sockets and timers.

Not asyncio: importing that alone takes longer than the simulator may take to start, and a fault such
as "reset before anything is read" needs the bare socket.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """Something that is due at a moment, unless it is cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make sure that it does not happen."""
        self.action = None


class Loop:
    """Calls back when sockets are ready and timers are due.

    Thread safety: only `post` may be called from another thread.

    Args:
        on_error: called when a callback raises, so that one bad connection cannot end the loop.
    """

    def __init__(self, on_error: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0
        self._posted: deque[Callable[[], None]] = deque()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, READ, self._drain_wakes)
        self._is_running = True
        self._on_error = on_error

    def watch(self, sock: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready` with the events whenever a socket has some of them; 0 stops watching it."""
        try:
            known = self._selector.get_key(sock)
        except KeyError:
            if events:
                self._selector.register(sock, events, ready)
            return
        if not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, ready)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Call `action` after so many seconds."""
        timer = Timer(action)
        self._order += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._order, timer))
        return timer

    def post(self, action: Callable[[], None]) -> None:
        """Have the loop's thread call `action` soon; may be called from any thread."""
        self._posted.append(action)
        try:
            self._waker.send(b"\0")
        except OSError:
            return  # full: the loop is about to wake anyway; closed: it has ended

    def stop(self) -> None:
        """Let `run` return after the callbacks of this round."""
        self._is_running = False

    def run(self) -> None:
        """Serve until `stop`, then release what the loop itself holds."""
        try:
            while self._is_running:
                self._run_once()
        finally:
            self._selector.close()
            self._waker.close()
            self._woken.close()

    def _run_once(self) -> None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        timeout = max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None
        for key, events in self._selector.select(timeout):
            self._guard(key.data, events)
        while self._posted:
            self._guard(self._posted.popleft())
        while self._timers and self._timers[0][0] <= time.monotonic():
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                self._guard(action)

    def _guard(self, action: Callable[..., None], *args: Any) -> None:
        try:
            action(*args)
        except Exception:
            self._on_error()

    def _drain_wakes(self, _events: int) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return
