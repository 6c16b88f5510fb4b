"""The door to `requests`: one report sent once, inside the seconds it is given.

Whatever the network or the upstream does becomes an `Exchange`; `bridge.reports.verdict` says what it proves.
Never retries, never follows a redirect, reads nothing from the environment. Imported late by `bridge.app`,
because `requests` takes 90 ms to load.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import requests
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

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Say that no answer leads elsewhere: following would hand the key to another host."""
        return None


class Client:
    """Sends reports to one upstream over kept-alive connections.

    Thread safety: `send` may run in any number of threads at once; it blocks at most ``deadline_s``.
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
        self._session = _Session(f"{parts.scheme}://{parts.netloc}/", ReportAdapter(self._dialer, self._pool))
        self._templates: dict[str, ReportRequest] = {}

    def send(
        self, method: str, key: Secret, task_id: int, *, deadline_s: float, connect_by_s: float
    ) -> Exchange:
        """Send one report once and say what happened.

        Args:
            method: the upstream's method name, letter for letter.
            key: the account's key; it leaves in the request's body and nowhere else.
            task_id: the task.
            deadline_s: seconds from now for the whole attempt, whatever drips.
            connect_by_s: seconds from now after which no byte of the request may leave any more.

        Raises:
            RuntimeError: a mistake in this program; never because of the network or the upstream.
        """
        attempt = Attempt(deadline_s, connect_by_s, self._connect_timeout_s)
        template = self._templates.get(method) or self._make_template(method)
        request = template.with_body(_spell_body(key, task_id))
        failure: str | None = None
        mistake: str | None = None
        body: bytes | None = b""
        try:
            body = self._session.send(
                request,
                timeout=cast(Any, attempt),
                allow_redirects=False,
                stream=False,
                verify=True,
                cert=None,
                proxies=_NO_PROXIES,
            ).content
        except Exception as error:
            failure = name_failure(attempt.phase, error)
            if failure is None:
                mistake = type(error).__name__
        finally:
            request.body = None  # nobody who still holds the request, a traceback's frame say, holds the key
        if mistake is not None:
            # Raised out here, so that neither cause nor frames of the first exception come along.
            raise RuntimeError(f"{mistake} while sending (phase {attempt.phase}, sent {attempt.sent})")
        return Exchange(
            failure,
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


def _spell_body(key: Secret, task_id: int) -> bytes:
    # By hand: json.dumps of the whole takes four times as long, and taskId must be a number whatever comes.
    return b'{"clientKey":%b,"taskId":%d}' % (json.dumps(key.reveal()).encode("ascii"), task_id)


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
