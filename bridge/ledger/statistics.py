"""Reading a ledger for people: lists, one report's story, and figures over all of them.

Declares what a reader promises, and asks and counts for both of them. A reader makes nothing, changes nothing
but what it is told to write, and lets a bridge that is at work commit between its steps. Imported by the
command line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from bridge.core.counting import Tallied
from bridge.core.model import Listing, PauseState, Row
from bridge.ledger.port import EventRow
from bridge.ledger.rows import (
    EVENTS,
    FIGURES,
    LISTED,
    OPEN_PAUSES,
    TALLIED,
    Rows,
    Statement,
    group_tallied,
    select_listing,
    to_pause,
    to_row,
)
from bridge.ledger.translation import translate

MAX_AGE_S: Final = 600
"""Ages above this are counted as this: ten minutes late is as late as ten hours."""
MAX_LATENCY_MS: Final = 600_000
"""Latencies above this are counted as this; no attempt may take longer by the settings' bounds."""
IN_FLIGHT: Final = "in_flight"
"""Stands in place of an outcome for reports that have none yet."""

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Cell(NamedTuple):
    """What is the same about some reports."""

    hour: int
    """UNIX time of the recording in whole hours."""
    method: str
    outcome: str
    """One of the outcomes, or `IN_FLIGHT`."""
    code: int
    """Wire code; 0 for accepted and in flight."""


class Age(NamedTuple):
    """How old the task was, and whose, when a report came in."""

    account: str
    """8 hex digits, as the wire shows it."""
    method: str
    outcome: str
    fate: str
    """``error_16`` for the upstream's error 16, ``window_closed`` for what came too late, else empty."""
    seconds: int | None
    """Whole seconds from 0 to `MAX_AGE_S`; None if the caller did not tell ``completedAt``."""


class Latency(NamedTuple):
    """How long the last attempt of some reports took."""

    method: str
    milliseconds: int


class Cause(NamedTuple):
    """Why some reports met a code that has several causes."""

    code: int
    cause: str
    """``dns``, ``connect`` and so on, or ``HTTP 403``."""


class Pause(NamedTuple):
    """Openings of one kind of pause in one hour."""

    hour: int
    rule: str
    cause: str
    """Kind of the event that opened it."""


class Figures(NamedTuple):
    """Counts over all reports of a span. The first two counters have each report once."""

    cells: Counter[Cell]
    ages: Counter[Age]
    latencies: Counter[Latency]
    """Only reports with an attempt."""
    causes: Counter[Cause]
    pauses: Counter[Pause]


Kind = tuple[str, ...]
"""Columns by which is counted: how many rows have the same in all of them."""
_AGED: Final = ("account", "method", "outcome", "code", "seconds")
_KINDS: Final[tuple[Kind, ...]] = ((*Cell._fields, "cause"), _AGED, Latency._fields)
"""By what reports are counted. Each kind and each text costs a tenth of the whole, so there are few."""
_FATES: Final = {16: "error_16", -32010: "window_closed"}
"""Code -> the fate of a report, as `Age` tells it."""


