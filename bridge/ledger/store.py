"""The ports of the ledger: what a store promises, and what it asks of the policy.

Declares only. A new store is one class with these methods; ``tests/contract/test_ledger_store.py``
says when it is done. Imported by the stores and the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bridge.core.model import (
    Claim,
    Claimed,
    Ending,
    Gate,
    Listing,
    Look,
    Operation,
    PauseEvent,
    PauseKey,
    Pauses,
    PauseState,
    Row,
    Task,
    Verdict,
    Window,
)

Notice = tuple[str, Mapping[str, Any]]
"""Name and fields of an event that the owner of the store may log."""


class Policy(Protocol):
    """What a store asks while it begins, records and ends attempts. Pure; called in transactions.

    ``now`` is on the ledger's timeline. ``states`` holds what the store knows about the keys that
    `keys` named; the policy supplies what is missing.
    """

    def keys(self, task: Task, method: str) -> tuple[PauseKey, ...]:
        """The pauses that concern an attempt."""

    def gate(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        states: Mapping[PauseKey, PauseState],
        window: Window,
    ) -> tuple[Gate, tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        """May an attempt begin now? Also the states that changed and what to tell of them."""

    def learn(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        began_at: float,
        verdict: Verdict,
        states: Mapping[PauseKey, PauseState],
    ) -> tuple[tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        """What an attempt's end does to the pauses: the changed states and what to tell of them."""

    def release(self, now: float, state: PauseState) -> PauseState:
        """The pause after its probe went away without a verdict."""

    def resume(self, now: float, state: PauseState, scope: str | None) -> PauseState | None:
        """The pause made due for a probe, or None if it is not meant."""

    def scope(self, state: PauseState) -> str:
        """The scope of a pause as the wire names it."""

    def ends_at(self, window: Window, retrying: bool) -> float:
        """When the window is over."""

    def settle_dead(self, row: Row) -> Ending:
        """The ending of a report that nobody resumed inside its window."""


class EventRow(NamedTuple):
    """One thing that happened to a report. ``data`` is JSON-ready."""

    at_wall: float
    name: str
    """A name of `bridge.core.model.TRANSITIONS` or of a `PauseEvent`."""
    data: Mapping[str, Any]


class Store(Protocol):
    """Where reports are remembered.

    Thread safety: none. One thread at a time may call any method, reads included.

    Every method but `close` raises `LedgerTrouble`; after it nothing of the call has happened, except
    that a commit whose answer was lost may have: the guards then say ``lost`` and show the row.
    """

    kind: str
    """``sqlite``, ``memory`` or ``postgres``."""
    durable: bool
    """True if a commit survives the end of this process."""
    secret: bytes
    """32 random bytes of this ledger, made once: the key of the account hash."""
    clock_offset_s: float
    """Boot clock plus this is the ledger's timeline."""
    instance: str
    """Random name of this bridge instance, the owner of its rows; never used twice."""
    notices: list[Notice]
    """What opening found worth a log line."""

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none of them.

        Returns:
            One result for each operation, as `bridge.core.model` documents it.
        """

    def read(self, operation: Look | Listing | Pauses) -> Any:
        """Run one operation that changes nothing, also while the ledger cannot be written."""

    def peek(self, claim: Claim) -> Claimed | None:
        """What a claim would meet, without writing; None if nothing known forbids to send."""

    def peek_gate(self, task: Task, method: str, window: Window | None = None) -> Gate:
        """What the gate would say to an attempt, without writing."""

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""

    def health(self, integrity: bool = False) -> dict[str, Any]:
        """The state of the ledger for people and monitors."""

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten."""

    def close(self) -> None:
        """Let go of everything. Rows that are not done are left to other instances. Idempotent."""
