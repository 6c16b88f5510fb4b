"""Attempts on their way: which thread waits for what, when no byte may leave, and one answer for each."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from bridge import sending
from bridge.core.model import Exchange
from bridge.core.redact import Secret
from bridge.ops.clock import boot_clock
from bridge.ops.loop import Loop
from bridge.ops.workers import Workers
from bridge.reports.flight import Attempt
from bridge.sending import STALE_S, Sender
from bridge.upstream import pool as pool_module
from bridge.upstream.client import Client
from tests.faultserver import ACCEPTED, FaultServer, Peer, Script, serve_forever, spell_answer

METHOD = "reportIncorrectImageCaptcha"
KEY = Secret("canary-0123456789abcdef-canary")
PATIENCE_S = 60.0
"""How long a test waits for another thread before it fails; a loaded machine needs some of it."""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(ACCEPTED),
    ACCEPTED,
)


class Scene:
    """A sender with a client, and a loop in this thread if one is wanted."""

    def __init__(self, url: str, with_loop: bool, limit: int = 8) -> None:
        self.bugs: list[BaseException] = []
        self.ended: list[tuple[Attempt, Exchange]] = []
        self.posts: list[Callable[[], None]] = []
        self.loop = Loop(self.bugs.append) if with_loop else None
        # Any: tests put other functions in the place of methods.
        self.client: Any = Client(url, ca_file=None, proxy=None, connect_timeout_s=5.0, pool_size=8)
        self.workers: Any = Workers(limit, self.bugs.append)
        self.sender = Sender(
            lambda: self.client,
            self.workers,
            self.loop,
            ended=lambda attempt, exchange: self.ended.append((attempt, exchange)),
            elsewhere=self.posts.append if self.loop is None else self.loop.post,
            on_bug=self.bugs.append,
        )
        self.readers: list[str] = []
        """Which thread read each answer."""
        self._note_readers()

    def _note_readers(self) -> None:
        end = self.client.end

        def note_end(way: Any) -> Exchange:
            self.readers.append(threading.current_thread().name.partition("-")[0])
            exchange: Exchange = end(way)
            return exchange

        self.client.end = note_end

    def close(self) -> None:
        self.client.close()
        if self.loop is not None:
            self.loop.close()

    def turn(self) -> None:
        """Let the loop, or who stands in for it, do what there is to do."""
        if self.loop is None:
            while self.posts:
                self.posts.pop(0)()
            time.sleep(0.001)
            return
        due_s = self.loop.sleepy_s()
        patience_s = 0.05 if due_s is None else min(due_s, 0.05)
        self.loop.turn(bool(select.select([self.loop.fileno], [], [], patience_s)[0]))

    def go_on(self, is_done: Callable[[], object]) -> None:
        """Turn until something is done."""
        until = time.monotonic() + PATIENCE_S
        while not is_done():
            assert time.monotonic() < until, "it was never done"
            self.turn()

    def send(self, task_id: int = 1, deadline_s: float = 50.0, connect_by_s: float = 50.0) -> list[Exchange]:
        """Begin an attempt; what it is answered comes into the list."""
        answers: list[Exchange] = []

        def take(exchange: Exchange) -> None:
            assert self.loop is None or self.loop.is_mine(), "answered in another thread than the loop's"
            answers.append(exchange)

        self.sender.send(Attempt(METHOD, KEY, task_id, deadline_s, connect_by_s), take, boot_clock())
        return answers

    def ask(self, task_id: int = 1, **limits: float) -> Exchange:
        """Make an attempt and return its only answer."""
        answers = self.send(task_id, **limits)
        self.go_on(lambda: answers)
        self.turn()
        assert len(answers) == 1
        return answers[0]


Opener = Callable[..., tuple[Scene, FaultServer]]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Make scenes before a scripted server; everything is closed after the test."""
    with ExitStack() as stack:

        def make(
            script: Script = serve_forever, with_loop: bool = True, **more: Any
        ) -> tuple[Scene, FaultServer]:
            server = stack.enter_context(FaultServer(script))
            scene = Scene(server.url, with_loop, **more)
            stack.callback(scene.close)
            return scene, server

        yield make


def answer_with(*answers: Callable[[Peer], None] | bytes) -> Script:
    """Serve every connection with these answers in turn, the last one again and again."""

    def script(peer: Peer) -> None:
        count = 0
        while peer.read_request() is not None:
            answer = answers[min(count, len(answers) - 1)]
            count += 1
            if isinstance(answer, bytes):
                peer.send(answer)
            else:
                answer(peer)

    return script


def in_pieces(data: bytes, *cuts: int) -> Callable[[Peer], None]:
    """Send in pieces that surely come apart."""

    def send(peer: Peer) -> None:
        for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            peer.send(data[start:end])
            time.sleep(0.02)

    return send


