"""The number of attempts is the same everywhere, whatever comes between a beginning and its attempt."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.core.model import DONE, Look
from bridge.ledger.port import Story
from tests.ledgers import ServerLedger
from tests.pgserver import PgServer
from tests.world import (
    IMAGE,
    KEY,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_RESOURCES,
    STALLED,
    TAKEN,
    UNREACHED,
    Bridge,
    Fate,
    World,
    error,
    http,
    row,
    scratch_directory,
)


@pytest.fixture(scope="module")
def server(pg_server: PgServer) -> ServerLedger:
    """A ledger on a server."""
    return ServerLedger(pg_server)


@pytest.fixture
def ledger() -> Iterator[str]:
    """The path of a new ledger file."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as folder:
        yield os.path.join(folder, "ledger")


def test_cancel_behind_a_beginning_takes_it_back(ledger: str) -> None:
    """Five cancels between the commit and the attempt leave the task as it was; then it is reported."""
    world = World()
    bridge = Bridge(world, ledger)
    for _ in range(5):
        got = bridge.report(555, name=("r",))
        bridge.service.cancel(("r",))
        world.run(0.5)
        assert [(error(answer)["code"], error(answer)["attempts"]) for answer in got] == [(-32800, 0)]
        assert row(bridge, 555).attempts == 0
    result = bridge.ask(555).result
    assert result is not None
    assert result["attempts"] == row(bridge, 555).attempts == len(world.upstream.attempts) == 1


def test_window_that_only_the_ledger_knows_is_over_is_told_as_such(ledger: str) -> None:
    """A request without completedAt for a task whose window is over is -32010, and costs no attempt."""
    world = World()
    bridge = Bridge(world, ledger)
    bridge.ask(1)
    world.upstream.fates = iter([UNREACHED])
    first = error(bridge.ask(7, completed_at=bridge.engine.wall() - 57.9))
    assert (first["code"], first["attempts"]) == (-32001, 1)
    world.run(3)
    for asked in (bridge, Bridge(world, ledger), bridge, bridge, bridge):
        late = error(asked.ask(7))
        assert (late["code"], late["attempts"], row(bridge, 7).attempts) == (-32010, 1, 1)
    late = error(bridge.ask(7, completed_at=bridge.engine.wall() - 1))
    assert late["code"] == -32010
    assert late["ageSeconds"] > 60


def test_lack_of_resources_is_no_attempt(ledger: str) -> None:
    """While this machine has no descriptor the report waits, counts no attempt and opens no pause."""
    world = World()
    bridge = Bridge(world, ledger)
    bridge.ask(1)
    world.upstream.attempts.clear()
    world.upstream.fates = iter([NO_RESOURCES] * 30)
    got = bridge.report(2)
    world.run(10)
    assert got == []
    world.run(10)
    assert got[0].result is not None
    assert got[0].result["attempts"] == row(bridge, 2).attempts == 1
    world.upstream.fates = iter([NO_RESOURCES] * 300)
    late = error(bridge.ask(3, completed_at=bridge.engine.wall()))
    assert (late["code"], late["attempts"], row(bridge, 3).attempts) == (-32010, 0, 0)
    assert all(name != "pause_opened" for name, _ in bridge.events)


def test_second_attempt_asks_for_a_new_connection() -> None:
    """The first attempt may use a kept connection, a later one never does."""
    world = World()
    bridge = Bridge(world)
    world.upstream.fates = iter([LOST_REQUEST])
    bridge.ask(1)
    bridge.ask(2)
    assert [attempt.fresh for _, attempt in world.upstream.attempts] == [False, True, False]


def test_probe_of_the_transport_pause_asks_for_a_new_connection() -> None:
    """What is to show whether the upstream can be reached does not use what may be dead."""
    world = World()
    bridge = Bridge(world)
    bridge.ask(1)
    world.upstream.fates = iter([UNREACHED] * 5)
    for number in range(2, 7):
        bridge.report(number, completed_at=bridge.engine.wall() - 57)
    world.run(4)
    assert any(name == "pause_opened" for name, _ in bridge.events)
    world.upstream.attempts.clear()
    bridge.ask(10)
    assert [attempt.fresh for _, attempt in world.upstream.attempts] == [True]
    # What is over has no end to come.
    (closed,) = [fields for name, fields in bridge.events if name == "pause_closed"]
    assert {**closed} == {"rule": "transport", "scope": "transport", "subject": closed["subject"]}


BUSY = Fate(False, http(429, retry_after="1"))
FATES = (TAKEN, UNREACHED, LOST_ANSWER, LOST_REQUEST, STALLED, NO_RESOURCES, BUSY)
STEPS = st.one_of(
    st.tuples(st.just("report"), st.sampled_from((None, 5.0, 55.0))),
    st.tuples(st.just("cancel"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.01, 0.3, 3.0, 12.0))),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("kill"), st.none()),
)


CASES = given(st.lists(STEPS, max_size=12), st.lists(st.sampled_from(FATES), max_size=12))


def live_through(path: str, steps: list[Any], fates: list[Fate]) -> None:
    """Live through the steps, and ask whether everybody counted the same attempts."""
    world, kills, answers = World(), 0, []
    world.upstream.fates = iter(fates)
    bridge = Bridge(world, path, holds=(KEY,))
    for step, told in steps:
        if step == "report":
            when = {} if told is None else {"completed_at": bridge.engine.wall() - told}
            answers.append(bridge.report(1, IMAGE, name=("r",), **when))
        elif step == "cancel":
            bridge.service.cancel(("r",))
        elif step == "wait":
            world.run(told)
        else:
            if step == "stop":
                bridge.service.stop()
                world.run(0.01)
            bridge.crash()
            kills += 1
            bridge = Bridge(world, path, holds=(KEY,))
    world.run(200)
    try:
        made = sum(fate is not None for fate in world.upstream.attempts) - world.upstream.refused_resources
        if bridge.store.transact([Look(bridge.task(1))])[0] is None:
            assert made == 0
            return
        record = row(bridge, 1)
        assert record.state == DONE
        assert made <= record.attempts <= min(4, made + kills)
        told = [event.name for event in bridge.store.transact([Story(record.seq)])[0]]
        assert told.count("begun") - told.count("withdrawn") == record.attempts
        for answer in (answer for got in answers for answer in got):
            attempts = (answer.result or answer.data)["attempts"]
            assert attempts <= record.attempts
        assert bridge.bugs == []
    finally:
        bridge.crash()


@CASES
def test_attempts_agree_in_every_interleaving(steps: list[Any], fates: list[Fate]) -> None:
    """Answers, record, events and upstream count the same; a crash may leave one more on record only."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as folder:
        live_through(os.path.join(folder, "ledger"), steps, fates)


@settings(max_examples=40)
@example([("report", None), ("wait", 0.0), ("stop", None)], [])
@CASES
def test_attempts_agree_in_every_interleaving_on_a_server(
    server: ServerLedger, steps: list[Any], fates: list[Fate]
) -> None:
    """The same holds with PostgreSQL."""
    server.select("TRUNCATE accounts, reports, events, pauses, tallies, figures CASCADE")
    live_through(server.url, steps, fates)
