"""Reads a SQLite ledger for people, also while bridges work on it.

One statement per step, over a bounded number of reports: with a rollback journal nobody can commit
while a statement reads, and a bridge waits 2 s at most. Imported by `bridge.ledger.figures` only.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

from bridge.core.model import OUTCOMES, Listing, PauseState, Row
from bridge.ledger import files, sqlite_file
from bridge.ledger import sqlite_batch as sql
from bridge.ledger import sqlite_driver as sqlite3
from bridge.ledger.figures import (
    IN_FLIGHT,
    MAX_AGE_S,
    MAX_LATENCY_MS,
    Age,
    Cause,
    Cell,
    Figures,
    Found,
    Latency,
    NoLedger,
    Pause,
    Progress,
    Span,
    move,
)
from bridge.ledger.port import EventRow
from bridge.ledger.rows import to_pause, to_row
from bridge.ledger.trouble import CORRUPT, UNREADABLE, LedgerTrouble

STEP: Final = 50_000
"""Reports per statement: about 60 ms were measured, so a bridge that commits hardly notices."""
BUSY_S: Final = 10.0
"""How long a reader waits for a bridge that is committing."""
_OUTCOMES: Final = (*OUTCOMES, IN_FLIGHT)
_OTHER: Final = 7
"""Number of a method that is not in the list; three bits hold it."""
_NO_AGE: Final = 1023

# Each report becomes three whole numbers, and Python counts equal ones: a GROUP BY would sort a million
# rows three times. From the right: which of the three (2 bits), outcome (3), method (3), then the rest.
_CELL, _AGE, _LATENCY = range(3)
_OUTCOME_AT, _METHOD_AT, _REST_AT = 2, 5, 8
_CODE_BITS: Final = 33
_CODE_SHIFT: Final = 1 << 32
"""Added to a code, so that no part is negative."""
_AGE_BITS: Final = 10
_FATES: Final = ("", "error_16", "window_closed")

_PAUSES: Final = """
    SELECT CAST(at_wall / 3600 AS INTEGER), data FROM events
    WHERE name = 'pause_opened' AND report BETWEEN :first AND :last {}
"""
_CAUSES: Final = """
    SELECT r.code, json_extract(r.detail, '$.cause'), json_extract(r.detail, '$.httpStatus'), count(*)
    FROM reports AS r WHERE r.seq BETWEEN :first AND :last AND r.code BETWEEN -32003 AND -32001 {}
    GROUP BY 1, 2, 3
