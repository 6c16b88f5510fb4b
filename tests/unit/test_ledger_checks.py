"""Tests of `bridge.cli.ledger_checks`: what the doctor finds out about a ledger on a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from bridge.cli import main
from bridge.engine import SystemClock
from bridge.ledger import postgres_link, postgres_schema
from tests.ledgers import ServerLedger
from tests.pgserver import PASSWORD, PgServer
from tests.pooler import Pooler

Find = Callable[..., dict[str, dict[str, Any]]]
ALL = ("driver", "server", "ledger", "schema", "rights", "session", "drift", "integrity")


@pytest.fixture
def find(capfd: pytest.CaptureFixture[str]) -> Find:
    """Run the doctor on a ledger and return its checks by name."""

    def find_checks(ledger: object, *words: str) -> dict[str, dict[str, Any]]:
        code = main.main(("doctor", "--json", "--ledger", str(ledger), *words))
        out, err = capfd.readouterr()
        told = json.loads(out)
        assert err == ""
        assert code == (0 if told["ok"] else 1)
        assert all((check["fix"] is None) == (check["status"] == "ok") for check in told["checks"])
        assert "postgresql://" not in out
        assert PASSWORD not in out
        return {check["name"]: check for check in told["checks"] if check["name"] in ALL}

    return find_checks


@pytest.fixture
def ledger(pg_server: PgServer) -> ServerLedger:
    """An empty ledger."""
    return ServerLedger(pg_server)


def statuses(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """How those checks ended that are not in order."""
    return {name: check["status"] for name, check in found.items() if check["status"] != "ok"}


def test_a_healthy_ledger_is_told(find: Find, ledger: ServerLedger) -> None:
    """Every check is there and in order, with figures where there are any."""
    ledger.add_reports(*({"task_id": n, "events": {"claimed": {}}} for n in range(1, 4)))
    found = find(ledger, "--full")
    assert tuple(found) == ALL
    assert statuses(found) == {}
    assert found["ledger"]["message"].startswith("3 reports, ")
    assert ledger.database in found["ledger"]["message"]
    assert found["server"]["message"].startswith("PostgreSQL 1")
    assert " ms off" in found["drift"]["message"]


def test_a_missing_ledger_is_fine_and_not_made(find: Find, pg_server: PgServer) -> None:
    """The first report makes it; the doctor does not. A role that may not make it is told who can."""
    ledger = ServerLedger(pg_server, is_made=False)
    found = find(ledger)
    assert statuses(found) == {}
    assert "the first report makes it" in found["ledger"]["message"]
    assert ledger.select("SELECT count(*) FROM pg_namespace WHERE nspname = 'report_bridge'") == [(0,)]
    found = find(ledger.make_role("guest"))
    assert statuses(found) == {"ledger": "failed"}
    assert "ledger migrate" in found["ledger"]["fix"]


def test_a_missing_driver_fails(find: Find, ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg nothing else about the server is looked at, and the fix installs it."""
    monkeypatch.setattr(postgres_link, "psycopg", None)
    found = find(ledger)
    assert statuses(found) == {"driver": "failed"} == {name: "failed" for name in found}
    assert "[fleet]" in found["driver"]["fix"]


def test_a_server_that_is_away_fails(find: Find) -> None:
    """The driver is there, the server is not, and nothing of the address is told."""
    found = find("postgresql://who@127.0.0.1:1/canary")
    assert statuses(found) == {"ledger": "failed"}
    assert tuple(found) == ("driver", "ledger")
    assert "canary" not in str(found)


