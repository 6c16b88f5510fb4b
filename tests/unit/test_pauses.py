"""When to stop sending: the table of pauses, in a world where time is handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.model import (
    CLOSED,
    OPEN,
    PROBING,
    Ending,
    Exchange,
    Facts,
    Gate,
    PauseEvent,
    PauseKey,
    Pauses,
    PauseState,
    Resume,
    Row,
    Task,
    Verdict,
    Window,
)
from bridge.core.redact import Secret
from bridge.reports.pauses import PROOF, PausePolicy, is_transport_probe
from bridge.reports.verdict import judge
from tests.world import (
    ENDPOINT,
    IMAGE,
    OTHER_KEY,
    RECAPTCHA,
    UNREACHED,
    Answer,
    Bridge,
    Fate,
    World,
    http,
    scratch_directory,
    verdict,
)

WRONG_KEY = Secret("w" * 32)


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
    states = bridge.store.transact([Pauses(ENDPOINT)])[0]
    return {state.key.rule: state for state in states if state.key.rule != PROOF}


def resume(bridge: Bridge, scope: str | None = None) -> tuple[PauseState, ...]:
    """Do what bridge.resume does."""
    states: tuple[PauseState, ...] = bridge.store.transact([Resume(ENDPOINT, scope, None)])[0]
    bridge.service.resume_waiting()
    return states


@pytest.mark.parametrize(("bridges", "concurrency", "reports"), [(1, 32, 1000), (4, 4, 100)])
def test_wrong_key_costs_one_call(
    world: World, ledger: str, bridges: int, concurrency: int, reports: int
) -> None:
    """However many requests wait, in however many bridges on a ledger, a wrong key is tried once."""
    asked = [Bridge(world, ledger, concurrency=concurrency) for _ in range(bridges)]
    answers = [asked[number % bridges].report(number + 1, key=WRONG_KEY) for number in range(reports)]
    world.run(5)
    codes = [code(answer[0]) for answer in answers]
    assert len(world.upstream.calls) == 1
    assert sorted(set(codes)) == [-32021, 1]
    assert codes.count(1) == 1


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
    assert [bridge.policy.show(state, 0.0)["scope"] for state in resume(bridge, "address")] == ["address"]
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


def test_unproven_key_is_not_paused_by_a_wrong_clock() -> None:
    """A probe for the key that ended without a verdict in a boot with a later clock holds nobody back."""
    policy = PausePolicy("machine")
    task = Task("https://upstream.test", "a" * 32, 1)
    key = PauseKey(PROOF, task.account)
    left = policy.release(1000.0 + 400 * 86400.0, PauseState(key, "probing", probe_owner="x", probe_task="y"))
    gate, changed, _ = policy.gate(1000.0, task, IMAGE, "owner", {key: left})
    assert gate.status == "begun"
    assert [(state.key, state.state) for state in changed if state.state == "probing"] == [(key, "probing")]


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
    bridge.report(1, completed_at=bridge.engine.wall() - 44)
    bridge.report(2)
    bridge.report(3, completed_at=bridge.engine.wall() - 10)
    world.run(12)
    assert [attempt.task_id for _, attempt in world.upstream.attempts][1] == 3


@pytest.mark.parametrize(("error_id", "is_held_there"), [(21, False), (1, True)], ids=["address", "key"])
def test_address_pause_is_for_one_machine_and_a_key_pause_for_all(
    world: World, ledger: str, error_id: int, is_held_there: bool
) -> None:
    """Another machine on the same ledger is held back by what is about the key, and by nothing else."""
    here, there = Bridge(world, ledger, machine="here"), Bridge(world, ledger, machine="there")
    assert here.ask(99).result is not None
    world.upstream.fates = iter([Fate(False, verdict(error_id))])
    here.ask(1)
    assert code(here.ask(2)) == -32021
    assert code(there.ask(3)) == (-32021 if is_held_there else 0)


def test_route_pause_is_lifted_by_another_context() -> None:
    """A start with another proxy or CA lifts the pause that a redirect or certificate opened."""
    policy, changed = PausePolicy("m", "old"), PausePolicy("m", "new")
    task = Task("e", "a", 1)
    key = next(key for key in policy.keys(task, IMAGE) if key.rule == "address_route")
    proven = PauseState(policy.keys(task, IMAGE)[0])
    state = PauseState(key, OPEN, "http_redirect", opened_at=0.0, ends_at=60.0, context="old")
    states = {key: state, proven.key: proven}
    assert policy.gate(1.0, task, IMAGE, "me", states)[0].status == "paused"
    gate, stored, events = changed.gate(1.0, task, IMAGE, "me", states)
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


# --- the decisions themselves ----------------------------------------------------------------


TASK = Task("e", "a" * 32, 1)
FAR = Window(None, 0.0)
GOOD = judge(verdict(0), False)
LIMITED = judge(http(429), False)
LOST = judge(Exchange("reset", True), False)
WRONG_ID = judge(verdict(16), False)


class Rules:
    """A policy with its states, and time that a test sets."""

    def __init__(self) -> None:
        self.policy = PausePolicy("m", "here")
        self.states: dict[PauseKey, PauseState] = {}
        self.now = 0.0

    def key(self, rule: str) -> PauseKey:
        return next(key for key in self.policy.keys(TASK, IMAGE) if key.rule == rule)

    def state(self, rule: str) -> PauseState:
        return self.states.get(self.key(rule), PauseState(self.key(rule)))

    def put(self, rule: str, state: str = OPEN, **more: Any) -> None:
        self.states[self.key(rule)] = PauseState(self.key(rule), state, **more)

    def learn(self, verdict: Verdict, now: float, number: int = 1, owner: str = "me") -> list[str]:
        """Tell the end of an attempt; the names and rules of the events."""
        task = TASK._replace(task_id=number)
        changed, events = self.policy.learn(now, task, IMAGE, owner, verdict, self.states)
        self.states |= {state.key: state for state in changed}
        return [f"{event.name} {event.state.key.rule}" for event in events]

    def gate(self, now: float, number: int = 1, owner: str = "me") -> tuple[Gate, list[str]]:
        task = TASK._replace(task_id=number)
        gate, changed, events = self.policy.gate(now, task, IMAGE, owner, self.states)
        self.states |= {state.key: state for state in changed}
        return gate, [f"{event.name} {event.state.key.rule}" for event in events]


@pytest.fixture
def rules() -> Rules:
    """A policy whose key is proven."""
    rules = Rules()
    rules.states[rules.key(PROOF)] = PauseState(rules.key(PROOF))
    return rules


def test_unproven_key_lets_one_report_go(rules: Rules) -> None:
    """The first report proves the key, others wait for it, and nobody is told of a pause."""
    rules.states.clear()
    assert rules.gate(0.0) == (Gate("begun"), [])
    proof = rules.state(PROOF)
    assert (proof.state, proof.probe_owner, proof.probe_task) == (PROBING, "me", f"{'a' * 32}/1")
    assert rules.gate(0.0, number=2) == (Gate("busy", proof), [])
    assert rules.gate(0.0, owner="other")[0].status == "busy"
    assert rules.gate(0.0)[0].status == "begun", "the probe itself may go on"


@pytest.mark.parametrize(
    "rule", ["key_refused", "key_balance", "address_not_allowed", "address_blocked", None]
)
@pytest.mark.parametrize("number", [1, 2])
def test_only_some_verdicts_prove_a_key(rules: Rules, rule: str | None, number: int) -> None:
    """A verdict about key or address proves nothing; the probe that met it is due again."""
    rules.put(PROOF, PROBING, probe_owner="me", probe_task=f"{TASK.account}/1")
    events = rules.learn(WRONG_ID._replace(pause=rule), 5.0, number)
    proof = rules.state(PROOF)
    if rule is None:
        assert (proof.state, "pause_closed proof" in events) == (CLOSED, True)
    elif number == 1:
        assert (proof.state, proof.ends_at, proof.probe_owner, proof.probe_task) == (OPEN, 5.0, None, None)
    else:
        assert proof.state == PROBING
    assert "pause_opened proof" not in events


def test_five_failures_of_transport_in_a_row_pause(rules: Rules) -> None:
    """The fifth opens the pause; a status in between starts anew, and a missed window does not count."""
    for now in range(4):
        assert rules.learn(LOST, float(now)) == []
    rules.learn(judge(http(418), False), 4.0)
    assert rules.state("transport").streak == 0
    for now in range(4):
        rules.learn(LOST, float(now))
        rules.learn(judge(Exchange("window", False), perhaps_before=now % 2 == 0), float(now))
    assert (rules.state("transport").state, rules.state("transport").streak) == (CLOSED, 4)
    assert rules.learn(LOST, 9.0) == ["pause_opened transport"]
    opened = rules.state("transport")
    assert opened == PauseState(
        rules.key("transport"), OPEN, "connection_reset", opened_at=9.0, ends_at=14.0, context="here"
    )


def test_open_pause_refuses_until_its_end_and_probes_then(rules: Rules) -> None:
    """At the very end of a pause the next report probes; the others wait for the probe."""
    rules.put("transport", opened_at=0.0, ends_at=5.0, cause="reset", level=1)
    assert rules.gate(4.9)[0] == Gate("paused", rules.state("transport"), 5.0)
    assert rules.gate(5.0) == (Gate("begun"), ["pause_probing transport"])
    assert rules.gate(5.0, number=2)[0] == Gate("busy", rules.state("transport"))
    assert rules.learn(LOST, 6.0, number=2) == [], "a late verdict of another report"
    assert rules.state("transport").state == PROBING
    assert rules.learn(LOST, 6.0) == ["pause_opened transport"]
    assert (rules.state("transport").level, rules.state("transport").ends_at) == (2, 26.0)
    rules.gate(26.0)
    assert rules.learn(LOST._replace(has_status=True, pause=None), 27.0) == ["pause_closed transport"]
    assert rules.state("transport") == PauseState(rules.key("transport"))


def test_longest_pause_is_shown(rules: Rules) -> None:
    """Of several pauses the one that ends last answers, and one without an end before all others."""
    rules.put("transport", ends_at=5.0)
    rules.put("address_rate", ends_at=9.0)
    rules.put("quality", ends_at=7.0)
    assert rules.gate(1.0)[0].until == 9.0
    rules.put("key_balance", PROBING, probe_owner="x", probe_task="y")
    assert rules.gate(1.0)[0].until == 9.0, "a wait for a probe would be in vain"
    rules.put("key_refused", ends_at=None)
    assert rules.gate(1.0)[0] == Gate("paused", rules.state("key_refused"), None)


def test_nothing_is_probed_while_something_else_holds_the_report(rules: Rules) -> None:
    """A due pause stays due if another pause is open or being probed."""
    rules.put("transport", ends_at=5.0)
    rules.put("address_rate", ends_at=9.0)
    rules.gate(6.0)
    assert rules.state("transport").state == OPEN
    rules.put("address_rate", PROBING, probe_owner="x", probe_task="y")
    rules.put("key_balance", PROBING, probe_owner="x", probe_task="y")
    gate = rules.gate(6.0)[0]
    assert (gate.status, gate.pause) == ("busy", rules.state("key_balance"))
    assert rules.state("transport").state == OPEN


@pytest.mark.parametrize(
    ("asked_s", "length_s"), [(None, 60.0), (30.0, 60.0), (300.0, 300.0), (900.0, 600.0)]
)
def test_rate_pause_lasts_as_long_as_asked(rules: Rules, asked_s: float | None, length_s: float) -> None:
    """Between its first and its greatest length the upstream's word counts."""
    for number in (1, 2, 3):
        events = rules.learn(LIMITED._replace(retry_after_s=asked_s), 10.0, number)
    assert events == ["pause_opened address_rate"]
    assert rules.state("address_rate").ends_at == 10.0 + length_s


