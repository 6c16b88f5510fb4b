"""Tests of `bridge.cli.doctor`: each fault is found, has a fix, and no secret is shown."""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import doctor
from bridge.cli.version import PACKAGES
from bridge.core.model import Exchange
from tests.ledgers import make_ledger, open_file
from tests.unit.conftest import Run

KEY = "0123456789abcdef0123456789abcdef"
Find = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.fixture
def find(run: Run) -> Find:
    """Run the doctor and return its checks by name."""

    def find_checks(*words: str) -> dict[str, list[dict[str, Any]]]:
        code, out, _ = run("doctor", "--json", *words)
        told = json.loads(out)
        assert code == (0 if told["ok"] else 1)
        assert told["ok"] == all(check["status"] != "failed" for check in told["checks"])
        assert all((check["fix"] is None) == (check["status"] == "ok") for check in told["checks"])
        found: dict[str, list[dict[str, Any]]] = {}
        for check in told["checks"]:
            found.setdefault(check["name"], []).append(check)
        return found

    return find_checks


def statuses(found: dict[str, list[dict[str, Any]]], name: str) -> list[str]:
    """How the checks of one name ended."""
    return [check["status"] for check in found[name]]


def test_a_fresh_installation_is_sound(run: Run) -> None:
    """Without key and ledger there is something to look at, but nothing has failed."""
    code, out, _ = run("doctor")
    assert code == 0
    assert "fix:" in out
    assert "0 failed" in out
    assert out.isascii()


def test_a_key_is_read_and_never_shown(find: Find, run: Run, tmp_path: Path) -> None:
    """A good key is fine, a file that others may read is a warning, and the key is in no output."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    assert statuses(find("--key-file", str(file)), "key") == ["ok"]
    file.chmod(0o644)
    assert statuses(find("--key-file", str(file)), "key") == ["warning"]
    assert KEY not in "".join(map(str, run("doctor", "--key-file", str(file))))


@pytest.mark.parametrize("text", ["short", f"{KEY} ", "\N{SNOWMAN}" * 20, ""])
def test_what_is_no_key_fails(find: Find, tmp_path: Path, text: str) -> None:
    """A source that gives no key is a failure that repeats none of it."""
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    (check,) = find("--key-file", str(file))["key"]
    assert check["status"] == "failed"
    assert not text or text not in check["message"]


def test_a_key_command_that_fails_is_found(find: Find) -> None:
    """The command is run, and its end is told."""
    assert statuses(find("--key-command", "false"), "key") == ["failed"]
    assert statuses(find("--key-command", f"echo {KEY}"), "key") == ["ok"]


def test_settings_that_cannot_be_used_fail(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad setting is a failed check, and the other checks still run."""
    monkeypatch.setenv("REPORT_BRIDGE_CONCURRENCY", "many")
    found = find()
    assert statuses(found, "settings") == ["failed"]
    assert "python" in found
    assert "ledger" not in found


