"""Advice from the real process: notes, figures, status, answers, log and metrics agree."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.process import PATIENCE_S, ROOT

TOKEN = "reportIncorrectRecaptcha"
_HASTY = (
    "import sys, bridge.reports.figures as figures; figures.LOOK_S = 0.2; "
    "from bridge.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


class Talk:
    """A bridge in the sandbox that looks for figures in a hurry."""

    def __init__(self, folder: Path, *words: str) -> None:
        environ = {"HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self.log = folder / "log"
        args = [
            sys.executable,
            "-c",
            _HASTY,
            "--sandbox",
            "--log-file",
            str(self.log),
            "--log-format",
            "json",
        ]
        self._process = subprocess.Popen(
            [*args, *words], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._id = 0

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["id"] == self._id
        return answer["result"]

    def wait(self, is_there: Any) -> Any:
        """Ask for the status until it has something."""
        until = time.monotonic() + PATIENCE_S
        while not is_there(status := self.call("bridge.status")):
            assert time.monotonic() < until, status
            time.sleep(0.1)
        return status

    def end(self) -> int:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(PATIENCE_S)
        self._process.stdout.close()
        return code


def test_advice_is_the_same_wherever_it_is_told(tmp_path: Path) -> None:
    """An account with a high share hears of it in an answer once, in the status, the log, the metrics and the
    ledger's next bridge."""
    ledger, metrics = str(tmp_path / "ledger"), tmp_path / "metrics"
    talk = Talk(tmp_path, "--ledger", ledger, "--metrics-file", str(metrics))
    assert talk.call("bridge.noteTasks", taskType="RecaptchaV2TaskProxyless", count=150)["noted"] == 150
    told = [
        warning["kind"]
        for number in range(1, 101)
        for warning in talk.call(TOKEN, taskId=number).get("warnings", ())
    ]
    status = talk.wait(lambda status: status["advice"])
    [advice] = status["advice"]
    assert advice["kind"] == "rate_high"
    assert "100 of 150 reCAPTCHA tasks (67%)" in advice["message"]
    told += [warning["kind"] for warning in talk.call(TOKEN, taskId=101).get("warnings", ())]
    time.sleep(0.5)
    told += [warning["kind"] for warning in talk.call(TOKEN, taskId=102).get("warnings", ())]
    assert told == ["rate_high"]
    assert talk.end() == 0
    assert 'report_bridge_advice{kind="rate_high"} 1' in metrics.read_text()
    events = [json.loads(line) for line in talk.log.read_text().splitlines()]
    assert [event["kind"] for event in events if event["event"] == "advice"] == ["rate_high"]
    second = Talk(tmp_path, "--ledger", ledger)
    assert [warning["kind"] for warning in second.call(TOKEN, taskId=103)["warnings"]] == ["rate_high"]
    assert second.end() == 0


def test_the_accounts_own_figures_are_asked_for(tmp_path: Path) -> None:
    """With the setting the upstream is asked once, after a report was taken; without it never."""
    talk = Talk(tmp_path, "--account-figures")
    talk.call(TOKEN, taskId=1)
    status = talk.wait(lambda status: status["accountFigures"]["askedAt"])
    assert status["accountFigures"]["failure"] is None
    time.sleep(1.0)
    assert talk.call("bridge.status")["accountFigures"] == status["accountFigures"]
    assert talk.end() == 0
    without = Talk(tmp_path)
    assert "accountFigures" not in without.call("bridge.status")
    assert without.end() == 0
