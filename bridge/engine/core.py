"""The engine itself: greenlets on gevent's loop, timers on the boot clock, waits for descriptors and threads.

Timers follow the boot clock, which goes on while the machine sleeps; the loop's own do not. So there is one heap of
timers here and one timer of the loop, which looks at the heap at least every `LOOK_S` seconds.
Thread safety: everything belongs to the engine's thread, except `Engine.call_soon_from_thread`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

from bridge.engine.clock import Clock, SystemClock

LOOK_S: Final = 1.0
"""How late a timer may be after the machine has slept, in seconds."""
_READ: Final = 1
_WRITE: Final = 2


class TimedOut(TimeoutError):
    """The moment until which to wait has come."""


class NoResources(OSError):
    """This machine has no thread, descriptor or memory to spare just now; that is no failure of anybody else."""


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

    @property
    def is_waiting(self) -> bool:
        """True while a greenlet waits here that nothing has woken yet."""
        return self._sleeper is not None

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
        """Let go of what watches; the descriptor stays open. Must be called before the descriptor is closed."""
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()


class Engine:
    """Runs greenlets in this thread. There is one for a bridge.

    Args:
        on_bug: told of an exception that nobody has caught; what raised it has ended.
        clock: what time it is.
    """

    def __init__(self, on_bug: Callable[[BaseException], object], clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.now = self.clock.now
        self.wall = self.clock.wall
        self.on_bug = on_bug
        self._hub = get_hub()
        self._loop = self._hub.loop
        self.switch: Callable[[], Any] = self._hub.switch
        """Let others run until somebody switches back; `Waiter` and `Readiness` are made of it."""
        self.call_soon: Callable[..., object] = self._loop.run_callback
        """Call something with arguments in this thread, after what runs now. It must not wait."""
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._alarm = self._loop.timer(LOOK_S)
        self._alarm_at = float("inf")
        self._signals: list[Any] = []
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # It also keeps the loop alive while nothing else is awaited.
        self._post = self._loop.async_()
        self._post.start(self._take_posted)

    # --- greenlets ---------------------------------------------------------------------------

    def spawn(self, function: Callable[..., object], *arguments: Any) -> None:
        """Run a function soon in a greenlet of its own, where it may wait."""
        self.call_soon(greenlet(self._guarded, self._hub).switch, function, arguments)

    def _guarded(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception as bug:
            self.on_bug(bug)

    def waiter(self) -> Waiter:
        """A place to wait at."""
        return Waiter(self)

    def sleep(self, seconds: float) -> None:
        """Let others run for so long; 0: once."""
        waiter = Waiter(self)
        try:
            waiter.wait(self.now() + seconds)
        except TimedOut:
            return

    # --- timers ------------------------------------------------------------------------------

    def call_at(self, at: float, call: Callable[[], object]) -> Timer:
        """Call something at a moment of the boot clock. It must not wait."""
        timer = Timer(call)
        heappush(self._heap, (at, next(self._order), timer))
        if at < self._alarm_at:
            self._set_alarm(at)
        return timer

    def _set_alarm(self, at: float) -> None:
        left_s = at - self.now()
        self._alarm_at = at
        self._alarm.stop()
        self._loop.update_now()
        self._alarm = self._loop.timer(min(max(left_s, 0.0), LOOK_S))
        self._alarm.start(self._ring)

    def _ring(self) -> None:
        heap, now = self._heap, self.now()
        while heap:
            at, _, timer = heap[0]
            if timer.call is not None:
                if at > now:
                    break
                call, timer.call = timer.call, None
                self._call(call)
            heappop(heap)
        if heap:
            self._set_alarm(heap[0][0])
        else:
            self._alarm_at = float("inf")

    def _call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as bug:
            self.on_bug(bug)

    # --- the world ---------------------------------------------------------------------------

    def readiness(self, fd: int) -> Readiness:
        """What waits for a descriptor."""
        return Readiness(self, fd)

    def watch(self, fd: int, what: int) -> Any:
        """The loop's watcher of a descriptor; for `Readiness`."""
        return self._loop.io(fd, what)

    def chance(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(os.urandom(7), "big") / (1 << 56)

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        return os.urandom(count)

    def on_signal(self, number: int, call: Callable[[int], object]) -> None:
        """Call something, in this thread, whenever a signal comes."""
        watcher = self._loop.signal(number)
        watcher.start(call, number)
        self._signals.append(watcher)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any, until: float | None = None) -> Any:
        """Run something that blocks on a thread of the engine's pool, and wait for it.

        Raises:
            TimedOut: `until` has come before; the thread goes on, and what it finds is dropped.
            NoResources: no thread can be had.
            Exception: whatever the function raised.
        """
        waiter = Waiter(self)
        try:
            result = self._hub.threadpool.spawn(function, *arguments)
        except RuntimeError as error:
            raise NoResources("no thread can be started") from error
        result.rawlink(lambda _: waiter.wake())
        if not result.ready():
            waiter.wait(until)
        return result.get(block=False)

    def call_soon_from_thread(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call something in the engine's thread; the one method for other threads."""
        self._posted.append((call, arguments))
        self._post.send()

    def close(self) -> None:
        """Let go of the loop, at the end of a thread that had an engine of its own. Nothing may wait any more."""
        self._hub.destroy(destroy_loop=True)

    def _take_posted(self) -> None:
        while self._posted:
            call, arguments = self._posted.popleft()
            call(*arguments)
