"""Brings a PostgreSQL ledger to this version, once, however many bridges of whatever versions start.

Never changes a schema that is not a ledger. Imported by the PostgreSQL ledger and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bridge.ledger.postgres_link import Link, ServerRefused
from bridge.ledger.postgres_rows import QUERIES, dump
from bridge.ledger.postgres_trouble import NO_SCHEMA, STRANGE_SCHEMA
from bridge.ledger.rows import Rows, Statement, load
from bridge.ledger.trouble import FOREIGN, READONLY, UNREADABLE, LedgerTrouble


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
    rows = ask(QUERIES["versions"]) if has_versions else []
    if not rows:
        raise LedgerTrouble(FOREIGN, STRANGE_SCHEMA)
    return Found(*rows[0])


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
