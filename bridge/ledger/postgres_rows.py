"""The statements of the PostgreSQL ledger, and how its rows become values and back.

Knows no connection, no transaction and no rule: which statement runs when is in `postgres_steps`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
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

Values = Sequence[bytes | None]
"""One row as the server tells it: text in UTF-8, or None."""

_TYPES: Final = {
    "seq": "bigint",
    "account_id": "integer",
    "task_id": "bigint",
    "method": "text",
    "state": "text",
    "outcome": "text",
    "owner": "text",
    "attempts": "smallint",
    "sends": "smallint",
    "perhaps": "boolean",
    "window_until": "float8",
    "window_since": "float8",
    "completed_at": "float8",
    "task_type": "text",
    "language_pool": "text",
    "age_s": "float8",
    "code": "bigint",
    "kind": "text",
    "detail": "json",
    "recorded_wall": "float8",
    "finished_wall": "float8",
    "latency_ms": "bigint",
    "finished_at": "float8",
    "revision": "integer",
    "current": "boolean",
}
"""Columns of a report in the order in which everybody here has them."""
_FIXED: Final = frozenset({"seq", "account_id", "task_id", "recorded_wall"})
_PAUSE_TYPES: Final = {
    "subject": "text",
    "rule": "text",
    "state": "text",
    "cause": "text",
    "streak": "integer",
    "recent": "json",
    "level": "integer",
    "opened_at": "float8",
    "ends_at": "float8",
    "probe_owner": "text",
    "probe_task": "text",
    "context": "text",
    "revision": "bigint",
}
_PAUSE_KEY: Final = frozenset({"subject", "rule"})
WIDTH: Final = len(_TYPES)
"""Columns of a report; what follows them in a row is the statement's own."""


def _typed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


_PARTS: Final = {
    "columns": ", ".join(f"r.{name}" for name in _TYPES),
    "stored": ", ".join(_TYPES),
    "typed": _typed(_TYPES),
    "assigned": ", ".join(f"{name} = g.{name}" for name in _TYPES if name not in _FIXED),
    "is_free": "CASE WHEN r.owner <> $3::text THEN "
    "pg_try_advisory_xact_lock_shared(hashtextextended(r.owner, 0)) ELSE false END",
    "pause_columns": ", ".join(f"p.{name}" for name in _PAUSE_TYPES),
    "pause_stored": ", ".join(_PAUSE_TYPES),
    "pause_typed": _typed(_PAUSE_TYPES),
    "pause_assigned": ", ".join(
        f"{name} = excluded.{name}" for name in _PAUSE_TYPES if name not in _PAUSE_KEY
    ),
    "is_prober_free": "CASE WHEN p.probe_owner <> $3::text THEN "
    "pg_try_advisory_xact_lock_shared(hashtextextended(p.probe_owner, 0)) ELSE false END",
}
"""What statements have in common, by the name in braces."""


def load(name: str) -> str:
    """A script beside this module, as a plain file or a member of an archive."""
    loader: Any = __spec__.loader
    read: Callable[[str], bytes] = loader.get_data
    return read(os.path.join(os.path.dirname(__file__), name)).decode("utf-8")


def _parse(script: str) -> dict[str, str]:
    """The statements of a script by name. The first line of each says what it is for."""
    found: dict[str, str] = {}
    for part in script.split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        _, _, statement = rest.partition("\n")
        for key, text in _PARTS.items():
            statement = statement.replace("{" + key + "}", text)
        found[name.strip()] = statement.strip().rstrip(";")
    return found


QUERIES: Final[Mapping[str, str]] = _parse(load("postgres_queries.sql"))
"""Name -> statement."""


# --- values towards the server ---------------------------------------------------------------


def array(values: Iterable[str | int]) -> bytes:
    """An array as PostgreSQL reads it. Texts are quoted; None is not among them."""
    parts = []
    for value in values:
        if type(value) is int:
            parts.append(str(value))
        else:
            escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'"{escaped}"')
    return ("{" + ",".join(parts) + "}").encode()


def from_row(
    row: Row, account_id: int, finished_at: float | None, revision: int, is_current: bool = True
) -> dict[str, Any]:
    """The columns of a report, for JSON."""
    (until, since), (completed_at, task_type, language_pool, age_s) = row.window, row.facts
    return {
        "seq": row.seq,
        "account_id": account_id,
        "task_id": row.task.task_id,
        "method": row.method,
        "state": row.state,
        "outcome": row.outcome,
        "owner": row.owner,
        "attempts": row.attempts,
        "sends": row.sends,
        "perhaps": row.perhaps,
        "window_until": until,
        "window_since": since,
        "completed_at": completed_at,
        "task_type": task_type,
        "language_pool": language_pool,
        "age_s": age_s,
        "code": row.code,
        "kind": row.kind,
        "detail": row.detail or None,
        "recorded_wall": row.recorded_wall,
        "finished_wall": row.finished_wall,
        "latency_ms": row.latency_ms,
        "finished_at": finished_at,
        "revision": revision,
        "current": is_current,
    }


