"""What only a ledger on a server promises: round trips, races, migrations, trouble, clocks and secrets."""

from __future__ import annotations

import functools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli import main
from bridge.core.model import (
    ACCEPTED,
    Claim,
    Ending,
    Facts,
    Listing,
    Look,
    Pauses,
    Prune,
    Record,
    Sweep,
    Task,
    Verdict,
    Window,
)
from bridge.core.redact import Secret
from bridge.ledger import postgres_batch, postgres_schema, postgres_trouble
from bridge.ledger.port import Ask, Story
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.postgres_link import Link, connect
from bridge.ledger.postgres_schema import QUERIES, Migration
from bridge.ledger.reading import STEP, copy, open_reader
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import SENTENCES, LedgerTrouble
from bridge.reports.pauses import PausePolicy
from tests.fleet import Ledger, Relay
from tests.pgserver import PASSWORD, PgServer
from tests.process import ROOT

ACCOUNT = "a" * 32
ENDPOINT = "https://upstream.test"
GOOD = Verdict(ACCEPTED, 0, "accepted", "accepted", "done", False, True, True, True)
WRONG_KEY = Verdict(
    "refused", 1, "key_refused", "key_does_not_exist", "done", False, True, True, True, "key_refused"
)
TAKEN = Ending(ACCEPTED, 0, "accepted")
Open = Callable[..., PostgresStore]


@pytest.fixture
def ledger(pg_server: PgServer) -> Ledger:
    """The empty ledger of this test."""
    return Ledger(pg_server)


@pytest.fixture
def open_store(ledger: Ledger) -> Iterator[Open]:
    """Open stores on the ledger of this test; they are closed with it."""
    stores: list[PostgresStore] = []

    def open_one(url: str | None = None, policy: PausePolicy | None = None, **options: Any) -> PostgresStore:
        options = {"wall_clock": time.time, "boot_clock": time.monotonic, **options}
        url = url or ledger.server.url(ledger.database)
        store = PostgresStore(url, policy=policy or PausePolicy("m"), **options)
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


def claim(number: int = 1, account: str = ACCOUNT, begin: bool = True) -> Claim:
    """A claim as the service makes it."""
    task = Task(ENDPOINT, account, number)
    return Claim(task, "reportIncorrectImageCaptcha", Window(time.time() + 60, None), Facts(), begin)


def record(number: int, verdict: Verdict = GOOD, ending: Ending = TAKEN) -> Record:
    """The end of an attempt as the service tells it."""
    return Record(Task(ENDPOINT, ACCOUNT, number), verdict, time.time(), 12, ending)


def trouble_of(call: Callable[[], Any]) -> LedgerTrouble:
    """The trouble that a call meets."""
    with pytest.raises(LedgerTrouble) as caught:
        call()
    return caught.value


# --- batches ---------------------------------------------------------------------------------


def _claim_five(
    stores: list[PostgresStore], account: str, begun: list[int], start: threading.Barrier, index: int
) -> None:
    start.wait()
    for number in range(5):
        answer = stores[index].transact([claim(100 * index + number + 1, account)])[0]
        if answer.gate.status == "begun":
            begun.append(index)


