"""The standard streams as descriptors: take them, read one, write the other.

`Pump` reads in the main thread and stops reading on demand; `Writer` writes whole messages in
order. Both work on what was inherited: pipes, sockets, files, terminals, blocking or not. Knows
nothing of framing. Never uses `sys.stdin` or `sys.stdout`.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

CHUNK_BYTES: Final = 65536
"""Most bytes read or gathered at once: the capacity of a pipe on Linux."""
_PIPE_BUF: Final = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe reported as writable takes without blocking; 512 is what POSIX grants."""

# macOS has poll(), but not for terminals and devices (its manual, BUGS); Windows has none.
_HAS_POLL = hasattr(select, "poll") and sys.platform != "darwin"
_CAN_WAIT_FOR_PIPES = os.name == "posix"

EOF: Final = "eof"
"""What `Pump.run` returns at the end of input."""


def take_descriptors() -> tuple[int, int]:
    """Take private copies of standard input and output, and put them out of everybody else's reach.

    Afterwards descriptor 0 is the null device and descriptor 1 is standard error, so that no stray
    print and no child can touch the wire. The copies are closed on exec and never 0, 1 or 2.
    Descriptors that are closed at the start count as the null device.

    Returns:
        The copies of descriptor 0 and descriptor 1.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() takes the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


def open_pump(fd: int, side: Side | None = None) -> Pump:
    """Return the `Pump` that suits this system; there is a side only where pipes can be waited for."""
    if _CAN_WAIT_FOR_PIPES:
        return Pump(fd, side)
    from bridge.wire.threaded_pump import ThreadedPump

    return ThreadedPump(fd)


class Side(Protocol):
    """What goes on beside the reading, in the same thread; see `bridge.ops.loop.Loop`."""

    @property
    def fileno(self) -> int:
        """Descriptor that can be read when a `turn` has something to do."""

    def sleepy_s(self) -> float | None:
        """How long to sleep before a turn is due; None: until woken."""

    def turn(self, fired: bool) -> None:
        """Do what there is to do; `fired`: the descriptor can be read."""


class Pump:
    """Feeds what arrives on a descriptor to a function, as long as somebody is ready for it.

    Thread safety: `run` belongs to one thread; `wake` and `stop` may be called from any thread
    and from signal handlers.
    """

    def __init__(self, fd: int, side: Side | None = None) -> None:
        self._fd = fd
        self._side = side
        beside = [] if side is None else [side.fileno]
        self._wake_source, self.wake_fd = os.pipe()
        """Any byte written to `wake_fd` wakes the pump; meant for `signal.set_wakeup_fd`. -1 where
        there is no such thing."""
        for end in (self._wake_source, self.wake_fd):
            os.set_blocking(end, False)
        self._wait_for_both = _watch([self._wake_source, self._fd, *beside])
        self._wait_for_wake = _watch([self._wake_source, *beside])
        self._is_awake = False
        self._reason: str | None = None
        self.on_wake: Callable[[], None] | None = None
        """Called by `run`, in its thread, after each `wake`; several may be answered at once."""

    def run(self, feed: Callable[[bytes], None], ready: Callable[[], bool]) -> str:
        """Read and feed until the end of input or until `stop`.

        Args:
            feed: takes each chunk, at most `CHUNK_BYTES` long.
            ready: asked before each read; while it says no, nothing is read. Asked again after
                each `wake`. With one that always says no, `run` just waits for `stop`.

        Returns:
            `EOF` at the end of input (a read error is one), else the reason given to `stop`.
        """
        while not self._is_stopped():
            fired = self._wait(self._wait_for_both if ready() else self._wait_for_wake)
            if self._wake_source in fired:
                self._answer_wake()
            if self._fd in fired and not self._is_stopped() and ready() and not self._read_once(feed):
                return EOF
            self._turn(fired)
        return self._take_reason()

    def _read_once(self, feed: Callable[[bytes], None]) -> bool:
        """Read once and feed it; False at the end of input."""
        try:
            chunk = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if chunk:
            feed(chunk)
        return bool(chunk)

    def pause(self, seconds: float) -> None:
        """Read nothing for so long at most, while what is beside goes on; returns after each wake."""
        fired = self._wait(self._wait_for_wake, seconds)
        if self._wake_source in fired:
            self._answer_wake()
        self._turn(fired)

    def _wait(self, wait: Callable[[float | None], list[int]], most_s: float | None = None) -> list[int]:
        side = self._side
        if side is None:
            return wait(most_s)
        due_s = side.sleepy_s()
        return wait(due_s if most_s is None else most_s if due_s is None else min(due_s, most_s))

    def _turn(self, fired: list[int]) -> None:
        if self._side is not None:
            self._side.turn(self._side.fileno in fired)

    def wake(self) -> None:
        """Make `run` call `on_wake` and ask again whether anybody is ready."""
        if not self._is_awake:
            self._is_awake = True
            # A full pipe wakes as well; a closed one has nobody left to wake.
            with contextlib.suppress(OSError):
                os.write(self.wake_fd, b"\0")

    def stop(self, reason: str) -> None:
        """Make `run` return this reason, the running one or else the next; the first one counts."""
        if self._reason is None:
            self._reason = reason
        self.wake()

    def close(self) -> None:
        """Give the wake pipe back; the descriptor that is read stays open."""
        os.close(self._wake_source)
        os.close(self.wake_fd)

    def _is_stopped(self) -> bool:
        return self._reason is not None

    def _take_reason(self) -> str:
        reason, self._reason = self._reason or "", None
        return reason

    def _answer_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_source, 4096)
        # Before anything is looked at: what changes from here on needs a byte of its own.
        self._is_awake = False
        if self.on_wake is not None:
            self.on_wake()


class Writer:
    """Writes payloads whole and in the order of the calls, and never raises.

    A payload that surely does not block is written by the caller; everything else by one daemon
    thread, many payloads in one go. Once the reader of the descriptor is gone, payloads are
    dropped.

    Args:
        fd: where to write.
        on_broken: called once when the reader is found to be gone, in whatever thread finds it.

    Thread safety: everything may be called from any thread.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None] | None = None) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._is_busy = False
        self._has_thread = False
        self._backlog_bytes = 0
        self._may_take = _watch_sink(fd)
        self._collector: int | None = None
        self._collected: list[tuple[bytes, Callable[[], None] | None]] = []
        self.broken = False
        """True once the reader is gone."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes taken and not yet written."""
        return self._backlog_bytes

    def put(self, payload: bytes, written: Callable[[], None] | None = None) -> None:
        """Write a payload after all earlier ones.

        Args:
            payload: whole messages, framed.
            written: called once when the payload is written or dropped, perhaps before `put`
                returns and in its thread. Must not raise.
        """
        if threading.get_ident() == self._collector:
            self._collected.append((payload, written))
        else:
            self._put(payload, written)

    def collect(self) -> None:
        """From now on keep what this thread puts until it calls `flush`: one write for many answers."""
        self._collector = threading.get_ident()

    def flush(self) -> None:
        """Write what was collected."""
        collected, self._collected = self._collected, []
        collected.reverse()
        while collected:
            payloads: list[bytes] = []
            calls: list[Callable[[], None]] = []
            size = 0
            while collected and (not payloads or size + len(collected[-1][0]) <= _PIPE_BUF):
                payload, written = collected.pop()
                payloads.append(payload)
                size += len(payload)
                if written is not None:
                    calls.append(written)
            self._put(b"".join(payloads), partial(_call_all, calls))

    def _put(self, payload: bytes, written: Callable[[], None] | None) -> None:
        broke_now = False
        with self._changed:
            rest: bytes | memoryview = payload
            if not (self.broken or self._is_busy or self._queue) and len(payload) <= _PIPE_BUF:
                try:
                    if self._may_take():
                        rest = rest[os.write(self._fd, payload) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self.broken = broke_now = True
            if rest and not self.broken:
                self._enqueue_locked(bytes(rest), written)
                return
        if broke_now and self._on_broken is not None:
            self._on_broken()
        if written is not None:
            written()

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is written or dropped; return False if time ran out before."""
        if threading.get_ident() == self._collector:
            self.flush()
        with self._changed:
            return self._changed.wait_for(lambda: not (self._queue or self._is_busy), timeout_s)

    def _enqueue_locked(self, payload: bytes, written: Callable[[], None] | None) -> None:
        self._queue.append((payload, written))
        self._backlog_bytes += len(payload)
        if not self._has_thread:
            self._has_thread = True
            threading.Thread(target=self._run, name="writer", daemon=True).start()
        elif not self._is_busy:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                while not self._queue:
                    self._changed.wait()
                self._is_busy = True
                payloads, callbacks = self._gather_locked()
            was_broken = self.broken
            if not was_broken:
                self._write(payloads[0] if len(payloads) == 1 else b"".join(payloads))
            with self._changed:
                self._backlog_bytes -= sum(map(len, payloads))
            if self.broken and not was_broken and self._on_broken is not None:
                self._on_broken()
            for written in callbacks:
                written()

    def _gather_locked(self) -> tuple[list[bytes], list[Callable[[], None]]]:
        payloads: list[bytes] = []
        callbacks: list[Callable[[], None]] = []
        size = 0
        while self._queue and (not payloads or size + len(self._queue[0][0]) <= CHUNK_BYTES):
            payload, written = self._queue.popleft()
            payloads.append(payload)
            size += len(payload)
            if written is not None:
                callbacks.append(written)
        return payloads, callbacks

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                _wait_for_room(self._fd)
            except OSError:
                self.broken = True
                return


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _watch(fds: Iterable[int]) -> Callable[[float | None], list[int]]:
    """Return a function that waits until some of the descriptors are worth a read, and says which.

    It takes the seconds to wait at most; None: for ever.
    """
    if not _HAS_POLL:
        return lambda most_s: select.select(fds, [], [], most_s)[0]
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    # Errors and hang-ups are worth a read too: it tells what they mean.
    # Rounded up: to wake before the time is to spin.
    return lambda most_s: [fd for fd, _ in poll.poll(None if most_s is None else math.ceil(most_s * 1000.0))]


def _watch_sink(fd: int) -> Callable[[], bool]:
    """Return a function that says whether `_PIPE_BUF` bytes can be written without blocking.

    Only pipes, sockets and files promise that; a terminal may be stopped at any byte.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        mode = 0
    if stat.S_ISREG(mode):
        return lambda: True
    if not _HAS_POLL or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return lambda: False
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return lambda: bool(poll.poll(0))


def _wait_for_room(fd: int) -> None:
    if not _HAS_POLL:
        select.select([], [fd], [])
        return
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
