"""The door to psycopg: one connection, statements in a pipeline, and a bound on every wait.

Many statements cost one round trip. Exception texts of the library may hold the address with its
password, so nothing of them leaves this module. Imported by the PostgreSQL ledger's modules only.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from bridge.core.redact import Secret
from bridge.ledger.postgres_trouble import (
    NO_DRIVER,
    TOO_OLD,
    UNUSABLE_URL,
    explain_connect,
)
from bridge.ledger.trouble import FOREIGN, UNREADABLE, LedgerTrouble

if TYPE_CHECKING:
    from psycopg import Connection

Statement = tuple[str, Sequence[bytes | None]]
"""SQL with $1 and so on, and its values as text."""
Rows = list[tuple[bytes | None, ...]]

CONNECT_S: Final = 3
"""Longest wait for a connection to one host. libpq allows no less than 2."""
ANSWER_S: Final = 3.0
"""Longest wait for the answer to a pipeline: one second more than the server may spend on a statement."""
LOAD_TRIES: Final = 60
"""Tries to load the driver, 50 ms apart."""
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
        state: its SQLSTATE.
    """

    def __init__(self, state: str) -> None:
        self.state = state
        super().__init__(state)


class LinkLost(Exception):
    """The connection is gone or does not answer; a commit that was on its way may have happened."""


class Link:
    """One session on a server. Made by `connect`.

    Thread safety: none; one thread at a time.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        from psycopg import pq

        self._connection = connection
        self._pg = connection.pgconn
        self._statuses = pq.ExecStatus
        self._idle = pq.TransactionStatus.IDLE
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._names: dict[str, bytes] = {}
        self._poll = select.poll()
        self.pid = 0
        """The server's process for this session, as the server says."""
        self.used_at = time.monotonic()
        self.is_lost = False
        self.is_held = False
        """True while it holds the lock of its instance."""
        self.round_trips = 0

    @property
    def place(self) -> str:
        """Where the server is, and the name of the database, without user and password."""
        info = self._connection.info
        return f"{info.host}:{info.port}/{info.dbname}"

    @property
    def is_idle(self) -> bool:
        """True outside of a transaction."""
        return bool(self._pg.transaction_status == self._idle)

    def run(self, statements: Sequence[Statement], wait_s: float = ANSWER_S) -> list[Rows]:
        """Run statements in one round trip; the rows of each.

        Raises:
            ServerRefused: one was refused; it and those after it did nothing.
            LinkLost: the connection is gone, or there was no answer in time.
        """
        if self.is_lost:
            raise LinkLost
        try:
            kinds = self._send(statements)
            results = self._receive(len(kinds) + 1, time.monotonic() + wait_s)
        except LinkLost:
            self.close()
            raise
        except Exception:
            # The library's only reason to raise here is a connection that broke; its text stays here.
            self.close()
            raise LinkLost from None
        self.round_trips += 1
        self.used_at = time.monotonic()
        return self._sort(kinds, results)

    def _send(self, statements: Sequence[Statement]) -> list[str | None]:
        pg, names = self._pg, self._names
        kinds: list[str | None] = []
        fresh: dict[str, bytes] = {}
        for sql, values in statements:
            name = names.get(sql) or fresh.get(sql)
            if name is None:
                name = fresh[sql] = b"s%d" % (len(names) + len(fresh))
                pg.send_prepare(name, sql.encode())
                kinds.append(sql)
            pg.send_query_prepared(name, values)
            kinds.append(None)
        pg.pipeline_sync()
        # Names that are in use must not be given twice, even if preparing fails.
        self._fresh = fresh
        return kinds

    def _receive(self, wanted: int, deadline: float) -> list[Any]:
        pg, statuses = self._pg, self._statuses
        results: list[Any] = []
        last: Any = None
        self._poll.register(pg.socket, select.POLLIN)
        try:
            is_flushed = pg.flush() == 0
            while True:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise LinkLost
                self._poll.modify(pg.socket, select.POLLIN if is_flushed else select.POLLIN | select.POLLOUT)
                for _, happened in self._poll.poll(left_s * 1000):
                    if happened & (select.POLLIN | select.POLLERR | select.POLLHUP):
                        pg.consume_input()
                if not is_flushed:
                    is_flushed = pg.flush() == 0
                while not pg.is_busy():
                    result = pg.get_result()
                    if result is None:
                        if last is None:
                            break
                        results.append(last)
                        last = None
                    elif result.status == statuses.PIPELINE_SYNC:
                        results.append(result)
                        if len(results) == wanted:
                            return results
                        raise LinkLost
                    else:
                        last = result
        finally:
            self._poll.unregister(pg.socket)

    def _sort(self, kinds: list[str | None], results: list[Any]) -> list[Rows]:
        statuses = self._statuses
        answers: list[Rows] = []
        for sql, result in zip(kinds, results, strict=False):
            status = result.status
            if status == statuses.FATAL_ERROR:
                from psycopg import pq

                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                raise ServerRefused(state)
            if sql is not None:
                self._names[sql] = self._fresh[sql]
            elif status == statuses.TUPLES_OK:
                columns = range(result.nfields)
                value = result.get_value
                answers.append([tuple([value(row, c) for c in columns]) for row in range(result.ntuples)])
            else:
                answers.append([])
        return answers

    def close(self) -> None:
        """Let go of the session; the server drops what it held. Idempotent."""
        self.is_lost = True
        try:
            self._connection.close()
        except Exception:
            # A connection that cannot even be closed is gone all the same.
            return


def connect(url: str, password: Secret | None) -> Link:
    """Open a session.

    Raises:
        LedgerTrouble: there is no driver, no server, or it does not let us in.
    """
    _load_driver()
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parameters: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error:
        raise LedgerTrouble(FOREIGN, UNUSABLE_URL) from None
    if password is not None:
        parameters["password"] = password.reveal()
    parameters["client_encoding"] = "utf8"
    try:
        connection = psycopg.Connection.connect(autocommit=True, **parameters)
    except psycopg.Error as error:
        # Neither the error nor its text goes on: it may hold the address, user and password.
        raise LedgerTrouble(UNREADABLE, explain_connect(str(error))) from None
    if connection.pgconn.server_version < OLDEST_SERVER:
        connection.close()
        raise LedgerTrouble(FOREIGN, TOO_OLD)
    return Link(connection)


def _load_driver() -> None:
    """Import psycopg, which is there only with the extra ``fleet``.

    Another thread may just be loading jsonrpcserver, for which a module that psycopg needs has a
    stand-in for some milliseconds (see `bridge.rpc.dispatcher`): then it works a little later.
    """
    last: ImportError | None = None
    for _ in range(LOAD_TRIES):
        try:
            import psycopg  # noqa: F401

            return
        except ImportError as error:
            last = error
            if find_spec("psycopg") is None:
                break
            time.sleep(0.05)
    raise LedgerTrouble(UNREADABLE, NO_DRIVER) from last
