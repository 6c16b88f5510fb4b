"""What Date headers tell about the local clock."""

from __future__ import annotations

from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.model import Exchange
from bridge.reports.observer import Observer

UPSTREAM = 1_800_000_000.0


class ClockSkew:
    """An observer whose clocks are handed in."""

    def __init__(self) -> None:
        self._now = self._wall = 0.0
        self._told = 0
        engine = SimpleNamespace(wall=lambda: self._wall)
        ledger = SimpleNamespace(now=lambda: self._now)
        ports: Any = SimpleNamespace(engine=engine, ledger=ledger, emit=self._emit)
        self._observer = Observer(ports, lambda: None)

    def _emit(self, name: str, fields: Any) -> None:
        assert (name, fields) == ("clock_skew", {"skew_s": round(self._observer.skew_s() or 0.0, 1)})
        self._told += 1

    def learn(self, date: str, now: float, wall: float, lasted_s: float) -> bool:
        """Read a header; True if a difference is told."""
        self._now, self._wall, told = now, wall, self._told
        self._observer.learn_time(Exchange(None, True, 200, {"date": date}, elapsed_s=lasted_s))
        return self._told > told

    def skew_s(self, now: float, wall: float) -> float | None:
        """What is known at that moment."""
        self._now, self._wall = now, wall
        return self._observer.skew_s()

    def age_s(self, completed_at: float, now: float, wall: float) -> float | None:
        """How old a task is at that moment."""
        self._now, self._wall = now, wall
        return self._observer.age_s(completed_at)


@pytest.mark.parametrize(
    ("ahead_s", "lasted_s", "known_s", "expected"),
    [
        (10.5, 10.7, None, 0.0),
        (10.5, 4.0, None, 6.5),
        (-10.5, 30.0, None, -10.5),
        (70.0, 3.0, 70.0, 70.0),
        (80.0, 10.7, 70.0, 70.0),
        (70.0, 0.2, None, 70.0),
        (70.0, 2.0, None, 70.0),
        (3.0, 1.9, None, 3.0),
    ],
)
def test_a_header_that_may_be_old_proves_no_more_than_it_can(
    ahead_s: float, lasted_s: float, known_s: float | None, expected: float
) -> None:
    """A stop between the upstream's writing and our reading is not taken for a clock that is ahead."""
    skew, wall = ClockSkew(), UPSTREAM + 0.5 + ahead_s
    if known_s is not None:
        skew.learn(formatdate(UPSTREAM - 100.0, usegmt=True), 0.0, UPSTREAM - 99.5 + known_s, 0.1)
    at = 0.0 if known_s is None else 100.0 + ahead_s - known_s
    skew.learn(formatdate(UPSTREAM, usegmt=True), at, wall, lasted_s)
    assert skew.skew_s(at, wall) == pytest.approx(expected)


def date(seconds: float) -> str:
    """A Date header of so many seconds after the upstream's beginning."""
    return formatdate(UPSTREAM + seconds, usegmt=True)


def test_before_the_first_header_nothing_is_known() -> None:
    """Then the local clock is believed, and a task of the future was completed just now."""
    skew = ClockSkew()
    assert skew.skew_s(5.0, UPSTREAM) is None
    assert skew.age_s(UPSTREAM - 7.0, 5.0, UPSTREAM) == 7.0
    assert skew.age_s(UPSTREAM + 7.0, 5.0, UPSTREAM) == 0.0


@pytest.mark.parametrize(("ahead_s", "age_s"), [(2.0, 9.0), (-2.0, 5.0), (2.5, 7.0), (-2.5, 7.0)])
def test_a_difference_beyond_two_seconds_is_corrected(ahead_s: float, age_s: float) -> None:
    """Within two seconds a header proves nothing: then the age is what the local clock says."""
    skew, wall = ClockSkew(), UPSTREAM + 0.5 + ahead_s
    skew.learn(date(0), 100.0, wall, 0.1)
    assert skew.age_s(wall - age_s if abs(ahead_s) <= 2.0 else UPSTREAM + 0.5 - 7.0, 100.0, wall) == age_s


def test_a_difference_is_told_once_until_it_changes() -> None:
    """A difference worth telling is told; the same again, or one that is small, is not."""
    skew = ClockSkew()
    told = [
        skew.learn(date(n), float(n), UPSTREAM + n + 0.5 + ahead_s, 0.1)
        for n, ahead_s in enumerate([0.0, 2.0, 2.5, 4.0, 4.5, 4.6, 1.0, 4.5, 9.0, 2.0, -9.0, -9.0])
    ]
    assert told == [False, False, True, False, False, True, False, False, True, False, True, False]
    assert ClockSkew().learn(date(0), 0.0, UPSTREAM + 0.5 - 2.5, 0.1) is True


def test_a_header_that_is_none_changes_nothing() -> None:
    """What cannot be read, or no clock can say, is not learnt; the one before is still known as itself."""
    skew = ClockSkew()
    absurd = (
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Tue, 31 Dec 2019 23:59:59 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
    )
    for text in ("", "soon", "Thu, 99 Foo 2026 00:00:00 GMT", *absurd):
        assert skew.learn(text, 0.0, UPSTREAM, 0.1) is False
        assert skew.skew_s(0.0, UPSTREAM) is None
    assert skew.learn(date(0), 0.0, UPSTREAM + 10.5, 0.1) is True
    assert skew.learn("soon", 5.0, UPSTREAM + 99.0, 0.1) is False
    assert skew.skew_s(5.0, UPSTREAM + 15.5) == 10.0
    # The same header, read later: the clock has not moved since, the answer has waited.
    assert skew.learn(date(0), 1.0, UPSTREAM + 11.5, 1.0) is False
    assert skew.skew_s(1.0, UPSTREAM + 11.5) == 11.0
