"""The engine itself: greenlets, two clocks, timers, waits for descriptors and threads.

The boot clock counts suspend and does not follow changes of the wall clock (``CLOCK_BOOTTIME`` where the
system has it; macOS: its monotonic clock does the same). Timers follow it; a loop's own do not. So there is
one heap of timers here, and the loop only rings when the first of them is due. What turns is a loop: gevent's
(`bridge.engine.loop`), or one that is handed in. Thread safety: everything belongs to the engine's thread,
except `Engine.call_soon_from_thread`.
"""

from __future__ import annotations

import time
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from bridge.engine.loop import GeventLoop

_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_READ: Final = 1
_WRITE: Final = 2
MOST_RESTING: Final = 256
"""Greenlets that wait for work: as many as a full load of reports takes, 20 KB each."""


class Clock(Protocol):
    """What time it is, in two ways."""

    def now(self) -> float:
        """Seconds since boot, suspend included."""

    def wall(self) -> float:
        """UNIX time in seconds, as this host believes it."""


class SystemClock:
    """The clocks of this machine."""

    # Not functions of our own: they are asked more than thirty times a report.
    now = staticmethod(partial(time.clock_gettime, _BOOT))
    """Seconds since boot, suspend included."""
    wall = staticmethod(time.time)
    """UNIX time in seconds, as this host believes it."""


class TimedOut(TimeoutError):
    """The moment until which to wait has come."""


class NoResources(OSError):
    """This machine has no thread, descriptor or memory to spare just now: nobody else has failed."""


class Timer:
    """Something to be called at a moment of the boot clock, unless it is cancelled before."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Forget it. Idempotent."""
        self.call = None


class Waiter:
    """A place where one greenlet waits, until somebody wakes it or throws something at it."""

    __slots__ = ("_engine", "_sleeper")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sleeper: Any = None

    def wait(self, until: float | None = None) -> Any:
        """Wait; returns what `wake` was given.

        Args:
            until: moment of the boot clock; None waits for ever.

        Raises:
            TimedOut: that moment has come.
            Exception: whatever `throw` was given.
        """
        engine = self._engine
        self._sleeper = getcurrent()
        if until is None:
            return engine.switch()
        timer = engine.call_at(until, self._expire)
        try:
            return engine.switch()
        finally:
            timer.call = None

    def wake(self, value: Any = None) -> bool:
        """Let the greenlet go on soon; False if none waits."""
        sleeper = self._sleeper
        if sleeper is None:
            return False
        self._sleeper = None
        self._engine.call_soon(sleeper.switch, value)
        return True

    def throw(self, error: BaseException) -> bool:
        """Raise something where the greenlet waits, soon; False if none waits."""
        sleeper = self._sleeper
        if sleeper is None:
            return False
        self._sleeper = None
        self._engine.call_soon(sleeper.throw, error)
        return True

    def _expire(self) -> None:
        self.throw(TimedOut("the time to wait is over"))


class Readiness:
    """Waits until a descriptor can be read or written. Several kinds of descriptor, files too, will do."""

    __slots__ = ("_engine", "_fd", "_waiter", "_watchers")

    def __init__(self, engine: Engine, fd: int) -> None:
        self._engine = engine
        self._fd = fd
        self._waiter = Waiter(engine)
        self._watchers: dict[int, Any] = {}

    def wait_readable(self, until: float | None = None) -> None:
        """Wait until reading would not block.

        Raises:
            TimedOut: `until` has come before.
        """
        self._wait(_READ, until)

    def wait_writable(self, until: float | None = None) -> None:
        """Wait until writing would not block.

        Raises:
            TimedOut: `until` has come before.
        """
        self._wait(_WRITE, until)

    def interrupt(self, error: BaseException) -> bool:
        """Raise something where a greenlet waits for this descriptor; False if none does."""
        return self._waiter.throw(error)

    def _wait(self, what: int, until: float | None) -> None:
        watcher = self._watchers.get(what)
        if watcher is None:
            watcher = self._watchers[what] = self._engine.watch(self._fd, what)
        watcher.start(self._waiter.wake)
        try:
            self._waiter.wait(until)
        finally:
            watcher.stop()

    def close(self) -> None:
        """Let go of what watches; to be called before the descriptor is closed, which is left to others."""
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()


