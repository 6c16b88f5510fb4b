"""A report on its way, and those who wait for its answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, NamedTuple

from bridge.core.model import Facts, Row, Task, Verdict, Window
from bridge.core.redact import Secret
from bridge.reports.agenda import Entry

CLAIMING: Final = "claiming"
"""The intent is being committed."""
READY: Final = "ready"
"""Wants a slot."""
BEGINNING: Final = "beginning"
"""Holds a slot while the beginning of an attempt is being committed."""
FLYING: Final = "flying"
"""An attempt is under way."""
DEFERRED: Final = "deferred"
"""Waits for its next attempt: back-off, Retry-After, a pause that ends in time."""
GATED: Final = "gated"
"""Waits for another report, which probes a pause or proves the key."""
WATCHING: Final = "watching"
"""Another bridge has it."""
CLOSING: Final = "closing"
"""The end of an attempt, or of the report, is being committed."""


class Report(NamedTuple):
    """One request to report a task, validated."""

    method: str
    task_id: int
    key: Secret | None
    completed_at: float | None = None
    task_type: str | None = None
    language_pool: str | None = None


class Answer(NamedTuple):
    """What a requester is told: a result, or an error of ``schemas/errors.json``."""

    result: Mapping[str, Any] | None
    code: int = 0
    message: str = ""
    data: Mapping[str, Any] = {}


Reply = Callable[[Answer], None]


class Attempt(NamedTuple):
    """One HTTP attempt to make, with the seconds it is given."""

    method: str
    key: Secret
    task_id: int
    deadline_s: float
    connect_by_s: float


class Requester:
    """One request that waits for the answer of a flight."""

    __slots__ = ("cancelled", "joined", "name", "received_at", "reply", "warnings")

    def __init__(
        self,
        reply: Reply,
        name: Hashable | None,
        received_at: float,
        warnings: tuple[Mapping[str, str], ...],
    ) -> None:
        self.reply = reply
        self.name = name
        """Comparable form of the request's id; None for a notification."""
        self.received_at = received_at
        self.warnings = warnings
        self.joined = False
        """True if another request caused what is sent."""
        self.cancelled = False


class Flight:
    """One task being reported by this bridge, from its claim to its answer."""

    __slots__ = (
        "attempts",
        "began_at",
        "cancelled",
        "due",
        "durable",
        "end",
        "facts",
        "guarded",
        "is_theirs",
        "key",
        "last",
        "last_status",
        "method",
        "paused",
        "perhaps",
        "phase",
        "requesters",
        "sends",
        "slot",
        "task",
        "window",
    )

    def __init__(self, task: Task, method: str, key: Secret, window: Window, facts: Facts) -> None:
        self.task = task
        self.method = method
        self.key = key
        self.window = window
        self.facts = facts
        self.requesters: list[Requester] = []
        self.phase = CLAIMING
        self.attempts = 0
        self.sends = 0
        self.perhaps = False
        self.last: Verdict | None = None
        self.last_status: int | None = None
        """HTTP status of the last attempt that had one."""
        self.began_at = 0.0
        self.slot = False
        self.cancelled = False
        """True if it is to end before it begins, as soon as the ledger has answered."""
        self.paused = False
        """True while deferred by a pause."""
        self.durable = True
        self.guarded = True
        self.is_theirs = False
        """True while another bridge has, or had, the report: what it did with it is not known here."""
        self.due: Entry | None = None
        """The agenda entry of its next step, while deferred or watching."""
        self.end: Entry | None = None
        """The agenda entry of its window's end."""

    @property
    def has_begun(self) -> bool:
        """True once an attempt has begun, in this life or an earlier one."""
        return self.attempts > 0

    def adopt(self, row: Row) -> None:
        """Take over what the ledger knows."""
        self.attempts = row.attempts
        self.sends = row.sends
        self.perhaps = row.perhaps
        self.window = row.window
        self.facts = row.facts

    def cancel_timers(self) -> None:
        """Forget what the agenda holds for it."""
        for entry in (self.due, self.end):
            if entry is not None:
                entry.cancel()
        self.due = self.end = None
