"""The transport under `requests`: one request out, one answer in, inside the limits of its call.

Takes the place of urllib3, which has no total deadline and costs eight times as much a report. Also where
exceptions become the words of `Exchange.failure`. Retries nothing, follows nothing, unpacks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import requests
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from requests import exceptions as rex
from requests.adapters import BaseAdapter

from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.connecting import Connect, Unreached
from bridge.upstream.heads import (
    MAX_ANSWER_BYTES,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Answer,
    Cut,
    Malformed,
    Reader,
)
from bridge.upstream.pool import Pool
from bridge.upstream.streams import PIECE_BYTES, Stream

_FINAL: Final = frozenset({b"2", b"3", b"4", b"5"})
"""First digits of the statuses that the strict parser is asked to read."""


class WindowOver(Exception):
    """No byte of the request may leave any more."""


FAILURES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (WindowOver, "window"),
    (rex.Timeout, "timeout"),
    (rex.ChunkedEncodingError, "cut"),
    (rex.ContentDecodingError, "malformed"),
    (rex.ConnectionError, "reset"),
    (TimeoutError, "timeout"),
    (Cut, "cut"),
    (HttpParserError, "malformed"),
    (HttpParserUpgrade, "malformed"),
    (OSError, "reset"),
    (ValueError, "malformed"),
)
"""What an exception means once there is a connection; the first row that fits wins."""

_REQUESTS_FAULTS: Final = (
    rex.Timeout,
    rex.ConnectionError,
    rex.ChunkedEncodingError,
    rex.ContentDecodingError,
)


def name_failure(error: BaseException) -> str | None:
    """Say which `Exchange.failure` an exception is.

    Returns:
        None if neither the network nor the upstream can have caused it: a mistake in this program.
    """
    if isinstance(error, Unreached):
        return error.failure
    if isinstance(error, rex.RequestException) and not isinstance(error, _REQUESTS_FAULTS):
        return None  # they are OSErrors too, but say that requests was used wrongly
    for kind, failure in FAILURES:
        if isinstance(error, kind):
            return failure
    return None


class Call(requests.PreparedRequest):
    """A prepared request, the moments of the boot clock that it keeps to, and the facts that it has met.

    Args:
        template: what all requests of its method share: the members of a prepared request, and `head`.
        body: sent as it is.
        until: when the attempt ends, whatever drips.
        leave_by: no byte of the request leaves later.
        is_fresh: open a new connection whatever is idle.
    """

    head: bytes
    """Everything that leaves before the value of Content-Length, the last header line."""

    def __init__(
        self, template: Mapping[str, Any], body: bytes, until: float, leave_by: float, is_fresh: bool
    ) -> None:
        self.__dict__.update(template)
        self.body = body
        self.until = until
        self.leave_by = leave_by
        self.is_fresh = is_fresh
        self.is_reused = False
        self.is_sent = False
        """True once the first byte may have left."""
        self.answer: Answer | None = None
        """Once the first byte of it has come."""


class Received(requests.Response):
    """An answer that was read to its end already.

    The stock class makes a cookie jar with two locks for every answer, a fifth of what a whole report costs.
    """

    encoding = None
    reason = ""
    url = ""

    def __init__(self, answer: Answer) -> None:
        self.status_code = answer.status  # type: ignore[assignment]  # it has one
        self.headers = answer.fields  # type: ignore[assignment]  # names are in lower case already
        self._content = answer.body
        self._content_consumed = True
        self._next = None
        self.history = []
        self.raw = None  # without a raw answer requests looks for no cookies


class Adapter(BaseAdapter):
    """Carries calls over kept connections.

    Args:
        engine: where to wait.
        connect: opens connections.
        connect_timeout_s: bound of `connect`.
        pool: where connections wait.
    """

    def __init__(self, engine: Engine, connect: Connect, connect_timeout_s: float, pool: Pool) -> None:
        super().__init__()
        self._now = engine.now
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._pool = pool

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Received:
        """Send a request and read its answer.

        Args:
            request: a `Call`, which also takes the facts as they become known.
            stream: ignored; the answer is always read here, up to the limit.
            timeout: ignored; the call has its moments.
            verify: ignored; certificates are always verified.
            cert: ignored.
            proxies: ignored; the connection knows the way.

        Raises:
            NoResources: this machine cannot open a connection or send just now; nothing has left.
            Exception: `name_failure` says what it means.
        """
        assert isinstance(request, Call)
        call = request
        link = None if call.is_fresh else self._pool.take()
        if link is None:
            link = self._connect(min(call.until, call.leave_by, self._now() + self._connect_timeout_s))
            self._pool.opened += 1
        else:
            call.is_reused = True
        try:
            self._transmit(link, call)
            answer = read_answer(link, call)
        except BaseException:
            link.close()
            if call.is_reused and call.is_sent and call.answer is None:
                # Perhaps the network has changed, and then all of them are dead.
                self._pool.let_go()
            raise
        if answer.may_stay:
            self._pool.give(link, answer.fields.get("keep-alive"))
        else:
            link.close()
        return Received(answer)

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer has come."""
        self._pool.close()

    def _transmit(self, link: Stream, call: Call) -> None:
        now = self._now()
        if now >= call.leave_by:
            raise WindowOver
        if now >= call.until:
            raise TimedOut("no time is left to send")
        assert isinstance(call.body, bytes)
        call.is_sent = True
        try:
            # One call, so one packet: head and body apart would wait for each other (Nagle, delayed ACK).
            link.send_all(
                b"%b%d\r\n\r\n%b" % (call.head, len(call.body), call.body), min(call.until, call.leave_by)
            )
        except NoResources:
            call.is_sent = False
            raise


