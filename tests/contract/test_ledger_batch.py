"""What happens inside one batch: every operation meets what those before it have done.

The stores read at once and write at once, so a batch is where they could forget themselves.
"""

from __future__ import annotations

import pytest

from bridge.core.model import (
    GUARD_S,
    NOT_SENT,
    OPEN,
    REFUSED,
    WAITING,
    Begin,
    Ending,
    Gate,
    Look,
    Narrow,
    Operation,
    PauseEvent,
    PauseKey,
    PauseState,
    Prune,
    Settle,
    Sweep,
    Window,
)
from bridge.ledger.port import Forget, Story, Teach
from bridge.ledger.sqlite import SqliteStore
from tests.contract.test_ledger_store import (
    ACCOUNT,
    CLOSED_WINDOW,
    ENDPOINT,
    GOOD,
    NO_DNS,
    RESET,
    SIXTEEN,
    TAKEN,
    WINDOW,
    AnyStore,
    Backend,
    backend,
    claim,
    names,
    one,
    record,
    shared,
    store,
    task,
)

__all__ = ["backend", "shared", "store"]
"""Fixtures of the contract that the tests here ask for."""


@pytest.mark.parametrize("is_known_before", [False, True])
def test_a_finished_task_is_known_to_the_rest_of_its_batch(
    backend: Backend, store: AnyStore, is_known_before: bool
) -> None:
    """Reported and asked for again in one batch, a task is not reported twice."""
    backend.clock.advance(2 * GUARD_S)  # so that one without an end would count as old
    if is_known_before:
        one(store, claim())
    batch: list[Operation] = [*([] if is_known_before else [claim()]), record(GOOD, TAKEN), claim()]
    assert store.transact(batch)[-1].status == "known"
    row = one(store, Look(task()))
    assert (row.outcome, row.attempts) == ("accepted", 1)
    assert names(store, row.seq) == ["claimed", "begun", "settled"]


