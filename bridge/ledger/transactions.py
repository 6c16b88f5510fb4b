"""What an operation does to reports and pauses: operations and rows in, results and changes out.

Every store decides here, inside a transaction that it has opened, upon what the unit of work has read.
Every change follows `bridge.core.model.TRANSITIONS`. No SQL, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    Listing,
    Look,
    Narrow,
    PauseEvent,
    Pauses,
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
    Withdraw,
)
from bridge.ledger.work import Entry, UnitOfWork, is_probe, merge_facts

Events = tuple[PauseEvent, ...]


# --- claim -------------------------------------------------------------------------------


def claim(work: UnitOfWork, op: Claim) -> Claimed:
    """Commit the intent to report a task, or say what became of it."""
    entry = work.find(op.task)
    if entry is not None and entry.row.state == DONE and not work.guards(entry):
        work.retire(entry)
        entry = None
    if entry is None:
        return _claim_new(work, op)
    row = entry.row
    if row.state == DONE:
        if row.outcome == NOT_SENT:
            return _claim_again(work, op, entry)
        return Claimed("known" if row.method == op.method else "conflict", row, durable=work.durable)
    if row.method != op.method or op.refusal is not None:
        _narrow(work, entry, op.window)
        return Claimed("conflict", entry.row, durable=work.durable)
    if row.owner is None or work.is_alive(row.owner):
        _narrow(work, entry, op.window, op.facts)
        return Claimed("elsewhere", entry.row, durable=work.durable)
    adopt(work, entry, op.window, op.facts)
    return _continue(work, "adopted", op, entry)


def _claim_new(work: UnitOfWork, op: Claim) -> Claimed:
    task, method, window, _, begin, ending = op
    gate: Gate | None = None
    events: Events = ()
    if work.policy.is_late(work.now, window, False):
        gate = Gate("late")
    elif ending is not None:
        entry = _add_row(work, op, DONE, None, ending)
        work.count_ended(entry, entry.row)
        work.tell(entry, "refused_locally", _tell_ending(ending))
        return Claimed("refused", entry.row, durable=work.durable)
    elif begin:
        gate, events = _gate(work, task, method)
    begins = gate is not None and gate.status == "begun"
    # The row is born in the state that the gate allows: one statement instead of two.
    entry = _add_row(work, op, SENDING if begins else QUEUED, work.instance, None)
    work.tell(entry, "claimed", {"owner": work.instance})
    if begins:
        work.tell(entry, "begun", {"attempt": 1})
    work.tell_pauses(entry, events)
    return Claimed("new", entry.row, gate, events, work.durable)


def _add_row(work: UnitOfWork, op: Claim, state: str, owner: str | None, ending: Ending | None) -> Entry:
    outcome, code, kind, detail = (None, None, None, {}) if ending is None else ending
    finished_wall, finished_at = (None, None) if ending is None else (work.wall, work.now)
    row = Row(
        work.next_seq(),
        op.task,
        op.method,
        state,
        outcome,
        owner,
        1 if state == SENDING else 0,
        0,
        False,
        op.window,
        op.facts,
        code,
        kind,
        detail,
        work.wall,
        finished_wall,
        None,
    )
    return work.add(row, finished_at)


def _claim_again(work: UnitOfWork, op: Claim, entry: Entry) -> Claimed:
    """A task that was certainly never taken may be tried again, or be refused again."""
    row = entry.row
    row = row._replace(
        method=op.method,
        window=work.window_of(row).narrowed_by(op.window),
        facts=merge_facts(row.facts, op.facts),
    )
    if op.refusal is not None and not work.is_late(row):
        _end(work, entry, row, op.refusal)
        work.tell(entry, "refused_locally", _tell_ending(op.refusal))
        return Claimed("refused", entry.row, durable=work.durable)
    row = row._replace(
        state=QUEUED,
        outcome=None,
        owner=work.instance,
        code=None,
        kind=None,
        detail={},
        finished_wall=None,
    )
    work.change(entry, row)
    work.tell(entry, "claimed", {"owner": work.instance})
    return _continue(work, "again", op, entry)


def _continue(work: UnitOfWork, status: str, op: Claim, entry: Entry) -> Claimed:
    gate: Gate | None = None
    events: Events = ()
    if op.begin or work.is_late(entry.row):
        gate, events = _begin(work, entry)
    return Claimed(status, entry.row, gate, events, work.durable)


def _narrow(work: UnitOfWork, entry: Entry, window: Window, facts: Facts | None = None) -> None:
    """Tell a report the earlier window end that another request knows."""
    row = entry.row
    merged = row.window.narrowed_by(window)
    if merged != row.window:
        work.change(
            entry,
            row._replace(window=merged, facts=merge_facts(row.facts, facts) if facts else row.facts),
        )


def adopt(work: UnitOfWork, entry: Entry, window: Window | None = None, facts: Facts | None = None) -> None:
    """Take over the report of a dead instance; an attempt it had begun counts as a send."""
    row = entry.row
    was_sending = row.state == SENDING
    old = work.window_of(row)
    work.release_probes(row)
    after = row._replace(
        owner=work.instance,
        state=WAITING if was_sending else row.state,
        sends=min(row.sends + was_sending, MAX_SENDS),
        perhaps=row.perhaps or was_sending,
        window=old.narrowed_by(window) if window else old,
        facts=merge_facts(row.facts, facts) if facts else row.facts,
    )
    work.change(entry, after)
    work.tell(entry, "adopted", {"owner": work.instance, "from": row.owner})


# --- begin -------------------------------------------------------------------------------


def begin(work: UnitOfWork, op: Begin) -> Begun:
    """Begin the next attempt of our own report."""
    entry = work.ours(op.task)
    if entry is None or entry.row.state == SENDING:
        return Begun(Gate("lost"), work.row_of(op.task), durable=work.durable)
    gate, events = _begin(work, entry)
    return Begun(gate, entry.row, events, work.durable)


def _begin(work: UnitOfWork, entry: Entry) -> tuple[Gate, Events]:
    row = entry.row
    if work.is_late(row):
        return Gate("late"), ()
    if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
        return Gate("spent"), ()
    gate, events = _gate(work, row.task, row.method)
    if gate.status == "begun":
        row = row._replace(state=SENDING, attempts=row.attempts + 1)
        work.change(entry, row)
        work.tell(entry, "begun", {"attempt": row.attempts})
    work.tell_pauses(entry, events)
    return gate, events


def _gate(work: UnitOfWork, task: Task, method: str) -> tuple[Gate, Events]:
    states, released = work.states(task, method)
    gate, changed, events = work.policy.gate(work.now, task, method, work.instance, states)
    if released or changed:
        work.save(task.endpoint, (*released, *changed))
    return gate, events


# --- the end of an attempt, or of a report -----------------------------------------------


def record(work: UnitOfWork, op: Record) -> Recorded:
    """Commit what an attempt met, and the ending if it is final."""
    entry = work.ours(op.task)
    if entry is None:
        return _lost(work, op.task)
    row, verdict = entry.row, op.verdict
    states, released = work.states(row.task, row.method)
    changed, events = work.policy.learn(work.now, row.task, row.method, work.instance, verdict, states)
    probes = [s for s in states.values() if s.state == PROBING and is_probe(s, work.instance, row.task)]
    if changed or released or probes:
        after = {state.key: work.policy.release(work.now, state) for state in probes}
        after.update((state.key, state) for state in (*released, *changed))
        work.save(row.task.endpoint, after.values())
    attempts = row.attempts
    if row.state != SENDING:
        # Its beginning could not be committed.
        attempts = min(attempts + 1, MAX_ATTEMPTS)
        work.tell(entry, "begun", {"attempt": attempts})
    row = row._replace(
        state=WAITING,
        attempts=attempts,
        sends=min(row.sends + verdict.is_send, MAX_SENDS),
        perhaps=row.perhaps or verdict.perhaps,
        latency_ms=op.latency_ms,
    )
    if op.ending is None:
        work.change(entry, row)
        work.tell(entry, "deferred", _tell_attempt(verdict, op.latency_ms))
    else:
        _finish(work, entry, row, op.ending, _tell_attempt(verdict, op.latency_ms))
    work.tell_pauses(entry, events)
    return Recorded("ok", entry.row, events, work.durable)


def settle(work: UnitOfWork, op: Settle) -> Recorded:
    """End our own report without an attempt."""
    entry = work.ours(op.task)
    if entry is None:
        return _lost(work, op.task)
    if entry.row.attempts:
        work.release_probes(entry.row)
    _finish(work, entry, entry.row, op.ending, {})
    return Recorded("ok", entry.row, durable=work.durable)


def withdraw(work: UnitOfWork, op: Withdraw) -> Recorded:
    """Take back a beginning that no attempt followed."""
    entry = work.ours(op.task)
    if entry is None:
        return _lost(work, op.task)
    row = entry.row
    if row.state == SENDING:
        work.release_probes(row)
        attempts = row.attempts - 1
        row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
        work.change(entry, row)
        work.tell(entry, "withdrawn", {"attempt": row.attempts + 1})
    if op.ending is not None:
        _finish(work, entry, row, op.ending, {})
    return Recorded("ok", entry.row, durable=work.durable)


def _lost(work: UnitOfWork, task: Task) -> Recorded:
    """Answer who no longer has a report; what it probed beside a silent ledger is let go."""
    work.release_all_probes(task, work.instance)
    return Recorded("lost", work.row_of(task), durable=work.durable)


def _finish(work: UnitOfWork, entry: Entry, row: Row, ending: Ending, data: Mapping[str, Any]) -> None:
    after = _end(work, entry, row, ending)
    work.tell(entry, "settled", {"outcome": after.outcome, "kind": after.kind, **data})


def _end(work: UnitOfWork, entry: Entry, row: Row, ending: Ending) -> Row:
    if ending.outcome == NOT_SENT and row.perhaps:
        # What may have been taken is never called not sent, whoever says so.
        ending = work.policy.settle_dead(row)
    after = row._replace(
        state=DONE,
        owner=None,
        outcome=ending.outcome,
        code=ending.code,
        kind=ending.kind,
        detail=ending.detail,
        finished_wall=work.wall,
    )
    work.count_ended(entry, after)
    work.change(entry, after)
    return after


def narrow(work: UnitOfWork, op: Narrow) -> None:
    """Keep the earlier window end of a report that may still be sent, whoever has it."""
    entry = work.find(op.task)
    if entry is not None and (entry.row.state != DONE or entry.row.outcome == NOT_SENT):
        _narrow(work, entry, op.window)


# --- what others left, or know -----------------------------------------------------------


def sweep(work: UnitOfWork, op: Sweep) -> Swept:
    """Take over or end what dead instances left."""
    adopted: list[Row] = []
    settled: list[Row] = []
    work.flush()
    for entry in work.left(own=op.ours is not None):
        row = entry.row
        if op.ours is not None and row.owner == work.instance and row.task in op.ours:
            continue
        if row.task.endpoint == op.endpoint and row.task.account in op.accounts:
            adopt(work, entry)
            adopted.append(entry.row)
        elif work.now >= work.policy.ends_at(work.window_of(row), row.attempts > 0):
            work.release_probes(row)
            if row.state == SENDING:
                row = row._replace(sends=min(row.sends + 1, MAX_SENDS), perhaps=True)
            _finish(work, entry, row, work.policy.settle_dead(row), {"from": row.owner})
            settled.append(entry.row)
    work.end_sweep()
    return Swept(tuple(adopted), tuple(settled))


def resume(work: UnitOfWork, op: Resume) -> tuple[PauseState, ...]:
    """Turn pauses into "probe with the next report"."""
    changed: list[PauseState] = []
    work.flush()
    for state in work.open_pauses(op.endpoint):
        # If a subject names an account, it is one of its parts.
        if op.account is None or op.account in state.key.subject.split("/"):
            after = work.policy.resume(work.now, state, op.scope)
            if after is not None:
                changed.append(after)
    work.save(op.endpoint, changed)
    return tuple(changed)


# --- questions ---------------------------------------------------------------------------


def look(work: UnitOfWork, op: Look) -> Row | None:
    """The newest report of a task."""
    return work.row_of(op.task)


def listing(work: UnitOfWork, op: Listing) -> tuple[tuple[Row, ...], int | None]:
    """A page of reports, newest first, and where the next page begins."""
    work.flush()
    rows = work.list_rows(op, op.limit + 1)
    page = rows[: op.limit]
    return page, page[-1].seq if len(rows) > op.limit and page else None


def list_pauses(work: UnitOfWork, op: Pauses) -> tuple[PauseState, ...]:
    """The pauses of an endpoint that are not closed."""
    work.flush()
    return tuple(work.open_pauses(op.endpoint))


def _tell_ending(ending: Ending) -> dict[str, Any]:
    return {"outcome": ending.outcome, "kind": ending.kind}


def _tell_attempt(verdict: Verdict, latency_ms: int) -> dict[str, Any]:
    met: dict[str, Any] = {"event": verdict.event, "latencyMs": latency_ms}
    if verdict.http_status is not None:
        met["httpStatus"] = verdict.http_status
    return met


TABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    Claim: claim,
    Begin: begin,
    Record: record,
    Settle: settle,
    Withdraw: withdraw,
    Narrow: narrow,
    Sweep: sweep,
    Resume: resume,
    Prune: lambda work, op: work.prune(op),
    Look: look,
    Listing: listing,
    Pauses: list_pauses,
}
"""Operation -> what it does."""
