"""Tests of `bridge.rpc.dispatcher`: how it loads its library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.process import ROOT

PROBE = """
import json, sys
finders = list(sys.meta_path)
from bridge.rpc.dispatcher import Dispatcher
from bridge.core.errors import BridgeError

def refuse(context, params):
    raise BridgeError("no_such_captcha", code=16)

def stumble(context, params):
    raise ValueError("a secret")

methods = {"echo": lambda context, params: [context, params], "refuse": refuse, "stumble": stumble}
told = []
dispatcher = Dispatcher(methods, lambda bug: told.append(type(bug).__name__) or "reference")
calls = [("echo", {"taskId": 1}), ("echo", None), ("echo", {"self": 1, "context": 2})]
calls += [("echo", [1]), ("no", {}), ("refuse", {}), ("stumble", {})]
answers = [dispatcher.dispatch(*call, "context") for call in calls]

import importlib.util, inspect, logging, typing, typing_extensions
from jsonrpcserver import dispatcher as library
from oslash.typing import functor

print(json.dumps({
    "answers": [{"code": a.code, "data": a.data} if isinstance(a, BridgeError) else a for a in answers],
    "told": told,
    "real": [
        library.signature is inspect.signature,
        library.logging is logging and logging.getLogger("jsonrpcserver.dispatcher") is library.logger,
        functor.runtime_checkable is typing_extensions.runtime_checkable,
    ],
    "finders": finders == sys.meta_path,
    "whole": "jsonrpcserver.server" in sys.modules,
    "found": importlib.util.find_spec("jsonrpcserver") is not None,
}))
"""


@pytest.fixture(params=["", "1"], ids=["dispatcher alone", "plain imports"])
def plain(request: pytest.FixtureRequest) -> str:
    """Both ways to load the library."""
    way: str = request.param
    return way


def probe(plain: str) -> dict[str, Any]:
    """Load the library in a fresh interpreter and call methods of every kind."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={"PYTHONPATH": str(ROOT), "_BRIDGE_PLAIN_IMPORTS": plain, "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_module_is_faked(plain: str) -> None:
    """The library holds the real modules, the import system is as before, and only one way loads it whole."""
    found = probe(plain)
    assert found["real"] == [True] * 3
    assert found["finders"]
    assert found["found"]
    assert found["whole"] == bool(plain)


def test_methods_are_called_the_same_either_way(plain: str) -> None:
    """Results, refusals, unknown methods and bugs come out as values, whatever params are called."""
    found = probe(plain)
    results, failures = found["answers"][:3], found["answers"][3:]
    assert results == [["context", {"taskId": 1}], ["context", {}], ["context", {"self": 1, "context": 2}]]
    assert [failure["code"] for failure in failures] == [-32602, -32601, 16, -32603]
    assert failures[0]["data"]["pointer"] == ""
    assert failures[1]["data"] == {"kind": "method_not_found"}
    assert failures[3]["data"]["reference"] == "reference"
    assert found["told"] == ["ValueError"]
    assert "secret" not in json.dumps(found)
