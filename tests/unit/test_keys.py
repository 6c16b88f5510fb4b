"""Tests of `bridge.ops.keys`."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import events
from bridge.core.exits import ConfigError
from bridge.core.redact import MASK, Scrubber, Secret
from bridge.engine import Engine
from bridge.ops import keys
from bridge.ops.keys import KeyFault, KeySource, check_key
from bridge.settings import load

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


class Desk:
    """Makes key sources and keeps the events they send."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        self.engine = Engine(self.bugs.append)
        self.scrubber = Scrubber()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, name: str, fields: dict[str, Any]) -> None:
        assert set(fields) <= set(events()[name].fields)
        assert KEY not in repr(fields)
        self.events.append((name, fields))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def reason(self) -> str:
        assert self.names() == ["key_unreadable"]
        return str(self.events[0][1]["reason"])

    def source(self, **given: Any) -> KeySource:
        return KeySource(self.engine, Given(**given), self.scrubber, self.emit)


class Given:
    """The settings of a key source."""

    def __init__(
        self,
        value: str | None = None,
        file: Path | None = None,
        command: str | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self.client_key = None if value is None else Secret(value)
        self.key_file = None if file is None else str(file)
        self.key_command = command
        self.hidden = hidden

    def origin(self, name: str) -> str:
        assert getattr(self, name) is not None or name == "client_key"
        return "flag --key"


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Give an empty desk; nothing may have gone wrong that nobody has seen."""
    desk = Desk()
    yield desk
    assert desk.bugs == []


def write_key(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a key file and return its path."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def python(code: str) -> str:
    """Return a command line that runs Python code."""
    return f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(code)}"


def revealed(source: KeySource) -> str | None:
    """Return the current key as text."""
    key = source.get()
    return None if key is None else key.reveal()


@contextmanager
def elapsed_less_than(seconds: float) -> Iterator[None]:
    """Assert that what is done inside does not take longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


# --- the shape -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [KEY, KEY + "\n", KEY + "\r\n", "\ufeff" + KEY + "\n", "!" * 16, "~" * 128, KEY[:-2] + "=="]
)
def test_a_key_may_end_in_one_newline(text: str) -> None:
    """Visible ASCII of 16 to 128 characters is a key; one trailing newline and a byte order mark are cut."""
    assert check_key(text).reveal() == text.removeprefix("\ufeff").rstrip("\r\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        ("\n", "empty"),
        (" \n", "empty"),
        (KEY + "\n\n", "line breaks"),
        (KEY + "\n" + OTHER, "line breaks"),
        ("\n" + KEY, "line breaks"),
        (KEY + " ", "blanks"),
        (" " + KEY, "blanks"),
        (KEY + "\t\n", "blanks"),
        (KEY + "\u2028", "blanks"),
        ("Bearer " + KEY, "blanks"),
        ("clientKey: " + KEY, "blanks"),
        (f'"{KEY}"', "quotes"),
        (f"'{KEY}'\n", "quotes"),
        (f'"{KEY}', "quotes"),
        (f"`{KEY}`", "quotes"),
        (f"\u201c{KEY}\u201d", "quotes"),
        (f' "{KEY}" ', "quotes"),
        (f"<{KEY}>", "brackets"),
        (f"[{KEY}]", "brackets"),
        (f'{{"clientKey":"{KEY}"}}', "brackets"),
        (f"${{{KEY}}}", "brackets"),
        (f"NAME={KEY}", "equals sign"),
        (f"api-key={KEY}", "equals sign"),
        (f"client.key = {KEY}", "equals sign"),
        (KEY + "\r", "line breaks"),
        (KEY + "\r\r\n", "line breaks"),
        (f"export ANTICAPTCHA_CLIENT_KEY={KEY}", "equals sign"),
        (f'NAME="{KEY}"', "equals sign"),
        (f"KEY = {KEY}", "equals sign"),
        ("$ANTICAPTCHA_CLIENT_KEY", "variable"),
        ("%ANTICAPTCHA_KEY%", "variable"),
        ("/run/secrets/anticaptcha", "path"),
        ("op://vault/item/credential", "address"),
        (KEY + ",", "comma"),
        (KEY + ";\n", "semicolon"),
        (KEY + "\0", "NUL"),
        ("\0".join(KEY), "NUL"),
        ("\u00e4" * 20, "ASCII"),
        (KEY + "\x7f", "ASCII"),
        (KEY + "\u200b", "ASCII"),
        ("\x1b[32m" + KEY, "ASCII"),
        ("\ufeff\ufeff" + KEY, "ASCII"),
        ("a" * 15, "15 characters"),
        ("a" * 129, "129 characters"),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str, fault: str) -> None:
    """What people put around a key, and what cannot be one, is named by a sentence that holds none of it."""
    with pytest.raises(KeyFault, match=fault) as caught:
        check_key(text)
    assert KEY not in str(caught.value)
    assert "aaaa" not in str(caught.value)


