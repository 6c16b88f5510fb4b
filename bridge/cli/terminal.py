"""What people see in a terminal: text, tables, bars, colours and progress; plain text everywhere else.

Decides by itself what the output can show: nothing but ASCII where the encoding says so, no colour and no
progress where there is no terminal. Foreign text is escaped first and coloured after.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

from bridge.core.exits import OutputError
from bridge.core.text import escape

WIDE: Final = 132
"""Columns that are used at most."""
_LEAST_BAR: Final = 8
"""Columns below which bars would say nothing: numbers only."""
Row = Sequence[str]
Bar = Sequence[tuple[int, str]]
"""Values and colours of its pieces."""
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_RED: Final = "31"
_COLOURS: Final = {
    "bold": "1",
    "dim": "2",
    "in_flight": "2",
    "warning": "33",
    "not_sent": "33",
    "ok": "34",
    "accepted": "34",
    "unknown": "35",
}
"""Colours by name, by outcome and by what a check found; everything else is bad, and red."""
_KEPT: Final = r"(\n|\t|\x1b\[(?:0|" + "|".join((_RED, *_COLOURS.values())) + ")m)"
"""What is not escaped on a terminal: line ends, tabs and our own colours."""


class Screen:
    """One output and what it can show.

    Args:
        stream: where the text goes; default: standard output.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        import shutil

        stream = sys.stdout if stream is None else stream
        self.is_terminal = stream is not None and stream.isatty()
        self.is_unicode = (getattr(stream, "encoding", None) or "").lower().startswith("utf")
        is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb")
        self.has_colour = self.is_terminal and not is_dumb and not os.environ.get("NO_COLOR")
        self.width = min(shutil.get_terminal_size((80, 24)).columns, WIDE) if self.is_terminal else 80

    def paint(self, text: str, colour: str) -> str:
        """Escape a text and colour it, if colours are shown; an outcome has a colour, too."""
        text = escape(text)
        return f"\x1b[{_COLOURS.get(colour, _RED)}m{text}\x1b[0m" if self.has_colour and text else text

    def bar(self, value: float, most: float, width: int) -> str:
        """A bar of at most so many columns; something that is not zero shows at least a trace."""
        if value <= 0 or most <= 0:
            return ""
        eighths = max(1, round(value / most * width * 8))
        if not self.is_unicode:
            return "#" * max(1, eighths // 8)
        return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()

    def wrap(self, text: str, first: str = "", always: bool = False) -> list[str]:
        """Break a text into lines that fit a terminal; no word is broken.

        Args:
            first: before the first line; as many blanks go before the others.
            always: also for files and pipes, which else get it on one line.
        """
        if not self.is_terminal and not always:
            return [first + escape(text)]
        import textwrap

        return textwrap.wrap(
            escape(text),
            max(self.width, len(first) + 20),
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )

    def fields(self, record: Mapping[str, Any]) -> list[str]:
        """Write names and values one under the other: what is nested with dots, lists item by item."""
        rows = list(_flatten(record))
        width = max((len(name) for name, _ in rows), default=0) + 2
        lines: list[str] = []
        for name, value in rows:
            first = f"{escape(name):<{width}}"
            if isinstance(value, list) and value and isinstance(value[0], dict) and not _is_hint(value[0]):
                lines += ["", *self.table(list(value[0]), [list(map(spell, row.values())) for row in value])]
                continue
            mark, items = ("- ", value) if isinstance(value, list) and value else ("", [value])
            for item in items:
                lines += self.wrap(spell(item), first + mark)
                first = " " * width
        return lines

    def table(self, head: Row, rows: Sequence[Row], left: int = 1, bars: Sequence[Bar] = ()) -> list[str]:
        """Align columns; the first `left` ones to the left, the rest, being numbers, to the right.

        A terminal that is too narrow does not get what does not fit, the last columns first, and a last line
        that says which. Files and pipes get them all.

        Args:
            bars: what is drawn behind the rows on a terminal that has room for it.
        """
        cells = [[escape(cell) for cell in row] for row in (head, *rows)]
        widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
        kept: list[int] = []
        room = self.width if self.is_terminal else sum(widths) + 2 * len(widths)
        for index, width in enumerate(widths):
            if not kept or width <= room:
                kept.append(index)
                room -= width + 2
        lines = ["  ".join(_pad(row[i], widths[i], i < left) for i in kept) for row in cells]
        if room >= _LEAST_BAR:
            most = max((sum(value for value, _ in bar) for bar in bars), default=0)
            for index, bar in enumerate(bars, 1):
                longest = room - len(bar) + 1  # each piece may be rounded up
                pieces = [self.paint(self.bar(value, most, longest), colour) for value, colour in bar]
                lines[index] += "  " + "".join(pieces)
        lines = [line.rstrip() for line in lines]
        lines[0] = self.paint(lines[0], "bold")
        hidden = [name for index, name in enumerate(head) if index not in kept]
        if hidden:
            lines += [self.paint(line, "dim") for line in self.wrap(f"No room for: {', '.join(hidden)}.")]
        return lines


def _flatten(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict) and value and not _is_hint(value):
            yield from ((f"{name}.{inner}", what) for inner, what in _flatten(value))
        else:
            yield name, value


def _is_hint(value: Mapping[str, Any]) -> bool:
    return value.keys() == {"kind", "message"}


def spell(value: Any) -> str:
    """Write one value for people; of what has a message, such as a hint, that."""
    if isinstance(value, dict) and _is_hint(value):
        return str(value["message"])
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in (None, {}, []):
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def display_width(text: str) -> int:
    """How many columns a text takes: characters of East Asian scripts take two, marks over others none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _pad(cell: str, width: int, is_left: bool) -> str:
    blanks = " " * (width - display_width(cell))
    return cell + blanks if is_left else blanks + cell


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how far a long piece of work is, if that is a terminal, and take the line away after it.

    Args:
        what: the work, as the line begins.

    Returns:
        what to tell how much is done, and of how much.
    """
    screen = Screen(sys.stderr)
    shown = ""

    def tell(done: int, whole: int) -> None:
        nonlocal shown
        part = min(1.0, done / whole) if whole else 1.0
        line = f"\r{what} {screen.bar(part, 1.0, 24):<24} {part:4.0%}"
        if screen.is_terminal and line != shown:
            shown = line
            _write_error(line)

    try:
        yield tell
    finally:
        if shown:
            _write_error("\r" + " " * (len(shown) - 1) + "\r")


def print_text(text: str, flush: bool = False) -> None:
    """Print text for people on stdout; what could steer the terminal, or it cannot show, is escaped.

    Line ends and tabs stay, and on a terminal our own colours: who puts foreign text into lines escapes it.

    Raises:
        OutputError: it cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout is None:
        return
    if not text.replace("\n", "").isprintable():
        pieces = re.split(_KEPT if sys.stdout.isatty() else "(\n|\t)", text)
        text = "".join(piece if place % 2 else escape(piece) for place, piece in enumerate(pieces))
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        if flush:
            sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(error) from error


def print_lines(lines: Sequence[str]) -> None:
    """Print lines for people on stdout."""
    print_text("\n".join(lines) + "\n")


def print_json(value: object, indent: int | None = 2) -> None:
    """Print a value as JSON on stdout."""
    print_text(json.dumps(value, indent=indent) + "\n")


def warn(text: str) -> None:
    """Say something on stderr that does not belong into the output."""
    _write_error(f"report-bridge: {escape(text)}\n".encode("ascii", "backslashreplace").decode("ascii"))


def share(part: int, whole: int) -> str:
    """Write a share as a percentage; a dash where there is no whole."""
    return "-" if not whole else f"{100 * part / whole:.1f}%"


def _write_error(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # it may be closed, or None
        sys.stderr.write(text)
        sys.stderr.flush()
