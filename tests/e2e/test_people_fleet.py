"""The commands for people on a ledger on a server: what they read, change, and refuse.

Every command runs as a process of its own here; where all of them are refused for one reason, in this one.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli.main import main
from tests.ledgers import ACCOUNT, ENDPOINT, START, ServerLedger
from tests.pgserver import PASSWORD, PgServer
from tests.process import PATIENCE_S, ROOT, BridgeProcess

Run = Callable[..., subprocess.CompletedProcess[str]]

SECRET = "canary-5ecret"
HIDE = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = lambda name, *more: None if name == "psycopg" else find(name, *more)
"""
READING = (
    ("history", "list"),
    ("history", "show", "1"),
    ("history", "export"),
    ("pauses", "list"),
    ("stats",),
)
CHANGING = (("history", "prune"), ("pauses", "resume"))
TO_READ = (
    "USAGE ON SCHEMA report_bridge",
    "SELECT ON accounts, reports, events, pauses, tallies, figures, versions",
)
"""What docs/fleet.md says that reading needs."""


def run(ledger: object, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command with as good as no environment and no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        env={"PYTHONPATH": str(ROOT), "LANG": "C", "REPORT_BRIDGE_LEDGER": str(ledger), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which saves its start."""

    def run_words(ledger: object, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patched:
            for name, value in {"REPORT_BRIDGE_LEDGER": str(ledger), **environ}.items():
                patched.setenv(name, value)
            code = main(words)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run_words


def sentence(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that was refused, which holds nothing of the address."""
    assert (ended.returncode, ended.stdout) == (3, ""), ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.endswith("The ledger is set by environment REPORT_BRIDGE_LEDGER.\n")
    for secret in (SECRET, PASSWORD, "://", "127.0.0.1"):
        assert secret not in ended.stderr
    return ended.stderr


@pytest.fixture
def ledger(pg_server: PgServer) -> ServerLedger:
    """A ledger with three reports and two pauses."""
    made = ServerLedger(pg_server)
    refused = {"outcome": "refused", "code": 16, "kind": "no_such_captcha"}
    made.add_reports(
        {"task_id": 1, "age_s": 4.0, "events": {"claimed": {"owner": "a"}, "begun": {"attempt": 1}}},
        {"task_id": 2, **refused, "recorded_wall": START + 86_400},
        {"task_id": 3, "recorded_wall": time.time(), "method": "reportIncorrectRecaptcha"},
    )
    now = time.time()
    made.add_pause("key_refused", ACCOUNT, "key_does_not_exist", now - 60, None)
    made.add_pause("method_withdrawn", "reportIncorrectHcaptcha", "no_such_method", now, now + 600)
    return made


# --- what they do ----------------------------------------------------------------------------


def test_everything_is_read(ledger: ServerLedger, tmp_path: Path) -> None:
    """Lists, stories, exports, figures in every form, pauses and checks come from the server."""
    listed = run(ledger, "history", "list", "--json", "--since", "2026-01-01")
    assert [json.loads(line)["taskId"] for line in listed.stdout.splitlines()] == [3, 2, 1]
    shown = run(ledger, "history", "show", "1").stdout
    assert shown.index("accepted") < shown.index("claimed") < shown.index("begun")
    exported = run(ledger, "history", "export", "--outcome", "refused").stdout
    assert [row["taskId"] for row in csv.DictReader(io.StringIO(exported))] == ["2"]
    told = json.loads(run(ledger, "stats", "--json").stdout)
    assert (told["reports"], told["refused"][0]["code"], told["ages"]["known"]) == (3, 16, 1)
    assert "accepted by the API" in run(ledger, "stats").stdout
    page = tmp_path / "page.html"
    assert run(ledger, "stats", "--html", str(page)).returncode == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    pauses = json.loads(run(ledger, "pauses", "list", "--json").stdout)["pauses"]
    assert [pause["scope"] for pause in pauses] == ["key", "method"]
    ended = run(ledger, "doctor")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0 failed" in ended.stdout
    assert "3 reports" in ended.stdout


def test_old_reports_are_pruned(ledger: ServerLedger) -> None:
    """What is older than the moment goes with its story; the rest stays."""
    ended = run(ledger, "history", "prune", "--before", "2026-01-03")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("2 reports ")
    assert ledger.select("SELECT task_id FROM reports") == [(3,)]
    assert ledger.select("SELECT count(*) FROM events") == [(0,)]


def test_a_pause_is_resumed(ledger: ServerLedger) -> None:
    """Only the asked scope is made due; the other one stays as it was."""
    ended = run(ledger, "pauses", "resume", "--scope", "key", "--url", ENDPOINT)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "key (key_does_not_exist)" in ended.stdout
    is_due = "coalesce(ends_at <= extract(epoch FROM clock_timestamp()), false)"
    assert ledger.select(f"SELECT {is_due} FROM pauses ORDER BY rule") == [(True,), (False,)]
    assert "the next report is tried" in run(ledger, "pauses", "list").stdout


def test_everything_works_beside_a_running_bridge(
    bridge_process: Callable[..., BridgeProcess], pg_server: PgServer
) -> None:
    """While a bridge works on the ledger it is read, checked and pruned, and the bridge does not notice."""
    ledger = ServerLedger(pg_server, is_made=False)
    bridge = bridge_process("--sandbox", "--ledger", str(ledger))
    for task in (101, 102):
        assert bridge.call("reportIncorrectImageCaptcha", {"taskId": task})["result"]["durable"] is True
    listed = run(ledger, "history", "list", "--json").stdout
    assert [json.loads(line)["taskId"] for line in listed.splitlines()] == [102, 101]
    shown = run(ledger, "history", "show", "101").stdout
    assert shown.index("claimed") < shown.index("begun") < shown.index("settled")
    assert json.loads(run(ledger, "stats", "--json").stdout)["outcomes"]["accepted"] == 2
    doctor = run(ledger, "doctor")
    assert doctor.returncode == 0
    assert "2 reports" in doctor.stdout
    assert "1 other session" in doctor.stdout
    assert run(ledger, "history", "prune").returncode == 0
    assert bridge.call("reportIncorrectImageCaptcha", {"taskId": 103})["result"]["durable"] is True
    assert bridge.close().code == 0


@pytest.mark.parametrize("way", ["REPORT_BRIDGE_LEDGER_PASSWORD", "PGPASSWORD", "PGPASSFILE", "url"])
def test_the_password_comes_from_where_a_bridge_has_it(
    ledger: ServerLedger, tmp_path: Path, way: str, run_here: Run
) -> None:
    """The bridge's variable, libpq's, a pass file and an address that is no flag all let a reader in."""
    url, environ = ledger.server.url(ledger.database, tcp=True), {way: PASSWORD}
    if way == "url":
        url, environ = url.replace("bridge@", f"bridge:{PASSWORD}@"), {}
    elif way == "PGPASSFILE":
        file = tmp_path / "pass"
        file.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
        file.chmod(0o600)
        environ = {way: str(file)}
    # Every command asks in the same place, so all of them are tried in one way only.
    commands = (*READING, *CHANGING, ("history", "path"), ("doctor",), ("history", "show", "77"))
    for words in commands if way == "url" else (("stats",), ("doctor",)):
        ended = run_here(url, *words, **environ)
        assert ended.returncode == (1 if "77" in words else 0), ended.stderr
        assert PASSWORD not in ended.stdout + ended.stderr


# --- what they refuse ------------------------------------------------------------------------


@pytest.mark.parametrize("words", [*READING, *CHANGING], ids=" ".join)
def test_a_server_that_is_away_is_a_sentence(words: tuple[str, ...], run_here: Run) -> None:
    """Nobody listens: one line, and nothing of the address in it."""
    ended = run_here(f"postgresql://bridge:{SECRET}@127.0.0.1:1/x", *words)
    assert "does not answer" in sentence(ended)


@pytest.mark.parametrize("words", [*READING, *CHANGING], ids=" ".join)
def test_a_database_without_tables_is_a_sentence(
    words: tuple[str, ...], pg_server: PgServer, run_here: Run
) -> None:
    """There is no ledger yet, and none is made by looking for one."""
    ledger = ServerLedger(pg_server, is_made=False)
    assert "ledger migrate" in sentence(run_here(ledger, *words))
    assert ledger.select("SELECT to_regnamespace('report_bridge') IS NULL") == [(True,)]


def test_a_wrong_password_is_a_sentence(ledger: ServerLedger) -> None:
    """The server's refusal is told in our own words."""
    url = ledger.server.url(ledger.database, tcp=True)
    ended = run(url, "stats", REPORT_BRIDGE_LEDGER_PASSWORD=SECRET)
    assert "refused the password" in sentence(ended)
    assert "asks for a password" in sentence(run(url, "stats"))


def test_a_newer_ledger_is_a_sentence(ledger: ServerLedger, run_here: Run) -> None:
    """What a newer version has changed for good is not read as if it were ours."""
    ledger.select("INSERT INTO versions VALUES (3, 1)")
    assert run_here(ledger, "stats").returncode == 0
    ledger.select("INSERT INTO versions VALUES (4, 4)")
    for words in (*READING, *CHANGING):
        assert "newer version" in sentence(run_here(ledger, *words))


def test_a_role_that_may_only_read_reads(ledger: ServerLedger, run_here: Run) -> None:
    """What the fleet page says is enough to read, not to change, and the key of the hash stays unread."""
    page = (ROOT / "docs" / "fleet.md").read_text()
    assert all(f"`{words}`" in page for words in TO_READ)
    url = ledger.make_role("reader", *TO_READ)
    before = ledger.select("SELECT * FROM pauses"), ledger.select("SELECT count(*) FROM reports")
    for words in READING:
        ended = run_here(url, *words)
        assert (ended.returncode, ended.stderr) == (0, "")
    for words in CHANGING:
        assert "lacks a privilege" in sentence(run_here(url, *words))
    assert (ledger.select("SELECT * FROM pauses"), ledger.select("SELECT count(*) FROM reports")) == before
    assert run_here(url, "doctor").returncode == 1


@pytest.mark.parametrize("missing", range(6))
def test_a_role_that_may_not_read_is_a_sentence(ledger: ServerLedger, missing: int, run_here: Run) -> None:
    """Each privilege that is left out is missed at once, whatever the command goes on to read."""
    tables = ["accounts", "reports", "events", "pauses", "versions"]
    grants = [TO_READ[0], *(f"SELECT ON {table}" for table in tables)]
    url = ledger.make_role("guest", *(grants[:missing] + grants[missing + 1 :]))
    assert "lacks a privilege" in sentence(run_here(url, "pauses", "list"))


def test_a_server_that_takes_no_writes_is_read(ledger: ServerLedger, run_here: Run) -> None:
    """A standby, or what is set to read-only, is read; a change says why it cannot be."""
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET default_transaction_read_only = on")
    for words in READING:
        assert run_here(ledger, *words).returncode == 0
    for words in CHANGING:
        assert "takes no writes" in sentence(run_here(ledger, *words))


def test_a_schema_of_somebody_else_is_a_sentence(pg_server: PgServer) -> None:
    """A schema of our name that is not ours is not read."""
    ledger = ServerLedger(pg_server, is_made=False)
    with ledger.connected() as connection:
        connection.execute("CREATE SCHEMA report_bridge")
        connection.execute("CREATE TABLE report_bridge.x (y int)")
        connection.execute("GRANT USAGE ON SCHEMA report_bridge TO bridge")
    assert "not a ledger" in sentence(run(ledger, "stats"))


def test_a_missing_driver_is_a_sentence(ledger: ServerLedger, tmp_path: Path) -> None:
    """Without psycopg every command says what to install, and one for a file needs none."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for words in (*READING, *CHANGING):
        assert "[fleet]" in sentence(run(ledger, *words, **path))
    ended = run(ledger, "doctor", "--json", **path)
    found = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert (ended.returncode, found["driver"]["status"], "ledger" in found) == (1, "failed", False)
    assert run("memory", "doctor", **path).returncode == 0


def test_a_server_that_hangs_is_given_up(ledger: ServerLedger) -> None:
    """A server that takes bytes and answers nothing holds nobody for long."""
    ledger.server.pause()
    try:
        started_at = time.monotonic()
        assert "does not answer" in sentence(run(ledger, "pauses", "list"))
        assert time.monotonic() - started_at < 30
    finally:
        ledger.server.go_on()
