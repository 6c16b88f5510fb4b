"""Reading a ledger for people: lists, one report's story, and figures over all of them.

Declares what a reader promises, and asks and counts for both of them. A reader changes nothing, makes
nothing, and lets a bridge that is at work commit between its steps. Imported by the command line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from bridge.core.counting import Tallied
from bridge.core.model import OUTCOMES, Listing, PauseState, Row
from bridge.ledger.port import EventRow
from bridge.ledger.rows import (
    COLUMNS,
    FIGURES,
    PAUSE_COLUMNS,
    TALLIED,
    Value,
    group_tallied,
    select_listing,
    to_pause,
    to_row,
)

MAX_AGE_S: Final = 600
"""Ages above this are counted as this: ten minutes late is as late as ten hours."""
MAX_LATENCY_MS: Final = 600_000
"""Latencies above this are counted as this; no attempt may take longer by the settings' bounds."""
IN_FLIGHT: Final = "in_flight"
"""Stands in place of an outcome for reports that have none yet."""

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Span(NamedTuple):
    """Which reports to count; None is no bound. Instants are UNIX seconds."""

    since_wall: float | None = None
    """Recorded at or after this."""
    until_wall: float | None = None
    """Recorded before this."""
    endpoint: str | None = None
    account: str | None = None
    """The first hex digits of the account."""
    method: str | None = None


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


Rows = Sequence[Sequence[Any]]
Tally = tuple[Counter[tuple[Any, ...]], Counter[tuple[Any, ...]], Counter[tuple[Any, ...]]]
"""How many reports share hour, method, outcome, code and cause; account, method, outcome, code and age; or
method and latency. Methods and outcomes are places in their lists."""


