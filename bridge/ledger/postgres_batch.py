"""How a batch of operations reads and writes PostgreSQL: two round trips, however many reports it holds.

Decisions are made upon what was read; every write says which revision that was, and a race that was lost
undoes the batch. What was not read in advance is asked for when it is needed, at a round trip each.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from bridge.core.counting import DAY_S, Consult, Learn, Note
from bridge.core.model import GUARD_S, Claim, PauseKey, Prune, Task
from bridge.ledger.port import Policy, Restore
from bridge.ledger.postgres_schema import QUERIES, REPORT, TALLY, dump, pause_columns, report_columns
from bridge.ledger.rows import Rows, Statement, to_pause
from bridge.ledger.work import Entry, UnitOfWork

if TYPE_CHECKING:
    from bridge.ledger.postgres import PostgresStore

_OWN: Final = len(REPORT)
"""Columns of a report; what follows them in a row is the statement's own."""
_COUNTING: Final = (Note, Consult, Learn)
SHARDS: Final = 16
"""Rows in which the bridges of one account count at one time: so many commits do not wait for each other."""


class PostgresBatch(UnitOfWork):
    """The operations on PostgreSQL.

    Args:
        session: where statements run, in the transaction that is open.
    """

    def __init__(self, policy: Policy, session: PostgresStore) -> None:
        self.opened_at = 0.0
        """When this bridge came, on the timeline."""
        self._session = session
        self._methods: dict[str, None] = {}
        self._shard = zlib.crc32(session.instance.encode()) % SHARDS
        super().__init__(policy, session.instance)

    def clear(self) -> None:
        """Begin with nothing read and nothing kept."""
        super().clear()
        self.concerning.clear()  # the server's pauses are anybody's
        self._revisions: dict[tuple[str, PauseKey], int] = {}
        self._alive: dict[str, bool] = {}
        self._numbers: list[int] = []

    # --- reading in advance ------------------------------------------------------------------

    def begin(self, operations: Sequence[Any], is_reading: bool = False) -> tuple[float, int]:
        """Begin a transaction and read what a batch needs; the server's time, and whose session this is.

        Who writes is alone with the pauses that are at work, so that few batches lose a race.

        Args:
            is_reading: nothing will be written.
        """
        tasks: dict[Task, None] = {}
        subjects: dict[tuple[str, str], None] = {}
        new = 0
        for op in operations:
            kind = type(op)
            task = op.row.task if kind is Restore else getattr(op, "task", None)
            if task is None or kind in _COUNTING:
                continue
            if kind is Claim:
                self._methods[op.method] = None
            new += kind is Claim or kind is Restore
            tasks[task] = None
            for method in self._methods:
                for subject in self.policy.subjects(task, method):
                    subjects[task.endpoint, subject] = None
        statements: list[Statement] = [(QUERIES["begin_reading"], []), (QUERIES["clock_reading"], [])]
        if not is_reading:
            busy_ms = max(1, round(self._session.busy_s * 1000))
            statements = [(QUERIES["begin"], []), (QUERIES["clock"], [new, busy_ms])]
        if subjects:
            names = columns_of(subjects)
            if not is_reading:
                statements.append((QUERIES["lock_pauses"], names))
            statements.append((QUERIES["find_reports"], [*columns_of(tasks), self.instance]))
            statements.append((QUERIES["find_pauses"], [*names, self.instance]))
        answers = self._run(statements)
        told, pid, self._numbers, _ = answers[1][0]
        if subjects:
            self._take_pauses(subjects, answers.pop())
            self._take_reports(tasks, answers.pop())
        return told, pid

    def number_accounts(self, operations: Sequence[Any]) -> None:
        """Make the accounts that a batch may need, in a commit of their own: nobody waits for the batch."""
        tasks = (
            op.row.task if isinstance(op, Restore) else op.task
            for op in operations
            if isinstance(op, Claim | Restore | Note | Consult | Learn)
        )
        new = {(task.endpoint, task.account) for task in tasks} - self._ids.keys()
        if new:
            names = columns_of(new)
            self._ask(QUERIES["add_accounts"], *names)
            found = self._ask(QUERIES["find_accounts"], *names)
            self._ids.update(((endpoint, account), number) for endpoint, account, number in found)

    # --- reading -----------------------------------------------------------------------------

    def _run(self, statements: Sequence[Statement]) -> list[Rows]:
        return self._session.link.run(statements)

    def fetch(self, tasks: Sequence[Task]) -> None:
        """Read the newest reports of tasks."""
        self._take_reports(tasks, self._ask(QUERIES["find_reports"], *columns_of(tasks), self.instance))

    def _take_reports(self, tasks: Iterable[Task], rows: Rows) -> None:
        self.entries.update(dict.fromkeys(tasks))
        for row in rows:
            owner = self._enter(row).row.owner
            if owner is not None and owner != self.instance:
                self._judge(owner, row[-1])

    def _enter(self, row: Sequence[Any]) -> Entry:
        """Take a report that was read, with the names of its account behind the columns."""
        endpoint, account = row[_OWN : _OWN + 2]
        task = Task(endpoint, account, row[2])
        self._ids[endpoint, account] = row[1]
        return self.enter(row, task)

    def account_id(self, task: Task) -> int:
        """The number of an account; a new one was made before."""
        return self._ids[task.endpoint, task.account]

    def next_seq(self) -> int:
        """The number of a new report; there is one for each operation that may need one."""
        return self._numbers.pop(0)

    def fetch_pauses(self, endpoint: str, subjects: Sequence[str]) -> None:
        """Read all pauses about some subjects."""
        names = [(endpoint, subject) for subject in subjects]
        self._take_pauses(names, self._ask(QUERIES["find_pauses"], *columns_of(names), self.instance))

    def _take_pauses(self, names: Iterable[tuple[str, str]], rows: Rows) -> None:
        for name in names:
            self.pauses[name] = {}
        for row in rows:
            *columns, revision, endpoint, is_free = row
            state = to_pause(columns)
            self.pauses[endpoint, state.key.subject][state.key] = state
            self._revisions[endpoint, state.key] = revision
            if state.probe_owner is not None and state.probe_owner != self.instance:
                self._judge(state.probe_owner, is_free)

    def is_alive(self, instance: str) -> bool:
        """True if that instance still runs, or its connection may only have broken."""
        if instance == self.instance:
            return True
        if instance not in self._alive:
            self._judge(instance, self._ask(QUERIES["is_free"], instance)[0][0])
        return self._alive[instance]

    def _judge(self, instance: str, is_free: bool) -> bool:
        """Say whether an instance lives by whether its lock is free now.

        A lock that is free says that its session is gone. That may be a bridge that died, or one that comes
        back at once because only its connection broke; so a lock has to stay free for a while.
        """
        free_since, now = self._session.link.free_since, monotonic()
        if not is_free:
            free_since.pop(instance, None)
        is_alive = not is_free or now - free_since.setdefault(instance, now) < self._session.grace_s
        self._alive[instance] = is_alive
        return is_alive

    def fetch_figures(self, task: Task) -> tuple[float, str] | None:
        """When an account's figures were asked for, and what they were, as JSON."""
        ((asked_at, told),) = self._ask(QUERIES["lock_figures"], self.account_id(task))
        return asked_at, told

    def left(self, own: bool) -> Sequence[Entry]:
        """The reports of dead instances, taken so that nobody else takes them."""
        owners = self._ask(QUERIES["find_owners"], "" if own else self.instance)
        dead = [
            owner for owner, is_free in owners if owner == self.instance or not self._judge(owner, is_free)
        ]
        return [self._enter(row) for row in (self._ask(QUERIES["take_left"], dead) if dead else [])]

    # --- writing -----------------------------------------------------------------------------

    def pending(self) -> list[Statement]:
        """The statements that write what was kept, in the order in which everybody takes locks."""
        statements: list[Statement] = []
        if self.saved:
            saved = []
            for (endpoint, key), state in self.saved.items():
                revision = self._revisions[endpoint, key] = self._revisions.get((endpoint, key), 0) + 1
                saved.append(pause_columns(state, endpoint, revision))
            statements.append((QUERIES["save_pauses"], [dump(saved), len(saved)]))
        if self.changed:
            changed = [entry for _, entry in sorted(self.changed.items())]
            for entry in changed:
                entry.number = max(entry.number, entry.was + 1)
            columns = dump(list(map(report_columns, changed)))
            values = [columns, len(changed), [entry.was for entry in changed]]
            statements.append((QUERIES["change_reports"], values))
        if self.added:
            added = dump(list(map(report_columns, self.added)))
            statements.append((QUERIES["add_reports"], [added, len(self.added)]))
        if self.told:
            told = [
                {"report": seq, "nth": nth, "at_wall": at, "name": name, "data": json.loads(data)}
                for seq, nth, at, name, data in self.told
            ]
            statements.append((QUERIES["add_events"], [dump(told)]))
        if self.counted:
            rows = [dict(zip(TALLY, (*tally, self._shard), strict=True)) for tally in self.tallies()]
            statements.append((QUERIES["add_tallies"], [dump(rows)]))
            statements += self.drop_aged()
        return statements

    def write(self) -> None:
        """Write what was kept, before something that reads what is not kept."""
        self._run(self.pending())

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        self.flush()
        # The caller's clock may be wrong, which must not make anybody's history shorter.
        before = op.before_wall - (self._session.wall_clock() - self.wall)
        times = (before, self.now - GUARD_S, op.limit, self.opened_at, self.now - DAY_S)
        ((deleted,),) = self._ask(QUERIES["prune"], *times)
        self.entries.clear()
        return int(deleted)


def columns_of(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """An array for each column of some rows."""
    return [list(column) for column in zip(*rows, strict=True)]
