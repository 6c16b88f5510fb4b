"""The operations of the ledger as steps inside a transaction that somebody else opened.

Every change of a report follows `bridge.core.model.TRANSITIONS`; what the policy decides is stored in
the same transaction. How a change is written is up to each store. Imported by the stores' steps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import (
    DONE,
    GUARD_S,
    MAX_ATTEMPTS,
    MAX_SENDS,
    NOT_SENT,
    PROBING,
    QUEUED,
    SENDING,
    WAITING,
    Begin,
    Begun,
    Claim,
    Claimed,
    Ending,
    Facts,
    Gate,
    Heed,
    Narrow,
    PauseEvent,
    PauseState,
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
    Withdraw,
)
from bridge.ledger.questions import Questions
from bridge.ledger.rows import is_probe, merge_facts, merge_windows, told_attempt, told_ending

Events = tuple[PauseEvent, ...]
Told = Sequence[tuple[str, Mapping[str, Any]]]

REOPEN: Final = "reopen"
REFUSE: Final = "refuse"
NARROW: Final = "narrow"
ADOPT: Final = "adopt"
BEGIN: Final = "begin"
DEFER: Final = "defer"
FINISH: Final = "finish"
CHANGES: Final = (REOPEN, REFUSE, NARROW, ADOPT, BEGIN, DEFER, FINISH)
"""The names of what `Steps.change` may be asked to write."""


class Steps(Questions):
    """What changes the ledger. The methods are named after the operations."""

    durable: bool = False

    # --- what a store supplies ---------------------------------------------------------------

    @abstractmethod
    def add(self, row: Row, told: Told) -> Row:
        """Store a new report with the beginning of its story; the row with its number."""

    @abstractmethod
    def retire(self, row: Row) -> None:
        """A task id has come back: its old report is history only."""

    @abstractmethod
    def change(self, how: str, before: Row, after: Row) -> bool:
        """Write a row's change, one of `CHANGES`; False if it is not as it was before."""

    @abstractmethod
    def tell(self, seq: int, name: str, data: Mapping[str, Any]) -> None:
        """Go on with the story of a report."""

    @abstractmethod
    def save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Store pauses."""

    @abstractmethod
    def probed_by(self, task: Task, owner: str | None) -> Sequence[PauseState]:
        """The pauses that a report probes for an owner."""

    @abstractmethod
    def left_rows(self) -> Sequence[Row]:
        """The reports of dead instances, taken so that nobody else takes them."""

    @abstractmethod
    def end_sweep(self) -> None:
        """Tidy up after `left_rows`."""

    @abstractmethod
    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""

    @abstractmethod
    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""

    # --- claim -------------------------------------------------------------------------------

    def claim(self, op: Claim) -> Claimed:
        """Commit the intent to report a task, or say what became of it."""
        row = self.find(op.task)
        if row is not None and row.state == DONE and self.now - self.finished_at > GUARD_S:
            self.retire(row)
            row = None
        if row is None:
            return self._claim_new(op)
        if row.state == DONE:
            if row.outcome == NOT_SENT:
                return self._refuse_again(op, row) if op.refusal else self._reopen(op, row)
            return Claimed("known" if row.method == op.method else "conflict", row, durable=self.durable)
        if row.method != op.method:
            return Claimed("conflict", row, durable=self.durable)
        if op.refusal is not None:
            return Claimed("conflict", row, durable=self.durable)
        if row.owner is None or self.is_alive(row.owner):
            return Claimed("elsewhere", self._narrow(row, op.window, op.facts), durable=self.durable)
        return self._continue("adopted", op, self._adopt(row, op.window, op.facts))

    def _claim_new(self, op: Claim) -> Claimed:
        ending, gate = op.refusal, None
        events: Events = ()
        state, attempts = (QUEUED, 0) if ending is None else (DONE, 0)
        if ending is None and op.begin:
            # The row is born in the state the gate allows: one statement instead of two.
            gate, events = self._gate(op.task, op.method, op.window)
            if gate.status == "begun":
                state, attempts = SENDING, 1
        row = Row(
            0,
            op.task,
            op.method,
            state,
            ending.outcome if ending else None,
            None if ending else self.instance,
            attempts,
            0,
            False,
            op.window,
            op.facts,
            ending.code if ending else None,
            ending.kind if ending else None,
            ending.detail if ending else {},
            self.wall,
            self.wall if ending else None,
            None,
        )
        if ending is not None:
            row = self.add(row, (("refused_locally", told_ending(ending)),))
            return Claimed("refused", row, durable=self.durable)
        claimed = ("claimed", {"owner": self.instance})
        row = self.add(row, (claimed, ("begun", {"attempt": 1})) if attempts else (claimed,))
        self._tell_pauses(row.seq, events)
        return Claimed("new", row, gate, events, self.durable)

    def _refuse_again(self, op: Claim, row: Row) -> Claimed:
        ending = op.refusal
        assert ending is not None
        after = row._replace(
            method=op.method,
            window=merge_windows(row.window, op.window),
            facts=merge_facts(row.facts, op.facts),
            code=ending.code,
            kind=ending.kind,
            detail=ending.detail,
            finished_wall=self.wall,
        )
        self.change(REFUSE, row, after)
        self.tell(row.seq, "refused_locally", told_ending(ending))
        return Claimed("refused", after, durable=self.durable)

    def _reopen(self, op: Claim, row: Row) -> Claimed:
        after = row._replace(
            state=QUEUED,
            outcome=None,
            owner=self.instance,
            method=op.method,
            window=merge_windows(row.window, op.window),
            facts=merge_facts(row.facts, op.facts),
            code=None,
            kind=None,
            detail={},
            finished_wall=None,
        )
        self.change(REOPEN, row, after)
        self.tell(row.seq, "claimed", {"owner": self.instance})
        return self._continue("again", op, after)

    def _continue(self, status: str, op: Claim, row: Row) -> Claimed:
        if self._policy.is_late(self.now, row.window, row.attempts > 0):
            return Claimed(status, row, Gate("late"), durable=self.durable)
        if not op.begin:
            return Claimed(status, row, durable=self.durable)
        gate, row, events = self._begin(row)
        return Claimed(status, row, gate, events, self.durable)

    def _narrow(self, row: Row, window: Window, facts: Facts | None = None) -> Row:
        """Tell a row the earlier window end that another request knows."""
        window = merge_windows(row.window, window)
        if window == row.window:
            return row
        after = row._replace(window=window, facts=merge_facts(row.facts, facts) if facts else row.facts)
        self.change(NARROW, row, after)
        return after

    def _adopt(self, row: Row, window: Window | None = None, facts: Facts | None = None) -> Row:
        """Take over the row of a dead instance; an attempt it had begun counts as a send."""
        was_sending = row.state == SENDING
        after = row._replace(
            owner=self.instance,
            state=WAITING if was_sending else row.state,
            sends=min(row.sends + was_sending, MAX_SENDS),
            perhaps=row.perhaps or was_sending,
            window=merge_windows(row.window, window) if window else row.window,
            facts=merge_facts(row.facts, facts) if facts else row.facts,
        )
        self.change(ADOPT, row, after)
        self.tell(row.seq, "adopted", {"owner": self.instance, "from": row.owner})
        self._release_probes(row)
        return after

    # --- begin -------------------------------------------------------------------------------

    def begin(self, op: Begin) -> Begun:
        """Begin the next attempt of our own report."""
        row = self.find(op.task)
        if row is None or row.owner != self.instance or row.state not in (QUEUED, WAITING):
            return Begun(Gate("lost"), row, durable=self.durable)
        gate, row, events = self._begin(row)
        return Begun(gate, row, events, self.durable)

    def _begin(self, row: Row) -> tuple[Gate, Row, Events]:
        if self._policy.is_late(self.now, row.window, row.attempts > 0):
            return Gate("late"), row, ()
        if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
            return Gate("spent"), row, ()
        gate, events = self._gate(row.task, row.method, row.window)
        if gate.status == "begun":
            after = row._replace(state=SENDING, attempts=row.attempts + 1)
            if not self.change(BEGIN, row, after):
                return Gate("lost"), self.find(row.task) or row, ()
            row = after
            self.tell(row.seq, "begun", {"attempt": row.attempts})
        self._tell_pauses(row.seq, events)
        return gate, row, events

    def _gate(self, task: Task, method: str, window: Window) -> tuple[Gate, Events]:
        states, released = self.states(task, method)
        gate, changed, events = self._policy.gate(self.now, task, method, self.instance, states, window)
        self.save(task.endpoint, {state.key: state for state in (*released, *changed)}.values())
        return gate, events

    # --- record and settle -------------------------------------------------------------------

    def record(self, op: Record) -> Recorded:
        """Commit what an attempt met, and the ending if it is final.

        An attempt whose beginning could not be committed (the ledger was full) is counted here: the
        row goes through ``begun`` and on in one commit.
        """
        row = self.find(op.task)
        if row is None or row.owner != self.instance or row.state == DONE:
            return Recorded("lost", row, durable=self.durable)
        verdict = op.verdict
        states, released = self.states(row.task, row.method)
        changed, events = self._policy.learn(
            self.now, row.task, row.method, self.instance, op.began_at, verdict, states
        )
        after = {state.key: state for state in (*released, *changed)}
        for key, state in states.items():
            if key not in after and state.state == PROBING and is_probe(state, self.instance, row.task):
                after[key] = self._policy.release(self.now, state)
        self.save(row.task.endpoint, after.values())
        if row.state != SENDING:
            row = row._replace(attempts=min(row.attempts + 1, MAX_ATTEMPTS))
            self.tell(row.seq, "begun", {"attempt": row.attempts})
        row = row._replace(
            sends=min(row.sends + verdict.is_send, MAX_SENDS),
            perhaps=row.perhaps or verdict.perhaps,
            latency_ms=op.latency_ms,
        )
        if op.ending is not None:
            finished = self._finish(row, op.ending, told_attempt(op))
        else:
            finished = self._defer(row, told_attempt(op))
        self._tell_pauses(row.seq, events)
        return finished._replace(events=events) if events else finished

    def settle(self, op: Settle) -> Recorded:
        """End our own report without an attempt."""
        row = self.find(op.task)
        if row is None or row.owner != self.instance or row.state == DONE:
            return Recorded("lost", row, durable=self.durable)
        if row.attempts:
            self._release_probes(row)
        return self._finish(row, op.ending, {})

    def withdraw(self, op: Withdraw) -> Recorded:
        row = self.find(op.task)
        if row is None or row.owner != self.instance or row.state != SENDING:
            return Recorded("lost", row, durable=self.durable)
        self._release_probes(row)
        row = row._replace(attempts=row.attempts - 1)
        self.tell(row.seq, "withdrawn", {})
        if op.ending is not None:
            return self._finish(row, op.ending, {})
        after = row._replace(state=WAITING if row.attempts else QUEUED)
        self.change(DEFER, row, after)
        return Recorded("ok", after, durable=self.durable)

    def narrow(self, op: Narrow) -> None:
        """Keep the earlier window end of a report that may still be sent, whoever has it."""
        row = self.find(op.task)
        if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
            self._narrow(row, op.window)

    def _defer(self, row: Row, data: Mapping[str, Any]) -> Recorded:
        after = row._replace(state=WAITING)
        if not self.change(DEFER, row, after):
            return Recorded("lost", self.find(row.task), durable=self.durable)
        self.tell(row.seq, "deferred", data)
        return Recorded("ok", after, durable=self.durable)

    def _finish(self, row: Row, ending: Ending, data: Mapping[str, Any]) -> Recorded:
        if ending.outcome == NOT_SENT and row.perhaps:
            # What may have been taken is never called not sent, whoever says so.
            ending = self._policy.settle_dead(row)
        after = row._replace(
            state=DONE,
            owner=None,
            outcome=ending.outcome,
            code=ending.code,
            kind=ending.kind,
            detail=ending.detail,
            finished_wall=self.wall,
        )
        if not self.change(FINISH, row, after):
            return Recorded("lost", self.find(row.task), durable=self.durable)
        self.tell(row.seq, "settled", {**told_ending(ending), **data})
        return Recorded("ok", after, durable=self.durable)

    # --- the rest ----------------------------------------------------------------------------

    def sweep(self, op: Sweep) -> Swept:
        """Take over or end what dead instances left."""
        adopted: list[Row] = []
        settled: list[Row] = []
        for row in self.left_rows():
            if row.task.endpoint == op.endpoint and row.task.account in op.accounts:
                adopted.append(self._adopt(row))
            elif self.now >= self._policy.ends_at(row.window, row.attempts > 0):
                ended = self._bury(row)
                if ended is not None:
                    settled.append(ended)
        self.end_sweep()
        return Swept(tuple(adopted), tuple(settled))

    def _bury(self, row: Row) -> Row | None:
        if row.state == SENDING:
            row = row._replace(sends=min(row.sends + 1, MAX_SENDS), perhaps=True)
        self._release_probes(row)
        ended = self._finish(row, self._policy.settle_dead(row), {"from": row.owner})
        return ended.row if ended.status == "ok" else None

    def resume(self, op: Resume) -> tuple[PauseState, ...]:
        """Turn pauses into "probe with the next report"."""
        changed: list[PauseState] = []
        for state in self.open_pauses(op.endpoint):
            if op.account is None or self._concerns(state, Task(op.endpoint, op.account, 0)):
                after = self._policy.resume(self.now, state, op.scope)
                if after is not None:
                    changed.append(after)
        self.save(op.endpoint, changed)
        return tuple(changed)

    def heed(self, op: Heed) -> None:
        """Take over pauses that another ledger told."""
        self.save(op.endpoint, op.pauses)

    def _concerns(self, state: PauseState, task: Task) -> bool:
        # If a subject names a method, it is one of its parts.
        return any(state.key in self._policy.keys(task, part) for part in state.key.subject.split("/"))

    # --- what they share ---------------------------------------------------------------------

    def _release_probes(self, row: Row) -> None:
        """Let go of the pauses that a report was probing for its owner."""
        found = self.probed_by(row.task, row.owner)
        self.save(row.task.endpoint, [self._policy.release(self.now, state) for state in found])

    def _tell_pauses(self, seq: int, events: Events) -> None:
        for name, state in events:
            self.tell(seq, name, {"rule": state.key.rule, "cause": state.cause, "endsAt": state.ends_at})


STEPS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    Claim: Steps.claim,
    Begin: Steps.begin,
    Record: Steps.record,
    Settle: Steps.settle,
    Withdraw: Steps.withdraw,
    Narrow: Steps.narrow,
    Sweep: Steps.sweep,
    Resume: Steps.resume,
    Heed: Steps.heed,
    Prune: lambda steps, op: steps.prune(op),
}
"""Operation that writes -> its step."""
