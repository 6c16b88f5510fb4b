"""The tolerant reader of answers: takes what curl and browsers take and a strict parser refuses.

A blank before a colon, names outside ASCII, lines without a colon or a name, folded lines, bare line feeds, a
doubled ``chunked``, the coding ``identity``: none of them spoils an answer whose body can be read whole. Also
skips interim answers, and says of an answer that was cut how far it came. Opens no connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
"""How much of a head is read, as much as of a body; other clients stop between 64 and 300 KB."""
MAX_BODY_BYTES: Final = 64 * 1024
"""How much of a body is read: the contract's limit."""
MAX_ANSWER_BYTES: Final = MAX_HEAD_BYTES + MAX_BODY_BYTES
"""How much is read for one answer all in all; a piece may go over it."""
MAX_INTERIM: Final = 16
"""Interim (1xx) answers that are skipped; one or two are what servers send."""

_BLANK: Final = " \t"
_NAME: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class Malformed(ValueError):
    """What came is not an HTTP/1.x answer, or too much of one."""


class Cut(EOFError):
    """The connection ended inside the answer."""


class Answer:
    """One answer as far as it has been read: what is told of it holds also if the rest fails."""

    __slots__ = ("body", "fields", "is_oversize", "may_stay", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        """Of the final answer, once its status line was read."""
        self.fields: dict[str, str] = {}
        """Header lines, names in lower case; repeated ones joined by ``, ``."""
        self.body = b""
        self.is_oversize = False
        """True if the body is longer than `MAX_BODY_BYTES`."""
        self.may_stay = False
        """True if the connection is clean after this answer and may carry another."""


class Reader:
    """Reads one answer from bytes at hand and such as are still to come.

    Args:
        answer: told what is read.
        data: what has come already.
        more: waits for more and returns it, b"" at the end; what it raises ends the reading.

    Source: RFC 9112, sections 2.2 and 4 (lines), 5 (fields), 6.3 (length), 7.1 (chunks), 9.3 (persistence).
    """

    def __init__(self, answer: Answer, data: bytes, more: Callable[[], bytes]) -> None:
        self._answer = answer
        self._data = bytearray(data)
        self._at = 0
        self._more = more
        self._is_old = False
        self._is_odd = False

    def read_head(self) -> None:
        """Read the head of the final answer, skipping interim ones.

        Raises:
            ConnectionResetError: the connection ended before any byte.
            Cut: it ended inside the head.
            Malformed: what came is not HTTP/1.x, or too much of it.
        """
        for _ in range(MAX_INTERIM + 1):
            head_at = self._at
            status = self._read_status()
            if status >= 200 or status == 101:  # nobody asked to switch: 101 is an answer like any other
                self._answer.status = status
            fields = self._read_fields(head_at + MAX_HEAD_BYTES)
            if self._answer.status is not None:
                self._answer.fields = fields
                return
        raise Malformed("too many interim answers")

    def read_body(self) -> None:
        """Read the body after the head, up to the limit.

        Raises:
            Cut: the connection ended inside the body.
            Malformed: the body's framing is broken.
        """
        answer, fields = self._answer, self._answer.fields
        codings = [word for word in _split(fields.get("transfer-encoding", "")) if word != "identity"]
        lengths = set(_split(fields.get("content-length", "")))
        is_kept = not (self._is_old or self._is_odd or "close" in fields.get("connection", "").lower())
        if answer.status in (101, 204, 304):
            is_kept = is_kept and answer.status != 101
        elif codings:
            if set(codings) != {"chunked"}:
                raise Malformed("a transfer coding nobody asked for")
            self._read_chunks()
            is_kept = is_kept and not lengths
        elif lengths:
            length = lengths.pop()
            if lengths or not (length.isascii() and length.isdigit() and len(length) <= 18):
                raise Malformed("not a length")
            self._read_piece(int(length))
        else:
            is_kept = False
            answer.body = self._take(len(self._data))
            while len(answer.body) <= MAX_BODY_BYTES and self._pull():
                answer.body += self._take(len(self._data))
        if len(answer.body) > MAX_BODY_BYTES:
            answer.body, answer.is_oversize = answer.body[:MAX_BODY_BYTES], True
        answer.may_stay = is_kept and not answer.is_oversize and not self.has_surplus

    @property
    def has_surplus(self) -> bool:
        """True if bytes came that the answer has not used."""
        return self._at < len(self._data)

    # --- lines -------------------------------------------------------------------------------

    def _read_status(self) -> int:
        try:
            end_at = self._at + MAX_HEAD_BYTES
            while not (line := self._read_line(end_at)):
                self._is_odd = True  # an empty line that no answer has begun with
        except Cut:
            rest = bytes(self._data[self._at :])
            if not rest:
                raise ConnectionResetError("no answer") from None
            if not rest.startswith(b"HTTP/"[: len(rest)]):
                raise Malformed("not HTTP") from None
            raise
        # HTTP/1.x SP 3DIGIT, then SP and a reason, or the end of the line; blanks are taken leniently.
        words = line.split(None, 2)
        if line[:7] != "HTTP/1." or len(words) < 2 or len(words[0]) != 8 or words[0][7:] not in "0123456789":
            raise Malformed("not HTTP/1.x")
        if not (len(words[1]) == 3 and words[1].isascii() and words[1].isdigit() and words[1] >= "100"):
            raise Malformed("not a status")
        self._is_old = words[0][7:] == "0"
        return int(words[1])

    def _read_fields(self, end_at: int) -> dict[str, str]:
        fields: dict[str, str] = {}
        last = ""
        while line := self._read_line(end_at):
            name, colon, value = line.partition(":")
            value = value.strip(_BLANK)
            if line[0] in _BLANK and last:  # obsolete folding: it belongs to the field before
                fields[last] = f"{fields[last]} {line.strip()}".strip()
                continue
            key = name.strip(_BLANK).lower()
            self._is_odd = self._is_odd or not (colon and name and _NAME.issuperset(name.lower()))
            if colon and key:
                last = key
                fields[key] = f"{fields[key]}, {value}" if key in fields else value
        return fields

    def _read_line(self, end_at: int) -> str:
        """Read one line, without its end; more than up to `end_at` is too much."""
        start = looked_at = self._at
        while (end := self._data.find(b"\n", looked_at)) < 0:
            looked_at = len(self._data)
            if looked_at > end_at:
                break
            if not self._pull():
                raise Cut("inside a line")
        if not 0 <= end <= end_at:
            raise Malformed("too long a head")
        self._at = end + 1
        return self._data[start:end].decode("latin-1").removesuffix("\r")

    # --- bodies ------------------------------------------------------------------------------

    def _read_chunks(self) -> None:
        while len(self._answer.body) <= MAX_BODY_BYTES:
            size = self._read_line(self._at + MAX_HEAD_BYTES).partition(";")[0].strip(_BLANK)
            if not (0 < len(size) <= 16 and set(size) <= set("0123456789abcdefABCDEF")):
                raise Malformed("not the size of a chunk")
            if not int(size, 16):
                self._skip_trailers()
                return
            self._read_piece(int(size, 16))
            if len(self._answer.body) <= MAX_BODY_BYTES and self._read_line(self._at + 2):
                raise Malformed("a chunk longer than its size")

    def _skip_trailers(self) -> None:
        try:
            while self._read_line(self._at + MAX_HEAD_BYTES):
                pass
        except Cut:
            self._is_odd = True  # the body is whole

    def _read_piece(self, size: int) -> None:
        """Add so many bytes to the body, but no more than show that it is too long."""
        size = min(size, MAX_BODY_BYTES + 1 - len(self._answer.body))
        while len(self._data) - self._at < size:
            if not self._pull():
                raise Cut("inside the body")
        self._answer.body += self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[self._at : self._at + size])
        self._at += len(taken)
        return taken

    def _pull(self) -> bool:
        if len(self._data) > MAX_ANSWER_BYTES:
            raise Malformed("too long an answer")
        piece = self._more()
        self._data += piece
        return bool(piece)


def _split(value: str) -> list[str]:
    return [word for part in value.lower().split(",") if (word := part.strip())]
