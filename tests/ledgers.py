"""Ledgers with known content, for tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
import pytest

from bridge.engine import SystemClock
from bridge.ledger import sqlite_file
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.reading import open_reader
from bridge.ledger.sqlite import SqliteStore
from bridge.reports.pauses import PausePolicy
from tests.pgserver import PASSWORD, PgServer

BACKENDS: Final = ("sqlite", "postgres")
ENDPOINT: Final = "https://api.example.test"
ACCOUNT: Final = "0123456789abcdef" * 2
DAY: Final = 86_400.0
START: Final = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""


def make_ledger(path: Path) -> Path:
    """Make an empty ledger."""
    SqliteStore(
        str(path),
        policy=PausePolicy("test"),
        boot_clock=SystemClock.now,
        wall_clock=SystemClock.wall,
    ).close()
    return path


def make_columns(given: dict[str, Any]) -> tuple[tuple[str, str], dict[str, Any], dict[str, Any]]:
    """Endpoint and account, columns and events of a report, with usual values for what is left out.

    ``account``, ``endpoint``, ``events`` (name to data, in order) and ``detail`` (a dict) are not columns.
    """
    columns = dict(given)
    place = (columns.pop("endpoint", ENDPOINT), columns.pop("account", ACCOUNT))
    events = columns.pop("events", {})
    outcome = columns.get("outcome", "accepted")
    recorded = columns.setdefault("recorded_wall", START)
    return (
        place,
        {
            "method": "reportIncorrectImageCaptcha",
            "outcome": outcome,
            "state": "queued" if outcome is None else "done",
            "owner": "o" if outcome is None else None,
            "code": None if outcome is None else 0,
            "kind": outcome,
            "attempts": 1,
            "sends": 1,
            "perhaps": False,
            "current": True,
            "finished_wall": None if outcome is None else recorded + 1,
            "finished_at": None if outcome is None else recorded + 1,
            "latency_ms": 100,
            "detail": {},
            **columns,
        },
        events,
    )


def open_file(path: Path | str, busy_s: float = 5.0) -> sqlite_file.Connection:
    """Open a ledger's file with the library that the bridge uses, every statement on its own.

    Two libraries in one process would let go of each other's locks.
    """
    Path(path).touch()
    return sqlite_file.connect(str(path), busy_s, writable=True)


def add_reports(path: Path, *reports: dict[str, Any]) -> None:
    """Add reports: a dict of columns each, as `make_columns` takes it."""
    connection = open_file(path)
    connection.execute("BEGIN")
    for given in reports:
        place, values, events = make_columns(given)
        connection.execute("INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", place)
        find = "SELECT id FROM accounts WHERE endpoint = ? AND account = ?"
        ((values["account_id"],),) = connection.execute(find, place).fetchall()
        values["detail"] = json.dumps(values["detail"], separators=(",", ":"))
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO reports ({names}) VALUES ({marks})", tuple(values.values()))
        seq = connection.last_insert_rowid()
        for nth, (name, data) in enumerate(events.items(), 1):
            row = (seq, nth, values["recorded_wall"], name, json.dumps(data))
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("COMMIT")
    connection.close()


def add_pause(
    path: Path, rule: str, subject: str, cause: str, opened_at: float, ends_at: float | None
) -> None:
    """Add an open pause; its instants are on the ledger's timeline."""
    connection = open_file(path)
    connection.execute(
        "INSERT INTO pauses (endpoint, subject, rule, state, cause, streak, recent, level, opened_at, "
        "ends_at, context) VALUES (?, ?, ?, 'open', ?, 0, '[]', 0, ?, ?, '')",
        (ENDPOINT, subject, rule, cause, opened_at, ends_at),
    )
    connection.close()


def transact(ledger: MadeLedger, *operations: Any) -> None:
    """Do something to a ledger as a bridge does."""
    options: dict[str, Any] = {"policy": PausePolicy("test")}
    options |= {"boot_clock": SystemClock.now, "wall_clock": SystemClock.wall}
    opens: Any = PostgresStore if isinstance(ledger, ServerLedger) else SqliteStore
    store = opens(str(ledger), **options)
    store.transact(operations)
    store.close()


def watch(store: Any, note: Callable[[str], None]) -> None:
    """Tell the text of every statement that a store runs from now on, before it runs."""
    if isinstance(store, SqliteStore):
        connection: Any = store._connection

        def trace(_cursor: Any, text: str, _values: Any) -> bool:
            note(text)
            return True

        connection.exec_trace = trace
        return
    run = store.link.run

    def tell(statements: Any, *wait: float) -> Any:
        for text, _ in statements:
            note(text)
        return run(statements, *wait)

    store.link.run = tell


