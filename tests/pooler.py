"""A connection pooler in transaction mode, as small as one can be: what a ledger must not stand behind.

Clients share the sessions of one role: each transaction runs on whichever was used last and is free.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Final

from tests.pgserver import PgServer

_GREETINGS: Final = (80877103, 80877104)
"""What a client asks first: for TLS, for GSSAPI."""
_NAMED: Final = {b"P": 0, b"B": 1}
"""Messages with the name of a prepared statement, and how many texts come before it."""


class Pooler:
    """Listens on loopback. A context manager.

    Args:
        server: where the sessions are, all of its superuser, who needs no password there.
        size: how many sessions there are.
        renames: True to keep the prepared statements of clients apart, as some poolers do.
    """

    def __init__(self, server: PgServer, database: str, size: int, renames: bool) -> None:
        self._server, self._database, self._renames = server, database, renames
        self._greeting = b""
        self._free = [self._connect() for _ in range(size)]
        self._is_free = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = list(self._free)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Pooler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _connect(self) -> socket.socket:
        words = f"user\0postgres\0database\0{self._database}\0client_encoding\0UTF8\0\0".encode()
        session = socket.create_connection(("127.0.0.1", self._server.port))
        session.sendall(struct.pack("!II", 8 + len(words), 196608) + words)
        self._greeting = b"".join(self._receive_answer(session))
        return session

    def _accept(self) -> None:
        for number in range(1_000):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client, b"c%d_" % number), daemon=True).start()

    def _serve(self, client: socket.socket, name: bytes) -> None:
        with contextlib.suppress(OSError, EOFError):
            while struct.unpack("!I", _receive(client, _receive_length(client))[:4])[0] in _GREETINGS:
                client.sendall(b"N")
            client.sendall(self._greeting)
            while True:
                kind, body = _receive_message(client)
                with self._is_free:
                    self._is_free.wait_for(lambda: bool(self._free))
                    session = self._free.pop()
                try:
                    last = self._run(client, session, kind, body, name)
                finally:
                    with self._is_free:
                        self._free.append(session)
                        self._is_free.notify()
                # Not before: who is answered and asks again finds the session that was used last.
                client.sendall(last)

    def _run(
        self, client: socket.socket, session: socket.socket, kind: bytes, body: bytes, name: bytes
    ) -> bytes:
        """Pass on one transaction, but for its last answer, which is returned."""
        while True:
            if kind == b"X":
                raise EOFError
            session.sendall(_frame(kind, self._rename(kind, body, name)))
            if kind in b"SQ":
                *answer, end = self._receive_answer(session)
                answer.append(end)
                if end.endswith(b"I"):
                    return b"".join(answer)
                client.sendall(b"".join(answer))
            kind, body = _receive_message(client)

    def _rename(self, kind: bytes, body: bytes, name: bytes) -> bytes:
        if not self._renames or kind not in _NAMED:
            return body
        parts = body.split(b"\0", _NAMED[kind])
        parts[-1] = name + parts[-1]
        return b"\0".join(parts)

    @staticmethod
    def _receive_answer(session: socket.socket) -> list[bytes]:
        """What the server says until it is ready again."""
        messages = []
        while True:
            kind, body = _receive_message(session)
            messages.append(_frame(kind, body))
            if kind == b"Z":
                return messages


def _frame(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", 4 + len(body)) + body


def _receive_message(end: socket.socket) -> tuple[bytes, bytes]:
    kind = _receive(end, 1)
    return kind, _receive(end, _receive_length(end))


def _receive_length(end: socket.socket) -> int:
    return int(struct.unpack("!I", _receive(end, 4))[0]) - 4


def _receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
