"""Secrets that do not print themselves, and a scrubber that finds them in text.

`Secret` holds a value that only ``reveal()`` gives out. `Scrubber` replaces every secret it has
learnt by ``***``, in the plain and in the usual encoded forms. No I/O, no logger; used by the log,
by the adapters that pass foreign text on, and by the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, NoReturn

MASK: Final = "***"

SENSITIVE_NAMES: Final = frozenset(
    {"clientkey", "client_key", "key", "apikey", "api_key", "password", "passwd", "secret", "token"}
    | {"authorization", "proxy-authorization", "cookie"}
)
"""Member names (lower case) whose value is masked whatever it is."""

_MIN_SECRET: Final = 4
"""Shorter secrets would turn ordinary text into asterisks; no key is that short."""
_GENERATION: Final = 512
"""Secrets held per generation; two generations are kept, so memory stays flat with many accounts."""
_STRIDE: Final = 8
"""Text is sampled every 8 characters: any needle of 15 or more covers one whole sample."""


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

    __str__ = __repr__

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

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

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

    __slots__ = ("_kept", "_old", "_young")

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
        if secret in self._kept or secret in self._young:
            return
        if len(self._young) >= _GENERATION:
            # Two threads may both come here: then a generation is shorter, never lost untimely.
            self._old = self._young
            self._young = _Index()
        self._young.add(secret)

    def scrub(self, text: str) -> str:
        """Return the text with every known secret replaced by ``***``; the same object if clean."""
        spans: list[tuple[int, int]] = []
        for index in (self._kept, self._young, self._old):
            if len(index):
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
        """Return a JSON-like value with every string scrubbed and members with telling names masked."""
        if isinstance(value, str):
            return self.scrub(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, Mapping):
            return {
                self.scrub(str(name)): MASK
                if str(name).lower() in SENSITIVE_NAMES and inner is not None
                else self.scrub_value(inner)
                for name, inner in value.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.scrub_value(inner) for inner in value]
        return self.scrub(str(value))


class _Index:
    """Secrets of one generation and where to look for them."""

    __slots__ = ("_grams", "_heads", "_secrets", "_short")

    def __init__(self) -> None:
        self._secrets: set[Secret] = set()
        # The first 8 substrings of 8 characters of each long needle: one of them lies on a sample.
        self._grams: dict[str, tuple[_Needle, ...]] = {}
        # The first 4 characters of every needle, for the search through escapes.
        self._heads: dict[str, tuple[_Needle, ...]] = {}
        self._short: tuple[_Needle, ...] = ()

    def __contains__(self, secret: Secret) -> bool:
        return secret in self._secrets

    def __len__(self) -> int:
        return len(self._secrets)

    def add(self, secret: Secret) -> None:
        value = secret.reveal()
        if len(value) < _MIN_SECRET or secret in self._secrets:
            return
        for needle in set(_needles(value)):
            text = needle.text
            if len(text) >= 2 * _STRIDE - 1:
                for at in range(_STRIDE):
                    _put(self._grams, text[at : at + _STRIDE], needle)
            else:
                self._short += (needle,)
            _put(self._heads, text[:_MIN_SECRET], needle)
        self._secrets.add(secret)

    def find(self, text: str, spans: list[tuple[int, int]]) -> None:
        """Append the place of every occurrence; places may overlap."""
        grams = self._grams
        hits: set[_Needle] = set()
        for at in range(0, len(text) - _STRIDE + 1, _STRIDE):
            found = grams.get(text[at : at + _STRIDE])
            if found:
                hits.update(found)
        for needle in (*hits, *self._short):
            at = text.find(needle.text)
            while at >= 0:
                spans.append((max(0, at - needle.left), at + len(needle.text) + needle.right))
                at = text.find(needle.text, at + 1)
        if "%" in text or "\\" in text or "&" in text:
            self._find_escaped(text, spans)

    def _find_escaped(self, text: str, spans: list[tuple[int, int]]) -> None:
        options = {at: list(_readings(text, at)) for at, char in enumerate(text) if char in _LEADS}
        heads = self._heads
        # Each place is read in every way it can be read: a key may itself look like an escape.
        for start in range(len(text)):
            for head, after in _paths(text, start, _MIN_SECRET, options):
                for needle in heads.get(head, ()):
                    end = _follow(text, after, needle.text, options)
                    if end > 0:
                        spans.append((max(0, start - needle.left), end + needle.right))


def _put(table: dict[str, tuple[_Needle, ...]], name: str, needle: _Needle) -> None:
    table[name] = (*table.get(name, ()), needle)


# --- the forms of a secret -------------------------------------------------------------------


def _needles(value: str) -> Iterator[_Needle]:
    for text in (value, value.lower(), value.upper()):
        yield _Needle(text, 0, 0)
    raw = value.encode("utf-8", "surrogatepass")
    digits = raw.hex()
    yield _Needle(digits, 0, 0)
    yield _Needle(digits.upper(), 0, 0)
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
_MAX_RUN: Final = 64
"""Backslashes looked at in a row: six times doubled, and rows of thousands stay cheap."""
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_Options = dict[int, list[tuple[str, int]]]

_ENTITIES: Final[Mapping[str, str]] = {
    "excl": "!", "quot": '"', "QUOT": '"', "num": "#", "dollar": "$", "percnt": "%", "amp": "&", "AMP": "&",
    "apos": "'", "lpar": "(", "rpar": ")", "ast": "*", "midast": "*", "plus": "+", "comma": ",",
    "period": ".", "sol": "/", "colon": ":", "semi": ";", "lt": "<", "LT": "<", "equals": "=", "gt": ">",
    "GT": ">", "quest": "?", "commat": "@", "lsqb": "[", "lbrack": "[", "bsol": "\\", "rsqb": "]",
    "rbrack": "]", "Hat": "^", "lowbar": "_", "UnderBar": "_", "grave": "`", "DiacriticalGrave": "`",
    "lcub": "{", "lbrace": "{", "verbar": "|", "vert": "|", "VerticalLine": "|", "rcub": "}", "rbrace": "}",
}  # fmt: skip


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
        end = at + 1
        most = at + _MAX_RUN
        while end < most and text.startswith("\\", end):
            end += 1
        for run in (2, 4, 8):  # a backslash doubled once, twice, three times
            if run <= end - at:
                yield "\\", at + run
        following = text[end : end + 1]
        if following == "u":
            yield from _coded(text, end + 1, 4)
        elif following == "U":
            yield from _coded(text, end + 1, 8)
        elif following == "x":
            yield from _coded(text, end + 1, 2)
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
    while text.startswith("amp;", at):  # &amp;#65; is a doubled &#65;
        yield "&", at + 4
        at += 4
    if not text.startswith("#", at):
        end = text.find(";", at, at + 20)
        char = _ENTITIES.get(text[at:end]) if end > 0 else None
        if char:
            yield char, end + 1
        return
    at += 1
    is_hex = text[at : at + 1] in ("x", "X")
    at += is_hex
    end = at
    while end < len(text) and end - at < 12 and text[end] in _HEX and (is_hex or text[end].isdecimal()):
        end += 1
    # The semicolon may be missing: then any leading part of the digits may be the number.
    for stop in range(at + 1, end + 1):
        code = int(text[at:stop], 16 if is_hex else 10)
        if code < 0x110000:
            yield chr(code), stop  # a semicolon after it may be the secret's own
            if text.startswith(";", stop):
                yield chr(code), stop + 1


def _paths(text: str, start: int, length: int, options: _Options) -> Iterator[tuple[str, int]]:
    """Yield every reading of ``length`` characters from ``start`` on, with the place after it."""
    stop = start + length
    for place in range(start, stop):
        if place in options:
            break
    else:
        if stop <= len(text):
            yield text[start:stop], stop
        return
    # Sets, level by level: many ways lead to the same reading of a row of backslashes.
    paths = {("", start)}
    for _ in range(length):
        longer: set[tuple[str, int]] = set()
        for head, at in paths:
            if at < len(text):
                longer.add((head + text[at], at + 1))
                longer.update((head + char, after) for char, after in options.get(at, ()))
        paths = longer
    yield from paths


def _follow(text: str, at: int, needle: str, options: _Options) -> int:
    """Return the farthest place after ``needle`` when its head ended at ``at``, or -1."""
    places = {at}
    for char in needle[_MIN_SECRET:]:
        onward: set[int] = set()
        for place in places:
            if text.startswith(char, place):
                onward.add(place + 1)
            onward.update(after for read, after in options.get(place, ()) if read == char)
        if not onward:
            return -1
        places = onward
    return max(places)
