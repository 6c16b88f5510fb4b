"""A pump for systems that cannot wait for a pipe (Windows): a thread does the reading.

Imported by `bridge.wire.stdio` on such systems only; tested elsewhere with ordinary pipes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from bridge.wire.stdio import CHUNK_BYTES, EOF, Pump

_GLANCE_S: Final = 0.5
"""How long a wait lasts at most: Windows lets no signal handler run during one."""


class ThreadedPump(Pump):
    """`Pump` without poll: one read is under way in a daemon thread while somebody is ready."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.wake_fd = -1
        self.on_wake = None
        self._reason = None
        self._is_awake = False
        self._permits = threading.Semaphore(0)
        self._arrived: SimpleQueue[bytes | None] = SimpleQueue()
        self._chunk: bytes | None = None
        self._is_reading = False
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def run(self, feed: Callable[[bytes], None], ready: Callable[[], bool]) -> str:
        """Read and feed until the end of input or until `stop`; see `Pump.run`."""
        while not self._is_stopped():
            if ready():
                if self._chunk is not None:
                    chunk, self._chunk = self._chunk, None
                    if not chunk:
                        return EOF
                    feed(chunk)
                    continue
                if not self._is_reading:
                    self._is_reading = True
                    self._permits.release()
            self._take()
        return self._take_reason()

    def pause(self, seconds: float) -> None:
        """Read nothing for so long at most; see `Pump.pause`."""
        self._take(seconds)

    def wake(self) -> None:
        """Make `run` call `on_wake` and ask again whether anybody is ready."""
        if not self._is_awake:
            self._is_awake = True
            self._arrived.put(None)

    def close(self) -> None:
        """Do nothing: there is no wake pipe."""

    def _take(self, most_s: float = _GLANCE_S) -> None:
        try:
            chunk = self._arrived.get(timeout=most_s)
        except Empty:
            return
        if chunk is None:
            self._is_awake = False
            if self.on_wake is not None:
                self.on_wake()
        else:
            self._is_reading = False
            self._chunk = chunk

    def _read(self) -> None:
        chunk = b"-"
        while chunk:
            self._permits.acquire()
            try:
                chunk = os.read(self._fd, CHUNK_BYTES)
            except OSError:
                chunk = b""
            self._arrived.put(chunk)
