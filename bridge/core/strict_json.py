"""Strict JSON: parse bytes from a peer, keep number tokens, dump ASCII.

Parsing tells three things apart: JSON that is fine, JSON that is not acceptable (`NotAcceptable`,
with what can still be read of it) and what is not JSON at all (`NotJson`). No exception of this
module holds input text. Never touches Python's process-wide recursion or digit limits.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from math import nextafter
from typing import Any, Final, NamedTuple

DEEPEST: Final = 256
"""Nesting that is never exceeded, whatever the caller allows: well below the recursion limit (1000
frames, two per level) of the C scanner and of everybody who walks a parsed value."""


class NotJson(Exception):
    """The bytes are not a JSON text in UTF-8."""


class NotAcceptable(Exception):
    """The text is JSON, but repeats member names, holds lone surrogates or is nested too deep.

    ``value`` is what can be read of it: `Tainted` in place of the whole value or, if that is an
    array, in place of each of its members that is not acceptable.
    """

    def __init__(self, value: Any) -> None:
        super().__init__("JSON is not acceptable")
        self.value = value


class Number:
    """A JSON number as it was written, so that it can be echoed digit for digit."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token

    def to_python(self) -> int | float:
        """Return the value: `int` if it is whole, as ``5.0`` is, else a `float`, infinite if too large."""
        token = self.token
        # 640 digits are what int() takes whatever PYTHONINTMAXSTRDIGITS says; above, float() says infinity.
        if len(token) <= 640 and token.lstrip("-").isdigit():
            return int(token)
        value = float(token)
        if not value.is_integer():
            return value
        if 0.0 < abs(value) < 2.0**53:  # no integer of the protocol is larger
            from decimal import Decimal  # nearly all numbers are short integers

            if Decimal(token) != value:
                # 0.99999999999999999 is not whole, and must not become 1. From 2^52 on all floats are whole.
                return nextafter(max(-(2.0**52), min(value, 2.0**52)), 0.0)
        return int(value)

    def __repr__(self) -> str:
        return f"Number({self.token!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.token == self.token

    def __hash__(self) -> int:
        return hash((Number, self.token))


UNREADABLE: Final = object()
"""Stands for a part of a tainted value that could not be read without doubt."""


class Tainted(NamedTuple):
    """A value that is JSON but not acceptable."""

    value: Any
    """What can be read: repeated names are left out, other flawed parts are `UNREADABLE`."""
    reason: str
    """First flaw met: ``repeated_name``, ``lone_surrogate`` or ``too_deep``."""


def parse(data: bytes, max_depth: int) -> Any:
    """Parse one JSON text.

    Integers of at most 15 digits become `int`, every other number a `Number`; ``-0`` is one.

    Args:
        data: the text in UTF-8, without a byte order mark.
        max_depth: how many arrays and objects may be open at once; `DEEPEST` at most.

    Raises:
        NotJson: the bytes are not JSON, or not UTF-8.
        NotAcceptable: repeated member names, lone surrogates, nested too deep.
    """
    limit = min(max_depth, DEEPEST)
    try:
        value = parse_foreign(data, limit)
    except _Flawed:
        pass
    else:
        if data.find(b"\\ud") < 0 and data.find(b"\\uD") < 0:  # "in" costs an exception for bytes
            return value
    return _parse_flawed(_decode(data), limit)


def parse_foreign(data: bytes, max_depth: int) -> Any:
    """Parse one JSON text as `parse` does, but leave lone surrogates in the texts.

    Raises:
        NotJson: the bytes are not JSON, not UTF-8, repeat member names or are nested too deep.
    """
    # Counting is an upper bound of the depth, and enough for all but large batches.
    if data.count(b"[") + data.count(b"{") > max_depth and _measure_depth(data) > max_depth:
        raise _Flawed("nested too deep")
    return _scan(_STRICT, _decode(data))


# What `plain` returns as it is, without a call for each.
_PLAIN: Final = frozenset({str, int, bool, type(None)})


def plain(value: Any) -> Any:
    """Return the value with every `Number` in it turned into `int` or `float`."""
    if isinstance(value, Number):
        return value.to_python()
    if isinstance(value, dict):
        return {name: part if type(part) in _PLAIN else plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return value


def dump(value: Any) -> bytes:
    """Write a value as compact ASCII JSON on one line.

    A `Number` is written as it was read. A lone surrogate is written as U+FFFD, so that strict
    readers can take every answer.

    Raises:
        ValueError: the value holds NaN or an infinity.
        TypeError: the value holds something that JSON has not.
    """
    try:
        text = _encode(value)
    except TypeError:  # a Number, or what no JSON can say: the slow way knows which
        text = _write(value)
    else:
        if "\\ud" in text:
            text = _write(value)
    return text.encode("ascii")


# --- the usual way: the C scanner ------------------------------------------------------------


class _Flawed(NotJson):
    """It may be JSON, but cannot be read without doubt."""


def _decode(data: bytes) -> str:
    try:
        return str(data, "utf-8").strip(" \t\n\r")
    except UnicodeDecodeError:
        return ""  # which is no JSON either, and no exception has the input as its context


def _read_int(token: str) -> int | Number:
    if len(token) <= 15 + (token[0] == "-") and token != "-0":
        return int(token)
    return Number(token)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Flawed("a repeated name")
    return value


def _refuse_constant(token: str) -> Any:
    raise NotJson("NaN and infinities are not JSON")


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_read_object, parse_int=_read_int, parse_float=Number, parse_constant=_refuse_constant
)


