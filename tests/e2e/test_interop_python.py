"""The packages jsonrpcclient and pygls, which know nothing of us, talk to the bridge."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonrpcclient import Error, Ok, notification_json, parse, request

from tests.process import PATIENCE_S, ROOT, BridgeProcess

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


def test_every_report_method(bridge_process: Callable[..., BridgeProcess]) -> None:
    """The library takes the answer of each report method as a result."""
    bridge = bridge_process("--sandbox")
    for number, method in enumerate(METHODS, 1):
        answer = send(bridge, request(method, params={"taskId": number}))
        assert isinstance(answer, Ok), method
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


# --- pygls, as editors of language servers speak ---------------------------------------------


async def talk_as_an_editor(home: Path) -> tuple[dict[str, Any], int | None]:
    """Call every method as pygls does, end as it does, and return the answers and the exit code."""
    from pygls.client import JsonRPCClient  # takes as long to load as all other tests to collect
    from pygls.exceptions import JsonRpcException

    client = JsonRPCClient()
    await client.start_io(
        sys.executable, "-m", "bridge", "--sandbox", env={"HOME": str(home), "PYTHONPATH": str(ROOT)}
    )
    ask = client.protocol.send_request_async
    answers: dict[str, Any] = {}
    for number, method in enumerate(METHODS):
        answers[method] = await ask(method, {"taskId": number + 1, "completedAt": None})
    for method in ("rpc.discover", "bridge.info", "bridge.status", "bridge.listReports", "bridge.resume"):
        answers[method] = await ask(method, None)
    answers["bridge.getReport"] = await ask("bridge.getReport", {"taskId": 1})
    for name, params in (
        (METHODS[0], {"taskId": 9_000_000_000_000_016}),
        ("nope", None),
        ("bridge.inf", None),
    ):
        with pytest.raises(JsonRpcException) as caught:
            await ask(name, params)
        answers[f"{name}!"] = (caught.value.code, caught.value.data)
    client.protocol.notify("$/cancelRequest", {"id": "nobody"})
    answers["shutdown"] = await ask("shutdown", None)
    client.protocol.notify("exit", None)
    # The pipe stays open: the bridge ends because it was told to.
    assert client._server is not None
    code = await client._server.wait()
    await client.stop()  # type: ignore[no-untyped-call]  # the package's own
    return answers, code


def test_pygls_calls_every_method_and_ends_it(clean_environment: Path) -> None:
    """With params as it writes them, null where there are none, and shutdown and exit at the end."""
    answers, code = asyncio.run(asyncio.wait_for(talk_as_an_editor(clean_environment), PATIENCE_S))
    assert code == 0
    for method in METHODS:
        assert answers[method].outcome == "accepted"
    assert answers["bridge.info"].framing == "header"
    assert answers["rpc.discover"].openrpc.startswith("1.4")
    assert answers["bridge.getReport"].state == "done"
    assert len(answers["bridge.listReports"].reports) == len(METHODS)
    assert answers["shutdown"] is None
    assert answers[f"{METHODS[0]}!"][0] == 16
    assert answers["nope!"][0] == answers["bridge.inf!"][0] == -32601
