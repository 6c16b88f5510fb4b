"""What every store of the ledger promises; a new backend is one more row of `BACKENDS`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.counting import Counts
from bridge.core.model import (
    ACCEPTED,
    DONE,
    GUARD_S,
    NOT_SENT,
    OPEN,
    PROBING,
    QUEUED,
    REFUSED,
    SENDING,
    TRANSITIONS,
    UNKNOWN,
    WAITING,
    Begin,
    Claim,
    Claimed,
    Ending,
    Facts,
    Gate,
    Listing,
    Look,
    Narrow,
    PauseEvent,
    PauseKey,
    Pauses,
    PauseState,
    Prune,
    Record,
    Resume,
    Row,
    Settle,
    Sweep,
    Task,
    Verdict,
    Window,
    Withdraw,
)
from bridge.ledger.port import Ask, Restore, Store, Story, Teach
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.postgres_schema import QUERIES
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import LedgerTrouble
from tests.ledgers import watch
from tests.pgserver import PgServer

ROOT = Path(__file__).parents[2]
ENDPOINT = "https://upstream.test"
IMAGE = "reportIncorrectImageCaptcha"
ACCOUNT = "a" * 32
GOOD = Verdict(ACCEPTED, 0, "accepted", "accepted", "done", False, True, True, True)
RESET = Verdict(UNKNOWN, -32002, "outcome_unknown", "reset", "again_once", True, True, False, False)
NO_DNS = Verdict(NOT_SENT, -32001, "upstream_unreachable", "dns", "again", False, False, False, False)
SIXTEEN = Verdict(
    REFUSED, 16, "no_such_captcha", "no_such_captcha", "done", False, True, True, True, "account"
)
TAKEN = Ending(ACCEPTED, 0, "accepted")
CLOSED_WINDOW = Ending(NOT_SENT, -32010, "window_closed", {"ageSeconds": 61})
LOST_TRACK = Ending(UNKNOWN, -32002, "outcome_unknown")
REFUSAL = Ending(REFUSED, 16, "no_such_captcha")
WINDOW = Window(4_055.0, None)
LONG = Window(5_000.0, None)
"""Longer than any can be, for reports that are taken up much later."""


class Clock:
    """A boot clock and a wall clock that only a test moves."""

    def __init__(self) -> None:
        self.boot = 1_000.0
        self.wall = 4_000.0

    def advance(self, seconds: float) -> None:
        self.boot += seconds
        self.wall += seconds

    @property
    def now(self) -> float:
        return self.boot + 3_000.0


class Policy:
    """Two rules: ``account`` opens for 60 s on a verdict that feeds it, ``method`` never opens itself."""

    machine = "m"

    def keys(self, task: Task, method: str) -> tuple[PauseKey, ...]:
        return PauseKey("account", task.account), PauseKey("method", method)

    def subjects(self, task: Task, method: str) -> Mapping[str, tuple[PauseKey]]:
        return {key.subject: (key,) for key in self.keys(task, method)}

    def gate(
        self, now: float, task: Task, method: str, owner: str, states: Mapping[PauseKey, PauseState]
    ) -> tuple[Gate, tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        state = states.get(PauseKey("account", task.account))
        if state is None or state.state not in (OPEN, PROBING):
            return Gate("begun"), (), ()
        if state.state == PROBING:
            return Gate("busy", state), (), ()
        if state.ends_at is None or now < state.ends_at:
            return Gate("paused", state, state.ends_at), (), ()
        name = f"{task.account}/{task.task_id}"
        probe = state._replace(state=PROBING, probe_owner=owner, probe_task=name)
        return Gate("begun"), (probe,), (PauseEvent("pause_probing", probe),)

    def learn(
        self,
        now: float,
        task: Task,
        method: str,
        owner: str,
        verdict: Verdict,
        states: Mapping[PauseKey, PauseState],
    ) -> tuple[tuple[PauseState, ...], tuple[PauseEvent, ...]]:
        key = PauseKey("account", task.account)
        state = states.get(key, PauseState(key))
        if verdict.pause == "account":
            recent = (*state.recent, (now, f"{task.account}/{task.task_id}"))
            after = PauseState(key, OPEN, "no_such_captcha", 1, recent, opened_at=now, ends_at=now + 60.0)
            return (after,), (PauseEvent("pause_opened", after),)
        if state.state == PROBING and verdict.has_verdict:
            return (PauseState(key),), (PauseEvent("pause_closed", PauseState(key)),)
        return (), ()

    def release(self, now: float, state: PauseState) -> PauseState:
        return state._replace(state=OPEN, ends_at=now, probe_owner=None, probe_task=None)

    def resume(self, now: float, state: PauseState, scope: str | None) -> PauseState | None:
        meant = state.state == OPEN and scope in (None, self.scope(state))
        return state._replace(ends_at=now) if meant else None

    def scope(self, state: PauseState) -> str:
        return "quality"

    def ends_at(self, window: Window, retrying: bool) -> float:
        return min(at for at in (window.until, window.since and window.since + 30.0) if at)

    def is_late(self, now: float, window: Window, retrying: bool) -> bool:
        return now > self.ends_at(window, retrying) - 2.0

    def tally(self, row: Row, now: float) -> tuple[str, float, Counts]:
        return row.method, now, Counts(sent=1, late=int(row.outcome == NOT_SENT))

    def settle_dead(self, row: Row) -> Ending:
        return LOST_TRACK if row.perhaps or row.state == SENDING else CLOSED_WINDOW


AnyStore = SqliteStore | PostgresStore


class Backend:
    """Opens stores of one kind on one ledger, and closes them all."""

    def __init__(self, kind: str, place: str | None) -> None:
        self.kind = kind
        self.path = place
        self.clock = Clock()
        self.policy = Policy()
        self._stores: list[AnyStore] = []

    def open(self, **options: Any) -> AnyStore:
        options["policy"] = self.policy
        options |= {"boot_clock": lambda: self.clock.boot, "wall_clock": lambda: self.clock.wall}
        store: AnyStore
        if self.kind == "postgres":
            assert self.path is not None
            store = _timed(self.clock)(self.path, **options)
        else:
            store = SqliteStore(self.path, **options)
        self._stores.append(store)
        return store

    def leave(self, store: AnyStore) -> None:
        """Show others that a store's instance is gone, though it is not."""
        if isinstance(store, PostgresStore):
            store.link.ask(QUERIES["let_go"], store.instance)
            store.link.is_held = False
        else:
            store._owners.release()

    def wait_until_dead(self, instance: str) -> None:
        """Wait until a killed process is seen as dead: a server notices it a little later."""
        store = self.open()
        until = time.monotonic() + 10.0
        while store.is_alive(instance):
            assert time.monotonic() < until
            time.sleep(0.01)

    def is_gone(self, instance: str) -> bool:
        """True if nothing is left of a dead instance beside the ledger."""
        # The server has nothing but its sessions, and it ends those.
        return self.kind == "postgres" or not Path(f"{self.path}.owners", f"{instance}.lock").exists()

    def close(self) -> None:
        for store in self._stores:
            store.close()