class Steps:
    """A boot clock of the sender that jumps when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        real = boot_clock
        monkeypatch.setattr(sending, "boot_clock", lambda: real() + self.ahead_s)


# --- one answer for each ---------------------------------------------------------------------


@pytest.mark.parametrize("with_loop", [True, False])
def test_every_attempt_has_one_answer(opened: Opener, with_loop: bool) -> None:
    """Many attempts at once are each answered once, and each is told before it is answered."""
    scene, server = opened(with_loop=with_loop)
    told: list[list[Exchange]] = []
    for round_ in range(4):
        answers = [scene.send(8 * round_ + n) for n in range(1, 9)]
        scene.go_on(lambda waiting=answers: all(waiting))  # type: ignore[misc]
        told += answers
    assert [len(one) for one in told] == [1] * 32
    assert {one[0].status for one in told} == {200}
    assert len(server.requests) == len(scene.ended) == 32
    assert scene.bugs == []


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("case", ["fine", "window", "refused", "bug", "no thread"])
def test_nobody_is_answered_before_the_attempt_is_begun(opened: Opener, case: str, is_loaded: bool) -> None:
    """In the loop's thread `send` returns before its answer comes, however soon that is known."""
    scene, server = opened()
    if is_loaded:
        scene.ask()
    if case == "refused":
        server.__exit__(None, None, None)
    if case == "bug":
        scene.client.begin = scene.client._pool.take = None
    if case == "no thread":
        scene.workers.run = _no_thread
        scene.client.close()
    answers = scene.send(2, connect_by_s=0.0 if case == "window" else 50.0)
    assert answers == []
    scene.go_on(lambda: answers)
    scene.turn()
    assert len(answers) == 1


def test_an_attempt_of_another_thread_is_made_in_the_loop(opened: Opener) -> None:
    """Whoever sends, an open connection is used in the loop's thread and answered there."""
    scene, server = opened()
    scene.ask()
    answered_by: list[str] = []

    def done(_exchange: Exchange) -> None:
        answered_by.append(threading.current_thread().name)

    send = partial(scene.sender.send, Attempt(METHOD, KEY, 2, 50.0, 50.0), done, boot_clock())
    thread = threading.Thread(target=send)
    thread.start()
    thread.join(PATIENCE_S)
    assert len(server.requests) == 1
    scene.go_on(lambda: answered_by)
    assert answered_by == [threading.current_thread().name]
    assert scene.readers[-1] == "MainThread"


# --- which thread waits for what -------------------------------------------------------------


def test_the_client_is_loaded_and_a_connection_made_on_a_worker(opened: Opener) -> None:
    """The first attempt waits for both elsewhere; its answer is awaited in the loop."""
    scene, _ = opened()
    loaders: list[str] = []
    load = scene.sender._load

    def note_load() -> Client:
        loaders.append(threading.current_thread().name)
        return load()

    scene.sender._load = note_load
    assert scene.sender.client is None
    assert scene.ask().reused is False
    assert [name.partition("-")[0] for name in loaders] == ["worker"]
    assert scene.readers == ["MainThread"]
    assert scene.sender.client is scene.client
    scene.workers.run = _no_thread
    assert scene.ask(2).reused is True
    assert scene.readers == ["MainThread"] * 2


PIECES: dict[str, tuple[Callable[[Peer], None] | bytes, str]] = {
    "whole": (spell_answer(), "MainThread"),
    "its first letters alone": (in_pieces(spell_answer(), 3), "MainThread"),
    "its body in pieces": (
        in_pieces(spell_answer(), len(spell_answer()) - 9, len(spell_answer()) - 2),
        "MainThread",
    ),
    "half a head": (in_pieces(spell_answer(), 12), "worker"),
    "chunked": (CHUNKED, "MainThread"),
    "chunked, in pieces": (in_pieces(CHUNKED, len(CHUNKED) - 20, len(CHUNKED) - 3), "MainThread"),
    "after an interim one": (b"HTTP/1.1 100 Continue\r\n\r\n" + spell_answer(), "worker"),
    "bare line feeds": (spell_answer().replace(b"\r\n", b"\n"), "worker"),
}


@pytest.mark.parametrize("case", PIECES)
def test_answers_are_read_where_nothing_waits_for_them(opened: Opener, case: str) -> None:
    """What can be told to be whole is read in the loop, the rest by a worker; the answer is the same."""
    answer, _ = PIECES[case]
    scene, _ = opened(answer_with(spell_answer(), answer))
    scene.ask()
    exchange = scene.ask(2)
    assert (exchange.failure, exchange.status, exchange.body) == (None, 200, ACCEPTED)
    assert exchange.reused
    if case != "half a head":  # on a busy machine its pieces may come together after all
        assert scene.readers[1] == PIECES[case][1]


