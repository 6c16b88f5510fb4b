"""The look-ups of a SQLite ledger, for the questions and steps that all stores have in common.

Runs inside a transaction that somebody else opened, also on a ledger that cannot be written.
Imported by `bridge.ledger.sqlite_steps` and `bridge.ledger.sqlite`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import Listing, Pauses, PauseState, Row, Task
from bridge.ledger import sqlite_rows as sql
from bridge.ledger.questions import Questions
from bridge.ledger.store import EventRow, Policy

if TYPE_CHECKING:
    from bridge.ledger.owners import Owners

_MOST_ACCOUNTS: Final = 10_000
"""Accounts remembered by number; a guess that bounds memory."""


class Reads(Questions):
    """Questions about reports and pauses.

    Args:
        execute: runs one statement with its values and returns its cursor.
        policy: decides about pauses.
        owners: says who is alive.
    """

    def __init__(self, execute: Callable[..., Any], policy: Policy, owners: Owners) -> None:
        super().__init__(policy, owners.instance)
        self._execute = execute
        self._owners = owners
        self._ids: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[str, str]] = {}

    def forget(self) -> None:
        """Drop what was remembered of a transaction that was rolled back."""
        self._ids.clear()
        self._names.clear()

    # --- operations that change nothing ------------------------------------------------------

    def listing(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""
        statement, values = sql.select_listing(op, op.limit + 1)
        rows = [sql.to_row(v, v[-2], v[-1]) for v in self._execute(statement, values)]
        page = tuple(rows[: op.limit])
        return page, page[-1].seq if len(rows) > op.limit and page else None

    def pauses(self, op: Pauses) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""
        return tuple(sql.to_pause(values) for values in self._execute(sql.OPEN_PAUSES, (op.endpoint,)))

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        found = self._execute(sql.EVENTS, (seq,))
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    # --- what every step needs ---------------------------------------------------------------

    def _find_values(self, task: Task) -> Sequence[Any] | None:
        account_id = self.account_id(task.endpoint, task.account)
        if account_id is None:
            return None
        values: Sequence[Any] | None = self._execute(sql.FIND, (account_id, task.task_id)).fetchone()
        return values

    def row(self, values: Sequence[Any]) -> Row:
        """The report of a ``FIND`` statement's columns, whoever it belongs to."""
        names = self._names.get(values[1])
        if names is None:
            sentence = "SELECT endpoint, account FROM accounts WHERE id = ?"
            endpoint, account = self._execute(sentence, (values[1],)).fetchone()
            names = self._names[values[1]] = (endpoint, account)
        return sql.to_row(values, *names)

    def account_id(self, endpoint: str, account: str, make: bool = False) -> int | None:
        """The number of an account, or None if it has no report yet and shall not be made."""
        known = self._ids.get((endpoint, account))
        if known is not None:
            return known
        statement = "SELECT id FROM accounts WHERE endpoint = ? AND account = ?"
        found = self._execute(statement, (endpoint, account)).fetchone()
        if found is not None:
            number = int(found[0])
        elif make:
            statement = "INSERT INTO accounts (endpoint, account) VALUES (?, ?)"
            self._execute(statement, (endpoint, account))
            number = int(self._execute("SELECT last_insert_rowid()").fetchone()[0])
        else:
            return None
        if len(self._ids) >= _MOST_ACCOUNTS:
            self.forget()
        self._ids[endpoint, account] = number
        return number

    def is_alive(self, instance: str) -> bool:
        """True if that instance still runs."""
        return self._owners.is_alive(instance)
