"""How a batch of operations reads and writes PostgreSQL: two round trips, however many reports it holds.

Decisions are made upon what was read; every write says which revision that was, and a race that was lost
undoes the batch. What was not read in advance is asked for when it is needed, at a round trip each.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bridge.core.counting import DAY_S, HOUR_S, KEPT_S, Consult, Learn, Note, Tallied
from bridge.core.model import CLOSED, GUARD_S, Claim, Listing, PauseKey, PauseState, Prune, Row, Task
from bridge.ledger import postgres_rows as sql
from bridge.ledger.port import EventRow, Policy, Restore
from bridge.ledger.postgres_link import Rows, Statement
from bridge.ledger.postgres_neighbours import Neighbours
from bridge.ledger.rows import TALLY_COLUMNS, group_tallied, to_pause
from bridge.ledger.work import Entry, UnitOfWork

_DAY_S: Final = 86_400.0
_Q: Final = sql.QUERIES
_COUNTING: Final = (Note, Consult, Learn)
SHARDS: Final = 16
"""Rows in which the bridges of one account count at one time: so many commits do not wait for each other."""


class PostgresBatch(UnitOfWork):
    """The operations on PostgreSQL.

    Args:
        neighbours: judges who else is alive.
        wall_clock: UNIX seconds of this host.
    """

    def __init__(
        self, policy: Policy, instance: str, neighbours: Neighbours, wall_clock: Callable[[], float]
    ) -> None:
        self.account_ids: dict[tuple[str, str], int] = {}
        """Accounts by name, for as long as this process lives: they are never deleted."""
        self.ask_server: Callable[[Sequence[Statement]], list[Rows]] = _not_open
        """Runs statements in the transaction that is open."""
        self.opened_at = 0.0
        """When this bridge came, on the timeline."""
        self._methods: dict[str, None] = {}
        self._neighbours = neighbours
        self._wall_clock = wall_clock
        self._me = instance.encode()
        self._shard = zlib.crc32(self._me) % SHARDS
        super().__init__(policy, instance)
        self.is_alive = self._is_alive

    def clear(self) -> None:
        """Begin with nothing read and nothing kept."""
        super().clear()
        self._revisions: dict[tuple[str, PauseKey], int] = {}
        self._alive: dict[str, bool] = {}
        self._numbers: list[int] = []
        self._wanted: list[Task] = []
        self._about: list[tuple[str, str]] = []

    # --- reading in advance ------------------------------------------------------------------

    def plan(self, operations: Sequence[Any], is_careful: bool, is_reading: bool = False) -> list[Statement]:
        """The statements that read what a batch needs, to be run before it.

        Args:
            is_careful: also lock the pauses that are at work.
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
            if (task.endpoint, task.account) in self.account_ids:
                tasks[task] = None
            for method in self._methods:
                subjects.update(
                    ((task.endpoint, key.subject), None) for key in self.policy.keys(task, method)
                )
        self._wanted, self._about = list(tasks), list(subjects)
        clock: Statement = (_Q["clock"], [str(new).encode()])
        statements: list[Statement] = [(_Q["clock_reading"], []) if is_reading else clock]
        names = pairs(subjects)
        if is_careful and subjects:
            statements.append((_Q["lock_pauses"], names))
        if tasks:
            statements.append(self._find_statement(self._wanted))
        if subjects:
            statements.append((_Q["find_pauses"], [*names, self._me]))
        return statements

    def take(self, answers: list[Rows]) -> None:
        """Take what the statements of `plan` answered."""
        ((_, _, numbers),) = answers[0]
        self._numbers = [int(n) for n in numbers.split(b",") if n] if numbers else []
        rest = answers[1:]
        if self._about:
            self._take_pauses(self._about, rest.pop())
        if self._wanted:
            self._take_reports(self._wanted, rest.pop())

    def number_accounts(self, operations: Sequence[Any]) -> list[Statement]:
        """The statements that make and find the accounts that a batch may add a report to."""
        names: dict[tuple[str, str], None] = {}
        for op in operations:
            if isinstance(op, Claim | Restore | Note | Consult | Learn):
                task = op.row.task if isinstance(op, Restore) else op.task
                if (task.endpoint, task.account) not in self.account_ids:
                    names[task.endpoint, task.account] = None
        values = pairs(names)
        return [(_Q["add_accounts"], values), (_Q["find_accounts"], values)] if names else []

    def take_accounts(self, rows: Rows) -> None:
        """Remember the numbers of accounts."""
        for number, endpoint, account in rows:
            self.account_ids[sql.certain(endpoint), sql.certain(account)] = int(sql.certain(number))

    # --- reading -----------------------------------------------------------------------------

    def _ask(self, statement: str, values: Sequence[bytes | None]) -> Rows:
        return self.ask_server([(statement, values)])[0]

    def fetch(self, tasks: Sequence[Task]) -> None:
        """Read the newest reports of tasks."""
        names = {(task.endpoint, task.account) for task in tasks} - self.account_ids.keys()
        if names:
            self.take_accounts(self._ask(_Q["find_accounts"], pairs(names)))
        known = [task for task in tasks if (task.endpoint, task.account) in self.account_ids]
        self.entries.update(dict.fromkeys(tasks))
        if known:
            self._take_reports(known, self._ask(*self._find_statement(known)))

    def _find_statement(self, tasks: Sequence[Task]) -> Statement:
        accounts = sql.array(self.account_ids[task.endpoint, task.account] for task in tasks)
        return _Q["find_reports"], [accounts, sql.array(task.task_id for task in tasks), self._me]

    def _take_reports(self, tasks: Sequence[Task], rows: Rows) -> None:
        self.entries.update(dict.fromkeys(tasks))
        wanted = {(self.account_ids[task.endpoint, task.account], task.task_id): task for task in tasks}
        for row in rows:
            values = sql.report_values(row)
            entry = self.enter(values, wanted[values[1], values[2]])
            if entry.row.owner not in (None, self.instance):
                self._judge(entry.row.owner or "", row[sql.WIDTH] == b"t")

    def account_id(self, task: Task) -> int:
        """The number of an account; a new one was made before."""
        return self.account_ids[task.endpoint, task.account]

    def next_seq(self) -> int:
        """The number of a new report."""
        if not self._numbers:
            self._numbers = [int(sql.certain(self._ask(_Q["clock"], [b"1"])[0][2]))]
        return self._numbers.pop(0)

    def fetch_pauses(self, endpoint: str, subjects: Sequence[str]) -> None:
        """Read all pauses about some subjects."""
        names = [(endpoint, subject) for subject in subjects]
        self._take_pauses(names, self._ask(_Q["find_pauses"], [*pairs(names), self._me]))

    def _take_pauses(self, names: Iterable[tuple[str, str]], rows: Rows) -> None:
        for name in names:
            self.pauses[name] = {}
        for row in rows:
            *columns, revision = sql.pause_values(row)
            state, endpoint = to_pause(columns), sql.certain(row[0])
            self.pauses[endpoint, state.key.subject][state.key] = state
            self._revisions[endpoint, state.key] = revision
            if state.probe_owner not in (None, self.instance):
                self._judge(state.probe_owner or "", row[-1] == b"t")

    def _is_alive(self, instance: str) -> bool:
        """True if that instance still runs, or its connection may only have broken."""
        if instance == self.instance:
            return True
        known = self._alive.get(instance)
        if known is None:
            ((is_free,),) = self._ask(_Q["is_free"], [instance.encode()])
            known = self._judge(instance, is_free == b"t")
        return known

    def _judge(self, instance: str, is_free: bool) -> bool:
        self._alive[instance] = self._neighbours.is_alive(instance, is_free)
        return self._alive[instance]

    def fetch_tallied(self, endpoint: str, account: str | None) -> tuple[Tallied, ...]:
        """What was counted of an account, or of those with most reports."""
        which = "account" if account is not None else "most"
        values = [endpoint.encode(), (account or str(int((self.now - DAY_S) // HOUR_S))).encode()]
        statements = [(_Q[f"tallies_of_{which}"], values), (_Q[f"figures_of_{which}"], values)]
        tallies, figures = (
            [[sql.certain(value) for value in row] for row in rows] for rows in self.ask_server(statements)
        )
        return group_tallied(tallies, figures)

    def fetch_figures(self, task: Task) -> tuple[float, str] | None:
        """When an account's figures were asked for, and what they were, as JSON."""
        values = [str(self.account_id(task)).encode()]
        rows = self._ask(_Q["lock_figures"], values)
        if not rows:
            self._ask(_Q["make_figures"], values)
            rows = self._ask(_Q["lock_figures"], values)
        return (float(sql.certain(rows[0][0])), sql.certain(rows[0][1])) if rows else None

    def save_figures(self, task: Task, asked_at: float, told: str) -> None:
        """Store them."""
        values = [str(self.account_id(task)).encode(), repr(asked_at).encode(), told.encode()]
        self._ask(_Q["save_figures"], values)

    def left(self, own: bool) -> Sequence[Entry]:
        """The reports of dead instances, taken so that nobody else takes them."""
        owners = [
            (sql.certain(owner), is_free == b"t")
            for owner, is_free in self._ask(_Q["find_owners"], [b"" if own else self._me])
        ]
        dead = [
            owner for owner, is_free in owners if owner == self.instance or not self._judge(owner, is_free)
        ]
        rows = self._ask(_Q["take_left"], [sql.array(dead)]) if dead else []
        entries = []
        for row in rows:
            endpoint, account = sql.certain(row[-2]), sql.certain(row[-1])
            values = sql.report_values(row)
            self.account_ids[endpoint, account] = values[1]
            entries.append(self.enter(values, Task(endpoint, account, values[2])))
        return entries

    def end_sweep(self) -> None:
        """Nothing is left behind: the server dropped the locks."""

    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""
        return [sql.one_pause(row[:-1]) for row in self._ask(_Q["open_pauses"], [endpoint.encode()])]

    def list_rows(self, op: Listing, limit: int) -> tuple[Row, ...]:
        """The first reports of a listing, newest first."""
        return tuple(map(sql.named_row, self._ask(*sql.list_statement(op, limit))))

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        return tuple(
            EventRow(float(sql.certain(at)), sql.certain(name), json.loads(sql.certain(data)))
            for at, name, data in self._ask(_Q["events"], [str(seq).encode()])
        )

    # --- writing -----------------------------------------------------------------------------

    def pending(self) -> list[Statement]:
        """The statements that write what was kept, in the order in which everybody takes locks."""
        statements: list[Statement] = []
        if self.saved:
            saved = []
            for (endpoint, key), state in self.saved.items():
                revision = self._revisions[endpoint, key] = self._revisions.get((endpoint, key), 0) + 1
                saved.append(sql.pause_columns(state, endpoint, revision))
            statements.append((_Q["save_pauses"], [sql.dump(saved), str(len(saved)).encode()]))
        if self.changed:
            changed = []
            for _, entry in sorted(self.changed.items()):
                entry.number = max(entry.number, entry.was + 1)
                changed.append({**_columns(entry), "was": entry.was})
            statements.append((_Q["change_reports"], [sql.dump(changed), str(len(changed)).encode()]))
        if self.added:
            added = [_columns(entry) for entry in self.added]
            statements.append((_Q["add_reports"], [sql.dump(added), str(len(added)).encode()]))
        if self.told:
            told = [
                {"report": seq, "nth": nth, "at_wall": at, "name": name, "data": json.loads(data)}
                for seq, nth, at, name, data in self.told
            ]
            statements.append((_Q["add_events"], [sql.dump(told)]))
        if self.counted:
            rows = [
                {**dict(zip(TALLY_COLUMNS, (*key, *counts), strict=True)), "shard": self._shard}
                for key, counts in sorted(self.counted.items())
            ]
            statements.append((_Q["add_tallies"], [sql.dump(rows)]))
            if aged := self.aged():
                for width, kept_s in KEPT_S.items():
                    bounds = (int((self.now - kept_s) // width), int(self.now // width) + HOUR_S // width)
                    values = [str(n).encode() for n in (width, *bounds)]
                    statements.append((_Q["drop_tallies"], [*values, sql.array(aged)]))
        return statements

    def write(self) -> None:
        """Write what was kept, before something that reads what is not kept."""
        statements = self.pending()
        if statements:
            self.ask_server(statements)

    @property
    def is_restless(self) -> bool:
        """True if a pause that this batch read is at work, so that the next batch should lock them."""
        states = (state for states in self.pauses.values() for state in states.values())
        return any(state.state != CLOSED or state.streak or state.recent for state in states)

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        self.flush()
        # The caller's clock may be wrong, which must not make anybody's history shorter.
        before = op.before_wall - (self._wall_clock() - self.wall)
        times = (before, self.now - GUARD_S, self.opened_at, self.now - _DAY_S)
        values = [repr(time).encode() for time in times]
        values.insert(2, str(op.limit).encode())
        ((deleted,),) = self._ask(_Q["prune"], values)
        self.entries.clear()
        return int(sql.certain(deleted))


def _columns(entry: Entry) -> dict[str, Any]:
    return sql.report_columns(entry.row, entry.account_id, entry.finished_at, entry.number, entry.is_current)


def pairs(names: Iterable[tuple[str, str]]) -> list[bytes]:
    """Two arrays of the same length: endpoints, and accounts or subjects."""
    listed = list(names)
    return [sql.array(first for first, _ in listed), sql.array(second for _, second in listed)]


def _not_open(statements: Sequence[Statement]) -> list[Rows]:
    raise AssertionError("no transaction is open")
