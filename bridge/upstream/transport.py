"""The transport under `requests`: one request out, one answer in, inside the attempt's limits.

Replaces urllib3, which has no total deadline and costs three times as much per report. Also the one place
where exceptions become the words of `Exchange.failure`. Retries nothing, follows nothing, unpacks nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Any, Final

import requests
from requests import exceptions as rex
from requests.adapters import BaseAdapter

from bridge.upstream.answer import Answer, Inlet, WholeInlet, is_whole
from bridge.upstream.attempt import DIAL, EXCHANGE, HANDSHAKE, LOOKUP, TUNNEL, Attempt, WindowOver, now
from bridge.upstream.connect import Dialer
from bridge.upstream.pool import Connection, Patient, Pool

FAILURES: Final[Mapping[str, tuple[tuple[type[BaseException], str], ...]]] = {
    # phase -> (exception class, failure); the first row that fits wins. RuntimeError: no thread is to be had.
    LOOKUP: ((OSError, "dns"), (ValueError, "dns"), (RuntimeError, "dns")),
    DIAL: ((OSError, "connect"), (ValueError, "connect"), (OverflowError, "connect")),
    TUNNEL: ((OSError, "proxy"), (HTTPException, "proxy"), (ValueError, "proxy"), (RuntimeError, "proxy")),
    HANDSHAKE: ((ssl.SSLCertVerificationError, "certificate"), (OSError, "tls"), (ValueError, "tls")),
    EXCHANGE: (
        (WindowOver, "window"),
        (rex.Timeout, "timeout"),
        (rex.ChunkedEncodingError, "cut"),
        (rex.ContentDecodingError, "malformed"),
        (rex.ConnectionError, "reset"),
        (TimeoutError, "timeout"),
        (RemoteDisconnected, "reset"),
        (IncompleteRead, "cut"),
        (HTTPException, "malformed"),
        (OSError, "reset"),
        (ValueError, "malformed"),
    ),
}
"""What an exception means, by what the attempt was busy with."""

_REQUESTS_FAULTS: Final = (
    rex.Timeout,
    rex.ConnectionError,
    rex.ChunkedEncodingError,
    rex.ContentDecodingError,
)


def name_failure(phase: str, error: BaseException) -> str | None:
    """Say which `Exchange.failure` an exception is.

    Returns:
        None if neither the network nor the upstream can have caused it: a mistake in this program.
    """
    if isinstance(error, rex.RequestException) and not isinstance(error, _REQUESTS_FAULTS):
        return None  # they are OSErrors too, but say that requests was used wrongly
    for kind, failure in FAILURES[phase]:
        if isinstance(error, kind):
            return failure
    return None


class ReportRequest(requests.PreparedRequest):
    """A prepared request that serves all reports of its method: what differs is its `Attempt`'s."""

    head: bytes
    """Everything that leaves before the value of Content-Length, the last header line."""


class Received(requests.Response):
    """An answer that was read to its end already.

    The stock class makes a cookie jar with two locks for every answer, a fifth of what a whole report costs.
    """

    encoding = None
    reason = ""
    url = ""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status_code = status
        self.headers = headers  # type: ignore[assignment]  # names are in lower case already
        self._content = body
        self._content_consumed = True
        self._next = None
        self.history = []
        self.raw = None  # without a raw answer requests looks for no cookies


class ReportAdapter(BaseAdapter):
    """Carries requests over the pool's connections.

    An attempt is `begin`, then `go_on` if the request is not out, then, once an answer can be read,
    `send`. Only `go_on` and `send` wait, and `send` does not if `has_come` says so.

    Thread safety: any number of threads may send at once.
    """

    def __init__(self, dialer: Dialer, pool: Pool) -> None:
        super().__init__()
        self._dialer = dialer
        self._pool = pool

    def begin(self, attempt: Attempt) -> None:
        """Send ``attempt.unsent`` as far as an open connection takes it without waiting.

        Raises:
            Exception: `name_failure` says what it means.
        """
        connection = self._pool.take()
        if connection is not None:
            attempt.reused = True
            self._transmit(connection, attempt)

    def go_on(self, attempt: Attempt) -> None:
        """Do what `begin` could not without waiting: open a connection, and send the rest.

        Raises:
            Exception: `name_failure` says what it means.
        """
        connection = attempt.connection
        if connection is None:
            connection = Connection(self._dialer.dial(attempt))
            self._pool.count_opened()
            self._transmit(connection, attempt)
        if attempt.unsent:
            if now() >= attempt.leave_until:
                raise TimeoutError("no byte may leave any more")
            connection.sock.settimeout(max(0.0, attempt.until - now()))
            connection.sock.sendall(attempt.unsent)
            attempt.unsent = b""

    @staticmethod
    def has_come(attempt: Attempt) -> bool | None:
        """Take what has come of the answer, without waiting.

        Returns:
            True if `send` will not wait, False if more must come, None if only `send` can tell.
        """
        assert attempt.connection is not None
        sock = attempt.connection.sock
        return sock.read_ahead(is_whole) if isinstance(sock, Patient) else None

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Received:
        """Read the answer to a report that is out.

        Args:
            request: a `ReportRequest`.
            stream: ignored; the answer is always read here, up to the limit.
            timeout: the `Attempt`, which also takes the facts as they become known.
            verify: ignored; certificates are always verified.
            cert: ignored.
            proxies: ignored; the dialer knows the way.

        Raises:
            Exception: `name_failure` says what it means.
        """
        assert isinstance(timeout, Attempt)
        attempt = timeout
        connection = attempt.connection
        assert connection is not None
        try:
            answer = Answer(_choose_inlet(connection, attempt))
            try:
                answer.begin()
                attempt.headers = answer.fields
                body, attempt.oversize = answer.read_body()
                is_clean = not attempt.oversize and answer.is_reusable()
            finally:
                attempt.status = answer.final_status
                answer.close()
        except BaseException:
            connection.close()
            raise
        if is_clean and not connection.has_surplus():
            self._pool.give(connection, attempt.headers.get("keep-alive"))
        else:
            connection.close()
        return Received(answer.status, answer.fields, body)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    @staticmethod
    def _transmit(connection: Connection, attempt: Attempt) -> None:
        """Hand the request to the connection; what does not leave at once stays unsent."""
        attempt.connection = connection
        attempt.phase = EXCHANGE
        instant = now()
        if instant >= attempt.leave_until:
            raise WindowOver
        if instant >= attempt.until:
            raise TimeoutError("no time is left to send")
        attempt.sent = True
        # One call, so one packet: head and body apart would wait for each other (Nagle, delayed ACK).
        sock = connection.sock
        if isinstance(sock, Patient):
            attempt.unsent = sock.offer(attempt.unsent)


def _choose_inlet(connection: Connection, attempt: Attempt) -> Inlet | WholeInlet:
    sock = connection.sock
    if isinstance(sock, Patient) and sock.is_enough_ahead:
        return WholeInlet(sock.take_ahead())
    connection.inlet.expect(attempt.until)
    return connection.inlet
