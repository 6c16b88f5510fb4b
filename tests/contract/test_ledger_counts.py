"""What every store promises of counts: nothing twice, nothing lost, few rows, the same for every bridge."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from bridge.core.counting import (
    DAY_S,
    FINE_S,
    HOUR_S,
    KEPT_S,
    Consult,
    Counts,
    Figure,
    Learn,
    Note,
    Tallied,
    Tallies,
)
from bridge.core.model import REFUSED, Claim, Ending, Facts, Pauses, Settle, Sweep, Task, Window
from bridge.ledger import rows, sqlite_file
from bridge.ledger.port import Ask
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.translation import Accounts, View, see
from bridge.ledger.trouble import LedgerTrouble
from tests.contract.test_ledger_store import (
    ACCOUNT,
    CLOSED_WINDOW,
    ENDPOINT,
    GOOD,
    IMAGE,
    NO_DNS,
    SIXTEEN,
    TAKEN,
    AnyStore,
    Backend,
    backend,
    claim,
    one,
    record,
    shared,
    store,
    task,
)
from tests.ledgers import watch

__all__ = ["backend", "shared", "store"]
WHOSE = Task(ENDPOINT, ACCOUNT, 0)


def note(at: float, tasks: int = 1, subject: str = "image", whose: Task = WHOSE, cost: float = 0.0) -> Note:
    """Solved tasks of an account."""
    return Note(whose, subject, at, Counts(tasks=tasks, costed=int(cost > 0), cost=cost))


def read(store: AnyStore, account: str | None = ACCOUNT) -> tuple[Tallied, ...]:
    """What the store says."""
    found: tuple[Tallied, ...] = one(store, Tallies(ENDPOINT, account))
    return found


def total(store: AnyStore, width: int = HOUR_S, account: str = ACCOUNT) -> dict[str, Counts]:
    """All counts of one width of an account, by subject."""
    sums: dict[str, Any] = {}
    for known in read(store, account):
        for row in known.tallies:
            if row.width_s == width:
                sums[row.subject] = [
                    a + b for a, b in zip(sums.get(row.subject, Counts()), row.counts, strict=True)
                ]
    return {subject: Counts(*values) for subject, values in sums.items()}


def test_tasks_are_counted_by_account_subject_and_time(backend: Backend, store: AnyStore) -> None:
    """Notes of one stretch become one row of each width; others are kept apart."""
    now = backend.clock.now
    other = WHOSE._replace(account="b" * 32)
    store.transact([note(now, 3, cost=0.5), note(now, 4, "recaptcha"), note(now, 9, whose=other)])
    store.transact([note(now, 2, cost=0.25), note(now - HOUR_S, 1)])
    assert total(store) == total(store, FINE_S)
    assert total(store) == {"image": Counts(tasks=6, costed=2, cost=0.75), "recaptcha": Counts(tasks=4)}
    [known] = read(store)
    assert known.task == WHOSE
    assert {(row.subject, row.width_s) for row in known.tallies} == {
        (subject, width) for subject in ("image", "recaptcha") for width in KEPT_S
    }
    assert max(row.at for row in known.tallies if row.width_s == HOUR_S) == now // HOUR_S * HOUR_S
    assert total(store, account="b" * 32) == {"image": Counts(tasks=9)}
    assert read(store, "c" * 32) == ()


def test_the_end_of_a_report_is_counted_in_its_own_commit(backend: Backend, store: AnyStore) -> None:
    """Each way to end counts once: by an attempt, without one, and at once when claimed; a replay, a conflict
    and an attempt that is not the last do not count."""
    ends: list[list[Any]] = [
        [claim(task(1)), record(GOOD, TAKEN, task(1))],
        [claim(task(2), begin=False), Settle(task(2), CLOSED_WINDOW)],
        [claim(task(3), refusal=Ending("not_sent", -32012, "wrong_method"))],
        [claim(task(4)), record(NO_DNS, None, task(4)), Settle(task(4), CLOSED_WINDOW)],
        [claim(task(1)), claim(task(1), method="other"), record(GOOD, TAKEN, task(1))],
    ]
    for count, operations in zip((1, 2, 3, 4, 4), ends, strict=True):
        store.transact(operations)
        assert total(store)[IMAGE].sent == count
    assert total(store)[IMAGE] == Counts(sent=4, late=3)


def test_what_is_undone_is_not_counted(store: AnyStore) -> None:
    """An operation that fails takes the counts of its batch with it."""
    with pytest.raises((KeyError, AttributeError)):
        store.transact([note(4_000.0), object()])  # type: ignore[list-item]
    assert read(store) == ()
    store.transact([note(4_000.0)])
    assert total(store)["image"].tasks == 1


def test_bridges_count_together(shared: Backend) -> None:
    """What one counts another reads, also after both are gone."""
    first, second = shared.open(), shared.open()
    for one_of_two in (first, second, first):
        one_of_two.transact([note(shared.clock.now)])
    assert read(first) == read(second)
    assert total(second)["image"].tasks == 3
    first.close()
    second.close()
    assert total(shared.open())["image"].tasks == 3


def test_what_the_dead_left_is_counted_by_who_ends_it(shared: Backend) -> None:
    """A report that is ended in a sweep counts once."""
    first, second = shared.open(), shared.open()
    one(first, claim(window=Window(4_030.0, None)))
    shared.leave(first)
    shared.clock.advance(100.0)
    assert one(second, Sweep(ENDPOINT, frozenset())).settled
    assert total(second)[IMAGE] == Counts(sent=1)


def test_rows_stay_few(backend: Backend, store: AnyStore) -> None:
    """In two days of notes every second minute no more rows are kept than an hour and a day need."""
    for _ in range(2 * 720):
        backend.clock.advance(120.0)
        store.transact([note(backend.clock.now)])
    [known] = read(store)
    fine = [row for row in known.tallies if row.width_s == FINE_S]
    assert len(fine) <= 2 * HOUR_S / 120 + 1
    hours = sorted(row.at for row in known.tallies if row.width_s == HOUR_S)
    assert len(hours) in (25, 26, 27)
    assert hours[0] <= backend.clock.now - DAY_S


def test_counts_of_a_clock_that_was_ahead_go(backend: Backend, store: AnyStore) -> None:
    """Rows far in the future are dropped, so that they do not count when their time comes."""
    store.transact([note(backend.clock.now + 5 * DAY_S)])
    backend.clock.advance(HOUR_S)
    store.transact([note(backend.clock.now)])
    assert total(store)["image"].tasks == 1


def test_the_accounts_with_most_reports_come_first(backend: Backend, store: AnyStore) -> None:
    """Without a name the busiest accounts are told, as many as one may ask for at once."""
    claims: list[Any] = []
    for number in range(60):
        whose = Task(ENDPOINT, f"{number:032x}", 1)
        for task_id in (1, 2)[: 1 + (number >= 20)]:
            claims += [Claim(whose._replace(task_id=task_id), IMAGE, Window(5_000.0, None), Facts(), False)]
            claims += [Settle(whose._replace(task_id=task_id), CLOSED_WINDOW)]
    elsewhere = WHOSE._replace(endpoint="https://elsewhere.test")
    store.transact([*claims, Note(elsewhere, IMAGE, 4_000.0, Counts(sent=9))])
    found = read(store, None)
    assert len(found) == 50
    assert {known.task.endpoint for known in found} == {ENDPOINT}
    assert sum(int(known.task.account, 16) >= 20 for known in found) == 40


def test_one_bridge_at_a_time_asks_for_figures(shared: Backend) -> None:
    """The right to ask is given once in a while for each account, whatever bridge wants it."""
    first, second = shared.open(), shared.open()
    assert one(first, Consult(WHOSE, 3600.0)) is True
    assert one(second, Consult(WHOSE, 3600.0)) is False
    assert one(second, Consult(WHOSE._replace(account="b" * 32), 3600.0)) is True
    shared.clock.advance(3_600.0)
    assert [one(second, Consult(WHOSE, 3600.0)), one(first, Consult(WHOSE, 3600.0))] == [True, False]


def test_bridges_that_ask_at_the_same_moment_get_one_right(shared: Backend) -> None:
    """Also the very first time one of two transactions beside each other gets the right, the other none."""
    stores = [shared.open(), shared.open()]
    for number, each in enumerate(stores, 1):
        each.transact([claim(task(number)), record(GOOD, TAKEN, task(number))])
    found: list[Any] = []
    late = threading.Thread(target=lambda: found.append(one(stores[1], Consult(WHOSE, 3600.0))))

    def hold(statement: str) -> None:
        if statement.startswith("COMMIT") and not late.is_alive():
            late.start()
            late.join(0.3)

    watch(stores[0], hold)
    found.append(one(stores[0], Consult(WHOSE, 3600.0)))
    late.join()
    assert sorted(found) == [False, True]


def test_the_right_to_ask_is_not_given_beside_a_pause(shared: Backend) -> None:
    """A pause that another bridge has opened meanwhile counts; once nothing is paused the right is given."""
    first, second = shared.open(), shared.open()
    first.transact([claim(task(1)), record(SIXTEEN, Ending(REFUSED, 16, "no_such_captcha"), task(1))])
    assert one(second, Pauses(ENDPOINT)) != ()
    assert one(second, Consult(WHOSE, 3600.0)) is False


def test_figures_replace_older_ones_of_their_queue(store: AnyStore) -> None:
    """What the statistics told last holds, for each queue by itself."""
    store.transact([Learn(WHOSE, "A", (Figure("A", 100.0, 5), Figure("A", 3_700.0, 6)))])
    store.transact([Learn(WHOSE, "B", (Figure("B", 50.0, 1),)), Learn(WHOSE, "A", (Figure("A", 200.0, 7),))])
    [known] = read(store)
    assert set(known.figures) == {Figure("A", 200.0, 7), Figure("B", 50.0, 1)}


def test_counts_are_translated(backend: Backend, store: AnyStore) -> None:
    """Seen from a bridge with other names and another timeline, accounts and times are the bridge's own."""
    accounts = Accounts()
    accounts.settle(b"s" * 32, 0.0)
    name = accounts.name("some key of 16+ signs")
    view = see(store, accounts)
    assert isinstance(view, View)
    now = backend.clock.boot
    view.transact([note(now, 5, whose=WHOSE._replace(account=name)),
                   Learn(WHOSE._replace(account=name), "A", (Figure("A", now, 2),))])  # fmt: skip
    [known] = view.transact([Tallies(ENDPOINT, name)])[0]
    assert known.task.account == name
    assert known.figures == (Figure("A", now, 2),)
    assert {row.at for row in known.tallies if row.width_s == FINE_S} == {
        backend.clock.now // FINE_S * FINE_S - 3_000.0
    }
    assert view.transact([Tallies(ENDPOINT, None)])[0][0].task.account == name
    [inside] = read(store, None)
    assert {row.at for row in inside.tallies if row.width_s == FINE_S} == {
        backend.clock.now // FINE_S * FINE_S
    }
    assert inside.figures == (Figure("A", backend.clock.now, 2),)


