"""What becomes of a report whose ledger, neighbours and slots do what they rarely do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.model import Begin, Begun, Claim, Exchange, Gate, Record, Recorded, Row, Settle
from tests.world import (
    LOST_ANSWER,
    LOST_REQUEST,
    NO_RESOURCES,
    RECAPTCHA,
    STALLED,
    TAKEN,
    UNREACHED,
    Answer,
    Bridge,
    Fate,
    World,
    error,
    http,
    row,
    verdict,
)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The path of a ledger's file."""
    return str(tmp_path / "ledger")


def result(answer: Answer) -> Any:
    """The result of a report that was taken."""
    assert answer.result is not None, answer
    return answer.result


def sent(world: World, task_id: int) -> list[float]:
    """When a task was sent, in seconds of the world's life."""
    return [round(at - 1000, 3) for at, attempt in world.upstream.attempts if attempt.task_id == task_id]


def asked(bridge: Bridge, kind: type) -> list[Any]:
    """What was asked of the ledger."""
    return [op for _, op in bridge.ledger.asked if isinstance(op, kind)]


def change_results(bridge: Bridge, kind: type, change: Callable[[Any, Any], Any]) -> None:
    """Let the ledger say something else than it does: `change` makes it of the operation and its result."""
    call = bridge.ledger.call

    def changed(op: Any) -> Any:
        found = call(op)
        return change(op, found) if isinstance(op, kind) else found

    bridge.ledger.call = changed  # type: ignore[method-assign]


# --- another bridge's report -----------------------------------------------------------------


def test_the_ending_of_another_bridge_is_told_soon(world: World, ledger: str) -> None:
    """A watched report's ending is told within a quarter of a second, as a replay, and nothing is sent."""
    first, second = Bridge(world, ledger, pauses=False), Bridge(world, ledger, pauses=False)
    world.upstream.fates = iter([Fate(True, None, 3.0)])
    first.report(1)
    world.run(0.1)
    got = second.report(1)
    world.run(3.1)
    assert result(got[0])["replayed"] is True
    assert len(world.upstream.calls) == 1


def test_a_watched_report_ends_with_the_window_that_the_other_bridge_knows(world: World, ledger: str) -> None:
    """Who asks without a time is answered when the task's minute is over by what another request told."""
    first, second = Bridge(world, ledger, pauses=False), Bridge(world, ledger, pauses=False)
    world.upstream.fates = iter([Fate(False, Exchange("timeout", True), 50.0)])
    first.report(1, completed_at=first.engine.wall() - 50)
    world.run(0.1)
    got = second.report(1)
    world.run(10.5)
    data = error(got[0])
    assert (data["code"], data["outcome"], data["durable"], data["replayed"]) == (
        -32002,
        "unknown",
        False,
        True,
    )
    assert asked(second, Settle) == [], "the other bridge will end it"


def test_what_is_taken_over_is_ours_from_then_on(world: World, ledger: str) -> None:
    """A watched report of a bridge that died is taken up, which the log tells, and ends as one of ours."""
    dead = Bridge(world, ledger, concurrency=1, pauses=False)
    bridge = Bridge(world, ledger, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED, Fate(False, Exchange("timeout", True), 60.0)])
    dead.report(1)
    dead.report(2)
    world.run(0.1)
    bridge.report(3)
    got = bridge.report(2)
    world.run(1.0)
    dead.crash()
    world.run(0.5)
    assert ("report_resumed", "queued") in [(name, told.get("state")) for name, told in bridge.events]
    world.run(56.0)
    assert (error(got[0])["code"], error(got[0])["outcome"]) == (-32010, "not_sent")