def _timed(clock: Clock) -> type[PostgresStore]:
    """A store on a server whose clock only a test moves."""

    class TimedStore(PostgresStore):
        grace_s = 0.0

        def _tell_time(self, epoch: float) -> tuple[float, float]:
            return clock.now, clock.wall

    return TimedStore


BACKENDS = ("memory", "sqlite", "postgres")
SHARED = ("sqlite", "postgres")
"""Backends that several processes can open together."""


def _make(request: pytest.FixtureRequest, folder: Path) -> Backend:
    if request.param == "memory":
        return Backend("memory", None)
    if request.param == "sqlite":
        return Backend("sqlite", str(folder / "state" / "ledger.db"))
    server: PgServer = request.getfixturevalue("pg_server")
    return Backend("postgres", server.url(server.make_database()))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One ledger of each kind."""
    made = _make(request, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """One ledger of each kind that processes can share."""
    made = _make(request, tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(backend: Backend) -> AnyStore:
    """An open store on a new ledger."""
    return backend.open()


def task(number: int = 7, account: str = ACCOUNT, endpoint: str = ENDPOINT) -> Task:
    """A task of the test account."""
    return Task(endpoint, account, number)


def claim(
    which: Task | None = None,
    method: str = "reportIncorrectImageCaptcha",
    window: Window = LONG,
    begin: bool = True,
    refusal: Ending | None = None,
    facts: Facts | None = None,
) -> Claim:
    """A claim as the service makes it."""
    return Claim(which or task(), method, window, facts or Facts(), begin, refusal)


def record(verdict: Verdict, ending: Ending | None, which: Task | None = None) -> Record:
    """The end of an attempt as the service tells it."""
    return Record(which or task(), verdict, 4_000.0, 12, ending)


def one(store: Store, operation: Any) -> Any:
    """The result of one operation in a transaction of its own."""
    return store.transact([operation])[0]


def names(store: Store, seq: int) -> list[str]:
    """What happened to a report, by name."""
    return [event.name for event in one(store, Story(seq))]


# --- claim -----------------------------------------------------------------------------------


def test_bridges_number_their_reports_apart(shared: Backend) -> None:
    """What another bridge has claimed meanwhile has a number of its own."""
    first, second = shared.open(), shared.open()
    claimed = [one(store, claim(task(n))) for n, store in enumerate((first, second, first, second), 1)]
    assert [answer.status for answer in claimed] == ["new"] * 4
    assert len({answer.row.seq for answer in claimed}) == 4


def test_tasks_asked_for_together_are_told_apart(shared: Backend) -> None:
    """Each gets the newest report of its own account, as a bridge sees them that remembers nothing."""
    first, other = shared.open(), "b" * 32
    soon = Window(shared.clock.now + GUARD_S + 60.0, None)
    first.transact([claim(task(1)), record(GOOD, TAKEN, task(1)), claim(task(2)), claim(task(4, other))])
    shared.clock.advance(GUARD_S + 1)
    first.transact([claim(task(1), window=soon), claim(task(5, other), window=soon)])
    asked = [task(1), task(2), task(3), task(1, other), task(4, other), task(5, other)]
    rows = shared.open().transact([Look(which) for which in asked])
    assert [row and (row.task, row.state, row.seq) for row in rows] == [
        (task(1), SENDING, 4),
        (task(2), SENDING, 2),
        None,
        None,
        (task(4, other), SENDING, 3),
        (task(5, other), SENDING, 5),
    ]


def test_a_second_claim_is_written_whole(shared: Backend) -> None:
    """Method, window and what was told of the task are those of the newest claim, for other bridges too."""
    first = shared.open()
    cancelled = Ending(NOT_SENT, -32800, "request_cancelled")
    first.transact([claim(window=WINDOW, begin=False), Settle(task(), cancelled)])
    told = Facts(3_990.5, "ImageToTextTask", "en", 9.5)
    one(first, claim(method="reportIncorrectRecaptcha", window=Window(4_040.0, 4_001.0), facts=told))
    row = one(shared.open(), Look(task()))
    assert (row.method, row.window, row.facts) == (
        "reportIncorrectRecaptcha",
        Window(4_040.0, 4_001.0),
        told,
    )


def test_first_claim_begins_in_the_same_commit(store: AnyStore) -> None:
    """A new task is ours, its first attempt has begun, and both are in its story."""
    facts = Facts(3_990.5, "ImageToTextTask", "en", 9.5)
    claimed = one(store, claim(facts=facts))
    assert (claimed.status, claimed.gate.status) == ("new", "begun")
    assert (claimed.durable, claimed.guarded) == (store.durable, True)
    row = claimed.row
    assert (row.state, row.owner, row.attempts, row.sends) == (SENDING, store.instance, 1, 0)
    assert one(store, Look(task())) == row
    assert row.facts == facts
    assert names(store, row.seq) == ["claimed", "begun"]


def test_claim_without_begin_only_queues(store: AnyStore) -> None:
    """An intent is committed before any wait."""
    claimed = one(store, claim(begin=False))
    assert (claimed.status, claimed.gate, claimed.row.state) == ("new", None, QUEUED)
    begun = one(store, Begin(task()))
    assert (begun.gate.status, begun.row.state, begun.row.attempts) == ("begun", SENDING, 1)


def test_tasks_are_told_apart_by_endpoint_account_and_number(store: AnyStore) -> None:
    """The same number of another account or endpoint is another task."""
    others = [task(), task(8), task(account="b" * 32), task(endpoint="http://127.0.0.1:1")]
    results = store.transact([claim(which) for which in others])
    assert [result.status for result in results] == ["new"] * 4
    assert [one(store, Look(which)).task for which in others] == others


@pytest.mark.parametrize("ending", [TAKEN, Ending(REFUSED, 16, "no_such_captcha"), LOST_TRACK])
def test_finished_task_is_known(store: AnyStore, ending: Ending) -> None:
    """A stored outcome is replayed for the same method and conflicts with another, refusals included."""
    store.transact([claim(), record(GOOD, ending)])
    for refusal in (None, CLOSED_WINDOW):
        known = one(store, claim(refusal=refusal))
        assert (known.status, known.row.outcome, known.row.code) == ("known", ending.outcome, ending.code)
        assert one(store, claim(method="other", refusal=refusal)).status == "conflict"
    assert one(store, Look(task())).outcome == ending.outcome


def test_guard_lasts_a_day(backend: Backend, store: AnyStore) -> None:
    """A day after its end a report no longer answers for its task, but stays in the history."""
    store.transact([claim(), record(GOOD, TAKEN)])
    backend.clock.advance(GUARD_S)
    assert one(store, claim()).status == "known"
    backend.clock.advance(1)
    again = one(store, claim(method="other", window=Window(None, backend.clock.now)))
    assert (again.status, again.row.attempts) == ("new", 1)
    assert one(store, Look(task())) == again.row
    rows, _ = one(store, Listing(ENDPOINT))
    assert [row.state for row in rows] == [SENDING, DONE]


def test_local_refusal_is_recorded(store: AnyStore) -> None:
    """A task refused before anything is sent has a final row with the refusal's detail."""
    refused = one(store, claim(window=WINDOW, refusal=CLOSED_WINDOW))
    assert (refused.status, refused.row.state, refused.row.outcome) == ("refused", DONE, NOT_SENT)
    assert one(store, Look(task())) == refused.row
    assert one(store, Look(task())).detail == {"ageSeconds": 61}
    second = one(
        store, claim(method="other", window=WINDOW, refusal=Ending(NOT_SENT, -32012, "wrong_method"))
    )
    assert (second.status, second.row.seq, second.row.kind) == ("refused", refused.row.seq, "wrong_method")
    assert one(store, Look(task())) == second.row
    assert [(event.name, event.data) for event in one(store, Story(refused.row.seq))] == [
        ("refused_locally", {"outcome": NOT_SENT, "kind": kind}) for kind in ("window_closed", "wrong_method")
    ]


