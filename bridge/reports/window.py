"""Time left: when a task may still be reported.

Pure arithmetic on the ledger's timeline (seconds). Nothing here reads a clock.
Source of the 60 s: the upstream's report pages; the margins are our own choices.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Final

from bridge.core.model import Window

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
    ends = inf if window.until is None else window.until - spare_s
    if window.since is not None:
        ends = min(ends, window.since + (UNANCHORED_RETRY_S if retrying else UNANCHORED_FIRST_S))
    return ends


starts_by: Final = partial(ends_at, spare_s=LEAST_LEFT_S)
"""The last moment an attempt may start."""
