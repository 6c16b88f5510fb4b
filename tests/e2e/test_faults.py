"""Every fault of the simulated upstream, and what the bridge may truthfully say of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from bridge.simulator import Simulator
from bridge.simulator.magic import describe
from tests.e2e.talk import CORRECT, HCAPTCHA, IMAGE, KEY, MAGIC, RECAPTCHA, Talk, error_of

Start = Callable[..., Talk]
WITH_KEY = {"ANTICAPTCHA_CLIENT_KEY": KEY}


def magic_ids() -> list[int]:
    """Return a task id for every error, status, fault, situation and variant there is."""
    ids = {
        MAGIC + n for n in (*range(1, 60), 999, *range(2200, 2212), *range(2400, 2432), *range(2500, 2512))
    }
    ids |= {MAGIC + n + 500 for n in range(1001, 1034)} | {MAGIC + n + 2000 for n in (2408, 2429, 2500, 2503)}
    described = json.dumps(describe())
    ids |= {MAGIC + n for n in range(1, 8000) if str(MAGIC + n) in described}
    return sorted(ids)


def told(response: Any) -> Any:
    """Return where the outcome stands in a response."""
    return response["result"] if "result" in response else response["error"]["data"]


def demand_truth(response: Any, deliveries: list[dict[str, Any]]) -> None:
    """Demand that what a response says of its report is true."""
    data = told(response)
    delivered = sum(tally["delivered"] for tally in deliveries)
    taken = any(tally["taken"] for tally in deliveries)
    match data["outcome"]:
        case "accepted":
            assert taken
        case "refused":
            assert not taken
            assert response["error"]["code"] > 0 or response["error"]["code"] == -32003
        case "not_sent":
            assert not taken
        case "unknown":
            assert response["error"]["code"] == -32002
    assert data["attempts"] <= 4
    assert delivered <= 4
    if response.get("error", {}).get("code", 0) > 0:
        assert response["error"]["code"] == data["errorId"]


def test_whatever_the_upstream_does_is_answered_truthfully(talk: Start, simulator: Simulator) -> None:
    """Over all magic ids: schema-valid, at most four attempts, and never a false outcome."""
    bridge = talk(
        "--url", simulator.base_url, "--no-pauses", "--timeout", "1.2", "--concurrency", "64",
        "--log-level", "error", environ=WITH_KEY,
    )  # fmt: skip
    ids = magic_ids()
    assert len(ids) > 250
    completed_at = time.time() - 49.5
    methods = (IMAGE, RECAPTCHA, CORRECT, HCAPTCHA)
    asked = {
        bridge.send(methods[n % 4], {"taskId": task_id, "completedAt": completed_at}): task_id
        for n, task_id in enumerate(ids)
    }
    answers = bridge.read_all(asked)
    codes = set()
    for name, response in answers.items():
        deliveries = simulator.deliveries(asked[name])
        try:
            demand_truth(response, deliveries)
        except AssertionError as fault:
            raise AssertionError(f"{asked[name]}: {response} {deliveries}") from fault
        codes.add(response["error"]["code"] if "error" in response else 0)
    assert {0, 1, 16, -32002, -32003} <= codes
    again = {
        bridge.send(methods[n % 4], {"taskId": task_id, "completedAt": completed_at}): (task_id, name)
        for n, (name, task_id) in enumerate(asked.items())
    }
    before = simulator.counters()["requests"]
    for name, response in bridge.read_all(again).items():
        first = told(answers[again[name][1]])
        if first["outcome"] != "not_sent":
            assert told(response)["outcome"] == first["outcome"]
            assert told(response)["replayed"] is True
    resent = [entry["taskId"] for entry in simulator.log()[-(simulator.counters()["requests"] - before) :]]
    final = {asked[n] for n, response in answers.items() if told(response)["outcome"] != "not_sent"}
    if simulator.counters()["requests"] > before:
        assert not final & set(resent)
    ended = bridge.close()
    assert ended.code == 0
    assert "internal_error" not in ended.stderr


def test_every_error_in_the_sandbox_too(talk: Start) -> None:
    """The sandbox knows the magic ids, without a key and without set-up."""
    bridge = talk("--sandbox", "--no-pauses", "--timeout", "1")
    for n, code in (
        (16, 16),
        (1, 1),
        (21, 21),
        (999, 999),
        (2403, -32003),
        (1014, -32002),
        (3150, 2**31 - 1),
    ):
        assert bridge.report(MAGIC + n)["error"]["code"] == code


@pytest.mark.parametrize("kind", ["closed port", "refusing", "not tls", "no such name", "dead proxy"])
def test_an_upstream_that_is_not_reached_is_told_with_a_cause(talk: Start, kind: str) -> None:
    """Nothing was sent, so the outcome is not_sent, with the cause; the window bounds the attempts."""
    with socket.socket() as reserved, Simulator() as simulator:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        words = ["--no-pauses", "--connect-timeout", "0.5"]
        if kind == "closed port":
            words += ["--url", f"http://127.0.0.1:{port}"]
        elif kind == "refusing":
            simulator.add_fault("refuse", for_seconds=30)
            words += ["--url", simulator.base_url]
        elif kind == "not tls":
            words += ["--url", simulator.base_url.replace("http", "https")]
        elif kind == "no such name":
            words += ["--url", "https://name.invalid"]
        else:
            words += ["--url", "https://name.invalid", "--proxy", f"http://127.0.0.1:{port}"]
        bridge = talk(*words, environ=WITH_KEY)
        response = bridge.report(1, completedAt=time.time() - 50)
        assert error_of(response)[0] == -32001, response
        data = response["error"]["data"]
        cause = {"not tls": "tls", "no such name": "dns", "dead proxy": "proxy"}.get(kind, "connect")
        assert data["cause"] == cause
        assert data["outcome"] == "not_sent"
        assert 1 <= data["attempts"] <= 4


def test_transport_failures_pause_sending(talk: Start) -> None:
    """After five attempts in a row without an HTTP status nothing is sent until a probe."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        bridge = talk("--url", f"http://127.0.0.1:{reserved.getsockname()[1]}", environ=WITH_KEY)
        names = [bridge.send(IMAGE, {"taskId": n, "completedAt": time.time() - 51}) for n in range(1, 7)]
        answers = bridge.read_all(names)
        assert {answer["error"]["data"]["outcome"] for answer in answers.values()} == {"not_sent"}
        pauses = bridge.call("bridge.status")["result"]["pauses"]
        assert [pause["scope"] for pause in pauses] == ["transport"]


