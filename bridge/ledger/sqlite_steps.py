"""The operations of the ledger as steps inside a transaction that somebody else opened.

Every change of a report is one guarded statement that follows `bridge.core.model.TRANSITIONS`; what
the policy decides is stored in the same transaction. Imported by `bridge.ledger.sqlite` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bridge.core.model import (
    DONE,
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
    Verdict,
    Window,
)
from bridge.ledger import sqlite_rows as sql
from bridge.ledger.sqlite_reads import Reads
from bridge.ledger.store import GUARD_S

Events = tuple[PauseEvent, ...]


class Steps(Reads):
    """What changes the ledger. The methods are named after the operations."""

    durable: bool = False

    # --- claim -------------------------------------------------------------------------------

    def claim(self, op: Claim) -> Claimed:
        """Commit the intent to report a task, or say what became of it."""
        row = self.find(op.task)
        if row is not None and row.state == DONE and self.now - self.finished_at > GUARD_S:
            self._execute(sql.RETIRE, (row.seq,))
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
            return Claimed("elsewhere", row, durable=self.durable)
        if row.owner is None or self._owners.is_alive(row.owner):
            return Claimed("elsewhere", self._narrow(op, row), durable=self.durable)
        return self._continue("adopted", op, self._adopt(row, op.window, op.facts))

    def _claim_new(self, op: Claim) -> Claimed:
        account_id = self.account_id(op.task.endpoint, op.task.account, make=True)
        ending, gate = op.refusal, None
        events: Events = ()
        if ending is not None:
            state, attempts = DONE, 0
        else:
            state, attempts = QUEUED, 0
            if op.begin:
                # The row is born in the state the gate allows: one statement instead of two.
                gate, events = self._gate(op.task, op.method, op.window)
                if gate.status == "begun":
                    state, attempts = SENDING, 1
        outcome, code, kind, detail = _columns(ending)
        owner = None if ending else self.instance
        finished_wall, finished_at = (self.wall, self.now) if ending else (None, None)
        identity = (account_id, op.task.task_id, op.method)
        times = (self.wall, finished_wall, finished_at)
        cursor = self._execute(
            sql.ADD,
            (*identity, state, outcome, owner, attempts, *op.window, *op.facts, code, kind, detail, *times),
        )
        row = Row(
            cursor.lastrowid,
            op.task,
            op.method,
            state,
            outcome,
            owner,
            attempts,
            0,
            False,
            op.window,
            op.facts,
            code,
            kind,
            ending.detail if ending else {},
            self.wall,
            finished_wall,
            None,
        )
        if ending is not None:
            told = sql.encode(_ended(ending))
            self._execute(sql.ADD_FIRST, (row.seq, self.wall, "refused_locally", told))
            return Claimed("refused", row, durable=self.durable)
        first = (row.seq, self.wall, "claimed", f'{{"owner":"{owner}"}}')
        if attempts:
            self._execute(sql.ADD_FIRST_TWO, (*first, row.seq, self.wall, "begun", '{"attempt":1}'))
        else:
            self._execute(sql.ADD_FIRST, first)
        self._tell_pauses(row.seq, events)
        return Claimed("new", row, gate, events, self.durable)

    def _refuse_again(self, op: Claim, row: Row) -> Claimed:
        ending = op.refusal
        assert ending is not None
        window, facts = sql.merge_windows(row.window, op.window), sql.merge_facts(row.facts, op.facts)
        _, code, kind, detail = _columns(ending)
        self._execute(
            sql.REFUSE,
            (op.method, *window, *facts, code, kind, detail, self.wall, self.now, row.seq),
        )
        self._tell(row.seq, "refused_locally", _ended(ending))
        row = row._replace(
            method=op.method,
            window=window,
            facts=facts,
            code=code,
            kind=kind,
            detail=ending.detail,
            finished_wall=self.wall,
        )
        return Claimed("refused", row, durable=self.durable)

    def _reopen(self, op: Claim, row: Row) -> Claimed:
        window, facts = sql.merge_windows(row.window, op.window), sql.merge_facts(row.facts, op.facts)
        self._execute(sql.REOPEN, (self.instance, op.method, *window, *facts, row.seq))
        self._tell(row.seq, "claimed", {"owner": self.instance})
        row = row._replace(
            state=QUEUED,
            outcome=None,
            owner=self.instance,
            method=op.method,
            window=window,
            facts=facts,
            code=None,
            kind=None,
            detail={},
            finished_wall=None,
        )
        return self._continue("again", op, row)

    def _continue(self, status: str, op: Claim, row: Row) -> Claimed:
        if not op.begin:
            return Claimed(status, row, durable=self.durable)
        gate, row, events = self._begin(row)
        return Claimed(status, row, gate, events, self.durable)

    def _narrow(self, op: Claim, row: Row) -> Row:
        """Tell a row at work the earlier window end that a request elsewhere knows."""
        window = sql.merge_windows(row.window, op.window)
        if window == row.window:
            return row
        facts = sql.merge_facts(row.facts, op.facts)
        self._execute(sql.NARROW, (*window, *facts, row.seq))
        return row._replace(window=window, facts=facts)

    def _adopt(self, row: Row, window: Window | None = None, facts: Facts | None = None) -> Row:
        """Take over the row of a dead instance; an attempt it had begun counts as a send."""
        was_sending = row.state == SENDING
        after = row._replace(
            owner=self.instance,
            state=WAITING if was_sending else row.state,
            sends=min(row.sends + was_sending, MAX_SENDS),
            perhaps=row.perhaps or was_sending,
            window=sql.merge_windows(row.window, window) if window else row.window,
            facts=sql.merge_facts(row.facts, facts) if facts else row.facts,
        )
        new = (after.owner, after.state, after.sends, after.perhaps, *after.window, *after.facts)
        self._execute(sql.ADOPT, (*new, row.seq, row.owner, row.state))
        self._tell(row.seq, "adopted", {"owner": self.instance, "from": row.owner})
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
        if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
            return Gate("spent"), row, ()
        gate, events = self._gate(row.task, row.method, row.window)
        if gate.status == "begun":
            cursor = self._execute(sql.BEGIN_ATTEMPT, (row.seq, self.instance))
            if cursor.rowcount != 1:
                return Gate("lost"), self.find(row.task) or row, ()
            row = row._replace(state=SENDING, attempts=row.attempts + 1)
            self._tell(row.seq, "begun", {"attempt": row.attempts})
        self._tell_pauses(row.seq, events)
        return gate, row, events

    def _gate(self, task: Task, method: str, window: Window) -> tuple[Gate, Events]:
        states, released = self.states(task, method)
        gate, changed, events = self._policy.gate(self.now, task, method, self.instance, states, window)
        self._save(task.endpoint, {state.key: state for state in (*released, *changed)}.values())
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
            if key not in after and state.state == PROBING and _is_probe(state, self.instance, row.task):
                after[key] = self._policy.release(self.now, state)
        self._save(row.task.endpoint, after.values())
        if row.state != SENDING:
            row = row._replace(attempts=min(row.attempts + 1, MAX_ATTEMPTS))
            self._tell(row.seq, "begun", {"attempt": row.attempts})
        row = row._replace(
            sends=min(row.sends + verdict.is_send, MAX_SENDS),
            perhaps=row.perhaps or verdict.perhaps,
            latency_ms=op.latency_ms,
        )
        if op.ending is not None:
            finished = self._finish(row, op.ending, _met(op))
        else:
            finished = self._defer(row, _met(op))
        self._tell_pauses(row.seq, events)
        return finished._replace(events=events)

    def settle(self, op: Settle) -> Recorded:
        """End our own report without an attempt."""
        row = self.find(op.task)
        if row is None or row.owner != self.instance or row.state == DONE:
            return Recorded("lost", row, durable=self.durable)
        if row.attempts:
            self._release_probes(row)
        return self._finish(row, op.ending, {})

    def _defer(self, row: Row, data: Mapping[str, Any]) -> Recorded:
        cursor = self._execute(
            sql.DEFER,
            (row.attempts, row.sends, row.perhaps, row.latency_ms, row.seq, self.instance),
        )
        if cursor.rowcount != 1:
            return Recorded("lost", self.find(row.task), durable=self.durable)
        self._tell(row.seq, "deferred", data)
        return Recorded("ok", row._replace(state=WAITING), durable=self.durable)

    def _finish(self, row: Row, ending: Ending, data: Mapping[str, Any]) -> Recorded:
        if ending.outcome == NOT_SENT and row.perhaps:
            # What may have been taken is never called not sent, whoever says so.
            ending = self._policy.settle_dead(row)
        counts = (row.attempts, row.sends, row.perhaps, row.latency_ms)
        cursor = self._execute(
            sql.FINISH,
            (*counts, *_columns(ending), self.wall, self.now, row.seq, row.owner),
        )
        if cursor.rowcount != 1:
            return Recorded("lost", self.find(row.task), durable=self.durable)
        self._tell(row.seq, "settled", {**_ended(ending), **data})
        row = row._replace(
            state=DONE,
            owner=None,
            outcome=ending.outcome,
            code=ending.code,
            kind=ending.kind,
            detail=ending.detail,
            finished_wall=self.wall,
        )
        return Recorded("ok", row, durable=self.durable)

    # --- the rest ----------------------------------------------------------------------------

    def sweep(self, op: Sweep) -> Swept:
        """Take over or end what dead instances left."""
        adopted: list[Row] = []
        settled: list[Row] = []
        owners = [values[0] for values in self._execute(sql.FIND_OWNERS, (self.instance,))]
        for owner in owners:
            if self._owners.is_alive(owner):
                continue
            for values in self._execute(sql.FIND_OWNED, (owner,)).fetchall():
                row = self.row(values)
                if row.task.endpoint == op.endpoint and row.task.account in op.accounts:
                    adopted.append(self._adopt(row))
                elif self.now >= self._policy.ends_at(row.window, row.attempts > 0):
                    ended = self._bury(row)
                    if ended is not None:
                        settled.append(ended)
        self._owners.remove_dead(keep=owners)
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
        for values in self._execute(sql.OPEN_PAUSES, (op.endpoint,)).fetchall():
            state = sql.to_pause(values)
            if op.account is None or self._concerns(state, Task(op.endpoint, op.account, 0)):
                after = self._policy.resume(self.now, state, op.scope)
                if after is not None:
                    changed.append(after)
        self._save(op.endpoint, changed)
        return tuple(changed)

    def _concerns(self, state: PauseState, task: Task) -> bool:
        # If a subject names a method, it is one of its parts.
        return any(state.key in self._policy.keys(task, part) for part in state.key.subject.split("/"))

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        cursor = self._execute(sql.PRUNE, (op.before_wall, self.now - GUARD_S, op.limit))
        return int(cursor.rowcount)

    # --- what they share ---------------------------------------------------------------------

    def _release_probes(self, row: Row) -> None:
        """Let go of the pauses that a report was probing for its owner."""
        task = row.task
        values = (task.endpoint, row.owner, probe_name(task))
        found = [sql.to_pause(columns) for columns in self._execute(sql.PROBED_BY, values)]
        self._save(task.endpoint, [self._policy.release(self.now, state) for state in found])

    def _save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        for state in states:
            self._execute(sql.SAVE_PAUSE, sql.from_pause(state, endpoint))

    def _tell(self, seq: int, name: str, data: Mapping[str, Any]) -> None:
        self._execute(sql.ADD_EVENT, (seq, self.wall, name, sql.encode(data)))

    def _tell_pauses(self, seq: int, events: Events) -> None:
        for name, state in events:
            self._tell(seq, name, {"rule": state.key.rule, "cause": state.cause, "endsAt": state.ends_at})


STEPS: Final[Mapping[type, Callable[[Steps, Any], Any]]] = {
    Claim: Steps.claim,
    Begin: Steps.begin,
    Record: Steps.record,
    Settle: Steps.settle,
    Sweep: Steps.sweep,
    Resume: Steps.resume,
    Prune: Steps.prune,
}
"""Operation that writes -> its step."""


def probe_name(task: Task) -> str:
    """The name by which a pause knows its probing report."""
    return f"{task.account}/{task.task_id}"


def _is_probe(state: PauseState, owner: str, task: Task) -> bool:
    return state.probe_owner == owner and state.probe_task == probe_name(task)


def _columns(ending: Ending | None) -> tuple[str | None, int | None, str | None, str]:
    if ending is None:
        return None, None, None, "{}"
    return ending.outcome, ending.code, ending.kind, sql.encode(ending.detail) if ending.detail else "{}"


def _ended(ending: Ending) -> dict[str, Any]:
    return {"outcome": ending.outcome, "kind": ending.kind}


def _met(op: Record) -> dict[str, Any]:
    verdict: Verdict = op.verdict
    met: dict[str, Any] = {"event": verdict.event, "latencyMs": op.latency_ms}
    if verdict.http_status is not None:
        met["httpStatus"] = verdict.http_status
    return met
