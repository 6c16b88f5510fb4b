"""The door to `requests`: one HTTP attempt inside the time that it is given.

Whatever the network or the upstream does becomes an `Exchange`; `bridge.reports.verdict` says what it proves.
Never retries, never follows a redirect, reads nothing from the environment. Imported late by `bridge.app` and
the doctor, because `requests` takes 90 ms to load.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter

from bridge import __version__
from bridge.core.model import Exchange
from bridge.core.redact import Secret
from bridge.engine import Engine, NoResources
from bridge.upstream.adapter import Adapter, Call, name_failure
from bridge.upstream.connecting import Connect, Dialer
from bridge.upstream.streams import is_lack

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
    "User-Agent": f"anticaptcha-report-bridge/{__version__}",
}
"""Sent with every request, besides Host and Content-Length."""


class ClientSettings(Protocol):
    """What of the settings says how the upstream is reached."""

    ca_file: str | None
    """PEM file of the certificates to trust instead of the usual ones (certifi's)."""
    proxy: str | None
    """``http://[user:password@]host:port``; not used for loopback."""
    connect_timeout_s: float
    """Bound of name lookup, TCP, tunnel and TLS together."""
    concurrency: int
    """Idle connections kept at most."""


class _Session(requests.Session):
    """A session that knows one adapter, keeps to itself and goes nowhere else."""

    def __init__(self, root: str, adapter: BaseAdapter) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 0
        self.adapters.clear()
        self.mount(root, adapter)

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[requests.Response]:
        """Follow nothing, and look for nothing to follow: it would hand the key to another host."""
        return iter(())


class Client:
    """Sends requests to one upstream over kept-alive connections.

    Args:
        engine: where to wait.
        url: the upstream's base URL as the settings have it, with or without a path.
        settings: how to get there.
        connect: opens connections in place of sockets; a simulation's.

    Raises:
        ValueError: a setting cannot be used; the message is fit for the user and holds no password.
    """

    def __init__(
        self, engine: Engine, url: str, settings: ClientSettings, connect: Connect | None = None
    ) -> None:
        self._now = engine.now
        self._base_url = url.rstrip("/")
        self._dialer = Dialer(engine, url, settings.ca_file, settings.proxy)
        self._adapter = Adapter(
            engine.now, connect or self._dialer.open, settings.connect_timeout_s, settings.concurrency
        )
        self._session = _Session(urlsplit(url)._replace(path="/").geturl(), self._adapter)
        self._templates: dict[str, Mapping[str, Any]] = {}

    def send(self, method: str, body: bytes, *, until: float, leave_by: float, fresh: bool) -> Exchange:
        """Send one request once, wait for its answer and say what happened.

        Args:
            method: the upstream's method name, letter for letter; letters and digits. Empty for a look at
                the base address, which is asked with GET.
            body: JSON; it may hold the account's key, which leaves here and nowhere else.
            until: when the attempt ends whatever drips, on the boot clock.
            leave_by: no byte of the request leaves after this.
            fresh: open a new connection whatever is idle.

        Raises:
            NoResources: this machine lacks descriptors, threads or memory; nothing was sent.
            RuntimeError: a mistake in this program; never because of the network or the upstream.
        """
        began_at = self._now()
        call = Call(self._templates.get(method) or self._make_template(method), body, until, leave_by, fresh)
        failure = None
        raised: Exception | None = None
        try:
            self._session.send(call, allow_redirects=False, proxies={})
        except Exception as error:
            failure = name_failure(error)
            if not call.is_sent and is_lack(error):
                raised = NoResources("this machine lacks descriptors, threads or memory; nothing was sent")
            elif failure is None:
                raised = RuntimeError(f"{type(error).__name__} while sending (sent {call.is_sent})")
        # Raised out here, without the cause and the frames of the first exception: they hold the key.
        call.body = body = b""
        if raised is not None:
            raise raised
        answer = call.answer
        return Exchange(
            failure,
            call.is_sent,
            answer.status,
            answer.fields,
            b"" if failure else answer.body,
            answer.is_oversize,
            self._now() - began_at,
            call.is_reused,
        )

    def warm_up(self) -> None:
        """Do early what the first report would wait for, without touching the network.

        Raises:
            OSError: the usual certificates cannot be read; `send` would answer ``tls``.
        """
        self._dialer.warm_up()

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer has come."""
        self._session.close()

    def _make_template(self, method: str) -> Mapping[str, Any]:
        verb, request = "POST" if method else "GET", requests.PreparedRequest()
        request.prepare(method=verb, url=f"{self._base_url}/{method}", headers=HEADERS)
        request.headers.pop("Content-Length", None)  # differs per report
        parts = urlsplit(request.url or "")
        lines = [f"{verb} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value!s}" for name, value in request.headers.items()]
        head = "\r\n".join([*lines, "Content-Length: "]).encode("ascii")
        template = self._templates[method] = {**vars(request), "head": head}
        return template


def report_body(key: Secret, task_id: int) -> bytes:
    """Spell the body of a report: exactly clientKey and taskId."""
    # By hand: json.dumps of the whole takes ten times as long, and taskId must be a number whatever comes.
    return b'{"clientKey":%b,"taskId":%d}' % (encode_basestring_ascii(key.reveal()).encode("ascii"), task_id)


def spending_body(key: Secret, date: int, queue: str) -> bytes:
    """Spell the body of getSpendingStats: the hour from which it tells, and one queue or all."""
    return json.dumps(
        {"clientKey": key.reveal(), "date": date} | ({"queue": queue} if queue else {})
    ).encode()
