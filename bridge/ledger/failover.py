"""The ledger in good and bad days: who takes an operation, how trouble is noticed, and how it ends.

While the ledger is in trouble operations run in the outbox's memory, upon what the ledger last told or can
still be asked; what is owed is brought to it when it works again. One thread drives it (see
`bridge.ledger.writer`), and it has no clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.counting import Operation
from bridge.core.model import Begun, Claimed, Narrow, Recorded, Sweep, Swept, Task
from bridge.engine.core import Clock
from bridge.ledger.outbox import Outbox
from bridge.ledger.port import Failed, MemoryStore, Store
from bridge.ledger.translation import Accounts, see
from bridge.ledger.trouble import FULL, REOPENED, SILENT, UNREADABLE, LedgerTrouble, from_error

MAX_RETRY_S: Final = 30.0
"""Longest pause between two tries to come back to a ledger."""
PROBE_BUSY_S: Final = 0.05
"""How long a try waits for a lock while the ledger is in trouble: nobody's answer may hang on it."""
_REST: Final = 4
"""A try to come back is followed by at least this many times its length without one."""


class Failover:
    """The ledger and the store in memory for the time without it.

    Args:
        open_primary: opens the ledger for an instance of that name; None if memory was asked for.
        open_memory: opens an empty store in memory, also for an instance of that name.
        name_instance: makes the name of this bridge.
        require: refuse to begin reports while the ledger is in trouble.
        tell: takes name and fields of an event, once per change.
        on_bug: takes an unexpected exception and returns the reference under which it is logged.
        retry_s: seconds between two tries to come back.
        clock: what time it is.

    Thread safety: one thread; what its `outbox` says so may be read by any.
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
        clock: Clock,
    ) -> None:
        self._open_primary: Callable[[str], Store] = open_primary or open_memory
        self._open_memory = open_memory
        self._accounts = accounts
        self._name_instance = name_instance
        self._tell = tell
        self._on_bug = on_bug
        self._now = clock.now
        self.outbox = Outbox(self._open_second, require, on_bug, clock.wall)
        # Trouble and its end.
        self._has_opened = False
        self._may_own_more = False
        """True after trouble, until a sweep: nobody knows what one that failed took over."""
        self._busy_s = 0.0
        self._retry_s = self._delay_s = retry_s
        self._retry_at = float("inf")
        self._told: str | None = None
        self._down_at, self._up_at = 0.0, float("-inf")

    # --- opening and closing -----------------------------------------------------------------

    def open(self) -> None:
        """Open the ledger, or be without it."""
        try:
            self.outbox.instance = self._name_instance()
            if not self._open_again() and self.outbox.view is None:
                assert self.outbox.memory is not None  # accounts need a secret, and the service a timeline
        except Exception as error:
            # Without even a store in memory nothing can be promised: every answer is a refusal.
            self._on_bug(error)
            self._accounts.settle(b"\0" * 32, 0.0)
            self.outbox.trouble = self.outbox.trouble or LedgerTrouble(UNREADABLE)

    def _open_second(self) -> MemoryStore:
        store = self._open_memory(self.outbox.instance)
        self._accounts.settle(store.secret, store.clock_offset_s)
        store.clock_offset_s = self._accounts.offset_s
        store.is_alive = self.outbox.is_alive
        return store

    def _open_again(self) -> bool:
        """Open the ledger; True if it can be written, as far as can be seen."""
        try:
            store = self._open_primary(self.outbox.instance)
        except Exception as error:
            self._degrade(error)
            return False
        self._accounts.settle(store.secret, store.clock_offset_s)
        self.outbox.primary, self.outbox.view = store, see(store, self._accounts)
        self._busy_s = store.busy_s
        for name, fields in store.notices:
            self._tell(name, fields)
        if self._has_opened:
            self.outbox.begin_anew()
        self._has_opened = True
        if store.trouble is not None:
            self._degrade(store.trouble)
        return store.trouble is None

    def close(self) -> None:
        """Write what can be written, tell what cannot, and let go of the stores."""
        outbox = self.outbox
        outbox.stuck.clear()
        if outbox.trouble is not None:
            self._heal(self._busy_s)
        while outbox.trouble is None and (pending := outbox.pending()):
            self._pay(pending)
        if outbox.owed:
            reason = "the log has the reason" if outbox.trouble is None else outbox.trouble.reason
            self._tell("ledger_lost", {"owed": outbox.owed, "reason": reason})
        self._close_primary()
        outbox.held.clear()
        outbox.rest()

    def _close_primary(self) -> None:
        try:
            if self.outbox.primary is not None:
                self.outbox.primary.close()
        except Exception as error:
            self._on_bug(error)

    # --- trouble and its end -----------------------------------------------------------------

    def _degrade(self, error: Exception) -> None:
        """Be without the ledger, because of this."""
        if not isinstance(error, LedgerTrouble | OSError):
            self._on_bug(error)
        trouble = error if isinstance(error, LedgerTrouble) else from_error(error)
        outbox, primary, now = self.outbox, self.outbox.primary, self._now()
        if self._told is None:
            # With nothing owed only the next report can tell that a disk is still full.
            is_relapse = trouble.kind == FULL and now < self._up_at + self._delay_s
            self._delay_s = min(self._delay_s * 2, MAX_RETRY_S) if is_relapse else self._retry_s
            self._down_at = now
            self.outbox.written = self.outbox.differing = 0
        self._may_own_more = True
        outbox.is_guarded = primary is not None and trouble.kind not in SILENT
        outbox.trouble = trouble
        # Neighbours do not know of what runs meanwhile, and a session that ended is there again in no time.
        self._retry_at = now + (0.0 if trouble.is_in_doubt else self._delay_s)
        if self._must_open():
            # Opening is the costly try. One write on an open store is not, so that keeps its pace.
            self._delay_s = min(self._delay_s * 2, MAX_RETRY_S)
        if primary is not None:
            primary.busy_s = PROBE_BUSY_S
        if self._told == trouble.kind:
            return
        self._told = trouble.kind
        fields = {"state": trouble.kind, "sentence": trouble.sentence, "reason": trouble.reason}
        if self._has_opened:
            fields["operation"] = "written" if outbox.is_guarded else "read"
        self._tell("ledger_degraded" if self._has_opened else "ledger_memory", fields)

    def tend(self) -> float | None:
        """Do what is due without being asked; the seconds until more is, None if nothing will be."""
        outbox = self.outbox
        due_s = None if outbox.primary is None else outbox.primary.tend()
        if outbox.trouble is not None:
            started_at = self._now()
            if started_at >= self._retry_at:
                self._heal(PROBE_BUSY_S)
                now = self._now()
                # On a slow disk, or with a store that waits for locks, tries must not fill the time. A bridge
                # that was stopped in the middle of one has not waited so long for the ledger.
                self._retry_at = max(self._retry_at, now + min(_REST * (now - started_at), MAX_RETRY_S))
        elif outbox.held and (pending := outbox.pending()):
            self._pay(pending)
        if outbox.trouble is None:
            return 0.0 if outbox.held and outbox.pending() else due_s
        left_s = min(max(0.0, self._retry_at - self._now()), MAX_RETRY_S)
        return left_s if due_s is None else min(left_s, due_s)

    def _heal(self, busy_s: float) -> None:
        """Try to come back to the ledger."""
        outbox = self.outbox
        if self._must_open():
            outbox.hear()
            self._close_primary()
            outbox.primary = outbox.view = None
            outbox.is_guarded = False
            if not self._open_again():
                return
        assert outbox.primary is not None
        outbox.primary.busy_s = busy_s
        self._pay(outbox.pending())

    def _must_open(self) -> bool:
        """True if only opening the ledger anew can end the trouble."""
        trouble, primary = self.outbox.trouble, self.outbox.primary
        is_unfit = primary is None or primary.trouble is not None
        return trouble is not None and (is_unfit or trouble.kind in REOPENED)

    def _pay(self, tasks: Sequence[Task]) -> None:
        """Bring reports to the ledger. It was written then, so trouble is over; that is told when all are."""
        outbox = self.outbox
        try:
            outbox.pay(tasks, self._commit)
        except Exception as error:
            self._degrade(error)
            return
        assert outbox.primary is not None
        outbox.trouble = None
        outbox.is_guarded = True
        outbox.primary.busy_s = self._busy_s
        outbox.rest()
        if self._told is None or outbox.pending():
            return
        self._told = None
        sentence = f"The ledger works again; {outbox.written} owed outcomes were written"
        sentence += f", {outbox.differing} were known otherwise." if outbox.differing else "."
        self._up_at = self._now()
        down_s = round(self._up_at - self._down_at, 3)
        fields = {"state": "ok", "sentence": sentence, "down_s": down_s, "owed": outbox.written}
        self._tell("ledger_recovered", fields)

    # --- a batch -----------------------------------------------------------------------------

    def run(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations and return one result for each. Raises nothing."""
        results: list[Any] = []
        if self.outbox.trouble is None:
            results = self._run_together(operations)
            if len(results) < len(operations) and self._must_open():
                # A file that was deleted or replaced: there is one to be had at once.
                self._heal(PROBE_BUSY_S)
                results += self._run_together(operations[len(results) :])
        return results + [self.outbox.run(op) for op in operations[len(results) :]]

    def _run_together(self, operations: Sequence[Operation]) -> list[Any]:
        """Do in one commit what the ledger can do: the results of all operations, or of the first ones."""
        outbox = self.outbox
        if outbox.held and outbox.trouble is None and (tasks := outbox.pending_for(operations)):
            self._pay(tasks)
        if outbox.view is None or outbox.trouble is not None:
            return []
        if self._may_own_more and any(type(op) is Sweep for op in operations):
            operations = self._name_ours(operations)
        results: list[Any] = []
        try:
            self._commit(operations, results)
        except LedgerTrouble as trouble:
            self._degrade(trouble)
        for op, result in zip(operations, results, strict=False):
            kind = type(result)
            if kind is Claimed or kind is Begun or kind is Recorded:
                if result.row is not None:
                    outbox.follow(result.row)
            elif kind is Swept:
                self._may_own_more = False
                for row in result.adopted:
                    outbox.follow(row)
            elif type(op) is Narrow:
                outbox.follow_narrow(op)
        return results

    def _commit(self, operations: Sequence[Any], answers: list[Any]) -> None:
        """Run operations in one commit and add their answers; one that no store can run fails alone."""
        assert self.outbox.view is not None
        try:
            answers += self.outbox.view.transact(operations)
        except LedgerTrouble:
            raise
        except Exception as error:
            if len(operations) == 1:
                answers.append(Failed(self._on_bug(error)))
            else:
                for op in operations:
                    self._commit([op], answers)

    def _name_ours(self, operations: Sequence[Any]) -> list[Any]:
        """Let a sweep take up what is ours and nobody here knows of."""
        asked = [task for op in operations if (task := getattr(op, "task", None)) is not None]
        ours = frozenset([*self.outbox.live, *self.outbox.held, *asked])
        return [op._replace(ours=ours) if type(op) is Sweep else op for op in operations]
