"""Ledgers with known content, for tests of what reads them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, Final

from bridge.ledger.sqlite import SqliteStore
from bridge.ops.clock import boot_clock, wall_clock
from bridge.reports.pauses import PausePolicy

ENDPOINT: Final = "https://api.example.test"
ACCOUNT: Final = "0123456789abcdef" * 2
DAY: Final = 86_400.0
START: Final = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""


def make_ledger(path: Path) -> Path:
    """Make an empty ledger."""
    SqliteStore.open(
        str(path), policy=PausePolicy("test"), machine="test", boot_clock=boot_clock, wall_clock=wall_clock
    ).close()
    return path


def add_reports(path: Path, *reports: dict[str, Any]) -> None:
    """Add reports: a dict of columns each, with usual values for what is left out.

    ``account``, ``endpoint``, ``events`` (name to data, in order) and ``detail`` (a dict) are not columns.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    for given in reports:
        columns = dict(given)
        place = (columns.pop("endpoint", ENDPOINT), columns.pop("account", ACCOUNT))
        connection.execute("INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", place)
        find = "SELECT id FROM accounts WHERE endpoint = ? AND account = ?"
        events = columns.pop("events", {})
        outcome = columns.get("outcome", "accepted")
        recorded = columns.get("recorded_wall", START)
        values = {
            "account_id": connection.execute(find, place).fetchone()[0],
            "method": "reportIncorrectImageCaptcha",
            "outcome": outcome,
            "state": "queued" if outcome is None else "done",
            "owner": "o" if outcome is None else None,
            "code": None if outcome is None else 0,
            "kind": outcome,
            "attempts": 1,
            "sends": 1,
            "perhaps": 0,
            "recorded_wall": recorded,
            "finished_wall": None if outcome is None else recorded + 1,
            "finished_at": None if outcome is None else recorded + 1,
            "latency_ms": 100,
            **columns,
            "detail": json.dumps(columns.get("detail", {}), separators=(",", ":")),
        }
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = connection.execute(f"INSERT INTO reports ({names}) VALUES ({marks})", tuple(values.values()))
        for nth, (name, data) in enumerate(events.items(), 1):
            row = (cursor.lastrowid, nth, recorded, name, json.dumps(data))
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("COMMIT")
    connection.close()


def add_pause(
    path: Path, rule: str, subject: str, cause: str, opened_at: float, ends_at: float | None
) -> None:
    """Add an open pause; its instants are on the ledger's timeline."""
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO pauses (endpoint, subject, rule, state, cause, streak, recent, level, opened_at, "
        "ends_at, context) VALUES (?, ?, ?, 'open', ?, 0, '[]', 0, ?, ?, '')",
        (ENDPOINT, subject, rule, cause, opened_at, ends_at),
    )
    connection.commit()
    connection.close()
