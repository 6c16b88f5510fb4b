"""What Date headers tell about the local clock."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from bridge.reports.skew import ClockSkew

UPSTREAM = 1_800_000_000.0


@pytest.mark.parametrize(
    ("ahead_s", "lasted_s", "known_s", "expected"),
    [
        (10.5, 10.7, None, 0.0),
        (10.5, 4.0, None, 6.5),
        (-10.5, 30.0, None, -10.5),
        (70.0, 3.0, 70.0, 70.0),
        (80.0, 10.7, 70.0, 70.0),
        (70.0, 0.2, None, 70.0),
        (3.0, 1.9, None, 3.0),
    ],
)
def test_a_header_that_may_be_old_proves_no_more_than_it_can(
    ahead_s: float, lasted_s: float, known_s: float | None, expected: float
) -> None:
    """A stop between the upstream's writing and our reading is not taken for a clock that is ahead."""
    skew, wall = ClockSkew(), UPSTREAM + 0.5 + ahead_s
    if known_s is not None:
        skew.learn(formatdate(UPSTREAM - 100.0, usegmt=True), 0.0, UPSTREAM - 99.5 + known_s)
    at = 0.0 if known_s is None else 100.0 + ahead_s - known_s
    skew.learn(formatdate(UPSTREAM, usegmt=True), at, wall, lasted_s)
    assert skew.skew_s(at, wall) == pytest.approx(expected)
