"""A look at the upstream without a report: name, TCP, TLS, and the Date header of an answer to HEAD /.

Sends no key and no task, so it spends nothing; keeps to one deadline. Imported late, by the doctor only.
"""

from __future__ import annotations

from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

import certifi

from bridge import __version__
from bridge.upstream.answer import Answer, Inlet
from bridge.upstream.attempt import EXCHANGE, Attempt, now
from bridge.upstream.connect import Dialer, bracket, is_loopback, make_tls_context, parse_proxy
from bridge.upstream.resolver import Place
from bridge.upstream.transport import name_failure


class Sight(NamedTuple):
    """What was seen of the upstream."""

    failure: str | None
    """None: a whole answer came. Else the step that failed, as `bridge.core.model.Exchange` says it."""
    tls: str | None
    """Version of TLS; None for plain HTTP or if it did not come so far."""
    status: int | None
    date_wall: float | None
    """The answer's Date header in UNIX seconds."""
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
    """
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    host = (parts.hostname or "").encode("idna").decode("ascii")
    place = Place(host, parts.port or (443 if is_tls else 80))
    way = parse_proxy(proxy) if proxy and not is_loopback(host) else None
    make_context = (lambda: make_tls_context(ca_file or certifi.where())) if is_tls else None
    attempt = Attempt(timeout_s, timeout_s, connect_timeout_s)
    seen: dict[str, str | None] = {"tls": None}
    date_wall = None
    failure = None
    try:
        sock = Dialer(place, make_context, way).dial(attempt)
        with sock:
            if is_tls:
                seen["tls"] = getattr(sock, "version", lambda: None)()
            attempt.phase = EXCHANGE
            name = bracket(host) + (f":{parts.port}" if parts.port else "")
            sock.settimeout(max(attempt.until - now(), 0.01))
            sock.sendall(
                f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n"
                f"User-Agent: anticaptcha-report-bridge/{__version__}\r\n\r\n".encode("ascii")
            )
            inlet = Inlet(sock)
            inlet.expect(attempt.until)
            answer = Answer(inlet, method="HEAD")
            try:
                answer.begin()
                attempt.status = answer.status
                with suppress(ValueError, TypeError):
                    date_wall = parsedate_to_datetime(answer.fields["date"]).timestamp()
            except KeyError:
                pass  # an answer without a Date
            finally:
                answer.close()
    except (OSError, ValueError, RuntimeError, HTTPException) as error:
        failure = name_failure(attempt.phase, error) or "malformed"
    return Sight(failure, seen["tls"], attempt.status, date_wall, now() - attempt.began_at)