class Engine:
    """Runs greenlets in this thread. There is one for a bridge.

    Args:
        on_bug: told of an exception that nobody has caught; what raised it has ended.
        loop: what turns; gevent's by default.
        clock: what time it is; the system's by default.
    """

    def __init__(
        self,
        on_bug: Callable[[BaseException], object],
        loop: GeventLoop | None = None,
        clock: Clock | None = None,
    ) -> None:
        if loop is None:
            from bridge.engine.loop import GeventLoop

            loop = GeventLoop()
        times: Clock = clock or SystemClock()
        self.now = times.now
        self.wall = times.wall
        self.on_bug = on_bug
        self._loop = loop
        self.waiter = partial(Waiter, self)
        """A place to wait at."""
        self.readiness = partial(Readiness, self)
        """What waits for a descriptor."""
        self.switch = loop.switch
        """Let others run until somebody switches back; `Waiter` and `Readiness` are made of it."""
        self.call_soon = loop.call_soon
        """Call something with arguments in this thread, after what runs now. It must not wait."""
        self.call_soon_from_thread = loop.post
        """Call something with arguments in the engine's thread; the one method for other threads."""
        self.on_signal = loop.on_signal
        self.watch = loop.watch
        self.start_thread = loop.start_thread
        self.make_queue = loop.make_queue
        self.random_bytes = loop.random_bytes
        self._resting: list[greenlet] = []
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._ring_at = float("inf")
        self._thread = get_ident()

    def is_here(self) -> bool:
        """True in the engine's thread."""
        return get_ident() == self._thread

    # --- greenlets ---------------------------------------------------------------------------

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run a function soon in a greenlet of its own, where it may wait."""
        free = self._resting.pop() if self._resting else greenlet(self._serve, self._loop.hub)
        self.call_soon(free.switch, [function, arguments])

    def _serve(self, work: list[Any]) -> None:
        """Run one function after the other: a new greenlet costs two calls of the system."""
        while work:
            # A key may be in it, and a greenlet keeps what it was first given.
            function, arguments = work
            work.clear()
            try:
                function(*arguments)
            except Exception as bug:
                self.on_bug(bug)
            del function, arguments
            if len(self._resting) < MOST_RESTING:
                self._resting.append(getcurrent())
                work = self.switch()

    def sleep(self, seconds: float) -> None:
        """Let others run for so long; 0: once."""
        try:
            Waiter(self).wait(self.now() + seconds)
        except TimedOut:
            return

    # --- timers ------------------------------------------------------------------------------

    def call_at(self, at: float, call: Callable[[], object]) -> Timer:
        """Call something at a moment of the boot clock. It must not wait."""
        timer = Timer(call)
        heappush(self._heap, (at, next(self._order), timer))
        if at < self._ring_at:
            self._ring_at = at
            self._loop.ring_in(at - self.now(), self._ring)
        return timer

    def _ring(self) -> None:
        heap, now = self._heap, self.now()
        while heap:
            at, _, timer = heap[0]
            if timer.call is not None:
                if at > now:
                    break
                call, timer.call = timer.call, None
                try:
                    call()
                except Exception as bug:
                    self.on_bug(bug)
            heappop(heap)
        self._ring_at = heap[0][0] if heap else float("inf")
        if heap:
            self._loop.ring_in(self._ring_at - now, self._ring)

    # --- the world ---------------------------------------------------------------------------

    def chance(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(self.random_bytes(7), "big") / (1 << 56)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any, until: float | None = None) -> Any:
        """Run something that blocks on a thread of the engine's pool, and wait for it.

        Raises:
            TimedOut: `until` has come before; the thread goes on, and what it finds is dropped.
            NoResources: no thread can be had.
            Exception: whatever the function raised.
        """

        def guarded() -> tuple[Any, BaseException | None]:
            # A pool would print what is raised: text, which may hold anything, on the host's stderr.
            try:
                return function(*arguments), None
            except BaseException as error:
                return None, error

        waiter = Waiter(self)
        try:
            self._loop.start_in_pool(guarded, waiter.wake)
        except RuntimeError as error:
            raise NoResources("no thread can be started") from error
        value, failure = waiter.wait(until)
        if failure is not None:
            raise failure
        return value

    def close(self) -> None:
        """Let go of the loop, at the end of a thread that had an engine of its own; nothing may wait."""
        self._loop.close()
