"""The real process with a ledger in trouble: what bots are told, what stderr says, and how it heals."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from tests.process import BridgeProcess

IMAGE = "reportIncorrectImageCaptcha"
KEY = "k" * 32
UNAVAILABLE = -32031
PATIENCE_S = 60.0

LOCKER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(600)
"""

Start = Callable[..., BridgeProcess]


@pytest.fixture
def upstream() -> Iterator[Simulator]:
    """The simulated upstream."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where the ledger is, in a directory of its own."""
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def start(bridge_process: Start, upstream: Simulator, ledger: Path) -> Start:
    """Start a bridge on the ledger of this test."""

    def start_bridge(*words: str, path: Path = ledger, **kwargs: Any) -> BridgeProcess:
        common = ["--url", upstream.base_url, "--ledger", str(path), "--log-format", "json"]
        return bridge_process(*common, *words, environ={"ANTICAPTCHA_CLIENT_KEY": KEY}, **kwargs)

    return start_bridge


def ask(bridge: BridgeProcess, task_id: int) -> dict[str, Any]:
    """Report a task that was completed a moment ago; the answer's result, or its error's data."""
    answer = bridge.call(IMAGE, {"taskId": task_id, "completedAt": time.time() - 5})
    if "error" in answer:
        return {"code": answer["error"]["code"], **answer["error"]["data"]}
    result: dict[str, Any] = answer["result"]
    return {"code": 0, **result}


def kinds(answer: dict[str, Any]) -> list[str]:
    """The kinds of an answer's warnings."""
    return [warning["kind"] for warning in answer.get("warnings", ())]


def health(bridge: BridgeProcess) -> dict[str, Any]:
    """What the bridge says of its ledger."""
    told: dict[str, Any] = bridge.call("bridge.status")["result"]["ledger"]
    return told


def wait_until_healthy(bridge: BridgeProcess) -> None:
    """Wait until the ledger is in use again."""
    until = time.monotonic() + PATIENCE_S
    while not (now := health(bridge))["healthy"] or now["owed"]:
        assert time.monotonic() < until, now
        time.sleep(0.05)


