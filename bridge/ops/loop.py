"""One thread that waits for many answers: descriptors, calls from other threads, and what is overdue.

Does not sleep by itself: who runs in the thread waits for `fileno` along with what else it waits for,
then takes a `turn`. Knows nothing of HTTP and of reports. Linux only (epoll).
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bridge.ops.clock import boot_clock

_NEVER: Final = float("inf")
_LONGEST_NAP_S: Final = 1.0
"""Waits do not count suspend, so what is overdue is looked for at least this often."""


class Loop:
    """Calls back in the thread that made it.

    Args:
        on_bug: told of an exception in what was called; the loop goes on.

    Thread safety: `post` and `is_mine` may be called from any thread, the rest from the loop's own.
    """

    def __init__(self, on_bug: Callable[[BaseException], object]) -> None:
        self._on_bug = on_bug
        self._thread = threading.get_ident()
        self._epoll = select.epoll()
        self._wake_source, self._wake_sink = os.pipe()
        for end in (self._wake_source, self._wake_sink):
            os.set_blocking(end, False)
        self._epoll.register(self._wake_source, select.EPOLLIN)
        self.fileno: Final = self._epoll.fileno()
        """Descriptor that can be read when a `turn` has something to do."""
        self._posted: deque[Callable[[], None]] = deque()
        self._is_awake = True
        self._waits: dict[int, tuple[float, Callable[[], None]]] = {}
        self._earliest = _NEVER
        """No wait is overdue before this; it may have been called back meanwhile."""
        self.flushes: list[Callable[[], None]] = []
        """Called before each sleep: what was collected in a turn is handed on in one piece."""

    def is_mine(self) -> bool:
        """True in the loop's thread."""
        return threading.get_ident() == self._thread

    def post(self, call: Callable[[], None]) -> None:
        """Call soon, in the loop's thread."""
        self._posted.append(call)
        if not self._is_awake:
            self._is_awake = True
            # A full pipe wakes as well; a closed one has nobody left to wake.
            with suppress(OSError):
                os.write(self._wake_sink, b"\0")

    def watch(self, descriptor: int) -> None:
        """Look after a descriptor from now until it is closed."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def wait(self, descriptor: int, until: float, call: Callable[[], None]) -> None:
        """Call once: when something new can be read, or at the instant `until` of the boot clock.

        Args:
            descriptor: one that is watched, read to the end of what had come.
        """
        self._waits[descriptor] = (until, call)
        if until < self._earliest:
            self._earliest = until

    def sleepy_s(self) -> float | None:
        """Hand on what was collected; then, how long to sleep before a turn is due, None: until woken."""
        for flush in self.flushes:
            self._run(flush)
        self._is_awake = False
        if self._posted:
            self._is_awake = True
            return 0.0
        if not self._waits:
            return None
        return min(_LONGEST_NAP_S, max(0.0, self._earliest - boot_clock()))

    def turn(self, fired: bool) -> None:
        """Do what there is to do.

        Args:
            fired: False if the descriptor is known to have nothing.
        """
        self._is_awake = True
        if fired:
            self._look()
        for _ in range(len(self._posted)):
            self._run(self._posted.popleft())
        if self._earliest <= boot_clock():
            self._end_overdue()

    def close(self) -> None:
        """Give the descriptors back; what is posted afterwards is not called."""
        self._epoll.close()
        os.close(self._wake_source)
        os.close(self._wake_sink)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._wake_source:
                with suppress(BlockingIOError):
                    os.read(self._wake_source, 64)
                continue
            wait = self._waits.pop(descriptor, None)
            if wait is not None:
                self._run(wait[1])

    def _end_overdue(self) -> None:
        now = boot_clock()
        overdue = [descriptor for descriptor, (until, _) in self._waits.items() if until <= now]
        calls = [self._waits.pop(descriptor)[1] for descriptor in overdue]
        self._earliest = min((until for until, _ in self._waits.values()), default=_NEVER)
        for call in calls:
            self._run(call)

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as bug:
            self._on_bug(bug)


def open_loop(on_bug: Callable[[BaseException], object]) -> Loop | None:
    """Make a loop where the system has what it takes, else None."""
    return Loop(on_bug) if hasattr(select, "epoll") else None
