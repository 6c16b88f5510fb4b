"""What a batch on SQLite remembers beside the reports: numbers of accounts and their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.counting import Tallies
from bridge.core.model import Listing, Look, Prune, Sweep
from bridge.ledger import sqlite_batch
from bridge.ledger.port import Forget
from bridge.ledger.rows import FIGURES, OF_ACCOUNT, TALLIED
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import LedgerTrouble
from tests.contract.test_ledger_store import ACCOUNT, ENDPOINT, GOOD, TAKEN, Backend, claim, one, record, task


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A ledger in memory."""
    made = Backend("memory", None)
    yield made
    made.close()


@pytest.fixture
def store(backend: Backend) -> SqliteStore:
    """An open store on it."""
    opened = backend.open()
    assert isinstance(opened, SqliteStore)
    return opened


def test_accounts_are_remembered_but_not_too_many(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no end to accounts, so all are forgotten when there are more than fit, and found again."""
    monkeypatch.setattr(sqlite_batch, "_MOST_ACCOUNTS", 2)
    sizes = []
    for letter in "bcd":
        assert one(store, claim(task(1, letter * 32))).status == "new"
        sizes.append(len(store._ids))
    assert sizes == [1, 2, 1]
    assert one(store, Look(task(1, "b" * 32))) is not None


def test_an_account_that_was_undone_lends_its_name_to_no_other(store: SqliteStore) -> None:
    """The number of an account that was never committed is given to the next one."""
    undone, real = "b" * 32, "c" * 32
    sweep = Sweep(ENDPOINT, frozenset({undone, real}), frozenset())
    with pytest.raises(LedgerTrouble):
        store.transact([claim(task(1, undone)), sweep, claim(task(2**53))])
    one(store, claim(task(2, real)))
    assert [row.task for row in one(store, sweep).adopted] == [task(2, real)]


@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_report_that_is_dropped_is_not_taken_for_the_next_one(
    store: SqliteStore, is_remembered: bool
) -> None:
    """Its number is given to the next report, which keeps its state whatever is told of the dropped one."""
    if is_remembered:
        one(store, claim())
        one(store, Forget(task()))
    else:
        store.transact([claim(), Forget(task())])
    one(store, Look(task()))  # after a question nobody knows which number was the last
    following = one(store, claim(task(8))).row
    assert following.seq == 1
    assert one(store, record(GOOD, TAKEN)).status == "lost"
    assert one(store, Look(task(8))) == following


def test_nothing_is_pruned_before_its_time(backend: Backend, store: SqliteStore) -> None:
    """While a clock may be wrong all history is kept, until the instant that was given."""
    store.transact([claim(), record(GOOD, TAKEN)])
    backend.clock.advance(2 * 86_400.0)
    before = Prune(backend.clock.wall)
    store.pruned_from = backend.clock.now + 1.0
    assert one(store, before) == 0
    backend.clock.advance(1.0)
    assert one(store, before) == 1
    assert one(store, Listing(None)) == ((), None)


def test_what_every_report_asks_is_prepared_once(store: SqliteStore) -> None:
    """No statement is made again for other values: that takes longer than most of them take to run."""
    prepared: list[Any] = []

    def report(number: int) -> None:
        store.transact([claim(task(number))])
        store.transact([record(GOOD, TAKEN, task(number))])
        one(store, Tallies(ENDPOINT, ACCOUNT))

    def allow(*what: Any) -> int:
        prepared.append(what)
        return 0

    # Asked while a statement is prepared, and at no other time.
    store._connection.authorizer = allow
    report(1)
    report(2)
    assert prepared
    prepared.clear()
    for number in range(3, 6):
        report(number)
    assert prepared == []


@pytest.mark.parametrize("text", [TALLIED, FIGURES])
def test_counts_of_others_are_not_read(store: SqliteStore, text: str) -> None:
    """What is known of one account is found by keys, however many accounts there are."""
    question = "EXPLAIN QUERY PLAN " + text.format(OF_ACCOUNT)
    steps = [step[-1] for step in store._connection.execute(question, (ENDPOINT, ACCOUNT))]
    assert len(steps) == 2
    assert all(re.match(r"SEARCH \w USING .*KEY|SEARCH a USING COVERING INDEX", step) for step in steps), (
        steps
    )