@pytest.mark.parametrize("ending", ["silent", "refused"])
def test_a_report_lost_at_its_begin_is_the_other_bridges(world: World, ending: str) -> None:
    """Who finds at the begin that another bridge has the report tells what that tells, and sends nothing."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    theirs: list[Row] = []

    def lose(op: Begin, found: Begun) -> Any:
        if op.task != bridge.task(2):
            return found
        theirs.append(row(bridge, 2)._replace(owner="other", state="sending", attempts=1, perhaps=True))
        return Begun(Gate("lost"), theirs[0])

    def tell(op: Claim, found: Any) -> Any:
        if not theirs or op.task != bridge.task(2):
            return found
        if ending == "silent":
            return object()
        done = theirs[0]._replace(
            state="done", owner=None, outcome="refused", code=16, kind="no_such_captcha"
        )
        return found._replace(status="known", row=done, gate=None)

    change_results(bridge, Begin, lose)
    change_results(bridge, Claim, tell)
    bridge.report(1)
    got = bridge.report(2)
    world.run(1.0)
    data = error(got[0])
    told = {"silent": (-32002, "unknown", False), "refused": (16, "refused", True)}
    assert (data["code"], data["outcome"], data["durable"] or ending == "refused") == told[ending]
    assert data["replayed"] is True
    assert sent(world, 2) == []


@pytest.mark.parametrize("ended", [True, False], ids=["refused there", "under way there"])
def test_what_was_taken_stays_accepted(world: World, ended: bool) -> None:
    """An acceptance is told even if another bridge has taken the report over, but not as durable."""
    bridge = Bridge(world, pauses=False)

    def lose(op: Record, found: Recorded) -> Recorded:
        theirs = row(bridge)._replace(state="waiting", outcome=None, owner="other")
        if ended:
            theirs = theirs._replace(
                state="done", outcome="refused", code=16, kind="no_such_captcha", owner=None
            )
        return Recorded("lost", theirs)

    change_results(bridge, Record, lose)
    got = result(bridge.ask(1))
    assert (got["outcome"], got["durable"], got["attempts"]) == ("accepted", False, 1)


@pytest.mark.parametrize(("outcome", "code"), [("refused", -32002), ("accepted", -32011), (None, -32011)])
def test_another_method_elsewhere_does_not_hide_what_was_perhaps_taken(
    world: World, outcome: str | None, code: int
) -> None:
    """Who lost an answer is not told of a conflict with what was refused since its own was perhaps taken."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([LOST_ANSWER])
    theirs: list[Row] = []

    def lose(op: Record, found: Recorded) -> Recorded:
        state = "waiting" if outcome is None else "done"
        owner = "other" if outcome is None else None
        theirs.append(row(bridge)._replace(method=RECAPTCHA, state=state, outcome=outcome, owner=owner))
        return Recorded("lost", theirs[0]._replace(state="waiting", outcome=None, owner="other"))

    def meet(op: Claim, found: Any) -> Any:
        return found._replace(status="conflict", row=theirs[0], gate=None) if theirs else found

    change_results(bridge, Record, lose)
    change_results(bridge, Claim, meet)
    data = error(bridge.ask(1))
    assert (data["code"], data["outcome"]) == (code, "unknown" if outcome == "refused" else outcome)


def test_attempts_of_our_own_are_kept_though_another_bridge_counted_none(world: World) -> None:
    """What this bridge has sent counts for it, whatever the row says that it gets back."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([LOST_REQUEST, STALLED])
    lost: list[bool] = []

    def lose(op: Record, found: Recorded) -> Recorded:
        if lost:
            return found
        lost.append(True)
        return Recorded("lost", row(bridge)._replace(state="waiting", owner="other"))

    def give_back(op: Claim, found: Any) -> Any:
        if not lost:
            return found
        return found._replace(status="adopted", row=row(bridge)._replace(state="queued", attempts=0, sends=0))

    change_results(bridge, Record, lose)
    change_results(bridge, Claim, give_back)
    got = bridge.report(1)
    bridge.report(2)
    world.run(0.5)
    assert bridge.service.counts() == (1, 1), "it waits for the slot of the other one"
    bridge.service.stop()
    world.run(0.1)
    assert (error(got[0])["code"], error(got[0])["attempts"]) == (-32002, 1)


# --- slots and single flight -----------------------------------------------------------------


def test_who_waits_for_a_pause_holds_no_slot(world: World) -> None:
    """A report whose window a pause outlasts is refused at once, not when a slot is free."""
    bridge = Bridge(world, concurrency=1)
    bridge.ask(9)
    world.upstream.fates = iter([UNREACHED] * 5)
    bridge.ask(1)
    bridge.report(2)
    world.run(1.0)
    began = world.t
    assert error(bridge.ask(3, completed_at=bridge.engine.wall() - 55))["code"] == -32021
    assert world.t - began < 0.2


def test_the_next_one_goes_when_a_proof_fails(world: World) -> None:
    """Who waits for another one's attempt goes as soon as that has ended without a verdict."""
    bridge = Bridge(world)
    bridge.engine.chance = lambda: 1.0  # type: ignore[method-assign]
    world.upstream.fates = iter([UNREACHED])
    bridge.report(1)
    bridge.report(2)
    world.run(1.0)
    assert sent(world, 2) == [0.05]


