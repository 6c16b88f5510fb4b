"""What happened, call by call: the ground truth that tests compare a client's claims with.

Keys never get in: accounts are fingerprints, and heads are scrubbed. Its clocks are handed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from bridge.simulator.shapes import to_json

MAX_ENTRIES: Final = 50_000
"""Calls that are kept, about 500 bytes each; the counters and tallies go on without them."""
MAX_TALLIES: Final = 500_000

_COUNTERS: Final = (
    "acceptedSockets connections openConnections maxOpenConnections requests inFlight maxInFlight "
    "taken refused unread malformed internalErrors forgottenEntries lastSeq"
)
# `lastSeq` goes on over a reset, so that a reader's "since" never meets an old number again.
_KEPT: Final = ("openConnections", "inFlight", "lastSeq")


@lru_cache(10_000)
def fingerprint(client_key: str) -> str:
    """Return how a key is named in the log: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(client_key.encode("utf-8", "surrogatepass")).hexdigest()[:12]


Rows = list[dict[str, Any]]
"""What a list at the control endpoint holds."""
Tally = dict[str, Any]
"""How often a task was delivered, and what came of it, as the control endpoint shows it."""


class Entry:
    """One call, or one connection that a fault ended before a call could be read."""

    seq: int
    at: float
    wall: float
    connection: int
    number_on_connection: int
    verb: str | None = None
    method: str | None = None
    task_id: int | None = None
    account: str | None = None
    body_keys: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = ()
    key_in_head: bool = False
    fault: str | None = None
    taken: bool = False
    reason: str | None = None
    error_id: int | None = None
    status: int | None = None
    sent: str = "nothing"
    end: str = "open"
    ended_at: float | None = None
    tally: Tally | None = None
    """Of the task, if this was a whole report."""

    def describe(self) -> dict[str, Any]:
        """Return the call as the control endpoint shows it."""
        lists = {"bodyKeys": list(self.body_keys), "headers": [list(pair) for pair in self.headers]}
        return {**to_json(self, _ENTRY_FIELDS), **lists}


_ENTRY_FIELDS: Final = tuple(name for name in Entry.__annotations__ if name != "tally")


class Journal:
    """The calls in order, the tallies by account and task, and the counters.

    Args:
        now: seconds that never go back.
        wall: UNIX seconds on the simulated upstream's clock.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now, self._wall = now, wall
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.tallies: OrderedDict[tuple[str, int], Tally] = OrderedDict()
        self.counters = dict.fromkeys(_COUNTERS.split(), 0)

    def clear(self) -> None:
        """Forget everything but what is open right now."""
        self.entries.clear()
        self.tallies.clear()
        self.counters = {name: self.counters[name] if name in _KEPT else 0 for name in self.counters}
        self.counters["maxInFlight"] = self.counters["inFlight"]
        self.counters["maxOpenConnections"] = self.counters["openConnections"]

    def rise(self, name: str, highest: str) -> None:
        """Count one more of what comes and goes, and its highest number."""
        self.counters[name] += 1
        self.counters[highest] = max(self.counters[highest], self.counters[name])

    def begin(self, connection: int, number: int, **known: Any) -> Entry:
        """Note that a call, or a connection about to be broken, has come in, and what is known of it."""
        self.counters["lastSeq"] += 1
        self.counters["forgottenEntries"] += len(self.entries) == self.entries.maxlen
        self.rise("inFlight", "maxInFlight")
        entry = Entry()
        entry.seq, entry.at, entry.wall = self.counters["lastSeq"], self._now(), self._wall()
        vars(entry).update(connection=connection, number_on_connection=number, **known)
        self.entries.append(entry)
        return entry

    def deliver(self, account: str, task_id: int) -> Tally:
        """Note that a whole report for a task was read; return the task's tally."""
        tally = self.tallies.get((account, task_id))
        if tally is None:
            if len(self.tallies) >= MAX_TALLIES:
                self.tallies.popitem(last=False)
            tally = {"taskId": task_id, "account": account, "delivered": 0, "taken": 0, "told": 0}
            self.tallies[account, task_id] = tally
        tally["delivered"] += 1
        return tally

    def finish(self, entry: Entry, end: str) -> None:
        """Note how a call ended."""
        entry.end, entry.ended_at = end, self._now()
        self.counters["inFlight"] -= 1
        if entry.tally is not None and entry.sent == "verdict" and entry.error_id == 0:
            entry.tally["told"] += 1

    def select(self, since: int = 0, task_id: int | None = None, limit: int | None = None) -> Rows:
        """Return calls with a number above `since`, oldest first."""
        found = (one for one in self.entries if one.seq > since and task_id in (None, one.task_id))
        return [entry.describe() for entry in islice(found, limit)]

    def deliveries(self, task_id: int | None = None) -> Rows:
        """Return the tallies, of one task or of all."""
        return [dict(tally) for tally in self.tallies.values() if task_id in (None, tally["taskId"])]
