"""The ledger in good and bad days: who takes an operation, how trouble is noticed, and how it ends.

While the ledger is in trouble operations run in the outbox's memory, upon what the ledger last told or can
still be asked; what is owed is brought to it when it works again. One thread drives it (see
`bridge.ledger.writer`), and it has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.counting import Note, Operation
from bridge.core.model import (
    Begun,
    Claimed,
    Narrow,
    Prune,
    Recorded,
    Sweep,
    Swept,
    Task,
)
from bridge.ledger.condition import Condition
from bridge.ledger.fallback import Fallback
from bridge.ledger.outbox import Outbox
from bridge.ledger.port import Failed, MemoryStore, Store
from bridge.ledger.transactions import READS
from bridge.ledger.translation import Accounts, View
from bridge.ledger.trouble import CORRUPT, FOREIGN, LOCKED, REPLACED, UNREADABLE, LedgerTrouble, from_os_error

REOPENED: Final = frozenset({REPLACED, CORRUPT, FOREIGN})
"""Kinds after which the open store is of no more use, whatever happens to its path."""
SILENT: Final = REOPENED | {LOCKED}
"""Kinds after which the store is not even asked. One that is merely unreadable is asked and may fail."""
MAX_RETRY_S: Final = 30.0
"""Longest pause between two tries to open a ledger."""
PROBE_BUSY_S: Final = 0.05
"""How long a try waits for a lock while the ledger is in trouble: nobody's answer may hang on it."""
_REST: Final = 4
"""A try to come back is followed by at least this many times its length without one."""
_UNDONE: Final = object()
_NEVER: Final = float("inf")


