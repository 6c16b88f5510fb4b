"""Names to addresses, inside a time limit that `getaddrinfo` itself does not have.

Keeps addresses for a short while. Opens no connection; imported by `bridge.upstream.connecting`.
"""

from __future__ import annotations

import socket
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from bridge.engine import Engine, Waiter
from bridge.upstream.streams import is_lack

NAME_KEPT_S: Final = 30.0
"""How long an address is believed. Half a minute spares lookups in a burst and still follows a move."""
MAX_ADDRESSES: Final = 4
"""Addresses tried per connection: each gets at least a quarter of the time, 0.75 s by default."""

Address = tuple[int, Any]
"""Address family and what `socket.connect` takes."""


class Place(NamedTuple):
    """Where to connect to."""

    host: str
    port: int


class Names:
    """Addresses of one place.

    `getaddrinfo` has no time-out, so it runs on a thread of the engine's; all who need the name share it, so
    there is never more than one. Numeric addresses and localhost need no thread, and localhost is the
    loopback address whatever the system's files say.
    """

    def __init__(self, engine: Engine, place: Place) -> None:
        self._engine = engine
        self._place = place
        self._waiting: list[Waiter] = []
        self._found: tuple[Address, ...] = ()
        self._fresh_until = 0.0
        self._fixed = _numeric_addresses(place)

    def find(self, until: float) -> tuple[Address, ...]:
        """Return the addresses, best first.

        Raises:
            OSError: the name is not found, or not before the moment `until`.
            NoResources: there is no thread to look it up with.
        """
        if self._fixed:
            return self._fixed
        if self._found and self._engine.now() < self._fresh_until:
            return self._found
        if not self._waiting:
            self._engine.spawn(self._look_up)
        waiter = self._engine.waiter()
        self._waiting.append(waiter)
        found: tuple[Address, ...] | Exception = waiter.wait(until)
        if isinstance(found, Exception):
            raise found
        return found

    def prefer(self, address: Address) -> None:
        """Try this address first from now on: it has just answered."""
        if address in self._found[1:]:
            self._found = (address, *(other for other in self._found if other != address))

    def forget(self) -> None:
        """Look the name up again next time: none of its addresses answered."""
        self._found = ()

    def _look_up(self) -> None:
        host, port = self._place
        told: tuple[Address, ...] | Exception
        try:
            rows = self._engine.run_in_thread(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
            told = self._found = _alternate_families([(row[0], row[4]) for row in rows])
        except Exception as error:  # OSError, or UnicodeError from a name that cannot be one
            told = error if is_lack(error) else _find_lack() or error
        self._fresh_until = self._engine.now() + NAME_KEPT_S
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.wake(told)


def _find_lack() -> OSError | None:
    # Without a descriptor the system's resolver says that there is no such name, or that it cannot tell now.
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error if is_lack(error) else None
    return None


def _numeric_addresses(place: Place) -> tuple[Address, ...]:
    host, port = place
    if host == "localhost" or host.endswith(".localhost"):
        return ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0)))
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
    return ((rows[0][0], rows[0][4]),)


def _alternate_families(found: list[Address]) -> tuple[Address, ...]:
    # A machine whose IPv6 leads nowhere must reach an IPv4 address second, not fifth (RFC 8305, section 4).
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    mixed = [address for pair in zip_longest(first, others) for address in pair if address is not None]
    return tuple(mixed[:MAX_ADDRESSES])
