"""What the PostgreSQL ledger has in its database: tables, the statements upon them, and rows as values.

The tables are brought to this version once, however many bridges of whatever versions start. Never changes
a schema that is not a ledger. Which statement runs when is in `bridge.ledger.postgres_batch`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from bridge.core.counting import Counts
from bridge.core.model import PauseState
from bridge.ledger import rows
from bridge.ledger.postgres_link import Link, ServerRefused
from bridge.ledger.postgres_trouble import NO_SCHEMA, STRANGE_SCHEMA
from bridge.ledger.rows import Rows, Statement, load
from bridge.ledger.trouble import FOREIGN, READONLY, UNREADABLE, LedgerTrouble
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
    for part in load("postgres_queries.sql").split("-- name: ")[1:]:
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
    """JSON for the server, without what its texts cannot hold."""
    return clean(rows.encode(values))


def clean(text: str) -> str:
    """A text, or JSON, for the server: a zero character, which its texts cannot hold, becomes a space."""
    # Behind an odd number of backslashes it is none, but six characters of the text.
    return re.sub(r"(?<!\\)((?:\\\\)*)\\u0000", r"\1 ", text.replace("\0", " "))


# --- versions --------------------------------------------------------------------------------


class Migration(NamedTuple):
    """One step forward."""

    script: str
    """A file beside this module."""
    oldest_writer: int
    """The oldest version of the program whose statements still work after it. Bridges of that and later
    versions go on while others are replaced; older ones read only."""


MIGRATIONS: Final = (Migration("postgres.sql", 1), Migration("postgres_2.sql", 1))
"""The n-th makes version n of version n-1."""
VERSION: Final = len(MIGRATIONS)
MIGRATE_S: Final = 600.0
"""How long a migration may take, and how long others wait for it."""


class Found(NamedTuple):
    """What a database has."""

    version: int
    """0 if there is no ledger yet."""
    oldest_writer: int

    @property
    def is_newer(self) -> bool:
        """True if this program must not write."""
        return self.oldest_writer > VERSION


def identify(ask: Callable[[str], Rows]) -> Found:
    """The version of the ledger in a database.

    Raises:
        LedgerTrouble: ``foreign`` if the schema is another program's.
    """
    ((has_versions, is_empty),) = ask(QUERIES["version"])
    if not has_versions and is_empty:
        return Found(0, 0)
    found = ask(QUERIES["versions"]) if has_versions else []
    if not found:
        raise LedgerTrouble(FOREIGN, STRANGE_SCHEMA)
    return Found(*found[0])


def migrate(link: Link, random_bytes: Callable[[int], bytes]) -> Found:
    """Run the scripts that are missing, in one transaction, alone; what the database has then.

    Args:
        random_bytes: chance, for the secret of a new ledger.

    Raises:
        ServerRefused, LedgerTrouble: it cannot be done; nothing was changed.
    """
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    patience = dump(dict.fromkeys(names, round(MIGRATE_S * 1000)))
    begin: list[Statement] = [(QUERIES["begin"], []), (QUERIES["settle_in"], [patience])]
    try:
        # Whoever is second waits here, and finds the work done. The lock comes before the transaction,
        # because a transaction goes on believing what it has once found missing.
        link.run([*begin, (QUERIES["lock_migration"], []), (QUERIES["commit"], [])], MIGRATE_S)
        link.run(begin)
        found = identify(link.ask)
        if found.version == 0:
            link.ask("CREATE SCHEMA IF NOT EXISTS report_bridge")
        for number, migration in enumerate(MIGRATIONS[found.version :], found.version + 1):
            # The body of a function, so that a script is one statement.
            link.run([(f"DO $script$ BEGIN\n{load(migration.script)}END $script$", [])], MIGRATE_S)
            link.ask(QUERIES["add_version"], number, migration.oldest_writer)
        if found.version == 0:
            link.ask(QUERIES["add_secret"], random_bytes(32).hex())
        link.run([(QUERIES["commit"], []), (QUERIES["unlock_migration"], [])])
        return identify(link.ask)
    except (ServerRefused, LedgerTrouble) as met:
        link.run([(QUERIES["roll_back"], []), (QUERIES["unlock_migration"], [])])
        if isinstance(met, ServerRefused) and met.state == "42501":
            has_ledger = identify(link.ask).version > 0
            raise LedgerTrouble(READONLY if has_ledger else UNREADABLE, NO_SCHEMA) from None
        raise
