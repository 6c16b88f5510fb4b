"""Talking to a real bridge as a suspicious client: every message read is held against the schemas."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.process import PATIENCE_S, ROOT, BridgeProcess

IMAGE: Final = "reportIncorrectImageCaptcha"
RECAPTCHA: Final = "reportIncorrectRecaptcha"
CORRECT: Final = "reportCorrectRecaptcha"
HCAPTCHA: Final = "reportIncorrectHcaptcha"
MAGIC: Final = 9_000_000_000_000_000
KEY: Final = "0123456789abcdef0123456789abcdef"

_PROTOCOL_CODES: Final = frozenset({-32700, -32600, -32601, -32602, -32603, -32014})


@cache
def _registry() -> Registry[Any]:
    schemas = {path.name: json.loads(path.read_text()) for path in (ROOT / "schemas").glob("*.json")}
    pairs = [
        (name, DRAFT7.create_resource(schema))
        for name, schema in schemas.items()
        if not name.startswith("open")
    ]
    return Registry().with_resources(pairs)


@cache
def _validator(name: str) -> Draft7Validator:
    return Draft7Validator({"$ref": f"{name}.json"}, registry=_registry())


def demand(name: str, value: Any) -> None:
    """Demand that a value fits a schema."""
    faults = [f"{fault.json_path}: {fault.message}" for fault in _validator(name).iter_errors(value)]
    assert not faults, f"{name}: {faults}"


def demand_response(message: Any, method: str | None = None) -> None:
    """Demand that a message is a response, and its result or the data of its error as promised."""
    assert message["jsonrpc"] == "2.0"
    assert "id" in message
    if "error" not in message:
        assert set(message) == {"jsonrpc", "id", "result"}
        if method is not None:
            name = "report" if method.startswith("report") else method
            demand(f"{name}.result", message["result"])
        return
    assert set(message) == {"jsonrpc", "id", "error"}
    error = message["error"]
    assert set(error) == {"code", "message", "data"}
    assert error["message"]
    is_protocol = error["code"] in _PROTOCOL_CODES or (method or "").startswith("bridge.")
    demand("protocol.error" if is_protocol else "report.error", error["data"])


class Talk(BridgeProcess):
    """A bridge whose every answer is checked against the schemas when it is read."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        super().__init__(*words, **kwargs)
        self._methods: dict[Any, str] = {}

    def __enter__(self) -> Talk:
        return self

    def send(self, method: str, params: Any = None) -> int:
        """Send a request with a fresh id and return the id."""
        name = super().send(method, params)
        self._methods[name] = method
        return name

    def read_message(self, timeout_s: float = PATIENCE_S) -> Any:
        """Return the next line of stdout as JSON, checked."""
        line = self.read_line(timeout_s)
        assert line is not None, "stdout ended"
        assert line.endswith(b"\n")
        assert line.isascii()
        message = json.loads(line)
        for response in message if isinstance(message, list) else [message]:
            name = response.get("id")
            demand_response(response, self._methods.get(name) if isinstance(name, int) else None)
        return message

    def ask(self, raw: bytes) -> Any:
        """Send a line as it is and return the next message."""
        self.send_line(raw)
        return self.read_message()

    def read_all(self, names: Iterable[int], timeout_s: float = PATIENCE_S) -> dict[int, Any]:
        """Read one answer for each of these ids, in whatever order they come."""
        missing = set(names)
        answers = {}
        while missing:
            message = self.read_message(timeout_s)
            missing.remove(message["id"])
            answers[message["id"]] = message
        return answers

    def report(self, task_id: int, method: str = IMAGE, **params: Any) -> Any:
        """Report a task and return the response."""
        return self.call(method, {"taskId": task_id, **params})

    def cancel(self, name: Any) -> None:
        """Send the notification that cancels a request."""
        note = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": name}}
        self.send_line(json.dumps(note).encode())

    def sync(self) -> None:
        """Make sure that everything sent before has been taken in."""
        assert "result" in self.call("bridge.info")


def error_of(response: Any) -> tuple[int, str]:
    """Return code and kind of an error response."""
    return response["error"]["code"], response["error"]["data"]["kind"]


def wait_for(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Wait until a condition is truthy and return what it returned."""
    until = time.monotonic() + timeout_s
    for pause_s in itertools.chain((0.005, 0.01), itertools.repeat(0.03)):
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, "it never came true"
        time.sleep(pause_s)
    raise AssertionError


def memory_kib(pid: int) -> tuple[int, int]:
    """Return resident memory of a process now and at its highest, from /proc."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])
