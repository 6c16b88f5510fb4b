"""Which idle connection is taken, and which are let go."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from bridge.upstream import pool as module
from bridge.upstream.attempt import now
from bridge.upstream.pool import MAX_IDLE_S, Connection, Pool

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Make connections whose other end is at hand."""
    opened: list[socket.socket] = []

    def make() -> Pair:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))
        return Connection(ours), theirs

    yield make
    for sock in opened:
        sock.close()


def is_open(connection: Connection) -> bool:
    """Tell whether a connection still has its descriptor."""
    return connection.sock.fileno() >= 0


def test_last_in_is_first_out(connect: Callable[[], Pair]) -> None:
    """The connection used last is used next, and the oldest has to leave."""
    pool = Pool(2)
    first, second, third = (connect()[0] for _ in range(3))
    for connection in (first, second, third):
        pool.give(connection, None)
    assert not is_open(first)
    assert [pool.take(), pool.take(), pool.take()] == [third, second, None]
    assert pool.counts() == (0, 2, 0)


def test_pool_of_nothing_keeps_nothing(connect: Callable[[], Pair]) -> None:
    """With size 0 every connection is closed at once."""
    pool = Pool(0)
    connection = connect()[0]
    pool.give(connection, None)
    assert not is_open(connection)
    assert pool.take() is None


@pytest.mark.parametrize("has_spoken", [True, False], ids=["bytes", "end"])
def test_connection_that_is_not_quiet_is_closed(connect: Callable[[], Pair], has_spoken: bool) -> None:
    """Bytes nobody asked for and the end of the connection both rule it out; the next one is taken."""
    pool = Pool(5)
    good, _keep = connect()
    bad, other_end = connect()
    pool.give(good, None)
    pool.give(bad, None)
    if has_spoken:
        other_end.send(b"x")
    else:
        other_end.close()
    assert pool.take() is good
    assert not is_open(bad)


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
def test_idle_connection_grows_old(
    connect: Callable[[], Pair],
    monkeypatch: pytest.MonkeyPatch,
    keep_alive: str | None,
    idle_s: float,
    is_kept: bool,
) -> None:
    """A connection is kept for less than the other side keeps it."""
    pool = Pool(5)
    connection = connect()[0]
    start = now()
    monkeypatch.setattr(module, "now", lambda: start)
    pool.give(connection, keep_alive)
    monkeypatch.setattr(module, "now", lambda: start + idle_s)
    assert (pool.take() is connection) is is_kept
    assert is_open(connection) is is_kept


def test_closed_pool_keeps_nothing(connect: Callable[[], Pair]) -> None:
    """Closing lets go of what is idle and of what comes back."""
    pool = Pool(5)
    before, after = connect()[0], connect()[0]
    pool.give(before, None)
    pool.close()
    pool.give(after, None)
    assert not is_open(before)
    assert not is_open(after)
    assert pool.counts() == (0, 0, 0)


def test_quiet_is_told_without_poll(connect: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no poll, select tells the same."""
    monkeypatch.delattr("select.poll")
    connection, other_end = connect()
    assert connection.is_quiet()
    other_end.close()
    assert not connection.is_quiet()
