"""What the client makes of a server that misbehaves, over real loopback sockets."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge import __version__
from bridge.core.model import Exchange
from bridge.core.redact import Secret
from bridge.engine import Engine, NoResources
from bridge.reports.verdict import judge
from bridge.upstream.client import Client, report_body
from bridge.upstream.connecting import make_tls_context
from bridge.upstream.streams import SocketStream
from tests.authority import Authority
from tests.faultserver import (
    ACCEPTED,
    FaultServer,
    Peer,
    Script,
    answer_and_close,
    answer_once,
    serve_forever,
    spell_answer,
)
from tests.oddheads import ODD, spell
from tests.world import raise_bug

KEY = Secret("canary-0123456789abcdef-canary")
METHOD = "reportIncorrectRecaptcha"
HEAD = b"HTTP/1.1 200 OK\r\n"
SOON_S = 0.5
AT_MOST_S = 2.0


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The engine that runs in the test's own greenlet."""
    return Engine(raise_bug)


@pytest.fixture
def make_client(engine: Engine) -> Iterator[Callable[..., Client]]:
    """Make clients that are closed after the test."""
    clients: list[Client] = []

    def make(url: str, **settings: Any) -> Client:
        defaults: dict[str, Any] = {
            "ca_file": None,
            "proxy": None,
            "connect_timeout_s": 5.0,
            "concurrency": 8,
        }
        told: Any = SimpleNamespace(**(defaults | settings))
        clients.append(Client(engine, url, told))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def send(
    client: Client,
    task_id: int = 7,
    deadline_s: float = 10.0,
    connect_by_s: float = 30.0,
    *,
    fresh: bool = False,
    key: Secret = KEY,
) -> Exchange:
    """Send one report."""
    now = client._now()
    body = report_body(key, task_id)
    return client.send(METHOD, body, until=now + deadline_s, leave_by=lambda: now + connect_by_s, fresh=fresh)


def send_together(engine: Engine, client: Client, count: int, **options: Any) -> list[Exchange]:
    """Send reports at once, each in a greenlet of its own."""
    exchanges: list[Exchange] = []
    everyone = engine.waiter()

    def run() -> None:
        exchanges.append(send(client, **options))
        if len(exchanges) == count:
            everyone.wake()

    for _ in range(count):
        engine.spawn(run)
    everyone.wait()
    return exchanges


# --- the request ------------------------------------------------------------------------------------


def test_request_is_exact_and_leaves_at_once(make_client: Callable[..., Client]) -> None:
    """Head and body are exactly as promised and arrive in one piece."""
    with FaultServer(serve_forever) as server:
        exchange = send(make_client(server.url), 2**53 - 1)
    assert exchange[:5] == (None, True, 200, {"content-length": "32"}, ACCEPTED)
    assert not exchange.oversize
    assert not exchange.reused
    assert 0.0 < exchange.elapsed_s < 10.0
    head, _, body = server.pieces[0].partition(b"\r\n\r\n")
    assert len(server.pieces) == 1
    assert body == b'{"clientKey":"%b","taskId":9007199254740991}' % KEY.reveal().encode()
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST /{METHOD} HTTP/1.1"
    assert lines[1] == f"Host: 127.0.0.1:{server.port}"
    assert sorted(lines[2:]) == [
        "Accept-Encoding: identity",
        "Accept: application/json",
        "Connection: keep-alive",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
        f"User-Agent: anticaptcha-report-bridge/{__version__}",
    ]


def test_path_of_the_base_url_is_kept(make_client: Callable[..., Client]) -> None:
    """The method's name is added to the base URL's path, with one slash."""
    with FaultServer(serve_forever) as server:
        send(make_client(server.url + "/v1/api/"))
        send(make_client(server.url + "/"))
    assert [request.split(b" ")[1].decode() for request in server.requests] == [
        f"/v1/api/{METHOD}",
        f"/{METHOD}",
    ]


def test_key_is_spelled_as_json(make_client: Callable[..., Client]) -> None:
    """A key of any visible ASCII characters arrives as it is."""
    visible = "".join(chr(code) for code in range(33, 127))
    with FaultServer(serve_forever) as server:
        send(make_client(server.url), 1, key=Secret(visible))
    body = server.requests[0].partition(b"\r\n\r\n")[2]
    assert json.loads(body) == {"clientKey": visible, "taskId": 1}


# --- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Again", "308 Always"])
def test_redirect_is_an_answer(make_client: Callable[..., Client], status: str) -> None:
    """A redirect is handed on and followed nowhere, wherever it points."""
    with FaultServer(serve_forever) as other:
        redirect = answer_once(spell_answer(b"", status, f"Location: {other.url}/x", "Set-Cookie: a=b"))
        with FaultServer(redirect) as server:
            exchange = send(make_client(server.url))
        assert (exchange.failure, exchange.status) == (None, int(status[:3]))
        assert exchange.headers["location"] == f"{other.url}/x"
        assert (len(server.requests), other.connections) == (1, 0)


def test_no_cookie_is_kept(make_client: Callable[..., Client]) -> None:
    """A cookie that is set does not come back with the next report."""

    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(spell_answer(ACCEPTED, "200 OK", "Set-Cookie: tracking=1"))

    with FaultServer(script) as server:
        client = make_client(server.url)
        send(client)
        send(client)
    assert b"tracking" not in server.requests[1]


