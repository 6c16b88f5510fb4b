"""Who else is alive on a PostgreSQL ledger: each instance's session holds a lock, and is given a moment.

A lock that is free says that its session is gone. That may be a bridge that died, or one that comes
back at once because only its connection broke; so a lock has to stay free for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

GRACE_S: Final = 2.0
"""How long a lock stays free before its instance counts as dead. A bridge that lives is back within
half a second of the server's return (see `postgres_pulse`); twice that, and once more for a busy machine."""
_MOST: Final = 10_000


class Neighbours:
    """What was seen of other instances' locks.

    Args:
        grace_s: seconds that a lock has to stay free.
        clock: monotonic seconds.
    """

    def __init__(self, grace_s: float = GRACE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._free_since: dict[str, float] = {}

    def is_alive(self, instance: str, is_free: bool) -> bool:
        """Judge an instance by whether its lock is free now."""
        if not is_free:
            self._free_since.pop(instance, None)
            return True
        if len(self._free_since) > _MOST:
            self._free_since.clear()
        now = self._clock()
        return now - self._free_since.setdefault(instance, now) < self._grace_s

    def forgive(self) -> None:
        """Begin anew: when our own connection broke, everybody's may have."""
        self._free_since.clear()
