"""How stores tell each other what is true: whole reports, pauses that were learnt, what one knows of a task.

For the days when one store stands in for another, see `bridge.ledger.outbox`. Runs upon a unit of work,
like the transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.core import model
from bridge.core.counting import Tallies
from bridge.core.model import (
    CLOSED,
    DONE,
    MAX_ATTEMPTS,
    MAX_SENDS,
    NOT_SENT,
    QUEUED,
    REFUSED,
    SENDING,
    PauseState,
)
from bridge.ledger.port import Ask, Forget, Known, Restore, Restored, Story, Teach
from bridge.ledger.transactions import TABLE, adopt, narrow
from bridge.ledger.work import UnitOfWork


def restore(work: UnitOfWork, op: Restore) -> Restored:
    """Bring a report to what is true, as another store knows it."""
    truth, finished_at = op.row, op.finished_at
    if finished_at is None and truth.finished_wall is not None:
        finished_at = work.now - max(0.0, work.wall - truth.finished_wall)
    entry = work.guarding(truth.task)
    if entry is None:
        entry = work.add(truth._replace(seq=work.next_seq()), finished_at)
    else:
        row = entry.row
        is_ours = row.owner == work.instance
        if row.owner is not None and not is_ours:
            if not work.is_alive(row.owner):
                adopt(work, entry)
                row = entry.row
            elif (
                truth.state != DONE
                or truth.outcome == NOT_SENT
                or (row.state == SENDING and truth.outcome == REFUSED)
            ):
                # What is under way there, or will be, may still be taken.
                narrow(work, model.Narrow(truth.task, truth.window))
                return Restored(False, entry.row)
            else:
                # It was taken, or may have been: who has it finds that, and must not ask the upstream again.
                work.release_probes(row.task, row.owner, row.method)
        if row.state == DONE and row.outcome != NOT_SENT:
            return Restored((row.outcome, row.code) == (truth.outcome, truth.code), row)
        attempts, sends = row.attempts, row.sends
        if not is_ours:
            attempts += truth.attempts - op.since[0]
            sends += truth.sends - op.since[1]
        elif row.state == SENDING and truth.attempts < attempts:
            # It was committed and nobody was told, so no attempt has followed.
            work.release_probes(row.task, row.owner, row.method)
            work.tell(entry, "withdrawn", {"attempt": attempts})
            attempts -= 1
        # Whatever else the ledger counts is kept, also what we were not told of: it may have been taken.
        after = truth._replace(
            seq=row.seq,
            attempts=min(max(attempts, truth.attempts), MAX_ATTEMPTS),
            sends=min(max(sends, truth.sends), MAX_SENDS),
            perhaps=row.perhaps or truth.perhaps,
            window=row.window.narrowed_by(truth.window),
            recorded_wall=row.recorded_wall,
        )
        if after.outcome == NOT_SENT and after.perhaps:
            after = after._replace(**work.policy.settle_dead(after)._asdict())
        if after == row:
            return Restored(True, row)
        work.change(entry, after)
        entry.finished_at = finished_at
    if entry.row.state == DONE:
        work.count_ended(entry, entry.row)
    for at_wall, name, data in op.events:
        work.tell(entry, name, data, at_wall)
    return Restored(True, entry.row)


def teach(work: UnitOfWork, op: Teach) -> None:
    """Take over what another store has learnt about pauses."""
    for taken_over, known in op.pauses:
        mine = work.pauses_of(op.endpoint, known.key.subject).get(known.key)
        if mine == taken_over or is_stricter(known, mine):
            work.save(op.endpoint, (known,))


def ask(work: UnitOfWork, op: Ask) -> Known:
    """What is known about a task and an attempt with a method."""
    entry = work.find(op.task)
    row = None if entry is None else entry.row
    method = op.method or (None if row is None else row.method)
    states = {} if method is None else work.states(op.task, method)[0]
    is_free = (
        row is not None and row.state == QUEUED and not row.perhaps and not work.is_alive(row.owner or "")
    )
    finished_at = None if entry is None else entry.finished_at
    return Known(row, finished_at, is_free, tuple(states.values()))


def is_stricter(state: PauseState, other: PauseState | None) -> bool:
    """True if a pause holds more attempts back than another one about the same."""
    if state.state == CLOSED:
        return False
    return other is None or other.state == CLOSED or _end_of(state) > _end_of(other)


def _end_of(state: PauseState) -> float:
    return float("inf") if state.ends_at is None else state.ends_at


OPERATIONS: Final[dict[type, Callable[[Any, Any], Any]]] = {
    **TABLE,
    Teach: teach,
    Restore: restore,
    Ask: ask,
    Story: UnitOfWork.story,
    Forget: UnitOfWork.forget,
}
"""Operation -> what it does, whoever asks for it."""
READS: Final = frozenset({model.Look, model.Listing, model.Pauses, Tallies, Ask, Story})
"""Operations that change nothing."""
