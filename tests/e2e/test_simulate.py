"""The command ``simulate`` as a process: its address, its files, its end."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import simulate
from bridge.ops.process import put_file

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef"
PATIENCE_S = 30.0
PROGRAM = ["-m", "bridge", "simulate"]


def spawn(*arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", *PROGRAM, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


@contextlib.contextmanager
def running(*arguments: str, stderr: int = subprocess.PIPE) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Serve for a while; yields the process and its base URL."""
    process = spawn(*arguments, stderr=stderr)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
        yield process, line.strip()
    finally:
        process.kill()
        process.communicate()


def finish(*arguments: str) -> tuple[int, str, str]:
    """Run the command to its end; return exit code, stdout and stderr."""
    process = spawn(*arguments)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


def report(base_url: str, task_id: int, method: str = "reportIncorrectImageCaptcha") -> Any:
    """Report a task; return the verdict."""
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=PATIENCE_S)
    try:
        connection.request("POST", f"/{method}", json.dumps({"clientKey": KEY, "taskId": task_id}))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def await_file(path: Path) -> str:
    """Return what a file holds at the first moment it exists."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        try:
            return path.read_text()
        except FileNotFoundError:
            time.sleep(0.0005)
    raise AssertionError("the file never came")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_serves_until_a_signal(number: int) -> None:
    """The address is told on both streams, calls are served, and a signal ends it with 0."""
    with running() as (process, base_url):
        assert report(base_url, 7) == {"errorId": 0, "status": "success"}
        assert report(base_url, 7)["errorId"] == 16
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) == (0, b"")
        assert err.decode() == f"listening on {base_url}\n"


def test_ready_file_is_whole_from_its_first_moment(tmp_path: Path) -> None:
    """A stale ready file is gone before the start, and the new one appears with all of its line."""
    ready = tmp_path / "ready"
    ready.write_text("http://127.0.0.1:1")
    with running("--ready-file", str(ready)) as (_, base_url):
        assert await_file(ready) == f"{base_url}\n"
        assert report(base_url, 7)["errorId"] == 0
        assert os.listdir(tmp_path) == ["ready"]


def test_ready_file_is_never_seen_half_written(tmp_path: Path) -> None:
    """A reader that looks all the time sees only the old text or the new."""
    path = tmp_path / "ready"
    texts = [b"a" * 200_000, b"b" * 200_000]
    put_file(str(path), texts[0])
    is_over = threading.Event()

    def write() -> None:
        for at in range(100):
            put_file(str(path), texts[at % 2])
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not is_over.is_set():
        assert path.read_bytes() in texts
    writer.join()
    assert os.listdir(tmp_path) == ["ready"]


def test_port_can_be_chosen_and_must_be_free(tmp_path: Path) -> None:
    """The port asked for is served; a taken one is one sentence, exit code 3 and no ready file."""
    ready = tmp_path / "ready"
    ready.write_text("left by an earlier run")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = finish("--port", str(port), "--ready-file", str(ready))
    assert (code, out) == (3, "")
    assert not ready.exists()
    assert str(port) in err
    assert err.count("\n") == 1
    with running("--port", str(port)) as (_, base_url):
        assert base_url == f"http://127.0.0.1:{port}"


def test_latency_and_auto_options() -> None:
    """Options change the simulated upstream from its start."""
    with running("--latency", "0.2", "--no-auto") as (_, base_url):
        begun = time.monotonic()
        assert report(base_url, 7)["errorId"] == 16
        assert time.monotonic() - begun >= 0.2


def test_scenario_file_is_played(tmp_path: Path) -> None:
    """Tasks, faults and steps of the file take effect."""
    path = tmp_path / "scenario.json"
    path.write_text(
        json.dumps(
            {
                "tasks": [{"taskId": 7, "kind": "hcaptcha"}],
                "faults": [{"fault": "error", "errorId": 21, "taskId": 8}],
                "steps": [{"atSeconds": 0, "accounts": [{"clientKey": KEY, "state": "ok"}]}],
            }
        )
    )
    with running("--scenario", str(path)) as (process, base_url):
        assert report(base_url, 7)["errorId"] == 16
        assert report(base_url, 8)["errorId"] == 21
        process.terminate()
        assert process.communicate(timeout=PATIENCE_S)[1].decode() == f"listening on {base_url}\n"


def test_bad_scenario_names_its_place(tmp_path: Path) -> None:
    """A scenario that cannot be used is one sentence with its place, and exit code 3."""
    path = tmp_path / "scenario.json"
    path.write_text('{"steps": [{"atSeconds": "soon"}]}')
    code, out, err = finish("--scenario", str(path))
    assert (code, out) == (3, "")
    assert "at /steps/0/atSeconds: must be a number" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--scenario", "missing.json"), 3),
        (("--ready-file", "missing-folder/ready"), 3),
        (("--tls-cert", "missing.pem", "--tls-key", "missing.pem"), 3),
        (("--tls-cert", "missing.pem"), 2),
        (("--port", "65536"), 2),
        (("--port", "-1"), 2),
        (("--latency", "nan"), 2),
        (("--latency", "x"), 2),
    ],
)
def test_what_cannot_be_used_is_a_sentence(arguments: tuple[str, ...], code: int) -> None:
    """Files that are missing and values that make no sense end the command without a traceback."""
    ended, out, err = finish(*arguments)
    assert (ended, out) == (code, "")
    assert "Traceback" not in err
    assert err


def test_serves_with_nobody_reading_its_output(tmp_path: Path) -> None:
    """A closed stdout does not stop the service."""
    ready = tmp_path / "ready"
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen(
        [sys.executable, *PROGRAM, "--ready-file", str(ready)],
        cwd=ROOT,
        stdout=write_end,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        assert report(await_file(ready).strip(), 7)["errorId"] == 0
    finally:
        process.kill()
        process.communicate()


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    """A scenario with steps shows one line that overwrites itself if stderr is a terminal."""
    path = tmp_path / "scenario.json"
    path.write_text('{"steps": [{"atSeconds": 2}]}')
    ours, theirs = pty.openpty()
    shown = b""
    with running("--scenario", str(path), stderr=theirs):
        limit = time.monotonic() + PATIENCE_S
        while b"100%" not in shown and time.monotonic() < limit:
            shown += os.read(ours, 4096)
    os.close(theirs)
    os.close(ours)
    assert shown.count(b"\rscenario ") >= 2
    assert b"100%" in shown


def test_progress_stays_silent_elsewhere(tmp_path: Path) -> None:
    """A scenario with steps writes nothing more to a stderr that is no terminal."""
    path = tmp_path / "scenario.json"
    path.write_text('{"steps": [{"atSeconds": 1000}]}')
    with running("--scenario", str(path)) as (process, base_url):
        time.sleep(2 * simulate.PROGRESS_S)
        process.terminate()
        assert process.communicate(timeout=PATIENCE_S)[1].decode() == f"listening on {base_url}\n"


def test_options_are_documented() -> None:
    """Every option of the command has its line in the documentation."""
    page = (ROOT / "docs" / "simulator.md").read_text()
    parser = argparse.ArgumentParser()
    simulate.configure(parser)
    options = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    assert all(f"`{name}" in page for name in options - {"--help"})


def test_imports_nothing_of_the_bridge_but_the_engine() -> None:
    """The simulator loads of the bridge only engine and data reader, of others theirs and the parser."""
    program = (
        "import sys, json\n"
        "before = set(sys.modules)\n"
        "from bridge.simulator import Simulator\n"
        "with Simulator() as simulator: pass\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE_S
    )
    loaded = json.loads(done.stdout)
    ours = {name for name in loaded if name.startswith("bridge")}
    assert {name for name in ours if not name.startswith(("bridge.simulator", "bridge.engine"))} == {
        "bridge",
        "bridge.core",
        "bridge.core.resources",
    }
    others = {name.partition(".")[0].lstrip("_") for name in loaded} - {"bridge"}
    known = {name.lstrip("_") for name in sys.stdlib_module_names}
    assert {name for name in others - known if not name.startswith(("cython", "gevent"))} <= {
        "greenlet",
        "httptools",
        "zope",
    }
    assert "asyncio" not in others
