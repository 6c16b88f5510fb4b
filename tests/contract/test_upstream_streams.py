"""What a stream over a real socket promises, whoever uses it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.engine import Engine, NoResources, TimedOut
from bridge.upstream.streams import LACKS, LATE_PIECES, SocketStream
from tests.world import raise_bug

Pair = tuple[SocketStream, socket.socket]


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The engine that runs in the test's own greenlet."""
    return Engine(raise_bug)


@pytest.fixture
def pair(engine: Engine) -> Iterator[Pair]:
    """A connected stream and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = SocketStream(engine, socket.AF_INET)
        stream.connect(listener.getsockname(), engine.now() + 5.0)
        peer, _ = listener.accept()
        with peer:
            yield stream, peer
            stream.close()


class Failing:
    """A socket whose sending goes as planned: a number of bytes, or an error."""

    def __init__(self, sock: socket.socket, *plan: int | OSError) -> None:
        self._sock = sock
        self._plan = list(plan)

    def send(self, data: bytes) -> int:
        step = self._plan.pop(0) if self._plan else len(data)
        if isinstance(step, OSError):
            raise step
        return self._sock.send(data[:step])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def fail(stream: SocketStream, *plan: int | OSError) -> None:
    """Let sending go as planned."""
    stream._sock = Failing(stream._sock, *plan)  # type: ignore[assignment]


@pytest.mark.parametrize("number", sorted(LACKS))
def test_lack_before_the_first_byte_is_no_failure(engine: Engine, pair: Pair, number: int) -> None:
    """If the system has no memory for the first byte, nothing has left; later it is a failure."""
    stream, _ = pair
    fail(stream, OSError(number, os.strerror(number)), 3, OSError(number, os.strerror(number)))
    with pytest.raises(NoResources) as caught:
        stream.send_all(b"abcdef", engine.now() + 5.0)
    assert caught.value.__cause__ is None
    with pytest.raises(OSError, match=os.strerror(number)) as late:
        stream.send_all(b"abcdef", engine.now() + 5.0)
    assert not isinstance(late.value, NoResources)


def test_everything_is_sent_in_order_though_in_parts(engine: Engine, pair: Pair) -> None:
    """Short writes and full buffers are completed."""
    stream, peer = pair
    fail(stream, 1, BlockingIOError(errno.EAGAIN, "full"), 2)
    stream.send_all(b"abcdef", engine.now() + 5.0)
    assert peer.recv(6, socket.MSG_WAITALL) == b"abcdef"


def test_sending_into_a_full_buffer_ends_in_time(engine: Engine, pair: Pair) -> None:
    """A peer that reads nothing holds nobody up."""
    stream, _ = pair
    began_at = engine.now()
    with pytest.raises(TimedOut):
        stream.send_all(b"x" * 50_000_000, began_at + 0.2)
    assert engine.now() - began_at < 2.0


class Ready:
    """Plays a loop in which what is ready wins against any timer."""

    def wait_readable(self, until: float) -> None:
        pass

    def wait_writable(self, until: float) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_is_ready_does_not_win_against_the_moment(engine: Engine, pair: Pair) -> None:
    """However much lies ready to be read or can be written, no deadline is passed by more than an answer."""
    stream, peer = pair
    peer.sendall(b"x" * 40)
    stream._readiness = Ready()  # type: ignore[assignment]
    late = [stream.receive(1, engine.now()) for _ in range(LATE_PIECES)]
    with pytest.raises(TimedOut):
        stream.receive(1, engine.now())
    fail(stream, *[BlockingIOError(errno.EAGAIN, "full")] * 3)
    with pytest.raises(TimedOut):
        stream.send_all(b"x", engine.now())
    assert stream.receive(40, engine.now() + 5.0) == b"x" * (40 - len(late))


def test_what_came_while_nobody_ran_is_read(engine: Engine, pair: Pair) -> None:
    """An answer that has come while the process was stopped counts, though its time is over."""
    stream, peer = pair
    until = engine.now() + 0.1

    def stop() -> None:
        peer.sendall(b"answer")
        time.sleep(0.3)

    engine.call_soon(stop)
    assert stream.receive(10, until) == b"answer"
    assert engine.now() > until
    with pytest.raises(TimedOut):
        stream.receive(10, until)


def test_receiving_ends_in_time(engine: Engine, pair: Pair) -> None:
    """A peer that says nothing holds nobody up, and the stream is as good as before."""
    stream, peer = pair
    began_at = engine.now()
    with pytest.raises(TimedOut):
        stream.receive(10, began_at + 0.2)
    assert 0.19 < engine.now() - began_at < 2.0
    peer.sendall(b"late")
    assert stream.receive(10, engine.now() + 5.0) == b"late"


@pytest.mark.parametrize("event", ["bytes", "end", "reset"])
def test_stale_is_seen_without_reading(engine: Engine, pair: Pair, event: str) -> None:
    """Bytes, the end and a reset all make a quiet connection stale."""
    stream, peer = pair
    assert not stream.is_stale()
    if event == "bytes":
        peer.sendall(b"x")
    elif event == "end":
        peer.shutdown(socket.SHUT_WR)
    else:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
    until = engine.now() + 5.0
    while not stream.is_stale() and engine.now() < until:
        engine.sleep(0.01)
    assert stream.is_stale()


def test_stale_is_seen_without_poll(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no poll, select tells the same."""
    monkeypatch.delattr("select.poll")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = SocketStream(engine, socket.AF_INET)
        stream.connect(listener.getsockname(), engine.now() + 5.0)
        peer, _ = listener.accept()
        assert not stream.is_stale()
        peer.close()
        stream.receive(1, engine.now() + 5.0)
        assert stream.is_stale()
        stream.close()


def test_closing_twice_is_nothing(pair: Pair) -> None:
    """A stream that is closed stays closed."""
    stream, _ = pair
    stream.close()
    stream.close()


@pytest.mark.parametrize("port", [-1, 70_000])
def test_address_that_cannot_be_is_told(engine: Engine, port: int) -> None:
    """A number that is no port is an exception, not a wait."""
    stream = SocketStream(engine, socket.AF_INET)
    with pytest.raises(OverflowError):
        stream.connect(("127.0.0.1", port), engine.now() + 5.0)
    stream.close()
