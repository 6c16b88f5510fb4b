"""Strict JSON: parse bytes from a peer, keep number tokens, dump ASCII.

Parsing tells three things apart: JSON that is fine, JSON that is not acceptable (`NotAcceptable`,
with what can still be read of it) and what is not JSON at all (`NotJson`). No exception of this
module holds input text. Never touches Python's process-wide recursion or digit limits.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
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
        """Return the value: `int` for an integer token, else `float`; too large is infinite."""
        token = self.token
        # 640 digits are what int() takes whatever PYTHONINTMAXSTRDIGITS says; above, float() says infinity.
        if len(token) <= 640 and token.lstrip("-").isdigit():
            return int(token)
        return float(token)

    def __repr__(self) -> str:
        return f"Number({self.token!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.token == self.token

    def __hash__(self) -> int:
        return hash((Number, self.token))


class Unreadable:
    """Stands for a part of a tainted value that could not be read without doubt."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNREADABLE"


UNREADABLE: Final = Unreadable()


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
    try:
        text = str(data, "utf-8").strip(" \t\n\r")
    except UnicodeDecodeError:
        text = ""
    limit = min(max_depth, DEEPEST)
    # Counting is an upper bound of the depth, and enough for all but large batches.
    if data.count(b"[") + data.count(b"{") <= limit or _measure_depth(data) <= limit:
        try:
            value = _scan(_STRICT, text)
        except _RepeatedName:
            pass
        else:
            if "\\ud" not in text and "\\uD" not in text:
                return value
    return _parse_flawed(text, limit)


def parse_foreign(data: bytes, max_depth: int) -> Any:
    """Parse one JSON text as `parse` does, but leave lone surrogates in the texts.

    Raises:
        NotJson: the bytes are not JSON, not UTF-8, repeat member names or are nested too deep.
    """
    try:
        if _measure_depth(data) <= max_depth:
            return _scan(_STRICT, str(data, "utf-8").strip(" \t\n\r"))
    except (UnicodeDecodeError, _RepeatedName):
        pass
    raise NotJson("not to be read without doubt")


def plain(value: Any) -> Any:
    """Return the value with every `Number` in it turned into `int` or `float`."""
    if isinstance(value, Number):
        return value.to_python()
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
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


class _RepeatedName(Exception):
    pass


def _read_int(token: str) -> int | Number:
    if len(token) <= 15 + (token[0] == "-") and token != "-0":
        return int(token)
    return Number(token)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RepeatedName
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

# The last group takes any other character, so a search never runs on past its starting point.
_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*+(?:([\[\]{},:])
    |("[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")
    |(-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null)
    |(.))""".replace("\n    ", ""),
    re.DOTALL,
)
_CUT: Final = "Infinity"

# What may come next: a value; a value or "]"; a name or "}"; a name; a colon; a comma or "]";
# a comma or "}"; nothing.
_VALUE, _FIRST, _MEMBER, _NAME, _COLON, _IN_ARRAY, _IN_OBJECT, _END = range(8)
_MOVES: Final = {
    (_VALUE, "["): _FIRST,
    (_FIRST, "["): _FIRST,
    (_VALUE, "{"): _MEMBER,
    (_FIRST, "{"): _MEMBER,
    (_COLON, ":"): _VALUE,
    (_IN_ARRAY, ","): _VALUE,
    (_IN_OBJECT, ","): _NAME,
    (_MEMBER, 2): _COLON,
    (_NAME, 2): _COLON,
}
_VALUE_ENDS: Final = frozenset(
    {
        (_VALUE, 2),
        (_FIRST, 2),
        (_VALUE, 3),
        (_FIRST, 3),
        (_FIRST, "]"),
        (_IN_ARRAY, "]"),
        (_MEMBER, "}"),
        (_IN_OBJECT, "}"),
    }
)


def _prune(text: str, max_depth: int) -> str:
    """Check a text of any depth, and replace by ``Infinity`` what is nested too deep.

    Linear in time. No JSON text holds that word outside strings, so it cannot be taken for another.
    """
    enclosing = [_END]
    kept: list[str] = []
    kept_to = cut_from = position = 0
    expected = _VALUE
    for match in _TOKEN.finditer(text):
        kind = match.lastindex
        move = (expected, match[1] if kind == 1 else kind)
        position = match.end()
        following = _MOVES.get(move)
        if following is not None:
            if following in (_FIRST, _MEMBER):
                if len(enclosing) == max_depth + 1:
                    cut_from = position - 1
                enclosing.append(_IN_ARRAY if following == _FIRST else _IN_OBJECT)
            expected = following
        elif move in _VALUE_ENDS:
            if kind == 1:
                enclosing.pop()
                if len(enclosing) == max_depth + 1:
                    kept += text[kept_to:cut_from], _CUT
                    kept_to = position
            expected = enclosing[-1]
        else:
            position = -1
            break
    if expected != _END or position != len(text):
        raise NotJson("not JSON in UTF-8")
    kept.append(text[kept_to:])
    return "".join(kept)


class _Pairs(tuple[tuple[str, Any], ...]):
    """The members of an object, none lost."""

    __slots__ = ()


_FORGIVING: Final = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=_read_int, parse_float=Number, parse_constant=lambda _: UNREADABLE
)


def _parse_flawed(text: str, max_depth: int) -> Any:
    value = _scan(_FORGIVING, _prune(text, max_depth))
    if isinstance(value, list):
        members = [_taint(member) for member in value]
        if any(isinstance(member, Tainted) for member in members):
            raise NotAcceptable(members)
        return members
    value = _taint(value)
    if isinstance(value, Tainted):
        raise NotAcceptable(value)
    return value


def _taint(value: Any) -> Any:
    flaws: list[str] = []
    mended = _mend(value, flaws)
    return Tainted(mended, flaws[0]) if flaws else mended


def _mend(value: Any, flaws: list[str]) -> Any:
    """Return the value without its flawed parts, and append what was wrong with them."""
    if isinstance(value, str):
        if not _has_lone_surrogate(value):
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
            if _has_lone_surrogate(name):
                flaws.append("lone_surrogate")
            members[name] = _mend(member, flaws)
        for name in repeated:
            del members[name]
        return members
    if value is UNREADABLE:
        flaws.append("too_deep")
    return value


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


# --- writing ---------------------------------------------------------------------------------

_encode: Final = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _write(value: Any) -> str:
    if isinstance(value, Number):
        return value.token
    if isinstance(value, dict):
        members = [f"{_write_name(name)}:{_write(member)}" for name, member in value.items()]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_write(member) for member in value]) + "]"
    if isinstance(value, str):
        # A pair of escapes is one character in UTF-16; what stays alone is replaced.
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _encode(value)


def _write_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a member name must be a string")
    return _write(name)
