"""The door to gevent: its loop, its descriptors, signals and threads. Imported by `bridge.engine` only."""

from __future__ import annotations

import os
from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from gevent._hub_local import get_hub_if_exists, set_hub
from gevent.hub import Hub

LOOK_S: Final = 1.0
"""How late a timer may be after the machine has slept, in seconds: the loop's own timers stand still then."""


class GeventLoop:
    """gevent's loop of this thread; fits `bridge.engine.core.Loop`."""

    def __init__(self) -> None:
        hub = get_hub_if_exists()  # type: ignore[no-untyped-call]
        if hub is None:
            # Not the default loop: made a second time in a process, that one collects the exit status of
            # every child, and who waits for his own takes a lost one for 0.
            hub = Hub(default=False)  # type: ignore[no-untyped-call]
            set_hub(hub)  # type: ignore[no-untyped-call]
        self.hub: Any = hub
        self._loop = self.hub.loop
        self.switch: Callable[[], Any] = self.hub.switch
        self.call_soon: Callable[..., object] = self._loop.run_callback
        self._bell: Any = None
        self._watchers: list[Any] = []
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # It also keeps the loop alive while nothing else is awaited.
        self._mail = self._loop.async_()
        self._mail.start(self._take_posted)

    def ring_in(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something in so many seconds, or earlier; replaces what was asked before."""
        if self._bell is not None:
            self._bell.stop()
            self._bell.close()
        self._loop.update_now()
        self._bell = self._loop.timer(min(max(seconds, 0.0), LOOK_S))
        self._bell.start(call)

    def watch(self, fd: int, what: int) -> Any:
        """A watcher of a descriptor."""
        return self._loop.io(fd, what)

    def on_signal(self, number: int, call: Callable[[int], object]) -> None:
        """Call something in this thread whenever a signal comes."""
        watcher = self._loop.signal(number)
        watcher.start(call, number)
        self._watchers.append(watcher)

    def post(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call something soon; from any thread."""
        self._posted.append((call, arguments))
        self._mail.send()

    def _take_posted(self) -> None:
        while self._posted:
            call, arguments = self._posted.popleft()
            call(*arguments)

    def start_in_pool(self, function: Callable[[], Any], done: Callable[[Any], object]) -> None:
        """Run something that raises nothing on a thread of gevent's pool; `done` gets its result here."""
        self.hub.threadpool.spawn(function).rawlink(lambda result: done(result.value))

    def start_thread(self, run: Callable[[], None], name: str) -> None:
        """Start a thread that does not hold up the end."""
        Thread(target=run, name=name, daemon=True).start()

    def make_queue(self) -> SimpleQueue[Any]:
        """A queue to such a thread."""
        return SimpleQueue()

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        return os.urandom(count)

    def close(self) -> None:
        """Let go of the loop; nothing may wait any more."""
        self.hub.destroy(destroy_loop=True)