def whole(path: Path, place: Path) -> bytes:
    """What a ledger that is in use would be as one file; SQLite puts it together at another place."""
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            place.with_name(place.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return place.read_bytes()


def outcomes(path: Path) -> dict[int, tuple[str, int]]:
    """What is in the file: outcome and attempts by task."""
    connection = sqlite3.connect(path, timeout=60)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT task_id, outcome, attempts FROM reports").fetchall()
    finally:
        connection.close()
    return {task_id: (outcome, attempts) for task_id, outcome, attempts in rows}


def events(stderr: str, *names: str) -> list[dict[str, Any]]:
    """The log lines of some events."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    assert not [line for line in lines if line["event"] == "internal_error"], stderr
    return [line for line in lines if line["event"] in names]


def check_story(stderr: str, state: str, says: str) -> None:
    """One sentence when the trouble began that says what to do, one when it was over, and no more."""
    told = events(stderr, "ledger_degraded", "ledger_memory", "ledger_recovered")
    assert [line["state"] for line in told] == [state, "ok"], stderr
    assert says in told[0]["message"]
    assert "\n" not in told[0]["message"]
    assert "Traceback" not in stderr


def call_trouble(bridge: BridgeProcess, upstream: Simulator, first: int, *, guarded: bool) -> None:
    """Report two tasks, and one again, while the ledger cannot be written."""
    warned = [] if guarded else ["duplicates_unguarded"]
    before = upstream.counters()["requests"]
    for task_id in (first, first + 1):
        answer = ask(bridge, task_id)
        assert (answer["code"], answer["durable"], answer["replayed"]) == (0, False, False), answer
        assert kinds(answer) == warned
    again = ask(bridge, first)
    assert (again["code"], again["durable"], again["replayed"]) == (0, False, True), again
    assert upstream.counters()["requests"] == before + 2
    assert health(bridge)["owed"] == 2


def call_health(bridge: BridgeProcess, task_id: int) -> None:
    """Report a task while all is well."""
    answer = ask(bridge, task_id)
    assert (answer["code"], answer["durable"], kinds(answer)) == (0, True, []), answer


# --- a full disk -----------------------------------------------------------------------------


if hasattr(resource, "prlimit"):  # Linux: limits of another process

    @contextmanager
    def limited(bridge: BridgeProcess) -> Iterator[None]:
        """Let no file of a process grow or be written beyond its first page."""
        _, hard = resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (4096, hard))
        yield
        resource.prlimit(bridge.pid, resource.RLIMIT_FSIZE, (hard, hard))

    def test_a_quota_costs_durability_and_no_report(upstream: Simulator, start: Start, ledger: Path) -> None:
        """Past a limit on file sizes reports go on undurably, and what is owed is written afterwards."""
        bridge = start()
        call_health(bridge, 1)
        with limited(bridge):
            call_trouble(bridge, upstream, 2, guarded=True)
            replayed = ask(bridge, 1)
            assert (replayed["code"], replayed["replayed"]) == (0, True)
        wait_until_healthy(bridge)
        call_health(bridge, 4)
        assert outcomes(ledger) == {task_id: ("accepted", 1) for task_id in (1, 2, 3, 4)}
        check_story(bridge.close().stderr, "full", "free some space")

    def test_with_require_ledger_a_full_one_refuses(upstream: Simulator, start: Start, ledger: Path) -> None:
        """With --require-ledger nothing is sent that could not be written before; replays go on."""
        bridge = start("--require-ledger")
        call_health(bridge, 1)
        with limited(bridge):
            refused = ask(bridge, 2)
            assert (refused["code"], refused["outcome"]) == (UNAVAILABLE, "not_sent")
            assert (refused["durable"], refused["attempts"]) == (False, 0)
            assert ask(bridge, 1)["replayed"]
        assert upstream.counters()["requests"] == 1
        wait_until_healthy(bridge)
        call_health(bridge, 2)
        assert outcomes(ledger) == {1: ("accepted", 1), 2: ("accepted", 1)}
        check_story(bridge.close().stderr, "full", "free some space")


def can_mount() -> bool:
    """True if a process here may have mounts of its own."""
    if os.geteuid() != 0:
        return False
    script = 'd=$(mktemp -d) && mount -t tmpfs none "$d" && umount "$d"; s=$?; rmdir "$d"; exit $s'
    with suppress(OSError):
        return subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True).returncode == 0
    return False


def mounted(where: Path, options: str) -> tuple[str, ...]:
    """The start of a command line: a shell that mounts for itself, then becomes the interpreter."""
    script = 'mount -t tmpfs -o "$1" none "$0" && shift && exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, str(where), options, sys.executable)


if can_mount():

    def test_a_full_disk_costs_durability_and_no_report(
        upstream: Simulator, start: Start, ledger: Path
    ) -> None:
        """On a file system without space reports go on undurably, and heal when there is space."""
        bridge = start(python=mounted(ledger.parent, "size=256k,mode=0700"))
        call_health(bridge, 1)
        inside = Path(f"/proc/{bridge.pid}/root{ledger.parent}")
        ballast = inside / "ballast"
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        task_id = 2
        while ask(bridge, task_id)["durable"]:
            task_id += 1  # in what is left of the last page
        assert task_id < 200
        last = ask(bridge, task_id + 1)
        assert (last["code"], last["durable"], kinds(last)) == (0, False, [])
        ballast.unlink()
        wait_until_healthy(bridge)
        copy = ledger.with_name("copy.db")  # SQLite would follow the path out of the mount
        copy.write_bytes(whole(inside / ledger.name, ledger.with_name("part.db")))
        assert outcomes(copy) == {n: ("accepted", 1) for n in range(1, task_id + 2)}
        check_story(bridge.close().stderr, "full", "free some space")

    def test_a_read_only_disk_is_read(upstream: Simulator, start: Start, ledger: Path) -> None:
        """A ledger on a read-only file system still guards its tasks, and is written when it can be."""
        bridge = start(python=mounted(ledger.parent, "size=1m,mode=0700"))
        call_health(bridge, 1)
        copy = whole(Path(f"/proc/{bridge.pid}/root{ledger}"), ledger.with_name("part.db"))
        bridge.close()
        ledger.write_bytes(copy)
        ledger.chmod(0o600)
        script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        words = ("unshare", "-m", "sh", "-c", script, str(ledger.parent), sys.executable)
        bridge = start(python=words)
        replayed = ask(bridge, 1)
        assert (replayed["code"], replayed["replayed"]) == (0, True)
        fresh = ask(bridge, 2)
        assert (fresh["code"], fresh["durable"], kinds(fresh)) == (0, False, [])
        remount = [
            "nsenter",
            "-t",
            str(bridge.pid),
            "-m",
            "mount",
            "-o",
            "remount,rw,bind",
            str(ledger.parent),
        ]
        subprocess.run(remount, check=True)
        wait_until_healthy(bridge)
        assert outcomes(ledger) == {1: ("accepted", 1), 2: ("accepted", 1)}
        check_story(bridge.close().stderr, "readonly", "allow its file and its directory to be written")


# --- read-only, locked -----------------------------------------------------------------------


def test_a_read_only_file_is_read(upstream: Simulator, start: Start, ledger: Path) -> None:
    """A file that becomes read-only still guards its tasks, and is written when it may be again."""
    bridge = start()
    call_health(bridge, 1)
    ledger.chmod(0o400)
    call_trouble(bridge, upstream, 2, guarded=True)
    replayed = ask(bridge, 1)
    assert (replayed["code"], replayed["replayed"]) == (0, True)
    ledger.chmod(0o600)
    wait_until_healthy(bridge)
    assert outcomes(ledger) == {task_id: ("accepted", 1) for task_id in (1, 2, 3)}
    check_story(bridge.close().stderr, "readonly", "allow its file and its directory to be written")


def test_a_read_only_directory_at_the_start_is_read(upstream: Simulator, start: Start, ledger: Path) -> None:
    """A ledger in a directory that may not be written is read, and written once it may be."""
    first = start()
    call_health(first, 1)
    assert first.close().code == 0
    ledger.parent.chmod(0o500)
    bridge = start()
    call_trouble(bridge, upstream, 2, guarded=True)
    assert ask(bridge, 1)["replayed"]
    ledger.parent.chmod(0o700)
    wait_until_healthy(bridge)
    assert outcomes(ledger) == {task_id: ("accepted", 1) for task_id in (1, 2, 3)}
    check_story(bridge.close().stderr, "readonly", "allow its file and its directory to be written")


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Let a process that is stopped hold the ledger's lock."""
    locker = subprocess.Popen([sys.executable, "-c", LOCKER, str(ledger)], stdout=subprocess.PIPE)
    try:
        assert locker.stdout is not None
        assert locker.stdout.readline() == b"locked\n"
        locker.send_signal(signal.SIGSTOP)
        yield
    finally:
        locker.kill()
        locker.wait()
        assert locker.stdout is not None
        locker.stdout.close()


def test_a_lock_that_stays_is_waited_for_once(upstream: Simulator, start: Start, ledger: Path) -> None:
    """With the ledger locked by a stopped process reports go on unguarded, or with --require-ledger not."""
    bridge, strict = start(), start("--require-ledger")
    call_health(bridge, 1)
    call_health(strict, 10)
    with locked(ledger):
        began_at = time.monotonic()
        name = strict.send(IMAGE, {"taskId": 11, "completedAt": time.time() - 5})
        call_trouble(bridge, upstream, 2, guarded=False)
        assert time.monotonic() - began_at < 30.0
        replayed = ask(bridge, 1)  # from this process's own memory
        assert (replayed["code"], replayed["replayed"], replayed["durable"]) == (0, True, False)
        refused = strict.read_message()
        assert (refused["id"], refused["error"]["code"]) == (name, UNAVAILABLE)
        assert (refused["error"]["data"]["outcome"], refused["error"]["data"]["retryable"]) == (
            "not_sent",
            True,
        )
        assert upstream.counters()["requests"] == 4
    for one in (bridge, strict):
        wait_until_healthy(one)
    call_health(strict, 11)
    assert outcomes(ledger) == {task_id: ("accepted", 1) for task_id in (1, 2, 3, 10, 11)}
    for one in (bridge, strict):
        check_story(one.close().stderr, "locked", "end what holds its file open")


# --- damaged, deleted, strange ---------------------------------------------------------------


def test_a_deleted_file_is_made_again(upstream: Simulator, start: Start, ledger: Path) -> None:
    """A ledger that was deleted while it was in use is made again, and reports go on."""
    bridge = start()
    call_health(bridge, 1)
    ledger.unlink()
    ledger.with_name(ledger.name + "-journal").unlink(missing_ok=True)
    answer = ask(bridge, 2)
    assert (answer["code"], answer["replayed"]) == (0, False)
    wait_until_healthy(bridge)
    call_health(bridge, 3)
    assert outcomes(ledger).items() >= {2: ("accepted", 1), 3: ("accepted", 1)}.items()
    told = events(bridge.close().stderr, "ledger_degraded", "ledger_recovered")
    assert [line["state"] for line in told] == ["replaced", "ok"]
    assert "deleted or replaced" in told[0]["message"]


def test_a_replaced_file_is_taken_up(upstream: Simulator, start: Start, ledger: Path) -> None:
    """A ledger that was replaced by another one is used from then on, its own guard included."""
    other = ledger.with_name("other.db")
    elsewhere = start(path=other)
    call_health(elsewhere, 50)
    assert elsewhere.close().code == 0
    bridge = start()
    call_health(bridge, 1)
    other.replace(ledger)
    answer = ask(bridge, 2)
    assert (answer["code"], answer["replayed"]) == (0, False)
    wait_until_healthy(bridge)
    known = ask(bridge, 50)
    assert (known["code"], known["replayed"]) == (0, True)
    assert outcomes(ledger).items() >= {50: ("accepted", 1), 2: ("accepted", 1)}.items()
    told = events(bridge.close().stderr, "ledger_degraded", "ledger_recovered")
    assert [line["state"] for line in told] == ["replaced", "ok"]


def test_a_damaged_file_is_left_alone_until_it_is_moved_away(
    upstream: Simulator, start: Start, ledger: Path
) -> None:
    """Damage is noticed and not written over, and a fresh ledger is made once the file is gone."""
    first = start()
    for task_id in range(1, 6):
        call_health(first, task_id)
    assert first.close().code == 0
    damaged = bytearray(ledger.read_bytes())
    for at in range(4096 + 8, len(damaged), 512):
        damaged[at : at + 64] = bytes(byte ^ 0xA5 for byte in damaged[at : at + 64])
    ledger.write_bytes(damaged)
    bridge = start()
    call_trouble(bridge, upstream, 10, guarded=False)
    assert ledger.read_bytes() == damaged
    ledger.rename(ledger.with_name("damaged.db"))
    wait_until_healthy(bridge)
    assert outcomes(ledger) == {10: ("accepted", 1), 11: ("accepted", 1)}
    check_story(bridge.close().stderr, "corrupt", "move a damaged one away")


def make_directory(ledger: Path) -> None:
    """Put a directory where the ledger should be."""
    ledger.mkdir(mode=0o700)


def make_link(ledger: Path) -> None:
    """Put a link to somebody else's file there."""
    target = ledger.with_name("target.db")
    target.write_bytes(b"")
    ledger.symlink_to(target)


def make_foreign(ledger: Path) -> None:
    """Put another user's file there; who may not do that puts a named pipe."""
    if os.geteuid() == 0:
        ledger.write_bytes(b"")
        os.chown(ledger, 65534, 65534)
    else:
        os.mkfifo(ledger, 0o600)


def make_other_program(ledger: Path) -> None:
    """Put another program's database there."""
    connection = sqlite3.connect(ledger)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    ledger.chmod(0o600)


@pytest.mark.parametrize("obstacle", [make_directory, make_link, make_foreign, make_other_program])
def test_what_is_not_our_file_is_not_touched(
    upstream: Simulator, start: Start, ledger: Path, obstacle: Callable[[Path], None]
) -> None:
    """Whatever is in the ledger's place stays as it is; a ledger is made once it has gone."""
    obstacle(ledger)
    before = ledger.lstat()
    bridge = start()
    call_trouble(bridge, upstream, 1, guarded=False)
    after = ledger.lstat()
    assert (after.st_ino, after.st_mode, after.st_size, after.st_uid) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_uid,
    )
    ledger.rename(ledger.with_name("moved"))
    wait_until_healthy(bridge)
    assert outcomes(ledger) == {1: ("accepted", 1), 2: ("accepted", 1)}
    check_story(bridge.close().stderr, "foreign", "choose another path")


