"""Reading answers from bytes, without a socket."""

from __future__ import annotations

import http.client
import io
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.upstream.answer import MAX_BODY_BYTES, Answer, Inlet
from bridge.upstream.attempt import now


class Bytes:
    """Plays a socket that has these bytes to give, at most `step` at a time."""

    def __init__(self, data: bytes, step: int = 1 << 20) -> None:
        self._rest = data
        self._step = step
        self.timeouts: list[float] = []

    def settimeout(self, value: float | None) -> None:
        assert value is not None
        self.timeouts.append(value)

    def recv_into(self, buffer: Any) -> int:
        count = min(len(buffer), self._step, len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class Wire:
    """Plays the socket of `http.client`, the reading by other people."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def read(data: bytes, step: int = 1 << 20) -> tuple[Any, ...]:
    """Read one answer and say everything about it, or which exception it was."""
    inlet = Inlet(Bytes(data, step))
    inlet.expect(now() + 60.0)
    with Answer(inlet) as answer:
        try:
            answer.begin()
            body, is_oversize = answer.read_body()
        except http.client.HTTPException as error:
            return type(error), answer.final_status, answer.fields
        return answer.final_status, answer.fields, body, is_oversize, answer.is_reusable()


names = st.sampled_from(["X-A", "x-a", "Server", "X-Long-Name", "Retry-After"])
values = st.text("abc ,;=\t\xe9", max_size=12).map(str.strip)
fields = st.lists(st.tuples(names, values), max_size=6)
chunk_lists = st.lists(st.binary(min_size=1, max_size=30), max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Complete answers of every framing, perhaps after interim ones."""
    body = draw(st.binary(max_size=80))
    head = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Go on\r\nX: 1\r\n\r\n"])
    )
    statuses = st.integers(200, 599).filter(lambda status: status not in (204, 304))  # bodiless: tested apart
    head += b"HTTP/1.%d %d Fine words\r\n" % (draw(st.integers(0, 1)), draw(statuses))
    for name, value in draw(fields):
        head += f"{name}: {value}\r\n".encode("latin-1")
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "close":
        return head + b"\r\n" + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in draw(chunk_lists))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(answers())
def test_agrees_with_the_reading_by_others(data: bytes) -> None:
    """Status, header lines and body are those `http.client` reads."""
    theirs = http.client.HTTPResponse(Wire(data), method="POST")  # type: ignore[arg-type]
    theirs.begin()
    status, headers, body, is_oversize, _ = read(data)
    assert (status, body, is_oversize) == (theirs.status, theirs.read(), False)
    assert headers == {name.lower(): ", ".join(theirs.headers.get_all(name, [])) for name in theirs.headers}


@given(answers(), st.integers(1, 7))
def test_size_of_the_pieces_does_not_matter(data: bytes, step: int) -> None:
    """An answer that comes a few bytes at a time is the same answer."""
    # Surplus is seen at once or only when it arrives, so reusability (the last member) may differ.
    assert read(data, step)[:4] == read(data)[:4]


@given(answers(), st.data())
def test_cut_answer_is_never_taken_for_more(data: bytes, choice: st.DataObject) -> None:
    """A cut anywhere gives an exception or a beginning of the body, and never a reusable connection."""
    whole = read(data)
    cut = read(data[: choice.draw(st.integers(0, len(data) - 1))])
    if isinstance(cut[0], int):
        assert whole[2].startswith(cut[2])
        assert whole[0] == cut[0]
    assert not (len(cut) == 5 and cut[4] and cut != whole)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_a_known_exception(data: bytes) -> None:
    """Nothing the upstream may send gives another exception than those that are mapped."""
    for prefix in (b"", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with suppress(ValueError):
            assert len(read(prefix + data)) in (3, 5)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"1_0", b"", b"g", b"1 0", b"9" * 40])
def test_strange_chunk_size_gives_no_verdict(size: bytes) -> None:
    """A chunk size that is no size never makes the connection reusable."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nx\r\n0\r\n\r\n"
    with suppress(ValueError):
        result = read(data)
        assert not (len(result) == 5 and result[4])


def test_folded_line_belongs_to_the_one_before() -> None:
    """A header line that goes on in the next line is one value."""
    data = b"HTTP/1.1 200 OK\r\nX-A: one\r\n  two\r\n\tthree\r\nContent-Length: 0\r\n\r\n"
    assert read(data)[1]["x-a"] == "one two three"


def test_bare_line_feeds_are_accepted() -> None:
    """Lines that end without a carriage return are lines."""
    assert read(b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx")[2] == b"x"


def test_repeated_equal_lengths_are_one() -> None:
    """The same Content-Length twice is no contradiction."""
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx")[2:] == (
        b"x",
        False,
        True,
    )


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_status_without_body_ends_with_its_head(status: bytes) -> None:
    """What follows a bodiless answer is not its body, and spoils the connection."""
    assert read(b"HTTP/1.1 " + status + b" None\r\n\r\n")[2:] == (b"", False, True)
    assert read(b"HTTP/1.1 " + status + b" None\r\n\r\nsurplus")[2:] == (b"", False, False)


@pytest.mark.parametrize("count", [0, 1, 65536])
def test_body_up_to_the_limit_is_whole(count: int) -> None:
    """The limit itself is still allowed."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count + b"x" * count
    assert read(data)[2:4] == (b"x" * count, False)


def test_body_over_the_limit_is_cut() -> None:
    """One byte more than the limit is not kept."""
    data = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1)
    assert read(data)[2:4] == (b"x" * MAX_BODY_BYTES, True)


def test_every_read_gets_only_what_is_left_of_the_deadline() -> None:
    """The time-outs of the single reads shrink towards one instant."""
    source = Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", step=1)
    inlet = Inlet(source)
    inlet.expect(now() + 60.0)
    with Answer(inlet) as answer:
        answer.begin()
        answer.read_body()
    assert source.timeouts == sorted(source.timeouts, reverse=True)
    assert 0.0 < source.timeouts[-1] < source.timeouts[0] <= 60.0


def test_deadline_that_is_over_reads_nothing() -> None:
    """Past the instant the socket is not even asked."""
    source = Bytes(b"HTTP/1.1 200 OK\r\n\r\n")
    inlet = Inlet(source)
    inlet.expect(now() - 1.0)
    with Answer(inlet) as answer, pytest.raises(TimeoutError):
        answer.begin()
    assert source.timeouts == []


def test_answers_follow_each_other_on_one_inlet() -> None:
    """What was read ahead belongs to the next answer, and is seen as surplus before it."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    inlet = Inlet(Bytes(one + b"a" + one + b"b"))
    bodies = []
    for _ in range(2):
        inlet.expect(now() + 60.0)
        with Answer(inlet) as answer:
            answer.begin()
            bodies.append((answer.read_body()[0], answer.is_reusable()))
    assert bodies == [(b"a", False), (b"b", True)]
