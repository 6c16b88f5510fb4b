"""Tests of `bridge.ledger.postgres_reader`: what only a reader on a server promises."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import pytest

from bridge.core.model import Listing
from bridge.ledger import postgres_reader
from bridge.ledger.postgres_reader import PostgresReader
from bridge.ledger.reading import open_reader
from bridge.ledger.statistics import NoLedger
from bridge.ledger.trouble import LedgerTrouble
from tests.ledgers import ServerLedger
from tests.pgserver import PgServer
from tests.pooler import Pooler

METHODS = ("reportIncorrectImageCaptcha",)


@pytest.fixture
def ledger(pg_server: PgServer) -> ServerLedger:
    """A ledger with two reports of one task and two of others."""
    made = ServerLedger(pg_server)
    told: dict[str, Any] = {"events": {"claimed": {}}}
    made.add_reports({"task_id": 1, "current": 0, **told}, *({"task_id": n, **told} for n in (1, 2, 3)))
    return made


def opened(ledger: object) -> PostgresReader:
    """Open a ledger now."""
    return PostgresReader.open(str(ledger), None, time.time())


def test_nothing_can_be_written_by_a_question(ledger: ServerLedger) -> None:
    """The server itself refuses a write where a reading was begun."""
    with closing(opened(ledger)) as reader:
        with pytest.raises(LedgerTrouble, match="takes no writes"):
            reader.ask("DELETE FROM reports")
        assert reader.count(Listing(None)) == 4, "the session goes on"


def test_what_is_written_is_kept(ledger: ServerLedger) -> None:
    """A copy into this ledger is committed, and the reader goes on."""
    with closing(opened(ledger)) as reader:
        reader.write([("DELETE FROM events", ())])
        assert ledger.select("SELECT count(*) FROM events") == [(0,)]
        assert reader.count(Listing(None)) == 4


def test_trying_to_write_changes_nothing(ledger: ServerLedger) -> None:
    """Not even a number is taken."""
    state = "SELECT (SELECT last_value FROM report_numbers), count(*), max(revision) FROM reports"
    before = ledger.select(state)
    with closing(opened(ledger)) as reader:
        reader.try_write()
    assert ledger.select(state) == before


def test_a_slow_statement_is_ended_by_the_server(
    ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out of a question is the server's, and the reader can go on."""
    monkeypatch.setattr(postgres_reader, "QUICK_S", 0.2)
    with closing(opened(ledger)) as reader:
        with pytest.raises(LedgerTrouble, match="too slow"):
            reader.ask("SELECT pg_sleep(60)")
        assert reader.count(Listing(None)) == 4


def test_figures_are_counted_by_the_server(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of reports that are alike come as a few rows."""
    ledger = ServerLedger(pg_server)
    ledger.add_reports(*({"task_id": n, "age_s": 2.5} for n in range(1, 400)))
    with closing(opened(ledger)) as reader:
        rows = 0
        run = reader._link.run

        def count(*given: Any) -> Any:
            nonlocal rows
            answers = run(*given)
            rows += sum(map(len, answers))
            return answers

        monkeypatch.setattr(reader._link, "run", count)
        assert reader.figures(Listing(None), None, METHODS).cells.total() == 399
        assert rows < 20


def test_reading_leaves_nothing_in_a_session_of_a_pooler(ledger: ServerLedger) -> None:
    """Settings end with the transaction, since a pooler may give the session to a bridge next."""
    with Pooler(ledger.server, ledger.database, 1, True) as pooler:
        url = f"postgresql://postgres@127.0.0.1:{pooler.port}/{ledger.database}"
        with closing(opened(url)) as reader:
            assert reader.count(Listing(None)) == 4
            shown = "SELECT current_setting('search_path'), current_setting('statement_timeout')"
            assert reader._link.run([(shown, [])])[0] == [('"$user", public', "0")]


def test_instants_of_pauses_are_on_the_clock_of_this_host(ledger: ServerLedger) -> None:
    """A host whose clock is wrong is told how long a pause lasts, by its own clock."""
    now = time.time()
    ledger.add_pause("method_withdrawn", "x", "no_such_method", now, now + 600)
    with closing(PostgresReader.open(ledger.url, None, now + 3600)) as reader:
        ((_, state),) = reader.pauses()
        assert state.ends_at is not None
        assert abs(state.ends_at - (now + 3600 + 600)) < 60


def test_an_empty_database_has_no_ledger(pg_server: PgServer) -> None:
    """It says who makes one."""
    with pytest.raises(NoLedger, match="ledger migrate"):
        open_reader(str(ServerLedger(pg_server, is_made=False)), 0.0, 0.0)


def test_a_reader_whose_server_restarts_says_so(ledger: ServerLedger) -> None:
    """A session that is gone is trouble, not a crash, and closing it is quiet."""
    reader = opened(ledger)
    ledger.server.drop_connections(ledger.database)
    with pytest.raises(LedgerTrouble, match="does not answer"):
        reader.count(Listing(None))
    reader.close()
    reader.close()
