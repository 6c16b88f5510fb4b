"""The fleet page's sizes follow from what was measured, and its tables for large fleets are really made."""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any, Final

import psycopg
import pytest

from bridge.core.model import Claim, Facts, Task, Window
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.trouble import LedgerTrouble
from bridge.reports.pauses import PausePolicy
from tests.fleet import IMAGE, Ledger
from tests.pgserver import PgServer
from tests.process import ROOT

PAGE: Final = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
FIGURES: Final[dict[str, float]] = json.loads((ROOT / "docs" / "fleet-figures.json").read_text())
DAYS: Final = 90


@pytest.fixture
def ledger(pg_server: PgServer) -> Ledger:
    """The empty ledger of this test."""
    return Ledger(pg_server)


def section(title: str) -> str:
    """A part of the page, up to the next heading that is not below it."""
    level = title.split()[0]
    return re.split(rf"(?m)^#{{1,{len(level)}}} ", PAGE.split(f"{title}\n", 1)[1])[0]


def statements(title: str) -> list[tuple[str, str | None]]:
    """The SQL of a part in order, each with the error that it shows."""
    found: list[tuple[str, str | None]] = []
    for line in section(title).splitlines():
        if line.startswith("    -- ERROR: "):
            found[-1] = (found[-1][0], line.removeprefix("    -- ERROR: "))
        elif line.startswith("    ") and line.endswith(";"):
            found.append((line.strip(), None))
    return found


def connect(ledger: Ledger) -> psycopg.Connection[Any]:
    """A session of the superuser in the ledger's database."""
    server = ledger.server
    return psycopg.connect(
        host=str(server.sockets), port=server.port, user="postgres", dbname=ledger.database, autocommit=True
    )


def make_tables(ledger: Ledger) -> PostgresStore:
    """Let a store make the ledger."""
    return PostgresStore(
        ledger.server.url(ledger.database),
        policy=PausePolicy("m"),
        boot_clock=time.monotonic,
        wall_clock=time.time,
    )


# --- sizes -----------------------------------------------------------------------------------


def rows_of(text: str, header: str) -> list[list[float]]:
    """The numbers of a table's rows; a million counts as such."""
    lines = text.split(header, 1)[1].splitlines()[2:]
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found.append([_number(cell) for cell in cells])
    assert found
    return found


def _number(text: str) -> float:
    value = float(text.split()[0].replace(",", ""))
    return value * 1_000_000 if "million" in text else value


def test_sizes_of_the_page_follow_from_what_was_measured() -> None:
    """Every row of the table is the arithmetic of the figures."""
    for per_day, per_s, commits, rows, space_gb, log_gb in rows_of(section("## Sizing"), "| Reports a day |"):
        assert per_s == pytest.approx(per_day / 86_400, rel=0.05)
        assert commits == pytest.approx(per_day / 86_400 * FIGURES["commits_alone"], rel=0.02)
        assert rows == per_day * DAYS
        assert space_gb == pytest.approx(rows * FIGURES["bytes_all"] / 1e9, rel=0.02)
        assert log_gb == pytest.approx(per_day * FIGURES["bytes_wal"] / 1e9, rel=0.02)


def test_shared_commits_of_the_page_are_those_of_the_simulation() -> None:
    """Each case of the table is one of the simulated, and all of them are there."""
    shown = {}
    for per_s, bridges, fast, slow in rows_of(section("## Sizing"), "| Reports a second | Bridges |"):
        shown[f"commits_{per_s:.0f}_per_s_{bridges:.0f}_bridges_2_ms"] = fast
        shown[f"commits_{per_s:.0f}_per_s_{bridges:.0f}_bridges_10_ms"] = slow
    stated = {name: value for name, value in FIGURES.items() if "_per_s_" in name}
    assert shown == pytest.approx(stated, abs=0.011)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"Space is (\d+) B a report", FIGURES["bytes_all"]),
        (r"(\d+) in `reports`", FIGURES["bytes_reports"]),
        (r"(\d+) primary key", FIGURES["bytes_reports_pkey"]),
        (r"(\d+) identity", FIGURES["bytes_reports_identity"]),
        (r"(\d+) time", FIGURES["bytes_reports_by_time"]),
        (r"(\d+) trouble", FIGURES["bytes_reports_by_trouble"]),
        (r"(\d+) in `events`", FIGURES["bytes_events"]),
        (r"(\d+) in their index", FIGURES["bytes_events_pkey"]),
        (r"make it (\d+) B", FIGURES["bytes_all_reindexed"]),
        (r"log is ([\d,]+) B a report", FIGURES["bytes_wal"]),
        (r"updated, (\d+) events", FIGURES["events"]),
        (r"cost (0\.\d+) commits each", FIGURES["commits_of_64"]),
        (r"(\d+) short statements in", FIGURES["idle_statements"]),
        (r"statements in (\d+) transactions", FIGURES["idle_commits"]),
        (r"are ([\d,]+) statements\s+in", 500 * round(FIGURES["idle_statements"])),
        (r"would be ([\d,]+) commits", FIGURES["commits_alone"] * 100e6 / 86_400),
        (r"commits and (\d+) GB of log", FIGURES["bytes_wal"] / 10),
        (r"ids a report use up the\s+(\d+) million", FIGURES["transaction_ids_alone"] * 100),
        (r"million reports a day are (\d+) reports", 5e6 / 86_400),
        (r"million rows, (\d+) GB each", 35e6 * FIGURES["bytes_all"] / 1e9),
        (r"([\d,]+) transactions a second", 500 * round(FIGURES["idle_commits"])),
    ],
)
def test_figure_of_the_page_was_measured(pattern: str, value: float) -> None:
    """A figure in the text is the one that was measured, rounded."""
    found = re.search(pattern, section("## Sizing") + section("## Large fleets"))
    assert found is not None
    assert _number(found[1]) == pytest.approx(value, rel=0.06, abs=0.1)


