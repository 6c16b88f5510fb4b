"""Framing without I/O: bytes in, whole messages out, in either of two framings.

One message per line, or ``Content-Length`` headers as language servers use; the first bytes of the
stream decide. Holds at most one message. Knows neither JSON nor where the bytes come from.
"""

from __future__ import annotations

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
        self._dropping = False
        # Header framing only.
        self._body_left: int | None = None
        self._header_bytes = 0
        self._length: int | None = None
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
        events: list[Event] = []
        if self._head is not None:
            data = self._detect(self._head + data)
        if self.framing == LINE:
            self._feed_lines(data, events)
        else:
            self._feed_headers(data, events)
        return events

    def end(self) -> list[Event]:
        """Say that the stream has ended, and return what was still begun."""
        events: list[Event] = []
        if self.framing == LINE:
            self._feed_lines((self._head or b"") + b"\n", events)
        elif not (self.failed or self._dropping) and (
            self._body_left is not None or self._header_bytes or self._pending.strip(_BLANKS)
        ):
            self._fail("truncated", events)
        return events

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
        elif start.startswith((b"\n", b"\r")):
            return head  # a mark with nothing behind it is no blank line: somebody sent an empty file
        return start

    # --- one message per line ---

    def _feed_lines(self, data: bytes, events: list[Event]) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._dropping:
                self._dropping = False
                continue
            if self._pending:
                self._pending += line
                line = bytes(self._pending)
                self._pending.clear()
            self._take_line(line, events)
        if not self._dropping:
            self._pending += rest
            # One byte more than allowed may still be the CR of a line end.
            if len(self._pending) > self._max + 1:
                self._drop(events)

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        line = line.removesuffix(b"\r")
        if len(line) > self._max:
            events.append(Oversize())
            return
        content = line.strip(_BLANKS)
        if content:
            self.saw_lone_bracket = self.saw_lone_bracket or content in (b"{", b"[")
            events.append(line)

    def _drop(self, events: list[Event]) -> None:
        self._pending = bytearray()  # a new one: clear() would do, but this surely frees the memory
        self._dropping = True
        events.append(Oversize())

    # --- header framing ---

    def _feed_headers(self, data: bytes, events: list[Event]) -> None:
        position = 0
        while position < len(data) and not self.failed:
            if self._body_left is not None:
                position = self._take_body(data, position, events)
                continue
            line_end = data.find(b"\n", position)
            stop = len(data) if line_end < 0 else line_end
            self._pending += data[position : min(stop, position + MAX_HEADER_BYTES + 1)]
            position = stop + 1
            if self._header_bytes + len(self._pending) > MAX_HEADER_BYTES:
                self._fail("header", events)
            elif line_end >= 0:
                line = bytes(self._pending).removesuffix(b"\r")
                self._header_bytes += len(self._pending)
                self._pending.clear()
                self._take_header_line(line, events)

    def _take_header_line(self, line: bytes, events: list[Event]) -> None:
        if line:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.strip(_NAME_BYTES):
                self._fail("header", events)
            elif name.lower() == b"content-length":
                self._take_length(value.strip(_BLANKS), events)
            return
        if self._length is not None:
            self._body_left = self._length
            if self._length > self._max:
                self._drop(events)
            elif not self._length:
                self._finish_body(events)
        elif self._header_bytes > 1:  # a stray empty line between messages is at most a CR
            self._fail("length", events)
        else:
            self._header_bytes = 0

    def _take_length(self, value: bytes, events: list[Event]) -> None:
        digits = value.lstrip(b"0") or b"0"
        is_length = value.isdigit() and len(digits) <= _MAX_LENGTH_DIGITS
        if not is_length or self._length not in (None, int(digits)):
            self._fail("length", events)
        else:
            self._length = int(digits)

    def _take_body(self, data: bytes, position: int, events: list[Event]) -> int:
        assert self._body_left is not None
        stop = min(len(data), position + self._body_left)
        self._body_left -= stop - position
        if not self._dropping:
            self._pending += data[position:stop]
        if not self._body_left:
            self._finish_body(events)
        return stop

    def _finish_body(self, events: list[Event]) -> None:
        if not self._dropping:
            events.append(bytes(self._pending))
            self._pending.clear()
        self._dropping = False
        self._body_left = self._length = None
        self._header_bytes = 0

    def _fail(self, reason: str, events: list[Event]) -> None:
        self.failed = True
        self._pending.clear()
        events.append(BadFraming(reason))
