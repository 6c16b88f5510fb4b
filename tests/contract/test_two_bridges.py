"""Two bridges and one task: answers that must not be wrong, late, missing or forgotten between them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from bridge.core.model import Look, Row
from bridge.ledger.port import Unavailable
from tests.world import (
    EPOCH,
    KEY,
    RECAPTCHA,
    STALLED,
    STALLED_TAKEN,
    Bridge,
    World,
    scratch_directory,
)


@pytest.fixture
def path() -> Iterator[str]:
    """A ledger that two bridges share."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
        yield f"{directory}/ledger.sqlite3"


def test_a_watched_report_is_never_called_not_sent_because_the_ledger_fails(path: str) -> None:
    """Who waits for another bridge's attempt is told that nobody knows, not that nothing was sent."""
    world = World()
    sender, watcher = Bridge(world, path), Bridge(world, path)
    world.upstream.fates = iter([STALLED_TAKEN])
    sender.report(5)
    world.run(0.5)
    got = watcher.report(5)
    world.run(0.3)
    watcher.trouble = Unavailable("full", "The disk is full.")
    world.run(1.0)
    assert [answer.data["outcome"] for answer in got] == ["unknown"]


def test_a_stop_answers_a_claim_that_turns_out_to_be_elsewhere(path: str) -> None:
    """A request whose claim was on its way at the stop is answered though another bridge has the task."""
    world = World()
    sender, watcher = Bridge(world, path), Bridge(world, path)
    world.upstream.fates = iter([STALLED_TAKEN])
    sender.report(5)
    world.run(0.5)
    got = watcher.report(5)
    watcher.service.stop()
    world.run(1.0)
    assert [answer.data["outcome"] for answer in got] == ["unknown"]
    assert watcher.service.counts() == (0, 0)


def test_what_is_refused_locally_is_not_sent_beside_another_bridge(path: str) -> None:
    """A report in the wrong language conflicts with another bridge's, and is not sent after it."""
    world = World()
    owner, refuser = Bridge(world, path, concurrency=1), Bridge(world, path)
    world.upstream.fates = iter([STALLED])
    owner.report(1)
    world.run(0.2)
    owner.report(7, name="seven")
    world.run(0.2)
    got = refuser.report(7, language_pool="rn")
    world.run(0.5)
    owner.service.cancel("seven")
    world.run(30.0)
    assert [answer.code for answer in got] == [-32011]
    assert [attempt.task_id for _, attempt in world.upstream.attempts if attempt.task_id == 7] == []


def test_the_earliest_window_holds_after_the_flight_that_knew_it(path: str) -> None:
    """A later request without completedAt is not sent after the end that an earlier joiner told."""
    world = World()
    bridge = Bridge(world, path, concurrency=1)
    world.upstream.fates = iter([STALLED])
    bridge.report(1)
    world.run(0.2)
    first = bridge.report(8)
    world.run(0.1)
    bridge.report(8, completed_at=EPOCH + world.t - 53.0)
    world.run(8.0)
    assert first[0].code == -32010
    again = bridge.report(8)
    world.run(20.0)
    assert [answer.code for answer in again] == [-32010]
    assert [attempt.task_id for _, attempt in world.upstream.attempts if attempt.task_id == 8] == []


def test_the_cancel_of_one_who_joined_a_resumed_report_leaves_it_alone(path: str) -> None:
    """A report taken over from a dead bridge is sent though the only request that joined it is cancelled."""
    world = World()
    dead = Bridge(world, path, concurrency=1)
    world.upstream.fates = iter([STALLED, STALLED])
    dead.report(1)
    world.run(0.2)
    dead.report(9)
    world.run(0.2)
    dead.crash()
    heir = Bridge(world, path, concurrency=1, holds=(KEY,))
    world.run(0.2)
    got = heir.report(9, name="nine")
    world.run(0.1)
    heir.service.cancel("nine")
    world.run(0.1)
    assert [answer.code for answer in got] == [-32800]
    world.run(40.0)
    assert world.upstream.taken(9)


def test_a_report_taken_over_beside_a_request_for_another_method_is_not_lost(path: str) -> None:
    """A sweep that takes a report over while another method is being claimed still brings it to its end."""
    world = World()
    dead = Bridge(world, path, concurrency=1)
    world.upstream.fates = iter([STALLED])
    dead.report(1)
    world.run(0.2)
    dead.report(9)
    world.run(0.1)
    heir = Bridge(world, path, holds=(KEY,))
    world.run(0.1)
    dead.crash()
    world.run(1.0)
    got = heir.report(9, RECAPTCHA)
    world.run(100.0)
    assert [answer.code for answer in got] == [-32011]
    row = heir.store.transact([Look(heir.task(9))])[0]
    assert isinstance(row, Row)
    assert row.state == "done"
