"""Two versions of the program on one ledger: the next one is this one with a further migration of its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.ledger.sqlite_file import VERSION
from bridge.simulator import Simulator
from tests.e2e.talk import IMAGE, KEY
from tests.process import ROOT, BridgeProcess

NEXT = """
MIGRATIONS = (*MIGRATIONS, "next.sql")
VERSION = len(MIGRATIONS)
"""

Start = Callable[..., BridgeProcess]


@pytest.fixture
def next_version(tmp_path: Path) -> Path:
    """A folder with the next version of the program: its ledger has one table more."""
    place = tmp_path / "next"
    shutil.copytree(ROOT / "bridge", place / "bridge", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "schemas", place / "bridge" / "schemas")
    (place / "bridge" / "ledger" / "next.sql").write_text(
        "CREATE TABLE what_comes_next (id INTEGER) STRICT;\n"
    )
    with (place / "bridge" / "ledger" / "sqlite_file.py").open("a") as module:
        module.write(NEXT)
    return place


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where the ledger of this test lies."""
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def start(bridge_process: Start, simulator: Simulator, ledger: Path) -> Start:
    """Start a bridge on the ledger of this test, of the version in a folder."""

    def start(version: Path = ROOT) -> BridgeProcess:
        environ = {"PYTHONPATH": str(version), "ANTICAPTCHA_CLIENT_KEY": KEY}
        # From a folder without sources, so that the version is the one that was named.
        return bridge_process(
            "--url", simulator.base_url, "--ledger", str(ledger), environ=environ, cwd=ledger.parent
        )

    return start


def report(bridge: BridgeProcess, task_id: int) -> dict[str, Any]:
    """Report a task and return the result."""
    answer = bridge.call(IMAGE, {"taskId": task_id})
    result: dict[str, Any] = answer["result"]
    return result


def version_of(ledger: Path) -> int:
    """The version that stands in the file."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_next_version_takes_an_older_ledger_along(
    start: Start, ledger: Path, next_version: Path, simulator: Simulator
) -> None:
    """What the older version reported is known to the next one, which brings the file up to date."""
    old = start()
    assert report(old, 1)["durable"] is True
    assert old.close().code == 0
    assert version_of(ledger) == VERSION
    new = start(next_version)
    assert report(new, 1)["replayed"] is True
    assert report(new, 2)["durable"] is True
    assert new.close().code == 0
    assert version_of(ledger) == VERSION + 1
    assert len(simulator.log()) == 2


def test_older_version_reads_a_newer_ledger_and_says_so(
    start: Start, ledger: Path, next_version: Path, simulator: Simulator
) -> None:
    """It answers from what is there, reports without it, and every place where it can be seen says why."""
    new = start(next_version)
    report(new, 1)
    assert new.close().code == 0
    before = ledger.read_bytes()
    old = start()
    assert report(old, 1)["replayed"] is True
    second = report(old, 2)
    assert (second["outcome"], second["durable"]) == ("accepted", False)
    assert old.call("bridge.status")["result"]["ledger"]["state"] == "newer"
    ended = old.close()
    assert "newer version" in next(
        event["sentence"] for event in ended.events if event["event"] == "ledger_degraded"
    )
    assert version_of(ledger) == VERSION + 1
    assert ledger.read_bytes() == before
    assert len(simulator.log()) == 2


def test_two_versions_at_once_send_each_report_once(
    start: Start, ledger: Path, next_version: Path, simulator: Simulator
) -> None:
    """An older bridge goes on while a next one brings its ledger up to date; no report is sent twice."""
    old = start()
    report(old, 1)
    new = start(next_version)
    assert report(new, 1)["replayed"] is True
    assert report(new, 2)["durable"] is True
    assert version_of(ledger) == VERSION + 1
    assert report(old, 2)["replayed"] is True
    assert report(old, 3)["durable"] is True
    assert report(new, 3)["replayed"] is True
    assert old.close().code == 0
    assert report(new, 4)["durable"] is True
    assert new.close().code == 0
    assert len(simulator.log()) == 4
