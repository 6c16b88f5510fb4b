"""The Python module beside the official package.

The package can be pointed nowhere but at the vendor, so its connection is replaced: it reaches nobody.
"""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import pytest

from tests.process import ROOT

KEY: Final = "0123456789abcdef0123456789abcdef"
OFFICIAL: Final = "anticaptchaofficial==1.0.72"
SHA256: Final = "14c0658add17c6afb188bb02d98b96f0101c6661bd04742ba70f5d6f1a13025b"
TASKS: Final = 1_000
THREADS: Final = 50
ECHO: Final = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    print(line, end="", file=sys.stderr, flush=True)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": {}}
    if message["params"].get("taskId") == 9:
        sys.exit(7)
    if message["params"].get("taskId") != 8:
        print(json.dumps(answer), flush=True)
"""


def load(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLIENT: Final = load(ROOT / "clients" / "python" / "report_bridge.py")


@pytest.fixture(scope="module")
def official() -> Iterator[Any]:
    """Import the official package, fetched through pip if it is not there yet."""
    folder = ROOT / ".pytest_cache" / "anticaptchaofficial"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        wanted = folder.with_suffix(".txt")
        wanted.write_text(f"{OFFICIAL} --hash=sha256:{SHA256}\n")
        flags = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--target",
            str(folder),
        ]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *flags, "-r", str(wanted)], check=True, timeout=300
        )
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("anticaptchaofficial.imagecaptcha")
    finally:
        sys.path.remove(str(folder))


class Vendor:
    """Stands for the vendor in the place of the HTTP session: ids, answers after a moment, reports kept."""

    def __init__(self) -> None:
        self.reported: list[int] = []
        self._ids = iter(range(2_000_000_001, 3_000_000_000))
        self._lock = threading.Lock()

    def post(self, url: str, data: str) -> SimpleNamespace:
        with self._lock:
            body = json.loads(data)
            answer = getattr(self, "_" + url.rpartition("/")[2])(body)
        return SimpleNamespace(json=lambda: {"errorId": 0, **answer})

    def _createTask(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"taskId": next(self._ids)}

    def _getTaskResult(self, body: dict[str, Any]) -> dict[str, Any]:
        if random.random() < 0.5:
            return {"status": "processing"}
        text = f"text of {body['taskId']}"
        return {"status": "ready", "solution": {"text": text}, "cost": "0.00070", "endTime": int(time.time())}

    def _reportIncorrectImageCaptcha(self, body: dict[str, Any]) -> dict[str, Any]:
        self.reported.append(body["taskId"])
        return {"status": "success"}


@pytest.fixture
def vendor(official: Any, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """Put the stand-in into the place of the official package's connection, and shorten its waits."""
    networking = sys.modules["anticaptchaofficial.antinetworking"]
    stand_in = Vendor()
    monkeypatch.setattr(networking, "session", stand_in)
    monkeypatch.setattr(networking, "time", SimpleNamespace(sleep=lambda _s: time.sleep(0.001)))
    return stand_in


@pytest.fixture
def program(clean_environment: Path) -> str:
    """Write a program that starts the bridge."""
    path = clean_environment / "report-bridge"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m bridge "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def echo(clean_environment: Path) -> str:
    """Write a bridge that accepts every report and copies what it reads to a file."""
    path = clean_environment / "echo-bridge"
    source = clean_environment / "echo.py"
    source.write_text(ECHO)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{source}" 2>>"{path}.log"\n')
    path.chmod(0o755)
    return str(path)


def read_messages(echo: str) -> list[dict[str, Any]]:
    """Return what the echoing bridge read."""
    return [json.loads(line) for line in Path(echo + ".log").read_text().splitlines()]


def make_solver(official: Any) -> Any:
    """Make a solver of the official package."""
    solver = official.imagecaptcha()
    solver.set_key(KEY)
    return solver


def solve_all(solver: Any, report: Callable[[int], object]) -> list[int]:
    """Solve many captchas with one solver in many threads, report each answer, and return the ids in hand."""

    def one(_number: int) -> int:
        task_id = int(solver.solve_and_return_solution(None, body="x").split()[-1])
        time.sleep(0.001)  # the answer is tried
        report(task_id)
        return task_id

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(TASKS)))


