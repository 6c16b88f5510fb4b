"""HTTP/1.1 requests out of bytes: feed what arrived, take whole requests, one at a time.

Has no I/O. A client's mistake is `BadRequest` with the status a server should answer; nothing a
client sends may raise anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
_MAX_KNOWN_HEADS: Final = 512


class BadRequest(Exception):
    """A client sent something that is no acceptable HTTP request.

    Args:
        status: the HTTP status to answer with before the connection is closed.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class Head(NamedTuple):
    """Request line and headers."""

    verb: str
    path: str
    """Request target as sent, query included."""
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    length: int
    """Content-Length; 0 if there is none, -1 for a chunked body."""
    keep_alive: bool
    raw: bytes


class Request(NamedTuple):
    """One whole request."""

    head: Head
    body: bytes


# Clients repeat their heads byte for byte: parsing each spelling once saves a third of the time.
_known_heads: dict[bytes, Head] = {}


class RequestReader:
    """Cuts the bytes of one connection into requests. Not for use by several threads."""

    __slots__ = ("_buffer", "_head", "_seen")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Head | None = None
        self._seen = 0

    @property
    def size(self) -> int:
        """Bytes held and not yet taken as a request."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        self._buffer += data

    def expects_continue(self) -> bool:
        """Say, once per request, whether the client waits for a 100 before it sends its body."""
        head = self._head
        if head is None or head.headers.get("expect", "").lower() != "100-continue" or self._seen == -1:
            return False
        self._seen = -1
        return True

    def take(self) -> Request | None:
        """Return the next whole request, or None while more bytes are needed.

        Raises:
            BadRequest: what arrived cannot become a request; the connection is of no more use.
        """
        buffer = self._buffer
        head = self._head
        if head is None:
            while buffer.startswith(b"\r\n"):  # RFC 9112 2.2: empty lines before a request are ignored
                del buffer[:2]
            if not buffer:
                return None
            end = buffer.find(b"\r\n\r\n", max(self._seen - 3, 0))
            if end < 0:
                self._seen = len(buffer)
                if self._seen > MAX_HEAD_BYTES:
                    raise BadRequest(431, "the head of the request is too long")
                if b"\n" in buffer and not _is_request_line(bytes(buffer[: buffer.find(b"\n")])):
                    raise BadRequest(400, "the first line is not a request line")
                return None
            raw = bytes(buffer[:end])
            head = _known_heads.get(raw)
            if head is None:
                head = parse_head(raw)
                if len(_known_heads) >= _MAX_KNOWN_HEADS:
                    _known_heads.clear()
                _known_heads[raw] = head
            del buffer[: end + 4]
            self._head = head
            self._seen = 0
        if head.length < 0:
            body = self._take_chunks()
            if body is None:
                return None
        else:
            if len(buffer) < head.length:
                return None
            body = bytes(buffer[: head.length])
            del buffer[: head.length]
        self._head = None
        self._seen = 0
        return Request(head, body)

    def _take_chunks(self) -> bytes | None:
        """Return a chunked body once it is whole; starts over each time, which its limit keeps cheap."""
        buffer = self._buffer
        body = bytearray()
        at = 0
        while True:
            end = buffer.find(b"\r\n", at, at + 1024)
            if end < 0:
                if len(buffer) - at > 1024:
                    raise BadRequest(400, "the size of a chunk is malformed")
                return None
            size_text = bytes(buffer[at:end]).split(b";", 1)[0].strip()
            if not size_text or size_text.strip(b"0123456789abcdefABCDEF") or len(size_text) > 8:
                raise BadRequest(400, "the size of a chunk is malformed")
            size = int(size_text, 16)
            at = end + 2
            if size == 0:
                break
            if len(body) + size > MAX_BODY_BYTES:
                raise BadRequest(413, "the body is too long")
            if len(buffer) < at + size + 2:
                return None
            body += buffer[at : at + size]
            at += size + 2
            if buffer[at - 2 : at] != b"\r\n":
                raise BadRequest(400, "a chunk does not end where it says")
        while True:  # trailer fields, up to the empty line
            end = buffer.find(b"\r\n", at)
            if end < 0:
                if len(buffer) - at > MAX_HEAD_BYTES:
                    raise BadRequest(431, "the trailer is too long")
                return None
            if end == at:
                del buffer[: at + 2]
                return bytes(body)
            at = end + 2


def parse_head(raw: bytes) -> Head:
    """Read request line and headers, given without the empty line that ends them.

    Raises:
        BadRequest: the head is malformed or asks for what this server does not do.
    """
    lines = raw.decode("latin-1").split("\r\n")
    if not _is_request_line(lines[0].encode("latin-1")):
        raise BadRequest(400, "the first line is not a request line")
    verb, path, version = lines[0].split(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken")
    headers: dict[str, str] = {}
    lengths: set[str] = set()
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line or "\0" in line:
            raise BadRequest(400, "a header line is malformed")
        headers[name.lower()] = value.strip(" \t")
        if name.lower() == "content-length":
            lengths.add(value.strip(" \t"))
    length = 0
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked" or lengths:
            raise BadRequest(400, "the body's length is told in a way that is not understood")
        length = -1
    elif lengths:
        text = lengths.pop()
        if lengths or not text.isascii() or not text.isdigit() or len(text) > 15:
            raise BadRequest(400, "the Content-Length is malformed")
        length = int(text)
        if length > MAX_BODY_BYTES:
            raise BadRequest(413, "the body is too long")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    return Head(verb, path, headers, length, keep_alive, raw)


def _is_request_line(line: bytes) -> bool:
    parts = line.rstrip(b"\r").split(b" ")
    return (
        len(parts) == 3
        and parts[0].isalpha()
        and parts[0].isupper()
        and bool(parts[1])
        and parts[2].startswith(b"HTTP/")
    )
