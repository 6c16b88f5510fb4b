"""Reading answers from bytes, without a socket."""

from __future__ import annotations

import http.client
import io
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.upstream.answer import MAX_BODY_BYTES, Answer, Inlet, WholeInlet, is_whole
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


# --- what has come whole ---------------------------------------------------------------------


class Counted(WholeInlet):
    """An answer that has come whole, and notes whether more of it was asked for than there is."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_overdrawn = False

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.is_overdrawn |= size is None or size < 0 or len(data) < size
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.is_overdrawn |= not line.endswith(b"\n")
        return line

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self.is_overdrawn |= count < len(buffer)
        return count


def read_whole(data: bytes) -> tuple[Any, ...]:
    """Read an answer that has come whole, as `read` does, and demand that it was."""
    inlet = Counted(data)
    with Answer(inlet) as answer:
        try:
            answer.begin()
            body, is_oversize = answer.read_body()
        except http.client.HTTPException as error:
            assert not inlet.is_overdrawn
            return type(error), answer.final_status, answer.fields
        assert not inlet.is_overdrawn
        return answer.final_status, answer.fields, body, is_oversize, answer.is_reusable()


def demand_agreement(data: bytes) -> bool | None:
    """Demand that what is said to be whole reads as it does from a socket; what was said."""
    verdict = is_whole(data)
    if verdict is True:
        assert read_whole(data) == read(data)
    return verdict


lines = st.sampled_from(
    [
        b"Content-Length: %d",
        b"content-length:%d",
        b"Content-Length: 0%d",
        b"Content-Length: +%d",
        b"Content-Length: %d, %d",
        b"Content-Length : %d",
        b"Content-Length: %d\r\n 1",
        b"Content-Length:\r\n %d",
        b"X: y\r\n content-length: %d",
        b"X-Content-Length: %d",
        b"Content-Length: %d\x1c",
        b"Content-Length: %d\xa0",
        b"Content-Length: %d\rX: y",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding:\tChunked ",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\n , gzip",
        b"Transfer-Encoding:",
        b"Connection: close",
        b"Keep-Alive: timeout=5",
        b"X: \xe9",
        b": odd",
        b"odd",
        b"",
    ]
)
sizes = st.sampled_from(
    [b"0", b"00", b"1", b"3", b"a", b"0x3", b"0_3", b"+3", b"-1", b"3 ", b"3;ext", b"", b"G"]
)


@st.composite
def odd_answers(draw: st.DrawFn) -> bytes:
    """Answers as nobody should send them, with line ends, framings and lengths that contradict each other."""
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    body = draw(st.binary(max_size=12))
    if draw(st.booleans()):
        pieces = [draw(st.tuples(sizes, st.binary(max_size=3))) for _ in range(draw(st.integers(0, 3)))]
        body = b"".join(size + b"\r\n" + piece + b"\r\n" for size, piece in pieces)
        body += draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nX: trailer\r\n\r\n", b"0\r\n", b"0\n\n", b""]))
    status = draw(
        st.sampled_from([b"200 OK", b"204 No", b"304 Same", b"100 Go", b"101 No", b"500", b"2000", b"20"])
    )
    head = [
        draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.1  ", b"HTTP/1.10 ", b"HTTP/2 "])) + status
    ]
    for line in draw(st.lists(lines, max_size=4)):
        head.append(line.replace(b"%d", b"%d" % (len(body) + draw(st.integers(-1, 1)))))
    return end.join([*head, b"", b""]) + body + draw(st.sampled_from([b"", b"", b"surplus", b"\r\n"]))


@given(st.one_of(answers(), odd_answers()), st.data())
def test_what_is_said_to_be_whole_asks_for_no_more(data: bytes, choice: st.DataObject) -> None:
    """However an answer is cut, one that is called whole is read as from a socket, without a wait."""
    demand_agreement(data)
    demand_agreement(data[: choice.draw(st.integers(0, len(data)))])


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_called_whole_only_if_they_are(head: bytes, body: bytes) -> None:
    """Nothing that may come makes the looking fail, or call whole what is not."""
    for data in (
        head,
        b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\nContent-Length: " + head + b"\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + head,
    ):
        demand_agreement(data)


@given(answers())
def test_usual_answers_are_known_to_be_whole(data: bytes) -> None:
    """What servers send with a length or in a few chunks needs no further look, and no cut of it does."""
    is_plain = data.startswith(b"HTTP/1.1 2") or re.match(rb"HTTP/1\.\d [2-5]", data) is not None
    head = data.partition(b"\r\n\r\n")[0].lower()
    is_framed = is_plain and (b"content-length" in head or b"transfer-encoding" in head)
    assert is_whole(data) is (True if is_framed else None)
    if is_framed:
        for cut in range(head.__len__() + 4, len(data)):
            assert is_whole(data[:cut]) is False


SAID: dict[bytes, bool | None] = {
    b"": False,
    b"HTTP": False,
    b"HTTP/1.1": False,
    b"HTTP/1.1 ": None,
    b"SSH-2.0-x\r\n": None,
    b"HTTP/1.1 200 OK\r\nContent-Le": None,
    b"HTTP/1.1 200 OK\r\n\r\n{}": None,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{": False,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}": True,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}surplus": True,
    b"HTTP/1.1 200 OK\r\ncONTENT-lENGTH:2\r\n\r\n{}": True,
    b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\n{}": True,
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\n{}": None,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}": None,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}": None,
    b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}": None,
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n{}": False,
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n": False,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n": False,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n": False,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n": True,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: trailer\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n": None,
    # Their heads end before the first empty line with a carriage return.
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\n\n5\r\n\r\n0\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\n\r\n5\r\n\r\n0\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx0\r\n\r\n": None,
    b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n": None,
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n": None,
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": None,
    b"HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n\r\n": None,
}


@pytest.mark.parametrize("data", SAID)
def test_what_is_said_of_what_has_come(data: bytes) -> None:
    """Whole, in need of more, or only for somebody to read who may wait."""
    assert demand_agreement(data) is SAID[data]


def test_surplus_behind_what_has_come_whole_spoils_the_connection() -> None:
    """Bytes that nobody asked for are noticed also when nothing needs to be waited for."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    assert read_whole(data)[2:] == (b"{}", False, True)
    assert read_whole(data + b"x")[2:] == (b"{}", False, False)


def test_long_answers_are_left_to_who_may_wait() -> None:
    """Looking at an answer again and again must not cost more than reading it."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
    assert is_whole(head + b"x" * 59_999) is None
    assert is_whole(head + b"x" * 60_000) is True
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert is_whole(chunked + b"1\r\nx\r\n" * 1000) is None
