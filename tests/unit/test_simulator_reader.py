"""HTTP requests out of bytes, good and bad."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.reader import BadRequest, Request, RequestReader

PLAIN = b'POST /m HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = (
    b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\nTrailer: t\r\n\r\n'
)
BARE = b"GET /_control/log?since=3 HTTP/1.0\r\n\r\n"


def read_all(*pieces: bytes) -> list[Request]:
    """Feed pieces and take every request they make."""
    reader = RequestReader()
    requests = []
    for piece in pieces:
        reader.feed(piece)
        while (request := reader.take()) is not None:
            requests.append(request)
    return requests


@pytest.mark.parametrize("sent", [PLAIN, CHUNKED, BARE])
def test_request_arrives_in_any_pieces(sent: bytes) -> None:
    """A request is the same whether it comes at once or byte by byte."""
    whole = read_all(sent)
    assert len(whole) == 1
    assert read_all(*(sent[at : at + 1] for at in range(len(sent)))) == whole


def test_body_and_head_are_told_apart() -> None:
    """Both ways to say a body's length give the same body."""
    plain, chunked = read_all(PLAIN)[0], read_all(CHUNKED)[0]
    assert plain.body == chunked.body == b'{"a":1}'
    assert (plain.verb, plain.target) == ("POST", "/m")
    assert plain.headers == (("Host", "x"), ("Content-Length", "7"))
    assert chunked.headers == (("Transfer-Encoding", "chunked"),)


def test_pipelined_requests_come_out_one_by_one() -> None:
    """Requests that arrive together are taken in their order."""
    told = [request.target for request in read_all(PLAIN + CHUNKED + b"\r\n" + BARE)]
    assert told == ["/m", "/m", "/_control/log?since=3"]


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"HTTP/1.1\r\n\r\n", True),
        (b"HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0\r\n\r\n", False),
        (b"HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive_follows_version_and_header(head: bytes, keeps: bool) -> None:
    """HTTP/1.1 keeps the connection unless told otherwise, HTTP/1.0 the other way round."""
    assert read_all(b"GET / " + head)[0].keep_alive is keeps


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\n", 400),
        (b"hello\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"POST /m\r\n\r\n", 400),
        (b"post /m HTTP/1.1\r\n\r\n", 400),
        (b"POST /m HTTP/2.0\r\n\r\n", 505),
        (b"POST /m HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * 1_048_577, 413),
        (b"POST /m HTTP/3.0\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nX : y\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\nX: a\0b\r\n\r\n", 400),
        (b"\n\n\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 400),
        (b"POST /m HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 431),
        (b"POST /" + b"m" * 40_000, 431),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000, 400),
        (b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"x" * 40_000, 431),
        (b"POST /m HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
    ],
)
def test_bad_request_names_a_status(sent: bytes, status: int) -> None:
    """What is no request is refused with a fitting status."""
    with pytest.raises(BadRequest) as caught:
        read_all(sent)
    assert caught.value.status == status


def test_offer_of_another_protocol_is_not_taken() -> None:
    """A client that offers HTTP/2 and sends its request all the same is read as if it did not offer."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAE\r\n"
    first, second = read_all(PLAIN.replace(b"Host: x\r\n", offer) + PLAIN)
    assert (first.body, first.keep_alive) == (b'{"a":1}', True)
    assert second.headers == (("Host", "x"), ("Content-Length", "7"))


def test_continue_is_wanted_once() -> None:
    """A client that waits for a 100 is noticed once, and its body is read after that."""
    reader = RequestReader()
    reader.feed(b"POST /m HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.take() is None
    assert [reader.expects_continue(), reader.expects_continue()] == [True, False]
    reader.feed(b"{}")
    request = reader.take()
    assert request is not None
    assert request.body == b"{}"


@given(st.lists(st.binary(max_size=60) | st.sampled_from([PLAIN, CHUNKED, BARE]), max_size=6))
def test_nothing_but_bad_request_is_raised(pieces: list[bytes]) -> None:
    """Any bytes are requests, too few, or a `BadRequest`."""
    with suppress(BadRequest):
        assert all(request.verb.isupper() for request in read_all(*pieces))
