"""The ledger in good and bad days: one store for the promise, a stand-in for the time without it.

`Pair` decides who takes an operation, notices trouble, and comes back when it is over: what is owed
is written then. No thread and no clock of its own: the journal drives it and is its only importer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.model import (
    DONE,
    Begun,
    Claimed,
    Listing,
    Look,
    Narrow,
    Operation,
    Pauses,
    Prune,
    Recorded,
    Swept,
    Task,
)
from bridge.ledger.dialect import Accounts, View
from bridge.ledger.ours import Condition, Failed, Heard, Ours
from bridge.ledger.owed import Owed
from bridge.ledger.standin import StandIn
from bridge.ledger.store import Store
from bridge.ledger.story import Story
from bridge.ledger.trouble import CORRUPT, FOREIGN, LOCKED, REPLACED, UNREADABLE, LedgerTrouble

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
_READS: Final = frozenset({Look, Listing, Pauses})
_UNDONE: Final = object()
_NEVER: Final = float("inf")


class Pair:
    """The ledger and its stand-in.

    Args:
        open_primary: opens the ledger; None if memory is what the user asked for.
        open_memory: opens an empty store in memory.
        require: refuse to begin reports while the ledger is in trouble.
        tell: takes name and fields of an event, once per change.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        retry_s: seconds between two tries to come back.
        clock: monotonic seconds.
        wall: UNIX seconds.

    Thread safety: one thread; `condition` and `owed.count` may be read by any.
    """

    def __init__(
        self,
        open_primary: Callable[[], Store] | None,
        open_memory: Callable[[], Store],
        accounts: Accounts,
        *,
        require: bool,
        tell: Callable[[str, Mapping[str, Any]], None],
        on_bug: Callable[[BaseException], str],
        retry_s: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._open_primary = open_primary
        self._accounts = accounts
        self._tell = tell
        self._on_bug = on_bug
        self._retry_s = retry_s
        self._clock = clock
        self.condition = Condition()
        self._ours = Ours()
        self._heard = Heard()
        self.owed = Owed(on_bug, self._ours.finish, self._heard.follow)
        self._stand_in = StandIn(
            open_memory,
            accounts,
            self.condition,
            self._ours,
            self._heard,
            self.owed,
            require=require,
            on_trouble=self._degrade,
            on_bug=on_bug,
            wall=wall,
        )
        self._has_opened = False
        self._sick: LedgerTrouble | None = None
        self._busy_s: float | None = None
        self._retry_at = _NEVER
        self._delay_s = retry_s
        self._told: str | None = None
        self._down_at = 0.0
        self._written = self._differing = 0

    # --- opening and closing -----------------------------------------------------------------

    def start(self) -> None:
        """Open the ledger, or be without it."""
        if self._open_primary is None:
            self.condition.view = self._stand_in.memory
            self.condition.primary = self.condition.view.store
        elif not self._open() and self.condition.view is None:
            self._stand_in.wake()

    def _open(self) -> bool:
        assert self._open_primary is not None
        try:
            store = self._open_primary()
        except LedgerTrouble as trouble:
            self._degrade(trouble)
            return False
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
            return False
        self._accounts.settle(store.secret, store.clock_offset_s)
        self.condition.view = View(store, self._accounts)
        self.condition.primary = store
        self._busy_s = getattr(store, "busy_s", None)
        for name, fields in store.notices:
            self._tell(name, fields)
        if self._has_opened:
            # It may be another file now, and if it is the same, the rows are another instance's.
            for task, row in self._ours.live.items():
                if task not in self.owed.stories:
                    self.owed.add(Story(row, in_memory=False))
            self._ours.live.clear()
            self.owed.owe_claims()
        self._has_opened = True
        # A ledger may be found unwritable when it is opened; only opening it again can change that.
        self._sick = getattr(store, "trouble", None)
        if self._sick is not None:
            self._degrade(self._sick)
        return self._sick is None

    def close(self) -> None:
        """Write what can be written, tell what cannot, and let go of the stores."""
        condition = self.condition
        self.owed.unstick()
        if condition.trouble is not None:
            self._heal(self._busy_s)
        while condition.trouble is None and self.owed.is_pending:
            self._pay()
        if self.owed.count:
            reason = "the log has the reason" if condition.trouble is None else _reason(condition.trouble)
            sentence = f"{self.owed.count} outcomes could not be written before the end."
            fields = {"state": "lost", "sentence": sentence, "operation": "written", "reason": reason}
            self._tell("ledger_degraded", {**fields, "owed": self.owed.count})
        if condition.primary is not None:
            self._close_quietly(condition.primary)
        self._stand_in.close()

    def _close_quietly(self, store: Store) -> None:
        try:
            store.close()
        except Exception as error:
            self._on_bug(error)

    # --- trouble and its end -----------------------------------------------------------------

    def _degrade(self, trouble: LedgerTrouble) -> None:
        condition, now = self.condition, self._clock()
        if self._told is None:
            self._down_at = now
            self._delay_s = self._retry_s
            self._written = self._differing = 0
        condition.is_readable = condition.primary is not None and trouble.kind not in SILENT
        condition.trouble = trouble
        self._retry_at = now + self._delay_s
        if condition.primary is None or self._must_reopen():
            # Opening is the costly try. One write on an open store is not, so that keeps its pace.
            self._delay_s = min(self._delay_s * 2, MAX_RETRY_S)
        self._wait_for_locks(PROBE_BUSY_S)
        if self._told == trouble.kind:
            return
        self._told = trouble.kind
        fields = {"state": trouble.kind, "sentence": trouble.sentence, "reason": _reason(trouble)}
        if self._has_opened:
            operation = "written" if condition.is_readable else "read"
            self._tell("ledger_degraded", {**fields, "operation": operation})
        else:
            self._tell("ledger_memory", fields)

    def _wait_for_locks(self, busy_s: float | None) -> None:
        """Set the store's own patience, if it has any."""
        if self._busy_s is not None and busy_s is not None and self.condition.primary is not None:
            self.condition.primary.busy_s = busy_s  # type: ignore[attr-defined]

    def tend(self) -> float | None:
        """Do what is due without being asked; the seconds until more is, None if nothing will be."""
        condition = self.condition
        if condition.trouble is not None:
            started_at = self._clock()
            if started_at >= self._retry_at:
                self._heal(PROBE_BUSY_S)
                now = self._clock()
                # On a slow disk, or with a store that waits for locks, tries must not fill the time.
                self._retry_at = max(self._retry_at, now + _REST * (now - started_at))
        elif self.owed.is_pending:
            self._pay()
        if condition.trouble is not None:
            return max(0.0, self._retry_at - self._clock())
        return 0.0 if self.owed.is_pending else None

    def _heal(self, busy_s: float | None) -> None:
        """Try to come back to the ledger."""
        condition = self.condition
        assert condition.trouble is not None
        if condition.primary is not None and self._must_reopen():
            self._close_quietly(condition.primary)
            condition.primary = condition.view = None
            condition.is_readable = False
        if condition.view is None and not self._open():
            return
        assert condition.view is not None
        self._wait_for_locks(busy_s)
        if self.owed.is_pending:
            self._pay()
            return
        try:
            # Deletes nothing, but takes the lock that any write needs.
            condition.view.transact([Prune(0.0, 1)])
        except LedgerTrouble as trouble:
            self._degrade(trouble)
        except Exception as error:
            self._on_bug(error)
            self._degrade(LedgerTrouble(UNREADABLE))
        else:
            self._recover()

    def _must_reopen(self) -> bool:
        """True if only opening the ledger anew can end the trouble."""
        trouble = self.condition.trouble
        return trouble is not None and (trouble.kind in REOPENED or self._sick is not None)

    def _pay(self) -> frozenset[Task]:
        """Write a chunk of what is owed; the tasks that the ledger is right about now."""
        assert self.condition.view is not None
        try:
            paid = self.owed.pay(self.condition.view)
        except LedgerTrouble as trouble:
            self._degrade(trouble)
            return frozenset()
        self._written += paid.written
        self._differing += paid.differing
        self._recover()
        return paid.durable

    def _recover(self) -> None:
        """The ledger was written: the trouble is over. It is told when all that can be written is."""
        self.condition.trouble = None
        self._retry_at = _NEVER
        self._wait_for_locks(self._busy_s)
        if self._told is None or self.owed.is_pending:
            return
        self._told = None
        sentence = f"The ledger works again; {self._written} owed outcomes were written"
        sentence += f", {self._differing} were known otherwise." if self._differing else "."
        down_s = round(self._clock() - self._down_at, 3)
        fields = {"state": "ok", "sentence": sentence, "down_s": down_s, "owed": self._written}
        self._tell("ledger_recovered", fields)

    # --- a batch -----------------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations and return one result for each. Raises nothing."""
        condition = self.condition
        results: list[Any] = [_UNDONE] * len(operations)
        if condition.trouble is None:
            self._apply_together(operations, results)
            if self._must_reopen():
                # A file that was deleted or replaced: there is one to be had at once.
                self._heal(PROBE_BUSY_S)
                self._apply_together(operations, results)
        alone = [index for index, result in enumerate(results) if result is _UNDONE]
        for index in alone:
            results[index] = self._stand_in.apply(operations[index])
        if alone and condition.trouble is None and self.owed.is_pending:
            written = self._pay()
            for index in alone:
                task = getattr(operations[index], "task", None)
                if task in written and getattr(results[index], "durable", None) is False:
                    results[index] = results[index]._replace(durable=self.is_durable)
        return results

    @property
    def is_durable(self) -> bool:
        """True if what is committed now survives this process."""
        primary = self.condition.primary
        return self.condition.trouble is None and primary is not None and primary.durable

    def _apply_together(self, operations: Sequence[Operation], results: list[Any]) -> None:
        """Do in one commit all that the ledger alone is responsible for. Reads come after the commit."""
        stories, view = self.owed.stories, self.condition.view
        while self.condition.trouble is None and self.owed.is_feeding:
            # The ledger's gate must know the pauses of the bad days before anything begins.
            self._pay()
        if view is None or self.condition.trouble is not None:
            return
        writes: list[int] = []
        reads: list[int] = []
        for index, op in enumerate(operations):
            if type(op) in _READS:
                reads.append(index)
            elif results[index] is _UNDONE and not (stories and getattr(op, "task", None) in stories):
                writes.append(index)
        try:
            if writes:
                batch = operations if len(writes) == len(operations) else [operations[i] for i in writes]
                self._write(view, batch, writes, results)
            if not stories:
                for index in reads:
                    results[index] = self._guard(view.read, operations[index])
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
        is_durable = self.condition.primary is not None and self.condition.primary.durable
        finished = 0
        for op, place, answer in zip(batch, places, answers, strict=True):
            kind = type(answer)
            if kind is Claimed or kind is Begun or kind is Recorded:
                if not is_durable and answer.durable:
                    answer = answer._replace(durable=False)
                self._ours.follow(op.task, answer)  # type: ignore[union-attr]
                finished += answer.row is not None and answer.row.state == DONE
            elif type(op) is Narrow:
                self._ours.narrow(op.task, op.window)
            elif kind is Swept:
                self._ours.live.update((row.task, row) for row in answer.adopted)
            self._heard.follow(op, answer)
            results[place] = answer
        if not is_durable:
            self._stand_in.count_finished(finished)

    def _guard(self, call: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return call(argument)
        except LedgerTrouble:
            raise
        except Exception as error:
            return Failed(self._on_bug(error))


def _reason(trouble: LedgerTrouble) -> str:
    return trouble.sentence.rstrip(".")