def test_not_sent_is_tried_again_inside_the_earliest_window(store: AnyStore) -> None:
    """A task that was certainly never taken is ours again, with what is known of it kept."""
    store.transact([claim(window=Window(None, 4_000.0)), record(NO_DNS, None)])
    one(store, Settle(task(), CLOSED_WINDOW))
    again = one(store, claim(method="other", window=Window(5_000.0, 4_100.0), begin=False))
    assert (again.status, again.row.state, again.row.method) == ("again", QUEUED, "other")
    assert again.row.window == Window(5_000.0, 4_000.0)
    assert (again.row.attempts, again.row.outcome, again.row.detail) == (1, None, {})
    assert one(store, Look(task())) == again.row


def test_task_in_flight_is_not_claimed_twice(store: AnyStore) -> None:
    """A live row is never disturbed, whoever asks and whatever the claim says."""
    row = one(store, claim()).row
    assert one(store, claim()).status == "elsewhere"
    assert one(store, claim(method="other")).status == "conflict"
    assert one(store, claim(refusal=CLOSED_WINDOW)).status == "conflict"
    assert one(store, Look(task())) == row


def test_earlier_window_of_a_later_request_holds(store: AnyStore) -> None:
    """A request that joins with an earlier end narrows the window of the row."""
    one(store, claim(window=Window(None, 4_010.0)))
    joined = one(store, claim(window=Window(4_030.0, 4_020.0)))
    assert joined.row.window == Window(4_030.0, 4_010.0)
    assert one(store, Look(task())) == joined.row


EARLIER = Window(4_030.0, 3_990.0)


@pytest.mark.parametrize("state", [QUEUED, SENDING, WAITING])
def test_window_of_a_live_report_is_narrowed(store: AnyStore, state: str) -> None:
    """A live report keeps the earliest end that is noted for it; nothing else about it changes."""
    before = one(store, claim(begin=state != QUEUED, facts=Facts(1.0, "A", "en", 2.0))).row
    if state == WAITING:
        before = one(store, record(RESET, None)).row
    assert before.state == state
    assert one(store, Narrow(task(), EARLIER)) is None
    after = one(store, Look(task()))
    assert after == before._replace(window=EARLIER)
    one(store, Narrow(task(), Window(4_040.0, None)))
    assert one(store, Look(task())) == after
    assert one(store, Settle(task(), CLOSED_WINDOW)).row.window == EARLIER


def test_window_of_a_report_not_sent_is_narrowed(store: AnyStore) -> None:
    """A report that may be tried again begins inside the end that was noted after it was done."""
    one(store, claim(window=WINDOW, begin=False))
    before = one(store, Settle(task(), CLOSED_WINDOW)).row
    one(store, Narrow(task(), EARLIER))
    assert one(store, Look(task())) == before._replace(window=EARLIER)
    assert one(store, claim(window=WINDOW)).row.window == EARLIER


def test_window_of_a_sent_or_unknown_report_stays(store: AnyStore) -> None:
    """What was sent is history, and a task without a report has nothing to narrow."""
    done = store.transact([claim(), record(GOOD, TAKEN)])[1].row
    assert one(store, Narrow(task(), EARLIER)) is None
    assert one(store, Narrow(task(8), EARLIER)) is None
    assert one(store, Look(task())) == done
    assert one(store, Look(task(8))) is None


def test_window_of_another_bridges_report_is_narrowed(shared: Backend) -> None:
    """An end noted by one bridge holds for the one at work, and after it for the one that takes over."""
    first, second = shared.open(), shared.open()
    one(first, claim(begin=False))
    one(second, Narrow(task(), EARLIER))
    assert one(first, Begin(task())).row.window == EARLIER
    shared.leave(first)
    (adopted,) = one(second, Sweep(ENDPOINT, frozenset({ACCOUNT}))).adopted
    assert adopted.window == EARLIER


# --- begin, record, settle -------------------------------------------------------------------


def test_attempts_and_sends_are_counted_for_life(store: AnyStore) -> None:
    """Two complete sends or four attempts are all that a task ever gets."""
    one(store, claim())
    deferred = one(store, record(RESET, None))
    assert (deferred.status, deferred.row.state, deferred.row.sends) == ("ok", WAITING, 1)
    assert (deferred.row.perhaps, deferred.row.latency_ms) == (True, 12)
    assert one(store, Begin(task())).gate.status == "begun"
    assert one(store, record(RESET, None)).row.sends == 2
    assert one(store, Begin(task())).gate.status == "spent"
    store.transact([claim(task(8)), record(NO_DNS, None, task(8))])
    for _ in range(3):
        store.transact([Begin(task(8)), record(NO_DNS, None, task(8))])
    spent = one(store, Begin(task(8)))
    assert (spent.gate.status, spent.row.attempts, spent.row.sends) == ("spent", 4, 0)


