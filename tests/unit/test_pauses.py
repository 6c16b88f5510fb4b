"""When to stop sending: the table of pauses, in a world where time is handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.model import OPEN, Exchange, Pauses, PauseState, Resume, Task, Window
from bridge.core.redact import Secret
from bridge.reports.flight import Answer
from bridge.reports.pauses import PROOF, PausePolicy
from tests.world import (
    ENDPOINT,
    IMAGE,
    OTHER_KEY,
    RECAPTCHA,
    UNREACHED,
    Bridge,
    Fate,
    World,
    http,
    scratch_directory,
    verdict,
)

WRONG_KEY = Secret("w" * 32)


@pytest.fixture
def world() -> World:
    """A new world."""
    return World()


@pytest.fixture
def bridge(world: World) -> Bridge:
    """A bridge whose key has been proven."""
    bridge = Bridge(world, concurrency=8)
    assert bridge.ask(999_000).result is not None
    world.upstream.calls.clear()
    return bridge


@pytest.fixture
def ledger() -> Iterator[str]:
    """The path of a ledger file that does not exist yet."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
        yield f"{directory}/ledger.sqlite3"


def always(exchange: Exchange) -> Iterator[Fate]:
    """One fate for ever."""
    while True:
        yield Fate(False, exchange)


def code(answer: Answer) -> int:
    """The wire code, 0 for a result."""
    return 0 if answer.result is not None else answer.code


def pause(answer: Answer) -> dict[str, Any]:
    """The pause that an answer tells of."""
    assert answer.code == -32021
    assert answer.data["outcome"] == "not_sent"
    shown: dict[str, Any] = answer.data["pause"]
    return shown


def open_rules(bridge: Bridge) -> dict[str, PauseState]:
    """The pauses that are not closed, by rule."""
    states = bridge.store.read(Pauses(ENDPOINT))
    return {state.key.rule: state for state in states if state.key.rule != PROOF}


def resume(bridge: Bridge, scope: str | None = None) -> tuple[PauseState, ...]:
    """Do what bridge.resume does."""
    states: tuple[PauseState, ...] = bridge.store.transact([Resume(ENDPOINT, scope, None)])[0]
    bridge.service.resume_waiting()
    return states


def test_wrong_key_costs_one_call(world: World) -> None:
    """However many requests wait, an unproven wrong key is tried once."""
    bridge = Bridge(world, concurrency=32)
    answers = [bridge.report(number + 1, key=WRONG_KEY) for number in range(1000)]
    world.run(5)
    codes = [code(answer[0]) for answer in answers]
    assert len(world.upstream.calls) == 1
    assert sorted(set(codes)) == [-32021, 1]
    assert codes.count(1) == 1


def test_wrong_key_costs_one_call_across_bridges(world: World, ledger: str) -> None:
    """Four bridges on one ledger share what the first one learns."""
    bridges = [Bridge(world, ledger) for _ in range(4)]
    for number in range(100):
        bridges[number % 4].report(number + 1, key=WRONG_KEY)
    world.run(5)
    assert len(world.upstream.calls) == 1
    assert sum(len(bridge.answers) for bridge in bridges) == 100


def test_another_key_is_not_held_back(world: World) -> None:
    """A pause of one key leaves the others alone."""
    bridge = Bridge(world)
    bridge.ask(1, key=WRONG_KEY)
    assert bridge.ask(2, key=OTHER_KEY).result is not None


@pytest.mark.parametrize(
    ("error_id", "scope"), [(1, "key"), (55, "key"), (10, "key"), (11, "address"), (21, "address")]
)
def test_one_such_error_pauses(bridge: Bridge, error_id: int, scope: str) -> None:
    """Errors about key or address pause at once."""
    bridge.world.upstream.fates = always(verdict(error_id))
    assert code(bridge.ask(1)) == error_id
    shown = pause(bridge.ask(2))
    assert shown["scope"] == scope
    assert shown["manual"] is (error_id in (1, 55))
    assert (shown["endsAt"] is None) is (error_id in (1, 55))


