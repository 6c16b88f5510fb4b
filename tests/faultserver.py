"""A scripted server on loopback: each connection runs a function that may misbehave in any way.

Shares nothing with the client it tests. Every wait ends when the server is left.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

ACCEPTED = b'{"errorId":0,"status":"success"}'


def spell_answer(body: bytes = ACCEPTED, status: str = "200 OK", *lines: str) -> bytes:
    """Spell a complete answer with a Content-Length."""
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: FaultServer) -> None:
        self.sock = sock
        self.server = server

    def read_request(self) -> bytes | None:
        """Read one request with its body and note it; None at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                return None
            self.server.pieces.append(more)
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            more = self.sock.recv(65536)
            if not more:
                return None
            self.server.pieces.append(more)
            body += more
        request = head + b"\r\n\r\n" + body
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        """Send all of it at once."""
        if data:
            self.sock.sendall(data)

    def drip(self, data: Iterable[int], every_s: float = 0.02) -> None:
        """Send byte by byte until the client leaves or the test ends."""
        for byte in data:
            if self.server.is_over.wait(every_s):
                return
            self.sock.sendall(bytes([byte]))

    def hold(self) -> None:
        """Say nothing more, but stay."""
        self.server.is_over.wait(30)

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        self.sock = context.wrap_socket(self.sock, server_side=True)


Script = Callable[[Peer], None]


class FaultServer:
    """Listens on loopback while it is entered."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=300)
        self._threads: list[threading.Thread] = []
        self._peers: list[Peer] = []
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.pieces: list[bytes] = []
        self.connections = 0
        self.is_over = threading.Event()

    @property
    def url(self) -> str:
        """Base URL by address."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultServer:
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for peer in self._peers:
            peer.sock.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self.is_over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:  # left, or no descriptor to be had just now
                self.is_over.wait(0.01)
                continue
            self.connections += 1
            peer = Peer(sock, self)
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        with suppress(OSError):
            if self._tls is not None:
                peer.start_tls(self._tls)
            self._script(peer)
        with suppress(OSError):
            peer.sock.close()


def serve_forever(peer: Peer) -> None:
    """Accept report after report on one connection."""
    while peer.read_request() is not None:
        peer.send(spell_answer())


def answer_once(data: bytes) -> Script:
    """Read one request, send these bytes, then stay silent."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(data)
        peer.hold()

    return script


def answer_and_close(data: bytes) -> Script:
    """Read one request, send these bytes and close."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(data)

    return script