def test_budget_outlives_a_not_sent_ending(store: AnyStore) -> None:
    """A task that is tried again gets no new attempts."""
    store.transact([claim(window=WINDOW), record(NO_DNS, None)])
    for _ in range(3):
        store.transact([Begin(task()), record(NO_DNS, None)])
    one(store, Settle(task(), CLOSED_WINDOW))
    again = one(store, claim(window=WINDOW))
    assert (again.status, again.gate.status) == ("again", "spent")


def test_record_finishes_with_all_that_was_said(store: AnyStore) -> None:
    """An ending is stored whole, and its story tells what the attempt met."""
    one(store, claim())
    ending = Ending(REFUSED, 16, "no_such_captcha", {"errorId": 16, "hints": [{"kind": "late"}]})
    recorded = one(store, record(SIXTEEN._replace(http_status=200), ending))
    row = one(store, Look(task()))
    assert recorded.row == row
    assert (row.outcome, row.owner, row.detail) == (REFUSED, None, ending.detail)
    assert row.finished_wall is not None
    assert names(store, row.seq) == ["claimed", "begun", "settled", "pause_opened"]
    told = {"event": "no_such_captcha", "latencyMs": 12, "httpStatus": 200}
    assert one(store, Story(row.seq))[2].data == {
        "outcome": REFUSED,
        "kind": "no_such_captcha",
        **told,
    }


def test_record_of_an_attempt_whose_beginning_was_not_committed(store: AnyStore) -> None:
    """An owed outcome counts its attempt, so that no later one exceeds the budget."""
    one(store, claim(begin=False))
    first = one(store, record(RESET, None))
    assert (first.status, first.row.state, first.row.attempts, first.row.sends) == ("ok", WAITING, 1, 1)
    second = one(store, record(GOOD, TAKEN))
    assert (second.status, second.row.attempts, second.row.outcome) == ("ok", 2, ACCEPTED)
    assert names(store, first.row.seq) == ["claimed", "begun", "deferred", "begun", "settled"]


def test_perhaps_delivered_is_never_stored_as_not_sent(store: AnyStore) -> None:
    """A row that may have been taken ends as unknown even if a caller says otherwise."""
    store.transact([claim(), record(RESET, None)])
    assert one(store, Settle(task(), CLOSED_WINDOW)).row.outcome == UNKNOWN


def test_a_beginning_without_an_attempt_is_taken_back(store: AnyStore) -> None:
    """It was no attempt, and the story says which one it was; with an ending the report is over."""
    row = one(store, claim()).row
    taken_back = one(store, Withdraw(task(), None))
    assert taken_back == ("ok", row._replace(state=QUEUED, attempts=0), (), store.durable)
    store.transact([Begin(task()), record(NO_DNS, None), Begin(task())])
    taken_back = one(store, Withdraw(task(), None))
    assert (taken_back.row.state, taken_back.row.attempts) == (WAITING, 1)
    assert one(store, Withdraw(task(), CLOSED_WINDOW)).row.outcome == NOT_SENT
    assert one(store, Withdraw(task(), None)) == (
        "lost",
        one(store, Look(task())),
        (),
        store.durable,
    )
    assert one(store, Withdraw(task(8), None)) == ("lost", None, (), store.durable)
    told = [(event.name, event.data.get("attempt")) for event in one(store, Story(row.seq))]
    assert told == [
        ("claimed", None), ("begun", 1), ("withdrawn", 1), ("begun", 1), ("deferred", None), ("begun", 2),
        ("withdrawn", 2), ("settled", None),
    ]  # fmt: skip


def test_a_first_attempt_begins_until_its_own_window_is_over(backend: Backend, store: AnyStore) -> None:
    """A claim that comes too late is ours and begins nothing."""
    late = one(store, claim(window=Window(backend.clock.now + 1.0, None)))
    assert (late.status, late.gate, late.row.state) == ("new", Gate("late"), QUEUED)


def test_what_one_transaction_did_is_seen_in_it(backend: Backend, store: AnyStore) -> None:
    """Questions and changes of many rows know of what came before them in the same commit."""
    refused, other = Ending(REFUSED, 16, "no_such_captcha"), task(account="b" * 32)
    *_, pauses = store.transact([claim(), record(SIXTEEN, refused), Pauses(ENDPOINT)])
    assert [state.state for state in pauses] == [OPEN]
    _, (rows, _) = store.transact([claim(task(8)), Listing(ENDPOINT)])
    assert [row.task.task_id for row in rows] == [8, 7]
    *_, resumed = store.transact(
        [claim(other), record(SIXTEEN, refused, other), Resume(ENDPOINT, None, other.account)]
    )
    assert [(state.key.subject, state.ends_at) for state in resumed] == [(other.account, backend.clock.now)]


def test_what_is_not_ours_is_lost(store: AnyStore) -> None:
    """Operations on rows that are gone or done change nothing and show the row."""
    for operation in (record(GOOD, TAKEN), Settle(task(), CLOSED_WINDOW)):
        lost = one(store, operation)
        assert (lost.status, lost.row) == ("lost", None)
    assert one(store, Begin(task())).gate.status == "lost"
    store.transact([claim(), record(GOOD, TAKEN)])
    row = one(store, Look(task()))
    assert one(store, record(SIXTEEN, LOST_TRACK)) == ("lost", row, (), store.durable)
    assert one(store, Settle(task(), LOST_TRACK)).status == "lost"
    assert one(store, Begin(task())).row == row
    assert one(store, Look(task())) == row
    assert one(store, Pauses(ENDPOINT)) == ()


def test_begin_in_flight_is_lost(store: AnyStore) -> None:
    """A second begin of the same attempt is refused."""
    row = one(store, claim()).row
    assert one(store, Begin(task())) == (Gate("lost"), row, (), store.durable, True)


# --- pauses ----------------------------------------------------------------------------------


def test_pause_holds_back_and_lets_one_probe_through(backend: Backend, store: AnyStore) -> None:
    """A pause is persisted with its verdict, and after its end exactly one report probes."""
    store.transact([claim(), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))])
    (state,) = one(store, Pauses(ENDPOINT))
    assert (state.state, state.ends_at) == (OPEN, backend.clock.now + 60)
    assert state.recent == ((backend.clock.now, f"{ACCOUNT}/7"),)
    paused = one(store, claim(task(8)))
    assert (paused.status, paused.gate, paused.row.state) == (
        "new",
        Gate("paused", state, state.ends_at),
        QUEUED,
    )
    backend.clock.advance(61)
    probing = one(store, Begin(task(8)))
    assert (probing.gate.status, [e.name for e in probing.events]) == ("begun", ["pause_probing"])
    assert one(store, claim(task(9))).gate.status == "busy"
    closed = one(store, record(GOOD, TAKEN, task(8)))
    assert [event.name for event in closed.events] == ["pause_closed"]
    assert one(store, Begin(task(9))).gate.status == "begun"
    assert one(store, Pauses(ENDPOINT)) == ()
    assert one(store, Pauses("http://127.0.0.1:1")) == ()


