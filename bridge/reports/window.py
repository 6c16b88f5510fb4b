"""Time left: when a task may still be reported, and how old it is by the upstream's clock.

Pure arithmetic on the ledger's timeline (seconds). Nothing here reads a clock.
Source of the 60 s: the upstream's report pages; the margins are our own choices.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Final

from bridge.core.model import Window
from bridge.reports.verdict import parse_http_date

REPORTABLE_S: Final = 60.0
"""A task can be reported this long after the worker finished it."""
UNANCHORED_FIRST_S: Final = 55.0
"""Without ``completedAt`` a first attempt may start this long after receipt: the task was completed
before we heard of it, and polling has used some of the minute."""
UNANCHORED_RETRY_S: Final = 30.0
"""Without ``completedAt`` a retry may start this long after receipt; later ones could only be late."""
LEAST_LEFT_S: Final = 2.0
"""No attempt starts with less left: it could hardly arrive. One that starts then has as long to send."""
RESEND_LEFT_S: Final = 5.0
"""No second send after a perhaps-delivered one with less left."""
TOLERATED_S: Final = 2.0
"""Clocks that differ by less are taken as equal: a Date header has whole seconds."""


def open_window(now: float, age_s: float | None) -> Window:
    """Open the window of a task at the receipt of a request.

    Args:
        now: The receipt, on the timeline.
        age_s: Seconds since ``completedAt``, clock skew corrected; None if it was not told.
            A negative age (completed in the future) counts as zero.
    """
    if age_s is None:
        return Window(None, now)
    return Window(now + REPORTABLE_S - max(0.0, age_s), None)


def age_s(window: Window, now: float) -> float | None:
    """How old the task is by its window; None if nobody told ``completedAt``."""
    return None if window.until is None else REPORTABLE_S - (window.until - now)


def ends_at(window: Window, retrying: bool, spare_s: float = 0.0) -> float:
    """When a report that still waits is answered, because nothing can be sent any more.

    Args:
        spare_s: What is kept of a minute whose end is known.
    """
    ends = float("inf") if window.until is None else window.until - spare_s
    if window.since is not None:
        ends = min(ends, window.since + (UNANCHORED_RETRY_S if retrying else UNANCHORED_FIRST_S))
    return ends


starts_by: Final = partial(ends_at, spare_s=LEAST_LEFT_S)
"""The last moment an attempt may start."""


# --- the upstream's clock ----------------------------------------------------------------------

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
