"""What is owed to the ledger: the stories of reports it could not follow, and how they are paid.

An owed outcome is kept until it is written or this process ends. Imported by the journal only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bridge.core.model import DONE, Listing, Operation, Record, Row, Task
from bridge.ledger.dialect import View
from bridge.ledger.story import Story
from bridge.ledger.trouble import LedgerTrouble

CHUNK: Final = 64
"""Stories paid in one commit: as many reports as one group commit holds at full load."""
MAX_OWED: Final = 100_000
"""Owed outcomes kept at most, about 200 MB; a report a second for a day stays below it."""


class Paid(NamedTuple):
    """What one payment came to."""

    durable: frozenset[Task]
    """Reports of which the ledger now says what is true."""
    written: int
    """Outcomes that are in the ledger now."""
    differing: int
    """Outcomes that the ledger did not take: another bridge has or had the report."""


class Owed:
    """The stories by task, and which of them the ledger still has to be told.

    Thread safety: one thread, but `count` may be read by any.
    """

    def __init__(
        self,
        on_bug: Callable[[BaseException], str],
        on_paid: Callable[[Row], None],
        on_answer: Callable[[Operation, Any], None],
    ) -> None:
        self.stories: dict[Task, Story] = {}
        """Every report that is not, or not only, in the ledger's care."""
        self.count = 0
        """Outcomes that are not written yet."""
        self.dropped = 0
        """Outcomes given up because there were more than `MAX_OWED`."""
        self._pending: dict[Task, Story] = {}
        self._feeding: set[Task] = set()
        self._on_bug = on_bug
        self._on_paid = on_paid
        self._on_answer = on_answer

    @property
    def is_pending(self) -> bool:
        """True if there is something that paying could write."""
        return bool(self._pending)

    @property
    def is_feeding(self) -> bool:
        """True if something pending may open a pause in the ledger."""
        return bool(self._feeding)

    def add(self, story: Story) -> None:
        """Take up a story. One that was told before for the same task is replaced."""
        before = self.stories.get(story.row.task)
        if before is not None:
            self.count -= before.counted
        self.stories[story.row.task] = story

    def note(self, story: Story, op: Operation, row: Row) -> None:
        """Owe one more operation, after which the given row is true."""
        is_done = row.state == DONE
        self.count += is_done - story.counted
        story.counted = is_done
        story.row = row
        story.owed.append(op)
        self._pending[row.task] = story
        if isinstance(op, Record) and (op.verdict.pause is not None or not op.verdict.has_status):
            self._feeding.add(row.task)
        if self.count > MAX_OWED:
            self._drop_oldest()

    def owe_claims(self) -> None:
        """The ledger is another one now: it has to be told every claim."""
        for task, story in self.stories.items():
            story.claim_anew()
            self._pending[task] = story

    def unstick(self) -> None:
        """Give stories that failed for an unknown reason another try."""
        for task, story in self.stories.items():
            if story.stuck:
                story.stuck = False
                self._pending[task] = story

    def pay(self, view: View) -> Paid:
        """Write the oldest pending stories, at most `CHUNK`, in one commit.

        Raises:
            LedgerTrouble: nothing was written.
        """
        chunk: list[Story] = []
        for story in self._pending.values():
            chunk.append(story)
            if len(chunk) == CHUNK:
                break
        if not chunk:
            return Paid(frozenset(), 0, 0)
        try:
            return self._pay(view, chunk)
        except LedgerTrouble:
            raise
        except Exception:
            # One of them cannot be replayed. It must not keep the others from being written.
            paid = [self._pay_alone(view, story) for story in chunk]
        tasks = frozenset[Task]().union(*[p.durable for p in paid])
        return Paid(tasks, sum(p.written for p in paid), sum(p.differing for p in paid))

    def _pay_alone(self, view: View, story: Story) -> Paid:
        try:
            return self._pay(view, [story])
        except LedgerTrouble:
            raise
        except Exception as error:
            self._on_bug(error)
            story.stuck = True
            self._forget(story.row.task)
            return Paid(frozenset(), 0, 0)

    def _pay(self, view: View, chunk: list[Story]) -> Paid:
        replays = [story.replay() for story in chunk]
        operations = [op for replay in replays for op in replay]
        results = view.transact(operations)
        for op, answer in zip(operations, results, strict=True):
            self._on_answer(op, answer)
        durable: set[Task] = set()
        written = differing = start = 0
        for story, replay in zip(chunk, replays, strict=True):
            answers = results[start : start + len(replay)]
            start += len(replay)
            task = story.row.task
            agrees = _agrees(story.row, answers, view.store.instance)
            if agrees:
                durable.add(task)
            story.owed.clear()
            self._forget(task)
            if story.row.state == DONE:
                self.stories.pop(task, None)
                self.count -= 1
                written += agrees
                differing += not agrees
                if agrees:
                    self._on_paid(story.row)
        return Paid(frozenset(durable), written, differing)

    def _forget(self, task: Task) -> None:
        self._pending.pop(task, None)
        self._feeding.discard(task)

    def _drop_oldest(self) -> None:
        for task, story in self.stories.items():
            if story.row.state == DONE:
                del self.stories[task]
                self._forget(task)
                self.count -= 1
                self.dropped += 1
                return

    # --- reading -----------------------------------------------------------------------------

    def overlay(self, listing: Listing, listed: tuple[Row, ...]) -> tuple[Row, ...]:
        """Correct rows of the ledger by what is known better."""
        stories = self.stories
        kept = []
        for row in listed:
            story = stories.get(row.task)
            true = row if story is None else story.row._replace(seq=row.seq)
            if _fits(listing, true):
                kept.append(true)
        return tuple(kept)

    def unlisted(self, listing: Listing, listed: tuple[Row, ...]) -> tuple[Row, ...]:
        """The rows, newest first, that only this process knows."""
        tasks = {row.task for row in listed}
        rows = [s.row for t, s in self.stories.items() if t not in tasks and _fits(listing, s.row)]
        rows.sort(key=_recorded, reverse=True)
        return tuple(rows[: listing.limit])


def _recorded(row: Row) -> float:
    return row.recorded_wall


def _agrees(row: Row, answers: list[Any], instance: str) -> bool:
    """True if the ledger's last word on a report is what is true."""
    for answer in reversed(answers):
        told: Row | None = None if answer is None else answer.row
        if told is not None:
            if row.state == DONE:
                return told.state == DONE and told.outcome == row.outcome and told.code == row.code
            return told.state == row.state and told.owner == instance
    return False


def _fits(listing: Listing, row: Row) -> bool:
    return (
        (listing.endpoint is None or row.task.endpoint == listing.endpoint)
        and (listing.since_wall is None or row.recorded_wall >= listing.since_wall)
        and (listing.until_wall is None or row.recorded_wall <= listing.until_wall)
        and (listing.outcome is None or row.outcome == listing.outcome)
        and (listing.method is None or row.method == listing.method)
    )
