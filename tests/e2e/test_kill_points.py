"""One report, killed at every point where something becomes lasting or leaves the process.

Proves the order of things: the intent is committed before the first byte leaves, and the outcome
before the answer. ``scripts/soak_strace.py`` does the same at the level of system calls.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.simulator import Simulator
from tests.e2e.killjudge import Ask, Told, judge_task
from tests.e2e.killloop import IMAGE
from tests.process import BridgeProcess
from tests.world import scratch_directory

AT_ONCE = 3
NO_KEY = "z" * 32

PROGRAM = '''
import os, signal, socket, sys

import apsw

from bridge.ledger import sqlite_file

fatal, notes = os.environ.pop("KILL_AT"), os.environ.pop("KILL_NOTES")
note = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
sys.argv = ["report-bridge", *sys.argv[3:]]
write, reached, waiting = os.write, {}, [True]

def point(name):
    """Note that this point is reached, and die if it is the one to die at."""
    if waiting[0]:
        return
    reached[name] = reached.get(name, 0) + 1
    name = f"{name} {reached[name]}"
    write(note, name.encode() + b"\\n")
    if name == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

class Cursor(apsw.Cursor):
    def execute(self, statement, *values, **named):
        words = statement.split()
        name = words[0] if words else ""
        if name in ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"):
            point(f"before {name}")
        result = super().execute(statement, *values, **named)
        if name == "COMMIT":
            point("after COMMIT")
        return result

class Connection(sqlite_file.Connection):
    def __init__(self, *words, **named):
        super().__init__(*words, **named)
        self.cursor_factory = Cursor

sqlite_file.Connection = Connection

def surround(name, owner=socket.socket):
    inner = getattr(owner, name)
    def outer(self, *words):
        point(f"before {name}")
        if name == "send_all":
            half = len(words[0]) // 2
            inner(self, words[0][:half], *words[1:])
            point("half sent")
            words = (words[0][half:], *words[1:])
        result = inner(self, *words)
        point(f"after {name}")
        return result
    setattr(owner, name, outer)

for name in ("connect_ex", "recv", "recv_into"):
    surround(name)

from bridge.upstream import client as _loads_everything_first
from bridge.upstream.streams import SocketStream
surround("send_all", SocketStream)  # here it is sent in two halves

def write_and_die(descriptor, data):
    if len(data) == 1:  # wakes a thread, tells nobody
        return write(descriptor, data)
    point("before write")
    sent = write(descriptor, data)
    point("after write")
    return sent

os.write = write_and_die
if "fresh" in sys.argv:
    sys.argv.remove("fresh")
    waiting[0] = False
else:
    # Count from the report on.
    read = os.read
    def read_and_begin(descriptor, size):
        data = read(descriptor, size)
        if b"taskId" in data:
            waiting[0] = False
        return data
    os.read = read_and_begin

from bridge.cli.main import main
sys.exit(main())
'''


class Death(NamedTuple):
    """What was left after a bridge died at one point."""

    nth: int
    passed: list[str]
    """The points it came to, in order."""
    died: bool
    row: tuple[Any, ...] | None
    calls: list[dict[str, Any]]
    told: list[Told]


class Scene:
    """One ledger, one upstream; every death has a task and a key of its own."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self.folder = folder
        self.simulator = simulator
        self.ledger = folder / "ledger.db"

    def die(self, nth: int, point: str, *words: str, ledger: Path | None = None) -> Death:
        """Report a task in a bridge that dies at a point."""
        path = ledger or self.ledger
        notes = self.folder / f"points-{nth}"
        environ = {"KILL_AT": point, "KILL_NOTES": str(notes), "ANTICAPTCHA_CLIENT_KEY": self.key(nth)}
        told = []
        with BridgeProcess(
            *self.words(path),
            *words,
            home=self.folder,
            environ=environ,
            python=(sys.executable, "-c", PROGRAM),
        ) as bridge:
            if "fresh" not in words:
                bridge.call("bridge.listReports")  # waits until the ledger is open
            bridge.send_line(self.line(nth))
            line = bridge.read_line()
            if line is not None and line.endswith(b"\n"):
                told.append(self.note(nth, line))
            died = bridge.close().code == -signal.SIGKILL
        passed = notes.read_text().splitlines()
        return Death(nth, passed, died, self.find(nth, path), self.calls(nth), told)

    def recover(self, deaths: list[Death], ledger: Path | None = None) -> list[Death]:
        """Start a bridge that lives, ask again for every task, and look at everything once more."""
        path = ledger or self.ledger
        told = {death.nth: list(death.told) for death in deaths}
        with BridgeProcess(
            *self.words(path), home=self.folder, environ={"ANTICAPTCHA_CLIENT_KEY": NO_KEY}
        ) as bridge:
            for death in deaths:
                bridge.send_line(self.line(death.nth, self.key(death.nth)))
            for _ in deaths:
                line = bridge.read_line()
                assert line is not None
                one = self.note(0, line)
                told[one.ask.task_id].append(one)
            assert bridge.close().code == 0
        return [
            death._replace(row=self.find(death.nth, path), calls=self.calls(death.nth), told=told[death.nth])
            for death in deaths
        ]

    def words(self, ledger: Path) -> list[str]:
        return ["--url", self.simulator.base_url, "--ledger", str(ledger), "--no-pauses"]

    def key(self, nth: int) -> str:
        return f"{nth:032d}"

    def line(self, nth: int, key: str | None = None) -> bytes:
        named = "" if key is None else f',"clientKey":"{key}"'
        return (
            f'{{"jsonrpc":"2.0","id":{nth},"method":"{IMAGE}","params":{{"taskId":{nth},'
            f'"completedAt":{time.time() - 20:.3f}{named}}}}}'
        ).encode()

    def note(self, nth: int, line: bytes) -> Told:
        message = json.loads(line)
        return Told(Ask(nth or message["id"], IMAGE, 0.0), time.monotonic(), message)

    def calls(self, nth: int) -> list[dict[str, Any]]:
        return self.simulator.log(task_id=nth)

    def find(self, nth: int, ledger: Path) -> tuple[Any, ...] | None:
        if not ledger.exists() or not ledger.stat().st_size:
            return None
        connection = sqlite3.connect(ledger, timeout=60.0)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'reports'").fetchall():
                return None
            columns = "task_id, method, state, outcome, attempts, sends, perhaps"
            found = connection.execute(f"SELECT {columns} FROM reports WHERE task_id = ?", (nth,)).fetchone()
        finally:
            connection.close()
        return None if found is None else tuple(found)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ledger that does not exist yet, and an upstream."""
    # In memory: a process that is killed leaves the same there, and nobody waits for a disk.
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as folder, Simulator() as simulator:
        yield Scene(Path(folder), simulator)


def die_everywhere(scene: Scene, *words: str, most: int = 100, fresh: bool = False) -> list[Death]:
    """See by a bridge that lives which points there are, then die at each, or at `most` of them."""

    def die(numbered: tuple[int, str]) -> Death:
        nth, point = numbered
        ledger = scene.folder / f"fresh-{nth}" / "ledger.db" if fresh else None
        return scene.die(nth, point, *words, ledger=ledger)

    alive = die((1, "never"))
    assert not alive.died
    assert alive.told[0].code == 0
    step = 1 + len(alive.passed) // most
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [alive, *pool.map(die, enumerate(alive.passed[::step], 2))]


def check_order(death: Death) -> None:
    """What was known had been written before."""
    if death.calls:
        assert death.row is not None, f"sent before the intent was committed: {death}"
        assert death.row[2] in ("sending", "done"), f"sent before the attempt was committed: {death}"
        assert death.row[4] == 1, death
    if death.told:
        assert death.row is not None, f"answered before anything was committed: {death}"
        assert death.row[3] == death.told[0].data["outcome"], f"answered before the outcome: {death}"


def test_a_kill_at_any_point_of_a_report_breaks_no_promise(scene: Scene) -> None:
    """Wherever the process dies, what it has done is on record, and the next one ends it truthfully."""
    alive, *deaths = die_everywhere(scene)
    kinds = {name.rpartition(" ")[0] for name in alive.passed}
    assert {"before COMMIT", "after COMMIT", "before send_all", "half sent", "after write"} <= kinds
    print(f"{sum(death.died for death in deaths)} deaths: {', '.join(alive.passed)}")
    # A sweep in the middle of one report and not of the other makes a point more or less.
    assert sum(death.died for death in deaths) >= len(deaths) - 4
    for death in (alive, *deaths):
        check_order(death)
    for death in scene.recover(deaths):
        assert death.row is not None
        assert judge_task(death.row, death.calls, death.told) == [], death
        assert any(call["taken"] for call in death.calls), f"there was time, and nobody did it: {death}"


def test_a_kill_while_the_ledger_is_made_leaves_one_that_can_be_made(scene: Scene) -> None:
    """Whoever dies while making the ledger leaves nothing that stops the next one."""
    _, *deaths = die_everywhere(scene, "fresh", most=5, fresh=True)
    for death in deaths:
        assert death.died
        check_order(death)
        (after,) = scene.recover([death], ledger=scene.folder / f"fresh-{death.nth}" / "ledger.db")
        assert judge_task(after.row, after.calls, after.told) == [], after
        assert after.told[-1].data["durable"] is True
