"""An HTTP/1.1 answer read under one total deadline and one total length.

Stands on `http.client.HTTPResponse` for bodies. The head is read here: the library's way through the
e-mail parser costs 40 us, accepts what is not HTTP, and skips no other 1xx than 100. Opens no connection.
"""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from typing import Any, Final, Protocol, cast

from bridge.upstream.attempt import now

MAX_BODY_BYTES: Final = 64 * 1024
"""How much of a body is read: the contract's limit."""
MAX_LINE_BYTES: Final = 64 * 1024
MAX_FIELDS: Final = 100
"""Limits of one line and one head, those of `http.client`."""
MAX_INTERIM: Final = 16
"""Interim (1xx) answers that are skipped; one or two are what servers send."""
MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Everything that is read for one answer: a full body in one-byte chunks takes 400 KB."""

_GLANCE_BYTES: Final = 16 * 1024
_GLANCE_CHUNKS: Final = 16
"""Answers up to this are looked through each time more comes; a verdict is 200 bytes in one chunk."""

_LINES: Final[dict[bytes, tuple[str, str]]] = {}
"""Header lines met before and what they say: a server repeats most of them in every answer."""
_MEMO_LINES: Final = 64
_MEMO_BYTES: Final = 128
_NAME_CHARACTERS: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class Source(Protocol):
    """The two methods of a socket that reading needs."""

    def settimeout(self, value: float | None, /) -> None:
        """Bound the next operation."""

    def recv_into(self, buffer: Any, /) -> int:
        """Receive some bytes; 0 at the end."""


class _Feed(io.RawIOBase):
    """Raw bytes of a socket; each read may only take what is left of the deadline."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.until: float | None = None
        self.left = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self.until is None:
            return None  # "nothing now": lets the buffer above be looked into without a system call
        left_s = self.until - now()
        if left_s <= 0.0 and not getattr(self._source, "ahead", b""):
            raise TimeoutError("the answer did not end in time")
        if self.left <= 0:
            raise HTTPException("the answer is too long")
        self._source.settimeout(left_s)
        count = self._source.recv_into(buffer)
        self.left -= count
        self.ended = not count
        return count


class Inlet:
    """The reading side of one connection; serves one `Answer` after another.

    It is its own file object, because `HTTPResponse` closes the one it gets after each answer.
    """

    __slots__ = ("_feed", "_peek", "read", "readline")

    def __init__(self, source: Source) -> None:
        self._feed = _Feed(source)
        reader = io.BufferedReader(self._feed)
        self._peek = reader.peek
        self.read = reader.read
        self.readline = reader.readline

    def expect(self, until: float) -> None:
        """Allow reading one answer, up to the instant `until`."""
        self._feed.until = until
        self._feed.left = MAX_ANSWER_BYTES

    @property
    def ended(self) -> bool:
        """True once the other side has closed."""
        return self._feed.ended

    def has_surplus(self) -> bool:
        """Tell, without reading from the socket, whether bytes came that no answer has used."""
        self._feed.until = None
        return bool(self._peek(1))

    def makefile(self, _mode: str) -> Inlet:
        """Play the socket that `HTTPResponse` asks for a file."""
        return self

    def flush(self) -> None:
        """Do nothing; part of the file that `HTTPResponse` closes."""

    def close(self) -> None:
        """Do nothing: the connection outlives its answers."""


class WholeInlet(io.BytesIO):
    """An answer that has come whole, played like an `Inlet`."""

    ended = False

    def has_surplus(self) -> bool:
        """Tell whether bytes came that the answer has not used."""
        return bool(self.read(1))

    def makefile(self, _mode: str) -> WholeInlet:
        """Play the socket that `HTTPResponse` asks for a file."""
        return self

    def close(self) -> None:
        """Do nothing: the surplus is looked at after the answer."""


