"""Tests of `bridge.core.text`."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.text import (
    ROUNDING_S,
    escape,
    escape_cell,
    escape_char,
    hide_keys,
    nearest,
    plural,
    rfc3339,
    suggest,
)

ANY = st.text(st.characters(), max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07", "\\u001b[2J\\u0007"),
        ("a\r\nb\tc", "a\\u000d\\u000ab\\u0009c"),
        ("\x9b2J\x7f", "\\u009b2J\\u007f"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u202ecod.exe\u2066", "\\u202ecod.exe\\u2066"),
        ("\ud800", "\\ud800"),
        ("naïve 会 😀 plain", "naïve 会 😀 plain"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: str, shown: str) -> None:
    """Controls, separators, marks of direction and surrogates become visible; the rest stays."""
    assert escape(text) == shown


@given(ANY)
def test_escaped_text_is_safe_and_stays_as_it_is(text: str) -> None:
    """Nothing unsafe is left, and escaping twice changes nothing."""
    shown = escape(text)
    assert not any(char in shown for char in map(chr, (*range(32), *range(127, 160), 0x2028, 0x202E, 0x2066)))
    assert escape(shown) == shown
    shown.encode("utf-8")


def test_the_rule_covers_all_that_unicode_calls_control_or_direction() -> None:
    """Every control, separator of lines, surrogate and character with a direction of its own is unsafe."""
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(0x110000):
        char = chr(code)
        if (
            unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
            or unicodedata.bidirectional(char) in turning
        ):
            assert escape_char(char) != char, hex(code)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_cell_that_would_be_a_formula_begins_with_an_apostrophe(text: str) -> None:
    """A spreadsheet shows such a cell instead of computing it."""
    assert escape_cell(text) == f"'{text}"


@given(ANY)
def test_no_cell_begins_with_what_computes(text: str) -> None:
    """Whatever the text, the cell begins with nothing that a spreadsheet takes for a formula."""
    assert not escape_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_words_that_may_be_keys_are_hidden() -> None:
    """A run of sixteen letters and digits may be a key; names of files without digits are not."""
    key = "0123456789abcdef0123456789abcdef"
    assert hide_keys(f"/home/me/{key}: gone") == "/home/me/***: gone"
    assert hide_keys("abcdefghijklmnop0") == "***"
    assert hide_keys("/etc/anticaptchaclientkey") == "/etc/anticaptchaclientkey"


def test_a_near_word_is_suggested() -> None:
    """The nearest known word is named, and nothing if none is near."""
    assert nearest("stast", ("stats", "call")) == "stats"
    assert suggest("stast", ("stats", "call")) == "; did you mean stats?"
    assert suggest("zzz", ("stats", "call")) == "."


def test_counts_have_their_noun() -> None:
    """One is singular, everything else plural, and thousands are set apart."""
    assert [plural(n, "report") for n in (0, 1, 1234)] == ["0 reports", "1 report", "1,234 reports"]
    assert plural(2, "retry", "retries") == "2 retries"


@given(st.floats(1.6e9, 4e9))
def test_a_shown_time_is_not_after_what_it_shows(wall: float) -> None:
    """Whoever asks for all since a time that was shown gets what it was shown of."""
    shown = datetime.fromisoformat(rfc3339(wall)).timestamp()
    assert shown - ROUNDING_S <= wall < shown + 0.001


@given(st.integers(1_600_000_000_000, 4_000_000_000_000))
def test_a_whole_millisecond_is_shown_as_it_is(milliseconds: int) -> None:
    """Rounding of the number of seconds loses none."""
    shown = datetime.fromisoformat(rfc3339(milliseconds / 1000)).timestamp()
    assert round(shown * 1000) == milliseconds


def test_times_are_rfc_3339() -> None:
    """Times are UTC with milliseconds, cut, not rounded."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1767323045.6789) == "2026-01-02T03:04:05.678Z"
