"""One client connection: a greenlet that reads requests, and the calls that are answered or broken by it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bridge.engine import TimedOut
from bridge.simulator import replies
from bridge.simulator.control import serve_control
from bridge.simulator.faults import FAULTS, NOT_POST, PLAIN, FaultType
from bridge.simulator.journal import Row, fingerprint
from bridge.simulator.model import read_body
from bridge.simulator.reader import BadRequest, Request, RequestReader

if TYPE_CHECKING:
    import ssl

    from bridge.simulator.simulator import Simulator

CONTROL_PREFIX: Final = "/_control/"
_CONTROL_PEEKS: Final = (b"GET /_control", b"POST /_control", b"DELETE /_control")
_READ_SIZE: Final = 65536


class Ended(Exception):
    """A connection is to end now; its argument says how, for the log."""


class Call:
    """A call to the simulated API: which fault breaks it, its verdict, its line in the log.

    Args:
        host: what serves.
        wire: the connection.
        request: as read.
    """

    def __init__(self, host: Simulator, wire: Connection, request: Request) -> None:
        self._state = state = host.state
        self.base_url = host.base_url
        self.send, self.pause, self.date = wire.send, wire.pause, state.date
        self.verb, self.method = request.verb, _path_of(request.target)[1:]
        self.keep_alive = request.keep_alive
        self.idle_close_s: float | None = None
        self._verdict: bytes | None = None
        self.facts = facts = read_body(request.body)
        self.client_key = facts.client_key or ""
        self.account = fingerprint(self.client_key)
        journal = state.journal
        journal.counters["requests"] += 1
        journal.counters["connections"] += wire.calls == 1
        self.entry = journal.begin(
            wire.number,
            wire.calls,
            verb=self.verb,
            method=self.method,
            taskId=facts.task_id,
            bodyKeys=list(facts.body_keys),
            headers=[list(pair) for pair in request.headers],
        )
        self._tally: Row = {}
        if facts.client_key is not None:
            self.entry["account"] = self.account
            self._mask_key(request, facts.client_key.encode("utf-8", "surrogatepass").decode("latin-1"))
            if facts.task_id is not None and self.verb == "POST":
                self._tally = journal.deliver(self.account, facts.task_id)

    def _mask_key(self, request: Request, key: str) -> None:
        entry = self.entry
        if key in request.target or any(key in name or key in value for name, value in request.headers):
            entry["keyInHead"] = True
            entry["method"] = self.method.replace(key, "***")
            entry["headers"] = [[text.replace(key, "***") for text in pair] for pair in request.headers]

    def play(self) -> None:
        """Answer, or do what the fault does that breaks this call.

        Raises:
            Ended: that is what the fault does.
        """
        kind, params = self._choose()
        if kind is PLAIN or params.get("taken"):
            self.judge()
        if self._state.settings["latencySeconds"] > 0:
            self.pause(self._state.settings["latencySeconds"])
        self.send(kind.play(self, params) or b"")
        self.entry["sent"] = kind.tells
        if kind.end:
            raise Ended(kind.end)

    def _choose(self) -> tuple[FaultType, Mapping[str, Any]]:
        if self.verb != "POST":
            self.entry["reason"] = "not_post"
            return NOT_POST, {}
        state, task_id = self._state, self.facts.task_id
        effect = state.model.effect_of(task_id)
        is_spent = effect.only_first and self._tally.get("delivered", 0) > 1
        armed = state.pick("call", self.method, task_id) if state.armed else None
        name, params = (armed["fault"], armed) if armed else (effect.fault, effect.params)
        if name is None or (armed is None and is_spent):
            return PLAIN, {}
        self.entry["fault"] = name
        return FAULTS[name], params

    def judge(self) -> bytes:
        """Apply the rules, once; return the verdict as JSON. A good report is now taken."""
        if self._verdict is None:
            entry, counters = self.entry, self._state.journal.counters
            judgement = self._state.model.judge(self.method, self.facts, self.account, self._state.now_s())
            entry["errorId"], entry["reason"], self._verdict = judgement
            entry["taken"] = judgement.taken
            counters["taken"] += judgement.taken
            counters["refused"] += judgement.error_id != 0
            if judgement.taken:
                self._tally["taken"] += 1
        return self._verdict

    def say(self, error_id: int, code: str | None = None, description: str | None = None) -> bytes:
        """Return an error verdict that stands in for the rules, and note it in the log.

        Args:
            error_id: any number.
            code: None is the usual code of the id.
            description: None is the usual description.
        """
        self.entry["errorId"], self.entry["reason"] = error_id, "fault"
        if code is None:
            code = self._state.model.code_of(error_id, self.method)
        return replies.error_body(error_id, code, description)

    def answer(self, body: bytes, status: int = 200, *, headers: str = "", **unusual: Any) -> bytes:
        """Return a whole answer; `unusual` are arguments of `replies.render` in place of the usual ones."""
        self.entry["status"] = status
        if not self.keep_alive:
            headers += "Connection: close\r\n"
        usual = {"date": self.date(), "content_type": self._state.settings["contentType"]}
        return replies.render(status, body, headers=headers, **{**usual, **unusual})


def _path_of(target: str) -> str:
    """Return the path of a request target, which clients of proxies send as a whole URL."""
    if "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


class Connection:
    """A client's connection.

    Args:
        host: what serves.
        sock: just accepted, non-blocking.
        number: from 1, in the order accepted.
    """

    def __init__(self, host: Simulator, sock: socket.socket, number: int) -> None:
        self._host = host
        self._engine = host.engine
        self._tls: ssl.SSLSocket | None = None
        if host.context is not None:
            self._tls = host.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._sock: socket.socket = self._tls or sock
        self._ready = self._engine.readiness(self._sock.fileno())
        self._blind = self._engine.waiter()
        self._ending: Ended | None = None
        self._reader = RequestReader()
        self.number = number
        self.calls = 0
        """Calls of the API that came this way."""
        self._entry: Row | None = None
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
        call = Call(self._host, self, request)
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
        self._entry = state.journal.begin(
            self.number, self.calls + 1, reason="malformed_http", status=problem.status
        )
        page, usual = f"{problem}\n".encode(), {"date": state.date(), "content_type": "text/plain"}
        self.send(replies.render(problem.status, page, headers="Connection: close\r\n", **usual))
        self._entry["sent"] = "other"

    def _await_bytes(self, until: float | None = None) -> None:
        """Wait until something has arrived, and let the faults act that need nothing to be read."""
        if self._tls is None or not self._tls.pending():
            self._wait(self._ready.wait_readable, until)
        state = self._host.state
        if self._early_done or not state.armed or not self.is_idle:
            return
        if self._tls is None and self._try(self._sock.recv, 20, socket.MSG_PEEK).startswith(_CONTROL_PEEKS):
            return
        fault = state.pick("begin")
        if fault is None:
            return
        state.journal.counters["unread"] += 1
        self._entry = state.journal.begin(self.number, self.calls + 1, reason="unread", fault=fault["fault"])
        if fault["fault"] == "reset_before":
            raise Ended("reset")
        seconds = fault["seconds"]
        with suppress(TimedOut):  # without an eye on the socket
            self._wait(self._blind.wait, None if seconds is None else self._engine.now() + seconds)
        self._early_done = True
        self._finish("resumed")

    # --- the wire ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes."""
        left = memoryview(data)
        while left:
            left = left[self._try(self._sock.send, left[:_READ_SIZE]) :]
            if self._entry is not None:
                self._entry["sent"] = "part"

    def pause(self, seconds: float | None) -> None:
        """Let so many seconds pass; None: until the client leaves. What arrives meanwhile is taken in."""
        until = None if seconds is None else self._engine.now() + seconds
        with suppress(TimedOut):
            while not self._left:
                self._receive(until)
            if until is None:
                raise Ended("client_gone")
            self._wait(self._blind.wait, until)

    def _receive(self, until: float | None = None) -> None:
        """Take in what arrives next."""
        data: bytes = self._try(self._sock.recv, _READ_SIZE, until=until)
        self._left = not data
        self._reader.feed(data)

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
