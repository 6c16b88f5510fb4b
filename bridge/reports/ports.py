"""What the reports need of the world: a ledger, and everything else. Declares only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bridge.core.model import Exchange, Operation
from bridge.reports.flight import Attempt


class LedgerPort(Protocol):
    """A ledger that commits on a thread of its own; see `bridge.ledger.journal.Journal`."""

    def submit(self, op: Operation, done: Callable[[Any], None]) -> None:
        """Queue an operation; `done` gets its result later, after the commit. Never blocks."""

    def account(self, secret_text: str) -> str:
        """The account of a client key."""

    def now(self) -> float:
        """Seconds on the ledger's timeline."""

    @property
    def instance(self) -> str:
        """Name of this bridge as the owner of rows."""


class Ports(Protocol):
    """What the service needs of the world besides the ledger."""

    def attempt(self, attempt: Attempt, done: Callable[[Exchange], None]) -> None:
        """Make one HTTP attempt on some thread; `done` is called exactly once."""

    def wall(self) -> float:
        """UNIX time as this host believes it."""

    def chance(self) -> float:
        """A random number from 0 to 1."""

    def alarm(self, at: float | None) -> None:
        """Call `Service.tick` at this moment of the timeline."""

    def emit(self, name: str, **fields: Any) -> None:
        """Tell of a notable thing; see `bridge.core.events`."""

    def key_refused(self) -> None:
        """The key was refused (errorId 1): read the default key again."""

    def scrub(self, text: str) -> str:
        """Replace keys in a text."""
