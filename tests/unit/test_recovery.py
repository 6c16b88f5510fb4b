"""What a bridge leaves behind, and what its neighbours make of it, in a world where time is handed out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.model import (
    OPEN,
    PROBING,
    Begin,
    Claim,
    Ending,
    Exchange,
    Facts,
    Pauses,
    Record,
    Resume,
    Settle,
    Sweep,
    Window,
)
from bridge.ledger.port import Story
from bridge.reports.verdict import judge
from tests.world import (
    ENDPOINT,
    EPOCH,
    IMAGE,
    KEY,
    LOST_REQUEST,
    OTHER_KEY,
    RECAPTCHA,
    Bridge,
    Fate,
    World,
    error,
    http,
    row,
    scratch_directory,
    verdict,
)

FOREVER = Fate(False, Exchange("timeout", True), 500.0)
FOREVER_TAKEN = Fate(True, Exchange("timeout", True), 500.0)


@pytest.fixture
def ledger() -> Iterator[str]:
    """The path of a ledger file that does not exist yet."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as directory:
        yield f"{directory}/ledger.sqlite3"


def leave(world: World, ledger: str, fate: Fate, *, reports: int = 1, **options: Any) -> Bridge:
    """A bridge that dies while the first of its reports has this fate."""
    bridge = Bridge(world, ledger, **options)
    world.upstream.fates = iter([fate])
    for task_id in range(1, reports + 1):
        bridge.report(task_id)
    world.run(1)
    bridge.crash()
    return bridge


def test_what_was_left_is_sent_once_more(world: World, ledger: str) -> None:
    """A neighbour with the key resumes what had begun, with one more attempt, and what only waited."""
    leave(world, ledger, FOREVER, reports=2, concurrency=1, pauses=False)
    neighbour = Bridge(world, ledger, holds=(KEY,), pauses=False)
    world.run(3)
    assert [(row(neighbour, n).outcome, row(neighbour, n).attempts) for n in (1, 2)] == [
        ("accepted", 2),
        ("accepted", 1),
    ]
    assert "report_resumed" in [name for name, _ in neighbour.events]


@pytest.mark.parametrize(("age_s", "outcome", "sends"), [(52.0, "accepted", 2), (54.5, "unknown", 1)])
def test_what_may_have_been_taken_is_not_resumed_in_the_last_five_seconds(
    world: World, ledger: str, age_s: float, outcome: str, sends: int
) -> None:
    """A second send needs five seconds after a crash, too; the beginning that found less is not counted."""
    bridge = Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER])
    bridge.report(1, completed_at=bridge.engine.wall() - age_s)
    world.run(1)
    bridge.crash()
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(10)
    assert (row(neighbour).outcome, row(neighbour).attempts) == (outcome, sends)
    assert len(world.upstream.attempts) == sends


@pytest.mark.parametrize("fast_s", [0.0, 3600.0, -3600.0])
@pytest.mark.parametrize("asks", [True, False])
def test_what_the_upstream_asked_to_wait_holds_after_a_crash(
    world: World, ledger: str, asks: bool, fast_s: float
) -> None:
    """Whoever takes a report over keeps to the Retry-After, whatever was done to the clock meanwhile."""
    began_at = world.t
    leave(world, ledger, Fate(False, http(429, retry_after="15")), pauses=False)
    holds = () if asks else (KEY,)
    neighbour = Bridge(world, ledger, holds=holds, pauses=False, clock_fast_s=fast_s)
    got = neighbour.report(1) if asks else []
    world.run(13)
    assert [at for at, _ in world.upstream.attempts[1:]] == []
    world.run(3)
    assert [round(at - began_at) for at, _ in world.upstream.attempts[1:]] == [15]
    assert row(neighbour).outcome == "accepted"
    assert len(got) == asks


def test_refusal_after_a_crash_is_unknown(world: World, ledger: str) -> None:
    """A 16 for a report that may have been taken before the crash is no refusal."""
    leave(world, ledger, Fate(True, Exchange("timeout", True), 1.5))
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(neighbour, 1).outcome == "unknown"
    assert row(neighbour, 1).detail["likely"] == "accepted"
    assert len(world.upstream.calls) == 2


