"""A look at the upstream without a report: name, TCP, TLS, and the Date header of an answer to HEAD /.

Sends no key and no task, so it spends nothing; keeps to one deadline. Imported late, by the doctor only.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from bridge import __version__
from bridge.engine import Engine
from bridge.upstream.adapter import name_failure
from bridge.upstream.answers import Answer
from bridge.upstream.connecting import Dialer
from bridge.upstream.streams import PIECE_BYTES


class Sight(NamedTuple):
    """What was seen of the upstream."""

    failure: str | None
    """None: a whole answer came. Else the step that failed, as `bridge.core.model.Exchange` says it."""
    tls: str | None
    """Version of TLS; None for plain HTTP or if it did not come so far."""
    date: str
    """The answer's Date header; empty without one."""
    elapsed_s: float


def look_at(
    url: str, *, ca_file: str | None, proxy: str | None, timeout_s: float, connect_timeout_s: float
) -> Sight:
    """Ask the upstream's base address for its head.

    Args:
        url: the upstream's base URL.
        ca_file: PEM file of the certificates to trust instead of the usual ones.
        proxy: ``http://[user:password@]host:port``; not used for loopback.
        timeout_s: for all of it.
        connect_timeout_s: for name, TCP, tunnel and TLS.

    Raises:
        OSError: this machine lacks what it takes to ask.
        ValueError: a setting cannot be used.
    """
    engine = Engine(on_bug=lambda bug: None)
    began_at = engine.now()
    until = began_at + timeout_s
    parts = urlsplit(url)
    dialer = Dialer(engine, url, ca_file, proxy)
    request = (
        f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
        f"User-Agent: anticaptcha-report-bridge/{__version__}\r\n\r\n"
    )
    answer = Answer()
    tls = failure = None
    try:
        stream = dialer.open(min(until, began_at + connect_timeout_s))
        try:
            tls = stream.tls_version
            stream.send_all(request.encode("ascii"), until)
            answer.read_head(partial(stream.receive, PIECE_BYTES, until))
        finally:
            stream.close()
    except Exception as error:
        failure = name_failure(error)
        if failure is None:
            raise
    return Sight(failure, tls, answer.fields.get("date", ""), engine.now() - began_at)
