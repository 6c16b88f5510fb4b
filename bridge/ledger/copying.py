"""Moves a ledger from one kind of store to another: reports with their stories, pauses, and the secret.

The copy can be broken off anywhere and goes on where it was. A file and a database can each be either end.
Imported by the command line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from bridge.core.redact import Secret
from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners
from bridge.ledger.postgres_batch import pairs as account_arrays
from bridge.ledger.postgres_link import Rows, Statement, connect, translated
from bridge.ledger.postgres_rows import QUERIES, dump
from bridge.ledger.postgres_schema import VERSION, identify, migrate
from bridge.ledger.postgres_trouble import trouble
from bridge.ledger.rows import COLUMNS, PAUSE_COLUMNS, encode
from bridge.ledger.trouble import NEWER, READONLY, LedgerTrouble

STEP: Final = 500
"""Reports in one commit: a second of work is lost at most when a copy is broken off."""
WAIT_S: Final = 60.0
"""Longest wait for one step of a copy on a server."""
_BUSY_S: Final = 10.0
_COPIED: Final = "copied_from_"
_REPORT: Final = (*(name for name in COLUMNS if name != "account_id"), "current")
_EVENT: Final = ("report", "nth", "at_wall", "name", "data")
_PAUSE: Final = (*PAUSE_COLUMNS, "endpoint")
_JSON: Final = frozenset({"detail", "data", "recent"})

Columns = dict[str, Any]


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


_ADD_ACCOUNT: Final = _insert("accounts", ("endpoint", "account")) + " ON CONFLICT DO NOTHING"
_ADD_REPORT: Final = _insert("reports", ("account_id", *_REPORT)).replace(
    ":account_id", "(SELECT id FROM accounts WHERE endpoint = :endpoint AND account = :account)"
)
_ADD_EVENT: Final = _insert("events", _EVENT)
_ADD_PAUSE: Final = _insert("pauses", _PAUSE).replace("INSERT", "INSERT OR REPLACE")


class Part(NamedTuple):
    """What is carried of a ledger in one commit, by column.

    Reports name their account in ``endpoint`` and ``account``.
    """

    reports: Sequence[Columns] = ()
    events: Sequence[Columns] = ()
    pauses: Sequence[Columns] = ()
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
    while position >= 0:
        part = source.read(position, STEP)
        position = part.reports[-1]["seq"] if part.reports else -1
        target.write(name, position, part)
        copied += len(part.reports)
        progress(already + copied, total)
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

    def _read(self, columns: Sequence[str], rest: str, *values: int) -> list[Columns]:
        found = self._ask(f"SELECT {', '.join(columns)} FROM {rest}", values)
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        return [row | {name: json.loads(row[name]) for name in _JSON & row.keys()} for row in rows]

    def _write(self, statement: str, row: Columns) -> None:
        texts = {name: encode({} if row[name] is None else row[name]) for name in _JSON & row.keys()}
        self._ask(statement, {**row, **texts})

    def count(self) -> int:
        """How many reports there are."""
        return int(self._ask("SELECT count(*) FROM reports")[0][0])

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return bool(self._owners.live_marks())

    def read(self, after_seq: int, limit: int) -> Part:
        """The reports that follow by their numbers, with their stories; after the last one all pauses."""
        of = "reports AS r JOIN accounts AS a ON a.id = r.account_id WHERE r.seq > ? ORDER BY r.seq LIMIT ?"
        reports = self._read((*_REPORT, "endpoint", "account"), of, after_seq, limit)
        if not reports:
            return Part(pauses=self._read(_PAUSE, "pauses"))
        of = "events WHERE report > ? AND report <= ? ORDER BY report, nth"
        return Part(reports, self._read(_EVENT, of, after_seq, reports[-1]["seq"]))

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""
        found = self._ask("SELECT value FROM meta WHERE name = ?", (_COPIED + source,))
        return int(found[0][0]) if found else None

    def write(self, source: str, position: int, part: Part) -> None:
        """Store a part of a source, and how far that goes, in one commit."""
        with sqlite_file.writing(self._connection):
            if part.secret is not None:
                self._ask("UPDATE meta SET value = ? WHERE name = 'secret'", (part.secret,))
            for row in part.reports:
                self._write(_ADD_ACCOUNT, row)
                self._write(_ADD_REPORT, row)
            for row in part.events:
                self._write(_ADD_EVENT, row)
            for row in part.pauses:
                self._write(_ADD_PAUSE, row)
            self._ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_COPIED + source, str(position)))

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
        self.secret: bytes = secret

    def _run(self, statements: Sequence[Statement]) -> Rows:
        """Run statements in one round trip; the rows of the last."""
        with translated():
            return self._link.run(statements, WAIT_S)[-1]

    def _ask(self, name: str, *values: Any) -> Rows:
        return self._run([_statement(name, *values)])

    def count(self) -> int:
        """How many reports there are."""
        return int(self._ask("count_reports")[0][0])

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""
        return bool(self._ask("is_at_work")[0][0])

    def _read(self, name: str, *values: Any) -> list[Columns]:
        found = self._run([(f"SELECT row_to_json(told) FROM ({QUERIES[name]}) AS told", values)])
        return [json.loads(row[0]) for row in found]

    def read(self, after_seq: int, limit: int) -> Part:
        """The reports that follow by their numbers, with their stories; after the last one all pauses."""
        reports = self._read("read_on", after_seq, limit)
        if not reports:
            return Part(pauses=self._read("all_pauses"))
        return Part(reports, self._read("stories", [row["seq"] for row in reports]))

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""
        found = self._ask("get_meta", _COPIED + source)
        return int(found[0][0]) if found else None

    def write(self, source: str, position: int, part: Part) -> None:
        """Store a part of a source, and how far that goes, in one commit."""
        statements = [_statement("begin")]
        if part.secret is not None:
            statements.append(_statement("set_secret", part.secret.hex()))
        if part.reports:
            statements += [*self._add_reports(part), _statement("skip_numbers", position)]
        if part.pauses:
            pauses = [{**row, "revision": 1} for row in part.pauses]
            statements.append(_statement("save_pauses", dump(pauses), len(pauses)))
        note = _statement("set_meta", _COPIED + source, position)
        try:
            self._run([*statements, note, _statement("commit")])
        except BaseException:
            if not self._link.is_lost and not self._link.is_idle:
                self._ask("roll_back")
            raise

    def _add_reports(self, part: Part) -> list[Statement]:
        pairs = account_arrays({(row["endpoint"], row["account"]): None for row in part.reports})
        found = self._run([_statement("add_accounts", *pairs), _statement("find_accounts", *pairs)])
        numbers = {(endpoint, account): number for endpoint, account, number in found}
        revisions = Counter(event["report"] for event in part.events)
        reports = [
            {**row, "account_id": numbers[row["endpoint"], row["account"]], "revision": revisions[row["seq"]]}
            for row in part.reports
        ]
        added = _statement("add_reports", dump(reports), len(reports))
        return [added, _statement("add_events", dump(part.events))]

    def close(self) -> None:
        """Let go of the session."""
        self._link.close()


def _statement(name: str, *values: Any) -> Statement:
    return QUERIES[name], values


End = SqliteEnd | PostgresEnd
"""One end of a copy. Every method raises `LedgerTrouble`. Accounts are named with ``secret``, so both ends
must have the same."""