@pytest.mark.parametrize("end", ["deferred", "recorded", "settled", "withdrawn"])
def test_probe_that_says_nothing_is_released(backend: Backend, store: AnyStore, end: str) -> None:
    """A probe whose report ends or waits without a verdict does not block the next one."""
    store.transact([claim(), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))])
    backend.clock.advance(61)
    assert one(store, claim(task(8))).gate.status == "begun"
    operation: Any = record(NO_DNS, None if end == "deferred" else CLOSED_WINDOW, task(8))
    if end == "settled":
        operation = Settle(task(8), LOST_TRACK)
    if end == "withdrawn":
        operation = Withdraw(task(8), None)
    one(store, operation)
    assert [state.state for state in one(store, Pauses(ENDPOINT))] == [OPEN]
    assert one(store, claim(task(9))).gate.status == "begun"


@pytest.mark.parametrize("end", ["recorded", "settled", "withdrawn"])
def test_a_probe_ends_though_another_bridge_has_its_report(shared: Backend, end: str) -> None:
    """What was begun beside a silent ledger, and taught to it, probes no more if it is lost there."""
    having, probing = shared.open(), shared.open()
    one(having, claim())
    state = PauseState(
        PauseKey("account", ACCOUNT), PROBING, "no_such_captcha", opened_at=1.0, ends_at=2.0,
        probe_owner=probing.instance, probe_task=f"{ACCOUNT}/{task().task_id}",
    )  # fmt: skip
    theirs = state._replace(key=PauseKey("method", "m"), probe_owner=having.instance)
    operation: Any = record(NO_DNS, None)
    if end == "settled":
        operation = Settle(task(), LOST_TRACK)
    if end == "withdrawn":
        operation = Withdraw(task(), None)
    _, lost = probing.transact([Teach(ENDPOINT, ((None, state), (None, theirs))), operation])
    assert lost.status == "lost"
    after = {known.key: known.state for known in one(having, Pauses(ENDPOINT))}
    assert after == {state.key: OPEN, theirs.key: PROBING}


@pytest.mark.parametrize("refused", [False, True])
def test_a_conflict_narrows_the_window_of_the_report_in_flight(store: AnyStore, refused: bool) -> None:
    """Whoever knows that a task's minute ends earlier is heard, though another report has it."""
    row = one(store, claim()).row
    assert row.window.until is not None
    earlier = Window(row.window.until - 20.0, None)
    method = row.method if refused else "reportCorrectRecaptcha"
    asked = Claim(task(), method, earlier, Facts(), False, CLOSED_WINDOW if refused else None)
    assert one(store, asked).status == "conflict"
    assert one(store, Look(task())).window == earlier


def test_a_probe_is_released_by_its_own_report_alone(backend: Backend, store: AnyStore) -> None:
    """An attempt that began before the pause and says nothing leaves another one's probe as it is."""
    store.transact([claim(task(9)), claim(), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))])
    backend.clock.advance(61)
    assert one(store, claim(task(8))).gate.status == "begun"
    probing = one(store, Pauses(ENDPOINT))
    assert [state.state for state in probing] == [PROBING]
    one(store, record(NO_DNS, None, task(9)))
    assert one(store, Pauses(ENDPOINT)) == probing


