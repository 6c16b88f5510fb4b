"""The door to `requests`: one HTTP attempt inside the time that it is given, and the transport under it.

Whatever the network or the upstream does becomes an `Exchange`; `bridge.reports.verdict` says what it proves.
The transport takes the place of urllib3, which has no total deadline and costs eight times as much a report.
Never retries, never follows a redirect, unpacks nothing, reads nothing from the environment. Imported late by
`bridge.app` and the doctor, because `requests` takes 90 ms to load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache, partial
from json.encoder import encode_basestring_ascii
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter

from bridge import __version__
from bridge.core.model import Exchange, Moment
from bridge.core.redact import Secret
from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.answers import Answer, Cut
from bridge.upstream.connecting import Connect, Dialer, Unreached
from bridge.upstream.streams import PIECE_BYTES, Stream, is_lack

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
    "User-Agent": f"anticaptcha-report-bridge/{__version__}",
}
"""Sent with every request, besides Host and Content-Length."""
MAX_IDLE_S: Final = 50.0
"""How long a connection may wait for reuse. Load balancers close at 60 s, nginx at 75 s; leaving first means
that no request meets a connection which the other side is just closing (that would be an unknown outcome)."""
KEEP_ALIVE_MARGIN_S: Final = 1.0
"""A ``Keep-Alive: timeout`` is cut by this, for the way there."""
_TIMEOUT: Final = re.compile(r'(?:^|,)\s*timeout\s*=\s*"?([0-9]{1,6})[0-9]*"?\s*(?:,|$)', re.IGNORECASE)

datetime.strptime("", "")
"""Loads what reads Date headers: when one has come, no descriptor may be left to load it with."""

FAILURES: Final[tuple[tuple[type[BaseException], str | None], ...]] = (
    (requests.RequestException, None),  # an OSError too, but it says that requests was used wrongly
    (TimeoutError, "timeout"),
    (Cut, "cut"),
    (OSError, "reset"),
    (ValueError, "malformed"),
)
"""What an exception means once there is a connection; the first row that fits wins."""


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
        self._template = cache(self._make_template)

    def send(self, method: str, body: bytes, *, until: float, leave_by: Moment, fresh: bool) -> Exchange:
        """Send one request once, wait for its answer and say what happened.

        Args:
            method: the upstream's method name, letter for letter; letters and digits. Empty for a look at
                the base address, which is asked with GET.
            body: JSON; it may hold the account's key, which leaves here and nowhere else.
            until: when the attempt ends whatever drips, on the boot clock.
            leave_by: tells when no byte of the request may leave any more, which may come nearer meanwhile.
            fresh: open a new connection whatever is idle.

        Raises:
            NoResources: this machine lacks descriptors, threads or memory; nothing was sent.
            RuntimeError: a mistake in this program; never because of the network or the upstream.
        """
        began_at = self._now()
        call = Call(self._template(method), body, until, leave_by, fresh)
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
        return {**vars(request), "head": head}


def report_body(key: Secret, task_id: int) -> bytes:
    """Spell the body of a report: exactly clientKey and taskId."""
    # By hand: json.dumps of the whole takes ten times as long, and taskId must be a number whatever comes.
    return b'{"clientKey":%b,"taskId":%d}' % (encode_basestring_ascii(key.reveal()).encode("ascii"), task_id)


def spending_body(key: Secret, date: int, queue: str) -> bytes:
    """Spell the body of getSpendingStats: the hour from which it tells, and one queue or all."""
    return json.dumps(
        {"clientKey": key.reveal(), "date": date} | ({"queue": queue} if queue else {})
    ).encode()


# --- the transport ----------------------------------------------------------------------------


def name_failure(error: BaseException) -> str | None:
    """Say which `Exchange.failure` an exception is.

    Returns:
        None if neither the network nor the upstream can have caused it: a mistake in this program.
    """
    if isinstance(error, Unreached):
        return error.failure
    return next((failure for kind, failure in FAILURES if isinstance(error, kind)), None)


class Call(requests.PreparedRequest):
    """A prepared request, the moments of the boot clock that it keeps to, and the facts that it has met.

    Args:
        template: what all requests of its method share: the members of a prepared request, and `head`.
        body: sent as it is.
        until: when the attempt ends, whatever drips.
        leave_by: tells when no byte of the request may leave any more.
        is_fresh: open a new connection whatever is idle.
    """

    head: bytes
    """Everything that leaves before the value of Content-Length, the last header line."""
    is_reused = False
    is_sent = False
    """True once the first byte may have left."""

    def __init__(
        self, template: Mapping[str, Any], body: bytes, until: float, leave_by: Moment, is_fresh: bool
    ) -> None:
        self.__dict__.update(template)
        self.body = body
        self.until = until
        self.leave_by = leave_by
        self.is_fresh = is_fresh
        self.answer = Answer()


class Received(requests.Response):
    """An answer that was read to its end already.

    The stock class makes a cookie jar with two locks for every answer, a fifth of what a whole report costs.
    """

    encoding = None
    reason = ""
    url = ""

    def __init__(self, answer: Answer) -> None:
        self.status_code = answer.status  # type: ignore[assignment]  # it has one
        self.headers = answer.fields  # type: ignore[assignment]  # names are in lower case already
        self._content = answer.body
        self._content_consumed = True
        self._next = None
        self.history = []
        self.raw = None  # without a raw answer requests looks for no cookies


class Adapter(BaseAdapter):
    """Carries calls over kept connections, of which the last one in is the first one out.

    That keeps few connections warm and lets the others grow old.

    Args:
        now: the boot clock.
        connect: opens connections.
        connect_timeout_s: bound of `connect`.
        size: idle connections kept at most.
    """

    def __init__(
        self, now: Callable[[], float], connect: Connect, connect_timeout_s: float, size: int
    ) -> None:
        super().__init__()
        self._now = now
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._size = size
        self.idle: list[tuple[Stream, float]] = []
        """Connections that wait, and until when they may; the youngest is the last."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Received:
        """Send a request and read its answer; whatever else `requests` says counts for nothing.

        Args:
            request: a `Call`, which also takes the facts as they become known.

        Raises:
            Exception: `name_failure` says what it means, and `is_lack` if nobody else has failed.
        """
        assert isinstance(request, Call)
        call = request
        link = None if call.is_fresh else self.take()
        if link is None:
            link = self._connect(min(call.until, call.leave_by(), self._now() + self._connect_timeout_s))
        else:
            call.is_reused = True
        try:
            now, leave_by = self._now(), call.leave_by()
            if now >= leave_by:
                raise Unreached("window")
            if now >= call.until:
                raise TimedOut("no time is left to send")
            assert isinstance(call.body, bytes)
            call.is_sent = True
            # One call, so one packet: head and body apart would wait for each other (Nagle, delayed ACK).
            link.send_all(
                b"%b%d\r\n\r\n%b" % (call.head, len(call.body), call.body), min(call.until, leave_by)
            )
            call.answer.read(partial(link.receive, PIECE_BYTES, call.until))
        except BaseException as error:
            link.close()
            if isinstance(error, NoResources):
                call.is_sent = False
            if call.is_reused and call.is_sent and not call.answer.has_begun:
                # Perhaps the network has changed, and then all of them are dead.
                self.let_go()
            raise
        self.give(link, idle_seconds(call.answer))
        return Received(call.answer)

    def take(self) -> Stream | None:
        """Take the youngest connection that is still open and quiet, or None if a new one is needed."""
        while self.idle:
            link, expires_at = self.idle.pop()
            if self._now() < expires_at and not link.is_stale():
                return link
            link.close()
        return None

    def give(self, link: Stream, idle_s: float) -> None:
        """Keep a connection for the next request, for so long; one for no time is closed."""
        if idle_s <= 0.0:
            link.close()
            return
        self.idle.append((link, self._now() + idle_s))
        if len(self.idle) > self._size:
            self.idle.pop(0)[0].close()

    def let_go(self) -> None:
        """Close everything that is idle."""
        while self.idle:
            self.idle.pop()[0].close()

    def close(self) -> None:
        """Close the idle connections; those in use close when their answer has come."""
        self._size = 0
        self.let_go()


def idle_seconds(answer: Answer) -> float:
    """Say how long a connection may wait for reuse after an answer, whose ``Keep-Alive`` may shorten that."""
    if not answer.may_stay:
        return 0.0
    found = _TIMEOUT.search(answer.fields.get("keep-alive", ""))
    return min(MAX_IDLE_S, int(found[1]) - KEEP_ALIVE_MARGIN_S) if found else MAX_IDLE_S
