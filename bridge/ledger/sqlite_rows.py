"""The SQL of the reports and pauses, and how their rows become values and back.

Knows no connection, no transaction and no rule: which statement runs when is in `sqlite_steps`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.model import (
    ACCEPTED,
    OUTCOMES,
    Facts,
    Listing,
    PauseKey,
    PauseState,
    Row,
    Task,
    Window,
)
from bridge.ledger.rows import encode

_COLUMNS: Final = (
    "seq, account_id, task_id, method, state, outcome, owner, attempts, sends, perhaps, window_until, "
    "window_since, completed_at, task_type, language_pool, age_s, code, kind, detail, recorded_wall, "
    "finished_wall, latency_ms, finished_at"
)

FIND: Final = f"SELECT {_COLUMNS} FROM reports WHERE account_id = ? AND task_id = ? AND current = 1"
"""The newest report of a task."""
FIND_MANY: Final = (
    f"SELECT {_COLUMNS} FROM reports WHERE account_id = ? AND current = 1 "
    "AND task_id IN (SELECT value FROM json_each(?))"
)
"""The newest reports of some tasks of one account."""
LAST_SEQ: Final = "SELECT coalesce(max(seq), 0) FROM reports"
FIND_OWNED: Final = f"SELECT {_COLUMNS} FROM reports WHERE owner = ?"
"""What one instance works on."""
FIND_OWNERS: Final = "SELECT DISTINCT owner FROM reports WHERE owner IS NOT NULL AND owner <> ?"
"""Who else works on anything; one index answers it."""

_ADD: Final = (
    "INSERT INTO reports (account_id, task_id, method, state, outcome, owner, attempts, window_until, "
    "window_since, completed_at, task_type, language_pool, age_s, code, kind, detail, "
    "recorded_wall, finished_wall, finished_at, seq, sends, perhaps) VALUES "
)
_ADD_ROW: Final = f"({', '.join('?' * 20)}, 0, 0)"
RETIRE: Final = "UPDATE reports SET current = 0 WHERE seq = ? AND state = 'done' AND current = 1"
"""A task id has come back: its old report is history only."""
REOPEN: Final = (
    "UPDATE reports SET state = 'queued', owner = ?, method = ?, window_until = ?, window_since = ?, "
    "completed_at = ?, task_type = ?, language_pool = ?, age_s = ?, outcome = NULL, code = NULL, "
    "kind = NULL, detail = '{}', finished_wall = NULL, finished_at = NULL "
    "WHERE seq = ? AND state = 'done' AND outcome = 'not_sent'"
)
REFUSE: Final = (
    "UPDATE reports SET method = ?, window_until = ?, window_since = ?, completed_at = ?, task_type = ?, "
    "language_pool = ?, age_s = ?, code = ?, kind = ?, detail = ?, finished_wall = ?, finished_at = ? "
    "WHERE seq = ? AND state = 'done' AND outcome = 'not_sent'"
)
"""Another local refusal of what was never sent."""
NARROW: Final = (
    "UPDATE reports SET window_until = ?, window_since = ?, completed_at = ?, task_type = ?, "
    "language_pool = ?, age_s = ? WHERE seq = ? AND (state <> 'done' OR outcome = 'not_sent')"
)
"""An earlier window end, for what may still be sent."""
ADOPT: Final = (
    "UPDATE reports SET owner = ?, state = ?, sends = ?, perhaps = ?, window_until = ?, window_since = ?, "
    "completed_at = ?, task_type = ?, language_pool = ?, age_s = ? WHERE seq = ? AND owner = ? AND state = ?"
)
BEGIN_ATTEMPT: Final = (
    "UPDATE reports SET state = 'sending', attempts = attempts + 1 WHERE seq = ? AND owner = ? "
    "AND state IN ('queued', 'waiting') AND attempts < 4 AND sends < 2"
)
DEFER: Final = (
    "UPDATE reports SET state = ?, attempts = ?, sends = ?, perhaps = ?, latency_ms = ? "
    "WHERE seq = ? AND owner = ? AND state IN ('queued', 'sending', 'waiting')"
)
_FINISH: Final = (
    "UPDATE reports SET state = 'done', owner = NULL, attempts = v.column1, sends = v.column2, "
    "perhaps = v.column3, latency_ms = v.column4, outcome = v.column5, code = v.column6, kind = v.column7, "
    "detail = v.column8, finished_wall = v.column9, finished_at = v.column10 FROM (VALUES {rows}) AS v "
    "WHERE reports.seq = v.column11 AND reports.owner = v.column12 "
    "AND state IN ('queued', 'sending', 'waiting')"
)
_FINISH_ROW: Final = f"({', '.join('?' * 12)})"
ADD_EVENT: Final = (
    "INSERT INTO events (report, nth, at_wall, name, data) "
    "SELECT ?1, coalesce(max(nth), 0) + 1, ?2, ?3, ?4 FROM events WHERE report = ?1"
)
_ADD_EVENTS: Final = "INSERT INTO events (report, nth, at_wall, name, data) VALUES "
_ADD_EVENT_ROW: Final = "(?, ?, ?, ?, ?)"
EVENTS: Final = "SELECT at_wall, name, data FROM events WHERE report = ? ORDER BY nth"
PRUNE: Final = (
    "DELETE FROM reports WHERE seq IN (SELECT seq FROM reports WHERE recorded_wall < ? AND state = 'done' "
    "AND finished_at < ? ORDER BY recorded_wall LIMIT ?)"
)

_PAUSE_COLUMNS: Final = (
    "subject, rule, state, cause, streak, recent, level, opened_at, ends_at, probe_owner, probe_task, context"
)
SAVE_PAUSE: Final = (
    f"INSERT OR REPLACE INTO pauses ({_PAUSE_COLUMNS}, endpoint) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
OPEN_PAUSES: Final = (
    f"SELECT {_PAUSE_COLUMNS} FROM pauses WHERE endpoint = ? AND state <> 'closed' ORDER BY rule, subject"
)
PROBED_BY: Final = (
    f"SELECT {_PAUSE_COLUMNS} FROM pauses WHERE endpoint = ? AND probe_owner = ? AND probe_task = ?"
)
# Left alone, SQLite walks the table in the order of `seq` until one fits: 0.4 s in a million reports.
_BY_TIME: Final = "FROM reports INDEXED BY reports_by_time WHERE"
_find_pauses: dict[int, str] = {}


MOST_ROWS: Final = 32
"""Rows that one statement adds or finishes at most. It costs a third of as many statements."""
ADD_REPORTS: Final = {n: _ADD + ", ".join([_ADD_ROW] * n) for n in (1, 2, 4, 8, 16, MOST_ROWS)}
FINISH: Final = {n: _FINISH.format(rows=", ".join([_FINISH_ROW] * n)) for n in ADD_REPORTS}
ADD_EVENTS: Final = {n: _ADD_EVENTS + ", ".join([_ADD_EVENT_ROW] * n) for n in ADD_REPORTS}
"""Number of rows -> the statement that writes so many."""


def find_pauses(subjects: int) -> str:
    """The statement that reads all pauses about so many subjects of one endpoint."""
    sql = _find_pauses.get(subjects)
    if sql is None:
        marks = ", ".join("?" * subjects)
        sql = f"SELECT {_PAUSE_COLUMNS} FROM pauses WHERE endpoint = ? AND subject IN ({marks})"
        _find_pauses[subjects] = sql
    return sql


def to_row(values: Sequence[Any], endpoint: str, account: str) -> Row:
    """Make a report of the columns of a ``FIND`` statement."""
    v = values
    detail = v[18]
    return Row(
        v[0],
        Task(endpoint, account, v[2]),
        v[3],
        v[4],
        v[5],
        v[6],
        v[7],
        v[8],
        v[9] == 1,
        Window(v[10], v[11]),
        Facts(v[12], v[13], v[14], v[15]),
        v[16],
        v[17],
        {} if detail == "{}" else json.loads(detail),
        v[19],
        v[20],
        v[21],
    )


def to_pause(values: Sequence[Any]) -> PauseState:
    """Make a pause of the columns of the pause statements."""
    subject, rule, state, cause, streak, recent, *rest = values
    seen = () if recent == "[]" else tuple((at, name) for at, name in json.loads(recent))
    return PauseState(PauseKey(rule, subject), state, cause, streak, seen, *rest)


def from_pause(state: PauseState, endpoint: str) -> tuple[Any, ...]:
    """The values of `SAVE_PAUSE`."""
    (rule, subject), name, cause, streak, recent, *rest = state
    return (subject, rule, name, cause, streak, encode(recent) if recent else "[]", *rest, endpoint)


def select_listing(listing: Listing, limit: int) -> tuple[str, Mapping[str, Any]]:
    """The statement and its values for one page of reports, newest first."""
    terms = ["TRUE"]
    values: dict[str, Any] = {"limit": limit}
    if listing.endpoint is not None:
        terms.append("a.endpoint = :endpoint")
        values["endpoint"] = listing.endpoint
    if listing.before_seq is not None:
        terms.append("r.seq < :before_seq")
        values["before_seq"] = listing.before_seq
    if listing.since_wall is not None:
        # The clock may have jumped, so `seq` and time need not agree; the index finds where to stop.
        terms.append(f"r.seq >= (SELECT min(seq) {_BY_TIME} recorded_wall >= :since_wall)")
        terms.append("+r.recorded_wall >= :since_wall")
        values["since_wall"] = listing.since_wall
    if listing.until_wall is not None:
        terms.append(f"r.seq <= (SELECT max(seq) {_BY_TIME} recorded_wall < :until_wall)")
        terms.append("+r.recorded_wall < :until_wall")
        values["until_wall"] = listing.until_wall
    if listing.outcome is not None:
        outcome = listing.outcome if listing.outcome in OUTCOMES else ""
        # Spelled out, since a parameter would not prove that the partial index holds every match.
        sign = "+" if outcome == ACCEPTED else ""
        terms.append(f"{sign}r.outcome = '{outcome}' AND {sign}r.outcome {'=' if sign else '<>'} 'accepted'")
    if listing.method is not None:
        terms.append("r.method = :method")
        values["method"] = listing.method
    columns = ", ".join(f"r.{name.strip()}" for name in _COLUMNS.split(","))
    return (
        f"SELECT {columns}, a.endpoint, a.account FROM reports AS r CROSS JOIN accounts AS a "
        f"WHERE a.id = r.account_id AND {' AND '.join(terms)} ORDER BY r.seq DESC LIMIT :limit"
    ), values
