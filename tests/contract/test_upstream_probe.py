"""What a look at the base address sees of a server: each way to fail has its word, and no key leaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.errors import failure_row
from bridge.core.model import Exchange
from bridge.engine import Engine
from bridge.upstream.client import Client

Serve = Callable[[bytes], str]


@pytest.fixture
def met() -> list[bytes]:
    """What the server was sent."""
    return []


@pytest.fixture
def serve(met: list[bytes]) -> Iterator[Serve]:
    """Serve one connection with fixed bytes; returns the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> str:
        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                met.append(connection.recv(65536))
                connection.sendall(answer)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    listener.close()
    for thread in threads:
        thread.join(30)


def look(url: str, timeout_s: float = 30.0) -> Exchange:
    """Look as the doctor does, with nothing special set."""
    engine = Engine(on_bug=lambda _: None)
    told: Any = SimpleNamespace(ca_file=None, proxy=None, connect_timeout_s=timeout_s, concurrency=0)
    client = Client(engine, url, told)
    until = engine.now() + timeout_s
    return client.send("", b"", until=until, leave_by=lambda: until, fresh=True)


def test_date_of_any_answer_is_seen(serve: Serve, met: list[bytes]) -> None:
    """Any whole answer will do; the request is a bare GET without a body."""
    seen = look(
        serve(b"HTTP/1.1 404 Not Found\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 1\r\n\r\nx")
    )
    assert (seen.failure, seen.headers["date"]) == (None, "Thu, 01 Jan 2026 00:00:00 GMT")
    assert met[0].startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:")
    assert met[0].endswith(b"\r\nContent-Length: 0\r\n\r\n")
    assert b"clientKey" not in met[0]


@pytest.mark.parametrize(
    ("line", "date"), [(b"", None), (b"Date: nonsense\r\n", "nonsense"), (b"Date: \r\n", "")]
)
def test_a_missing_or_bad_date_is_no_failure(serve: Serve, line: bytes, date: str | None) -> None:
    """A server that tells no time is still reached."""
    seen = look(serve(b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 0\r\n\r\n"))
    assert (seen.failure, seen.headers.get("date")) == (None, date)


@pytest.mark.parametrize(
    ("answer", "failure"), [(b"", "reset"), (b"SSH-2.0-x\r\n", "malformed"), (b"HTTP/1.1 2", "cut")]
)
def test_what_is_no_answer_has_its_word(serve: Serve, answer: bytes, failure: str) -> None:
    """Each kind of wreck is named as the table of errors names it."""
    assert look(serve(answer)).failure == failure
    assert failure_row(failure, True).advice


def test_nobody_there_is_a_failure_to_connect() -> None:
    """A closed port is no crash."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert look(f"http://127.0.0.1:{port}").failure == "connect"


def test_plain_text_behind_https_is_a_failure_of_tls(serve: Serve) -> None:
    """A server that speaks no TLS is told apart from one that is not there."""
    url = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n").replace("http:", "https:")
    assert look(url).failure == "tls"
