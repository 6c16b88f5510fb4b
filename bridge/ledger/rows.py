"""How reports and pauses are written down: one order of columns for every store, and values for them.

Also the statements that are the same for all of them. Pure, but for `load`. Times on the timeline are written
as the store has them. Imported by the transactions and by the stores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from bridge.core.counting import HOUR_S, KEPT_S, Counts, Figure, Tallied, Tally
from bridge.core.model import ACCEPTED, OUTCOMES, Facts, Listing, PauseKey, PauseState, Row, Task, Window

encode: Final[Callable[[Any], str]] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""JSON as it is stored: ASCII, compact. One encoder, because making one costs more than using it."""

COLUMNS: Final = (
    "seq", "account_id", "task_id", "method", "state", "outcome", "owner", "attempts", "sends", "perhaps",
    "window_until", "window_since", "completed_at", "task_type", "language_pool", "age_s", "code", "kind",
    "detail", "recorded_wall", "finished_wall", "latency_ms", "finished_at",
)  # fmt: skip
"""Columns of a report, in the order in which everybody has them."""
PAUSE_COLUMNS: Final = (
    "subject", "rule", "state", "cause", "streak", "recent", "level", "opened_at", "ends_at", "probe_owner",
    "probe_task", "context",
)  # fmt: skip
"""Columns of a pause but the endpoint."""
TALLY_COLUMNS: Final = ("width_s", "account_id", "subject", "number", *Counts._fields)
"""Columns of a tally: its key, and the counts, which are named like them."""
_SUMS: Final = ", ".join(f"sum(t.{name})" for name in Counts._fields)
# Named, since the primary key begins with them: else all accounts are read for one.
_WIDTHS: Final = ", ".join(map(str, KEPT_S))
TALLIED: Final = f"""
    SELECT a.endpoint, a.account, t.width_s, t.subject, t.number, {_SUMS}
    FROM tallies AS t JOIN accounts AS a ON a.id = t.account_id AND t.width_s IN ({_WIDTHS}) {{}}
    GROUP BY a.endpoint, a.account, t.width_s, t.subject, t.number
"""
"""Reads tallies: endpoint, account, and what `to_tally` takes."""
FIGURES: Final = (
    "SELECT a.endpoint, a.account, f.told FROM figures AS f JOIN accounts AS a ON a.id = f.account_id {}"
)
"""Reads figures: endpoint, account, and what `to_figures` takes."""
OF_ACCOUNT: Final = "WHERE a.endpoint = $1 AND a.account = $2"
OF_MOST: Final = (
    "WHERE a.id IN (SELECT account_id FROM tallies JOIN accounts ON id = account_id "
    f"WHERE endpoint = $1 AND width_s = {HOUR_S} AND number >= $2 "
    "GROUP BY account_id ORDER BY sum(sent + late) DESC, account_id LIMIT $3)"
)
"""Whose tallies and figures: those of one account, or of those with most reports lately."""
SAVE_FIGURES: Final = (
    "INSERT INTO figures (account_id, asked_at, told) VALUES ($1, $2, $3) "
    "ON CONFLICT (account_id) DO UPDATE SET asked_at = excluded.asked_at, told = excluded.told"
)
# Beside what is too old, what a clock that was ahead has counted.
DROP_TALLIES: Final = (
    "DELETE FROM tallies WHERE width_s = $1 AND account_id = $2 AND number NOT BETWEEN $3 AND $4"
)
OPEN_PAUSES: Final = (
    f"SELECT {', '.join(PAUSE_COLUMNS)}, endpoint FROM pauses WHERE state <> 'closed' {{}}"
    "ORDER BY endpoint, rule, subject"
)
"""Reads the pauses that are not closed: what `to_pause` takes, and the endpoint."""
EVENTS: Final = "SELECT at_wall, name, data FROM events WHERE report = $1 ORDER BY nth"
LISTED: Final = ", ".join([*(f"r.{name}" for name in COLUMNS), "a.endpoint", "a.account"])
"""What is read of each report that `select_listing` selects."""

Value = str | int | float
"""What a statement is given."""
Statement = tuple[str, Sequence[Any]]
"""SQL with $1 and so on, and its values: numbers, texts, or None; for PostgreSQL also lists of those."""
Rows = list[tuple[Any, ...]]
"""What it finds: values as Python has them; JSON stays text."""


def load(script: str) -> str:
    """A script beside this module, as a plain file or a member of an archive."""
    loader: Any = __spec__.loader
    read: Callable[[str], bytes] = loader.get_data
    return read(os.path.join(os.path.dirname(__file__), script)).decode("utf-8")


def encode_told(name: str, data: Mapping[str, Any]) -> str:
    """JSON of what a story tells; most stories tell the same, and making it costs more than finding it.

    Args:
        name: the event, which says of what type each value is.
    """
    try:
        return _encode_told(name, *data.items())
    except TypeError:
        return encode(data)  # something that has no hash


