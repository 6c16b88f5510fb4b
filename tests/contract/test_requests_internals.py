"""Pins what the client relies on inside `requests`, `httptools` and the standard library."""

from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import Iterator
from typing import Any

import certifi
import httptools
import pytest
import requests
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from bridge.upstream.answers import Answer
from bridge.upstream.client import HEADERS, Adapter, Call, Client, Received, _Session


class Recorder(Adapter):
    """An adapter that notes what it is given and answers at once."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.status = 200

    def send(self, request: requests.PreparedRequest, **options: Any) -> Received:  # type: ignore[override]
        self.seen.append({"request": request, **options})
        answer = Answer()
        answer.status, answer.body = self.status, b"not gzip"
        answer.fields = {
            "location": "http://elsewhere.test/",
            "set-cookie": "a=b",
            "content-encoding": "gzip",
        }
        return Received(answer)

    def close(self) -> None:
        """Have nothing to close."""


@pytest.fixture
def recorder() -> Recorder:
    """A fresh recorder."""
    return Recorder()


@pytest.fixture
def session(recorder: Recorder) -> Iterator[requests.Session]:
    """The client's session over the recorder."""
    with _Session("http://localhost/", recorder) as session:
        yield session


@pytest.fixture
def request_to_send() -> Call:
    """A request prepared from its method's template."""
    template = requests.PreparedRequest()
    template.prepare(method="POST", url="http://localhost/x", headers=HEADERS)
    return Call(vars(template), b"{}", 1.0, lambda: 1.0, False)


def send(session: requests.Session, request: Call) -> requests.Response:
    """Send as the client does."""
    return session.send(request, allow_redirects=False, proxies={})


def test_call_reaches_the_adapter_untouched(
    session: requests.Session, recorder: Recorder, request_to_send: Call
) -> None:
    """The adapter gets the very object that was sent, so that it can note facts on it."""
    send(session, request_to_send)
    (seen,) = recorder.seen
    assert seen["request"] is request_to_send
    assert set(seen) == {"request", "stream", "verify", "cert", "proxies"}
    assert (seen["stream"], seen["verify"], seen["cert"]) == (False, True, None)


@pytest.mark.parametrize("status", [200, 204, 301, 302, 303, 307, 308, 401, 500])
def test_response_is_handed_on_as_it_is(
    session: requests.Session, recorder: Recorder, request_to_send: Call, status: int
) -> None:
    """A response made without the stock constructor passes through: not followed, not unpacked, no cookie."""
    recorder.status = status
    response = send(session, request_to_send)
    assert type(response) is Received
    assert (response.status_code, response.content) == (status, b"not gzip")
    assert len(recorder.seen) == 1
    assert len(session.cookies) == 0
    assert response.next is None


def test_redirects_are_not_followed_even_when_allowed(
    session: requests.Session, recorder: Recorder, request_to_send: Call
) -> None:
    """The session itself knows no redirect target."""
    recorder.status = 307
    session.send(request_to_send, allow_redirects=True, proxies={})
    assert len(recorder.seen) == 1


