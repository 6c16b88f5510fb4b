"""What an operation does to reports and pauses: operations and rows in, results and changes out.

Every store decides here, inside a transaction that it has opened: it reads at once what a batch needs, runs the
operations, and writes the changes at once. Every change follows `bridge.core.model.TRANSITIONS`. No SQL, no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import (
    CLOSED,
    DONE,
    GUARD_S,
    MAX_ATTEMPTS,
    MAX_SENDS,
    NOT_SENT,
    PROBING,
    QUEUED,
    SENDING,
    WAITING,
    Begin,
    Begun,
    Claim,
    Claimed,
    Ending,
    Facts,
    Gate,
    Heed,
    Listing,
    Look,
    Narrow,
    PauseEvent,
    PauseKey,
    Pauses,
    PauseState,
    Prune,
    Record,
    Recorded,
    Resume,
    Row,
    Settle,
    Sweep,
    Swept,
    Task,
    Verdict,
    Window,
    Withdraw,
)
from bridge.ledger.owners import BOOT_DIGITS
from bridge.ledger.port import WINDOW_S, EventRow, Known, Policy, Restore, Restored, Teach
from bridge.ledger.rows import encode_told

Events = tuple[PauseEvent, ...]
_SLACK_S: Final = 2.0
"""How far the clocks of two bridges on one timeline may be apart."""
_MOST_REMEMBERED: Final = 10_000
"""Own reports and subjects of pauses remembered between transactions; a guess that bounds memory."""
_FOREVER: Final = float("inf")


class Entry:
    """One report in a batch."""

    __slots__ = ("account_id", "finished_at", "is_current", "number", "read", "row", "was")

    def __init__(
        self, row: Row, account_id: int, finished_at: float | None, number: int, read: Row | None
    ) -> None:
        self.row = row
        self.account_id = account_id
        self.finished_at = finished_at
        self.number = number
        """Number of its last event."""
        self.was = number
        """That number as the store has it."""
        self.read = read
        """The report as the store has it, which a write demands; None if it is new."""
        self.is_current = True


class Transactions(ABC):
    """The operations of the ledger. A store supplies the look-ups, and writes what is left in the attributes.

    Args:
        policy: decides about pauses and windows.
        instance: the name of this instance.
    """

    is_alive: Callable[[str], bool]
    """True if an instance still runs, or nobody can know."""

    def __init__(self, policy: Policy, instance: str) -> None:
        self._policy = policy
        self.instance = instance
        self.durable = False
        self.now = 0.0
        """The time of this transaction on the timeline."""
        self.wall = 0.0
        self.seen: dict[tuple[str, str], dict[PauseKey, PauseState]] = {}
        self._own: dict[Task, Entry] = {}
        self._subjects: dict[tuple[PauseKey, ...], tuple[str, ...]] = {}
        self.clear()

    def clear(self) -> None:
        """Begin with nothing read and nothing kept."""
        self.entries: dict[Task, Entry | None] = {}
        self.pauses: dict[tuple[str, str], dict[PauseKey, PauseState]] = {}
        self._touched: list[Entry] = []
        self.clear_changes()

    def clear_changes(self) -> None:
        """Begin with nothing kept."""
        self.added: list[Entry] = []
        self.changed: dict[int, Entry] = {}
        self.told: list[tuple[int, int, float, str, str]] = []
        """Report, number, UNIX time, name, and data as JSON."""
        self.saved: dict[tuple[str, PauseKey], PauseState] = {}

    def forget_own(self) -> None:
        """Drop what was remembered, because a transaction was rolled back."""
        self._own.clear()
        self.clear()

    # --- what a store supplies ---------------------------------------------------------------

    @abstractmethod
    def fetch(self, tasks: Sequence[Task]) -> None:
        """Read the newest reports of tasks: put each, or None, into `entries`."""

    @abstractmethod
    def fetch_pauses(self, endpoint: str, subjects: Sequence[str]) -> None:
        """Read all pauses about some subjects: put them into `pauses`, for each subject."""

    @abstractmethod
    def account_id(self, task: Task) -> int:
        """The number of an account, which is made if it is new."""

    @abstractmethod
    def next_seq(self) -> int:
        """The number of a new report."""

    @abstractmethod
    def left(self) -> Sequence[Entry]:
        """The reports of dead instances, taken so that nobody else takes them; they are in `entries` too."""

    @abstractmethod
    def end_sweep(self) -> None:
        """Tidy up after `left`."""

    @abstractmethod
    def open_pauses(self, endpoint: str) -> Sequence[PauseState]:
        """The pauses of an endpoint that are not closed."""

    @abstractmethod
    def list_page(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""

    @abstractmethod
    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""

    @abstractmethod
    def prune(self, op: Prune) -> int:
        """Delete old reports with their events, never one that still guards its task."""

    @abstractmethod
    def write(self) -> None:
        """Write what was kept, at the end or before something that reads what is not kept."""

    # --- a batch -----------------------------------------------------------------------------

    def prepare(self, operations: Sequence[Any]) -> None:
        """Read at once what most operations of a batch will need."""
        tasks: list[Task] = []
        subjects: dict[str, dict[str, None]] = {}
        for op in operations:
            kind = type(op)
            if kind is Claim:
                method = op.method if op.begin else None
                tasks.append(op.task)
            elif kind is Record:
                own = self._own.get(op.task)
                if own is None:
                    continue
                self.entries[op.task] = own
                method = own.row.method
            else:
                continue
            if method is not None:
                names = self._subjects_of(self._policy.keys(op.task, method))
                subjects.setdefault(op.task.endpoint, {}).update(dict.fromkeys(names))
        if tasks:
            self.fetch(tasks)
        for endpoint, names_of in subjects.items():
            if names_of:
                self.fetch_pauses(endpoint, tuple(names_of))

    def run(self, operations: Sequence[Any]) -> list[Any]:
        """Run operations in order; what they change is kept until it is written."""
        table = TABLE
        return [table[type(op)](self, op) for op in operations]

    def flush(self) -> None:
        """Write what was kept; from then on the store has it."""
        self.write()
        self.settle_changes()

    def settle_changes(self) -> None:
        """What was kept is written."""
        for entry in (*self.added, *self.changed.values()):
            entry.read = entry.row
            entry.was = entry.number
            self._touched.append(entry)
        self.clear_changes()

    def commit(self) -> None:
        """Remember what was committed: our own reports, which nobody else changes, and the pauses."""
        own = self._own
        if len(own) > _MOST_REMEMBERED:
            own.clear()
        for entry in self._touched:
            row = entry.row
            if row.owner == self.instance:
                own[row.task] = entry
            elif own.get(row.task) is entry:
                del own[row.task]
        self.seen.update(self.pauses)
        while len(self.seen) > _MOST_REMEMBERED:
            del self.seen[next(iter(self.seen))]

    # --- parts -------------------------------------------------------------------------------

    def _find(self, task: Task) -> Entry | None:
        if task not in self.entries:
            self.fetch((task,))
        return self.entries[task]

    def _ours(self, task: Task) -> Entry | None:
        """Our own report that is not done."""
        entry = self._find(task)
        return entry if entry is not None and entry.row.owner == self.instance else None

    def _row(self, task: Task) -> Row | None:
        entry = self._find(task)
        return None if entry is None else entry.row

    def _add(self, row: Row, finished_at: float | None) -> Entry:
        entry = Entry(row, self.account_id(row.task), finished_at, 0, None)
        self.entries[row.task] = entry
        self.added.append(entry)
        return entry

    def _change(self, entry: Entry, row: Row) -> None:
        if row.state != DONE:
            entry.finished_at = None
        elif row.finished_wall == self.wall:
            entry.finished_at = self.now
        entry.row = row
        self._mark(entry)

    def _mark(self, entry: Entry) -> None:
        if entry.read is not None:
            self.changed[entry.row.seq] = entry

    def _retire(self, entry: Entry) -> None:
        """A task id has come back: its old report is history only."""
        entry.is_current = False
        self._mark(entry)
        self.entries[entry.row.task] = None

    def _tell(self, entry: Entry, name: str, data: Mapping[str, Any]) -> None:
        """Go on with the story of a report."""
        entry.number += 1
        self.told.append((entry.row.seq, entry.number, self.wall, name, encode_told(name, data)))
        self._mark(entry)

    def _tell_pauses(self, entry: Entry, events: Events) -> None:
        for name, state in events:
            data = {"rule": state.key.rule, "cause": state.cause, "endsAt": state.ends_at}
            self._tell(entry, name, data)

    # --- time --------------------------------------------------------------------------------

    def _guards(self, entry: Entry) -> bool:
        """True if a finished report still answers for its task.

        Of two clocks the one by which less time has passed counts, unless it was set back. If both were, a report
        that seems to end in the future counts from now on.
        """
        assert entry.finished_at is not None
        ages = (self.now - entry.finished_at, self.wall - (entry.row.finished_wall or 0.0))
        age = min((age for age in ages if age >= 0.0), default=None)
        if age is None:
            entry.finished_at = self.now
            self._mark(entry)
            return True
        return age <= GUARD_S

    def _window_of(self, row: Row) -> Window:
        """The window of a report that another instance or another life left; over if its times cannot be trusted.

        In one boot all bridges have one timeline. What another boot left is over by either clock, and what seems to
        lie in the future was written when the clock was wrong.
        """
        until, since = row.window
        is_astray = (until is not None and until > self.now + WINDOW_S + _SLACK_S) or (
            since is not None and since > self.now + _SLACK_S
        )
        if not is_astray and row.owner is not None:
            is_other_boot = row.owner[:BOOT_DIGITS] != self.instance[:BOOT_DIGITS]
            is_astray = is_other_boot and not 0.0 <= self.wall - row.recorded_wall <= WINDOW_S
        return merge_windows(row.window, Window(self.now, None)) if is_astray else row.window

    def _is_late(self, row: Row) -> bool:
        return self._policy.is_late(self.now, row.window, row.attempts > 0)

    # --- claim -------------------------------------------------------------------------------

    def claim(self, op: Claim) -> Claimed:
        """Commit the intent to report a task, or say what became of it."""
        entry = self._find(op.task)
        if entry is not None and entry.row.state == DONE and not self._guards(entry):
            self._retire(entry)
            entry = None
        if entry is None:
            return self._claim_new(op)
        row = entry.row
        if row.state == DONE:
            if row.outcome == NOT_SENT:
                return self._claim_again(op, entry)
            return Claimed("known" if row.method == op.method else "conflict", row, durable=self.durable)
        if row.method != op.method or op.refusal is not None:
            return Claimed("conflict", row, durable=self.durable)
        if row.owner is None or self.is_alive(row.owner):
            self._narrow(entry, op.window, op.facts)
            return Claimed("elsewhere", entry.row, durable=self.durable)
        self._adopt(entry, op.window, op.facts)
        return self._continue("adopted", op, entry)

    def _claim_new(self, op: Claim) -> Claimed:
        task, method, window, facts, begin, ending = op
        gate: Gate | None = None
        events: Events = ()
        if self._policy.is_late(self.now, window, False):
            gate = Gate("late")
        elif ending is not None:
            entry = self._add_row(op, DONE, None, ending)
            self._tell(entry, "refused_locally", _tell_ending(ending))
            return Claimed("refused", entry.row, durable=self.durable)
        elif begin:
            gate, events = self._gate(task, method, window)
        begins = gate is not None and gate.status == "begun"
        # The row is born in the state that the gate allows: one statement instead of two.
        entry = self._add_row(op, SENDING if begins else QUEUED, self.instance, None)
        self._tell(entry, "claimed", {"owner": self.instance})
        if begins:
            self._tell(entry, "begun", {"attempt": 1})
        self._tell_pauses(entry, events)
        return Claimed("new", entry.row, gate, events, self.durable)

    def _add_row(self, op: Claim, state: str, owner: str | None, ending: Ending | None) -> Entry:
        outcome, code, kind, detail = (None, None, None, {}) if ending is None else ending
        finished_wall, finished_at = (None, None) if ending is None else (self.wall, self.now)
        row = Row(
            self.next_seq(),
            op.task,
            op.method,
            state,
            outcome,
            owner,
            1 if state == SENDING else 0,
            0,
            False,
            op.window,
            op.facts,
            code,
            kind,
            detail,
            self.wall,
            finished_wall,
            None,
        )
        return self._add(row, finished_at)

    def _claim_again(self, op: Claim, entry: Entry) -> Claimed:
        """A task that was certainly never taken may be tried again, or be refused again."""
        row = entry.row
        row = row._replace(
            method=op.method,
            window=merge_windows(self._window_of(row), op.window),
            facts=merge_facts(row.facts, op.facts),
        )
        if op.refusal is not None and not self._is_late(row):
            self._change(entry, self._end(row, op.refusal))
            self._tell(entry, "refused_locally", _tell_ending(op.refusal))
            return Claimed("refused", entry.row, durable=self.durable)
        row = row._replace(
            state=QUEUED,
            outcome=None,
            owner=self.instance,
            code=None,
            kind=None,
            detail={},
            finished_wall=None,
        )
        self._change(entry, row)
        self._tell(entry, "claimed", {"owner": self.instance})
        return self._continue("again", op, entry)

    def _continue(self, status: str, op: Claim, entry: Entry) -> Claimed:
        gate: Gate | None = None
        events: Events = ()
        if op.begin or self._is_late(entry.row):
            gate, events = self._begin(entry)
        return Claimed(status, entry.row, gate, events, self.durable)

    def _narrow(self, entry: Entry, window: Window, facts: Facts | None = None) -> None:
        """Tell a report the earlier window end that another request knows."""
        row = entry.row
        merged = merge_windows(row.window, window)
        if merged != row.window:
            self._change(
                entry,
                row._replace(window=merged, facts=merge_facts(row.facts, facts) if facts else row.facts),
            )

    def _adopt(self, entry: Entry, window: Window | None = None, facts: Facts | None = None) -> None:
        """Take over the report of a dead instance; an attempt it had begun counts as a send."""
        row = entry.row
        was_sending = row.state == SENDING
        old = self._window_of(row)
        self._release_probes(row)
        after = row._replace(
            owner=self.instance,
            state=WAITING if was_sending else row.state,
            sends=min(row.sends + was_sending, MAX_SENDS),
            perhaps=row.perhaps or was_sending,
            window=merge_windows(old, window) if window else old,
            facts=merge_facts(row.facts, facts) if facts else row.facts,
        )
        self._change(entry, after)
        self._tell(entry, "adopted", {"owner": self.instance, "from": row.owner})

    # --- begin -------------------------------------------------------------------------------

    def begin(self, op: Begin) -> Begun:
        """Begin the next attempt of our own report."""
        entry = self._ours(op.task)
        if entry is None or entry.row.state == SENDING:
            return Begun(Gate("lost"), self._row(op.task), durable=self.durable)
        gate, events = self._begin(entry)
        return Begun(gate, entry.row, events, self.durable)

    def _begin(self, entry: Entry) -> tuple[Gate, Events]:
        row = entry.row
        if self._is_late(row):
            return Gate("late"), ()
        if row.attempts >= MAX_ATTEMPTS or row.sends >= MAX_SENDS:
            return Gate("spent"), ()
        gate, events = self._gate(row.task, row.method, row.window)
        if gate.status == "begun":
            row = row._replace(state=SENDING, attempts=row.attempts + 1)
            self._change(entry, row)
            self._tell(entry, "begun", {"attempt": row.attempts})
        self._tell_pauses(entry, events)
        return gate, events

    def _gate(self, task: Task, method: str, window: Window) -> tuple[Gate, Events]:
        states, released = self.states(task, method)
        gate, changed, events = self._policy.gate(self.now, task, method, self.instance, states, window)
        self._save(task.endpoint, (*released, *changed))
        return gate, events

    # --- the end of an attempt, or of a report -----------------------------------------------

    def record(self, op: Record) -> Recorded:
        """Commit what an attempt met, and the ending if it is final."""
        entry = self._ours(op.task)
        if entry is None:
            return Recorded("lost", self._row(op.task), durable=self.durable)
        row, verdict = entry.row, op.verdict
        states, released = self.states(row.task, row.method)
        changed, events = self._policy.learn(
            self.now, row.task, row.method, self.instance, op.began_at, verdict, states
        )
        probes = [s for s in states.values() if s.state == PROBING and is_probe(s, self.instance, row.task)]
        if changed or released or probes:
            after = {state.key: self._policy.release(self.now, state) for state in probes}
            after.update((state.key, state) for state in (*released, *changed))
            self._save(row.task.endpoint, after.values())
        attempts = row.attempts
        if row.state != SENDING:
            # Its beginning could not be committed.
            attempts = min(attempts + 1, MAX_ATTEMPTS)
            self._tell(entry, "begun", {"attempt": attempts})
        row = row._replace(
            state=WAITING,
            attempts=attempts,
            sends=min(row.sends + verdict.is_send, MAX_SENDS),
            perhaps=row.perhaps or verdict.perhaps,
            latency_ms=op.latency_ms,
        )
        if op.ending is None:
            self._change(entry, row)
            self._tell(entry, "deferred", _tell_attempt(verdict, op.latency_ms))
        else:
            self._finish(entry, row, op.ending, _tell_attempt(verdict, op.latency_ms))
        self._tell_pauses(entry, events)
        return Recorded("ok", entry.row, events, self.durable)

    def settle(self, op: Settle) -> Recorded:
        """End our own report without an attempt."""
        entry = self._ours(op.task)
        if entry is None:
            return Recorded("lost", self._row(op.task), durable=self.durable)
        if entry.row.attempts:
            self._release_probes(entry.row)
        self._finish(entry, entry.row, op.ending, {})
        return Recorded("ok", entry.row, durable=self.durable)

    def withdraw(self, op: Withdraw) -> Recorded:
        """Take back a beginning that no attempt followed."""
        entry = self._ours(op.task)
        if entry is None:
            return Recorded("lost", self._row(op.task), durable=self.durable)
        row = entry.row
        if row.state == SENDING:
            self._release_probes(row)
            attempts = row.attempts - 1
            row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
            self._change(entry, row)
            self._tell(entry, "withdrawn", {"attempt": row.attempts + 1})
        if op.ending is not None:
            self._finish(entry, row, op.ending, {})
        return Recorded("ok", entry.row, durable=self.durable)

    def _finish(self, entry: Entry, row: Row, ending: Ending, data: Mapping[str, Any]) -> None:
        after = self._end(row, ending)
        self._change(entry, after)
        self._tell(entry, "settled", {"outcome": after.outcome, "kind": after.kind, **data})

    def _end(self, row: Row, ending: Ending) -> Row:
        if ending.outcome == NOT_SENT and row.perhaps:
            # What may have been taken is never called not sent, whoever says so.
            ending = self._policy.settle_dead(row)
        return row._replace(
            state=DONE,
            owner=None,
            outcome=ending.outcome,
            code=ending.code,
            kind=ending.kind,
            detail=ending.detail,
            finished_wall=self.wall,
        )

    def narrow(self, op: Narrow) -> None:
        """Keep the earlier window end of a report that may still be sent, whoever has it."""
        entry = self._find(op.task)
        if entry is not None and (entry.row.state != DONE or entry.row.outcome == NOT_SENT):
            self._narrow(entry, op.window)

    # --- what others left, or know -----------------------------------------------------------

    def sweep(self, op: Sweep) -> Swept:
        """Take over or end what dead instances left."""
        adopted: list[Row] = []
        settled: list[Row] = []
        self.flush()
        for entry in self.left():
            row = entry.row
            if row.task.endpoint == op.endpoint and row.task.account in op.accounts:
                self._adopt(entry)
                adopted.append(entry.row)
            elif self.now >= self._policy.ends_at(self._window_of(row), row.attempts > 0):
                self._release_probes(row)
                if row.state == SENDING:
                    row = row._replace(sends=min(row.sends + 1, MAX_SENDS), perhaps=True)
                self._finish(entry, row, self._policy.settle_dead(row), {"from": row.owner})
                settled.append(entry.row)
        self.end_sweep()
        return Swept(tuple(adopted), tuple(settled))

    def restore(self, op: Restore) -> Restored:
        """Bring a report to what is true, as another store knows it."""
        truth = op.row
        entry = self._find(truth.task)
        if entry is not None and entry.row.state == DONE and not self._guards(entry):
            self._retire(entry)
            entry = None
        if entry is None:
            entry = self._add(truth._replace(seq=self.next_seq()), op.finished_at)
        else:
            row = entry.row
            is_ours = row.owner == self.instance
            if row.owner is not None and not is_ours:
                if self.is_alive(row.owner):
                    return Restored(False, row)
                self._adopt(entry)
                row = entry.row
            if row.state == DONE and row.outcome != NOT_SENT:
                return Restored((row.outcome, row.code) == (truth.outcome, truth.code), row)
            attempts, sends = row.attempts, row.sends
            if not is_ours:
                attempts += truth.attempts - op.since[0]
                sends += truth.sends - op.since[1]
            after = truth._replace(
                seq=row.seq,
                attempts=min(max(attempts, truth.attempts), MAX_ATTEMPTS),
                sends=min(max(sends, truth.sends), MAX_SENDS),
                perhaps=row.perhaps or truth.perhaps,
                window=merge_windows(row.window, truth.window),
                recorded_wall=row.recorded_wall,
            )
            if after.outcome == NOT_SENT and after.perhaps:
                ending = self._policy.settle_dead(after)
                after = after._replace(
                    outcome=ending.outcome, code=ending.code, kind=ending.kind, detail=ending.detail
                )
            if after == row:
                return Restored(True, row)
            self._change(entry, after)
            entry.finished_at = op.finished_at
        for at_wall, name, data in op.events:
            entry.number += 1
            self.told.append((entry.row.seq, entry.number, at_wall, name, encode_told(name, data)))
        return Restored(True, entry.row)

    def teach(self, op: Teach) -> None:
        """Take over what another store has learnt about pauses."""
        for taken_over, known in op.pauses:
            mine = self._pauses_of(op.endpoint, known.key.subject).get(known.key)
            if mine == taken_over or is_stricter(known, mine):
                self._save(op.endpoint, (known,))

    def resume(self, op: Resume) -> tuple[PauseState, ...]:
        """Turn pauses into "probe with the next report"."""
        changed: list[PauseState] = []
        self.flush()
        for state in self.open_pauses(op.endpoint):
            if op.account is None or self._concerns(state, Task(op.endpoint, op.account, 0)):
                after = self._policy.resume(self.now, state, op.scope)
                if after is not None:
                    changed.append(after)
        self._save(op.endpoint, changed)
        return tuple(changed)

    def heed(self, op: Heed) -> None:
        """Take over pauses as they are told."""
        self._save(op.endpoint, op.pauses)

    def _concerns(self, state: PauseState, task: Task) -> bool:
        # If a subject names a method, it is one of its parts.
        return any(state.key in self._policy.keys(task, part) for part in state.key.subject.split("/"))

    # --- questions ---------------------------------------------------------------------------

    def look(self, op: Look) -> Row | None:
        """The newest report of a task."""
        return self._row(op.task)

    def listing(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""
        self.flush()
        return self.list_page(op)

    def list_pauses(self, op: Pauses) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""
        self.flush()
        return tuple(self.open_pauses(op.endpoint))

    def ask(self, task: Task, method: str | None) -> Known:
        """What is known about a task and an attempt with a method."""
        entry = self._find(task)
        row = None if entry is None else entry.row
        method = method or (None if row is None else row.method)
        states = {} if method is None else self.states(task, method)[0]
        is_free = (
            row is not None and row.state == QUEUED and not row.perhaps and not self.is_alive(row.owner or "")
        )
        finished_at = None if entry is None else entry.finished_at
        return Known(row, finished_at, is_free, tuple(states.values()))

    # --- pauses ------------------------------------------------------------------------------

    def states(self, task: Task, method: str) -> tuple[Mapping[PauseKey, PauseState], list[PauseState]]:
        """The pauses that concern an attempt, those of dead probers already released.

        Returns:
            What is known, and those of it that were released and are not stored yet.
        """
        keys = self._policy.keys(task, method)
        states: dict[PauseKey, PauseState] = {}
        released: list[PauseState] = []
        for subject in self._subjects_of(keys):
            for key, state in self._pauses_of(task.endpoint, subject).items():
                if key not in keys:
                    continue
                if state.state == PROBING and not self.is_alive(state.probe_owner or ""):
                    state = self._policy.release(self.now, state)
                    released.append(state)
                states[key] = state
        return states, released

    def _pauses_of(self, endpoint: str, subject: str) -> dict[PauseKey, PauseState]:
        known = self.pauses.get((endpoint, subject))
        if known is None:
            self.fetch_pauses(endpoint, (subject,))
            known = self.pauses[endpoint, subject]
        return known

    def _subjects_of(self, keys: tuple[PauseKey, ...]) -> tuple[str, ...]:
        subjects = self._subjects.get(keys)
        if subjects is None:
            if len(self._subjects) >= _MOST_REMEMBERED:
                self._subjects.clear()
            subjects = self._subjects[keys] = tuple(dict.fromkeys(key.subject for key in keys))
        return subjects

    def _save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        for state in states:
            self._pauses_of(endpoint, state.key.subject)[state.key] = state
            self.saved[endpoint, state.key] = state

    def _release_probes(self, row: Row) -> None:
        """Let go of the pauses that a report was probing for its owner."""
        states, released = self.states(row.task, row.method)
        probes = [
            self._policy.release(self.now, s) for s in states.values() if is_probe(s, row.owner, row.task)
        ]
        self._save(row.task.endpoint, (*released, *probes))


def merge_windows(old: Window, new: Window) -> Window:
    """The earliest end and the earliest receipt that any request about a task told."""
    return Window(_earliest(old.until, new.until), _earliest(old.since, new.since))


def merge_facts(old: Facts, new: Facts) -> Facts:
    """What the newest request told, completed by what earlier ones told."""
    timed = old if new.completed_at is None else new
    return Facts(
        timed.completed_at,
        new.task_type or old.task_type,
        new.language_pool or old.language_pool,
        timed.age_s,
    )


def _earliest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def is_probe(state: PauseState, owner: str | None, task: Task) -> bool:
    """True if this report of this owner is the probe of the pause."""
    return (
        state.state == PROBING
        and state.probe_owner == owner
        and state.probe_task == f"{task.account}/{task.task_id}"
    )


def is_stricter(state: PauseState, other: PauseState | None) -> bool:
    """True if a pause holds more attempts back than another one about the same."""
    if state.state == CLOSED:
        return False
    return other is None or other.state == CLOSED or _end_of(state) > _end_of(other)


def _end_of(state: PauseState) -> float:
    return _FOREVER if state.ends_at is None else state.ends_at


def _tell_ending(ending: Ending) -> dict[str, Any]:
    return {"outcome": ending.outcome, "kind": ending.kind}


def _tell_attempt(verdict: Verdict, latency_ms: int) -> dict[str, Any]:
    met: dict[str, Any] = {"event": verdict.event, "latencyMs": latency_ms}
    if verdict.http_status is not None:
        met["httpStatus"] = verdict.http_status
    return met


TABLE: Final[dict[type, Callable[[Any, Any], Any]]] = {
    Claim: Transactions.claim,
    Begin: Transactions.begin,
    Record: Transactions.record,
    Settle: Transactions.settle,
    Withdraw: Transactions.withdraw,
    Narrow: Transactions.narrow,
    Sweep: Transactions.sweep,
    Resume: Transactions.resume,
    Heed: Transactions.heed,
    Teach: Transactions.teach,
    Restore: Transactions.restore,
    Prune: lambda transactions, op: transactions.prune(op),
    Look: Transactions.look,
    Listing: Transactions.listing,
    Pauses: Transactions.list_pauses,
}
"""Operation -> what it does."""
READS: Final = frozenset({Look, Listing, Pauses})
"""Operations that change nothing."""