def test_with_require_ledger_a_strange_file_refuses(upstream: Simulator, start: Start, ledger: Path) -> None:
    """With --require-ledger a directory in the ledger's place means that nothing is sent."""
    make_directory(ledger)
    bridge = start("--require-ledger")
    refused = ask(bridge, 1)
    assert (refused["code"], refused["outcome"], refused["durable"]) == (UNAVAILABLE, "not_sent", False)
    assert upstream.counters()["requests"] == 0
    ledger.rmdir()
    wait_until_healthy(bridge)
    call_health(bridge, 1)


def test_what_cannot_be_written_before_the_end_is_told(
    upstream: Simulator, start: Start, ledger: Path
) -> None:
    """A bridge that ends while outcomes are owed says how many are lost, and still ends well."""
    bridge = start()
    call_health(bridge, 1)
    ledger.chmod(0o400)
    call_trouble(bridge, upstream, 2, guarded=True)
    ended = bridge.close()
    assert ended.code == 0
    (told,) = events(ended.stderr, "ledger_degraded")
    (lost,) = events(ended.stderr, "ledger_lost")
    assert (lost["owed"], told["path"], lost["path"]) == (2, str(ledger), str(ledger))
    assert f"The ledger {ledger} cannot be written" in told["message"]
    ledger.chmod(0o600)
    assert outcomes(ledger) == {1: ("accepted", 1)}
