"""Answers, read by httptools inside fixed limits, and what they say of their connection.

What curl and browsers take in a head and the parser refuses is read here, and the parser gets a head that it
takes: a blank before a colon, names outside ASCII, lines without a colon or a name, folded lines, bare line
feeds, a doubled ``chunked``, the coding ``identity``. None of them spoils an answer whose body can be read
whole. Also skips interim answers, and says of an answer that was cut how far it came. Opens no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import httptools

MAX_HEAD_BYTES: Final = 64 * 1024
"""How much of a head is read, as much as of a body; other clients stop between 64 and 300 KB."""
MAX_BODY_BYTES: Final = 64 * 1024
"""How much of a body is read: the contract's limit."""
MAX_FRAMED: Final = 8
"""Bytes that are read for one of a body; in a chunk of its own it takes six."""
MAX_INTERIM: Final = 16
"""Interim (1xx) answers that are skipped; one or two are what servers send."""

_BLANK: Final = b" \t"
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"[\r\n]*HTTP/1\.[0-9][ \t]+([1-9][0-9][0-9])(?:[ \t\r][^\n]*)?\n")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"([0-9]{1,18})(?:,\s*\1)*")
"""One length, however often it is said."""
_PLAIN: Final = re.compile(rb"HTTP/1\.[0-9] [2-5]")
"""How an answer begins that the parser may read from its first byte on."""

More = Callable[[], bytes]
"""Waits for more bytes and returns them, b"" at the end; what it raises ends the reading."""


class Malformed(ValueError):
    """What came is not an HTTP/1.x answer, or too much of one."""


class Cut(EOFError):
    """The connection ended inside the answer."""


