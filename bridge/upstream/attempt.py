"""What one attempt has to keep to and what it has met so far.

Handed through `requests` as its ``timeout``, the one argument that `Session.send` passes on untouched.
Knows no socket and no library; imported by every other module of the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bridge.upstream.pool import Connection

LOOKUP: Final = "lookup"
DIAL: Final = "dial"
TUNNEL: Final = "tunnel"
HANDSHAKE: Final = "handshake"
EXCHANGE: Final = "exchange"
PHASES: Final = (LOOKUP, DIAL, TUNNEL, HANDSHAKE, EXCHANGE)
"""What an attempt may be busy with. Everything that concerns a proxy is ``tunnel``."""


def _choose_clock() -> Callable[[], float]:
    # A report's window goes on while the machine sleeps, and CLOCK_MONOTONIC stands still then on Linux.
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic if clock_id is None else partial(time.clock_gettime, clock_id)


now: Final = _choose_clock()
"""Seconds on a clock that never jumps and, where the system has one, counts suspended time."""


class WindowOver(Exception):
    """No byte of the request may leave any more."""


class Attempt:
    """The limits of one attempt as instants of `now`, how far it is, and the facts it leaves behind.

    Thread safety: belongs to the thread that sends; it may be handed on to another.
    """

    __slots__ = (
        "began_at",
        "connect_until",
        "connection",
        "failure",
        "headers",
        "leave_until",
        "mistake",
        "oversize",
        "phase",
        "request",
        "reused",
        "sent",
        "status",
        "unsent",
        "until",
    )

    def __init__(self, deadline_s: float, connect_by_s: float, connect_timeout_s: float) -> None:
        self.began_at = began_at = now()
        self.until = began_at + deadline_s
        self.leave_until = began_at + connect_by_s
        self.connect_until = began_at + min(deadline_s, connect_by_s, connect_timeout_s)
        self.phase = LOOKUP
        self.sent = False
        self.reused = False
        self.oversize = False
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.request: Any = None
        """The prepared request of its method."""
        self.connection: Connection | None = None
        self.unsent: bytes = b""
        """What has not left yet of the request; it holds the key."""
        self.failure: str | None = None
        """`Exchange.failure`, once one is known."""
        self.mistake: str | None = None
        """Class of an exception that no network can have caused."""

    @property
    def is_out(self) -> bool:
        """True once the whole request has left: what is awaited is the answer."""
        return self.sent and not self.unsent

    @property
    def is_over(self) -> bool:
        """True if it has failed, so that there is nothing to await."""
        return self.failure is not None or self.mistake is not None
