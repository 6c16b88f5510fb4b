"""Threads: workers that make attempts, and the alarm that says when something is due.

All are daemon threads started when first needed, so that a blocked call cannot hold up the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

_LONGEST_NAP_S = 1.0
"""Waits do not count suspend, so the alarm looks at the clock at least this often."""


class Workers:
    """Runs jobs on up to `limit` threads, started as needed.

    Thread safety: any thread may `run`.
    """

    def __init__(self, limit: int, on_bug: Callable[[BaseException], object]) -> None:
        self._limit = limit
        self._on_bug = on_bug
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._spare = 0

    def run(self, job: Callable[[], None]) -> None:
        """Run the job soon; jobs beyond the limit wait their turn.

        Raises:
            RuntimeError: The system gives no thread at all; the job will not run.
        """
        with self._lock:
            if self._spare > 0:
                self._spare -= 1
            elif self._started < self._limit:
                self._start_locked()
        self._jobs.put(job)

    def _start_locked(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"worker-{self._started}", daemon=True).start()
        except RuntimeError as error:
            # The system gives no more threads: those that run take the job in their turn.
            if not self._started:
                raise
            self._on_bug(error)
        else:
            self._started += 1

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception as bug:
                self._on_bug(bug)
            del job
            with self._lock:
                self._spare += 1


class Alarm:
    """Calls `ring` when a moment has come.

    Args:
        clock: Seconds on the timeline of the moments.

    Thread safety: any thread may `set`.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        ring: Callable[[], None],
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self._clock = clock
        self._ring = ring
        self._on_bug = on_bug
        self._changed = threading.Condition()
        self._at: float | None = None
        self._running = False

    def set(self, at: float | None) -> None:
        """Ring at this moment; an earlier one that is set already stays, None changes nothing."""
        if at is None:
            return
        with self._changed:
            if self._at is None or at < self._at:
                self._at = at
                if self._running:
                    self._changed.notify()
                else:
                    self._start_locked()

    def _start_locked(self) -> None:
        try:
            threading.Thread(target=self._watch, name="alarm", daemon=True).start()
        except RuntimeError as error:
            # The next moment that is set tries again.
            self._on_bug(error)
        else:
            self._running = True

    def _watch(self) -> None:
        while True:
            with self._changed:
                while True:
                    if self._at is None:
                        self._changed.wait()
                        continue
                    left_s = self._at - self._clock()
                    if left_s <= 0:
                        break
                    self._changed.wait(min(left_s, _LONGEST_NAP_S))
                self._at = None
            try:
                self._ring()
            except Exception as bug:
                self._on_bug(bug)