def test_unknown_variables_are_warnings(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable with our prefix that is no setting is named, with the nearest one."""
    monkeypatch.setenv("REPORT_BRIDGE_CONCURENCY", "3")
    assert "REPORT_BRIDGE_CONCURRENCY" in find()["settings"][1]["fix"]


def test_a_missing_ledger_is_fine_and_not_made(find: Find, tmp_path: Path) -> None:
    """The first report makes it; the doctor does not."""
    assert statuses(find("--ledger", str(tmp_path / "a" / "b.sqlite3")), "ledger") == ["ok"]
    assert list(tmp_path.iterdir()) == []


def test_a_healthy_ledger_is_told(find: Find, tmp_path: Path) -> None:
    """Size, journal and integrity are named."""
    found = find("--ledger", str(make_ledger(tmp_path / "l")))
    assert [statuses(found, name) for name in ("ledger", "sqlite", "integrity")] == [["ok"], ["ok"], ["ok"]]


def test_loose_modes_are_a_warning(find: Find, tmp_path: Path) -> None:
    """A ledger that others may open is named with the command that mends it."""
    path = make_ledger(tmp_path / "l")
    path.chmod(0o644)
    assert find("--ledger", str(path))["ledger"][1]["fix"] == f"chmod 600 {path}"


def test_a_locked_ledger_fails(find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that somebody holds locked cannot be written, and that is said."""
    path = make_ledger(tmp_path / "l")
    holder = open_file(path)
    holder.execute("BEGIN IMMEDIATE")
    (check,) = find("--ledger", str(path))["ledger"]
    holder.close()
    assert check["status"] == "failed"
    assert "locked" in check["fix"]


def test_a_damaged_ledger_fails(find: Find, tmp_path: Path) -> None:
    """Bytes that are no ledger are found."""
    path = tmp_path / "l"
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    assert statuses(find("--ledger", str(path)), "ledger") == ["failed"]


def test_a_newer_ledger_fails(find: Find, tmp_path: Path) -> None:
    """A file of a newer version is told apart from a broken one."""
    path = make_ledger(tmp_path / "l")
    connection = open_file(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer" in find("--ledger", str(path))["ledger"][0]["message"]


def test_two_commands_on_path_are_a_warning(tmp_path: Path) -> None:
    """Several different commands of one name are listed, and the one that is taken is named."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        command = tmp_path / name / "report-bridge"
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
    path = os.pathsep.join(str(tmp_path / name) for name in ("a", "b"))
    (check,) = doctor.check_commands({"PATH": path})
    assert check.status == "warning"
    assert str(tmp_path / "a") in str(check.fix)
    (check,) = doctor.check_commands({"PATH": str(tmp_path / "a")})
    assert check.status == "ok"
    first, *_ = doctor.check_commands({"PATH": "", "REPORT_BRIDGE_BIN": str(tmp_path / "none")})
    assert first.status == "failed"


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not there is named."""
    monkeypatch.setattr(doctor, "PACKAGES", ("requests", "no_such_package"))
    assert [check.status for check in doctor.check_python()] == ["ok", "failed"]


def test_every_package_that_the_bridge_cannot_do_without_is_looked_for() -> None:
    """Doctor asks for all dependencies but those that only some machines have."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    needed = {re.split(r"[<>=]", line)[0] for line in project["dependencies"] if ";" not in line}
    assert set(PACKAGES) == needed


def test_a_clock_in_the_past_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock before the installation cannot be right."""
    monkeypatch.setattr(time, "time", lambda: 1e9)
    assert doctor.check_date().status == "failed"


@pytest.fixture
def sight(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """What the doctor will see of the upstream."""
    seen: list[Exchange] = []
    monkeypatch.setattr("bridge.upstream.client.Client.send", lambda *args, **kwargs: seen[0])
    return seen


@pytest.mark.parametrize(
    "failure", ["dns", "connect", "tls", "certificate", "proxy", "reset", "timeout", "cut"]
)
def test_every_failure_of_the_upstream_has_a_fix(find: Find, sight: list[Exchange], failure: str) -> None:
    """Each step that can fail is named with what to do."""
    sight.append(Exchange(failure, failure in ("reset", "timeout", "cut"), elapsed_s=0.1))
    (check,) = find("--online")["upstream"]
    assert check["status"] == "failed"
    assert check["fix"]


@pytest.mark.parametrize(("ahead_s", "status"), [(0.0, "ok"), (70.0, "warning"), (-70.0, "warning")])
def test_the_skew_is_told(find: Find, sight: list[Exchange], ahead_s: float, status: str) -> None:
    """A clock that is off by more than 2 s is a warning that says in which direction."""
    date = formatdate(time.time() - ahead_s, usegmt=True)
    sight.append(Exchange(None, True, 405, {"date": date}))
    (check,) = find("--online")["skew"]
    assert check["status"] == status
    assert (ahead_s > 0) == ("ahead" in check["message"])


@pytest.mark.parametrize("date", ["", "nonsense"])
def test_an_upstream_without_a_date_is_told(find: Find, sight: list[Exchange], date: str) -> None:
    """Where the upstream tells no time that can be read, the skew is not known, and the doctor says so."""
    sight.append(Exchange(None, True, 200, {"date": date} if date else {}))
    (check,) = find("--online")["skew"]
    assert (check["status"], "no date" in check["message"]) == ("warning", True)


def test_without_online_nothing_is_asked(find: Find) -> None:
    """The network is left alone unless asked for."""
    assert "upstream" not in find()
