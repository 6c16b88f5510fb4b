"""What a batch of operations has read of a ledger, and what it has changed: read at once, written at once.

A store supplies what it looks up or writes in its own way; what is asked of all of them alike is asked here.
Which operation does what is in `bridge.ledger.transactions`. No clock. Imported by the transactions and by
the stores.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core import model
from bridge.core.counting import DAY_S, FINE_S, HOUR_S, KEPT_S, Counts, Tallied, Tallies, add
from bridge.core.model import DONE, GUARD_S, PROBING, PauseKey, PauseState, Row, Task, Window
from bridge.ledger import rows
from bridge.ledger.owners import BOOT_DIGITS
from bridge.ledger.port import WINDOW_S, EventRow, Forget, Policy, Story
from bridge.ledger.rows import Rows, Statement, encode_told, group_tallied, select_listing, to_pause, to_row

_SLACK_S: Final = 2.0
"""How far the clocks of two bridges on one timeline may be apart."""
_MOST_REMEMBERED: Final = 10_000
"""Own reports and pauses remembered between transactions; a guess that bounds memory."""
MOST_TALLIED: Final = 50
"""Accounts whose counts are told at once; each costs 200 rows, and only the ledger's thread reads them."""


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


class UnitOfWork:
    """The reports and pauses of one transaction, and what is remembered from one to the next.

    Args:
        policy: decides about pauses and windows.
        instance: the name of this instance.
    """

    is_alive: Callable[[str], bool]
    """True if an instance still runs, or nobody can know."""
    durable: bool
    """True if what is committed survives the end of this process."""
    now: float
    """The time of this transaction on the timeline."""
    wall: float
    """The same as UNIX time."""

    # --- what a store supplies ---------------------------------------------------------------

    _run: Callable[[Sequence[Statement]], list[Rows]]
    """Runs statements in the transaction that is open."""
    fetch: Callable[[Sequence[Task]], None]
    """Reads the newest reports of tasks: puts each, or None, into `entries`."""
    fetch_pauses: Callable[[str, Sequence[str]], None]
    """Reads all pauses of an endpoint about some subjects: puts them into `pauses`, for each subject."""
    account_id: Callable[[Task], int]
    """The number of an account, which is made if it is new."""
    next_seq: Callable[[], int]
    """The number of a new report."""
    left: Callable[[bool], Sequence[Entry]]
    """The reports of dead instances, and with True this one's, taken so that nobody else takes them; they are
    in `entries` too."""
    fetch_figures: Callable[[Task], tuple[float, str] | None]
    """When an account's figures were asked for, and what they were, as JSON."""
    prune: Callable[[model.Prune], int]
    """Deletes old reports with their events, never one that still guards its task."""
    write: Callable[[], None]
    """Writes what was kept, at the end or before something that reads what is not kept."""

    # --- what is kept ------------------------------------------------------------------------

    def __init__(self, policy: Policy, instance: str) -> None:
        self.policy = policy
        self.instance = instance
        self.seen: OrderedDict[tuple[str, str], dict[PauseKey, PauseState]] = OrderedDict()
        self._own: dict[Task, Entry] = {}
        self._ids: dict[tuple[str, str], int] = {}
        """Accounts by endpoint and name: they are never deleted."""
        self._hours: dict[int, int] = {}
        self.concerning: dict[tuple[str, str, str], Mapping[PauseKey, PauseState]] = {}
        """What `states` found of an endpoint, account and method, for as long as nobody changes a pause."""
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
        self.counted: dict[tuple[int, str, int], list[Counts]] = {}
        """What is to be added, by account, subject, and number of the fine stretch."""

    def forget_own(self) -> None:
        """Drop what was remembered, because a transaction was rolled back."""
        self._own.clear()
        self._ids.clear()
        self.clear()

    # --- what all stores ask alike, after writing what was kept ------------------------------

    def enter(self, values: Sequence[Any], task: Task) -> Entry:
        """Take a report that was read: its columns, then its revision."""
        row = to_row(values, task.endpoint, task.account)
        entry = self.entries[task] = Entry(row, values[1], values[22], values[23], row)
        return entry

    def _ask(self, statement: str, *values: Any) -> Rows:
        return self._run([(statement, values)])[0]

    def open_pauses(self, of: Task | model.Pauses | model.Resume) -> tuple[PauseState, ...]:
        """The pauses of an endpoint that are not closed."""
        self.flush()
        found = self._ask(rows.OPEN_PAUSES.format("AND endpoint = $1 "), of.endpoint)
        return tuple(to_pause(columns[:-1]) for columns in found)

    def page(self, op: model.Listing) -> tuple[tuple[Row, ...], int | None]:
        """A page of reports, newest first, and where the next page begins."""
        self.flush()
        rest, values = select_listing(op)
        statement = f"SELECT {rows.LISTED} {rest} ORDER BY r.seq DESC LIMIT ${len(values) + 1}"
        found = self._ask(statement, *values, op.limit + 1)
        page = tuple(to_row(columns, *columns[-2:]) for columns in found[: op.limit])
        return page, page[-1].seq if page and len(found) > op.limit else None

    def story(self, op: Story) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        found = self._ask(rows.EVENTS, op.seq)
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    def tallied(self, op: Tallies) -> tuple[Tallied, ...]:
        """What was counted of an account, or of the `MOST_TALLIED` with most reports."""
        if self.counted:
            self.flush()
        which: str = rows.OF_ACCOUNT
        values: tuple[Any, ...] = (op.endpoint, op.account)
        if op.account is None:
            which, values = rows.OF_MOST, (op.endpoint, int((self.now - DAY_S) // HOUR_S), MOST_TALLIED)
        tallies, figures = self._run([(text.format(which), values) for text in (rows.TALLIED, rows.FIGURES)])
        return group_tallied(tallies, figures)

    def save_figures(self, task: Task, asked_at: float, told: str) -> None:
        """Keep when an account's figures were asked for, and what they are, as JSON."""
        self._ask(rows.SAVE_FIGURES, self.account_id(task), asked_at, told)

    # --- a batch -----------------------------------------------------------------------------

    def prepare(self, operations: Sequence[Any]) -> None:
        """Read at once what most operations of a batch will need."""
        tasks: list[Task] = []
        begun: dict[tuple[str, str, str], Task] = {}
        for op in operations:
            kind = type(op)
            if kind is model.Claim:
                tasks.append(op.task)
                if op.begin:
                    begun[op.task.endpoint, op.task.account, op.method] = op.task
            elif kind is model.Record and (own := self._own.get(op.task)) is not None:
                self.entries[op.task] = own
                begun[op.task.endpoint, op.task.account, own.row.method] = op.task
        if tasks:
            self.fetch(tasks)
        subjects: dict[str, dict[str, Any]] = {}
        for name, task in begun.items():
            if name not in self.concerning:
                subjects.setdefault(task.endpoint, {}).update(self.policy.subjects(task, name[2]))
        for endpoint, names in subjects.items():
            if names:
                self.fetch_pauses(endpoint, tuple(names))

    def flush(self) -> None:
        """Write what was kept; from then on the store has it."""
        if self.added or self.changed or self.told or self.saved or self.counted:
            self.write()
            self.settle_changes()

    def settle_changes(self) -> None:
        """What was kept is written."""
        for entry in (*self.added, *self.changed.values()):
            entry.read = entry.row
            entry.was = entry.number
            self._touched.append(entry)
        self.clear_changes()

    def remember_own(self) -> None:
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
            self.seen.popitem(last=False)
            # What is seen no more is to be read again, so that it is seen.
            self.concerning.clear()

    # --- parts -------------------------------------------------------------------------------

    def find(self, task: Task) -> Entry | None:
        """The newest report of a task in this batch, or None."""
        if task not in self.entries:
            self.fetch((task,))
        return self.entries[task]

    def guarding(self, task: Task) -> Entry | None:
        """The report that answers for a task. The id may have come back: then the old one is history only."""
        entry = self.find(task)
        if entry is not None and entry.row.state == DONE and not self.guards(entry):
            entry.is_current = False
            self.change(entry, entry.row)
            entry = self.entries[task] = None
        return entry

    def ours(self, task: Task) -> Entry | None:
        """Our own report that is not done."""
        entry = self.find(task)
        return entry if entry is not None and entry.row.owner == self.instance else None

    def look(self, op: model.Look) -> Row | None:
        """The newest report of a task, or None."""
        entry = self.find(op.task)
        return None if entry is None else entry.row

    def forget(self, op: Forget) -> None:
        """Drop a report with its events."""
        entry = self.find(op.task)
        if entry is not None:
            self.flush()
            self._ask("DELETE FROM reports WHERE seq = $1", entry.row.seq)
            self.entries[op.task] = None
            self._own.pop(op.task, None)
            self._touched = [touched for touched in self._touched if touched is not entry]

    def add(self, row: Row, finished_at: float | None) -> Entry:
        """Keep a new report."""
        entry = Entry(row, self.account_id(row.task), finished_at, 0, None)
        self.entries[row.task] = entry
        self.added.append(entry)
        return entry

    def change(self, entry: Entry, row: Row) -> None:
        """The report is like this now."""
        if row.state != DONE:
            entry.finished_at = None
        elif row.finished_wall == self.wall:
            entry.finished_at = self.now
        entry.row = row
        if entry.read is not None:
            self.changed[row.seq] = entry

    def tell(self, entry: Entry, name: str, data: Mapping[str, Any], at_wall: float | None = None) -> None:
        """Go on with the story of a report.

        Args:
            at_wall: when that was; now by default.
        """
        entry.number += 1
        when = self.wall if at_wall is None else at_wall
        self.told.append((entry.row.seq, entry.number, when, name, encode_told(name, data)))
        if entry.read is not None:
            self.changed[entry.row.seq] = entry

    def tell_pauses(self, entry: Entry, events: tuple[model.PauseEvent, ...]) -> None:
        """Go on with the story of a report by what became of pauses."""
        for name, state in events:
            self.tell(entry, name, {"rule": state.key.rule, "cause": state.cause, "endsAt": state.ends_at})

    # --- counts ------------------------------------------------------------------------------

    def count_ended(self, entry: Entry, row: Row) -> None:
        """Count a report that ends like this now."""
        counted = self.policy.tally(row, self.now)
        if counted is not None:
            self.count(entry.account_id, *counted)

    def count(self, account_id: int, subject: str, at: float, counts: Counts) -> None:
        """Add to what is counted of an account."""
        self.counted.setdefault((account_id, subject, int(at // FINE_S)), []).append(counts)

    def tallies(self) -> list[tuple[Any, ...]]:
        """What was counted, as rows of `bridge.ledger.rows.TALLY_COLUMNS`, in their order."""
        tallies: dict[tuple[int, int, str, int], Counts] = {}
        for (account_id, subject, number), counts in self.counted.items():
            total = counts[0] if len(counts) == 1 else Counts._make(map(sum, zip(*counts, strict=True)))
            for width in KEPT_S:
                key = (width, account_id, subject, number * FINE_S // width)
                tallies[key] = add(tallies[key], total) if key in tallies else total
        return [(*key, *tallies[key]) for key in sorted(tallies)]

    def drop_aged(self) -> list[Statement]:
        """The statements that delete the old counts of accounts that begin an hour; each once an hour."""
        hour = int(self.now // HOUR_S)
        begun = {key[0]: hour for key in sorted(self.counted) if self._hours.get(key[0]) != hour}
        if len(self._hours) > _MOST_REMEMBERED:
            self._hours.clear()
        self._hours.update(begun)
        statements: list[Statement] = []
        for width, kept_s in KEPT_S.items() if begun else ():
            bounds = (int((self.now - kept_s) // width), int(self.now // width) + HOUR_S // width)
            statements += [(rows.DROP_TALLIES, (width, number, *bounds)) for number in begun]
        return statements

    # --- time --------------------------------------------------------------------------------

    def guards(self, entry: Entry) -> bool:
        """True if a finished report still answers for its task.

        Of two clocks the one by which less time has passed counts, unless it was set back. If both were, a
        report that seems to end in the future counts from now on; when it ended is not said otherwise.
        """
        assert entry.finished_at is not None
        ages = (self.now - entry.finished_at, self.wall - (entry.row.finished_wall or 0.0))
        age = min((age for age in ages if age >= 0.0), default=None)
        if age is None:
            self.change(entry, entry.row)
            entry.finished_at = self.now
            return True
        return age <= GUARD_S

    def window_of(self, row: Row) -> Window:
        """The window of a report that another instance or life left; over if its times cannot be trusted.

        In one boot all bridges have one timeline. What another boot left is over by either clock, and what
        seems to lie in the future was written when the clock was wrong.
        """
        until, since = row.window
        is_astray = (until is not None and until > self.now + WINDOW_S + _SLACK_S) or (
            since is not None and since > self.now + _SLACK_S
        )
        if not is_astray and row.owner is not None:
            is_other_boot = row.owner[:BOOT_DIGITS] != self.instance[:BOOT_DIGITS]
            is_astray = is_other_boot and not 0.0 <= self.wall - row.recorded_wall <= WINDOW_S
        return row.window.narrowed_by(Window(self.now, None)) if is_astray else row.window

    def is_late(self, row: Row) -> bool:
        """True if no attempt of a report may start any more."""
        return self.policy.is_late(self.now, row.window, row.attempts > 0)

    # --- pauses ------------------------------------------------------------------------------

    def states(self, task: Task, method: str) -> tuple[Mapping[PauseKey, PauseState], list[PauseState]]:
        """The pauses that concern an attempt, those of dead probers already released.

        Returns:
            What is known, and those of it that were released and are not stored yet.
        """
        name = (task.endpoint, task.account, method)
        known = self.concerning.get(name)
        if known is not None:
            return known, []
        states: dict[PauseKey, PauseState] = {}
        released: list[PauseState] = []
        may_keep = True
        for subject, keys in self.policy.subjects(task, method).items():
            for key, state in self.pauses_of(task.endpoint, subject).items():
                if key not in keys:
                    continue
                if state.state == PROBING:
                    may_keep = False  # its prober may die
                    if not self.is_alive(state.probe_owner or ""):
                        state = self.policy.release(self.now, state)
                        released.append(state)
                states[key] = state
        if may_keep:
            self.concerning[name] = states
        return states, released

    def pauses_of(self, endpoint: str, subject: str) -> dict[PauseKey, PauseState]:
        """All pauses about a subject."""
        known = self.pauses.get((endpoint, subject))
        if known is None:
            self.fetch_pauses(endpoint, (subject,))
            known = self.pauses[endpoint, subject]
        return known

    def save(self, endpoint: str, states: Iterable[PauseState]) -> None:
        """Keep pauses."""
        for state in states:
            self.pauses_of(endpoint, state.key.subject)[state.key] = state
            self.saved[endpoint, state.key] = state
        self.concerning.clear()

    def release_probes(self, task: Task, owner: str | None, method: str | None) -> None:
        """Let go of the pauses that a report was probing for an owner.

        Args:
            method: what it says; None: that is not known.
        """
        if method is None or owner != self.instance:
            # They may be about the other one's machine.
            states: Iterable[PauseState] = self.open_pauses(task)
        else:
            states = self.states(task, method)[0].values()
        probes = [self.policy.release(self.now, s) for s in states if is_probe(s, owner, task)]
        self.save(task.endpoint, probes)


def is_probe(state: PauseState, owner: str | None, task: Task) -> bool:
    """True if this report of this owner is the probe of the pause."""
    return (
        state.state == PROBING
        and state.probe_owner == owner
        and state.probe_task == f"{task.account}/{task.task_id}"
    )
