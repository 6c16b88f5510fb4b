"""The loop: calls from other threads, descriptors, what is overdue, and that no wake-up is lost."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bridge.ops import loop as module
from bridge.ops.clock import boot_clock
from bridge.ops.loop import Loop, open_loop

PATIENCE_S = 60.0
"""How long a test waits for another thread before it fails; a loaded machine needs some of it."""
FAR = float("inf")


class Clock:
    """A boot clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bugs() -> list[BaseException]:
    """What the loop was told of."""
    return []


@pytest.fixture
def loop(bugs: list[BaseException]) -> Iterator[Loop]:
    """A loop of this thread."""
    made = Loop(bugs.append)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The loop's clock, in a test's hand."""
    clock = Clock()
    monkeypatch.setattr(module, "boot_clock", clock)
    return clock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, both in non-blocking mode."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
    yield near, far
    near.close()
    far.close()


def has_news(loop: Loop, timeout_s: float = 0.0) -> bool:
    """Tell whether the loop's descriptor can be read, as who sleeps on it would."""
    return bool(select.select([loop.fileno], [], [], timeout_s)[0])


def go_round(loop: Loop) -> None:
    """Sleep no longer than is due, then take one turn."""
    due_s = loop.sleepy_s()
    loop.turn(has_news(loop, PATIENCE_S if due_s is None else due_s))


def go_on(loop: Loop, is_done: Callable[[], object]) -> None:
    """Go round until something is done."""
    until = boot_clock() + PATIENCE_S
    while not is_done():
        assert boot_clock() < until, "it was never done"
        go_round(loop)


# --- calls -----------------------------------------------------------------------------------


def test_calls_come_in_order_and_in_the_loops_thread(loop: Loop) -> None:
    """What is posted is called later, in the order it was posted, by the thread of the loop."""
    called: list[tuple[int, bool]] = []
    for number in range(5):
        loop.post(lambda n=number: called.append((n, loop.is_mine())))  # type: ignore[misc]
    assert called == []
    assert loop.sleepy_s() == 0.0
    loop.turn(False)
    assert called == [(n, True) for n in range(5)]
    assert loop.sleepy_s() is None


def test_calls_of_other_threads_wake_a_sleeper(loop: Loop) -> None:
    """A post from another thread ends a sleep that has no end, each time anew."""
    asked, called = threading.Semaphore(0), []

    def work() -> None:
        assert not loop.is_mine()
        for number in range(200):
            assert asked.acquire(timeout=PATIENCE_S)
            loop.post(lambda n=number: called.append(n))  # type: ignore[misc]

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(200):
        assert loop.sleepy_s() is None
        asked.release()
        assert has_news(loop, PATIENCE_S)
        loop.turn(True)
        assert called[number:] == [number]
    thread.join(PATIENCE_S)


def test_no_call_of_many_threads_is_lost(loop: Loop) -> None:
    """Whatever moment a post meets the loop at, its call comes, and those of one thread stay in order."""
    called: list[tuple[int, int]] = []

    def work(name: int) -> None:
        for number in range(2000):
            loop.post(lambda n=number: called.append((name, n)))  # type: ignore[misc]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    go_on(loop, lambda: len(called) == 4 * 2000)
    for thread in threads:
        thread.join(PATIENCE_S)
    for name in range(4):
        assert [n for who, n in called if who == name] == list(range(2000))


def test_call_that_posts_lets_the_rest_of_the_world_go_on(loop: Loop) -> None:
    """What is posted in a turn waits for the next one, which is due at once."""
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        loop.post(again)

    loop.post(again)
    for turns in range(1, 4):
        assert loop.sleepy_s() == 0.0
        loop.turn(False)
        assert called == list(range(turns))


def test_posting_while_the_loop_is_awake_needs_no_wake_up(loop: Loop, clock: Clock) -> None:
    """Before the first sleep and inside a turn nothing is written to the pipe."""
    loop.post(lambda: None)
    assert not has_news(loop)
    loop.turn(False)
    loop.wait(5001, 1001.0, lambda: loop.post(lambda: None))
    assert loop.sleepy_s() == 1.0
    clock.now = 1001.0
    loop.turn(False)
    assert not has_news(loop)
    assert loop.sleepy_s() == 0.0


def test_many_posts_to_a_sleeper_are_one_wake_up(loop: Loop) -> None:
    """A loop that sleeps is woken by one byte, and having been read it is quiet."""
    called: list[int] = []
    loop.sleepy_s()
    for number in range(100_000):
        loop.post(lambda n=number: called.append(n))  # type: ignore[misc]
    assert has_news(loop)
    loop.turn(True)
    assert len(called) == 100_000
    assert loop.sleepy_s() is None
    assert not has_news(loop)