def test_a_server_that_is_too_old_fails(
    find: Find, ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest version that will do is named."""
    monkeypatch.setattr(postgres_link, "OLDEST_SERVER", 10_000_000)
    assert "PostgreSQL 14" in find(ledger)["ledger"]["fix"]


def test_a_wrong_password_fails(find: Find, ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password of the environment is used, and a wrong one is told as such."""
    url = ledger.server.url(ledger.database, tcp=True)
    monkeypatch.setenv("REPORT_BRIDGE_LEDGER_PASSWORD", PASSWORD)
    assert statuses(find(url)) == {}
    monkeypatch.setenv("REPORT_BRIDGE_LEDGER_PASSWORD", "canary-wrong")
    found = find(url)
    assert "refused the password" in found["ledger"]["fix"]
    assert "canary" not in str(found)


def test_a_newer_ledger_fails(find: Find, ledger: ServerLedger) -> None:
    """A ledger of a newer version is told apart from a broken one."""
    ledger.select("INSERT INTO versions VALUES (3, 3)")
    found = find(ledger)
    assert statuses(found) == {"ledger": "failed"}
    assert "newer version" in found["ledger"]["message"]


def test_an_older_ledger_is_a_warning(
    find: Find, ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bridge will bring it up to date; who may is told."""
    monkeypatch.setattr(postgres_schema, "VERSION", 3)
    found = find(ledger)
    assert statuses(found) == {"schema": "warning"}
    assert "ledger migrate" in found["schema"]["fix"]


def test_missing_rights_are_listed(find: Find, ledger: ServerLedger) -> None:
    """What a role may not do, and a bridge does, is named one by one; none is named twice."""
    url, role = ledger.make_role("guest"), f"guest_{ledger.database}"
    assert find(url)["rights"]["message"].startswith("the role lacks USAGE on the schema, SELECT on accounts")
    ledger.grant(role, "USAGE ON SCHEMA report_bridge", "SELECT ON ALL TABLES IN SCHEMA report_bridge")
    ledger.grant(role, "INSERT ON accounts, reports, events, pauses, tallies, figures")
    found = find(url)
    assert statuses(found) == {"ledger": "failed", "rights": "failed"}
    lacking = "UPDATE on reports, DELETE on reports, UPDATE on pauses, UPDATE on tallies, DELETE on tallies, "
    lacking += "UPDATE on figures, USAGE on report_numbers"
    assert found["rights"]["message"] == f"the role lacks {lacking}"
    ledger.grant(
        role,
        "UPDATE, DELETE ON reports, pauses, tallies, figures",
        "USAGE ON ALL SEQUENCES IN SCHEMA report_bridge",
    )
    assert statuses(find(url)) == {}


@pytest.mark.parametrize(("size", "renames"), [(1, True), (2, False)])
def test_a_pooler_in_transaction_mode_is_noticed(
    find: Find, ledger: ServerLedger, size: int, renames: bool
) -> None:
    """Two sessions that are one are seen, whether or not the pooler keeps prepared statements apart."""
    with Pooler(ledger.server, ledger.database, size, renames) as pooler:
        found = find(f"postgresql://postgres@127.0.0.1:{pooler.port}/{ledger.database}")
    # What reads the ledger may meet statements of the other session, and fail as well.
    assert statuses(found) in ({"session": "failed"}, {"session": "failed", "ledger": "failed"})
    assert "session mode" in found["session"]["fix"]


@pytest.mark.parametrize(
    ("ahead_s", "which"), [(30.0, "30.0 s ahead"), (-30.0, "30.0 s behind"), (0.4, "ms off")]
)
def test_the_drift_is_told(
    find: Find, ledger: ServerLedger, monkeypatch: pytest.MonkeyPatch, ahead_s: float, which: str
) -> None:
    """A clock that is off by more than a second is a warning that says in which direction."""
    monkeypatch.setattr(SystemClock, "wall", lambda: time.time() + ahead_s)
    found = find(ledger)
    assert statuses(found) == ({"drift": "warning"} if abs(ahead_s) > 1 else {})
    assert which in found["drift"]["message"]


def test_a_server_that_takes_no_writes_fails(find: Find, ledger: ServerLedger) -> None:
    """What is set to read-only is read and told."""
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET default_transaction_read_only = on")
    found = find(ledger)
    assert statuses(found) == {"ledger": "failed"}
    assert "takes no writes" in found["ledger"]["fix"]


def test_commits_that_are_not_synced_are_a_warning(find: Find, ledger: ServerLedger) -> None:
    """A server that may lose what it has committed is told."""
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET synchronous_commit = off")
    assert statuses(find(ledger)) == {"server": "warning"}


def test_damage_is_told(find: Find, ledger: ServerLedger) -> None:
    """A missing index is found at once; what only a reading of every report shows is found with --full."""
    ledger.add_reports({"task_id": 1})
    assert statuses(find(ledger)) == {}
    assert statuses(find(ledger, "--full")) == {"integrity": "failed"}
    ledger.select("DROP INDEX reports_by_time")
    assert "reports_by_time" in find(ledger)["integrity"]["fix"]


def test_a_lock_on_the_tables_does_not_hold_the_doctor(find: Find, ledger: ServerLedger) -> None:
    """Where an administrator keeps everybody out, the doctor says so after its patience."""
    with ledger.connected() as connection:
        connection.execute("LOCK TABLE reports")
        assert "holds a lock" in find(ledger)["ledger"]["fix"]


def test_a_ledger_in_a_file_has_no_checks_of_a_server(find: Find, tmp_path: object) -> None:
    """Who has no server is not told about drivers."""
    assert tuple(find(f"{tmp_path}/none.sqlite3")) == ("ledger",)
