"""The ledger as everybody else sees it: operations go in, answers come out after the commit.

What is asked in one turn of the engine is committed together, on the one thread that owns the stores. What
happens in bad days is decided by `bridge.ledger.failover`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.counting import Operation
from bridge.engine import Engine
from bridge.engine.worker import Worker
from bridge.ledger import files
from bridge.ledger.failover import Failover
from bridge.ledger.owners import name_instance
from bridge.ledger.port import Failed, MemoryStore, Store, Unavailable
from bridge.ledger.translation import Accounts

__all__ = ["Failed", "Ledger", "Unavailable"]

MAX_BATCH: Final = 256
"""Operations in one commit, after which no more is taken. Four times what a full load has in flight at
the default concurrency, so that it hardly ever binds, and little enough to keep one commit short."""
_CLOSED: Final = Unavailable("closed", "The bridge has stopped.")


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
            now=engine.now,
            wall=engine.wall,
        )
        self._worker = Worker(engine, self._failover, "ledger", MAX_BATCH, _CLOSED)
        self.account = self._accounts.name
        """The account of a client key: 32 hex digits, the same until the end. Needs `is_open`."""
        self.start = self._worker.start
        """Begin to open the ledger, if that has not begun."""
        self.wait_until_open = self._worker.wait_until_open
        """Wait until `is_open`."""
        self.call: Callable[[Operation], Any] = self._worker.call
        """Wait until an operation is committed; its result, `Unavailable` or `Failed`."""

    @property
    def is_open(self) -> bool:
        """True once the first try to open the ledger is over: accounts and time are known."""
        return self._worker.is_open

    def post(self, op: Operation, done: Callable[[Any], object] = lambda _: None) -> None:
        """As `call` without waiting; `done` gets the result. Operations keep their order."""
        self._worker.post(op, done)

    def _guarded(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as bug:
            # It must not take the answers of others with it.
            self._engine.on_bug(bug)

    @property
    def committed_at(self) -> float:
        """When the commit whose results are being handed back was done, on the boot clock."""
        return self._worker.done_at

    def now(self) -> float:
        """Seconds on the ledger's timeline. Needs `is_open`."""
        return self._engine.now() + self._accounts.offset_s

    @property
    def instance(self) -> str:
        """Name of this bridge as the owner of rows. Needs `is_open`."""
        return self._failover.condition.instance

    @property
    def durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self._failover.condition.is_durable

    def status(self) -> dict[str, Any]:
        """How the ledger is, for ``bridge.status``."""
        failover = self._failover
        trouble, primary = failover.condition.trouble, failover.condition.primary
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
        return self._worker.close(until)

    # --- on the ledger's thread --------------------------------------------------------------

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        self._engine.call_soon_from_thread(self._guarded, self._on_event, name, fields)

    def _refer(self, error: BaseException) -> str:
        reference = self._engine.random_bytes(8).hex()
        self._engine.call_soon_from_thread(self._guarded, self._on_error, reference, error)
        return reference
