"""Reading answers from bytes, without a socket: what is tolerated, and that both ways to read agree."""

from __future__ import annotations

import http.client
import io
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.upstream.answers import MAX_BODY_BYTES, MAX_HEAD_BYTES, Answer, Cut, Malformed
from bridge.upstream.client import name_failure
from tests.oddheads import BODY, LENGTH, ODD, spell


class Bytes:
    """Plays a stream that has these bytes to give, at most `step` at a time, and then ends or fails."""

    def __init__(self, data: bytes, step: int = 1 << 20, fault: OSError | None = None) -> None:
        self._rest = data
        self._step = step
        self._fault = fault
        self.asked = 0

    def receive(self, most: int, until: float) -> bytes:
        self.asked += 1
        piece = self._rest[: min(most, self._step)]
        self._rest = self._rest[len(piece) :]
        if not piece and self._fault is not None:
            raise self._fault
        return piece

    def send_all(self, data: bytes, until: float) -> None:
        raise AssertionError("nothing is sent here")

    def is_stale(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Wire:
    """Plays the socket of `http.client`, the reading by other people."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def tell(answer: Answer) -> tuple[Any, ...]:
    """Say everything about an answer."""
    return answer.status, answer.fields, answer.body, answer.is_oversize, answer.may_stay


def read(data: bytes, step: int = 1 << 20) -> tuple[Any, ...]:
    """Read one answer tolerantly from the beginning; what it says, or which exception it was."""
    answer = Answer()
    stream = Bytes(data, step)
    try:
        answer.read_tolerantly(lambda: stream.receive(1 << 20, 0.0))
    except (Malformed, Cut, ConnectionResetError) as error:
        return type(error), answer.status, answer.fields
    return tell(answer)


def read_as_the_client(data: bytes, step: int = 1 << 20, fault: OSError | None = None) -> tuple[Any, ...]:
    """Read one answer as the client does, strictly first."""
    answer, stream = Answer(), Bytes(data, step, fault)
    try:
        answer.read(lambda: stream.receive(1 << 20, 0.0))
    except (Malformed, Cut, OSError) as error:
        return type(error), answer.status, answer.fields
    return tell(answer)


names = st.sampled_from(["X-A", "x-a", "Server", "X-Long-Name", "Retry-After"])
values = st.text("abc ,;=\t\xe9", max_size=12).map(lambda text: text.strip(" \t"))
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


lines = st.sampled_from(
    [
        *(b"Content-Length: %d", b"content-length:%d", b"Content-Length: 0%d", b"Content-Length: +%d"),
        *(b"Content-Length: %d, %d", b"Content-Length : %d", b"Content-Length: %d\r\n 1"),
        *(b"Content-Length:\r\n %d", b"X: y\r\n content-length: %d", b"X-Content-Length: %d"),
        *(b"Content-Length: %d\x1c", b"Content-Length: %d\xa0", b"Content-Length: %d\rX: y"),
        *(
            b"Transfer-Encoding: chunked",
            b"transfer-encoding:\tChunked ",
            b"Transfer-Encoding: gzip, chunked",
        ),
        *(b"Transfer-Encoding: chunked\r\n , gzip", b"Transfer-Encoding:", b"Connection: close"),
        *(b"Connection: upgrade\r\nUpgrade: x", b"Keep-Alive: timeout=5", b"X: \xe9", b"X: a\0b"),
        *(b": odd", b"odd", b""),
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
    surplus = draw(st.sampled_from([b"", b"", b"surplus", b"\r\n", b"HTTP/1.1 500 No\r\nX: y\r\n\r\n"]))
    return end.join([*head, b"", b""]) + body + surplus


@given(answers())
def test_agrees_with_the_reading_by_others(data: bytes) -> None:
    """Status, header lines and body are those `http.client` reads."""
    theirs = http.client.HTTPResponse(Wire(data), method="POST")  # type: ignore[arg-type]
    theirs.begin()
    their_body = theirs.read()
    for status, headers, body, is_oversize, _ in (read(data), read_as_the_client(data)):
        assert (status, body, is_oversize) == (theirs.status, their_body, False)
        assert headers == {
            name.lower(): ", ".join(theirs.headers.get_all(name, [])) for name in theirs.headers
        }


@example(b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 500 No\r\nX: y\r\n\r\n", 1)
@given(st.one_of(answers(), odd_answers()), st.integers(1, 7))
def test_strict_and_tolerant_agree(data: bytes, step: int) -> None:
    """Whichever of the two reads an answer, whole or in pieces, it is the same answer."""
    # Surplus is seen at once or only when it arrives, so reusability (the last member) may differ.
    assert read_as_the_client(data) == read(data)
    assert read_as_the_client(data, step)[:4] == read(data, step)[:4] == read(data)[:4]


@given(answers(), st.data())
def test_cut_answer_is_never_taken_for_more(data: bytes, choice: st.DataObject) -> None:
    """A cut anywhere gives an exception or a beginning of the body, and never a reusable connection."""
    at = choice.draw(st.integers(0, len(data) - 1))
    whole = read(data)
    for cut in (read(data[:at]), read_as_the_client(data[:at])):
        if isinstance(cut[0], int):
            assert whole[2].startswith(cut[2])
            assert whole[0] == cut[0]
        assert not (len(cut) == 5 and cut[4] and cut != whole)


@given(answers(), st.data())
def test_failed_answer_is_told_as_far_as_it_came(data: bytes, choice: st.DataObject) -> None:
    """After a reset or the deadline the status is known exactly if its line was read, and so is the head."""
    at = choice.draw(st.integers(1, len(data) - 1))
    told = read_as_the_client(data[:at], fault=ConnectionResetError("reset"))
    whole = read_as_the_client(data)
    if len(told) == 3:
        final = data.index(b"\r\n\r\n") + 4 if data[9:10] == b"1" else 0
        assert told[0] is ConnectionResetError
        assert told[1] == (whole[0] if b"\r\n" in data[final:at] else None)
        assert told[2] == (whole[1] if b"\r\n\r\n" in data[final:at] else {})
    else:
        assert told == whole


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer_or_a_known_exception(data: bytes) -> None:
    """Nothing the upstream may send gives another exception than those that are mapped."""
    for prefix in (b"", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        assert read_as_the_client(prefix + data) == read(prefix + data)


@pytest.mark.parametrize("size", [b"-1", b"-5", b"1_0", b"", b"g", b"1 0", b"9" * 40])
def test_strange_chunk_size_gives_no_verdict(size: bytes) -> None:
    """A chunk size that is no size is no answer."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nx\r\n0\r\n\r\n"
    assert read_as_the_client(data)[0] is Malformed


@pytest.mark.parametrize("folds", [(b"  ", b"\t"), (b"  ", b" "), (b"\t", b"\t\t")])
def test_folded_line_belongs_to_the_one_before(folds: tuple[bytes, bytes]) -> None:
    """A header line that goes on in the next line is one value, whichever blank that begins with."""
    data = b"HTTP/1.1 200 OK\r\nX-A: one\r\n%btwo\r\n%bthree\r\nContent-Length: 0\r\n\r\n" % folds
    assert read_as_the_client(data)[1]["x-a"] == "one two three"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        # Lines that end without a carriage return are lines.
        (b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", (b"x", False, True)),
        # The same Content-Length twice is no contradiction.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", (b"x", False, True)),
        # What follows a bodiless answer is not its body, and spoils the connection.
        *((b"HTTP/1.1 %d None\r\n\r\n" % status, (b"", False, True)) for status in (204, 304)),
        *((b"HTTP/1.1 %d None\r\n\r\nsurplus" % status, (b"", False, False)) for status in (204, 304)),
    ],
)
def test_unusual_ends_are_understood(data: bytes, told: tuple[bytes, bool, bool]) -> None:
    """Body, whether it is cut, and whether the connection may stay."""
    assert read_as_the_client(data)[2:] == told


