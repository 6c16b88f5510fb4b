"""The port of reading a ledger for people: lists, one report's story, and figures over all of them.

Declares what a reader promises, and opens one. A reader changes nothing, makes nothing, and lets a
bridge that is at work commit between its steps. Imported by the stores' readers and by the command line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from bridge.core.model import Listing, PauseState, Row
from bridge.core.redact import Secret
from bridge.ledger.port import EventRow
from bridge.ledger.trouble import LedgerTrouble

MAX_AGE_S: Final = 600
"""Ages above this are counted as this: ten minutes late is as late as ten hours."""
MAX_LATENCY_MS: Final = 600_000
"""Latencies above this are counted as this; no attempt may take longer by the settings' bounds."""
IN_FLIGHT: Final = "in_flight"
"""Stands in place of an outcome for reports that have none yet."""

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Span(NamedTuple):
    """Which reports to count; None is no bound. Instants are UNIX seconds."""

    since_wall: float | None = None
    """Recorded at or after this."""
    until_wall: float | None = None
    """Recorded before this."""
    endpoint: str | None = None
    account: str | None = None
    """The first hex digits of the account."""
    method: str | None = None


class Cell(NamedTuple):
    """What is the same about some reports."""

    hour: int
    """UNIX time of the recording in whole hours."""
    method: str
    outcome: str
    """One of the outcomes, or `IN_FLIGHT`."""
    code: int
    """Wire code; 0 for accepted and in flight."""


class Age(NamedTuple):
    """How old the task was, and whose, when a report came in."""

    account: str
    """8 hex digits, as the wire shows it."""
    method: str
    outcome: str
    fate: str
    """``error_16`` for the upstream's error 16, ``window_closed`` for what came too late, else empty."""
    seconds: int | None
    """Whole seconds from 0 to `MAX_AGE_S`; None if the caller did not tell ``completedAt``."""


class Latency(NamedTuple):
    """How long the last attempt of some reports took."""

    method: str
    milliseconds: int


class Cause(NamedTuple):
    """Why some reports met a code that has several causes."""

    code: int
    cause: str
    """``dns``, ``connect`` and so on, or ``HTTP 403``."""


class Pause(NamedTuple):
    """Openings of one kind of pause in one hour."""

    hour: int
    rule: str
    cause: str
    """Kind of the event that opened it."""


class Figures(NamedTuple):
    """Counts over all reports of a span. The first two counters have each report once."""

    cells: Counter[Cell]
    ages: Counter[Age]
    latencies: Counter[Latency]
    """Only reports with an attempt."""
    causes: Counter[Cause]
    pauses: Counter[Pause]


class Found(NamedTuple):
    """The reports of one task id."""

    rows: tuple[Row, ...]
    """Newest first, whatever their account."""
    is_whole: bool
    """False if there may be older reports of the id that could not be looked for in time."""


class Reader(Protocol):
    """A ledger opened for reading.

    Thread safety: none. Every method but `close` raises `LedgerTrouble`.
    """

    def count(self, listing: Listing, most: int | None = None) -> int:
        """How many reports a listing has, whatever its limit.

        Args:
            most: count no further than this; None counts all.
        """

    def pages(self, listing: Listing) -> Iterator[tuple[Row, ...]]:
        """The reports of a listing, newest first, in pages of at most ``limit``; all of them."""

    def find(self, task_id: int, endpoint: str | None) -> Found:
        """The reports of a task id."""

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""

    def pauses(self) -> tuple[tuple[str, PauseState], ...]:
        """The pauses that are not closed, each with its endpoint; their instants are UNIX seconds."""

    def figures(self, span: Span, methods: tuple[str, ...], progress: Progress | None = None) -> Figures:
        """Count.

        Args:
            methods: the names that a method may have; others are counted as ``other``.
        """

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger: kind, path, sizes, versions, number of reports."""

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten.

        Args:
            full: also read every report.
        """

    def try_write(self) -> LedgerTrouble | None:
        """Begin a write and take it back; None if a bridge could write now."""

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""


class NoLedger(Exception):
    """There is nothing to read. The text is a sentence for people."""


def open_reader(ledger: str, boot_s: float, wall: float, password: Secret | None = None) -> Reader:
    """Open the ledger of the settings for reading.

    Args:
        ledger: ``memory``, a ``postgresql://`` URL or a path.
        boot_s: seconds since boot now, suspend included.
        wall: UNIX seconds now.
        password: for a server, one that the usual sources do not have.

    Raises:
        NoLedger: there is none, or none that can be read from outside.
        LedgerTrouble: it is there and cannot be read.
    """
    if ledger == "memory":
        raise NoLedger(
            "The ledger is kept in memory, so only the running bridge can read it: "
            "call bridge.listReports there, or name a file with --ledger."
        )
    if "://" in ledger:
        from bridge.ledger.postgres_figures import PostgresReader

        return PostgresReader.open(ledger, password, wall)
    from bridge.ledger.sqlite_figures import SqliteReader

    return SqliteReader.open(ledger, boot_s, wall)


def move(state: PauseState, by_s: float) -> PauseState:
    """The pause with its instants moved, from one clock to another."""

    def later(at: float | None) -> float | None:
        return None if at is None else at + by_s

    return state._replace(opened_at=later(state.opened_at), ends_at=later(state.ends_at))
