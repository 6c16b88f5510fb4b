"""Pins what the client relies on inside `requests` and the standard library."""

from __future__ import annotations

import http.client
import inspect
import io
import os
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from bridge.upstream.client import HEADERS, Client, _Session
from bridge.upstream.transport import Received, ReportAdapter, ReportRequest


class Recorder(ReportAdapter):
    """An adapter that notes what it is given and answers at once."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.status = 200

    def send(self, request: requests.PreparedRequest, **options: Any) -> Received:  # type: ignore[override]
        self.seen.append({"request": request, **options})
        lines = {"location": "http://elsewhere.test/", "set-cookie": "a=b", "content-encoding": "gzip"}
        return Received(self.status, lines, b"not gzip")

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
def request_to_send() -> ReportRequest:
    """A prepared request."""
    template = ReportRequest()
    template.prepare(method="POST", url="http://localhost/x", headers=HEADERS)
    return template


def send(session: requests.Session, request: ReportRequest, timeout: Any) -> requests.Response:
    """Send as the client does."""
    return session.send(
        request, timeout=timeout, allow_redirects=False, stream=False, verify=True, cert=None, proxies={}
    )


def test_timeout_reaches_the_adapter_untouched(
    session: requests.Session, recorder: Recorder, request_to_send: ReportRequest
) -> None:
    """Whatever object is given as timeout, the adapter gets that object and the same request."""
    limits = object()
    send(session, request_to_send, limits)
    (seen,) = recorder.seen
    assert seen["timeout"] is limits
    assert seen["request"] is request_to_send
    assert set(seen) == {"request", "timeout", "stream", "verify", "cert", "proxies"}


@pytest.mark.parametrize("status", [200, 204, 301, 302, 303, 307, 308, 401, 500])
def test_response_is_handed_on_as_it_is(
    session: requests.Session, recorder: Recorder, request_to_send: ReportRequest, status: int
) -> None:
    """A response made without the stock constructor passes through: not followed, not unpacked, no cookie."""
    recorder.status = status
    response = send(session, request_to_send, None)
    assert type(response) is Received
    assert (response.status_code, response.content) == (status, b"not gzip")
    assert len(recorder.seen) == 1
    assert len(session.cookies) == 0
    assert response.next is None


def test_redirects_are_not_followed_even_when_allowed(
    session: requests.Session, recorder: Recorder, request_to_send: ReportRequest
) -> None:
    """The session itself knows no redirect target."""
    recorder.status = 307
    session.send(request_to_send, allow_redirects=True, proxies={})
    assert len(recorder.seen) == 1


def test_environment_is_not_asked(
    session: requests.Session,
    recorder: Recorder,
    request_to_send: ReportRequest,
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
        send(session, request_to_send, None)
    assert recorder.seen[0]["proxies"] == {}


def test_session_reaches_one_host_only(session: requests.Session, request_to_send: ReportRequest) -> None:
    """Another host has no adapter: the stock ones are gone."""
    assert len(session.adapters) == 1
    assert session.trust_env is False
    request_to_send.url = "https://elsewhere.test/x"
    with pytest.raises(requests.exceptions.InvalidSchema):
        send(session, request_to_send, None)


def test_adapter_has_two_methods() -> None:
    """The seam is as wide as it was: nothing new is asked of an adapter."""
    wanted = {name for name in vars(BaseAdapter) if not name.startswith("_")}
    assert wanted == {"send", "close"}
    ours, theirs = inspect.signature(ReportAdapter.send), inspect.signature(BaseAdapter.send)
    assert list(ours.parameters) == list(theirs.parameters)


def test_response_class_has_no_member_that_is_not_set() -> None:
    """What the stock constructor sets and ours does not is not touched on the way."""
    stock = set(vars(requests.Response()))
    ours = set(vars(Received(200, {}, b"")))
    assert ours <= stock
    assert stock - ours == {"cookies", "elapsed", "encoding", "reason", "request", "url"}


def test_prepared_request_needs_no_constructor() -> None:
    """Everything a prepared request knows is in its dictionary."""
    template = ReportRequest()
    template.prepare(method="POST", url="http://localhost/x", headers=HEADERS)
    assert set(vars(requests.PreparedRequest())) <= set(vars(template))
    assert template.headers["Content-Length"] == "0"  # prepared without a body; the client takes it out


def test_default_certificates_are_those_of_requests() -> None:
    """The path of the bundle that requests trusts is a file with certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
    assert context.cert_store_stats()["x509_ca"] > 50


def test_client_context_defaults_of_the_standard_library() -> None:
    """A bare client context verifies, checks names and logs no keys."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.keylog_filename is None


def test_bodies_of_the_standard_library() -> None:
    """`HTTPResponse.read` goes by the five attributes that `Answer` sets, and drops its file at the end."""

    class Wire:
        def makefile(self, mode: str) -> io.BufferedReader:
            return io.BufferedReader(io.BytesIO(b"3\r\nabc\r\n0\r\n\r\n"))

    response = http.client.HTTPResponse(Wire(), method="POST")  # type: ignore[arg-type]
    response.chunked, response.chunk_left, response.length = True, None, None
    assert response.read(65537) == b"abc"
    assert response.isclosed()

    response = http.client.HTTPResponse(Wire(), method="POST")  # type: ignore[arg-type]
    response.chunked, response.length = False, 3
    assert response.read(65537) == b"3\r\n"
    assert (response.length, response.isclosed()) == (0, True)

    response = http.client.HTTPResponse(Wire(), method="POST")  # type: ignore[arg-type]
    response.chunked, response.length = False, 99
    assert len(response.read(65537)) == 13
    assert response.length == 86
    response.close()


def test_client_has_no_other_door() -> None:
    """What the client offers is what the application may rely on."""
    assert {name for name in vars(Client) if not name.startswith("_")} == {
        "send",
        "begin",
        "go_on",
        "has_come",
        "end",
        "warm_up",
        "stats",
        "close",
    }
