"""The transport under `requests`: one request out, one answer in, inside the limits of its call.

Takes the place of urllib3, which has no total deadline and costs eight times as much a report. Also where
exceptions become the words of `Exchange.failure`. Retries nothing, follows nothing, unpacks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import requests
from requests.adapters import BaseAdapter

from bridge.engine import NoResources, TimedOut
from bridge.upstream.answers import Answer, Cut
from bridge.upstream.connecting import Connect, Unreached
from bridge.upstream.streams import PIECE_BYTES, Stream

MAX_IDLE_S: Final = 50.0
"""How long a connection may wait for reuse. Load balancers close at 60 s, nginx at 75 s; leaving first means
that no request meets a connection which the other side is just closing (that would be an unknown outcome)."""
KEEP_ALIVE_MARGIN_S: Final = 1.0
"""A ``Keep-Alive: timeout`` is cut by this, for the way there."""
_TIMEOUT: Final = re.compile(r'(?:^|,)\s*timeout\s*=\s*"?([0-9]{1,6})[0-9]*"?\s*(?:,|$)', re.IGNORECASE)

FAILURES: Final[tuple[tuple[type[BaseException], str | None], ...]] = (
    (requests.RequestException, None),  # an OSError too, but it says that requests was used wrongly
    (TimeoutError, "timeout"),
    (Cut, "cut"),
    (OSError, "reset"),
    (ValueError, "malformed"),
)
"""What an exception means once there is a connection; the first row that fits wins."""


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
        leave_by: no byte of the request leaves later.
        is_fresh: open a new connection whatever is idle.
    """

    head: bytes
    """Everything that leaves before the value of Content-Length, the last header line."""
    is_reused = False
    is_sent = False
    """True once the first byte may have left."""

    def __init__(
        self, template: Mapping[str, Any], body: bytes, until: float, leave_by: float, is_fresh: bool
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
        send_by = min(call.until, call.leave_by)
        link = None if call.is_fresh else self.take()
        if link is None:
            link = self._connect(min(send_by, self._now() + self._connect_timeout_s))
        else:
            call.is_reused = True
        try:
            now = self._now()
            if now >= call.leave_by:
                raise Unreached("window")
            if now >= call.until:
                raise TimedOut("no time is left to send")
            assert isinstance(call.body, bytes)
            call.is_sent = True
            # One call, so one packet: head and body apart would wait for each other (Nagle, delayed ACK).
            link.send_all(b"%b%d\r\n\r\n%b" % (call.head, len(call.body), call.body), send_by)
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