"""
_PAUSE_COLUMNS: Final = (
    "subject, rule, state, cause, streak, recent, level, opened_at, ends_at, probe_owner, probe_task, context"
)


class SqliteReader:
    """A SQLite ledger opened for reading; fits `bridge.ledger.figures.Reader`.

    Thread safety: none.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._clocks: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def open(cls, path: str, boot_s: float, wall: float) -> SqliteReader:
        """Open a ledger that exists.

        Args:
            boot_s: seconds since boot now, suspend included.
            wall: UNIX seconds now.

        Raises:
            NoLedger: there is no file.
            LedgerTrouble: it cannot be read.
        """
        try:
            is_empty = os.stat(path).st_size == 0
        except (FileNotFoundError, NotADirectoryError):
            is_empty = True
        except OSError as error:
            raise LedgerTrouble(UNREADABLE) from error
        if is_empty:
            raise NoLedger(f"There is no ledger at {path} yet: the first report makes it.")
        if not os.path.isfile(path):
            raise LedgerTrouble(UNREADABLE)
        reader = cls(_connect(path), path)
        reader._clocks = (boot_s, wall)
        try:
            with reader._reading() as execute:
                if sqlite_file.identify(reader._connection) == 0:
                    raise NoLedger(f"There is no ledger at {path} yet: the first report makes it.")
                execute("SELECT max(seq) FROM reports")
        except BaseException:
            reader.close()
            raise
        return reader

    @contextmanager
    def _reading(self) -> Iterator[Callable[..., Any]]:
        try:
            yield self._connection.execute
        except sqlite3.Error as error:
            raise sqlite_file.translate(error, writing=False) from error

    # --- lists -------------------------------------------------------------------------------

    def count(self, listing: Listing, most: int | None = None) -> int:
        """How many reports a listing has, whatever its limit."""
        statement, values = sql.select_listing(
            listing._replace(before_seq=None), -1 if most is None else most
        )
        start, end = statement.index(" FROM "), statement.index(" ORDER BY ")
        bounded = f"SELECT count(*) FROM (SELECT 1{statement[start:end]} LIMIT :limit)"
        with self._reading() as execute:
            return int(execute(bounded, values).fetchone()[0])

    def pages(self, listing: Listing) -> Iterator[tuple[Row, ...]]:
        """The reports of a listing, newest first, a statement per page."""
        before = listing.before_seq
        while True:
            statement, values = sql.select_listing(listing._replace(before_seq=before), listing.limit)
            with self._reading() as execute:
                page = tuple(to_row(v, v[-2], v[-1]) for v in execute(statement, values).fetchall())
            if page:
                yield page
            if len(page) < listing.limit:
                return
            before = page[-1].seq

    def find(self, task_id: int, endpoint: str | None) -> Found:
        """The reports of a task id."""
        with self._reading() as execute:
            accounts = execute("SELECT id, endpoint, account FROM accounts").fetchall()
            rows = [
                to_row(values, place, account)
                for number, place, account in accounts
                if endpoint in (None, place)
                # The identity index holds the newest report of a task; older ones are found beside it.
                for values in self._find_all(execute, number, task_id)
            ]
        return Found(tuple(sorted(rows, key=lambda row: -row.seq)), True)

    @staticmethod
    def _find_all(execute: Callable[..., Any], account_id: int, task_id: int) -> list[Sequence[Any]]:
        found: list[Sequence[Any]] = execute(sql.FIND, (account_id, task_id)).fetchall()
        if not found:
            return []
        older = sql.FIND.replace("current = 1", "current = 0")
        return [*found, *execute(older, (account_id, task_id)).fetchall()]

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        with self._reading() as execute:
            found = execute(sql.EVENTS, (seq,)).fetchall()
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    def pauses(self) -> tuple[tuple[str, PauseState], ...]:
        """The pauses that are not closed, each with its endpoint, their instants as UNIX seconds."""
        statement = (
            f"SELECT endpoint, {_PAUSE_COLUMNS} FROM pauses WHERE state <> 'closed' "
            "ORDER BY endpoint, rule, subject"
        )
        boot_s, wall = self._clocks
        with self._reading() as execute:
            found = execute(statement).fetchall()
            known = execute("SELECT offset_s FROM boots WHERE boot_id = ?", (files.boot_id(),)).fetchone()
        # Before this boot's first bridge there is no timeline yet; it will begin at the wall clock.
        shift_s = 0.0 if known is None else wall - boot_s - float(known[0])
        return tuple((values[0], move(to_pause(values[1:]), shift_s)) for values in found)

    # --- figures -----------------------------------------------------------------------------

    def figures(self, span: Span, methods: tuple[str, ...], progress: Progress | None = None) -> Figures:
        """Count, a bounded number of reports at a time."""
        with self._reading() as execute:
            first, last = _bounds(execute, span)
            accounts = [
                (number, account[:8])
                for number, endpoint, account in execute(
                    "SELECT id, endpoint, account FROM accounts"
                ).fetchall()
                if span.endpoint in (None, endpoint) and account.startswith(span.account or "")
            ]
        counts: Counter[int] = Counter()
        causes: Counter[Cause] = Counter()
        pauses: Counter[Pause] = Counter()
        where = _filter(span, [number for number, _ in accounts])
        values = {"since": span.since_wall, "until": span.until_wall, "method": span.method}
        statement = _count_statement(where, len(methods))
        named = {f"m{index}": name for index, name in enumerate(methods)}
        closer, pauses_seen = _CAUSES.format(where), _pauses_statement(where)
        for start in range(first, last + 1, STEP):
            end = min(start + STEP - 1, last)
            part = {**values, **named, "first": start, "last": end}
            with self._reading() as execute:
                counts.update(chain.from_iterable(execute(statement, part)))
                for code, cause, status, many in execute(closer, part):
                    causes[Cause(code, cause or (f"HTTP {status}" if status else "other"))] += many
                for hour, data in execute(pauses_seen, part):
                    told = json.loads(data)
                    pauses[Pause(hour, told.get("rule") or "", told.get("cause") or "")] += 1
            if progress is not None:
                progress(end - first + 1, last - first + 1)
        return _decode(counts, methods, dict(accounts), causes, pauses)

    # --- health ------------------------------------------------------------------------------

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger."""
        get = sqlite_file.get
        connection = self._connection
        with self._reading() as execute:
            return {
                "kind": "sqlite",
                "path": self._path,
                "journalMode": get(connection, "journal_mode"),
                "sqliteVersion": sqlite3.sqlite_version,
                "schemaVersion": get(connection, "user_version"),
                "isNewer": get(connection, "user_version") > sqlite_file.VERSION,
                "walIsSound": sqlite_file.is_wal_sound(sqlite3.sqlite_version),
                "sizeBytes": int(get(connection, "page_count")) * int(get(connection, "page_size")),
                "reports": execute("SELECT count(*) FROM reports").fetchone()[0],
                "filesystem": files.file_system(os.path.dirname(self._path)),
            }

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten."""
        with self._reading():
            return sqlite_file.find_damage(self._connection, full)

    def try_write(self) -> LedgerTrouble | None:
        """Begin a write and take it back; None if a bridge could write now."""
        connection = None
        try:
            connection = sqlite_file.connect(self._path, 2.0, True)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            return sqlite_file.translate(error, writing=True)
        finally:
            if connection is not None:
                connection.close()
        return None

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""
        self._connection.close()