def test_without_the_key_the_window_ends_it(world: World, ledger: str) -> None:
    """Nobody who holds the key comes: begun ends unknown, never begun ends not_sent, nothing is sent."""
    leave(world, ledger, FOREVER, reports=2, concurrency=1, pauses=False)
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
    """The same request to another bridge goes on with the report and causes the send, as the log tells."""
    leave(world, ledger, FOREVER)
    second = Bridge(world, ledger)
    world.run(0.5)
    result = second.ask(1).result
    assert result is not None
    assert (result["attempts"], result["replayed"]) == (2, False)
    assert [fields["state"] for name, fields in second.events if name == "report_resumed"] == ["sending"]


def test_late_recovery_sends_nothing(world: World, ledger: str) -> None:
    """After the window a report that was left is ended without a call."""
    leave(world, ledger, FOREVER)
    world.run(100)
    neighbour = Bridge(world, ledger, holds=(KEY,))
    world.run(3)
    assert row(neighbour, 1).outcome == "unknown"
    assert len(world.upstream.attempts) == 1


def test_waiting_for_a_neighbour_takes_no_slot(world: World, ledger: str) -> None:
    """A bridge that may make one attempt at a time makes it while it waits for another one's."""
    first, second = Bridge(world, ledger), Bridge(world, ledger, concurrency=1)
    assert first.ask(1).result is not None
    world.upstream.fates = iter([FOREVER_TAKEN])
    first.report(2)
    world.run(0.05)
    waiting = second.report(2)
    world.run(0.5)
    assert second.ask(3, within=1.0).result is not None
    assert waiting == []


def test_waiting_for_the_proof_of_a_key_takes_no_slot(world: World, ledger: str) -> None:
    """Reports of another account go on meanwhile."""
    bridge = Bridge(world, ledger, concurrency=2)
    world.upstream.fates = iter([FOREVER])
    bridge.report(1)
    world.run(0.05)
    waiting = bridge.report(2)
    world.run(0.5)
    assert bridge.ask(3, key=OTHER_KEY, within=1.0).result is not None
    assert waiting == []


def test_what_a_sweep_takes_over_for_a_request_is_told(world: World, ledger: str) -> None:
    """A look for what dead bridges left that comes just before the request is told once, as any other."""
    leave(world, ledger, FOREVER)
    neighbour = Bridge(world, ledger, holds=(KEY,))
    neighbour.report(1)
    world.run(1.5)
    assert [fields["state"] for name, fields in neighbour.events if name == "report_resumed"] == ["waiting"]


def test_owner_that_never_settles_is_unknown(world: World, ledger: str) -> None:
    """At the end of the window the waiting request is told that nothing is known."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER])
    first.report(1)
    world.run(0.1)
    answer = error(second.ask(1, completed_at=second.engine.wall() - 40))
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
    assert error(got[0])["outcome"] == "unknown"
    world.run(0.3)
    assert not any(second.service.counts()), "nobody waits for it any more"
    world.run(6)
    assert owner[0].result is not None
    assert not any(second.service.counts())


def test_conflict_across_bridges(world: World, ledger: str) -> None:
    """Another method for a neighbour's report is refused, in flight, when nothing is durable, and after."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(True, None, 2.0)])
    first.report(1)
    world.run(0.1)
    early = error(second.ask(1, RECAPTCHA))
    world.run(3)
    late = error(second.ask(1, RECAPTCHA))
    assert [(data["code"], data["outcome"], data["durable"]) for data in (early, late)] == [
        (-32011, None, False),
        (-32011, "accepted", True),
    ]


def test_not_sent_of_a_neighbour_is_tried_again(world: World, ledger: str) -> None:
    """A report that a neighbour could not send can be sent here."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([Fate(False, http(429, retry_after="120"))])
    assert error(first.ask(1))["outcome"] == "not_sent"
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
    assert error(begun[0])["outcome"] == "unknown"
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
    assert error(got[0])["code"] == -32011
    assert row(neighbour, 1).outcome == "accepted"


def test_refused_request_never_takes_a_report_over(world: World, ledger: str) -> None:
    """A request that is refused locally is told so, and sends nothing later when it meets a neighbour's."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    assert first.ask(99).result is not None
    world.upstream.fates = iter([Fate(False, http(429, retry_after="120"), 2.0)])
    first.report(1)
    world.run(0.1)
    refused = second.ask(1, task_type="RecaptchaV2Task")
    assert error(refused)["code"] == -32011
    world.run(10)
    assert [attempt.task_id for _, attempt in world.upstream.attempts].count(1) == 1


