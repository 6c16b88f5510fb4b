"""Connections that wait for their next request. Sends and reads nothing itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bridge.upstream.streams import Stream

MAX_IDLE_S: Final = 50.0
"""How long a connection may wait for reuse. Load balancers close at 60 s, nginx at 75 s; leaving first means
that no request meets a connection which the other side is just closing (that would be an unknown outcome)."""
KEEP_ALIVE_MARGIN_S: Final = 1.0
"""A ``Keep-Alive: timeout`` is cut by this, for the way there."""
_TIMEOUT: Final = re.compile(r'(?:^|,)\s*timeout\s*=\s*"?([0-9]{1,6})[0-9]*"?\s*(?:,|$)', re.IGNORECASE)


class Pool:
    """Connections that wait for their next request, the last one in being the first one out.

    That keeps few connections warm and lets the others grow old.

    Args:
        now: the boot clock.
        size: idle connections kept at most.
    """

    def __init__(self, now: Callable[[], float], size: int) -> None:
        self._now = now
        self._size = size
        self.idle: list[tuple[Stream, float]] = []
        """Those that wait, and until when they may; the youngest is the last."""

    def take(self) -> Stream | None:
        """Take the youngest connection that is still open and quiet, or None if a new one is needed."""
        while self.idle:
            stream, expires_at = self.idle.pop()
            if self._now() < expires_at and not stream.is_stale():
                return stream
            stream.close()
        return None

    def give(self, stream: Stream, keep_alive: str | None) -> None:
        """Keep a clean connection for the next request.

        Args:
            stream: after a complete answer with nothing left over.
            keep_alive: the answer's ``Keep-Alive`` header, whose ``timeout`` may shorten the wait.
        """
        idle_s = _idle_seconds(keep_alive)
        if idle_s <= 0.0:
            stream.close()
            return
        self.idle.append((stream, self._now() + idle_s))
        if len(self.idle) > self._size:
            self.idle.pop(0)[0].close()

    def let_go(self) -> None:
        """Close everything that is idle."""
        while self.idle:
            self.idle.pop()[0].close()

    def close(self) -> None:
        """Close what is idle now, and later what comes back."""
        self._size = 0
        self.let_go()


def _idle_seconds(keep_alive: str | None) -> float:
    found = _TIMEOUT.search(keep_alive or "")
    return min(MAX_IDLE_S, int(found[1]) - KEEP_ALIVE_MARGIN_S) if found else MAX_IDLE_S
