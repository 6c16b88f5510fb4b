"""Open connections: sending and receiving that wait in a greenlet, each until a given moment.

`Stream` is the seam: a simulation puts other ones in the place of sockets. Knows no HTTP.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from bridge.engine import Engine, NoResources, TimedOut

PIECE_BYTES: Final = 16 * 1024
"""Received at once: the most that one TLS record holds."""

LATE_PIECES: Final = 8
"""Pieces that a connection may still take in after the time is over, if they have come: a whole answer."""

LACKS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the system says if this machine has no descriptor or memory to spare."""


class Stream(Protocol):
    """An open connection. What waits raises `TimedOut` at `until`, a moment of the boot clock."""

    def send_all(self, data: bytes, until: float) -> None:
        """Send everything. `NoResources`: nothing has left."""

    def receive(self, most: int, until: float) -> bytes:
        """Wait for some bytes; b"" at the end."""

    def is_stale(self) -> bool:
        """Tell whether anything has come since the last answer: the end, or bytes that nobody asked for."""

    def close(self) -> None:
        """Close it; never raises."""


def is_lack(error: BaseException) -> bool:
    """Tell whether an exception says that this machine lacks something, which is nobody else's failure."""
    if isinstance(error, socket.gaierror):  # its numbers are of another kind
        return error.errno == socket.EAI_MEMORY
    is_system = isinstance(error, OSError) and error.errno in LACKS
    return is_system or isinstance(error, NoResources | MemoryError)


class SocketStream:
    """A TCP socket in non-blocking mode, the engine's waits around it.

    Args:
        engine: where to wait.
        family: ``socket.AF_INET`` or ``socket.AF_INET6``.
    """

    __slots__ = ("_is_readable", "_late", "_now", "_pending", "_readiness", "_sock")

    def __init__(self, engine: Engine, family: int) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        self._sock = sock
        self._now = engine.now
        self._readiness = engine.readiness(sock.fileno())
        self._pending: Callable[[], int] | None = None
        self._late = 0
        fd = sock.fileno()
        if hasattr(select, "poll"):  # not on Windows; unlike select it takes descriptors above 1023
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            self._is_readable: Callable[[], Any] = partial(poller.poll, 0)
        else:
            self._is_readable = lambda: select.select([fd], [], [], 0)[0]

    def connect(self, address: Any, until: float) -> None:
        """Connect.

        Raises:
            OSError: it did not work.
        """
        fault = self._sock.connect_ex(address)
        if fault in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._wait_writable(until)
            fault = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if fault:
            raise OSError(fault, os.strerror(fault))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_tls(self, context: ssl.SSLContext, host: str, until: float) -> None:
        """Speak TLS from here on, to nobody but that host.

        Raises:
            OSError: it did not work (`ssl.SSLError`).
        """
        sock = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._sock = sock
        self._pending = sock.pending
        self._do(until, sock.do_handshake)

    def send_all(self, data: bytes, until: float) -> None:
        """Send everything; what fits into the socket's buffer goes at once.

        Raises:
            NoResources: this machine has no memory for it, and nothing has left.
            OSError: it did not work.
        """
        left = data
        try:
            while left:
                left = left[self._do(until, self._sock.send, left) :]
        except OSError as error:
            if left is data and error.errno in LACKS:
                raise NoResources("no memory to send with") from None
            raise

    def receive(self, most: int, until: float) -> bytes:
        """Wait for some bytes; b"" at the end.

        Raises:
            OSError: the connection has failed.
        """
        if self._pending is None or not self._pending():
            self._wait_readable(until)
        # It may be half a TLS record, or a packet that failed its checksum.
        data: bytes = self._do(until, self._sock.recv, most)
        return data

    def _do(self, until: float, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Do something with the socket, after a wait if it cannot be done at once."""
        while True:
            try:
                return operation(*arguments)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as wish:
                # Without TLS it does not say what it waits for.
                is_full = isinstance(wish, BlockingIOError) and operation == self._sock.send
                is_full = is_full or isinstance(wish, ssl.SSLWantWriteError)
                (self._wait_writable if is_full else self._wait_readable)(until)

    def is_stale(self) -> bool:
        """Tell whether anything has come since the last answer: the end, or bytes that nobody asked for."""
        return bool((self._pending is not None and self._pending()) or self._is_readable())

    def close(self) -> None:
        """Close it; never raises."""
        self._readiness.close()
        with suppress(OSError):  # it reports what was wrong before, and that is known already
            self._sock.close()

    def _wait_readable(self, until: float) -> None:
        # Looked at here: what is ready again and again would win against any timer.
        if self._now() < until:
            try:
                self._readiness.wait_readable(until)
                return
            except TimedOut:
                pass  # as told below
        # The process or the machine may have slept, and what has come meanwhile is not to be thrown away.
        if self._late == LATE_PIECES or not self._is_readable():
            raise TimedOut("nothing more came in time")
        self._late += 1

    def _wait_writable(self, until: float) -> None:
        if self._now() >= until:
            raise TimedOut("nothing more left in time")
        self._readiness.wait_writable(until)
