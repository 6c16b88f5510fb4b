"""Moves a ledger from one kind of store to another: reports with their stories, pauses, and the secret.

The copy can be broken off anywhere and goes on where it was. A file and a database can each be either end.
Imported by the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from bridge.core.redact import Secret
from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners
from bridge.ledger.postgres_batch import pairs as account_arrays
from bridge.ledger.postgres_link import Rows, Statement, connect
from bridge.ledger.postgres_rows import QUERIES, array, certain, dump, pause_values, report_values, whole
from bridge.ledger.postgres_schema import VERSION, identify, migrate
from bridge.ledger.postgres_session import translated
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


class Part(NamedTuple):
    """What is stored of a ledger in one commit."""

    bundles: Sequence[Bundle] = ()
    pauses: Sequence[Mapping[str, Any]] = ()
    secret: bytes | None = None


class NotCopied(Exception):
    """The copy cannot be made. The text is a sentence for people."""


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
        target.write(name, 0, Part(secret=source.secret))
        position = 0
    total, copied = source.count(), 0
    already = target.count()
    progress(already, total)
    while bundles := source.read(position, STEP):
        position = bundles[-1].columns["seq"]
        target.write(name, position, Part(bundles))
        copied += len(bundles)
        progress(already + copied, total)
    target.write(name, -1, Part(pauses=source.read_pauses()))
    return copied


class SqliteEnd:
    """A file as one end of a copy.

    Args:
        path: the file.
        make: True to make it if it is missing.
    """

    def __init__(self, path: str, make: bool) -> None:
        if not make and not os.path.exists(path):
            raise NotCopied(f"There is no ledger at {path}.")
        self._owners = Owners(path, "copy")
        prepared = files.prepare(path)
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

    def _add(self, table: str, columns: Mapping[str, Any]) -> None:
        verb = "INSERT" if table == "reports" else "INSERT OR REPLACE"
        marks = ", ".join("?" * len(columns))
        self._ask(f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()))

    def count(self) -> int:
        """How many reports there are."""
        return int(self._ask("SELECT count(*) FROM reports")[0][0])

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return bool(self._owners.live_marks())

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
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""
        found = self._ask("SELECT value FROM meta WHERE name = ?", (_COPIED + source,))
        return int(found[0][0]) if found else None

    def write(self, source: str, position: int, part: Part) -> None:
        """Store a part of a source, and how far that goes, in one commit."""
        with sqlite_file.writing(self._connection):
            if part.secret is not None:
                self._ask("UPDATE meta SET value = ? WHERE name = 'secret'", (part.secret,))
            for columns, events in part.bundles:
                name = (columns["endpoint"], columns["account"])
                self._ask("INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", name)
                ((number,),) = self._ask("SELECT id FROM accounts WHERE endpoint = ? AND account = ?", name)
                self._add("reports", {"account_id": number, **{key: columns[key] for key in _REPORT}})
                for event in events:
                    self._ask("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (columns["seq"], *event))
            for pause in part.pauses:
                self._add("pauses", pause)
            self._add("meta", {"name": _COPIED + source, "value": str(position)})

    def close(self) -> None:
        """Let go of the file, which is whole by itself then."""
        sqlite_file.leave_wal(self._connection, is_in_place=True)
        self._connection.close()


class PostgresEnd:
    """A database as one end of a copy.

    Args:
        url: its address.
        password: one that the usual sources do not have.
        make: True to make the tables if they are missing.
    """

    def __init__(self, url: str, password: Secret | None, make: bool) -> None:
        self._link = connect(url, password)
        settings = {"search_path": "report_bridge, pg_temp", "statement_timeout": f"{WAIT_S:.0f}s"}
        self._ask("set_up", dump(settings))
        with translated():
            found = identify(self._link)
            if found.version < VERSION and make:
                found = migrate(self._link, os.urandom)
        if found.version == 0:
            raise trouble(READONLY)
        if found.is_newer:
            raise trouble(NEWER)
        ((secret,),) = self._ask("secret")
        self.secret = bytes.fromhex(certain(secret))

    def _run(self, statements: Sequence[Statement]) -> Rows:
        """Run statements in one round trip; the rows of the last."""
        with translated():
            return self._link.run(statements, WAIT_S)[-1]

    def _ask(self, name: str, *values: bytes | str | int) -> Rows:
        return self._run([_statement(name, *values)])

    def count(self) -> int:
        """How many reports there are."""
        return int(certain(self._ask("count_reports")[0][0]))

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return self._ask("is_at_work")[0][0] == b"t"

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""
        rows = self._ask("read_on", after_seq, limit)
        stories: dict[int, list[tuple[int, float, str, str]]] = {}
        numbers = array(int(certain(row[0])) for row in rows)
        for report, nth, at, name, data in self._ask("stories", numbers):
            event = (int(certain(nth)), float(certain(at)), certain(name), certain(data))
            stories.setdefault(int(certain(report)), []).append(event)
        bundles = []
        for values in rows:
            columns = dict(zip((*COLUMNS, "revision", "current"), report_values(values), strict=True))
            columns |= {"endpoint": certain(values[-2]), "account": certain(values[-1])}
            columns["detail"] = columns["detail"] or "{}"
            bundles.append(Bundle(columns, stories.get(columns["seq"], [])))
        return bundles

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""
        found = self._ask("all_pauses")
        return [dict(zip(_PAUSE, (*pause_values(row)[:-1], certain(row[0])), strict=True)) for row in found]

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""
        found = self._ask("get_meta", _COPIED + source)
        return int(certain(found[0][0])) if found else None

    def write(self, source: str, position: int, part: Part) -> None:
        """Store a part of a source, and how far that goes, in one commit."""
        statements = [_statement("begin")]
        if part.secret is not None:
            statements.append(_statement("set_secret", part.secret.hex()))
        if part.bundles:
            statements += [*self._add_reports(part.bundles), _statement("skip_numbers", position)]
        if part.pauses:
            told = [{**pause, "recent": json.loads(pause["recent"]), "revision": 1} for pause in part.pauses]
            statements.append(_statement("save_pauses", dump(told), len(told)))
        note = _statement("set_meta", _COPIED + source, position)
        try:
            self._run([*statements, note, _statement("commit")])
        except BaseException:
            if not self._link.is_lost and not self._link.is_idle:
                self._ask("roll_back")
            raise

    def _add_reports(self, bundles: Sequence[Bundle]) -> list[Statement]:
        pairs = account_arrays({(b.columns["endpoint"], b.columns["account"]): None for b in bundles})
        found = self._run([_statement("add_accounts", *pairs), _statement("find_accounts", *pairs)])
        numbers = {(certain(endpoint), certain(account)): whole(n) for n, endpoint, account in found}
        rows, events = [], []
        for columns, story in bundles:
            more = {
                "account_id": numbers[columns["endpoint"], columns["account"]],
                "revision": max((nth for nth, *_ in story), default=0),
                "detail": json.loads(columns["detail"]) or None,
            }
            rows.append({**columns, **more})
            events += [
                {"report": columns["seq"], "nth": nth, "at_wall": at, "name": name, "data": json.loads(data)}
                for nth, at, name, data in story
            ]
        return [_statement("add_reports", dump(rows), len(rows)), _statement("add_events", dump(events))]

    def close(self) -> None:
        """Let go of the session."""
        self._link.close()


def _statement(name: str, *values: bytes | str | int) -> Statement:
    return QUERIES[name], [value if isinstance(value, bytes) else str(value).encode() for value in values]


End = SqliteEnd | PostgresEnd
"""One end of a copy. Every method raises `LedgerTrouble`. Accounts are named with ``secret``, so both ends
must have the same."""
