"""Two clocks: one for ages that nothing can disturb, one for people.

The timeline counts suspend and does not follow changes of the wall clock (`CLOCK_BOOTTIME`
where the system has it). The ledger fixes its origin, so that bridges of one boot agree.
"""

from __future__ import annotations

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_clock() -> float:
    """Seconds since boot, suspend included (macOS: its monotonic clock does the same)."""
    return time.clock_gettime(_BOOT)


def wall_clock() -> float:
    """UNIX time in seconds, as the host believes it."""
    return time.time()