def test_environment_is_not_asked(
    session: requests.Session,
    recorder: Recorder,
    request_to_send: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No environment variable is read while a prepared request is sent."""

    class Refusal(dict[str, str]):
        def __getitem__(self, name: str) -> str:
            raise AssertionError(f"{name} was asked for")

        def get(self, name: str, default: Any = None) -> Any:
            raise AssertionError(f"{name} was asked for")

    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", Refusal())
        send(session, request_to_send)
    assert recorder.seen[0]["proxies"] == {}


def test_session_reaches_one_host_only(session: requests.Session, request_to_send: Call) -> None:
    """Another host has no adapter: the stock ones are gone."""
    assert len(session.adapters) == 1
    assert session.trust_env is False
    request_to_send.url = "https://elsewhere.test/x"
    with pytest.raises(requests.exceptions.InvalidSchema):
        send(session, request_to_send)


def test_adapter_has_two_methods() -> None:
    """The seam is as wide as it was: nothing new is asked of an adapter."""
    wanted = {name for name in vars(BaseAdapter) if not name.startswith("_")}
    assert wanted == {"send", "close"}
    parameters = list(inspect.signature(BaseAdapter.send).parameters)
    assert parameters == ["self", "request", "stream", "timeout", "verify", "cert", "proxies"]


def test_response_class_has_no_member_that_is_not_set() -> None:
    """What the stock constructor sets and ours does not is not touched on the way."""
    stock = set(vars(requests.Response()))
    ours = set(vars(Received(Answer())))
    assert ours <= stock
    assert stock - ours == {"cookies", "elapsed", "encoding", "reason", "request", "url"}


def test_prepared_request_needs_no_constructor() -> None:
    """Everything a prepared request knows is in its dictionary, and a call has all of it."""
    template = requests.PreparedRequest()
    template.prepare(method="POST", url="http://localhost/x", headers=HEADERS)
    call = Call(vars(template), b"{}", 1.0, lambda: 2.0, True)
    assert set(vars(requests.PreparedRequest())) <= set(vars(call))
    assert (call.method, call.url, call.body) == ("POST", "http://localhost/x", b"{}")
    assert template.headers["Content-Length"] == "0"  # prepared without a body; the client takes it out


def test_received_answer_is_a_response() -> None:
    """An answer that was read is what `requests` calls a response, with its content at hand."""
    answer = Answer()
    answer.status, answer.fields, answer.body = 200, {"date": "today"}, b'{"errorId":0}'
    received = Received(answer)
    assert received.json() == {"errorId": 0}
    assert (received.status_code, received.content, received.ok) == (200, b'{"errorId":0}', True)
    assert received.headers == {"date": "today"}
    assert received.history == []
    assert received.next is None


def test_default_certificates_are_those_of_requests() -> None:
    """The path of the bundle that requests trusts is a file with certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert certifi.where() == DEFAULT_CA_BUNDLE_PATH
    context.load_verify_locations(cafile=certifi.where())
    assert context.cert_store_stats()["x509_ca"] > 50


def test_client_context_defaults_of_the_standard_library() -> None:
    """A bare client context verifies, checks names and logs no keys."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.keylog_filename is None


class Protocol:
    """Notes what the parser calls."""

    def __init__(self) -> None:
        self.called: list[Any] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.called.append((name, value))

    def on_headers_complete(self) -> None:
        self.called.append("head")

    def on_body(self, data: bytes) -> None:
        self.called.append(data)

    def on_message_complete(self) -> None:
        self.called.append("end")


def test_parser_tells_head_body_and_end_in_order() -> None:
    """Names and values come whole however they arrive; trailers come after the body and before the end."""
    protocol = Protocol()
    parser = httptools.HttpResponseParser(protocol)
    pieces = (b"HTTP/1.1 200 OK\r\nX-", b"A: b", b"c\r\nTransfer-Encoding: chunked\r\n\r", b"\n2\r\n{")
    for piece in (*pieces, b"}\r\n0\r\nX: y\r\n\r\n"):
        parser.feed_data(piece)
    head = [(b"X-A", b"bc"), (b"Transfer-Encoding", b"chunked"), "head"]
    assert protocol.called == [*head, b"{", b"}", (b"X", b"y"), "end"]


@pytest.mark.parametrize(
    "line", [b"X : y", b"X", b": y", b"\xe9: y", b"X: a\0b", b" X: y", b"Transfer-Encoding: identity, a"]
)
def test_parser_refuses_odd_lines_by_one_class(line: bytes) -> None:
    """What it does not like is an `HttpParserError`, or ends no message."""
    protocol = Protocol()
    parser = httptools.HttpResponseParser(protocol)
    try:
        parser.feed_data(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 2\r\n\r\n{}")
    except httptools.HttpParserError:
        return
    assert "end" not in protocol.called


def test_parser_stops_when_it_is_told_to() -> None:
    """What is raised in a call-back ends the parsing with an `HttpParserError`."""

    class Refusing(Protocol):
        def on_headers_complete(self) -> None:
            raise ValueError

    protocol = Refusing()
    with pytest.raises(httptools.HttpParserError):
        httptools.HttpResponseParser(protocol).feed_data(b"HTTP/1.1 200 OK\r\n\r\nbody")
    assert protocol.called == []


def test_parser_holds_no_circle() -> None:
    """Parser and message go at once when they are let go, without waiting for the collector."""
    import gc
    import weakref

    gc.disable()
    try:
        protocol = Protocol()
        parser = httptools.HttpResponseParser(protocol)
        parser.feed_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        gone = weakref.ref(protocol)
        del parser, protocol
        assert gone() is None
    finally:
        gc.enable()


def test_client_has_no_other_door() -> None:
    """What the client offers is what the application may rely on."""
    assert {name for name in vars(Client) if not name.startswith("_")} == {
        "send",
        "warm_up",
        "close",
    }