@pytest.mark.parametrize(
    ("status", "rule", "first_s"),
    [
        (401, "key_unauthorized", 600),
        (403, "address_blocked", 1800),
        (404, "method_withdrawn", 600),
        (405, "method_withdrawn", 600),
        (302, "address_route", 60),
    ],
)
def test_http_refusals_pause(bridge: Bridge, status: int, rule: str, first_s: float) -> None:
    """HTTP refusals pause for their first length, then probe; a good verdict closes the pause."""
    bridge.world.upstream.fates = iter([Fate(False, http(status))])
    assert code(bridge.ask(1)) == -32003
    opened = open_rules(bridge)[rule]
    assert opened.opened_at is not None
    assert opened.ends_at == pytest.approx(opened.opened_at + first_s)
    bridge.world.run(first_s + 1)
    assert bridge.ask(2).result is not None
    assert open_rules(bridge) == {}


def test_method_pause_concerns_one_method(bridge: Bridge) -> None:
    """A withdrawn route does not stop the other methods."""
    bridge.world.upstream.fates = iter([Fate(False, verdict(14))])
    bridge.ask(1)
    assert pause(bridge.ask(2))["scope"] == "method"
    assert bridge.ask(3, RECAPTCHA).result is not None


def test_failed_probes_double_up_to_the_cap(bridge: Bridge) -> None:
    """Each probe that meets the same error doubles the pause, up to a day for a blocked address."""
    bridge.world.upstream.fates = always(verdict(21))
    bridge.ask(1)
    lengths = []
    for number in range(9):
        state = open_rules(bridge)["address_blocked"]
        assert state.ends_at is not None
        assert state.opened_at is not None
        lengths.append(state.ends_at - state.opened_at)
        bridge.world.run(lengths[-1] + 1)
        assert code(bridge.ask(10 + number)) == 21
    assert [round(length) for length in lengths] == [1800 * 2**n for n in range(6)] + [86400] * 3


def test_report_waits_if_the_probe_lies_inside_its_window(bridge: Bridge) -> None:
    """Transport pauses are short: a report waits for the probe and is then sent."""
    bridge.world.upstream.fates = iter([UNREACHED] * 5)
    bridge.ask(1)
    began = bridge.world.t
    assert bridge.ask(2).result is not None
    assert 4.0 < bridge.world.t - began < 8.0


def test_transport_pause_needs_five_in_a_row(bridge: Bridge) -> None:
    """Any HTTP status in between starts the count anew."""
    fates = [*[UNREACHED] * 4, *[Fate(False, http(418))], *[UNREACHED] * 4]
    bridge.world.upstream.fates = iter(fates)
    assert code(bridge.ask(1)) == -32001
    assert code(bridge.ask(2)) == -32003
    assert code(bridge.ask(3)) == -32001
    assert "transport" not in open_rules(bridge)


def test_fifty_wrong_ids_cost_ten_calls(bridge: Bridge) -> None:
    """After ten certain errors 16 in a row nothing more is sent."""
    bridge.world.upstream.wrong.update(range(1, 51))
    codes = [code(bridge.ask(number)) for number in range(1, 51)]
    assert codes == [16] * 10 + [-32021] * 40
    assert len(bridge.world.upstream.calls) == 10


def test_wrong_ids_in_flight_cost_at_most_42_calls(world: World) -> None:
    """With 32 in flight the pause comes as soon as ten answers are in."""
    bridge = Bridge(world, concurrency=32)
    world.upstream.wrong.update(range(1, 201))
    for number in range(1, 201):
        bridge.report(number)
    world.run(5)
    assert len(world.upstream.calls) <= 42
    assert len(bridge.answers) == 200


def test_an_accepted_report_starts_the_count_anew(bridge: Bridge) -> None:
    """Ten errors 16 that are not in a row do not pause."""
    bridge.world.upstream.wrong.update(range(1, 10))
    for number in (*range(1, 10), 100):
        bridge.ask(number)
    bridge.world.upstream.wrong.update(range(11, 20))
    codes = [code(bridge.ask(number)) for number in range(11, 20)]
    assert codes == [16] * 9
    assert open_rules(bridge) == {}