@given(st.text(max_size=140) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=140))
def test_any_text_is_a_key_or_a_fault(text: str) -> None:
    """Whatever is accepted is visible ASCII of the right length, and the check never crashes."""
    try:
        key = check_key(text).reveal()
    except KeyFault:
        return
    assert 16 <= len(key) <= 128
    assert all(33 <= ord(char) <= 126 for char in key)


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_every_key_of_the_service_is_taken(key: str) -> None:
    """A key as the upstream gives it, 32 hexadecimal digits, is never refused."""
    assert check_key(key).reveal() == key


# --- environment -----------------------------------------------------------------------------


def test_no_source_is_no_key(desk: Desk) -> None:
    """Without a source there is no key and nothing is said."""
    source = desk.source()
    assert source.get() is None
    source.reload()
    assert source.get() is None
    assert desk.events == []


def test_key_of_the_environment_is_used_and_scrubbed(desk: Desk) -> None:
    """A given value is the key, and the scrubber knows it."""
    assert revealed(desk.source(value=KEY + "\n")) == KEY
    assert desk.scrubber.scrub(KEY) == MASK
    assert desk.names() == ["key_loaded"]


@pytest.mark.parametrize("value", [KEY + " ", f'"{KEY}"', f"<{KEY}>", f"NAME={KEY}"])
def test_bad_key_of_the_environment_ends_the_start(desk: Desk, value: str) -> None:
    """A value with something around the key is a configuration error that names its origin, not the value."""
    with pytest.raises(ConfigError, match="flag --key") as caught:
        desk.source(value=value)
    assert KEY not in str(caught.value)


# --- file ------------------------------------------------------------------------------------


def test_key_file_is_read_again_when_it_changes(desk: Desk, tmp_path: Path) -> None:
    """A new content is used with the next call, by rewriting or by replacing the file."""
    path = tmp_path / "key"
    source = desk.source(file=write_key(path, KEY + "\n"))
    assert revealed(source) == KEY
    write_key(path, OTHER)
    assert revealed(source) == OTHER
    write_key(tmp_path / "new", KEY)
    os.replace(tmp_path / "new", path)
    assert revealed(source) == KEY
    assert desk.names() == ["key_loaded", "key_reloaded", "key_reloaded"]
    assert desk.scrubber.scrub(KEY + OTHER) == MASK + MASK


def test_key_is_at_hand_unless_it_must_be_read(desk: Desk, tmp_path: Path) -> None:
    """Nobody waits who need not: only what a file or a command says anew is waited for."""
    assert desk.source().at_hand() is None
    assert desk.source(value=KEY).at_hand() == Secret(KEY)
    path = tmp_path / "key"
    source = desk.source(file=write_key(path, KEY))
    assert source.at_hand() == Secret(KEY)
    write_key(path, OTHER)
    assert source.at_hand() is None
    assert revealed(source) == OTHER
    assert source.at_hand() == Secret(OTHER)
    source.reload()
    assert source.at_hand() is None


def test_key_file_that_becomes_bad_keeps_the_last_key(desk: Desk, tmp_path: Path) -> None:
    """A missing, half-written or replaced file is told once and the last good key stays in use."""
    path = tmp_path / "key"
    source = desk.source(file=write_key(path, KEY))
    path.unlink()
    assert revealed(source) == KEY
    assert revealed(source) == KEY
    write_key(path, OTHER[:8])
    assert revealed(source) == KEY
    assert revealed(source) == KEY
    path.unlink()
    os.mkfifo(path, 0o600)
    with elapsed_less_than(5):
        assert revealed(source) == KEY
    path.unlink()
    write_key(path, OTHER)
    assert revealed(source) == OTHER
    told = ["key_unreadable"] * 3
    assert desk.names() == ["key_loaded", *told, "key_reloaded"]
    assert "stays in use" in desk.events[1][1]["consequence"]


