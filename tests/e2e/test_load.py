"""Many requests, slow readers and huge lines: nothing is lost, memory stays flat, questions are answered."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable

import pytest

from bridge.simulator import Simulator
from tests.e2e.talk import IMAGE, KEY, Talk, error_of, memory_kib, wait_for

Start = Callable[..., Talk]
WITH_KEY = {"ANTICAPTCHA_CLIENT_KEY": KEY}
GROWTH_KIB = 64 * 1024


def test_a_thousand_reports_against_a_hanging_upstream(talk: Start, simulator: Simulator) -> None:
    """Each is answered by the end of its window; status, records and cancels are answered meanwhile."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--no-pauses", "--timeout", "2", "--log-level", "error", environ=WITH_KEY
    )
    completed_at = time.time() - 50
    names = [bridge.send(IMAGE, {"taskId": n, "completedAt": completed_at}) for n in range(1, 1001)]
    wait_for(lambda: simulator.counters()["inFlight"] >= 32)
    asked = {bridge.send("bridge.status"), bridge.send("bridge.info"), bridge.send("bridge.listReports")}
    for name in names[-5:]:
        bridge.cancel(name)
    cancelled: set[int] = set()
    early = 0
    while asked or len(cancelled) < 5:
        message = bridge.read_message()
        if message["id"] in asked:
            asked.remove(message["id"])
        elif error_of(message)[0] == -32800:
            cancelled.add(message["id"])
        else:
            early += 1
    assert cancelled == set(names[-5:])
    assert early < 900, "questions and cancels waited behind reports"
    kinds = [error_of(bridge.read_message()) for _ in range(995 - early)]
    assert time.time() < completed_at + 60 + 20
    assert set(kinds) <= {(-32002, "outcome_unknown"), (-32010, "window_closed")}
    assert kinds.count((-32010, "window_closed")) > 500
    assert simulator.counters()["maxInFlight"] <= 32
    assert all(tally["delivered"] <= 2 for tally in simulator.deliveries())
    status = bridge.call("bridge.status")["result"]
    assert sum(status["outcomes"].values()) == 1000
    assert (status["inFlight"], status["queued"]) == (0, 0)
    assert bridge.close().code == 0


def test_reading_stops_when_the_queue_is_full(talk: Start, simulator: Simulator) -> None:
    """Past --queue requests nothing is read, so the pipe fills; then all is served and nothing lost."""
    simulator.add_fault("latency", seconds=2.0, count=2)
    bridge = talk(
        "--url", simulator.base_url, "--queue", "4", "--concurrency", "2", "--timeout", "5", "--no-pauses",
        "--log-level", "error", environ=WITH_KEY,
    )  # fmt: skip
    pad = "x" * 4000
    count = 120  # half a megabyte: far more than the pipe and one portion hold

    def pour() -> None:
        for n in range(1, count + 1):
            request = {"jsonrpc": "2.0", "id": n, "method": IMAGE, "params": {"taskId": n}, "pad": pad}
            bridge.send_line(json.dumps(request).encode())

    writer = threading.Thread(target=pour)
    writer.start()
    wait_for(lambda: simulator.counters()["inFlight"] == 2)
    time.sleep(0.4)
    assert writer.is_alive(), "all was read although the queue is full"
    answers = bridge.read_all(range(1, count + 1))
    writer.join()
    assert all("result" in answer for answer in answers.values())
    assert bridge.close().code == 0


