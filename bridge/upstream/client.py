"""The door to `requests`: one report sent once, inside the seconds it is given.

Whatever the network or the upstream does becomes an `Exchange`; `bridge.reports.verdict` says what it proves.
Never retries, never follows a redirect, reads nothing from the environment. Imported late by `bridge.app`,
because `requests` takes 90 ms to load.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from bridge import __version__
from bridge.core.model import Exchange
from bridge.upstream.attempt import Attempt, now
from bridge.upstream.connect import Dialer, is_loopback, make_tls_context, parse_proxy
from bridge.upstream.pool import Pool
from bridge.upstream.resolver import Place
from bridge.upstream.transport import ReportAdapter, ReportRequest, name_failure

if TYPE_CHECKING:
    from bridge.core.redact import Secret

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
    "User-Agent": f"anticaptcha-report-bridge/{__version__}",
}
"""Sent with every report, besides Host and Content-Length."""

_NO_PROXIES: Final[dict[str, str]] = {}


class Stats(NamedTuple):
    """What became of the connections so far."""

    opened: int
    reused: int
    idle: int


class _Session(requests.Session):
    """A session that knows one adapter, keeps to itself and goes nowhere else."""

    def __init__(self, base_url: str, adapter: ReportAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 0
        self.adapters.clear()
        self.mount(base_url, adapter)
        self._base_url = base_url
        self._adapter = adapter

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return the adapter; there is only one, and it goes to one place only."""
        return self._adapter if url.startswith(self._base_url) else super().get_adapter(url)

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[requests.Response]:
        """Follow nothing, and look for nothing to follow."""
        return iter(())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Say that no answer leads elsewhere: following would hand the key to another host."""
        return None


class Client:
    """Sends reports to one upstream over kept-alive connections.

    Thread safety: everything may be called in any number of threads at once, for one attempt in one at a
    time. `send`, `go_on` and `end` block, all in all, at most ``deadline_s``; the rest does not.
    """

    def __init__(
        self, url: str, *, ca_file: str | None, proxy: str | None, connect_timeout_s: float, pool_size: int
    ) -> None:
        """Prepare, without any I/O but reading `ca_file`.

        Args:
            url: the upstream's base URL, with or without a path; plain http for loopback only.
            ca_file: PEM file of the certificates to trust instead of the usual ones (certifi's).
            proxy: ``http://[user:password@]host:port``; not used for loopback.
            connect_timeout_s: bound of name lookup, TCP, tunnel and TLS together.
            pool_size: idle connections kept at most.

        Raises:
            ValueError: a setting cannot be used; the message is fit for the user and holds no password.
        """
        self._base_url = _check_base_url(url)
        parts = urlsplit(self._prepare("").url or "")  # requests has put an international name into ASCII
        is_tls = parts.scheme == "https"
        place = Place(parts.hostname or "", parts.port or (443 if is_tls else 80))
        way = None if proxy is None else parse_proxy(proxy)
        self._connect_timeout_s = connect_timeout_s
        self._dialer = Dialer(
            place, _choose_context(ca_file) if is_tls else None, None if is_loopback(place.host) else way
        )
        self._pool = Pool(pool_size)
        self._adapter = ReportAdapter(self._dialer, self._pool)
        self._session = _Session(f"{parts.scheme}://{parts.netloc}/", self._adapter)
        self._templates: dict[str, ReportRequest] = {}

    def send(
        self, method: str, key: Secret, task_id: int, *, deadline_s: float, connect_by_s: float
    ) -> Exchange:
        """Send one report once, wait for its answer and say what happened: all of `begin` to `end`.

        Raises:
            RuntimeError: a mistake in this program; never because of the network or the upstream.
        """
        attempt = self.begin(method, key, task_id, deadline_s=deadline_s, connect_by_s=connect_by_s)
        self.go_on(attempt)
        return self.end(attempt)

    def begin(
        self, method: str, key: Secret, task_id: int, *, deadline_s: float, connect_by_s: float
    ) -> Attempt:
        """Begin to send one report once, without waiting for anything.

        Args:
            method: the upstream's method name, letter for letter.
            key: the account's key; it leaves in the request's body and nowhere else.
            task_id: the task.
            deadline_s: seconds from now for the whole attempt, whatever drips.
            connect_by_s: seconds from now after which no byte of the request may leave any more.

        Returns:
            The attempt: over, or out, or for `go_on`.
        """
        attempt = Attempt(deadline_s, connect_by_s, self._connect_timeout_s)
        attempt.request = request = self._templates.get(method) or self._make_template(method)
        body = _spell_body(key, task_id)
        attempt.unsent = b"%b%d\r\n\r\n%b" % (request.head, len(body), body)
        try:
            self._adapter.begin(attempt)
        except Exception as error:
            _note(attempt, error)
        return attempt

    def go_on(self, attempt: Attempt) -> None:
        """Get the request out, waiting for a connection if need be; nothing if it is out or over."""
        if attempt.is_out or attempt.is_over:
            return
        try:
            self._adapter.go_on(attempt)
        except Exception as error:
            _note(attempt, error)

    def has_come(self, attempt: Attempt) -> bool | None:
        """Take what has come of the answer to a request that is out, without waiting.

        Returns:
            True if `end` will not wait, False if more must come, None if `end` may have to.
        """
        return self._adapter.has_come(attempt)

    def end(self, attempt: Attempt) -> Exchange:
        """Read the answer, until the attempt's deadline at the latest, and say what happened.

        Raises:
            RuntimeError: a mistake in this program; never because of the network or the upstream.
        """
        body: bytes | None = b""
        if not attempt.is_over:
            try:
                body = self._session.send(
                    attempt.request,
                    timeout=cast(Any, attempt),
                    allow_redirects=False,
                    stream=False,
                    verify=True,
                    cert=None,
                    proxies=_NO_PROXIES,
                ).content
            except Exception as error:
                _note(attempt, error)
        if attempt.mistake is not None:
            # Raised out here, so that neither cause nor frames of the first exception come along.
            phase, sent = attempt.phase, attempt.sent
            raise RuntimeError(f"{attempt.mistake} while sending (phase {phase}, sent {sent})")
        return Exchange(
            attempt.failure,
            attempt.sent,
            attempt.status,
            attempt.headers,
            body or b"",
            attempt.oversize,
            now() - attempt.began_at,
            attempt.reused,
        )

    def warm_up(self) -> None:
        """Do early what the first report would wait for, without touching the network.

        Raises:
            OSError: the usual certificates cannot be read; `send` would answer ``tls``.
        """
        self._dialer.warm_up()

    def stats(self) -> Stats:
        """Count the connections."""
        return Stats(*self._pool.counts())

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer has come."""
        self._session.close()

    def _make_template(self, method: str) -> ReportRequest:
        if not (method.isascii() and method.isalnum()):
            raise ValueError("a method name is letters and digits")
        request = self._prepare(method)
        parts = urlsplit(request.url or "")
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value!s}" for name, value in request.headers.items()]
        request.head = "\r\n".join([*lines, "Content-Length: "]).encode("ascii")
        self._templates[method] = request
        return request

    def _prepare(self, method: str) -> ReportRequest:
        request = ReportRequest()
        request.prepare(method="POST", url=f"{self._base_url}/{method}", headers=HEADERS)
        del request.headers["Content-Length"]  # differs per report
        return request


def _note(attempt: Attempt, error: Exception) -> None:
    """Let go of an attempt that has failed, and of the key that it may hold."""
    attempt.unsent = b""
    if attempt.connection is not None:
        attempt.connection.close()
    attempt.failure = name_failure(attempt.phase, error)
    if attempt.failure is None:
        attempt.mistake = type(error).__name__


def _spell_body(key: Secret, task_id: int) -> bytes:
    # By hand: json.dumps of the whole takes ten times as long, and taskId must be a number whatever comes.
    return b'{"clientKey":%b,"taskId":%d}' % (encode_basestring_ascii(key.reveal()).encode("ascii"), task_id)


def _check_base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the upstream's URL is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("the upstream's URL does not begin with https:// and a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("the upstream's URL holds a user, a query or a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("plain http is for loopback only; use https")
    return url.rstrip("/")


def _choose_context(ca_file: str | None) -> Callable[[], ssl.SSLContext]:
    if ca_file is None:
        return lambda: make_tls_context(DEFAULT_CA_BUNDLE_PATH)
    try:
        context = make_tls_context(ca_file)
    except OSError as error:
        reason = "it holds no usable certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"the CA file cannot be used: {reason}") from None
    return lambda: context
