"""How the steps of the ledger are written to PostgreSQL: read at once, decide here, write at once.

A batch is one transaction of two round trips, however many reports it holds. Decisions are made upon
what was read; every write says which revision that was, and a race that was lost undoes the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import CLOSED, GUARD_S, Claim, PauseKey, PauseState, Prune, Row, Task
from bridge.ledger import postgres_rows as sql
from bridge.ledger.postgres_link import Rows, Statement
from bridge.ledger.postgres_reads import Entry, PostgresReads
from bridge.ledger.rows import probe_name
from bridge.ledger.steps import REFUSE, Steps, Told

_Q: Final = sql.QUERIES


class PostgresSteps(Steps, PostgresReads):
    """The steps in PostgreSQL; what they change is kept until `flush`."""

    def prepare(
        self, operations: Sequence[Any], is_careful: bool, is_reading: bool = False
    ) -> list[Statement]:
        """The statements that read what a batch needs, to be run before it.

        Args:
            is_careful: also lock the pauses that are at work.
            is_reading: nothing will be written.
        """
        self.clear()
        keys: dict[tuple[int, int], Task] = {}
        claims = 0
        subjects: dict[tuple[str, str], None] = {}
        for op in operations:
            task = getattr(op, "task", None)
            if task is None:
                continue
            claims += type(op) is Claim
            if type(op) is Claim:
                self.methods[op.method] = None
            account_id = self.account_ids.get((task.endpoint, task.account))
            if account_id is not None:
                keys[account_id, task.task_id] = task
            for method in self.methods:
                for key in self._policy.keys(task, method):
                    subjects[task.endpoint, key.subject] = None
        clock: Statement = (_Q["clock"], [str(claims).encode()])
        statements: list[Statement] = [(_Q["clock_reading"], []) if is_reading else clock]
        self._wanted = keys
        self._subjects = tuple(subjects)
        names = self._pause_arrays(self._subjects)
        if is_careful and subjects:
            statements.append((_Q["lock_pauses"], names))
        if keys:
            statements.append(self._find_statement(keys))
        if subjects:
            statements.append((_Q["find_pauses"], [*names, self._me]))
        return statements

    def take(self, answers: list[Rows]) -> None:
        """Take what the statements of `prepare` answered."""
        ((_, _, numbers),) = answers[0]
        self._numbers = [int(n) for n in numbers.split(b",") if n] if numbers else []
        rest = answers[1:]
        if self._subjects:
            self._take_pauses(self._subjects, rest.pop())
        if self._wanted:
            self._take_reports(self._wanted, rest.pop())

    # --- what the steps ask for --------------------------------------------------------------

    def add(self, row: Row, told: Told) -> Row:
        """Keep a new report with the beginning of its story."""
        seq = self._numbers.pop(0) if self._numbers else self._number()
        row = row._replace(seq=seq)
        account_id = self.account_ids[row.task.endpoint, row.task.account]
        finished_at = None if row.outcome is None else self.now
        entry = Entry(row, account_id, finished_at, 0, is_new=True)
        self.entries[row.task] = self._by_seq[seq] = entry
        self._added.append(entry)
        for name, data in told:
            self.tell(seq, name, data)
        return row

    def _number(self) -> int:
        ((_, _, numbers),) = self._ask(_Q["clock"], [b"1"])
        return int(sql.certain(numbers))

    def retire(self, row: Row) -> None:
        """Make a finished report history only."""
        entry = self._by_seq[row.seq]
        entry.is_current = False
        entry.revision += 1
        self._changed[row.seq] = entry

    def change(self, how: str, before: Row, after: Row) -> bool:
        """Keep a row's change. That it is as it was before is what the write will demand."""
        entry = self._by_seq[before.seq]
        entry.row = after
        entry.revision += 1
        if after.outcome is None:
            entry.finished_at = None
        elif before.outcome is None or how == REFUSE:
            entry.finished_at = self.now
        if not entry.is_new:
            self._changed[before.seq] = entry
        return True

    def tell(self, seq: int, name: str, data: Mapping[str, Any]) -> None:
        """Keep an event. Revisions only grow, so they number the events too."""
        entry = self._by_seq[seq]
        entry.revision += 1
        if not entry.is_new:
            self._changed[seq] = entry
        self._told.append(
            {"report": seq, "nth": entry.revision, "at_wall": self.wall, "name": name, "data": data}
        )

    def save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Keep changed pauses."""
        for state in states:
            key = (endpoint, state.key)
            _, revision = self._pauses.get(key, (None, 0))
            if key not in self._saved:
                self._saved[key] = revision
            self._pauses[key] = (state, revision)

    def probed_by(self, task: Task, owner: str | None) -> Sequence[PauseState]:
        """The pauses that a report probes for an owner."""
        name = probe_name(task)
        values = [task.endpoint.encode(), (owner or "").encode(), name.encode()]
        for row in self._ask(_Q["probed_by"], values):
            self._take_pause(row)
        return [
            state
            for (endpoint, _), (state, _) in self._pauses.items()
            if endpoint == task.endpoint and state.probe_owner == owner and state.probe_task == name
        ]

    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""
        self.flush()
        return self._find_open(endpoint)

    def left_rows(self) -> Sequence[Row]:
        """The reports of dead instances, taken so that nobody else takes them."""
        self.flush()
        dead = [
            owner
            for owner, is_free in (
                (sql.certain(o), f == b"t") for o, f in self._ask(_Q["find_owners"], [self._me])
            )
            if not self.neighbours.is_alive(owner, is_free)
        ]
        if not dead:
            return []
        rows = []
        for values in self._ask(_Q["take_left"], [sql.array(dead)]):
            endpoint, account = sql.certain(values[-2]), sql.certain(values[-1])
            entry = self._take_report(values, endpoint, account)
            rows.append(entry.row)
        return rows

    def end_sweep(self) -> None:
        """Nothing is left behind: the server dropped the locks."""

    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""
        self.flush()
        # The caller's clock may be wrong, which must not make anybody's history shorter.
        before = op.before_wall - (self._wall_clock() - self.wall)
        values = [repr(before).encode(), repr(self.now - GUARD_S).encode(), str(op.limit).encode()]
        ((deleted,),) = self._ask(_Q["prune"], values)
        self.clear_reports()
        return int(sql.certain(deleted))

    # --- writing -----------------------------------------------------------------------------

    def pending(self) -> list[Statement]:
        """The statements that write what was kept, in the order in which everybody takes locks."""
        statements: list[Statement] = []
        if self._saved:
            saved = []
            for (endpoint, key), revision in self._saved.items():
                state, _ = self._pauses[endpoint, key]
                saved.append(sql.from_pause(state, endpoint, revision + 1))
                self._pauses[endpoint, key] = (state, revision + 1)
            statements.append((_Q["save_pauses"], [sql.dump(saved), str(len(saved)).encode()]))
        if self._changed:
            changed = [{**_columns(entry), "was": entry.read} for _, entry in sorted(self._changed.items())]
            statements.append((_Q["change_reports"], [sql.dump(changed), str(len(changed)).encode()]))
        if self._added:
            added = [_columns(entry) for entry in self._added]
            statements.append((_Q["add_reports"], [sql.dump(added), str(len(added)).encode()]))
        if self._told:
            statements.append((_Q["add_events"], [sql.dump(self._told)]))
        for entry in (*self._changed.values(), *self._added):
            entry.read = entry.revision
            entry.is_new = False
        self._saved.clear()
        self._changed.clear()
        self._added.clear()
        self._told.clear()
        return statements

    def flush(self) -> None:
        """Write what was kept, before something that reads what the entries do not hold."""
        statements = self.pending()
        if statements:
            self.run(statements)

    @property
    def is_restless(self) -> bool:
        """True if a pause that this batch read is at work, so that the next batch should lock them."""
        return any(s.state != CLOSED or s.streak or s.recent for s, _ in self._pauses.values())

    def stored_pauses(self, task: Task, keys: Collection[PauseKey]) -> Iterable[PauseState]:
        """All stored pauses about the subjects of these."""
        missing = tuple(
            {
                (task.endpoint, key.subject): None
                for key in keys
                if (task.endpoint, key.subject) not in self._known
            }
        )
        if missing:
            self._take_pauses(missing, self._ask(_Q["find_pauses"], [*self._pause_arrays(missing), self._me]))
        found = []
        for key in keys:
            known = self._pauses.get((task.endpoint, key))
            if known is not None:
                found.append(known[0])
        return found


def _columns(entry: Entry) -> dict[str, Any]:
    return sql.from_row(entry.row, entry.account_id, entry.finished_at, entry.revision, entry.is_current)
