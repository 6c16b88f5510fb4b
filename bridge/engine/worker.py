"""One thread for work that blocks and is best done in groups: what one turn asks for goes over together.

The ledger is its only user. Where no thread can be had the work is done in the engine's, until one can.
"""

from __future__ import annotations

from _queue import Empty
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from bridge.engine.core import Engine, Timer, Waiter

_END: Final[list[tuple[Any, Callable[[Any], object]]]] = []


_AFTER_A_BUG_S: Final = 1.0
_WAVE: Final = 16
"""So many items go over at once to a thread that has nothing to do: it works while the rest is asked for."""


class Work(Protocol):
    """What the thread does. Called by one thread at a time."""

    def open(self) -> None:
        """Do first of all what may take long."""

    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        """Do what was asked for together; one result for each. Raises nothing."""

    def tend(self) -> float | None:
        """Do what is due without being asked; seconds until more is, None if nothing will be."""

    def close(self) -> None:
        """Let go of everything."""


class Worker:
    """Hands items to a thread and results back.

    Args:
        most: items done together at most.
        closed: the result of what is asked after the end.

    Thread safety: everything belongs to the engine's thread.
    """

    def __init__(self, engine: Engine, work: Work, name: str, most: int, closed: Any) -> None:
        self._engine = engine
        self._work = work
        self._name = name
        self._most = most
        self._late_result = closed
        self._asked: list[tuple[Any, Callable[[Any], object]]] = []
        self._queue = engine.make_queue()
        self._has_thread = False
        self._is_at_work = False
        """True while the thread has items whose results have not come back."""
        self._is_closed = False
        self._tending = Timer(lambda: None)
        self.is_open = False
        self._when_open: list[Waiter] | None = []
        """Who waits for it to open; None once all of them have gone on, one after the other."""
        self._closed = engine.waiter()
        self.done_at = 0.0
        """When the group whose results are being handed back was done, on the boot clock."""

    def start(self) -> None:
        """Begin to open, if that has not begun."""
        if self._has_thread:
            return
        try:
            self._engine.start_thread(self._run, self._name)
        except RuntimeError:
            if not self.is_open:
                self._work.open()
                self._note_open()
                self._tend_here()
        else:
            self._has_thread = True

    def wait_until_open(self) -> None:
        """Wait until the work has been opened; who comes first goes on first."""
        if not self.is_open:
            self.start()
        if self._when_open is not None:
            waiter = self._engine.waiter()
            self._when_open.append(waiter)
            waiter.wait()

    def call(self, item: Any) -> Any:
        """Have something done and wait for its result."""
        if self._is_closed:
            return self._late_result
        waiter = self._engine.waiter()
        self.post(item, waiter.wake)
        return waiter.wait()

    def post(self, item: Any, done: Callable[[Any], object]) -> None:
        """Have something done; `done` gets its result in the engine's thread. Items keep their order."""
        if self._is_closed:
            done(self._late_result)
            return
        if not self._asked:
            self._engine.call_soon(self._flush)
        self._asked.append((item, done))
        if len(self._asked) >= _WAVE and self._has_thread and not self._is_at_work:
            self._flush()

    def close(self, until: float) -> bool:
        """Finish what was asked for and let go of everything; False if that took longer."""
        self.start()
        self._flush()
        self._is_closed = True
        if not self._has_thread:
            self._do(self._work.close)
            return True
        self._queue.put(_END)
        try:
            self._closed.wait(until)
        except TimeoutError:
            return False
        return True

    # --- the engine's side -------------------------------------------------------------------

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        if not asked:
            return
        self.start()
        for at in range(0, len(asked), self._most):
            group = asked[at : at + self._most]
            if not self._has_thread:
                self._hand_back(group, self._work.run([item for item, _ in group]), self._engine.now())
                self._tend_here()
            else:
                self._is_at_work = True
                self._queue.put(group)

    def _tend_here(self) -> None:
        """Without a thread: do what is due, and again when more is."""
        self._tending.cancel()
        if not self._has_thread and not self._is_closed:
            wait_s = self._do(self._work.tend)
            if wait_s is not None:
                self._tending = self._engine.call_at(self._engine.now() + wait_s, self._tend_here)

    def _hand_back(
        self, group: list[tuple[Any, Callable[[Any], object]]], results: Sequence[Any], done_at: float
    ) -> None:
        self.done_at = done_at
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

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        soon = self._engine.call_soon_from_thread
        if not self.is_open:
            self._work.open()
            soon(self._note_open)
        while True:
            wait_s = self._do(self._work.tend)
            try:
                group = self._queue.get(timeout=wait_s) if wait_s != 0.0 else self._queue.get_nowait()
            except Empty:
                continue
            ends = group is _END
            while not ends and len(group) < self._most:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                ends = more is _END
                group = group + more
            if group:
                results = self._work.run([item for item, _ in group])
                soon(self._hand_back, group, results, self._engine.now())
            if ends:
                break
        self._do(self._work.close)
        soon(self._closed.wake)

    # --- in either -----------------------------------------------------------------------------

    def _do(self, work: Callable[[], float | None]) -> float | None:
        """Do what is due or the last thing of all; a bug in it must not end what others wait for."""
        try:
            return work()
        except Exception as bug:
            self._engine.call_soon_from_thread(self._engine.on_bug, bug)
            return _AFTER_A_BUG_S
