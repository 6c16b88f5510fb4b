"""What happened, call by call: the ground truth that tests compare a client's claims with.

Keys never get in: accounts are fingerprints, and heads are scrubbed. Its clocks are handed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, Final

MAX_ENTRIES: Final = 50_000
"""Calls that are kept, about 500 bytes each; the counters and tallies go on without them."""
MAX_TALLIES: Final = 500_000

_COUNTERS: Final = (
    "acceptedSockets connections openConnections maxOpenConnections requests inFlight maxInFlight "
    "taken refused unread malformed internalErrors forgottenEntries lastSeq"
)
_NOT_YET: Final = "endedAt verb method taskId account fault reason errorId status"
# `lastSeq` goes on over a reset, so that a reader's "since" never meets an old number again.
_KEPT: Final = ("openConnections", "inFlight", "lastSeq")


@lru_cache(10_000)
def fingerprint(client_key: str) -> str:
    """Return how a key is named in the log: the first 12 hex digits of its SHA-256."""
    return hashlib.sha256(client_key.encode("utf-8", "surrogatepass")).hexdigest()[:12]


Row = dict[str, Any]
"""A call, or how often a task was delivered and what came of it, as the control endpoint shows them."""
Rows = list[Row]
"""What a list at the control endpoint holds."""


class Journal:
    """The calls in order, the tallies by account and task, and the counters.

    Args:
        now: seconds that never go back.
        wall: UNIX seconds on the simulated upstream's clock.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now, self._wall = now, wall
        self.entries: deque[Row] = deque(maxlen=MAX_ENTRIES)
        self.tallies: OrderedDict[tuple[str, int], Row] = OrderedDict()
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

    def begin(self, connection: int, number: int, **known: Any) -> Row:
        """Note that a call, or a connection about to be broken, has come in, and what is known of it."""
        self.counters["lastSeq"] += 1
        self.counters["forgottenEntries"] += len(self.entries) == self.entries.maxlen
        self.rise("inFlight", "maxInFlight")
        entry = {
            "seq": self.counters["lastSeq"],
            "at": self._now(),
            "wall": self._wall(),
            "connection": connection,
            "numberOnConnection": number,
            **dict.fromkeys(_NOT_YET.split()),
            "bodyKeys": [],
            "headers": [],
            "keyInHead": False,
            "taken": False,
            "sent": "nothing",
            "end": "open",
            **known,
        }
        self.entries.append(entry)
        return entry

    def deliver(self, account: str, task_id: int) -> Row:
        """Note that a whole report for a task was read; return the task's tally."""
        tally = self.tallies.get((account, task_id))
        if tally is None:
            if len(self.tallies) >= MAX_TALLIES:
                self.tallies.popitem(last=False)
            tally = {"taskId": task_id, "account": account, "delivered": 0, "taken": 0, "told": 0}
            self.tallies[account, task_id] = tally
        tally["delivered"] += 1
        return tally

    def finish(self, entry: Row, end: str) -> None:
        """Note how a call ended."""
        entry["end"], entry["endedAt"] = end, self._now()
        self.counters["inFlight"] -= 1
        tally = self.tallies.get((entry["account"], entry["taskId"]))
        if tally is not None and entry["sent"] == "verdict" and entry["errorId"] == 0:
            tally["told"] += 1

    def select(self, since: int = 0, task_id: int | None = None, limit: int | None = None) -> Rows:
        """Return calls with a number above `since`, oldest first."""
        found = (one for one in self.entries if one["seq"] > since and task_id in (None, one["taskId"]))
        return [dict(entry) for entry in islice(found, limit)]

    def deliveries(self, task_id: int | None = None) -> Rows:
        """Return the tallies, of one task or of all."""
        return [dict(tally) for tally in self.tallies.values() if task_id in (None, tally["taskId"])]
