"""What tests of a fleet need: a way to the server that can be frozen or cut, and looks into the ledger."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

from tests.pgserver import PgServer


class Relay:
    """Passes bytes on between bridges and a server, until it is frozen: then nothing moves, nobody is told.

    What a machine that vanished looks like from the server. A context manager.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        self._listener.close()
        self.cut()

    def freeze(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let everything through again."""
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._flows.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Ledger:
    """A look at a fleet's ledger from outside."""

    def __init__(self, server: PgServer) -> None:
        self.server = server
        self.database = server.make_database()

    def select(self, statement: str) -> list[list[str]]:
        """Rows of a statement."""
        return self.server.sql("SET search_path = report_bridge", statement, database=self.database)

    def count(self, terms: str = "true") -> int:
        """How many reports there are of a kind; none if nobody has made the ledger yet."""
        if not self.select("SELECT 1 WHERE to_regclass('events') IS NOT NULL"):
            return 0
        return int(self.select(f"SELECT count(*) FROM reports WHERE {terms}")[0][0])

    def wait_until_done(self, number: int, patience_s: float) -> float:
        """Wait until so many reports are done and none is open; the seconds that took."""
        started_at = time.monotonic()
        while True:
            counts = self.select("SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM reports")[0]
            took_s = time.monotonic() - started_at
            if counts == [str(number)] * 2:
                return took_s
            assert took_s < patience_s, f"{counts[0]} of {counts[1]} reports are done after {took_s:.1f} s"
            time.sleep(0.05)
