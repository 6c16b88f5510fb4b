"""The statements of the PostgreSQL ledger, and how its rows become values and back.

Knows no connection, no transaction and no rule: which statement runs when is in
`bridge.ledger.postgres_batch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bridge.core.counting import Counts
from bridge.core.model import PauseState
from bridge.ledger import rows
from bridge.ledger.work import Entry

REPORT: Final = (*rows.COLUMNS, "revision", "current")
_PAUSE: Final = (*rows.PAUSE_COLUMNS, "revision")
TALLY: Final = (*rows.TALLY_COLUMNS, "shard")
_FIXED: Final = frozenset({"seq", "account_id", "task_id", "recorded_wall"})
_PAUSE_KEY: Final = frozenset({"subject", "rule"})

_IS_FREE: Final = (
    "CASE WHEN {0} <> {1} THEN pg_try_advisory_xact_lock_shared(hashtextextended({0}, 0)) ELSE false END"
)
_PARTS: Final = {
    "columns": ", ".join(f"r.{name}" for name in REPORT),
    "stored": ", ".join(REPORT),
    "assigned": ", ".join(f"{name} = g.{name}" for name in REPORT if name not in _FIXED),
    "is_free": _IS_FREE.format("r.owner", "$4"),
    "pause_columns": ", ".join(f"p.{name}" for name in _PAUSE),
    "pause_stored": ", ".join(_PAUSE),
    "pause_assigned": ", ".join(f"{name} = excluded.{name}" for name in _PAUSE if name not in _PAUSE_KEY),
    "is_prober_free": _IS_FREE.format("p.probe_owner", "$3"),
    "tally_stored": ", ".join(TALLY),
    "tally_added": ", ".join(f"{name} = tallies.{name} + excluded.{name}" for name in Counts._fields),
}
"""What statements have in common, by the name in braces."""


def _load_statements() -> Iterator[tuple[str, str]]:
    for part in rows.load("postgres_queries.sql").split("-- name: ")[1:]:
        name, _, statement = part.split("\n", 2)
        for key, text in _PARTS.items():
            statement = statement.replace("{" + key + "}", text)
        yield name, statement.strip().rstrip(";")


QUERIES: Final = dict(_load_statements())
"""Name -> statement. The first line of each says what it is for."""


def report_columns(entry: Entry) -> dict[str, Any]:
    """The columns of a report, for JSON."""
    values = rows.from_row(entry.row, entry.account_id, entry.finished_at)
    columns = dict(zip(REPORT, (*values, entry.number, entry.is_current), strict=True))
    return columns | {"detail": entry.row.detail or None}


def pause_columns(state: PauseState, endpoint: str, revision: int) -> dict[str, Any]:
    """The columns of a pause, for JSON."""
    columns = dict(zip(_PAUSE, (*rows.from_pause(state), revision), strict=True))
    return columns | {"recent": state.recent, "endpoint": endpoint}


def dump(values: Any) -> str:
    """JSON for the server. A zero character, which its texts cannot hold, becomes a space."""
    return rows.encode(values).replace("\\u0000", " ")
