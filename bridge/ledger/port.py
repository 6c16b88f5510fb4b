"""The ports of the ledger: what a store promises, and what it asks of the policy.

Declares only. A new store is one class with these methods; ``tests/contract/test_ledger_store.py``
says when it is done. Imported by everything in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from bridge.core import counting, model
from bridge.core.counting import Counts
from bridge.core.model import Gate, PauseEvent, PauseKey, PauseState, Row, Task, Window
from bridge.ledger.trouble import LedgerTrouble

WINDOW_S: Final = 60.0
"""No window ends later than this after the first request about its task; see `bridge.reports.window`."""

Notice = tuple[str, Mapping[str, Any]]
"""Name and fields of an event that the owner of the store may log."""


States = Mapping[PauseKey, PauseState]
"""Pauses by their keys."""


class Policy(Protocol):
    """What a store asks while it begins, records and ends attempts. Pure; called in transactions.

    ``now`` is on the ledger's timeline. ``states`` holds what the store knows about the keys that
    `subjects` named; the policy supplies what is missing.
    """

    def subjects(self, task: Task, method: str) -> Mapping[str, Collection[PauseKey]]:
        """The pauses that concern an attempt, by what they are about."""

    def gate(
        self, now: float, task: Task, method: str, owner: str, states: States
    ) -> tuple[Gate, tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        """May an attempt begin now? Also the states that changed and what to tell of them."""

    def learn(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        verdict: model.Verdict,
        states: States,
    ) -> tuple[tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        """What an attempt's end does to the pauses: the changed states and what to tell of them."""

    def release(self, now: float, state: PauseState) -> PauseState:
        """The pause after its probe went away without a verdict."""

    def resume(self, now: float, state: PauseState, scope: str | None) -> PauseState | None:
        """The pause made due for a probe, or None if it is not meant."""

    def ends_at(self, window: Window, retrying: bool) -> float:
        """When the window is over."""

    def is_late(self, now: float, window: Window, retrying: bool) -> bool:
        """True if no attempt may start any more, also before the window's end is reached."""

    def settle_dead(self, row: Row) -> model.Ending:
        """The ending of a report that nobody resumed inside its window."""

    def tally(self, row: Row, at: float, /) -> tuple[str, float, Counts] | None:
        """What a report that has ended now adds to the counts: of which subject, and for which time."""


class EventRow(NamedTuple):
    """One thing that happened to a report. ``data`` is JSON-ready."""

    at_wall: float
    name: str
    """A name of `bridge.core.model.TRANSITIONS` or of a `PauseEvent`."""
    data: Mapping[str, Any]


class Restore(NamedTuple):
    """Bring a report to what is true, as another store knows it. Result: `Restored`.

    Takes effect on a report that is unknown, ours, left by the dead, or known as not sent; and on one that
    another bridge waits to send, if the upstream has decided on it, or may have.
    """

    row: Row
    """What is true."""
    finished_at: float | None = None
    """When it was finished, on the timeline; None if only the wall clock tells."""
    since: tuple[int, int] = (0, 0)
    """Attempts and sends that were counted already when the other store took it over from this one."""
    events: tuple[EventRow, ...] = ()
    """What happened since."""


class Restored(NamedTuple):
    """What became of a `Restore`."""

    agrees: bool
    """True if the store now says what is true; False if another bridge has or ended the report."""
    row: Row


class Teach(NamedTuple):
    """Tell what another store has learnt about pauses meanwhile. Result: None."""

    endpoint: str
    pauses: tuple[tuple[PauseState | None, PauseState], ...]
    """What it took over from this one, and what it knows now. If both have moved, the stricter is kept."""


class Forget(NamedTuple):
    """Drop a report with its events, because another store has it. Result: None."""

    task: Task


class Ask(NamedTuple):
    """Read what is known about a task and an attempt with a method. Result: `Known`."""

    task: Task
    method: str | None
    """None: that of its report."""


class Known(NamedTuple):
    """What a store knows about a task."""

    row: Row | None
    finished_at: float | None
    """When it was finished, on the timeline."""
    is_free: bool
    """True if its owner is dead and never began it."""
    pauses: tuple[PauseState, ...]
    """All that concern an attempt, closed ones too; probes of the dead are released."""


class Story(NamedTuple):
    """Read what happened to one report, in order. Result: a tuple of `EventRow`."""

    seq: int


Operation = counting.Operation | Restore | Teach | Forget | Ask | Story
"""Everything that a store can be asked to do."""
Seen = Mapping[tuple[str, str], States]
"""Endpoint and subject -> the pauses about it."""


class Unavailable(NamedTuple):
    """The answer to what cannot be done without a working ledger. Nothing has happened."""

    kind: str
    """A kind of `bridge.ledger.trouble`, or ``closed``."""
    sentence: str


class Failed(NamedTuple):
    """The answer to an operation that met a program error; others of its batch are not affected."""

    reference: str
    """Random name under which the log has the error."""


class Store(Protocol):
    """Where reports are remembered.

    Thread safety: none. One thread at a time may call any method, reads included.

    Every method but `close` raises `LedgerTrouble`; after it nothing of the call has happened, except
    that a commit whose answer was lost may have: the guards then say ``lost`` and show the row.
    """

    kind: str
    """``sqlite``, ``memory`` or ``postgres``."""
    secret: bytes
    """32 random bytes of this ledger, made once: the key of the account hash."""
    clock_offset_s: float
    """Boot clock plus this is the ledger's timeline."""
    instance: str
    """Random name of this bridge instance, the owner of its rows; never used twice."""
    notices: list[Notice]
    """What opening found worth a log line."""
    busy_s: float
    """Seconds to wait for a lock of another process."""

    @property
    def durable(self) -> bool:
        """True if a commit survives the end of this process."""

    @property
    def trouble(self) -> LedgerTrouble | None:
        """Why the ledger could not be written when it was opened; None once it could."""

    @property
    def seen(self) -> Seen:
        """The pauses as this store last read or wrote them."""

    def is_alive(self, instance: str, /) -> bool:
        """True if an instance still runs, or nobody can know."""

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Run all operations in order in one transaction, or none of them.

        If all of them only read, it needs no right to write.

        Returns:
            One result for each operation, as `bridge.core.model` documents it.
        """

    def tend(self) -> float | None:
        """Do what is due without being asked; seconds until more is, None if never. Raises nothing."""

    def close(self) -> None:
        """Let go of everything. Rows that are not done are left to other instances. Idempotent."""


class MemoryStore(Store, Protocol):
    """A store that only this process can see."""

    is_alive: Callable[[str], bool]
    """Whoever opened it says who is alive."""
