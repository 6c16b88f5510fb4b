"""The account's own figures: when they are asked for, how seldom, and what becomes of the answers."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from bridge.core.counting import DAY_S, HOUR_S, Figure, Tallies
from bridge.core.model import Exchange
from bridge.core.redact import Secret
from bridge.reports.figures import AccountFigures, read_answer
from tests.world import ENDPOINT, EPOCH, KEY, RECAPTCHA, Bridge, Fate, World, verdict


def http(status: int, body: str) -> Exchange:
    """An answer of the upstream."""
    return Exchange(None, True, status, {}, body.encode(), elapsed_s=0.1)


def told(*hours: tuple[Any, Any], error_id: int = 0) -> Exchange:
    """An answer of the upstream's statistics."""
    data = [{"dateFrom": at, "dateTill": 0, "volume": volume, "money": "0.1"} for at, volume in hours]
    return http(200, json.dumps({"errorId": error_id, "errorCode": "ERROR_X", "data": data}))


class Desk:
    """An account's figures of one bridge in virtual time."""

    def __init__(self, bridge: Bridge, queues: tuple[str, ...] = (), answer: Any = None) -> None:
        self.bridge = bridge
        self.calls: list[tuple[float, Secret, int, str]] = []
        self.answer = answer or told((EPOCH + bridge.world.t - HOUR_S, 5))
        bridge.queues = queues
        self.figures = AccountFigures(bridge, self.ask, bridge.service.keys)
        bridge.engine.spawn(self.figures.run)

    def ask(self, key: Secret, date: int, queue: str) -> Exchange:
        self.calls.append((self.bridge.world.t, key, date, queue))
        if isinstance(self.answer, BaseException):
            raise self.answer
        exchange: Exchange = self.answer
        return exchange

    def known(self) -> list[Figure]:
        [known] = self.bridge.store.transact([Tallies(ENDPOINT, None)])[0]
        return [figure for figure in known.figures if figure.tasks]


@pytest.fixture
def bridge(world: World) -> Bridge:
    """A bridge that has reported once."""
    made = Bridge(world)
    assert made.ask(1, RECAPTCHA).result is not None
    return made


def test_an_account_is_asked_about_once_an_hour(bridge: Bridge) -> None:
    """With chance between, never sooner, from the hour of a day ago; what is told is in the ledger."""
    desk = Desk(bridge)
    bridge.world.run(5.5 * HOUR_S)
    times = [at for at, *_ in desk.calls]
    assert 4 <= len(times) <= 6
    assert all(HOUR_S <= later - earlier < 1.2 * HOUR_S for earlier, later in pairwise(times))
    at, key, date, queue = desk.calls[0]
    assert (key, queue) == (KEY, "")
    assert date == int(EPOCH + at) - DAY_S
    assert [figure.tasks for figure in desk.known()] == [5]
    assert desk.figures.failure is None


def test_bridges_of_a_ledger_ask_together_no_more_often(world: World, tmp_path: Any) -> None:
    """Two bridges with the same key on one ledger make one call an hour, also after one is started anew."""
    path = str(tmp_path / "ledger")
    bridges = [Bridge(world, path) for _ in range(2)]
    for number, each in enumerate(bridges, 1):
        assert each.ask(number, RECAPTCHA).result is not None
    desks = [Desk(each) for each in bridges]
    world.run(1.5 * HOUR_S)
    bridges.append(Bridge(world, path, holds=(KEY,)))
    desks.append(Desk(bridges[-1]))
    world.run(1.5 * HOUR_S)
    times = sorted(at for desk in desks for at, *_ in desk.calls)
    assert 2 <= len(times) <= 4
    assert all(later - earlier >= HOUR_S for earlier, later in pairwise(times))


def test_nothing_is_asked_before_a_report_was_taken(world: World) -> None:
    """A key that may be wrong costs no further call."""
    desk = Desk(Bridge(world, holds=(KEY,)))
    world.run(3.0 * HOUR_S)
    assert desk.calls == []


