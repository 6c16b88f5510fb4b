"""The commands and grants of the fleet page are run as they stand there, but for the names of its servers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from bridge.simulator import Simulator
from tests.fleet import IMAGE, KEY, Fleet, Ledger, code_of, prove
from tests.pgserver import PgServer
from tests.process import ROOT, BridgeProcess, Ended

PAGE: Final = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
ADDRESS: Final = r"postgresql://(\w+)@db\.example/bridge"
Start = Callable[..., BridgeProcess]


@pytest.fixture
def fleet(bridge_process: Start, simulator: Simulator, pg_server: PgServer, tmp_path: Path) -> Fleet:
    """Start bridges on machines of their own, on the empty ledger of this test."""
    return Fleet(bridge_process, simulator, Ledger(pg_server), tmp_path)


def lines_of(title: str, start: str) -> list[str]:
    """The lines of a part of the page's blocks that begin so, without comments."""
    part = re.split(r"(?m)^#+ ", PAGE.split(f"{title}\n", 1)[1])[0]
    found = [line.strip().partition("#")[0].strip() for line in part.splitlines() if line.startswith("    ")]
    return [line for line in found if line.startswith(start)]


def run(fleet: Fleet, start: Start, line: str, home: Path) -> Ended:
    """Run a command of the page to its end, on the ledger of the test."""
    ledger = fleet.ledger
    role = {"owner": "postgres", "bridge": "bridge"}
    named = re.sub(ADDRESS, lambda found: ledger.server.url(ledger.database, role=role[found[1]]), line)
    words = shlex.split(named.replace("~/", f"{home}/"))[1:]
    if words[0] != "ledger":
        words += ["--url", fleet.simulator.base_url]
    return start(*words, home=home, cwd=home, environ={"ANTICAPTCHA_CLIENT_KEY": KEY}).close()


def test_drawing_names_the_tables(fleet: Fleet) -> None:
    """What the drawing says is in the schema is there, and nothing else."""
    prove(fleet.start())
    drawing = PAGE.split("schema report_bridge:\n", 1)[1].split("\n\n", 1)[0]
    asked = "SELECT tablename FROM pg_tables WHERE schemaname = 'report_bridge'"
    tables = {name for (name,) in fleet.ledger.select(asked)}
    assert {name.strip() for name in drawing.replace("\n", " ").split(",")} == tables


def test_set_up_of_the_page_works(fleet: Fleet, bridge_process: Start, tmp_path: Path) -> None:
    """The owner makes the tables, and the command of every bridge finds them after the grants."""
    migrate, serve = lines_of("## Set up", "report-bridge")
    done = run(fleet, bridge_process, migrate, tmp_path)
    assert (done.code, done.stderr) == (0, "")
    grants = lines_of("### Privileges", "GRANT")
    fleet.ledger.server.sql(*grants, database=fleet.ledger.database)
    done = run(fleet, bridge_process, serve, tmp_path)
    assert (done.code, [event["event"] for event in done.events]) == (0, ["empty_input"])
    prove(fleet.start())


def test_ledger_moves_by_the_commands_of_the_page(
    fleet: Fleet, bridge_process: Start, tmp_path: Path
) -> None:
    """What was reported with a file is known on the server, and after the way back in the file."""
    there, back = lines_of("## Moving", "report-bridge")
    words = ("--url", fleet.simulator.base_url, "--no-parent-watch")
    environ = {"ANTICAPTCHA_CLIENT_KEY": KEY}
    bridge = bridge_process(*words, home=tmp_path, environ=environ)
    prove(bridge)
    bridge.close()
    assert run(fleet, bridge_process, there, tmp_path).code == 0
    assert fleet.ledger.count("outcome = 'accepted'") == 1
    assert run(fleet, bridge_process, back, tmp_path).code == 0
    bridge = bridge_process(
        *words, "--ledger", "ledger.sqlite3", home=tmp_path, environ=environ, cwd=tmp_path
    )
    assert bridge.call(IMAGE, {"taskId": 1})["result"]["replayed"] is True


def test_bridge_works_with_the_privileges_of_the_page(
    fleet: Fleet, bridge_process: Start, tmp_path: Path
) -> None:
    """The owner migrates and grants what the page says; a bridge of the restricted role does all it does."""
    ledger, simulator = fleet.ledger, fleet.simulator
    server, role = ledger.server, f"restricted_{ledger.database}"
    server.sql(f"CREATE ROLE {role} LOGIN")
    guest = server.url(ledger.database, role=role)
    before = fleet.start(url=guest)
    assert before.call(IMAGE, {"taskId": 1})["result"]["durable"] is False
    assert "ledger migrate" in before.call("bridge.status")["result"]["ledger"]["message"]
    before.kill()
    words = ["ledger", "migrate", "--ledger", server.url(ledger.database)]
    migrated = bridge_process(*words, home=tmp_path).close()
    assert (migrated.code, "Traceback" in migrated.stderr) == (0, False), migrated
    grants = lines_of("### Privileges", "GRANT")
    assert len(grants) >= 3
    grants = [text.replace(" TO bridge;", f" TO {role}") for text in grants]
    # As the page says, this part of them may be left out.
    server.sql(*grants, f"REVOKE UPDATE ON report_bridge.events FROM {role}", database=ledger.database)
    one, two = (fleet.start(url=guest, machine=name) for name in ("one", "two"))
    prove(one, 2)
    assert two.call(IMAGE, {"taskId": 2})["result"]["replayed"] is True
    simulator.add_fault("error", error_id=16, task_id=3)
    assert code_of(two.call(IMAGE, {"taskId": 3})) != 0
    assert len(one.call("bridge.listReports")["result"]["reports"]) == 2
    # A session of the same role that hangs may be ended by the next one of the same bridge.
    server.drop_connections(ledger.database)
    prove(one, 4)
    for bridge in (one, two):
        assert bridge.close().events == []
