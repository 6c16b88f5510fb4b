"""The standard streams, with real descriptors: pipes, sockets, files, closed ones."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.wire import stdio
from bridge.wire.stdio import CHUNK_BYTES, EOF, Pump, Writer, open_pump
from bridge.wire.threaded_pump import ThreadedPump

PATIENCE_S = 60
"""How long a test waits for another thread before it fails; a loaded machine needs some of it."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe; tests may close an end early by moving it into a file object."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


@pytest.fixture(params=["poll", "select"])
def readiness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Wait for descriptors with poll and, as on macOS, with select."""
    monkeypatch.setattr(stdio, "_HAS_POLL", request.param == "poll")
    return str(request.param)


@pytest.fixture(params=[Pump, ThreadedPump], ids=["Pump", "ThreadedPump"])
def make_pump(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Pump]]:
    """Make pumps of both kinds, and close them."""
    made: list[Pump] = []

    def make(fd: int) -> Pump:
        made.append(request.param(fd))
        return made[-1]

    yield make
    for pump in made:
        pump.close()


def always() -> bool:
    """Say that somebody is ready."""
    return True


def never() -> bool:
    """Say that nobody is ready."""
    return False


def unwanted(chunk: bytes) -> None:
    """Fail: nothing should have been fed."""
    raise AssertionError(chunk)


def in_thread(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start some work aside."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


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


# --- Pump ---


@pytest.mark.usefixtures("readiness")
def test_everything_is_fed_in_order_up_to_the_end_of_input(
    make_pump: Callable[[int], Pump], pipe: tuple[int, int]
) -> None:
    """A megabyte written by somebody else arrives whole, in chunks, and then the input ends."""
    reader, writer = pipe
    data = os.urandom(1 << 20)

    def send() -> None:
        with open(writer, "wb") as file:
            file.write(data)

    sender = in_thread(send)
    chunks: list[bytes] = []
    assert make_pump(reader).run(chunks.append, always) == EOF
    sender.join(PATIENCE_S)
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= CHUNK_BYTES


@pytest.mark.usefixtures("readiness")
def test_files_are_read_to_their_end(make_pump: Callable[[int], Pump], tmp_path: Path) -> None:
    """Input redirected from a file, even an empty one, is read like a pipe."""
    path = tmp_path / "input"
    for content in (b"{}\n" * 50_000, b""):
        path.write_bytes(content)
        chunks: list[bytes] = []
        with path.open("rb") as file:
            assert make_pump(file.fileno()).run(chunks.append, always) == EOF
        assert b"".join(chunks) == content


def test_terminals_are_read(make_pump: Callable[[int], Pump]) -> None:
    """A line typed at a terminal is fed, and its hang-up ends the input."""
    outer, inner = os.openpty()
    chunks: list[bytes] = []

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        os.close(outer)

    os.write(outer, b"hello\n")
    assert make_pump(inner).run(feed, always) == EOF
    os.close(inner)
    assert chunks == [b"hello\n"]


def test_a_read_error_is_the_end_of_input(make_pump: Callable[[int], Pump], pipe: tuple[int, int]) -> None:
    """A descriptor that cannot be read ends the service in good order."""
    with open(os.devnull, "wb") as file:
        assert make_pump(file.fileno()).run(unwanted, always) == EOF
    pump = make_pump(pipe[0])
    os.close(pipe[0])
    assert pump.run(unwanted, always) == EOF


@pytest.mark.usefixtures("readiness")
def test_a_non_blocking_descriptor_is_waited_for(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to read on an inherited non-blocking descriptor is not the end of input."""
    reader, writer = pipe
    os.set_blocking(reader, False)
    pump = Pump(reader)
    wait, false_alarms = pump._wait_for_both, [1, 2]

    def wait_in_vain(most_s: float | None) -> list[int]:
        """Act as if another process had taken the bytes between the wait and the read."""
        if not false_alarms:
            return wait(most_s)
        false_alarms.pop()
        return [reader]

    monkeypatch.setattr(pump, "_wait_for_both", wait_in_vain)
    timer = threading.Timer(0.01, lambda: os.write(writer, b"late"))
    timer.start()
    chunks: list[bytes] = []

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        pump.stop("enough")

    assert pump.run(feed, always) == "enough"
    pump.close()
    assert chunks == [b"late"]
    assert not false_alarms