def test_resume_makes_a_pause_due(store: AnyStore) -> None:
    """Resume changes the pauses of its scope and account, and no others."""
    other = "b" * 32
    for account in (ACCOUNT, other):
        which = task(account=account)
        store.transact([claim(which), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"), which)])
    assert one(store, Resume(ENDPOINT, "key", None)) == ()
    assert one(store, Resume("http://127.0.0.1:1", None, None)) == ()
    (changed,) = one(store, Resume(ENDPOINT, "quality", ACCOUNT))
    assert changed.key.subject == ACCOUNT
    assert one(store, claim(task(8))).gate.status == "begun"
    assert one(store, claim(task(8, other))).gate.status == "paused"
    assert len(one(store, Resume(ENDPOINT, None, None))) == 1


# --- reading ---------------------------------------------------------------------------------


def test_listing_is_newest_first_and_pages(backend: Backend, store: AnyStore) -> None:
    """Pages follow each other without a gap or a repeat, under every filter."""
    for number in range(1, 11):
        backend.clock.advance(1)
        ending = TAKEN if number % 2 else Ending(REFUSED, 16, "no_such_captcha", {"n": number})
        which = task(number, endpoint=ENDPOINT if number < 10 else "http://127.0.0.1:1")
        method = "one" if number < 5 else "two"
        store.transact([claim(which, method), record(GOOD, ending, which)])
    start = backend.clock.wall - 9

    def listed(**filters: Any) -> list[int]:
        query, found = Listing(filters.pop("endpoint", ENDPOINT), limit=2, **filters), []
        while True:
            rows, cursor = store.transact([query])[0]
            found += [row.task.task_id for row in rows]
            assert len(rows) <= 2
            if cursor is None:
                return found
            query = query._replace(before_seq=cursor)

    assert listed() == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert listed(endpoint=None)[0] == 10
    assert listed(outcome=REFUSED) == [8, 6, 4, 2]
    assert listed(outcome=ACCEPTED) == [9, 7, 5, 3, 1]
    assert listed(outcome="nonsense") == []
    assert one(store, Listing(ENDPOINT, limit=9))[1] is None
    assert listed(method="one") == [4, 3, 2, 1]
    assert listed(since_wall=start + 6) == [9, 8, 7]
    assert listed(since_wall=start + 1e6) == []
    assert listed(until_wall=start + 2) == [2, 1]
    assert listed(since_wall=start + 2, outcome=REFUSED, method="two") == [8, 6]


def test_listing_survives_a_clock_that_was_set_back(backend: Backend, store: AnyStore) -> None:
    """What was recorded before a jump is found by its time, not by its place."""
    for number, wall in ((1, 100.0), (2, 300.0), (3, 200.0)):
        backend.clock.wall = wall
        one(store, claim(task(number)))
    rows, _ = one(store, Listing(ENDPOINT, since_wall=150.0))
    assert [row.task.task_id for row in rows] == [3, 2]
    rows, _ = one(store, Listing(ENDPOINT, since_wall=250.0))
    assert [row.task.task_id for row in rows] == [2]
    rows, _ = one(store, Listing(ENDPOINT, until_wall=250.0))
    assert [row.task.task_id for row in rows] == [3, 1]


def test_asking_says_what_is_known(backend: Backend, store: AnyStore) -> None:
    """Without writing anything, a task's report and the pauses that concern an attempt are told."""
    assert one(store, Ask(task(), IMAGE)) == (None, None, False, ())
    row = one(store, claim()).row
    assert one(store, Ask(task(), None)) == (row, None, False, ())
    one(store, record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha")))
    known = one(store, Ask(task(8), IMAGE))
    assert (known.row, [state.state for state in known.pauses]) == (None, [OPEN])
    known = one(store, Ask(task(), None))
    assert known.row is not None
    assert (known.row.outcome, known.finished_at) == (REFUSED, backend.clock.now)


def test_prune_deletes_what_is_old_and_done(backend: Backend, store: AnyStore) -> None:
    """Old reports go in steps with their events; live and guarding ones stay."""
    for number in range(1, 6):
        store.transact([claim(task(number)), record(GOOD, TAKEN, task(number))])
    live = one(store, claim(task(6))).row
    assert one(store, Prune(backend.clock.wall + 1)) == 0, "reports that guard their task stay"
    backend.clock.advance(GUARD_S + 1)
    guarding = store.transact([claim(task(7)), record(GOOD, TAKEN, task(7))])[1].row
    before = backend.clock.wall
    assert [one(store, Prune(before, 3)) for _ in range(3)] == [3, 2, 0]
    rows, _ = one(store, Listing(None))
    assert rows == (guarding, live)
    assert one(store, Story(1)) == ()
    assert names(store, live.seq) == ["claimed", "begun"]


@pytest.mark.parametrize("backend", ["memory", "sqlite"], indirect=True)
def test_prune_keeps_what_guards_its_task_by_either_clock(backend: Backend, store: AnyStore) -> None:
    """A day must have passed by both clocks of the machine; a server has one for all."""
    clock = backend.clock
    store.transact([claim(), record(GOOD, TAKEN)])
    clock.boot, clock.wall = clock.boot + GUARD_S, clock.wall + GUARD_S + 9.0
    assert one(store, Prune(clock.wall)) == 0
    clock.boot, clock.wall = clock.boot + 9.0, clock.wall - 9.0
    assert one(store, Prune(clock.wall)) == 0
    clock.wall += 9.0
    assert one(store, Prune(clock.wall)) == 1


# --- transactions ----------------------------------------------------------------------------


def test_group_is_one_commit(store: AnyStore) -> None:
    """Sixty-four reports that begin together cost one transaction."""
    statements: list[str] = []
    watch(store, statements.append)
    results = store.transact([claim(task(number)) for number in range(1, 65)])
    assert {result.gate.status for result in results} == {"begun"}
    opening, ending = (text for text in statements if text.startswith(("BEGIN", "COMMIT", "ROLLBACK")))
    assert (opening.split()[0], ending) == ("BEGIN", "COMMIT")


def test_failing_operation_undoes_the_batch(backend: Backend, store: AnyStore) -> None:
    """A batch happens as a whole or not at all, and the store works on."""
    bad = task(2**53)
    with pytest.raises(LedgerTrouble) as caught:
        store.transact([claim(task(1, "c" * 32)), claim(bad)])
    assert caught.value.kind == "corrupt"
    assert str(2**53) not in caught.value.sentence
    assert one(store, Listing(None)) == ((), None)
    assert one(store, claim(task(1, "c" * 32))).status == "new"
    assert one(store, Look(task(1, "c" * 32))) is not None


def test_policy_that_fails_undoes_the_batch(
    backend: Backend, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the policy passes through and leaves nothing behind."""

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(backend.policy, "gate", fail)
    with pytest.raises(ZeroDivisionError):
        store.transact([claim(task(1), begin=False), claim(task(2))])
    assert one(store, Listing(None)) == ((), None)


def test_reads_do_not_take_the_write_lock(store: AnyStore) -> None:
    """A batch of questions is a deferred transaction."""
    statements: list[str] = []
    watch(store, statements.append)
    store.transact([Look(task()), Listing(None), Pauses(ENDPOINT)])
    assert statements[0] == "BEGIN" or statements[0].endswith("READ ONLY")


# --- several stores on one ledger ------------------------------------------------------------


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from bridge.core.model import *
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.sqlite import SqliteStore
from bridge.reports.pauses import PausePolicy
PostgresStore._tell_time = lambda store, epoch: (4000.0, 4000.0)
kind = PostgresStore if "://" in sys.argv[1] else SqliteStore
store = kind(sys.argv[1], policy=PausePolicy("m", enabled=False),
                         boot_clock=lambda: 1000.0, wall_clock=lambda: 4000.0)
for number, begin in ((1, True), (2, False), (3, True), (4, False)):
    account = "a" * 32 if number < 3 else "b" * 32
    store.transact([Claim(Task("https://upstream.test", account, number), "reportIncorrectImageCaptcha",
                          Window(4060.0, None), Facts(), begin)])
print(store.instance, flush=True)
time.sleep(600)
"""


@pytest.fixture
def neighbour(shared: Backend) -> Iterator[Callable[[], str]]:
    """A living process with four claims; calling it kills the process and tells its instance."""
    command = [sys.executable, "-c", CHILD, str(shared.path), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        instance = child.stdout.readline().strip()
        assert instance

        def kill() -> str:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            shared.wait_until_dead(instance)
            return instance

        try:
            yield kill
        finally:
            child.kill()


def test_living_neighbour_keeps_its_rows(shared: Backend, neighbour: Callable[[], str]) -> None:
    """While its owner lives a task is elsewhere, and nothing of it is swept, however late it is."""
    store = shared.open()
    assert one(store, claim(task(1))).status == "elsewhere"
    assert not one(store, Ask(task(2), None)).is_free
    shared.clock.advance(1e6)
    assert one(store, Sweep(ENDPOINT, frozenset({ACCOUNT}))) == ((), ())


@pytest.mark.parametrize(
    ("ending", "begin", "agrees"),
    [
        (TAKEN, False, True),
        (LOST_TRACK, False, True),
        (REFUSAL, False, True),
        (CLOSED_WINDOW, False, False),
        (TAKEN, True, True),
        (LOST_TRACK, True, True),
        (REFUSAL, True, False),
    ],
    ids=["taken", "perhaps taken", "refused", "not sent", "begun", "begun, perhaps taken", "begun, refused"],
)
def test_what_the_upstream_decided_ends_what_a_neighbour_has(
    shared: Backend, ending: Ending, begin: bool, agrees: bool
) -> None:
    """An owed outcome ends a living neighbour's report, so that neither calls not sent what was taken.

    A refusal leaves one that was begun alone: that may still be taken.
    """
    waiting, owing = shared.open(), shared.open()
    row = one(waiting, claim(begin=begin)).row
    truth = row._replace(
        state=DONE, owner=None, outcome=ending.outcome, code=ending.code, kind=ending.kind, attempts=1,
        finished_wall=row.recorded_wall,
    )  # fmt: skip
    restored = one(owing, Restore(truth, row.window.until))
    assert restored.agrees is agrees
    if agrees:
        assert one(waiting, Begin(task())).gate.status == "lost"
        lost = one(waiting, Withdraw(task(), CLOSED_WINDOW))
        assert (lost.status, lost.row.outcome) == ("lost", ending.outcome)
        known = one(waiting, claim())
        assert (known.status, known.row.outcome, known.row.owner) == ("known", ending.outcome, None)
    elif not begin:
        assert one(waiting, Begin(task())).gate.status == "begun"


@pytest.mark.parametrize("begin", [False, True])
def test_an_earlier_end_that_is_owed_holds_for_a_neighbours_report(shared: Backend, begin: bool) -> None:
    """Who was told that a task's minute is over tells it to the bridge that has the report."""
    having, owing = shared.open(), shared.open()
    row = one(having, claim(begin=begin)).row
    earlier = Window(row.window.until - 20.0, None)
    truth = row._replace(
        state=DONE, owner=None, outcome=NOT_SENT, code=-32010, kind="window_closed", attempts=0, sends=0,
        window=earlier, finished_wall=row.recorded_wall,
    )  # fmt: skip
    assert one(owing, Restore(truth, earlier.until)).agrees is False
    assert one(having, Look(task())).window == earlier


def test_a_beginning_that_nobody_was_told_of_is_taken_back(store: AnyStore) -> None:
    """What its own bridge knows of a report is the truth: a commit told as failed began no attempt."""
    row = one(store, claim()).row
    truth = row._replace(
        state=DONE, owner=None, outcome=NOT_SENT, code=-32031, kind="ledger_unavailable", attempts=0,
        finished_wall=row.recorded_wall,
    )  # fmt: skip
    restored = one(store, Restore(truth, row.window.until))
    assert (restored.agrees, restored.row.attempts, restored.row.outcome) == (True, 0, NOT_SENT)
    assert names(store, row.seq) == ["claimed", "begun", "withdrawn"]


def test_a_takeover_that_nobody_was_told_of_is_not_forgotten(
    shared: Backend, neighbour: Callable[[], str]
) -> None:
    """What a dead neighbour had perhaps delivered stays so, whatever its new owner tells of the task."""
    neighbour()
    store = shared.open()
    row = one(store, claim(task(1), begin=False)).row
    assert (row.owner, row.perhaps, row.sends) == (store.instance, True, 1)
    truth = row._replace(
        state=DONE, owner=None, outcome=NOT_SENT, code=-32010, kind="window_closed", attempts=0, sends=0,
        perhaps=False, finished_wall=row.recorded_wall,
    )  # fmt: skip
    restored = one(store, Restore(truth, row.window.until))
    assert (restored.row.outcome, restored.row.perhaps, restored.row.sends) == (UNKNOWN, True, 1)


def test_killed_neighbour_is_adopted_by_a_claim(shared: Backend, neighbour: Callable[[], str]) -> None:
    """What it had begun counts as a send that may have been taken; what it had not is as new."""
    dead = neighbour()
    store = shared.open()
    assert one(store, Ask(task(2), None)).is_free, "never begun: may be sent"
    assert not one(store, Ask(task(1), None)).is_free, "begun: must not be forgotten"
    assert one(store, claim(task(1), method="other")).status == "conflict"
    assert one(store, claim(task(1), refusal=CLOSED_WINDOW)).status == "conflict"
    begun = one(store, claim(task(1), window=Window(4_050.0, None)))
    assert (begun.status, begun.gate.status) == ("adopted", "begun")
    assert (begun.row.owner, begun.row.attempts, begun.row.sends) == (store.instance, 2, 1)
    assert (begun.row.perhaps, begun.row.window.until) == (True, 4_050.0)
    assert one(store, Look(task(1))) == begun.row
    assert names(store, begun.row.seq) == ["claimed", "begun", "adopted", "begun"]
    assert one(store, Story(begun.row.seq))[2].data["from"] == dead
    queued = one(store, claim(task(2), begin=False))
    assert (queued.status, queued.row.state, queued.row.perhaps) == ("adopted", QUEUED, False)


def test_killed_neighbour_is_swept(shared: Backend, neighbour: Callable[[], str]) -> None:
    """Rows whose key we hold become ours; the others end at their window, truthfully."""
    dead = neighbour()
    store = shared.open()
    assert shared.kind == "postgres" or not shared.is_gone(dead)
    swept = one(store, Sweep(ENDPOINT, frozenset({ACCOUNT})))
    assert [(row.task.task_id, row.state) for row in swept.adopted] == [(1, WAITING), (2, QUEUED)]
    assert swept.settled == ()
    assert shared.kind == "postgres" or not shared.is_gone(dead), "it still has rows"
    shared.clock.advance(61)
    swept = one(store, Sweep(ENDPOINT, frozenset({ACCOUNT})))
    assert swept.adopted == ()
    assert [(row.task.task_id, row.outcome) for row in swept.settled] == [(3, UNKNOWN), (4, NOT_SENT)]
    assert [one(store, Look(row.task)) for row in swept.settled] == list(swept.settled)
    assert [(row.sends, row.perhaps) for row in swept.settled] == [(1, True), (0, False)]
    assert one(store, Sweep(ENDPOINT, frozenset({ACCOUNT}))) == ((), ())
    assert shared.is_gone(dead)


def test_other_endpoint_is_not_adopted(shared: Backend, neighbour: Callable[[], str]) -> None:
    """A bridge of another endpoint leaves rows alone until their window is over."""
    neighbour()
    store = shared.open()
    everybody = frozenset({ACCOUNT, "b" * 32})
    assert one(store, Sweep("http://127.0.0.1:1", everybody)) == ((), ())
    shared.clock.advance(61)
    assert len(one(store, Sweep("http://127.0.0.1:1", everybody)).settled) == 4


def test_late_owner_is_fenced_off(shared: Backend) -> None:
    """Once its rows are adopted, an owner that comes back can change nothing."""
    first, second = shared.open(), shared.open()
    one(first, claim())
    shared.leave(first)
    adopted = one(second, claim())
    assert adopted.status == "adopted"
    for operation in (record(GOOD, TAKEN), Settle(task(), CLOSED_WINDOW)):
        assert one(first, operation)[:2] == ("lost", adopted.row)
    assert one(first, Begin(task()))[:2] == (Gate("lost"), adopted.row)
    assert one(second, record(GOOD, TAKEN)).status == "ok"


def test_what_is_ours_and_nobody_knows_of_is_taken_up(shared: Backend) -> None:
    """A sweep that is told what its bridge knows takes up the rest of its own reports, of no other's."""
    first, second = shared.open(), shared.open()
    first.transact([claim(), claim(task(8))])
    one(second, claim(task(9)))
    everybody = frozenset({ACCOUNT})
    assert one(first, Sweep(ENDPOINT, everybody)) == ((), ())
    (adopted,) = one(first, Sweep(ENDPOINT, everybody, frozenset({task(8)}))).adopted
    assert (adopted.task, adopted.owner) == (task(), first.instance)
    assert one(first, Sweep(ENDPOINT, everybody, frozenset({task(), task(8)}))) == ((), ())


def test_probe_of_the_dead_is_released(shared: Backend) -> None:
    """A pause probed by a dead instance is due again, for any report and at once."""
    first, second = shared.open(), shared.open()
    first.transact([claim(), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))])
    shared.clock.advance(61)
    assert one(first, claim(task(8))).gate.status == "begun"
    assert one(second, claim(task(9))).gate.status == "busy"
    first.close()
    (released,) = one(second, Ask(task(9), IMAGE)).pauses
    assert (released.state, released.probe_owner) == (OPEN, None)
    assert one(second, Begin(task(9))).gate.status == "begun"
    assert one(second, Begin(task(8))).gate.status == "lost"


def test_probe_of_the_dead_is_released_though_another_pause_holds_back(shared: Backend) -> None:
    """Who finds it and may not begin all the same leaves it due, for others to see."""
    first, second = shared.open(), shared.open()
    probed = PauseState(
        PauseKey("method", IMAGE), PROBING, "withdrawn", opened_at=1.0, ends_at=2.0,
        probe_owner=first.instance, probe_task=f"{ACCOUNT}/8",
    )  # fmt: skip
    refused = record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))
    first.transact([claim(), refused, Teach(ENDPOINT, ((None, probed),))])
    shared.leave(first)
    assert one(second, claim(task(9))).gate.status == "paused"
    assert [(state.state, state.probe_owner) for state in one(second, Pauses(ENDPOINT))] == [(OPEN, None)] * 2


def test_adoption_releases_the_probe_of_its_report(shared: Backend) -> None:
    """The adopter of a probing report may probe itself."""
    first, second = shared.open(), shared.open()
    first.transact([claim(), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"))])
    shared.clock.advance(61)
    one(first, claim(task(8), window=Window(4_110.0, None)))
    first.close()
    (adopted,) = one(second, Sweep(ENDPOINT, frozenset({ACCOUNT}))).adopted
    assert [state.state for state in one(second, Pauses(ENDPOINT))] == [OPEN]
    assert one(second, Begin(adopted.task)).gate.status == "begun"


@pytest.mark.parametrize("accounts", [{ACCOUNT}, set()], ids=["taken_over", "ended"])
def test_what_the_dead_probed_about_its_machine_is_released(shared: Backend, accounts: set[str]) -> None:
    """A pause that concerns none of the finder's own reports does not stay probed by a report that ended."""
    first, second = shared.open(), shared.open()
    state = PauseState(
        PauseKey("transport", "its machine"), PROBING, "dns", opened_at=1.0, ends_at=2.0,
        probe_owner=first.instance, probe_task=f"{ACCOUNT}/{task().task_id}",
    )  # fmt: skip
    first.transact([Teach(ENDPOINT, ((None, state),)), claim()])
    shared.leave(first)
    shared.clock.advance(61)
    one(second, Sweep(ENDPOINT, frozenset(accounts)))
    assert [known.state for known in one(second, Pauses(ENDPOINT))] == [OPEN]


def test_two_stores_never_both_win(shared: Backend) -> None:
    """Of two bridges that claim the same tasks at once, exactly one gets each."""
    stores = shared.open(busy_s=30.0), shared.open(busy_s=30.0)
    won: list[list[int]] = [[], []]
    start = threading.Barrier(2)

    def run(index: int) -> None:
        start.wait()
        for number in range(1, 41):
            claimed: Claimed = one(stores[index], claim(task(number)))
            if claimed.status == "new":
                won[index].append(number)

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won[0] + won[1]) == list(range(1, 41))


def test_one_secret_and_one_timeline(shared: Backend) -> None:
    """Everybody on a ledger hashes accounts alike and keeps the boot's first timeline."""
    first = shared.open()
    shared.clock.wall += 3_600
    second = shared.open()
    assert len(first.secret) == 32
    assert first.secret == second.secret
    assert first.clock_offset_s == second.clock_offset_s == 3_000.0
    assert first.instance != second.instance


# --- the table of transitions ----------------------------------------------------------------


_STEPS = st.lists(
    st.sampled_from(
        [
            "claim",
            "begin",
            "again",
            "done",
            "unknown",
            "settle",
            "withdraw",
            "give up",
            "refuse",
            "late",
            "other",
            "sweep",
        ],
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_every_history_follows_the_transitions(steps: list[str]) -> None:
    """Whatever is asked in whatever order, a report moves only as the table allows."""
    backend = Backend("memory", None)
    store = backend.open()
    operations: dict[str, Any] = {
        "claim": claim(begin=False),
        "begin": Begin(task()),
        "again": record(NO_DNS, None),
        "unknown": record(RESET, None),
        "done": record(GOOD, TAKEN),
        "settle": Settle(task(), CLOSED_WINDOW),
        "withdraw": Withdraw(task(), None),
        "give up": Withdraw(task(), CLOSED_WINDOW),
        "refuse": claim(refusal=CLOSED_WINDOW),
        "other": claim(method="other"),
        "sweep": Sweep(ENDPOINT, frozenset({ACCOUNT})),
    }
    told: dict[int, int] = {}
    states: set[str | None] = {None}
    for step in steps:
        if step == "late":
            backend.clock.advance(GUARD_S + 1)
            continue
        before = one(store, Look(task()))
        one(store, operations[step])
        after = one(store, Look(task()))
        if after is None:
            continue
        if before is None or after.seq != before.seq:
            states = {None}
        events = one(store, Story(after.seq))
        for event in events[told.get(after.seq, 0) :]:
            states = {new for old in states for new in TRANSITIONS[event.name].get(old, ())}
        told[after.seq] = len(events)
        assert after.state in states
        assert (after.owner is None) == (after.state == DONE)
        assert after.attempts <= 4
        assert after.sends <= 2
        assert not (after.perhaps and after.outcome == NOT_SENT)
    backend.close()