def test_rate_events_count_for_sixty_seconds(rules: Rules) -> None:
    """An event of exactly a minute ago is forgotten, a younger one is not."""
    for late_s, state in ((60.0, CLOSED), (59.0, OPEN)):
        rules.put("address_rate", CLOSED)
        for number, now in ((1, 0.0), (2, 30.0), (3, late_s)):
            rules.learn(LIMITED, now, number)
        assert rules.state("address_rate").state == state


def test_retry_after_counts_for_the_rate_pause_only(rules: Rules) -> None:
    """Other pauses have their own lengths."""
    rules.learn(WRONG_ID._replace(pause="key_balance", retry_after_s=3000.0), 0.0)
    assert rules.state("key_balance").ends_at == 600.0


def test_doubling_has_no_overflow(rules: Rules) -> None:
    """A pause that has failed its probes for ever has its greatest length."""
    rules.put("transport", PROBING, level=5000, probe_owner="me", probe_task=f"{TASK.account}/1")
    rules.learn(LOST, 100.0)
    assert (rules.state("transport").level, rules.state("transport").ends_at) == (5001, 160.0)


@pytest.mark.parametrize(
    ("status", "then", "state"),
    [
        (299, "done", OPEN),
        (300, "done", CLOSED),
        (499, "done", CLOSED),
        (500, "done", OPEN),
        (404, "again_once", OPEN),
        (None, "done", OPEN),
    ],
)
def test_probe_closes_a_pause_if_the_upstream_answered(
    rules: Rules, status: int | None, then: str, state: str
) -> None:
    """A refusal by HTTP is an answer; what says neither yes nor no lets the pause be due again."""
    rules.put("key_balance", PROBING, level=2, probe_owner="me", probe_task=f"{TASK.account}/1")
    rules.learn(GOOD._replace(has_verdict=False, http_status=status, next=then), 3.0)
    after = rules.state("key_balance")
    assert after.state == state
    assert (after.level, after.ends_at) == ((2, 3.0) if state == OPEN else (0, None))


