"""The door to psycopg: one connection, statements in a pipeline, and a bound on every wait.

Many statements cost one round trip. Exception texts of the library may hold the address with its
password, so nothing of them leaves this module. Imported by the PostgreSQL ledger's modules only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from bridge.core.redact import Secret
from bridge.ledger import postgres_trouble as words
from bridge.ledger.rows import Rows, Statement
from bridge.ledger.trouble import FOREIGN, UNREADABLE, LedgerTrouble

try:
    import psycopg
    from psycopg.adapt import Transformer
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.generators import fetch_many, send
    from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
    from psycopg.types.string import TextLoader
except ImportError:  # it is there only with the extra ``fleet``, and `connect` says so
    psycopg = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

CONNECT_S: Final = 3
"""Longest wait for a connection to one host. libpq allows no less than 2."""
ANSWER_S: Final = 3.0
"""Longest wait for the answer to a pipeline: one second more than the server may spend on a statement."""
OLDEST_SERVER: Final = 140_000
"""PostgreSQL 14: the first that ends idle sessions by itself, which is how a vanished bridge is noticed."""
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "report-bridge",
    "connect_timeout": CONNECT_S,
    # For the way from here to the server; the server has the same for its way back (`set_up`).
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}


class ServerRefused(Exception):
    """The server refused a statement; the transaction is to be rolled back.

    Args:
        state: its SQLSTATE; empty if there was none.
    """

    def __init__(self, state: str = "") -> None:
        self.state = state
        super().__init__(state)


class LinkLost(ServerRefused):
    """The connection is gone or does not answer; a commit that was on its way may have happened."""


@contextmanager
def translated() -> Iterator[None]:
    """The errors of the door become the ledger's."""
    try:
        yield
    except ServerRefused as refusal:
        raise words.explain(refusal.state) from None


class Link:
    """One session on a server. Made by `connect`.

    Thread safety: none; one thread at a time.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.adapters.register_loader("json", TextLoader)
        self._connection = connection
        self._values = Transformer(connection)
        self._pg = connection.pgconn
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._names: dict[str, bytes] = {}
        self.pid = 0
        """The server's process for this session, as the server says."""
        self.used_at = time.monotonic()
        self.is_lost = False
        self.is_held = False
        """True while it holds the lock of its instance."""
        self.free_since: dict[str, float] = {}
        """Since when this session knows the locks of other instances as free."""

    @property
    def place(self) -> str:
        """Where the server is, and the name of the database, without user and password."""
        info = self._connection.info
        return f"{info.host}:{info.port}/{info.dbname}"

    @property
    def is_idle(self) -> bool:
        """True outside of a transaction."""
        return self.is_lost or self._pg.transaction_status == TransactionStatus.IDLE

    def ask(self, statement: str, *values: Any) -> Rows:
        """Run one statement; its rows."""
        return self.run([(statement, values)])[0]

    def run(self, statements: Sequence[Statement], wait_s: float = ANSWER_S) -> list[Rows]:
        """Run statements in one round trip; the rows of each.

        Raises:
            ServerRefused: one was refused; it and those after it did nothing.
            LinkLost: the connection is gone, or there was no answer in time.
        """
        if self.is_lost:
            raise LinkLost
        dumped = [(text, [_dump(value) for value in values]) for text, values in statements]
        try:
            # Preparing has a result of its own, which comes before that of the statement.
            prepared = self._send(dumped)
            results = self._connection.wait(self._exchange(len(prepared)), timeout=wait_s)
        except Exception:
            # The library's only reasons to raise here: the connection broke, or time is up. Its text stays.
            self.close()
            raise LinkLost from None
        self.used_at = time.monotonic()
        return self._take(prepared, results)

    def _send(self, statements: Sequence[Statement]) -> list[tuple[str, bytes] | None]:
        """Queue statements; for each result to come what it prepares, and under which name."""
        pg, names = self._pg, dict(self._names)
        prepared: list[tuple[str, bytes] | None] = []
        for text, values in statements:
            if text not in names:
                names[text] = b"s%d" % len(names)
                pg.send_prepare(names[text], text.encode())
                prepared.append((text, names[text]))
            pg.send_query_prepared(names[text], values)
            prepared.append(None)
        pg.pipeline_sync()
        return prepared

    def _exchange(self, count: int) -> PQGen[list[PGresult]]:
        """Send what is queued, and fetch so many results and the mark of the end."""
        yield from send(self._pg)
        results: list[PGresult] = []
        for _ in range(count + 1):
            results += yield from fetch_many(self._pg)
        return results

    def _take(self, prepared: Sequence[tuple[str, bytes] | None], results: Sequence[Any]) -> list[Rows]:
        answers: list[Rows] = []
        for name, result in zip(prepared, results, strict=False):
            if result.status == ExecStatus.FATAL_ERROR:
                state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
                if state in words.GONE:
                    self.close()
                    raise LinkLost
                raise ServerRefused(state)
            if name is not None:
                self._names.update([name])
                continue
            self._values.set_pgresult(result)
            answers.append(self._values.load_rows(0, result.ntuples, tuple))
        return answers

    def close(self) -> None:
        """Let go of the session; the server drops what it held. Idempotent."""
        self.is_lost = True
        with suppress(Exception):
            # A connection that cannot even be closed is gone all the same.
            self._connection.close()


def _dump(value: Any) -> bytes | None:
    """A value as text: what type it has is said by the statement. The library takes six times as long."""
    if isinstance(value, list):
        return f"{{{','.join(map(_dump_part, value))}}}".encode()
    return None if value is None else str(value).encode()


def _dump_part(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def has_driver() -> bool:
    """True if the library can be loaded."""
    return psycopg is not None


def connect(url: str, password: Secret | None) -> Link:
    """Open a session.

    Raises:
        LedgerTrouble: there is no driver, no server, or it does not let us in.
    """
    if not has_driver():
        raise LedgerTrouble(UNREADABLE, words.NO_DRIVER)
    try:
        parameters: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error:
        raise LedgerTrouble(FOREIGN, words.UNUSABLE_URL) from None
    if password is not None:
        parameters["password"] = password.reveal()
    parameters["client_encoding"] = "utf8"
    try:
        connection = psycopg.Connection.connect(autocommit=True, **parameters)
    except psycopg.Error as error:
        # Neither the error nor its text goes on: it may hold the address, user and password.
        raise LedgerTrouble(UNREADABLE, words.explain_connect(str(error))) from None
    if connection.pgconn.server_version < OLDEST_SERVER:
        connection.close()
        raise LedgerTrouble(FOREIGN, words.TOO_OLD)
    return Link(connection)
