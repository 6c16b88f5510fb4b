"""The pieces of the transport that need no socket."""

from __future__ import annotations

from bridge.upstream.transport import Received


def test_received_answer_is_a_response() -> None:
    """An answer that was read is what `requests` calls a response, with its content at hand."""
    received = Received(200, {"date": "today"}, b'{"errorId":0}')
    assert received.json() == {"errorId": 0}
    assert (received.status_code, received.content, received.ok) == (200, b'{"errorId":0}', True)
    assert received.headers == {"date": "today"}
    assert received.history == []
    assert received.next is None
