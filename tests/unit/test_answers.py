"""How times are shown, so that what was shown can be asked for."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from bridge.reports.answers import ROUNDING_S, rfc3339


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
