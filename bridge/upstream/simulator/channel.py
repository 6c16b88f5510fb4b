"""A non-blocking socket, plain or TLS, with the few verbs a connection needs.

"Not yet" is a value here, never an exception; a broken connection is OSError.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from bridge.upstream.simulator.loop import READ, WRITE

if TYPE_CHECKING:
    import ssl

READ_SIZE: Final = 65536


class Channel:
    """One accepted connection.

    Args:
        sock: accepted and non-blocking.
        context: speaks TLS over it; its handshake is done by `shake_hands`.
    """

    __slots__ = ("_tls", "sock")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self._tls: ssl.SSLSocket | None = None
        if context is not None:
            self._tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.sock: socket.socket = self._tls or sock

    @property
    def is_tls(self) -> bool:
        """True if what arrives is encrypted."""
        return self._tls is not None

    def shake_hands(self) -> int:
        """Go on with the TLS handshake; return the event to wait for, 0 once it is done."""
        try:
            if self._tls is not None:
                self._tls.do_handshake()
        except OSError as problem:
            wanted = _wanted_event(problem)
            if not wanted:
                raise
            return wanted
        return 0

    def peek(self) -> bytes:
        """Return the first bytes that wait, without reading them; none for TLS."""
        if self._tls is not None:
            return b""
        try:
            return self.sock.recv(20, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    def receive(self) -> bytes | None:
        """Return what has arrived, empty if the client has closed its side, None if nothing has."""
        try:
            return self.sock.recv(READ_SIZE)
        except OSError as problem:
            if not _wanted_event(problem):
                raise
            return None

    def send(self, data: bytes | bytearray) -> int:
        """Return how many of the bytes could be sent now."""
        try:
            return self.sock.send(data)
        except OSError as problem:
            if not _wanted_event(problem):
                raise
            return 0

    def close(self, reset: bool) -> None:
        """Close, in order or so that the client sees a reset."""
        if reset:
            with suppress(OSError):  # the client may have been faster
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def _wanted_event(problem: OSError) -> int:
    """Return the event that "not yet" waits for, 0 for a true failure."""
    if isinstance(problem, BlockingIOError):
        return READ
    # By name, so that plain http never imports ssl.
    return {"SSLWantReadError": READ, "SSLWantWriteError": WRITE}.get(type(problem).__name__, 0)