def test_many_at_once_read_a_changed_file_once(desk: Desk, tmp_path: Path) -> None:
    """Requests that come while a changed file is being read wait for it and get the new key."""
    path = tmp_path / "key"
    source = desk.source(file=write_key(path, KEY))
    write_key(path, OTHER)
    found: list[str | None] = []
    for _ in range(20):
        desk.engine.spawn(lambda: found.append(revealed(source)))
    assert revealed(source) == OTHER
    desk.engine.sleep(0)
    assert found == [OTHER] * 20
    assert desk.names() == ["key_loaded", "key_reloaded"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty"),
        (KEY.encode() + b"\n\n", "line breaks"),
        (b"k" * 9000, "too long"),
        (b"\xff" * 20, "not text"),
        (KEY.encode("utf-16"), "UTF-16"),
        (KEY.encode("utf-16-be"), "UTF-16"),
        (KEY.encode("utf-16-le"), "UTF-16"),
        (KEY.encode("utf-32"), "UTF-16"),
        (b"\xe4" + KEY.encode(), "not text"),
        (b"-----BEGIN KEY-----\n" + KEY.encode() + b"\n-----END KEY-----\n", "line breaks"),
        (b"\0" * 40, "NUL"),
    ],
)
def test_bad_key_file_ends_the_start(desk: Desk, tmp_path: Path, data: bytes, fault: str) -> None:
    """A file that holds no key at the start is a configuration error that says what is wrong with it."""
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(ConfigError, match=fault) as caught:
        desk.source(file=tmp_path / "key")
    assert caught.value.exit_code == 3
    assert KEY not in str(caught.value)


def test_a_key_file_may_have_a_byte_order_mark(desk: Desk, tmp_path: Path) -> None:
    """UTF-8 as Windows writes it, with its mark and line end, is a key."""
    assert revealed(desk.source(file=write_key(tmp_path / "key", f"\ufeff{KEY}\r\n"))) == KEY


def test_a_file_that_cannot_be_read_is_named(desk: Desk, tmp_path: Path) -> None:
    """A missing file, a directory, a socket and an empty device are configuration errors with the path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("missing", ".", "socket", "missing/key"):
            path = tmp_path / name
            with pytest.raises(ConfigError, match="cannot be read") as caught:
                desk.source(file=path)
            assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="empty"):
        desk.source(file=Path(os.devnull))
    with pytest.raises(ConfigError, match="too long"):
        desk.source(file=Path("/dev/zero"))


def test_a_key_in_place_of_its_file_is_not_repeated(desk: Desk) -> None:
    """Somebody who gives the key itself as the file's name does not find it in the message."""
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        desk.source(file=Path(KEY))
    assert KEY not in str(caught.value)


def test_loose_modes_warn_once(desk: Desk, tmp_path: Path) -> None:
    """A key file that others can read is told once per mode."""
    path = tmp_path / "key"
    source = desk.source(file=write_key(path, KEY, 0o644))
    source.reload()
    assert revealed(source) == KEY
    assert [fields["mode"] for name, fields in desk.events if name == "key_file_loose"] == ["0644"]
    path.chmod(0o600)
    assert revealed(source) == KEY
    path.chmod(0o640)
    assert revealed(source) == KEY
    assert [fields["mode"] for name, fields in desk.events if name == "key_file_loose"] == ["0644", "0640"]


