"""What happens to an operation while the ledger cannot take it, or about a report that it did not take.

The memory store decides pauses and single-flight, `Owed` knows what is true, and the ledger is asked
as far as it can still be read. Driven by `bridge.ledger.degraded` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.core.model import (
    DONE,
    GUARD_S,
    NOT_SENT,
    PROBING,
    QUEUED,
    SENDING,
    WAITING,
    Begin,
    Begun,
    Claim,
    Claimed,
    Gate,
    Listing,
    Look,
    Narrow,
    Operation,
    PauseEvent,
    Pauses,
    Prune,
    Record,
    Recorded,
    Resume,
    Row,
    Settle,
    Sweep,
    Swept,
    Task,
    Window,
)
from bridge.ledger.dialect import Accounts, View
from bridge.ledger.ours import Condition, Failed, Heard, Ours, Unavailable, is_stale
from bridge.ledger.owed import Owed
from bridge.ledger.rows import merge_windows
from bridge.ledger.store import Store
from bridge.ledger.story import OWNED, Story, apply_row, claim_of, is_spent
from bridge.ledger.trouble import LedgerTrouble

_TRIM_EVERY: Final = 1_000
"""Finished reports between two looks for old ones in memory."""
_BLOCKED: Final = frozenset({"paused", "busy"})


class StandIn:
    """Takes single operations in the ledger's place.

    Args:
        on_trouble: told when the ledger fails to answer a question.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.

    Thread safety: one thread.
    """

    def __init__(
        self,
        open_memory: Callable[[], Store],
        accounts: Accounts,
        condition: Condition,
        ours: Ours,
        heard: Heard,
        owed: Owed,
        *,
        require: bool,
        on_trouble: Callable[[LedgerTrouble], None],
        on_bug: Callable[[BaseException], str],
        wall: Callable[[], float],
    ) -> None:
        self._open_memory = open_memory
        self._accounts = accounts
        self._condition = condition
        self._ours = ours
        self._heard = heard
        self._owed = owed
        self._require = require
        self._on_trouble = on_trouble
        self._on_bug = on_bug
        self._wall = wall
        self._memory: View | None = None
        self._finished = 0

    @property
    def memory(self) -> View:
        """The memory store, opened when it is first needed."""
        if self._memory is None:
            store = self._open_memory()
            self._accounts.settle(store.secret, store.clock_offset_s)
            self._memory = View(store, self._accounts, opaque=True)
        return self._memory

    def wake(self) -> None:
        """Open the memory store now: accounts need a secret, and the service a timeline."""
        assert self.memory is not None

    def close(self) -> None:
        """Let go of the memory store."""
        if self._memory is not None:
            self._memory.store.close()

    def count_finished(self, count: int) -> None:
        """Now and then delete from memory what needs no guard any more."""
        before, self._finished = self._finished // _TRIM_EVERY, self._finished + count
        if self._finished // _TRIM_EVERY == before or self._memory is None:
            return
        try:
            self._memory.transact([Prune(self._wall() - GUARD_S, 2 * _TRIM_EVERY)])
        except Exception as error:
            self._on_bug(error)

    def apply(self, op: Operation) -> Any:
        """Run one operation. Raises nothing."""
        try:
            return self._apply(op)
        except Exception as error:
            return Failed(self._on_bug(error))

    def _apply(self, op: Operation) -> Any:
        self._inform()
        if isinstance(op, Claim):
            return self._claim(op)
        if isinstance(op, Begin):
            return self._begin(op)
        if isinstance(op, Record | Settle):
            return self._finish(op)
        if isinstance(op, Narrow):
            return self._narrow(op)
        if isinstance(op, Look):
            return self._look(op)
        if isinstance(op, Listing):
            return self._list(op)
        if isinstance(op, Pauses):
            return self._pauses(op)
        if isinstance(op, Sweep):
            return Swept((), ())
        if isinstance(op, Resume) and self._condition.is_readable:
            return self._condition.unavailable()
        return self.memory.transact([op])[0]

    def _inform(self) -> None:
        """Tell memory the pauses that the ledger last told, if that cannot be asked itself."""
        if self._condition.is_guarded:
            return
        heard = self._heard.take_changed()
        if heard:
            self.memory.transact(heard)

    def _question(self, ask: Callable[[View], Any], otherwise: Any) -> Any:
        """Ask the ledger something, if it can be asked."""
        condition = self._condition
        if condition.view is None or not condition.is_guarded:
            return otherwise
        try:
            return ask(condition.view)
        except LedgerTrouble as trouble:
            if condition.trouble is None:
                self._on_trouble(trouble)
        except Exception as error:
            self._on_bug(error)
        condition.is_readable = False
        return otherwise

    # --- the claim ---------------------------------------------------------------------------

    def _claim(self, op: Claim) -> Claimed | Unavailable:
        story = self._story_of(op.task)
        before: Row | None = None
        if story is not None and is_stale(story.row, self._wall()):
            story = None
        if story is not None:
            before = story.row
            if before.state == DONE and before.outcome != NOT_SENT:
                return self._replay(op, before)
            if before.state != DONE and (before.state == SENDING or before.method != op.method):
                status = "elsewhere" if before.method == op.method else "conflict"
                if status == "elsewhere" and op.refusal is None:
                    self._narrow_story(story, op.window)
                return Claimed(status, story.row, durable=False, guarded=self._condition.is_guarded)
            if before.state != DONE:
                return self._claim_own(op, story)
        elif self._condition.trouble is not None:
            known = self._ask(op)
            if known is not None:
                return known if known.status != "elsewhere" else self._check_own(op, known)
            before = self._recall_life(op.task)
        if self._require and self._condition.trouble is not None and op.refusal is None:
            return self._condition.unavailable()
        return self._claim_in_memory(op, story, before)

    def _replay(self, op: Claim, row: Row) -> Claimed:
        return Claimed("known" if row.method == op.method else "conflict", row, durable=False)

    def _check_own(self, op: Claim, known: Claimed) -> Claimed:
        """See whether what somebody has is ours: a commit may succeed though its answer is an error."""
        row, primary = known.row, self._condition.primary
        if primary is None or row.owner != primary.instance:
            return known
        story = Story(row, in_memory=False)
        self._owed.add(story)
        return self._claim_own(op, story)

    def _claim_own(self, op: Claim, story: Story) -> Claimed:
        """A claim to what is ours already: its answer got lost, not the report."""
        self._narrow_story(story, op.window)
        gate = Gate("begun") if story.row.state == SENDING else None
        if op.begin and gate is None:
            begun = self._begin(Begin(op.task))
            gate = begun.gate if isinstance(begun, Begun) else None
        return Claimed("adopted", story.row, gate, durable=False, guarded=self._condition.is_guarded)

    def _ask(self, op: Claim) -> Claimed | None:
        """What the ledger, or else the memory of this process, knows about a task."""
        known: Claimed | None = self._question(lambda view: view.peek(op), None)
        if known is not None:
            return known
        row = None if self._condition.is_guarded else self._ours.recall_guard(op.task, self._wall())
        return None if row is None else self._replay(op, row)

    def _recall_life(self, task: Task) -> Row | None:
        """What a task that may be sent has behind it: its attempts count for life."""
        row: Row | None = self._question(lambda view: view.read(Look(task)), None) or self._ours.recall(task)
        return None if row is None or is_stale(row, self._wall()) else row

    def _claim_in_memory(self, op: Claim, story: Story | None, before: Row | None) -> Claimed:
        gate = None
        if op.begin:
            is_over = before is not None and is_spent(before)
            gate = Gate("spent") if is_over else self._primary_gate(op.task, op.method, op.window)
        claimed: Claimed = self.memory.transact([op._replace(begin=op.begin and gate is None)])[0]
        guarded = self._condition.is_guarded
        if claimed.status not in OWNED and claimed.status != "refused":
            return claimed._replace(durable=False, guarded=guarded)
        row = claimed.row
        if before is not None:
            attempts = before.attempts + (row.state == SENDING)
            window = merge_windows(before.window, row.window)
            row = row._replace(attempts=attempts, sends=before.sends, perhaps=before.perhaps, window=window)
        if story is None:
            story = Story(row, in_memory=True)
            self._owed.add(story)
        story.in_memory = True
        self._owed.note(story, op._replace(begin=row.state == SENDING), row)
        self.count_finished(row.state == DONE)
        return claimed._replace(row=row, gate=gate or claimed.gate, durable=False, guarded=guarded)

    # --- the gate ----------------------------------------------------------------------------

    def _primary_gate(self, task: Task, method: str, window: Window) -> Gate | None:
        """What forbids an attempt according to the ledger; None if nothing does or it cannot be asked."""
        gate: Gate | None = self._question(lambda view: view.peek_gate(task, method, window), None)
        self._inform()
        if gate is None or gate.status not in _BLOCKED or self._is_outdated(task, gate):
            return None
        self._heard.follow_gate(task, method, gate)
        return gate

    def _is_outdated(self, task: Task, gate: Gate) -> bool:
        """True if the ledger waits for a probe of ours whose end it could not be told."""
        pause, primary = gate.pause, self._condition.primary
        if gate.status != "busy" or pause is None or pause.state != PROBING or pause.probe_task is None:
            return False
        if primary is None or pause.probe_owner != primary.instance:
            return False
        account, _, number = pause.probe_task.partition("/")
        story = self._owed.stories.get(Task(task.endpoint, account, int(number)))
        return story is not None and story.row.state != SENDING

    # --- a report of ours --------------------------------------------------------------------

    def _story_of(self, task: Task) -> Story | None:
        """The story of a report of ours; the report leaves the ledger's sole care."""
        story = self._owed.stories.get(task)
        if story is None and task in self._ours.live:
            story = Story(self._ours.live.pop(task), in_memory=False)
            self._owed.add(story)
        return story

    def _begin(self, op: Begin) -> Begun | Unavailable:
        story = self._story_of(op.task)
        guarded = self._condition.is_guarded
        if story is None:
            return Begun(Gate("lost"), self._ours.recall(op.task), durable=False, guarded=guarded)
        row = story.row
        events: tuple[PauseEvent, ...] = ()
        if row.state not in (QUEUED, WAITING):
            gate = Gate("lost")
        elif is_spent(row):
            gate = Gate("spent")
        elif self._require and self._condition.trouble is not None:
            return self._condition.unavailable()
        else:
            blocked = self._primary_gate(op.task, row.method, row.window)
            gate, events = self._begin_in_memory(op, story) if blocked is None else (blocked, ())
            if gate.status == "begun":
                self._owed.note(story, op, apply_row(row, op, self._wall()))
        return Begun(gate, story.row, events, durable=False, guarded=self._condition.is_guarded)

    def _begin_in_memory(self, op: Begin, story: Story) -> tuple[Gate, tuple[PauseEvent, ...]]:
        """Ask the gate in memory. It knows the pauses of the bad days, and is the one to hold probes."""
        if story.in_memory:
            answer = self.memory.transact([op])[0]
        else:
            answer = self.memory.transact([claim_of(story.row, begin=True)])[0]
            story.in_memory = answer.status in OWNED
        if answer.gate is None or answer.gate.status not in _BLOCKED:
            # What memory says of the row itself is of no account: the story knows better.
            return Gate("begun"), answer.events
        return answer.gate, answer.events

    def _finish(self, op: Record | Settle) -> Recorded:
        story = self._story_of(op.task)
        if story is None or story.row.state == DONE:
            row = self._ours.recall(op.task) if story is None else story.row
            return Recorded("lost", row, durable=False)
        events = self._finish_in_memory(op, story)
        self._owed.note(story, op, apply_row(story.row, op, self._wall()))
        self.count_finished(story.row.state == DONE)
        return Recorded("ok", story.row, events, durable=False)

    def _finish_in_memory(self, op: Record | Settle, story: Story) -> tuple[PauseEvent, ...]:
        """Let memory learn for its pauses. The answer does not need it, so it may fail."""
        batch: list[Operation] = [op]
        if not story.in_memory:
            if isinstance(op, Settle):
                return ()
            batch.insert(0, claim_of(story.row, begin=False))
        try:
            answers = self.memory.transact(batch)
        except Exception as error:
            self._on_bug(error)
            return ()
        story.in_memory = story.in_memory or answers[0].status in OWNED
        events: tuple[PauseEvent, ...] = answers[-1].events
        self._heard.outdate(op.task.endpoint, events)
        return events

    def _narrow(self, op: Narrow) -> None:
        story = self._story_of(op.task)
        if story is None:
            self._ours.narrow(op.task, op.window)
        else:
            self._narrow_story(story, op.window)

    def _narrow_story(self, story: Story, window: Window) -> None:
        """Keep the earlier window end of a report that may still be sent."""
        row = story.row
        merged = merge_windows(row.window, window)
        if merged != row.window and (row.state != DONE or row.outcome == NOT_SENT):
            self._owed.note(story, Narrow(row.task, window), row._replace(window=merged))

    # --- reading -----------------------------------------------------------------------------

    def _look(self, op: Look) -> Row | None:
        story = self._owed.stories.get(op.task)
        if story is not None:
            return story.row
        row: Row | None = self._question(lambda view: view.read(op), None)
        return row if row is not None or self._condition.is_guarded else self._ours.recall(op.task)

    def _list(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        listed: tuple[Row, ...]
        listed, cursor = self._question(lambda view: view.read(op), ((), None))
        shown = self._owed.overlay(op, listed)
        if op.before_seq is None:
            # Reports that only memory has come first, on top of the limit: they have no place in the order.
            shown = (*self._owed.unlisted(op, listed), *shown)
        return shown, cursor

    def _pauses(self, op: Pauses) -> tuple[Any, ...]:
        kept: tuple[Any, ...] = self._question(lambda view: view.read(op), ())
        if self._condition.trouble is None:
            return kept
        keys = {pause.key for pause in kept}
        return (*kept, *(pause for pause in self.memory.read(op) if pause.key not in keys))
