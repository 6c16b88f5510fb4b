"""What the ledger could not be told yet about one report, and what is true of it meanwhile.

Pure: rows in, rows out. The steps follow `bridge.core.model.TRANSITIONS` as the stores' SQL does.
Imported by the journal's parts only.
"""

from __future__ import annotations

from typing import Final

from bridge.core.model import (
    DONE,
    MAX_ATTEMPTS,
    MAX_SENDS,
    SENDING,
    WAITING,
    Begin,
    Claim,
    Ending,
    Narrow,
    Operation,
    Record,
    Row,
    Settle,
)

OWNED: Final = frozenset({"new", "again", "adopted"})
"""Statuses of `Claimed` that make the report ours."""


class Story:
    """One report that this process knows better than the ledger does."""

    __slots__ = ("counted", "in_memory", "owed", "row", "stuck")

    def __init__(self, row: Row, in_memory: bool) -> None:
        self.row = row
        """What is true."""
        self.in_memory = in_memory
        """True if the memory store has a live row that stands for it in pauses and probes."""
        self.owed: list[Operation] = []
        """What to replay, in order, once the ledger can be written."""
        self.counted = False
        """True if its outcome is among those that `Owed` counts."""
        self.stuck = False
        """True if the replay failed for a reason that trying again soon cannot help."""

    def replay(self) -> list[Operation]:
        """The operations that bring the ledger to what is true.

        The ending follows once more on its own: a gate may refuse a replayed attempt, but nothing
        refuses the ending of a report that is ours. On a report that is done it changes nothing.
        """
        if self.row.state != DONE:
            return list(self.owed)
        return [*self.owed, Settle(self.row.task, ending_of(self.row))]

    def claim_anew(self) -> None:
        """Owe the claim too, because the ledger that had it is gone."""
        first = next((op for op in self.owed if not isinstance(op, Narrow)), None)
        if isinstance(first, Claim):
            return
        began = isinstance(first, Record) or (first is None and self.row.state == SENDING)
        self.owed.insert(0, claim_of(self.row, began))


def claim_of(row: Row, begin: bool) -> Claim:
    """The claim that would make such a row."""
    return Claim(row.task, row.method, row.window, row.facts, begin)


def ending_of(row: Row) -> Ending:
    """The ending that a done row had."""
    assert row.outcome is not None
    assert row.kind is not None
    return Ending(row.outcome, row.code or 0, row.kind, row.detail)


def is_spent(row: Row) -> bool:
    """True if the report may have no further attempt in its life."""
    return row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS


def begin_row(row: Row) -> Row:
    """The row after one more attempt began."""
    return row._replace(state=SENDING, attempts=row.attempts + 1)


def record_row(row: Row, op: Record, wall: float) -> Row:
    """The row after an attempt ended."""
    after = row._replace(
        state=WAITING,
        sends=min(MAX_SENDS, row.sends + op.verdict.is_send),
        perhaps=op.verdict.perhaps or row.perhaps,
        latency_ms=op.latency_ms,
    )
    return after if op.ending is None else end_row(after, op.ending, wall)


def end_row(row: Row, ending: Ending, wall: float) -> Row:
    """The row after its report ended."""
    return row._replace(
        state=DONE,
        outcome=ending.outcome,
        owner=None,
        code=ending.code,
        kind=ending.kind,
        detail=ending.detail,
        finished_wall=wall,
    )


def apply_row(row: Row, op: Begin | Record | Settle, wall: float) -> Row:
    """The row after one of the three operations on a report that is ours."""
    if isinstance(op, Begin):
        return begin_row(row)
    return record_row(row, op, wall) if isinstance(op, Record) else end_row(row, op.ending, wall)
