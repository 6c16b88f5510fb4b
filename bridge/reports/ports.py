"""What reports need of the world: a ledger that commits, an upstream, and somebody to tell.

Declares, and decides nothing. Imported by `bridge.reports` and `bridge.server`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bridge.core.counting import Operation
from bridge.core.model import Exchange, Moment
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine
from bridge.reports.pauses import PausePolicy


class Keys(Protocol):
    """Where the default key comes from."""

    def get(self) -> Secret | None:
        """The default key, or None; waits while it is being read."""

    def at_hand(self) -> Secret | None:
        """The default key, if it can be told without waiting."""

    def reload(self) -> None:
        """Read the default key again, not on the caller's time: the upstream does not know it (errorId 1)."""


class LedgerPort(Protocol):
    """A ledger that commits; see `bridge.ledger.writer.Ledger`."""

    committed_at: float
    """When the commit whose results are being handed back was done, on the boot clock."""

    @property
    def is_open(self) -> bool:
        """True once the ledger has been opened, or has failed to: accounts and time are known."""

    def wait_until_open(self) -> None:
        """Wait for that."""

    @property
    def instance(self) -> str:
        """Name of this bridge as the owner of rows."""

    def call(self, op: Operation) -> Any:
        """Wait for the commit of an operation; its result, or something else if the ledger cannot do it."""

    def post(self, op: Operation, done: Callable[[Any], object] = ...) -> None:
        """The same without waiting."""

    def account(self, key_text: str) -> str:
        """The account of a client key."""

    def now(self) -> float:
        """Seconds on the ledger's timeline."""

    def status(self) -> Mapping[str, Any]:
        """How the ledger is."""


class Ports(Protocol):
    """The world of the reports, handed to everybody who has to do with it."""

    engine: Engine
    policy: PausePolicy
    endpoint: str
    """Name of the upstream in the ledger: its canonical base URL."""

    concurrency: int
    """Most attempts at one time."""
    timeout_s: float
    """Total seconds an attempt may take."""
    queues: tuple[str, ...]
    """Names of the reCAPTCHA queues in an account's own figures, if they are told."""
    scrubber: Scrubber
    """Learns every key that is seen, and replaces keys in texts."""

    @property
    def ledger(self) -> LedgerPort:
        """Where reports are remembered."""

    @property
    def keys(self) -> Keys:
        """Where the key of calls that name none is from."""

    def prepare(self) -> object:
        """Wait until an attempt can be made: the first one of all takes a while. Raises `NoResources`."""

    def send(
        self, method: str, key: Secret, task_id: int, *, until: float, leave_by: Moment, fresh: bool
    ) -> Exchange:
        """Make one HTTP attempt. Moments are on the boot clock; `fresh` asks for a new connection."""

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Tell of a notable thing; see `bridge.core.events`."""

    def note_bug(self, bug: BaseException) -> str:
        """Log a fault of this program; the reference that the caller is told."""


class Part:
    """A part of the reports, with what it needs of the world at hand."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._engine = ports.engine
        self._ledger = ports.ledger
        self._emit = ports.emit