@pytest.mark.parametrize("size", [1, 64])
def test_batch_costs_two_round_trips(open_store: Open, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Beginning and recording cost the same however many reports there are, all rules considered."""
    store = open_store()
    store.transact([claim(1), record(1)])
    numbers = range(2, size + 2)
    trips: list[Any] = []
    run = store.link.run

    def count(*given: Any) -> Any:
        trips.append(given)
        return run(*given)

    monkeypatch.setattr(store.link, "run", count)
    begun = store.transact([claim(number) for number in numbers])
    assert {answer.gate.status for answer in begun} == {"begun"}
    store.transact([record(number) for number in numbers])
    assert len(trips) == 4


def test_a_dropped_session_is_made_anew_to_read(ledger: Ledger, open_store: Open) -> None:
    """Whoever only looks after a restart of the server gets an answer, not a fault."""
    store = open_store()
    store.transact([claim(1), record(1)])
    ledger.server.drop_connections(ledger.database)
    row = store.transact([Look(claim(1).task)])[0]
    assert row is not None
    ledger.server.drop_connections(ledger.database)
    assert store.transact([Ask(row.task, None)])[0].row == row


def test_wrong_key_is_tried_by_one(open_store: Open) -> None:
    """Of eight stores that begin at once for an unproven key, one may send, again and again."""
    stores = [open_store() for _ in range(8)]
    for _ in range(5):
        account = f"{time.time_ns():032x}"
        begun: list[int] = []
        start = threading.Barrier(len(stores))
        run = functools.partial(_claim_five, stores, account, begun, start)
        threads = [threading.Thread(target=run, args=(index,)) for index in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(begun) == 1


def test_same_tasks_in_opposite_order_do_not_stand_in_each_others_way(open_store: Open) -> None:
    """Two bridges that claim the same tasks in batches each get what the other did not."""
    stores = [open_store(policy=PausePolicy("m", enabled=False)) for _ in range(2)]
    won: list[set[int]] = [set(), set()]

    def run(index: int) -> None:
        for first in range(1, 200, 20):
            numbers = list(range(first, first + 20))
            answers = stores[index].transact([claim(n) for n in (numbers, numbers[::-1])[index]])
            won[index] |= {a.row.task.task_id for a in answers if a.status == "new"}

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*won[0], *won[1]]) == list(range(1, 201))


# --- life and death --------------------------------------------------------------------------


def test_neighbour_without_a_session_is_given_a_moment(
    open_store: Open, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is free counts only after it has stayed free for a while, in one session of ours."""
    now = 0.0
    monkeypatch.setattr(postgres_batch, "monotonic", lambda: now)
    store = open_store()
    other = open_store()
    assert store.is_alive(other.instance)
    other.close()
    assert store.is_alive(other.instance)
    now = 1.9
    assert store.is_alive(other.instance)
    other = open_store(instance=other.instance)
    assert store.is_alive(other.instance)
    other.close()
    now = 3.0
    assert store.is_alive(other.instance), "it was back meanwhile"
    now = 5.0
    assert not store.is_alive(other.instance)
    ledger.server.drop_connections(ledger.database)
    assert store.is_alive(other.instance), "its session may have broken with ours"
    now = 7.0
    assert not store.is_alive(other.instance)


def test_lost_session_comes_back_under_the_same_name(open_store: Open, ledger: Ledger) -> None:
    """When the server ends a session the next operation hardly notices, and the rows are still ours."""
    store, other = open_store(), open_store()
    row = store.transact([claim()])[0].row
    assert ledger.server.drop_connections(ledger.database) == 2
    assert store.transact([record(1)])[0].row.outcome == ACCEPTED
    assert row.owner == store.instance
    assert other.transact([Sweep(ENDPOINT, frozenset({ACCOUNT}))])[0] == ((), ())


def test_session_that_hangs_on_the_server_is_replaced(open_store: Open, ledger: Ledger) -> None:
    """A new session takes the name from the old one, which the server has not missed yet."""
    with Relay(ledger.server.port) as relay:
        url = ledger.server.url(ledger.database, tcp=True, port=relay.port)
        first = open_store(url, password=Secret(PASSWORD))
        first.transact([claim(begin=False)])
        relay.freeze()
        second = open_store(instance=first.instance)
        assert second.transact([Look(claim().task)])[0].owner == second.instance
        assert second.transact([claim()])[0].status == "elsewhere", "it is our own"


def test_idle_bridge_stays_alive(open_store: Open) -> None:
    """A bridge with nothing to do keeps its session, though the server ends silent ones."""
    store = open_store()
    pid = store.link.pid
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        time.sleep(store.tend() or 0.0)
    store.transact([claim()])
    assert store.link.pid == pid


# --- trouble ---------------------------------------------------------------------------------


def test_every_refusal_has_a_kind_and_a_sentence() -> None:
    """Whatever SQLSTATE comes, the trouble is one that the journal knows."""
    states = [f"{a}{b}000" for a in "0123456789FHPX" for b in "0123456789ABCFPVWX"]
    for state in [*states, "", "57P01", "53100", "25006", "42501", "XX001"]:
        trouble = postgres_trouble.explain(state)
        assert trouble.kind in SENTENCES
        assert trouble.sentence.endswith(".")


def test_lock_of_a_stranger_is_waited_for_two_seconds(open_store: Open, ledger: Ledger) -> None:
    """A table that somebody else has locked makes the ledger locked, and not the bridge."""
    store = open_store()
    store.transact([claim(1), record(1)])
    blocker = connect(ledger.server.url(ledger.database, role="postgres"), None)
    try:
        blocker.run([("BEGIN", []), ("LOCK TABLE report_bridge.reports", [])])
        started_at = time.monotonic()
        assert trouble_of(lambda: store.transact([claim(2)])).kind == "locked"
        assert 1.5 < time.monotonic() - started_at < 10
    finally:
        blocker.close()
    assert store.transact([claim(2)])[0].status == "new"


def test_server_that_takes_no_writes_is_still_read(open_store: Open, ledger: Ledger) -> None:
    """A read-only server is opened with the reason, answers questions, and refuses the rest."""
    open_store().transact([claim(1), record(1)])
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET default_transaction_read_only = on")
    store = open_store()
    assert store.trouble is not None
    assert store.trouble.kind == "readonly"
    assert store.transact([Look(claim(1).task)])[0].outcome == ACCEPTED
    known = store.transact([Ask(claim(1).task, None)])[0].row
    assert known is not None
    assert known.outcome == ACCEPTED
    ledger.server.sql(f"ALTER DATABASE {ledger.database} RESET default_transaction_read_only")


def test_a_bridge_whose_session_is_read_only_lives(open_store: Open, ledger: Ledger) -> None:
    """Its rows stay its own: neighbours that may still write do not take over what it has begun."""
    mine, theirs = open_store(), open_store()
    mine.transact([claim(1)])
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET default_transaction_read_only = on")
    ledger.server.sql(f"SELECT pg_terminate_backend({mine.link.pid})")
    assert trouble_of(lambda: mine.transact([claim(2)])).kind == "readonly"
    assert mine.transact([Look(claim(1).task)])[0].state == "sending"
    theirs.grace_s = 0.0
    assert theirs.is_alive(mine.instance)
    ledger.server.sql(f"ALTER DATABASE {ledger.database} RESET default_transaction_read_only")


def test_who_looks_at_a_lock_is_not_taken_for_its_former_holder(open_store: Open, ledger: Ledger) -> None:
    """A bridge that comes back ends a session of its own that hangs, and no neighbour's."""
    mine, theirs = open_store(), open_store()
    name = [mine.instance]
    mine.link.run([(QUERIES["let_go"], name)])
    theirs.link.run([(QUERIES["begin_reading"], []), (QUERIES["is_free"], name)])
    assert mine.link.run([(QUERIES["end_former_session"], name)]) == [[(0,)]]
    theirs.link.run([(QUERIES["roll_back"], [])])


def test_a_database_of_another_encoding_is_refused(open_store: Open, ledger: Ledger) -> None:
    """Not every text fits into it, and one that does not would take the ledger out of use."""
    name = f"{ledger.database}_latin"
    made = f"CREATE DATABASE {name} OWNER bridge ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    ledger.server.sql(made)
    refused = trouble_of(lambda: open_store(ledger.server.url(name)))
    assert (refused.kind, "UTF-8" in refused.sentence) == ("foreign", True)


@given(st.text(st.sampled_from('a\\u0"\0\n\u20ac'), max_size=12))
def test_every_text_is_json_that_the_server_takes(text: str) -> None:
    """A zero character becomes a blank; six characters that look like one stay as they are."""
    assert json.loads(postgres_schema.dump([text])) == [text.replace("\0", " ")]


def test_role_without_privileges_is_told_so(open_store: Open, ledger: Ledger) -> None:
    """A role that may not make tables, or not write, meets a sentence and not a crash."""
    server = ledger.server
    server.sql("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN")
    url = server.url(ledger.database, role="guest")
    assert "ledger migrate" in trouble_of(lambda: open_store(url)).sentence
    open_store().close()
    page = (ROOT / "docs" / "fleet.md").read_text()
    grants = [line.strip().replace("bridge;", "guest;") for line in page.splitlines() if "    GRANT" in line]
    assert len(grants) == 3
    allow = functools.partial(server.sql, database=ledger.database)
    allow(grants[0], grants[1].replace("SELECT, INSERT, UPDATE, DELETE", "SELECT"))
    guest = open_store(url)
    assert guest.transact([Listing(None)])[0] == ((), None)
    assert trouble_of(lambda: guest.transact([claim()])).kind == "readonly"
    allow(*grants)
    assert guest.transact([claim()])[0].status == "new", "what the fleet page says is enough"
    guest.close()


def test_server_that_hangs_is_given_up(ledger: Ledger, open_store: Open) -> None:
    """A server that takes bytes and answers nothing holds nobody for long."""
    store = open_store()
    store.transact([claim(1)])
    ledger.server.pause()
    try:
        started_at = time.monotonic()
        assert trouble_of(lambda: store.transact([claim(2)])).kind == "unreadable"
        assert time.monotonic() - started_at < 15
        started_at = time.monotonic()
        assert trouble_of(lambda: store.transact([Listing(None)])[0]).kind == "unreadable"
        assert time.monotonic() - started_at < 5
    finally:
        ledger.server.go_on()


def test_pooler_in_transaction_mode_is_noticed(open_store: Open) -> None:
    """Without the session that holds our lock nothing is written."""
    store = open_store()
    store.link.pid += 1
    assert "session mode" in trouble_of(lambda: store.transact([claim()])).sentence


def test_other_ledger_at_the_same_address_is_noticed(open_store: Open, ledger: Ledger) -> None:
    """A database that was dropped and made again is not taken for the one that we had."""
    store = open_store()
    ledger.select("UPDATE meta SET value = decode(repeat('ab', 32), 'hex') WHERE name = 'secret'")
    ledger.server.drop_connections(ledger.database)
    assert trouble_of(lambda: store.transact([claim()])).kind == "replaced"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:{secret}@127.0.0.1:1/x",
        "postgresql://bridge:{secret}@127.0.0.1:1/x?nonsense=1",
        "postgresql://bridge:{secret}@[::bad/x",
        "postgresql://bridge:{secret}@127.0.0.1:{port}/nowhere",
        "postgresql://bridge:{secret}@no-such-host.invalid/x",
        "postgresql://bridge:{secret}@127.0.0.1:{port}/postgres?sslmode=require",
    ],
)
def test_no_address_gets_into_an_error(pg_server: PgServer, url: str) -> None:
    """What cannot be connected to is told in our own words, without password, user or host."""
    address = url.format(secret="canary-5ecret", port=pg_server.port)
    trouble = trouble_of(lambda: connect(address, None))
    shown = f"{trouble.sentence} {trouble!r} {trouble.__cause__!r}"
    assert "canary" not in shown
    assert "127.0.0.1" not in shown
    assert trouble.__suppress_context__