def test_posting_to_a_closed_loop_hurts_nobody() -> None:
    """A thread that comes too late is not told and not harmed."""
    loop = Loop(lambda bug: None)
    loop.sleepy_s()
    loop.close()
    loop.post(lambda: None)


def test_a_bug_does_not_end_the_loop(loop: Loop, bugs: list[BaseException], clock: Clock) -> None:
    """A call that raises is told, and everybody else's call comes."""
    called: list[str] = []
    error, other = ValueError("posted"), ValueError("overdue")

    def fail(with_what: Exception) -> None:
        raise with_what

    loop.post(lambda: fail(error))
    loop.post(lambda: called.append("posted"))
    loop.wait(1001, 900.0, lambda: fail(other))
    loop.wait(1002, 900.0, lambda: called.append("overdue"))
    loop.turn(False)
    assert called == ["posted", "overdue"]
    assert bugs == [error, other]


# --- descriptors -----------------------------------------------------------------------------


def test_a_wait_is_for_once(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    """What comes is told to who waits, and what comes later only to who waits again."""
    near, far = pair
    called: list[bytes] = []
    loop.watch(near.fileno())
    loop.wait(near.fileno(), FAR, lambda: called.append(near.recv(100)))
    assert not has_news(loop)
    far.send(b"one")
    go_round(loop)
    assert called == [b"one"]
    far.send(b"two")
    assert has_news(loop, PATIENCE_S)
    loop.turn(True)
    assert called == [b"one"]
    loop.wait(near.fileno(), FAR, lambda: called.append(near.recv(100)))
    far.send(b"three")
    go_round(loop)
    assert called == [b"one", b"twothree"]


def test_what_came_before_it_was_watched_is_told(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """An answer that is faster than the hand-over to the loop is not missed."""
    near, far = pair
    far.send(b"early")
    called: list[bytes] = []
    loop.watch(near.fileno())
    loop.wait(near.fileno(), FAR, lambda: called.append(near.recv(100)))
    go_round(loop)
    assert called == [b"early"]


def test_what_came_between_two_turns_is_told(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    """A request may leave, and its answer come, before anybody says that he waits."""
    near, far = pair
    loop.watch(near.fileno())
    loop.turn(has_news(loop))
    far.send(b"quick")
    called: list[bytes] = []
    loop.wait(near.fileno(), FAR, lambda: called.append(near.recv(100)))
    go_round(loop)
    assert called == [b"quick"]


def test_the_end_of_a_connection_is_news(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    """A peer that closes ends the wait."""
    near, far = pair
    called: list[bytes] = []
    loop.watch(near.fileno())
    loop.wait(near.fileno(), FAR, lambda: called.append(near.recv(100)))
    far.close()
    go_round(loop)
    assert called == [b""]


def test_the_end_of_an_idle_connection_wakes_nobody_twice(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Nobody waits for an idle connection, and its end must not keep the loop from sleeping."""
    near, far = pair
    loop.watch(near.fileno())
    far.close()
    go_round(loop)
    assert not has_news(loop)


def test_a_number_that_is_used_again_is_another_descriptor(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A closed descriptor is forgotten by itself; the next one of that number is watched anew."""
    near, far = pair
    number = near.fileno()
    loop.watch(number)
    far.send(b"nobody reads this")
    for end in pair:
        end.close()
    again, other = socket.socketpair()
    try:
        if again.fileno() != number:
            os.dup2(again.fileno(), number)
            again = socket.socket(fileno=number)
        called: list[bytes] = []
        loop.watch(number)
        loop.wait(number, FAR, lambda: called.append(again.recv(100)))
        loop.turn(has_news(loop))
        assert called == []
        other.send(b"new")
        go_round(loop)
        assert called == [b"new"]
    finally:
        again.close()
        other.close()


def test_news_go_to_their_own_waits(loop: Loop) -> None:
    """With many connections each call gets the news of its own."""
    pairs = [socket.socketpair() for _ in range(50)]
    called: dict[int, bytes] = {}

    def take(number: int) -> None:
        called[number] = pairs[number][0].recv(100)

    for number, (near, _) in enumerate(pairs):
        loop.watch(near.fileno())
        loop.wait(near.fileno(), FAR, lambda n=number: take(n))  # type: ignore[misc]
    for number, (_, far) in enumerate(pairs):
        if number % 3:
            far.send(b"%d" % number)
    go_on(loop, lambda: len(called) == 33)
    assert called == {n: b"%d" % n for n in range(50) if n % 3}
    for near, far in pairs:
        near.close()
        far.close()


# --- what is overdue -------------------------------------------------------------------------


def test_the_overdue_are_called_once_and_only_they(loop: Loop, clock: Clock) -> None:
    """At its instant a wait is called although nothing came; the others go on waiting."""
    called: list[int] = []
    for number, until in ((1, 1005.0), (2, 1010.0), (3, 1005.0)):
        loop.wait(5000 + number, until, lambda n=number: called.append(n))  # type: ignore[misc]
    loop.turn(False)
    assert called == []
    clock.now = 1005.0
    assert loop.sleepy_s() == 0.0
    loop.turn(False)
    loop.turn(False)
    assert called == [1, 3]
    clock.now = 1011.0
    loop.turn(False)
    assert called == [1, 3, 2]
    assert loop.sleepy_s() is None


def test_sleep_ends_for_the_first_that_is_due(loop: Loop, clock: Clock) -> None:
    """A sleep lasts no longer than the earliest wait, and never so long that suspend could hide one."""
    assert loop.sleepy_s() is None
    loop.wait(5001, 1100.0, lambda: None)
    assert loop.sleepy_s() == module._LONGEST_NAP_S
    loop.wait(5002, 1000.25, lambda: None)
    assert loop.sleepy_s() == 0.25
    clock.now = 5000.0
    assert loop.sleepy_s() == 0.0


def test_a_wait_that_is_over_does_not_keep_the_loop_awake(
    loop: Loop, clock: Clock, pair: tuple[socket.socket, socket.socket]
) -> None:
    """The instant of a wait that was answered passes once; then the loop sleeps for the next one."""
    near, far = pair
    loop.watch(near.fileno())
    loop.wait(near.fileno(), 1002.0, lambda: None)
    loop.wait(5001, 1100.0, lambda: None)
    far.send(b"x")
    loop.turn(has_news(loop, PATIENCE_S))
    clock.now = 1003.0
    assert loop.sleepy_s() == 0.0
    loop.turn(False)
    assert loop.sleepy_s() == module._LONGEST_NAP_S


def test_news_come_before_the_end_of_time(
    loop: Loop, clock: Clock, pair: tuple[socket.socket, socket.socket]
) -> None:
    """After a long stop an answer that has come is taken as one, and not also as overdue."""
    near, far = pair
    called: list[bytes] = []
    loop.watch(near.fileno())
    loop.wait(near.fileno(), 1001.0, lambda: called.append(near.recv(100)))
    far.send(b"in time")
    assert has_news(loop, PATIENCE_S)
    clock.now = 9000.0
    loop.turn(True)
    assert called == [b"in time"]


def test_the_overdue_may_wait_again(loop: Loop, clock: Clock) -> None:
    """Who is called because of the time may ask for more of it."""
    called: list[float] = []

    def again() -> None:
        called.append(clock.now)
        loop.wait(5001, clock.now + 1.0, again)

    loop.wait(5001, 1001.0, again)
    for instant in (1001.0, 1001.5, 1002.0, 1009.0):
        clock.now = instant
        loop.turn(False)
    assert called == [1001.0, 1002.0, 1009.0]


# --- collecting ------------------------------------------------------------------------------


def test_what_was_collected_is_handed_on_before_each_sleep(loop: Loop) -> None:
    """Flushes run in their order before the loop looks whether it may sleep, and never in a turn."""
    called: list[str] = []
    loop.flushes += [lambda: called.append("ledger"), lambda: called.append("answers")]
    loop.post(lambda: called.append("posted"))
    loop.turn(False)
    assert called == ["posted"]
    loop.sleepy_s()
    assert called == ["posted", "ledger", "answers"]


def test_a_flush_that_posts_is_not_slept_over(loop: Loop) -> None:
    """What a flush makes somebody post, here or in another thread, is due at once."""
    called: list[str] = []

    def flush() -> None:
        if not called:
            thread = threading.Thread(target=loop.post, args=(lambda: called.append("done"),))
            thread.start()
            thread.join(PATIENCE_S)

    loop.flushes.append(flush)
    assert loop.sleepy_s() == 0.0
    loop.turn(False)
    assert called == ["done"]


# --- where there is none ---------------------------------------------------------------------


def test_a_system_without_epoll_has_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nothing is opened, and the caller does without."""
    found = open_loop(lambda bug: None)
    assert found is not None
    found.close()
    monkeypatch.delattr(select, "epoll")
    assert open_loop(lambda bug: None) is None
