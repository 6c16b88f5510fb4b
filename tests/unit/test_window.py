"""Time left, as pure arithmetic."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.model import Window
from bridge.reports import window as windows

instants = st.floats(-1e9, 1e9)
maybe = st.none() | instants


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (None, Window(None, 100.0)),
        (0.0, Window(160.0, None)),
        (59.0, Window(101.0, None)),
        (75.0, Window(85.0, None)),
        (-30.0, Window(160.0, None)),
    ],
)
def test_open_window(age_s: float | None, expected: Window) -> None:
    """A known age anchors the window, an unknown one starts the clock at receipt."""
    assert windows.open_window(100.0, age_s) == expected


@pytest.mark.parametrize(
    ("window", "retrying", "starts_by", "ends_at"),
    [
        (Window(160.0, None), False, 158.0, 160.0),
        (Window(160.0, None), True, 158.0, 160.0),
        (Window(None, 100.0), False, 155.0, 155.0),
        (Window(None, 100.0), True, 130.0, 130.0),
        (Window(120.0, 100.0), False, 118.0, 120.0),
        (Window(500.0, 100.0), True, 130.0, 130.0),
    ],
)
def test_limits(window: Window, retrying: bool, starts_by: float, ends_at: float) -> None:
    """Two seconds are left at the last start; what waits is answered at the end."""
    assert windows.starts_by(window, retrying) == starts_by
    assert windows.ends_at(window, retrying) == ends_at


@given(maybe, maybe, maybe, maybe, st.booleans())
def test_merging_never_lengthens(
    a: float | None, b: float | None, c: float | None, d: float | None, retrying: bool
) -> None:
    """A merged window ends no later than either of its parts."""
    one, other = Window(a, b), Window(c, d)
    merged = one.narrowed_by(other)
    assert merged == other.narrowed_by(one)
    assert windows.ends_at(merged, retrying) == min(
        windows.ends_at(one, retrying), windows.ends_at(other, retrying)
    )


def test_no_window_known_has_no_end() -> None:
    """A window of which nothing is known never ends by itself."""
    assert windows.ends_at(Window(None, None), False) == math.inf
