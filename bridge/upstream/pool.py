"""Connections that wait for their next request, the last one in being the first one out.

Last in, first out keeps few connections warm and lets the others grow old. Sends and reads nothing.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from bridge.upstream.answer import Inlet
from bridge.upstream.attempt import now

MAX_IDLE_S: Final = 50.0
"""How long a connection may wait for reuse. Load balancers close at 60 s, nginx at 75 s; leaving first means
that no request meets a connection which the other side is just closing (that would be an unknown outcome)."""
KEEP_ALIVE_MARGIN_S: Final = 1.0
"""A ``Keep-Alive: timeout`` is cut by this, for the way there."""

_READ_BYTES: Final = 4096
"""Taken at once: an answer is a few hundred bytes, and room for more has to be made each time."""


class Patient:
    """A socket in non-blocking mode that keeps its time-out itself, and can be read ahead.

    The stock socket makes a system call to note a time-out, and asks poll() before each operation also when
    it need not wait. Each call lets go of the interpreter's lock, and with many threads getting it back is
    what costs. Thread safety: belongs to one thread at a time.
    """

    __slots__ = (
        "_ended",
        "_fault",
        "_sock",
        "_timeout_s",
        "ahead",
        "close",
        "fileno",
        "is_enough_ahead",
        "pending",
    )

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._timeout_s = 0.0
        self.ahead = b""
        """What was read ahead and not handed out yet."""
        self.is_enough_ahead = False
        """True if that is all that was waited for."""
        self._ended = False
        self._fault: OSError | None = None
        self.close = sock.close
        self.fileno = sock.fileno
        self.pending = getattr(sock, "pending", _nothing)
        sock.setblocking(False)

    def settimeout(self, seconds: float | None, /) -> None:
        """Bound each of the next operations; None: do not wait at all."""
        self._timeout_s = seconds or 0.0

    # --- waiting -----------------------------------------------------------------------------

    def recv_into(self, buffer: Any, /) -> int:
        """Receive some bytes; 0 at the end."""
        if self.ahead:
            count = min(len(buffer), len(self.ahead))
            buffer[:count] = self.ahead[:count]
            self.ahead = self.ahead[count:]
            return count
        if self._fault is not None:
            raise self._fault
        if self._ended:
            return 0
        until = now() + self._timeout_s
        if self.pending():
            return self._sock.recv_into(buffer)
        while True:
            self._wait(select.POLLIN, until)
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue  # half a TLS record, or a packet that failed its checksum
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, until)

    def sendall(self, data: bytes) -> None:
        """Send everything; what fits into the socket's buffer goes at once."""
        until = now() + self._timeout_s
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, until)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, until)

    def _wait(self, event: int, until: float) -> None:
        left_s = until - now()
        if left_s <= 0.0 or not _ask(self.fileno(), event, left_s * 1000.0 + 1.0):
            raise TimeoutError("timed out")

    # --- never waiting -----------------------------------------------------------------------

    def offer(self, data: bytes) -> bytes:
        """Send what can leave at once; returns the rest."""
        try:
            return data[self._sock.send(data) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return data

    def read_ahead(self, is_enough: Callable[[bytes], bool | None]) -> bool | None:
        """Take what has come; `recv_into` hands it out first.

        Args:
            is_enough: looks at everything that came: True if that is all, None if it cannot tell.

        Returns:
            What `is_enough` said; True also if the connection has ended or failed: nothing more comes.
        """
        try:
            while True:
                data = self._sock.recv(_READ_BYTES)
                self.ahead = self.ahead + data if self.ahead else data
                if not data:
                    self._ended = True
                    return True
                verdict = is_enough(self.ahead)
                if verdict is not False:
                    self.is_enough_ahead = verdict is True
                    return verdict
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as fault:
            self._fault = fault.with_traceback(None)
            return True

    def take_ahead(self) -> bytes:
        """Take what was read ahead instead of receiving it."""
        data, self.ahead = self.ahead, b""
        self.is_enough_ahead = False
        return data


def _ask(descriptor: int, event: int, patience_ms: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, event)
    return bool(poller.poll(patience_ms))


def _nothing() -> int:
    return 0


class Connection:
    """One open connection and its reading side.

    Thread safety: belongs to the thread that took it.
    """

    __slots__ = ("_poller", "expires_at", "inlet", "is_watched", "sock")

    def __init__(self, sock: socket.socket) -> None:
        # Not on Windows, which has no poll().
        self.sock: Patient | socket.socket = Patient(sock) if hasattr(select, "poll") else sock
        self.inlet = Inlet(self.sock)
        self.expires_at = 0.0
        self.is_watched = False
        """True once a loop has been told of it."""
        self._poller = None
        if hasattr(select, "poll"):  # not on Windows; unlike select it takes descriptors above 1023
            self._poller = select.poll()
            self._poller.register(sock.fileno(), select.POLLIN)

    def is_quiet(self) -> bool:
        """Tell whether nothing has come since the last answer: neither the end nor bytes nobody asked for."""
        if self._poller is not None:
            return not self._poller.poll(0)
        return not select.select([self.sock], [], [], 0)[0]

    def has_surplus(self) -> bool:
        """Tell whether there are bytes that no answer has used: in the TLS layer, or read ahead."""
        pending = getattr(self.sock, "pending", None)
        return bool(getattr(self.sock, "ahead", b"")) or (pending is not None and pending() > 0)

    def close(self) -> None:
        """Close it; never raises."""
        with suppress(OSError):  # it reports what was wrong before, and that is known already
            self.sock.close()


class Pool:
    """The idle connections.

    Thread safety: every method may be called from any thread. Closing is done outside the lock.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False
        self._opened = 0
        self._reused = 0

    def take(self) -> Connection | None:
        """Take the youngest connection that is still open and quiet, or None if a new one is needed."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if now() < connection.expires_at and connection.is_quiet():
                with self._lock:
                    self._reused += 1
                return connection
            connection.close()

    def give(self, connection: Connection, keep_alive: str | None) -> None:
        """Keep a clean connection for the next request.

        Args:
            connection: after a complete answer with nothing left over.
            keep_alive: the answer's ``Keep-Alive`` header, whose ``timeout`` may shorten the wait.
        """
        connection.expires_at = expires_at = now() + _idle_seconds(keep_alive)
        closing: list[Connection] = []
        with self._lock:
            if self._is_closed or expires_at <= now():
                closing.append(connection)
            else:
                self._idle.append(connection)
                if len(self._idle) > self._size:
                    closing.append(self._idle.pop(0))
        for old in closing:
            old.close()

    def count_opened(self) -> None:
        """Count a connection that was opened."""
        with self._lock:
            self._opened += 1

    def counts(self) -> tuple[int, int, int]:
        """Return how many connections were opened, how often one was reused, and how many are idle."""
        with self._lock:
            return self._opened, self._reused, len(self._idle)

    def close(self) -> None:
        """Close what is idle now, and later what comes back."""
        with self._lock:
            self._is_closed = True
            closing, self._idle = self._idle, []
        for connection in closing:
            connection.close()


def _idle_seconds(keep_alive: str | None) -> float:
    if keep_alive is None:
        return MAX_IDLE_S
    for part in keep_alive.lower().split(","):
        name, _, value = part.partition("=")
        value = value.strip().strip('"')
        if name.strip() == "timeout" and value.isascii() and value.isdigit():
            return min(MAX_IDLE_S, int(value[:6]) - KEEP_ALIVE_MARGIN_S)
    return MAX_IDLE_S