def test_compressed_answer_is_left_alone(make_client: Callable[..., Client]) -> None:
    """A compressed bomb arrives as the few bytes it is, with its header."""
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert len(bomb) < 65536
    with FaultServer(answer_once(spell_answer(bomb, "200 OK", "Content-Encoding: gzip"))) as server:
        exchange = send(make_client(server.url))
    assert exchange.body == bomb
    assert exchange.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("status", ["401 No", "500 Oops", "503 Busy", "204 Nothing"])
def test_any_status_is_handed_on(make_client: Callable[..., Client], status: str) -> None:
    """Statuses are facts, never exceptions."""
    lines = ("Retry-After: 3", "X-A: 1", "x-a: 2")
    with FaultServer(answer_once(spell_answer(b"", status, *lines))) as server:
        exchange = send(make_client(server.url))
    assert (exchange.failure, exchange.status, exchange.body) == (None, int(status[:3]), b"")
    assert exchange.headers["retry-after"] == "3"
    assert exchange.headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 300000\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n493e0\r\n"],
    ids=["length", "close", "chunked"],
)
def test_long_body_is_cut_at_the_limit(make_client: Callable[..., Client], head: bytes) -> None:
    """Only 64 KiB of a longer body are read, and the connection is not used again."""
    with FaultServer(answer_once(HEAD + head + b"x" * 300_000)) as server:
        client = make_client(server.url)
        exchange = send(client)
    assert (exchange.failure, exchange.status, exchange.oversize) == (None, 200, True)
    assert exchange.body == b"x" * 65536
    assert client._adapter.idle == []


def test_longest_body_is_whole(make_client: Callable[..., Client]) -> None:
    """A body of exactly 64 KiB is not too long."""
    with FaultServer(answer_once(spell_answer(b"x" * 65536))) as server:
        exchange = send(make_client(server.url))
    assert (len(exchange.body), exchange.oversize) == (65536, False)


def test_interim_answers_are_skipped(make_client: Callable[..., Client]) -> None:
    """A few 1xx answers of any kind before the final one do not matter."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 102 Wait\r\n\r\n"
    with FaultServer(answer_once(interim + spell_answer())) as server:
        client = make_client(server.url)
        exchange = send(client)
        assert len(client._adapter.idle) == 1
    assert (exchange.failure, exchange.status, exchange.body) == (None, 200, ACCEPTED)
    assert "link" not in exchange.headers


def test_switch_of_protocol_is_an_answer(make_client: Callable[..., Client]) -> None:
    """101, which nobody asked for, is final and ends the connection."""
    with FaultServer(answer_once(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nxxx")) as server:
        client = make_client(server.url)
        exchange = send(client)
    assert (exchange.failure, exchange.status, exchange.body) == (None, 101, b"")
    assert len(client._adapter.idle) == 0


# --- faults after the request left ------------------------------------------------------------------

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

ENDED = [
    ("nothing", b"", "reset", None),
    ("half a status line", b"HTTP/1.1 2", "cut", None),
    ("half a head", HEAD + b"Content-Le", "cut", 200),
    ("half a body", HEAD + b"Content-Length: 10\r\n\r\nhalf", "cut", 200),
    ("no body", HEAD + b"Content-Length: 10\r\n\r\n", "cut", 200),
    ("half a chunk", CHUNKED + b"a\r\nhalf", "cut", 200),
    ("no last chunk", CHUNKED + b"4\r\nhalf\r\n", "cut", 200),
    ("half an error", b"HTTP/1.1 502 Bad\r\nContent-Length: 10\r\n\r\nhalf", "cut", 502),
]
GARBLED = [
    ("noise", b"\x00\x01\x02 noise\r\n\r\n", None),
    ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n", None),
    ("HTTP/2", b"HTTP/2 200\r\n\r\n", None),
    ("no status", b"HTTP/1.1 OK\r\n\r\n", None),
    ("low status", b"HTTP/1.1 099 Low\r\n\r\n", None),
    ("a long line", HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 200),
    ("a long status line", b"HTTP/1.1 200 " + b"x" * 70_000, None),
    ("too many lines", HEAD + b"X: 1\r\n" * 11_000 + b"\r\n", 200),
    ("no length", HEAD + b"Content-Length: five\r\n\r\nhello", 200),
    ("a negative length", HEAD + b"Content-Length: -5\r\n\r\nhello", 200),
    ("two lengths", HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 200),
    ("a strange coding", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 200),
    ("no chunk size", CHUNKED + b"zz\r\nhello\r\n", 200),
    ("interim answers without end", b"HTTP/1.1 100 Continue\r\n\r\n" * 20, None),
]


@pytest.mark.parametrize(("data", "failure", "status"), [row[1:] for row in ENDED], ids=[r[0] for r in ENDED])
def test_answer_that_ends_early(
    make_client: Callable[..., Client], data: bytes, failure: str, status: int | None
) -> None:
    """An answer that ends early is told as cut, or as reset if there was none, with the status read."""
    with FaultServer(answer_and_close(data)) as server:
        client = make_client(server.url)
        exchange = send(client)
    assert exchange[:3] == (failure, True, status)
    assert exchange.body == b""
    assert len(client._adapter.idle) == 0


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in GARBLED], ids=[row[0] for row in GARBLED])
@pytest.mark.parametrize("ending", [answer_and_close, answer_once], ids=["closed", "open"])
def test_answer_that_is_not_http(
    make_client: Callable[..., Client], data: bytes, status: int | None, ending: Callable[[bytes], Script]
) -> None:
    """What is not HTTP is malformed at once, whether the connection ends or not."""
    with FaultServer(ending(data)) as server:
        client = make_client(server.url)
        exchange = send(client)
    assert exchange[:3] == ("malformed", True, status)
    assert exchange.elapsed_s < 9.0
    assert len(client._adapter.idle) == 0


def test_noise_without_a_line_is_not_http(make_client: Callable[..., Client]) -> None:
    """Noise that ends before any line does is malformed, not cut."""
    with FaultServer(answer_and_close(b"noise")) as server:
        exchange = send(make_client(server.url))
    assert exchange[:3] == ("malformed", True, None)


def test_reset_before_the_answer(make_client: Callable[..., Client]) -> None:
    """A reset is told as reset; the report may have been taken."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.reset()

    with FaultServer(script) as server:
        exchange = send(make_client(server.url))
    assert exchange[:3] == ("reset", True, None)