def test_uncertain_wrong_answers_count_for_a_probe_only(rules: Rules) -> None:
    """A 16 that may be an acceptance does not count, but neither ends the run nor closes the pause."""
    unsure = judge(verdict(16), perhaps_before=True)
    rules.learn(unsure, 0.0)
    assert rules.state("quality").streak == 0
    rules.learn(WRONG_ID, 0.0)
    assert rules.state("quality").streak == 1
    rules.learn(unsure, 0.0)
    assert rules.state("quality").streak == 1
    rules.learn(judge(verdict(0), perhaps_before=True), 0.0)
    assert rules.state("quality").streak == 0
    rules.put("quality", PROBING, probe_owner="me", probe_task=f"{TASK.account}/1")
    assert rules.learn(unsure, 7.0) == ["pause_opened quality"]
    assert rules.state("quality").ends_at == 607.0


def test_resume_concerns_open_pauses_of_the_scope(rules: Rules) -> None:
    """Only what is open and meant becomes due; single-flight is no pause."""
    due = PauseState(rules.key("transport"), OPEN, level=3, ends_at=50.0)
    for scope in (None, "transport"):
        assert rules.policy.resume(9.0, due, scope) == due._replace(ends_at=9.0)
    assert rules.policy.resume(9.0, due, "key") is None
    assert rules.policy.resume(9.0, due._replace(state=PROBING), None) is None
    assert rules.policy.resume(9.0, PauseState(rules.key(PROOF), OPEN, ends_at=0.0), None) is None


