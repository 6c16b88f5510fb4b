"""Two clocks: one for ages that nothing can disturb, one for people.

The boot clock counts suspend and does not follow changes of the wall clock (``CLOCK_BOOTTIME`` where the
system has it; macOS: its monotonic clock does the same). The ledger fixes the origin of its timeline on it,
so that all bridges of one boot agree.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final, Protocol

_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What time it is, in two ways."""

    def now(self) -> float:
        """Seconds since boot, suspend included."""

    def wall(self) -> float:
        """UNIX time in seconds, as this host believes it."""


class SystemClock:
    """The clocks of this machine."""

    # Not functions of our own: they are asked more than thirty times a report.
    now = staticmethod(partial(time.clock_gettime, _BOOT))
    """Seconds since boot, suspend included."""
    wall = staticmethod(time.time)
    """UNIX time in seconds, as this host believes it."""
