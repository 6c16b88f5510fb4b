"""Brings a PostgreSQL ledger to this version, once, however many bridges of whatever versions start.

Never changes a schema that is not a ledger. Imported by the PostgreSQL ledger and the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bridge.ledger.postgres_link import Link, ServerRefused, Statement
from bridge.ledger.postgres_rows import QUERIES, certain, load
from bridge.ledger.postgres_trouble import NO_SCHEMA, STRANGE_SCHEMA, explain
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


def identify(link: Link) -> Found:
    """The version of the ledger in a database.

    Raises:
        LedgerTrouble: ``foreign`` if the schema is another program's.
    """
    (((has_schema, has_versions),),) = link.run([(QUERIES["version"], [])])
    if has_versions != b"t":
        if has_schema == b"t" and link.run([(_COUNT_TABLES, [])])[0][0][0] != b"0":
            raise LedgerTrouble(FOREIGN, STRANGE_SCHEMA)
        return Found(0, 0)
    rows = link.run([(QUERIES["versions"], [])])[0]
    if not rows:
        raise LedgerTrouble(FOREIGN, STRANGE_SCHEMA)
    version, oldest = rows[0]
    return Found(int(certain(version)), int(certain(oldest)))


def migrate(link: Link, random_bytes: Callable[[int], bytes]) -> Found:
    """Run the scripts that are missing, in one transaction, alone; what the database has then.

    Args:
        random_bytes: chance, for the secret of a new ledger.

    Raises:
        LedgerTrouble: it cannot be done; nothing was changed.
    """
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    patience: list[Statement] = [(f"SET LOCAL {name} = {round(MIGRATE_S * 1000)}", []) for name in names]
    try:
        # Whoever is second waits here, and finds the work done. The lock comes before the transaction,
        # because a transaction goes on believing what it has once found missing.
        link.run(
            [(QUERIES["begin"], []), *patience, (QUERIES["lock_migration"], []), (QUERIES["commit"], [])],
            MIGRATE_S,
        )
        link.run([(QUERIES["begin"], []), *patience])
        found = identify(link)
        if found.version == 0:
            link.run([("CREATE SCHEMA IF NOT EXISTS report_bridge", [])])
        for number, migration in enumerate(MIGRATIONS[found.version :], found.version + 1):
            for statement in split_script(load(migration.script)):
                link.run([(statement, [])], MIGRATE_S)
            values = [str(number).encode(), str(migration.oldest_writer).encode()]
            link.run([(QUERIES["add_version"], values)])
        if found.version == 0:
            link.run([(QUERIES["add_secret"], [random_bytes(32).hex().encode()])])
        link.run([(QUERIES["commit"], []), (QUERIES["unlock_migration"], [])])
        return identify(link)
    except ServerRefused as refusal:
        link.run([(QUERIES["roll_back"], []), (QUERIES["unlock_migration"], [])])
        if refusal.state == "42501":
            raise LedgerTrouble(READONLY if found_any(link) else UNREADABLE, NO_SCHEMA) from None
        raise explain(refusal.state) from None
    except LedgerTrouble:
        link.run([(QUERIES["roll_back"], []), (QUERIES["unlock_migration"], [])])
        raise


def found_any(link: Link) -> bool:
    """True if there is a ledger of any version."""
    return identify(link).version > 0


_COUNT_TABLES: Final = (
    "SELECT count(*) FROM pg_class "
    "WHERE relnamespace = to_regnamespace('report_bridge') AND relkind IN ('r', 'p')"
)


def split_script(script: str) -> list[str]:
    """Cut a script into statements at semicolons that end a line, outside of function bodies."""
    statements: list[str] = []
    part = ""
    is_body = False
    for line in script.splitlines(keepends=True):
        part += line
        code = line.partition("--")[0]
        if code.count("$$") % 2:
            is_body = not is_body
        if not is_body and code.rstrip().endswith(";"):
            statements.append(part.strip().rstrip(";"))
            part = ""
    return statements