def test_reload_reads_the_file_whatever_its_signature(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unknown key the file is read even if it seems unchanged."""
    path = tmp_path / "key"
    monkeypatch.setattr(keys, "_sign", lambda status: ())
    source = desk.source(file=write_key(path, KEY))
    write_key(path, OTHER)
    assert revealed(source) == KEY
    source.reload()
    assert revealed(source) == OTHER


def test_key_from_a_named_pipe_is_read_once_in_the_background(desk: Desk, tmp_path: Path) -> None:
    """A pipe does not hold up the start, is read to its end and never opened again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = desk.source(file=path)
    writer = subprocess.Popen(["sh", "-c", f"sleep 0.2; printf {KEY} > {shlex.quote(str(path))}"])
    assert revealed(source) == KEY
    assert writer.wait() == 0
    source.reload()
    assert revealed(source) == KEY


def test_a_pipe_that_nobody_writes_to_is_not_awaited_for_ever(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait ends; the key is taken when it comes all the same."""
    monkeypatch.setattr(keys, "PATIENCE_S", 0.2)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = desk.source(file=path)
    assert source.get() is None
    path.write_text(KEY)
    monkeypatch.setattr(keys, "PATIENCE_S", 60.0)
    assert revealed(source) == KEY


# --- command ---------------------------------------------------------------------------------


def test_key_command_gives_its_first_line(desk: Desk) -> None:
    """The first line of the output is the key; the rest is ignored."""
    for end in ("\\n", "\\r\\n"):
        lines = f"'{KEY}', 'login: me', sep='{end}', end='{end}'"
        assert revealed(desk.source(command=python(f"print({lines})"))) == KEY
    assert desk.scrubber.scrub(KEY) == MASK


def test_key_command_does_not_hold_up_the_start(desk: Desk, tmp_path: Path) -> None:
    """While the command runs others go on, and all who ask get its key."""
    go = tmp_path / "go"
    os.mkfifo(go)
    source = desk.source(command=python(f"open({str(go)!r}).read(); print('{KEY}')"))
    found: list[str | None] = []
    for _ in range(3):
        desk.engine.spawn(lambda: found.append(revealed(source)))
    source.reload()  # is not started a second time
    desk.engine.sleep(0.05)
    assert found == []
    go.write_text("")
    assert revealed(source) == KEY
    desk.engine.sleep(0)
    assert found == [KEY] * 3
    assert desk.names() == ["key_loaded"]


def test_key_command_runs_without_shell_input_and_secrets(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell expands the words, stdin is empty and no variable with a secret of ours is inherited."""
    for name, value in {
        "MARK": "1",
        "ANTICAPTCHA_CLIENT_KEY": KEY,
        "REPORT_BRIDGE_KEY_COMMAND": "vault --token x",
        "REPORT_BRIDGE_LEDGER": "postgresql://me:pw@host/db",
        "REPORT_BRIDGE_LEDGER_PASSWORD": "pw",
        "REPORT_BRIDGE_PROXY": "http://me:pw@proxy:3128",
        "PGPASSWORD": "pw",
        "REPORT_BRIDGE_QUEUE": "5",
    }.items():
        monkeypatch.setenv(name, value)
    code = (
        "import os, sys;"
        "ok = sys.argv[1] == '$HOME;*' and sys.stdin.read() == '' and os.environ.get('MARK') == '1';"
        "ok = ok and [n for n in sorted(os.environ) if n.startswith(('ANTICAPTCHA', 'REPORT_BRIDGE', 'PG'))]"
        " == ['REPORT_BRIDGE_QUEUE'];"
        f"print('{KEY}' if ok else '')"
    )
    environ = {name: value for name, value in os.environ.items() if name != "ANTICAPTCHA_CLIENT_KEY"}
    hidden = load({}, environ).hidden
    assert revealed(desk.source(command=python(code) + " '$HOME;*'", hidden=hidden)) == KEY


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (python(f"import sys; print('{KEY}'); print('{KEY}', file=sys.stderr); sys.exit(3)"), "code 3"),
        (python(f"import os; print('{KEY}', flush=True); os.kill(os.getpid(), 9)"), "signal 9"),
        (python(f"import sys; print('{KEY}', file=sys.stderr)"), "empty"),
        (python("print('short')"), "characters"),
        (python(f"print(' {KEY}')"), "blanks"),
        (python(f"print(); print('{KEY}')"), "empty"),
        (python(f"print('KEY={KEY}')"), "equals sign"),
        (python(f"import sys; sys.stdout.buffer.write('{KEY}\\n'.encode('utf-16'))"), "UTF-16"),
        (python("pass"), "empty"),
        ("/nonexistent/program --token x", "/nonexistent/program cannot be started"),
        ("/", "cannot be started"),
        ("'unclosed", "quotes"),
        ("''", "started"),
        ("# ", "started"),
    ],
)
def test_failing_key_command_is_told_without_its_output(
    desk: Desk, capfd: pytest.CaptureFixture[str], command: str, reason: str
) -> None:
    """A command without a usable key is one event with the reason, and nothing reaches stderr."""
    assert desk.source(command=command).get() is None
    assert reason in desk.reason()
    assert capfd.readouterr() == ("", "")


