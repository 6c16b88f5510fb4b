"""The commands for people as real processes: bare environments, missing ledgers, beside a running bridge."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli.snippet import SNIPPETS, render_snippet
from bridge.simulator import Simulator
from tests.ledgers import START, add_reports, make_ledger
from tests.process import PATIENCE_S, ROOT, BridgeProcess

BRIDGE = [sys.executable, "-m", "bridge"]
COMMANDS = (
    ("history", "list"),
    ("history", "show", "1"),
    ("history", "export"),
    ("history", "path"),
    ("pauses", "list"),
    ("stats",),
    ("stats", "--json"),
    ("doctor",),
    ("doctor", "--json"),
    ("snippet", "python"),
    ("completion", "bash"),
)


def bare(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with as good as no environment and no terminal."""
    return subprocess.run(
        [*BRIDGE, *words],
        env={"PYTHONPATH": str(ROOT), "LANG": "C", **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_work_in_a_bare_environment(words: tuple[str, ...], tmp_path: Path) -> None:
    """Without terminal, locale and home every command does its work in ASCII."""
    ledger = make_ledger(tmp_path / "ledger.sqlite3")
    add_reports(ledger, {"task_id": 1, "age_s": 4.0}, {"task_id": 2, "outcome": "unknown", "code": -32002})
    ended = bare(*words, environ={"REPORT_BRIDGE_LEDGER": str(ledger)})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout
    assert ended.stdout.isascii()
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(
    "words", [c for c in COMMANDS if c[0] in ("history", "pauses", "stats")], ids=" ".join
)
def test_a_missing_ledger_is_one_sentence(words: tuple[str, ...], tmp_path: Path) -> None:
    """What reads the ledger says in one line that there is none, and makes none."""
    ended = bare(*words, "--ledger", str(tmp_path / "none.sqlite3"))
    assert ended.returncode == (0 if words == ("history", "path") else 1)
    assert len(ended.stderr.splitlines()) == 1
    assert "first report makes it" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_everything_can_be_read_beside_a_running_bridge(
    bridge_process: Callable[..., BridgeProcess], tmp_path: Path
) -> None:
    """While a bridge works on the ledger, its reports are listed, shown, exported, counted and checked."""
    ledger = str(tmp_path / "ledger.sqlite3")
    bridge = bridge_process("--sandbox", "--ledger", ledger)
    for task in (101, 102):
        assert "result" in bridge.call("reportIncorrectImageCaptcha", {"taskId": task})
    refused = bridge.call("reportIncorrectImageCaptcha", {"taskId": 9_000_000_000_003_006})
    assert refused["error"]["code"] == 16
    listed = bare("history", "list", "--json", "--ledger", ledger)
    assert [json.loads(line)["taskId"] for line in listed.stdout.splitlines()][1:] == [102, 101]
    shown = bare("history", "show", "101", "--ledger", ledger).stdout
    assert shown.index("claimed") < shown.index("begun") < shown.index("settled")
    assert len(bare("history", "export", "--ledger", ledger).stdout.splitlines()) == 4
    told = json.loads(bare("stats", "--json", "--ledger", ledger).stdout)
    assert (told["outcomes"]["accepted"], told["outcomes"]["refused"]) == (2, 1)
    assert told["latency"]["attempts"] == 3
    assert bare("history", "prune", "--ledger", ledger).returncode == 0
    assert bare("doctor", "--ledger", ledger).returncode == 0
    assert "result" in bridge.call("reportIncorrectImageCaptcha", {"taskId": 103})
    assert bridge.close().code == 0


def test_doctor_online_spends_no_report(simulator: Simulator, tmp_path: Path) -> None:
    """The upstream is seen, its clock compared, and it has met neither a key nor a report."""
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef\n")
    key.chmod(0o600)
    url = simulator.start()
    ended = bare("doctor", "--online", "--json", "--url", url, "--key-file", str(key))
    found = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert found["upstream"]["status"] == "ok"
    assert found["skew"]["status"] == "ok"
    assert "0123456789abcdef" not in ended.stdout + ended.stderr
    simulator.stop()
    ended = bare("doctor", "--online", "--json", "--url", url)
    assert ended.returncode == 1
    found = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert found["upstream"]["status"] == "failed"


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    """An export draws its progress on a terminal, takes it away again, and leaves the output alone."""
    ledger = make_ledger(tmp_path / "ledger.sqlite3")
    add_reports(ledger, *({"task_id": n, "recorded_wall": START + n} for n in range(1, 40)))
    master, slave = pty.openpty()
    words = ["history", "export", "--ledger", str(ledger)]
    ended = subprocess.run(
        [*BRIDGE, *words],
        env={"PYTHONPATH": str(ROOT), "TERM": "xterm", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
        timeout=PATIENCE_S,
        check=True,
    )
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "exporting" in shown
    assert "100%" in shown
    assert shown.endswith("\r")
    assert len(ended.stdout.splitlines()) == 40
    assert bare(*words).stderr == ""


@pytest.mark.parametrize("kind", ["python", "shell"])
def test_snippets_run_as_printed(kind: str, tmp_path: Path) -> None:
    """What is printed is saved and run, and the report is accepted."""
    script = tmp_path / "script"
    script.write_text(render_snippet(kind, BRIDGE, str(ROOT)))
    ended = subprocess.run(
        [sys.executable if kind == "python" else "/bin/sh", str(script)],
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("accepted") == (1 if kind == "python" else 4)
    assert set(SNIPPETS) >= {kind}
