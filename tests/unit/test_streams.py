"""The standard streams, with real descriptors: pipes, sockets, files, terminals, closed ones."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.engine import Engine
from bridge.wire import streams
from bridge.wire.streams import CHUNK_BYTES, Reader
from tests.unit.conftest import in_thread

PATIENCE_S = 60
"""How long a test waits for another thread before it fails; a loaded machine needs some of it."""


def read_all(reader: Reader) -> list[bytes]:
    """Read to the end of input."""
    return list(iter(reader.read, b""))


# --- Reader ---


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_everything_is_read_in_order_up_to_the_end_of_input(engine: Engine, kind: str) -> None:
    """A megabyte written by somebody else arrives whole, in chunks, and then the input ends."""
    ends = socket.socketpair() if kind == "socket" else ()
    source, sink = (ends[0].detach(), ends[1].detach()) if ends else os.pipe()
    data = os.urandom(1 << 20)

    def send() -> None:
        with open(sink, "wb") as file:
            file.write(data)

    sender = in_thread(send)
    chunks = read_all(Reader(engine, source))
    sender.join(PATIENCE_S)
    os.close(source)
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK_BYTES


def test_files_are_read_to_their_end(engine: Engine, tmp_path: Path) -> None:
    """Input redirected from a file, even an empty one, is read like a pipe, and others run meanwhile."""
    path = tmp_path / "input"
    for content in (b"{}\n" * 50_000, b""):
        path.write_bytes(content)
        turns: list[int] = []
        engine.spawn(turns.append, 1)
        with path.open("rb") as file:
            reader = Reader(engine, file.fileno())
            assert b"".join(read_all(reader)) == content
        assert turns == [1]


def test_terminals_are_read(engine: Engine) -> None:
    """A line typed at a terminal is read, and its hang-up ends the input."""
    outer, inner = os.openpty()
    reader = Reader(engine, inner)
    os.write(outer, b"hello\n")
    assert reader.read() == b"hello\n"
    os.close(outer)
    assert reader.read() == b""
    os.close(inner)


def test_a_read_error_is_the_end_of_input(engine: Engine) -> None:
    """A descriptor that cannot be read ends the service in good order."""
    with open(os.devnull, "wb") as file:
        assert Reader(engine, file.fileno()).read() == b""


def test_a_non_blocking_descriptor_is_waited_for(
    engine: Engine, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to read on an inherited non-blocking descriptor is not the end of input."""
    source, sink = pipe
    os.set_blocking(source, False)
    reader = Reader(engine, source)
    wait, false_alarms = reader._readiness.wait_readable, [1, 2]

    def wait_in_vain() -> None:
        """Act as if another process had taken the bytes between the wait and the read."""
        if false_alarms:
            false_alarms.pop()
        else:
            os.write(sink, b"late")
            wait()

    monkeypatch.setattr(
        reader, "_readiness", type("Hasty", (), {"wait_readable": staticmethod(wait_in_vain)})
    )
    assert reader.read() == b"late"
    assert not false_alarms
    assert not os.get_blocking(source)


def test_others_run_while_nothing_comes(engine: Engine, pipe: tuple[int, int]) -> None:
    """A read waits without holding up anybody, and reads nothing before it is asked to."""
    source, sink = pipe
    reader = Reader(engine, source)
    os.write(sink, b"one")
    assert reader.read() == b"one"
    os.write(sink, b"two")
    engine.sleep(0.01)
    assert os.read(source, 100) == b"two"
    engine.call_at(engine.now() + 0.01, lambda: os.write(sink, b"three"))
    assert reader.read() == b"three"


def test_stop_ends_a_waiting_read_and_every_later_one(engine: Engine, pipe: tuple[int, int]) -> None:
    """Once stopped, nothing more is taken from the descriptor, whatever has come."""
    source, sink = pipe
    reader = Reader(engine, source)
    began = time.monotonic()
    engine.spawn(reader.stop)
    assert reader.read() == b""
    assert time.monotonic() - began < PATIENCE_S / 2
    os.write(sink, b"unread")
    reader.stop()
    assert reader.read() == b""
    assert os.read(source, 100) == b"unread"


# --- take_descriptors ---

TAKE = """
import os, subprocess, sys
from bridge.wire.streams import take_descriptors
{before}
source, sink = take_descriptors()
print("stray print", flush=True)
os.system("echo stray child")
assert min(source, sink) > 2, (source, sink)
assert not os.get_inheritable(source) and not os.get_inheritable(sink)
assert all(os.get_inheritable(number) for number in range(3))
assert os.read(0, 1) == b""
try:
    os.write(sink, b"got " + os.read(source, 100))
except OSError:
    print("nobody reads", file=sys.stderr)
"""


def run_take(before: str = "") -> subprocess.CompletedProcess[bytes]:
    """Take the descriptors in a process of its own, after some preparation."""
    return subprocess.run(
        [sys.executable, "-c", TAKE.format(before=before)],
        input=b"input",
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def test_stray_output_cannot_touch_the_wire() -> None:
    """Prints and children reach standard error only, and the private copies are the wire."""
    result = run_take()
    assert result.stdout == b"got input"
    assert result.stderr.splitlines() == [b"stray print", b"stray child"]
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("closed", "stdout", "stderr"),
    [
        ([0], b"got ", [b"stray print", b"stray child"]),
        ([1], b"", [b"stray print", b"stray child", b"nobody reads"]),
        ([2], b"got input", []),
        ([0, 1], b"", [b"stray print", b"stray child", b"nobody reads"]),
        ([1, 2], b"", []),
        ([0, 1, 2], b"", []),
    ],
)
def test_closed_descriptors_are_noticed(closed: list[int], stdout: bytes, stderr: list[bytes]) -> None:
    """A start without some of the standard descriptors is no crash: the input has ended, nobody reads."""
    result = run_take("\n".join(f"os.close({number})" for number in closed))
    assert result.stdout == stdout
    assert result.stderr.splitlines() == stderr
    assert result.returncode == 0


def test_descriptors_are_taken_inside_a_process() -> None:
    """The same in this process, with descriptors that stand in for the standard ones."""
    saved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in range(3)]
    try:
        os.close(0)
        source, sink = streams.take_descriptors()
        assert os.read(source, 1) == b""
        assert os.fstat(1) == os.fstat(2)
        os.close(source)
        os.close(sink)
    finally:
        for number, copy in enumerate(saved):
            os.dup2(copy, number)
            os.close(copy)
