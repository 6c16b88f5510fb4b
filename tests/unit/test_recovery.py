"""What a bridge leaves behind, and what its neighbours make of it, in a world where time is handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.model import Exchange, Look, Row
from tests.world import (
    KEY,
    LOST_REQUEST,
    OTHER_KEY,
    RECAPTCHA,
    Bridge,
    Fate,
    World,
    http,
    scratch_directory,
)

FOREVER = Fate(False, Exchange("timeout", True), 500.0)
FOREVER_TAKEN = Fate(True, Exchange("timeout", True), 500.0)


@pytest.fixture
def world() -> World:
    """A new world."""
    return World()


@pytest.fixture
def ledger() -> Iterator[str]:
    """The path of a ledger file that does not exist yet."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
        yield f"{directory}/ledger.sqlite3"


def row(bridge: Bridge, task_id: int) -> Row:
    """The ledger's row of a task."""
    found = bridge.store.read(Look(bridge.task(task_id)))
    assert isinstance(found, Row)
    return found


def data(answer: Any) -> dict[str, Any]:
    """The code and the data of an error."""
    assert answer.result is None
    return {"code": answer.code, **answer.data}


def leave(world: World, ledger: str, fate: Fate, **options: Any) -> Bridge:
    """A bridge that dies while its report has this fate."""
    bridge = Bridge(world, ledger, **options)
    world.upstream.fates = iter([fate])
    bridge.report(1)
    world.run(1)
    bridge.crash()
    return bridge


def test_begun_report_is_sent_once_more(world: World, ledger: str) -> None:
    """A neighbour with the key resumes a report whose attempt had begun, with one more attempt."""
    leave(world, ledger, FOREVER)
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert (row(neighbour, 1).outcome, row(neighbour, 1).attempts) == ("accepted", 2)
    assert "report_resumed" in [name for name, _ in neighbour.events]


def test_refusal_after_a_crash_is_unknown(world: World, ledger: str) -> None:
    """A 16 for a report that may have been taken before the crash is no refusal."""
    leave(world, ledger, Fate(True, Exchange("timeout", True), 1.5))
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(neighbour, 1).outcome == "unknown"
    assert row(neighbour, 1).detail["likely"] == "accepted"
    assert len(world.upstream.calls) == 2


def test_never_begun_report_is_sent(world: World, ledger: str) -> None:
    """A report that only waited when its bridge died is sent by the neighbour."""
    bridge = Bridge(world, ledger, concurrency=1, pauses=False)
    world.upstream.fates = iter([FOREVER])
    bridge.report(1)
    bridge.report(2)
    world.run(1)
    bridge.crash()
    neighbour = Bridge(world, ledger, holds=(KEY,), pauses=False)
    world.run(3)
    assert (row(neighbour, 2).outcome, row(neighbour, 2).attempts) == ("accepted", 1)


def test_without_the_key_the_window_ends_it(world: World, ledger: str) -> None:
    """Nobody who holds the key comes: begun ends unknown, never begun ends not_sent, nothing is sent."""
    bridge = Bridge(world, ledger, concurrency=1, pauses=False)
    world.upstream.fates = iter([FOREVER])
    bridge.report(1)
    bridge.report(2)
    world.run(1)
    bridge.crash()
    neighbour = Bridge(world, ledger, holds=(OTHER_KEY,))
    world.run(20)
    assert row(neighbour, 1).state == "sending"
    world.run(40)
    assert (row(neighbour, 1).outcome, row(neighbour, 2).outcome) == ("unknown", "not_sent")
    assert world.upstream.calls == []


def test_a_request_brings_the_key(world: World, ledger: str) -> None:
    """A bridge that sees the key in a request resumes what was left under that account."""
    leave(world, ledger, FOREVER)
    neighbour = Bridge(world, ledger)
    world.run(3)
    assert row(neighbour, 1).state == "sending"
    neighbour.ask(2)
    world.run(3)
    assert row(neighbour, 1).outcome == "accepted"


def test_asking_for_what_was_left_takes_it_over(world: World, ledger: str) -> None:
    """The same request to another bridge goes on with the report and causes the send."""
    leave(world, ledger, FOREVER)
    result = Bridge(world, ledger).ask(1).result
    assert result is not None
    assert (result["attempts"], result["replayed"]) == (2, False)


