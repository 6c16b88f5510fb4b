"""Tests of `bridge.cli.show`: plain text for programs, bars and colours for terminals that can."""

from __future__ import annotations

import io
import sys

import pytest

from bridge.cli.show import Progress, Screen, number, share


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_file_gets_plain_text() -> None:
    """No colour, no bar and a fixed width where there is no terminal."""
    screen = Screen(io.StringIO())
    assert (screen.is_terminal, screen.has_colour, screen.has_bars, screen.width) == (False, False, False, 80)
    assert screen.paint("x", "bad") == "x"


def test_a_terminal_gets_colour_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a dumb terminal turn colours off; a narrow one has no bars."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in Screen(Terminal()).paint("x", "bad")
    assert Screen(Terminal()).has_bars
    monkeypatch.setenv("NO_COLOR", "1")
    assert Screen(Terminal()).paint("x", "bad") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Screen(Terminal()).paint("x", "bad") == "x"
    monkeypatch.setenv("COLUMNS", "40")
    assert not Screen(Terminal()).has_bars


@pytest.mark.parametrize(
    ("value", "unicode", "ascii_"), [(0, "", ""), (100, "█" * 10, "#" * 10), (0.1, "▏", "#")]
)
def test_bars_show_a_trace_of_what_is_not_nothing(value: float, unicode: str, ascii_: str) -> None:
    """A full bar is as long as it may be, zero is empty, and little is still seen."""
    screen = Screen(io.StringIO())
    screen.is_unicode = True
    assert screen.bar(value, 100, 10) == unicode
    screen.is_unicode = False
    assert screen.bar(value, 100, 10) == ascii_


def test_tables_align_words_left_and_numbers_right() -> None:
    """Columns are as wide as their widest cell, and no line ends in blanks."""
    lines = Screen(io.StringIO()).table(("name", "n"), [("a", "1"), ("long one", "10")])
    assert lines == ["name       n", "a          1", "long one  10"]


def test_progress_is_silent_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a file."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress("counting")
    progress.tell(1, 2)
    progress.end()
    assert stream.getvalue() == ""


def test_progress_ends_with_a_clean_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is drawn, and taken away at the end."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress("counting")
    progress.tell(1, 2)
    progress.tell(0, 0)
    progress.end()
    assert " 50%" in stream.getvalue()
    assert stream.getvalue().endswith(" \r")


def test_numbers_can_be_read() -> None:
    """Thousands are set apart, and a share of nothing is a dash."""
    assert number(1234567) == "1,234,567"
    assert (share(1, 8), share(1, 0)) == ("12.5%", "-")
