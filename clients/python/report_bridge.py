"""Sends the reports of the official package ``anticaptchaofficial`` through the program report-bridge.

    bridge = Bridge()                              # one for the whole program
    solver = bridge.attach(recaptchaV2Proxyless()) # solves as before, reports through the bridge

The official client keeps one task id in each solver object, so a solver that is shared or used again reports another
task than the one whose answer turned out wrong. Here a report has the id of the task whose answer this thread
got last from that solver, its type and the second at which it was solved. Calls that solve are passed on as they are; their
answers are only read. This one file needs Python 3.8 or newer and no package.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

REPORTS = (
    "reportIncorrectImageCaptcha",
    "reportIncorrectRecaptcha",
    "reportCorrectRecaptcha",
    "reportIncorrectHcaptcha",
)
INSTALL = (
    "To install it from the project's folder, here ~/report-bridge, with Python 3.11 or newer: "
    "python3 -m venv ~/.report-bridge && ~/.report-bridge/bin/pip install ~/report-bridge; then add "
    "~/.report-bridge/bin to PATH, or set the variable REPORT_BRIDGE_BIN to ~/.report-bridge/bin/report-bridge."
)
_TASKS_KEPT = 10_000
"""Tasks that are remembered between createTask and the last of their answers."""


class BridgeError(Exception):
    """A call was answered with an error, or not at all.

    Attributes:
        code: the upstream's errorId if positive, the bridge's if negative; 0 if no answer came.
        kind: which error; ``bridge_down`` and ``no_answer`` are this module's own.
        data: everything the bridge said.
    """

    def __init__(self, code: int, kind: str, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(f"{message} ({kind})")
        self.code = code
        self.kind = kind
        self.data = data or {}


class Bridge:
    """A running report-bridge. Thread safe; started again by the next call if it has died.

    Args:
        words: command line after the program, such as ``"--sandbox"``.
        command: the program; default: the variable REPORT_BRIDGE_BIN, else report-bridge on PATH.
        timeout_s: how long a call waits, in seconds; default: longer than a report can take.

    Raises:
        FileNotFoundError: there is no such program.
    """

    def __init__(self, *words: str, command: str | None = None, timeout_s: float = 75) -> None:
        asked = command or os.environ.get("REPORT_BRIDGE_BIN") or "report-bridge"
        found = shutil.which(asked)
        if found is None:
            raise FileNotFoundError(f"There is no program {asked}. {INSTALL}")
        self._words = [found, *words]
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._open: dict[int, Future[Any]] = {}

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def call(self, method: str, **params: Any) -> Any:
        """Ask the bridge, and return the result. Members that are None are left out.

        Raises:
            BridgeError: The answer is an error, or none came.
        """
        answer: Future[Any] = Future()
        request_id = next(self._ids)
        try:
            self._write(method, params, request_id, answer)
            return answer.result(self._timeout_s)
        except FutureTimeout:
            self._open.pop(request_id, None)
            self._write("$/cancelRequest", {"id": request_id})
            raise BridgeError(0, "no_answer", f"No answer came within {self._timeout_s} s.") from None

    def note_tasks(self, task_type: str, cost: float | str | None = None, client_key: str | None = None) -> None:
        """Tell the bridge that a task was solved, reported or not; nothing is sent to the vendor."""
        params = {"taskType": task_type, "cost": None if cost is None else float(cost), "clientKey": client_key}
        self._write("bridge.noteTasks", params)

    def attach(self, solver: Any) -> Any:
        """Send the reports of this solver of ``anticaptchaofficial`` through the bridge, and return it."""
        solver.make_request = _Route(self, solver).make_request
        return solver

    def close(self) -> None:
        """End the bridge: it finishes the reports that it has accepted."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()

    def _write(
        self, method: str, params: dict[str, Any], request_id: int | None = None, answer: Future[Any] | None = None
    ) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        message["params"] = {name: value for name, value in params.items() if value is not None}
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process is not None and self._process.stdin is not None
            if request_id is not None and answer is not None:
                message["id"] = request_id
                self._open[request_id] = answer
            with contextlib.suppress(OSError):  # it has just died: the reader tells every call
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()

    def _start(self) -> None:
        # A session of its own: Ctrl-C is for this program to handle, and the bridge finishes what it has.
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # what it had not read is lost with it
                self._process.stdin.close()
        self._process = subprocess.Popen(
            self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._open = {}
        threading.Thread(target=self._read, args=(self._process, self._open), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes], waiting: dict[int, Future[Any]]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                answer = json.loads(line)
                future = waiting.pop(answer["id"], None)  # None: the call was given up
                error = answer.get("error")
                if future is not None and error is None:
                    future.set_result(answer["result"])
                elif future is not None:
                    data = error.get("data", {})
                    future.set_exception(BridgeError(error["code"], data.get("kind", "unknown"), error["message"], data))
        code = process.wait()
        with self._lock:  # no call is being added
            for future in list(waiting.values()):
                future.set_exception(BridgeError(0, "bridge_down", f"The bridge ended with exit code {code}."))


class _Route:
    """Stands for the one method by which a solver speaks to the vendor."""

    def __init__(self, bridge: Bridge, solver: Any) -> None:
        self._bridge = bridge
        self._solver = solver
        self._vendor = solver.make_request
        self._created: dict[int, dict[str, Any]] = {}
        self._here = threading.local()

    def make_request(self, method: str, data: dict[str, Any]) -> Any:
        if method in REPORTS:
            return self._report(method, getattr(self._here, "solved", None) or data)
        answer = self._vendor(method, data)
        if isinstance(answer, dict) and answer.get("errorId") == 0:
            self._learn(method, data, answer)
        return answer

    def _learn(self, method: str, data: dict[str, Any], answer: dict[str, Any]) -> None:
        if method == "createTask":
            self._created[answer["taskId"]] = data.get("task", {})
            if len(self._created) > _TASKS_KEPT:
                self._created.pop(next(iter(self._created)), None)
        if method != "getTaskResult" or answer.get("status") != "ready":
            return
        task = self._created.get(data["taskId"], {})
        is_new = not task.get("isNoted", False)
        task["isNoted"] = True
        self._here.solved = {
            "clientKey": data["clientKey"],
            "taskId": data["taskId"],
            "taskType": task.get("type"),
            "completedAt": _number(answer.get("endTime")),
            "languagePool": task.get("languagePool"),
        }
        if is_new and "type" in task:
            self._bridge.note_tasks(task["type"], _number(answer.get("cost")), data["clientKey"])

    def _report(self, method: str, params: dict[str, Any]) -> Any:
        """Report, and answer as the official client does: what the vendor said, or 0 and a reason."""
        try:
            self._bridge.call(method, **params)
        except BridgeError as error:
            if error.code > 0:
                names = ("errorId", "errorCode", "errorDescription")
                return {name: error.data[name] for name in names if name in error.data}
            self._solver.error_code, self._solver.err_string = error.kind, str(error)
            return 0
        return {"errorId": 0, "status": "success"}


def _number(value: Any) -> float | None:
    """Read a number that the vendor may have written as a string; anything else is left out."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
