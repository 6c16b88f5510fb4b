"""The package jsonrpcclient, which knows nothing of us, talks to the bridge."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from jsonrpcclient import Error, Ok, notification_json, parse, request

from tests.process import BridgeProcess

METHODS = (
    "reportIncorrectImageCaptcha",
    "reportIncorrectRecaptcha",
    "reportCorrectRecaptcha",
    "reportIncorrectHcaptcha",
)


def send(bridge: BridgeProcess, message: object) -> object:
    """Send what the library made and let it judge what comes back."""
    bridge.send_line(json.dumps(message).encode())
    return parse(bridge.read_message())


@pytest.mark.parametrize("method", METHODS)
def test_every_report_method(bridge_process: Callable[..., BridgeProcess], method: str) -> None:
    """The library takes the answer of each report method as a result."""
    answer = send(bridge_process("--sandbox"), request(method, params={"taskId": 1}))
    assert isinstance(answer, Ok)
    assert answer.result["outcome"] == "accepted"


def test_error_batch_and_cancel(bridge_process: Callable[..., BridgeProcess]) -> None:
    """Errors, batches with a notification, and a cancellation notification pass through the library."""
    bridge = bridge_process("--sandbox")
    refused = send(bridge, request(METHODS[0], params={"taskId": 9_000_000_000_000_016}))
    assert isinstance(refused, Error)
    assert (refused.code, refused.data["kind"]) == (16, "no_such_captcha")
    batch = [request(METHODS[1], params={"taskId": n}) for n in (2, 3)]
    bridge.send_line(json.dumps([*batch, json.loads(notification_json("bridge.info"))]).encode())
    answers = list(parse(bridge.read_message()))
    assert [type(answer) for answer in answers] == [Ok, Ok]
    bridge.send_line(notification_json("$/cancelRequest", params={"id": 77}).encode())
    assert isinstance(send(bridge, request("bridge.info")), Ok)
    assert bridge.close().code == 0
