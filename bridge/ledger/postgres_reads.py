"""What a batch on PostgreSQL has read: reports and pauses by name, with the revisions they had.

What was not read in advance is asked for when it is needed, at a round trip each.
Imported by `bridge.ledger.postgres_steps` and `bridge.ledger.postgres`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import Listing, PauseKey, Pauses, PauseState, Row, Task
from bridge.ledger import postgres_rows as sql
from bridge.ledger.postgres_link import Rows, Statement
from bridge.ledger.postgres_neighbours import Neighbours
from bridge.ledger.questions import Questions
from bridge.ledger.store import EventRow, Policy

_Q: Final = sql.QUERIES


class Entry:
    """One report in a batch: what it is now, and what the database has."""

    __slots__ = ("account_id", "finished_at", "is_current", "is_new", "read", "revision", "row")

    def __init__(
        self, row: Row, account_id: int, finished_at: float | None, revision: int, is_new: bool = False
    ) -> None:
        self.row = row
        self.account_id = account_id
        self.finished_at = finished_at
        self.revision = revision
        self.read = revision
        """The revision that the database has; a write demands it."""
        self.is_new = is_new
        self.is_current = True


class PostgresReads(Questions):
    """Questions about reports and pauses.

    Args:
        policy: decides about pauses.
        instance: the name of this instance.
        neighbours: judges who else is alive.
        wall_clock: UNIX seconds of this host.
    """

    def __init__(
        self, policy: Policy, instance: str, neighbours: Neighbours, wall_clock: Callable[[], float]
    ) -> None:
        super().__init__(policy, instance)
        self.neighbours = neighbours
        self.run: Callable[[Sequence[Statement]], list[Rows]] = _not_open
        """Runs statements in the transaction that is open."""
        self._wall_clock = wall_clock
        self._me = instance.encode()
        self.account_ids: dict[tuple[str, str], int] = {}
        """Accounts by name, for as long as this process lives: they are never deleted."""
        self.methods: dict[str, None] = {}
        """Methods that were seen, whose pauses are read in advance."""
        self._alive: dict[str, bool] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything about the last transaction."""
        self.clear_reports()
        self._known: set[tuple[str, str]] = set()
        self._pauses: dict[tuple[str, PauseKey], tuple[PauseState, int]] = {}
        self._saved: dict[tuple[str, PauseKey], int] = {}
        self._alive.clear()
        self._numbers: list[int] = []

    def clear_reports(self) -> None:
        """Forget what was read about reports."""
        self.entries: dict[Task, Entry | None] = {}
        self._by_seq: dict[int, Entry] = {}
        self._added: list[Entry] = []
        self._changed: dict[int, Entry] = {}
        self._told: list[dict[str, Any]] = []

    def flush(self) -> None:
        """Write what was kept; a reader keeps nothing."""

    # --- questions ---------------------------------------------------------------------------

    def find(self, task: Task) -> Row | None:
        """The newest report of a task, or None."""
        if task not in self.entries:
            account_id = self._account_id(task)
            if account_id is None:
                self.entries[task] = None
            else:
                wanted = {(account_id, task.task_id): task}
                self._take_reports(wanted, self._ask(*self._find_statement(wanted)))
        entry = self.entries[task]
        if entry is None:
            return None
        self.finished_at = entry.finished_at or 0.0
        return entry.row

    def is_alive(self, instance: str) -> bool:
        """True if that instance still runs, or its connection may only have broken."""
        if instance == self.instance:
            return True
        known = self._alive.get(instance)
        if known is None:
            ((is_free,),) = self._ask(_Q["is_free"], [instance.encode()])
            known = self._judge(instance, is_free == b"t")
        return known

    def _judge(self, instance: str, is_free: bool) -> bool:
        self._alive[instance] = self.neighbours.is_alive(instance, is_free)
        return self._alive[instance]

    def listing(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""
        self.flush()
        statement, values = sql.select_listing(op, op.limit + 1)
        rows = [sql.to_row(v, sql.certain(v[-2]), sql.certain(v[-1])) for v in self._ask(statement, values)]
        page = tuple(rows[: op.limit])
        return page, page[-1].seq if len(rows) > op.limit and page else None

    def pauses(self, op: Pauses) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""
        self.flush()
        return tuple(self._find_open(op.endpoint))

    def _find_open(self, endpoint: str) -> list[PauseState]:
        return [self._take_pause(row) for row in self._ask(_Q["open_pauses"], [endpoint.encode()])]

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        self.flush()
        return tuple(
            EventRow(float(sql.certain(at)), sql.certain(name), json.loads(sql.certain(data)))
            for at, name, data in self._ask(_Q["events"], [str(seq).encode()])
        )

    # --- parts -------------------------------------------------------------------------------

    def _ask(self, statement: str, values: Sequence[bytes | None]) -> Rows:
        return self.run([(statement, values)])[0]

    def _account_id(self, task: Task) -> int | None:
        name = (task.endpoint, task.account)
        if name not in self.account_ids:
            self.take_accounts(self._ask(_Q["find_accounts"], account_arrays([name])))
        return self.account_ids.get(name)

    def take_accounts(self, rows: Rows) -> None:
        """Remember the numbers of accounts."""
        for number, endpoint, account in rows:
            self.account_ids[sql.certain(endpoint), sql.certain(account)] = int(sql.certain(number))

    def _find_statement(self, wanted: Mapping[tuple[int, int], Task]) -> Statement:
        accounts = sql.array(account for account, _ in wanted)
        return _Q["find_reports"], [accounts, sql.array(number for _, number in wanted), self._me]

    def _take_reports(self, wanted: Mapping[tuple[int, int], Task], rows: Rows) -> None:
        for task in wanted.values():
            self.entries[task] = None
        for values in rows:
            task = wanted[int(sql.certain(values[1])), int(sql.certain(values[2]))]
            entry = self._take_report(values, task.endpoint, task.account)
            if entry.row.owner is not None and entry.row.owner != self.instance:
                self._judge(entry.row.owner, values[sql.WIDTH] == b"t")

    def _take_report(self, values: sql.Values, endpoint: str, account: str) -> Entry:
        row = sql.to_row(values, endpoint, account)
        finished_at = sql.number(values[22])
        entry = Entry(row, int(sql.certain(values[1])), finished_at, int(sql.certain(values[23])))
        self.entries[row.task] = self._by_seq[row.seq] = entry
        return entry

    def _pause_arrays(self, subjects: Iterable[tuple[str, str]]) -> list[bytes]:
        return account_arrays(subjects)

    def _take_pauses(self, subjects: Iterable[tuple[str, str]], rows: Rows) -> None:
        self._known.update(subjects)
        for values in rows:
            state = self._take_pause(values)
            if state.probe_owner is not None and state.probe_owner != self.instance:
                self._judge(state.probe_owner, values[-1] == b"t")

    def _take_pause(self, values: sql.Values) -> PauseState:
        state = sql.to_pause(values)
        key = (sql.certain(values[0]), state.key)
        known = self._pauses.get(key)
        if known is not None and key in self._saved:
            # What this batch decided is newer than what the database has.
            return known[0]
        self._pauses[key] = (state, int(sql.certain(values[13])))
        return state


def account_arrays(names: Iterable[tuple[str, str]]) -> list[bytes]:
    """Two arrays of the same length: endpoints, and accounts or subjects."""
    pairs = list(names)
    return [sql.array(first for first, _ in pairs), sql.array(second for _, second in pairs)]


def _not_open(statements: Sequence[Statement]) -> list[Rows]:
    raise AssertionError("no transaction is open")