def _scan(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        value, end = decoder.raw_decode(text)
    except ValueError:
        end = -1
    # Raised out here: an exception's context would keep the decoder's copy of the input.
    if end != len(text):
        raise NotJson("not JSON in UTF-8")
    return value


# --- depth -----------------------------------------------------------------------------------

_STEPS: Final = [1 if byte in b"[{" else -1 for byte in range(256)]
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _measure_depth(data: bytes) -> int:
    """Return how deep the text is nested; for a broken text, at least up to where it breaks."""
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(bare.split(b'"')[::2])
    brackets = outside.translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


# --- the rare way: check without recursion, cut what is too deep, name the flaws --------------

# A string (one without an end goes on to the last character, so that no search does so twice), a bracket, or
# the first letter of Infinity and NaN, which no JSON text holds outside strings.
_MARK: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}IN]', re.DOTALL)
_CUT: Final = "Infinity"


def _prune(text: str, max_depth: int) -> str:
    """Replace by ``Infinity`` what is nested too deep, checked in pieces that are not. Linear in time."""
    enclosing: list[list[str]] = [[]]
    depth = position = 0
    for match in _MARK.finditer(text):
        mark = match[0][0]
        if mark in "[{":
            if depth >= max_depth and (depth - max_depth) % DEEPEST == 0:
                enclosing[-1] += text[position : match.start()], _CUT
                enclosing.append([])
                position = match.start()
            depth += 1
        elif mark in "]}":
            depth -= 1
            if depth >= max_depth and (depth - max_depth) % DEEPEST == 0:
                _scan(_FORGIVING, "".join((*enclosing.pop(), text[position : match.end()])))
                position = match.end()
        elif mark != '"':
            raise NotJson("not JSON in UTF-8")
    if len(enclosing) > 1:
        raise NotJson("not JSON in UTF-8")
    return "".join((*enclosing[0], text[position:]))


# Half a pair: the scanner has joined whole ones.
_LONE_SURROGATE: Final = "[\ud800-\udfff]"


class _Pairs(tuple[tuple[str, Any], ...]):
    """The members of an object, none lost."""

    __slots__ = ()


_FORGIVING: Final = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=_read_int, parse_float=Number, parse_constant=lambda _: UNREADABLE
)


def _parse_flawed(text: str, max_depth: int) -> Any:
    value = _scan(_FORGIVING, _prune(text, max_depth))
    is_batch = isinstance(value, list)
    parts = [_taint(part) for part in (value if is_batch else [value])]
    read = parts if is_batch else parts[0]
    if any(isinstance(part, Tainted) for part in parts):
        raise NotAcceptable(read)
    return read


def _taint(value: Any) -> Any:
    flaws: list[str] = []
    mended = _mend(value, flaws)
    return Tainted(mended, flaws[0]) if flaws else mended


def _mend(value: Any, flaws: list[str]) -> Any:
    """Return the value without its flawed parts, and append what was wrong with them."""
    if isinstance(value, str):
        if not re.search(_LONE_SURROGATE, value):
            return value
        flaws.append("lone_surrogate")
        return UNREADABLE
    if isinstance(value, list):
        return [_mend(member, flaws) for member in value]
    if isinstance(value, _Pairs):
        members: dict[str, Any] = {}
        repeated = set()
        for name, member in value:
            if name in members:
                repeated.add(name)
                flaws.append("repeated_name")
            if re.search(_LONE_SURROGATE, name):
                flaws.append("lone_surrogate")
            members[name] = _mend(member, flaws)
        for name in repeated:
            del members[name]
        return members
    if value is UNREADABLE:
        flaws.append("too_deep")
    return value


# --- writing ---------------------------------------------------------------------------------

_encode: Final = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _write(value: Any) -> str:
    if isinstance(value, Number):
        return value.token
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("a member name must be a string")
        return "{" + ",".join([f"{_write(name)}:{_write(member)}" for name, member in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_write(member) for member in value]) + "]"
    if isinstance(value, str):
        # A pair of escapes is one character in UTF-16; what stays alone is replaced.
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _encode(value)
