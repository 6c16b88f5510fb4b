"""Several bridges on one ledger: one delivery a task, one pause for all, and heirs for the dead."""

from __future__ import annotations

import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from tests.process import BridgeProcess
from tests.world import scratch_directory

IMAGE = "reportIncorrectImageCaptcha"
RECAPTCHA = "reportIncorrectRecaptcha"
KEY, OTHER_KEY = "k" * 32, "o" * 32
NO_SUCH_TASK, WRONG_KEY = 16, 1
UNKNOWN, CONFLICT, PAUSED = -32002, -32011, -32021
PATIENCE_S = 45.0

Start = Callable[..., BridgeProcess]


@pytest.fixture
def upstream() -> Iterator[Simulator]:
    """The simulated upstream; ids that nobody created are fresh tasks."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the ledger is: in memory, where nobody waits for a disk."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as name:
        yield Path(name)


@pytest.fixture
def start(bridge_process: Start, upstream: Simulator, folder: Path) -> Start:
    """Start a bridge on the ledger of this test."""

    def start_bridge(*words: str, key: str = KEY) -> BridgeProcess:
        common = ["--url", upstream.base_url, "--ledger", str(folder / "ledger.db"), "--no-parent-watch"]
        return bridge_process(*common, *words, environ={"ANTICAPTCHA_CLIENT_KEY": key})

    return start_bridge


def start_four(start: Start) -> list[BridgeProcess]:
    """Start four bridges one by one: on a busy machine four that open a ledger at once may wait too long."""
    bridges = []
    for _ in range(4):
        bridges.append(start())
        bridges[-1].call("bridge.listReports")  # answered when the ledger is open
    return bridges


def code_of(message: dict[str, Any]) -> int:
    """The wire code of an answer, 0 for accepted."""
    return int(message["error"]["code"]) if "error" in message else 0


def data_of(message: dict[str, Any]) -> dict[str, Any]:
    """What an answer says besides its code."""
    data: dict[str, Any] = message["error"]["data"] if "error" in message else message["result"]
    return data


def wait_for(fact: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.01)


def ages(left_s: float) -> dict[str, float]:
    """Params of a task whose window ends so many seconds from now."""
    return {"completedAt": time.time() - 60.0 + left_s}


def report(task_id: int, left_s: float) -> dict[str, Any]:
    """Params of a report."""
    return {"taskId": task_id, **ages(left_s)}


def test_a_wrong_key_costs_one_call_however_many_ask(upstream: Simulator, start: Start) -> None:
    """A thousand reports with a wrong key from four processes at once make one upstream call."""
    upstream.set(other_keys="unknown", latency_seconds=0.2)
    bridges = start_four(start)
    for nth in range(250):
        for place, bridge in enumerate(bridges):
            bridge.send(IMAGE, {"taskId": 1 + 250 * place + nth})
    answers = [bridge.read_message() for bridge in bridges for _ in range(250)]
    assert upstream.counters()["requests"] == 1
    assert Counter(map(code_of, answers)) == {WRONG_KEY: 1, PAUSED: 999}
    assert all(data_of(a)["pause"]["manual"] for a in answers if code_of(a) == PAUSED)


def test_wrong_ids_one_after_another_cost_ten_calls(upstream: Simulator, start: Start) -> None:
    """Fifty ids that do not exist, asked in turn of four processes, stop after ten calls."""
    upstream.set(auto=False)
    bridges = start_four(start)
    codes = [code_of(bridges[nth % 4].call(IMAGE, {"taskId": nth + 1})) for nth in range(50)]
    assert codes == [NO_SUCH_TASK] * 10 + [PAUSED] * 40
    assert upstream.counters()["requests"] == 10


def test_wrong_ids_in_flight_cost_little_more(upstream: Simulator, start: Start) -> None:
    """With 32 attempts in flight, wrong ids cost at most the ten of the rule and those 32."""
    good = upstream.add_task("image")
    upstream.set(auto=False)
    bridge = start("--concurrency", "32")
    assert code_of(bridge.call(IMAGE, {"taskId": good})) == 0
    upstream.set(latency_seconds=0.1)
    before = upstream.counters()["requests"]
    for nth in range(200):
        bridge.send(IMAGE, {"taskId": 1 + nth})
    codes = Counter(code_of(bridge.read_message()) for _ in range(200))
    calls = upstream.counters()["requests"] - before
    assert 10 <= calls <= 42
    assert codes == {NO_SUCH_TASK: calls, PAUSED: 200 - calls}


def test_one_task_asked_of_four_bridges_is_sent_once(upstream: Simulator, start: Start) -> None:
    """Four bridges asked for one task at the same time send it once and say the same."""
    upstream.add_fault("latency", seconds=0.5)
    bridges = start_four(start)
    for task_id in (1, 2, 3):
        for bridge in bridges:
            bridge.send(IMAGE, report(task_id, 40.0))
    answers = [bridge.read_message() for bridge in bridges for _ in range(3)]
    assert [code_of(answer) for answer in answers] == [0] * 12, answers
    by_task = Counter((data_of(a)["taskId"], data_of(a)["replayed"]) for a in answers)
    assert by_task == {(t, replayed): 3 if replayed else 1 for t in (1, 2, 3) for replayed in (True, False)}
    assert all(data_of(answer)["durable"] for answer in answers)
    assert [row["delivered"] for row in upstream.deliveries()] == [1, 1, 1]


def test_another_method_meets_a_conflict_in_another_process(upstream: Simulator, start: Start) -> None:
    """A task in flight or done elsewhere cannot be reported with another method."""
    upstream.add_fault("latency", seconds=1.0)
    first, second = start(), start()
    second.call("bridge.listReports")
    first.send(IMAGE, report(1, 40.0))
    wait_for(lambda: upstream.counters()["requests"] == 1, "the call of the first")
    in_flight = second.call(RECAPTCHA, report(1, 40.0))
    assert (code_of(in_flight), data_of(in_flight)["hints"][0]["kind"]) == (
        CONFLICT,
        "stored_method",
    )
    assert code_of(first.read_message()) == 0
    done = second.call(RECAPTCHA, report(1, 40.0))
    assert (code_of(done), data_of(done)["outcome"]) == (CONFLICT, "accepted")
    assert upstream.counters()["requests"] == 1


def test_a_neighbour_takes_over_what_a_killed_bridge_had(upstream: Simulator, start: Start) -> None:
    """A neighbour with the key sends what the dead had not begun, and ends truthfully what it had."""
    upstream.add_fault("hang", task_id=1, taken=True, count=1)
    upstream.add_fault("hang", task_id=2, count=1)
    dead, heir = start("--concurrency", "2", "--no-pauses"), start()
    heir.call("bridge.listReports")
    for task_id in (1, 2, 3, 4):
        dead.send(IMAGE, report(task_id, 40.0))
    wait_for(lambda: upstream.counters()["requests"] == 2, "two calls under way")
    wait_for(lambda: len(records(heir)) == 4, "four intents on record")
    assert [records(heir)[t]["state"] for t in (1, 2, 3, 4)] == ["sending", "sending", "queued", "queued"]
    dead.kill()
    wait_for(lambda: all(row["state"] == "done" for row in records(heir).values()), "an end of all four")
    ends = {task_id: (row["outcome"], row["attempts"]) for task_id, row in records(heir).items()}
    # The first had been taken, so its second send met "no such task": that proves nothing.
    assert ends == {1: ("unknown", 2), 2: ("accepted", 2), 3: ("accepted", 1), 4: ("accepted", 1)}
    assert {row["taskId"]: row["delivered"] for row in upstream.deliveries()} == {1: 2, 2: 2, 3: 1, 4: 1}
    again = heir.call(IMAGE, report(1, 30.0))
    assert (code_of(again), data_of(again)["replayed"], data_of(again)["likely"]) == (
        UNKNOWN,
        True,
        "accepted",
    )


def test_a_stranger_leaves_reports_alone_until_their_window_ends(upstream: Simulator, start: Start) -> None:
    """A bridge without the key sends nothing for a dead one, and settles its reports at their end."""
    upstream.add_fault("hang", task_id=1, taken=True)
    dead, stranger = start("--concurrency", "1", "--no-pauses"), start(key=OTHER_KEY)
    for bridge in (dead, stranger):
        bridge.call("bridge.listReports")
    began_at = time.monotonic()
    for task_id in (1, 2):
        dead.send(IMAGE, report(task_id, 5.0))
    wait_for(lambda: upstream.counters()["requests"] == 1, "one call under way")
    wait_for(lambda: len(records(stranger)) == 2, "two intents on record")
    dead.kill()
    wait_for(lambda: any(row["state"] == "done" for row in records(stranger).values()), "an end")
    assert time.monotonic() - began_at > 4.0
    wait_for(lambda: all(row["state"] == "done" for row in records(stranger).values()), "an end of both")
    ends = {task_id: (row["outcome"], row["kind"]) for task_id, row in records(stranger).items()}
    assert ends[1] == ("unknown", "outcome_unknown")
    assert ends[2][0] == "not_sent"
    assert upstream.counters()["requests"] == 1


def test_who_waits_for_a_frozen_owner_is_answered_at_the_end(upstream: Simulator, start: Start) -> None:
    """A stopped owner keeps its report: who waits for it is told -32002 when the window ends."""
    upstream.add_fault("latency", seconds=2.0, task_id=1)
    owner, waiter = start(), start()
    for bridge in (owner, waiter):
        bridge.call("bridge.listReports")
    params = report(1, 4.5)
    owner.send(IMAGE, params)
    wait_for(lambda: upstream.counters()["requests"] == 1, "the owner's call")
    owner.signal(signal.SIGSTOP)
    try:
        asked_at = time.monotonic()
        answer = waiter.call(IMAGE, params)
        waited_s = time.monotonic() - asked_at
    finally:
        owner.signal(signal.SIGCONT)
    assert (code_of(answer), data_of(answer)["replayed"]) == (UNKNOWN, True)
    # The task has its one attempt, and what came of it is on no record yet.
    assert (data_of(answer)["attempts"], data_of(answer)["durable"]) == (1, False)
    assert 1.0 < waited_s < 30.0
    assert upstream.counters()["requests"] == 1
    # The owner wakes up, reads the answer that has waited for it, and everybody agrees.
    assert code_of(owner.read_message()) == 0
    assert (code_of(waiter.call(IMAGE, params)), upstream.counters()["requests"]) == (0, 1)


def records(bridge: BridgeProcess) -> dict[int, dict[str, Any]]:
    """The ledger's reports by task."""
    listed = bridge.call("bridge.listReports")["result"]["reports"]
    return {row["taskId"]: row for row in reversed(listed)}


CROWD = 30


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "existing"])
def test_a_crowd_that_starts_at_once_sends_each_task_once(
    upstream: Simulator, start: Start, folder: Path, is_new: bool
) -> None:
    """Thirty bridges started together on one ledger wait for each other instead of going on unguarded."""
    if not is_new:
        first = start()
        assert code_of(first.call(IMAGE, report(1, 55.0))) == 0
        assert first.close().code == 0
    bridges = [start() for _ in range(CROWD)]
    tasks = range(100, 115)
    for bridge in bridges:
        for task_id in tasks:
            bridge.send(IMAGE, report(task_id, 55.0))
    for bridge in bridges:
        for _ in tasks:
            answer = bridge.read_message()
            assert code_of(answer) == 0, answer
            assert data_of(answer).get("warnings", []) == []
            assert data_of(answer)["durable"] is True
    delivered = {row["taskId"]: row["delivered"] for row in upstream.deliveries()}
    assert {task_id: delivered[task_id] for task_id in tasks} == dict.fromkeys(tasks, 1)