# --- versions --------------------------------------------------------------------------------


def open_store(path: Path) -> SqliteStore:
    """Open a ledger as a bridge does."""
    made = Backend("sqlite", str(path))
    opened = made.open()
    assert isinstance(opened, SqliteStore)
    return opened


def make_version_1(path: Path) -> None:
    """A ledger as version 1 of the program made it, with one report."""
    path.touch(0o600)
    connection = sqlite_file.connect(str(path), 1.0, writable=True)
    connection.execute(rows.load("sqlite.sql"))
    connection.execute("INSERT INTO meta VALUES ('secret', ?)", (b"s" * 32,))
    connection.execute("INSERT INTO accounts VALUES (1, ?, ?)", (ENDPOINT, ACCOUNT))
    connection.execute(
        "INSERT INTO reports (account_id, task_id, method, state, outcome, attempts, sends, perhaps, code, "
        "kind, recorded_wall, finished_wall, finished_at) "
        "VALUES (1, 5, ?, 'done', 'accepted', 1, 1, 0, 0, 'accepted', 3990, 3990, 3990)",
        (IMAGE,),
    )
    connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_file_of_version_1_is_brought_on(tmp_path: Path) -> None:
    """A newer program on an older file keeps its reports and its secret, and counts from now on."""
    make_version_1(tmp_path / "ledger")
    opened = open_store(tmp_path / "ledger")
    assert (opened.trouble, opened.secret) == (None, b"s" * 32)
    assert opened._connection.pragma("user_version") == sqlite_file.VERSION
    assert one(opened, claim(task(5))).status == "known"
    assert read(opened) == ()
    opened.transact([claim(task(6)), record(GOOD, TAKEN, task(6))])
    assert total(opened)[IMAGE].sent == 1
    opened.close()


def test_a_program_of_version_1_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older program on a newer file reads it, writes nothing, and says that a newer version is needed."""
    opened = open_store(tmp_path / "ledger")
    opened.transact([claim(task(6)), record(GOOD, TAKEN, task(6))])
    opened.close()
    monkeypatch.setattr(sqlite_file, "MIGRATIONS", ("sqlite.sql",))
    monkeypatch.setattr(sqlite_file, "VERSION", 1)
    older = open_store(tmp_path / "ledger")
    assert older.trouble is not None
    assert older.trouble.kind == "newer"
    assert "newer" in older.trouble.sentence
    with pytest.raises(LedgerTrouble, match="newer"):
        older.transact([claim(task(7))])
    assert one(older, Ask(task(6), IMAGE)).row is not None
    older.close()


def test_refusals_count_like_any_end(store: AnyStore) -> None:
    """A report that ended refused is among those that were sent."""
    store.transact([claim(), record(GOOD, Ending(REFUSED, 16, "no_such_captcha"))])
    assert total(store)[IMAGE] == Counts(sent=1)