def test_nothing_is_asked_beside_a_pause(bridge: Bridge) -> None:
    """While anything is paused nothing is asked; once nothing is, it is."""
    desk = Desk(bridge)
    bridge.world.upstream.fates = iter([Fate(False, verdict(21))])
    assert bridge.ask(2, RECAPTCHA).code == 21
    bridge.world.run(2.0 * HOUR_S)
    assert desk.calls == []
    assert bridge.ask(3, RECAPTCHA).result is not None
    bridge.world.run(0.1 * HOUR_S)
    assert len(desk.calls) == 1


def test_queues_take_turns(bridge: Bridge) -> None:
    """Of several queues one is asked about in an hour, and each keeps its figures."""
    desk = Desk(bridge, ("A", "B"))
    bridge.world.run(3.5 * HOUR_S)
    assert [queue for *_, queue in desk.calls[:3]] == ["A", "B", "A"]
    assert {figure.queue for figure in desk.known()} == {"A", "B"}


def test_a_queue_without_tasks_is_told(bridge: Bridge) -> None:
    """That there were none is known, too, and does not keep the others from their turn."""
    desk = Desk(bridge, ("A", "B"), told())
    bridge.world.run(2.5 * HOUR_S)
    assert [queue for *_, queue in desk.calls[:2]] == ["A", "B"]
    [known] = bridge.store.transact([Tallies(ENDPOINT, None)])[0]
    assert {figure.queue for figure in known.figures} == {"A", "B"}


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Exchange("timeout", False), "timeout"),
        (told(error_id=1), "ERROR_X"),
        (http(200, "<html>"), "understood"),
        (http(500, '{"errorId":0}'), "understood"),
        (http(200, '{"errorId":0,"data":[{"dateFrom":1,"volume":"1e999"}]}'), "understood"),
        (http(200, '{"errorId":0,"data":{}}'), "understood"),
        (http(200, '{"errorId":0}'), "understood"),
        (told(("1e999", 5)), "understood"),
        (told((1550533500, 5), ("nan", 5)), "understood"),
        (told((1550533500, -1)), "understood"),
        (OSError("descriptors"), "lacked"),
    ],
)
def test_a_failure_is_told_in_the_status_only(bridge: Bridge, answer: Any, failure: str) -> None:
    """It opens no pause, is no event, and the next try is an hour later."""
    desk = Desk(bridge, answer=answer)
    before = list(bridge.events)
    bridge.world.run(0.5 * HOUR_S)
    assert failure in (desk.figures.failure or "")
    assert len(desk.calls) == 1
    assert bridge.events == before
    assert desk.known() == []
    assert bridge.ask(2, RECAPTCHA).result is not None


def test_numbers_may_be_texts() -> None:
    """What the documents print as texts is read as numbers, and moved to the timeline."""
    exchange = told(("1550533500", "12"), (1550537100, 3.0))
    assert read_answer(exchange, "A", -1550533500.0) == (Figure("A", 0.0, 12), Figure("A", 3600.0, 3))


@pytest.mark.parametrize("before", range(0, 80, 7))
def test_no_part_of_the_key_is_told(bridge: Bridge, before: int) -> None:
    """Wherever a long failure repeats the key, no half of it is left at the end of what is told."""
    answer = {"errorId": 1, "errorCode": "x" * before + KEY.reveal()}
    desk = Desk(bridge, answer=http(200, json.dumps(answer)))
    bridge.world.run(200.0)
    assert KEY.reveal()[:8] not in (desk.figures.failure or KEY.reveal())


def test_a_failure_can_be_written_anywhere(bridge: Bridge) -> None:
    """What could steer a terminal, or be no text at all, is told as an escape."""
    desk = Desk(bridge, answer=http(200, json.dumps({"errorId": 1, "errorCode": "\ud800\x1b[2J"})))
    bridge.world.run(200.0)
    assert (desk.figures.failure or "").endswith("(\\ud800\\u001b[2J)")


@pytest.mark.parametrize("volume", ["1e308", 10**308, 10**15, 2**63])
def test_more_tasks_than_there_can_be_are_none(bridge: Bridge, volume: Any) -> None:
    """An absurd number of tasks is not kept, and hinders neither advice nor the status."""
    at = EPOCH + bridge.world.t - HOUR_S
    desk = Desk(bridge, ("A",), told((at, volume), (at - HOUR_S, volume)))
    bridge.world.run(200.0)
    assert desk.calls
    assert desk.known() == []
    assert bridge.ask(2, RECAPTCHA).result is not None