def test_an_answer_that_ends_with_its_connection_is_read_on_a_worker(opened: Opener) -> None:
    """Without a length only the end tells, and it is not waited for in the loop."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + ACCEPTED)
        time.sleep(0.05)

    scene, _ = opened(script)
    exchange = scene.ask()
    assert (exchange.failure, exchange.body) == (None, ACCEPTED)
    assert scene.readers == ["worker"]


@pytest.mark.parametrize(
    ("sent", "failure"),
    [(b"", "reset"), (b"HTTP/1.1 2", "cut"), (spell_answer()[:-4], "cut"), (b"SSH-2.0\r\n", None)],
)
def test_a_connection_that_ends_ends_its_attempt(opened: Opener, sent: bytes, failure: str | None) -> None:
    """A peer that closes is noticed at once, and what had come decides what that means."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(sent)

    scene, _ = opened(script)
    exchange = scene.ask()
    assert exchange.sent
    assert exchange.failure == (failure or "malformed")


def test_a_reset_ends_its_attempt(opened: Opener) -> None:
    """A connection that fails while its answer is awaited is told as that."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.reset()

    scene, _ = opened(script)
    assert scene.ask()[:2] == ("reset", True)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"])
def test_an_answer_that_does_not_come_ends_at_the_deadline(opened: Opener, sent: bytes) -> None:
    """At its deadline an attempt is over, told in the loop without waiting any further."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(sent)
        peer.hold()

    scene, _ = opened(script)
    exchange = scene.ask(deadline_s=0.3)
    assert exchange[:2] == ("timeout", True)
    assert exchange.elapsed_s >= 0.3
    assert scene.readers == ["MainThread"]


