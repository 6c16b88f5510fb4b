"""One canary key through every fault; afterwards it is searched for wherever something was written."""

from __future__ import annotations

import base64
import binascii
import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import pytest

from bridge.simulator import Simulator
from tests.e2e.talk import CORRECT, HCAPTCHA, IMAGE, MAGIC, RECAPTCHA, Talk, error_of, wait_for
from tests.e2e.test_faults import magic_ids
from tests.process import PATIENCE_S, ROOT

Start = Callable[..., Talk]
PLAIN = "c4a4e40a1b2c3d4e5f60718293a4b5c6"
PLAIN_PARTLY = b"c4a4%65%34" + PLAIN[6:].encode()
NASTY = "Kq\"\\/<&>%27+=?#{}~C4n4ry`$(x)'Zz"


def spellings(key: str) -> set[bytes]:
    """Return a key in every encoding that it could be recognised in, in lower case."""
    raw = key.encode()
    found = {
        raw,
        raw[::-1],
        quote(key, safe="").encode(),
        b"".join(b"%%%02x" % byte for byte in raw),
        raw.hex().encode(),
        raw[::-1].hex().encode(),
        b" ".join(b"%02x" % byte for byte in raw),
        json.dumps(key)[1:-1].encode(),
        repr(key)[1:-1].encode(),
        b"".join(b"\\u%04x" % byte for byte in raw),
        html.escape(key).encode(),
        "".join(f"&#{byte};" for byte in raw).encode(),
        "".join(f"&#x{byte:x};" for byte in raw).encode(),
        base64.b85encode(raw),
        base64.b32encode(raw).rstrip(b"=")[:-2],
    }
    for shift in range(3):
        # Whatever stands around the key, these characters of its base64 do not change.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            inner = encode(b"\0" * shift + raw)
            found.add(inner[(shift * 8 + 5) // 6 : len(raw) * 8 // 6 - 1])
    return {spelling.lower() for spelling in found}


def demand_absent(keys: Iterable[str], where: str, *texts: bytes) -> None:
    """Demand that no text holds a key in any encoding."""
    for key in keys:
        for text in texts:
            lower = text.lower()
            undone = (
                lower,
                unquote_to_bytes(text).lower(),
                html.unescape(text.decode("latin-1")).lower().encode(),
            )
            for spelling in spellings(key):
                for version in undone:
                    at = version.find(spelling)
                    assert at < 0, f"{where}: {version[max(0, at - 60) : at + 80]!r}"


def test_the_search_would_find_a_key() -> None:
    """The search itself sees a key in each encoding, wherever it stands."""
    for key in (PLAIN, NASTY):
        raw = key.encode()
        for hidden in (
            raw, raw.hex().upper().encode(), base64.b64encode(b"x" + raw + b"yz"), json.dumps(key).encode(),
            base64.urlsafe_b64encode(b"xy" + raw + b"z"), quote(key, safe="").encode(),
            binascii.hexlify(raw[::-1]),
            b"".join(b"%%%02X" % byte for byte in raw), PLAIN_PARTLY if key == PLAIN else raw,
        ):  # fmt: skip
            with pytest.raises(AssertionError, match="here"):
                demand_absent([key], "here", b"before " + hidden + b" after")


def files_below(folder: Path, but: Iterable[Path]) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    left_out = set(but)
    return {
        str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in left_out
    }


@pytest.mark.parametrize(
    ("source", "key"),
    [("environment", PLAIN), ("file", NASTY), ("command", PLAIN), ("params", NASTY)],
    ids=["environment", "file", "command", "params"],
)
def test_no_fault_brings_the_key_to_light(
    talk: Start, simulator: Simulator, clean_environment: Path, source: str, key: str
) -> None:
    """Whatever the upstream does and repeats, the key is in no output, log, ledger, state or child."""
    home = clean_environment
    key_file, log_file = home / "the.key", home / "bridge.log"
    key_file.write_text(key + "\n")
    key_file.chmod(0o600)
    environ = {"ANTICAPTCHA_CLIENT_KEY": key} if source == "environment" else {}
    words = ["--key-file", str(key_file)] if source == "file" else []
    if source == "command":
        words = [
            "--key-command",
            f"/bin/sh -c 'env > {home}/seen; cat /proc/$$/cmdline >> {home}/seen; cat {key_file}'",
        ]
    if source == "params":
        environ = {"ANTICAPTCHA_CLIENT_KEY": "another-key-that-is-not-looked-for"}
    params = {"clientKey": key} if source == "params" else {}
    bridge = talk(
        "--url", simulator.base_url, "--no-pauses", "--timeout", "0.6", "--concurrency", "64",
        "--log-level", "debug", *words, environ=environ,
    )  # fmt: skip
    methods = (IMAGE, RECAPTCHA, CORRECT, HCAPTCHA)
    echoes = [bridge.report(MAGIC + n, **params) for n in (1027, *range(3170, 3181))]
    assert all("***" in echo["error"]["data"]["errorDescription"] for echo in echoes)
    demand_absent([key], "echo", json.dumps(echoes).encode(), json.dumps(echoes, ensure_ascii=False).encode())
    completed_at = time.time() - 52
    # One of each sort of fault: the ids of errors and statuses say no more.
    ids = [n for n in magic_ids() if n - MAGIC < 20 or 1000 < n - MAGIC < 1040 or 3000 < n - MAGIC < 3166]
    ids.remove(MAGIC + 3117)  # 200 MB to pack and send, and nothing of the key in it
    names = [
        bridge.send(methods[n % 4], {"taskId": task_id, "completedAt": completed_at, **params})
        for n, task_id in enumerate(ids)
    ]
    answers = bridge.read_all(names)
    for answer in answers.values():
        demand_absent(
            [key], "answer", json.dumps(answer).encode(), json.dumps(answer, ensure_ascii=False).encode()
        )
    for method in ("bridge.status", "bridge.info", "bridge.listReports"):
        demand_absent([key], method, json.dumps(bridge.call(method)).encode())
    proc = Path(f"/proc/{bridge.pid}")
    demand_absent([key], "cmdline", (proc / "cmdline").read_bytes())
    [core] = [line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max core")]
    assert re.split(r"\s{2,}", core)[1:3] == ["1", "1"]
    ended = bridge.close()
    assert ended.code == 0
    assert "attempt_done" in ended.stderr
    demand_absent([key], "stderr", ended.stderr.encode(), ended.stdout)
    found = files_below(home, [key_file])
    assert any(name.endswith("ledger.sqlite") or "ledger" in name for name in found), found.keys()
    if source == "command":
        assert str(home / "seen") in found
        assert b"HOME=" in found[str(home / "seen")]
    for name, content in found.items():
        demand_absent([key], name, content)
    assert not log_file.exists()


def test_the_key_in_wrong_places_is_not_repeated(
    talk: Start, simulator: Simulator, clean_environment: Path
) -> None:
    """A key in a name, a method, a broken message or a param is kept nowhere, and told as an id only."""
    bridge = talk(
        "--url", simulator.base_url, "--log-level", "debug", environ={"ANTICAPTCHA_CLIENT_KEY": PLAIN}
    )
    key = json.dumps(NASTY)
    envelope = '{"jsonrpc":"2.0","id":1,'
    long_key = json.dumps(NASTY * 4)
    texts = [
        f'{envelope}"method":{key}}}',
        f'{envelope}"method":"rpc.{PLAIN}"}}',
        f'{envelope}"method":"bridge.info","params":{{{key}:1}}}}',
        f'{envelope}"method":"bridge.info","params":[{key}]}}',
        f'{envelope}"method":"bridge.info","params":{key}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,{key}:{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{key},"languagePool":{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{key},"completedAt":{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{key},"taskType":{long_key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":3,"clientKey":{key},"taskType":{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":2,"taskType":{key}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":4,"taskType":"key={PLAIN.upper()}"}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":5,"taskType":"{PLAIN.encode().hex()}"}}}}',
        f'{envelope}"method":"bridge.noteTasks","params":{{"taskType":{key},"clientKey":{key}}}}}',
        f'{envelope}"method":"bridge.noteTasks","params":{{"taskType":"{PLAIN}"}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{json.dumps(NASTY * 9)}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{json.dumps(NASTY + chr(233))}}}}}',
        f'{envelope}"method":"{IMAGE}","params":{{"taskId":1,"clientKey":{key},"clientKey":{key}}}}}',
        f'{envelope}"method":"bridge.getReport","params":{{"taskId":1,"clientKey":{key}}}}}',
        f'{envelope}"method":"bridge.resume","params":{{"clientKey":{key}}}}}',
        f'{envelope}"method":"bridge.resume","params":{{"scope":{key}}}}}',
        f'{envelope}"method":"bridge.listReports","params":{{"cursor":{key},"method":{key}}}}}',
        f'{envelope}{key}:{key},"method":7}}',
        f'{{"jsonrpc":{key},"id":1}}',
        f'{{"jsonrpc":"2.0","id":[{key}],"method":"bridge.info"}}',
        f'{envelope}"method":{key}',
        NASTY,
        PLAIN,
        f"[{key}]",
        f"[{key},]",
        f'{{"jsonrpc":"2.0","id":1,"method":{key},"x":"\\ud800"}}',
    ]
    lines = []
    for text in texts:
        bridge.send_line(text.encode())
        lines.append(bridge.read_line() or b"")
        assert b"error" in lines[-1] or b"result" in lines[-1]
    bridge.send_line(f'{{"jsonrpc":"2.0","method":"$/cancelRequest","params":{{"id":{key}}}}}'.encode())
    bridge.send_line(f'{{"jsonrpc":"2.0","method":{key},"params":{{"clientKey":{key}}}}}'.encode())
    demand_absent([NASTY, PLAIN], "answers", *lines)
    echoed = bridge.ask(f'{{"jsonrpc":"2.0","id":{key},"method":"bridge.info"}}'.encode())
    assert echoed["id"] == NASTY
    ended = bridge.close()
    demand_absent([NASTY, PLAIN], "stderr", ended.stderr.encode())
    kept = files_below(clean_environment, [])
    assert any(b"key=***" in content for name, content in kept.items() if "ledger" in name)
    for name, content in kept.items():
        demand_absent([NASTY, PLAIN], name, content)


def test_the_key_in_headers_of_the_wire_is_not_repeated(clean_environment: Path) -> None:
    """Header framing that cannot be read is told without the header."""
    for data in (
        f"Content-Length: {NASTY}\r\n\r\n",
        f"Content-Type: x\r\n{NASTY}\r\n\r\n",
        f"Content-{PLAIN}",
    ):
        done = subprocess.run(
            [sys.executable, "-m", "bridge", "--sandbox", "--log-level", "debug"], input=data.encode(),
            capture_output=True, env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)},
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        demand_absent([NASTY, PLAIN], data, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["--key", PLAIN], {}),
        ([f"--key={PLAIN}"], {}),
        (["--client-key", PLAIN], {}),
        ([f"--{PLAIN}"], {}),
        ([PLAIN], {}),
        (["serve", PLAIN], {}),
        (["--url", f"https://{PLAIN}@host.invalid"], {}),
        (["--url", f"https://host.invalid/?key={PLAIN}"], {}),
        (["--url", f"http://{PLAIN}.invalid"], {}),
        (["--proxy", f"http://user:{PLAIN}@host.invalid:x"], {}),
        (["--ledger", f"postgresql://user:{PLAIN}@host.invalid/db"], {}),
        (["--timeout", PLAIN], {}),
        (["--queue", PLAIN], {}),
        (["--log-level", PLAIN], {}),
        (["--log-format", PLAIN], {}),
        (["call", IMAGE, f"clientKey={PLAIN}"], {}),
        (["call", IMAGE, f"taskId={PLAIN}"], {}),
        (["call", PLAIN], {}),
        (["config", f"--queue={PLAIN}"], {}),
        (["--account-queues", PLAIN], {}),
        (["config", f"--account-queues=Recaptcha Proxyless, {PLAIN.upper()}"], {}),
        ([], {"REPORT_BRIDGE_TIMEOUT": PLAIN}),
        ([], {"REPORT_BRIDGE_URL": f"https://u:{PLAIN}@h"}),
        ([], {"REPORT_BRIDGE_PAUSES": PLAIN}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": f" {PLAIN}"}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": f"{PLAIN} {PLAIN}"}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": f"{PLAIN}é"}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": PLAIN * 9}),
        ([], {"ANTICAPTCHA_CLIENT_KEY": PLAIN, "ANTICAPTCHA_CLIENT_KEY_FILE": "/nowhere"}),
    ],
)
def test_a_key_given_to_the_wrong_setting_is_refused_unseen(
    clean_environment: Path, words: list[str], environ: dict[str, str]
) -> None:
    """The refusal is one sentence that does not repeat what was given; exit code 2 or 3."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words], input=b"", capture_output=True, check=False,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT), **environ}, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode in (2, 3)
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    demand_absent([PLAIN], "stderr", done.stderr)


def test_config_masks_secrets(clean_environment: Path) -> None:
    """report-bridge config shows where the key comes from, not the key."""
    for words in (["config"], ["config", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *words], capture_output=True, timeout=PATIENCE_S, check=True,
            env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT), "ANTICAPTCHA_CLIENT_KEY": PLAIN},
        )  # fmt: skip
        demand_absent([PLAIN], "config", done.stdout, done.stderr)
        assert b"ANTICAPTCHA_CLIENT_KEY" in done.stdout


def test_the_key_of_a_wrong_account_stays_hidden(talk: Start, simulator: Simulator) -> None:
    """A refused key is answered and logged without being named, also when its file changes."""
    home = Path(os.environ["HOME"])
    key_file = home / "the.key"
    key_file.write_text(PLAIN)
    key_file.chmod(0o644)
    simulator.set_account(client_key=PLAIN, state="unknown")
    bridge = talk("--url", simulator.base_url, "--key-file", str(key_file), "--log-level", "debug")
    assert error_of(bridge.report(1)) == (1, "key_does_not_exist")
    assert error_of(bridge.report(2)) == (-32021, "sending_paused")
    key_file.write_text(NASTY + "\n")
    wait_for(lambda: "result" in bridge.report(int(time.time() * 1000)))
    ended = bridge.close()
    assert "key_file_loose" in ended.stderr
    demand_absent([PLAIN, NASTY], "stderr", ended.stderr.encode())
    for name, content in files_below(home, [key_file]).items():
        demand_absent([PLAIN, NASTY], name, content)


def test_the_memory_of_the_doctor_is_not_dumped(clean_environment: Path) -> None:
    """Like the service it forbids that before it reads the key."""
    command, seen = clean_environment / "command", clean_environment / "seen"
    command.write_text(f"#!/bin/sh\ngrep core /proc/$PPID/limits > {seen}\necho {PLAIN}\n")
    command.chmod(0o755)
    subprocess.run(
        [sys.executable, "-m", "bridge", "doctor", "--key-command", str(command)],
        capture_output=True, timeout=PATIENCE_S, check=True,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert re.split(r"\s{2,}", seen.read_text())[1:3] == ["1", "1"]
