"""Writes to a descriptor without ever blocking the process: answers to stdout, lines to stderr.

What was inherited is shared with others, so its mode is never changed. A blocking descriptor is written only
while it says that it can be, and never more at once than it then surely takes. The rest waits, in a greenlet.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bridge.engine.core import Engine, TimedOut

_SURE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe, socket or terminal takes without blocking if it can be written; POSIX grants 512."""
_FILE_BYTES: Final = 1 << 20
# macOS has poll(), but not for terminals and devices (its manual, BUGS).
_HAS_POLL: Final = hasattr(select, "poll") and sys.platform != "darwin"


class Outlet:
    """Pieces of bytes, written whole and in order. One that fits is written in one go, several together.

    Args:
        fd: where to write.
        engine: where a greenlet waits for room.
        on_room: called after something was written.
        on_lost: told how many pieces were dropped since writing failed; the next one is tried again.
    """

    def __init__(
        self,
        fd: int,
        engine: Engine,
        *,
        on_room: Callable[[], object] = lambda: None,
        on_lost: Callable[[int], object] = lambda _count: None,
    ) -> None:
        self.fd = fd
        self._engine = engine
        self._on_room = on_room
        self._on_lost = on_lost
        self._pieces: deque[bytes | memoryview] = deque()
        self._is_due = False
        """True while somebody will write what is there."""
        self._drained = engine.waiter()
        is_file = _is_file(fd)
        self._most = _FILE_BYTES if is_file else _SURE_BYTES
        self._can_write: Callable[[], bool] = (lambda: True) if is_file else _watch(fd)
        self.backlog_bytes = 0
        """Bytes taken and not yet written."""

    @property
    def backlog(self) -> int:
        """Pieces taken and not yet written."""
        return len(self._pieces)

    def put(self, piece: bytes) -> None:
        """Write a piece after all earlier ones: soon, together with others of this turn. Never raises."""
        self._pieces.append(piece)
        self.backlog_bytes += len(piece)
        if not self._is_due:
            self._is_due = True
            self._engine.call_soon(self._write_now)

    def drain(self, until: float | None) -> bool:
        """Wait until all is written or dropped; False if `until`, on the boot clock, comes before."""
        while self._pieces:
            try:
                self._drained.wait(until)
            except TimedOut:
                return False
        return True

    def flush(self) -> bool:
        """Write what surely does not block; True if nothing is left."""
        pieces = self._pieces
        while pieces:
            try:
                if not self._can_write():
                    return False
                count = os.write(self.fd, self._gather())
            except BlockingIOError:
                return False
            except OSError:
                lost = len(pieces)
                pieces.clear()
                self.backlog_bytes = 0
                self._on_lost(lost)
                break
            self._remove(count)
            self._on_room()
        self._drained.wake()
        return True

    def _gather(self) -> bytes | memoryview:
        first = self._pieces[0]
        if len(self._pieces) == 1 or len(first) >= self._most:
            return first if len(first) <= self._most else memoryview(first)[: self._most]
        size, group = 0, []
        for piece in self._pieces:
            size += len(piece)
            if size > self._most:
                break
            group.append(piece)
        return b"".join(group)

    def _remove(self, count: int) -> None:
        self.backlog_bytes -= count
        while count:
            first = self._pieces.popleft()
            if count < len(first):
                self._pieces.appendleft(memoryview(first)[count:])
                return
            count -= len(first)

    def _write_now(self) -> None:
        if self.flush():
            self._is_due = False
        else:
            self._engine.spawn(self._write_when_possible)

    def _write_when_possible(self) -> None:
        readiness = self._engine.readiness(self.fd)
        try:
            while not self.flush():
                readiness.wait_writable()
        finally:
            readiness.close()
            self._is_due = False


def _is_file(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.fstat(fd).st_mode)
    return False


def _watch(fd: int) -> Callable[[], bool]:
    """A function that says whether `_SURE_BYTES` bytes can be written, or refused, without blocking."""
    if not _HAS_POLL:
        return lambda: bool(select.select([], [fd], [], 0)[1])
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return lambda: bool(poll.poll(0))