def test_parts_are_shown_without_the_whole_account(rules: Rules) -> None:
    """People see eight digits of the account, the method, and nothing of the machine."""
    shown = {key.rule: rules.policy.parts(key) for key in rules.policy.keys(TASK, IMAGE)}
    assert shown["quality"] == (("account", "aaaaaaaa"), ("method", IMAGE))
    assert shown["key_refused"] == (("account", "aaaaaaaa"),)
    assert shown["method_withdrawn"] == (("method", IMAGE),)
    assert shown["transport"] == shown[PROOF] == ()


def test_keys_are_remembered_within_bounds() -> None:
    """Many accounts do not fill the memory, and each has its own pauses."""
    policy, sizes, subjects = PausePolicy("m"), set(), set()
    for number in range(3000):
        subjects.add(policy.keys(TASK._replace(account=str(number)), IMAGE)[0].subject)
        sizes.add(policy._known.cache_info().currsize)
    assert (len(subjects), max(sizes)) == (3000, 1024)
    assert policy.keys(TASK, IMAGE) is policy.keys(TASK, IMAGE)
    assert policy.subjects(TASK, IMAGE) is policy.subjects(TASK, IMAGE)


def test_subjects_are_spelled_alike_by_all_bridges(rules: Rules) -> None:
    """What a pause is about is kept in the ledger, so its spelling is fixed."""
    assert rules.key("quality").subject == f"{TASK.account}/{IMAGE}"
    assert rules.key("transport").subject == "m"


def test_of_pauses_that_end_together_the_first_rule_is_shown(rules: Rules) -> None:
    """The order of the table decides between equals."""
    tied = [key.rule for key in rules.policy.keys(TASK, IMAGE) if key.rule in ("key_balance", "transport")]
    for rule in tied:
        rules.put(rule, ends_at=9.0)
    assert rules.gate(1.0)[0].pause == rules.state(tied[0])