class Reader(Protocol):
    """A ledger opened for reading; each kind of store has its own, which adds what is declared only.

    Thread safety: none. Every method but `close` raises `LedgerTrouble`.
    """

    step: int
    """Reports in one statement of the figures."""
    is_newest: ClassVar[str]
    """When a report ``r`` is the newest of its task, as an index of this kind has it."""
    revision: ClassVar[tuple[str, ...]]
    """The column, if there is one, in which this kind counts the changes of a row."""
    renumber: ClassVar[Sequence[Statement]]
    """Lets new reports be numbered after those that were copied."""
    version: int
    """Of the ledger's tables."""

    def ask(self, statement: str, values: Sequence[Any] = (), is_slow: bool = False) -> Rows:
        """Run one statement that changes nothing, in a transaction of its own."""

    def shift_s(self) -> float:
        """What makes UNIX time of this host of a moment of the timeline."""

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger: path, sizes, versions, number of reports."""

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten.

        Args:
            full: also read every report.
        """

    def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one commit: those of a copy."""

    def is_at_work(self) -> bool:
        """True if a bridge works on the ledger now."""

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""

    # --- what both of them do alike ----------------------------------------------------------

    def try_write(self) -> None:
        """See whether a bridge could write now, and write nothing."""
        self.write([(text, ()) for text in _NOTHING])

    def count(self, listing: Listing, most: int | None = None) -> int:
        """How many reports a listing has, whatever its limit.

        Args:
            most: count no further than this; None counts all.
        """
        rest, values = select_listing(listing._replace(before_seq=None))
        if most is not None:
            rest = f"FROM (SELECT 1 {rest} LIMIT {most:d}) AS counted"
        return int(self.ask(f"SELECT count(*) {rest}", values, True)[0][0])

    def pages(self, listing: Listing) -> Iterator[tuple[Row, ...]]:
        """The reports of a listing, newest first, in pages of at most ``limit``; all of them."""
        while True:
            rest, values = select_listing(listing)
            page = self._rows(f"{rest} ORDER BY r.seq DESC LIMIT {listing.limit:d}", values)
            if not page:
                return
            yield page
            listing = listing._replace(before_seq=page[-1].seq)

    def find(self, task_id: int, endpoint: str | None) -> tuple[Row, ...]:
        """The reports of a task id, newest first, whatever their account."""
        accounts = [number for number, place, _ in self.accounts() if endpoint in (None, place)]
        of = (
            "FROM reports AS r JOIN accounts AS a ON a.id = r.account_id WHERE r.task_id = {:d} AND {} AND {}"
        )
        among = f"r.account_id IN ({', '.join(map(str, accounts or (-1,)))})"
        # Apart, because each has an index of its own, or the older ones none.
        rows = self._rows(of.format(task_id, among, self.is_newest))
        if rows:
            rows += self._rows(of.format(task_id, among, f"NOT {self.is_newest}"))
        return tuple(sorted(rows, key=lambda row: -row.seq))

    def _rows(self, rest: str, values: Sequence[Any] = ()) -> tuple[Row, ...]:
        found = self.ask(f"SELECT {LISTED} {rest}", values, True)
        return tuple(to_row(columns, *columns[-2:]) for columns in found)

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        found = self.ask(EVENTS, (seq,))
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    def pauses(self) -> tuple[tuple[str, PauseState], ...]:
        """The pauses that are not closed, each with its endpoint; their instants are UNIX seconds."""
        found, shift_s = self.ask(OPEN_PAUSES.format("")), self.shift_s()
        return tuple((endpoint, translate(to_pause(columns), str, shift_s)) for *columns, endpoint in found)

    def tallied(self) -> tuple[Tallied, ...]:
        """What was counted of every account in the last day, times as UNIX seconds."""
        if self.version < _COUNTING:
            return ()
        tallies, figures = (self.ask(text.format(""), (), True) for text in (TALLIED, FIGURES))
        return group_tallied(tallies, figures, self.shift_s())

    def accounts(self) -> list[tuple[int, str, str]]:
        """Number, endpoint and hash of every account."""
        return [tuple(row) for row in self.ask("SELECT id, endpoint, account FROM accounts")]

    def tally(self, rows: str, values: Sequence[Any], kinds: Sequence[Kind]) -> list[Counter[Any]]:
        """Count the rows of a statement by each of some kinds."""
        counters = []
        for names in map(", ".join, kinds):
            found = self.ask(f"SELECT count(*), {names} FROM ({rows}) AS one GROUP BY {names}", values, True)
            counters.append(Counter({tuple(told): many for many, *told in found}))
        return counters

    def figures(
        self,
        listing: Listing,
        account: str | None,
        methods: Sequence[str],
        progress: Progress | None = None,
    ) -> Figures:
        """Count the reports of a listing, whatever its limit, a bounded number of them at a time.

        Args:
            account: the first hex digits of the account; None is any.
            methods: the names that a method may have; others are counted as ``other``.
        """
        spans = [
            f" AND r.recorded_wall + 0 {sign} {float(wall)!r}"
            for sign, wall in ((">=", listing.since_wall), ("<", listing.until_wall))
            if wall is not None
        ]
        rest, values = select_listing(listing)
        first, last = self.ask(f"SELECT min(r.seq + 0), max(r.seq + 0) {rest}", values, True)[0]
        # The numbers are known now; to look for them by time again in each step would take longest of all.
        rest, values = select_listing(listing._replace(since_wall=None, until_wall=None))
        rest += "".join(spans)
        if account is not None:
            rest += f" AND substr(a.account, 1, {len(account)}) = CAST(${len(values) + 1} AS text)"
            values.append(account)
        reports = (
            _REPORTS.format(", ".join(map("'{}'".format, methods)))
            + f"{rest} AND r.seq BETWEEN {{}} AND {{}}"
        )
        openings = f"{_OPENINGS} AND EXISTS (SELECT 1 {rest} AND r.seq = e.report)"
        counters: list[Counter[Any]] = [Counter() for _ in (*_KINDS, Pause)]
        for start in range(first or 1, (last or 0) + 1, self.step):
            end = min(start + self.step - 1, last)
            tallies = self.tally(reports.format(start, end), values, _KINDS)
            tallies += self.tally(openings.format(start, end), values, [Pause._fields])
            for counter, tally in zip(counters, tallies, strict=True):
                counter.update(tally)
            if progress is not None:
                progress(end - first + 1, last - first + 1)
        figures = Figures(*(Counter() for _ in Figures._fields))
        for (*cell, cause), many in counters[0].items():
            figures.cells[Cell(*cell)] += many
            if cause is not None:
                figures.causes[Cause(cell[-1], cause)] += many
        # Reports without an attempt have no latency.
        told = ((method, taken) for method, taken in counters[2] if taken is not None)
        figures.latencies.update({Latency(*one): counters[2][one] for one in told})
        accounts = {number: account[:8] for number, _, account in self.accounts()}
        for (number, method, outcome, code, seconds), many in counters[1].items():
            figures.ages[Age(accounts[number], method, outcome, _FATES.get(code, ""), seconds)] += many
        figures.pauses.update({Pause(*one): many for one, many in counters[3].items()})
        return figures


_COUNTING: Final = 2
"""The first version whose ledgers count."""
_NOTHING: Final = (
    "INSERT INTO accounts (endpoint, account) SELECT '', '' WHERE false",
    "UPDATE reports SET seq = seq WHERE false",
    "INSERT INTO events (report, nth, at_wall, name, data) SELECT 0, 0, 0, '', '{}' WHERE false",
    "UPDATE pauses SET streak = streak WHERE false",
)
"""What a bridge does to number an account, change a report, go on with a story and change a pause."""
_CAUSE: Final = "coalesce(nullif(r.detail ->> 'cause', ''), 'HTTP ' || (r.detail ->> 'httpStatus'), 'other')"
_AGE: Final = f"CASE WHEN r.age_s >= {MAX_AGE_S} THEN {MAX_AGE_S} WHEN r.age_s < 0 THEN 0 ELSE r.age_s END"
_REPORTS: Final = f"""
    SELECT CAST(floor(r.recorded_wall / 3600) AS bigint) AS hour,
           CASE WHEN r.method IN ({{}}) THEN r.method ELSE 'other' END AS method,
           coalesce(r.outcome, '{IN_FLIGHT}') AS outcome, coalesce(r.code, 0) AS code,
           CASE WHEN r.code BETWEEN -32003 AND -32001 THEN {_CAUSE} END AS cause,
           r.account_id AS account,
           CAST(floor({_AGE}) AS bigint) AS seconds,
           CASE WHEN r.latency_ms < {MAX_LATENCY_MS} THEN r.latency_ms
                WHEN r.latency_ms IS NOT NULL THEN {MAX_LATENCY_MS} END AS milliseconds """
_OPENINGS: Final = """
    SELECT CAST(floor(e.at_wall / 3600) AS bigint) AS hour, coalesce(e.data ->> 'rule', '') AS rule,
           coalesce(e.data ->> 'cause', '') AS cause
    FROM events AS e WHERE e.name = 'pause_opened' AND e.report BETWEEN {} AND {}"""


class NoLedger(Exception):
    """There is nothing to read. The text is a sentence for people."""