def test_questions_are_heard_while_the_queue_is_just_full(talk: Start, simulator: Simulator) -> None:
    """With as many reports as the queue holds, status and cancels are still read and answered."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--queue", "4", "--concurrency", "1", "--no-pauses", "--drain", "0",
        environ=WITH_KEY,
    )  # fmt: skip
    names = [bridge.send(IMAGE, {"taskId": n}) for n in range(1, 5)]
    status = wait_for(lambda: (found := bridge.call("bridge.status")["result"])["queued"] == 3 and found)
    assert status["inFlight"] == 1
    bridge.cancel(names[-1])
    message = bridge.read_message()
    assert (message["id"], *error_of(message)) == (names[-1], -32800, "request_cancelled")


@pytest.mark.parametrize("queue", ["1", "2"])
def test_the_smallest_queues_lose_nothing(talk: Start, queue: str) -> None:
    """Batches far larger than the queue are admitted member by member, and answered whole."""
    bridge = talk("--sandbox", "--queue", queue, "--no-pauses", "--log-level", "error")
    for batch in range(3):
        members = [
            {"jsonrpc": "2.0", "id": n, "method": IMAGE, "params": {"taskId": 1 + n + 100 * batch}}
            for n in range(60)
        ]
        members.insert(30, {"jsonrpc": "2.0", "id": "info", "method": "bridge.info"})
        bridge.send_line(json.dumps(members).encode())
    for _ in range(3):
        answers = bridge.read_message()
        assert len(answers) == 61
        assert all("result" in answer for answer in answers)
    assert bridge.close().code == 0


def test_a_client_that_does_not_read_stops_the_bridge(talk: Start) -> None:
    """Answers that nobody reads stop the reading, not grow the memory; later all of them come."""
    source, sink = os.pipe()
    bridge = talk("--sandbox", "--queue", "50", "--log-level", "error", stdout=sink)
    os.close(sink)
    count = 400  # answers of 80 KB each: 32 MB in all

    def pour() -> None:
        pad = "x" * 2000
        for n in range(count):
            request = {"jsonrpc": "2.0", "id": n, "method": "rpc.discover", "pad": pad}
            bridge.send_line(json.dumps(request).encode())
        bridge.close_input()

    writer = threading.Thread(target=pour)
    writer.start()
    time.sleep(1.0)
    assert writer.is_alive(), "all was read although nobody reads the answers"
    _, highest = memory_kib(bridge.pid)
    with open(source, "rb") as stream:
        names = [json.loads(line)["id"] for line in stream]
    writer.join()
    assert names == list(range(count))
    assert highest < 160 * 1024
    assert bridge.wait().code == 0


def test_a_huge_line_leaves_memory_flat(talk: Start) -> None:
    """A line of 100 MB is one error; the memory of the process hardly grows."""
    bridge = talk("--sandbox")
    bridge.report(1)
    before, _ = memory_kib(bridge.pid)
    chunk = b"x" * (1 << 20)
    for _ in range(100):
        bridge.send_bytes(chunk)
    bridge.send_line(b"")
    assert error_of(bridge.read_message()) == (-32600, "invalid_request")
    bridge.sync()
    _, highest = memory_kib(bridge.pid)
    assert highest - before < GROWTH_KIB


def test_a_huge_body_leaves_memory_flat(talk: Start) -> None:
    """The same behind a header."""
    bridge = talk("--sandbox")
    body = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}'
    info = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    bridge.send_bytes(info + info)
    read_past(bridge, b'"result"')
    before, _ = memory_kib(bridge.pid)
    bridge.send_bytes(b"Content-Length: %d\r\n\r\n" % (100 << 20))
    chunk = b"[" * (1 << 20)
    for _ in range(100):
        bridge.send_bytes(chunk)
    bridge.send_bytes(info + info)
    read_past(bridge, b"-32600")
    read_past(bridge, b'"result"')
    _, highest = memory_kib(bridge.pid)
    assert highest - before < GROWTH_KIB
    assert bridge.close().code == 0


def read_past(bridge: Talk, text: bytes) -> None:
    """Read header-framed answers up to one that holds a text."""
    while text not in (line := bridge.read_line() or b""):
        assert line


def test_hostile_messages_below_the_limit_leave_memory_flat(talk: Start) -> None:
    """Messages of a megabyte that are all brackets, members or digits are refused without much ado."""
    bridge = talk("--sandbox")
    bridge.sync()
    before, _ = memory_kib(bridge.pid)
    size = 1_000_000
    for text in (
        b"[" * size,
        b"[" * (size // 2) + b"]" * (size // 2),
        b'{"a":' * (size // 5),
        b"[" + b"1," * (size // 2 - 2) + b"1]",
        b"9" * size,
        b'{"jsonrpc":"2.0","id":' + b"9" * (size - 100) + b',"method":"bridge.info"}',
        b'{"jsonrpc":"2.0","id":"' + b"\\u0000" * (size // 6 - 20) + b'","method":"bridge.info"}',
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"m" * (size - 100) + b'"}',
        b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}",
        b"{" + b",".join(b'"a":0' for n in range(150_000)) + b"}",
        b"[" + b",".join([b"[]"] * 300_000) + b"]",
    ):
        bridge.send_line(text)
        line = bridge.read_line()
        assert line is not None
        assert line.endswith(b"\n")
    bridge.sync()
    now, _ = memory_kib(bridge.pid)
    assert now - before < GROWTH_KIB
