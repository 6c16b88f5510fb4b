"""The use case in a world where time is handed out."""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from bridge.core.model import (
    Begin,
    Claim,
    Exchange,
    Facts,
    Listing,
    Look,
    Prune,
    Record,
    Recorded,
    Resume,
    Sweep,
    Withdraw,
)
from bridge.core.redact import Secret
from bridge.reports.job import Report, Requester
from tests.world import (
    ENDPOINT,
    EPOCH,
    IMAGE,
    KEY,
    LOST_ANSWER,
    LOST_REQUEST,
    OTHER_KEY,
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
def bridge(world: World) -> Bridge:
    """A bridge whose key has been proven."""
    bridge = Bridge(world)
    prove(bridge)
    return bridge


def prove(bridge: Bridge, key: Secret = KEY) -> None:
    """Give the key its first verdict, so that attempts may run side by side."""
    assert bridge.ask(999_000, key=key).result is not None
    bridge.world.upstream.attempts.clear()
    bridge.world.upstream.calls.clear()


def answered(*exchanges: Exchange) -> Any:
    """Fates that end in these exchanges, one after the other."""
    return iter(Fate(False, exchange) for exchange in exchanges)


def test_repeated_report_is_replayed(bridge: Bridge) -> None:
    """The same task again is answered from the ledger and sends nothing."""
    bridge.ask(1)
    result = bridge.ask(1).result
    assert result is not None
    assert result["replayed"] is True
    assert len(bridge.world.upstream.calls) == 1


def test_concurrent_request_joins(bridge: Bridge) -> None:
    """A request for a task in flight gets the same answer, marked as replayed."""
    first, second = bridge.report(1), bridge.report(1)
    bridge.world.run(1)
    assert [a.result["replayed"] for a in (*first, *second) if a.result] == [False, True]
    assert len(bridge.world.upstream.calls) == 1


def test_other_method_conflicts_in_flight_and_after(world: World, tmp_path: Path) -> None:
    """Another method for the task is refused, with the outcome as far as it is known and committed."""
    bridge = Bridge(world, str(tmp_path / "ledger"))
    bridge.report(1)
    world.run(0.01)
    beside = bridge.report(1, RECAPTCHA)
    world.run(0.5)
    early, late = error(beside[0]), error(bridge.ask(1, RECAPTCHA))
    assert (early["code"], early["outcome"], early["durable"]) == (-32011, None, False)
    assert (late["code"], late["outcome"], late["durable"]) == (-32011, "accepted", True)
    assert late["hints"][0]["kind"] == "stored_method"


def test_refusal_is_final_and_replayed(bridge: Bridge) -> None:
    """A refused task is never sent again; the stored refusal answers."""
    bridge.world.upstream.wrong.add(1)
    first, again = error(bridge.ask(1)), error(bridge.ask(1))
    assert (first["code"], first["outcome"], first["replayed"]) == (16, "refused", False)
    assert (again["code"], again["replayed"]) == (16, True)
    assert again["hints"] == first["hints"]
    assert len(bridge.world.upstream.calls) == 1


def test_unreachable_upstream_is_tried_four_times(bridge: Bridge) -> None:
    """Attempts that delivered nothing are repeated up to the budget, which is for life, then not sent."""
    bridge.world.upstream.fates = iter([UNREACHED] * 4)
    data = error(bridge.ask(1))
    assert (data["code"], data["outcome"], data["attempts"]) == (-32001, "not_sent", 4)
    assert data["cause"] == "connect"
    assert data["retryable"] is False
    sent = len(bridge.world.upstream.attempts)
    assert error(bridge.ask(1))["outcome"] == "not_sent"
    assert len(bridge.world.upstream.attempts) == sent


@pytest.mark.parametrize(("fates", "attempts"), [([UNREACHED, UNREACHED], 3), ([LOST_REQUEST], 2)])
def test_retry_that_is_taken_is_accepted(bridge: Bridge, fates: list[Fate], attempts: int) -> None:
    """After failed connections, or a request that was lost, errorId 0 is certain."""
    bridge.world.upstream.fates = iter(fates)
    result = bridge.ask(1).result
    assert result is not None
    assert result["attempts"] == attempts


LIMITED = Fate(False, verdict(91, "ERROR_RATE_LIMIT"))
NO_DNS = Fate(False, Exchange("dns", False))


def refused(status: int, **headers: str) -> Fate:
    """An attempt that is answered by HTTP alone."""
    return Fate(False, http(status, **headers))


@pytest.mark.parametrize(
    ("fates", "told"),
    [
        # A 16 after an answer that was lost may mean the first send was taken.
        ([LOST_ANSWER], (-32002, "unknown", 2, {"likely": "accepted", "errorId": 16})),
        # There is no third send, whatever the answers.
        ([LOST_ANSWER, LOST_REQUEST], (-32002, "unknown", 2, {"likely": None})),
        # An unknown ending names the HTTP status of the last answer there was.
        ([refused(500), NO_DNS, NO_DNS, NO_DNS], (-32002, "unknown", 4, {"httpStatus": 500})),
        # A complete answer that is no verdict is never followed by another send.
        ([refused(200)], (-32002, "unknown", 1, {"httpStatus": 200})),
        # A transient refusal is repeated once, then final with its own code.
        ([LIMITED, LIMITED], (91, "refused", 2, {})),
        # A wait beyond the window ends the report at once: a 429 is certain, a 503 may have been taken.
        ([refused(429, retry_after="120")], (-32001, "not_sent", 1, {"httpStatus": 429, "retryable": False})),
        ([refused(503, retry_after="120")], (-32002, "unknown", 1, {"httpStatus": 503})),
        # What is final at once is not worth trying again, with pauses or without.
        ([Fate(False, Exchange("certificate", False))], (-32001, "not_sent", 1, {"retryable": False})),
        # An HTTP refusal without a verdict is certain and never resent.
        *(
            ([refused(n)], (-32003, "refused", 1, {"httpStatus": n}))
            for n in (301, 401, 403, 404, 405, 413, 418)
        ),
    ],
)
@pytest.mark.parametrize("pauses", [True, False])
def test_endings_tell_what_is_certain(world: World, fates: list[Fate], told: Any, pauses: bool) -> None:
    """Each way to end has its code, its outcome and its number of attempts, and nothing is sent after it."""
    bridge = Bridge(world, pauses=pauses)
    prove(bridge)
    world.upstream.fates = iter(fates)
    began = world.t
    data = error(bridge.ask(1))
    code, outcome, attempts, more = told
    assert (data["code"], data["outcome"], data["attempts"]) == (code, outcome, attempts)
    assert {name: data.get(name) for name in more} == more
    assert attempts > 1 or world.t - began < 10.0
    world.run(100.0)
    assert len(world.upstream.attempts) == attempts


def test_429_waits_as_told_and_goes_on(bridge: Bridge) -> None:
    """Retry-After inside the window is waited for; the answer 429 is no send."""
    bridge.world.upstream.fates = answered(http(429, retry_after="7"))
    began = bridge.world.t
    result = bridge.ask(1).result
    assert result is not None
    assert bridge.world.t - began >= 7


def test_late_report_is_refused_locally(bridge: Bridge) -> None:
    """A task completed more than a minute ago is not sent; its age is told, and no attempt is counted."""
    data = error(bridge.ask(1, completed_at=bridge.engine.wall() - 61))
    assert (data["code"], data["outcome"], data["attempts"]) == (-32010, "not_sent", 0)
    assert data["ageSeconds"] == pytest.approx(61, abs=0.1)
    assert data["clockSkewSeconds"] is None
    assert bridge.world.upstream.attempts == []
    assert (row(bridge).attempts, row(bridge).sends) == (0, 0)


def test_less_than_two_seconds_left_is_too_late(bridge: Bridge) -> None:
    """No attempt starts with less than 2 s left."""
    assert error(bridge.ask(1, completed_at=bridge.engine.wall() - 58.5))["code"] == -32010
    assert bridge.ask(2, completed_at=bridge.engine.wall() - 57.5).result is not None


def test_future_completion_counts_as_now(bridge: Bridge) -> None:
    """A completedAt in the future gives the full minute and no more."""
    bridge.world.upstream.fates = iter([STALLED, STALLED])
    began = bridge.world.t
    data = error(bridge.ask(1, completed_at=bridge.engine.wall() + 3600))
    assert data["outcome"] == "unknown"
    assert bridge.world.t - began < 61


def test_replay_beats_the_window(bridge: Bridge) -> None:
    """A known outcome is told even when the window is long over."""
    bridge.ask(1)
    assert bridge.ask(1, completed_at=bridge.engine.wall() - 500).result is not None


def test_waiting_reports_are_answered_when_their_window_ends(world: World) -> None:
    """With all slots hanging, what waits is answered at the end of its window, not later."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([Fate(False, Exchange("timeout", True), 20.0)])
    began = world.t
    completed_at = bridge.engine.wall() - 45
    bridge.report(1, completed_at=completed_at)
    waiting = bridge.report(2, completed_at=completed_at)
    world.run(14.9)
    assert waiting == []
    world.run(0.3)
    assert error(waiting[0])["code"] == -32010
    assert world.t - began < 15.5


def test_unanchored_report_starts_until_55_seconds(world: World) -> None:
    """Without completedAt a waiting first attempt is given up 55 s after receipt, and that is news."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter(Fate(False, Exchange("timeout", True), 56.0) for _ in range(9))
    bridge.report(1)
    waiting = bridge.report(2)
    world.run(54.9)
    assert waiting == []
    world.run(0.2)
    data = error(waiting[0])
    assert (data["code"], data["ageSeconds"], data["replayed"]) == (-32010, None, False)


def test_earliest_window_end_holds(world: World) -> None:
    """A later request that knows an earlier completion shortens the window of the report."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED] * 9)
    bridge.report(1)
    first = bridge.report(2)
    world.run(1)
    bridge.report(2, completed_at=bridge.engine.wall() - 55)
    world.run(5)
    assert error(first[0])["code"] == -32010


@pytest.mark.parametrize("method", [IMAGE, RECAPTCHA])
def test_not_sent_is_tried_again_inside_the_window(bridge: Bridge, method: str) -> None:
    """A report that was certainly not sent can be asked for again, and is no conflict for another method."""
    bridge.world.upstream.fates = answered(http(429, retry_after="120"))
    assert error(bridge.ask(1))["outcome"] == "not_sent"
    result = bridge.ask(1, method).result
    assert result is not None
    assert (result["attempts"], result["replayed"]) == (2, False)


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"task_type": "RecaptchaV2Task"}, -32012),
        ({"task_type": "TurnstileTask"}, -32012),
        ({"language_pool": "rn"}, -32013),
        ({"key": None}, -32020),
    ],
)
def test_local_refusals_send_nothing(bridge: Bridge, told: dict[str, Any], code: int) -> None:
    """What cannot be right is refused before anything is sent."""
    data = error(bridge.ask(1, **told))
    assert (data["code"], data["outcome"], data["replayed"]) == (code, "not_sent", False)
    assert bridge.world.upstream.attempts == []


def test_language_matters_for_images_only(bridge: Bridge) -> None:
    """The language pool does not stop a reCAPTCHA report."""
    assert bridge.ask(1, RECAPTCHA, language_pool="rn").result is not None


def test_warnings_accompany_the_answer(bridge: Bridge) -> None:
    """An unknown task type is sent, with a warning."""
    result = bridge.ask(1, task_type="SomethingNewTask").result
    assert result is not None
    assert [w["kind"] for w in result["warnings"]] == ["unknown_task_type"]


def test_cancel_before_the_begin(world: World) -> None:
    """A waiting report is let go, not sent, and its row says so."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED])
    bridge.report(1)
    waiting = bridge.report(2, name="two")
    world.run(1)
    bridge.service.cancel("two")
    world.run(0.1)
    data = error(waiting[0])
    assert (data["code"], data["outcome"], data["attempts"]) == (-32800, "not_sent", 0)
    world.run(30)
    assert [a.task_id for _, a in world.upstream.attempts if a.task_id == 2] == []


@pytest.mark.parametrize(("ended_by", "code"), [("cancel", -32800), ("stop", -32032)])
def test_what_was_not_sent_before_has_not_begun(world: World, ended_by: str, code: int) -> None:
    """A task that was tried and certainly not taken is let go like a new one while it waits again."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = answered(http(429, retry_after="100"))
    assert error(bridge.ask(1))["outcome"] == "not_sent"
    world.upstream.fates = iter([STALLED])
    bridge.report(2)
    again = bridge.report(1, name="again")
    world.run(1)
    if ended_by == "cancel":
        bridge.service.cancel("again")
    else:
        bridge.service.stop()
    world.run(0.1)
    data = error(again[0])
    assert (data["code"], data["outcome"], data["attempts"]) == (code, "not_sent", 1)
    assert (row(bridge, 1).outcome, row(bridge, 1).attempts) == ("not_sent", 1)


def test_a_second_send_that_waited_for_a_slot_needs_five_seconds(world: World) -> None:
    """What may have been taken and gets its slot back too late is unknown, and is not sent again."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    bridge.engine.chance = lambda: 1.0  # type: ignore[method-assign]
    world.upstream.fates = iter([LOST_REQUEST, Fate(False, Exchange("timeout", True), 3.0)])
    doubtful = bridge.report(1, completed_at=bridge.engine.wall() - 53.0)
    bridge.report(2)
    world.run(8)
    assert (error(doubtful[0])["code"], error(doubtful[0])["attempts"]) == (-32002, 1)
    assert [attempt.task_id for _, attempt in world.upstream.attempts].count(1) == 1


@pytest.mark.parametrize("waits_for", ["the key's first verdict", "a second send"])
def test_what_waits_ends_by_the_upstreams_clock_as_soon_as_it_is_known(world: World, waits_for: str) -> None:
    """A Date header ends the windows of tasks that are older than they seemed; nothing is sent after that."""
    bridge = Bridge(world)
    bridge.engine.chance = lambda: 1.0  # type: ignore[method-assign]
    wall = bridge.engine.wall()
    date = formatdate(wall + 30.0, usegmt=True)
    if waits_for == "a second send":
        world.upstream.fates = answered(http(503, retry_after="20", date=date))
        # Solved 40 s ago by the upstream's clock, 10 s ago by ours.
        got = bridge.report(1, completed_at=wall - 10.0)
    else:
        world.upstream.fates = iter([Fate(False, verdict(0, date=date), 1.0)])
        bridge.report(1)
        world.run(0.1)
        got = bridge.report(2, completed_at=wall - 40.0)
    world.run(25)
    sent = [attempt.task_id for _, attempt in world.upstream.attempts]
    assert sent == [1]
    assert error(got[0])["code"] == (-32002 if waits_for == "a second send" else -32010)


def test_a_wrong_date_holds_no_longer_than_until_the_next_one(world: World) -> None:
    """What one header made too old is as old as it was when the next one is right."""
    bridge = Bridge(world, pauses=False)
    bridge.engine.chance = lambda: 1.0  # type: ignore[method-assign]
    wall = bridge.engine.wall()
    wrong, right = (formatdate(wall + ahead_s, usegmt=True) for ahead_s in (120.0, 1.0))
    world.upstream.fates = iter(
        [UNREACHED, Fate(False, http(502, date=wrong)), Fate(False, verdict(0, date=right))]
    )
    ended = bridge.report(1, completed_at=wall - 1.0)
    world.run(0.06)
    bridge.report(2)
    world.run(3.0)
    assert error(ended[0])["outcome"] == "not_sent"
    assert bridge.ask(1, completed_at=wall - 1.0).result is not None


def test_who_waits_for_one_key_is_in_nobody_elses_way(world: World, tmp_path: Path) -> None:
    """Many that wait for another bridge's attempt with one key do not hold up the one with another key."""
    path = str(tmp_path / "ledger")
    one, two = Bridge(world, path), Bridge(world, path)
    slow = Fate(False, Exchange("timeout", True, elapsed_s=10.0), 10.0)
    world.upstream.fates = iter([slow, Fate(True, None, 0.5)])
    one.report(1)
    one.report(2, key=OTHER_KEY)
    world.run(0.1)
    for number in range(10, 16):
        two.report(number)
    other = two.report(99, key=OTHER_KEY)
    world.run(3.0)
    assert other[0].result is not None


@pytest.mark.parametrize("ended_by", ["cancel", "stop"])
def test_what_was_sent_beside_a_neighbour_is_never_called_not_sent(world: World, ended_by: str) -> None:
    """A neighbour that did not know of our send has ended the report; ours may have been taken."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([LOST_ANSWER, STALLED])
    call, lost = bridge.ledger.call, list[Any]()

    def answer(op: Any) -> Any:
        found = call(op)
        if isinstance(op, Record) and not lost:
            lost.append(op)
            return Recorded("lost", row(bridge)._replace(state="waiting", owner="other"))
        if isinstance(op, Claim) and lost and op.task == bridge.task(1):
            ours: Any = {"state": "queued", "owner": bridge.store.instance, "attempts": 1, "perhaps": False}
            return found._replace(status="again", gate=None, row=row(bridge)._replace(outcome=None, **ours))
        return found

    bridge.ledger.call = answer  # type: ignore[method-assign]
    got = bridge.report(1, name="one")
    bridge.report(2)
    world.run(0.5)
    assert world.upstream.taken(1)
    bridge.service.cancel("one") if ended_by == "cancel" else bridge.service.stop()
    world.run(0.2)
    assert [error(told)["outcome"] for told in got] == ([] if ended_by == "cancel" else ["unknown"])


def test_late_requests_that_come_together_are_all_late(bridge: Bridge) -> None:
    """None of them is in another one's way: each is told that the window is over."""
    for _ in range(2):
        late = [bridge.report(1, completed_at=bridge.engine.wall() - 100.0) for _ in range(3)]
        bridge.world.run(0.1)
        assert [error(got[0])["code"] for got in late] == [-32010] * 3
        assert [round(error(got[0])["ageSeconds"]) for got in late] == [100] * 3


def test_an_unknown_outcome_comes_with_what_the_upstream_said_last(bridge: Bridge) -> None:
    """An answer before the one that was lost says more than a bare status."""
    limited = Fate(False, verdict(88, "ERROR_RATE_LIMIT"))
    bridge.world.upstream.fates = iter([limited, LOST_ANSWER, Fate(False, http(502)), LOST_ANSWER])
    told = error(bridge.ask(1))
    assert (told["code"], told["errorId"], told["errorCode"]) == (-32002, 88, "ERROR_RATE_LIMIT")
    assert "httpStatus" not in told
    told = error(bridge.ask(2))
    assert (told["code"], told["httpStatus"], "errorId" in told) == (-32002, 502, False)


def test_cancel_while_claiming(bridge: Bridge) -> None:
    """A cancel that overtakes the ledger's answer still stops the report."""
    got = bridge.report(1, name="one")
    bridge.service.cancel("one")
    bridge.world.run(1)
    assert error(got[0])["code"] == -32800
    assert bridge.world.upstream.attempts == []


def test_cancel_of_a_begun_report_is_ignored(bridge: Bridge) -> None:
    """What has begun ends as it ends."""
    got = bridge.report(1, name="one")
    bridge.world.run(0.01)
    bridge.service.cancel("one")
    bridge.world.run(1)
    assert got[0].result is not None


def test_cancel_of_a_joined_request_lets_it_go_alone(bridge: Bridge) -> None:
    """The report itself goes on, and the one let go is told no more than is known."""
    first = bridge.report(1)
    joined = bridge.report(1, name="joined")
    bridge.world.run(0.01)
    bridge.service.cancel("joined")
    assert error(joined[0])["code"] == -32800
    assert error(joined[0])["outcome"] == "unknown"
    assert error(joined[0])["durable"] is False
    bridge.world.run(1)
    assert first[0].result is not None


def test_unknown_cancel_is_ignored(bridge: Bridge) -> None:
    """A name nobody waits for changes nothing."""
    bridge.service.cancel("nobody")
    assert bridge.ask(1).result is not None


def test_slots_bound_attempts(world: World) -> None:
    """No more attempts than slots run at one time; back-off holds none."""
    bridge = Bridge(world, concurrency=3, pauses=False)
    world.upstream.fates = iter([UNREACHED] * 6)
    for task in range(20):
        bridge.report(task + 1)
    most = 0
    for _ in range(200):
        most = max(most, bridge.service.counts()[0])
        world.run(0.02)
    assert most == 3
    assert len(bridge.answers) == 20


def test_stop_tells_begun_from_never_begun(world: World) -> None:
    """At the end of the drain begun reports are unknown, the others certainly not sent."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED])
    begun, waiting = bridge.report(1), bridge.report(2)
    world.run(1)
    assert bridge.service.stop() == 2
    world.run(0.1)
    assert (error(begun[0])["code"], error(begun[0])["replayed"]) == (-32002, False)
    assert (error(waiting[0])["code"], error(waiting[0])["retryable"]) == (-32032, True)
    assert error(bridge.ask(3))["code"] == -32032


def test_who_joins_a_cancelled_report_is_answered_at_the_stop(world: World) -> None:
    """A request that would begin anew after another one's cancel does not, once the process ends."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED])
    bridge.report(1)
    world.run(1)
    cancelled = bridge.report(2, name=("c",))
    world.run(0.1)
    bridge.service.cancel(("c",))
    joined = bridge.report(2)
    bridge.engine.call_soon(bridge.service.stop)
    world.run(1)
    assert error(cancelled[0])["code"] == -32800
    assert (error(joined[0])["code"], error(joined[0])["outcome"]) == (-32032, "not_sent")
    assert not any(bridge.service.counts())


def test_stop_of_a_report_that_another_bridge_has_taken_over(world: World, monkeypatch: Any) -> None:
    """At the stop a beginning may be another bridge's by now: then it is left, and the answer is unknown."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([LOST_ANSWER])
    begins, ledger_call = [], bridge.ledger.call

    def call(op: Any) -> Any:
        if isinstance(op, Withdraw):
            return Recorded("lost", None)
        result = ledger_call(op)
        if isinstance(op, Begin):
            begins.append(op)
            bridge.service.stop()
        return result

    monkeypatch.setattr(bridge.ledger, "call", call)
    got = bridge.report(1)
    world.run(5)
    assert len(begins) == 1
    assert (error(got[0])["code"], bridge.bugs) == (-32002, [])


def test_verdict_after_the_stop_is_still_recorded(world: World) -> None:
    """An answer that comes after the process gave up is kept in the ledger."""
    bridge = Bridge(world, pauses=False)
    got = bridge.report(1)
    world.run(0.01)
    bridge.service.stop()
    world.run(1)
    assert row(bridge).outcome == "accepted"
    assert [name for name, _ in bridge.events].count("report_settled") == len(got) == 1


@pytest.mark.parametrize("fast_s", [3600.0, -3600.0, 0.0])
def test_date_to_come_back_at_is_read_by_the_upstreams_clock(world: World, fast_s: float) -> None:
    """What a Date header has taught is remembered where the answer that says when has none."""
    bridge = Bridge(world, clock_fast_s=fast_s)

    def date(after_s: float) -> str:
        return formatdate(EPOCH + world.t + after_s, usegmt=True)

    bridge.world.upstream.fates = answered(verdict(0, date=date(0.0)))
    bridge.ask(1)
    bridge.world.upstream.fates = answered(http(429, retry_after=date(10.0)))
    began = world.t
    assert bridge.ask(2).result is not None
    assert 8.0 < world.t - began < 13.0


def test_clock_skew_is_learnt_and_corrects_ages(world: World) -> None:
    """A host whose clock is 70 s fast learns it from an upstream's answer and heals."""
    bridge = Bridge(world, clock_fast_s=70.0)
    true_wall = EPOCH + world.t
    data = error(bridge.ask(1, completed_at=true_wall))
    assert (data["code"], data["clockSkewSeconds"]) == (-32010, None)
    dated = verdict(0, date=formatdate(EPOCH + world.t, usegmt=True))
    world.upstream.fates = iter([Fate(True, dated)])
    assert bridge.ask(2).result is not None
    result = bridge.ask(3, completed_at=EPOCH + world.t - 1).result
    assert result is not None
    assert "clock_skew" in [name for name, _ in bridge.events]


def test_errors_of_the_ledger_refuse_the_report(world: World, tmp_path: Path) -> None:
    """With a ledger that is required and gone, nothing is sent, and nothing is kept."""
    bridge = Bridge(world, str(tmp_path / "ledger"))
    bridge.trouble = object()
    data = error(bridge.ask(1))
    assert (data["code"], data["outcome"]) == (-32031, "not_sent")
    assert (data["durable"], data["replayed"]) == (False, False)
    assert world.upstream.attempts == []


def test_old_reports_are_pruned_in_small_steps(world: World) -> None:
    """A ledger in memory forgets what no longer guards; a young report stays."""
    bridge = Bridge(world, pauses=False)
    for number in range(1, 4):
        bridge.ask(number)
    world.run(90_000)
    bridge.ask(10)
    world.run(3_700)
    rows, _ = bridge.store.transact([Listing(ENDPOINT)])[0]
    assert [found.task.task_id for found in rows] == [10]


class Watched(Bridge):
    """A bridge that can be asked what it asked of the ledger, and when."""

    def times(self, kind: type) -> list[tuple[float, Any]]:
        return [(at, op) for at, op in self.ledger.asked if isinstance(op, kind)]


def test_old_reports_are_looked_for_every_hour(world: World) -> None:
    """The first look is soon, the next ones are hourly, and a full step is followed by another one soon."""
    bridge = Watched(world)
    world.run(3700)
    assert [round(at - 1000, 3) for at, _ in bridge.times(Prune)] == [5, 3605]
    first = bridge.times(Prune)[0][1]
    assert first == Prune(EPOCH + 1005 - 86_400, 500)
    bridge.trouble = 500
    world.run(3600)
    bridge.trouble = None
    assert [round(at - 1000, 3) for at, _ in bridge.times(Prune)][2:4] == [7205, 7210]


def test_ledger_file_is_swept_each_second_and_keeps_ninety_days(world: World, tmp_path: Path) -> None:
    """Reports that dead bridges left are looked for at once and each second; history lasts ninety days."""
    bridge = Watched(world, str(tmp_path / "ledger"), holds=(KEY,))
    world.run(5.5)
    account = bridge.ledger.account(KEY.reveal())
    assert [round(at - 1000, 3) for at, _ in bridge.times(Sweep)] == [0, 1, 2, 3, 4, 5]
    assert {op for _, op in bridge.times(Sweep)} == {Sweep(ENDPOINT, frozenset({account}))}
    assert [op for _, op in bridge.times(Prune)] == [Prune(EPOCH + 1005 - 90 * 86_400, 500)]
    bridge.service.stop()
    world.run(5)
    assert len(bridge.times(Sweep)) == 6


def test_events_tell_the_story_of_a_report(bridge: Bridge) -> None:
    """Each attempt and the end are told, with what they met."""
    bridge.events.clear()
    bridge.world.upstream.fates = iter([UNREACHED])
    bridge.ask(1)
    bridge.ask(1)
    bridge.ask(1, RECAPTCHA)
    about = {"task_id": 1, "method": IMAGE, "account": bridge.task(1).account[:8]}
    settled = {"outcome": "accepted", "kind": "accepted", "code": 0, "attempts": 2, "durable": False}
    conflict = {"method": RECAPTCHA, "stored_method": IMAGE, "outcome": "accepted"}
    tried = {"http_status": None, "error_id": None, "latency_ms": 50}
    taken = {"http_status": 200, "error_id": None, "latency_ms": 100}
    assert bridge.events == [
        ("attempt_done", {**about, "attempt": 1, "met": "connect_failure", "next": "again", **tried}),
        ("attempt_done", {**about, "attempt": 2, "met": "accepted", "next": "done", **taken}),
        ("report_settled", {**about, **settled, "replayed": False}),
        ("report_settled", {**about, **settled, "replayed": True}),
        ("report_conflict", {**about, **conflict}),
    ]


def test_how_long_an_attempt_took_is_told_in_milliseconds(bridge: Bridge) -> None:
    """The log has what the exchange measured."""
    bridge.world.upstream.fates = answered(verdict(0)._replace(elapsed_s=2.0))
    bridge.ask(1)
    told = [fields["latency_ms"] for name, fields in bridge.events if name == "attempt_done"]
    assert told[-1] == 2000


def test_refused_key_is_told_once(bridge: Bridge) -> None:
    """Only errorId 1 asks for the default key to be read again."""
    bridge.world.upstream.fates = answered(verdict(16), verdict(1))
    bridge.ask(1)
    assert "key_refused" not in [name for name, _ in bridge.events]
    bridge.ask(2)
    assert [name for name, _ in bridge.events].count("key_refused") == 1


def test_counts_and_idleness_follow_the_reports(world: World) -> None:
    """What flies and what waits are told apart, and idle means neither."""
    bridge = Bridge(world, concurrency=2, pauses=False)
    assert (bridge.service.counts(), not any(bridge.service.counts())) == ((0, 0), True)
    for number in range(1, 6):
        bridge.report(number)
    world.run(0.01)
    assert (bridge.service.counts(), not any(bridge.service.counts())) == ((2, 3), False)
    world.run(5)
    assert (bridge.service.counts(), not any(bridge.service.counts())) == ((0, 0), True)


def test_attempt_is_given_what_is_left_of_the_window(world: World) -> None:
    """The total is the timeout; the first byte must leave before the window ends."""
    bridge = Bridge(world, pauses=False)
    bridge.ask(1, completed_at=bridge.engine.wall() - 20)
    attempt = world.upstream.attempts[0][1]
    assert (attempt.method, attempt.key, attempt.task_id) == (IMAGE, KEY, 1)
    assert attempt.deadline_s == 10.0
    assert attempt.connect_by_s == pytest.approx(40.0)


@pytest.mark.parametrize("gone", ["a", "b"])
def test_cancel_of_one_name_leaves_the_others(world: World, gone: str) -> None:
    """Of those who wait for a report only the named one goes, told at once; the first of the others sends."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED])
    bridge.report(1)
    got = {name: bridge.report(2, name=name) for name in ("a", "b", "c")}
    world.run(1)
    bridge.service.cancel(gone)
    assert [name for name, answers in got.items() if answers] == [gone]
    told = error(got.pop(gone)[0])
    assert (told["outcome"], told["retryable"], told["attempts"]) == ("not_sent", True, 0)
    world.run(30)
    results = [answers[0].result for answers in got.values()]
    assert [result and result["replayed"] for result in results] == [False, True]


def test_cancel_in_back_off_is_ignored_by_the_one_who_caused_the_send(bridge: Bridge) -> None:
    """A report that has begun goes on between its attempts, too; a joined request may leave."""
    bridge.world.upstream.fates = answered(http(429, retry_after="7"))
    first, joined = bridge.report(1, name="first"), bridge.report(1, name="joined")
    bridge.world.run(1)
    bridge.service.cancel("first")
    bridge.service.cancel("joined")
    bridge.world.run(0.1)
    assert first == []
    assert (error(joined[0])["code"], error(joined[0])["outcome"]) == (-32800, "unknown")
    bridge.world.run(8)
    assert first[0].result is not None


def test_ledger_that_fails_at_the_begin_ends_the_report(world: World) -> None:
    """What waited for a slot when the ledger went is answered, not sent, and not called durable."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    bridge.report(1)
    waiting = bridge.report(2)
    world.run(0.05)
    bridge.trouble = object()
    world.run(5)
    data = error(waiting[0])
    assert (data["code"], data["outcome"], data["durable"]) == (-32031, "not_sent", False)
    assert [attempt.task_id for _, attempt in world.upstream.attempts] == [1]


def test_retryable_says_whether_an_attempt_could_start(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the bridge's own back-off does not fit trying again can help, while an attempt may start."""
    monkeypatch.setattr(bridge.engine, "chance", lambda: 1.0)
    bridge.world.upstream.fates = iter([UNREACHED, UNREACHED])
    for age_s, retryable in ((57.8, True), (57.98, False)):
        data = error(bridge.ask(round(age_s), completed_at=bridge.engine.wall() - age_s))
        assert (data["code"], data["retryable"]) == (-32001, retryable)


def test_a_fault_of_the_program_is_told_to_all_who_wait(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody gets the reference of the log, nothing stays behind, and the task can be asked for again."""

    def break_down(*_: Any) -> Any:
        bridge.engine.sleep(0.1)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(bridge.service._lifecycle, "live", break_down)
        both = [bridge.report(1, name=name) for name in ("a", "b")]
        bridge.world.run(1.0)
    told = {"code": -32603, "kind": "internal_error", "reference": "reference"}
    assert [error(answers[0]) for answers in both] == [told, told]
    assert bridge.service.counts() == (0, 0)
    assert bridge.ask(1).result is not None


def test_time_is_counted_from_the_receipt(bridge: Bridge) -> None:
    """What a request waited before it was taken counts for its window and in its answer."""
    answers: list[Answer] = []
    world = bridge.world
    bridge.service.submit(
        Report(IMAGE, 1, KEY), Requester(lambda told: answers.append(Answer.read(told)), None, world.t - 1.5)
    )
    world.run(0.05)
    assert row(bridge).window.since == pytest.approx(bridge.ledger.now() - 1.55, rel=0, abs=0.01)
    world.run(1.0)
    assert answers[0].result is not None
    assert answers[0].result["elapsedMs"] == 1600


def test_without_a_key_nothing_is_asked_of_the_ledger(bridge: Bridge) -> None:
    """Such a request is refused at once, with all members that an error has, and the log tells of it."""
    bridge.events.clear()
    data = error(bridge.ask(1, key=None))
    assert (data["code"], data["attempts"], data["durable"], data["retryable"]) == (-32020, 0, False, False)
    assert "warnings" not in data
    assert [(name, fields["kind"]) for name, fields in bridge.events] == [("report_settled", "key_missing")]


def test_who_comes_too_late_for_a_bridge_may_try_the_next(bridge: Bridge) -> None:
    """After the stop a request is refused, retryable while an attempt may still begin."""
    bridge.service.stop()
    told = [error(bridge.report(1, completed_at=bridge.engine.wall() - age_s)[0]) for age_s in (50, 58, 58.5)]
    assert [data["retryable"] for data in told] == [True, True, False]
    assert {(data["code"], data["outcome"]) for data in told} == {(-32032, "not_sent")}


@pytest.mark.parametrize(("waited_s", "retryable"), [(54.0, True), (56.0, False)])
def test_without_a_time_the_receipt_counts_for_who_comes_too_late(
    bridge: Bridge, waited_s: float, retryable: bool
) -> None:
    """A first attempt may begin 55 s after the request was read, in whatever bridge."""
    bridge.service.stop()
    answers: list[Answer] = []
    received_at = bridge.world.t - waited_s
    bridge.service.submit(
        Report(IMAGE, 1, KEY), Requester(lambda told: answers.append(Answer.read(told)), None, received_at)
    )
    assert (error(answers[0])["code"], error(answers[0])["retryable"]) == (-32032, retryable)


@pytest.mark.parametrize(("waited_s", "ending"), [(20.0, "accepted"), (61.0, "not_sent")])
def test_a_clock_that_is_set_back_gives_a_request_no_more_time(
    bridge: Bridge, waited_s: float, ending: str
) -> None:
    """Who was read, and held up while the clock was set back, tells of a task that is as old at least."""
    completed_at = bridge.engine.wall() + 3000.0
    until = bridge.ledger.now() + 60.0 - waited_s
    held_up = Requester(lambda answer: None, None, bridge.world.t - waited_s)
    bridge.service.submit(Report(IMAGE, 1, KEY, Facts(completed_at)), held_up)
    bridge.world.run(1.0)
    stored = row(bridge)
    assert stored.outcome == ending
    assert stored.window.until == pytest.approx(until, rel=0, abs=0.01)
    assert len(bridge.world.upstream.calls) == (ending == "accepted")


def test_what_nobody_can_be_told_of_stays_open(world: World, tmp_path: Path) -> None:
    """A stop without anybody to answer ends nothing that was never begun."""
    bridge = Bridge(world, str(tmp_path / "ledger"), concurrency=1)
    prove(bridge)
    world.upstream.fates = iter([STALLED])
    for number in (1, 2):
        bridge.report(number)
    world.run(0.05)
    bridge.service.stop(can_answer=False)
    world.run(1.0)
    assert row(bridge, 2).state == "queued"


def test_beside_a_report_whose_ledger_is_silent_its_method_is_told(bridge: Bridge) -> None:
    """Another method conflicts with what is in flight, whether or not the ledger can be asked."""
    bridge.world.upstream.fates = iter([STALLED])
    bridge.report(1)
    bridge.world.run(0.05)
    bridge.trouble = object()
    data = error(bridge.ask(1, RECAPTCHA))
    assert (data["code"], data["outcome"], data["durable"]) == (-32011, None, False)
    assert IMAGE in data["hints"][0]["message"]


@pytest.mark.parametrize("method", [IMAGE, RECAPTCHA])
def test_a_window_that_a_refused_request_knows_holds_for_later_ones(bridge: Bridge, method: str) -> None:
    """Who is refused beside a report in flight may know the task's age; nothing is sent after that."""
    bridge.world.upstream.fates = answered(http(429, retry_after="300"))
    bridge.report(1)
    bridge.world.run(0.01)
    beside = error(bridge.ask(1, method, completed_at=bridge.engine.wall() - 100))
    bridge.world.run(1.0)
    assert (beside["code"], beside["outcome"], beside["durable"]) == (-32011, None, False)
    assert error(bridge.ask(1))["code"] == -32010
    assert len(bridge.world.upstream.attempts) == 1


def test_a_pause_that_outlasts_the_window_makes_its_report_not_worth_repeating(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose refusal opens the pause is not told to try again before that ends."""
    bridge = Bridge(world)
    refused = Fate(False, http(429))
    world.upstream.fates = iter([refused, TAKEN, refused, TAKEN, refused])
    assert all(bridge.ask(n).result for n in (1, 2))
    monkeypatch.setattr(bridge.engine, "chance", lambda: 1.0)
    data = error(bridge.ask(3, completed_at=bridge.engine.wall() - 57.8))
    assert (data["code"], data["attempts"], data["retryable"]) == (-32001, 1, False)


@pytest.mark.parametrize(
    ("fate", "code", "cause"), [(UNREACHED, -32001, "connect"), (LOST_ANSWER, -32002, None)]
)
def test_end_of_the_window_between_attempts_tells_the_last_one(
    world: World, fate: Fate, code: int, cause: str | None
) -> None:
    """A report whose retry finds no slot in time ends with what its attempt met."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([fate, STALLED, STALLED])
    first = bridge.report(1, completed_at=bridge.engine.wall() - 50)
    for number in (2, 3):
        bridge.report(number, completed_at=bridge.engine.wall() - 51)
    world.run(9.5)
    assert first == []
    world.run(1)
    data = error(first[0])
    assert (data["code"], data.get("cause"), data["attempts"]) == (code, cause, 1)


def test_resume_lets_those_go_who_wait_for_a_pause(bridge: Bridge) -> None:
    """A report that waits for the end of a pause goes as soon as a person resumes it."""
    bridge.world.upstream.fates = iter([UNREACHED] * 5)
    bridge.ask(1)
    got = bridge.report(2)
    bridge.world.run(1.5)
    assert got == []
    bridge.service.resume_waiting()
    bridge.world.run(0.05)
    assert got == [], "nothing has changed yet"
    bridge.store.transact([Resume(ENDPOINT, None, None)])
    bridge.service.resume_waiting()
    bridge.world.run(0.15)
    assert got[0].result is not None


def test_resume_leaves_back_off_alone(bridge: Bridge) -> None:
    """What waits as the upstream asked is no pause."""
    bridge.world.upstream.fates = answered(http(429, retry_after="7"))
    got = bridge.report(1)
    bridge.world.run(1)
    bridge.service.resume_waiting()
    bridge.world.run(5)
    assert got == []
    assert len(bridge.world.upstream.attempts) == 1
    bridge.world.run(2)
    assert got[0].result is not None


def test_last_moment_to_start_is_in_time(world: World) -> None:
    """Exactly two seconds before the end an attempt still starts."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([Fate(True, None, 8.0)])
    bridge.report(1)
    got = bridge.report(2, completed_at=bridge.engine.wall() - 50)
    world.run(10)
    assert got[0].result is not None
    assert world.upstream.attempts[1][0] == 1008.0


def test_lost_write_is_not_called_durable(world: World, tmp_path: Path) -> None:
    """An acceptance that could not be kept is told, but not as durable; one that was kept is."""
    bridge = Bridge(world, str(tmp_path / "ledger"), pauses=False)
    kept = bridge.ask(1).result
    got = bridge.report(2)
    world.run(0.05)
    bridge.trouble = object()
    world.run(1)
    lost = got[0].result
    assert kept is not None
    assert lost is not None
    assert (kept["durable"], lost["durable"]) == (True, False)


def test_refusal_of_another_bridge_is_not_told_of_what_was_perhaps_taken(bridge: Bridge) -> None:
    """Who lost an answer does not call the task refused because another bridge was refused meanwhile."""
    bridge.world.upstream.fates = iter([LOST_ANSWER])
    call = bridge.ledger.call

    def lose(op: Any) -> Any:
        if not isinstance(op, Record):
            return call(op)
        stored = row(bridge, op.task.task_id)
        ended = stored._replace(state="done", owner=None, outcome="refused", code=16, kind="no_such_captcha")
        return Recorded("lost", ended)

    bridge.ledger.call = lose  # type: ignore[method-assign]
    told = error(bridge.ask(1))
    assert (told["code"], told["outcome"], told["durable"], told["replayed"]) == (
        -32002,
        "unknown",
        False,
        False,
    )


@pytest.mark.parametrize(("age_s", "retryable"), [(57.5, True), (57.6, False)])
def test_the_last_moment_to_start_is_worth_trying(world: World, age_s: float, retryable: bool) -> None:
    """Whose attempt ends exactly two seconds before the window does may try again, a moment later not."""
    bridge = Bridge(world, pauses=False)
    world.upstream.fates = iter([Fate(False, UNREACHED.answer, 0.5)])
    got = bridge.report(1, completed_at=bridge.engine.wall() - age_s)
    world.run(0.5)
    assert (error(got[0])["code"], error(got[0])["retryable"]) == (-32001, retryable)


def test_what_was_taken_up_and_waits_is_left_at_the_stop(world: World, tmp_path: Path) -> None:
    """A report that a dead bridge had begun is not ended as never sent, though this bridge sent nothing."""
    path = str(tmp_path / "ledger")
    dead = Bridge(world, path, pauses=False)
    world.upstream.fates = iter([LOST_ANSWER, STALLED])
    dead.report(1)
    world.run(0.2)
    bridge = Bridge(world, path, concurrency=1, pauses=False, holds=(KEY,))
    bridge.report(2)
    world.run(0.1)
    dead.crash()
    world.run(2.0)
    assert bridge.service.counts() == (1, 1)
    bridge.service.stop()
    world.run(1.0)
    stored = row(bridge)
    assert (stored.outcome, stored.perhaps) == (None, True)


def test_who_watches_another_bridge_goes_on_with_the_sweep_that_took_its_report(
    world: World, tmp_path: Path
) -> None:
    """The look that finds a dead bridge's report does not let those wait who asked for it."""
    path = str(tmp_path / "ledger")
    dead = Bridge(world, path, concurrency=1, pauses=False)
    prove(dead)
    bridge = Bridge(world, path, pauses=False, holds=(KEY,))
    swept_at = world.t
    world.upstream.fates = iter([STALLED])
    dead.report(1)
    dead.report(2)
    world.run(0.75)
    got = bridge.report(2)
    world.run(0.23)
    dead.crash()
    world.run(0.2)
    assert [round(at - swept_at, 2) for at, attempt in world.upstream.attempts if attempt.task_id == 2] == [
        1.0
    ]
    assert got[0].result is not None


def test_who_stays_after_a_cancel_causes_the_send(bridge: Bridge) -> None:
    """Of those who came while a cancel was being committed the first one's report is sent, for all."""
    cancelled = bridge.report(1, name="cancelled")
    bridge.service.cancel("cancelled")
    staying = [bridge.report(1, name=name) for name in ("a", "b")]
    assert cancelled == []
    bridge.world.run(1)
    assert (error(cancelled[0])["code"], error(cancelled[0])["durable"]) == (-32800, False)
    results = [got[0].result for got in staying]
    assert [result and result["replayed"] for result in results] == [False, True]
    assert len(bridge.world.upstream.attempts) == 1


def test_cancel_of_two_requests_of_one_name_sends_nothing(world: World) -> None:
    """An id that was given twice takes both requests back, and their report with them."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([STALLED])
    bridge.report(1)
    got = [bridge.report(2, name="same") for _ in range(2)]
    world.run(1)
    bridge.service.cancel("same")
    world.run(30)
    assert [error(answers[0])["code"] for answers in got] == [-32800, -32800]
    assert {attempt.task_id for _, attempt in world.upstream.attempts} == {1}


def test_a_cancelled_look_at_another_bridges_report_ends_quietly(world: World, tmp_path: Path) -> None:
    """Who no longer wants to know is answered, and nothing is told of a report that goes on elsewhere."""
    path = str(tmp_path / "ledger")
    first, second = Bridge(world, path), Bridge(world, path)
    world.upstream.fates = iter([STALLED])
    first.report(1)
    world.run(0.1)
    got = second.report(1, name="one")
    world.run(0.1)
    second.service.cancel("one")
    world.run(1.0)
    assert (error(got[0])["code"], error(got[0])["outcome"]) == (-32800, "unknown")
    assert (not any(second.service.counts()), second.events) == (True, [])


def test_who_asks_right_behind_such_a_cancel_is_answered(world: World, tmp_path: Path) -> None:
    """A request that comes in the same moment looks at the other bridge's report anew."""
    path = str(tmp_path / "ledger")
    first, second = Bridge(world, path), Bridge(world, path)
    world.upstream.fates = iter([STALLED])
    owner = first.report(1)
    world.run(0.1)
    second.report(1, name="one")
    world.run(0.1)
    second.service.cancel("one")
    got = second.report(1, name="two")
    world.run(60.0)
    assert owner[0].result is not None
    assert got[0].result is not None
    assert got[0].result["replayed"]
    assert not any(second.service.counts())


def test_another_method_beside_a_cancel_is_taken(world: World) -> None:
    """What is not sent is no conflict, though its cancellation is being committed."""
    bridge = Bridge(world, concurrency=1, pauses=False)
    world.upstream.fates = iter([Fate(True, None, 1.0)])
    bridge.report(1)
    bridge.report(2, name="two")
    world.run(0.5)
    bridge.service.cancel("two")
    other = bridge.report(2, RECAPTCHA)
    world.run(3.0)
    assert other[0].result is not None
    assert [attempt.method for _, attempt in world.upstream.attempts] == [IMAGE, RECAPTCHA]


def test_who_repeats_a_report_beside_a_conflict_is_answered_from_the_ledger(bridge: Bridge) -> None:
    """A request for another method, which is being refused, does not stand in the way of the stored one."""
    bridge.ask(1)
    other, same = bridge.report(1, RECAPTCHA), bridge.report(1)
    bridge.world.run(0.5)
    assert error(other[0])["code"] == -32011
    assert same[0].result["replayed"] is True
    assert len(bridge.world.upstream.attempts) == 1


def look_slowly(bridge: Bridge) -> None:
    """Let a look at the ledger take a second."""
    call = bridge.ledger.call

    def called(op: Any) -> Any:
        if isinstance(op, Look):
            bridge.engine.sleep(1.0)
        return call(op)

    bridge.ledger.call = called  # type: ignore[method-assign]


def test_another_method_is_taken_once_the_report_beside_it_was_not_sent(bridge: Bridge) -> None:
    """Who finds that the report in flight has ended as never sent is no conflict, though it had begun."""
    look_slowly(bridge)
    bridge.world.upstream.fates = answered(http(429, retry_after="300"))
    first = bridge.report(1)
    bridge.world.run(0.05)
    other = bridge.report(1, RECAPTCHA)
    bridge.world.run(2.0)
    assert error(first[0])["outcome"] == "not_sent"
    assert other[0].result is not None


def test_beside_a_report_that_the_stop_leaves_nothing_is_called_not_sent(bridge: Bridge) -> None:
    """Who is refused beside a report in flight, and told after the stop, is told of that one: it was sent."""
    look_slowly(bridge)
    bridge.world.upstream.fates = iter([STALLED])
    bridge.report(1)
    bridge.world.run(0.1)
    beside = bridge.report(1, completed_at=bridge.engine.wall() - 100)
    bridge.world.run(0.1)
    bridge.service.stop()
    bridge.world.run(2.0)
    assert (error(beside[0])["code"], error(beside[0])["outcome"]) == (-32011, None)