def find_damage(place: str) -> tuple[str, ...]:
    """What is wrong with a ledger."""
    with closing(open_reader(place, 0.0, 0.0)) as reader:
        return reader.check(full=True)


# --- of either kind --------------------------------------------------------------------------


class MadeLedger(Protocol):
    """A ledger that a test fills. As a text it is what ``--ledger`` takes."""

    def add_reports(self, *reports: dict[str, Any]) -> None:
        """Add reports, as `make_columns` takes them."""

    def add_pause(self, rule: str, subject: str, cause: str, opened_at: float, ends_at: float | None) -> None:
        """Add an open pause; its instants are UNIX seconds."""

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement that both kinds understand, and commit it; its rows."""


class FileLedger:
    """A ledger in a file."""

    def __init__(self, path: Path) -> None:
        self.path = make_ledger(path)

    def __str__(self) -> str:
        return str(self.path)

    def add_reports(self, *reports: dict[str, Any]) -> None:
        add_reports(self.path, *reports)

    def add_pause(self, rule: str, subject: str, cause: str, opened_at: float, ends_at: float | None) -> None:
        add_pause(self.path, rule, subject, cause, opened_at, ends_at)

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        connection = open_file(self.path)
        found: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
        connection.close()
        return found


class ServerLedger:
    """A ledger in a database of a server, with a role of its own choice.

    Args:
        is_made: False for a database without tables.
    """

    def __init__(self, server: PgServer, is_made: bool = True) -> None:
        self.server = server
        self.database = server.make_database()
        self.url = server.url(self.database)
        if is_made:
            self.make()

    def __str__(self) -> str:
        return self.url

    def make(self) -> None:
        """Make the tables."""
        PostgresStore(
            self.url,
            policy=PausePolicy("test"),
            boot_clock=SystemClock.now,
            wall_clock=SystemClock.wall,
        ).close()

    def make_role(self, name: str, *grants: str) -> str:
        """Make a role of this ledger only, with what is granted to it; the address with it.

        Args:
            grants: what follows GRANT and comes before TO, such as ``SELECT ON reports``.
        """
        role = f"{name}_{self.database}"
        self.select(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        self.grant(role, *grants)
        return self.server.url(self.database, role=role)

    def grant(self, role: str, *grants: str) -> None:
        """Let a role do more."""
        for words in grants:
            self.select(f"GRANT {words} TO {role}")

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection as the superuser, in a transaction that is committed at the end."""
        with psycopg.connect(self.server.url(self.database, role="postgres")) as connection:
            connection.execute("SET search_path = report_bridge")
            yield connection

    def add_reports(self, *reports: dict[str, Any]) -> None:
        with self.connected() as connection:
            for given in reports:
                place, values, events = make_columns(given)
                connection.execute(
                    "INSERT INTO accounts (endpoint, account) VALUES (%s, %s) ON CONFLICT DO NOTHING", place
                )
                find = "SELECT id FROM accounts WHERE endpoint = %s AND account = %s"
                ((values["account_id"],),) = connection.execute(find, place).fetchall()
                ((seq,),) = connection.execute("SELECT nextval('report_numbers')").fetchall()
                values |= {"seq": seq, "revision": len(events), "detail": json.dumps(values["detail"])}
                values = {name: bool(v) if name == "current" else v for name, v in values.items()}
                names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
                connection.execute(f"INSERT INTO reports ({names}) VALUES ({marks})", list(values.values()))
                for nth, (name, data) in enumerate(events.items(), 1):
                    row = (seq, nth, values["recorded_wall"], name, json.dumps(data))
                    connection.execute("INSERT INTO events VALUES (%s, %s, %s, %s, %s)", row)

    def add_pause(self, rule: str, subject: str, cause: str, opened_at: float, ends_at: float | None) -> None:
        with self.connected() as connection:
            connection.execute(
                "INSERT INTO pauses (endpoint, subject, rule, revision, state, cause, streak, recent, level, "
                "opened_at, ends_at, context) VALUES (%s, %s, %s, 1, 'open', %s, 0, '[]', 0, %s, %s, '')",
                (ENDPOINT, subject, rule, cause, opened_at, ends_at),
            )

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        with self.connected() as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def make_of(kind: str, request: pytest.FixtureRequest) -> Callable[[], MadeLedger]:
    """What makes empty ledgers of a kind; a server is started only if one is needed."""
    if kind == "sqlite":
        folder: Path = request.getfixturevalue("tmp_path_factory").mktemp("ledger")
        return lambda: FileLedger(folder / f"{len(list(folder.iterdir()))}.sqlite3")
    server: PgServer = request.getfixturevalue("pg_server")
    return lambda: ServerLedger(server)
