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
        self._wants_continue = False
        self._loose_bytes = 0
        """Bytes since a head, a part of a body or a request was whole."""

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
        wanted, self._wants_continue = self._wants_continue, False
        return wanted

    def _parse(self, data: bytes) -> None:
        self._loose_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except HttpParserError as error:
            self._problem = self._problem or BadRequest(400, str(error) or "the request is malformed")
        # RFC 9112 2.2: an empty line before a request is ignored, more than one here is not.
        if self._problem is None and self._loose_bytes > (MAX_HEAD_BYTES if self._is_inside else 2):
            self._problem = BadRequest(431 if self._is_inside else 400, "the head, or a line, is too long")

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
        self._is_inside = True
        self._has_head = False
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()

    def on_url(self, part: bytes) -> None:
        """A part of the target has come."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come, or a trailer."""
        if not self._has_head:
            self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._has_head = True
        self._loose_bytes = 0
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refuse(400 if version == "0.9" else 505, "only HTTP/1.1 and HTTP/1.0 are spoken")
        told = {name.lower(): value.lower() for name, value in self._headers}
        self._wants_continue = told.get("expect") == "100-continue"
        length = told.get("content-length", "")
        if length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
            self._refuse(413, "the body is too long")

    def on_body(self, part: bytes) -> None:
        """A part of the body has come."""
        self._loose_bytes = 0
        self._body += part
        if len(self._body) > MAX_BODY_BYTES:
            self._refuse(413, "the body is too long")

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_inside = self._wants_continue = False
        self._loose_bytes = 0
        verb, target = self._parser.get_method().decode("latin-1"), self._target.decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        self._ready.append(Request(verb, target, tuple(self._headers), keep_alive, bytes(self._body)))