def test_a_pause_holds_for_the_rest_of_its_batch(store: AnyStore) -> None:
    """What an attempt's end opens, the next beginning of the same batch meets."""
    store.transact([claim(task(1)), claim(task(2), begin=False)])
    answers = store.transact(
        [record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"), task(1)), Begin(task(2))]
    )
    assert answers[1].gate.status == "paused"
    assert one(store, claim(task(3))).gate.status == "paused"


def test_a_pause_told_by_another_ledger_holds_at_once(store: AnyStore) -> None:
    """What was heard elsewhere counts for what comes behind it in the batch."""
    told = PauseState(
        PauseKey("account", ACCOUNT), OPEN, "no_such_captcha", 1, (), opened_at=1.0, ends_at=9e9
    )
    one(store, claim(begin=False))
    assert store.transact([Teach(ENDPOINT, ((None, told),)), Begin(task())])[1].gate.status == "paused"
    assert one(store, claim(task(8))).gate.status == "paused"


def test_a_new_report_may_go_on_in_its_batch(store: AnyStore) -> None:
    """Claimed, begun, narrowed and recorded in one batch, a report has its whole story."""
    batch: list[Operation] = [
        claim(begin=False),
        Begin(task()),
        Narrow(task(), Window(4_050.0, None)),
        record(RESET, None),
        Begin(task()),
        record(GOOD, TAKEN),
    ]
    answers = store.transact(batch)
    assert [getattr(answer, "status", None) for answer in (answers[0], answers[3], answers[5])] == [
        "new",
        "ok",
        "ok",
    ]
    row = one(store, Look(task()))
    assert (row.state, row.attempts, row.sends, row.window.until) == ("done", 2, 2, 4_050.0)
    assert names(store, row.seq) == ["claimed", "begun", "deferred", "begun", "settled"]


def test_what_is_told_of_a_report_that_may_not_begin_is_in_its_story(
    backend: Backend, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause that closes while another one holds is told at each try, and then the story goes on."""
    seq = one(store, claim(begin=False)).row.seq
    closed = PauseEvent("pause_closed", PauseState(PauseKey("account", ACCOUNT)))
    with monkeypatch.context() as patch:
        patch.setattr(backend.policy, "gate", lambda *_: (Gate("paused", closed.state), (), (closed,)))
        assert [one(store, Begin(task())).gate.status for _ in range(2)] == ["paused", "paused"]
    assert store.transact([Begin(task()), record(GOOD, TAKEN)])[1].status == "ok"
    assert names(store, seq) == ["claimed", "pause_closed", "pause_closed", "begun", "settled"]


def test_a_report_that_was_not_sent_may_begin_anew_in_its_batch(store: AnyStore) -> None:
    """Ended unsent and claimed again in one batch, a report is ours and begun."""
    one(store, claim(window=WINDOW, begin=False))
    settled, again = store.transact([Settle(task(), CLOSED_WINDOW), claim(window=WINDOW)])
    assert (settled.status, again.status, again.gate.status) == ("ok", "again", "begun")
    row = one(store, Look(task()))
    assert (row.state, row.outcome) == ("sending", None)


def test_what_a_batch_takes_up_again_is_not_pruned_in_it(backend: Backend, store: AnyStore) -> None:
    """Pruning meets what came before it: an id that has come back loses its old report only."""
    unsent = Ending(NOT_SENT, -32001, "upstream_unreachable")
    store.transact([claim(), record(GOOD, TAKEN), claim(task(8)), record(NO_DNS, unsent, task(8))])
    backend.clock.advance(GUARD_S + 1)
    window = Window(backend.clock.now + 60.0, None)
    batch: list[Operation] = [
        claim(window=window),
        claim(task(8), window=window),
        Prune(backend.clock.wall),
        Look(task()),
    ]
    back, _, pruned, known = store.transact(batch)
    assert (back.status, pruned) == ("new", 2)
    assert known == back.row == one(store, Look(task()))
    assert names(store, known.seq) == ["claimed", "begun"]


def test_a_report_that_is_dropped_is_new_to_the_rest_of_its_batch_and_later() -> None:
    """Of a report that another store has nothing is left, whatever the batch did to it before."""
    memory = Backend("memory", None)
    store = memory.open()
    seq = store.transact([claim(), claim(task(8)), Forget(task(9))])[0].row.seq
    narrowed = Narrow(task(), Window(4_050.0, None))
    assert store.transact([narrowed, Forget(task()), Look(task()), Look(task(8))])[2] is None
    assert one(store, Story(seq)) == ()
    assert one(store, Look(task(8))).state == "sending"
    assert one(store, claim()).status == "new"
    assert store.transact([Forget(task()), claim(), Look(task())])[1].status == "new"
    memory.close()


@pytest.mark.parametrize("ending", [TAKEN, None], ids=["final", "deferred"])
def test_what_was_taken_over_meanwhile_is_lost(shared: Backend, ending: Ending | None) -> None:
    """A report that a neighbour has taken over is not changed by what is remembered of it."""
    first = shared.open()
    one(first, claim(task(1)))
    one(first, claim(task(2)))
    second = shared.open()
    shared.leave(first)
    assert one(second, claim(task(1))).status == "adopted"
    if isinstance(first, SqliteStore):
        # It wakes up: for itself it has never been away.
        first._owners.hold()
    lost, kept = first.transact([record(RESET, ending, task(1)), record(GOOD, TAKEN, task(2))])
    assert (lost.status, kept.status) == ("lost", "ok")
    row = one(second, Look(task(1)))
    assert (row.owner, row.state) == (second.instance, row.state)
    assert row.state != WAITING or row.sends == 1


def test_a_report_that_comes_back_goes_on_with_its_whole_story(shared: Backend) -> None:
    """Taken over, left behind and taken back in the batch that records it, a report forgets nothing."""
    first = shared.open()
    one(first, claim())
    second = shared.open()
    shared.leave(first)
    assert one(second, claim(begin=False)).status == "adopted"
    if isinstance(first, SqliteStore):
        first._owners.hold()
    shared.leave(second)
    swept, recorded = first.transact([Sweep(ENDPOINT, frozenset({ACCOUNT})), record(GOOD, TAKEN)])
    assert [row.task for row in swept.adopted] == [task()]
    assert recorded.status == "ok"
    told = names(first, recorded.row.seq)
    assert told == ["claimed", "begun", "adopted", "adopted", "begun", "settled"]
