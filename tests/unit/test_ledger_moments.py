"""Moments at which the SQLite ledger changes its mind, to the instant."""

from __future__ import annotations

import pytest

from bridge.core.model import (
    Claim,
    Ending,
    Facts,
    Listing,
    Prune,
    Settle,
    Window,
)
from tests.world import ENDPOINT, EPOCH, IMAGE, Bridge, World

GUARD_S = 86_400.0
OVER = Ending("not_sent", -32010, "window_closed")


@pytest.fixture
def bridge(world: World) -> Bridge:
    """A bridge on a ledger in memory."""
    return Bridge(world, pauses=False)


def finish(bridge: Bridge, task_id: int) -> None:
    """Leave a finished report."""
    claim = Claim(bridge.task(task_id), IMAGE, Window(9e9, None), Facts(), False)
    bridge.store.transact([claim, Settle(bridge.task(task_id), OVER)])


def listed(bridge: Bridge, listing: Listing) -> list[int]:
    """The task ids of a listing."""
    return [row.task.task_id for row in bridge.store.transact([listing])[0][0]]


def test_pruning_spares_what_is_just_young_enough(world: World, bridge: Bridge) -> None:
    """Neither the moment of the limit nor the last moment of the guard is over yet."""
    recorded = EPOCH + world.t
    finish(bridge, 1)
    world.t += GUARD_S
    assert bridge.store.transact([Prune(EPOCH + world.t, 9)]) == [0], "it still guards its task"
    world.t += 1
    assert bridge.store.transact([Prune(recorded, 9)]) == [0]
    assert bridge.store.transact([Prune(recorded + 0.001, 9)]) == [1]


def test_pruning_begins_with_the_oldest(world: World, bridge: Bridge) -> None:
    """After a clock was set back, age decides and not the order of arrival."""
    later = world.t + 500
    world.t = later
    finish(bridge, 1)
    world.t = later - 400
    finish(bridge, 2)
    world.t = later + GUARD_S + 1
    assert bridge.store.transact([Prune(EPOCH + world.t, 1)]) == [1]
    assert listed(bridge, Listing(ENDPOINT)) == [1]


def test_listing_ends_before_its_limit(world: World, bridge: Bridge) -> None:
    """The first moment belongs to a listing and the last one does not, even after a clock was set back."""
    for number, t in ((1, 1300.0), (2, 1100.0), (3, 1200.0)):
        world.t = t
        finish(bridge, number)
    assert listed(bridge, Listing(ENDPOINT, until_wall=EPOCH + 1300.0)) == [3, 2]
    assert listed(bridge, Listing(ENDPOINT, since_wall=EPOCH + 1200.0)) == [3, 1]
    assert listed(bridge, Listing(ENDPOINT, outcome="nonsense")) == []
