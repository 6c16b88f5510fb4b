"""Moves a ledger from one kind of store to another: reports with their stories, pauses, and the secret.

The copy can be broken off anywhere and goes on where it was. A file and a database can each be either end.
Imported by the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from bridge.core.redact import Secret
from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners
from bridge.ledger.postgres_batch import pairs as account_arrays
from bridge.ledger.postgres_link import Rows, Statement, connect, translated
from bridge.ledger.postgres_rows import QUERIES, REPORT, dump
from bridge.ledger.postgres_schema import VERSION, identify, migrate
from bridge.ledger.postgres_trouble import trouble
from bridge.ledger.rows import COLUMNS, PAUSE_COLUMNS
from bridge.ledger.trouble import NEWER, READONLY, LedgerTrouble

STEP: Final = 500
"""Reports in one commit: a second of work is lost at most when a copy is broken off."""
WAIT_S: Final = 60.0
"""Longest wait for one step of a copy on a server."""
_BUSY_S: Final = 10.0
_COPIED: Final = "copied_from_"
_REPORT: Final = (*(name for name in COLUMNS if name != "account_id"), "current")
_PAUSE: Final = (*PAUSE_COLUMNS, "endpoint")


class Bundle(NamedTuple):
    """One report as it is carried: its columns by name, with ``endpoint`` and ``account``, and its story.

    JSON stays text, also in pauses.
    """

    columns: Mapping[str, Any]
    events: Sequence[tuple[int, float, str, str]]
    """Number, UNIX time, name, and data as JSON."""


class NotCopied(Exception):
    """The copy cannot be made. The text is a sentence for people."""


class End(Protocol):
    """One end of a copy. Every method raises `LedgerTrouble`."""

    secret: bytes
    """Accounts are named with it, so both ends must have the same."""

    def count(self) -> int:
        """How many reports there are."""

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""

    def begin(self, source: str, secret: bytes) -> None:
        """Take over the secret of a source; the ledger is empty."""

    def write(self, source: str, bundles: Sequence[Bundle], position: int) -> None:
        """Store reports with their stories, and how far that goes, in one commit."""

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""

    def close(self) -> None:
        """Let go. Idempotent."""


def name_source(secret: bytes) -> str:
    """A name for a ledger that tells nothing of its secret."""
    return blake2b(secret, digest_size=8, person=b"copy").hexdigest()


def copy(source: End, target: End, progress: Callable[[int, int], None]) -> int:
    """Copy all reports; how many were copied now.

    Args:
        progress: told how many of how many are there.

    Raises:
        NotCopied: one of the ledgers is in use, or they cannot become one.
    """
    if source.is_at_work():
        raise NotCopied("A bridge works on the ledger that is to be copied: end it first.")
    name = name_source(source.secret)
    position = target.position(name)
    if position == -1:
        raise NotCopied(
            "This ledger was copied before, and completely: use the copy, or begin with an empty one."
        )
    if position is None:
        if target.count():
            raise NotCopied("The ledger that is to be written holds other reports: begin with an empty one.")
        target.begin(name, source.secret)
        position = 0
    total, copied = source.count(), 0
    already = target.count()
    progress(already, total)
    while bundles := source.read(position, STEP):
        position = bundles[-1].columns["seq"]
        target.write(name, bundles, position)
        copied += len(bundles)
        progress(already + copied, total)
    target.finish(name, source.read_pauses())
    return copied


class SqliteEnd(End):
    """A file as one end of a copy.

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

    def _add(self, table: str, columns: Mapping[str, Any], verb: str = "INSERT OR REPLACE") -> None:
        marks = ", ".join("?" * len(columns))
        statement = f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        self._ask(statement, tuple(columns.values()))

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
        bundles = []
        for values in self._ask(
            f"SELECT {', '.join(_REPORT)}, endpoint, account FROM reports AS r "
            "JOIN accounts AS a ON a.id = r.account_id WHERE r.seq > ? ORDER BY r.seq LIMIT ?",
            (after_seq, limit),
        ):
            columns = dict(zip((*_REPORT, "endpoint", "account"), values, strict=True))
            columns |= {name: bool(columns[name]) for name in ("perhaps", "current")}
            story = "SELECT nth, at_wall, name, data FROM events WHERE report = ? ORDER BY nth"
            bundles.append(Bundle(columns, self._ask(story, (columns["seq"],))))
        return bundles

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""
        found = self._ask(f"SELECT {', '.join(_PAUSE)} FROM pauses")
        return [dict(zip(_PAUSE, values, strict=True)) for values in found]

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
        with sqlite_file.writing(self._connection):
            for columns, events in bundles:
                name = (columns["endpoint"], columns["account"])
                self._ask("INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", name)
                ((number,),) = self._ask("SELECT id FROM accounts WHERE endpoint = ? AND account = ?", name)
                report = {"account_id": number, **{key: columns[key] for key in _REPORT}}
                self._add("reports", report, "INSERT")
                for event in events:
                    self._ask("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (columns["seq"], *event))
            self._note(source, position)

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""
        with sqlite_file.writing(self._connection):
            for pause in pauses:
                self._add("pauses", pause)
            self._note(source, -1)

    def _note(self, source: str, position: int) -> None:
        self._add("meta", {"name": _COPIED + source, "value": str(position)})

    def close(self) -> None:
        """Let go of the file, which is whole by itself then."""
        sqlite_file.leave_wal(self._connection, is_in_place=True)
        self._connection.close()


class PostgresEnd(End):
    """A database as one end of a copy.

    Args:
        url: its address.
        password: one that the usual sources do not have.
        make: True to make the tables if they are missing.
    """

    def __init__(self, url: str, password: Secret | None, make: bool) -> None:
        self._link = connect(url, password)
        settings = {"search_path": "report_bridge, pg_temp", "statement_timeout": f"{WAIT_S:.0f}s"}
        self._ask((QUERIES["set_up"], [dump(settings)]))
        with translated():
            found = identify(self._link)
            if found.version < VERSION and make:
                found = migrate(self._link, os.urandom)
        if found.version == 0:
            raise trouble(READONLY)
        if found.is_newer:
            raise trouble(NEWER)
        ((secret,),) = self._ask((QUERIES["secret"], []))
        self.secret: bytes = secret
        self._account_ids: dict[tuple[str, str], int] = {}

    def _ask(self, *statements: Statement) -> Rows:
        """Run statements in one round trip; the rows of the last."""
        with translated():
            return self._link.run(statements, WAIT_S)[-1]

    def _change(self, *statements: Statement) -> None:
        try:
            self._ask((QUERIES["begin"], []), *statements, (QUERIES["commit"], []))
        except BaseException:
            if not self._link.is_lost and not self._link.is_idle:
                self._ask((QUERIES["roll_back"], []))
            raise

    def count(self) -> int:
        """How many reports there are."""
        return int(self._ask((QUERIES["count_reports"], []))[0][0])

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return bool(self._ask((QUERIES["is_at_work"], []))[0][0])

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""
        rows = self._ask((QUERIES["read_on"], [after_seq, limit]))
        stories: dict[int, list[tuple[int, float, str, str]]] = {}
        for report, *event in self._ask((QUERIES["stories"], [[row[0] for row in rows]])):
            stories.setdefault(report, []).append(tuple(event))
        bundles = []
        for values in rows:
            columns = dict(zip((*REPORT, "endpoint", "account"), values, strict=True))
            columns["detail"] = columns["detail"] or "{}"
            bundles.append(Bundle(columns, stories.get(columns["seq"], [])))
        return bundles

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""
        names = (*PAUSE_COLUMNS, "revision", "endpoint")
        found = [dict(zip(names, row, strict=True)) for row in self._ask((QUERIES["all_pauses"], []))]
        return [{name: pause[name] for name in _PAUSE} for pause in found]

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here."""
        found = self._ask((QUERIES["get_meta"], [_COPIED + source]))
        return int(found[0][0]) if found else None

    def begin(self, source: str, secret: bytes) -> None:
        """Take over the secret of a source."""
        self._change((QUERIES["set_secret"], [secret.hex()]), self._note(source, 0))

    def write(self, source: str, bundles: Sequence[Bundle], position: int) -> None:
        """Store reports with their stories, and how far that goes, in one commit."""
        names = {(b.columns["endpoint"], b.columns["account"]): None for b in bundles}
        pairs = account_arrays(name for name in names if name not in self._account_ids)
        for endpoint, account, number in self._ask(
            (QUERIES["add_accounts"], pairs), (QUERIES["find_accounts"], pairs)
        ):
            self._account_ids[endpoint, account] = number
        rows, events = [], []
        for columns, story in bundles:
            more = {
                "account_id": self._account_ids[columns["endpoint"], columns["account"]],
                "revision": max((nth for nth, *_ in story), default=0),
                "detail": json.loads(columns["detail"]) or None,
            }
            rows.append({**columns, **more})
            events += [
                {"report": columns["seq"], "nth": nth, "at_wall": at, "name": name, "data": json.loads(data)}
                for nth, at, name, data in story
            ]
        self._change(
            (QUERIES["add_reports"], [dump(rows), len(rows)]),
            (QUERIES["add_events"], [dump(events)]),
            (QUERIES["skip_numbers"], [position]),
            self._note(source, position),
        )

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""
        rows = [{**pause, "recent": json.loads(pause["recent"]), "revision": 1} for pause in pauses]
        self._change((QUERIES["save_pauses"], [dump(rows), len(rows)]), self._note(source, -1))

    def _note(self, source: str, position: int) -> Statement:
        return QUERIES["set_meta"], [_COPIED + source, str(position)]

    def close(self) -> None:
        """Let go of the session."""
        self._link.close()
