"""Names to addresses, with the system's resolver replaced and on virtual time."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.connecting import MAX_ADDRESSES, NAME_KEPT_S, Address, Names
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import Clock

V4: list[Address] = [(socket.AF_INET, (f"192.0.2.{number}", 443)) for number in range(1, 9)]
V6: list[Address] = [(socket.AF_INET6, (f"2001:db8::{number}", 443, 0, 0)) for number in range(1, 9)]


class World:
    """A virtual time, one engine in it, and the system's resolver played; it knows no numeric address."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.loop = VirtualLoop(self.time)
        self.bugs: list[BaseException] = []
        self.engine = Engine(self.bugs.append, self.loop, Clock(self.time))
        self.found: list[Address] = V6[:4] + V4[:4]
        self.fault: Exception | None = None
        self.asked = 0

    def getaddrinfo(
        self, host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror("not numeric")
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return [(family, type, 6, "", address) for family, address in self.found]

    def run(self, function: Callable[[], Any], for_s: float = 100.0) -> list[Any]:
        """Run something in a greenlet for some time; what it returned or raised, if it ended."""
        told: list[Any] = []

        def outcome() -> None:
            try:
                told.append(function())
            except Exception as error:
                told.append(error)

        self.engine.spawn(outcome)
        self.time.run(for_s)
        assert self.bugs == []
        return told


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A resolver that finds four addresses of each family, IPv6 first."""
    world = World()
    monkeypatch.setattr(socket, "getaddrinfo", world.getaddrinfo)
    return world


def find(world: World, names: Names, for_s: float = 1.0) -> Any:
    """Look the name up once, for five seconds at most; what was found or raised."""
    (told,) = world.run(lambda: names.find(world.engine.now() + 5.0), for_s)
    return told


def test_families_take_turns(world: World) -> None:
    """Neither family can use up all tries, and the system's first choice stays first."""
    found = find(world, Names(world.engine, ("a.test", 443)))
    assert found == (V6[0], V4[0], V6[1], V4[1])
    assert len(found) == MAX_ADDRESSES


def test_address_that_answered_comes_first(world: World) -> None:
    """A preferred address is first until the name is looked up again; an unknown one changes nothing."""
    names = Names(world.engine, ("a.test", 443))
    find(world, names)
    names.prefer(V4[1])
    names.prefer(V4[7])
    assert find(world, names) == (V4[1], V6[0], V4[0], V6[1])
    assert world.asked == 1


def test_name_is_asked_again_when_forgotten_or_old(world: World) -> None:
    """An address is believed for a short while, and not after all of them failed."""
    names = Names(world.engine, ("a.test", 443))
    find(world, names)
    names.forget()
    find(world, names)
    assert world.asked == 2
    world.time.run(NAME_KEPT_S + 1.0)
    world.found = V4[:1]
    assert find(world, names) == (V4[0],)
    assert world.asked == 3


def test_many_share_one_lookup_and_each_keeps_to_its_moment(world: World) -> None:
    """Whoever needs the name while it is looked up waits for that look-up, but not longer than it may."""
    world.loop.thread_takes_s = lambda: 3.0
    names = Names(world.engine, ("a.test", 443))
    told: list[Any] = []

    def ask(until: float) -> None:
        try:
            found: Any = names.find(until)[0]
        except TimedOut as error:
            found = type(error)
        told.append((world.engine.now(), found))

    for until in (2.0, 4.0, 5.0, 0.0):
        world.engine.spawn(ask, until)
    world.time.run(10.0)
    assert told == [(0.0, TimedOut), (2.0, TimedOut), (3.0, V6[0]), (3.0, V6[0])]
    assert (world.asked, world.bugs) == (1, [])


@pytest.mark.parametrize(
    "fault", [socket.gaierror(-2, "no such name"), UnicodeError("too long"), OSError("no"), None]
)
def test_name_that_is_not_found_is_told_and_asked_for_again(world: World, fault: Exception | None) -> None:
    """A failed look-up is an exception for all who waited, and is not remembered; nor is an empty one."""
    names = Names(world.engine, ("a.test", 443))
    world.fault, found, world.found = fault, world.found, []
    assert [find(world, names), find(world, names)] == [fault or ()] * 2
    assert world.asked == 2
    world.fault, world.found = None, found
    assert find(world, names)[0] == V6[0]


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.EMFILE, "too many open files"),
        OSError(errno.ENOMEM, "no memory"),
        socket.gaierror(socket.EAI_MEMORY, "no memory"),
        MemoryError(),
    ],
)
def test_lack_is_handed_on_as_it_is(world: World, fault: Exception) -> None:
    """What says that this machine lacks something keeps saying it."""
    world.fault = fault
    assert find(world, Names(world.engine, ("a.test", 443))) is fault


def test_no_thread_is_a_lack(world: World) -> None:
    """Without a thread nothing is looked up; with one again it is."""
    names = Names(world.engine, ("a.test", 443))
    world.loop.has_threads = False
    assert isinstance(find(world, names), NoResources)
    world.loop.has_threads = True
    assert find(world, names)[0] == V6[0]


def test_resolver_that_lacks_a_descriptor_says_that_there_is_no_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver hides the lack of descriptors; it is told all the same."""

    def refuse(*_: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    world.fault = socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
    told = find(world, Names(world.engine, ("a.test", 443)))
    assert isinstance(told, OSError)
    assert told.errno == errno.EMFILE


@pytest.mark.parametrize("host", ["localhost", "api.localhost"])
def test_localhost_is_loopback_whatever_the_system_says(world: World, host: str) -> None:
    """The name of this machine is never looked up."""
    found = Names(world.engine, (host, 8080)).find(0.0)
    assert found == ((socket.AF_INET, ("127.0.0.1", 8080)), (socket.AF_INET6, ("::1", 8080, 0, 0)))
    assert world.asked == 0


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", (socket.AF_INET, ("192.0.2.1", 443))),
        ("2001:db8::1", (socket.AF_INET6, ("2001:db8::1", 443, 0, 0))),
    ],
)
def test_numeric_address_needs_no_lookup(host: str, expected: tuple[int, Any]) -> None:
    """A numeric address is itself."""
    assert Names(World().engine, (host, 443)).find(0.0) == (expected,)