# --- time ------------------------------------------------------------------------------------


def test_wrong_clock_harms_nobody(open_store: Open) -> None:
    """A host ten years ahead writes the server's time, and prunes by it."""
    ahead_s = 10 * 365 * 86_400.0
    honest, wrong = open_store(), open_store(wall_clock=lambda: time.time() + ahead_s)
    honest.transact([claim(1), record(1)])
    row = wrong.transact([claim(2)])[0].row
    assert abs(row.recorded_wall - time.time()) < 60
    assert wrong.transact([Prune(time.time() + ahead_s - 90 * 86_400.0)])[0] == 0
    assert abs(wrong.clock_offset_s + time.monotonic() - time.time()) < 60


# --- migrations ------------------------------------------------------------------------------


def test_ten_bridges_of_two_versions_start_at_once(
    open_store: Open, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many make or change the ledger together, each script runs once and nobody fails."""
    troubles: list[BaseException] = []

    def start_ten() -> None:
        def run() -> None:
            try:
                open_store().transact([Look(claim().task)])
            except BaseException as error:
                troubles.append(error)

        threads = [threading.Thread(target=run) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    start_ten()
    before = open_store()
    monkeypatch.setattr(postgres_schema, "load", lambda name: "CREATE TABLE extra (x integer);\n")
    monkeypatch.setattr(
        postgres_schema, "MIGRATIONS", (*postgres_schema.MIGRATIONS, Migration("three.sql", 1))
    )
    monkeypatch.setattr(postgres_schema, "VERSION", 3)
    monkeypatch.setattr("bridge.ledger.postgres.VERSION", 3)
    start_ten()
    assert troubles == []
    assert ledger.select("SELECT version FROM versions ORDER BY version") == [["1"], ["2"], ["3"]]
    assert before.transact([claim()])[0].status == "new", "the older version goes on"


def test_a_ledger_of_version_1_is_brought_on_and_older_bridges_go_on(
    open_store: Open, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting begins with the newer version; who could only read reports can only read counts."""
    server = ledger.server
    server.sql("DROP ROLE IF EXISTS onlooker", "CREATE ROLE onlooker LOGIN")
    with monkeypatch.context() as older:
        older.setattr(postgres_schema, "MIGRATIONS", postgres_schema.MIGRATIONS[:1])
        open_store().transact([claim(1)])
    allow = functools.partial(server.sql, database=ledger.database)
    allow(
        "GRANT USAGE ON SCHEMA report_bridge TO onlooker", "GRANT SELECT ON report_bridge.reports TO onlooker"
    )
    assert ledger.select("SELECT version FROM versions") == [["1"]]
    with closing(open_reader(server.url(ledger.database), 0.0, 0.0)) as reader:
        assert (reader.check(), reader.tallied()) == ((), ()), "it has no tables of counts"
    store = open_store()
    assert ledger.select("SELECT version, oldest_writer FROM versions ORDER BY 1") == [["1", "1"], ["2", "1"]]
    store.transact([claim(2), record(2)])
    assert ledger.select("SELECT sum(sent) FROM tallies WHERE width_s = 3600") == [["1"]]
    may = "SELECT has_table_privilege('onlooker', 'tallies', p) FROM unnest(ARRAY['SELECT', 'INSERT']) AS p"
    assert ledger.select(may) == [["t"], ["f"]]


def test_ledger_of_a_newer_version_is_read_only(open_store: Open, ledger: Ledger) -> None:
    """What a newer version has changed for good is read, also by those who were there before."""
    before = open_store()
    before.transact([claim(1), record(1)])
    ledger.select("INSERT INTO versions VALUES (3, 3)")
    store = open_store()
    assert store.trouble is not None
    assert store.trouble.kind == "newer"
    assert store.transact([Look(claim(1).task)])[0].outcome == ACCEPTED
    assert trouble_of(lambda: store.transact([claim(2)])).kind == "newer"
    until = time.monotonic() + 20
    while not before.is_newer:
        assert time.monotonic() < until
        time.sleep(before.tend() or 0.05)


def test_strange_schema_is_left_alone(open_store: Open, ledger: Ledger) -> None:
    """A schema of our name that is not ours is not touched."""
    ledger.server.sql(
        "CREATE SCHEMA report_bridge", "CREATE TABLE report_bridge.x (y int)", database=ledger.database
    )
    ledger.server.sql("GRANT USAGE ON SCHEMA report_bridge TO bridge", database=ledger.database)
    assert trouble_of(open_store).kind == "foreign"


def test_values_come_back_as_they_went(ledger: Ledger) -> None:
    """Whatever is in a text or a list, the server has the same."""
    assert all(QUERIES.values())
    values = [
        ['a"b\\c', "d,e", "{}", "NULL", "", "é", "' \n"],
        [],
        [1, -(2**40)],
        [],
        0.1,
        float("-inf"),
        None,
    ]
    kinds = ("text[]", "text[]", "bigint[]", "bigint[]", "float8", "float8", "text")
    marks = ", ".join(f"${n}::{kind}" for n, kind in enumerate(kinds, 1))
    link = connect(ledger.server.url(ledger.database), None)
    assert link.ask(f"SELECT {marks}, true, json '{{\"a\": 1}}'", *values) == [(*values, True, '{"a": 1}')]
    link.close()


# --- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reports SET state = 'lost'",
        "UPDATE reports SET owner = NULL",
        "UPDATE reports SET attempts = 5",
        "UPDATE reports SET sends = 3",
        "UPDATE reports SET state = 'done'",
        "UPDATE reports SET task_id = 0",
        "UPDATE reports SET current = false",
        "UPDATE events SET name = 'x'",
        "INSERT INTO events VALUES (99, 1, 0, 'x', '{}')",
        "INSERT INTO reports SELECT (r).* FROM (SELECT r FROM reports AS r) AS s",
    ],
)
def test_false_statements_are_refused_by_the_server(open_store: Open, ledger: Ledger, statement: str) -> None:
    """What a report may become is a rule of the database, whoever writes."""
    open_store().transact([claim()])
    with pytest.raises(AssertionError, match="ERROR"):
        ledger.select(statement)


