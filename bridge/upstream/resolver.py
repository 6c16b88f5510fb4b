"""Names to addresses, inside a time limit that `getaddrinfo` itself does not have.

Keeps addresses for a short while. Opens no connection; imported by `bridge.upstream.connect`.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, Final, NamedTuple

from bridge.upstream.attempt import now

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


class _Lookup:
    """One running name lookup and those who wait for it."""

    __slots__ = ("done", "failure", "found")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: tuple[Address, ...] = ()
        self.failure: str | None = None


class Resolver:
    """Addresses of one place.

    `getaddrinfo` has no time-out, so it runs in a thread of its own; all who need the name at that moment
    share it, so there is never more than one. Numeric addresses and localhost need no thread, and localhost
    is the loopback address whatever the system's files say.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._lookup: _Lookup | None = None
        self._found: tuple[Address, ...] = ()
        self._fresh_until = 0.0
        self._fixed = _numeric_addresses(place)

    def find(self, until: float) -> tuple[Address, ...]:
        """Return the addresses, best first.

        Raises:
            OSError: the name is not found, or not before the instant `until`.
        """
        if self._fixed:
            return self._fixed
        with self._lock:
            if self._found and now() < self._fresh_until:
                return self._found
            lookup = self._lookup
            if lookup is None:
                lookup = _Lookup()
                threading.Thread(target=self._look_up, args=(lookup,), daemon=True).start()
                self._lookup = lookup
        if not lookup.done.wait(max(0.0, until - now())):
            raise TimeoutError("the name lookup took too long")
        if lookup.failure is not None:
            raise socket.gaierror(lookup.failure)
        return lookup.found

    def prefer(self, address: Address) -> None:
        """Try this address first from now on: it has just answered."""
        with self._lock:
            if self._found and self._found[0] != address and address in self._found:
                self._found = (address, *(other for other in self._found if other != address))

    def forget(self) -> None:
        """Look the name up again next time: none of its addresses answered."""
        with self._lock:
            self._found = ()

    def _look_up(self, lookup: _Lookup) -> None:
        try:
            rows = socket.getaddrinfo(self._place.host, self._place.port, type=socket.SOCK_STREAM)
            lookup.found = _alternate_families([(row[0], row[4]) for row in rows])
        except Exception as error:  # OSError, or UnicodeError from a name that cannot be one
            lookup.failure = str(error) or "not found"
        with self._lock:
            self._lookup = None
            self._found = lookup.found
            self._fresh_until = now() + NAME_KEPT_S
        lookup.done.set()


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
    mixed: list[Address] = []
    while first or others:
        mixed += first[:1] + others[:1]
        first, others = first[1:], others[1:]
    return tuple(mixed[:MAX_ADDRESSES])