@pytest.mark.parametrize("surplus", [b"x", b"\r\n", b"HTTP/1.1 500 No\r\nX: 1\r\nContent-Length: 1\r\n\r\nz"])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["length", "chunked", "empty"],
)
def test_surplus_changes_nothing_but_spoils_the_connection(answer: bytes, surplus: bytes) -> None:
    """Bytes that nobody asked for, a second answer even, are no part of the answer and end the connection."""
    clean, followed = read_as_the_client(answer), read_as_the_client(answer + surplus)
    assert clean[4]
    assert followed == (*clean[:4], False)


@pytest.mark.parametrize("count", [0, 1, 65536])
def test_body_up_to_the_limit_is_whole(count: int) -> None:
    """The limit itself is still allowed."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count + b"x" * count
    for told in (read(data), read_as_the_client(data)):
        assert told[2:4] == (b"x" * count, False)


@pytest.mark.parametrize(
    "framing",
    [
        b"\r\n",
        b"Content-Length: 65537\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n10001\r\n",
        b"odd\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n",
        b"odd\r\nContent-Length: 65537\r\n\r\n",
        b"odd\r\n\r\n",
    ],
)
def test_body_over_the_limit_is_cut(framing: bytes) -> None:
    """One byte more than the limit is not kept, and the connection neither."""
    data = b"HTTP/1.1 200 OK\r\n" + framing + b"x" * (MAX_BODY_BYTES + 1)
    for told in (read(data), read_as_the_client(data), read_as_the_client(data, 1000)):
        assert told[2:] == (b"x" * MAX_BODY_BYTES, True, False)


@pytest.mark.parametrize("count", [30_000, 65536, 65537])
@pytest.mark.parametrize("head", [b"", b"odd\r\n"], ids=["strict", "tolerant"])
def test_chunks_of_one_byte_are_read_to_the_limit(head: bytes, count: int) -> None:
    """What frames a body takes nothing from its 64 KiB, in however small chunks it comes."""
    data = b"HTTP/1.1 200 OK\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * count
    for told in (read(data + b"0\r\n\r\n"), read_as_the_client(data + b"0\r\n\r\n", 16384)):
        assert told[2:4] == (b"x" * min(count, MAX_BODY_BYTES), count > MAX_BODY_BYTES)


@pytest.mark.parametrize("body", [b"", b"1\r\nx\r\n" * 50_000], ids=["empty", "in tiny chunks"])
@pytest.mark.parametrize(
    "flood", [b"1;" + b"x" * 10**6, b"0\r\n" + b"a:\r\n" * 250_000], ids=["extension", "trailers"]
)
def test_flood_of_framing_ends_by_length(body: bytes, flood: bytes) -> None:
    """What frames a body is read in measure with the body, and trailers are not kept."""
    stream = Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + flood, 16384)
    answer = Answer()
    with pytest.raises(Malformed):
        answer.read(partial(stream.receive, 16384, 0.0))
    assert len(answer.data) < 3 * MAX_BODY_BYTES + 8 * body.count(b"x")
    assert "a" not in answer.fields
    assert answer._lines == {}


@pytest.mark.parametrize("framing", [LENGTH, b"odd\r\n" + LENGTH], ids=["strict", "tolerant"])
def test_head_up_to_the_limit_is_read(framing: bytes) -> None:
    """A head of 64 KiB in hundreds of lines is read; one line more is too much."""
    line = b"X-Header: " + b"x" * 100 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\n" + framing
    most = head + line * ((MAX_HEAD_BYTES - len(head) - 2) // len(line))
    assert most.count(b"\n") > 580
    for step in (1 << 20, 5000):
        assert read_as_the_client(most + b"\r\n" + BODY, step)[2] == BODY
        assert read_as_the_client(most + line + b"\r\n" + BODY, step)[:2] == (Malformed, 200)


def test_nothing_is_asked_for_beyond_the_end() -> None:
    """An answer that has come whole is not waited for, whoever reads it."""
    for head in (LENGTH, b"odd\r\n" + LENGTH, b"Transfer-Encoding: chunked\r\n"):
        body = BODY if b"chunked" not in head else b"20\r\n" + BODY + b"\r\n0\r\n\r\n"
        stream = Bytes(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body, fault=TimeoutError("too long"))
        answer = Answer()
        answer.read(partial(stream.receive, 1 << 20, 0.0))
        assert answer.body == BODY
        assert stream.asked == 1


@pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
def test_odd_head_does_not_spoil_the_answer(data: bytes) -> None:
    """What curl and browsers tolerate in a head is tolerated, without a wait for more, in any pieces."""
    for step in (1 << 20, 1, 7):
        told = read_as_the_client(data, step, fault=TimeoutError("too long"))
        assert (told[0], told[2], told[3]) == (200, BODY, False)


DOUBTFUL = ("blank", "tab", "without", "empty", "colon alone", "outside", "and a length", "first line")


@pytest.mark.parametrize(
    "name", [name for name in ODD if any(word in name for word in DOUBTFUL) and "value" not in name]
)
def test_connection_does_not_outlive_a_doubtful_head(name: str) -> None:
    """After a line that others may understand in another way the connection carries nothing more."""
    if name not in ("a double blank", "a reason outside ASCII"):
        assert read_as_the_client(ODD[name])[4] is False


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 32\r\nContent-Length: 33\r\n",
        b"Content-Length: -32\r\n",
        b"Content-Length: 0x20\r\n",
        b"Content-Length: 3 2\r\n",
        b"Content-Length: " + b"1" * 19 + b"\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ],
)
def test_body_that_cannot_be_read_whole_is_malformed(framing: bytes) -> None:
    """Tolerance ends where the body's end is not certain."""
    assert read_as_the_client(spell(framing=framing))[:2] == (Malformed, 200)


def test_failures_of_reading_have_words() -> None:
    """What the reader raises is what the client tells."""
    words = {kind: name_failure(kind("x")) for kind in (Malformed, Cut, ConnectionResetError)}
    assert words == {Malformed: "malformed", Cut: "cut", ConnectionResetError: "reset"}
