"""A small program with the methods of the specification's examples, behind the bridge's own wire.

Run as ``python -m tests.e2e.spec_program``. Joins descriptors, framing, session and dispatcher as the
service does, with nothing of reports.
"""

from __future__ import annotations

from typing import Any

from bridge.core.errors import BridgeError
from bridge.rpc.dispatcher import Dispatcher, Failure
from bridge.session import Session
from bridge.wire.framing import Framer
from bridge.wire.stdio import EOF, Pump, Writer, take_descriptors

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
    return Failure(7, "seven", {"kind": "seven"})


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
    pump, writer = Pump(source), Writer(sink)
    session = Session(
        Framer(1 << 20),
        writer,
        Dispatcher(METHODS, lambda bug: "0123456789abcdef"),
        max_batch=1000,
        max_depth=64,
        queue=1000,
        slow=frozenset(),
        cancel=lambda name: None,
        wake=pump.wake,
    )
    assert pump.run(session.feed, session.ready) == EOF
    session.end()
    writer.drain(60)


if __name__ == "__main__":
    main()
