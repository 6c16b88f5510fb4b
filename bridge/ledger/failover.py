"""The ledger in good and bad days: who takes an operation, how trouble is noticed, and how it ends.

While the ledger is in trouble operations run in the outbox's memory, upon what the ledger last told or can still be
asked; what is owed is brought to it when it works again. One thread drives it (see `bridge.ledger.writer`), and it has
no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import (
    DONE,
    GUARD_S,
    NOT_SENT,
    QUEUED,
    SENDING,
    WAITING,
    Begin,
    Begun,
    Claim,
    Claimed,
    Gate,
    Heed,
    Listing,
    Look,
    Narrow,
    Operation,
    Pauses,
    Prune,
    Recorded,
    Resume,
    Row,
    Sweep,
    Swept,
    Task,
)
from bridge.ledger.outbox import Outbox
from bridge.ledger.port import Failed, Known, MemoryStore, Store, Unavailable
from bridge.ledger.transactions import READS
from bridge.ledger.translation import Accounts, View
from bridge.ledger.trouble import CORRUPT, FOREIGN, LOCKED, REPLACED, UNREADABLE, LedgerTrouble
from bridge.ledger.work import merge_windows

REOPENED: Final = frozenset({REPLACED, CORRUPT, FOREIGN})
"""Kinds after which the open store is of no more use, whatever happens to its path."""
SILENT: Final = REOPENED | {LOCKED}
"""Kinds after which the store is not even asked. One that is merely unreadable is asked and may fail."""
MAX_RECENT: Final = 4_096
"""Finished reports remembered in case the ledger becomes unreadable; about 4 MB."""
MAX_RETRY_S: Final = 30.0
"""Longest pause between two tries to open a ledger."""
PROBE_BUSY_S: Final = 0.05
"""How long a try waits for a lock while the ledger is in trouble: nobody's answer may hang on it."""
_REST: Final = 4
"""A try to come back is followed by at least this many times its length without one."""
_UNDONE: Final = object()
_NEVER: Final = float("inf")

DEAD: Final = ""
"""Owner in memory of what a dead bridge left and never began."""


