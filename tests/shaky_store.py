"""A store whose troubles are scripted, over the real one in memory; and values to feed it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge.core.model import (
    ACCEPTED,
    Claim,
    Ending,
    Facts,
    Record,
    Task,
    Verdict,
    Window,
)
from bridge.ledger.port import Seen
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.transfer import READS
from bridge.ledger.trouble import READABLE, LedgerTrouble
from bridge.reports.pauses import PausePolicy

METHOD = "reportIncorrectImageCaptcha"
OTHER_METHOD = "reportIncorrectRecaptcha"
ENDPOINT = "http://127.0.0.1:1"
ACCOUNT = "a" * 32
OK = Ending(ACCEPTED, 0, "accepted")
UNSENT = Ending("not_sent", -32001, "upstream_unreachable")


class Times:
    """Clocks that stand still until they are moved."""

    def __init__(self) -> None:
        self.boot = 1_000.0
        self.wall = 1_700_000_000.0

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.boot += seconds
        self.wall += seconds


class Still:
    """A clock that stands still."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def now(self) -> float:
        """Seconds since boot."""
        return self._times.boot

    def wall(self) -> float:
        """UNIX seconds."""
        return self._times.wall


def open_memory(times: Times, enabled: bool = True, instance: str | None = None) -> SqliteStore:
    """The real store, in memory; `close_all` closes it."""
    store = SqliteStore(
        None,
        policy=PausePolicy("machine", enabled=enabled),
        boot_clock=lambda: times.boot,
        wall_clock=lambda: times.wall,
        instance=instance,
    )
    _opened.append(store)
    return store


def close_all() -> None:
    """Close what `open_memory` has opened, as Python's own SQLite wants it; once more does no harm."""
    while _opened:
        _opened.pop().close()


_opened: list[SqliteStore] = []


class ShakyStore:
    """Fits the port; says it is durable; fails with the kind in `fail` until that is None."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.kind = "sqlite"
        self.secret = store.secret
        self.clock_offset_s = store.clock_offset_s
        self.instance = store.instance
        self.notices: list[Any] = []
        self.trouble: LedgerTrouble | None = None
        self.busy_s = 2.0
        self.fail: str | None = None
        self.fails_after_commit = False
        self.is_in_doubt = False
        self.commits: list[list[Any]] = []
        self.tries = 0
        self.is_closed = False
        store.durable = True

    @property
    def durable(self) -> bool:
        """True until a test says otherwise."""
        return self.store.durable

    @durable.setter
    def durable(self, value: bool) -> None:
        self.store.durable = value

    def _check(self, writes: bool) -> None:
        if self.fail is not None and (writes or self.fail not in READABLE):
            trouble = LedgerTrouble(self.fail)
            trouble.is_in_doubt = self.is_in_doubt
            raise trouble

    def transact(self, operations: Sequence[Any]) -> list[Any]:
        """Commit, or fail as scripted."""
        if READS.issuperset(map(type, operations)):
            self._check(writes=False)
            return self.store.transact(operations)
        self.tries += 1
        if not self.fails_after_commit:
            self._check(writes=True)
        results = self.store.transact(operations)
        self.commits.append(list(operations))
        if self.fails_after_commit:
            self._check(writes=True)
        return results

    @property
    def seen(self) -> Seen:
        """As the real store."""
        return self.store.seen

    def is_alive(self, instance: str) -> bool:
        """As the real store."""
        return self.store.is_alive(instance)

    def tend(self) -> float | None:
        """Nothing is due."""
        return None

    def close(self) -> None:
        """Remember it; the rows stay for the test to look at."""
        self.is_closed = True


def task(number: int = 1, account: str = ACCOUNT) -> Task:
    """A task."""
    return Task(ENDPOINT, account, number)


def claim(number: int = 1, method: str = METHOD, begin: bool = True, account: str = ACCOUNT) -> Claim:
    """A claim with an open window."""
    return Claim(task(number, account), method, Window(None, 1_700_000_000.0), Facts(), begin)


def verdict(outcome: str = ACCEPTED, **more: Any) -> Verdict:
    """What an attempt proved; by default that the report was taken."""
    fields: dict[str, Any] = {
        "outcome": outcome,
        "code": 0 if outcome == ACCEPTED else -32001,
        "kind": "accepted" if outcome == ACCEPTED else "upstream_unreachable",
        "event": "accepted" if outcome == ACCEPTED else "dns_failure",
        "next": "done",
        "perhaps": False,
        "is_send": outcome == ACCEPTED,
        "has_status": outcome == ACCEPTED,
        "has_verdict": outcome == ACCEPTED,
    }
    return Verdict(**{**fields, **more})


def record(number: int = 1, ending: Ending | None = OK, account: str = ACCOUNT, **more: Any) -> Record:
    """The end of an attempt."""
    outcome = "not_sent" if ending is None else ending.outcome
    if ending is None:
        more = {"is_send": True, **more}
    return Record(task(number, account), verdict(outcome, **more), 1_700_000_000.0, 12, ending)