def test_reset_inside_the_answer(make_client: Callable[..., Client]) -> None:
    """A reset inside the body keeps the status and the header lines."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(HEAD + b"Date: today\r\nContent-Length: 10\r\n\r\nhalf")
        peer.server.is_over.wait(0.2)
        peer.reset()

    with FaultServer(script) as server:
        exchange = send(make_client(server.url))
    assert exchange[:3] == ("reset", True, 200)
    assert exchange.headers["date"] == "today"


DRIPS = [  # what is sent at once, what then drips, the status read
    ("silence", b"", b"", None),
    ("header lines", HEAD, b"X: 1\r\n", 200),
    ("one header line", HEAD + b"X: ", b"x", 200),
    ("status line", b"HTTP/1.1 200 ", b"x", None),
    ("body", HEAD + b"Content-Length: 1000\r\n\r\n", b"x", 200),
    ("body without length", HEAD + b"\r\n", b"x", 200),
    ("chunks", CHUNKED, b"1\r\nx\r\n", 200),
    ("chunk extension", CHUNKED + b"1;", b"x", 200),
    ("trailers", CHUNKED + b"0\r\n", b"X: 1\r\n", 200),
    ("interim answers", b"", b"HTTP/1.1 102 Wait\r\n\r\n", None),
    ("continue", b"", b"HTTP/1.1 100 Continue\r\n\r\n", None),
]


@pytest.mark.parametrize(("first", "drip", "status"), [row[1:] for row in DRIPS], ids=[r[0] for r in DRIPS])
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_no_drip_outlasts_the_deadline(
    make_client: Callable[..., Client],
    authority: Authority,
    first: bytes,
    drip: bytes,
    status: int | None,
    is_tls: bool,
) -> None:
    """However slowly bytes keep coming, the attempt ends at its deadline."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(first)
        peer.drip(cycle(drip))
        peer.hold()

    with FaultServer(script, authority.serve("127.0.0.1") if is_tls else None) as server:
        client = make_client(server.url, ca_file=authority.ca_file)
        exchange = send(client, deadline_s=SOON_S)
    assert exchange[:3] == ("timeout", True, status)
    assert SOON_S * 0.9 < exchange.elapsed_s < AT_MOST_S
    assert len(client._adapter.idle) == 0


@pytest.mark.parametrize(
    "flood",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nX: 1\r\n\r\n"],
)
def test_flood_of_interim_answers_ends_at_once(make_client: Callable[..., Client], flood: bytes) -> None:
    """Interim answers at full speed are given up after a few."""

    def script(peer: Peer) -> None:
        peer.read_request()
        while not peer.server.is_over.is_set():
            peer.send(flood * 100)

    with FaultServer(script) as server:
        exchange = send(make_client(server.url), deadline_s=20.0)
    assert exchange[:3] == ("malformed", True, None)
    assert exchange.elapsed_s < 10.0


