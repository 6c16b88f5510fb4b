"""One client connection: reads requests, plays answers and faults, notes how each call ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from bridge.upstream.simulator import replies, scripts
from bridge.upstream.simulator.call import LiveCall
from bridge.upstream.simulator.channel import READ_SIZE, Channel
from bridge.upstream.simulator.faults import Fault
from bridge.upstream.simulator.inbound import BadRequest, Request, RequestReader
from bridge.upstream.simulator.loop import READ, WRITE, Loop, Timer
from bridge.upstream.simulator.stage import Stage

CONTROL_PREFIX: Final = "/_control/"
_MAX_PIPELINED: Final = 2 * 1024 * 1024
"""Bytes taken in while a call is under way; past that the socket is left alone."""
_CONTROL_PEEKS: Final = (b"GET /_control", b"POST /_control", b"DELETE /_control")


class Host(Protocol):
    """What a connection needs of the simulator."""

    stage: Stage
    loop: Loop
    base_url: str

    def control(self, request: Request) -> bytes:
        """Answer a request to the control endpoint."""

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""


class Connection:
    """A client's connection. Lives in the loop's thread only.

    Args:
        host: the simulator.
        channel: just accepted.
        number: from 1, in the order accepted.
    """

    __slots__ = (
        "_call",
        "_calls",
        "_channel",
        "_close_when_sent",
        "_early_done",
        "_handshaking",
        "_host",
        "_is_open",
        "_is_playing",
        "_left",
        "_out",
        "_reader",
        "_script",
        "_sent_bytes",
        "_timer",
        "_waiting_on",
        "number",
    )

    def __init__(self, host: Host, channel: Channel, number: int) -> None:
        self._host = host
        self._channel = channel
        self._is_open = True
        self.number = number
        self._reader = RequestReader()
        self._out = bytearray()
        self._call: LiveCall | None = None
        self._script: Iterator[scripts.Step] | None = None
        self._is_playing = False
        self._waiting_on = ""
        self._timer: Timer | None = None
        self._calls = 0
        self._sent_bytes = 0
        self._left = False
        self._close_when_sent = False
        self._early_done = False
        self._handshaking = channel.is_tls
        host.loop.watch(channel.sock, READ, self.on_ready)

    @property
    def is_idle(self) -> bool:
        """True if no call is under way and nothing is left to send."""
        return self._call is None and not self._out and not self._reader.size

    @property
    def has_carried_calls(self) -> bool:
        """True if at least one call of the API came this way."""
        return self._calls > 0

    def on_ready(self, events: int) -> None:
        """Do what the socket is ready for."""
        try:
            if self._handshaking:
                if not self._shake_hands():
                    return
            elif events & WRITE:
                self._flush()
            if events & READ and self._is_open:
                self._receive()
        except OSError:
            self._lose()
        except Exception:
            self.abort("internal_error")
            raise

    def close(self, end: str = "closed", sent: str | None = None) -> None:
        """Close in order.

        Args:
            end: how the call that is under way ended, for the log.
            sent: what its client was sent; None: tell by the bytes that left.
        """
        self._shut(end, sent, reset=False)

    def abort(self, end: str = "reset", sent: str | None = None) -> None:
        """Close so that the client sees a reset; arguments as of `close`."""
        self._shut(end, sent, reset=True)

    def _shut(self, end: str, sent: str | None, *, reset: bool) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._finish_call(end, sent)
        if self._timer is not None:
            self._timer.cancel()
        self._host.loop.watch(self._channel.sock, 0, self.on_ready)
        self._channel.close(reset)
        self._host.forget(self)

    # --- reading -----------------------------------------------------------------------------

    def _receive(self) -> None:
        if not self._early_done and self._early():
            return
        while self._is_open and not self._left:
            data = self._channel.receive()
            if data is None:
                break
            self._left = not data
            self._reader.feed(data)
            if self._reader.size > _MAX_PIPELINED:
                break
            if not self._channel.is_tls and len(data) < READ_SIZE:
                break  # a TLS layer may hold more than the socket shows; a bare socket calls again
        self._go_on()

    def _early(self) -> bool:
        """Let a fault act that needs nothing to be read; return whether one did."""
        stage = self._host.stage
        if self._call is not None or self._reader.size or not stage.faults.faults:
            return False
        if self._channel.peek().startswith(_CONTROL_PEEKS):
            return False
        with stage.lock:
            fault = stage.faults.pick_early(stage.monotonic())
        if fault is None:
            return False
        self._note_unread(fault)
        return True

    def _note_unread(self, fault: Fault) -> None:
        stage = self._host.stage
        with stage.lock:
            journal = stage.journal
            journal.unread += 1
            entry = journal.begin(stage.monotonic(), stage.now_s(), self.number, self._calls + 1)
            entry.fault = fault.name
            entry.reason = "unread"
        if fault.name == "reset_before":
            self.abort()
            with stage.lock:
                journal.finish(entry, stage.monotonic(), "reset")
            return
        self._host.loop.watch(self._channel.sock, 0, self.on_ready)

        def resume() -> None:
            with stage.lock:
                journal.finish(entry, stage.monotonic(), "resumed")
            self._early_done = True
            if self._is_open:
                self._host.loop.watch(self._channel.sock, READ, self.on_ready)

        if fault.params["seconds"] is not None:
            self._timer = self._host.loop.call_later(fault.params["seconds"], resume)

    def _shake_hands(self) -> bool:
        if not self._early_done and self._early():
            return False
        wanted = self._channel.shake_hands()
        if wanted:
            self._host.loop.watch(self._channel.sock, wanted, self.on_ready)
            return False
        self._handshaking = False
        self._watch()
        return True

    # --- answering ---------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._is_open and self._call is None and not self._close_when_sent:
            try:
                request = self._reader.take()
                if request is None:
                    if self._reader.expects_continue():
                        self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
                    return
            except BadRequest as problem:
                self._refuse(problem)
                return
            self._early_done = False
            if request.head.path.startswith(CONTROL_PREFIX):
                self._send(self._host.control(request))
                if not request.head.keep_alive:
                    self._end_after_answer()
                continue
            self._begin_call(request)

    def _begin_call(self, request: Request) -> None:
        self._calls += 1
        self._sent_bytes = 0
        call = LiveCall(self._host.stage, self._host.base_url, request, self.number, self._calls)
        self._call = call
        if call.verb != "POST":
            call.entry.reason = "not_post"
            call.tells = "other"
            page = scripts.PAGE
            self._send(call.answer(page, 405, headers="Allow: POST\r\n", content_type="text/html"))
            self._complete()
            return
        script = call.plan()
        if script is None:
            self._send(call.answer(call.judge()))
            self._complete()
            return
        self._script = script
        self._play()

    def _play(self) -> None:
        """Take steps of the script until it waits, blocks or ends."""
        if self._is_playing:
            return
        self._is_playing = True
        try:
            while self._script is not None and self._is_open and not self._out:
                step = next(self._script, None)
                if step is None:
                    self._script = None
                    self._complete()
                elif isinstance(step, bytes):
                    self._send(step)
                elif isinstance(step, float):
                    self._waiting_on = "time"
                    self._timer = self._host.loop.call_later(step, self._resume)
                    return
                elif step == scripts.HANG:
                    self._waiting_on = "client"
                    if self._left:
                        self._leave()
                    return
                elif step == scripts.RESET:
                    self.abort("reset", self._tells())
                else:
                    self.close("closed", self._tells())
        finally:
            self._is_playing = False

    def _resume(self) -> None:
        self._waiting_on = ""
        try:
            self._play()
            self._go_on()
        except OSError:
            self._lose()
        except Exception:
            self.abort("internal_error")
            raise

    def _complete(self) -> None:
        """The answer is on its way in full."""
        call = self._call
        if call is None or self._out:
            return  # `_flush` comes back here when the rest is out
        self._finish_call("answered", call.tells)
        if call.idle_close_s is not None:
            self._close_if_idle_after(call.idle_close_s)
        if not call.keep_alive:
            self._end_after_answer()

    def _close_if_idle_after(self, seconds: float) -> None:
        calls = self._calls

        def check() -> None:
            if self._calls == calls and self.is_idle:
                self.close()

        if seconds <= 0:
            self.close()
        else:
            self._host.loop.call_later(seconds, check)

    def _end_after_answer(self) -> None:
        self._close_when_sent = True
        if not self._out:
            self.close()

    def _tells(self) -> str | None:
        return None if self._call is None else self._call.tells

    def _finish_call(self, end: str, sent: str | None) -> None:
        call, self._call = self._call, None
        self._script = None
        if call is not None:
            call.finish(end, sent or ("part" if self._sent_bytes else "nothing"))

    def _refuse(self, problem: BadRequest) -> None:
        stage = self._host.stage
        with stage.lock:
            stage.journal.malformed += 1
            entry = stage.journal.begin(stage.monotonic(), stage.now_s(), self.number, self._calls + 1)
            entry.reason, entry.status, entry.sent = "malformed_http", problem.status, "other"
            stage.journal.finish(entry, stage.monotonic(), "closed")
        page = f"{problem}\n".encode()
        date = stage.date()
        self._send(
            replies.render(
                problem.status, page, date=date, content_type="text/plain", headers="Connection: close\r\n"
            )
        )
        self._end_after_answer()

    # --- sending and leaving -----------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if not self._is_open:
            return
        if not self._out:
            sent = self._channel.send(data)
            self._sent_bytes += sent
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        self._watch()

    def _flush(self) -> None:
        while self._out and self._is_open:
            sent = self._channel.send(self._out[:READ_SIZE])
            if not sent:
                break
            self._sent_bytes += sent
            del self._out[:sent]
        if not self._out:
            if self._close_when_sent:
                self.close()
                return
            if self._script is not None:
                if not self._waiting_on:
                    self._play()
            else:
                self._complete()
        self._go_on()

    def _go_on(self) -> None:
        """Serve what has arrived meanwhile, and close if the client has nothing more to say."""
        self._serve()
        if self._left and self._is_open:
            self._leave()
        self._watch()

    def _watch(self) -> None:
        if not self._is_open or self._handshaking:
            return
        wants_read = not self._left and self._reader.size <= _MAX_PIPELINED
        events = (READ if wants_read else 0) | (WRITE if self._out else 0)
        self._host.loop.watch(self._channel.sock, events, self.on_ready)

    def _leave(self) -> None:
        """The client has closed its side: finish what has an end, drop what has none."""
        is_done = self._call is None and not self._out
        if is_done or self._waiting_on == "client":
            self.close("client_gone")

    def _lose(self) -> None:
        """The connection broke."""
        self._out.clear()
        self.close("client_gone")