def from_pause(state: PauseState, endpoint: str, revision: int) -> dict[str, Any]:
    """The columns of a pause, for JSON."""
    (rule, subject), name, cause, streak, recent, *rest = state
    level, opened_at, ends_at, probe_owner, probe_task, context = rest
    return {
        "endpoint": endpoint,
        "subject": subject,
        "rule": rule,
        "state": name,
        "cause": cause,
        "streak": streak,
        "recent": recent,
        "level": level,
        "opened_at": opened_at,
        "ends_at": ends_at,
        "probe_owner": probe_owner,
        "probe_task": probe_task,
        "context": context,
        "revision": revision,
    }


def dump(values: Any) -> bytes:
    """JSON for the server. A zero character, which its texts cannot hold, becomes a space."""
    return encode(values).replace("\\u0000", " ").encode()


# --- values from the server ------------------------------------------------------------------


def text(value: bytes | None) -> str | None:
    """A text, or None."""
    return None if value is None else value.decode()


def number(value: bytes | None) -> float | None:
    """A number with a fraction, or None."""
    return None if value is None else float(value)


def whole(value: bytes | None) -> int | None:
    """A whole number, or None."""
    return None if value is None else int(value)


def certain(value: bytes | None) -> str:
    """A text of a column that is never null."""
    assert value is not None
    return value.decode()


def to_row(values: Values, endpoint: str, account: str) -> Row:
    """Make a report of the columns of a statement."""
    v: Any = values
    detail = v[18]
    return Row(
        int(v[0]),
        Task(endpoint, account, int(v[2])),
        v[3].decode(),
        v[4].decode(),
        text(v[5]),
        text(v[6]),
        int(v[7]),
        int(v[8]),
        v[9] == b"t",
        Window(number(v[10]), number(v[11])),
        Facts(number(v[12]), text(v[13]), text(v[14]), number(v[15])),
        whole(v[16]),
        text(v[17]),
        {} if detail is None else json.loads(detail),
        float(v[19]),
        number(v[20]),
        whole(v[21]),
    )


def to_pause(values: Values) -> PauseState:
    """Make a pause of the columns of a pause statement, which begin after the endpoint."""
    v: Any = values
    recent = v[6]
    return PauseState(
        PauseKey(v[2].decode(), v[1].decode()),
        v[3].decode(),
        text(v[4]),
        int(v[5]),
        () if recent == b"[]" else tuple((at, name) for at, name in json.loads(recent)),
        int(v[7]),
        number(v[8]),
        number(v[9]),
        text(v[10]),
        text(v[11]),
        v[12].decode(),
    )


# --- lists -----------------------------------------------------------------------------------

_BY_TIME: Final = "FROM (SELECT seq FROM reports WHERE recorded_wall"


def select_listing(listing: Listing, limit: int) -> tuple[str, list[bytes | None]]:
    """The statement and its values for one page of reports, newest first."""
    terms = ["true"]
    values: list[bytes | None] = [str(limit).encode()]

    def mark(value: str | float, kind: str) -> str:
        values.append(str(value).encode())
        return f"${len(values)}::{kind}"

    if listing.endpoint is not None:
        terms.append(f"a.endpoint = {mark(listing.endpoint, 'text')}")
    if listing.before_seq is not None:
        terms.append(f"r.seq < {mark(listing.before_seq, 'bigint')}")
    if listing.since_wall is not None:
        # Numbers are given before the commit, so they and time need not agree; an index finds where
        # to stop. OFFSET 0 keeps the planner from walking the whole table in the order of numbers.
        since = mark(repr(float(listing.since_wall)), "float8")
        terms.append(f"r.seq >= (SELECT min(seq) {_BY_TIME} >= {since} OFFSET 0) AS s)")
        terms.append(f"r.recorded_wall + 0 >= {since}")
    if listing.until_wall is not None:
        until = mark(repr(float(listing.until_wall)), "float8")
        terms.append(f"r.seq <= (SELECT max(seq) {_BY_TIME} < {until} OFFSET 0) AS s)")
        terms.append(f"r.recorded_wall + 0 < {until}")
    if listing.outcome is not None:
        outcome = listing.outcome if listing.outcome in OUTCOMES else ""
        # Spelled out, since a parameter would not prove that the partial index holds every match.
        terms.append(f"r.outcome = '{outcome}'")
        if outcome != ACCEPTED:
            terms.append("r.outcome <> 'accepted'")
    if listing.method is not None:
        terms.append(f"r.method = {mark(listing.method, 'text')}")
    return QUERIES["listing"].replace("{terms}", " AND ".join(terms)), values
