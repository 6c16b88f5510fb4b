"""Framing without I/O: bytes in, whole messages out, in either of two framings.

One message per line, or ``Content-Length`` headers as language servers use; the first bytes of the
stream decide. Holds at most one message. Knows neither JSON nor where the bytes come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

LINE: Final = "line"
HEADER: Final = "header"

MAX_HEADER_BYTES: Final = 8192
"""Longest header block; the usual limit of HTTP servers, and language servers use below 100 bytes."""
_MAX_LENGTH_DIGITS: Final = 15
"""Digits of a length that can be skipped: more than a petabyte is no length but a mistake."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_HEADER_START: Final = b"content-"
_BLANKS: Final = b" \t\r"
# The characters of a header name, RFC 9110 section 5.6.2. Anything else is not a header.
_NAME_BYTES: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Oversize(NamedTuple):
    """A message was longer than the limit; its bytes are dropped and the stream goes on."""


class BadFraming(NamedTuple):
    """The stream can no longer be cut into messages; nothing more is read from it."""

    reason: str
    """For the log: one of ``header``, ``length``, ``truncated``. Holds no input."""


Event = bytes | Oversize | BadFraming
"""What comes out of a `Framer`: a message, or why there is none."""


class Framer:
    """Cut a stream of bytes into messages.

    Args:
        max_message: longest message in bytes, its line end or headers not counted.
    """

    def __init__(self, max_message: int) -> None:
        self._max = max_message
        self.framing = LINE
        """The framing of the stream, ``line`` or ``header``; ``line`` while nothing was seen."""
        # What has come while it is not decided which framing it is, then None.
        self._head: bytes | None = b""
        # The begun message in both framings, or the begun header line.
        self._pending = bytearray()
        self._is_dropping = False
        self._messages = self._read_messages()
        self._is_begun = False
        self._is_bare_mark = False
        """True while only blank lines have come behind a byte order mark, as from an empty file."""
        self.failed = False
        """True once the stream is beyond repair: to be treated as its end."""
        self.saw_lone_bracket = False
        """True once a line was only ``{`` or ``[``: somebody sends indented JSON."""

    def frame(self, payload: bytes) -> bytes:
        """Return one answer as it goes on the wire, in the framing that came in."""
        if self.framing == HEADER:
            return b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)
        return payload + b"\n"

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the stream and return what they complete."""
        if self._head is not None:
            data = self._detect(self._head + data)
        if self.framing == LINE:
            return self._feed_lines(data)
        if self.failed:
            return []
        self._pending += data
        return list(iter(self._messages.__next__, None))

    def end(self) -> list[Event]:
        """Say that the stream has ended, and return what was still begun."""
        if self.framing == LINE:
            events = self._feed_lines((self._head or b"") + b"\n")
            return [_BYTE_ORDER_MARK] if self._is_bare_mark else events
        is_cut = not self.failed and (self._is_begun or self._pending.strip(_BLANKS))
        return [self._fail("truncated")] if is_cut else []

    # --- which framing ---

    def _detect(self, head: bytes) -> bytes:
        """Decide by the first bytes; return what is then to be cut into messages."""
        self._head = None
        start = head.removeprefix(_BYTE_ORDER_MARK)
        probe = start[: len(_HEADER_START)].lower()
        if probe == _HEADER_START:
            self.framing = HEADER
        elif _BYTE_ORDER_MARK.startswith(head) or _HEADER_START.startswith(probe):
            self._head = head
            return b""
        self._is_bare_mark = start != head
        return start

    # --- one message per line ---

    def _feed_lines(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._is_dropping:
                self._is_dropping = False
                continue
            if self._pending:
                self._pending += line
                line = bytes(self._pending)
                self._pending.clear()
            line = line.removesuffix(b"\r")
            content = line.strip(_BLANKS)
            if len(line) > self._max:
                events.append(Oversize())
            elif content:
                self.saw_lone_bracket = self.saw_lone_bracket or content in (b"{", b"[")
                events.append(line)
        if not self._is_dropping:
            self._pending += rest
            # One byte more than allowed may still be the CR of a line end.
            if len(self._pending) > self._max + 1:
                self._pending.clear()
                self._is_dropping = True
                events.append(Oversize())
        self._is_bare_mark = self._is_bare_mark and not events
        return events

    # --- header framing ---

    def _read_messages(self) -> Iterator[Event | None]:
        """Read headers and bodies; None where more bytes are needed. Ends where the stream cannot be cut."""
        pending, length, header_bytes = self._pending, None, 0
        while True:
            end = pending.find(b"\n")
            if header_bytes + (len(pending) if end < 0 else end) > MAX_HEADER_BYTES:
                break
            if end < 0:
                yield None
                continue
            line = bytes(pending[:end]).removesuffix(b"\r")
            del pending[: end + 1]
            if line:
                self._is_begun = True
                header_bytes += end
                name, colon, value = line.partition(b":")
                if not colon or not name or name.strip(_NAME_BYTES):
                    break
                if name.lower() == b"content-length":
                    told = _read_length(value.strip(_BLANKS))
                    if told is None or length not in (None, told):
                        yield self._fail("length")
                        return
                    length = told
            elif length is not None:
                yield from self._read_body(length)
                length, header_bytes = None, 0
            elif header_bytes:
                yield self._fail("length")
                return
        yield self._fail("header")

    def _read_body(self, length: int) -> Iterator[Event | None]:
        pending, is_too_long = self._pending, length > self._max
        if is_too_long:
            self._is_begun = False
            yield Oversize()
        while len(pending) < length:
            if is_too_long:
                length -= len(pending)
                pending.clear()
            yield None
        body = bytes(pending[:length])
        del pending[:length]
        self._is_begun = False
        if not is_too_long:
            yield body

    def _fail(self, reason: str) -> BadFraming:
        self.failed = True
        self._pending.clear()
        return BadFraming(reason)


def _read_length(value: bytes) -> int | None:
    digits = value.lstrip(b"0") or b"0"
    return int(digits) if value.isdigit() and len(digits) <= _MAX_LENGTH_DIGITS else None