class Failover:
    """The ledger and the store in memory for the time without it. Fits `bridge.engine.worker.Work`.

    Args:
        open_primary: opens the ledger for an instance of that name; None if memory is what the user asked for.
        open_memory: opens an empty store in memory, also for an instance of that name.
        name_instance: makes the name of this bridge.
        require: refuse to begin reports while the ledger is in trouble.
        tell: takes name and fields of an event, once per change.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        retry_s: seconds between two tries to come back.
        now: seconds that only go forward.
        wall: UNIX seconds.

    Thread safety: one thread; `trouble`, `primary`, `is_durable` and `outbox.owed` may be read by any.
    """

    def __init__(
        self,
        open_primary: Callable[[str], Store] | None,
        open_memory: Callable[[str], MemoryStore],
        accounts: Accounts,
        *,
        name_instance: Callable[[], str],
        require: bool,
        tell: Callable[[str, Mapping[str, Any]], None],
        on_bug: Callable[[BaseException], str],
        retry_s: float,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._open_primary = open_primary
        self._open_memory = open_memory
        self._accounts = accounts
        self._name_instance = name_instance
        self._require = require
        self._tell = tell
        self._on_bug = on_bug
        self._now = now
        self._wall = wall
        self.instance = ""
        self.primary: Store | None = None
        self.trouble: LedgerTrouble | None = None
        self._view: View | None = None
        self._is_readable = False
        """With trouble: True if the ledger still answers questions."""
        # What the ledger told of our own reports, and of the last that are done.
        self._live: dict[Task, Row] = {}
        self._recent: dict[Task, Row] = {}
        self.outbox = Outbox(self._open_second)
        self._has_heard = False
        # Trouble and its end.
        self._has_opened = False
        self._sick: LedgerTrouble | None = None
        self._busy_s = 0.0
        self._retry_s = self._delay_s = retry_s
        self._retry_at = _NEVER
        self._told: str | None = None
        self._down_at = 0.0

    # --- opening and closing -----------------------------------------------------------------

    def open(self) -> None:
        """Open the ledger, or be without it."""
        try:
            self._open()
        except Exception as error:
            # Without even a store in memory nothing can be promised: every answer is a refusal.
            self._on_bug(error)
            self._accounts.settle(b"\0" * 32, 0.0)
            self.trouble = self.trouble or LedgerTrouble(UNREADABLE)

    def _open(self) -> None:
        self.instance = self._name_instance()
        if self._open_primary is None:
            self.primary = self._open_memory(self.instance)
            self._accounts.settle(self.primary.secret, self.primary.clock_offset_s)
            self._view = View(self.primary, self._accounts)
        elif not self._open_again() and self._view is None:
            assert self.outbox.memory is not None  # accounts need a secret, and the service a timeline

    def _open_second(self) -> MemoryStore:
        store = self._open_memory(self.instance)
        self._accounts.settle(store.secret, store.clock_offset_s)
        store.clock_offset_s = self._accounts.offset_s
        store.believe(self._is_alive)
        return store

    def _is_alive(self, instance: str) -> bool:
        """Whether a prober of a pause in memory still runs; only the ledger can know that of others."""
        if instance == self.instance:
            return True
        return (
            instance != DEAD
            and self.primary is not None
            and self.is_guarded
            and self.primary.is_alive(instance)
        )

    def _open_again(self) -> bool:
        assert self._open_primary is not None
        try:
            store = self._open_primary(self.instance)
        except LedgerTrouble as trouble:
            self._degrade(trouble)
            return False
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
            return False
        self._accounts.settle(store.secret, store.clock_offset_s)
        self._view = View(store, self._accounts)
        self.primary = store
        self._busy_s = store.busy_s
        for name, fields in store.notices:
            self._tell(name, fields)
        if self._has_opened:
            # It may be another file now, that has to be told everything.
            for task, row in tuple(self._live.items()):
                if task not in self.outbox.held:
                    self.outbox.seed(row, None)
                    self.outbox.hold(task, row)
            self._live.clear()
            self.outbox.begin_anew()
        self._has_opened = True
        # A ledger may be found unwritable when it is opened; only opening it again can change that.
        self._sick = store.trouble
        if self._sick is not None:
            self._degrade(self._sick)
        return self._sick is None

    def close(self) -> None:
        """Write what can be written, tell what cannot, and let go of the stores."""
        outbox = self.outbox
        outbox.try_all()
        if self.trouble is not None:
            self._heal(self._busy_s)
        while self.trouble is None and (pending := outbox.pending()):
            self._pay(pending)
        if outbox.owed:
            reason = "the log has the reason" if self.trouble is None else _reason(self.trouble)
            sentence = f"{outbox.owed} outcomes could not be written before the end."
            fields = {"state": "lost", "sentence": sentence, "operation": "written", "reason": reason}
            self._tell("ledger_degraded", {**fields, "owed": outbox.owed})
        if self.primary is not None:
            self._close_quietly(self.primary)
        outbox.held.clear()
        outbox.rest()

    def _close_quietly(self, store: Store) -> None:
        try:
            store.close()
        except Exception as error:
            self._on_bug(error)

    # --- how it is ---------------------------------------------------------------------------

    @property
    def is_durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self.trouble is None and self.primary is not None and self.primary.durable

    @property
    def is_guarded(self) -> bool:
        """True if duplicates and pauses of other processes can be seen."""
        return self.trouble is None or self._is_readable

    # --- trouble and its end -----------------------------------------------------------------

    def _degrade(self, trouble: LedgerTrouble) -> None:
        now = self._now()
        if self._told is None:
            self._down_at = now
            self._delay_s = self._retry_s
            self.outbox.written = self.outbox.differing = 0
        self._is_readable = self.primary is not None and trouble.kind not in SILENT
        self.trouble = trouble
        self._retry_at = now + self._delay_s
        if self.primary is None or self._must_reopen():
            # Opening is the costly try. One write on an open store is not, so that keeps its pace.
            self._delay_s = min(self._delay_s * 2, MAX_RETRY_S)
        self._wait_for_locks(PROBE_BUSY_S)
        if self._told == trouble.kind:
            return
        self._told = trouble.kind
        fields = {"state": trouble.kind, "sentence": trouble.sentence, "reason": _reason(trouble)}
        if self._has_opened:
            operation = "written" if self._is_readable else "read"
            self._tell("ledger_degraded", {**fields, "operation": operation})
        else:
            self._tell("ledger_memory", fields)

    def _wait_for_locks(self, busy_s: float) -> None:
        if self.primary is not None:
            self.primary.busy_s = busy_s

    def tend(self) -> float | None:
        """Do what is due without being asked; the seconds until more is, None if nothing will be."""
        due_s = None if self.primary is None else self.primary.tend()
        if self.trouble is not None:
            started_at = self._now()
            if started_at >= self._retry_at:
                self._heal(PROBE_BUSY_S)
                now = self._now()
                # On a slow disk, or with a store that waits for locks, tries must not fill the time.
                self._retry_at = max(self._retry_at, now + _REST * (now - started_at))
        elif pending := self.outbox.pending():
            self._pay(pending)
        if self.trouble is not None:
            left_s = min(max(0.0, self._retry_at - self._now()), MAX_RETRY_S)
            return left_s if due_s is None else min(left_s, due_s)
        return 0.0 if self.outbox.pending() else due_s

    def _heal(self, busy_s: float) -> None:
        """Try to come back to the ledger."""
        if self.primary is not None and self._must_reopen():
            self._hear()
            self._close_quietly(self.primary)
            self.primary = self._view = None
            self._is_readable = False
        if self._view is None and not self._open_again():
            return
        assert self._view is not None
        self._wait_for_locks(busy_s)
        if pending := self.outbox.pending():
            self._pay(pending)
            return
        try:
            # Deletes nothing, but takes the lock that any write needs.
            self._view.transact([*self.outbox.lessons(), Prune(0.0, 1)])
        except LedgerTrouble as trouble:
            self._degrade(trouble)
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
        else:
            self._recover()

    def _must_reopen(self) -> bool:
        """True if only opening the ledger anew can end the trouble."""
        return self.trouble is not None and (self.trouble.kind in REOPENED or self._sick is not None)

    def _recover(self) -> None:
        """The ledger was written: the trouble is over. It is told when all that can be written is."""
        self.trouble = None
        self._has_heard = False
        self._retry_at = _NEVER
        self._wait_for_locks(self._busy_s)
        if self._told is None or self.outbox.pending():
            return
        self._told = None
        outbox = self.outbox
        outbox.rest()
        sentence = f"The ledger works again; {outbox.written} owed outcomes were written"
        sentence += f", {outbox.differing} were known otherwise." if outbox.differing else "."
        down_s = round(self._now() - self._down_at, 3)
        fields = {"state": "ok", "sentence": sentence, "down_s": down_s, "owed": outbox.written}
        self._tell("ledger_recovered", fields)

    def _pay(self, tasks: Sequence[Task]) -> None:
        """Bring reports to the ledger."""
        try:
            try:
                self._bring(tasks)
            except LedgerTrouble:
                raise
            except Exception:
                # One of them cannot be brought. It must not keep the others from being written.
                for task in tasks:
                    self._bring_alone(task)
        except LedgerTrouble as trouble:
            self._degrade(trouble)
        else:
            self._recover()

    def _bring(self, tasks: Sequence[Task]) -> None:
        assert self._view is not None
        for row in self.outbox.bring(self._view, tasks):
            self._follow_row(row)

    def _bring_alone(self, task: Task) -> None:
        try:
            self._bring([task])
        except LedgerTrouble:
            raise
        except Exception as error:
            self._on_bug(error)
            self.outbox.give_up(task)

    # --- a batch -----------------------------------------------------------------------------

    def run(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations and return one result for each. Raises nothing."""
        results: list[Any] = [_UNDONE] * len(operations)
        if self.trouble is None:
            self._run_together(operations, results)
            if self._must_reopen():
                # A file that was deleted or replaced: there is one to be had at once.
                self._heal(PROBE_BUSY_S)
                self._run_together(operations, results)
        for place, result in enumerate(results):
            if result is _UNDONE:
                results[place] = self._run_in_memory(operations[place])
        return results

    def _run_together(self, operations: Sequence[Operation], results: list[Any]) -> None:
        """Do in one commit what the ledger can do. Reads come after the commit."""
        if self.outbox.held and self.trouble is None:
            tasks = self.outbox.pending_for(operations)
            if tasks:
                self._pay(tasks)
        view = self._view
        if view is None or self.trouble is not None:
            return
        writes: list[int] = []
        reads: list[int] = []
        for place, op in enumerate(operations):
            if type(op) in READS:
                reads.append(place)
            elif results[place] is _UNDONE:
                writes.append(place)
        try:
            if writes:
                batch = (
                    operations if len(writes) == len(operations) else [operations[place] for place in writes]
                )
                self._write(view, batch, writes, results)
            for place in reads:
                results[place] = self._guard(view.read, operations[place])
        except LedgerTrouble as trouble:
            self._degrade(trouble)

    def _write(self, view: View, batch: Sequence[Operation], places: list[int], results: list[Any]) -> None:
        try:
            answers = view.transact(batch)
        except LedgerTrouble:
            raise
        except Exception as error:
            if len(batch) == 1:
                results[places[0]] = Failed(self._on_bug(error))
                return
            # One of them cannot be run by any store: it fails, the others do not.
            for op, place in zip(batch, places, strict=True):
                self._write(view, [op], [place], results)
            return
        is_durable = view.store.durable
        for op, place, answer in zip(batch, places, answers, strict=True):
            kind = type(answer)
            if kind is Claimed or kind is Begun or kind is Recorded:
                if not is_durable and answer.durable:
                    answer = answer._replace(durable=False)
                if answer.row is not None:
                    self._follow_row(answer.row)
            elif kind is Swept:
                for row in answer.adopted:
                    self._follow_row(row)
            elif type(op) is Narrow:
                self._follow_narrow(op)
            results[place] = answer

    def _follow_row(self, row: Row) -> None:
        """Remember what the ledger said about a report, for the time when it cannot be asked."""
        task = row.task
        if row.owner == self.instance:
            self._live[task] = row
            return
        self._live.pop(task, None)
        if row.state == DONE:
            recent = self._recent
            recent.pop(task, None)
            recent[task] = row
            if len(recent) > MAX_RECENT:
                del recent[next(iter(recent))]

    def _follow_narrow(self, op: Narrow) -> None:
        for rows in (self._live, self._recent):
            row = rows.get(op.task)
            if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
                rows[op.task] = row._replace(window=merge_windows(row.window, op.window))

    def _guard(self, call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except LedgerTrouble:
            raise
        except Exception as error:
            return Failed(self._on_bug(error))

    # --- in memory ---------------------------------------------------------------------------

    def _run_in_memory(self, op: Operation) -> Any:
        """Run one operation in bad days. Raises nothing."""
        try:
            if isinstance(op, Listing):
                return self._list(op)
            if isinstance(op, Sweep):
                return Swept((), ())
            if isinstance(op, Prune):
                return 0
            if isinstance(op, Pauses):
                self.outbox.take_over(op.endpoint, self._question(lambda view: view.read(op)) or ())
                return self.outbox.memory.read(op)
            if isinstance(op, Resume | Heed):
                if self._is_readable:
                    return self._unavailable()
                self._hear()
                return self.outbox.memory.transact([op])[0]
            return self._run_on_report(op)
        except Exception as error:
            return Failed(self._on_bug(error))

    def _run_on_report(self, op: Any) -> Any:
        """Run an operation upon the truth about its report, and see to it that memory keeps it if it changed."""
        task: Task = op.task
        outbox = self.outbox
        is_held = task in outbox.held
        before = outbox.row(task) if is_held else self._live.get(task)
        method = op.method if isinstance(op, Claim) else None if before is None else before.method
        known = self._question(lambda view: view.ask(task, method))
        if known is not None:
            outbox.take_over(task.endpoint, known.pauses)
        if not is_held:
            before, finished_at = self._find_truth(task, known)
            if before is not None and before.owner not in (None, self.instance):
                if known is None or not known.is_free or not isinstance(op, Claim):
                    return self._answer_of_others(op, before)
                before = before._replace(owner=DEAD)
            if before is not None and not self._refuses(op, before):
                outbox.seed(before, finished_at)
        if self._refuses(op, before):
            return self._unavailable()
        answer = outbox.run(op, before)
        if task in outbox.held:
            self._live.pop(task, None)
        if isinstance(answer, Claimed | Begun | Recorded):
            # What a readable ledger told is as durable as it is there.
            told = known is not None and task not in outbox.held
            answer = answer._replace(durable=told and self.primary is not None and self.primary.durable)
            if not isinstance(answer, Recorded):
                answer = answer._replace(guarded=self.is_guarded)
        return answer

    def _find_truth(self, task: Task, known: Known | None) -> tuple[Row | None, float | None]:
        """The report as the ledger has it or last told it, and when it was finished."""
        live = self._live.get(task)
        row = None if known is None else known.row
        if live is not None and (row is None or row.owner in (None, self.instance)):
            return live, None
        if row is not None:
            if row.owner == self.instance and row.state == SENDING:
                # It was committed and nobody was told, so no attempt has followed.
                attempts = row.attempts - 1
                row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
            assert known is not None
            return row, known.finished_at
        recent = self._recent.get(task) if known is None else None
        if recent is None or recent.finished_wall is None:
            return None, None
        return recent, self._now() + self._accounts.offset_s - max(0.0, self._wall() - recent.finished_wall)

    def _answer_of_others(self, op: Any, row: Row) -> Any:
        """The answer about a report that another bridge has."""
        durable = self.primary is not None and self.primary.durable
        if isinstance(op, Claim):
            status = "elsewhere" if row.method == op.method and op.refusal is None else "conflict"
            return Claimed(status, row, durable=durable)
        if isinstance(op, Begin):
            return Begun(Gate("lost"), row, durable=durable)
        if isinstance(op, Look):
            return row
        return None if isinstance(op, Narrow) else Recorded("lost", row, durable=durable)

    def _refuses(self, op: Any, row: Row | None) -> bool:
        """True if an operation would lead to an attempt that a required ledger cannot know of."""
        if not self._require or not isinstance(op, Claim | Begin):
            return False
        if isinstance(op, Begin) or op.refusal is not None:
            return isinstance(op, Begin)
        if row is None or row.owner == DEAD:
            return True
        finished_wall = row.finished_wall
        return finished_wall is not None and (
            row.outcome == NOT_SENT or self._wall() - finished_wall > GUARD_S
        )

    def _unavailable(self) -> Unavailable:
        assert self.trouble is not None
        return Unavailable(self.trouble.kind, self.trouble.sentence)

    def _question(self, ask: Callable[[View], Any]) -> Any:
        """Ask the ledger something, if it can be asked; else None, and memory hears what was known last."""
        if self._view is not None and self.is_guarded:
            try:
                return ask(self._view)
            except LedgerTrouble as trouble:
                if self.trouble is None:
                    self._degrade(trouble)
            except Exception as error:
                self._on_bug(error)
            self._is_readable = False
        self._hear()
        return None

    def _hear(self) -> None:
        """Take over the pauses that the ledger last told."""
        if self._has_heard or self._view is None:
            return
        self._has_heard = True
        for endpoint, states in self._view.seen():
            self.outbox.take_over(endpoint, states)

    def _list(self, op: Listing) -> tuple[tuple[Row, ...], int | None]:
        listed, cursor = self._question(lambda view: view.read(op)) or ((), None)
        return self.outbox.overlay(op, listed), cursor


def _reason(trouble: LedgerTrouble) -> str:
    return trouble.sentence.rstrip(".")
