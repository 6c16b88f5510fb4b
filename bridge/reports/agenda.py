"""What is due when: a heap of moments with cancellation. Pure: the caller tells the time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Entry:
    """One thing to do at one moment; `cancel` forgets it."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget the entry; harmless when it has run."""
        self.action = None


class Agenda:
    """Actions ordered by the moment they are due.

    Thread safety: none; the owner's lock guards it.
    """

    def __init__(self) -> None:
        self._compact_at = 1024
        self._heap: list[tuple[float, int, Entry]] = []
        self._count = count()

    def add(self, at: float, action: Callable[[], None]) -> Entry:
        """Do `action` once at or after `at`."""
        entry = Entry(at, action)
        heapq.heappush(self._heap, (at, next(self._count), entry))
        if len(self._heap) >= self._compact_at:
            self._compact()
        return entry

    def next_at(self) -> float | None:
        """When the next action is due, or None."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self, now: float) -> None:
        """Run everything that is due."""
        while (at := self.next_at()) is not None and at <= now:
            entry = heapq.heappop(self._heap)[2]
            action, entry.action = entry.action, None
            assert action is not None  # next_at has dropped the cancelled ones
            action()

    def _compact(self) -> None:
        """Drop cancelled entries, so that memory follows what is alive."""
        self._heap = [item for item in self._heap if item[2].action is not None]
        heapq.heapify(self._heap)
        self._compact_at = max(1024, 2 * len(self._heap))
