"""HTTP/1.1 requests out of bytes: feed what arrived, take whole requests, one at a time.

Has no I/O. The parser is httptools'; here are the limits, and what a client's mistake is answered with.
Nothing a client sends may raise anything but `BadRequest`.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
_SLICE: Final = 4096
"""Bytes given to the parser at a time, so that a line without an end is noticed."""


class BadRequest(Exception):
    """A client sent something that is no acceptable HTTP request.

    Args:
        status: the HTTP status to answer with before the connection is closed.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Request(NamedTuple):
    """One whole request; text is latin-1."""

    verb: str
    target: str
    """As sent, query included."""
    headers: tuple[tuple[str, str], ...]
    """As received, in their order."""
    keep_alive: bool
    body: bytes


class RequestReader:
    """Cuts the bytes of one connection into requests."""

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._ready: deque[Request] = deque()
        self._problem: BadRequest | None = None
        self._is_inside = False
        self._silent_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = self._head_bytes = 0
        self._has_head = False
        self._wants_continue = False

    @property
    def is_idle(self) -> bool:
        """True if nothing of a request is held."""
        return not (self._is_inside or self._ready or self._problem)

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        for at in range(0, len(data), _SLICE):
            if self._problem is None:
                self._parse(data[at : at + _SLICE])

    def take(self) -> Request | None:
        """Return the next whole request, or None while more bytes are needed.

        Raises:
            BadRequest: what arrived cannot become a request; the connection is of no more use.
        """
        if self._ready:
            return self._ready.popleft()
        if self._problem is not None:
            raise self._problem
        return None

    def expects_continue(self) -> bool:
        """Say, once per request, whether the client waits for a 100 before it sends its body."""
        wanted = self._has_head and self._wants_continue
        self._wants_continue = False
        return wanted

    def _parse(self, data: bytes) -> None:
        self._silent_bytes += len(data)  # whatever the parser tells sets it to 0
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except HttpParserError as error:
            if self._problem is None:
                self._problem = BadRequest(400, str(error) or "the request is malformed")
        # RFC 9112 2.2: an empty line before a request is ignored, more than one here is not.
        if self._silent_bytes > (MAX_HEAD_BYTES - _SLICE if self._is_inside else 2):
            self._problem = BadRequest(431 if self._is_inside else 400, "a line without an end")

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read a request that offers another protocol as if it did not."""
        request = self._ready.pop()
        if request.verb == "CONNECT":
            self._problem = BadRequest(400, "this server is no proxy")
            return
        kept = [f"{name}: {value}" for name, value in request.headers if name.lower() != "upgrade"]
        head = "\r\n".join((f"{request.verb} {request.target} HTTP/1.1", *kept, "", ""))
        self._parser = HttpRequestParser(self)
        self._parse(head.encode("latin-1"))
        self.feed(rest)

    def _refuse(self, status: int, problem: str) -> None:
        self._problem = BadRequest(status, problem)
        raise self._problem  # the parser stops and raises an error of its own

    # --- told by the parser ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self._is_inside = True
        self._silent_bytes = 0

    def on_url(self, part: bytes) -> None:
        """A part of the target has come."""
        self._target += part
        self._note_head(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer."""
        self._note_head(len(name) + len(value))
        if not self._has_head:
            self._headers.append((name, value))
            self._wants_continue |= name.lower() == b"expect" and value.lower() == b"100-continue"
            if name.lower() == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY_BYTES:
                self._refuse(413, "the body is too long")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._has_head = True
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refuse(400 if version == "0.9" else 505, "only HTTP/1.1 and HTTP/1.0 are spoken")

    def on_body(self, part: bytes) -> None:
        """A part of the body has come."""
        self._silent_bytes = 0
        self._body.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse(413, "the body is too long")

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_inside = False
        self._silent_bytes = 0
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._headers)
        verb, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        self._ready.append(Request(verb, target, headers, keep_alive, b"".join(self._body)))
        self._begin()

    def _note_head(self, size: int) -> None:
        self._silent_bytes = 0
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "the head of the request is too long")
