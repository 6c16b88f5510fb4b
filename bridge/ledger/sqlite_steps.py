"""How the steps of the ledger are written to SQLite: read at once, decide here, write at once.

A batch is one transaction of a few statements, however many reports it holds. Each change of a report
is guarded by what it was before. Runs inside a transaction that somebody else opened. Imported by
`bridge.ledger.sqlite` only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import DONE, GUARD_S, Claim, PauseKey, PauseState, Prune, Record, Row, Task
from bridge.ledger import sqlite_rows as sql
from bridge.ledger import steps as step
from bridge.ledger.rows import encode, encode_told, probe_name
from bridge.ledger.sqlite_reads import Reads
from bridge.ledger.store import Policy

if TYPE_CHECKING:
    from bridge.ledger.owners import Owners
    from bridge.ledger.sqlite_driver import Connection

_Values = tuple[Any, ...]
_MOST_OWN: Final = 10_000
"""Reports remembered between transactions; a guess that bounds memory."""


class Raced(Exception):
    """A report was not as it was remembered: undo the batch and read it again."""


class Entry:
    """One report in a batch."""

    __slots__ = ("finished_at", "is_new", "nth", "row")

    def __init__(self, row: Row, finished_at: float | None, nth: int | None, is_new: bool = False) -> None:
        self.row = row
        self.finished_at = finished_at
        self.nth = nth
        """Number of its last event; None if that is not known."""
        self.is_new = is_new


class SqliteSteps(step.Steps, Reads):
    """The steps in SQLite; what they change is kept until `flush`.

    Args:
        connection: what the statements run on.
    """

    def __init__(
        self,
        connection: Connection,
        policy: Policy,
        owners: Owners,
    ) -> None:
        super().__init__(connection.execute, policy, owners)
        self._connection = connection
        self._own: dict[Task, Entry] = {}
        """What this instance works on, as it was committed. Nobody else changes its state or counts."""
        self._subjects: dict[tuple[PauseKey, ...], tuple[str, ...]] = {}
        self.clear()

    # --- a batch -----------------------------------------------------------------------------

    def clear(self) -> None:
        """Begin with nothing read and nothing kept."""
        self._entries: dict[Task, Entry | None] = {}
        self._by_seq: dict[int, Entry] = {}
        self._pauses: dict[tuple[str, str], dict[PauseKey, PauseState]] = {}
        self._changes: list[tuple[str, list[_Values]]] = []
        self._finished: list[_Values] = []
        self._added: list[_Values] = []
        self._told: list[_Values] = []
        self._saved: dict[tuple[str, PauseKey], PauseState] = {}
        self._touched: dict[Task, Entry] = {}
        self._last_seq: int | None = None

    def forget(self) -> None:
        """Drop what was remembered of a transaction that was rolled back."""
        super().forget()
        self._own.clear()
        self.clear()

    def prepare(self, operations: Sequence[Any]) -> None:
        """Read at once what a batch needs."""
        wanted: dict[int, dict[int, Task]] = {}
        subjects: dict[str, dict[str, None]] = {}
        for op in operations:
            kind = type(op)
            if kind is Claim:
                task = op.task
                account_id = self.account_id(task.endpoint, task.account)
                if account_id is not None:
                    wanted.setdefault(account_id, {})[task.task_id] = task
                else:
                    self._entries[task] = None
                if not op.begin:
                    continue
                method = op.method
            elif kind is Record:
                task = op.task
                own = self._own.get(task)
                if own is None:
                    continue
                self._entries[task] = self._by_seq[own.row.seq] = own
                method = own.row.method
            else:
                continue
            subjects.setdefault(task.endpoint, {}).update(
                dict.fromkeys(self._subjects_of(self._policy.keys(task, method)))
            )
        for account_id, tasks in wanted.items():
            self._find_many(account_id, tasks)
        for endpoint, names in subjects.items():
            self._read_pauses(endpoint, tuple(names))

    def _find_many(self, account_id: int, tasks: Mapping[int, Task]) -> None:
        if len(tasks) == 1:
            return
        self._entries.update(dict.fromkeys(tasks.values()))
        for values in self._execute(sql.FIND_MANY, (account_id, encode(list(tasks)))):
            self._enter(values, tasks[values[2]])

    def settle_own(self) -> None:
        """Remember what was committed of our own reports."""
        if len(self._own) > _MOST_OWN:
            self._own.clear()
        for task, entry in self._touched.items():
            if entry.row.owner == self.instance:
                self._own[task] = entry
            else:
                self._own.pop(task, None)

    # --- what the steps ask for --------------------------------------------------------------

    def find(self, task: Task) -> Row | None:
        """The newest report of a task, or None."""
        if task in self._entries:
            entry = self._entries[task]
        else:
            values = self._find_values(task)
            if values is None:
                entry = self._entries[task] = None
            else:
                entry = self._enter(values, task)
        if entry is None:
            return None
        self.finished_at = entry.finished_at or 0.0
        return entry.row

    def _enter(self, values: Sequence[Any], task: Task) -> Entry:
        entry = Entry(sql.to_row(values, task.endpoint, task.account), values[-1], None)
        self._entries[task] = self._by_seq[entry.row.seq] = entry
        return entry

    def add(self, row: Row, told: step.Told) -> Row:
        """Keep a new report with the beginning of its story."""
        account_id = self.account_id(row.task.endpoint, row.task.account, make=True)
        if self._last_seq is None:
            self._last_seq = int(self._execute(sql.LAST_SEQ).fetchone()[0])
        self._last_seq = seq = self._last_seq + 1
        row = Row(seq, *row[1:])
        finished_at = self.now if row.state == DONE else None
        entry = Entry(row, finished_at, 0, is_new=True)
        self._entries[row.task] = self._by_seq[seq] = entry
        self._touched[row.task] = entry
        self._added.append(
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
                finished_at,
                seq,
            )
        )
        for name, data in told:
            self._tell(entry, name, data)
        return row

    def retire(self, row: Row) -> None:
        """Make a finished report history only."""
        self._change(sql.RETIRE, (row.seq,))
        self._entries[row.task] = None

    def change(self, how: str, before: Row, after: Row) -> bool:
        """Keep a row's change. That it is as it was before is what the write will demand."""
        entry = self._entry_of(before)
        if entry.is_new:
            self.flush()
        if how == step.FINISH:
            self._finished.append(_finish(self, before, after))
        else:
            if self._finished:
                # Perhaps of the same report, and finished ones are written last.
                self.flush()
            statement, values = _CHANGES[how]
            self._change(statement, values(self, before, after))
        entry.row = after
        if after.state != DONE:
            entry.finished_at = None
        elif before.state != DONE or how == step.REFUSE:
            entry.finished_at = self.now
        self._touched[before.task] = entry
        return True

    def _change(self, statement: str, values: _Values) -> None:
        if self._changes and self._changes[-1][0] is statement:
            self._changes[-1][1].append(values)
        else:
            self._changes.append((statement, [values]))

    def _entry_of(self, row: Row) -> Entry:
        entry = self._entries.get(row.task)
        if entry is None or entry.row.seq != row.seq:
            entry = Entry(row, None, None)
            self._entries[row.task] = self._by_seq[row.seq] = entry
        return entry

    def tell(self, seq: int, name: str, data: Mapping[str, Any]) -> None:
        """Go on with the story of a report."""
        self._tell(self._by_seq[seq], name, data)

    def _tell(self, entry: Entry, name: str, data: Mapping[str, Any]) -> None:
        if entry.nth is None:
            self._execute(sql.ADD_EVENT, (entry.row.seq, self.wall, name, encode_told(name, data)))
            return
        entry.nth += 1
        self._told.append((entry.row.seq, entry.nth, self.wall, name, encode_told(name, data)))

    def save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Keep changed pauses."""
        for state in states:
            self._saved[endpoint, state.key] = state
            known = self._pauses.get((endpoint, state.key.subject))
            if known is not None:
                known[state.key] = state

    def stored_pauses(self, task: Task, keys: Collection[PauseKey]) -> Iterable[PauseState]:
        """All stored pauses about the subjects of these."""
        endpoint = task.endpoint
        subjects = self._subjects_of(keys if isinstance(keys, tuple) else tuple(keys))
        missing = [subject for subject in subjects if (endpoint, subject) not in self._pauses]
        if missing:
            self._read_pauses(endpoint, tuple(missing))
        return [state for subject in subjects for state in tuple(self._pauses[endpoint, subject].values())]

    def _subjects_of(self, keys: tuple[PauseKey, ...]) -> tuple[str, ...]:
        subjects = self._subjects.get(keys)
        if subjects is None:
            if len(self._subjects) >= _MOST_OWN:
                self._subjects.clear()
            subjects = self._subjects[keys] = tuple(dict.fromkeys(key.subject for key in keys))
        return subjects

    def _read_pauses(self, endpoint: str, subjects: tuple[str, ...]) -> None:
        for subject in subjects:
            self._pauses[endpoint, subject] = {}
        for columns in self._execute(sql.find_pauses(len(subjects)), (endpoint, *subjects)):
            state = sql.to_pause(columns)
            self._pauses[endpoint, state.key.subject][state.key] = state
        for (place, key), state in self._saved.items():
            if place == endpoint and key.subject in subjects:
                self._pauses[endpoint, key.subject][key] = state

    # --- writing -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was kept, at the end or before something that reads what is not kept.

        Raises:
            Raced: A report was not as it was remembered.
        """
        for statement, values in self._changes:
            before = self._connection.total_changes
            if len(values) == 1:
                self._execute(statement, values[0])
            else:
                self._connection.executemany(statement, values)
            if self._connection.total_changes - before != len(values):
                raise Raced
        if self._finished:
            before = self._connection.total_changes
            self._add_rows(sql.FINISH, self._finished)
            if self._connection.total_changes - before != len(self._finished):
                raise Raced
        self._add_rows(sql.ADD_REPORTS, self._added)
        self._add_rows(sql.ADD_EVENTS, self._told)
        for (endpoint, _), state in self._saved.items():
            self._execute(sql.SAVE_PAUSE, sql.from_pause(state, endpoint))
        self._changes, self._finished, self._added, self._told, self._saved = [], [], [], [], {}
        for entry in self._touched.values():
            entry.is_new = False

    def _add_rows(self, statements: Mapping[int, str], rows: Sequence[_Values]) -> None:
        """Add rows in as few statements as there are; there is one for each power of two."""
        at = 0
        while at < len(rows):
            count = min(sql.MOST_ROWS, 1 << (len(rows) - at).bit_length() - 1)
            values = rows[at] if count == 1 else [value for row in rows[at : at + count] for value in row]
            self._execute(statements[count], values)
            at += count

    def probed_by(self, task: Task, owner: str | None) -> Sequence[PauseState]:
        """The pauses that a report probes for an owner."""
        self.flush()
        found = self._execute(sql.PROBED_BY, (task.endpoint, owner, probe_name(task)))
        return [sql.to_pause(columns) for columns in found]

    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""
        self.flush()
        return [sql.to_pause(values) for values in self._execute(sql.OPEN_PAUSES, (endpoint,)).fetchall()]

    def left_rows(self) -> Sequence[Row]:
        """The reports of dead instances. The write lock keeps others from them."""
        self.flush()
        self._listed = [values[0] for values in self._execute(sql.FIND_OWNERS, (self.instance,))]
        dead = [owner for owner in self._listed if not self._owners.is_alive(owner)]
        found = (values for owner in dead for values in self._execute(sql.FIND_OWNED, (owner,)).fetchall())
        rows = [self.row(values) for values in found]
        for row in rows:
            # It may have been ours, been taken over, and been left again.
            self._own.pop(row.task, None)
            self._entries.pop(row.task, None)
        return rows

    def end_sweep(self) -> None:
        """Delete the lock files of those who left nothing."""
        self._owners.remove_dead(keep=self._listed)

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        self.flush()
        self._execute(sql.PRUNE, (op.before_wall, self.now - GUARD_S, op.limit))
        # Without the events that went with them.
        return int(self._execute("SELECT changes()").fetchone()[0])


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
    return (after.state, *_counts(after), before.seq, steps.instance)


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
}
"""What is written -> the statement and how its values are made."""
