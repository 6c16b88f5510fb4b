"""What tests of a fleet need: a way to the server that can be frozen or cut, and looks into the ledger."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bridge.simulator import Simulator
from tests.pgserver import PASSWORD, PgServer
from tests.process import BridgeProcess

IMAGE: Final = "reportIncorrectImageCaptcha"
KEY: Final = "k" * 32


class Relay:
    """Passes bytes on between bridges and a server, until it is frozen: then nothing moves, nobody is told.

    What a machine that vanished looks like from the server. A context manager.
    """

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        """How long everything that is said is held back: a server that is slow."""
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._is_closed = False
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        self.delay_s = 0.0
        self.thaw()
        with contextlib.suppress(OSError):
            # Closing alone would not wake who accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()

    def freeze(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let everything through again."""
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._serve, near)

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            self._flows.wait()
            with (
                socket.create_connection(("127.0.0.1", self._server_port)) as far,
                self._welcome(near) as inside,
            ):
                ends = {inside, far}
                with self._lock:
                    if self._is_closed:
                        return
                    self._sockets |= ends
                try:
                    self._pass_on(inside, far)
                finally:
                    with self._lock:
                        self._sockets -= ends

    def _welcome(self, near: socket.socket) -> socket.socket:
        """Whatever comes before the first byte that is passed on."""
        return near

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        while True:
            is_waiting = isinstance(near, ssl.SSLSocket) and near.pending() > 0
            ready = [near] if is_waiting else select.select([near, far], [], [])[0]
            for source, sink in ((near, far), (far, near)):
                if source in ready:
                    data = source.recv(65536)
                    self._flows.wait()
                    if source is near and self.delay_s:
                        time.sleep(self.delay_s)
                    if not data:
                        return
                    sink.sendall(data)


class TlsRelay(Relay):
    """Speaks TLS to bridges, as a server does that is asked for it, and passes on in plain.

    The servers of the tests were built without TLS. What is asked, who is trusted and which name is
    demanded is decided by libpq alone, and that is the real one.

    Args:
        port: of the server.
        context: has the certificate that is shown.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._context = context
        self.secured = self.plain = 0
        """How many sessions there were with TLS, and how many wanted none and were hung up on."""
        super().__init__(port)

    def _welcome(self, near: socket.socket) -> socket.socket:
        if near.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
            self.plain += 1
            raise ConnectionAbortedError
        near.sendall(b"S")
        inside = self._context.wrap_socket(near, server_side=True)
        self.secured += 1
        return inside


_SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""What libpq says before it speaks TLS: length and code, see "SSLRequest" in PostgreSQL's protocol."""


class Ledger:
    """A look at a fleet's ledger from outside."""

    def __init__(self, server: PgServer) -> None:
        self.server = server
        self.database = server.make_database()

    def select(self, statement: str) -> list[list[str]]:
        """Rows of a statement."""
        return self.server.sql("SET search_path = report_bridge", statement, database=self.database)

    def is_made(self) -> bool:
        """Whether a bridge has made the tables."""
        return bool(self.select("SELECT 1 WHERE to_regclass('events') IS NOT NULL"))

    def count(self, terms: str = "true") -> int:
        """How many reports there are of a kind; none if nobody has made the ledger yet."""
        if not self.is_made():
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


class Fleet:
    """Bridges on machines of their own with one ledger.

    Args:
        run: the fixture ``bridge_process``.
        folder: gets a home for each machine.
    """

    def __init__(
        self, run: Callable[..., BridgeProcess], simulator: Simulator, ledger: Ledger, folder: Path
    ) -> None:
        self._run = run
        self.simulator = simulator
        self.ledger = ledger
        self._folder = folder

    def start(
        self,
        *words: str,
        machine: str = "one",
        port: int | None = None,
        url: str | None = None,
        **environ: str,
    ) -> BridgeProcess:
        """Start a bridge.

        Args:
            words: further words of the command line.
            machine: whose home it gets.
            port: go over TCP to this port; default: over the socket.
            url: another address of the ledger.
            environ: further variables.
        """
        home = self._folder / machine
        home.mkdir(exist_ok=True)
        if url is None:
            url = self.ledger.server.url(self.ledger.database, tcp=port is not None, port=port)
        common = ["--url", self.simulator.base_url, "--ledger", url]
        common += ["--no-parent-watch", "--log-format", "json"]
        given = {"ANTICAPTCHA_CLIENT_KEY": KEY, "REPORT_BRIDGE_LEDGER_PASSWORD": PASSWORD, **environ}
        return self._run(*common, *words, home=home, environ=given)

    def calls(self) -> Counter[int]:
        """How often each task was sent to the upstream."""
        return Counter(entry["taskId"] for entry in self.simulator.log() if entry["taskId"] is not None)

    def open_reports(self, bridge: BridgeProcess, count: int, first: int = 100) -> None:
        """Let a bridge begin reports that the upstream does not answer, and does not take."""
        before = self.simulator.counters()["requests"]
        open_before = self.ledger.count("state = 'sending'")
        for number in range(first, first + count):
            self.simulator.add_fault("hang", task_id=number, taken=False, count=1)
            bridge.send(IMAGE, {"taskId": number, "completedAt": time.time() - 10})
        until = time.monotonic() + 30
        while (
            self.ledger.count("state = 'sending'") < open_before + count
            or self.simulator.counters()["requests"] < before + count
        ):
            assert time.monotonic() < until
            time.sleep(0.05)


def code_of(message: dict[str, Any]) -> int:
    """The wire code of an answer, 0 for accepted."""
    return int(message["error"]["code"]) if "error" in message else 0


def prove(bridge: BridgeProcess, number: int = 1) -> None:
    """Report something, so that the key is known to be good and the bridge to be up."""
    answer = bridge.call(IMAGE, {"taskId": number})
    assert (code_of(answer), answer["result"]["durable"]) == (0, True), answer
