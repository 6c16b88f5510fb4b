"""The ledger as everybody else sees it: operations go in, answers come out after the commit.

What is asked in one turn of the engine is committed together, on the one thread that owns the stores. Where
no thread can be had that is done in the engine's, until one can. What happens in bad days is decided by
`bridge.ledger.failover`.
"""

from __future__ import annotations

from _queue import Empty
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.counting import Operation
from bridge.engine import Engine, TimedOut, Timer, Waiter
from bridge.ledger import files
from bridge.ledger.failover import Failover
from bridge.ledger.owners import name_instance
from bridge.ledger.port import MemoryStore, Store, Unavailable
from bridge.ledger.translation import Accounts

MAX_BATCH: Final = 256
"""Operations in one commit, after which no more is taken. Four times what a full load has in flight at
the default concurrency, so that it hardly ever binds, and little enough to keep one commit short."""
_WAVE: Final = 16
"""So many go over at once to a thread that has nothing to do: it works while the rest is asked for."""
_AFTER_A_BUG_S: Final = 1.0
_CLOSED: Final = Unavailable("closed", "The bridge has stopped.")
_Asked = tuple[Any, Callable[[Any], object]]
"""An operation, and what gets its result."""
_END: Final[list[_Asked]] = []


class Ledger:
    """Takes operations and commits them in groups.

    Args:
        open_primary: opens the ledger on its thread, for an instance of that name; None for memory.
        open_memory: opens an empty store in memory, for an instance of that name.
        require: refuse reports, with `Unavailable`, while the ledger is in trouble.
        on_event: takes name and fields of an event, once per change.
        on_error: takes a random reference and an unexpected exception, for the log.
        kind: what `open_primary` opens.
        retry_s: seconds between two tries to come back to a ledger in trouble; tries to open one
            become rarer, up to 30 s.
        boot_id: names this boot.

    Thread safety: everything belongs to the engine's thread.
    """

    def __init__(
        self,
        engine: Engine,
        open_primary: Callable[[str], Store] | None,
        open_memory: Callable[[str], MemoryStore],
        *,
        require: bool,
        on_event: Callable[[str, Mapping[str, Any]], None],
        on_error: Callable[[str, BaseException], None],
        kind: str = "sqlite",
        retry_s: float = 1.0,
        boot_id: Callable[[], str | None] = files.boot_id,
    ) -> None:
        self._engine = engine
        self._on_event = on_event
        self._on_error = on_error
        self._kind = kind
        self._accounts = Accounts()
        self._failover = Failover(
            open_primary,
            open_memory,
            self._accounts,
            name_instance=lambda: name_instance(boot_id(), engine.random_bytes),
            require=require,
            tell=self._tell,
            on_bug=self._refer,
            retry_s=retry_s,
            clock=engine,
        )
        self.account = self._accounts.name
        """The account of a client key: 32 hex digits, the same until the end. Needs `is_open`."""
        self._asked: list[_Asked] = []
        self._queue = engine.make_queue()
        self._has_thread = False
        self._is_at_work = False
        """True while the thread has operations whose results have not come back."""
        self._is_closed = False
        self._tending = Timer(lambda: None)
        self.is_open = False
        """True once the first try to open the ledger is over: accounts and time are known."""
        self._when_open: list[Waiter] | None = []
        """Who waits for it to open; None once all of them have gone on, one after the other."""
        self._closed = engine.waiter()
        self.committed_at = 0.0
        """When the commit whose results are being handed back was done, on the boot clock."""

    def start(self) -> None:
        """Begin to open the ledger, if that has not begun."""
        if self._has_thread:
            return
        try:
            self._engine.start_thread(self._run, "ledger")
            self._has_thread = True
        except RuntimeError:
            if not self.is_open:
                self._failover.open()
                self._note_open()
                self._tend_here()

    def wait_until_open(self) -> None:
        """Wait until `is_open`; who comes first goes on first."""
        self.start()
        if self._when_open is not None:
            waiter = self._engine.waiter()
            self._when_open.append(waiter)
            waiter.wait()

    def call(self, op: Operation) -> Any:
        """Wait until an operation is committed; its result, `Unavailable` or `Failed`."""
        if self._is_closed:
            return _CLOSED
        waiter = self._engine.waiter()
        self.post(op, waiter.wake)
        return waiter.wait()

    def post(self, op: Operation, done: Callable[[Any], object] = lambda _: None) -> None:
        """As `call` without waiting; `done` gets the result. Operations keep their order."""
        if self._is_closed:
            done(_CLOSED)
            return
        if not self._asked:
            self._engine.call_soon(self._flush)
        self._asked.append((op, done))
        if len(self._asked) >= _WAVE and self._has_thread and not self._is_at_work:
            self._flush()

    def now(self) -> float:
        """Seconds on the ledger's timeline. Needs `is_open`."""
        return self._engine.now() + self._accounts.offset_s

    @property
    def instance(self) -> str:
        """Name of this bridge as the owner of rows. Needs `is_open`."""
        return self._failover.outbox.instance

    @property
    def durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self._failover.outbox.is_durable

    def status(self) -> dict[str, Any]:
        """How the ledger is, for ``bridge.status``."""
        failover = self._failover
        trouble, primary = failover.outbox.trouble, failover.outbox.primary
        return {
            "kind": primary.kind if primary is not None else "memory" if self.is_open else self._kind,
            "durable": self.durable,
            "healthy": self.is_open and trouble is None,
            "state": "opening" if not self.is_open else "ok" if trouble is None else trouble.kind,
            "owed": failover.outbox.owed,
            "message": None if trouble is None else trouble.sentence,
        }

    def close(self, until: float) -> bool:
        """Finish what was asked for, write what is owed if that can be, and let go of the ledger.

        Returns:
            True if all that happened before that moment of the boot clock.
        """
        self.start()
        self._flush()
        self._is_closed = True
        if not self._has_thread:
            self._do(self._failover.close)
            return True
        self._queue.put(_END)
        try:
            self._closed.wait(until)
        except TimedOut:
            return False
        return True

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        if asked and not self._has_thread:
            self.start()
        for at in range(0, len(asked), MAX_BATCH):
            group = asked[at : at + MAX_BATCH]
            if self._has_thread:
                self._is_at_work = True
                self._queue.put(group)
            else:
                self._hand_back(group, self._failover.run([op for op, _ in group]), self._engine.now())
                self._tend_here()

    def _tend_here(self) -> None:
        """Without a thread: do what is due, and again when more is."""
        self._tending.cancel()
        if not self._has_thread and not self._is_closed:
            wait_s = self._do(self._failover.tend)
            if wait_s is not None:
                self._tending = self._engine.call_at(self._engine.now() + wait_s, self._tend_here)

    def _hand_back(self, group: list[_Asked], results: Sequence[Any], committed_at: float) -> None:
        self.committed_at = committed_at
        self._is_at_work = False
        for (_, done), result in zip(group, results, strict=True):
            try:
                done(result)
            except Exception as bug:
                # It must not take the results of others with it.
                self._engine.on_bug(bug)

    def _note_open(self) -> None:
        self.is_open = True
        waiting = self._when_open
        self._when_open = [] if waiting else None
        for waiter in waiting or ():
            waiter.wake()
        if waiting:
            # Who comes before they go on is let through after them.
            self._engine.call_soon(self._note_open)

    # --- on the ledger's thread --------------------------------------------------------------

    def _run(self) -> None:
        soon = self._engine.call_soon_from_thread
        if not self.is_open:
            self._failover.open()
            soon(self._note_open)
        while True:
            wait_s = self._do(self._failover.tend)
            try:
                group = self._queue.get(timeout=wait_s) if wait_s != 0.0 else self._queue.get_nowait()
            except Empty:
                continue
            ends = group is _END
            while not ends and len(group) < MAX_BATCH:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                ends = more is _END
                group = group + more
            if group:
                results = self._failover.run([op for op, _ in group])
                soon(self._hand_back, group, results, self._engine.now())
            if ends:
                break
        self._do(self._failover.close)
        soon(self._closed.wake)

    def _do(self, work: Callable[[], float | None]) -> float | None:
        """Do what is due or the last thing of all; a bug in it must not end what others wait for."""
        try:
            return work()
        except Exception as bug:
            self._engine.call_soon_from_thread(self._engine.on_bug, bug)
            return _AFTER_A_BUG_S

    # They are told in greenlets, so that a bug of who hears them takes nothing else with it.

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        self._engine.call_soon_from_thread(self._engine.spawn, self._on_event, name, fields)

    def _refer(self, error: BaseException) -> str:
        reference = self._engine.random_bytes(8).hex()
        self._engine.call_soon_from_thread(self._engine.spawn, self._on_error, reference, error)
        return reference