def test_all_go_when_a_proof_succeeds(world: World) -> None:
    """The verdict that proves a key lets everybody go at the same moment."""
    bridge = Bridge(world, concurrency=8)
    for number in range(1, 6):
        bridge.report(number)
    world.run(1.0)
    assert [sent(world, number) for number in range(2, 6)] == [[0.1]] * 4


def test_a_resumed_pause_does_not_hasten_what_the_upstream_deferred(world: World) -> None:
    """A report that has waited for a pause once does not wait for one when it backs off."""
    bridge = Bridge(world)
    bridge.ask(9)
    world.upstream.fates = iter([*[UNREACHED] * 5, Fate(False, http(429, retry_after="9"), 0.1)])
    bridge.ask(1)
    got = bridge.report(2)
    world.run(6.0)
    tries = len(sent(world, 2))
    bridge.service.resume_waiting()
    world.run(2.0)
    assert (len(sent(world, 2)), got) == (tries, [])
    world.run(8.0)
    assert result(got[0])["attempts"] == tries + 1


# --- the ledger ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Claim, Begin])
def test_who_was_not_guarded_once_is_warned(world: World, kind: type) -> None:
    """If other processes could not be asked at the claim or at the begin, the answer says so."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    bridge.report(1)
    change_results(bridge, kind, lambda _, found: found._replace(guarded=False))
    got = result(bridge.ask(2))
    assert [warning["kind"] for warning in got["warnings"]] == ["duplicates_unguarded"]


def test_an_outcome_that_is_not_durable_is_not_called_so(world: World, ledger: str) -> None:
    """Whether the ending was kept decides, not whether the claim was."""
    bridge = Bridge(world, ledger, pauses=False)
    change_results(bridge, Record, lambda _, found: found._replace(durable=False))
    assert result(bridge.ask(1))["durable"] is False


def test_the_ledger_is_told_when_an_attempt_began(world: World) -> None:
    """What is learnt of an attempt is as old as its beginning."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([Fate(True, None, 3.0)])
    world.run(5.0)
    began_at = bridge.ledger.now()
    bridge.ask(1)
    assert [op.began_at for op in asked(bridge, Record)] == [pytest.approx(began_at, rel=0, abs=0.01)]


# --- ends ------------------------------------------------------------------------------------


