"""What happens while the ledger takes nothing: operations run in memory, upon what is known of their reports.

Driven by `bridge.ledger.failover` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.core.counting import Consult, Learn, Note, Operation, Tallies
from bridge.core.model import (
    DONE,
    GUARD_S,
    NOT_SENT,
    Begin,
    Begun,
    Claim,
    Claimed,
    Gate,
    Heed,
    Listing,
    Look,
    Narrow,
    Pauses,
    Prune,
    Recorded,
    Resume,
    Row,
    Sweep,
    Swept,
    Task,
)
from bridge.ledger.condition import Condition
from bridge.ledger.outbox import Outbox
from bridge.ledger.port import Failed, Known
from bridge.ledger.translation import View

DEAD: Final = ""
"""Owner in memory of what a dead bridge left and never began."""


class Fallback:
    """Takes single operations in the ledger's place.

    Args:
        require: refuse to begin reports.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        wall: UNIX seconds.

    Thread safety: one thread.
    """

    def __init__(
        self,
        condition: Condition,
        outbox: Outbox,
        require: bool,
        on_bug: Callable[[BaseException], str],
        wall: Callable[[], float],
    ) -> None:
        self._condition = condition
        self._outbox = outbox
        self._require = require
        self._on_bug = on_bug
        self._wall = wall
        self.has_heard = False
        """True if memory knows the pauses that the ledger last told."""

    def run(self, op: Operation) -> Any:
        """Run one operation in bad days. Raises nothing."""
        try:
            if isinstance(op, Listing):
                return self._list(op)
            if isinstance(op, Sweep):
                return Swept((), ())
            if isinstance(op, Prune):
                return 0
            if isinstance(op, Note):
                return self._outbox.hold_note(op)
            if isinstance(op, Consult | Learn):
                return False
            if isinstance(op, Tallies):
                return self._question(lambda view: view.read(op)) or ()
            if isinstance(op, Pauses):
                self._outbox.take_over(op.endpoint, self._question(lambda view: view.read(op)) or ())
                return self._outbox.memory.read(op)
            if isinstance(op, Resume | Heed):
                if self._condition.is_readable:
                    return self._condition.unavailable()
                self.hear()
                return self._outbox.memory.transact([op])[0]
            return self._run_on_report(op)
        except Exception as error:
            return Failed(self._on_bug(error))

    def _run_on_report(self, op: Any) -> Any:
        """Run an operation upon the truth about its report; memory keeps it if it changed."""
        task: Task = op.task
        outbox = self._outbox
        is_held = task in outbox.held
        before = outbox.row(task) if is_held else self._condition.live.get(task)
        method = op.method if isinstance(op, Claim) else None if before is None else before.method
        known = self._question(lambda view: view.ask(task, method))
        if known is not None:
            outbox.take_over(task.endpoint, known.pauses)
            if is_held and isinstance(op, Claim) and _is_empty(before) and self._knows_more(known):
                # While nobody could be asked it was told off; now the ledger says what others did with it.
                return self._answer_of_others(op, known.row)
        if not is_held:
            before, finished_at = self._condition.find_truth(task, known)
            if before is not None and before.owner not in (None, self._condition.instance):
                if known is None or not known.is_free or not isinstance(op, Claim):
                    return self._answer_of_others(op, before)
                before = before._replace(owner=DEAD)
            if before is not None and not self._refuses(op, before):
                outbox.seed(before, finished_at)
        if self._refuses(op, before):
            return self._condition.unavailable()
        answer = outbox.run(op, before)
        if task in outbox.held:
            self._condition.live.pop(task, None)
        if isinstance(answer, Claimed | Begun | Recorded):
            # What a readable ledger told is as durable as it is there.
            told = known is not None and task not in outbox.held
            answer = answer._replace(durable=told and self._condition.keeps)
            if not isinstance(answer, Recorded):
                answer = answer._replace(guarded=self._condition.is_guarded)
        return answer

    def _knows_more(self, known: Known) -> bool:
        """True if another bridge has, or had, a report and did something with it."""
        row = known.row
        if row is None or row.owner == self._condition.instance or known.is_free:
            return False
        return not _is_empty(row)

    def _answer_of_others(self, op: Any, row: Row) -> Any:
        """The answer about a report that another bridge has, or had."""
        durable = self._condition.keeps
        if isinstance(op, Claim):
            is_done = row.state == DONE
            fits = row.method == op.method and (is_done or op.refusal is None)
            return Claimed(
                ("known" if is_done else "elsewhere") if fits else "conflict", row, durable=durable
            )
        if isinstance(op, Begin):
            return Begun(Gate("lost"), row, durable=durable)
        if isinstance(op, Look):
            return row
        return None if isinstance(op, Narrow) else Recorded("lost", row, durable=durable)

    def _refuses(self, op: Any, row: Row | None) -> bool:
        """True if an operation would lead to an attempt that a required ledger cannot know of."""
        if not self._require or not isinstance(op, Claim | Begin):
            return False
        if isinstance(op, Begin) or op.refusal is not None:
            return isinstance(op, Begin)
        if row is None or row.owner == DEAD:
            return True
        finished_wall = row.finished_wall
        return finished_wall is not None and (
            row.outcome == NOT_SENT or self._wall() - finished_wall > GUARD_S
        )

    def _question(self, ask: Callable[[View], Any]) -> Any:
        """Ask the ledger something; if it cannot be asked, memory hears what it last told."""
        answer = self._condition.question(ask)
        if not self._condition.is_guarded:
            self.hear()
        return answer

    def hear(self) -> None:
        """Take over the pauses that the ledger last told."""
        if self.has_heard or self._condition.view is None:
            return
        self.has_heard = True
        for endpoint, states in self._condition.view.seen():
            self._outbox.take_over(endpoint, states)

    def _list(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        listed, cursor = self._question(lambda view: view.read(op)) or ((), None)
        return self._outbox.overlay(op, listed), cursor


def _is_empty(row: Row | None) -> bool:
    """True if a report has ended and nothing was ever tried."""
    return row is not None and row.outcome == NOT_SENT and not row.attempts