# --- large fleets ----------------------------------------------------------------------------


def run_claim(connection: psycopg.Connection[Any], seq: int, task: int) -> bool:
    """Claim as the page does; True if it stored a report."""
    return connection.execute(f"EXECUTE claim (1, {task}, {seq})").fetchone() is not None


def count_tasks(connection: psycopg.Connection[Any], task: int) -> int:
    """How many reports of a task there are."""
    asked = f"SELECT count(*) FROM large.reports WHERE task_id = {task} AND current"
    (number,) = connection.execute(asked).fetchone() or (0,)
    return int(number)


def test_tables_that_are_cut_need_a_guard_of_their_own(ledger: Ledger) -> None:
    """Each statement of the page does what it says: without the guard a task is there twice, with it once."""
    make_tables(ledger).close()
    script = statements("### If one account is too large")
    cleaning = next(at for at, (text, _) in enumerate(script) if text.startswith("DELETE"))
    with connect(ledger) as one, connect(ledger) as two:
        one.execute("INSERT INTO report_bridge.accounts (endpoint, account) VALUES ('e', 'a')")
        for text, error in script[:cleaning]:
            if error is None:
                one.execute(text)
            else:
                with pytest.raises(psycopg.Error) as caught:
                    one.execute(text)
                assert error in str(caught.value)
        two.execute(next(text for text, _ in script if text.startswith("PREPARE")))
        # Without the guard: the same task on both sides of a cut.
        columns = "seq, account_id, task_id, revision, method, state, owner, attempts, sends, perhaps"
        for seq in (100_000_000, 100_000_001):
            values = f"({seq}, 1, 7, 1, 'm', 'queued', 'o', 0, 0, false, 1.0)"
            one.execute(f"INSERT INTO large.reports ({columns}, recorded_wall) VALUES {values}")
        assert count_tasks(one, 7) == 2
        # With it: the second waits for the first, and then finds that it is too late.
        one.execute("BEGIN")
        assert run_claim(one, 99_999_999, 8)
        told: list[bool] = []
        waiting = threading.Thread(target=lambda: told.append(run_claim(two, 100_000_002, 8)))
        waiting.start()
        waiting.join(0.2)
        assert told == []
        one.execute("COMMIT")
        waiting.join(30)
        assert told == [False]
        assert count_tasks(one, 8) == 1
        # One that failed leaves the task to the next.
        one.execute("BEGIN")
        assert run_claim(one, 100_000_003, 9)
        one.execute("ROLLBACK")
        assert run_claim(two, 100_000_004, 9)
        one.execute("INSERT INTO large.events VALUES (99999999, 1, 1.0, 'claimed', '{}')")
        one.execute("UPDATE large.guards SET finished_at = 1.0 WHERE task_id = 8")
        with pytest.raises(psycopg.Error, match=r"depend|still referenced|violates foreign key"):
            # Reports that still have events hold on to their piece.
            one.execute("ALTER TABLE large.reports DETACH PARTITION large.reports_1")
        for text, _ in script[cleaning:]:
            one.execute(text)
        assert count_tasks(one, 8) == 0
        assert run_claim(one, 100_000_005, 8), "a day later the id may come back"
        assert not run_claim(one, 100_000_006, 9)


def test_bridge_does_without_tables_that_were_cut(ledger: Ledger) -> None:
    """As the page warns: the statements of today do not work on a table that was cut."""
    store = make_tables(ledger)
    for text, error in statements("### If one account is too large")[:9]:
        if error is None:
            ledger.server.sql(text, database=ledger.database)
    ledger.server.sql(
        "CREATE SCHEMA former",
        "ALTER TABLE report_bridge.reports SET SCHEMA former",
        "ALTER TABLE large.reports SET SCHEMA report_bridge",
        "GRANT ALL ON ALL TABLES IN SCHEMA report_bridge, large TO bridge",
        database=ledger.database,
    )
    task = Task("https://upstream.test", "a" * 32, 1)
    window = Window(time.time() + 60, None)
    with pytest.raises(LedgerTrouble) as caught:
        store.transact([Claim(task, IMAGE, window, Facts(), True)])
    assert caught.value.kind == "corrupt"
    store.close()
