"""Reads a ledger on a server for people, also while bridges work on it.

Every question is a read-only transaction of its own with a time-out, and the server does the counting.
Needs no right to write and not the ledger's secret. Imported by `bridge.ledger.statistics` and the doctor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final

from bridge.core.redact import Secret
from bridge.ledger.postgres_link import ServerRefused, connect, translated
from bridge.ledger.postgres_schema import QUERIES, clean, dump, identify
from bridge.ledger.rows import Rows, Statement
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import FOREIGN, NEWER, LedgerTrouble

QUICK_S: Final = 5.0
"""Longest time for a question that an index answers."""
SLOW_S: Final = 600.0
"""Longest time for a count of however many reports, or for a page of a list, whose filter may fit few."""
WRITE_S: Final = 60.0
"""Longest time for a statement of a copy."""
LOCK_S: Final = 2.0
"""Longest wait for a lock: nothing but a migration or an administrator keeps readers out."""
COUNTED: Final = 100_000
"""Up to so many reports their number is counted for `PostgresReader.health`; above, the server estimates."""
_MARGIN_S: Final = 1.0
"""How much longer we wait than the server may take, so that it is the server who says why."""
_SKEW_TRIES: Final = 3
_NEWER: Final = "A newer version of report-bridge has changed the ledger: install that version to read it."
_MISSING: Final = (
    "There is no ledger in the database yet: the first report makes it, or 'report-bridge ledger migrate'."
)
_SETTINGS: Final[Mapping[str, str]] = {
    "search_path": "report_bridge, pg_temp",
    "lock_timeout": str(round(LOCK_S * 1000)),
    # Nobody waits for the rest once a command was broken off.
    "client_connection_check_interval": "1000",
    # A bound of what the planner may expect of a hash table; some ten thousand groups need a few MiB.
    "work_mem": "131072",
    "jit": "off",
    "plan_cache_mode": "force_custom_plan",
}


class PostgresReader(Reader):
    """A ledger on a server opened for reading.

    Made by `open`. Who wants to know what is wrong makes one for any database, and asks for its `health`.

    Thread safety: none.

    Args:
        url: ``postgresql://…`` as libpq reads it.
        password: one that the usual sources do not have.
        wall: UNIX seconds of this host now.

    Raises:
        LedgerTrouble: there is no driver, no server, or it does not let us in.
    """

    step = 1_000_000  # a second or two, so that progress can be shown and no snapshot is held for long
    is_newest = "r.current"
    revision = ("revision",)
    renumber = ((QUERIES["skip_numbers"], ()),)

    def __init__(self, url: str, password: Secret | None, wall: float) -> None:
        self._to_wall_s = wall - time.monotonic()
        self._connect = partial(connect, url, password)
        self._link = self._connect()
        self.version = 0

    @classmethod
    def open(cls, url: str, password: Secret | None, wall: float) -> PostgresReader:
        """Open a ledger that exists and may be read.

        Raises:
            NoLedger: the database has none.
            LedgerTrouble: it cannot be read.
        """
        reader = cls(url, password, wall)
        try:
            found = identify(reader.ask)
            if found.version == 0:
                raise NoLedger(_MISSING)
            if found.is_newer:
                raise LedgerTrouble(NEWER, _NEWER)
            reader.ask(QUERIES["may_read"])
            reader.version = found.version
        except BaseException:
            reader.close()
            raise
        return reader

    # --- transactions ------------------------------------------------------------------------

    def _run(self, opening: str, statements: Sequence[Statement], wait_s: float) -> list[Rows]:
        """Run statements in a transaction of their own and one round trip; none of them takes longer."""
        settings = {**_SETTINGS, "statement_timeout": str(round(wait_s * 1000))}
        begun: list[Statement] = [(QUERIES[opening], ()), (QUERIES["settle_in"], [dump(settings)])]
        ended = (QUERIES["commit"], ())
        try:
            with translated():
                return self._link.run([*begun, *statements, ended], wait_s + _MARGIN_S)[2:-1]
        finally:
            if not self._link.is_idle:
                with suppress(ServerRefused):
                    self._link.ask(QUERIES["roll_back"])

    def ask(self, statement: str, values: Sequence[Any] = (), is_slow: bool = False) -> Rows:
        """Run one statement that changes nothing, in a transaction of its own."""
        return self._run("begin_reading", [(statement, values)], SLOW_S if is_slow else QUICK_S)[0]

    def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one commit."""
        cleaned = [(text, [_clean(value) for value in values]) for text, values in statements]
        self._run("begin", cleaned, WRITE_S)

    def shift_s(self) -> float:
        """What makes UNIX time of this host of a moment of the timeline."""
        return self._measure()[1]

    # --- health ------------------------------------------------------------------------------

    def health(self) -> Mapping[str, Any]:
        """Facts about the server, the ledger and this role; also where there is no ledger."""
        facts: dict[str, Any] = json.loads(self.ask(QUERIES["health"])[0][0])
        lacking = facts["lacking"]
        may_identify = not {"USAGE on the schema", "SELECT on versions"} & set(lacking)
        found = identify(self.ask) if may_identify else None
        is_counted = found is not None and found.version > 0 and "SELECT on reports" not in lacking
        if is_counted and (facts["reports"] or 0) <= COUNTED:
            ((facts["reports"],),) = self.ask(QUERIES["count_reports"], [], True)
        round_trip_s, skew_s = self._measure()
        return facts | {
            "path": self._link.place,
            "schemaVersion": None if found is None else found.version,
            "isNewer": found is not None and found.is_newer,
            "clockSkewS": skew_s,
            "roundTripS": round_trip_s,
        }

    def _measure(self) -> tuple[float, float]:
        """A round trip, and this host's clock minus the server's, as exact as half of it; in seconds."""
        measured = []
        for _ in range(_SKEW_TRIES):
            before = time.monotonic()
            told = self.ask(QUERIES["clock_reading"])[0][0]
            after = time.monotonic()
            measured.append((after - before, self._to_wall_s + (before + after) / 2 - told))
        return min(measured)

    def is_pooled(self) -> bool:
        """True if a pooler gives our session to others between transactions; False if none was noticed.

        Two sessions that are open at once never share a process of the server, and never change theirs.
        """
        pid = QUERIES["pid"]
        try:
            with translated(), closing(self._connect()) as other:
                ((mine,),), ((others,),) = self._link.ask(pid), other.ask(pid)
                if others == mine:
                    return True
                # While the other session is busy, a pooler gives us another one.
                other.run([(QUERIES["begin_reading"], []), (pid, [])], QUICK_S)
                return self._link.ask(pid) != [(mine,)]
        except LedgerTrouble as met:
            if met.kind == FOREIGN:
                return True
            raise

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten."""
        names = ("find_damage", "find_false_reports") if full else ("find_damage",)
        found = [told for name in names for (told,) in self.ask(QUERIES[name], [], True)]
        return tuple(found[:10])

    def is_at_work(self) -> bool:
        """True if a bridge works on the ledger now."""
        return bool(self.ask(QUERIES["is_at_work"])[0][0])

    def close(self) -> None:
        """Let go of the session. Idempotent."""
        self._link.close()


def _clean(value: Any) -> Any:
    """A value for the server."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return clean(value) if isinstance(value, str) else value
