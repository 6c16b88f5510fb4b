"""The door to gevent: its loop, its descriptors, signals and threads. Imported by `bridge.engine` only."""

from __future__ import annotations

import os
from _queue import SimpleQueue
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from gevent._hub_local import get_hub_if_exists, set_hub
from gevent.hub import Hub

LOOK_S: Final = 1.0
"""How late a timer may be after the machine has slept, in seconds: the loop's own timers stand still then."""


class GeventLoop:
    """gevent's loop of this thread: runs callbacks in order, and waits for the world when there are none."""

    make_queue: Callable[[], Any] = SimpleQueue
    """A queue to a thread, with the verbs of `queue.SimpleQueue`."""
    random_bytes: Callable[[int], bytes] = staticmethod(os.urandom)
    """Bytes that nobody can guess."""

    def __init__(self) -> None:
        hub = get_hub_if_exists()  # type: ignore[no-untyped-call]
        if hub is None:
            # Not the default loop: made a second time in a process, that one collects the exit status of
            # every child, and who waits for his own takes a lost one for 0.
            hub = Hub(default=False)  # type: ignore[no-untyped-call]
            set_hub(hub)  # type: ignore[no-untyped-call]
        self.hub: Any = hub
        """The greenlet that turns."""
        self._loop = self.hub.loop
        self.switch: Callable[[], Any] = self.hub.switch
        """Let the loop turn until somebody switches back."""
        self.call_soon: Callable[..., object] = self._loop.run_callback
        """Call something with arguments after what runs now."""
        self._bell: Any = None
        self._watchers: list[Any] = []
        self.post: Callable[..., object] = self._loop.run_callback_threadsafe
        """The same from any thread."""
        # It keeps the loop alive while nothing but another thread is awaited.
        self._watchers.append(self._loop.async_())
        self._watchers[0].start(lambda: None)

    def ring_in(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something in so many seconds, or earlier; replaces what was asked before."""
        if self._bell is not None:
            self._bell.stop()
            self._bell.close()
        self._loop.update_now()
        self._bell = self._loop.timer(min(max(seconds, 0.0), LOOK_S))
        self._bell.start(call)

    def watch(self, fd: int, what: int) -> Any:
        """A watcher of a descriptor with `start(callback)`, `stop()` and `close()`."""
        return self._loop.io(fd, what)

    def on_signal(self, number: int, call: Callable[[int], object]) -> None:
        """Call something in this thread whenever a signal comes."""
        watcher = self._loop.signal(number)
        watcher.start(call, number)
        self._watchers.append(watcher)

    def start_in_pool(self, function: Callable[[], Any], done: Callable[[Any], object]) -> None:
        """Run something that raises nothing on a thread of gevent's pool; `done` gets its result here.

        Raises:
            RuntimeError: there is no thread.
        """
        self.hub.threadpool.spawn(function).rawlink(lambda result: done(result.value))

    def start_thread(self, run: Callable[[], None], name: str) -> None:
        """Start a thread that does not hold up the end. Raises RuntimeError if there is none to be had."""
        Thread(target=run, name=name, daemon=True).start()

    def close(self) -> None:
        """Let go of the loop; nothing may wait any more."""
        self.hub.destroy(destroy_loop=True)
