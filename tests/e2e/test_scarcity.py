"""A machine that lacks descriptors while reports are asked for, and has them again. Linux: prlimit."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from bridge.simulator import Simulator
from tests.e2e.talk import IMAGE, KEY, Talk, error_of, wait_for


def limit_descriptors(bridge: Talk, most: int) -> None:
    """Let a running bridge open no descriptor from a number on; what it has it keeps."""
    resource.prlimit(bridge.pid, resource.RLIMIT_NOFILE, (most, 4096))


def test_a_first_report_without_descriptors_waits_for_them(
    talk: Callable[..., Talk], simulator: Simulator
) -> None:
    """What is loaded at the first report may wait for a descriptor; no report is an internal error for it."""
    bridge = talk("--url", simulator.base_url, "--ledger", "memory", environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    bridge.sync()
    limit_descriptors(bridge, 3)
    names = [bridge.send(IMAGE, {"taskId": n}) for n in range(1, 6)]
    bad = bridge.send(IMAGE, {"taskId": "x"})
    gone = bridge.send(IMAGE, {"taskId": 7})
    time.sleep(1.5)
    bridge.cancel(gone)
    answers = bridge.read_all([gone])
    limit_descriptors(bridge, 4096)
    answers |= bridge.read_all([*names, bad])
    assert all(answers[name]["result"]["attempts"] == 1 for name in names)
    assert answers[bad]["error"]["code"] == -32602
    assert error_of(answers[gone]) == (-32800, "request_cancelled")
    wait_for(lambda: bridge.call("bridge.status")["result"]["ledger"]["healthy"])
    ended = bridge.close()
    assert ended.code == 0
    assert "Traceback" not in ended.stderr
    assert "pause_opened" not in ended.stderr
    assert len(simulator.log()) == 5


def test_answers_that_come_when_no_descriptor_is_left_are_read(
    talk: Callable[..., Talk], simulator: Simulator, tmp_path: Path
) -> None:
    """What an answer needs was loaded before; an unknown name is refused without a suggestion."""
    words = ("--url", simulator.base_url, "--ledger", str(tmp_path / "ledger"))
    bridge = talk(*words, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    simulator.set(latency_seconds=1.0)
    names = [bridge.send(IMAGE, {"taskId": 1})]
    wait_for(lambda: bridge.call("bridge.status")["result"]["inFlight"] == 1)
    limit_descriptors(bridge, 3)
    unknown = bridge.send("bridge.inf")
    answers = bridge.read_all([*names, unknown])
    assert [answers[name]["result"]["outcome"] for name in names] == ["accepted"]
    assert error_of(answers[unknown]) == (-32601, "method_not_found")
    limit_descriptors(bridge, 4096)
    assert bridge.call("bridge.getReport", {"taskId": 1})["result"]["outcome"] == "accepted"
    assert bridge.close().code == 0
