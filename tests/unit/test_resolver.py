"""Names to addresses, with the system's resolver replaced."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from bridge.upstream import resolver as module
from bridge.upstream.attempt import now
from bridge.upstream.resolver import MAX_ADDRESSES, NAME_KEPT_S, Address, Place, Resolver

V4: list[Address] = [(socket.AF_INET, (f"192.0.2.{number}", 443)) for number in range(1, 9)]
V6: list[Address] = [(socket.AF_INET6, (f"2001:db8::{number}", 443, 0, 0)) for number in range(1, 9)]


class Names:
    """Plays the system's resolver; knows no numeric address."""

    def __init__(self, found: list[Address]) -> None:
        self.found = found
        self.asked = 0

    def __call__(self, host: str, port: int, type: int = 0, flags: int = 0) -> list[tuple[Any, ...]]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror("not numeric")
        self.asked += 1
        return [(family, type, 6, "", address) for family, address in self.found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """A resolver that finds four addresses of each family, IPv6 first."""
    names = Names(V6[:4] + V4[:4])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    return names


def test_families_take_turns(names: Names) -> None:
    """Neither family can use up all tries, and the system's first choice stays first."""
    found = Resolver(Place("a.test", 443)).find(now() + 60.0)
    assert found == (V6[0], V4[0], V6[1], V4[1])
    assert len(found) == MAX_ADDRESSES


def test_address_that_answered_comes_first(names: Names) -> None:
    """A preferred address is first until the name is looked up again; an unknown one changes nothing."""
    resolver = Resolver(Place("a.test", 443))
    resolver.find(now() + 60.0)
    resolver.prefer(V4[1])
    resolver.prefer(V4[7])
    assert resolver.find(now() + 60.0) == (V4[1], V6[0], V4[0], V6[1])
    assert names.asked == 1


def test_name_is_asked_again_when_forgotten_or_old(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is believed for a short while, and not after all of them failed."""
    resolver = Resolver(Place("a.test", 443))
    resolver.find(now() + 60.0)
    resolver.forget()
    resolver.find(now() + 60.0)
    assert names.asked == 2
    later = now() + NAME_KEPT_S + 1.0
    monkeypatch.setattr(module, "now", lambda: later)
    names.found = V4[:1]
    assert resolver.find(later + 60.0) == (V4[0],)
    assert names.asked == 3


@pytest.mark.parametrize("host", ["localhost", "api.localhost"])
def test_localhost_is_loopback_whatever_the_system_says(names: Names, host: str) -> None:
    """The name of this machine is never looked up."""
    found = Resolver(Place(host, 8080)).find(now())
    assert found == ((socket.AF_INET, ("127.0.0.1", 8080)), (socket.AF_INET6, ("::1", 8080, 0, 0)))
    assert names.asked == 0


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 443))),
        ("2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 443, 0, 0))),
    ],
)
def test_numeric_address_needs_no_lookup(host: str, expected: tuple[int, Any]) -> None:
    """A numeric address is itself."""
    assert Resolver(Place(host, 443)).find(now()) == (expected,)
