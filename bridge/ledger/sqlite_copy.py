"""A ledger in a file as one end of a copy. Imported by the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.ledger import files, sqlite_file
from bridge.ledger.copying import Bundle, NotCopied
from bridge.ledger.owners import Owners
from bridge.ledger.rows import encode
from bridge.ledger.trouble import NEWER, LedgerTrouble

COLUMNS: Final = (
    "seq", "task_id", "current", "method", "state", "outcome", "owner", "attempts", "sends", "perhaps",
    "window_until", "window_since", "completed_at", "task_type", "language_pool", "age_s", "code", "kind",
    "detail", "recorded_wall", "finished_wall", "finished_at", "latency_ms",
)  # fmt: skip
PAUSE_COLUMNS: Final = (
    "endpoint", "subject", "rule", "state", "cause", "streak", "recent", "level", "opened_at", "ends_at",
    "probe_owner", "probe_task", "context",
)  # fmt: skip
_BUSY_S: Final = 10.0
_COPIED: Final = "copied_from_"


class SqliteEnd:
    """A file as one end of a copy; fits `bridge.ledger.copying.End`.

    Args:
        path: the file.
        make: True to make it if it is missing.
    """

    def __init__(self, path: str, make: bool) -> None:
        if not make and not os.path.exists(path):
            raise NotCopied(f"There is no ledger at {path}.")
        self._owners = Owners(path, "copy")
        self._path = path
        prepared = files.prepare(path, False)
        with sqlite_file.translated(writing=make):
            self._connection = sqlite_file.connect(path, _BUSY_S, prepared.writable)
            version = sqlite_file.identify(self._connection)
            if version > sqlite_file.VERSION:
                raise LedgerTrouble(NEWER)
            sqlite_file.configure(self._connection, writable=prepared.writable)
            if version < sqlite_file.VERSION:
                sqlite_file.migrate(self._connection)
            found = self._ask("SELECT value FROM meta WHERE name = 'secret'")
        self.secret = bytes(found[0][0])

    def _ask(self, statement: str, values: Any = ()) -> list[Any]:
        with sqlite_file.translated(writing=True):
            found: list[Any] = self._connection.execute(statement, values).fetchall()
            return found

    def count(self) -> int:
        """How many reports there are."""
        return int(self._ask("SELECT count(*) FROM reports")[0][0])

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        folder = self._path + ".owners"
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return any(self._owners.is_alive(name[:-5]) for name in names if name.endswith(".lock"))

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""
        names = ", ".join(f"r.{name}" for name in COLUMNS)
        bundles = []
        for values in self._ask(
            f"SELECT {names}, a.endpoint, a.account FROM reports AS r "
            "JOIN accounts AS a ON a.id = r.account_id WHERE r.seq > ? ORDER BY r.seq LIMIT ?",
            (after_seq, limit),
        ):
            columns = dict(zip((*COLUMNS, "endpoint", "account"), values, strict=True))
            columns["perhaps"], columns["current"] = bool(columns["perhaps"]), bool(columns["current"])
            columns["detail"] = json.loads(columns["detail"])
            events = self._ask(
                "SELECT nth, at_wall, name, data FROM events WHERE report = ? ORDER BY nth", (columns["seq"],)
            )
            bundles.append(Bundle(columns, events))
        return bundles

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""
        rows = self._ask(f"SELECT {', '.join(PAUSE_COLUMNS)} FROM pauses")
        return [dict(zip(PAUSE_COLUMNS, row, strict=True)) for row in rows]

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here."""
        found = self._ask("SELECT value FROM meta WHERE name = ?", (_COPIED + source,))
        return int(found[0][0]) if found else None

    def begin(self, source: str, secret: bytes) -> None:
        """Take over the secret of a source."""
        with sqlite_file.writing(self._connection):
            self._ask("UPDATE meta SET value = ? WHERE name = 'secret'", (secret,))
            self._note(source, 0)

    def write(self, source: str, bundles: Sequence[Bundle], position: int) -> None:
        """Store reports with their stories, and how far that goes, in one commit."""
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        with sqlite_file.writing(self._connection):
            for columns, events in bundles:
                name = (columns["endpoint"], columns["account"])
                self._ask("INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", name)
                ((number,),) = self._ask("SELECT id FROM accounts WHERE endpoint = ? AND account = ?", name)
                values = [columns[key] for key in COLUMNS]
                values[COLUMNS.index("detail")] = encode(columns["detail"] or {})
                self._ask(
                    f"INSERT INTO reports (account_id, {', '.join(COLUMNS)}) VALUES ({marks})",
                    (number, *values),
                )
                for event in events:
                    self._ask("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (columns["seq"], *event))
            self._note(source, position)

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""
        marks = ", ".join("?" * len(PAUSE_COLUMNS))
        with sqlite_file.writing(self._connection):
            for pause in pauses:
                statement = f"INSERT OR REPLACE INTO pauses ({', '.join(PAUSE_COLUMNS)}) VALUES ({marks})"
                self._ask(statement, tuple(pause[name] for name in PAUSE_COLUMNS))
            self._note(source, -1)

    def _note(self, source: str, position: int) -> None:
        self._ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_COPIED + source, str(position)))

    def close(self) -> None:
        """Let go of the file, which is whole by itself then."""
        sqlite_file.leave_wal(self._connection, is_in_place=True)
        self._connection.close()
