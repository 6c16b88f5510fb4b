"""What this process remembers of its own reports, and how the ledger is at the moment.

Kept so that trouble in the middle of a report, or after it, does not make the bridge forget what it
did. Does no I/O. Imported by the journal's parts only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from bridge.core.model import (
    CLOSED,
    DONE,
    GUARD_S,
    NOT_SENT,
    OPEN,
    Begun,
    Claimed,
    Gate,
    Heed,
    Operation,
    PauseEvent,
    PauseKey,
    PauseState,
    Recorded,
    Resume,
    Row,
    Task,
    Window,
)
from bridge.ledger.dialect import View
from bridge.ledger.rows import merge_windows
from bridge.ledger.store import Store
from bridge.ledger.trouble import LedgerTrouble

MAX_RECENT: Final = 4_096
"""Finished reports remembered in case the ledger becomes unreadable; about 4 MB."""
MAX_HEARD: Final = 4_096
"""Pauses remembered in case the ledger becomes unreadable. A guess; nobody has so many."""
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

    def narrow(self, task: Task, window: Window) -> None:
        """Note that a task's window ends earlier."""
        for rows in (self.live, self._recent):
            row = rows.get(task)
            if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
                rows[task] = row._replace(window=merge_windows(row.window, window))

    def recall(self, task: Task) -> Row | None:
        """What was last known of a report."""
        return self.live.get(task) or self._recent.get(task)

    def recall_guard(self, task: Task, wall: float) -> Row | None:
        """The finished report that forbids to send this task again."""
        row = self._recent.get(task)
        return None if row is None or row.outcome == NOT_SENT or is_stale(row, wall) else row


class Heard:
    """The pauses as the ledger last told them, for the time when it cannot be asked."""

    __slots__ = ("_changed", "_known")

    def __init__(self) -> None:
        self._known: dict[tuple[str, PauseKey], tuple[PauseState, Task, str]] = {}
        self._changed: dict[tuple[str, PauseKey], PauseState] = {}

    def follow(self, op: Operation, answer: Any) -> None:
        """Note what the ledger's answer to an operation says of pauses."""
        kind = type(answer)
        if kind is Claimed or kind is Begun or kind is Recorded:
            gate = None if kind is Recorded else answer.gate
            is_heard = answer.events or (gate is not None and (gate.pause is not None or self._known))
            if is_heard and answer.row is not None:
                self._follow(answer.row.task, answer.row.method, gate, answer.events)
        elif isinstance(op, Resume) and kind is tuple:
            for state in answer:
                known = self._known.get((op.endpoint, state.key))
                if known is not None:
                    self._note(state, known[1], known[2])

    def follow_gate(self, task: Task, method: str, gate: Gate) -> None:
        """Note the pause that holds an attempt back."""
        self._follow(task, method, gate, ())

    def _follow(self, task: Task, method: str, gate: Gate | None, events: Iterable[PauseEvent]) -> None:
        if gate is not None and gate.status == "begun":
            # What another bridge ended is not told, but it would have held this attempt back.
            for state, origin, of_method in list(self._known.values()):
                if state.state == OPEN and _concerns(state.key, origin, of_method, task, method):
                    self._note(PauseState(state.key), origin, of_method)
        if gate is not None and gate.pause is not None:
            self._note(gate.pause, task, method)
        for event in events:
            self._note(event.state, task, method)

    def _note(self, state: PauseState, task: Task, method: str) -> None:
        key = (task.endpoint, state.key)
        self._known.pop(key, None)
        if state.state != CLOSED:
            self._known[key] = (state, task, method)
        self._changed.pop(key, None)
        self._changed[key] = state
        if len(self._known) > MAX_HEARD:
            del self._known[next(iter(self._known))]
        if len(self._changed) > MAX_HEARD:
            del self._changed[next(iter(self._changed))]

    def outdate(self, endpoint: str, events: Iterable[PauseEvent]) -> None:
        """Another store has learned more of some pauses than was heard before."""
        for event in events:
            self._changed.pop((endpoint, event.state.key), None)

    def take_changed(self) -> list[Heed]:
        """What was heard since it was taken last, as operations for another store."""
        by_endpoint: dict[str, list[PauseState]] = {}
        for (endpoint, _), state in self._changed.items():
            by_endpoint.setdefault(endpoint, []).append(state)
        self._changed.clear()
        return [Heed(endpoint, tuple(states)) for endpoint, states in by_endpoint.items()]


def _concerns(key: PauseKey, origin: Task, of_method: str, task: Task, method: str) -> bool:
    """True if a pause heard of with one attempt is about another one too.

    A part of its subject that is neither the account nor the method is the machine, which all share.
    """
    parts = key.subject.split("/")
    return (
        origin.endpoint == task.endpoint
        and (origin.account == task.account or origin.account not in parts)
        and (of_method == method or of_method not in parts)
    )


def is_stale(row: Row, wall: float) -> bool:
    """True if a finished report is too old to answer for its task: ids come back."""
    return row.finished_wall is not None and wall - row.finished_wall > GUARD_S
