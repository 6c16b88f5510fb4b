"""The ledger over real files that fill up, lock, break, vanish and cannot be written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.core.model import Ending, Look, Window
from bridge.engine import Engine
from bridge.ledger import sqlite_file
from bridge.ledger.port import Unavailable
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.writer import Ledger as Writer
from bridge.reports.pauses import PausePolicy
from tests.ledgers import open_file
from tests.shaky_store import METHOD, OK, OTHER_METHOD, claim, record, task

PATIENCE_S = 30.0
BUSY_S = 0.2


def open_store(path: str | None, pauses: bool = False, instance: str | None = None) -> SqliteStore:
    """The real store, with pauses off unless they are what is tested."""
    return SqliteStore(
        path,
        policy=PausePolicy("machine", enabled=pauses),
        boot_clock=time.monotonic,
        wall_clock=time.time,
        busy_s=BUSY_S,
        instance=instance,
    )


class Ledger:
    """A ledger over a file in a folder of its own, on the real engine."""

    def __init__(self, path: Path, require: bool = False, pauses: bool = False) -> None:
        self.path = path
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.errors: list[BaseException] = []
        self.engine = Engine(self.errors.append)
        self.writer = Writer(
            self.engine,
            lambda name: open_store(str(path), pauses, name),
            lambda name: open_store(None, pauses, name),
            require=require,
            on_event=lambda name, fields: self.events.append((name, fields)),
            on_error=lambda reference, error: self.errors.append(error),
            retry_s=0.05,
        )
        self.writer.wait_until_open()
        self.account = self.writer.account("k" * 32)

    def claim(self, number: int, method: str = METHOD, account: str | None = None) -> Any:
        asked = claim(number, method, account=account or self.account)
        return self.writer.call(asked._replace(window=Window(None, self.writer.now())))

    def record(self, number: int, ending: Ending | None = OK, **fields: Any) -> Any:
        return self.writer.call(record(number, ending, self.account, **fields))

    def close(self) -> bool:
        return self.writer.close(self.engine.now() + PATIENCE_S)

    def wait(self, is_so: Callable[[Mapping[str, Any]], bool]) -> None:
        """Wait until the status is as it should be."""
        ends = time.monotonic() + PATIENCE_S
        while not is_so(self.writer.status()):
            assert time.monotonic() < ends, self.writer.status()
            self.engine.sleep(0.01)

    def wait_healthy(self) -> None:
        """Wait until the ledger is well, and has said so if it had said that it was not."""
        self.wait(
            lambda status: status["healthy"] and not status["owed"] and self.states[-1:] in ([], ["ok"])
        )

    @property
    def states(self) -> list[str]:
        return [fields["state"] for name, fields in self.events if "state" in fields]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private folder for the ledger."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    """A healthy ledger with report 1 accepted in it."""
    made = Ledger(folder / "ledger.db")
    assert (made.claim(1).status, made.record(1).durable) == ("new", True)
    yield made
    assert made.close()
    assert made.errors == []


def outcome_in(path: Path, number: int) -> tuple[str, str | None] | None:
    """State and outcome in the file, seen from outside."""
    connection = open_file(path)
    try:
        found = connection.execute(
            "SELECT state, outcome FROM reports WHERE task_id = ? AND current = 1", (number,)
        ).fetchone()
    finally:
        connection.close()
    return None if found is None else (found[0], found[1])


# --- pauses ---------------------------------------------------------------------------------------


def test_refused_key_stays_refused_while_the_ledger_is_locked(folder: Path) -> None:
    """The pause that a refusal opened holds though the ledger cannot be asked about it."""
    ledger = Ledger(folder / "ledger.db", pauses=True)
    refusal = Ending("refused", 1, "key_refused")
    assert ledger.claim(1).gate.status == "begun"
    recorded = ledger.record(1, refusal, has_status=True, has_verdict=True, pause="key_refused")
    (opened,) = [e.state for e in recorded.events if e.name == "pause_opened"]
    holder = open_file(ledger.path)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        claimed = ledger.claim(2)
        assert (claimed.gate.status, claimed.guarded, claimed.durable) == ("paused", False, False)
        assert claimed.gate.pause == opened
        assert ledger.claim(3, account="b" * 32).gate.status == "begun"
    finally:
        holder.close()
        assert ledger.close()


# --- locked --------------------------------------------------------------------------------------

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def stopped_holder(ledger: Ledger) -> Iterator[subprocess.Popen[str]]:
    """A process that was stopped while it holds the ledger's lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ledger.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        os.kill(holder.pid, signal.SIGSTOP)
        yield holder
        os.kill(holder.pid, signal.SIGCONT)
        holder.kill()


