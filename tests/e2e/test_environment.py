"""Settings and surroundings: where values come from, what is refused, and how little is needed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from tests.e2e.talk import IMAGE, KEY, Talk, error_of, wait_for
from tests.process import PATIENCE_S, ROOT

Start = Callable[..., Talk]
INFO = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n'


def run(
    home: Path | None, *words: str, given: bytes = INFO, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a bridge to its end with an environment of nothing but what is named."""
    base = {} if home is None else {"HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words], input=given, capture_output=True, check=False,
        env={**base, **(environ or {})}, cwd=ROOT, timeout=PATIENCE_S,
    )  # fmt: skip


def limits(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Return the limits that bridge.info told."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["result"]["limits"]
    return found


def write_config(home: Path, text: str) -> Path:
    """Write the user's configuration file."""
    path = home / ".config" / "report-bridge" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_an_installation_that_lacks_a_package_says_so(clean_environment: Path, tmp_path: Path) -> None:
    """A package that is missing is named, with what to do about it; it is no fault of the program."""
    (tmp_path / "gevent.py").write_text("raise ModuleNotFoundError(name='gevent')\n")
    done = run(clean_environment, environ={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"report-bridge: The Python package gevent is missing. Install ")
    assert done.stderr.count(b"\n") == 1


def test_flags_beat_environment_beats_file_beats_default(clean_environment: Path) -> None:
    """Each source counts where no better one has a say."""
    home = clean_environment
    assert limits(run(home))["queue"] == 1000
    write_config(home, "queue = 11\nmax_batch = 12\ntimeout = 2.5\n")
    assert limits(run(home))["queue"] == 11
    found = limits(run(home, environ={"REPORT_BRIDGE_QUEUE": "21"}))
    assert (found["queue"], found["maxBatch"], found["timeoutSeconds"]) == (21, 12, 2.5)
    found = limits(run(home, "--queue", "31", "--max-batch=32", environ={"REPORT_BRIDGE_QUEUE": "21"}))
    assert (found["queue"], found["maxBatch"], found["timeoutSeconds"]) == (31, 32, 2.5)
    shown = run(home, "config", "--json", "--queue", "31", environ={"REPORT_BRIDGE_MAX_DEPTH": "9"})
    settings = json.loads(shown.stdout)["settings"]
    assert settings["queue"]["value"] == 31
    assert "--queue" in settings["queue"]["origin"]
    assert "REPORT_BRIDGE_MAX_DEPTH" in settings["max_depth"]["origin"]
    assert "config.toml" in settings["max_batch"]["origin"]
    assert settings["drain"]["origin"] == "default"


def test_the_working_directory_has_no_say(clean_environment: Path, tmp_path: Path) -> None:
    """Configuration files and modules of the working directory are not looked at."""
    for name in ("config.toml", "report-bridge.toml", ".report-bridge.toml"):
        (tmp_path / name).write_text("queue = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "bridge"], input=INFO, capture_output=True, check=False, cwd=tmp_path,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert limits(done)["queue"] == 1000


@pytest.mark.parametrize(
    ("words", "environ", "config", "code"),
    [
        (["--nope"], {}, "", 2),
        (["--queue"], {}, "", 2),
        (["serv"], {}, "", 2),
        (["--sandbox", "extra"], {}, "", 2),
        (["--queue", "0"], {}, "", 3),
        (["--queue", "1e3"], {}, "", 3),
        (["--timeout", "-1"], {}, "", 3),
        (["--timeout", "nan"], {}, "", 3),
        (["--drain", "1,5"], {}, "", 3),
        (["--log-level", "loud"], {}, "", 3),
        (["--url", "http://example.com"], {}, "", 3),
        (["--url", "ftp://127.0.0.1"], {}, "", 3),
        (["--url", "http://127.0.0.1.example.com"], {}, "", 3),
        (["--url", "https://user@api.example.com"], {}, "", 3),
        (["--url", "https://api.example.com/?a=1"], {}, "", 3),
        (["--url", "https://api.example.com/#x"], {}, "", 3),
        (["--url", ""], {}, "", 3),
        (["--require-ledger", "--ledger", "memory"], {}, "", 3),
        (["--ledger", "postgresql://me:secret@127.0.0.1/db"], {}, "", 3),
        (["--key-file", "/nowhere/at.all"], {}, "", 3),
        (["--ca-file", "/nowhere/at.all"], {}, "", 3),
        (["--log-file", "/nowhere/at/all"], {}, "", 3),
        (["--key-file", "/dev/null", "--key-command", "cat x"], {}, "", 3),
        ([], {"ANTICAPTCHA_CLIENT_KEY": KEY, "ANTICAPTCHA_CLIENT_KEY_FILE": "/etc/hostname"}, "", 3),
        ([], {"ANTICAPTCHA_CLIENT_KEY": ""}, "", 3),
        ([], {"ANTICAPTCHA_CLIENT_KEY": "short"}, "", 3),
        ([], {"REPORT_BRIDGE_PAUSES": "maybe"}, "", 3),
        ([], {"REPORT_BRIDGE_REQUIRE_LEDGER": "1", "REPORT_BRIDGE_LEDGER": "memory"}, "", 3),
        ([], {}, "queue = 'x'", 3),
        ([], {}, "nope = 1", 3),
        ([], {}, "client_key = 'x'", 3),
        ([], {}, "queue = ", 3),
        ([], {}, "[queue]\na = 1", 3),
        ([], {}, "sandbox = 1", 3),
    ],
)
def test_what_cannot_be_used_ends_with_one_sentence(
    clean_environment: Path, words: list[str], environ: dict[str, str], config: str, code: int
) -> None:
    """A wrong command line is exit code 2, a configuration that cannot be used 3; stdout stays empty."""
    if config:
        write_config(clean_environment, config)
    done = run(clean_environment, *words, environ=environ)
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"report-bridge: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "http://127.9.9.9:1"]
)
def test_plain_http_is_for_loopback(clean_environment: Path, url: str) -> None:
    """Every spelling of loopback may be plain http."""
    assert run(clean_environment, "--url", url).returncode == 0


def test_a_flag_for_the_key_beats_the_environment(talk: Start, simulator: Simulator) -> None:
    """The key of a file named by a flag is used though a variable has another."""
    key_file = Path(os.environ["HOME"]) / "key"
    key_file.write_text(KEY + "\n")
    key_file.chmod(0o600)
    simulator.set(other_keys="unknown")
    simulator.set_account(client_key=KEY, state="ok")
    bridge = talk(
        "--url",
        simulator.base_url,
        "--key-file",
        str(key_file),
        environ={"ANTICAPTCHA_CLIENT_KEY": KEY[::-1]},
    )
    assert bridge.report(1)["result"]["outcome"] == "accepted"


def test_a_key_file_is_read_again_when_it_changes(talk: Start, simulator: Simulator) -> None:
    """A new key in the file is used without a restart."""
    key_file = Path(os.environ["HOME"]) / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    simulator.set_account(client_key=KEY, state="unknown")
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY_FILE": str(key_file)})
    assert error_of(bridge.report(1)) == (1, "key_does_not_exist")
    key_file.write_text(KEY[::-1])
    assert bridge.report(2)["result"]["outcome"] == "accepted"


def test_without_a_key_reports_are_refused(talk: Start, simulator: Simulator) -> None:
    """No key is no reason not to start; a report without one is -32020, one with its own is sent."""
    bridge = talk("--url", simulator.base_url)
    response = bridge.report(1)
    assert error_of(response) == (-32020, "key_missing")
    assert response["error"]["data"]["outcome"] == "not_sent"
    assert error_of(bridge.call("bridge.getReport", {"taskId": 1})) == (-32020, "key_missing")
    assert bridge.report(2, clientKey=KEY)["result"]["outcome"] == "accepted"


def test_unknown_variables_are_warned_of(clean_environment: Path) -> None:
    """A misspelt variable is told once; the clients' own is not."""
    done = run(clean_environment, environ={"REPORT_BRIDGE_QEUE": "5", "REPORT_BRIDGE_BIN": "/x"})
    assert limits(done)["queue"] == 1000
    assert done.stderr.count(b"setting_unknown") == 1
    assert b"REPORT_BRIDGE_QUEUE" in done.stderr
    assert b"REPORT_BRIDGE_BIN" not in done.stderr


def test_the_sandbox_reads_no_key_and_touches_no_file(clean_environment: Path) -> None:
    """Broken key sources do not matter in the sandbox, any key is taken, and nothing is left behind."""
    report = json.dumps(
        {"jsonrpc": "2.0", "id": 2, "method": IMAGE, "params": {"taskId": 1, "clientKey": "x" * 16}}
    )
    for environ in (
        {"ANTICAPTCHA_CLIENT_KEY_FILE": "/nowhere"},
        {"ANTICAPTCHA_CLIENT_KEY": "short"},
        {"ANTICAPTCHA_CLIENT_KEY": KEY, "ANTICAPTCHA_CLIENT_KEY_FILE": "/nowhere"},
        {"REPORT_BRIDGE_KEY_COMMAND": f"touch {clean_environment}/ran"},
        {"REPORT_BRIDGE_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
    ):
        done = run(clean_environment, "--sandbox", given=report.encode(), environ=environ)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"]["sandbox"] is True
    assert [path for path in clean_environment.rglob("*") if path.is_file()] == []


def test_the_ledger_is_a_private_file_of_the_user(
    talk: Start, clean_environment: Path, simulator: Simulator
) -> None:
    """By default the ledger lies in the state directory, 0600 in a 0700 directory, whatever the umask."""
    before = os.umask(0)
    try:
        bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
        assert bridge.report(1)["result"]["durable"] is True
        assert bridge.close().code == 0
    finally:
        os.umask(before)
    folder = clean_environment / ".local" / "state" / "report-bridge"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_ledger_that_cannot_be_made_is_kept_in_memory(talk: Start, simulator: Simulator) -> None:
    """Reports go on without a file, the answers say so, and a line on stderr says why."""
    bridge = talk("--url", simulator.base_url, home="/dev/null", environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    result = bridge.report(1)["result"]
    assert result["durable"] is False
    status = bridge.call("bridge.status")["result"]
    assert status["ledger"]["durable"] is False
    ended = bridge.close()
    assert ended.code == 0
    assert "ledger" in ended.stderr


def test_an_unusable_ledger_with_require_ledger_refuses_reports(talk: Start, simulator: Simulator) -> None:
    """With --require-ledger nothing is sent that cannot be remembered."""
    bridge = talk(
        "--url", simulator.base_url, "--require-ledger", "--ledger", "/dev/null/x/ledger",
        environ={"ANTICAPTCHA_CLIENT_KEY": KEY},
    )  # fmt: skip
    response = bridge.report(1)
    assert error_of(response) == (-32031, "ledger_unavailable")
    assert simulator.counters()["requests"] == 0


@pytest.mark.parametrize(
    "environ",
    [
        {}, {"LANG": "C", "LC_ALL": "C"}, {"LANG": "de_DE.ISO-8859-1"}, {"PYTHONIOENCODING": "utf-16"},
        {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}, {"TZ": "Pacific/Kiritimati", "PYTHONOPTIMIZE": "2"},
        {"PYTHONINTMAXSTRDIGITS": "640", "PYTHONUNBUFFERED": "1", "PYTHONDEVMODE": "1"},
        {"GEVENT_LOOP": "nonsense", "GEVENT_BACKEND": "nonsense", "GEVENTOPT_LOOP": "nonsense"},
    ],
)  # fmt: skip
def test_almost_no_environment_is_needed(environ: dict[str, str]) -> None:
    """With nothing in the environment, or with odd things, requests are served and ids echoed."""
    given = '{"jsonrpc":"2.0","id":"é😀","method":"bridge.info"}\n' + (
        f'{{"jsonrpc":"2.0","id":{"9" * 2000},"method":"{IMAGE}","params":{{"taskId":1}}}}\n'
    )
    done = run(None, "--sandbox", given=given.encode(), environ=environ)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert json.loads(first)["id"] == "é😀"
    assert b'"id":%b,' % (b"9" * 2000) in second
    assert b'"outcome":"accepted"' in second
    assert done.stderr == b""


def test_without_home_and_user_the_real_service_starts() -> None:
    """An empty environment is enough for the service itself; a foreign PATH is not asked."""
    done = run(None, "--url", "http://127.0.0.1:1", "--ledger", "memory", given=INFO)
    assert limits(done)["queue"] == 1000


def test_variables_of_other_programs_do_not_redirect(
    talk: Start, simulator: Simulator, tmp_path: Path
) -> None:
    """Proxy, CA, netrc and key-log variables are not followed."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary-netrc\n")
    environ = {
        "ANTICAPTCHA_CLIENT_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9", "NETRC": str(tmp_path / "netrc"),
        "SSLKEYLOGFILE": str(tmp_path / "keys"), "REQUESTS_CA_BUNDLE": "/no",
        "CURL_CA_BUNDLE": "/nowhere",
    }  # fmt: skip
    bridge = talk("--url", simulator.base_url, environ=environ)
    assert bridge.report(1)["result"]["outcome"] == "accepted"
    [entry] = simulator.log()
    assert "canary-netrc" not in json.dumps(entry)
    assert "authorization" not in {name.lower() for name, _ in entry["headers"]}
    assert not (tmp_path / "keys").exists()


def test_help_and_version_need_nothing(clean_environment: Path) -> None:
    """Help, version and the overview work with closed stdin and an unusable configuration."""
    write_config(clean_environment, "nope = 1")
    for words in (["--help"], ["--version"], ["serve", "--help"], ["version"], ["help"], ["call", "--help"]):
        done = run(clean_environment, *words, environ={"ANTICAPTCHA_CLIENT_KEY": "short"})
        assert done.returncode == 0, words
        assert done.stdout
        assert done.stderr == b""


def test_stray_prints_and_children_do_not_reach_the_wire(
    talk: Start, simulator: Simulator, tmp_path: Path
) -> None:
    """A key command that writes to its stderr and reads its stdin disturbs nothing."""
    script = tmp_path / "key.sh"
    script.write_text(f"#!/bin/sh\necho noise >&2\ncat >/dev/null\necho {KEY}\n")
    script.chmod(0o700)
    bridge = talk("--url", simulator.base_url, "--key-command", str(script))
    assert bridge.report(1)["result"]["outcome"] == "accepted"
    assert bridge.close().stdout == b""


def test_a_slow_key_command_keeps_nobody_else_waiting(
    talk: Start, simulator: Simulator, tmp_path: Path
) -> None:
    """While the command runs, other methods and reports with a key of their own are answered."""
    bridge = talk("--url", simulator.base_url, "--key-command", f"/bin/sh -c 'while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo {KEY}'")  # fmt: skip # noqa: E501
    waiting = bridge.send(IMAGE, {"taskId": 1})
    bridge.sync()
    assert bridge.report(2, clientKey=KEY[::-1])["result"]["outcome"] == "accepted"
    (tmp_path / "go").touch()
    message = bridge.read_message()
    assert message["id"] == waiting
    assert message["result"]["outcome"] == "accepted"


def test_a_log_file_is_written_instead_of_stderr(talk: Start, tmp_path: Path) -> None:
    """--log-file takes the lines, as JSON if that is asked for, and stderr stays empty."""
    path = tmp_path / "bridge.log"
    bridge = talk("--sandbox", "--log-file", str(path), "--log-level", "info", "--log-format", "json")
    bridge.report(1)
    ended = bridge.close()
    assert ended.stderr == ""
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events[-1] == "stopped"
    assert "report_settled" in events
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    wait_for(lambda: path.exists())