def is_whole(data: bytes) -> bool | None:
    """Say whether bytes that have come are a whole answer, so that reading it will not wait.

    Decides about waiting only; what the answer is decides `Answer`.

    Returns:
        True if it is whole, False if more of it must come, None if only reading can tell: half a head, an
        interim answer, one that ends with the connection, a long one, or anything that is odd.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False if b"HTTP/1.1"[: len(data)] == data else None
    is_plain = data.find(b"\n\r\n") == end + 1 and data.find(b"\n\n", 0, end) < 0
    if not is_plain or data[:7] != b"HTTP/1." or data[9:10] not in b"2345":
        return None
    if data[9:12] in (b"204", b"304"):  # they have no body, whatever their length says
        return None
    head = data[:end].lower() + b"\r"
    coding = head.find(b"\ntransfer-encoding:")
    at = head.find(b"\ncontent-length:")
    if (at < 0) == (coding < 0) or head.find(b"\ncontent-length:", at + 1) > at >= 0:
        return None
    if at >= 0:
        length = head[at + 16 :].partition(b"\r")[0].strip()
        is_there = length.isdigit() and len(length) < 10 and len(data) - end - 4 >= int(length)
        return is_there or (None if len(data) > _GLANCE_BYTES or not length.isdigit() else False)
    is_chunked = head[coding + 19 :].partition(b"\r")[0].strip() == b"chunked"
    return _has_last_chunk(data, end + 4) if is_chunked else None


def _has_last_chunk(data: bytes, at: int) -> bool | None:
    for _ in range(_GLANCE_CHUNKS):
        end = data.find(b"\r\n", at)
        if end < 0:
            return False if len(data) - at < 10 else None
        size = data[at:end]
        if not size.isalnum() or len(size) > 5:
            return None
        try:
            length = int(size, 16)
        except ValueError:
            return None
        if length == 0:
            rest = data[end + 2 : end + 4]
            return True if rest == b"\r\n" else False if len(rest) < 2 else None
        at = end + 2 + length + 2
        if at > len(data):
            return None if len(data) > _GLANCE_BYTES else False
    return None


class Answer(HTTPResponse):
    """One final answer. Its `fields` replace the ``headers`` of the library.

    Source: RFC 9112, sections 4 (status line), 5 (fields), 6.3 (length), 9.3 (persistence).
    """

    def __init__(self, inlet: Inlet | WholeInlet, method: str = "POST") -> None:
        super().__init__(cast(Any, inlet), method=method)
        self._inlet = inlet
        self._is_tunnel = method == "CONNECT"
        self.final_status: int | None = None
        self.fields: dict[str, str] = {}

    def begin(self) -> None:
        """Read the head of the final answer, skipping interim ones.

        Raises:
            RemoteDisconnected: the connection ended before any byte.
            IncompleteRead: it ended inside the head.
            HTTPException: what came is not HTTP/1.x, or too much of it.
        """
        for _ in range(MAX_INTERIM + 1):
            self._read_status_line()
            self._read_fields()
            if self.final_status is not None:
                self._settle_length()
                return
        raise HTTPException("too many interim answers")

    def read_body(self) -> tuple[bytes, bool]:
        """Read the body up to the limit.

        Returns:
            The body and whether there is more of it than the limit.

        Raises:
            IncompleteRead: the connection ended inside the body.
            HTTPException: the body's framing is broken.
        """
        try:
            body = self.read(MAX_BODY_BYTES + 1)
        except IncompleteRead:
            if self._inlet.ended:
                raise
            raise HTTPException("a chunk is broken") from None
        if len(body) > MAX_BODY_BYTES:
            return body[:MAX_BODY_BYTES], True
        if self.length:
            raise IncompleteRead(b"")
        return body, False

    def is_reusable(self) -> bool:
        """Tell whether the connection is clean after this answer and may carry another."""
        return not self.will_close and self.isclosed() and not self._inlet.has_surplus()

    def _read_line(self) -> bytes:
        line = self._inlet.readline(MAX_LINE_BYTES + 1)
        if line[-1:] != b"\n":
            if len(line) > MAX_LINE_BYTES:
                raise LineTooLong("line")
            raise IncompleteRead(line)
        return line

    def _read_status_line(self) -> None:
        try:
            line = self._read_line()
        except IncompleteRead as cut:
            if not cut.partial:
                raise RemoteDisconnected("no answer") from None
            if cut.partial[:5] != b"HTTP/"[: len(cut.partial)]:
                raise HTTPException("not HTTP") from None
            raise
        # HTTP/1.x SP 3DIGIT, then SP and a reason, or the end of the line; blanks are taken leniently.
        if line[:7] != b"HTTP/1." or not line[7:8].isdigit():
            raise HTTPException("not HTTP/1.x")
        words = line.split(None, 2)
        if len(words) < 2 or len(words[0]) != 8 or len(words[1]) != 3 or not words[1].isdigit():
            raise HTTPException("not a status line")
        self.version = 10 if line[7:8] == b"0" else 11
        self.status = self.code = status = int(words[1])
        if status < 100:
            raise HTTPException("not a status")
        if status >= 200 or status == 101:  # nobody asked to switch: 101 is an answer like any other
            self.final_status = status

    def _read_fields(self) -> None:
        fields: dict[str, str] = {}
        last = ""
        for _ in range(MAX_FIELDS + 1):
            line = self._read_line()
            if line == b"\r\n" or line == b"\n":
                self.fields = fields
                return
            known = _LINES.get(line)
            if known is not None and known[0] not in fields:
                last, fields[known[0]] = known
                continue
            text = line.decode("latin-1")
            if text[0] in " \t" and last:  # obsolete line folding: belongs to the field before
                fields[last] = f"{fields[last]} {text.strip()}".strip()
                continue
            name, colon, value = text.partition(":")
            last = name.lower()
            if not colon or not last or not _NAME_CHARACTERS.issuperset(last):
                raise HTTPException("not a header line")
            value = value.strip()
            if len(line) <= _MEMO_BYTES:
                if len(_LINES) >= _MEMO_LINES:
                    _LINES.clear()
                _LINES[line] = (last, value)
            fields[last] = f"{fields[last]}, {value}" if last in fields else value
        raise HTTPException("too many header lines")

    def _settle_length(self) -> None:
        fields = self.fields
        coding = fields.get("transfer-encoding")
        length = fields.get("content-length")
        connection = fields.get("connection")
        self.chunked = False
        self.length = None
        self.will_close = self.version == 10 or (connection is not None and "close" in connection.lower())
        if self.status in (101, 204, 304) or (self._is_tunnel and 200 <= self.status < 300):
            self.length = 0
            self.will_close = self.will_close or self.status == 101
        elif coding is not None:
            if coding.lower() != "chunked":
                raise HTTPException("a transfer coding nobody asked for")
            self.chunked = True
            self.chunk_left = None
            self.will_close = self.will_close or length is not None
        elif length is not None:
            lengths = {part.strip() for part in length.split(",")}
            number = lengths.pop()
            if lengths or not (number.isascii() and number.isdigit() and len(number) <= 18):
                raise HTTPException("not a length")
            self.length = int(number)
        else:
            self.will_close = True