def test_lock_of_a_stopped_process_does_not_stop_the_reports(
    ledger: Ledger, stopped_holder: subprocess.Popen[str]
) -> None:
    """Reports go on unguarded while somebody sits on the lock, and are written when it is let go."""
    claimed = ledger.claim(2)
    assert (claimed.status, claimed.durable, claimed.guarded) == ("new", False, False)
    recorded = ledger.record(2)
    assert (recorded.status, recorded.durable) == ("ok", False)
    known = ledger.claim(1)
    assert (known.status, known.durable) == ("known", False)
    assert ledger.writer.status()["state"] == "locked"
    os.kill(stopped_holder.pid, signal.SIGCONT)
    stopped_holder.kill()
    ledger.wait_healthy()
    assert outcome_in(ledger.path, 2) == ("done", "accepted")
    assert ledger.states == ["locked", "ok"]
    assert ledger.claim(3).durable


def test_outcome_under_a_foreign_lock_is_owed(ledger: Ledger) -> None:
    """A report begun before the lock keeps its row and gets its outcome after it."""
    ledger.claim(2)
    other = open_file(ledger.path)
    other.execute("BEGIN EXCLUSIVE")
    assert ledger.record(2).durable is False
    assert other.execute("SELECT state FROM reports WHERE task_id = 2").fetchone() == ("sending",)
    other.execute("ROLLBACK")
    other.close()
    ledger.wait_healthy()
    assert outcome_in(ledger.path, 2) == ("done", "accepted")


# --- full ----------------------------------------------------------------------------------------

FILLED = """
import json, os, resource, signal, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[2])
from tests.contract.test_ledger_trouble import Ledger, OTHER_METHOD, PATIENCE_S, outcome_in

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
ledger = Ledger(path)
ledger.claim(1), ledger.record(1)
# No file of this process may grow: what a full disk and a quota do.
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path).st_size, hard))
number = 1
while ledger.writer.status()["healthy"]:
    number += 1
    claimed, recorded = ledger.claim(number), ledger.record(number)
    assert number < 5000
told = {
    "state": ledger.writer.status()["state"],
    "claimed": [claimed.status, claimed.guarded],
    "recorded": [recorded.status, recorded.durable],
    "known": [ledger.claim(1).status, ledger.claim(1).durable],
    "conflict": ledger.claim(1, OTHER_METHOD).status,
    "owed": ledger.claim(number).status,
}
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
ledger.wait_healthy()
assert ledger.close()
told["written"] = all(outcome_in(path, n) == ("done", "accepted") for n in range(1, number + 1))
told["states"] = ledger.states
told["errors"] = [repr(error) for error in ledger.errors]
print(json.dumps(told))
"""