def test_verdict_that_changes_nothing_stores_nothing(rules: Rules) -> None:
    """A good verdict for a proven key without pauses costs no write."""
    assert rules.policy.learn(1.0, TASK, IMAGE, "me", GOOD, rules.states) == ((), ())


@pytest.mark.parametrize(
    ("perhaps", "state", "ending"),
    [
        (True, "waiting", Ending("unknown", -32002, "outcome_unknown")),
        (False, "sending", Ending("unknown", -32002, "outcome_unknown")),
        (False, "queued", Ending("not_sent", -32010, "window_closed")),
    ],
)
def test_what_the_dead_leave_ends_truthfully(perhaps: bool, state: str, ending: Ending) -> None:
    """What may have been taken is unknown, and what had not begun was not sent."""
    row = Row(1, TASK, IMAGE, state, None, "x", 1, 0, perhaps, FAR, Facts(), None, None, {}, 0.0, None, None)
    assert PausePolicy("m").settle_dead(row) == ending


def test_good_verdict_proves_a_key_of_which_nothing_is_kept(rules: Rules) -> None:
    """An attempt that began beside the ledger proves its key as well, and stores nothing else."""
    rules.states.clear()
    assert rules.learn(GOOD, 1.0) == ["pause_closed proof"]
    assert rules.states == {rules.key(PROOF): PauseState(rules.key(PROOF))}


# --- times that a wrong clock left ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "opened_at", "ends_at", "mended"),
    [
        ("key_balance", 900.0, 1500.0, None),
        ("key_balance", 1000.0, 4600.0, None),
        ("key_balance", 1100.0, 1700.0, (1000.0, 1600.0)),
        ("key_balance", 900.0, 90_000.0, (900.0, 4600.0)),
        ("key_balance", 1100.0, 1050.0, (1000.0, 1000.0)),
        ("key_balance", 1100.0, 1000.0, (1000.0, 1000.0)),
        ("key_balance", None, 1500.0, None),
        ("key_balance", None, 9000.0, (1000.0, 4600.0)),
        ("key_refused", 1100.0, None, None),
        ("key_refused", 900.0, 1000.0, None),
        ("key_refused", 900.0, 90_000.0, (900.0, 1000.0)),
        (PROOF, None, 999.0, None),
        (PROOF, None, 1000.0, None),
        (PROOF, None, 1001.0, (1000.0, 1000.0)),
    ],
)
def test_times_of_a_wrong_clock_are_mended(
    rule: str, opened_at: float | None, ends_at: float | None, mended: tuple[float | None, float] | None
) -> None:
    """A pause opened by now and lasts no longer than its rule allows; one that is right is left alone."""
    policy = PausePolicy("m")
    state = PauseState(PauseKey(rule, "a"), OPEN, opened_at=opened_at, ends_at=ends_at)
    found = policy.mend_times(1000.0, state)
    if mended is None:
        assert found is state
    else:
        assert (found.opened_at, found.ends_at) == mended
        assert found == state._replace(opened_at=found.opened_at, ends_at=found.ends_at)


def test_what_was_mended_is_stored() -> None:
    """Whoever asks whether an attempt may begin writes the right times down."""
    policy, task = PausePolicy("m"), Task(ENDPOINT, "a" * 32, 7)
    key = next(key for key in policy.keys(task, "reportIncorrectRecaptcha") if key.rule == "key_balance")
    state = PauseState(key, OPEN, opened_at=5000.0, ends_at=5600.0)
    gate, changed, _ = policy.gate(1000.0, task, "reportIncorrectRecaptcha", "o", {key: state})
    assert (gate.status, gate.until) == ("paused", 1600.0)
    assert changed == (state._replace(opened_at=1000.0, ends_at=1600.0),)


def test_only_a_probe_of_the_transport_wants_a_new_connection() -> None:
    """Other probes, and other news of the transport, leave connections alone."""
    told = {
        (name, rule): is_transport_probe(PauseEvent(name, PauseState(PauseKey(rule, "m"))))
        for name in ("pause_probing", "pause_closed")
        for rule in ("transport", "quality")
    }
    assert [which for which, is_probe in told.items() if is_probe] == [("pause_probing", "transport")]