def test_flood_of_trailers_ends_by_length(make_client: Callable[..., Client]) -> None:
    """What is read for one answer is bounded, also where the body is not growing."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(CHUNKED + b"0\r\n")
        while not peer.server.is_over.is_set():
            peer.send(b"X: 1\r\n" * 1000)

    with FaultServer(script) as server:
        exchange = send(make_client(server.url), deadline_s=20.0)
    assert exchange[:3] == ("malformed", True, 200)
    assert exchange.elapsed_s < 10.0


# --- keeping connections ----------------------------------------------------------------------------


def test_connection_is_kept(make_client: Callable[..., Client]) -> None:
    """A hundred reports one after another take one connection."""
    with FaultServer(serve_forever) as server:
        client = make_client(server.url)
        exchanges = [send(client, number) for number in range(1, 101)]
        assert len(client._adapter.idle) == 1
        assert server.connections == 1
    assert all(exchange.failure is None for exchange in exchanges)
    assert [exchange.reused for exchange in exchanges] == [False] + [True] * 99


def test_chunked_answers_keep_the_connection(make_client: Callable[..., Client]) -> None:
    """Chunks, extensions and trailers are read to their end, so the connection stays usable."""

    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(CHUNKED + b'10;x=y\r\n{"errorId":0,"st\r\n10\r\natus":"success"}\r\n0\r\nX: 1\r\n\r\n')

    with FaultServer(script) as server:
        client = make_client(server.url)
        assert [send(client).body for _ in range(5)] == [ACCEPTED] * 5
        assert server.connections == 1


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_connection_closed_between_reports_is_noticed(
    make_client: Callable[..., Client], authority: Authority, is_tls: bool
) -> None:
    """A connection the server closed while it was idle is replaced before anything is sent."""
    is_closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(spell_answer())
        peer.sock.shutdown(socket.SHUT_RDWR)
        is_closed.set()

    with FaultServer(script, authority.serve("127.0.0.1") if is_tls else None) as server:
        client = make_client(server.url, ca_file=authority.ca_file)
        for number in range(5):
            is_closed.clear()
            exchange = send(client, number)
            assert (exchange.failure, exchange.reused) == (None, False)
            assert is_closed.wait(10)
        assert server.connections == 5


@pytest.mark.parametrize(
    "answer",
    [
        spell_answer() + b"surplus",
        spell_answer(ACCEPTED, "200 OK", "Connection: close"),
        spell_answer(ACCEPTED, "200 OK", "Connection: Keep-Alive, Close"),
        spell_answer(ACCEPTED, "200 OK", "Keep-Alive: timeout=1"),
        spell_answer().replace(b"HTTP/1.1", b"HTTP/1.0"),
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n") + b"1\r\nx\r\n0\r\n\r\n",
    ],
    ids=["surplus", "close", "close among others", "short keep-alive", "HTTP/1.0", "two framings"],
)
def test_doubtful_connection_is_not_kept(make_client: Callable[..., Client], answer: bytes) -> None:
    """After an answer that leaves any doubt the next report takes a new connection."""

    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(answer)

    with FaultServer(script) as server:
        client = make_client(server.url)
        assert send(client).failure is None
        assert len(client._adapter.idle) == 0
        assert send(client).failure is None
        assert server.connections == 2


def test_late_surplus_discards_the_connection(make_client: Callable[..., Client]) -> None:
    """Bytes that come while nothing was asked are never taken for an answer."""
    has_spoken = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(spell_answer())
        peer.server.is_over.wait(0.1)
        peer.send(spell_answer(b'{"errorId":99}'))
        has_spoken.set()
        peer.hold()

    with FaultServer(script) as server:
        client = make_client(server.url)
        send(client)
        assert has_spoken.wait(10)
        assert send(client).body == ACCEPTED
        assert server.connections == 2


def test_pool_keeps_no_more_than_its_size(make_client: Callable[..., Client], engine: Engine) -> None:
    """Many at once are all served; afterwards only as many connections as allowed stay."""
    everyone = threading.Barrier(40)

    def script(peer: Peer) -> None:
        peer.read_request()
        everyone.wait(20)
        peer.send(spell_answer())
        peer.hold()

    with FaultServer(script) as server:
        client = make_client(server.url, concurrency=4)
        exchanges = send_together(engine, client, 40, deadline_s=30.0)
        assert (server.connections, len(client._adapter.idle)) == (40, 4)
    assert [exchange.failure for exchange in exchanges] == [None] * 40


def test_closed_client_keeps_nothing(make_client: Callable[..., Client]) -> None:
    """After close, idle connections are gone and those that come back are closed."""
    with FaultServer(serve_forever) as server:
        client = make_client(server.url)
        send(client)
        client.close()
        assert client._adapter.idle == []
        assert send(client).failure is None
        assert len(client._adapter.idle) == 0


# --- before the request leaves ----------------------------------------------------------------------


def test_refused_connection(make_client: Callable[..., Client]) -> None:
    """A closed port is told as connect; nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    exchange = send(make_client(f"http://127.0.0.1:{port}"))
    assert exchange[:3] == ("connect", False, None)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose queue of connections is full, so that connecting takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize(
    ("connect_timeout_s", "deadline_s", "connect_by_s"),
    [(SOON_S, 10.0, 10.0), (10.0, SOON_S, 10.0), (10.0, 10.0, SOON_S)],
    ids=["connect timeout", "deadline", "window"],
)
def test_endless_connecting_is_bounded(
    make_client: Callable[..., Client],
    black_hole: int,
    connect_timeout_s: float,
    deadline_s: float,
    connect_by_s: float,
) -> None:
    """Connecting is cut to the shortest of the three limits."""
    client = make_client(f"http://127.0.0.1:{black_hole}", connect_timeout_s=connect_timeout_s)
    exchange = send(client, deadline_s=deadline_s, connect_by_s=connect_by_s)
    assert exchange[:3] == ("connect", False, None)
    assert exchange.elapsed_s < AT_MOST_S


