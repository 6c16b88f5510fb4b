"""Tests of `bridge.cli.ledger`: looking after a ledger of either kind without a bridge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledgers import BACKENDS, FileLedger, MadeLedger, ServerLedger, make_of
from tests.pgserver import PgServer
from tests.unit.conftest import Run


@pytest.fixture(params=BACKENDS)
def ledger(request: pytest.FixtureRequest) -> MadeLedger:
    """A ledger of each kind with one report."""
    made = make_of(request.param, request)()
    made.add_reports({"task_id": 1, "events": {"claimed": {}}})
    return made


def test_a_check_tells_what_is_there_and_what_is_wrong(run: Run, ledger: MadeLedger) -> None:
    """A sound ledger is one line and a word; damage is named, and the code says that there is some."""
    words = ("ledger", "check", "--full", "--ledger", str(ledger))
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out.endswith(": 1 report, version 2\nno damage found\n")
    ledger.select("DROP INDEX reports_by_time")
    damaged = run(*words)
    assert (damaged[0], "reports_by_time" in damaged[1]) == (
        (1, True) if isinstance(ledger, ServerLedger) else (0, False)
    )


def test_a_check_makes_nothing(run: Run, tmp_path: Path, pg_server: PgServer) -> None:
    """Where no ledger is, none is after somebody has looked; migrate makes it."""
    server = ServerLedger(pg_server, is_made=False)
    path = tmp_path / "none.sqlite3"
    assert run("ledger", "check", "--ledger", str(path))[0] == 1
    code, _, err = run("ledger", "check", str(path))
    assert (code, "name the ledger with --ledger" in err) == (2, True)
    assert not path.exists()
    assert run("ledger", "check", "--ledger", str(server))[0] == 3
    assert server.select("SELECT to_regnamespace('report_bridge') IS NULL") == [(True,)]
    for place in (str(path), str(server)):
        code, out, err = run("ledger", "migrate", "--ledger", place)
        assert (code, err) == (0, "")
        assert out.endswith(": 0 reports, version 2\n")


def test_a_ledger_that_a_newer_version_has_changed_is_not_migrated(run: Run, tmp_path: Path) -> None:
    """It is said, and the code tells that nothing was done."""
    ledger = FileLedger(tmp_path / "ledger.sqlite3")
    ledger.select("PRAGMA user_version = 3")
    code, _, err = run("ledger", "migrate", "--ledger", str(ledger))
    assert (code, "newer" in err) == (1, True)
    code, _, err = run("ledger", "copy", str(ledger), str(tmp_path / "copy.sqlite3"))
    assert (code, "newer" in err) == (1, True)


@pytest.mark.parametrize("words", [("migrate", "--ledger", "memory"), ("copy", "{}", "memory")])
def test_a_ledger_in_memory_cannot_be_looked_after(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """It ends with its bridge, and no file of that name is made."""
    place = FileLedger(tmp_path / "ledger.sqlite3")
    code, _, err = run("ledger", *(word.format(place) for word in words))
    assert (code, "ends with its bridge" in err) == (2, True)
    assert not Path("memory").exists()


def test_a_password_on_the_command_line_is_refused_in_a_copy_too(run: Run, tmp_path: Path) -> None:
    """Others could read it; it is not shown."""
    url = "postgresql://bridge:canary@127.0.0.1:1/x"
    code, out, err = run("ledger", "copy", str(FileLedger(tmp_path / "ledger.sqlite3")), url)
    assert (code, out) == (3, "")
    assert "password" in err
    assert "canary" not in err
