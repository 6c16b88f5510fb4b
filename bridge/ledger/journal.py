"""The ledger as the service sees it: operations go in from any thread, answers come out after the commit.

One thread owns the stores. It takes everything that is queued, commits it together, and then calls
back in order. What happens in bad days is decided by `bridge.ledger.degraded`, not here.
"""

from __future__ import annotations

import os
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock, Thread, current_thread, get_ident
from typing import Any, Final

from bridge.core.model import Operation
from bridge.ledger.degraded import Pair
from bridge.ledger.dialect import Accounts
from bridge.ledger.ours import Failed, Unavailable
from bridge.ledger.store import Store

__all__ = ["Failed", "Journal", "Unavailable"]

MAX_BATCH: Final = 256
"""Operations in one commit, after which no more is taken. Four times what a full load has in flight at
the default concurrency, so that it hardly ever binds, and little enough to keep one commit short."""
_CLOSED: Final = Unavailable("closed", "The bridge has stopped.")

Done = Callable[[Any], None]
_Batch = list[tuple[Operation, Done]]
_END: Final[_Batch] = []
"""What is queued to end the thread: a batch that is empty."""


class Journal:
    """Takes operations from all threads and commits them in groups on its own.

    Args:
        open_primary: opens the ledger, called on the journal's thread; None if memory was asked for.
        open_memory: opens an empty store in memory.
        require: refuse reports, with `Unavailable`, while the ledger is in trouble.
        on_event: takes name and fields of an event, once per change, on the journal's thread.
        on_error: takes a random reference and an unexpected exception, for the log.
        deliver: calls what it is given soon, elsewhere, in order; without it results are told on the
            journal's thread.
        starts: False to leave it to `start` when the ledger is opened.
        retry_s: seconds between two tries to come back to a ledger in trouble; tries to open one
            become rarer, up to 30 s.
        boot_clock: seconds since boot, suspend included; with the ledger's offset, the timeline.

    Thread safety: everything may be called from any thread.
    """

    def __init__(
        self,
        open_primary: Callable[[], Store] | None,
        open_memory: Callable[[], Store],
        *,
        require: bool,
        on_event: Callable[[str, Mapping[str, Any]], None],
        on_error: Callable[[str, BaseException], None] | None = None,
        deliver: Callable[[Callable[[], None]], None] | None = None,
        starts: bool = True,
        retry_s: float = 1.0,
        boot_clock: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._on_event = on_event
        self._on_error = on_error
        self._boot_clock = boot_clock or _boot_clock
        self._accounts = Accounts()
        self._deliver = deliver
        self._queue: SimpleQueue[_Batch] = SimpleQueue()
        self._collector: int | None = None
        self._collected: _Batch = []
        self._opened = Event()
        self._at_open: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_over = False
        self.committed_boot = 0.0
        """When the batch whose results are being told was committed; for whom they are told to."""
        self._pair = Pair(
            open_primary,
            open_memory,
            self._accounts,
            require=require,
            tell=self._tell,
            on_bug=self._refer,
            retry_s=retry_s,
            clock=clock,
            wall=wall,
        )
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._start_lock = Lock()
        if starts:
            self.start()

    def start(self) -> None:
        """Begin to open the ledger, if that has not begun."""
        with self._start_lock:
            if self._thread.ident is None:
                self._thread.start()

    def _wait_until_open(self) -> None:
        self.start()
        self._opened.wait()

    # --- for the service ---------------------------------------------------------------------

    def submit(self, op: Operation, done: Done) -> None:
        """Queue an operation; ``done`` gets its result after the commit. Never blocks, never raises.

        ``done`` is called exactly once, where the journal delivers and in the order of the calls (after
        `close`: at once, with `Unavailable`). It should be quick: everybody's answers wait for it.
        """
        if get_ident() == self._collector:
            self._collected.append((op, done))
            return
        self._queue.put([(op, done)])
        if self._is_over:
            self._refuse_rest()

    def collect(self) -> None:
        """From now on keep what this thread submits until it calls `flush`: one commit, one wake-up."""
        self._collector = get_ident()

    def deliver_itself(self) -> None:
        """Tell results on the journal's thread from now on: where they went, nobody calls any more."""
        self.flush()
        self._collector = self._deliver = None

    def flush(self) -> None:
        """Queue what was collected."""
        if self._collected:
            batch, self._collected = self._collected, []
            for at in range(0, len(batch), MAX_BATCH):
                self._queue.put(batch[at : at + MAX_BATCH])
            if self._is_over:
                self._refuse_rest()

    def call(self, op: Operation, timeout_s: float) -> Any:
        """Run one operation and wait for its result.

        Raises:
            TimeoutError: no result within ``timeout_s`` seconds; the operation may still happen.
        """
        answers: SimpleQueue[Any] = SimpleQueue()
        self.submit(op, answers.put)
        try:
            return answers.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError("the ledger did not answer in time") from None

    def account(self, secret_text: str) -> str:
        """The account of a client key: 32 hex digits of a keyed BLAKE2b, the same until the end.

        Waits until the first try to open the ledger is over.
        """
        if self._accounts.secret is None:
            self._wait_until_open()
        return self._accounts.name(secret_text)

    def now(self) -> float:
        """Seconds on the ledger's timeline. Waits until the first try to open the ledger is over."""
        if self._accounts.secret is None:
            self._wait_until_open()
        return self._boot_clock() + self._accounts.offset_s

    def when_open(self, use: Callable[[], None]) -> None:
        """Call back once the first try to open the ledger is over: at once if it is and this is where
        the journal delivers, else there. Until then `account` and `now` would wait."""
        if self._opened.is_set():
            if self._deliver is None or get_ident() == self._collector:
                use()
            else:
                self._deliver(use)
            return
        self._at_open.put(use)
        if self._opened.is_set():
            self._open()

    @property
    def instance(self) -> str:
        """Name of this bridge in the store that is in use."""
        self._wait_until_open()
        primary = self._pair.condition.primary
        return "" if primary is None else primary.instance

    @property
    def durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self._pair.is_durable

    def status(self) -> dict[str, Any]:
        """How the ledger is, for ``bridge.status``."""
        condition = self._pair.condition
        trouble, primary = condition.trouble, condition.primary
        is_open = self._opened.is_set()
        return {
            "kind": "memory" if primary is None else primary.kind,
            "durable": self.durable,
            "healthy": is_open and trouble is None,
            "state": "opening" if not is_open else "ok" if trouble is None else trouble.kind,
            "owed": self._pair.owed.count,
            "message": None if trouble is None else trouble.sentence,
        }

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued, write what is owed if that can be, and let go of the ledger.

        Returns:
            True if all that happened within ``timeout_s`` seconds.
        """
        self.start()
        self.flush()
        self._queue.put(_END)
        if current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._pair.start()
        except BaseException as error:
            # Without even a store in memory nothing can be promised: every answer is a refusal.
            self._refer(error)
            self._accounts.settle(os.urandom(32), 0.0)
            self._open()
            self._end()
            return
        self._open()
        while self._step():
            pass
        try:
            self._pair.close()
        except Exception as error:
            self._refer(error)
        self._end()

    def _open(self) -> None:
        self._opened.set()
        while True:
            try:
                use = self._at_open.get_nowait()
            except Empty:
                return
            if self._deliver is None:
                self._use(use)
            else:
                self._deliver(partial(self._use, use))

    def _use(self, use: Callable[[], None]) -> None:
        try:
            use()
        except Exception as error:
            self._refer(error)

    def _step(self) -> bool:
        """Wait for operations, commit them and answer; False at the end."""
        pair, queue = self._pair, self._queue
        wait_s = pair.tend()
        try:
            item = queue.get(timeout=wait_s) if wait_s != 0.0 else queue.get_nowait()
        except Empty:
            return True
        batch: _Batch = []
        while item is not _END:
            batch += item
            if len(batch) >= MAX_BATCH or queue.empty():
                break
            # This thread is the only one that takes.
            item = queue.get_nowait()
        if batch:
            results = pair.apply([op for op, _ in batch])
            tell = partial(self._tell_all, batch, results, self._boot_clock())
            if self._deliver is None:
                tell()
            else:
                self._deliver(tell)
        return item is not _END

    def _tell_all(self, batch: _Batch, results: Sequence[Any], committed_boot: float) -> None:
        self.committed_boot = committed_boot
        for (_, done), result in zip(batch, results, strict=True):
            self._answer(done, result)

    def _answer(self, done: Done, result: Any) -> None:
        try:
            done(result)
        except Exception as error:
            self._refer(error)

    def _end(self) -> None:
        self._is_over = True
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Answer what came too late. Any thread may do it: each item is taken once."""
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            for _, done in item:
                self._answer(done, _CLOSED)

    # --- telling -----------------------------------------------------------------------------

    def _refer(self, error: BaseException) -> str:
        reference = os.urandom(8).hex()
        if self._on_error is not None:
            try:
                self._on_error(reference, error)
            except Exception:
                # A log that fails must not take the ledger with it, and there is nobody left to tell.
                return reference
        return reference

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        try:
            self._on_event(name, fields)
        except Exception as error:
            self._refer(error)


_boot_clock: Final = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
