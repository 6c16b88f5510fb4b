"""What a batch of operations knows, decides by the clocks, and remembers for the next batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge.core.counting import HOUR_S, Counts
from bridge.core.model import (
    CLOSED,
    DONE,
    GUARD_S,
    NOT_SENT,
    OPEN,
    PROBING,
    WAITING,
    Ending,
    Facts,
    Look,
    PauseKey,
    Pauses,
    PauseState,
    Row,
    Window,
)
from bridge.ledger import sqlite_file
from bridge.ledger import work as module
from bridge.ledger.port import Ask, Story, Teach
from bridge.ledger.rows import to_row
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.transactions import merge_facts
from bridge.ledger.transfer import is_stricter
from bridge.ledger.trouble import LedgerTrouble
from bridge.ledger.work import Entry, UnitOfWork
from tests.contract.test_ledger_store import (
    ACCOUNT,
    ENDPOINT,
    IMAGE,
    NO_DNS,
    RESET,
    SIXTEEN,
    WINDOW,
    Backend,
    Policy,
    claim,
    one,
    record,
    task,
)
from tests.ledgers import watch

NOW, WALL = 5_000.0, 9_000.0
OTHER_BOOT = "f" * 24


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    """A ledger in memory."""
    backend = Backend("memory", None)
    opened = backend.open()
    assert isinstance(opened, SqliteStore)
    yield opened
    backend.close()


@pytest.fixture
def work(store: SqliteStore) -> UnitOfWork:
    """A unit of work at a moment that a test may move."""
    store.now, store.wall = NOW, WALL
    return store


def make_row(window: Window = WINDOW, owner: str | None = None, age_s: float = 0.0, attempts: int = 1) -> Row:
    """A report that was left, recorded so many seconds ago by the wall clock."""
    columns = (1, 1, 7, IMAGE, WAITING, None, owner, attempts, 0, False, *window, *Facts(), None, None, None)
    return to_row([*columns, WALL - age_s, None, None], ENDPOINT, ACCOUNT)


# --- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until_s", "since_s", "is_trusted"),
    [
        (62.0, None, True),
        (62.5, None, False),
        (62.5, -1.0, False),
        (None, 2.0, True),
        (None, 2.5, False),
        (62.0, 2.5, False),
        (None, -900.0, True),
    ],
)
@pytest.mark.parametrize("is_other_boot", [False, True])
def test_a_window_of_the_future_is_over(
    work: UnitOfWork, until_s: float | None, since_s: float | None, is_trusted: bool, is_other_boot: bool
) -> None:
    """What no request up to now can have opened, give or take two seconds, was written by a wrong clock."""
    window = Window(until_s and NOW + until_s, since_s and NOW + since_s)
    left = make_row(window, OTHER_BOOT if is_other_boot else work.instance)
    assert work.window_of(left) == (window if is_trusted else Window(NOW, window.since))


@pytest.mark.parametrize(
    ("age_s", "is_trusted"), [(-0.5, False), (0.0, True), (0.5, True), (60.0, True), (60.5, False)]
)
def test_a_window_of_another_boot_is_over_by_the_wall_clock_too(
    work: UnitOfWork, age_s: float, is_trusted: bool
) -> None:
    """A minute after it was recorded nothing is sent; within a boot and of what is done one clock counts."""
    sibling = work.instance[:8] + "f" * 16
    for owner, is_kept in ((OTHER_BOOT, is_trusted), (sibling, True), (None, True)):
        kept = work.window_of(make_row(Window(NOW + 30.0, None), owner, age_s))
        assert kept == Window(NOW + 30.0 if is_kept else NOW, None), owner


def test_another_attempt_is_late_sooner_than_the_first(work: UnitOfWork) -> None:
    """Whether an attempt would be the first is told to the policy, which has a limit for each."""

    class Impatient(Policy):
        def is_late(self, now: float, window: Window, retrying: bool) -> bool:
            return retrying

    work.policy = Impatient()
    assert [work.is_late(make_row(attempts=attempts)) for attempts in (0, 1, 2)] == [False, True, True]


def make_done(by_timeline_s: float, by_wall_s: float) -> Entry:
    """A report that was finished so many seconds ago."""
    row = make_row()._replace(state=DONE, outcome=NOT_SENT, finished_wall=WALL - by_wall_s)
    return Entry(row, 1, NOW - by_timeline_s, 2, row)


@pytest.mark.parametrize(
    ("by_timeline_s", "by_wall_s", "is_guarded"),
    [
        (GUARD_S, GUARD_S, True),
        (GUARD_S + 0.5, GUARD_S + 0.5, False),
        (GUARD_S + 0.5, GUARD_S, True),
        (GUARD_S, GUARD_S + 0.5, True),
        (0.0, GUARD_S + 0.5, True),
        (GUARD_S + 0.5, 0.5, True),
        (-0.5, GUARD_S + 0.5, False),
        (GUARD_S + 0.5, -0.5, False),
        (-0.5, GUARD_S, True),
    ],
)
def test_a_task_is_guarded_for_a_day(
    work: UnitOfWork, by_timeline_s: float, by_wall_s: float, is_guarded: bool
) -> None:
    """A day must have passed by each clock that was not set back."""
    assert work.guards(make_done(by_timeline_s, by_wall_s)) is is_guarded
    assert not work.changed


def test_a_task_that_ends_in_the_future_is_guarded_from_now_on(work: UnitOfWork) -> None:
    """If both clocks were set back the day begins again, once; when the report ended stays as it was told."""
    entry = make_done(-9e6, -9e6)
    assert work.guards(entry)
    assert (entry.finished_at, entry.row.finished_wall) == (NOW, WALL + 9e6)
    assert list(work.changed.values()) == [entry]
    work.now, work.wall = NOW + GUARD_S, WALL + GUARD_S
    assert work.guards(entry)
    work.now, work.wall = work.now + 0.5, work.wall + 0.5
    assert not work.guards(entry)


# --- facts and pauses ------------------------------------------------------------------------

OLD = Facts(100.0, "ImageToTextTask", "en", 5.0)


@pytest.mark.parametrize(
    ("new", "merged"),
    [
        (Facts(), OLD),
        (Facts(200.0, None, None, 7.0), Facts(200.0, "ImageToTextTask", "en", 7.0)),
        (Facts(None, "RecaptchaV2Task", None, 9.0), Facts(100.0, "RecaptchaV2Task", "en", 5.0)),
        (Facts(None, None, "rn", None), Facts(100.0, "ImageToTextTask", "rn", 5.0)),
    ],
)
def test_facts_complete_each_other(new: Facts, merged: Facts) -> None:
    """The newest request is believed, earlier ones say what it leaves out; time and age stay together."""
    assert merge_facts(OLD, new) == merged


def pause(state: str, ends_at: float | None = None) -> PauseState:
    """A pause that ends then; None: never by itself."""
    return PauseState(PauseKey("account", ACCOUNT), state, ends_at=ends_at)


@pytest.mark.parametrize(
    ("known", "other", "is_more"),
    [
        (pause(OPEN, 5.0), None, True),
        (pause(OPEN, 5.0), pause(CLOSED), True),
        (pause(OPEN, 6.0), pause(OPEN, 5.0), True),
        (pause(OPEN, 5.0), pause(OPEN, 5.0), False),
        (pause(OPEN, 5.0), pause(PROBING, 6.0), False),
        (pause(OPEN), pause(OPEN, 5.0), True),
        (pause(OPEN, 5.0), pause(OPEN), False),
        (pause(CLOSED), None, False),
        (pause(CLOSED), pause(CLOSED), False),
        (pause(CLOSED), pause(OPEN, 5.0), False),
    ],
)
def test_of_two_pauses_the_later_end_is_stricter(
    known: PauseState, other: PauseState | None, is_more: bool
) -> None:
    """One that only a person ends is stricter than any, and a closed one than none."""
    assert is_stricter(known, other) is is_more


def test_only_pauses_that_concern_an_attempt_are_told_and_released(store: SqliteStore) -> None:
    """What another rule says about the same subject, and whose probe that is, is left alone."""
    store.is_alive = lambda instance: instance == store.instance
    ours, other = (
        PauseState(PauseKey(rule, ACCOUNT), PROBING, ends_at=9e9, probe_owner="dead", probe_task="x/1")
        for rule in ("account", "other")
    )
    one(store, Teach(ENDPOINT, ((None, ours), (None, other))))
    assert [(state.key, state.state) for state in one(store, Ask(task(), IMAGE)).pauses] == [(ours.key, OPEN)]
    assert one(store, claim()).gate.status == "begun"
    probing = {state.key: state.probe_owner for state in one(store, Pauses(ENDPOINT))}
    assert probing == {ours.key: store.instance, other.key: "dead"}


@pytest.mark.parametrize(
    ("number", "state", "is_released"), [(7, PROBING, True), (8, PROBING, False), (7, OPEN, False)]
)
def test_a_report_releases_what_it_probes_and_nothing_else(
    work: UnitOfWork, number: int, state: str, is_released: bool
) -> None:
    """The end of a report without an attempt changes no pause that another report probes, or nobody."""
    kept = pause(state, 9e9)._replace(probe_owner=work.instance, probe_task=f"{ACCOUNT}/{number}")
    work.save(ENDPOINT, [kept])
    row = make_row(owner=work.instance)
    work.release_probes(row.task, row.owner, row.method)
    after = work.pauses_of(ENDPOINT, ACCOUNT)[kept.key]
    assert after == (work.policy.release(NOW, kept) if is_released else kept)


# --- what is read, and remembered ------------------------------------------------------------


def count_reads(store: SqliteStore, operations: Sequence[Any]) -> tuple[int, int]:
    """How many statements of a batch look for reports, and for pauses."""
    statements: list[str] = []
    watch(store, statements.append)
    store.transact(operations)
    reports, pauses = (
        sum(mark in text for text in statements) for mark in ("FROM reports WHERE", "JOIN pauses")
    )
    return reports, pauses


def test_a_batch_reads_at_once(store: SqliteStore) -> None:
    """However many tasks it claims: their reports in one statement, pauses in one if any is to begin."""
    assert count_reads(store, [claim(task(n)) for n in range(1, 9)])[1] == 1
    one(store, record(RESET, None, task(1)))
    assert count_reads(store, [claim(task(n), begin=False) for n in range(11, 19)]) == (1, 0)


def test_pauses_are_read_again_once_somebody_else_has_written(tmp_path: Path) -> None:
    """What is known of them holds as long as nobody else commits anything."""
    shared = Backend("sqlite", str(tmp_path / "ledger.db"))
    first, second = shared.open(), shared.open()
    assert isinstance(first, SqliteStore)
    assert [count_reads(first, [claim(task(n))])[1] for n in (11, 12)] == [1, 0]
    one(second, claim(task(13)))
    assert [count_reads(first, [claim(task(n))])[1] for n in (14, 15)] == [1, 0]
    one(second, record(SIXTEEN, None, task(13)))
    assert one(first, claim(task(16))).gate.status == "paused"
    shared.close()


def test_pauses_of_a_commit_that_was_undone_hold_nobody_back(store: SqliteStore) -> None:
    """What a batch has learnt counts once it is committed, and not before."""
    one(store, claim())
    with pytest.raises(LedgerTrouble):
        store.transact([record(SIXTEEN, None), claim(task(8)), claim(task(2**53))])
    assert one(store, claim(task(9))).gate.status == "begun"


def test_what_cannot_be_understood_keeps_no_lock(tmp_path: Path) -> None:
    """Somebody has spoiled a pause: what meets it fails, and others can still write to the last page."""
    shared = Backend("sqlite", str(tmp_path / "ledger.db"))
    store = shared.open()
    one(store, claim())
    with closing(sqlite_file.connect(shared.path, 1.0, writable=True)) as raw:
        spoiled = "INSERT INTO pauses VALUES (?, ?, ?, 'open', 'x', 0, 'no JSON', 0, 1, 2, NULL, NULL, '')"
        for rule in "abc":
            raw.execute(spoiled, (ENDPOINT, ACCOUNT, rule))
        with pytest.raises(ValueError, match="Expecting"):
            one(store, claim(task(8)))
        assert raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
    shared.close()


def test_a_report_is_read_as_it_is_remembered(store: SqliteStore) -> None:
    """Both say what the store has, which the next write demands, down to the number of the last event."""
    store.transact([claim(task(8, "b" * 32)), claim(task(9)), claim()])
    remembered = store._own[task()]
    assert one(store, Look(task())) == remembered.row == remembered.read
    read = store.entries[task()]
    for name in Entry.__slots__:
        assert getattr(read, name) == getattr(remembered, name), name
    assert remembered.was == len(one(store, Story(remembered.row.seq))) == 2


def test_our_own_reports_are_remembered_but_not_too_many(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way here is not read again, until there is more of it than fits."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    for number in (1, 2, 3):
        one(store, claim(task(number)))
    assert count_reads(store, [record(RESET, None, task(number)) for number in (1, 2, 3)])[0] == 0
    one(store, claim(task(4)))
    assert count_reads(store, [record(RESET, None, task(4))])[0] == 0
    assert count_reads(store, [record(RESET, None, task(1))])[0] == 1


def test_what_has_ended_here_is_told_as_others_left_it(tmp_path: Path) -> None:
    """A report is not remembered once it has ended: another bridge may have tried it again."""
    shared = Backend("sqlite", str(tmp_path / "ledger.db"))
    first, second = shared.open(), shared.open()
    one(first, claim(window=WINDOW))
    assert one(first, record(NO_DNS, Ending(NOT_SENT, -32001, "upstream_unreachable"))).status == "ok"
    assert one(second, claim(window=WINDOW)).status == "again"
    told = one(first, record(RESET, None))
    assert (told.status, told.row.owner) == ("lost", second.instance)
    shared.close()


def test_pauses_are_remembered_but_not_too_many(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was last read or written of them is there for who stands in for this store; the oldest go."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 3)
    accounts = [letter * 32 for letter in "bcd"]
    for account in accounts[:2]:
        one(store, claim(task(1, account)))
    one(store, record(SIXTEEN, None, task(1, accounts[1])))
    assert set(store.seen) == {(ENDPOINT, subject) for subject in (*accounts[:2], IMAGE)}
    [known] = store.seen[ENDPOINT, accounts[1]].values()
    assert known.state == OPEN
    one(store, claim(task(2, accounts[0])))
    one(store, claim(task(1, accounts[2])))
    assert set(store.seen) == {(ENDPOINT, subject) for subject in (*accounts[1:], IMAGE)}
    one(store, claim(task(3, accounts[0])))
    assert (ENDPOINT, accounts[0]) in store.seen


def test_an_account_begins_each_hour_of_counts_once(
    work: UnitOfWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old counts are looked for when an hour begins, or when there are too many accounts to remember."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    numbers = [work.account_id(task(1, letter * 32)) for letter in "bcd"]

    def count(letter: str) -> None:
        work.count(work.account_id(task(1, letter * 32)), "image", work.now, Counts(tasks=1))

    def begun() -> list[int]:
        return [values[1] for _, values in work.drop_aged() if values[0] == HOUR_S]

    count("b")
    count("c")
    assert [begun() for _ in range(3)] == [numbers[:2], [], []]
    work.now += HOUR_S
    assert begun() == numbers[:2]
    count("d")
    assert [begun() for _ in range(3)] == [numbers[2:], [], numbers]
