"""What a batch on SQLite remembers beside the reports: numbers of accounts and their names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.core.model import Listing, Look, Prune, Sweep
from bridge.ledger import sqlite_batch
from bridge.ledger.port import Forget
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import LedgerTrouble
from tests.contract.test_ledger_store import ENDPOINT, GOOD, TAKEN, Backend, claim, one, record, task


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
        sizes.append(len(store._batch._ids))
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
    following = one(store, claim(task(8))).row
    assert following.seq == 1
    assert one(store, record(GOOD, TAKEN)).status == "lost"
    assert one(store, Look(task(8))) == following


def test_nothing_is_pruned_before_its_time(backend: Backend, store: SqliteStore) -> None:
    """While a clock may be wrong all history is kept, until the instant that was given."""
    store.transact([claim(), record(GOOD, TAKEN)])
    backend.clock.advance(2 * 86_400.0)
    before = Prune(backend.clock.wall)
    store._batch.pruned_from = backend.clock.now + 1.0
    assert one(store, before) == 0
    backend.clock.advance(1.0)
    assert one(store, before) == 1
    assert store.read(Listing(None)) == ((), None)