def test_an_end_that_another_bridge_was_faster_with_is_unknown(world: World) -> None:
    """If the ending cannot be kept because another bridge has the report, nobody here knows it."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([Fate(False, Exchange("timeout", True), 56.0)])
    change_results(bridge, Settle, lambda *_: Recorded("lost", None))
    bridge.report(1)
    data = error(bridge.ask(2))
    assert (data["code"], data["outcome"], data["replayed"]) == (-32002, "unknown", True)


@pytest.mark.parametrize("fate", [http(429, retry_after="7"), LOST_ANSWER.answer], ids=["429", "lost"])
def test_what_has_begun_is_left_at_the_stop(world: World, ledger: str, fate: Exchange) -> None:
    """Between two attempts a stop leaves the report to the next bridge, and tells what is known."""
    bridge = Bridge(world, ledger, pauses=False)
    world.upstream.fates = iter([Fate(False, fate)])
    bridge.engine.chance = lambda: 1.0  # type: ignore[method-assign]
    got = bridge.report(1)
    world.run(0.2)
    bridge.service.stop()
    world.run(0.1)
    data = error(got[0])
    assert (data["code"], data["outcome"], data["durable"], data["replayed"]) == (
        -32002,
        "unknown",
        False,
        False,
    )
    assert (row(bridge).outcome, row(bridge).attempts) == (None, 1)


def test_a_beginning_is_taken_back_at_the_stop(world: World, ledger: str) -> None:
    """A stop behind a beginning leaves a report that waits, not one that seems to be sent."""
    bridge = Bridge(world, ledger, pauses=False)
    world.upstream.fates = iter([LOST_ANSWER])
    call = bridge.ledger.call

    def stop(op: Any) -> Any:
        found = call(op)
        if isinstance(op, Begin):
            bridge.service.stop()
        return found

    bridge.ledger.call = stop  # type: ignore[method-assign]
    got = bridge.report(1)
    world.run(5.0)
    assert (error(got[0])["code"], sent(world, 1)) == (-32002, [0.0])
    assert (row(bridge).state, row(bridge).attempts) == ("waiting", 1)


def let_go(bridge: Bridge, way: str) -> int:
    """Stop the bridge, or cancel the request ``one``; the code that it is answered with."""
    if way == "stop":
        bridge.service.stop()
        return -32032
    bridge.service.cancel("one")
    return -32800


@pytest.mark.parametrize("way", ["stop", "cancel"])
@pytest.mark.parametrize(("fates", "loads_s"), [([NO_RESOURCES], 0.0), ([], 2.0)], ids=["lack", "loading"])
def test_what_ends_while_the_client_is_loaded_was_never_sent(
    world: World, way: str, fates: list[Fate], loads_s: float
) -> None:
    """While the client is loaded, or without a descriptor, nothing has begun: nothing is sent any more."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates, world.upstream.loads_s = iter(fates), loads_s
    got = bridge.report(1, name="one")
    world.run(0.2)
    code = let_go(bridge, way)
    world.run(2.5)
    told = error(got[0])
    assert (told["code"], told["outcome"], told["attempts"]) == (code, "not_sent", 0)
    assert len(world.upstream.attempts) == len(fates), "nothing is sent afterwards"


def test_an_attempt_is_made_once_there_is_a_descriptor(world: World) -> None:
    """It is tried again after half a second, and counts as the first."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([NO_RESOURCES, NO_RESOURCES, TAKEN])
    got = result(bridge.ask(1))
    assert (got["attempts"], sent(world, 1), row(bridge).attempts) == (1, [0.0, 0.5, 1.0], 1)


@pytest.mark.parametrize("loads_s", [2.0, 3.0])
def test_the_time_of_an_attempt_begins_when_it_can_be_made(world: World, loads_s: float) -> None:
    """While the client is loaded no attempt runs: it has its whole time then, and is the first one."""
    bridge = Bridge(world, pauses=False)
    world.upstream.loads_s = loads_s
    got = bridge.report(1)
    world.run(loads_s + 0.1)
    world.upstream.loads_s = 0.0
    world.run(10.0)
    assert (result(got[0])["attempts"], row(bridge).attempts) == (1, 1)
    ((_, attempt),) = world.upstream.attempts
    assert attempt.deadline_s == pytest.approx(10.0)


def test_the_last_answer_of_a_stopped_bridge_is_not_repeated(world: World) -> None:
    """An attempt that ends after the stop is the last one, whatever it met."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([Fate(False, verdict(91, "ERROR_RATE_LIMIT"), 1.0)])
    bridge.report(1)
    world.run(0.5)
    bridge.service.stop()
    world.run(5.0)
    assert sent(world, 1) == [0.0]
    assert (row(bridge).outcome, row(bridge).code) == ("refused", 91)
