"""A small program with the methods of the specification's examples, behind the bridge's own wire.

Run as ``python -m tests.e2e.spec_program``. Joins descriptors, framing, conversation and dispatcher as the
service does, with nothing of reports.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bridge.core.errors import BridgeError
from bridge.engine import Engine, Outlet
from bridge.rpc.dispatcher import Dispatcher
from bridge.server.conversation import Conversation
from bridge.wire.framing import Framer
from bridge.wire.streams import Reader, take_descriptors

INVALID = {"pointer": "", "rule": "type", "sentence": "Params are by name."}


def subtract(_context: Any, params: dict[str, Any]) -> Any:
    """Subtract; the examples with params by position are answered before this is called."""
    if set(params) != {"minuend", "subtrahend"}:
        raise BridgeError("invalid_params", INVALID)
    return params["minuend"] - params["subtrahend"]


def total(_context: Any, params: dict[str, Any]) -> Any:
    """Sum the values."""
    return sum(params.values())


def get_data(_context: Any, params: dict[str, Any]) -> Any:
    """Return what the specification's example returns."""
    return ["hello", 5]


def note(_context: Any, params: dict[str, Any]) -> Any:
    """Take a notification."""


def crash(_context: Any, params: dict[str, Any]) -> Any:
    """Fail as only a bug does, with a secret in the text."""
    raise RuntimeError("secret text")


def unwritable(_context: Any, params: dict[str, Any]) -> Any:
    """Return what JSON cannot hold."""
    return {"bad": float("nan")}


def refuse(_context: Any, params: dict[str, Any]) -> Any:
    """Return an error as a value."""
    return BridgeError("unknown_code", code=7)


METHODS = {
    "subtract": subtract,
    "sum": total,
    "get_data": get_data,
    "update": note,
    "notify_hello": note,
    "notify_sum": note,
    "crash": crash,
    "unwritable": unwritable,
    "refuse": refuse,
}


def main() -> None:
    """Serve until the input ends."""
    source, sink = take_descriptors()
    engine = Engine(lambda bug: None)
    outlet = Outlet(sink, engine)
    reader = Reader(engine, source)
    methods: Any = SimpleNamespace(
        dispatcher=Dispatcher(METHODS, lambda bug: "0123456789abcdef"),
        limits={"maxBatch": 1000, "maxDepth": 64, "queue": 1000},
        reports=frozenset(),
        cancel=lambda name: None,
    )
    conversation = Conversation(engine, methods, Framer(1 << 20), outlet, lambda: None)
    while data := reader.read():
        conversation.feed(data)
    conversation.end()
    while conversation.unanswered:
        engine.sleep(0.001)
    outlet.drain(None)


if __name__ == "__main__":
    main()
