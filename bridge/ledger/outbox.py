"""What is owed to the ledger: reports and pauses as they are in the store in memory, which stands in for it.

What changes in memory is the truth, and it is brought to the ledger as a whole when that works again, not
replayed step by step. Decides nothing about trouble, and asks nobody. Imported by `bridge.ledger.failover`
only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.counting import HOUR_S, Note, Operation, add
from bridge.core.model import DONE, Listing, Look, Narrow, PauseKey, PauseState, Row, Task
from bridge.ledger.port import Forget, MemoryStore, Restore, Restored, Teach
from bridge.ledger.translation import View

CHUNK: Final = 64
"""Reports brought to the ledger in one commit: as many as one group commit holds at full load."""
MAX_OWED: Final = 100_000
"""Owed outcomes kept at most, about 200 MB; a report a second for a day stays below it."""


class Outbox:
    """Reports whose truth is in memory, and what memory knows about pauses.

    Args:
        open_memory: opens the empty store, when it is first needed.

    Thread safety: one thread; `owed` may be read by any.
    """

    def __init__(self, open_memory: Callable[[], MemoryStore]) -> None:
        self._open_memory = open_memory
        self._memory: MemoryStore | None = None
        self.held: dict[Task, tuple[int, int]] = {}
        """Reports -> attempts and sends that the ledger had counted before."""
        self._unwritten: dict[Task, None] = {}
        self._stuck: set[Task] = set()
        self._taken_over: dict[tuple[str, PauseKey], PauseState] = {}
        """The pauses as they were taken over from the ledger."""
        self._notes: dict[tuple[Task, str, int], Note] = {}
        self.written = self.differing = 0
        """Outcomes that the ledger took, and did not take because it knows otherwise."""

    @property
    def memory(self) -> MemoryStore:
        """The store in memory."""
        if self._memory is None:
            self._memory = self._open_memory()
        return self._memory

    @property
    def owed(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._unwritten)

    def rest(self) -> None:
        """The ledger works again: memory is of no more use, unless it still has the truth about something."""
        if self._memory is not None and not self.held:
            self._memory.close()
            self._memory = None
            self._taken_over.clear()

    # --- reports -----------------------------------------------------------------------------

    def pending(self, most: int = CHUNK) -> list[Task]:
        """The oldest reports whose truth is in memory, but those that could not be brought."""
        tasks: list[Task] = []
        for task in self.held:
            if task not in self._stuck:
                tasks.append(task)
                if len(tasks) == most:
                    break
        return tasks

    def pending_for(self, operations: Sequence[Operation]) -> list[Task]:
        """The reports that the ledger must know of before it can run some operations."""
        if any(type(op) is Listing for op in operations):
            return self.pending(len(self.held))
        asked = {getattr(op, "task", None) for op in operations}
        return [task for task in self.held if task in asked]

    def hold(self, task: Task, before: Row | None) -> None:
        """From now on memory has the truth about a report."""
        self.held.setdefault(task, (0, 0) if before is None else (before.attempts, before.sends))

    def seed(self, row: Row, finished_at: float | None) -> None:
        """Let memory know a report as the ledger has it."""
        self.memory.transact([Forget(row.task), Restore(row, finished_at)])

    def run(self, op: Any, before: Row | None) -> Any:
        """Run an operation in memory, and keep its report there if that changed.

        Args:
            before: the report as it was seeded or is held.
        """
        task: Task = op.task
        answer = self.memory.transact([op])[0]
        after = self.row(task)
        if task in self.held or _has_changed(before, after, self.memory.instance):
            self.hold(task, before)
            if after is not None and not isinstance(op, Narrow | Look):
                self._count(task, after.state == DONE)
        elif after is not None:
            self.memory.transact([Forget(task)])
        return answer

    def row(self, task: Task) -> Row | None:
        """A report as memory has it."""
        row: Row | None = self.memory.read(Look(task))
        return row

    def _count(self, task: Task, is_owed: bool) -> None:
        if not is_owed:
            self._unwritten.pop(task, None)
            return
        self._unwritten[task] = None
        if len(self._unwritten) > MAX_OWED:
            self._drop(next(iter(self._unwritten)))

    def _drop(self, task: Task) -> None:
        """Memory has the truth about a report no more."""
        self.held.pop(task, None)
        self._unwritten.pop(task, None)
        self.memory.transact([Forget(task)])

    def hold_note(self, note: Note) -> None:
        """Keep a count of tasks until the ledger can add it, together with those of the same hour."""
        key = (note.task, note.subject, int(note.at // HOUR_S))
        held = self._notes.get(key)
        self._notes[key] = note if held is None else held._replace(counts=add(held.counts, note.counts))

    def take_notes(self) -> list[Note]:
        """The notes that were kept; they are not kept any more."""
        notes = list(self._notes.values())
        self._notes.clear()
        return notes

    # --- to the ledger -----------------------------------------------------------------------

    def bring(self, view: View, tasks: Sequence[Task]) -> list[Row]:
        """Bring reports to the ledger, and before them all pauses that memory has learnt, in one commit.

        Returns:
            The reports as the ledger has them now.

        Raises:
            LedgerTrouble: nothing has changed.
        """
        lessons = self.lessons()
        truths = [self._tell(task) for task in tasks]
        answers = view.transact([*lessons, *truths])
        for lesson in lessons:
            self._taken_over.update(((lesson.endpoint, state.key), state) for _, state in lesson.pauses)
        rows = []
        for truth, answer in zip(truths, answers[len(lessons) :], strict=True):
            assert isinstance(answer, Restored)
            if truth.row.task in self._unwritten:
                self.written += answer.agrees
                self.differing += not answer.agrees
            self._drop(truth.row.task)
            rows.append(answer.row)
        return rows

    def give_up(self, task: Task) -> None:
        """A report cannot be brought, for a reason that trying again soon cannot help."""
        self._stuck.add(task)

    def try_all(self) -> None:
        """Give up on nothing any more."""
        self._stuck.clear()

    def _tell(self, task: Task) -> Restore:
        known = self.memory.ask(task)
        assert known.row is not None
        return Restore(known.row, known.finished_at, self.held[task], self.memory.events(known.row.seq))

    # --- pauses ------------------------------------------------------------------------------

    def lessons(self) -> list[Teach]:
        """What memory has learnt about pauses and the ledger does not know."""
        learnt: dict[str, list[tuple[PauseState | None, PauseState]]] = {}
        seen: Mapping[tuple[str, str], Mapping[PauseKey, PauseState]]
        seen = {} if self._memory is None else self._memory.seen
        for (endpoint, _), states in seen.items():
            for key, state in states.items():
                before = self._taken_over.get((endpoint, key))
                if state != before:
                    learnt.setdefault(endpoint, []).append((before, state))
        return [Teach(endpoint, tuple(pauses)) for endpoint, pauses in learnt.items()]

    def take_over(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Let memory know pauses as the ledger has them, unless it knows better."""
        told: list[tuple[PauseState | None, PauseState]] = []
        for state in states:
            before = self._taken_over.get((endpoint, state.key))
            if state != before:
                told.append((before, state))
                self._taken_over[endpoint, state.key] = state
        if told:
            self.memory.transact([Teach(endpoint, tuple(told))])

    def begin_anew(self) -> None:
        """The ledger is another one now, that has to be told everything."""
        self._taken_over.clear()

    # --- reading -----------------------------------------------------------------------------

    def overlay(self, op: Listing, listed: Iterable[Row]) -> tuple[Row, ...]:
        """A page of the ledger with the truth in place of what it does not know, all on the first."""
        rows = [row for row in listed if row.task not in self.held]
        if op.before_seq is None:
            rows += self.memory.read(op)[0]
            rows.sort(key=_recorded, reverse=True)
        return tuple(rows)


def _has_changed(before: Row | None, after: Row | None, instance: str) -> bool:
    if after is None:
        return False
    if before is None or after.owner == instance or before.owner != after.owner:
        return True
    return (before.window, before.kind, before.finished_wall) != (
        after.window,
        after.kind,
        after.finished_wall,
    )


def _recorded(row: Row) -> float:
    return row.recorded_wall