def test_nothing_is_read_while_nobody_is_ready(
    make_pump: Callable[[int], Pump], pipe: tuple[int, int]
) -> None:
    """Input waits until a wake finds somebody ready, and is then fed whole."""
    reader, writer = pipe
    os.write(writer, b"one")
    pump = make_pump(reader)
    is_ready = [True]
    chunks: list[bytes] = []
    wakes: list[bytes] = []

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        is_ready[0] = False
        os.write(writer, b"two")
        pump.wake()

    def on_wake() -> None:
        wakes.append(b"".join(chunks))
        if len(wakes) < 3:
            pump.wake()
        elif len(wakes) == 3:
            is_ready[0] = True
            pump.wake()

    def feed_or_stop(chunk: bytes) -> None:
        if chunks:
            chunks.append(chunk)
            pump.stop("enough")
        else:
            feed(chunk)

    pump.on_wake = on_wake
    assert pump.run(feed_or_stop, lambda: is_ready[0]) == "enough"
    assert chunks == [b"one", b"two"]
    assert wakes[:3] == [b"one"] * 3


def test_a_chunk_that_arrives_when_nobody_is_ready_any_more_is_kept(pipe: tuple[int, int]) -> None:
    """A read already under way in a thread is fed once somebody is ready again."""
    reader, writer = pipe
    pump = ThreadedPump(reader)
    answers = iter([True, False, True])
    chunks: list[bytes] = []
    wakes: list[int] = []

    def ready() -> bool:
        answer = next(answers, True)
        if not answer:
            os.write(writer, b"kept")
        return answer

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        os.close(writer)

    pump.on_wake = lambda: wakes.append(1)
    pump.wake()
    assert pump.run(feed, ready) == EOF
    assert chunks == [b"kept"]
    assert wakes == [1]


