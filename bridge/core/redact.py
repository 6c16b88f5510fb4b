"""Secrets that do not print themselves, and a scrubber that finds them in text.

`Secret` holds a value that only ``reveal()`` gives out. `Scrubber` replaces every secret it has
learnt by ``***``, in the plain and in the usual encoded forms. No I/O, no logger; used by the log,
by the adapters that pass foreign text on, and by the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

MASK: Final = "***"

_MIN_SECRET: Final = 4
"""Shorter secrets would turn ordinary text into asterisks; no key is that short."""
_GENERATION: Final = 512
"""Secrets held per generation; two generations are kept, so memory stays flat with many accounts."""


class Secret:
    """A value that prints as ``***`` everywhere; compare by value, reveal on purpose only."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself. Never put the result into a message."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")


class _Needle(NamedTuple):
    text: str
    left: int
    """Characters before it that also carry bits of the secret (base64 at an odd alignment)."""
    right: int
    """Characters after it that do."""


class Scrubber:
    """Replaces every secret it has learnt by ``***``.

    Forms found: as it is (also in one letter case), percent-encoded, with JSON or Python escapes, as
    HTML entities (each in any case, of all or of some characters, also doubled), hexadecimal, and
    base64 or base64url at any alignment (also inside one of the escapes above).

    Thread safety: all methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._kept = _Index()
        self._young = _Index()
        self._old = _Index()

    def learn(self, secret: Secret, *, keep: bool = False) -> None:
        """Remember a secret.

        Args:
            secret: secrets of fewer than 4 characters are ignored.
            keep: remember it for good (the settings' own). Others are forgotten once at least 512
                newer ones have been learnt; learn them again with each use.
        """
        if keep:
            self._kept.add(secret)
            return
        if secret in self._kept.secrets or secret in self._young.secrets:
            return
        if len(self._young.secrets) >= _GENERATION:
            # Two threads may both come here: then a generation is shorter, never lost untimely.
            self._old = self._young
            self._young = _Index()
        self._young.add(secret)

    def scrub(self, text: str) -> str:
        """Return the text with every known secret replaced by ``***``; the same object if clean."""
        spans: list[tuple[int, int]] = []
        for index in (self._kept, self._young, self._old):
            if index.secrets:
                index.find(text, spans)
        if not spans:
            return text
        spans.sort()
        pieces: list[str] = []
        done = 0
        for start, end in spans:
            if start >= done:
                pieces.append(text[done:start])
                pieces.append(MASK)
            done = max(done, end)
        pieces.append(text[done:])
        return "".join(pieces)

    def scrub_value(self, value: Any) -> Any:
        """Return a value as it may be logged: a number or None as it is, everything else as scrubbed text."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.scrub(str(value))


class _Index:
    """Secrets of one generation and where to look for them."""

    def __init__(self) -> None:
        self.secrets: set[Secret] = set()
        # By their first 4 characters.
        self._needles: dict[str, tuple[_Needle, ...]] = {}

    def add(self, secret: Secret) -> None:
        value = secret.reveal()
        if len(value) < _MIN_SECRET or secret in self.secrets:
            return
        for needle in set(_needles(value)):
            head = needle.text[:_MIN_SECRET]
            self._needles[head] = (*self._needles.get(head, ()), needle)
        self.secrets.add(secret)

    def find(self, text: str, spans: list[tuple[int, int]]) -> None:
        """Append the place of every occurrence; places may overlap."""
        if "%" in text or "\\" in text or "&" in text:
            self._find_escaped(text, spans)
            return
        needles = self._needles
        for at in [at for at in range(len(text) - 3) if text[at : at + _MIN_SECRET] in needles]:
            for needle in needles[text[at : at + _MIN_SECRET]]:
                if text.startswith(needle.text, at):
                    spans.append((max(0, at - needle.left), at + len(needle.text) + needle.right))

    def _find_escaped(self, text: str, spans: list[tuple[int, int]]) -> None:
        leads = {at for at, char in enumerate(text) if char in _LEADS}
        # Each place is read in every way it can be read: a key may itself look like an escape.
        steps = [
            [(char, at + 1), *(_readings(text, at) if at in leads else ())] for at, char in enumerate(text)
        ]
        steps.append([])
        for start in range(len(text)):
            stop = start + _MIN_SECRET
            paths = {(text[start:stop], stop)}
            if not leads.isdisjoint(range(start, stop)):
                paths = {("", start)}
                # Sets, level by level: many ways lead to the same reading of a row of backslashes.
                for _ in range(_MIN_SECRET):
                    paths = {(head + char, after) for head, at in paths for char, after in steps[at]}
            for head, after in paths:
                for needle in self._needles.get(head, ()):
                    places = {after}
                    for char in needle.text[_MIN_SECRET:]:
                        places = {after for at in places for read, after in steps[at] if read == char}
                    if places:
                        spans.append((max(0, start - needle.left), max(places) + needle.right))


# --- the forms of a secret -------------------------------------------------------------------


def _needles(value: str) -> Iterator[_Needle]:
    raw = value.encode("utf-8", "surrogatepass")
    for text in (value, value.lower(), value.upper(), raw.hex(), raw.hex().upper()):
        yield _Needle(text, 0, 0)
    for shift in range(3):
        yield from _base64_needles(raw, shift)


def _base64_needles(raw: bytes, shift: int) -> Iterator[_Needle]:
    """Yield the characters that ``raw`` alone decides when it stands ``shift`` bytes after a triple."""
    from binascii import b2a_base64

    first_bit, last_bit = 8 * shift, 8 * (shift + len(raw))
    first, last = -(-first_bit // 6), last_bit // 6
    text = b2a_base64(bytes(shift) + raw + b"\0\0", newline=False).decode("ascii")[first:last]
    if len(text) < _MIN_SECRET:
        return
    left, right = int(first_bit % 6 != 0), int(last_bit % 6 != 0)
    yield _Needle(text, left, right)
    yield _Needle(text.replace("+", "-").replace("/", "_"), left, right)


# --- escapes: what the text at a place can be read as ----------------------------------------

_LEADS: Final = frozenset("%\\&")
_MAX_ROW: Final = 64
"""Backslashes looked at in a row: six times doubled, and rows of thousands stay cheap."""
_CODES: Final = {"u": 4, "U": 8, "x": 2}
"""Letter after a backslash -> how many hexadecimal digits follow it."""
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_NUMBER: Final = "#(?:[xX]([0-9a-fA-F]{1,12})|([0-9]{1,12}))"


def _readings(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Yield each ``(character, place after it)`` the escape at this place can stand for."""
    lead = text[at]
    if lead == "%":
        at += 1
        while text.startswith("25", at):  # %2541 is a doubled %41
            yield "%", at + 2
            at += 2
        yield from _coded(text, at, 2)
    elif lead == "\\":
        row = text[at : at + _MAX_ROW]
        end = at + len(row) - len(row.lstrip("\\"))
        for count in (2, 4, 8):  # a backslash doubled once, twice, three times
            if count <= end - at:
                yield "\\", at + count
        following = text[end : end + 1]
        if following in _CODES:
            yield from _coded(text, end + 1, _CODES[following])
        elif following and not following.isalnum():
            yield following, end + 1
    else:
        yield from _entity(text, at + 1)


def _coded(text: str, at: int, digits: int) -> Iterator[tuple[str, int]]:
    number = text[at : at + digits]
    if len(number) == digits and _HEX.issuperset(number):
        code = int(number, 16)
        if code < 0x110000:
            yield chr(code), at + digits


def _entity(text: str, at: int) -> Iterator[tuple[str, int]]:
    from html.entities import html5  # only ever needed beside an ampersand

    while text.startswith("amp;", at):  # &amp;#65; is a doubled &#65;
        yield "&", at + 4
        at += 4
    number = re.compile(_NUMBER).match(text, at)
    if number is None:
        end = text.find(";", at, at + 20) + 1
        if end and text[at:end] in html5:
            yield html5[text[at:end]], end
        return
    base, at = (16, number.start(1)) if number[1] else (10, number.start(2))
    # The semicolon may be missing: then any leading part of the digits may be the number.
    for stop in range(at + 1, number.end() + 1):
        code = int(text[at:stop], base)
        if code < 0x110000:
            yield chr(code), stop  # a semicolon after it may be the secret's own
            if text.startswith(";", stop):
                yield chr(code), stop + 1