def read_answer(link: Stream, call: Call) -> Answer:
    """Read one answer: strictly, or if that is refused, tolerantly and from the beginning."""
    receive, until = link.receive, call.until
    data = piece = receive(PIECE_BYTES, until)
    if not data:
        raise ConnectionResetError("no answer")
    call.answer = message = Message()
    fault: OSError | None = None
    if data[:7] == b"HTTP/1." and data[9:10] in _FINAL:
        parser = HttpResponseParser(message)
        try:
            while True:
                parser.feed_data(piece)
                if message.is_whole or len(message.body) > MAX_BODY_BYTES or _is_too_much(data):
                    break
                piece = receive(PIECE_BYTES, until)
                if not piece:
                    break
                data += piece
        except (HttpParserError, HttpParserUpgrade):
            pass
        except OSError as error:
            fault = error
        if message.settle(data):
            return message
    call.answer = answer = Answer()

    def receive_more() -> bytes:
        if fault is not None:
            raise fault
        return receive(PIECE_BYTES, until)

    reader = Reader(answer, data, receive_more)
    reader.read_head()
    reader.read_body()
    return answer


def _is_too_much(data: bytes) -> bool:
    if len(data) <= MAX_HEAD_BYTES:
        return False
    return len(data) > MAX_ANSWER_BYTES or data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4) < 0


class Message(Answer):
    """An answer as the strict parser tells of it."""

    __slots__ = ("_fields", "is_followed", "is_whole")

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, str] = {}
        self.is_whole = False
        self.is_followed = False
        """True if another message came behind it, which nobody asked for."""

    def settle(self, data: bytes) -> bool:
        """Conclude what is told of the answer; False if another reader must look at the bytes.

        Args:
            data: everything that has come.
        """
        head_end = data.find(b"\r\n\r\n")
        is_oversize = len(self.body) > MAX_BODY_BYTES
        if not (self.is_whole or is_oversize) or not 0 < head_end <= MAX_HEAD_BYTES:
            return False
        self.status = int(data[9:12])
        if is_oversize:
            self.body, self.is_oversize = self.body[:MAX_BODY_BYTES], True
            return True
        fields = self.fields
        if "transfer-encoding" in fields:
            is_clean = data.endswith(b"\r\n\r\n") and not data.endswith(b"\n\r\n\r\n")
        else:
            is_clean = len(data) == head_end + 4 + len(self.body)
        connection = fields.get("connection")
        is_left = connection is not None and "close" in connection.lower()
        self.may_stay = is_clean and not (is_left or self.is_followed) and data[7:8] == b"1"
        return True

    # --- called by the parser; what is raised here makes it refuse the answer -----------------

    def on_message_begin(self) -> None:
        """Read one message and no more."""
        if self.is_whole:
            self.is_followed = True
            raise ValueError("another message behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header line."""
        fields = self._fields
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        """Take the head; later lines are trailers, which nobody asked for."""
        fields = self._fields
        if self.is_whole or ("transfer-encoding" in fields and fields["transfer-encoding"] != "chunked"):
            raise Malformed("a second answer, or an odd transfer coding")
        self.fields, self._fields = fields, {}

    def on_body(self, data: bytes) -> None:
        """Add to the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self.is_whole = True