class Reader(Protocol):
    """A ledger opened for reading; each kind of store has its own, which adds what is declared only.

    Thread safety: none. Every method but `close` raises `LedgerTrouble`.
    """

    step: int
    """Reports in one statement of the figures."""
    syntax: ClassVar[Mapping[str, str]]
    """What the stores spell differently: how ``hour`` and ``age`` are cut to whole numbers, how ``cause``
    and ``status`` are found in the detail, and when a report is the ``newest`` of its task or ``older``."""
    version: int
    """Of the ledger's tables."""

    def ask(self, statement: str, values: Sequence[Value] = (), is_slow: bool = False) -> Rows:
        """Run one statement that changes nothing, in a transaction of its own."""

    def tally(self, statement: str, values: Sequence[Value]) -> Tally:
        """Count the reports that a statement selects; its columns are those of `_REPORTS`."""

    def shift_s(self) -> float:
        """What makes UNIX time of this host of a moment of the timeline."""

    def health(self) -> Mapping[str, Any]:
        """Facts about the ledger: path, sizes, versions, number of reports."""

    def check(self, full: bool = False) -> tuple[str, ...]:
        """Look for damage; the problems found, at most ten.

        Args:
            full: also read every report.
        """

    def try_write(self) -> None:
        """See whether a bridge could write now, and write nothing."""

    def is_at_work(self) -> bool:
        """True if a bridge works on the ledger now."""

    def close(self) -> None:
        """Let go of the ledger. Idempotent."""

    # --- what both of them do alike ----------------------------------------------------------

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
        rows = self._rows(of.format(task_id, among, self.syntax["newest"]))
        if rows:
            rows += self._rows(of.format(task_id, among, self.syntax["older"]))
        return tuple(sorted(rows, key=lambda row: -row.seq))

    def _rows(self, rest: str, values: Sequence[Value] = ()) -> tuple[Row, ...]:
        found = self.ask(f"SELECT {_LISTED} {rest}", values, True)
        return tuple(to_row(columns, *columns[-2:]) for columns in found)

    def events(self, seq: int) -> tuple[EventRow, ...]:
        """What happened to one report, in order."""
        found = self.ask(f"SELECT at_wall, name, data FROM events WHERE report = {seq:d} ORDER BY nth")
        return tuple(EventRow(at_wall, name, json.loads(data)) for at_wall, name, data in found)

    def pauses(self) -> tuple[tuple[str, PauseState], ...]:
        """The pauses that are not closed, each with its endpoint; their instants are UNIX seconds."""
        found = self.ask(f"SELECT {', '.join(PAUSE_COLUMNS)}, endpoint FROM pauses WHERE state <> 'closed'")
        shift_s = self.shift_s()
        told = [(endpoint, _move(to_pause(columns), shift_s)) for *columns, endpoint in found]
        return tuple(sorted(told, key=lambda pause: (pause[0], pause[1].key)))

    def tallied(self) -> tuple[Tallied, ...]:
        """What was counted of every account in the last day, times as UNIX seconds."""
        if self.version < _COUNTING:
            return ()
        tallies, figures = (self.ask(text.format(""), (), True) for text in (TALLIED, FIGURES))
        return group_tallied(tallies, figures, self.shift_s())

    def accounts(self) -> list[tuple[int, str, str]]:
        """Number, endpoint and hash of every account."""
        return [tuple(row) for row in self.ask("SELECT id, endpoint, account FROM accounts")]

    def figures(self, span: Span, methods: tuple[str, ...], progress: Progress | None = None) -> Figures:
        """Count, a bounded number of reports at a time.

        Args:
            methods: the names that a method may have; others are counted as ``other``.
        """
        accounts = {
            number: account[:8]
            for number, endpoint, account in self.accounts()
            if span.endpoint in (None, endpoint) and account.startswith(span.account or "")
        }
        terms = _filter(span, accounts)
        values = () if span.method is None else (span.method,)
        where = " AND ".join(("{}", *terms))
        numbers = {"method": _number("r.method", methods), "outcome": _number("r.outcome", OUTCOMES)}
        reports = _REPORTS.format(**self.syntax, **numbers) + where.format("r.seq BETWEEN {} AND {}")
        openings = "SELECT e.at_wall, e.data FROM events AS e WHERE e.name = 'pause_opened' AND e.report "
        openings += "BETWEEN {} AND {}"
        if terms:
            own = where.format("r.seq = e.report")
            openings += f" AND EXISTS (SELECT 1 FROM reports AS r WHERE {own})"
        tallies: Tally = (Counter(), Counter(), Counter())
        pauses: Counter[Pause] = Counter()
        first, last = self._bounds(span)
        for start in range(first, last + 1, self.step):
            end = min(start + self.step - 1, last)
            for tally, found in zip(tallies, self.tally(reports.format(start, end), values), strict=True):
                tally.update(found)
            for at_wall, data in self.ask(openings.format(start, end), values, True):
                told = json.loads(data)
                pauses[Pause(int(at_wall // 3600), told.get("rule") or "", told.get("cause") or "")] += 1
            if progress is not None:
                progress(end - first + 1, last - first + 1)
        return _decode(tallies, methods, accounts, pauses)

    def _bounds(self, span: Span) -> tuple[int, int]:
        """The first and last report to look at; more may be between them than fit the span."""
        first, last = self.ask("SELECT min(seq), max(seq) FROM reports")[0]
        # What is added keeps both stores from walking the whole table in the order of numbers.
        by_time = "FROM reports WHERE recorded_wall"
        if span.since_wall is not None:
            first = self.ask(f"SELECT min(seq + 0) {by_time} >= {float(span.since_wall)!r}", (), True)[0][0]
        if span.until_wall is not None:
            last = self.ask(f"SELECT max(seq + 0) {by_time} < {float(span.until_wall)!r}", (), True)[0][0]
        return (1, 0) if first is None or last is None else (first, last)


_COUNTING: Final = 2
"""The first version whose ledgers count."""
_LISTED: Final = ", ".join([*(f"r.{name}" for name in COLUMNS), "a.endpoint", "a.account"])
_REPORTS: Final = f"""
    SELECT {{hour}} AS hour, {{method}} AS method, {{outcome}} AS outcome, coalesce(r.code, 0) AS code,
           CASE WHEN r.code BETWEEN -32003 AND -32001
                THEN coalesce(nullif({{cause}}, ''), 'HTTP ' || ({{status}}), 'other') END AS cause,
           r.account_id AS account_id,
           CASE WHEN r.age_s >= {MAX_AGE_S} THEN {MAX_AGE_S} WHEN r.age_s < 0 THEN 0 ELSE {{age}} END AS age,
           CASE WHEN r.latency_ms > {MAX_LATENCY_MS} THEN {MAX_LATENCY_MS} ELSE r.latency_ms END AS latency
    FROM reports AS r WHERE """
_FATES: Final = {16: "error_16", -32010: "window_closed"}


def _number(column: str, names: Sequence[str]) -> str:
    """The place of a name in a list, as SQL; its length if it is not there. Numbers count faster."""
    cases = " ".join(f"WHEN '{name}' THEN {place}" for place, name in enumerate(names))
    return f"CASE {column} {cases} ELSE {len(names)} END"


def _filter(span: Span, accounts: Mapping[int, str]) -> list[str]:
    """The conditions of a span; none if every report counts. The method's name is the only value."""
    terms = []
    if span.since_wall is not None:
        terms.append(f"r.recorded_wall >= {float(span.since_wall)!r}")
    if span.until_wall is not None:
        terms.append(f"r.recorded_wall < {float(span.until_wall)!r}")
    if span.endpoint is not None or span.account is not None:
        terms.append(f"r.account_id IN ({', '.join(map(str, accounts or (-1,)))})")
    if span.method is not None:
        terms.append("r.method = CAST($1 AS text)")
    return terms


def _decode(
    tallies: Tally, methods: Sequence[str], accounts: Mapping[int, str], pauses: Counter[Pause]
) -> Figures:
    figures = Figures(Counter(), Counter(), Counter(), Counter(), pauses)
    names, endings = (*methods, "other"), (*OUTCOMES, IN_FLIGHT)
    for (hour, method, outcome, code, cause), many in tallies[0].items():
        figures.cells[Cell(hour, names[method], endings[outcome], code)] += many
        if cause is not None:
            figures.causes[Cause(code, cause)] += many
    for (account_id, method, outcome, code, seconds), many in tallies[1].items():
        # An account may be newer than this reading's list.
        whose, fate = accounts.get(account_id, "?"), _FATES.get(code, "")
        figures.ages[Age(whose, names[method], endings[outcome], fate, seconds)] += many
    for (method, latency), many in tallies[2].items():
        if latency is not None:
            figures.latencies[Latency(names[method], latency)] += many
    return figures


class NoLedger(Exception):
    """There is nothing to read. The text is a sentence for people."""


def _move(state: PauseState, by_s: float) -> PauseState:
    """The pause with its instants moved, from one clock to another."""
    instants = (state.opened_at, state.ends_at)
    opened_at, ends_at = (None if at is None else at + by_s for at in instants)
    return state._replace(opened_at=opened_at, ends_at=ends_at)