def test_interleaved_tasks_are_reported_with_their_own_ids(
    official: Any, vendor: Vendor, program: str
) -> None:
    """Of 1,000 tasks of one shared solver the package alone reports most wrongly, the bridge none."""
    solver = make_solver(official)
    alone = []

    def report_alone(task_id: int) -> None:
        alone.append(solver.task_id == task_id)
        solver.report_incorrect_image_captcha()

    solve_all(solver, report_alone)
    wrong = alone.count(False)
    print(f"{wrong} of {TASKS} reports of the official client alone had another task's id")
    assert wrong > TASKS / 2

    vendor.reported.clear()
    asked: list[tuple[int, int]] = []
    here = threading.local()

    with CLIENT.Bridge("--sandbox", command=program) as bridge:
        call = bridge.call

        def watch(method: str, **params: Any) -> Any:
            asked.append((here.task_id, params["taskId"]))
            return call(method, **params)

        bridge.call = watch
        routed = bridge.attach(make_solver(official))

        def report(task_id: int) -> None:
            here.task_id = task_id
            assert routed.report_incorrect_image_captcha() == {"errorId": 0, "status": "success"}

        in_hand = solve_all(routed, report)
        assert call("bridge.status")["outcomes"]["accepted"] == len(set(in_hand))
    assert len(asked) == TASKS
    assert [pair for pair in asked if pair[0] != pair[1]] == []
    assert vendor.reported == []


def test_report_has_what_was_learned_and_the_task_is_noted_once(
    official: Any, vendor: Vendor, echo: str
) -> None:
    """Type, second of the end, language and key go along; each task is noted once."""
    with CLIENT.Bridge(command=echo) as bridge:
        solver = bridge.attach(make_solver(official))
        task_id = int(solver.solve_and_return_solution(None, body="x").split()[-1])
        solver.make_request("getTaskResult", {"clientKey": KEY, "taskId": task_id})
        solver.task_id = 5  # somebody else's, as when a solver is shared
        assert solver.report_incorrect_image_captcha() == {"errorId": 0, "status": "success"}
    note, report = read_messages(echo)
    assert note == {
        "jsonrpc": "2.0",
        "method": "bridge.noteTasks",
        "params": {"taskType": "ImageToTextTask", "cost": 0.0007, "clientKey": KEY},
    }
    assert report["method"] == "reportIncorrectImageCaptcha"
    assert abs(report["params"].pop("completedAt") - time.time()) < 60
    told = {"clientKey": KEY, "taskId": task_id, "taskType": "ImageToTextTask", "languagePool": "en"}
    assert report["params"] == told


def test_answers_are_those_of_the_official_client(program: str) -> None:
    """A refusal is what the vendor said, what was not sent is 0 with a reason; solving passes unchanged."""
    passed = []

    def make_request(method: str, data: dict[str, Any]) -> Any:
        passed.append((method, data))
        return 0

    solver = SimpleNamespace(make_request=make_request, error_code="", err_string="")
    with CLIENT.Bridge("--sandbox", command=program) as bridge:
        assert bridge.attach(solver) is solver
        data = {"clientKey": KEY, "taskId": 9_000_000_000_000_016}
        refused = solver.make_request("reportIncorrectImageCaptcha", data)
        assert (refused["errorId"], refused["errorCode"]) == (16, "ERROR_NO_SUCH_CAPCHA_ID")
        assert solver.make_request("reportIncorrectRecaptcha", data) == 0
        assert solver.error_code == "task_conflict"
        assert "task_conflict" in solver.err_string
        assert passed == []
        assert solver.make_request("createTask", {"clientKey": KEY}) == 0
    assert passed == [("createTask", {"clientKey": KEY})]


def test_death_and_silence_are_told(echo: str) -> None:
    """A bridge that dies fails its calls and is started again; a call that gets no answer is let go."""
    with CLIENT.Bridge(command=echo, timeout_s=1) as bridge:
        with pytest.raises(CLIENT.BridgeError) as down:
            bridge.call("reportIncorrectRecaptcha", taskId=9)
        assert (down.value.code, down.value.kind) == (0, "bridge_down")
        with pytest.raises(CLIENT.BridgeError) as silent:
            bridge.call("reportIncorrectRecaptcha", taskId=8)
        assert silent.value.kind == "no_answer"
        assert bridge.call("reportIncorrectRecaptcha", taskId=7, completedAt=None) == {}
    asked = read_messages(echo)
    assert [message["method"] for message in asked][-2:] == ["$/cancelRequest", "reportIncorrectRecaptcha"]
    assert asked[-2]["params"] == {"id": asked[-3]["id"]}
    assert asked[-1]["params"] == {"taskId": 7}


def test_missing_program_is_told_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the program and says how to install it."""
    monkeypatch.setenv("REPORT_BRIDGE_BIN", "/nowhere/report-bridge")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/report-bridge\. .*python3 -m venv"):
        CLIENT.Bridge()
