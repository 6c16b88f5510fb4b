"""Bridges on many machines with one PostgreSQL ledger: one call, one pause, heirs for those who vanish."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.simulator import Simulator
from tests.fleet import IMAGE, Fleet, Ledger, Relay, code_of, prove
from tests.pgserver import PASSWORD, PgServer
from tests.process import BridgeProcess

TAKEOVER_S = 5.0
VANISHED_S = 10.0
SLACK_S = 15.0
"""What a busy machine may add before a test fails; the figures are measured elsewhere."""

Start = Callable[..., BridgeProcess]


@pytest.fixture
def ledger(pg_server: PgServer) -> Ledger:
    """The empty ledger of this test."""
    return Ledger(pg_server)


@pytest.fixture
def fleet(bridge_process: Start, simulator: Simulator, ledger: Ledger, tmp_path: Path) -> Fleet:
    """Start bridges on machines of their own, on the ledger of this test."""
    return Fleet(bridge_process, simulator, ledger, tmp_path)


@pytest.fixture
def start(fleet: Fleet) -> Start:
    """Start one bridge."""
    return fleet.start


def test_wrong_key_costs_one_call_of_the_whole_fleet(start: Start, simulator: Simulator) -> None:
    """Eight bridges with a thousand requests for a key that does not exist ask the upstream once."""
    simulator.add_fault("error", errorId=1, errorCode="ERROR_KEY_DOES_NOT_EXIST")
    bridges = [start(machine=f"m{index % 4}") for index in range(8)]
    for bridge in bridges:
        bridge.call("bridge.info")
    for number in range(125):
        for index, bridge in enumerate(bridges):
            bridge.send(IMAGE, {"taskId": 1 + number * 8 + index})
    codes = Counter(code_of(bridge.read_message()) for bridge in bridges for _ in range(125))
    assert codes == {1: 1, -32021: 999}
    assert len(simulator.log()) == 1


def test_killed_machine_is_taken_over(
    start: Start, simulator: Simulator, ledger: Ledger, fleet: Fleet
) -> None:
    """Fifty reports that a killed bridge had begun are finished by a neighbour, each with one more send."""
    first, second = start("--concurrency", "64"), start("--concurrency", "64", machine="two")
    prove(first)
    prove(second, 2)
    fleet.open_reports(first, 50)
    first.signal(signal.SIGKILL)
    took_s = ledger.wait_until_done(52, TAKEOVER_S + SLACK_S)
    print(f"takeover took {took_s:.2f} s")
    assert ledger.count("outcome = 'accepted'") == 52
    assert set(fleet.calls().values()) <= {1, 2}


def test_vanished_machine_is_taken_over(
    start: Start, simulator: Simulator, ledger: Ledger, fleet: Fleet
) -> None:
    """A machine whose connections stay open but silent is missed, and its reports are finished."""
    with Relay(ledger.server.port) as relay:
        first = start("--concurrency", "64", port=relay.port)
        second = start("--concurrency", "64", machine="two")
        prove(first)
        prove(second, 2)
        fleet.open_reports(first, 50)
        relay.freeze()
        first.signal(signal.SIGSTOP)
        took_s = ledger.wait_until_done(52, VANISHED_S + SLACK_S)
        print(f"takeover took {took_s:.2f} s")
        assert set(fleet.calls().values()) <= {1, 2}
        first.signal(signal.SIGKILL)


def test_bridge_that_was_stopped_finds_its_reports_gone(
    start: Start, simulator: Simulator, ledger: Ledger, fleet: Fleet
) -> None:
    """A bridge that slept through its takeover sends nothing of it again and answers what became of it."""
    first, second = start("--concurrency", "64"), start("--concurrency", "64", machine="two")
    prove(first)
    prove(second, 2)
    fleet.open_reports(first, 20)
    first.signal(signal.SIGSTOP)
    took_s = ledger.wait_until_done(22, VANISHED_S + SLACK_S)
    print(f"takeover took {took_s:.2f} s")
    before = fleet.calls()
    outcomes = Counter(outcome for (outcome,) in ledger.select("SELECT outcome FROM reports"))
    first.signal(signal.SIGCONT)
    answers = [first.read_message() for _ in range(20)]
    told = Counter(
        message["error"]["data"]["outcome"] if "error" in message else "accepted" for message in answers
    )
    assert told == outcomes - Counter(accepted=2), ledger.select(
        "SELECT * FROM reports JOIN events ON seq = report"
    )
    assert fleet.calls() == before
    prove(first, 3)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_server_that_restarts_costs_nothing(
    start: Start, simulator: Simulator, ledger: Ledger, fleet: Fleet, how: int
) -> None:
    """Reports go on through dropped connections and a restart or crash, and no report changes its owner."""
    bridges = [start(machine=name, port=ledger.server.port) for name in ("one", "two")]
    for number, bridge in enumerate(bridges, 1):
        prove(bridge, number)
    simulator.add_fault("latency", seconds=0.5)
    for number in range(100, 120):
        bridges[number % 2].send(IMAGE, {"taskId": number})
    time.sleep(0.3)
    ledger.server.drop_connections(ledger.database)
    time.sleep(0.3)
    ledger.server.stop(how)
    ledger.server.start()
    answers = [bridge.read_message() for bridge in bridges for _ in range(10)]
    assert {code_of(answer) for answer in answers} == {0}
    ledger.wait_until_done(22, 30)
    assert ledger.count("outcome = 'accepted'") == 22
    assert set(fleet.calls().values()) == {1}
    assert ledger.select("SELECT count(*) FROM events WHERE name = 'adopted'") == [["0"]]


def test_server_that_is_gone_is_owed_the_outcomes(
    start: Start, simulator: Simulator, ledger: Ledger, fleet: Fleet
) -> None:
    """Without its server a bridge goes on, says so, and writes what it owes when the server is back."""
    bridge = start()
    prove(bridge)
    ledger.server.stop()
    try:
        answer = bridge.call(IMAGE, {"taskId": 2})
        assert code_of(answer) == 0
        assert answer["result"]["durable"] is False
        assert "duplicates_unguarded" in [warning["kind"] for warning in answer["result"]["warnings"]]
        health = bridge.call("bridge.status")["result"]["ledger"]
        assert (health["healthy"], health["state"]) == (False, "unreadable")
    finally:
        ledger.server.start()
    ledger.wait_until_done(2, 30)
    assert ledger.count("outcome = 'accepted'") == 2
    assert set(fleet.calls().values()) == {1}
    bridge.process.stdin.close()  # type: ignore[union-attr]
    ended = bridge.wait()
    assert [event["event"] for event in ended.events] == ["ledger_degraded", "ledger_recovered"]
    assert PASSWORD not in ended.stderr


def test_password_is_nowhere(start: Start, ledger: Ledger) -> None:
    """A password that the server refuses is neither logged nor told, nor is where it would have fitted."""
    wrong = "canary-wr0ng-password"
    bridge = start(port=ledger.server.port, REPORT_BRIDGE_LEDGER_PASSWORD=wrong)
    answer = bridge.call(IMAGE, {"taskId": 1})
    assert answer["result"]["durable"] is False
    status = bridge.call("bridge.status")
    bridge.process.stdin.close()  # type: ignore[union-attr]
    ended = bridge.wait()
    assert "refused the password" in ended.stderr
    for text in (ended.stderr, str(answer), str(status)):
        assert wrong not in text
