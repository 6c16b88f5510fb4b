"""Where the key comes from, as real processes: what is surely no key is never sent to the upstream."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.simulator import Simulator
from tests.process import PATIENCE_S, ROOT

KEY = "0123456789abcdef0123456789abcdef"
REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"reportIncorrectImageCaptcha","params":{"taskId":5}}\n'


def run(
    *words: str,
    home: Path,
    prepare: Callable[[], object] | None = None,
    environ: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the program with one report on its input."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        cwd=ROOT,
        env={"HOME": str(home), "PATH": os.defpath, "LANG": "C", **(environ or {})},
        input=REQUEST,
        capture_output=True,
        timeout=PATIENCE_S,
        preexec_fn=prepare,
        check=False,
    )


def ignore_children() -> None:
    """Do as a parent that ignores the end of its children: what it starts inherits that."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def count_calls(simulator: Simulator) -> int:
    """How many requests the upstream has seen."""
    return len(simulator.log())


@pytest.mark.parametrize("command", ["serve", "call", "doctor"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_key_command_counts_only_if_it_ended_well(
    simulator: Simulator, clean_environment: Path, command: str, code: int
) -> None:
    """Under a parent that ignores SIGCHLD what a failing command printed is no key, and a good one is."""
    words = {
        "serve": ["serve"],
        "call": ["call", "reportIncorrectImageCaptcha", "taskId=5", "--json"],
        "doctor": ["doctor", "--json"],
    }[command]
    key_command = f"sh -c 'echo {KEY}; exit {code}'"
    ended = run(
        *words, "--url", simulator.start(), "--key-command", key_command, home=clean_environment,
        prepare=ignore_children,
    )  # fmt: skip
    assert KEY.encode() not in ended.stdout + ended.stderr
    if command == "doctor":
        checks = {check["name"]: check["status"] for check in json.loads(ended.stdout)["checks"]}
        assert checks["key"] == ("failed" if code else "ok")
        return
    answer = json.loads(ended.stdout)
    if code:
        assert answer["error"]["code"] == -32020
        assert count_calls(simulator) == 0
    else:
        assert answer["result"]["outcome"] == "accepted"


def test_a_helper_that_leaves_a_daemon_gives_its_key_at_once(
    simulator: Simulator, clean_environment: Path
) -> None:
    """The daemon keeps the pipe open; the report does not wait for it."""
    began = time.monotonic()
    ended = run(
        "serve", "--url", simulator.start(), "--key-command", f"sh -c 'echo {KEY}; sleep 9 &'",
        home=clean_environment,
    )  # fmt: skip
    assert json.loads(ended.stdout)["result"]["outcome"] == "accepted"
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f'"{KEY}"', "quotes"),
        (f"'{KEY}'", "quotes"),
        (f"<{KEY}>", "brackets"),
        (f"ANTICAPTCHA_CLIENT_KEY={KEY}", "equals sign"),
        (f" {KEY} ", "blanks"),
        (f"${{{KEY}}}", "brackets"),
    ],
)
def test_what_an_env_file_left_around_the_key_is_named(
    simulator: Simulator, clean_environment: Path, text: str, fault: str
) -> None:
    """The start ends with 3 and a sentence, for a variable and for a file, and nothing is sent."""
    key_file = clean_environment / "key"
    key_file.write_text(text + "\n")
    for words, environ in (
        (["--key-file", str(key_file)], {}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": text}),
    ):
        ended = run("serve", "--url", simulator.start(), *words, home=clean_environment, environ=environ)
        assert (ended.returncode, ended.stdout) == (3, b""), ended.stderr
        assert fault.encode() in ended.stderr
        assert KEY.encode() not in ended.stderr
    assert count_calls(simulator) == 0


def test_a_missing_key_file_is_named(clean_environment: Path) -> None:
    """The sentence holds the path that a person can look at."""
    path = clean_environment / "secrets" / "anticaptcha.key"
    ended = run("serve", "--key-file", str(path), home=clean_environment)
    assert ended.returncode == 3
    assert str(path).encode() in ended.stderr


def test_no_secret_of_the_settings_reaches_a_key_command(
    simulator: Simulator, clean_environment: Path
) -> None:
    """The command sees none of the variables that hold a secret, whatever their spelling."""
    seen = clean_environment / "seen"
    code = f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ))); print('{KEY}')"
    ended = run(
        "serve", "--url", simulator.start(),
        "--key-command", f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(code)}",
        home=clean_environment,
        environ={
            "REPORT_BRIDGE_PROXY": "http://me:hush1@127.0.0.1:1",
            "REPORT_BRIDGE_LEDGER_PASSWORD": "hush2",
            "PGPASSWORD": "hush3",
            "MARK": "1",
        },
    )  # fmt: skip
    assert json.loads(ended.stdout)["result"]["outcome"] == "accepted"
    assert "hush" not in seen.read_text()
    assert "MARK" in seen.read_text()
