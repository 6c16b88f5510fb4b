"""The examples of the JSON-RPC 2.0 specification, section 7, sent over a real pipe.

The specification's methods take params by position; this protocol takes them by name only, which is the
one liberty: those examples are answered -32602 here, and stand beside with params by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.process import PATIENCE_S, ROOT

INVALID = {"jsonrpc": "2.0", "error": -32600, "id": None}
BROKEN = {"jsonrpc": "2.0", "error": -32700, "id": None}


def fine(result: Any, name: Any) -> dict[str, Any]:
    """Return a response with a result."""
    return {"jsonrpc": "2.0", "result": result, "id": name}


def bad(code: int, name: Any) -> dict[str, Any]:
    """Return a response with an error, of which only the code is compared."""
    return {"jsonrpc": "2.0", "error": code, "id": name}


# Title, what is sent, what is answered (None: nothing). Source: jsonrpc.org/specification, section 7.
EXAMPLES: list[tuple[str, str, Any]] = [
    (
        "positional parameters",
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        bad(-32602, 1),
    ),
    (
        "positional parameters, reversed",
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        bad(-32602, 2),
    ),
    (
        "named parameters",
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        fine(19, 3),
    ),
    (
        "named parameters, reversed",
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        fine(19, 4),
    ),
    ("a notification", '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ("a notification of no method", '{"jsonrpc": "2.0", "method": "foobar"}', None),
    ("a call of no method", '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', bad(-32601, "1")),
    ("invalid JSON", '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', BROKEN),
    ("an invalid request", '{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    (
        "a batch of invalid JSON",
        '[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]',
        BROKEN,
    ),
    ("an empty array", "[]", INVALID),
    ("an invalid batch, not empty", "[1]", [INVALID]),
    ("an invalid batch", "[1,2,3]", [INVALID, INVALID, INVALID]),
    (
        "a batch",
        '[ {"jsonrpc": "2.0", "method": "sum", "params": {"a":1,"b":2,"c":4}, "id": "1"},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend":42,"subtrahend":23}, "id": "2"},'
        '{"foo": "boo"},'
        '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
        '{"jsonrpc": "2.0", "method": "get_data", "id": "9"} ]',
        [fine(7, "1"), fine(19, "2"), INVALID, bad(-32601, "5"), fine(["hello", 5], "9")],
    ),
    (
        "a batch of notifications",
        '[ {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]} ]',
        None,
    ),
    ("a bug", '{"jsonrpc": "2.0", "method": "crash", "id": 1}', bad(-32603, 1)),
    ("a result that is no JSON", '{"jsonrpc": "2.0", "method": "unwritable", "id": 1}', bad(-32603, 1)),
    ("an error as a value", '{"jsonrpc": "2.0", "method": "refuse", "id": 1}', bad(7, 1)),
    ("a bug in notifications", '[{"jsonrpc":"2.0","method":"crash"}]', None),
]  # fmt: skip


def simplify(message: Any) -> Any:
    """Reduce errors to their codes, and put batches into an order."""
    if isinstance(message, list):
        return sorted((simplify(one) for one in message), key=lambda one: json.dumps(one, sort_keys=True))
    if isinstance(message.get("error"), dict):
        assert isinstance(message["error"]["message"], str)
        assert "secret text" not in json.dumps(message)
        return {**message, "error": message["error"]["code"]}
    return message


def converse(data: bytes) -> bytes:
    """Give the program its whole input and return its whole output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.spec_program"], input=data, capture_output=True, check=True,
        env={"PYTHONPATH": str(ROOT)}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout


@pytest.mark.parametrize("framing", ["line", "header"])
def test_all_examples_are_answered_as_the_specification_says(framing: str) -> None:
    """Each example gets exactly its answer, and those owed none get none."""
    sent = [text.encode() for _, text, _ in EXAMPLES]
    if framing == "line":
        lines = converse(b"".join(text + b"\n" for text in sent)).decode("ascii").splitlines()
        answers = [json.loads(line) for line in lines]
    else:
        output = converse(b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(text), text) for text in sent))
        answers = []
        while output:
            head, _, rest = output.partition(b"\r\n\r\n")
            length = int(head.removeprefix(b"Content-Length: "))
            answers.append(json.loads(rest[:length]))
            output = rest[length:]
    expected = [simplify(answer) for _, _, answer in EXAMPLES if answer is not None]
    assert [simplify(answer) for answer in answers] == expected


def test_the_examples_survive_pretty_printing_behind_headers() -> None:
    """Line feeds inside a framed message are white space."""
    sent = []
    for _, text, _ in EXAMPLES:
        try:
            sent.append(json.dumps(json.loads(text), indent=4).encode())
        except ValueError:
            continue
    output = converse(b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(text), text) for text in sent))
    owed = [answer for _, _, answer in EXAMPLES if answer not in (None, BROKEN)]
    assert output.count(b"Content-Length") == len(owed)
