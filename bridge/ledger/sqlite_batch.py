"""How a batch of operations reads and writes SQLite: a few statements, however many reports it holds.

Each change of a report is guarded by what it was before. Knows no connection's life and no rule: those are in
`bridge.ledger.sqlite` and `bridge.ledger.transactions`. Imported by `bridge.ledger.sqlite` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from bridge.core.counting import Counts
from bridge.core.model import GUARD_S, Prune, Task
from bridge.ledger.owners import Owners
from bridge.ledger.port import Policy
from bridge.ledger.rows import (
    COLUMNS,
    PAUSE_COLUMNS,
    TALLY_COLUMNS,
    Rows,
    Statement,
    encode,
    from_pause,
    from_row,
    to_pause,
)
from bridge.ledger.sqlite_file import Connection
from bridge.ledger.work import Entry, UnitOfWork

_Values = tuple[Any, ...]
_MOST_ACCOUNTS: Final = 10_000
"""Accounts remembered by number; a guess that bounds memory."""

_COLUMNS: Final = ", ".join(COLUMNS)
_FOUND: Final = f"{_COLUMNS}, (SELECT coalesce(max(nth), 0) FROM events WHERE report = seq)"
FIND: Final = f"SELECT {_FOUND} FROM reports WHERE account_id = ? AND task_id = ? AND current = 1"
"""The newest report of a task."""
_FIND_MANY: Final = (
    f"SELECT {_FOUND} FROM reports WHERE account_id = ? AND current = 1 "
    "AND task_id IN (SELECT value FROM json_each(?))"
)
_FIND_OWNED: Final = (
    f"SELECT {_FOUND}, endpoint, account FROM reports JOIN accounts ON id = account_id WHERE owner = ?"
)
_FIND_OWNERS: Final = "SELECT DISTINCT owner FROM reports WHERE owner IS NOT NULL AND owner <> ?"
_PRUNE: Final = (
    "DELETE FROM reports WHERE seq IN (SELECT seq FROM reports WHERE recorded_wall < ? AND state = 'done' "
    "AND finished_at < ? AND finished_wall < ? ORDER BY recorded_wall LIMIT ?)"
)
_PAUSE_NAMES: Final = ", ".join(PAUSE_COLUMNS)
_PAUSE_MARKS: Final = ", ".join("?" * (len(PAUSE_COLUMNS) + 1))
_SAVE_PAUSE: Final = f"INSERT OR REPLACE INTO pauses ({_PAUSE_NAMES}, endpoint) VALUES ({_PAUSE_MARKS})"
_MOST_ROWS: Final = 32
"""Rows that one statement writes at most. It costs a third of as many statements."""
_SIZES: Final = (1, 2, 4, 8, 16, _MOST_ROWS)


def _per_size(head: str, marks: int, tail: str = "") -> dict[int, str]:
    row = f"({','.join('?' * marks)})"
    return {n: f"{head}{','.join([row] * n)}{tail}" for n in _SIZES}


# Who it is and when it came never change.
_CHANGING: Final = (*COLUMNS[3:19], *COLUMNS[20:])
# What others may have changed of a report that is remembered: who has it, and when its window ends.
_GUARDS: Final = ("seq", "state", "owner", "window_until", "window_since")
# Both count their columns on into the same list of values.
_SET: Final = ", ".join(f"{name} = v.column{n}" for n, name in enumerate(_CHANGING, 1))
_HELD: Final = " AND ".join(
    f"reports.{name} IS v.column{n}" for n, name in enumerate(_GUARDS, len(_CHANGING) + 1)
)
_UPDATE: Final = {
    **_per_size(
        f"UPDATE reports SET {_SET} FROM (VALUES ",
        len(_CHANGING) + len(_GUARDS),
        f") AS v WHERE {_HELD}",
    ),
    # One row needs no table of values, which SQLite would make and drop.
    1: f"UPDATE reports SET {', '.join(f'{name} = ?' for name in _CHANGING)} "
    f"WHERE {' AND '.join(f'{name} IS ?' for name in _GUARDS)}",
}
_RETIRE: Final = _per_size(
    "UPDATE reports SET current = 0 FROM (VALUES ",
    1,
    ") AS v WHERE seq IS v.column1 AND state = 'done' AND current = 1",
)
_ADD_REPORTS: Final = _per_size(f"INSERT INTO reports ({_COLUMNS}) VALUES ", len(COLUMNS))
_ADD_EVENTS: Final = _per_size("INSERT INTO events (report, nth, at_wall, name, data) VALUES ", 5)
_ADDED: Final = ", ".join(f"{name} = {name} + excluded.{name}" for name in Counts._fields)
_ADD_TALLIES: Final = _per_size(
    f"INSERT INTO tallies ({', '.join(TALLY_COLUMNS)}) VALUES ",
    len(TALLY_COLUMNS),
    f" ON CONFLICT DO UPDATE SET {_ADDED}",
)
"""Number of rows -> the statement that writes so many."""


@lru_cache(256)
def _find_pauses(count: int) -> str:
    # A list after IN would become a table, which takes as long as the rest of the statement.
    values = f"(VALUES {', '.join(['(?)'] * count)}) AS v"
    return f"SELECT {_PAUSE_NAMES} FROM {values} CROSS JOIN pauses ON endpoint = ? AND subject = v.column1"


class Raced(Exception):
    """A report was not as it was remembered: undo the batch and read it again."""


class SqliteBatch(UnitOfWork):
    """The operations on SQLite.

    Args:
        connection: what the statements run on.
        owners: say who is alive.
    """

    def __init__(self, connection: Connection, policy: Policy, owners: Owners) -> None:
        super().__init__(policy, owners.instance)
        self.is_alive = owners.is_alive
        self.pruned_from = 0.0
        """No prune before this instant of the timeline."""
        self._owners = owners
        self._connection = connection
        self._execute: Callable[..., Any] = connection.cursor().execute
        self._version: int | None = None
        """Of the database, as we left it."""
        self._last_seq: int | None = None

    def forget_theirs(self, is_reading: bool) -> None:
        """At the beginning of a transaction: forget what somebody else may have changed since the last one.

        Args:
            is_reading: it holds no lock yet, so nobody can tell.
        """
        if is_reading or self._connection.data_version() != self._version:
            self._last_seq = None
            self.concerning.clear()

    def remember_own(self) -> None:
        """Remember what was committed."""
        super().remember_own()
        self._version = self._connection.data_version()

    def forget_own(self) -> None:
        """Drop what was remembered, because a transaction was rolled back."""
        super().forget_own()
        self._version = None

    def _run(self, statements: Sequence[Statement]) -> list[Rows]:
        return [self._execute(text, values).fetchall() for text, values in statements]

    # --- reading -----------------------------------------------------------------------------

    def fetch(self, tasks: Sequence[Task]) -> None:
        """Read the newest reports of tasks."""
        wanted: dict[int, dict[int, Task]] = {}
        for task in tasks:
            self.entries[task] = None
            account_id = self._find_account(task)
            if account_id is not None:
                wanted.setdefault(account_id, {})[task.task_id] = task
        for account_id, numbers in wanted.items():
            if len(numbers) == 1:
                found = self._execute(FIND, (account_id, next(iter(numbers))))
            else:
                found = self._execute(_FIND_MANY, (account_id, encode(list(numbers))))
            for values in found.fetchall():
                self.enter(values, numbers[values[2]])

    def _find_account(self, task: Task) -> int | None:
        name = (task.endpoint, task.account)
        known = self._ids.get(name)
        if known is None:
            known = self._execute("SELECT id FROM accounts WHERE endpoint = ? AND account = ?", name).get
            if known is None:
                return None
            if len(self._ids) >= _MOST_ACCOUNTS:
                self._ids.clear()
            self._ids[name] = known
        return known

    def account_id(self, task: Task) -> int:
        """The number of an account, which is made if it is new."""
        number = self._find_account(task)
        if number is None:
            statement = "INSERT INTO accounts (endpoint, account) VALUES (?, ?) RETURNING id"
            self._execute(statement, (task.endpoint, task.account)).fetchall()
            number = self._find_account(task)
            assert number is not None
        return number

    def next_seq(self) -> int:
        """The number of a new report."""
        if self._last_seq is None:
            self._last_seq = int(self._execute("SELECT coalesce(max(seq), 0) FROM reports").get)
        self._last_seq += 1
        return self._last_seq

    def fetch_pauses(self, endpoint: str, subjects: Sequence[str]) -> None:
        """Read all pauses about some subjects."""
        for subject in subjects:
            self.pauses[endpoint, subject] = {}
        # All at once, here and above: what is half read when one cannot be understood keeps its lock.
        for columns in self._execute(_find_pauses(len(subjects)), (*subjects, endpoint)).fetchall():
            state = to_pause(columns)
            self.pauses[endpoint, state.key.subject][state.key] = state

    def fetch_figures(self, task: Task) -> tuple[float, str] | None:
        """When an account's figures were asked for, and what they were, as JSON."""
        statement = "SELECT asked_at, told FROM figures WHERE account_id = ?"
        found: tuple[float, str] | None = self._execute(statement, (self.account_id(task),)).get
        return found

    def left(self, own: bool) -> Sequence[Entry]:
        """The reports of dead instances. The write lock keeps others from them."""
        but = "" if own else self.instance
        owners = [owner for (owner,) in self._execute(_FIND_OWNERS, (but,)).fetchall()]
        # Whoever left nothing leaves no lock file either.
        self._owners.remove_dead(keep=owners)
        dead = [owner for owner in owners if owner == self.instance or not self.is_alive(owner)]
        found = [values for owner in dead for values in self._execute(_FIND_OWNED, (owner,)).fetchall()]
        return [self.enter(values, Task(values[-2], values[-1], values[2])) for values in found]

    # --- writing -----------------------------------------------------------------------------

    def write(self) -> None:
        """Write what was kept.

        Raises:
            Raced: A report was not as it was remembered.
        """
        retired: list[_Values] = []
        updated: list[_Values] = []
        for entry in self.changed.values():
            row, was = entry.row, entry.read
            assert was is not None
            if entry.is_current:
                columns = from_row(row, entry.account_id, entry.finished_at)
                updated.append((*columns[3:19], *columns[20:], row.seq, was.state, was.owner, *was.window))
            else:
                retired.append((row.seq,))
        before = self._connection.total_changes()
        self._write_rows((_RETIRE, retired), (_UPDATE, updated))
        if self._connection.total_changes() - before != len(self.changed):
            raise Raced
        added = [from_row(entry.row, entry.account_id, entry.finished_at) for entry in self.added]
        counted = self.tallies()
        self._write_rows((_ADD_REPORTS, added), (_ADD_EVENTS, self.told), (_ADD_TALLIES, counted))
        if counted:
            self._run(self.drop_aged())
        for (endpoint, _), state in self.saved.items():
            self._execute(_SAVE_PAUSE, (*from_pause(state), endpoint))

    def _write_rows(self, *groups: tuple[Mapping[int, str], Sequence[_Values]]) -> None:
        """Write groups of rows in as few statements as there are; there is one for each power of two."""
        for statements, rows in groups:
            while rows:
                count = min(_MOST_ROWS, 1 << len(rows).bit_length() - 1)
                self._execute(statements[count], rows[0] if count == 1 else list(chain(*rows[:count])))
                rows = rows[count:]

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task by either clock."""
        if self.now < self.pruned_from:
            return 0
        self.flush()
        self._execute(_PRUNE, (op.before_wall, self.now - GUARD_S, self.wall - GUARD_S, op.limit))
        # Without the events that went with them.
        return self._connection.changes()
