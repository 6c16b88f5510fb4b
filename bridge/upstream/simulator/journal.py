"""What happened, call by call: the ground truth that tests compare a client's claims with.

Keys never get in: accounts are fingerprints, and heads are scrubbed. Guarded by its caller's lock.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

MAX_ENTRIES: Final = 50_000
"""Calls that are kept, about 500 bytes each; the counters and tallies go on without them."""
MAX_TALLIES: Final = 500_000
_MAX_FINGERPRINTS: Final = 10_000

_fingerprints: dict[str, str] = {}


def fingerprint(client_key: str) -> str:
    """Return how a key is named in the log: the first 12 hex digits of its SHA-256."""
    known = _fingerprints.get(client_key)
    if known is None:
        if len(_fingerprints) >= _MAX_FINGERPRINTS:
            _fingerprints.clear()
        known = hashlib.sha256(client_key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        _fingerprints[client_key] = known
    return known


class Entry:
    """One call, or one connection that a fault ended before a call could be read."""

    __slots__ = (
        "account",
        "at",
        "body_keys",
        "connection",
        "end",
        "ended_at",
        "error_id",
        "fault",
        "head",
        "key_in_head",
        "method",
        "number_on_connection",
        "reason",
        "sent",
        "seq",
        "status",
        "taken",
        "task_id",
        "verb",
        "wall",
    )

    def __init__(self, seq: int, at: float, wall: float, connection: int, number: int) -> None:
        self.seq = seq
        self.at = at
        self.wall = wall
        self.connection = connection
        self.number_on_connection = number
        self.verb: str | None = None
        self.method: str | None = None
        self.task_id: int | None = None
        self.account: str | None = None
        self.body_keys: tuple[str, ...] = ()
        self.head = b""
        self.key_in_head = False
        self.fault: str | None = None
        self.taken = False
        self.reason: str | None = None
        self.error_id: int | None = None
        self.status: int | None = None
        self.sent = "nothing"
        self.end = "open"
        self.ended_at: float | None = None

    def describe(self) -> dict[str, Any]:
        """Return the call as the control endpoint shows it."""
        return {
            "seq": self.seq,
            "at": self.at,
            "wall": self.wall,
            "connection": self.connection,
            "numberOnConnection": self.number_on_connection,
            "verb": self.verb,
            "method": self.method,
            "taskId": self.task_id,
            "account": self.account,
            "bodyKeys": list(self.body_keys),
            "headers": _read_headers(self.head),
            "keyInHead": self.key_in_head,
            "fault": self.fault,
            "taken": self.taken,
            "reason": self.reason,
            "errorId": self.error_id,
            "status": self.status,
            "sent": self.sent,
            "end": self.end,
            "endedAt": self.ended_at,
        }


class Tally:
    """How often a task was delivered, and what came of it."""

    __slots__ = ("delivered", "taken", "told")

    def __init__(self) -> None:
        self.delivered = 0
        self.taken = 0
        self.told = 0


class Journal:
    """The calls in order, the tallies by account and task, and the counters."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.tallies: dict[tuple[str, int], Tally] = {}
        self.seq = 0
        self.open_connections = 0
        self.in_flight = 0
        self._zero()

    def _zero(self) -> None:
        self.entries.clear()
        self.tallies.clear()
        # `seq` goes on over a reset, so that a reader's "since" never meets an old number again.
        self.accepted_sockets = 0
        self.connections = 0
        self.requests = 0
        self.taken = 0
        self.refused = 0
        self.unread = 0
        self.malformed = 0
        self.internal_errors = 0
        self.forgotten = 0
        self.max_in_flight = self.in_flight
        self.max_open_connections = self.open_connections

    def clear(self) -> None:
        """Forget everything but what is open right now."""
        self._zero()

    def begin(self, at: float, wall: float, connection: int, number: int) -> Entry:
        """Note that a call, or a connection about to be broken, has come in."""
        self.seq += 1
        if len(self.entries) == MAX_ENTRIES:
            self.forgotten += 1
        entry = Entry(self.seq, at, wall, connection, number)
        self.entries.append(entry)
        self.in_flight += 1
        if self.in_flight > self.max_in_flight:
            self.max_in_flight = self.in_flight
        return entry

    def deliver(self, account: str, task_id: int) -> Tally:
        """Note that a whole report for a task was read; return the task's tally."""
        tally = self.tallies.get((account, task_id))
        if tally is None:
            if len(self.tallies) >= MAX_TALLIES:
                del self.tallies[next(iter(self.tallies))]
            tally = self.tallies[account, task_id] = Tally()
        tally.delivered += 1
        return tally

    def finish(self, entry: Entry, at: float, end: str) -> None:
        """Note how a call ended; a second time changes nothing."""
        if entry.ended_at is None:
            entry.end = end
            entry.ended_at = at
            self.in_flight -= 1

    def select(
        self, since: int = 0, task_id: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return calls with a number above `since`, oldest first."""
        found: list[dict[str, Any]] = []
        for entry in self.entries:
            if entry.seq > since and (task_id is None or entry.task_id == task_id):
                if limit is not None and len(found) >= limit:
                    break
                found.append(entry.describe())
        return found

    def deliveries(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the tallies, of one task or of all."""
        return list(self._each_tally(task_id))

    def _each_tally(self, task_id: int | None) -> Iterator[dict[str, Any]]:
        for (account, number), tally in self.tallies.items():
            if task_id is None or number == task_id:
                yield {
                    "taskId": number,
                    "account": account,
                    "delivered": tally.delivered,
                    "taken": tally.taken,
                    "told": tally.told,
                }

    def counters(self) -> dict[str, int]:
        """Return the counters as the control endpoint shows them."""
        return {
            "acceptedSockets": self.accepted_sockets,
            "connections": self.connections,
            "openConnections": self.open_connections,
            "maxOpenConnections": self.max_open_connections,
            "requests": self.requests,
            "inFlight": self.in_flight,
            "maxInFlight": self.max_in_flight,
            "taken": self.taken,
            "refused": self.refused,
            "unread": self.unread,
            "malformed": self.malformed,
            "internalErrors": self.internal_errors,
            "forgottenEntries": self.forgotten,
            "lastSeq": self.seq,
        }


def _read_headers(head: bytes) -> list[list[str]]:
    """Return header lines as pairs of name and value, as received."""
    pairs = []
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        pairs.append([name, value.strip(" \t")])
    return pairs