def test_window_that_is_over_lets_no_byte_out(make_client: Callable[..., Client]) -> None:
    """A connection at hand is not enough: past the window's end nothing leaves."""
    with FaultServer(serve_forever) as server:
        client = make_client(server.url)
        send(client)
        exchange = send(client, connect_by_s=0.0)
        assert exchange[:3] == ("window", False, None)
        assert send(client).failure is None
    assert len(server.requests) == 2


def test_deadline_that_is_over_lets_no_byte_out(make_client: Callable[..., Client]) -> None:
    """A deadline of nothing ends the attempt before it begins, with a connection at hand or without."""
    with FaultServer(serve_forever) as server:
        client = make_client(server.url)
        send(client)
        exchange = send(client, deadline_s=0.0)
        assert exchange[:3] == ("timeout", False, None)
        assert send(make_client(server.url), deadline_s=0.0)[:3] == ("connect", False, None)
    assert len(server.requests) == 1


# --- names ------------------------------------------------------------------------------------------

Rows = list[tuple[Any, ...]]


def patch_names(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[str], Rows]) -> None:
    """Put a function in the place of the system's resolver, for names only."""
    real = socket.getaddrinfo

    def fake(host: str, port: int, *args: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(host, port, *args, **options)
        return look_up(host)

    monkeypatch.setattr(socket, "getaddrinfo", fake)


def spell_rows(*ports: int) -> Rows:
    """Spell what the resolver says, for ports on loopback."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), OSError("no")]
)
def test_unknown_name(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A name that is not found is told as dns and asked for again next time."""
    asked: list[str] = []

    def look_up(host: str) -> Rows:
        asked.append(host)
        raise error

    patch_names(monkeypatch, look_up)
    client = make_client("https://upstream.invalid")
    assert send(client)[:3] == ("dns", False, None)
    assert send(client)[:3] == ("dns", False, None)
    assert asked == ["upstream.invalid"] * 2


def test_slow_name_lookup_is_bounded(
    make_client: Callable[..., Client], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that hangs ends the attempt in time, and many attempts share one lookup."""
    asked: list[str] = []
    is_over = threading.Event()

    def look_up(host: str) -> Rows:
        asked.append(host)
        is_over.wait(30)
        return []

    patch_names(monkeypatch, look_up)
    client = make_client("https://upstream.invalid", connect_timeout_s=SOON_S)
    exchanges = send_together(engine, client, 20)
    is_over.set()
    assert [exchange[:3] for exchange in exchanges] == [("dns", False, None)] * 20
    assert all(exchange.elapsed_s < AT_MOST_S for exchange in exchanges)
    assert len(asked) == 1


def test_name_is_kept_for_a_while(
    make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """A burst of new connections asks for the name once."""
    asked: list[str] = []
    with FaultServer(serve_forever, authority.serve("upstream.test")) as server:

        def look_up(host: str) -> Rows:
            asked.append(host)
            return spell_rows(server.port)

        patch_names(monkeypatch, look_up)
        client = make_client("https://upstream.test", ca_file=authority.ca_file, concurrency=0)
        assert [send(client).failure for _ in range(4)] == [None] * 4
        assert server.connections == 4
    assert asked == ["upstream.test"]


def test_address_that_swallows_everything_leaves_time_for_the_next(
    make_client: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
    authority: Authority,
    black_hole: int,
) -> None:
    """Each address has its share of the time, and one that answered is tried first from then on."""
    with FaultServer(serve_forever, authority.serve("upstream.test")) as server:
        patch_names(monkeypatch, lambda host: spell_rows(black_hole, server.port))
        client = make_client(
            "https://upstream.test", ca_file=authority.ca_file, concurrency=0, connect_timeout_s=8.0
        )
        assert send(client).failure is None
        second = send(client)
    assert second.failure is None
    assert second.elapsed_s < 3.9


# --- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def test_verified_connection_is_kept(make_client: Callable[..., Client], authority: Authority) -> None:
    """Reports over TLS share one connection."""
    with FaultServer(serve_forever, authority.serve("127.0.0.1")) as server:
        client = make_client(server.url, ca_file=authority.ca_file)
        client.warm_up()
        assert [send(client).body for _ in range(20)] == [ACCEPTED] * 20
        assert (server.connections, len(client._adapter.idle)) == (1, 1)


def test_bad_certificates_are_refused(
    make_client: Callable[..., Client], authority: Authority, stranger: Authority
) -> None:
    """An expired, foreign, self-made or misnamed certificate ends the attempt before anything is sent."""
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
    contexts = {
        "expired": authority.serve("127.0.0.1", not_before=past, not_after=past + datetime.timedelta(days=1)),
        "name": authority.serve("other.test"),
        "issuer": stranger.serve("127.0.0.1"),
        "self-signed": stranger.serve_self_signed(),
    }
    for name, context in contexts.items():
        with FaultServer(serve_forever, context) as server:
            exchange = send(make_client(server.url, ca_file=authority.ca_file))
        assert (name, *exchange[:3]) == (name, "certificate", False, None)
        assert server.requests == []


def test_usual_certificates_do_not_vouch_for_a_stranger(
    make_client: Callable[..., Client], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a CA file the usual ones count, whatever the environment says."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, authority.ca_file)
    with FaultServer(serve_forever, authority.serve("127.0.0.1")) as server:
        exchange = send(make_client(server.url))
    assert exchange[:2] == ("certificate", False)


@pytest.mark.parametrize(
    "script",
    [
        lambda peer: peer.hold(),
        lambda peer: peer.drip(repeat(22)),
        lambda peer: peer.drip(b"\x16\x03\x03\x40\x00" * 99),
    ],
    ids=["silent", "dripping", "dripping a record"],
)
def test_slow_handshake_is_bounded(
    make_client: Callable[..., Client], authority: Authority, script: Script
) -> None:
    """A handshake that does not end is told as tls within the connect time."""
    with FaultServer(script) as server:
        client = make_client(
            f"https://127.0.0.1:{server.port}", ca_file=authority.ca_file, connect_timeout_s=SOON_S
        )
        exchange = send(client)
    assert exchange[:3] == ("tls", False, None)
    assert exchange.elapsed_s < AT_MOST_S


@pytest.mark.parametrize(
    "ending",
    [lambda peer: None, lambda peer: peer.reset(), lambda peer: peer.send(b"HTTP/1.1 400 Plain\r\n\r\n")],
    ids=["closed", "reset", "plain http"],
)
def test_failed_handshake(make_client: Callable[..., Client], authority: Authority, ending: Script) -> None:
    """A server that does not speak TLS is told as tls."""

    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        ending(peer)

    with FaultServer(script) as server:
        exchange = send(make_client(f"https://127.0.0.1:{server.port}", ca_file=authority.ca_file))
    assert exchange[:3] == ("tls", False, None)


@pytest.mark.filterwarnings("ignore:.*TLSv1.*is deprecated:DeprecationWarning")  # that is the point here
def test_old_protocol_is_refused(make_client: Callable[..., Client], authority: Authority) -> None:
    """TLS below 1.2 is not spoken."""
    context = authority.serve("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with FaultServer(serve_forever, context) as server:
        exchange = send(make_client(server.url, ca_file=authority.ca_file))
    assert exchange[:2] == ("tls", False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_cut_inside_tls(
    make_client: Callable[..., Client], authority: Authority, version: ssl.TLSVersion
) -> None:
    """An answer cut without TLS's own goodbye is cut all the same."""
    context = authority.serve("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    with FaultServer(answer_and_close(HEAD + b"Content-Length: 9\r\n\r\nhalf"), context) as server:
        exchange = send(make_client(server.url, ca_file=authority.ca_file))
    assert exchange[:3] == ("cut", True, 200)


# --- odd heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
def test_report_with_an_odd_head_is_accepted_at_once(
    make_client: Callable[..., Client], answer: bytes
) -> None:
    """What curl and browsers accept is a verdict, though the connection stays open: one request is enough."""
    with FaultServer(answer_once(answer)) as server:
        exchange = send(make_client(server.url), deadline_s=5.0)
    assert exchange[:3] == (None, True, 200)
    assert judge(exchange, perhaps_before=False).outcome == "accepted"
    assert len(server.requests) == 1


@pytest.mark.parametrize("line", [b"Content-Length 32", b": 32", b""], ids=["no colon", "no name", "nothing"])
def test_length_that_nobody_can_read_is_none(make_client: Callable[..., Client], line: bytes) -> None:
    """Without a length the body ends with the connection, and not before."""
    answer = spell(framing=line + b"\r\n" if line else b"")
    with FaultServer(answer_and_close(answer)) as server:
        assert send(make_client(server.url)).body == ACCEPTED
    with FaultServer(answer_once(answer)) as server:
        assert send(make_client(server.url), deadline_s=SOON_S)[:3] == ("timeout", True, 200)


# --- a change of the network ------------------------------------------------------------------------


class Change:
    """Connections from before it are dead in one way or another; new ones work."""

    def __init__(self, kept: int, die: Callable[[Peer], None], at_once: bool) -> None:
        self.has_come = threading.Event()
        self.are_dead = threading.Barrier(kept + 1)
        self._everyone = threading.Barrier(kept)
        self._die = die
        self._at_once = at_once

    def script(self, peer: Peer) -> None:
        """Answer once together with all others; after the change, die."""
        if self.has_come.is_set():
            serve_forever(peer)
            return
        peer.read_request()
        self._everyone.wait(20)
        peer.send(spell_answer())
        self.has_come.wait(20)
        if self._at_once:
            self._die(peer)
        self.are_dead.wait(20)
        if not self._at_once and peer.read_request() is not None:
            self._die(peer)
        peer.hold()


def stay_silent(peer: Peer) -> None:
    """Take what comes and say nothing."""


def end_sending(peer: Peer) -> None:
    """Send the end, but go on reading."""
    peer.sock.shutdown(socket.SHUT_WR)


def end(peer: Peer) -> None:
    """Send the end and read no more."""
    peer.sock.close()


DEATHS: dict[str, tuple[Callable[[Peer], None], bool]] = {
    "silent": (stay_silent, False),
    "reset on the request": (Peer.reset, False),
    "end on the request": (end, False),
    "half closed on the request": (end_sending, False),
    "reset while idle": (Peer.reset, True),
    "end while idle": (end, True),
    "half closed while idle": (end_sending, True),
}


@pytest.mark.parametrize(("die", "at_once"), DEATHS.values(), ids=DEATHS.keys())
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reports", [1, 8])
def test_second_attempt_after_a_change_of_the_network_is_accepted(
    make_client: Callable[..., Client],
    engine: Engine,
    authority: Authority,
    die: Callable[[Peer], None],
    at_once: bool,
    is_tls: bool,
    reports: int,
) -> None:
    """However many kept connections are dead, and however they died, a second attempt meets none of them."""
    kept = 8
    change = Change(kept, die, at_once)
    with FaultServer(change.script, authority.serve("127.0.0.1") if is_tls else None) as server:
        client = make_client(server.url, ca_file=authority.ca_file)
        assert [each.failure for each in send_together(engine, client, kept)] == [None] * kept
        assert (server.connections, len(client._adapter.idle)) == (kept, kept)
        change.has_come.set()
        change.are_dead.wait(20)
        first = send_together(engine, client, reports, deadline_s=SOON_S)
        if at_once:
            assert [each.failure for each in first] == [None] * reports
        else:
            assert {(each.failure in ("timeout", "reset"), each.sent, each.reused) for each in first} == {
                (True, True, True)
            }
            assert len(client._adapter.idle) == 0
        second = send_together(engine, client, reports, fresh=True)
        assert {(each.failure, each.body, each.reused) for each in second} == {(None, ACCEPTED, False)}


def test_next_report_needs_no_second_attempt(make_client: Callable[..., Client], engine: Engine) -> None:
    """One report has found out that the network has changed; the next one opens a connection at once."""
    change = Change(8, stay_silent, False)
    with FaultServer(change.script) as server:
        client = make_client(server.url)
        send_together(engine, client, 8)
        change.has_come.set()
        change.are_dead.wait(20)
        assert send(client, deadline_s=SOON_S).failure == "timeout"
        assert send(client)[:3] == (None, True, 200)
        assert len(client._adapter.idle) == 1


# --- what this machine lacks ------------------------------------------------------------------------


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Leave so many descriptors to be opened."""
    spares = [os.dup(0) for _ in range(spare + 1)]
    for descriptor in spares:
        os.close(descriptor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spares[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_for_a_connection_is_a_lack(make_client: Callable[..., Client]) -> None:
    """Without a descriptor nothing is sent and nobody is blamed; with one again the next report goes out."""
    with FaultServer(serve_forever) as server:
        client = make_client(server.url)
        with few_descriptors(0), pytest.raises(NoResources) as caught:
            send(client)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert send(client).failure is None
        with few_descriptors(0):
            assert send(client).reused
            with pytest.raises(NoResources):
                send(client, fresh=True)
        assert send(client).reused
    assert len(server.requests) == 3


def test_no_descriptor_for_a_name_is_a_lack(make_client: Callable[..., Client]) -> None:
    """The system's resolver says that the name is unknown; that is not what it is."""
    client = make_client("https://upstream.invalid")
    assert send(client).failure == "dns"  # there is a thread now
    with few_descriptors(0), pytest.raises(NoResources):
        send(client)


def test_no_descriptor_for_certificates_is_a_lack(
    make_client: Callable[..., Client], authority: Authority
) -> None:
    """The certificates are read when they are needed first; if they cannot be opened it is nobody's fault."""
    with FaultServer(serve_forever, authority.serve("127.0.0.1")) as server:
        client = make_client(server.url)
        make_tls_context.cache_clear()
        with few_descriptors(1), pytest.raises(NoResources):
            send(client)
        assert send(client).failure == "certificate"


def test_no_way_to_fail_keeps_a_connection(
    make_client: Callable[..., Client], authority: Authority, black_hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step an attempt fails at, the descriptor that it has opened is closed."""
    make = SocketStream.__init__

    def note(self: SocketStream, engine: Engine, family: int) -> None:
        make(self, engine, family)
        streams.append(self)

    streams: list[SocketStream] = []
    monkeypatch.setattr(SocketStream, "__init__", note)
    with (
        FaultServer(answer_and_close(b"")) as silent,
        FaultServer(answer_once(b"noise\r\n")) as noisy,
        FaultServer(answer_once(HEAD)) as slow,
        FaultServer(answer_and_close(b"HTTP/1.1 403 No\r\n\r\n")) as proxy,
        FaultServer(serve_forever, authority.serve("other.test")) as misnamed,
    ):
        tls = {"ca_file": authority.ca_file}
        clients = {
            "reset": make_client(silent.url),
            "malformed": make_client(noisy.url),
            "timeout": make_client(slow.url),
            "certificate": make_client(misnamed.url, **tls),
            "tls": make_client(silent.url.replace("http:", "https:"), **tls),
            "proxy": make_client("https://upstream.test", proxy=proxy.url),
            "connect": make_client(f"http://127.0.0.1:{black_hole}"),
        }
        told = {word: send(client, deadline_s=SOON_S).failure for word, client in clients.items()}
    assert told == {word: word for word in clients}
    assert len(streams) == len(clients)
    assert {stream._sock.fileno() for stream in streams} == {-1}


# --- the environment --------------------------------------------------------------------------------


def test_environment_is_ignored(
    make_client: Callable[..., Client], authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies, logins, CA files and key logs named by the environment change nothing."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    netrc.chmod(0o600)
    key_log = tmp_path / "keys.log"
    with (
        FaultServer(serve_forever, authority.serve("127.0.0.1")) as server,
        FaultServer(serve_forever) as proxy,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("SSLKEYLOGFILE", str(key_log))
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
        exchange = send(make_client(server.url, ca_file=authority.ca_file))
    assert exchange.failure is None
    assert proxy.connections == 0
    assert b"authorization" not in server.requests[0].lower()
    assert not os.path.exists(key_log)


# --- proxies ----------------------------------------------------------------------------------------


def test_report_through_a_proxy(make_client: Callable[..., Client], authority: Authority) -> None:
    """The proxy is asked for a tunnel with its login and sees nothing of the report."""
    context = authority.serve("upstream.test")

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        peer.start_tls(context)
        serve_forever(peer)

    with FaultServer(script) as proxy:
        client = make_client(
            "https://upstream.test",
            ca_file=authority.ca_file,
            proxy=f"http://us%65r:p%40ss@127.0.0.1:{proxy.port}",
        )
        assert [send(client).failure for _ in range(3)] == [None] * 3
        assert proxy.connections == 1
    assert proxy.requests[0] == (
        b"CONNECT upstream.test:443 HTTP/1.1\r\nHost: upstream.test:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n"
    )
    assert b"Proxy" not in proxy.requests[1]
    assert b"\r\nHost: upstream.test\r\n" in proxy.requests[1]


@pytest.mark.parametrize(
    "script",
    [
        answer_once(spell_answer(b"no", "407 Proxy Authentication Required")),
        answer_once(spell_answer(b"no", "403 Forbidden")),
        answer_once(spell_answer(b"no", "302 Found", "Location: https://elsewhere.test/")),
        answer_once(b"HTTP/1.1 200 OK\r\n\r\nsurplus"),
        answer_and_close(b""),
        answer_and_close(b"SOCKS?\r\n"),
        lambda peer: peer.hold(),
        lambda peer: peer.drip(cycle(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ],
    ids=["407", "403", "302", "surplus", "closed", "noise", "silent", "dripping"],
)
def test_proxy_that_refuses(make_client: Callable[..., Client], script: Script) -> None:
    """A proxy that opens no tunnel is told as proxy, in time, and its status is not the upstream's."""
    with FaultServer(script) as proxy:
        client = make_client(
            "https://upstream.test", proxy=f"http://127.0.0.1:{proxy.port}", connect_timeout_s=1.0
        )
        exchange = send(client)
    assert exchange[:4] == ("proxy", False, None, {})
    assert exchange.elapsed_s < 4.0
    assert KEY.reveal().encode() not in b"".join(proxy.pieces)


def test_proxy_that_is_not_there(make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable or unknown proxy is told as proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = make_client("https://upstream.test", proxy=f"http://127.0.0.1:{port}")
    assert send(client)[:3] == ("proxy", False, None)

    def look_up(host: str) -> Rows:
        raise socket.gaierror(-2, "Name or service not known")

    patch_names(monkeypatch, look_up)
    client = make_client("https://upstream.test", proxy="http://proxy.invalid:3128")
    assert send(client)[:3] == ("proxy", False, None)


def test_bad_certificate_behind_a_proxy(
    make_client: Callable[..., Client], authority: Authority, stranger: Authority
) -> None:
    """A tunnel does not make a foreign certificate good."""
    context = stranger.serve("upstream.test")

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.start_tls(context)
        serve_forever(peer)

    with FaultServer(script) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        exchange = send(make_client("https://upstream.test", ca_file=authority.ca_file, proxy=url))
    assert exchange[:3] == ("certificate", False, None)


def test_loopback_is_never_proxied(make_client: Callable[..., Client], authority: Authority) -> None:
    """A proxy in the settings is not asked for this machine itself."""
    with FaultServer(serve_forever) as proxy:
        with FaultServer(serve_forever) as server:
            assert send(make_client(server.url, proxy=proxy.url)).failure is None
        with FaultServer(serve_forever, authority.serve("localhost")) as server:
            url = f"https://localhost:{server.port}"
            assert send(make_client(url, ca_file=authority.ca_file, proxy=proxy.url)).failure is None
        assert proxy.connections == 0


# --- the key ----------------------------------------------------------------------------------------


def test_key_stays_in_no_object(make_client: Callable[..., Client]) -> None:
    """After a fault nothing the client holds, and nothing it said, contains the key."""
    with FaultServer(answer_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")) as server:
        client = make_client(server.url)
        exchange = send(client)
        assert KEY.reveal() not in repr(exchange)
        seen: set[int] = set()
        waiting: list[Any] = [client]
        while waiting:
            item = waiting.pop()
            if id(item) in seen:
                continue
            seen.add(id(item))
            assert not (isinstance(item, str | bytes) and KEY.reveal() in str(item))
            if isinstance(item, dict):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set):
                waiting += item
            elif type(item).__module__.startswith(("bridge.", "requests.", "tests.")):
                waiting += vars(item).values() if hasattr(item, "__dict__") else []
                waiting += [getattr(item, name, None) for name in getattr(item, "__slots__", ())]
    assert len(seen) > 30
