"""Tests of `bridge.cli.ledger`: what people may write for a time."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.ledger import parse_time, show_length, show_time

NOW = 1_767_225_600.0


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("2026-01-01", NOW),
        ("2026-01-01T00:00", NOW),
        ("2026-01-01T01:00:00+01:00", NOW),
        ("2026-01-01T00:00:00Z", NOW),
        ("1767225600", NOW),
        ("1767225600.5", NOW + 0.5),
        ("90s", NOW - 90),
        ("30m", NOW - 1800),
        ("24h", NOW - 86400),
        ("7d", NOW - 7 * 86400),
        ("2w", NOW - 14 * 86400),
        ("999999w", 0.0),
        ("0001-01-01", 0.0),
    ],
)
def test_times_are_understood(monkeypatch: pytest.MonkeyPatch, text: str, wall: float) -> None:
    """Dates, UNIX times and lengths back from now are taken; without a zone it is UTC."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert parse_time(text) == wall


@given(st.text(max_size=20))
def test_anything_else_is_a_usage_mistake(text: str) -> None:
    """Whatever is written, it is a number or a sentence that repeats none of it."""
    try:
        wall = parse_time(text)
    except ArgumentTypeError as error:
        said = str(error)
    else:
        said = f"takes a time: {show_time(wall)}"
    assert said.startswith("takes a time: ")


def test_times_are_shown_in_utc() -> None:
    """Moments and lengths read as people write them."""
    assert show_time(NOW) == "2026-01-01 00:00:00"
    assert [show_length(s) for s in (5, 600, 7200, 200_000)] == ["5 s", "10 min", "2 h", "2 d"]
