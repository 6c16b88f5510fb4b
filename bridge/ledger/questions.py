"""What every store is asked without changing anything, told in terms of a few look-ups of its own.

Runs inside a transaction that somebody else opened, also on a ledger that cannot be written.
Imported by the steps and by the stores' reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from bridge.core.model import (
    DONE,
    GUARD_S,
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
from bridge.ledger.store import EventRow, Policy


class Questions(ABC):
    """Questions about reports and pauses; a store supplies the look-ups.

    Args:
        policy: decides about pauses.
        instance: the name of this instance.
    """

    def __init__(self, policy: Policy, instance: str) -> None:
        self._policy = policy
        self.instance = instance
        self.now = 0.0
        """The time of this transaction on the timeline; set before each one."""
        self.wall = 0.0
        self.finished_at = 0.0
        """When the report found last was finished, on the timeline."""

    # --- what a store supplies ---------------------------------------------------------------

    @abstractmethod
    def find(self, task: Task) -> Row | None:
        """The newest report of a task, or None; sets `finished_at`."""

    @abstractmethod
    def is_alive(self, instance: str) -> bool:
        """True if that instance still runs, or nobody can know."""

    @abstractmethod
    def stored_pauses(self, task: Task, keys: Collection[PauseKey]) -> Iterable[PauseState]:
        """Those of the pauses that are stored; others about the same subjects may be among them."""

    @abstractmethod
    def listing(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""

    @abstractmethod
    def pauses(self, op: Pauses) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""

    @abstractmethod
    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""

    # --- what all have in common -------------------------------------------------------------

    def look(self, op: Look) -> Row | None:
        """The newest report of a task."""
        return self.find(op.task)

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
        is_free = row.state == QUEUED and not row.perhaps and not self.is_alive(row.owner or "")
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

    def states(self, task: Task, method: str) -> tuple[Mapping[PauseKey, PauseState], list[PauseState]]:
        """The pauses that concern an attempt, those of dead probers already released.

        Returns:
            What is known, and those of it that were released and are not stored yet.
        """
        keys = self._policy.keys(task, method)
        if not keys:
            return {}, []
        states: dict[PauseKey, PauseState] = {}
        released: list[PauseState] = []
        for state in self.stored_pauses(task, keys):
            if state.key not in keys:
                continue
            if state.state == PROBING and not self.is_alive(state.probe_owner or ""):
                state = self._policy.release(self.now, state)
                released.append(state)
            states[state.key] = state
        return states, released


READS: Mapping[type, Any] = {
    Look: lambda steps, op: steps.look(op),
    Listing: lambda steps, op: steps.listing(op),
    Pauses: lambda steps, op: steps.pauses(op),
}
"""Operation that changes nothing -> what answers it."""
