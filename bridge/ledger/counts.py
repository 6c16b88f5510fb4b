"""What is counted beside the reports: solved tasks, and what the upstream's statistics told of them.

Runs upon a unit of work, like the transactions. Reports are counted by what ends them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from bridge.core.counting import Consult, Learn, Note, Tallied, Tallies
from bridge.ledger.rows import encode
from bridge.ledger.work import UnitOfWork


def note(work: UnitOfWork, op: Note) -> None:
    """Count solved tasks."""
    work.count(work.account_id(op.task), op.subject, op.at, op.counts)


def consult(work: UnitOfWork, op: Consult) -> bool:
    """Take the right to ask for an account's figures, unless somebody did lately or anything is paused."""
    work.flush()
    if work.open_pauses(op.task.endpoint):
        return False
    asked_at, told = work.fetch_figures(op.task) or (None, "{}")
    if asked_at is not None and 0.0 <= work.now - asked_at < op.every_s:
        return False
    work.save_figures(op.task, work.now, told)
    return True


def learn(work: UnitOfWork, op: Learn) -> None:
    """Keep an account's figures of one queue."""
    asked_at, told = work.fetch_figures(op.task) or (work.now, "{}")
    hours = [[figure.at, figure.tasks] for figure in op.figures]
    work.save_figures(op.task, asked_at, encode({**json.loads(told), op.queue: hours}))


def list_tallies(work: UnitOfWork, op: Tallies) -> tuple[Tallied, ...]:
    """What was counted of an account, or of those with most reports."""
    work.flush()
    return work.fetch_tallied(op.endpoint, op.account)


TABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    Note: note,
    Consult: consult,
    Learn: learn,
    Tallies: list_tallies,
}
"""Operation -> what it does."""
