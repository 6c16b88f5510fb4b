"""Framing: bytes in any portions, whole messages out."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.wire.framing import MAX_HEADER_BYTES, BadFraming, Event, Framer, Oversize

MARK = b"\xef\xbb\xbf"
LIMIT = 16

LINE_PARTS = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"{",
        b"[",
        b"{}",
        b"\xe2\x80\xa8",
        MARK,
        b"Content-",
        b"x" * LIMIT,
        b"y" * 15,
    ]
)
HEADER_PARTS = st.sampled_from(
    [
        *(b"Content-Length: 2", b"content-length:3", b"CONTENT-LENGTH: 20", b"Content-Length: 0"),
        *(b"Content-Length: -1", b"Content-Length: 9e9", b"Content-Type: x", b"X-y:", b":"),
        *(b"\r\n", b"\n", b" ", b"{}", b"{}\n", b"x" * 20),
    ]
)


def cut(data: bytes, portions: list[int] | None = None, limit: int = LIMIT) -> tuple[list[Event], Framer]:
    """Feed a whole stream, in portions of the given sizes and then the rest, and end it."""
    framer = Framer(limit)
    events: list[Event] = []
    for size in portions or ():
        events += framer.feed(data[:size])
        data = data[size:]
    events += framer.feed(data)
    events += framer.end()
    return events, framer


def expected_lines(data: bytes) -> list[Event]:
    """Say in the simplest way what a stream of lines should give."""
    if data.removeprefix(MARK).strip(b" \t\r\n"):
        data = data.removeprefix(MARK)
    elif data.startswith(MARK):
        data = MARK  # an empty file
    events: list[Event] = []
    for line in data.split(b"\n"):
        line = line.removesuffix(b"\r")
        if len(line) > LIMIT:
            events.append(Oversize())
        elif line.strip(b" \t\r"):
            events.append(line)
    return events


@given(st.lists(LINE_PARTS).map(b"".join), st.lists(st.integers(0, 40)))
@example(b"", [])
def test_lines_come_out_the_same_however_the_stream_is_split(data: bytes, portions: list[int]) -> None:
    """Lines are cut at LF alone, whatever portions they arrive in."""
    if data.removeprefix(MARK).lower().startswith(b"content-"):
        data = b"x" + data
    assert cut(data, portions)[0] == expected_lines(data)
    assert cut(data, [1] * len(data))[0] == expected_lines(data)


@given(st.lists(HEADER_PARTS).map(b"".join), st.lists(st.integers(0, 40)), st.booleans())
def test_headers_come_out_the_same_however_the_stream_is_split(
    rest: bytes, portions: list[int], marked: bool
) -> None:
    """Messages behind headers do not depend on the portions they arrive in."""
    data = MARK * marked + b"Content-Length: 2\r\n\r\n[]" + rest
    whole, framer = cut(data)
    assert whole[0] == b"[]"
    assert framer.framing == "header"
    assert sum(isinstance(event, BadFraming) for event in whole) == framer.failed
    assert not any(isinstance(event, BadFraming) for event in whole[:-1])
    assert cut(data, portions)[0] == whole
    assert cut(data, [1] * len(data))[0] == whole


@given(st.lists(st.binary(min_size=1, max_size=LIMIT)), st.booleans(), st.lists(st.integers(0, 40)))
def test_what_is_framed_is_cut_into_the_same_messages(
    messages: list[bytes], headers: bool, portions: list[int]
) -> None:
    """Answers can be read by a reader of the framing they are written in."""
    framer = Framer(LIMIT)
    if headers:
        framer.feed(b"Content-Length")
    else:
        messages = [b"{" + message.replace(b"\n", b"").rstrip(b"\r") for message in messages]
    data = b"".join(framer.frame(message) for message in messages)
    assert cut(data, portions, LIMIT + 1)[0] == messages


def test_answers_are_lines_before_anything_was_seen() -> None:
    """Lines are the framing of a stream that has not begun."""
    framer = Framer(LIMIT)
    assert framer.framing == "line"
    assert framer.frame(b"{}") == b"{}\n"


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"cOnTeNt-lEnGtH"])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_content_header_of_any_case_means_header_framing(name: bytes, line_end: bytes) -> None:
    """Case and line end do not matter, other headers are ignored, and answers get headers too."""
    head = (
        b"Content-Type: a; charset=utf-16" + line_end + name + b":\t 002 " + line_end + b"X-Trace:" + line_end
    )
    events, framer = cut((head + line_end + b"{}") * 2)
    assert events == [b"{}", b"{}"]
    assert framer.framing == "header"
    assert framer.frame(b"[]") == b"Content-Length: 2\r\n\r\n[]"


@pytest.mark.parametrize(
    "start", [b"{}\n", b"\n", b" Content-Length: 2\n", b"Content_Length\n", b"C\n", MARK + b"1\n"]
)
def test_any_other_start_means_lines_for_good(start: bytes) -> None:
    """Once the first bytes meant lines, a header is but a line."""
    events, framer = cut(start + b"Content-Length: 2\n\n{}", limit=100)
    assert framer.framing == "line"
    assert events[-2:] == [b"Content-Length: 2", b"{}"]


def test_a_first_message_is_not_held_back() -> None:
    """A line is handed over as soon as its LF has arrived, and an empty body with its header."""
    framer = Framer(LIMIT)
    assert framer.feed(b"{") == []
    assert framer.feed(b"}\n[") == [b"{}"]
    assert Framer(LIMIT).feed(b"Content-Length: 0\r\n\r\n") == [b""]


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        # What might have become a mark or a header is a line when nothing follows.
        *((data, [data]) for data in (b"\xef", b"\xef\xbb", b"Content", b"c", MARK + b"conT")),
        # A mark at the start is dropped in both framings, and there alone.
        *((MARK + data, [b"{}"]) for data in (b"{}\n", b"{}", b"Content-Length: 2\r\n\r\n{}")),
        (b"1\n" + MARK + b"2\n", [b"1", MARK + b"2"]),
        (MARK + MARK + b"2\n", [MARK + b"2"]),
        # An empty file with a mark is not JSON, and its sender should hear so.
        *((MARK + data, [MARK]) for data in (b"", b"\n", b"\r\n", b" \n\n")),
        *((MARK + data + b"{}", [b"{}"]) for data in (b"\n", b"\r\n", b" \n\n")),
        # Headers that announce nothing announce a message that is not JSON.
        (b"Content-Length: 0\r\n\r\nContent-Length: 1\r\n\r\n1", [b"", b"1"]),
        # A line end too many behind a body does no harm.
        (b"Content-Length: 1\r\n\r\n1\r\n\n\r\nContent-Length: 1\r\n\r\n2\r\n", [b"1", b"2"]),
        # Repeating a length does not contradict it.
        (b"Content-Length: 1\r\nContent-Length: 01\r\n\r\n1", [b"1"]),
    ],
)
def test_marks_ends_and_odd_headers_are_understood(data: bytes, messages: list[bytes]) -> None:
    """What is unusual, and allowed, is cut as it is meant."""
    assert cut(data, limit=100)[0] == messages


@pytest.mark.parametrize("bracket", [b"{", b"[", b" {\r"])
def test_a_lone_bracket_is_noticed_and_handed_over(bracket: bytes) -> None:
    """A line that only opens something is a message, and a sign of indented JSON."""
    events, framer = cut(bracket + b"\n")
    assert events == [bracket.removesuffix(b"\r")]
    assert framer.saw_lone_bracket
    assert not cut(b"{}\n}\n]\n")[1].saw_lone_bracket


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_lines_over_the_limit_are_dropped_and_service_goes_on(line_end: bytes, step: int) -> None:
    """A line as long as allowed passes, one byte more gives one event, and the next line passes."""
    data = (
        b"a" * LIMIT + b"\r\n" + b"b" * (LIMIT + 1) + b"\n" + b"c" * 500 + b"\nd\n" + b"e" * LIMIT + line_end
    )
    events, framer = cut(data, [step] * (len(data) // step))
    assert events == [b"a" * LIMIT, Oversize(), Oversize(), b"d", b"e" * LIMIT]
    assert not framer.failed


def test_an_overlong_line_is_told_before_it_ends_and_once() -> None:
    """The event comes with the first byte too many; the end of the stream adds nothing."""
    framer = Framer(LIMIT)
    assert framer.feed(b"a" * (LIMIT + 2)) == [Oversize()]
    assert framer.feed(b"a" * 1000) == []
    assert framer.end() == []


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bodies_over_the_limit_are_dropped_and_service_goes_on(step: int) -> None:
    """A body over the limit gives one event, and the message behind it passes."""
    frame = Framer(LIMIT)
    frame.feed(b"Content-Length")
    data = b"".join(frame.frame(body) for body in (b"a" * LIMIT, b"b" * (LIMIT + 1), b"c" * 500, b"d"))
    events, framer = cut(data, [step] * (len(data) // step))
    assert events == [b"a" * LIMIT, Oversize(), Oversize(), b"d"]
    assert not framer.failed


@pytest.mark.parametrize("start", [b"[", b"Content-Length: 100000000\r\n\r\n"])
def test_memory_stays_flat_while_an_oversize_message_arrives(start: bytes) -> None:
    """A hundred megabytes over a limit of one leave no trace in memory."""
    framer = Framer(1 << 20)
    chunk = b"x" * 65536
    tracemalloc.start()
    events = framer.feed(start)
    for _ in range(1500):
        events += framer.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert events == [Oversize()]
    assert peak < 4 << 20


def test_a_long_message_in_single_bytes_takes_linear_time() -> None:
    """A message of half a megabyte may arrive byte by byte (quadratic work would take minutes)."""
    framer = Framer(1 << 20)
    for _ in range(500_000):
        assert framer.feed(b"x") == []
    assert framer.feed(b"\n") == [b"x" * 500_000]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"Content-Type: x\r\n\r\n", "length"),
        (b"Content-Length: -1\r\n", "length"),
        (b"Content-Length: +1\r\n", "length"),
        (b"Content-Length: 1.0\r\n", "length"),
        (b"Content-Length: 0x1\r\n", "length"),
        (b"Content-Length: \r\n", "length"),
        (b"Content-Length: 1, 1\r\n", "length"),
        (b"Content-Length: \xd9\xa1\r\n", "length"),
        (b"Content-Length: 1000000000000000\r\n", "length"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", "length"),
        (b"Content-Type\r\n", "header"),
        (b"Content-Length: 1\r\n folded: 1\r\n", "header"),
        (b"Content-Length: 1\r\n: 1\r\n", "header"),
        (b'Content-Length: 1\r\n{"id": 1}\r\n', "header"),
        (b"Content-Type: " + b"x" * MAX_HEADER_BYTES, "header"),
        (b"Content-Type: x\r\n" + b"X-Y: z\r\n" * 2000, "header"),
        (b"Content-", "truncated"),
        (b"Content-Length: 1", "truncated"),
        (b"Content-Length: 1\r\n", "truncated"),
        (b"Content-Length: 1\r\n\r\n", "truncated"),
        (b"Content-Length: 9\r\n\r\n{}", "truncated"),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_cannot_be_cut_is_one_error_and_the_end(head: bytes, reason: str) -> None:
    """Headers that cannot be trusted end the stream; what came before them counts."""
    data = b"Content-Length: 2\r\n\r\n{}" + head
    for portions in ([], [1] * len(data)):
        events, framer = cut(data, portions)
        assert events == [b"{}", BadFraming(reason)]
        assert framer.failed
        assert framer.feed(b"\r\n\r\nContent-Length: 2\r\n\r\n{}") == []
        assert framer.end() == []


def test_a_header_block_as_long_as_allowed_is_accepted() -> None:
    """The limit of the header block is not met by a block of that length."""
    first = b"Content-Length: 1\r\n"
    filler = b"X-Y: " + b"z" * (MAX_HEADER_BYTES - len(first) + 1 - len(b"X-Y: \r") - len(b"\r")) + b"\r\n"
    assert cut(first + filler + b"\r\n1")[0] == [b"1"]
    assert cut(first + b"z" + filler + b"\r\n1")[0] == [BadFraming("header")]


@pytest.mark.parametrize("size", [0, 100])
def test_a_dropped_body_cut_short_is_told_once(size: int) -> None:
    """A stream that ends inside an oversize body adds no second error."""
    assert cut(b"Content-Length: 1000\r\n\r\n" + b"x" * size)[0] == [Oversize()]
