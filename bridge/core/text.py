"""Foreign text made safe to show, small words for people, and times as everybody shows them.

Foreign is whatever comes from the upstream, a caller, a file, the environment or a neighbour. The rule
for single characters is spelled here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import floor
from time import gmtime, strftime
from typing import Final

ROUNDING_S: Final = 1e-6
"""More than a time of today is off as a number of seconds, so that a whole millisecond stays one."""
_FORMULA: Final = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet computes. TAB and CR, which some skip before it, are escaped."""
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could steer a terminal, break a line or turn the reading direction: C0, DEL, C1, line and paragraph
separators, marks of bidirectional text and lone surrogates."""
_LONGEST_MISSPELT: Final = 64
"""Characters of a word that is compared with our own: those have about 50, and comparing is quadratic."""


def escape_char(char: str) -> str:
    """Return a character as it may be shown: unsafe ones become ``\\u`` and four digits."""
    return f"\\u{ord(char):04x}" if _UNSAFE.match(char) else char


def escape(text: str) -> str:
    """Return foreign text as it may be shown to people, on one line."""
    return text if text.isprintable() else "".join(map(escape_char, text))


def escape_cell(text: str) -> str:
    """Return foreign text for a cell of a CSV file: an apostrophe goes before what would be a formula."""
    return f"'{escape(text)}" if text.startswith(_FORMULA) else escape(text)


def hide_keys(text: str) -> str:
    """Return text with what may be a key as ``***``: it may have been given as a file's name."""
    return re.sub(r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{16,}", "***", text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, in whatever letter case; None if none is near."""
    if len(word) > _LONGEST_MISSPELT:
        return None
    try:
        from difflib import get_close_matches  # only ever needed on the way to a message
    except (OSError, ImportError):
        return None  # no descriptor is left to load it with
    spellings = {own.lower(): own for own in sorted(known)}
    near = get_close_matches(word.lower(), spellings, 1)
    return spellings[near[0]] if near else None


def suggest(word: str, known: Iterable[str], sentence: str = "; did you mean {}?") -> str:
    """Return the sentence with the nearest known word in it, or a full stop if none is near."""
    near = nearest(word, known)
    return "." if near is None else sentence.format(near)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: ``1 report``, ``1,234 reports``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rfc3339(wall: float) -> str:
    """UNIX seconds as RFC 3339 in UTC with the milliseconds that have passed."""
    whole, part = divmod(floor((wall + ROUNDING_S) * 1000), 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{part:03d}Z"