def test_story_names_the_owners(world: World, ledger: str) -> None:
    """Who claimed a report and who took it over from whom is told, whether or not it begins at once."""
    first = leave(world, ledger, FOREVER, reports=2, concurrency=1, pauses=False)
    second = Bridge(world, ledger, holds=(KEY,), pauses=False)
    world.run(3)
    for task_id, begun_before in ((1, True), (2, False)):
        told = [
            (event.name, event.data) for event in second.store.transact([Story(row(second, task_id).seq)])[0]
        ]
        begun = [("begun", {"attempt": 1})] if begun_before else []
        assert told[: 2 + len(begun)] == [
            ("claimed", {"owner": first.store.instance}),
            *begun,
            ("adopted", {"owner": second.store.instance, "from": first.store.instance}),
        ]
        assert [name for name, _ in told[-2:]] == ["begun", "settled"]


def test_pause_holds_at_its_own_endpoint_only(world: World, ledger: str) -> None:
    """The same account at another endpoint is not held back, nor resumed along."""
    bridge = Bridge(world, ledger)
    bridge.ask(1)
    world.upstream.fates = iter([Fate(False, verdict(10))])
    bridge.ask(2)
    here, there = bridge.task(3), bridge.task(3)._replace(endpoint="https://elsewhere.test")
    claims = [Claim(task, IMAGE, Window(9e9, None), Facts(), True) for task in (here, there)]
    assert [done.gate.status for done in bridge.store.transact(claims)] == ["paused", "begun"]
    assert bridge.store.transact([Resume(there.endpoint, None, None)]) == [()]
    (story,) = [
        event
        for event in bridge.store.transact([Story(row(bridge, 2).seq)])[0]
        if event.name == "pause_opened"
    ]
    assert story.data["rule"] == "key_balance"
    assert story.data["endsAt"] == pytest.approx(bridge.ledger.now() + 600, abs=1)


@pytest.mark.parametrize(("met", "rule"), [(14, "method_withdrawn"), (21, "address_blocked")])
def test_resume_of_an_account_leaves_the_others(world: World, ledger: str, met: int, rule: str) -> None:
    """Resuming one account's pauses is about that account alone, not about what all accounts share."""
    bridge = Bridge(world, ledger)

    def resume(account: str | None, scope: str | None = None) -> list[str]:
        (resumed,) = bridge.store.transact([Resume(ENDPOINT, scope, account)])
        return [state.key.rule for state in resumed]

    account, other = bridge.task(0).account, bridge.task(0, OTHER_KEY).account
    for number, key in ((1, KEY), (2, OTHER_KEY)):
        world.upstream.fates = iter([Fate(False, verdict(10))])
        bridge.ask(number, key=key)
    assert resume(account, "key") == ["key_balance"]
    world.upstream.fates = iter([Fate(False, verdict(met))])
    bridge.ask(3)
    assert resume(account) == []
    assert resume(other) == ["key_balance"]
    assert sorted(resume(None)) == sorted(["key_balance", rule])


def tell_late(bridge: Bridge, monkeypatch: pytest.MonkeyPatch, late_s: float) -> None:
    """Let what becomes of the next claim come back only so long after its commit."""
    call, waits = bridge.ledger.call, [late_s]

    def answer(op: Any) -> Any:
        result = call(op)
        if isinstance(op, Claim) and waits:
            bridge.engine.sleep(waits.pop())
        return result

    monkeypatch.setattr(bridge.ledger, "call", answer)


@pytest.mark.parametrize(("late_s", "names"), [(2.4, ["begun"]), (2.6, ["begun", "withdrawn", "begun"])])
def test_a_beginning_that_is_told_late_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch, late_s: float, names: list[str]
) -> None:
    """Neighbours may have taken over what was begun long ago: it is taken back, and begun anew."""
    bridge = Bridge(world)
    tell_late(bridge, monkeypatch, late_s)
    assert bridge.ask(1).result is not None
    assert [name for name, _ in story(bridge, 1)][:-1] == ["claimed", *names, "settled"]  # then the proof
    assert (row(bridge, 1).attempts, len(world.upstream.attempts)) == (1, 1)