def test_late_recovery_sends_nothing(world: World, ledger: str) -> None:
    """After the window a report that was left is ended without a call."""
    leave(world, ledger, FOREVER)
    world.run(100)
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(neighbour, 1).outcome == "unknown"
    assert len(world.upstream.attempts) == 1


def test_living_owner_is_waited_for(world: World, ledger: str) -> None:
    """A request for a report of a living neighbour gets the neighbour's answer, replayed."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(True, None, 5.0)])
    first.report(1)
    world.run(0.1)
    result = second.ask(1).result
    assert result is not None
    assert result["replayed"] is True
    assert len(world.upstream.calls) == 1


def test_owner_that_never_settles_is_unknown(world: World, ledger: str) -> None:
    """At the end of the window the waiting request is told that nothing is known."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER])
    first.report(1)
    world.run(0.1)
    answer = data(second.ask(1, completed_at=second.wall() - 40))
    assert (answer["code"], answer["outcome"]) == (-32002, "unknown")
    assert world.t < 1022


def test_owner_dies_while_it_is_waited_for(world: World, ledger: str) -> None:
    """The waiting bridge takes the report over at once."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER])
    first.report(1)
    world.run(0.1)
    got = second.report(1)
    world.run(1)
    first.crash()
    world.run(3)
    assert got[0].result is not None


def test_cancel_of_a_waiting_request_leaves_the_owner_alone(world: World, ledger: str) -> None:
    """Who waits for a neighbour's report can go; the report is the neighbour's."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(True, None, 5.0)])
    owner = first.report(1)
    world.run(0.1)
    got = second.report(1, name="w")
    world.run(1)
    second.service.cancel("w")
    assert data(got[0])["outcome"] == "unknown"
    world.run(6)
    assert owner[0].result is not None
    assert second.service.wait_idle(0)


def test_conflict_across_bridges(world: World, ledger: str) -> None:
    """Another method for a neighbour's report is refused, in flight and after."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(True, None, 2.0)])
    first.report(1)
    world.run(0.1)
    assert data(second.ask(1, RECAPTCHA))["outcome"] is None
    world.run(3)
    assert data(second.ask(1, RECAPTCHA))["outcome"] == "accepted"


def test_not_sent_of_a_neighbour_is_tried_again(world: World, ledger: str) -> None:
    """A report that a neighbour could not send can be sent here."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(False, http(429, retry_after="120"))])
    assert data(first.ask(1))["outcome"] == "not_sent"
    assert second.ask(1).result is not None


def test_stop_leaves_begun_reports_to_recovery(world: World, ledger: str) -> None:
    """What a drained bridge had begun is resumed by the next one."""
    bridge = Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER])
    begun = bridge.report(1)
    world.run(1)
    bridge.service.stop()
    world.run(0.1)
    bridge.crash()
    assert data(begun[0])["outcome"] == "unknown"
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(neighbour, 1).outcome == "accepted"


def test_two_crashes_never_mean_a_third_send(world: World, ledger: str) -> None:
    """Each crash in mid flight counts as a send; after two the report ends unknown."""
    leave(world, ledger, LOST_REQUEST._replace(lasts_s=500.0))
    second = Bridge(world, ledger, holds=(KEY,))
    world.upstream.fates = iter([FOREVER])
    world.run(2)
    second.crash()
    third = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(third, 1).outcome == "unknown"
    assert len(world.upstream.attempts) == 2


def test_what_a_sweep_took_over_is_flown_whatever_is_asked_meanwhile(world: World, ledger: str) -> None:
    """A request with another method that meets a report just taken over is a conflict and no obstacle."""
    leave(world, ledger, FOREVER)
    neighbour = Bridge(world, ledger, holds=(KEY,))
    # The sweep has been submitted and adopts the report; this claim comes right behind it.
    got = neighbour.report(1, RECAPTCHA)
    world.run(3)
    assert data(got[0])["code"] == -32011
    assert row(neighbour, 1).outcome == "accepted"


def test_refused_request_never_takes_a_report_over(world: World, ledger: str) -> None:
    """A request that is refused locally is told so, and sends nothing later when it meets a neighbour's."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    assert first.ask(99).result is not None
    world.upstream.fates = iter([Fate(False, http(429, retry_after="120"), 2.0)])
    first.report(1)
    world.run(0.1)
    refused = second.ask(1, task_type="RecaptchaV2Task")
    assert data(refused)["code"] == -32012
    world.run(10)
    assert [attempt.task_id for _, attempt in world.upstream.attempts].count(1) == 1