def test_quality_probe_with_16_adds_ten_minutes(bridge: Bridge) -> None:
    """A probe that meets 16 again waits ten minutes more, not longer each time."""
    bridge.world.upstream.wrong.update(range(1, 100))
    for number in range(1, 11):
        bridge.ask(number)
    for number in (50, 51):
        bridge.world.run(601)
        assert code(bridge.ask(number)) == 16
        state = open_rules(bridge)["quality"]
        assert state.ends_at is not None
        assert state.opened_at is not None
        assert state.ends_at - state.opened_at == pytest.approx(600)
    bridge.world.run(601)
    assert bridge.ask(200).result is not None
    assert open_rules(bridge) == {}


def test_uncertain_16_does_not_count(bridge: Bridge) -> None:
    """A 16 after a lost answer may be an acceptance and opens nothing."""
    upstream = bridge.world.upstream
    for number in range(1, 12):
        upstream.fates = iter([Fate(True, Exchange("reset", True, elapsed_s=0.1))])
        assert code(bridge.ask(number)) == -32002
    assert "quality" not in open_rules(bridge)


def test_rate_pause_needs_three_reports(bridge: Bridge) -> None:
    """429 on three reports within a minute pauses for as long as the server said."""
    upstream = bridge.world.upstream
    for number in (1, 2):
        upstream.fates = iter([Fate(False, http(429, retry_after="300"))])
        bridge.ask(number)
        assert open_rules(bridge) == {}
    upstream.fates = iter([Fate(False, http(429, retry_after="300"))])
    bridge.ask(3)
    state = open_rules(bridge)["address_rate"]
    assert state.ends_at is not None
    assert state.opened_at is not None
    assert state.ends_at - state.opened_at == pytest.approx(300)
    assert pause(bridge.ask(4))["scope"] == "address"


def test_one_report_limited_thrice_does_not_pause(bridge: Bridge) -> None:
    """The same report counts once, however often it is answered 429."""
    limited = Fate(False, http(429, retry_after="1"))
    bridge.world.upstream.fates = iter([limited] * 3)
    assert bridge.ask(1).result is not None
    assert open_rules(bridge) == {}


def test_rate_events_grow_old(bridge: Bridge) -> None:
    """Limits more than a minute apart do not add up."""
    for number in (1, 2, 3):
        bridge.world.upstream.fates = iter([Fate(False, http(429, retry_after="300"))])
        bridge.ask(number)
        bridge.world.run(40)
    assert open_rules(bridge) == {}


def test_late_verdicts_neither_lengthen_nor_close(bridge: Bridge) -> None:
    """Attempts that began before a pause opened do not change it: only the probe does."""
    slow_ok = Fate(True, None, 3.0)
    bridge.world.upstream.fates = iter(
        [slow_ok, Fate(False, verdict(21), 1.0), Fate(False, verdict(21), 2.0)]
    )
    for number in (1, 2, 3):
        bridge.report(number)
    bridge.world.run(1.5)
    first = open_rules(bridge)["address_blocked"]
    bridge.world.run(5)
    assert open_rules(bridge)["address_blocked"] == first


def test_one_probe_at_a_time(bridge: Bridge) -> None:
    """When a pause is due, one report probes and the others wait for it."""
    bridge.world.upstream.fates = iter([*[UNREACHED] * 5, Fate(True, None, 3.0)])
    bridge.ask(1)
    for number in range(10, 20):
        bridge.report(number)
        bridge.world.run(0.1)
    bridge.world.upstream.attempts.clear()
    bridge.world.run(6.0)
    assert len(bridge.world.upstream.attempts) == 1
    bridge.world.run(4.0)
    assert len(bridge.world.upstream.attempts) == 10


def test_resume_turns_a_pause_into_a_probe(bridge: Bridge) -> None:
    """A person's resume lets the next report probe, and keeps the doubling."""
    bridge.world.upstream.fates = always(verdict(21))
    bridge.ask(1)
    assert code(bridge.ask(2)) == -32021
    assert [bridge.policy.scope(state) for state in resume(bridge, "address")] == ["address"]
    assert code(bridge.ask(3)) == 21
    state = open_rules(bridge)["address_blocked"]
    assert state.level == 1