def test_the_rest_of_a_request_that_does_not_fit_is_sent_on_a_worker(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full buffer holds up no loop, and an answer that is quicker than the hand-over counts."""
    scene, server = opened()
    scene.ask()
    scene.ask(2)
    offer = pool_module.Patient.offer

    def offer_a_part(sock: Any, data: bytes) -> bytes:
        assert offer(sock, data[:40]) == b""
        return data[40:]

    monkeypatch.setattr(pool_module.Patient, "offer", offer_a_part)
    answers = scene.send(3)
    until = time.monotonic() + PATIENCE_S
    while len(server.requests) < 3:
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(0.05)
    # By now the answer has come: the loop is told of it before it is told who waits.
    begun = time.monotonic()
    scene.go_on(lambda: answers)
    assert time.monotonic() - begun < 25.0
    assert answers[0][:3] == (None, True, 200)


def test_bytes_that_nobody_asked_for_are_never_the_next_answer(opened: Opener) -> None:
    """What comes behind an answer ends its connection, wherever the reading happened to stop."""
    other = spell_answer(b'{"errorId":16}')
    chunks = b"".join(b"%x\r\n%b\r\n" % (450, b" " * 450) for _ in range(17))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Pad: "
    rest = len(b"\r\n\r\n" + chunks + b"0\r\n\r\n")
    # As long as the buffer of who reads, so that nothing of what follows is in there.
    whole = head + b"p" * (8192 - len(head) - rest) + b"\r\n\r\n" + chunks + b"0\r\n\r\n"
    assert len(whole) == 8192
    scene, server = opened(answer_with(in_pieces(whole + other, 5000)))
    for number in (1, 2):
        exchange = scene.ask(number)
        assert (exchange.body, exchange.reused) == (b" " * 450 * 17, False)
    assert len(server.requests) == 2


# --- when no byte may leave ------------------------------------------------------------------


@pytest.mark.parametrize("with_loop", [True, False])
@pytest.mark.parametrize("is_idle", [True, False])
def test_an_attempt_that_got_no_thread_for_long_is_not_made(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, with_loop: bool, is_idle: bool
) -> None:
    """Stopped between decision and sending, a bridge may have lost the report: not a byte leaves."""
    scene, server = opened(with_loop=with_loop)
    if is_idle:
        scene.ask()
    sent, scene.sender.client = len(server.requests), None
    steps, jobs = Steps(monkeypatch), list[Callable[[], None]]()
    scene.workers.run = jobs.append
    answers = scene.send(2)
    steps.ahead_s = STALE_S + 0.1
    jobs.pop()()
    scene.go_on(lambda: answers)
    assert answers[0].sent is False
    assert answers[0].failure is not None
    assert len(server.requests) == sent
    assert len(b"".join(server.pieces)) == sum(map(len, server.requests))


def test_an_attempt_that_came_to_the_loop_late_is_not_made(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time between another thread's decision and the loop counts like that before a worker."""
    scene, server = opened()
    scene.ask()
    steps, answers = Steps(monkeypatch), list[Exchange]()
    send = partial(scene.sender.send, Attempt(METHOD, KEY, 2, 50.0, 50.0), answers.append, boot_clock())
    thread = threading.Thread(target=send)
    thread.start()
    thread.join(PATIENCE_S)
    steps.ahead_s = STALE_S + 0.1
    scene.go_on(lambda: answers)
    assert answers[0].sent is False
    assert len(server.requests) == 1


def test_an_attempt_that_was_nearly_late_is_made(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short wait costs no report, and takes from the time in which bytes may leave."""
    scene, server = opened()
    steps, jobs = Steps(monkeypatch), list[Callable[[], None]]()
    run, scene.workers.run = scene.workers.run, jobs.append
    begun: list[float] = []
    begin = scene.client.begin

    def note_begin(*words: Any, **limits: Any) -> Any:
        begun.append(limits["connect_by_s"])
        return begin(*words, **limits)

    scene.client.begin = note_begin
    answers = scene.send(1, connect_by_s=40.0)
    steps.ahead_s = STALE_S - 0.5
    run(jobs.pop())
    scene.go_on(lambda: answers)
    assert answers[0].status == 200
    assert len(server.requests) == 1
    assert 30.0 < begun[0] <= 40.0 - (STALE_S - 0.5)


@pytest.mark.parametrize("with_loop", [True, False])
def test_a_window_that_is_over_lets_no_byte_out(opened: Opener, with_loop: bool) -> None:
    """With a connection that is open or one still to be made, nothing leaves after the end."""
    scene, server = opened(with_loop=with_loop)
    assert scene.ask(connect_by_s=0.0).sent is False
    assert scene.ask(2).status == 200
    exchange = scene.ask(3, connect_by_s=0.0)
    assert (exchange.sent, exchange.failure) == (False, "window")
    assert len(server.requests) == 1


# --- what this machine or program does not give ----------------------------------------------


def _no_thread(_job: Callable[[], None]) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("with_loop", [True, False])
def test_without_a_thread_an_attempt_ends_unsent(opened: Opener, with_loop: bool) -> None:
    """If the system gives no thread, nothing was sent, and the attempt is told so, later."""
    scene, server = opened(with_loop=with_loop)
    scene.workers.run = _no_thread
    answers = scene.send()
    assert answers == []
    scene.go_on(lambda: answers)
    assert answers == [Exchange("connect", sent=False)]
    assert [type(bug) for bug in scene.bugs] == [RuntimeError]
    assert server.requests == []


def test_without_a_thread_an_answer_that_must_be_waited_for_is_lost(opened: Opener) -> None:
    """The request is out and nobody can read what comes: it may have been taken."""
    scene, server = opened(answer_with(spell_answer(), b"HTTP/1.1 100 Continue\r\n\r\n" + spell_answer()))
    scene.ask()
    scene.workers.run = _no_thread
    assert scene.ask(2)[:2] == ("reset", True)
    assert len(server.requests) == 2


@pytest.mark.parametrize("with_loop", [True, False])
def test_a_client_that_cannot_be_loaded_has_sent_nothing(opened: Opener, with_loop: bool) -> None:
    """A library that is broken is a bug to tell of, and no reason to think that a report was taken."""
    scene, _ = opened(with_loop=with_loop)

    def load() -> Client:
        raise ImportError("broken")

    scene.sender._load = load
    assert scene.ask()[:2] == ("connect", False)
    assert [type(bug) for bug in scene.bugs] == [ImportError]


@pytest.mark.parametrize("with_loop", [True, False])
def test_a_bug_while_reading_counts_as_perhaps_taken(opened: Opener, with_loop: bool) -> None:
    """Once bytes have left, a fault of this program cannot say that they were not taken."""
    scene, server = opened(with_loop=with_loop)

    def fail(_way: Any) -> Exchange:
        raise ValueError("a bug")

    scene.client.end = fail
    assert scene.ask()[:2] == ("reset", True)
    assert [type(bug) for bug in scene.bugs] == [ValueError]
    ends = time.monotonic() + PATIENCE_S
    while not server.requests:  # nobody waits for its answer, so it may still be on its way
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert len(server.requests) == 1


def test_a_bug_before_sending_has_sent_nothing(opened: Opener) -> None:
    """In the loop a fault before the first byte ends the attempt as unsent."""
    scene, server = opened()
    scene.ask()

    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("a bug")

    scene.client.begin = fail
    assert scene.ask(2)[:2] == ("connect", False)
    assert len(server.requests) == 1


def test_nobody_to_connect_to_is_told_as_that(opened: Opener) -> None:
    """A refused connection ends on the worker and is told in the loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    scene = Scene(f"http://127.0.0.1:{port}", with_loop=True)
    assert scene.ask()[:2] == ("connect", False)
    scene.close()
