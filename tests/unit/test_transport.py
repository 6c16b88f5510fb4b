"""The pieces of the transport that need no socket."""

from __future__ import annotations

import requests

from bridge.upstream.transport import Received, ReportRequest


def make_template() -> ReportRequest:
    """Make a request as the client makes one per method."""
    template = ReportRequest()
    template.prepare(method="POST", url="http://localhost/x", headers={"A": "b"})
    template.head = b"POST /x HTTP/1.1\r\n"
    return template


def test_request_shares_all_but_its_body() -> None:
    """A report's request is its template with a body, and the template stays as it was."""
    template = make_template()
    request = template.with_body(b"{}")
    assert (request.body, template.body) == (b"{}", None)
    assert request.headers is template.headers
    assert (request.url, request.method, request.head) == (template.url, template.method, template.head)
    assert isinstance(request, requests.PreparedRequest)


def test_received_answer_is_a_response() -> None:
    """An answer that was read is what `requests` calls a response, with its content at hand."""
    received = Received(200, {"date": "today"}, b'{"errorId":0}')
    assert received.json() == {"errorId": 0}
    assert (received.status_code, received.content, received.ok) == (200, b'{"errorId":0}', True)
    assert received.headers == {"date": "today"}
    assert received.history == []
    assert received.next is None
