"""How the steps of the ledger are written to SQLite: each change of a report is one guarded statement.

Runs inside a transaction that somebody else opened. Imported by `bridge.ledger.sqlite` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import DONE, GUARD_S, SENDING, PauseState, Prune, Row, Task
from bridge.ledger import sqlite_rows as sql
from bridge.ledger import steps as step
from bridge.ledger.rows import encode, probe_name
from bridge.ledger.sqlite_reads import Reads


class SqliteSteps(step.Steps, Reads):
    """The steps in SQLite."""

    def add(self, row: Row, told: step.Told) -> Row:
        """Store a new report with the beginning of its story."""
        account_id = self.account_id(row.task.endpoint, row.task.account, make=True)
        cursor = self._execute(
            sql.ADD,
            (
                account_id,
                row.task.task_id,
                row.method,
                row.state,
                row.outcome,
                row.owner,
                row.attempts,
                *row.window,
                *row.facts,
                row.code,
                row.kind,
                _detail(row),
                row.recorded_wall,
                row.finished_wall,
                self.now if row.state == DONE else None,
            ),
        )
        row = row._replace(seq=cursor.lastrowid)
        (name, data), *more = told
        if row.state == SENDING and more:
            # Most reports begin at once, and say the same.
            claimed = f'{{"owner":"{row.owner}"}}'
            begun = (row.seq, self.wall, "begun", '{"attempt":1}')
            self._execute(sql.ADD_FIRST_TWO, (row.seq, self.wall, "claimed", claimed, *begun))
        else:
            self._execute(sql.ADD_FIRST, (row.seq, self.wall, name, encode(data)))
        return row

    def retire(self, row: Row) -> None:
        """Make a finished report history only."""
        self._execute(sql.RETIRE, (row.seq,))

    def change(self, how: str, before: Row, after: Row) -> bool:
        """Write a row's change with its own statement; False if the row is not as it was before."""
        statement, values = _CHANGES[how]
        changed: int = self._execute(statement, values(self, before, after)).rowcount
        return changed == 1

    def tell(self, seq: int, name: str, data: Mapping[str, Any]) -> None:
        """Go on with the story of a report."""
        self._execute(sql.ADD_EVENT, (seq, self.wall, name, encode(data)))

    def save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Store pauses."""
        for state in states:
            self._execute(sql.SAVE_PAUSE, sql.from_pause(state, endpoint))

    def probed_by(self, task: Task, owner: str | None) -> Sequence[PauseState]:
        """The pauses that a report probes for an owner."""
        found = self._execute(sql.PROBED_BY, (task.endpoint, owner, probe_name(task)))
        return [sql.to_pause(columns) for columns in found]

    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""
        return [sql.to_pause(values) for values in self._execute(sql.OPEN_PAUSES, (endpoint,)).fetchall()]

    def left_rows(self) -> Sequence[Row]:
        """The reports of dead instances. The write lock keeps others from them."""
        self._listed = [values[0] for values in self._execute(sql.FIND_OWNERS, (self.instance,))]
        dead = [owner for owner in self._listed if not self._owners.is_alive(owner)]
        found = (values for owner in dead for values in self._execute(sql.FIND_OWNED, (owner,)).fetchall())
        return [self.row(values) for values in found]

    def end_sweep(self) -> None:
        """Delete the lock files of those who left nothing."""
        self._owners.remove_dead(keep=self._listed)

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        cursor = self._execute(sql.PRUNE, (op.before_wall, self.now - GUARD_S, op.limit))
        return int(cursor.rowcount)


def _detail(row: Row) -> str:
    return encode(row.detail) if row.detail else "{}"


def _counts(row: Row) -> tuple[Any, ...]:
    return row.attempts, row.sends, row.perhaps, row.latency_ms


def _reopen(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    return (after.owner, after.method, *after.window, *after.facts, before.seq)


def _refuse(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    ending = (after.code, after.kind, _detail(after), steps.wall, steps.now)
    return (after.method, *after.window, *after.facts, *ending, before.seq)


def _narrow(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    return (*after.window, *after.facts, before.seq)


def _adopt(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    new = (after.owner, after.state, after.sends, after.perhaps, *after.window, *after.facts)
    return (*new, before.seq, before.owner, before.state)


def _begin(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    return before.seq, steps.instance


def _defer(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    return (*_counts(after), before.seq, steps.instance)


def _finish(steps: SqliteSteps, before: Row, after: Row) -> tuple[Any, ...]:
    ending = (after.outcome, after.code, after.kind, _detail(after), steps.wall, steps.now)
    return (*_counts(after), *ending, before.seq, before.owner)


_CHANGES: Final[Mapping[str, tuple[str, Callable[[SqliteSteps, Row, Row], tuple[Any, ...]]]]] = {
    step.REOPEN: (sql.REOPEN, _reopen),
    step.REFUSE: (sql.REFUSE, _refuse),
    step.NARROW: (sql.NARROW, _narrow),
    step.ADOPT: (sql.ADOPT, _adopt),
    step.BEGIN: (sql.BEGIN_ATTEMPT, _begin),
    step.DEFER: (sql.DEFER, _defer),
    step.FINISH: (sql.FINISH, _finish),
}
"""What is written -> the statement and how its values are made."""
