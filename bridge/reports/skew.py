"""How far the local clock is from the upstream's, learnt from Date headers. Pure: times are handed in."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from bridge.reports.verdict import parse_http_date

TOLERATED_S: Final = 2.0
"""Clocks that differ by less are taken as equal: a Date header has whole seconds."""

_read_date: Final = lru_cache(maxsize=1)(parse_http_date)
"""All answers of one second have the same header."""


class ClockSkew:
    """What is known of the upstream's clock.

    Kept against the timeline, so a jump of the local clock does not spoil it.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._told_s = 0.0

    def learn(self, date: str, now: float, wall: float, lasted_s: float) -> bool:
        """Take note of a Date header; True if the difference is worth telling and was not told yet.

        Args:
            lasted_s: seconds from the request to here. The header may be as old, if this process was stopped
                since it was written: then what is known already is believed as far as it can be true.
        """
        upstream = _read_date(date)
        if upstream is None:
            return False
        # A header names the second that has begun; its middle is the best guess.
        skew_s = wall - upstream - 0.5
        if lasted_s > TOLERATED_S:
            known_s = self.skew_s(now, wall) or 0.0
            skew_s = min(max(known_s, skew_s - lasted_s), skew_s)
        self._offset_s = wall - skew_s - now
        if abs(skew_s) <= TOLERATED_S or abs(skew_s - self._told_s) <= TOLERATED_S:
            return False
        self._told_s = skew_s
        return True

    def skew_s(self, now: float, wall: float) -> float | None:
        """Seconds the local clock is ahead of the upstream's; None before the first Date header."""
        return None if self._offset_s is None else wall - now - self._offset_s

    def age_s(self, completed_at: float, now: float, wall: float) -> float:
        """Seconds since a task was completed, on the upstream's clock; 0 if in the future."""
        skew_s = self.skew_s(now, wall)
        upstream_wall = wall if skew_s is None or abs(skew_s) <= TOLERATED_S else wall - skew_s
        return max(0.0, upstream_wall - completed_at)