def _connect(path: str) -> sqlite3.Connection:
    """Open without the right to change, yet able to tidy up after a crash, which reading may need."""
    for writable in (True, False):
        try:
            connection = sqlite_file.connect(path, BUSY_S, writable)
        except sqlite3.Error as error:
            if writable:
                continue
            raise sqlite_file.translate(error, writing=False) from error
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA mmap_size = 1073741824")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            connection.close()
            trouble = sqlite_file.translate(error, writing=False)
            if writable and trouble.kind != CORRUPT:
                continue
            raise trouble from error
        return connection
    raise LedgerTrouble(UNREADABLE)


def _bounds(execute: Callable[..., Any], span: Span) -> tuple[int, int]:
    """The first and last report to look at; more may be between them than fit the span."""
    first, last = execute("SELECT min(seq), max(seq) FROM reports").fetchone()
    if first is None:
        return 1, 0
    by_time = "FROM reports INDEXED BY reports_by_time WHERE recorded_wall"
    if span.since_wall is not None:
        found = execute(f"SELECT min(seq) {by_time} >= ?", (span.since_wall,)).fetchone()[0]
        if found is None:
            return 1, 0
        first = found
    if span.until_wall is not None:
        found = execute(f"SELECT max(seq) {by_time} < ?", (span.until_wall,)).fetchone()[0]
        if found is None:
            return 1, 0
        last = found
    return int(first), int(last)


def _filter(span: Span, accounts: Sequence[int]) -> str:
    """The rest of the WHERE clause; empty if every report counts."""
    terms = []
    if span.since_wall is not None:
        terms.append("AND r.recorded_wall >= :since")
    if span.until_wall is not None:
        terms.append("AND r.recorded_wall < :until")
    if span.endpoint is not None or span.account is not None:
        terms.append(f"AND r.account_id IN ({', '.join(map(str, accounts))})")
    if span.method is not None:
        terms.append("AND r.method = :method")
    return " ".join(terms)


def _pauses_statement(where: str) -> str:
    if not where:
        return _PAUSES.format("")
    return _PAUSES.format(f"AND EXISTS (SELECT 1 FROM reports AS r WHERE r.seq = report {where})")


def _count_statement(where: str, methods: int) -> str:
    by_method = " ".join(f"WHEN :m{index} THEN {index << _METHOD_AT}" for index in range(methods))
    by_outcome = " ".join(f"WHEN '{name}' THEN {index << _OUTCOME_AT}" for index, name in enumerate(OUTCOMES))
    # The limit keeps SQLite from working out each column anew for every place that uses it.
    # Mind that shifts and | bind equally in SQL.
    inner = (
        f"SELECT CAST(r.recorded_wall / 3600 AS INTEGER) AS hour, "
        f"CASE r.method {by_method} ELSE {_OTHER << _METHOD_AT} END AS m, "
        f"CASE r.outcome {by_outcome} ELSE {len(OUTCOMES) << _OUTCOME_AT} END AS o, "
        f"coalesce(r.code, 0) AS code, r.account_id AS a, r.age_s AS s, r.latency_ms AS l "
        f"FROM reports AS r WHERE r.seq BETWEEN :first AND :last {where} LIMIT -1 OFFSET 0"
    )
    cell = f"((hour << {_CODE_BITS} | code + {_CODE_SHIFT}) << {_REST_AT}) + m + o + {_CELL}"
    seconds = f"iif(s IS NULL, {_NO_AGE}, min(max(CAST(s AS INTEGER), 0), {MAX_AGE_S}))"
    fate = "CASE code WHEN 0 THEN 0 WHEN 16 THEN 1 WHEN -32010 THEN 2 ELSE 0 END"
    age = f"((a << {_AGE_BITS + 2} | ({fate} << {_AGE_BITS}) | {seconds}) << {_REST_AT}) + m + o + {_AGE}"
    latency = f"(min(l, {MAX_LATENCY_MS}) << {_REST_AT}) + m + {_LATENCY}"
    return f"SELECT {cell}, {age}, {latency} FROM ({inner})"


def _decode(
    counts: Counter[int],
    methods: Sequence[str],
    accounts: Mapping[int, str],
    causes: Counter[Cause],
    pauses: Counter[Pause],
) -> Figures:
    names = dict(enumerate(methods))
    cells: Counter[Cell] = Counter()
    ages: Counter[Age] = Counter()
    latencies: Counter[Latency] = Counter()
    counts.pop(None, None)  # type: ignore[call-overload]  # no attempt, so no latency
    for number, many in counts.items():
        which, rest = number & 3, number >> _REST_AT
        method = names.get(number >> _METHOD_AT & 7, "other")
        if which == _LATENCY:
            latencies[Latency(method, rest)] += many
            continue
        outcome = _OUTCOMES[number >> _OUTCOME_AT & 7]
        if which == _CELL:
            code = (rest & (1 << _CODE_BITS) - 1) - _CODE_SHIFT
            cells[Cell(rest >> _CODE_BITS, method, outcome, code)] += many
        else:
            seconds = rest & _NO_AGE
            fate = _FATES[rest >> _AGE_BITS & 3]
            account = accounts.get(rest >> _AGE_BITS + 2, "?")
            ages[Age(account, method, outcome, fate, None if seconds == _NO_AGE else seconds)] += many
    return Figures(cells, ages, latencies, causes, pauses)