class Failover:
    """The ledger and the store in memory for the time without it. Fits `bridge.engine.worker.Work`.

    Args:
        open_primary: opens the ledger for an instance of that name; None if memory was asked for.
        open_memory: opens an empty store in memory, also for an instance of that name.
        name_instance: makes the name of this bridge.
        require: refuse to begin reports while the ledger is in trouble.
        tell: takes name and fields of an event, once per change.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        retry_s: seconds between two tries to come back.
        now: seconds that only go forward.
        wall: UNIX seconds.

    Thread safety: one thread; `condition` and `outbox.owed` may be read by any.
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
        self._open_primary: Callable[[str], Store] = open_primary or open_memory
        self._open_memory = open_memory
        self._accounts = accounts
        self._name_instance = name_instance
        self._tell = tell
        self._on_bug = on_bug
        self._now = now
        self._wall = wall
        self.condition = Condition(self._degrade, on_bug, self._place)
        self.outbox = Outbox(self._open_second)
        self._fallback = Fallback(self.condition, self.outbox, require, on_bug, wall)
        # Trouble and its end.
        self._has_opened = False
        self._may_own_more = False
        """True after a sweep that failed, and may have been committed: nobody knows what it took over."""
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
            self.condition.trouble = self.condition.trouble or LedgerTrouble(UNREADABLE)

    def _open(self) -> None:
        self.condition.instance = self._name_instance()
        if not self._open_again() and self.condition.view is None:
            assert self.outbox.memory is not None  # accounts need a secret, and the service a timeline

    def _open_second(self) -> MemoryStore:
        store = self._open_memory(self.condition.instance)
        self._accounts.settle(store.secret, store.clock_offset_s)
        store.clock_offset_s = self._accounts.offset_s
        store.believe(self.condition.is_alive)
        return store

    def _place(self, wall: float) -> float:
        """An instant of the past on the timeline."""
        return self._now() + self._accounts.offset_s - max(0.0, self._wall() - wall)

    def _open_again(self) -> bool:
        try:
            store = self._open_primary(self.condition.instance)
        except LedgerTrouble as trouble:
            self._degrade(trouble)
            return False
        except OSError as error:
            self._degrade(from_os_error(error))
            return False
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
            return False
        self._accounts.settle(store.secret, store.clock_offset_s)
        self.condition.view = View(store, self._accounts)
        self.condition.primary = store
        self._busy_s = store.busy_s
        for name, fields in store.notices:
            self._tell(name, fields)
        if self._has_opened:
            # It may be another file now, that has to be told everything.
            for task, row in tuple(self.condition.live.items()):
                if task not in self.outbox.held:
                    self.outbox.seed(row, None)
                    self.outbox.hold(task, row)
            self.condition.live.clear()
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
        if self.condition.trouble is not None:
            self._heal(self._busy_s)
        while self.condition.trouble is None and (pending := outbox.pending()):
            self._pay(pending)
        if outbox.owed:
            reason = (
                "the log has the reason"
                if self.condition.trouble is None
                else _reason(self.condition.trouble)
            )
            sentence = f"{outbox.owed} outcomes could not be written before the end."
            fields = {"state": "lost", "sentence": sentence, "operation": "written", "reason": reason}
            self._tell("ledger_degraded", {**fields, "owed": outbox.owed})
        if self.condition.primary is not None:
            self._close_quietly(self.condition.primary)
        outbox.held.clear()
        outbox.rest()

    def _close_quietly(self, store: Store) -> None:
        try:
            store.close()
        except Exception as error:
            self._on_bug(error)

    # --- trouble and its end -----------------------------------------------------------------

    def _degrade(self, trouble: LedgerTrouble) -> None:
        now = self._now()
        if self._told is None:
            self._down_at = now
            self._delay_s = self._retry_s
            self.outbox.written = self.outbox.differing = 0
        self.condition.is_readable = self.condition.primary is not None and trouble.kind not in SILENT
        self.condition.trouble = trouble
        self._retry_at = now + self._delay_s
        if self.condition.primary is None or self._must_reopen():
            # Opening is the costly try. One write on an open store is not, so that keeps its pace.
            self._delay_s = min(self._delay_s * 2, MAX_RETRY_S)
        self._wait_for_locks(PROBE_BUSY_S)
        if self._told == trouble.kind:
            return
        self._told = trouble.kind
        fields = {"state": trouble.kind, "sentence": trouble.sentence, "reason": _reason(trouble)}
        if self._has_opened:
            operation = "written" if self.condition.is_readable else "read"
            self._tell("ledger_degraded", {**fields, "operation": operation})
        else:
            self._tell("ledger_memory", fields)

    def _wait_for_locks(self, busy_s: float) -> None:
        if self.condition.primary is not None:
            self.condition.primary.busy_s = busy_s

    def tend(self) -> float | None:
        """Do what is due without being asked; the seconds until more is, None if nothing will be."""
        due_s = None if self.condition.primary is None else self.condition.primary.tend()
        if self.condition.trouble is not None:
            started_at = self._now()
            if started_at >= self._retry_at:
                self._heal(PROBE_BUSY_S)
                now = self._now()
                # On a slow disk, or with a store that waits for locks, tries must not fill the time.
                self._retry_at = max(self._retry_at, now + _REST * (now - started_at))
        elif pending := self.outbox.pending():
            self._pay(pending)
        if self.condition.trouble is not None:
            left_s = min(max(0.0, self._retry_at - self._now()), MAX_RETRY_S)
            return left_s if due_s is None else min(left_s, due_s)
        return 0.0 if self.outbox.pending() else due_s

    def _heal(self, busy_s: float) -> None:
        """Try to come back to the ledger."""
        if self.condition.primary is not None and self._must_reopen():
            self._fallback.hear()
            self._close_quietly(self.condition.primary)
            self.condition.primary = self.condition.view = None
            self.condition.is_readable = False
        if self.condition.view is None and not self._open_again():
            return
        assert self.condition.view is not None
        self._wait_for_locks(busy_s)
        if pending := self.outbox.pending():
            self._pay(pending)
            return
        try:
            # Deletes nothing, but takes the lock that any write needs.
            self.condition.view.transact([*self.outbox.lessons(), Prune(0.0, 1)])
        except LedgerTrouble as trouble:
            self._degrade(trouble)
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
        else:
            self._recover()

    def _must_reopen(self) -> bool:
        """True if only opening the ledger anew can end the trouble."""
        return self.condition.trouble is not None and (
            self.condition.trouble.kind in REOPENED or self._sick is not None
        )

    def _recover(self) -> None:
        """The ledger was written: the trouble is over. It is told when all that can be written is."""
        self.condition.trouble = None
        self._fallback.has_heard = False
        self._retry_at = _NEVER
        self._wait_for_locks(self._busy_s)
        if self._told is None or self.outbox.pending():
            return
        self._told = None
        outbox = self.outbox
        outbox.rest()
        self._add_notes(outbox.take_notes())
        sentence = f"The ledger works again; {outbox.written} owed outcomes were written"
        sentence += f", {outbox.differing} were known otherwise." if outbox.differing else "."
        down_s = round(self._now() - self._down_at, 3)
        fields = {"state": "ok", "sentence": sentence, "down_s": down_s, "owed": outbox.written}
        self._tell("ledger_recovered", fields)

    def _add_notes(self, notes: Sequence[Note]) -> None:
        """Count the tasks that were noted meanwhile; if that fails they are kept."""
        if notes:
            for note, answer in zip(notes, self.run(notes), strict=True):
                if isinstance(answer, Failed):
                    self.outbox.hold_note(note)

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
        assert self.condition.view is not None
        for row in self.outbox.bring(self.condition.view, tasks):
            self.condition.follow(row)

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
        if self.condition.trouble is None:
            self._run_together(operations, results)
            if self._must_reopen():
                # A file that was deleted or replaced: there is one to be had at once.
                self._heal(PROBE_BUSY_S)
                self._run_together(operations, results)
        for place, result in enumerate(results):
            if result is _UNDONE:
                results[place] = self._fallback.run(operations[place])
        return results

    def _run_together(self, operations: Sequence[Operation], results: list[Any]) -> None:
        """Do in one commit what the ledger can do. Reads come after the commit."""
        if self.outbox.held and self.condition.trouble is None:
            tasks = self.outbox.pending_for(operations)
            if tasks:
                self._pay(tasks)
        view = self.condition.view
        if view is None or self.condition.trouble is not None:
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
            self._may_own_more = self._may_own_more or any(type(op) is Sweep for op in operations)
            self._degrade(trouble)

    def _name_ours(self, batch: Sequence[Operation]) -> list[Operation]:
        """Let a sweep take up what is ours and nobody here knows of."""
        asked = [task for op in batch if (task := getattr(op, "task", None)) is not None]
        ours = frozenset([*self.condition.live, *self.outbox.held, *asked])
        return [op._replace(ours=ours) if type(op) is Sweep else op for op in batch]

    def _write(self, view: View, batch: Sequence[Operation], places: list[int], results: list[Any]) -> None:
        try:
            answers = view.transact(self._name_ours(batch) if self._may_own_more else batch)
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
                    self.condition.follow(answer.row)
            elif kind is Swept:
                self._may_own_more = False
                for row in answer.adopted:
                    self.condition.follow(row)
            elif type(op) is Narrow:
                self.condition.follow_narrow(op)
            results[place] = answer

    def _guard(self, call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except LedgerTrouble:
            raise
        except Exception as error:
            return Failed(self._on_bug(error))


def _reason(trouble: LedgerTrouble) -> str:
    return trouble.sentence.rstrip(".")
