"""Which idle connection is taken, and which are let go."""

from __future__ import annotations

import pytest

from bridge.upstream.answers import Answer
from bridge.upstream.client import MAX_IDLE_S, Adapter, idle_seconds
from tests.unit.test_client import Link


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.t = 1000.0

    def __call__(self) -> float:
        return self.t


def make_adapter(clock: Clock, size: int) -> Adapter:
    """Return an adapter that has nothing to connect to."""

    def connect(until: float) -> Link:
        raise AssertionError("nothing is opened here")

    return Adapter(clock, connect, 0.0, size)


def test_last_in_is_first_out() -> None:
    """The connection used last is used next, and the oldest has to leave."""
    pool = make_adapter(Clock(), 2)
    first, second, third = Link(), Link(), Link()
    for link in (first, second, third):
        pool.give(link, MAX_IDLE_S)
    assert [first.is_open, second.is_open, third.is_open] == [False, True, True]
    assert [pool.take(), pool.take(), pool.take()] == [third, second, None]
    assert pool.idle == []


@pytest.mark.parametrize(("size", "seconds"), [(5, idle_seconds(Answer())), (0, MAX_IDLE_S)])
def test_connection_that_is_not_clean_is_closed(size: int, seconds: float) -> None:
    """What an answer leaves in doubt is kept for no time, and with size 0 nothing is."""
    pool, link = make_adapter(Clock(), size), Link()
    pool.give(link, seconds)
    assert not link.is_open
    assert pool.take() is None


def test_connection_that_is_not_quiet_is_closed() -> None:
    """Bytes nobody asked for, or the end, rule a connection out; the next one is taken."""
    pool, good, bad = make_adapter(Clock(), 5), Link(), Link()
    pool.give(good, MAX_IDLE_S)
    pool.give(bad, MAX_IDLE_S)
    bad.has_spoken = True
    assert pool.take() is good
    assert not bad.is_open


@pytest.mark.parametrize(
    ("keep_alive", "idle_s", "is_kept"),
    [
        (None, MAX_IDLE_S - 1.0, True),
        (None, MAX_IDLE_S + 1.0, False),
        ("timeout=5", 3.0, True),
        ("timeout=5", 4.5, False),
        ('max=100, Timeout="5"', 4.5, False),
        ("timeout=0", 0.0, False),
        ("timeout=999999999999", MAX_IDLE_S + 1.0, False),
        ("timeout=soon, max=5", MAX_IDLE_S - 1.0, True),
        ("timeout=-5", MAX_IDLE_S - 1.0, True),
        ("", MAX_IDLE_S - 1.0, True),
    ],
)
def test_idle_connection_grows_old(keep_alive: str | None, idle_s: float, is_kept: bool) -> None:
    """A connection is kept for less than the other side keeps it."""
    clock, link, answer = Clock(), Link(), Answer()
    answer.may_stay = True
    answer.fields = {} if keep_alive is None else {"keep-alive": keep_alive}
    pool = make_adapter(clock, 5)
    pool.give(link, idle_seconds(answer))
    clock.t += idle_s
    assert (pool.take() is link) is is_kept
    assert link.is_open is is_kept


def test_all_idle_ones_can_be_let_go() -> None:
    """What was idle is closed; what comes back later is kept again."""
    pool, before, after = make_adapter(Clock(), 5), [Link() for _ in range(3)], Link()
    for link in before:
        pool.give(link, MAX_IDLE_S)
    pool.let_go()
    assert [link.is_open for link in before] == [False] * 3
    pool.give(after, MAX_IDLE_S)
    assert pool.take() is after


def test_closed_pool_keeps_nothing() -> None:
    """Closing lets go of what is idle and of what comes back."""
    pool, before, after = make_adapter(Clock(), 5), Link(), Link()
    pool.give(before, MAX_IDLE_S)
    pool.close()
    pool.give(after, MAX_IDLE_S)
    assert not before.is_open
    assert not after.is_open
    assert pool.idle == []