def test_a_command_that_leaves_a_daemon_gives_its_key_at_once(desk: Desk) -> None:
    """The end of the command counts, not that of a pipe which something in the background keeps open."""
    with elapsed_less_than(5):
        assert revealed(desk.source(command=f"sh -c 'echo {KEY}; sleep 8 &'")) == KEY


def test_a_command_that_closes_its_output_is_awaited(desk: Desk) -> None:
    """A command that fails after it has closed its output gives no key."""
    source = desk.source(command=f"sh -c 'echo {KEY}; exec >&-; sleep 0.2; exit 1'")
    assert source.get() is None
    assert "code 1" in desk.reason()


@contextmanager
def ignored_children() -> Iterator[None]:
    """Ignore SIGCHLD, as a parent may hand it down: the exit status of every child is lost."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("code", [0, 1])
def test_a_lost_exit_status_is_no_success(desk: Desk, code: int) -> None:
    """Where nobody can tell how the command ended, its output is not taken for a key."""
    with ignored_children():
        assert desk.source(command=f"sh -c 'echo {KEY}; exit {code}'").get() is None
    assert "SIGCHLD" in desk.reason()


def test_hanging_key_command_is_ended_with_its_children(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that does not end in time is killed, its children too, whatever signals they ignore."""
    monkeypatch.setattr(keys, "COMMAND_TIMEOUT_S", 0.5)
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"f = open({str(alive)!r}, 'w'); time.sleep(600)"
    )
    source = desk.source(
        command=python(
            f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {child!r}])"
        )
    )
    reader = subprocess.Popen(["cat", str(alive)], stdout=subprocess.PIPE)
    assert source.get() is None
    assert "longer than 0.5 s" in desk.reason()
    assert reader.communicate(timeout=60)[0] == b""  # ends with the child that held the other end


def test_endless_output_is_cut(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that never stops printing is ended and refused."""
    monkeypatch.setattr(keys, "COMMAND_TIMEOUT_S", 0.5)
    assert desk.source(command=python("while True: print('x' * 1000)")).get() is None
    assert "far more" in desk.reason()


@pytest.mark.parametrize("lacking", ["thread", "process", "another reason"])
def test_what_was_not_read_for_want_of_resources_is_read_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Without a thread or a process there is no key, and an event says why; the next who asks has it."""
    number = errno.EACCES if lacking == "another reason" else errno.EAGAIN

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as scarce:
        place: tuple[Any, str] = (
            (desk.engine, "run_in_thread") if lacking == "thread" else (subprocess, "Popen")
        )
        scarce.setattr(*place, refuse)
        source = desk.source(command=f"echo {KEY}")
        assert source.get() is None
    if lacking == "another reason":
        assert os.strerror(number) in desk.reason()
        assert source.get() is None
    else:
        assert "BlockingIOError" in desk.reason()
        assert revealed(source) == KEY


def test_a_refused_key_has_the_command_run_again_but_not_in_a_loop(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unknown key the command runs at once; if that key is unknown too, it rests first."""
    monkeypatch.setattr(keys, "RERUN_S", 0.5)
    path = write_key(tmp_path / "key", KEY)
    source = desk.source(command=python(f"print(open({str(path)!r}).read())"))
    assert revealed(source) == KEY
    write_key(path, OTHER)
    source.reload()
    rests_until = desk.engine.now() + 0.45
    assert revealed(source) == OTHER
    write_key(path, KEY)
    source.reload()
    source.reload()
    while (found := revealed(source)) != KEY:
        assert found == OTHER
        desk.engine.sleep(0.02)
    assert desk.engine.now() >= rests_until
    assert desk.names() == ["key_loaded", "key_reloaded", "key_reloaded"]
