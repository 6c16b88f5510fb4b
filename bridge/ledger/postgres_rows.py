"""The statements of the PostgreSQL ledger, and how its rows become values and back.

Knows no connection, no transaction and no rule: which statement runs when is in
`bridge.ledger.postgres_batch`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.core.counting import HOUR_S, Counts
from bridge.core.model import Listing, PauseState, Row
from bridge.ledger.rows import (
    COLUMNS,
    FIGURES,
    PAUSE_COLUMNS,
    TALLIED,
    TALLY_COLUMNS,
    Value,
    encode,
    from_pause,
    from_row,
    select_listing,
    to_pause,
    to_row,
)
from bridge.ledger.work import MOST_TALLIED

Values = Sequence[bytes | None]
"""One row as the server tells it: text in UTF-8, or None."""

_OF: Final = {
    "seq": "bigint", "account_id": "integer", "task_id": "bigint", "attempts": "smallint",
    "sends": "smallint",
    "perhaps": "boolean", "window_until": "float8", "window_since": "float8", "completed_at": "float8",
    "age_s": "float8", "code": "bigint", "detail": "json", "recorded_wall": "float8",
    "finished_wall": "float8",
    "latency_ms": "bigint", "finished_at": "float8", "streak": "integer", "recent": "json",
    "level": "integer",
    "opened_at": "float8", "ends_at": "float8",
}  # fmt: skip
"""Column -> its type, where that is not text."""
_TYPES: Final = {
    **{name: _OF.get(name, "text") for name in COLUMNS},
    "revision": "integer",
    "current": "boolean",
}
_FIXED: Final = frozenset({"seq", "account_id", "task_id", "recorded_wall"})
_PAUSE_TYPES: Final = {**{name: _OF.get(name, "text") for name in PAUSE_COLUMNS}, "revision": "bigint"}
_PAUSE_KEY: Final = frozenset({"subject", "rule"})
WIDTH: Final = len(_TYPES)
"""Columns of a report; what follows them in a row is the statement's own."""


def _typed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


_OF_ACCOUNT: Final = "WHERE a.endpoint = $1::text AND a.account = $2::text"
_OF_MOST: Final = (
    "WHERE a.id IN (SELECT account_id FROM tallies JOIN accounts ON id = account_id "
    f"WHERE endpoint = $1::text AND width_s = {HOUR_S} AND number >= $2::bigint "
    f"GROUP BY account_id ORDER BY sum(sent + late) DESC, account_id LIMIT {MOST_TALLIED})"
)
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
    "tallies_of_account": TALLIED.format(_OF_ACCOUNT),
    "tallies_of_most": TALLIED.format(_OF_MOST),
    "figures_of_account": FIGURES.format(_OF_ACCOUNT),
    "figures_of_most": FIGURES.format(_OF_MOST),
    "tally_stored": ", ".join((*TALLY_COLUMNS, "shard")),
    "tally_typed": ", ".join(
        f"{name} {'text' if name == 'subject' else 'float8' if name == 'cost' else 'bigint'}"
        for name in (*TALLY_COLUMNS, "shard")
    ),
    "tally_added": ", ".join(f"{name} = tallies.{name} + excluded.{name}" for name in Counts._fields),
}
"""What statements have in common, by the name in braces."""


def load(name: str) -> str:
    """A script beside this module, as a plain file or a member of an archive."""
    loader: Any = __spec__.loader
    read: Callable[[str], bytes] = loader.get_data
    return read(os.path.join(os.path.dirname(__file__), name)).decode("utf-8")


def load_statements(script: str) -> dict[str, str]:
    """The statements of a script beside this module by name. The first line of each says what it is for."""
    found: dict[str, str] = {}
    for part in load(script).split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        _, _, statement = rest.partition("\n")
        for key, text in _PARTS.items():
            statement = statement.replace("{" + key + "}", text)
        found[name.strip()] = statement.strip().rstrip(";")
    return found


QUERIES: Final[Mapping[str, str]] = load_statements("postgres_queries.sql")
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


def report_columns(
    row: Row, account_id: int, finished_at: float | None, revision: int, is_current: bool = True
) -> dict[str, Any]:
    """The columns of a report, for JSON."""
    columns = dict(zip(COLUMNS, from_row(row, account_id, finished_at), strict=True))
    return columns | {"detail": row.detail or None, "revision": revision, "current": is_current}


def pause_columns(state: PauseState, endpoint: str, revision: int) -> dict[str, Any]:
    """The columns of a pause, for JSON."""
    columns = dict(zip(PAUSE_COLUMNS, from_pause(state), strict=True))
    return columns | {"recent": state.recent, "endpoint": endpoint, "revision": revision}


def dump(values: Any) -> bytes:
    """JSON for the server. A zero character, which its texts cannot hold, becomes a space."""
    return encode(values).replace("\\u0000", " ").encode()


# --- values from the server ------------------------------------------------------------------


def text(value: bytes | None) -> str | None:
    """A text, or None."""
    return None if value is None else value.decode()


def whole(value: bytes | None) -> int | None:
    """A whole number, or None."""
    return None if value is None else int(value)


def certain(value: bytes | None) -> str:
    """A text of a column that is never null."""
    assert value is not None
    return value.decode()


_READERS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    **dict.fromkeys(("bigint", "integer", "smallint"), int),
    **dict.fromkeys(("text", "json"), bytes.decode),
    "float8": float,
    "boolean": b"t".__eq__,
}
_REPORT: Final = tuple(_READERS[kind] for kind in _TYPES.values())
_PAUSE: Final = tuple(_READERS[kind] for kind in _PAUSE_TYPES.values())


def report_values(values: Values) -> list[Any]:
    """The columns of a report with its revision and whether it is current, as Python's values."""
    return [None if v is None else read(v) for read, v in zip(_REPORT, values, strict=False)]


def pause_values(values: Values) -> list[Any]:
    """The columns of a pause with its revision, which begin after the endpoint."""
    return [None if v is None else read(v) for read, v in zip(_PAUSE, values[1:], strict=False)]


def named_row(values: Values) -> Row:
    """Make a report of the columns of a statement that ends with endpoint and account."""
    return to_row(report_values(values), certain(values[-2]), certain(values[-1]))


def one_pause(values: Values) -> PauseState:
    """Make a pause of the columns of a pause statement."""
    return to_pause(pause_values(values)[:-1])


# --- lists -----------------------------------------------------------------------------------


def list_statement(listing: Listing, limit: int) -> tuple[str, list[bytes | None]]:
    """The statement and its values for one page of reports, newest first."""
    rest, values = select_listing(listing)
    mark = f"${len(values) + 1}"
    return QUERIES["listing"].replace("{rest}", rest).replace("{limit}", mark), tell([*values, limit])


def tell(values: Iterable[Value]) -> list[bytes | None]:
    """Values as the server reads them."""
    return [str(value).encode() for value in values]