def test_resumed_key_is_unproven_again(world: World) -> None:
    """After resume of a refused key one report goes, and only one."""
    bridge = Bridge(world)
    bridge.ask(1, key=WRONG_KEY)
    assert resume(bridge, "method") == ()
    resume(bridge, "key")
    for number in range(2, 50):
        bridge.report(number, key=WRONG_KEY)
    world.run(3)
    assert len(world.upstream.calls) == 2


def test_without_pauses_nothing_is_held_back(world: World) -> None:
    """--no-pauses sends everything, proven or not."""
    bridge = Bridge(world, pauses=False)
    for number in range(1, 21):
        bridge.report(number, key=WRONG_KEY)
    world.run(5)
    assert len(world.upstream.calls) == 20


def test_unproven_waiters_go_by_window_end(world: World) -> None:
    """If the proving attempt ends without a verdict, the waiter with the earliest end goes next."""
    bridge = Bridge(world)
    world.upstream.fates = iter([Fate(False, Exchange("timeout", True), 10.0)])
    bridge.report(1, completed_at=bridge.wall() - 44)
    bridge.report(2)
    bridge.report(3, completed_at=bridge.wall() - 10)
    world.run(12)
    assert [attempt.task_id for _, attempt in world.upstream.attempts][1] == 3


def test_address_pause_is_for_one_machine(world: World, ledger: str) -> None:
    """Another machine on the same ledger is not held back by this one's address."""
    here, there = Bridge(world, ledger, machine="here"), Bridge(world, ledger, machine="there")
    assert here.ask(99).result is not None
    world.upstream.fates = iter([Fate(False, verdict(21))])
    here.ask(1)
    assert code(here.ask(2)) == -32021
    assert there.ask(3).result is not None


def test_key_pause_holds_for_all_machines(world: World, ledger: str) -> None:
    """What is about the key holds wherever the key is used."""
    here, there = Bridge(world, ledger, machine="here"), Bridge(world, ledger, machine="there")
    here.ask(1, key=WRONG_KEY)
    assert code(there.ask(2, key=WRONG_KEY)) == -32021


def test_route_pause_is_lifted_by_another_context() -> None:
    """A start with another proxy or CA lifts the pause that a redirect or certificate opened."""
    policy, changed = PausePolicy("m", "old"), PausePolicy("m", "new")
    task = Task("e", "a", 1)
    key = next(key for key in policy.keys(task, IMAGE) if key.rule == "address_route")
    proven = PauseState(policy.keys(task, IMAGE)[0])
    state = PauseState(key, OPEN, "http_redirect", opened_at=0.0, ends_at=60.0, context="old")
    states = {key: state, proven.key: proven}
    window = Window(None, 0.0)
    assert policy.gate(1.0, task, IMAGE, "me", states, window)[0].status == "paused"
    gate, stored, events = changed.gate(1.0, task, IMAGE, "me", states, window)
    assert gate.status == "begun"
    assert [state.state for state in stored] == ["closed"]
    assert [event.name for event in events] == ["pause_closed"]


def test_dead_prober_frees_the_probe(world: World, ledger: str) -> None:
    """If the bridge that probes dies, another one's report probes instead."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(False, Exchange("timeout", True), 30.0)])
    first.report(1)
    world.run(0.5)
    first.crash()
    assert second.ask(2).result is not None


def test_pause_survives_a_restart(world: World, ledger: str) -> None:
    """A pause is kept in the ledger, not in the process."""
    first = Bridge(world, ledger)
    first.ask(1, key=WRONG_KEY)
    first.crash()
    assert code(Bridge(world, ledger).ask(2, key=WRONG_KEY)) == -32021


def test_events_tell_of_pauses(world: World) -> None:
    """Opening, probing and closing are events; single-flight is not."""
    bridge = Bridge(world)
    bridge.ask(1)
    world.upstream.fates = iter([Fate(False, verdict(10))])
    bridge.ask(2)
    world.run(601)
    bridge.ask(3)
    names = [name for name, _ in bridge.events if name.startswith("pause")]
    assert names == ["pause_opened", "pause_probing", "pause_closed"]