class Answer:
    """One answer as far as it has been read: what is told of it holds also if the rest fails.

    Source: RFC 9112, sections 2.2 and 4 (lines), 5 (fields), 6.3 (length), 9.3 (persistence).
    """

    def __init__(self) -> None:
        self.has_begun = False
        """True once the first byte has come."""
        self.status: int | None = None
        """Of the final answer, once its status line was read."""
        self.fields: dict[str, str] = {}
        """Header lines, names in lower case; repeated ones joined by ``, ``."""
        self.body = b""
        self.is_oversize = False
        """True if the body is longer than `MAX_BODY_BYTES`."""
        self.may_stay = False
        """True if the connection is clean after this answer and may carry another."""
        self.data = b""
        """All that has come, without what `read_head` has taken."""
        self._lines: dict[str, str] = {}
        self._is_whole = False
        self._is_odd = False
        """True after what somebody else may understand in another way."""
        self._is_plain = True
        """True as long as the parser takes it as it is."""

    def read(self, more: More) -> None:
        """Read the answer: by the parser alone, or if that refuses it, tolerantly and from the beginning.

        Raises:
            ConnectionResetError: the connection ended before any byte.
            Cut: it ended inside the answer.
            Malformed: it is not HTTP/1.x, its framing is broken, or it is too long.
        """
        self._pull(more)
        try:
            self._feed(httptools.HttpResponseParser(self), more)
            if self.data.find(b"\r\n\r\n") > MAX_HEAD_BYTES:
                raise Malformed("too long a head")
            self.status = int(self.data[9:12])
            self._conclude(self.data[7:8] == b"1")
        except OSError:
            with suppress(Malformed, Cut, OSError):
                self.read_head(lambda: b"")  # which tells how far it came
            raise
        except (Malformed, Cut):
            self.body, self._is_whole, self.fields = b"", False, {}
            self.read_tolerantly(more)

    def read_tolerantly(self, more: More) -> None:
        """Read the answer, and hand the parser a head that says no more than where the body ends."""
        self._is_plain = False
        self.read_head(more)
        told = self.fields.get("transfer-encoding", "").lower().replace(",", " ")
        codings, length = set(told.split()) - {"identity"}, self.fields.get("content-length")
        status, framing = "200 OK", ""
        if self.status in (101, 204, 304):
            status = "204 No Content"
        elif codings:
            if codings != {"chunked"}:
                raise Malformed("a transfer coding nobody asked for")
            framing = "Transfer-Encoding: chunked\r\n"
        elif length:
            found = _LENGTH.fullmatch(length)
            if found is None:
                raise Malformed("not a length")
            framing = f"Content-Length: {found[1]}\r\n"
        self.data = f"HTTP/1.1 {status}\r\n{framing}\r\n".encode("ascii") + self.data
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        try:
            self._feed(parser, more)
        except Cut:
            if framing:
                raise
            self._is_odd = True  # the end of the connection was the end of the body
        self._conclude(self.status != 101 and not (codings and length))

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
            lines = self.data[begin : end.start()]
            self.data = self.data[end.end() :]
            self.fields, self._lines = {}, {}
            for field in _FOLD.sub(b" ", lines).split(b"\n") if lines else ():
                name, colon, value = field.partition(b":")
                self._is_odd = self._is_odd or not (colon and _NAME.fullmatch(name))
                if colon and name.strip(_BLANK):
                    self.on_header(name.strip(_BLANK), value.strip(b" \t\r"))
            if self.status is not None:
                self.fields, self._lines = self._lines, {}
                return
        raise Malformed("too many interim answers")

    def _read_status(self, more: More) -> int:
        """Read the status line; return where it ends."""
        while (found := _STATUS.match(self.data)) is None:
            line = self.data.lstrip(b"\r\n")
            if b"\n" in line or not b"HTTP/1.".startswith(line[:7]):
                raise Malformed("not the status line of HTTP/1.x")
            self._pull(more)
        self._is_odd = self._is_odd or not self.data.startswith(b"HTTP/1.1")
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
        self.has_begun = True
        self.data += piece

    def _feed(self, parser: httptools.HttpResponseParser, more: More) -> None:
        """Parse what has come and what is still to come, up to the limits."""
        piece = self.data
        try:
            while True:
                parser.feed_data(piece)
                if self._is_whole or len(self.body) > MAX_BODY_BYTES:
                    return
                if len(self.data) > MAX_HEAD_BYTES:
                    is_in_body = self.data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4) >= 0
                    most = MAX_HEAD_BYTES + MAX_BODY_BYTES + MAX_FRAMED * len(self.body)
                    if len(self.data) > most or not is_in_body:
                        raise Malformed("too long an answer")
                piece = more()
                if not piece:
                    raise Cut("inside the answer")
                self.data += piece
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._is_whole:
                raise Malformed("not what the parser takes") from None
            self._is_odd = True  # something follows that nobody asked for

    def _conclude(self, may_stay: bool) -> None:
        if len(self.body) > MAX_BODY_BYTES:
            self.body, self.is_oversize = self.body[:MAX_BODY_BYTES], True
            return
        data = self.data
        # Of line ends that follow the parser says nothing.
        if "transfer-encoding" in self.fields:
            is_clean = data.endswith(b"\r\n\r\n") and not data.endswith(b"\n\r\n\r\n")
        else:
            is_clean = len(data) == data.find(b"\r\n\r\n") + 4 + len(self.body)
        is_left = "close" in self.fields.get("connection", "").lower()
        self.may_stay = may_stay and is_clean and not (is_left or self._is_odd)

    # --- called by the parser; what is raised here makes it refuse the answer -----------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header line; once the head is known, what comes is no part of it and not kept."""
        lines = {} if self.fields else self._lines
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        lines[key] = f"{lines[key]}, {text}" if key in lines else text

    def on_headers_complete(self) -> None:
        """Take the head of one answer and no more; later lines are trailers, which nobody asked for."""
        if self._is_whole:
            raise ValueError("another answer")
        lines, self._lines = self._lines, {}
        if self._is_plain:
            if not _PLAIN.match(self.data) or lines.get("transfer-encoding", "chunked") != "chunked":
                raise ValueError("an interim answer, or an odd transfer coding")
            self.fields = lines

    def on_body(self, data: bytes) -> None:
        """Add to the body."""
        self.body += data

    def on_message_complete(self) -> None:
        """Note the end."""
        self._is_whole = True