def test_a_report_that_comes_back_after_trouble_is_accepted(talk: Start, simulator: Simulator) -> None:
    """Certain non-delivery is tried again inside the window, and the answer counts the attempts."""
    simulator.add_fault("status", task_id=1, status=408, count=2)
    simulator.add_fault("status", task_id=2, status=429, retry_after_seconds=1, count=1)
    simulator.add_fault("rate_limit", task_id=3, count=1)
    bridge = talk("--url", simulator.base_url, "--no-pauses", environ=WITH_KEY)
    names = [bridge.send(IMAGE, {"taskId": n}) for n in (1, 2, 3)]
    answers = bridge.read_all(names)
    attempts = [answers[name]["result"]["attempts"] for name in names]
    assert attempts == [3, 2, 2]


def test_perhaps_delivered_is_sent_once_more_and_stays_unknown(talk: Start, simulator: Simulator) -> None:
    """A reset after the request is followed by one more send, whose 16 proves nothing."""
    simulator.add_fault("reset_after", task_id=1, count=1)
    simulator.add_fault("reset_read", task_id=2, count=1)
    simulator.add_fault("close_after", task_id=3)
    bridge = talk("--url", simulator.base_url, "--no-pauses", environ=WITH_KEY)
    taken = bridge.report(1)
    assert error_of(taken) == (-32002, "outcome_unknown")
    assert taken["error"]["data"]["likely"] == "accepted"
    assert taken["error"]["data"]["errorId"] == 16
    assert taken["error"]["data"]["retryable"] is False
    assert bridge.report(2)["result"]["attempts"] == 2
    twice = bridge.report(3)
    assert error_of(twice) == (-32002, "outcome_unknown")
    assert twice["error"]["data"]["attempts"] == 2
    for n in (1, 2, 3):
        assert simulator.deliveries(n)[0]["delivered"] == 2


@pytest.mark.parametrize(
    "fault", ["drip_headers", "drip_body", "endless_continue", "hang", "slow_accept", "hang_before"]
)
def test_no_fault_outlasts_the_deadline_of_an_attempt(talk: Start, simulator: Simulator, fault: str) -> None:
    """However slowly the upstream drips, an attempt ends at its deadline."""
    with_seconds: dict[str, Any] = {"seconds": 30} if fault == "slow_accept" else {}
    simulator.add_fault(fault, **with_seconds)
    bridge = talk("--url", simulator.base_url, "--no-pauses", "--timeout", "0.7", environ=WITH_KEY)
    response = bridge.report(1, completedAt=time.time() - 54.5)
    assert response["error"]["code"] in (-32001, -32002)
    if "elapsedMs" in told(response):
        assert told(response)["elapsedMs"] < 20_000


def test_a_wrong_clock_is_corrected_by_the_upstreams(talk: Start, simulator: Simulator) -> None:
    """Once a Date header is known, ages are counted on the upstream's clock and the skew is told."""
    simulator.set(clock_skew_seconds=-300.0)
    bridge = talk("--url", simulator.base_url, environ=WITH_KEY)
    bridge.report(1)
    behind = time.time() - 300
    assert bridge.report(2, completedAt=behind - 5)["result"]["outcome"] == "accepted"
    late = bridge.report(3, completedAt=behind - 70)
    assert error_of(late) == (-32010, "window_closed")
    data = late["error"]["data"]
    assert 60 < data["ageSeconds"] < 100
    assert abs(abs(data["clockSkewSeconds"]) - 300) < 5


def test_the_key_travels_in_the_body_only(talk: Start, simulator: Simulator) -> None:
    """The upstream is sent exactly clientKey and taskId, and no header has the key."""
    bridge = talk("--url", simulator.base_url, environ=WITH_KEY)
    bridge.report(1, completedAt=time.time(), taskType="ImageToTextTask", languagePool="en")
    [entry] = simulator.log()
    assert sorted(entry["bodyKeys"]) == ["clientKey", "taskId"]
    assert entry["keyInHead"] is False
    headers = {name.lower(): value for name, value in entry["headers"]}
    assert headers["accept-encoding"] == "identity"
    assert (entry["verb"], entry["method"]) == ("POST", IMAGE)
