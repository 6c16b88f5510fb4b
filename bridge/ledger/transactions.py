"""What an operation does to reports, pauses and counts: operations and rows in, results and changes out.

Every store decides here, inside a transaction that it has opened, upon what the unit of work has read.
Every change follows `bridge.core.model.TRANSITIONS`. No SQL, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core import counting, model
from bridge.core.model import DONE, MAX_ATTEMPTS, MAX_SENDS, NOT_SENT, PROBING, QUEUED, SENDING, WAITING
from bridge.ledger.rows import encode
from bridge.ledger.work import Entry, UnitOfWork, is_probe

Events = tuple[model.PauseEvent, ...]
_UNBOUNDED: Final = model.Window(None, None)
_NO_FACTS: Final = model.Facts()


# --- claim -------------------------------------------------------------------------------


def claim(work: UnitOfWork, op: model.Claim) -> model.Claimed:
    """Commit the intent to report a task, or say what became of it."""
    entry = work.guarding(op.task)
    if entry is None:
        head = (work.next_seq(), op.task, op.method, QUEUED, None, work.instance, 0, 0, False)
        row = model.Row(*head, op.window, op.facts, None, None, {}, work.wall, None, None)
        return _claim_ours(work, "new", op, work.add(row, None))
    row = entry.row
    if row.state == DONE and row.outcome == NOT_SENT:
        # What was certainly never taken may be tried again, or be refused again.
        row = row._replace(
            method=op.method,
            state=QUEUED,
            outcome=None,
            owner=work.instance,
            window=work.window_of(row).narrowed_by(op.window),
            facts=merge_facts(row.facts, op.facts),
            code=None,
            kind=None,
            detail={},
            finished_wall=None,
        )
        work.change(entry, row)
        return _claim_ours(work, "again", op, entry)
    if row.state == DONE:
        return model.Claimed("known" if row.method == op.method else "conflict", row, durable=work.durable)
    if row.method != op.method or op.refusal is not None:
        _narrow(work, entry, op.window)
        return model.Claimed("conflict", entry.row, durable=work.durable)
    if row.owner is None or work.is_alive(row.owner):
        _narrow(work, entry, op.window, op.facts)
        return model.Claimed("elsewhere", entry.row, durable=work.durable)
    adopt(work, entry, op.window, op.facts)
    return _continue(work, "adopted", op, entry)


def _claim_ours(work: UnitOfWork, status: str, op: model.Claim, entry: Entry) -> model.Claimed:
    """Go on with a report that is ours now, or refuse it."""
    if op.refusal is not None and (op.refusal.kind == "window_closed" or not work.is_late(entry.row)):
        _finish(work, entry, op.refusal, {}, event="refused_locally")
        return model.Claimed("refused", entry.row, durable=work.durable)
    work.tell(entry, "claimed", {"owner": work.instance})
    return _continue(work, status, op, entry)


def _continue(work: UnitOfWork, status: str, op: model.Claim, entry: Entry) -> model.Claimed:
    may_begin = op.begin and entry.row.detail.get("againAt", 0.0) <= work.now
    gate, events = _begin(work, entry) if may_begin or work.is_late(entry.row) else (None, ())
    return model.Claimed(status, entry.row, gate, events, work.durable)


def _narrow(work: UnitOfWork, entry: Entry, window: model.Window, facts: model.Facts = _NO_FACTS) -> None:
    """Tell a report the earlier window end that another request knows."""
    row = entry.row
    merged = row.window.narrowed_by(window)
    if merged != row.window:
        work.change(entry, row._replace(window=merged, facts=merge_facts(row.facts, facts)))


def adopt(
    work: UnitOfWork, entry: Entry, window: model.Window = _UNBOUNDED, facts: model.Facts = _NO_FACTS
) -> None:
    """Take over the report of a dead instance; an attempt it had begun counts as a send."""
    row = entry.row
    was_sending = row.state == SENDING
    old = work.window_of(row)
    work.release_probes(row.task, row.owner, row.method)
    after = row._replace(
        owner=work.instance,
        state=WAITING if was_sending else row.state,
        sends=min(row.sends + was_sending, MAX_SENDS),
        perhaps=row.perhaps or was_sending,
        window=old.narrowed_by(window),
        facts=merge_facts(row.facts, facts),
    )
    work.change(entry, after)
    work.tell(entry, "adopted", {"owner": work.instance, "from": row.owner})


# --- begin -------------------------------------------------------------------------------


def begin(work: UnitOfWork, op: model.Begin) -> model.Begun:
    """Begin the next attempt of our own report."""
    entry = work.ours(op.task)
    if entry is None or entry.row.state == SENDING:
        return model.Begun(model.Gate("lost"), work.look(model.Look(op.task)), durable=work.durable)
    gate, events = _begin(work, entry)
    return model.Begun(gate, entry.row, events, work.durable)


def _begin(work: UnitOfWork, entry: Entry) -> tuple[model.Gate, Events]:
    row = entry.row
    if work.is_late(row):
        return model.Gate("late"), ()
    if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
        return model.Gate("spent"), ()
    states, released = work.states(row.task, row.method)
    gate, changed, events = work.policy.gate(work.now, row.task, row.method, work.instance, states)
    if released or changed:
        work.save(row.task.endpoint, (*released, *changed))
    if gate.status == "begun":
        row = row._replace(state=SENDING, attempts=row.attempts + 1)
        work.change(entry, row)
        work.tell(entry, "begun", {"attempt": row.attempts})
    work.tell_pauses(entry, events)
    return gate, events


# --- the end of an attempt, or of a report -----------------------------------------------


def record(work: UnitOfWork, op: model.Record) -> model.Recorded:
    """Commit what an attempt met, and the ending if it is final."""
    entry = work.ours(op.task)
    if entry is None:
        return _lost(work, op.task)
    row, verdict = entry.row, op.verdict
    states, released = work.states(row.task, row.method)
    changed, events = work.policy.learn(work.now, row.task, row.method, work.instance, verdict, states)
    probes = [s for s in states.values() if s.state == PROBING and is_probe(s, work.instance, row.task)]
    if changed or released or probes:
        freed = [work.policy.release(work.now, state) for state in probes]
        work.save(row.task.endpoint, (*freed, *released, *changed))
    attempts = row.attempts
    if row.state != SENDING:
        # Its beginning could not be committed.
        attempts = min(attempts + 1, MAX_ATTEMPTS)
        work.tell(entry, "begun", {"attempt": attempts})
    sends, perhaps = min(row.sends + verdict.is_send, MAX_SENDS), row.perhaps or verdict.perhaps
    met: dict[str, Any] = {"event": verdict.event, "latencyMs": op.latency_ms}
    if verdict.http_status is not None:
        met["httpStatus"] = verdict.http_status
    if op.ending is None:
        waits = row._replace(
            state=WAITING,
            attempts=attempts,
            sends=sends,
            perhaps=perhaps,
            latency_ms=op.latency_ms,
            detail={} if (at := op.again_at) is None else {"againAt": at, "waitS": max(at - work.now, 0.0)},
        )
        work.change(entry, waits)
        work.tell(entry, "deferred", met)
    else:
        _finish(work, entry, op.ending, met, (attempts, sends, perhaps, op.latency_ms))
    work.tell_pauses(entry, events)
    return model.Recorded("ok", entry.row, events, work.durable)


def settle(work: UnitOfWork, op: model.Settle | model.Withdraw) -> model.Recorded:
    """End our own report without an attempt, or take back a beginning that no attempt followed."""
    entry = work.ours(op.task)
    if entry is None:
        return _lost(work, op.task)
    row = entry.row
    if row.attempts:
        work.release_probes(row.task, row.owner, row.method)
    if isinstance(op, model.Withdraw) and row.state == SENDING:
        attempts = row.attempts - 1
        row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
        work.change(entry, row)
        work.tell(entry, "withdrawn", {"attempt": row.attempts + 1})
    if op.ending is not None:
        _finish(work, entry, op.ending, {})
    return model.Recorded("ok", entry.row, durable=work.durable)


def _lost(work: UnitOfWork, task: model.Task) -> model.Recorded:
    """Answer who no longer has a report; what it probed beside a silent ledger is let go."""
    work.release_probes(task, work.instance, None)
    return model.Recorded("lost", work.look(model.Look(task)), durable=work.durable)


def _finish(
    work: UnitOfWork,
    entry: Entry,
    ending: model.Ending,
    data: Mapping[str, Any],
    learnt: tuple[int, int, bool, int | None] | None = None,
    event: str = "settled",
) -> None:
    """End a report.

    Args:
        learnt: attempts, sends, perhaps and latency, if they have just changed.
    """
    row = entry.row
    attempts, sends, perhaps, latency_ms = learnt or (row.attempts, row.sends, row.perhaps, row.latency_ms)
    if ending.outcome == NOT_SENT and perhaps:
        # What may have been taken is never called not sent, whoever says so.
        ending = work.policy.settle_dead(row._replace(perhaps=True))
    outcome, code, kind, detail = ending
    # All values in their order: to replace most of them takes three times as long.
    head = (
        row.seq,
        row.task,
        row.method,
        DONE,
        outcome,
        None,
        attempts,
        sends,
        perhaps,
        row.window,
        row.facts,
    )
    after = model.Row(*head, code, kind, detail, row.recorded_wall, work.wall, latency_ms)
    work.count_ended(entry, after)
    work.change(entry, after)
    work.tell(entry, event, {"outcome": outcome, "kind": kind, **data})


def narrow(work: UnitOfWork, op: model.Narrow) -> None:
    """Keep the earlier window end of a report that may still be sent, whoever has it."""
    entry = work.find(op.task)
    if entry is not None and (entry.row.state != DONE or entry.row.outcome == NOT_SENT):
        _narrow(work, entry, op.window)


# --- what others left, or know -----------------------------------------------------------


def sweep(work: UnitOfWork, op: model.Sweep) -> model.Swept:
    """Take over or end what dead instances left."""
    adopted: list[model.Row] = []
    settled: list[model.Row] = []
    work.flush()
    for entry in work.left(op.ours is not None):
        row = entry.row
        if op.ours is not None and row.owner == work.instance and row.task in op.ours:
            continue
        if row.task.endpoint == op.endpoint and row.task.account in op.accounts:
            adopt(work, entry)
            adopted.append(entry.row)
        elif work.now >= work.policy.ends_at(work.window_of(row), row.attempts > 0):
            work.release_probes(row.task, row.owner, row.method)
            learnt = None
            if row.state == SENDING:
                learnt = (row.attempts, min(row.sends + 1, MAX_SENDS), True, row.latency_ms)
            _finish(work, entry, work.policy.settle_dead(row), {"from": row.owner}, learnt)
            settled.append(entry.row)
    return model.Swept(tuple(adopted), tuple(settled))


def resume(work: UnitOfWork, op: model.Resume) -> tuple[model.PauseState, ...]:
    """Turn pauses into "probe with the next report"."""
    changed: list[model.PauseState] = []
    for state in work.open_pauses(op):
        # If a subject names an account, it is one of its parts.
        if op.account is None or op.account in state.key.subject.split("/"):
            after = work.policy.resume(work.now, state, op.scope)
            if after is not None:
                changed.append(after)
    work.save(op.endpoint, changed)
    return tuple(changed)


# --- questions ---------------------------------------------------------------------------


def merge_facts(old: model.Facts, new: model.Facts) -> model.Facts:
    """What the newest request told, completed by what earlier ones told."""
    timed = old if new.completed_at is None else new
    return model.Facts(
        timed.completed_at,
        new.task_type or old.task_type,
        new.language_pool or old.language_pool,
        timed.age_s,
    )


# --- what is counted beside the reports --------------------------------------------------


def note(work: UnitOfWork, op: counting.Note) -> None:
    """Count solved tasks."""
    work.count(work.account_id(op.task), op.subject, op.at, op.counts)


def consult(work: UnitOfWork, op: counting.Consult) -> bool:
    """Take the right to ask for an account's figures, unless somebody did lately or anything is paused."""
    if work.open_pauses(op.task):
        return False
    asked_at, told = work.fetch_figures(op.task) or (None, "{}")
    if asked_at is not None and 0.0 <= work.now - asked_at < op.every_s:
        return False
    work.save_figures(op.task, work.now, told)
    return True


def learn(work: UnitOfWork, op: counting.Learn) -> None:
    """Keep an account's figures of one queue."""
    asked_at, told = work.fetch_figures(op.task) or (work.now, "{}")
    hours = [[figure.at, figure.tasks] for figure in op.figures]
    work.save_figures(op.task, asked_at, encode({**json.loads(told), op.queue: hours}))


TABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    model.Claim: claim,
    model.Begin: begin,
    model.Record: record,
    model.Settle: settle,
    model.Withdraw: settle,
    model.Narrow: narrow,
    model.Sweep: sweep,
    model.Resume: resume,
    model.Prune: lambda work, op: work.prune(op),
    model.Look: UnitOfWork.look,
    model.Listing: UnitOfWork.page,
    model.Pauses: UnitOfWork.open_pauses,
    counting.Note: note,
    counting.Consult: consult,
    counting.Learn: learn,
    counting.Tallies: UnitOfWork.tallied,
}
"""Operation -> what it does."""
