"""Who may send next: the slots, and the reports that wait for another one's attempt.

In both lists the report whose window ends first goes first. Whether a pause or an unproven key holds an
attempt back is decided by `bridge.reports.pauses` in the ledger's transaction; here reports only wait.
"""

from __future__ import annotations

from _bisect import bisect_left, insort_right
from typing import Final

from bridge.core.model import PauseKey
from bridge.engine import Engine
from bridge.reports import window as windows
from bridge.reports.job import Job

POLL_S: Final = 0.25
"""How often the first report that waits for another bridge's probe asks again."""


class _Waiting:
    """Jobs in the order of their windows' ends; those of the same tenth of a second as they were made.

    Windows of tasks that were completed together differ by what passes between the readings of two clocks.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[float, int, Job]] = []
        self._places: dict[Job, tuple[float, int, Job]] = {}

    def wait(self, job: Job) -> None:
        """Wait until the job is popped; whatever else ends the wait takes it out of the list."""
        self._enter(job)
        try:
            job.pause()
        finally:
            self._leave(job)

    def release(self, job: Job) -> None:
        """Take out a job that waits, and wake it."""
        self._leave(job)
        job.wake()

    def move(self, job: Job) -> None:
        """Put a job that waits where it belongs now that its window ends at another time."""
        if job in self._places:
            self._leave(job)
            self._enter(job)

    def _enter(self, job: Job) -> None:
        entry = (round(windows.ends_at(job.window, job.has_begun), 1), job.number, job)
        self._places[job] = entry
        insort_right(self.entries, entry)

    def _leave(self, job: Job) -> None:
        entry = self._places.pop(job, None)
        if entry is not None:
            del self.entries[bisect_left(self.entries, entry)]


class Slots:
    """Bounds the attempts that are made at one time; nothing else holds a slot."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting = _Waiting()
        self.move = self._waiting.move

    def take_free(self, job: Job) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if not job.has_slot and self._free and not self._waiting.entries:
            self._free -= 1
            job.has_slot = True
        return job.has_slot

    def take(self, job: Job) -> None:
        """Wait for a slot.

        Raises:
            Interrupted: the job was ended before it got one.
        """
        while not self.take_free(job):
            self._waiting.wait(job)

    def give_back(self, job: Job) -> None:
        """Let go of the job's slot, if it has one."""
        if not job.has_slot:
            return
        job.has_slot = False
        if self._waiting.entries:
            _, _, first = self._waiting.entries[0]
            first.has_slot = True
            self._waiting.release(first)
        else:
            self._free += 1


class SingleFlight:
    """Reports that wait for another one's attempt: it probes a pause, or proves the key.

    An attempt of this bridge wakes them when it ends; one of another bridge is asked after each `POLL_S`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting = _Waiting()
        self.move = self._waiting.move
        self._is_polling = False

    def wait(self, job: Job, key: PauseKey) -> None:
        """Wait for the end of the other attempt.

        Args:
            key: the pause that it probes: who waits for another one's attempt is in nobody's way.

        Raises:
            Interrupted: the job was ended before.
        """
        job.waits_for = key
        if not self._is_polling:
            self._is_polling = True
            self._engine.spawn(self._poll)
        self._waiting.wait(job)

    def wake(self, everyone: bool) -> None:
        """Let them ask again: all, or of those that wait for one pause the one whose window ends first."""
        woken = set()
        for _, _, job in tuple(self._waiting.entries):
            if everyone or job.waits_for not in woken:
                woken.add(job.waits_for)
                self._waiting.release(job)

    def _poll(self) -> None:
        while self._waiting.entries:
            self._engine.sleep(POLL_S)
            self.wake(everyone=False)
        self._is_polling = False