def test_a_beginning_that_is_told_when_the_window_is_over_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than two seconds left after the commit nothing is sent, and no attempt is counted."""
    bridge = Bridge(world)
    tell_late(bridge, monkeypatch, 1.5)
    answer = bridge.ask(1, completed_at=bridge.engine.wall() - 57.0)
    assert (answer.code, answer.data["outcome"], answer.data["attempts"]) == (-32010, "not_sent", 0)
    assert (row(bridge, 1).attempts, world.upstream.attempts) == (0, [])


def story(bridge: Bridge, task_id: int) -> list[tuple[str, Any]]:
    """What is told of a task's report."""
    return [(event.name, event.data) for event in bridge.store.transact([Story(row(bridge, task_id).seq)])[0]]


def balance(bridge: Bridge) -> list[str]:
    """The states of the pauses for an empty balance."""
    states = bridge.store.transact([Pauses(ENDPOINT)])[0]
    return [state.state for state in states if state.key.rule == "key_balance"]


def test_story_tells_of_second_claims_and_of_attempts_counted_late(world: World, ledger: str) -> None:
    """A report that is tried again names its owner; an attempt nobody could note before is numbered."""
    bridge = Bridge(world, ledger)
    world.upstream.fates = iter([Fate(False, http(429, retry_after="120"))])
    bridge.ask(1)
    bridge.ask(1)
    owner = ("claimed", {"owner": bridge.store.instance})
    assert [told for told in story(bridge, 1) if told[0] in ("claimed", "begun")] == [
        owner,
        ("begun", {"attempt": 1}),
        owner,
        ("begun", {"attempt": 2}),
    ]
    task = bridge.task(2)
    record = Record(task, judge(http(200), False), world.t, 12, None)
    bridge.store.transact([Claim(task, IMAGE, Window(9e9, None), Facts(), False), record])
    assert story(bridge, 2)[:2] == [owner, ("begun", {"attempt": 1})]


def test_story_tells_which_report_probes(world: World, ledger: str) -> None:
    """The probe of a pause is told in the story of the report that probes, however it begins."""
    bridge = Bridge(world, ledger)
    bridge.ask(1)
    for number, begin in ((10, True), (20, False)):
        world.upstream.fates = iter([Fate(False, verdict(10))])
        bridge.ask(number)
        world.run(601)
        task = bridge.task(number + 1)
        operations: list[Any] = [Claim(task, IMAGE, Window(9e9, None), Facts(), begin)]
        bridge.store.transact([*operations, *([] if begin else [Begin(task)])])
        probing = [data for name, data in story(bridge, number + 1) if name == "pause_probing"]
        assert [(data["rule"], data["cause"]) for data in probing] == [("key_balance", "zero_balance")]
        taken = Ending("accepted", 0, "accepted")
        bridge.store.transact([Record(task, judge(verdict(0), False), world.t, 12, taken)])


def test_what_is_buried_is_ended_at_the_end_of_its_window(world: World, ledger: str) -> None:
    """Not a moment earlier; the story names the dead, and the pause it was probing is due."""
    dead = Bridge(world, ledger)
    dead.ask(1)
    world.upstream.fates = iter([Fate(False, verdict(10))])
    dead.ask(2)
    world.run(601)
    until = dead.ledger.now() + 30.0
    dead.store.transact([Claim(dead.task(3), IMAGE, Window(until, None), Facts(), True)])
    dead.crash()
    other = Bridge(world, ledger, holds=(OTHER_KEY,))
    sweep = Sweep(ENDPOINT, frozenset())
    world.t = until - other.store.clock_offset_s - 0.001
    assert other.store.transact([sweep])[0].settled == ()
    assert balance(other) == [PROBING]
    world.t = until - other.store.clock_offset_s
    assert [ended.task.task_id for ended in other.store.transact([sweep])[0].settled] == [3]
    assert story(other, 3)[-1][1]["from"] == dead.store.instance
    assert balance(other) == [OPEN]


def test_pause_of_account_and_method_is_resumed_by_account(world: World, ledger: str) -> None:
    """A pause about an account and a method belongs to the account, whatever the method is."""
    bridge = Bridge(world, ledger)
    bridge.ask(999)
    world.upstream.wrong.update(range(1, 11))
    for number in range(1, 11):
        bridge.ask(number)
    resume = Resume(ENDPOINT, None, bridge.task(0).account)
    assert [state.key.rule for state in bridge.store.transact([resume])[0]] == ["quality"]