def test_full_disk_is_read_and_paid_when_there_is_room(folder: Path) -> None:
    """A ledger that cannot grow still guards; what it could not take is written when it can."""
    if sys.platform == "win32":  # pragma: no cover - no such limit there
        return
    done = subprocess.run(
        [sys.executable, "-c", FILLED, str(folder / "ledger.db"), json.dumps(sys.path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["errors"] == []
    assert told["state"] == "full"
    assert told["recorded"] == ["ok", False]
    assert told["claimed"][1] is True
    assert told["known"] == ["known", True]
    assert (told["conflict"], told["owed"]) == ("conflict", "known")
    assert told["written"]
    assert told["states"] == ["full", "ok"]


# --- read-only -----------------------------------------------------------------------------------


def test_read_only_file_guards_and_is_written_once_it_may_be(folder: Path) -> None:
    """A file whose mode forbids writing is read, and opened again when the mode is mended."""
    path = folder / "ledger.db"
    first = Ledger(path)
    first.claim(1)
    first.record(1)
    assert first.close()
    path.chmod(0o400)
    ledger = Ledger(path)
    known = ledger.claim(1)
    assert (known.status, known.durable) == ("known", True)
    claimed = ledger.claim(2)
    assert (claimed.status, claimed.durable, claimed.guarded) == ("new", False, True)
    assert ledger.record(2).durable is False
    assert ledger.writer.status()["state"] == "readonly"
    path.chmod(0o600)
    ledger.wait_healthy()
    assert outcome_in(path, 2) == ("done", "accepted")
    assert ledger.states == ["readonly", "ok"]
    assert ledger.close()
    assert ledger.errors == []


def test_required_ledger_refuses_while_it_is_read_only(folder: Path) -> None:
    """With a required ledger a new report is refused, and a known one is still replayed."""
    path = folder / "ledger.db"
    first = Ledger(path)
    first.claim(1)
    first.record(1)
    assert first.close()
    path.chmod(0o400)
    ledger = Ledger(path, require=True)
    assert isinstance(ledger.claim(2), Unavailable)
    assert ledger.claim(1).status == "known"
    assert ledger.close()


# --- damaged -------------------------------------------------------------------------------------


def test_damaged_file_at_the_start_means_memory(folder: Path) -> None:
    """A file that is no ledger leaves the reports unguarded, and is not touched."""
    path = folder / "ledger.db"
    path.write_bytes(b"not a ledger" * 1000)
    path.chmod(0o600)
    before = path.read_bytes()
    ledger = Ledger(path)
    claimed = ledger.claim(1)
    assert (claimed.status, claimed.durable, claimed.guarded) == ("new", False, False)
    assert ledger.record(1).durable is False
    assert ledger.writer.status()["state"] == "corrupt"
    assert [name for name, _ in ledger.events] == ["ledger_memory"]
    assert path.read_bytes() == before
    path.unlink()
    ledger.wait_healthy()
    assert outcome_in(path, 1) == ("done", "accepted")
    assert ledger.account.encode() not in path.read_bytes()
    assert ledger.claim(1).row.task.account == ledger.account
    assert ledger.close()
    assert ledger.errors == []


@pytest.fixture
def _rollback_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page is in the file; a write-ahead log would hold them all, and damage would not be met."""
    monkeypatch.setattr(sqlite_file, "JOURNAL", "truncate")


@pytest.mark.usefixtures("_rollback_journal")
def test_file_damaged_under_way_is_bridged(ledger: Ledger) -> None:
    """A ledger that breaks in the middle costs durability, not the report."""
    ledger.claim(2)
    size = ledger.path.stat().st_size
    with ledger.path.open("r+b") as file:
        file.write(os.urandom(size))
    assert ledger.record(2).status == "ok"
    claimed = ledger.claim(3)
    assert claimed.status == "new"
    assert ledger.record(3).status == "ok"
    known = ledger.claim(1)
    assert (known.status, known.durable) == ("known", False)
    ledger.path.unlink()
    for suffix in ("-journal", "-wal", "-shm"):
        Path(str(ledger.path) + suffix).unlink(missing_ok=True)
    ledger.wait_healthy()
    assert outcome_in(ledger.path, 2) == ("done", "accepted")
    assert outcome_in(ledger.path, 3) == ("done", "accepted")


# --- deleted and replaced ------------------------------------------------------------------------


def test_deleted_file_is_made_anew_with_what_is_known(ledger: Ledger) -> None:
    """Deleting the ledger costs neither what is under way nor what this bridge knows to be over."""
    ledger.claim(2)
    ledger.path.unlink()
    recorded = ledger.record(2)
    assert recorded.status == "ok"
    ledger.wait_healthy()
    assert outcome_in(ledger.path, 2) == ("done", "accepted")
    assert outcome_in(ledger.path, 1) == ("done", "accepted")
    assert ledger.claim(1).status == "known"
    assert ledger.claim(3).durable
    assert ledger.states == ["replaced", "ok"]


def test_replaced_file_is_written_from_now_on(ledger: Ledger, folder: Path) -> None:
    """A ledger put in the place of ours becomes ours, its secret and knowledge included."""
    other = Ledger(folder / "other.db")
    other.claim(7)
    other.record(7)
    assert other.close()
    ledger.claim(2)
    os.replace(folder / "other.db", ledger.path)
    assert ledger.record(2).status == "ok"
    ledger.wait_healthy()
    assert outcome_in(ledger.path, 2) == ("done", "accepted")
    known = ledger.claim(7)
    assert (known.status, known.durable, known.row.task.account) == ("known", True, ledger.account)
    found = ledger.writer.call(Look(task(7, ledger.account)))
    assert found.task.account == ledger.account


def test_folder_that_cannot_be_had_means_memory_until_it_can(tmp_path: Path) -> None:
    """A ledger whose folder is a file is made as soon as the folder can be."""
    folder = tmp_path / "state"
    folder.write_text("in the way")
    ledger = Ledger(folder / "ledger.db")
    assert ledger.claim(1).durable is False
    assert ledger.record(1).durable is False
    folder.unlink()
    folder.mkdir(mode=0o700)
    ledger.wait_healthy()
    assert outcome_in(folder / "ledger.db", 1) == ("done", "accepted")
    assert ledger.close()


# --- everything at once --------------------------------------------------------------------------


def test_service_keeps_answering_while_the_lock_comes_and_goes(ledger: Ledger) -> None:
    """Under changing locks every report is answered once, and all are in the ledger at the end."""
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set():
            connection = open_file(ledger.path)
            try:
                connection.execute("BEGIN EXCLUSIVE")
                over.wait(2 * BUSY_S)
                connection.execute("ROLLBACK")
            finally:
                connection.close()
            over.wait(0.05)

    other = threading.Thread(target=disturb)
    other.start()
    statuses = []
    for number in range(100, 160):
        statuses.append(ledger.claim(number).status)
        statuses.append(ledger.record(number).status)
    over.set()
    other.join(PATIENCE_S)
    ledger.wait_healthy()
    assert statuses == ["new", "ok"] * 60
    assert {outcome_in(ledger.path, n) for n in range(100, 160)} == {("done", "accepted")}
    assert ledger.claim(100, OTHER_METHOD).status == "conflict"
