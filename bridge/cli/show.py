"""What people see in a terminal: tables, bars, colours and progress; plain text everywhere else.

Decides by itself what the output can show: nothing but ASCII where the encoding says so, no colour and no
progress where there is no terminal. Never reads the ledger.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

NARROW: Final = 60
"""Columns below which bars would say nothing: numbers only."""
WIDE: Final = 110
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_COLOURS: Final = {
    "good": "32",
    "bad": "31",
    "warn": "33",
    "dim": "2",
    "bold": "1",
    "blue": "34",
    "violet": "35",
}


class Screen:
    """One output and what it can show.

    Args:
        stream: where the text goes; default: standard output.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        stream = sys.stdout if stream is None else stream
        self.is_terminal = _is_terminal(stream)
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.is_unicode = encoding in ("utf8", "utf16", "utf32")
        self.has_colour = (
            self.is_terminal
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") not in ("", "dumb")
        )
        self.width = min(shutil.get_terminal_size((80, 24)).columns, WIDE) if self.is_terminal else 80
        self.has_bars = self.is_terminal and self.width >= NARROW
        """Charts are for people at a terminal that is wide enough."""

    def paint(self, text: str, colour: str) -> str:
        """Colour a text, if colours are shown."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.has_colour and text else text

    def bar(self, value: float, most: float, width: int) -> str:
        """A bar of at most so many columns; something that is not zero shows at least a trace."""
        if value <= 0 or most <= 0:
            return ""
        eighths = max(1, round(value / most * width * 8))
        if not self.is_unicode:
            return "#" * max(1, eighths // 8)
        return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
        """Align columns; the first `left` ones to the left, the rest, being numbers, to the right."""
        widths = [max([len(head[i]), *(len(row[i]) for row in rows)]) for i in range(len(head))]
        lines = [self.paint(_align(head, widths, left), "bold")]
        return lines + [_align(row, widths, left) for row in rows]


def _align(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    parts = [
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip()


class Progress:
    """One line on stderr that says how far a long piece of work is; nothing if that is no terminal.

    Args:
        what: the work, as the line begins.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._screen = Screen(sys.stderr) if sys.stderr is not None else None
        self._is_shown = self._screen is not None and self._screen.is_terminal
        self._last = ""

    def tell(self, done: int, whole: int) -> None:
        """Show how much is done, and of how much."""
        if not self._is_shown or self._screen is None:
            return
        share = done / whole if whole else 1.0
        bar = self._screen.bar(share, 1.0, 24).ljust(24)
        line = f"{self._what} {bar} {share:4.0%}"
        if line != self._last:
            self._last = line
            self._write(f"\r{line}\x1b[K" if self._screen.has_colour else f"\r{line}")

    def end(self) -> None:
        """Take the line away again."""
        if self._last:
            self._write("\r" + " " * len(self._last) + "\r")
            self._last = ""

    def _write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError, AttributeError):
        return False


def warn(text: str) -> None:
    """Say something on stderr that does not belong into the output."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(f"report-bridge: {text}\n".encode("ascii", "backslashreplace").decode("ascii"))


def number(value: int) -> str:
    """Write a count so that it can be read: 1,234,567."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """Write a share as a percentage; a dash where there is no whole."""
    return "-" if not whole else f"{100 * part / whole:.1f}%"
