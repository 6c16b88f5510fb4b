"""What the ledger is asked without changing it, and what every step needs to know first.

Runs inside a transaction that somebody else opened, also on a ledger that cannot be written.
Imported by `bridge.ledger.sqlite_steps` and `bridge.ledger.sqlite`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import (
    DONE,
    MAX_ATTEMPTS,
    MAX_SENDS,
    NOT_SENT,
    PROBING,
    QUEUED,
    Claim,
    Claimed,
    Gate,
    Listing,
    Look,
    PauseKey,
    Pauses,
    PauseState,
    Row,
    Task,
    Window,
)
from bridge.ledger import sqlite_rows as sql
from bridge.ledger.store import GUARD_S, EventRow, Policy

if TYPE_CHECKING:
    from bridge.ledger.owners import Owners

_MOST_ACCOUNTS: Final = 10_000
"""Accounts remembered by number; a guess that bounds memory."""


class Reads:
    """Questions about reports and pauses.

    Args:
        execute: runs one statement with its values and returns its cursor.
        policy: decides about pauses.
        owners: says who is alive.
    """

    def __init__(self, execute: Callable[..., Any], policy: Policy, owners: Owners) -> None:
        self._execute = execute
        self._policy = policy
        self._owners = owners
        self.instance = owners.instance
        self.now = 0.0
        """The time of this transaction on the timeline; set before each one."""
        self.wall = 0.0
        self.finished_at = 0.0
        """When the report found last was finished, on the timeline."""
        self._ids: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[str, str]] = {}

    def forget(self) -> None:
        """Drop what was remembered of a transaction that was rolled back."""
        self._ids.clear()
        self._names.clear()

    # --- operations that change nothing ------------------------------------------------------

    def look(self, op: Look) -> Row | None:
        """The newest report of a task."""
        return self.find(op.task)

    def listing(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""
        statement, values = sql.select_listing(op, op.limit + 1)
        rows = [sql.to_row(v, v[-2], v[-1]) for v in self._execute(statement, values)]
        page = tuple(rows[: op.limit])
        return page, page[-1].seq if len(rows) > op.limit and page else None

    def pauses(self, op: Pauses) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""
        return tuple(sql.to_pause(values) for values in self._execute(sql.OPEN_PAUSES, (op.endpoint,)))

    def peek(self, op: Claim) -> Claimed | None:
        """What a claim would meet; None if nothing known forbids to send."""
        row = self.find(op.task)
        if row is None:
            return None
        if row.state == DONE:
            if row.outcome == NOT_SENT or self.now - self.finished_at > GUARD_S:
                return None
            return Claimed("known" if row.method == op.method else "conflict", row)
        if row.method != op.method:
            return Claimed("conflict", row)
        # A dead instance's attempt may have been taken. Nobody can take it over in writing, so
        # sending once more would forget that; only what was never begun may be sent.
        is_free = row.state == QUEUED and not row.perhaps and not self._owners.is_alive(row.owner or "")
        return None if is_free else Claimed("elsewhere", row)

    def peek_gate(self, task: Task, method: str, window: Window | None) -> Gate:
        """What the gate would say to an attempt."""
        row = self.find(task)
        if row is not None and row.state != DONE:
            if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
                return Gate("spent")
            window = window or row.window
        states, _ = self.states(task, method)
        gate, _, _ = self._policy.gate(
            self.now, task, method, self.instance, states, window or Window(None, None)
        )
        return gate

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        found = self._execute(sql.EVENTS, (seq,))
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    # --- what every step needs ---------------------------------------------------------------

    def find(self, task: Task) -> Row | None:
        """The newest report of a task, or None."""
        account_id = self.account_id(task.endpoint, task.account)
        if account_id is None:
            return None
        values = self._execute(sql.FIND, (account_id, task.task_id)).fetchone()
        if values is None:
            return None
        self.finished_at = values[-1] or 0.0
        return sql.to_row(values, task.endpoint, task.account)

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
            number = int(self._execute(statement, (endpoint, account)).lastrowid)
        else:
            return None
        if len(self._ids) >= _MOST_ACCOUNTS:
            self.forget()
        self._ids[endpoint, account] = number
        return number

    def states(self, task: Task, method: str) -> tuple[Mapping[PauseKey, PauseState], list[PauseState]]:
        """The pauses that concern an attempt, those of dead probers already released.

        Returns:
            What is known, and those of it that were released and are not stored yet.
        """
        keys = self._policy.keys(task, method)
        if not keys:
            return {}, []
        subjects = dict.fromkeys(key.subject for key in keys)
        values = (task.endpoint, *subjects)
        states: dict[PauseKey, PauseState] = {}
        released: list[PauseState] = []
        for columns in self._execute(sql.find_pauses(len(subjects)), values):
            state = sql.to_pause(columns)
            if state.key not in keys:
                continue
            if state.state == PROBING and not self._owners.is_alive(state.probe_owner or ""):
                state = self._policy.release(self.now, state)
                released.append(state)
            states[state.key] = state
        return states, released
