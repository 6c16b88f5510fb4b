"""Writing without blocking, to real descriptors: pipes, sockets, files, terminals, and what is closed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bridge.engine import Engine, Outlet, outlet
from tests.unit.conftest import in_thread

PATIENCE_S = 60.0


@pytest.fixture(params=["poll", "select"])
def readiness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask descriptors with poll and, as on macOS, with select."""
    monkeypatch.setattr(outlet, "_HAS_POLL", request.param == "poll")


def fill(fd: int) -> int:
    """Fill a pipe to the brim and return how many bytes it took."""
    os.set_blocking(fd, False)
    size = 0
    try:
        for step in (4096, 1):
            while True:
                try:
                    size += os.write(fd, b"f" * step)
                except BlockingIOError:
                    break
    finally:
        os.set_blocking(fd, True)
    return size


def read_exactly(fd: int, size: int) -> bytes:
    """Read so many bytes, however they come."""
    data = b""
    while len(data) < size:
        chunk = os.read(fd, size - len(data))
        assert chunk
        data += chunk
    return data


def drain(engine: Engine, sink: Outlet) -> bool:
    """Wait until everything is written."""
    return sink.drain(engine.now() + PATIENCE_S)


@pytest.mark.usefixtures("readiness")
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "socket", "tiny socket"])
def test_pieces_arrive_whole_and_in_order(engine: Engine, blocking: bool, kind: str) -> None:
    """Small and large pieces reach a slow reader in order, and the writer's thread never stands still."""
    ends: tuple[socket.socket, ...] = socket.socketpair() if "socket" in kind else ()
    if kind == "tiny socket":
        ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    reader, writer = (ends[0].fileno(), ends[1].fileno()) if ends else os.pipe()
    os.set_blocking(writer, blocking)
    rooms: list[int] = []
    sink = Outlet(writer, engine, on_room=lambda: rooms.append(sink.backlog_bytes))
    pieces = [bytes([65 + n % 26]) * (n * 37 % 5000 if n % 50 else 300_000) + b"\n" for n in range(200)]
    data = b"".join(pieces)
    for piece in pieces:
        sink.put(piece)
    # Nobody reads yet: whoever blocks now would never come back.
    engine.sleep(0.02)
    assert 0 < sink.backlog_bytes < len(data)
    received: list[bytes] = []
    thread = in_thread(lambda: received.append(read_exactly(reader, len(data))))
    assert drain(engine, sink)
    thread.join(PATIENCE_S)
    assert received == [data]
    assert (sink.backlog, sink.backlog_bytes) == (0, 0)
    assert rooms == sorted(rooms, reverse=True)
    for end in ends or (os.fdopen(reader), os.fdopen(writer)):
        end.close()


@pytest.mark.usefixtures("readiness")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_holds_up_nobody_and_is_counted(
    engine: Engine, pipe: tuple[int, int], blocking: bool
) -> None:
    """Pieces wait in the backlog until somebody reads; nothing is lost."""
    reader, writer = pipe
    filled = fill(writer)
    os.set_blocking(writer, blocking)
    sink = Outlet(writer, engine)
    for index in range(1000):
        sink.put(b"%04d\n" % index)
    assert not sink.drain(engine.now() + 0.02)
    assert (sink.backlog, sink.backlog_bytes) == (1000, 5000)
    assert read_exactly(reader, filled) == b"f" * filled
    assert drain(engine, sink)
    assert read_exactly(reader, 5000) == b"".join(b"%04d\n" % index for index in range(1000))


def test_a_short_write_is_completed_before_the_next_piece(
    engine: Engine, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that takes only a part gets the rest first, also after it has refused for a while."""
    write, refusals = os.write, [1, 2, 3]

    def take_little(fd: int, data: bytes) -> int:
        if fd != pipe[1]:
            return write(fd, data)
        if refusals and refusals.pop():
            raise BlockingIOError
        return write(fd, bytes(data)[:2])

    monkeypatch.setattr(os, "write", take_little)
    sink = Outlet(pipe[1], engine)
    sink.put(b"first\n")
    sink.put(b"second\n")
    assert drain(engine, sink)
    assert os.read(pipe[0], 100) == b"first\nsecond\n"
    assert not refusals


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("is_full", [False, True])
def test_a_reader_that_is_gone_is_told_and_the_pieces_are_dropped(
    engine: Engine, pipe: tuple[int, int], size: int, is_full: bool
) -> None:
    """After EPIPE nothing raises, every piece is let go and counted."""
    reader, writer = pipe
    if is_full:
        fill(writer)
    else:
        os.close(reader)
    lost: list[int] = []
    sink = Outlet(writer, engine, on_lost=lost.append)
    for _ in range(50):
        sink.put(b"x" * size)
    if is_full:
        assert not sink.drain(engine.now() + 0.02)
        os.close(reader)
    assert drain(engine, sink)
    assert lost == [50]
    sink.put(b"more")
    assert drain(engine, sink)
    assert lost == [50, 1]
    assert sink.backlog_bytes == 0


@pytest.mark.usefixtures("readiness")
def test_a_closed_descriptor_is_a_reader_that_is_gone(engine: Engine, pipe: tuple[int, int]) -> None:
    """EBADF is told as EPIPE is, and so is a descriptor that is only read."""
    lost: list[int] = []
    with open(os.devnull, "rb") as file:
        sink = Outlet(file.fileno(), engine, on_lost=lost.append)
        sink.put(b"x")
        assert drain(engine, sink)
    sink = Outlet(pipe[1], engine, on_lost=lost.append)
    os.close(pipe[1])
    sink.put(b"x")
    assert drain(engine, sink)
    assert lost == [1, 1]


def test_files_and_terminals_are_written(engine: Engine, tmp_path: Path) -> None:
    """Output redirected to a file is written in one go, to a terminal as it takes it."""
    with (tmp_path / "output").open("wb") as file:
        sink = Outlet(file.fileno(), engine)
        sink.put(b"x" * 100_000)
        sink.put(b"\n")
        assert sink.flush()
    assert (tmp_path / "output").read_bytes() == b"x" * 100_000 + b"\n"
    outer, inner = os.openpty()
    sink = Outlet(inner, engine)
    received: list[bytes] = []
    thread = in_thread(lambda: received.append(read_exactly(outer, 200_000)))
    sink.put(b"y" * 200_000)
    assert drain(engine, sink)
    thread.join(PATIENCE_S)
    assert received == [b"y" * 200_000]
    os.close(outer)
    os.close(inner)


def test_what_is_flushed_goes_before_the_engine_turns(engine: Engine, pipe: tuple[int, int]) -> None:
    """A piece that fits is written at once, another one is kept, and nobody waits."""
    reader, writer = pipe
    sink = Outlet(writer, engine)
    sink.put(b"early\n")
    assert sink.flush()
    assert os.read(reader, 100) == b"early\n"
    filled = fill(writer)
    sink.put(b"late\n")
    assert not sink.flush()
    assert read_exactly(reader, filled) == b"f" * filled
    assert drain(engine, sink)
    assert os.read(reader, 100) == b"late\n"
