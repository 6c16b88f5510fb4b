"""What happens while the ledger takes nothing: the same store in memory takes the operations in its place.

They run upon what is known of their reports and pauses. What changes in memory is the truth, and it is owed:
it is brought to the ledger as a whole when that works again, not replayed step by step. Decides nothing about
trouble. Imported by `bridge.ledger.failover` only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bridge.core import counting, model
from bridge.core.counting import Note, Operation
from bridge.core.model import DONE, NOT_SENT, SENDING, Claim, Listing, Look, PauseKey, PauseState, Row, Task
from bridge.ledger import port
from bridge.ledger.port import Ask, EventRow, Failed, Forget, Known, Restore, Store, Story, Teach
from bridge.ledger.translation import View
from bridge.ledger.trouble import UNREADABLE, LedgerTrouble

CHUNK: Final = 64
"""Reports brought to the ledger in one commit: as many as one group commit holds at full load."""
MAX_OWED: Final = 100_000
"""Owed outcomes kept at most, about 200 MB; a report a second for a day stays below it."""
MAX_RECENT: Final = 4_096
"""Reports, finished or of other bridges, remembered in case the ledger becomes unreadable; about 4 MB."""
DEAD: Final = ""
"""Owner in memory of what a dead bridge left and never began."""
OTHERS: Final = "others"
"""Owner in memory of what a living bridge has, as far as anybody knows."""
_NOTHING: Final[Mapping[type, Any]] = {
    model.Sweep: model.Swept((), ()),
    model.Prune: 0,
    counting.Consult: False,
    counting.Learn: False,
}
"""Operation that only a ledger can run -> its result without one."""


class Outbox:
    """The ledger as it last was, and the store in memory with the reports whose truth is there.

    Args:
        open_memory: opens the empty store, when it is first needed.
        require: refuse to begin reports.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        wall: UNIX seconds.

    Thread safety: one thread; `owed`, `primary` and `trouble` may be read by any.
    """

    def __init__(
        self,
        open_memory: Callable[[], port.MemoryStore],
        require: bool,
        on_bug: Callable[[BaseException], str],
        wall: Callable[[], float],
    ) -> None:
        self.instance = ""
        self.primary: Store | None = None
        """The ledger."""
        self.view: Store | View | None = None
        """The same in our words."""
        self.trouble: LedgerTrouble | None = None
        self.is_guarded = True
        """True if duplicates and pauses of other processes can be seen: it works, or at least answers."""
        self.live: dict[Task, Row] = {}
        """Our own reports."""
        self.recent: OrderedDict[Task, Row] = OrderedDict()  # a dict finds its first key slowly
        """Reports that are done, or another bridge's; the latest last."""
        self._open_memory = open_memory
        self._require = require
        self._on_bug = on_bug
        self._wall = wall
        self._memory: port.MemoryStore | None = None
        self.held: dict[Task, Row | None] = {}
        """Reports -> what the ledger had of them before, as far as that was known."""
        self._unwritten: dict[Task, None] = {}
        self.stuck: set[Task] = set()
        """Reports that could not be brought, for a reason that trying again soon cannot help."""
        self._taken_over: dict[tuple[str, PauseKey], PauseState] = {}
        """The pauses as they were taken over from the ledger."""
        self._has_heard = False
        """True if memory knows the pauses that the ledger last told."""
        self._notes: dict[tuple[Any, ...], Note] = {}
        self._narrows: dict[Task, model.Narrow] = {}
        """Earlier ends of windows that the ledger does not know and memory has no report for."""
        self.written = self.differing = 0
        """Outcomes that the ledger took, and did not take because it knows otherwise."""

    @property
    def memory(self) -> port.MemoryStore:
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
        self._has_heard = False
        if self._memory is not None and not self.held:
            self._memory.close()
            self._memory = None
            self._taken_over.clear()

    # --- the ledger --------------------------------------------------------------------------

    @property
    def is_durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self.trouble is None and self.keeps

    @property
    def keeps(self) -> bool:
        """True if what the ledger has survives this process."""
        return self.primary is not None and self.primary.durable

    def is_alive(self, instance: str) -> bool:
        """Whether a prober of a pause still runs; of others only the ledger can know that."""
        if instance in (self.instance, OTHERS, DEAD):
            return instance != DEAD
        return self.primary is not None and self.is_guarded and self.primary.is_alive(instance)

    def follow(self, row: Row) -> None:
        """Remember what the ledger said about a report."""
        task, recent = row.task, self.recent
        if row.owner == self.instance:
            self.live[task] = row
            return
        self.live.pop(task, None)
        recent[task] = row
        recent.move_to_end(task)
        if len(recent) > MAX_RECENT:
            recent.popitem(last=False)

    def follow_narrow(self, op: model.Narrow) -> None:
        """Remember that a window ends earlier."""
        for rows in (self.live, self.recent):
            row = rows.get(op.task)
            if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
                rows[op.task] = row._replace(window=row.window.narrowed_by(op.window))

    def recall(self, task: Task, known: Known | None) -> Row | None:
        """A report as the ledger has it, or as it last told it if it cannot be asked."""
        row = None if known is None else known.row
        live = self.live.get(task)
        if live is not None and (row is None or row.owner in (None, self.instance)):
            return live
        if known is None:
            return self.recent.get(task)
        if row is not None and row.owner != self.instance:
            self.follow(row)
        elif row is not None and row.state == SENDING:
            # It was committed and nobody was told, so no attempt has followed.
            attempts = row.attempts - 1
            row = row._replace(state=model.WAITING if attempts else model.QUEUED, attempts=attempts)
        return row

    # --- in the ledger's place ---------------------------------------------------------------

    def run(self, op: Operation) -> Any:
        """Run one operation in bad days. Raises nothing."""
        try:
            if type(op) in _NOTHING:
                return _NOTHING[type(op)]
            if isinstance(op, Listing):
                return self._list(op)
            if isinstance(op, Note):
                # Kept together with those of the same hour, until the ledger can add it.
                first = self._notes.setdefault(_hour_of(op), op._replace(counts=counting.Counts()))
                self._notes[_hour_of(op)] = first._replace(counts=counting.add(first.counts, op.counts))
                return None
            if isinstance(op, counting.Tallies):
                return self._ask(op) or ()
            if isinstance(op, model.Pauses | model.Resume):
                self._take_over(op.endpoint, self._ask(model.Pauses(op.endpoint)) or ())
                return self._run_here(op)
            return self._run_on_report(op)
        except Exception as error:
            return Failed(self._on_bug(error))

    def _run_on_report(self, op: Any) -> Any:
        """Run an operation upon the truth about its report, which is kept if it changed."""
        task: Task = op.task
        before: Row | None = self.live.get(task)
        if task in self.held:
            before = self._run_here(Look(task))
        which = op if isinstance(op, Claim) else before
        method = None if which is None else which.method
        known: Known | None = self._ask(Ask(task, method))
        if known is not None:
            self._take_over(task.endpoint, known.pauses)
            is_others = known.row is not None and known.row.owner != self.instance
            is_told = is_others and not known.is_free and not _is_empty(known.row)
            if task in self.held and _is_empty(before) and is_told and _is_news(known.row, self.held[task]):
                # While nobody could be asked it was told off; now the ledger says what others did with it.
                assert before is not None
                self._narrows[task] = model.Narrow(task, before.window)
                self._drop(task)
        if task not in self.held:
            before = self.recall(task, known)
            if before is not None and task in self._narrows:
                before = before._replace(window=before.window.narrowed_by(self._narrows[task].window))
            if before is not None and before.owner not in (None, self.instance):
                before = before._replace(owner=DEAD if known is not None and known.is_free else OTHERS)
        if self._require and self._would_send(op, before):
            assert self.trouble is not None
            return port.Unavailable(self.trouble.kind, self.trouble.sentence)
        if before is not None and task not in self.held:
            self.seed(before, known.finished_at if known is not None and before.state == DONE else None)
        answer = self._run_here(op)
        self._settle(op, before)
        if isinstance(answer, model.Claimed | model.Begun | model.Recorded):
            # What a readable ledger told is as durable as it is there.
            told = known is not None and task not in self.held
            answer = answer._replace(durable=told and self.keeps)
            if not isinstance(answer, model.Recorded):
                answer = answer._replace(guarded=self.is_guarded)
        return answer

    def _settle(self, op: Any, before: Row | None) -> None:
        """Keep a report that an operation has changed in memory, and nothing else."""
        task: Task = op.task
        after: Row | None = self._run_here(Look(task))
        if after is None:
            return
        if task not in self.held and not self._has_changed(before, after):
            self._run_here(Forget(task))
            return
        self.held.setdefault(task, before)
        self.live.pop(task, None)
        if isinstance(op, model.Narrow | Look):
            return
        if after.state != DONE:
            self._unwritten.pop(task, None)
            return
        self._unwritten[task] = None
        if len(self._unwritten) > MAX_OWED:
            self._drop(next(iter(self._unwritten)))

    def _has_changed(self, before: Row | None, after: Row) -> bool:
        if after.owner is not None:
            return after.owner == self.instance
        if before is None or before.owner is not None:
            return True
        was = (before.window, before.kind, before.finished_wall)
        return was != (after.window, after.kind, after.finished_wall)

    def _would_send(self, op: Any, row: Row | None) -> bool:
        """True if an operation would lead to an attempt that a required ledger cannot know of."""
        if row is not None and row.owner == OTHERS:
            return False
        if not isinstance(op, Claim) or op.refusal is not None:
            return isinstance(op, model.Begin)
        if row is None or row.owner == DEAD or row.outcome == NOT_SENT:
            return True
        return row.finished_wall is not None and self._wall() - row.finished_wall > model.GUARD_S

    def _run_here(self, op: port.Operation) -> Any:
        """Run one operation in memory."""
        return self.memory.transact([op])[0]

    def _ask(self, op: port.Operation) -> Any:
        """Ask the ledger something; if it cannot be asked, None, and memory hears what it last told."""
        if self.view is not None and self.is_guarded:
            try:
                return self.view.transact([op])[0]
            except LedgerTrouble:
                pass
            except Exception as error:
                self._on_bug(error)
            self.is_guarded = False
        self.hear()
        return None

    def _list(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of the ledger with the truth in place of what it does not know, all on the first."""
        listed, cursor = self._ask(op) or ((), None)
        rows = [row for row in listed if row.task not in self.held]
        if op.before_seq is None:
            rows += self._run_here(op)[0]
            rows.sort(key=lambda row: row.recorded_wall, reverse=True)
        return tuple(rows), cursor

    # --- reports in memory -------------------------------------------------------------------

    def pending(self, most: int = CHUNK) -> list[Task]:
        """The oldest reports whose truth is in memory, but those that could not be brought."""
        return list(islice((task for task in self.held if task not in self.stuck), most))

    def pending_for(self, operations: Sequence[Operation]) -> list[Task]:
        """The reports that the ledger must know of before it can run some operations."""
        if any(type(op) is Listing for op in operations):
            return self.pending(len(self.held))
        asked = {getattr(op, "task", None) for op in operations}
        return [task for task in self.held if task in asked]

    def seed(self, row: Row, finished_at: float | None, events: tuple[EventRow, ...] = ()) -> None:
        """Let memory know a report as the ledger has it."""
        self.memory.transact([Forget(row.task), Restore(row, finished_at, events=events)])

    def _drop(self, task: Task) -> None:
        """Memory has the truth about a report no more."""
        self.held.pop(task, None)
        self._unwritten.pop(task, None)
        self._run_here(Forget(task))

    # --- to the ledger -----------------------------------------------------------------------

    def pay(self, tasks: Iterable[Task], commit: Callable[[Sequence[Any], list[Any]], None]) -> None:
        """Bring reports to the ledger, and before them all that memory has learnt and counted.

        Args:
            commit: runs operations in one commit if it can be, and adds their answers to a list.

        Raises:
            LedgerTrouble: what was not brought is still owed.
        """
        truths = [self._tell(task) for task in tasks]
        # Deletes nothing, but takes the lock that any write needs.
        more = (*self._lessons(), *self._notes.values(), *self._narrows.values())
        operations = [model.Prune(0.0, 1), *more, *truths]
        answers: list[Any] = []
        try:
            commit(operations, answers)
        finally:
            for op, answer in zip(operations, answers, strict=False):
                self._note_paid(op, answer)
        if isinstance(answers[0], Failed):
            raise LedgerTrouble(UNREADABLE)

    def _note_paid(self, op: Any, answer: Any) -> None:
        if isinstance(answer, Failed):
            if isinstance(op, Restore):
                self.stuck.add(op.row.task)
        elif isinstance(op, Teach):
            self._agree(op)
        elif isinstance(op, Note):
            del self._notes[_hour_of(op)]
        elif isinstance(op, model.Narrow):
            del self._narrows[op.task]
        elif isinstance(answer, port.Restored):
            task = op.row.task
            if task in self._unwritten:
                self.written += answer.agrees
                self.differing += not answer.agrees
            self._drop(task)
            self.follow(answer.row)

    def _tell(self, task: Task) -> Restore:
        known: Known = self._run_here(Ask(task, None))
        assert known.row is not None
        events = self._run_here(Story(known.row.seq))
        before = self.held[task]
        since = (0, 0) if before is None else (before.attempts, before.sends)
        return Restore(known.row, known.finished_at, since, events)

    # --- pauses ------------------------------------------------------------------------------

    def _lessons(self) -> list[Teach]:
        """What memory has learnt about pauses and the ledger does not know."""
        seen = {} if self._memory is None else self._memory.seen
        lessons = [self._lesson(endpoint, states.values()) for (endpoint, _), states in seen.items()]
        return [lesson for lesson in lessons if lesson.pauses]

    def _lesson(self, endpoint: str, states: Iterable[PauseState]) -> Teach:
        """The pauses of which memory and the ledger say different things."""
        pairs = [(self._taken_over.get((endpoint, state.key)), state) for state in states]
        return Teach(endpoint, tuple([(before, state) for before, state in pairs if before != state]))

    def _take_over(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Let memory know pauses as the ledger has them, unless it knows better."""
        lesson = self._lesson(endpoint, states)
        if lesson.pauses:
            self._agree(lesson)
            self._run_here(lesson)

    def _agree(self, lesson: Teach) -> None:
        for _, state in lesson.pauses:
            self._taken_over[lesson.endpoint, state.key] = state

    def hear(self) -> None:
        """Take over the pauses that the ledger last told."""
        if self.view is not None and not self._has_heard:
            self._has_heard = True
            for (endpoint, _), states in self.view.seen.items():
                self._take_over(endpoint, states.values())

    def begin_anew(self) -> None:
        """The ledger may be another file now, that has to be told everything."""
        for row in (*self.recent.values(), *self.live.values()):
            if row.task in self.held or (row.state != DONE and row.owner != self.instance):
                continue
            # All that is known of its story.
            told = {"outcome": row.outcome, "kind": row.kind}
            ended = () if row.finished_wall is None else (EventRow(row.finished_wall, "settled", told),)
            self.seed(row, None, ended)
            self.held.setdefault(row.task, row)
        self.live.clear()
        self._taken_over.clear()


def _hour_of(note: Note) -> tuple[Any, ...]:
    return note.task, note.subject, note.at // counting.HOUR_S


def _is_news(row: Row | None, before: Row | None) -> bool:
    """True if the ledger's row of a held report is not the one that it had before."""
    if row is None or before is None:
        return row is not before
    return (row.seq, row.finished_wall) != (before.seq, before.finished_wall)


def _is_empty(row: Row | None) -> bool:
    """True if a report has ended and nothing was ever tried."""
    return row is not None and row.outcome == NOT_SENT and not row.attempts