def test_a_wait_without_news_ends_now_and_then(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pump of Windows glances around, since no signal handler runs while it waits."""
    monkeypatch.setattr("bridge.wire.threaded_pump._GLANCE_S", 0.001)
    pump = ThreadedPump(pipe[0])
    glances: list[int] = []

    def ready() -> bool:
        glances.append(1)
        if len(glances) == 3:
            pump._reason = "seen enough"
        return False

    assert pump.run(unwanted, ready) == "seen enough"


def test_stop_ends_a_run_from_any_thread(make_pump: Callable[[int], Pump], pipe: tuple[int, int]) -> None:
    """A waiting run returns the reason, and a later run works again."""
    pump = make_pump(pipe[0])
    timer = threading.Timer(0.01, lambda: pump.stop("signal"))
    timer.start()
    assert pump.run(unwanted, always) == "signal"
    os.write(pipe[1], b"more")
    chunks: list[bytes] = []

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        pump.stop("again")

    assert pump.run(feed, always) == "again"
    assert chunks == [b"more"]


def test_stop_before_a_run_ends_it_at_once_with_the_first_reason(
    make_pump: Callable[[int], Pump], pipe: tuple[int, int]
) -> None:
    """Nothing is read once stopping was asked for, and the first reason counts."""
    os.write(pipe[1], b"unread")
    pump = make_pump(pipe[0])
    pump.stop("first")
    pump.stop("second")
    assert pump.run(unwanted, always) == "first"
    assert os.read(pipe[0], 100) == b"unread"


def test_stop_on_a_wake_reads_no_further(pipe: tuple[int, int]) -> None:
    """Input that is there at the same time as the wake stays unread."""
    os.write(pipe[1], b"unread")
    pump = Pump(pipe[0])
    pump.on_wake = lambda: pump.stop("now")
    pump.wake()
    assert pump.run(unwanted, always) == "now"
    pump.close()
    assert os.read(pipe[0], 100) == b"unread"


def test_any_number_of_wakes_is_answered_at_least_once_after_the_last(
    make_pump: Callable[[int], Pump], pipe: tuple[int, int]
) -> None:
    """Wakes from many threads are neither lost nor pile up."""
    pump = make_pump(pipe[0])
    done = [0] * 4
    total = 20_000

    def work(index: int) -> None:
        for _ in range(total // len(done)):
            done[index] += 1
            pump.wake()

    def on_wake() -> None:
        if sum(done) == total:
            pump.stop("all seen")

    pump.on_wake = on_wake
    for index in range(len(done)):
        in_thread(work, index)
    assert pump.run(unwanted, never) == "all seen"


def test_waking_a_pump_that_is_full_or_closed_does_nothing(pipe: tuple[int, int]) -> None:
    """Wake never raises and never blocks."""
    pump = Pump(pipe[0])
    while True:
        try:
            os.write(pump.wake_fd, b"x" * 4096)
        except BlockingIOError:
            break
    pump.wake()
    pump.stop("enough")
    assert pump.run(unwanted, never) == "enough"
    pump._is_awake = False
    os.close(pump._wake_source)
    pump.wake()
    os.close(pump.wake_fd)


def test_signals_wake_the_pump(pipe: tuple[int, int]) -> None:
    """With its descriptor as wake-up descriptor, a signal handler's decision is seen at once."""
    pump = Pump(pipe[0])
    seen: list[int] = []
    handler = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    before = signal.set_wakeup_fd(pump.wake_fd, warn_on_full_buffer=False)
    pump.on_wake = lambda: pump.stop("signal") if seen else None
    try:
        timer = threading.Timer(0.01, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        assert pump.run(unwanted, always) == "signal"
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)
        pump.close()


def test_the_pump_that_suits_the_system_is_opened(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where pipes cannot be waited for a thread does the reading."""
    pump = open_pump(pipe[0])
    assert type(pump) is Pump
    pump.close()
    monkeypatch.setattr(stdio, "_CAN_WAIT_FOR_PIPES", False)
    assert type(open_pump(pipe[0])) is ThreadedPump


# --- what goes on beside the reading ---------------------------------------------------------


class Beside:
    """A side with a pipe of its own; notes what it was asked and what turns it got."""

    def __init__(self, due_s: float | None = None) -> None:
        self.fileno, self.sink = os.pipe()
        self.due_s = due_s
        self.asked = 0
        self.turns: list[bool] = []
        self.on_turn: Callable[[], object] = lambda: None

    def sleepy_s(self) -> float | None:
        self.asked += 1
        return self.due_s

    def turn(self, fired: bool) -> None:
        self.turns.append(fired)
        if fired:
            os.read(self.fileno, 100)
        self.on_turn()

    def close(self) -> None:
        os.close(self.fileno)
        os.close(self.sink)


@pytest.fixture
def beside() -> Iterator[Beside]:
    """A side that sleeps until it is woken."""
    made = Beside()
    yield made
    made.close()


@pytest.mark.usefixtures("readiness")
def test_what_is_beside_goes_on_without_input(pipe: tuple[int, int], beside: Beside) -> None:
    """A side that is woken gets its turn although nothing is read, and is asked before each sleep."""
    pump = Pump(pipe[0], beside)
    beside.on_turn = lambda: pump.stop("turned")
    thread = in_thread(lambda: os.write(beside.sink, b"x"))
    assert pump.run(unwanted, always) == "turned"
    thread.join(PATIENCE_S)
    assert beside.turns == [True]
    assert beside.asked == 1
    pump.close()


@pytest.mark.usefixtures("readiness")
@pytest.mark.parametrize("is_ready", [True, False])
def test_a_sleep_is_no_longer_than_the_side_allows(
    pipe: tuple[int, int], beside: Beside, is_ready: bool
) -> None:
    """What is due beside gets its turn in time, whether anybody reads or not."""
    pump = Pump(pipe[0], beside)
    beside.due_s = 0.01
    beside.on_turn = lambda: pump.stop("due") if len(beside.turns) == 3 else None
    assert pump.run(unwanted, always if is_ready else never) == "due"
    assert beside.turns == [False] * 3
    pump.close()


@pytest.mark.usefixtures("readiness")
def test_input_does_not_starve_what_is_beside(pipe: tuple[int, int], beside: Beside) -> None:
    """With input at every look each chunk is followed by a turn."""
    reader, writer = pipe
    pump = Pump(reader, beside)
    chunks: list[bytes] = []

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        os.write(beside.sink, b"x")
        os.write(writer, b"more")
        if len(chunks) == 5:
            pump.stop("enough")

    os.write(writer, b"one")
    assert pump.run(feed, always) == "enough"
    assert len(chunks) == 5
    assert len(beside.turns) >= 4
    assert any(beside.turns)
    pump.close()


@pytest.mark.usefixtures("readiness")
def test_what_the_side_makes_ready_is_read(pipe: tuple[int, int], beside: Beside) -> None:
    """A turn that makes room and wakes the pump lets the reading go on."""
    reader, writer = pipe
    os.write(writer, b"waiting")
    pump = Pump(reader, beside)
    is_ready = [False]
    chunks: list[bytes] = []

    def make_room() -> None:
        is_ready[0] = True
        pump.wake()

    def feed(chunk: bytes) -> None:
        chunks.append(chunk)
        pump.stop("read")

    beside.on_turn = make_room
    os.write(beside.sink, b"x")
    assert pump.run(feed, lambda: is_ready[0]) == "read"
    assert chunks == [b"waiting"]
    pump.close()


@pytest.mark.usefixtures("readiness")
def test_a_pause_ends_by_itself_on_a_wake_and_on_news_beside(pipe: tuple[int, int], beside: Beside) -> None:
    """Nothing is read in a pause; wakes are answered in it and the side gets its turn."""
    reader, writer = pipe
    os.write(writer, b"not now")
    pump = Pump(reader, beside)
    wakes: list[int] = []
    pump.on_wake = lambda: wakes.append(1)
    pump.pause(0.01)
    assert (beside.turns, wakes) == ([False], [])
    os.write(beside.sink, b"x")
    pump.pause(PATIENCE_S)
    assert (beside.turns, wakes) == ([False, True], [])
    pump.wake()
    pump.pause(PATIENCE_S)
    assert wakes == [1]
    beside.due_s = 0.0
    pump.pause(PATIENCE_S)
    assert len(beside.turns) == 4
    assert os.read(reader, 100) == b"not now"
    pump.close()


@pytest.mark.parametrize("kind", [Pump, ThreadedPump])
def test_a_pause_needs_nothing_beside(kind: type[Pump], pipe: tuple[int, int]) -> None:
    """Without a side a pause is a wait for the next wake."""
    pump = kind(pipe[0])
    wakes: list[int] = []
    pump.on_wake = lambda: wakes.append(1)
    pump.pause(0.01)
    assert wakes == []
    thread = in_thread(pump.wake)
    pump.pause(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert wakes == [1]
    pump.stop("later")
    assert pump.run(unwanted, always) == "later"
    pump.close()


def test_a_reason_to_stop_given_beside_ends_the_run(pipe: tuple[int, int], beside: Beside) -> None:
    """What stops the pump in a turn, together with input, is the end: the input stays unread."""
    reader, writer = pipe
    pump = Pump(reader, beside)

    def stop() -> None:
        pump.stop("turned")
        os.write(writer, b"late")

    beside.on_turn = stop
    os.write(beside.sink, b"x")
    assert pump.run(unwanted, always) == "turned"
    assert os.read(reader, 100) == b"late"
    pump.close()


# --- Writer ---


class Ledger:
    """Remembers which payloads were told to be written."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def note(self, index: int) -> Callable[[], None]:
        return lambda: self.written.append(index)


@pytest.mark.usefixtures("readiness")
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_payloads_arrive_whole_and_in_order(blocking: bool, kind: str) -> None:
    """Small and large payloads reach a slow reader in the order of the calls, each told once."""
    ends = socket.socketpair() if kind == "socket" else ()
    reader, writer = (ends[0].fileno(), ends[1].fileno()) if ends else os.pipe()
    os.set_blocking(writer, blocking)
    sink, ledger = Writer(writer), Ledger()
    payloads = [bytes([65 + n % 26]) * (n * 37 % 5000 if n % 50 else 300_000) + b"\n" for n in range(400)]
    data = b"".join(payloads)
    received: list[bytes] = []
    thread = in_thread(lambda: received.append(read_exactly(reader, len(data))))
    for index, payload in enumerate(payloads):
        sink.put(payload, ledger.note(index))
    assert sink.drain(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert received == [data]
    assert ledger.written == list(range(len(payloads)))
    assert sink.backlog_bytes == 0
    assert not sink.broken
    for end in ends or (os.fdopen(reader), os.fdopen(writer)):
        end.close()


def test_a_small_payload_is_written_by_its_caller(pipe: tuple[int, int]) -> None:
    """What surely does not block needs no other thread."""
    sink, ledger = Writer(pipe[1]), Ledger()
    sink.put(b"{}\n", ledger.note(1))
    assert ledger.written == [1]
    sink.put(b"[]\n")
    assert os.read(pipe[0], 100) == b"{}\n[]\n"
    assert not sink._has_thread


def test_a_full_pipe_holds_up_nobody_and_is_counted(pipe: tuple[int, int]) -> None:
    """Payloads wait in the backlog until somebody reads; nothing is lost."""
    reader, writer = pipe
    filled = fill(writer)
    sink, ledger = Writer(writer), Ledger()
    for index in range(1000):
        sink.put(b"%04d\n" % index, ledger.note(index))
    assert sink.backlog_bytes == 5000
    assert ledger.written == []
    assert not sink.drain(0.01)
    assert read_exactly(reader, filled) == b"f" * filled
    assert read_exactly(reader, 5000) == b"".join(b"%04d\n" % index for index in range(1000))
    assert sink.drain(PATIENCE_S)
    assert sink.backlog_bytes == 0
    assert ledger.written == list(range(1000))


def test_a_short_direct_write_is_completed_behind_the_callers_back(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that takes only a part gets the rest before the next payload."""
    sink, ledger = Writer(pipe[1]), Ledger()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:2]))
    sink.put(b"first\n", ledger.note(1))
    sink.put(b"second\n", ledger.note(2))
    assert sink.drain(PATIENCE_S)
    assert os.read(pipe[0], 100) == b"first\nsecond\n"
    assert ledger.written == [1, 2]


def test_a_descriptor_that_changes_its_mind_is_waited_for(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that would block after all is left to the thread."""
    sink, ledger = Writer(pipe[1]), Ledger()
    write, refusals = os.write, [1, 2]

    def refuse(fd: int, data: bytes) -> int:
        if refusals:
            refusals.pop()
            raise BlockingIOError
        return write(fd, data)

    monkeypatch.setattr(os, "write", refuse)
    sink.put(b"{}\n", ledger.note(1))
    assert sink.drain(PATIENCE_S)
    assert os.read(pipe[0], 100) == b"{}\n"
    assert ledger.written == [1]


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_reader_that_is_gone_is_told_once_and_the_rest_is_dropped(pipe: tuple[int, int], size: int) -> None:
    """After EPIPE nothing raises, every payload is let go, and one call says so."""
    reader, writer = pipe
    os.close(reader)
    broken: list[int] = []
    sink, ledger = Writer(writer, lambda: broken.append(1)), Ledger()
    for index in range(50):
        sink.put(b"x" * size, ledger.note(index))
    assert sink.drain(PATIENCE_S)
    assert sink.broken
    assert broken == [1]
    assert sorted(ledger.written) == list(range(50))
    assert sink.backlog_bytes == 0


def test_a_reader_that_leaves_a_full_pipe_lets_everything_go(pipe: tuple[int, int]) -> None:
    """A thread stuck on a full pipe notices that its reader has gone; nobody needs to be told."""
    reader, writer = pipe
    fill(writer)
    sink, ledger = Writer(writer), Ledger()
    for index in range(50):
        sink.put(b"x" * 5000, ledger.note(index))
    assert not sink.drain(0.01)
    os.close(reader)
    assert sink.drain(PATIENCE_S)
    assert sink.broken
    assert ledger.written == list(range(50))


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_closed_descriptor_is_a_reader_that_is_gone(pipe: tuple[int, int], size: int) -> None:
    """EBADF breaks the writer as EPIPE does, also without anybody to tell."""
    os.close(pipe[1])
    sink = Writer(pipe[1])
    sink.put(b"x" * size)
    assert sink.drain(PATIENCE_S)
    assert sink.broken


def test_files_and_terminals_are_written(tmp_path: Path) -> None:
    """Output redirected to a file is written at once, to a terminal by the thread."""
    with (tmp_path / "output").open("wb") as file:
        sink = Writer(file.fileno())
        sink.put(b"{}\n")
        assert not sink._has_thread
    assert (tmp_path / "output").read_bytes() == b"{}\n"
    outer, inner = os.openpty()
    sink = Writer(inner)
    sink.put(b"{}")
    assert sink.drain(PATIENCE_S)
    assert os.read(outer, 100) == b"{}"
    os.close(outer)
    os.close(inner)


def test_many_threads_may_put_at_once(pipe: tuple[int, int]) -> None:
    """Messages of several threads never mix, and each thread's stay in order."""
    reader, writer = pipe
    sink = Writer(writer)

    def put_all(name: int) -> None:
        for number in range(2000):
            sink.put(b"%c%06d\n" % (name, number))

    threads = [in_thread(put_all, name) for name in b"abcd"]
    lines = read_exactly(reader, 4 * 2000 * 8).splitlines()
    for thread in threads:
        thread.join(PATIENCE_S)
    for name in b"abcd":
        assert [line for line in lines if line[0] == name] == [b"%c%06d" % (name, n) for n in range(2000)]


# --- Writer that collects ---


@pytest.mark.usefixtures("readiness")
def test_what_is_collected_is_written_at_the_flush_and_in_order(pipe: tuple[int, int]) -> None:
    """Answers of the collecting thread wait for its flush, and those of others do not."""
    reader, writer = pipe
    sink, ledger = Writer(writer), Ledger()
    sink.collect()
    for index in range(3):
        sink.put(b"mine %d\n" % index, ledger.note(index))
    in_thread(sink.put, b"other\n", ledger.note(9)).join(PATIENCE_S)
    assert read_exactly(reader, 6) == b"other\n"
    assert ledger.written in ([], [9])
    sink.flush()
    assert read_exactly(reader, 21) == b"mine 0\nmine 1\nmine 2\n"
    assert sink.drain(PATIENCE_S)
    assert ledger.written == [9, 0, 1, 2]
    sink.flush()
    assert ledger.written == [9, 0, 1, 2]


def test_collected_answers_are_written_in_groups_that_cannot_block(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many whole answers go in one write as a pipe surely takes; a longer one goes alone."""
    most = stdio._PIPE_BUF
    sizes = [most // 2, most // 2, 1, most - 1, 1, most + 1, 1, most, 2]
    groups: list[int] = []
    sink, ledger = Writer(pipe[1]), Ledger()
    put = sink._put

    def note_put(payload: bytes, written: Callable[[], None] | None) -> None:
        groups.append(len(payload))
        put(payload, written)

    monkeypatch.setattr(sink, "_put", note_put)
    sink.collect()
    data = b""
    for index, size in enumerate(sizes):
        payload = bytes([65 + index]) * size
        data += payload
        sink.put(payload, ledger.note(index))
    assert groups == []
    sink.flush()
    assert groups == [most, most, 1, most + 1, 1, most, 2]
    assert read_exactly(pipe[0], len(data)) == data
    assert sink.drain(PATIENCE_S)
    assert ledger.written == list(range(len(sizes)))


@pytest.mark.usefixtures("readiness")
@pytest.mark.parametrize("blocking", [True, False])
def test_a_flush_never_waits_for_the_reader(pipe: tuple[int, int], blocking: bool) -> None:
    """With a full pipe what was collected goes to the thread; later answers stay behind it."""
    reader, writer = pipe
    filled = fill(writer)
    os.set_blocking(writer, blocking)
    sink, ledger = Writer(writer), Ledger()
    sink.collect()
    for index in range(2000):
        sink.put(b"%04d\n" % index, ledger.note(index))
        if index % 700 == 0:
            sink.flush()
    sink.flush()
    assert sink.backlog_bytes == 10_000
    assert ledger.written == []
    assert read_exactly(reader, filled) == b"f" * filled
    assert read_exactly(reader, 10_000) == b"".join(b"%04d\n" % index for index in range(2000))
    assert sink.drain(PATIENCE_S)
    assert ledger.written == list(range(2000))


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_broken_reader_lets_go_of_what_was_collected(pipe: tuple[int, int], size: int) -> None:
    """After EPIPE every collected answer is told once, and the end of the reader too."""
    os.close(pipe[0])
    broken: list[int] = []
    sink, ledger = Writer(pipe[1], lambda: broken.append(1)), Ledger()
    sink.collect()
    for index in range(20):
        sink.put(b"x" * size, ledger.note(index))
    sink.flush()
    assert sink.drain(PATIENCE_S)
    assert (sink.broken, broken) == (True, [1])
    assert sorted(ledger.written) == list(range(20))
    sink.put(b"x" * size, ledger.note(20))
    sink.flush()
    assert sink.drain(PATIENCE_S)
    assert (broken, sorted(ledger.written)) == ([1], list(range(21)))


def test_waiting_for_the_end_hands_on_what_was_collected(pipe: tuple[int, int]) -> None:
    """Who collects and drains gets everything written; another thread's drain takes nothing of his."""
    sink, ledger = Writer(pipe[1]), Ledger()
    sink.collect()
    sink.put(b"{}\n", ledger.note(1))
    in_thread(sink.drain, 0.0).join(PATIENCE_S)
    assert ledger.written == []
    assert sink.drain(PATIENCE_S)
    assert ledger.written == [1]
    assert os.read(pipe[0], 100) == b"{}\n"


def test_an_answer_given_because_another_was_written_is_not_lost(pipe: tuple[int, int]) -> None:
    """What is put while a flush tells who was written goes with the next one."""
    sink, ledger = Writer(pipe[1]), Ledger()
    sink.collect()
    sink.put(b"one\n", lambda: sink.put(b"two\n", ledger.note(2)))
    sink.flush()
    assert os.read(pipe[0], 100) == b"one\n"
    sink.flush()
    assert os.read(pipe[0], 100) == b"two\n"
    assert ledger.written == [2]


# --- take_descriptors ---

TAKE = """
import os, subprocess, sys
from bridge.wire.stdio import take_descriptors
{before}
source, sink = take_descriptors()
print("stray print", flush=True)
os.system("echo stray child")
assert min(source, sink) > 2, (source, sink)
assert not os.get_inheritable(source) and not os.get_inheritable(sink)
assert all(os.get_inheritable(number) for number in range(3))
assert os.read(0, 1) == b""
os.write(sink, b"got " + os.read(source, 100))
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
        ([0], b"got ", True),
        ([1], b"", True),
        ([2], b"got input", False),
        ([0, 1], b"", True),
        ([1, 2], b"", False),
        ([0, 1, 2], b"", False),
    ],
)
def test_closed_descriptors_count_as_the_null_device(closed: list[int], stdout: bytes, stderr: bool) -> None:
    """A start without some of the standard descriptors is no crash."""
    result = run_take("\n".join(f"os.close({number})" for number in closed))
    assert result.stdout == stdout
    assert (result.stderr.splitlines() == [b"stray print", b"stray child"]) == stderr
    assert result.returncode == 0


def test_descriptors_are_taken_inside_a_process() -> None:
    """The same in this process, with descriptors that stand in for the standard ones."""
    saved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in range(3)]
    try:
        os.close(0)
        source, sink = stdio.take_descriptors()
        assert os.read(source, 1) == b""
        assert os.fstat(1) == os.fstat(2)
        os.close(source)
        os.close(sink)
    finally:
        for number, copy in enumerate(saved):
            os.dup2(copy, number)
            os.close(copy)
