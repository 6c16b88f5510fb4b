"""Time without waiting: engines whose loops share one virtual time, in one thread, with chance from a seed.

Everything runs in the order in which it was asked for, so the same seed gives the same run. What would be a
thread is a greenlet, and there is nothing of the world but what a test or a simulation puts there. Used by
those two.
"""

from __future__ import annotations

import random
from _queue import Empty
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from greenlet import getcurrent, greenlet

from bridge.engine.loop import GeventLoop

MOST_AT_ONCE: Final = 100_000
"""Calls in one moment after which it is certain that it never ends."""

LEAST_S: Final = 1e-6
"""The shortest wait."""


class StandsStill(RuntimeError):
    """Something calls itself again and again in one moment."""


class VirtualTime:
    """What all loops of a world share: the moment, what is to be called now, and what later."""

    def __init__(self, seed: int = 0) -> None:
        self.t = 0.0
        """Seconds of true time."""
        self.random = random.Random(seed)
        self._heap: list[tuple[float, bool, int, VirtualLoop | None, Callable[..., object], Any]] = []
        self._order = count()
        self._ends_at = 0.0
        self._calls = 0
        self._main: Any = None
        self.driver = greenlet(self._drive)

    def call_soon(self, loop: VirtualLoop | None, call: Callable[..., object], *arguments: Any) -> None:
        """Call something now, after what was asked for before; not if the loop has died meanwhile."""
        heappush(self._heap, (self.t, False, next(self._order), loop, call, arguments))

    def call_in(self, seconds: float, call: Callable[[], object], loop: VirtualLoop | None = None) -> None:
        """Call something later."""
        heappush(self._heap, (self.t + max(seconds, 0.0), True, next(self._order), loop, call, ()))

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass; what is due at its end is done too. Must not be called by what runs in it.

        Raises:
            StandsStill: it does not pass.
        """
        self._ends_at = self.t + seconds
        self._main = getcurrent()
        self.driver.switch()

    def count_call(self) -> None:
        """Something was called; too often in one moment, and nothing more is."""
        self._calls += 1
        if self._calls > MOST_AT_ONCE:
            self._main.throw(StandsStill(f"{self._calls} calls at {self.t:.6f} s"))

    def _drive(self) -> None:
        while True:
            self.count_call()
            if self._heap and self._heap[0][0] <= self._ends_at + 1e-9:
                # Of one moment first what was asked for at once, then what was asked for earlier.
                at, _, _, loop, call, arguments = heappop(self._heap)
                if at > self.t:
                    self.t, self._calls = at, 0
                if loop is None:
                    call(*arguments)
                elif loop.is_alive:
                    loop.run(call, arguments)
            else:
                self.t, self._calls = max(self.t, self._ends_at), 0
                self._main.switch()


class VirtualLoop(GeventLoop):
    """The loop of one process in a virtual time. It has nothing of gevent's but its verbs."""

    def __init__(self, time: VirtualTime) -> None:
        self.time = time
        self.is_alive = True
        self.hub = time.driver
        self.switch: Callable[[], Any] = time.driver.switch
        self.has_threads = True
        self.thread_takes_s: Callable[[], float] = lambda: 0.0
        """How long something on a thread takes."""
        self._bell = 0

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call something now, after what was asked for before."""
        self.time.call_soon(self, call, *arguments)

    post = call_soon
    """Call something soon."""

    def run(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """Call something whose time has come."""
        call(*arguments)

    def kill(self) -> None:
        """End the process at once: nothing of it is called any more."""
        self.is_alive = False

    def sleep(self, seconds: float) -> None:
        """Let time pass in what would be a thread."""
        self.time.call_in(seconds, getcurrent().switch, self)
        self.switch()

    def ring_in(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something in so many seconds; replaces what was asked before."""
        self._bell += 1
        bell = self._bell

        def ring() -> None:
            if bell == self._bell:
                call()

        self.time.call_in(seconds, ring, self)

    def watch(self, fd: int, what: int) -> Any:
        """There are no descriptors here."""
        raise OSError("a virtual loop has no descriptors")

    def on_signal(self, number: int, call: Callable[[int], object]) -> None:
        """There are no signals here."""

    def start_in_pool(self, function: Callable[[], Any], done: Callable[[Any], object]) -> None:
        """Run something after as long as a thread would take."""
        if not self.has_threads:
            raise RuntimeError("no thread")
        self.time.call_in(self.thread_takes_s(), lambda: done(function()), self)

    def start_thread(self, run: Callable[[], None], name: str) -> None:
        """Run something beside the rest; it waits in `sleep` and at its queues."""
        if not self.has_threads:
            raise RuntimeError("no thread")
        self.call_soon(greenlet(run, self.hub).switch)

    def make_queue(self) -> VirtualQueue:
        """A queue to such a thread."""
        return VirtualQueue(self)

    def random_bytes(self, count: int) -> bytes:
        """Bytes of the world's chance."""
        return self.time.random.randbytes(count)

    def close(self) -> None:
        """There is nothing to let go of."""


class VirtualQueue:
    """Hands things to one greenlet of a loop; fits `queue.SimpleQueue`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._items: deque[Any] = deque()
        self._taker: Any = None
        self._waits = 0

    def put(self, item: Any, /) -> None:
        """Add something; never waits."""
        self._items.append(item)
        self._wake(self._waits)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Wait for the next thing; raises `Empty` if it has not come in so many seconds."""
        if block and not self._items:
            self._waits += 1
            wait = self._waits
            self._taker = getcurrent()
            if timeout is not None:
                # Clocks count from other beginnings: a rounding error of one would be no time in another.
                self._loop.time.call_in(max(timeout, LEAST_S), lambda: self._wake(wait), self._loop)
            self._loop.switch()
        if not self._items:
            self._loop.time.count_call()
            raise Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        """The next thing; raises `Empty` if there is none."""
        return self.get(False)

    def _wake(self, wait: int) -> None:
        if self._taker is not None and wait == self._waits:
            taker, self._taker = self._taker, None
            self._loop.call_soon(taker.switch)
