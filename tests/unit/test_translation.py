"""Accounts and times of one ledger in the words of another."""

from __future__ import annotations

from typing import Any

from bridge.core.model import Begin, Listing, Look, Narrow, Pauses, Resume, Sweep, Window
from bridge.ledger.port import Ask, Teach
from bridge.ledger.translation import Accounts, View, hash_account
from tests.shaky_store import ENDPOINT, METHOD, OK, Times, claim, open_memory, record, task

KEY = "k" * 32
OUR_SECRET = b"s" * 32
SHIFT_S = 1_000.0
WINDOW = Window(5_000.0, None)


def make() -> tuple[View, Any, str, str]:
    """A view on a store with another secret and another timeline, and the account outside and inside."""
    store = open_memory(Times())
    accounts = Accounts()
    accounts.settle(OUR_SECRET, store.clock_offset_s - SHIFT_S)
    accounts.settle(b"later secrets change nothing", 0.0)
    outside = accounts.name(KEY)
    return View(store, accounts), store, outside, hash_account(store.secret, KEY)


def test_report_is_told_in_our_words_and_kept_in_the_stores() -> None:
    """Account and window are translated on the way in and back on the way out."""
    view, store, outside, inside = make()
    claimed = view.transact([claim(account=outside)._replace(window=WINDOW)])[0]
    assert (claimed.row.task, claimed.row.window) == (task(1, outside), WINDOW)
    kept = store.transact([Look(task(1, inside))])[0]
    assert kept.window.until == 5_000.0 + SHIFT_S
    assert store.transact([Look(task(1, outside))])[0] is None
    assert view.transact([Look(task(1, outside))])[0].task.account == outside
    rows, cursor = view.transact([Listing(ENDPOINT)])[0]
    assert ([row.task.account for row in rows], cursor) == ([outside], None)
    known = view.transact([Ask(task(1, outside), METHOD)])[0]
    assert known.row is not None
    assert known.row.task.account == outside


def test_pauses_are_told_in_our_words() -> None:
    """Who is paused, who probes and until when are translated."""
    view, store, outside, inside = make()
    view.transact([claim(account=outside)])
    (proof,) = view.transact([Ask(task(2, outside), METHOD)])[0].pauses
    assert (proof.key.subject, proof.probe_task) == (outside, f"{outside}/1")
    assert proof in [state for states in view.seen.values() for state in states.values()]
    balance = record(account=outside, ending=OK._replace(outcome="refused", code=10, kind="key_balance"))
    verdict = balance.verdict._replace(pause="key_balance", event="key_balance", error_id=10)
    view.transact([balance._replace(verdict=verdict)])
    paused = next(p for p in view.transact([Pauses(ENDPOINT)])[0] if p.key.rule == "key_balance")
    kept = next(p for p in store.transact([Pauses(ENDPOINT)])[0] if p.key.rule == "key_balance")
    assert (paused.key.subject, kept.key.subject) == (outside, inside)
    assert kept.ends_at - paused.ends_at == SHIFT_S
    blocked = view.transact([claim(3, account=outside)])[0].gate
    assert (blocked.status, blocked.until) == ("paused", paused.ends_at)
    assert len(view.transact([Resume(ENDPOINT, "key", outside)])[0]) == 1
    assert view.transact([Resume(ENDPOINT, None, None)])[0] != ()
    begun = view.transact([Begin(task(3, outside))])[0]
    assert begun.row.task.account == outside
    assert [event.state.key.subject for event in begun.events] == [outside]


def test_beginning_of_an_attempt_is_told_in_the_stores_time() -> None:
    """Pauses are judged by when an attempt began, so that is translated too."""
    view, store, outside, _ = make()
    told: list[Any] = []
    run = store.transact

    def watch(operations: Any) -> list[Any]:
        told.extend(operations)
        result: list[Any] = run(operations)
        return result

    store.transact = watch
    ours = record(account=outside)
    view.transact([claim(account=outside), ours])
    assert told[1].began_at == ours.began_at + SHIFT_S


def test_sweep_speaks_of_accounts_in_both_directions() -> None:
    """Reports of dead bridges are looked for and told by our names."""
    view, store, outside, _ = make()
    view.transact([claim(account=outside)])
    store.is_alive = lambda instance: False
    store.instance = store._owners.instance = "another"
    swept = view.transact([Sweep(ENDPOINT, frozenset({outside}))])[0]
    assert [row.task.account for row in swept.adopted] == [outside]


def test_unknown_accounts_are_left_as_they_are() -> None:
    """Of a report whose key was never seen here, the ledger's own name is told."""
    view, store, _, _ = make()
    store.transact([claim(account="f" * 32)])
    rows, _ = view.transact([Listing(ENDPOINT)])[0]
    assert [row.task.account for row in rows] == ["f" * 32]


def test_narrowed_window_is_noted_in_the_stores_time() -> None:
    """The earlier end of a window is translated like the first one."""
    view, store, outside, inside = make()
    view.transact([claim(account=outside)._replace(window=WINDOW)])
    assert view.transact([Narrow(task(1, outside), Window(4_000.0, 3_000.0))]) == [None]
    assert store.transact([Look(task(1, inside))])[0].window == Window(4_000.0 + SHIFT_S, 3_000.0 + SHIFT_S)
    assert view.transact([Look(task(1, outside))])[0].window == Window(4_000.0, 3_000.0)


def test_pauses_of_another_store_are_taken_over_in_the_stores_words() -> None:
    """A pause handed from one store to another is about the same account, until the same moment."""
    view, store, outside, inside = make()
    balance = record(account=outside, ending=OK._replace(outcome="refused", code=10, kind="key_balance"))
    verdict = balance.verdict._replace(pause="key_balance", event="key_balance", error_id=10)
    opened = view.transact([claim(account=outside), balance._replace(verdict=verdict)])[1].events[-1].state
    kept = [
        pause
        for pause in store.transact([Pauses(ENDPOINT)])[0]
        if pause.key == opened.key._replace(subject=inside)
    ]
    other, other_store, _, _ = make()
    other.transact([Teach(ENDPOINT, ((None, opened),))])
    (taken,) = other_store.transact([Pauses(ENDPOINT)])[0]
    assert taken.key.subject == hash_account(other_store.secret, KEY)
    assert taken.ends_at == kept[0].ends_at
    assert other.transact([Pauses(ENDPOINT)])[0] == (opened,)