def test_damage_is_found(open_store: Open, ledger: Ledger) -> None:
    """A missing index and a report without a story are told."""
    store = open_store()
    store.transact([claim(1), record(1)])
    with closing(open_reader(ledger.server.url(ledger.database), 0.0, 0.0)) as reader:
        assert reader.check(full=True) == ()
        ledger.select("DROP INDEX reports_by_time; DELETE FROM events")
        assert len(reader.check()) == 1
        assert len(reader.check(full=True)) == 2


# --- moving ----------------------------------------------------------------------------------


class BrokenOff(Exception):
    """What ends a copy in the middle."""


def move(source: str, target: str, progress: Callable[[int, int], None] = lambda *_: None) -> int:
    """Copy one ledger into another, which is there."""
    with (
        closing(open_reader(source, 0.0, 0.0)) as first,
        closing(open_reader(target, 0.0, 0.0)) as second,
    ):
        return copy(first, second, progress)


def test_ledger_moves_to_a_server_and_back(ledger: Ledger, tmp_path: Path) -> None:
    """Reports, stories, pauses and accounts are the same after two moves, also if one was broken off."""
    paths = [str(tmp_path / name / "ledger.db") for name in ("one", "two")]
    options: dict[str, Any] = {
        "policy": PausePolicy("m"),
        "boot_clock": time.monotonic,
        "wall_clock": time.time,
    }
    store = SqliteStore(paths[0], **options)
    for first in range(1, STEP * 2, 100):
        numbers = range(first, first + 100)
        store.transact([claim(n, begin=False) for n in numbers] + [record(n) for n in numbers])
    store.transact(
        [claim(5_000), record(5_000, WRONG_KEY, Ending("refused", 1, "key_refused", {"errorId": 1}))]
    )
    rows, pauses = store.transact([Listing(None, limit=5_000)])[0][0], store.transact([Pauses(ENDPOINT)])[0]
    stories = [store.transact([Story(row.seq)])[0] for row in rows[:3]]
    secret = store.secret
    url = ledger.server.url(ledger.database)
    PostgresStore(url, **options).close()
    with pytest.raises(LedgerTrouble, match="works on"):
        move(paths[0], url)
    store.close()

    def break_off(done: int, total: int) -> None:
        if done == STEP:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        move(paths[0], url, break_off)
    assert move(paths[0], url) == len(rows) - STEP
    with pytest.raises(LedgerTrouble, match="before"):
        move(paths[0], url)
    assert main.main(("ledger", "copy", url, paths[1])) == 0
    with pytest.raises(LedgerTrouble, match="other reports"):
        move(paths[1], paths[0])
    moved: tuple[PostgresStore | SqliteStore, ...] = (
        PostgresStore(url, **options),
        SqliteStore(paths[1], **options),
    )
    for copied in moved:
        assert copied.secret == secret
        assert copied.transact([Listing(None, limit=5_000)])[0][0] == rows
        assert copied.transact([Pauses(ENDPOINT)])[0] == pauses
        assert [copied.transact([Story(row.seq)])[0] for row in rows[:3]] == stories
        assert copied.transact([claim(1)])[0].status == "known"
        assert copied.transact([claim(6_000, "b" * 32)])[0].row.seq > rows[0].seq
        copied.close()


def test_crash_of_the_server_keeps_what_was_committed(ledger: Ledger, open_store: Open) -> None:
    """After a crash every report that was answered as durable is there."""
    store = open_store()
    store.transact([claim(1), record(1)])
    ledger.server.stop(signal.SIGQUIT)
    ledger.server.start()
    until = time.monotonic() + 20
    while True:
        try:
            assert store.transact([Look(claim(1).task)])[0].outcome == ACCEPTED
            break
        except LedgerTrouble:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_link_survives_large_batches(open_store: Open) -> None:
    """Megabytes in one pipeline go both ways without anybody waiting for the other."""
    store = open_store(policy=PausePolicy("m", enabled=False))
    detail = {"errorDescription": "x" * 512, "hints": [{"kind": "late", "message": "y" * 1_000}] * 5}
    numbers = range(1, 1_001)
    store.transact([claim(n) for n in numbers])
    store.transact([record(n, ending=TAKEN._replace(detail=detail)) for n in numbers])
    rows, _ = store.transact([Listing(None, limit=1_000)])[0]
    assert len(rows) == 1_000
    assert rows[0].detail == detail
    assert isinstance(store.link, Link)
