"""One client connection: a greenlet that reads requests, has them answered or broken, one after another."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bridge.engine import TimedOut
from bridge.simulator import replies
from bridge.simulator.call import Call, Ended
from bridge.simulator.control import serve_control
from bridge.simulator.journal import Entry
from bridge.simulator.reader import BadRequest, Request, RequestReader

if TYPE_CHECKING:
    import ssl

    from bridge.simulator.simulator import Simulator

CONTROL_PREFIX: Final = "/_control/"
_CONTROL_PEEKS: Final = (b"GET /_control", b"POST /_control", b"DELETE /_control")
_READ_SIZE: Final = 65536
_MAX_PIPELINED: Final = 2 * 1024 * 1024
"""Bytes taken in while a call pauses; past that the socket is left alone."""


class Connection:
    """A client's connection.

    Args:
        host: the server.
        sock: just accepted, non-blocking.
        context: to speak TLS.
        number: from 1, in the order accepted.
    """

    def __init__(
        self, host: Simulator, sock: socket.socket, context: ssl.SSLContext | None, number: int
    ) -> None:
        self._host = host
        self._engine = host.engine
        self._tls: ssl.SSLSocket | None = None
        if context is not None:
            self._tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._sock: socket.socket = self._tls or sock
        self._ready = self._engine.readiness(self._sock.fileno())
        self._blind = self._engine.waiter()
        self._ending: Ended | None = None
        self._reader = RequestReader()
        self.number = number
        self.calls = 0
        """Calls of the API that came this way."""
        self._entry: Entry | None = None
        """What happens now, if that has a line in the log."""
        self._is_busy = False
        self._left = False
        self._early_done = False
        self._idle_until: float | None = None

    @property
    def is_idle(self) -> bool:
        """True if no request is under way."""
        return not self._is_busy and self._reader.is_idle

    def interrupt(self, end: str) -> None:
        """End the connection from outside, soon: ``closed``, ``reset`` or ``stopped``."""
        self._ending = Ended(end)
        if not self._ready.interrupt(self._ending):
            self._blind.throw(self._ending)

    def serve(self) -> None:
        """Serve until the connection ends."""
        end = "closed"
        try:
            if self._tls is not None:
                self._await_bytes()
                self._try(self._tls.do_handshake)
            while self._serve_one():
                self._is_busy = False
        except Ended as ended:
            end = str(ended)
        except OSError:
            end = "client_gone"  # or it was idle for too long
        except Exception:
            self._host.state.journal.counters["internalErrors"] += 1
            end = "internal_error"
        self._finish(end)
        self._ready.close()
        if end in ("reset", "internal_error"):
            with suppress(OSError):  # the client may have been faster
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._host.forget(self)

    def _finish(self, end: str) -> None:
        """Note in the log how it ended that is under way, if anything is."""
        if self._entry is not None:
            self._host.state.journal.finish(self._entry, end)
            self._entry = None

    # --- requests ----------------------------------------------------------------------------

    def _serve_one(self) -> bool:
        """Serve a request; return whether the connection goes on."""
        try:
            request = self._read_request()
        except BadRequest as problem:
            self._refuse(problem)
            return False
        if request.target.startswith(CONTROL_PREFIX):
            self.send(serve_control(self._host, request))
            return request.keep_alive
        self.calls += 1
        call = Call(self._host.state, self._host.base_url, request, self, self.calls)
        self._entry = call.entry
        call.play()
        self._finish("answered")
        if call.idle_close_s is not None:
            self._idle_until = self._engine.now() + call.idle_close_s
        return call.keep_alive and call.idle_close_s != 0

    def _read_request(self) -> Request:
        while (request := self._reader.take()) is None:
            if self._left:
                raise Ended("client_gone")
            if self._reader.expects_continue():
                self.send(replies.CONTINUE)
            self._await_bytes(self._idle_until)
            self._receive(self._idle_until)
            self._idle_until = None
        self._is_busy = True
        self._early_done = False
        return request

    def _refuse(self, problem: BadRequest) -> None:
        state = self._host.state
        state.journal.counters["malformed"] += 1
        self._entry = entry = state.journal.begin(self.number, self.calls + 1)
        entry.reason, entry.status = "malformed_http", problem.status
        page, close = f"{problem}\n".encode(), "Connection: close\r\n"
        self.send(
            replies.render(problem.status, page, date=state.date(), content_type="text/plain", headers=close)
        )
        entry.sent = "other"

    def _await_bytes(self, until: float | None = None) -> None:
        """Wait until something has arrived, and let the faults act that need nothing to be read."""
        if self._tls is None or not self._tls.pending():
            self._wait(self._ready.wait_readable, until)
        state = self._host.state
        if self._early_done or not state.faults or not self.is_idle:
            return
        if self._tls is None and self._try(self._sock.recv, 20, socket.MSG_PEEK).startswith(_CONTROL_PEEKS):
            return
        fault = state.faults.pick_early(state.now())
        if fault is None:
            return
        state.journal.counters["unread"] += 1
        self._entry = entry = state.journal.begin(self.number, self.calls + 1)
        entry.fault, entry.reason = fault.name, "unread"
        if fault.name == "reset_before":
            raise Ended("reset")
        self._wait_blind(fault.params["seconds"])
        self._early_done = True
        self._finish("resumed")

    # --- the wire ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes."""
        left = memoryview(data)
        while left:
            left = left[self._try(self._sock.send, left[:_READ_SIZE]) :]
            if self._entry is not None:
                self._entry.sent = "part"

    def pause(self, seconds: float | None) -> None:
        """Let so many seconds pass; None: until the client leaves. What arrives meanwhile is taken in."""
        until = None if seconds is None else self._engine.now() + seconds
        taken_in = 0
        try:
            while not self._left and taken_in < _MAX_PIPELINED:
                taken_in += self._receive(until)
        except TimedOut:
            return
        if self._left and until is None:
            raise Ended("client_gone")
        self._wait_blind(None if until is None else until - self._engine.now())

    def _receive(self, until: float | None = None) -> int:
        """Take in what arrives next; return how many bytes."""
        data: bytes = self._try(self._sock.recv, _READ_SIZE, until=until)
        self._left = not data
        self._reader.feed(data)
        return len(data)

    def _try(self, act: Callable[..., Any], *words: Any, until: float | None = None) -> Any:
        """Do something with the socket, waiting as long as that needs."""
        while True:
            try:
                return act(*words)
            except OSError as problem:
                # By name, so that plain http never imports ssl.
                name = type(problem).__name__
                if name not in ("BlockingIOError", "SSLWantReadError", "SSLWantWriteError"):
                    raise
            is_full = name == "SSLWantWriteError" or (name == "BlockingIOError" and act == self._sock.send)
            self._wait(self._ready.wait_writable if is_full else self._ready.wait_readable, until)

    def _wait(self, wait: Callable[..., None], until: float | None = None) -> None:
        if self._ending is not None:
            raise self._ending
        wait(until)

    def _wait_blind(self, seconds: float | None) -> None:
        """Wait without an eye on the socket."""
        with suppress(TimedOut):
            self._wait(self._blind.wait, None if seconds is None else self._engine.now() + seconds)
