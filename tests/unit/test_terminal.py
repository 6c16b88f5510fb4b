"""Tests of `bridge.cli.terminal`: plain text for programs, bars and colours for terminals that can."""

from __future__ import annotations

import io
import sys

import pytest

from bridge.cli.call import render
from bridge.cli.terminal import Screen, display_width, print_text, progress, share, warn


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_file_gets_plain_text() -> None:
    """No colour, no bar and a fixed width where there is no terminal."""
    screen = Screen(io.StringIO())
    assert (screen.is_terminal, screen.has_colour, screen.width) == (False, False, 80)
    assert screen.table(("a",), [("1",)], bars=[[(1, "bad")]]) == ["a", "1"]
    assert screen.paint("x", "bad") == "x"


def test_a_terminal_gets_colour_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a dumb terminal turn colours off; a narrow one has no bars."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Screen(Terminal()).paint("x\x1b[2J", "bad") == "\x1b[31mx\\u001b[2J\x1b[0m"
    assert Screen(Terminal()).table(("a",), [("1",)], bars=[[(1, "bad")]])[1].endswith("█\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert Screen(Terminal()).paint("x", "bad") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Screen(Terminal()).paint("x", "bad") == "x"
    monkeypatch.setenv("COLUMNS", "10")
    assert Screen(Terminal()).table(("a",), [("1",)], bars=[[(1, "bad")]]) == ["a", "1"]


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


@pytest.mark.parametrize(("columns", "shown"), [(80, "name n kind"), (16, "name n"), (4, "name")])
def test_tables_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, shown: str) -> None:
    """What has no room is left out, the last columns first, and named; wide characters count twice."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    lines = Screen(Terminal()).table(("name", "n", "kind"), [("\u4f1a\u4f1a", "1", "not_sent")], left=3)
    assert lines[0].split() == shown.split()
    assert max(map(display_width, lines[:2])) <= columns
    assert lines[1].startswith("\u4f1a\u4f1a")
    assert len(lines) == 2 or "kind" in " ".join(lines[2:])


def test_tables_keep_every_column_in_a_file() -> None:
    """A program gets everything, whatever the width."""
    assert len(Screen(io.StringIO()).table(("a", "b"), [("x" * 90, "y")])) == 2


def test_columns_stay_aligned_beside_wide_characters() -> None:
    """A character of two columns moves nothing, a mark over a character neither."""
    lines = Screen(io.StringIO()).table(("a", "b"), [("\u4f1a", "x"), ("e\u0301", "y")], left=2)
    assert lines == ["a   b", "\u4f1a  x", "e\u0301   y"]


def test_foreign_text_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells, lines and warnings show what is in them; only our own colours get through."""
    monkeypatch.setenv("TERM", "xterm")
    bad = "a\x1b[2J\x1b]0;t\x07\r\u202e\x9b\n"
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    screen = Screen()
    lines = [*screen.table(("x",), [(bad,)]), *screen.wrap(bad), screen.paint(bad, "bad")]
    print_text("\n".join([*lines, bad.replace("\n", "")]) + "\n")
    warn(bad)
    shown = out.getvalue() + err.getvalue()
    assert shown.count("\n") == len(lines) + 2
    for colour in ("\x1b[31m", "\x1b[1m", "\x1b[0m"):
        assert colour in shown
        shown = shown.replace(colour, "")
    assert shown.replace("\n", "").isprintable()


def test_a_file_gets_no_control_but_tabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal not even a colour of ours gets through; a tab, as Go has it, steers nothing."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    print_text("a\x1b[31mb\tc\n")
    assert out.getvalue() == "a\\u001b[31mb\tc\n"


def test_progress_is_silent_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to a file."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("counting") as tell:
        tell(1, 2)
    assert stream.getvalue() == ""


def test_progress_ends_with_a_clean_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is drawn, and taken away at the end."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("counting") as tell:
        tell(1, 2)
        tell(0, 0)
    assert " 50%" in stream.getvalue()
    assert stream.getvalue().endswith(" \r")


def test_a_share_of_nothing_is_a_dash() -> None:
    """A share is a percentage."""
    assert (share(1, 8), share(1, 0)) == ("12.5%", "-")


def test_fields_are_one_under_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is nested has dots, a list a line for each item, hints their sentences, records a table."""
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    record = {
        "ok": True,
        "limits": {"most": 5, "least": None},
        "hints": [{"kind": "a", "message": "one two three four five six"}, {"kind": "b", "message": "x\x1b"}],
        "codes": {},
        "reports": [{"taskId": 1, "kind": "k"}, {"taskId": 22, "kind": None}],
    }
    assert Screen(Terminal()).fields(record) == [
        "ok            yes",
        "limits.most   5",
        "limits.least  -",
        "hints         - one two three four",
        "                five six",
        "              - x\\u001b",
        "codes         -",
        "",
        "taskId  kind",
        "1          k",
        "22         -",
    ]


@pytest.mark.parametrize(("pointer", "is_shown"), [("", False), ("/taskId", True)])
def test_an_error_about_all_params_has_no_empty_pointer(pointer: str, is_shown: bool) -> None:
    """Its sentence says what is missing; there is no line without anything in it."""
    data = {"kind": "invalid_params", "sentence": "taskId is missing.", "pointer": pointer}
    lines = render({"error": {"code": -32602, "message": "Bad.", "data": data}}, Screen(io.StringIO()))
    assert "failed: taskId is missing. (invalid_params, code -32602)" in lines
    assert any(line.startswith("pointer") for line in lines) == is_shown
