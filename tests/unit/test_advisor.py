"""The advisor with a real ledger in virtual time: when advice is told, how often, and what it never does."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from bridge.core.counting import DAY_S, HOUR_S, Counts, Note, Tallies
from bridge.core.model import Task
from bridge.core.redact import Secret
from bridge.reports import advisor
from bridge.reports.advice import Advice
from tests.world import ENDPOINT, KEY, Bridge, World
from tests.world import RECAPTCHA as TOKEN

_ids = count(1)


@pytest.fixture
def bridge(world: World) -> Bridge:
    """A bridge in it."""
    return Bridge(world)


def report(bridge: Bridge, method: str = TOKEN, wait_s: float = 1.0, age_s: float | None = None) -> list[str]:
    """Report a fresh task; the kinds of what its answer warns of."""
    number = next(_ids)
    completed_at = None if age_s is None else bridge.engine.wall() - age_s
    bridge.report(number, method, name=number, completed_at=completed_at)
    bridge.world.run(wait_s)
    answer = bridge.answers[-1][2]
    told = (answer.result or answer.data).get("warnings", ())
    return [warning["kind"] for warning in told]


def test_advice_is_told_once_an_hour(bridge: Bridge) -> None:
    """It is in the first answer after it has come up, then not for an hour, then again."""
    whose = Task(ENDPOINT, bridge.ledger.account(KEY.reveal()), 0)
    bridge.store.transact([Note(whose, "recaptcha", bridge.ledger.now(), Counts(200, wrong=150, sent=150))])
    told = [report(bridge) for _ in range(5)]
    assert told == [["rate_high"], [], [], [], []]
    bridge.world.run(HOUR_S - 10.0)
    assert report(bridge) == []
    bridge.world.run(60.0)
    assert [report(bridge), report(bridge)] == [["rate_high"], []]
    assert [fields["kind"] for name, fields in bridge.events if name == "advice"] == ["rate_high"] * 2


def test_what_changes_is_told_by_the_next_answer_however_quickly_it_comes(bridge: Bridge) -> None:
    """A caller who asks again at once hears of what its last report has brought about."""
    kinds: list[str] = []
    asked = 0
    while not kinds and asked < 20:
        kinds = report(bridge, wait_s=0.002, age_s=70.0)
        asked += 1
    assert (kinds, asked) == (["often_late"], 6)


def test_what_changes_last_of_all_is_an_event_still(bridge: Bridge) -> None:
    """At the end of input what nobody has been told of is logged."""
    for _ in range(5):
        report(bridge, wait_s=0.002, age_s=70.0)
    assert [name for name, _ in bridge.events if name == "advice"] == []
    bridge.service.advisor.finish()
    bridge.world.run(0.01)
    assert [fields["kind"] for name, fields in bridge.events if name == "advice"] == ["often_late"]


def test_that_tasks_are_unknown_is_told_once_a_day(bridge: Bridge) -> None:
    """After 20 complaints it is said what to do, and not again before a day has passed."""
    kinds = [kind for _ in range(30) for kind in report(bridge)]
    assert kinds == ["tasks_unknown"]
    for _ in range(22):
        bridge.world.run(HOUR_S)
        kinds += report(bridge)
    assert kinds == ["tasks_unknown"]


def test_a_restart_knows_at_once(world: World, tmp_path: Any) -> None:
    """The first answer of a bridge on a ledger has the advice that another one's reports led to."""
    path = str(tmp_path / "ledger")
    first = Bridge(world, path)
    for _ in range(25):
        report(first)
    second = Bridge(world, path)
    assert report(second) == ["tasks_unknown"]


def test_advice_never_changes_what_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an advisor that says everything and one that says nothing the upstream gets the same calls."""
    sent = []
    for says in (True, False):
        other = World()
        bridge = Bridge(other)
        found = tuple(Advice(kind, "a1b2c3d4", "m") for kind in ("few_tasks", "rate_jump", "many_refused"))
        monkeypatch.setattr(advisor, "advise", lambda *_, found=found, says=says: found if says else ())
        for number in range(1, 30):
            bridge.report(number, TOKEN, name=number)
            other.run(0.3)
        sent.append([(at, attempt.task_id) for at, attempt in other.upstream.attempts])
    assert sent[0] == sent[1]
    assert len(sent[0]) == 29


def test_wall_clock_jumps_change_nothing(world: World) -> None:
    """Whatever the wall clock does, the day that is counted is a day of the timeline."""
    told = []
    for fast_s in (0.0, 40.0 * DAY_S, -40.0 * DAY_S):
        bridge = Bridge(World(), clock_fast_s=fast_s)
        told.append([report(bridge) for _ in range(25)])
    assert told[0] == told[1] == told[2]
    assert ["tasks_unknown"] in told[0]


def test_no_key_is_in_advice(bridge: Bridge) -> None:
    """Neither the answers nor the events nor the ledger's counts have the key."""
    for _ in range(25):
        report(bridge)
    assert KEY.reveal() not in repr(bridge.events) + repr([answer for *_, answer in bridge.answers])


def test_many_accounts_are_looked_at_a_few_at_a_time(bridge: Bridge) -> None:
    """However many accounts report at once, a bounded number is read in a second, and each in a minute."""
    keys = [Secret(f"{number:032d}") for number in range(2 * advisor.LOOKS)]
    looked_at = []
    for _ in range(4):
        bridge.ledger.asked.clear()
        for key in keys:
            bridge.report(next(_ids), TOKEN, key=key)
        bridge.world.run(advisor.OLD_S / 2)
        looked_at.append(len({op.account for _, op in bridge.ledger.asked if isinstance(op, Tallies)}))
    assert looked_at == [2 * advisor.LOOKS, advisor.LOOKS] * 2
