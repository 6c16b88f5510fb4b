"""Answers, read by httptools inside fixed limits, and what they say of their connection.

Heads are read here, since curl and browsers take more than the parser does: a blank before a colon, names
outside ASCII, lines without a colon or a name, folded lines, bare line feeds, a doubled ``chunked``, the
coding ``identity``. None of them spoils an answer whose body can be read whole. Also skips interim answers,
and says of an answer that was cut how far it came. Opens no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import httptools

MAX_HEAD_BYTES: Final = 64 * 1024
"""How much of a head is read, as much as of a body; other clients stop between 64 and 300 KB."""
MAX_BODY_BYTES: Final = 64 * 1024
"""How much of a body is read: the contract's limit."""
MAX_INTERIM: Final = 16
"""Interim (1xx) answers that are skipped; one or two are what servers send."""

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"[\r\n]*HTTP/1\.[0-9][ \t]+([1-9][0-9][0-9])(?:[ \t\r][^\n]*)?\n")
_FOLD: Final = re.compile(r"\n[ \t]+")
_LENGTH: Final = re.compile(r"\s*([0-9]{1,18})\s*(?:,\s*\1\s*)*")
"""One length, however often it is said."""
_CHUNKS_END: Final = re.compile(rb"[^\n]\r\n\r\n")
_BODILESS: Final = (101, 204, 304)

More = Callable[[], bytes]
"""Waits for more bytes and returns them, b"" at the end; what it raises ends the reading."""


class Malformed(ValueError):
    """What came is not an HTTP/1.x answer, or too much of one."""


class Cut(EOFError):
    """The connection ended inside the answer."""


class Answer:
    """One answer as far as it has been read: what is told of it holds also if the rest fails.

    Args:
        data: what has come already.

    Source: RFC 9112, sections 2.2 and 4 (lines), 5 (fields), 6.3 (length), 9.3 (persistence).
    """

    status: int | None = None
    """Of the final answer, once its status line was read."""
    body = b""
    is_oversize = False
    """True if the body is longer than `MAX_BODY_BYTES`."""
    may_stay = False
    """True if the connection is clean after this answer and may carry another."""
    _is_whole = False
    _is_odd = False
    """True after what somebody else may understand in another way."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        """All that has come, without what `read_head` has taken."""
        self.fields: dict[str, str] = {}
        """Header lines, names in lower case; repeated ones joined by ``, ``."""

    def read(self, more: More) -> None:
        """Read the answer.

        Raises:
            ConnectionResetError: the connection ended before any byte.
            Cut: it ended inside the answer.
            Malformed: it is not HTTP/1.x, its framing is broken, or it is too long.
        """
        self.read_head(more)
        fields = self.fields
        codings = set(fields.get("transfer-encoding", "").lower().replace(",", " ").split()) - {"identity"}
        length = fields.get("content-length")
        if codings and self.status not in _BODILESS:
            if codings != {"chunked"}:
                raise Malformed("a transfer coding nobody asked for")
            self._read_chunks(more)
        else:
            self._read_bytes(length, more)
        if len(self.body) > MAX_BODY_BYTES:
            self.body, self.is_oversize = self.body[:MAX_BODY_BYTES], True
        elif not (self._is_odd or self.status == 101 or (codings and length)):
            self.may_stay = "close" not in fields.get("connection", "").lower()

    def read_head(self, more: More) -> None:
        """Take the head of the final answer from `data`, skipping interim ones.

        Raises:
            ConnectionResetError: the connection ended before any byte.
            Cut: it ended inside the head.
            Malformed: what came is not HTTP/1.x, or too much of it.
        """
        for _ in range(MAX_INTERIM + 1):
            begin = self._read_status(more)
            while (end := _HEAD_END.search(self.data, begin - 1)) is None:
                self._pull(more)
            if end.start() > MAX_HEAD_BYTES:
                raise Malformed("too long a head")
            lines = self.data[begin : end.start()].decode("latin-1").replace("\r\n", "\n")
            self.data = self.data[end.end() :]
            fields: dict[str, str] = {}
            for field in _FOLD.sub(" ", lines).split("\n") if lines else ():
                name, colon, value = field.partition(":")
                if not (colon and name.isascii() and name.split() == [name]):
                    self._is_odd = True
                name, value = name.strip().lower(), value.strip()
                if colon and name:
                    fields[name] = f"{fields[name]}, {value}" if name in fields else value
            if self.status is not None:
                self.fields = fields
                return
        raise Malformed("too many interim answers")

    def _read_status(self, more: More) -> int:
        """Read the status line; return where it ends."""
        while (found := _STATUS.match(self.data)) is None:
            line = self.data.lstrip(b"\r\n")
            if b"\n" in line or not b"HTTP/1.".startswith(line[:7]):
                raise Malformed("not the status line of HTTP/1.x")
            self._pull(more)
        if not self.data.startswith(b"HTTP/1.1"):
            self._is_odd = True
        status = int(found[1])
        if status >= 200 or status == 101:  # nobody asked to switch: 101 is an answer like any other
            self.status = status
        return found.end()

    def _pull(self, more: More) -> None:
        if len(self.data) > MAX_HEAD_BYTES:
            raise Malformed("too long a head")
        piece = more()
        if not piece:
            raise Cut("inside the head") if self.data else ConnectionResetError("no answer")
        self.data += piece

    def _read_bytes(self, length: str | None, more: More) -> None:
        """Read a body that ends after so many bytes, or with the connection."""
        size = MAX_BODY_BYTES + 1
        if self.status in _BODILESS:
            size = 0
        elif length:
            found = _LENGTH.fullmatch(length)
            if found is None:
                raise Malformed("not a length")
            size = int(found[1])
        wanted = min(size, MAX_BODY_BYTES + 1)
        while len(self.data) < wanted and (piece := more()):
            self.data += piece
        if length and len(self.data) < wanted:
            raise Cut("inside the body")
        self.body = self.data[:wanted]
        if len(self.data) != size:
            self._is_odd = True  # it ended with the connection, or something follows that nobody asked for

    def _read_chunks(self, more: More) -> None:
        """Read a body in chunks up to its end, or one byte over its limit."""
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        piece = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + self.data
        try:
            while True:
                parser.feed_data(piece)
                if self._is_whole or len(self.body) > MAX_BODY_BYTES:
                    break
                if len(self.data) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
                    raise Malformed("too long an answer")
                piece = more()
                if not piece:
                    raise Cut("inside the answer")
                self.data += piece
        except httptools.HttpParserError:
            if not self._is_whole:
                raise Malformed("not what the parser takes") from None
            self._is_odd = True  # something follows that nobody asked for
        if not _CHUNKS_END.fullmatch(self.data[-5:]):
            self._is_odd = True  # of line ends that follow the parser says nothing

    # --- called by the parser; what is raised here makes it refuse the answer -----------------

    def on_message_begin(self) -> None:
        """Read one answer and no more."""
        if self._is_whole:
            raise ValueError("another answer")

    def on_body(self, data: bytes) -> None:
        """Add to the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self._is_whole = True
