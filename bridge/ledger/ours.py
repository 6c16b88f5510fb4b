"""What this process remembers of its own reports, and how the ledger is at the moment.

Kept so that trouble in the middle of a report, or after it, does not make the bridge forget what it
did. Does no I/O. Imported by the journal's parts only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bridge.core.model import DONE, GUARD_S, NOT_SENT, Begun, Claimed, Recorded, Row, Task
from bridge.ledger.dialect import View
from bridge.ledger.store import Store
from bridge.ledger.trouble import LedgerTrouble

MAX_RECENT: Final = 4_096
"""Finished reports remembered in case the ledger becomes unreadable; about 4 MB."""
_NOT_OURS: Final = frozenset({"elsewhere", "conflict", "lost"})


class Unavailable(NamedTuple):
    """The answer to what cannot be done without a working ledger. Nothing has happened."""

    kind: str
    """A kind of `bridge.ledger.trouble`, or ``closed``."""
    sentence: str


class Failed(NamedTuple):
    """The answer to an operation that met a program error; others of its batch are not affected."""

    reference: str
    """Random name under which the log has the error."""


class Condition:
    """How the ledger is. Written by one thread; each attribute may be read by any."""

    __slots__ = ("is_readable", "primary", "trouble", "view")

    def __init__(self) -> None:
        self.primary: Store | None = None
        self.view: View | None = None
        self.trouble: LedgerTrouble | None = None
        self.is_readable = False
        """With trouble: True if the ledger still answers questions."""

    @property
    def is_guarded(self) -> bool:
        """True if duplicates and pauses of other processes can be seen."""
        return self.trouble is None or self.is_readable

    def unavailable(self) -> Unavailable:
        """The refusal that names the trouble."""
        assert self.trouble is not None
        return Unavailable(self.trouble.kind, self.trouble.sentence)


class Ours:
    """Rows of reports that are ours, and of the last that are done, as the ledger has them."""

    __slots__ = ("_recent", "live")

    def __init__(self) -> None:
        self.live: dict[Task, Row] = {}
        self._recent: dict[Task, Row] = {}

    def follow(self, task: Task, answer: Claimed | Begun | Recorded) -> None:
        """Note what the ledger said about a report."""
        row = answer.row
        if row is not None and row.state == DONE:
            self.finish(row)
            return
        status = answer.gate.status if isinstance(answer, Begun) else answer.status
        if row is not None and status not in _NOT_OURS:
            self.live[task] = row
        elif status == "lost":
            self.live.pop(task, None)

    def finish(self, row: Row) -> None:
        """Note that a report is done and written."""
        task, recent = row.task, self._recent
        self.live.pop(task, None)
        recent.pop(task, None)
        recent[task] = row
        if len(recent) > MAX_RECENT:
            del recent[next(iter(recent))]

    def recall(self, task: Task) -> Row | None:
        """What was last known of a report."""
        return self.live.get(task) or self._recent.get(task)

    def recall_guard(self, task: Task, wall: float) -> Row | None:
        """The finished report that forbids to send this task again."""
        row = self._recent.get(task)
        return None if row is None or row.outcome == NOT_SENT or is_stale(row, wall) else row


def is_stale(row: Row, wall: float) -> bool:
    """True if a finished report is too old to answer for its task: ids come back."""
    return row.finished_wall is not None and wall - row.finished_wall > GUARD_S
