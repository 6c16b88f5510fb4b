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

from bridge.upstream.answer import Answer
from bridge.upstream.attempt import DIAL, EXCHANGE, HANDSHAKE, LOOKUP, TUNNEL, Attempt, WindowOver, now
from bridge.upstream.connect import Dialer
from bridge.upstream.pool import Connection, Pool

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
    """A prepared request that serves as the template of its method: only the body differs per report."""

    head: bytes
    """Everything that leaves before the value of Content-Length, the last header line."""

    def with_body(self, body: bytes) -> ReportRequest:
        """Return the request of one report; it shares everything but the body with this one."""
        request = ReportRequest.__new__(ReportRequest)
        request.__dict__.update(self.__dict__)
        request.body = body
        return request


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

    Thread safety: any number of threads may send at once.
    """

    def __init__(self, dialer: Dialer, pool: Pool) -> None:
        super().__init__()
        self._dialer = dialer
        self._pool = pool

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Received:
        """Send one report and read its answer.

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
        assert isinstance(request, ReportRequest)
        assert isinstance(timeout, Attempt)
        attempt = timeout
        connection = self._pool.take()
        if connection is None:
            connection = Connection(self._dialer.dial(attempt))
            self._pool.count_opened()
        else:
            attempt.reused = True
        attempt.phase = EXCHANGE
        try:
            _transmit(connection, request, attempt)
            answer = Answer(connection.inlet)
            try:
                received = _receive(connection, answer, attempt)
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
        return received

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()


def _transmit(connection: Connection, request: ReportRequest, attempt: Attempt) -> None:
    body = request.body
    assert isinstance(body, bytes)
    instant = now()
    if instant >= attempt.leave_until:
        raise WindowOver
    if instant >= attempt.until:
        raise TimeoutError("no time is left to send")
    connection.sock.settimeout(attempt.until - instant)
    attempt.sent = True
    # One call, so one packet: head and body apart would wait for each other (Nagle, delayed ACK).
    connection.sock.sendall(b"%b%d\r\n\r\n%b" % (request.head, len(body), body))


def _receive(connection: Connection, answer: Answer, attempt: Attempt) -> Received:
    connection.inlet.expect(attempt.until)
    answer.begin()
    attempt.headers = answer.fields
    body, attempt.oversize = answer.read_body()
    return Received(answer.status, answer.fields, body)