def test_begun_without_a_known_end_is_buried_before_what_never_began(world: World, ledger: str) -> None:
    """Without completedAt thirty seconds are left to what has begun, and fifty-five to what has not."""
    dead = Bridge(world, ledger, pauses=False)
    claims = [
        Claim(dead.task(number), IMAGE, Window(None, dead.ledger.now()), Facts(), begin)
        for number, begin in ((1, True), (2, False))
    ]
    dead.store.transact(claims)
    dead.crash()
    other = Bridge(world, ledger, holds=(OTHER_KEY,))
    for passed_s, settled in ((29.0, []), (11.0, [1]), (14.9, []), (0.2, [2])):
        world.t += passed_s
        (swept,) = other.store.transact([Sweep(ENDPOINT, frozenset())])
        assert [ended.task.task_id for ended in swept.settled] == settled


def test_each_change_is_about_one_report(world: World, ledger: str) -> None:
    """Whatever is written about one report, those beside it stay as they are, in every state."""
    dead = Bridge(world, ledger, pauses=False)
    lost = Record(dead.task(0), judge(Exchange("connect", False), False), world.t, 12, None)
    taken, late = Ending("accepted", 0, "accepted"), Ending("not_sent", -32010, "window_closed")
    window = Window(EPOCH + world.t + 55.0, None)

    def claim(number: int, begin: bool = True, **more: Any) -> Claim:
        return Claim(dead.task(number), IMAGE, more.pop("window", window), Facts(), begin, **more)

    def fill(first: int) -> list[Any]:
        """Five reports: accepted, not sent, queued, sending, waiting."""
        return [
            *(claim(first), lost._replace(task=dead.task(first), ending=taken)),
            *(claim(first + 1), lost._replace(task=dead.task(first + 1), ending=late)),
            claim(first + 2, begin=False),
            claim(first + 3),
            *(claim(first + 4), lost._replace(task=dead.task(first + 4))),
        ]

    dead.store.transact(fill(50))
    dead.crash()
    bridge = Bridge(world, ledger, pauses=False)
    bridge.store.transact([*fill(10), *fill(20)])
    numbers = [*range(10, 15), *range(20, 25), *range(50, 55)]
    earlier = Window(EPOCH + world.t + 50.0, None)
    changes: list[tuple[int, Any]] = [
        (11, claim(11, refusal=late._replace(kind="wrong_method", code=-32012))),
        (11, claim(11)),
        (12, claim(12, begin=False, window=earlier)),
        (12, Begin(bridge.task(12))),
        (13, lost._replace(task=bridge.task(13))),
        (13, Begin(bridge.task(13))),
        (13, lost._replace(task=bridge.task(13), ending=taken)),
        (14, Settle(bridge.task(14), late)),
        (53, claim(53, begin=False)),
        (54, claim(54)),
    ]
    for changed, operation in changes:
        before = {number: row(bridge, number) for number in numbers}
        bridge.store.transact([operation])
        after = {number: row(bridge, number) for number in numbers}
        assert [number for number in numbers if after[number] != before[number]] == [changed], operation
    world.t += 86_401
    before = {number: row(bridge, number) for number in numbers}
    bridge.store.transact([claim(10)])
    after = {number: row(bridge, number) for number in numbers}
    assert [number for number in numbers if after[number] != before[number]] == [10]


def test_request_that_would_be_refused_beside_a_report_in_flight_conflicts(world: World, ledger: str) -> None:
    """Too late or with the wrong type while the task is in flight, here or there: a conflict."""
    first, second = Bridge(world, ledger), Bridge(world, ledger)
    world.upstream.fates = iter([FOREVER_TAKEN])
    first.report(1)
    world.run(0.1)
    for bridge in (second, first):
        for told in ({"completed_at": bridge.engine.wall() - 59}, {"task_type": "RecaptchaV2Task"}):
            answer = error(bridge.ask(1, **told))
            assert (answer["code"], answer["outcome"], answer["replayed"]) == (-32011, None, False)
    assert len(world.upstream.attempts) == 1