@lru_cache(1024)
def _encode_told(_name: str, *items: tuple[str, Any]) -> str:
    return encode(dict(items))


def to_row(values: Sequence[Any], endpoint: str, account: str) -> Row:
    """Make a report of its columns."""
    seq, _, task_id, *state, perhaps = values[:10]
    window, facts = Window(*values[10:12]), Facts(*values[12:16])
    code, kind, detail, *rest = values[16:22]
    told = {} if detail is None or detail == "{}" else json.loads(detail)
    task = Task(endpoint, account, task_id)
    return Row._make((seq, task, *state, bool(perhaps), window, facts, code, kind, told, *rest))


def from_row(row: Row, account_id: int, finished_at: float | None) -> tuple[Any, ...]:
    """The columns of a report."""
    seq, task, *state, window, facts, code, kind, detail, recorded_wall, finished_wall, latency_ms = row
    told = encode(detail) if detail else "{}"
    head = (seq, account_id, task.task_id, *state, *window, *facts)
    return (*head, code, kind, told, recorded_wall, finished_wall, latency_ms, finished_at)


def to_pause(values: Sequence[Any]) -> PauseState:
    """Make a pause of its columns."""
    subject, rule, state, cause, streak, recent, *rest = values
    seen = () if recent == "[]" else tuple((at, name) for at, name in json.loads(recent))
    return PauseState(PauseKey(rule, subject), state, cause, streak, seen, *rest)


def from_pause(state: PauseState) -> tuple[Any, ...]:
    """The columns of a pause."""
    (rule, subject), name, cause, streak, recent, *rest = state
    return (subject, rule, name, cause, streak, encode(recent) if recent else "[]", *rest)


def to_tally(values: Sequence[Any], shift_s: float = 0.0) -> Tally:
    """Make a tally of its columns, numbers perhaps as texts."""
    width, subject, number, tasks, costed, cost, *rest = values
    counts = Counts(int(tasks), int(costed), float(cost), *map(int, rest))
    return Tally(subject, int(width), int(number) * float(width) + shift_s, counts)


def to_figures(told: str, shift_s: float = 0.0) -> tuple[Figure, ...]:
    """Make figures of what is stored: queue -> hours, each with its beginning and its tasks."""
    found = json.loads(told).items()
    return tuple(Figure(queue, at + shift_s, tasks) for queue, hours in found for at, tasks in hours)


def group_tallied(
    tallies: Iterable[Sequence[Any]], figures: Iterable[Sequence[Any]], shift_s: float = 0.0
) -> tuple[Tallied, ...]:
    """Put what `TALLIED` and `FIGURES` read together, for each account."""
    known = {(endpoint, account): to_figures(told, shift_s) for endpoint, account, told in figures}
    rows: dict[tuple[str, str], list[Tally]] = {name: [] for name in known}
    for endpoint, account, *values in tallies:
        rows.setdefault((endpoint, account), []).append(to_tally(values, shift_s))
    return tuple(Tallied(Task(*name, 0), tuple(found), known.get(name, ())) for name, found in rows.items())


def select_listing(listing: Listing) -> tuple[str, list[Value]]:
    """The rest of a statement that lists reports, for every store: all after the columns, but the order.

    A value's place in the list is the number of its mark, and the marks come in that order. Numbers of
    reports are given before the commit and the clock may have jumped, so they and time need not agree; an
    index finds where to stop. What is added to a column keeps an index from being used: left alone, a store
    walks the table until one report fits.
    """
    terms = ["a.id = r.account_id"]
    values: list[Value] = []

    def add(term: str, value: Value, kind: str) -> None:
        values.append(value)
        terms.append(term.format(f"CAST(${len(values)} AS {kind})"))

    if listing.endpoint is not None:
        add("a.endpoint = {}", listing.endpoint, "text")
    if listing.before_seq is not None:
        add("r.seq < {}", listing.before_seq, "bigint")
    by_time = "FROM reports WHERE recorded_wall"
    if listing.since_wall is not None:
        since = f"r.seq >= (SELECT min(seq + 0) {by_time} >= {{0}}) AND r.recorded_wall + 0 >= {{0}}"
        add(since, float(listing.since_wall), "float8")
    if listing.until_wall is not None:
        until = f"r.seq <= (SELECT max(seq + 0) {by_time} < {{0}}) AND r.recorded_wall + 0 < {{0}}"
        add(until, float(listing.until_wall), "float8")
    if listing.outcome is not None:
        outcome = listing.outcome if listing.outcome in OUTCOMES else ""
        # Spelled out, since a parameter would not prove that the partial index holds every match.
        terms.append(f"r.outcome = '{outcome}'")
        if outcome != ACCEPTED:
            terms.append("r.outcome <> 'accepted'")
    if listing.method is not None:
        add("r.method = {}", listing.method, "text")
    return f"FROM reports AS r CROSS JOIN accounts AS a WHERE {' AND '.join(terms)}", values
