"""Tests of `bridge.ops.keys`."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import EVENTS
from bridge.core.exits import ConfigError
from bridge.core.redact import MASK, Scrubber, Secret
from bridge.ops import keys
from bridge.ops.keys import KeyFault, KeySource, check_key

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
WAIT_S = 60


class Desk:
    """Makes key sources and keeps the events they send."""

    def __init__(self) -> None:
        self.scrubber = Scrubber()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def notify(self, name: str, **fields: Any) -> None:
        assert set(fields) <= set(EVENTS[name].fields)
        assert KEY not in repr(fields)
        self.events.append((name, fields))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def source(self, environ: dict[str, str] | None = None, **given: Any) -> KeySource:
        return KeySource(Given(**given), self.scrubber, self.notify, environ)

    def started(self, environ: dict[str, str] | None = None, **given: Any) -> KeySource:
        source = self.source(environ, **given)
        wait_ready(source)
        return source


class Given:
    """The settings of a key source."""

    def __init__(
        self, value: Secret | None = None, file: str | None = None, command: str | None = None
    ) -> None:
        self.client_key = value
        self.key_file = file
        self.key_command = command

    def origin(self, name: str) -> str:
        assert getattr(self, name) is not None or name == "client_key"
        return "flag --key"


def wait_ready(source: KeySource) -> Secret | None:
    """Wait until nothing is being read and return what the callback was given."""
    given: list[Secret | None] = []
    ready = threading.Event()

    def note(key: Secret | None) -> None:
        given.append(key)
        ready.set()

    source.when_ready(note)
    assert ready.wait(WAIT_S)
    return given[0]


@pytest.fixture
def desk() -> Desk:
    """Give an empty desk."""
    return Desk()


def write_key(path: Path, text: str, mode: int = 0o600) -> str:
    """Write a key file and return its path."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def python(code: str) -> str:
    """Return a command line that runs Python code."""
    return f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(code)}"


def revealed(source: KeySource) -> str | None:
    """Return the current key as text."""
    key = source.current()
    return None if key is None else key.reveal()


# --- the shape -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [KEY, KEY + "\n", KEY + "\r\n", "!" * 16, "~" * 128])
def test_a_key_may_end_in_one_newline(text: str) -> None:
    """Visible ASCII of 16 to 128 characters is a key, and one trailing newline is cut."""
    assert check_key(text).reveal() == text.rstrip("\r\n")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "\n",
            KEY + "\n\n",
            KEY + " ",
            " " + KEY,
            KEY + "\t\n",
            "a" * 15,
            "a" * 129,
            "a" * 8 + " " + "a" * 8,
        ),
        *("ä" * 20, "\ufeff" + KEY, KEY + "\0", KEY + "\x7f", KEY + "\u2028", "\n" + KEY),
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    """Blanks, other characters and wrong lengths are refused by a sentence that holds none of it."""
    with pytest.raises(KeyFault) as caught:
        check_key(text)
    assert KEY not in str(caught.value)
    assert "aaaa" not in str(caught.value)


@given(st.text(max_size=140))
def test_any_text_is_a_key_or_a_fault(text: str) -> None:
    """The check accepts exactly visible ASCII of the right length, and never crashes."""
    try:
        key = check_key(text).reveal()
    except KeyFault:
        return
    assert 16 <= len(key) <= 128
    assert all(33 <= ord(char) <= 126 for char in key)


# --- environment -----------------------------------------------------------------------------


def test_no_source_is_no_key(desk: Desk) -> None:
    """Without a source there is no key, nothing is pending and nothing is said."""
    source = desk.started()
    assert source.current() is None
    source.reload()
    assert desk.events == []


def test_key_of_the_environment_is_used_and_scrubbed(desk: Desk) -> None:
    """A given value is the key, and the scrubber knows it."""
    source = desk.started(value=Secret(KEY + "\n"))
    assert revealed(source) == KEY
    assert desk.scrubber.scrub(KEY) == MASK
    assert desk.names() == ["key_loaded"]


def test_bad_key_of_the_environment_ends_the_start(desk: Desk) -> None:
    """A value with a blank is a configuration error that names its origin and not the value."""
    with pytest.raises(ConfigError, match="flag --key") as caught:
        desk.started(value=Secret(KEY + " "))
    assert KEY not in str(caught.value)


# --- file ------------------------------------------------------------------------------------


def test_key_file_is_read_again_when_it_changes(desk: Desk, tmp_path: Path) -> None:
    """A new content is used with the next call, by rewriting or by replacing the file."""
    path = tmp_path / "key"
    source = desk.started(file=write_key(path, KEY + "\n"))
    assert revealed(source) == KEY
    write_key(path, OTHER)
    assert revealed(source) == OTHER
    write_key(tmp_path / "new", KEY)
    os.replace(tmp_path / "new", path)
    assert revealed(source) == KEY
    assert desk.names() == ["key_loaded", "key_reloaded", "key_reloaded"]
    assert desk.scrubber.scrub(KEY + OTHER) == MASK + MASK


def test_key_file_that_becomes_bad_keeps_the_last_key(desk: Desk, tmp_path: Path) -> None:
    """A missing or half-written file is told once and the last good key stays in use."""
    path = tmp_path / "key"
    source = desk.started(file=write_key(path, KEY))
    path.unlink()
    assert revealed(source) == KEY
    assert revealed(source) == KEY
    write_key(path, OTHER[:8])
    assert revealed(source) == KEY
    write_key(path, OTHER)
    assert revealed(source) == OTHER
    assert desk.names() == ["key_loaded", "key_unreadable", "key_unreadable", "key_reloaded"]
    assert "stays in use" in desk.events[1][1]["consequence"]


@pytest.mark.parametrize("content", ["", KEY + "\n\n", "k" * 9000], ids=["empty", "blank", "long"])
def test_bad_key_file_ends_the_start(desk: Desk, tmp_path: Path, content: str) -> None:
    """A file that holds no key at the start is a configuration error with exit code 3."""
    with pytest.raises(ConfigError) as caught:
        desk.started(file=write_key(tmp_path / "key", content))
    assert caught.value.exit_code == 3
    assert KEY not in str(caught.value)


def test_missing_key_file_ends_the_start(desk: Desk, tmp_path: Path) -> None:
    """A file that is not there, or a directory, is a configuration error."""
    with pytest.raises(ConfigError, match="cannot be read"):
        desk.started(file=str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="directory"):
        desk.started(file=str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigError, match="not text"):
        desk.started(file=str(tmp_path / "binary"))


def test_loose_modes_warn_once(desk: Desk, tmp_path: Path) -> None:
    """A key file that others can read is told once per mode."""
    path = tmp_path / "key"
    source = desk.started(file=write_key(path, KEY, 0o644))
    source.reload()
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
    source = desk.started(file=write_key(path, KEY))
    monkeypatch.setattr(keys, "_signature_of", lambda status: source._signature)
    write_key(path, OTHER)
    assert revealed(source) == KEY
    source.reload()
    assert revealed(source) == OTHER


def test_key_from_a_named_pipe_is_read_once_in_the_background(desk: Desk, tmp_path: Path) -> None:
    """A stream does not hold up the start, is read to its end and never opened again."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = desk.source(file=str(path))
    assert source.is_pending
    assert source.current() is None
    with open(path, "w", encoding="ascii") as pipe:
        pipe.write(KEY + "\n")
    wait_ready(source)
    assert revealed(source) == KEY
    source.reload()
    assert revealed(source) == KEY


# --- command ---------------------------------------------------------------------------------


def test_key_command_gives_its_first_line(desk: Desk) -> None:
    """The first line of the output is the key; the rest is ignored."""
    source = desk.started(command=python(f"print('{KEY}'); print('login: me')"))
    assert revealed(source) == KEY
    assert desk.scrubber.scrub(KEY) == MASK


def test_key_command_does_not_hold_up_the_start(desk: Desk, tmp_path: Path) -> None:
    """While the command runs the key is pending, and callbacks wait for it."""
    go = tmp_path / "go"
    os.mkfifo(go)
    source = desk.source(command=python(f"open({str(go)!r}).read(); print('{KEY}')"))
    called: SimpleQueue[Secret | None] = SimpleQueue()
    source.when_ready(called.put)
    assert source.is_pending
    assert source.current() is None
    assert called.empty()
    source.reload()  # is not started a second time
    go.write_text("")
    assert called.get(timeout=WAIT_S) == Secret(KEY)
    assert wait_ready(source) == Secret(KEY)
    assert revealed(source) == KEY
    assert not source.is_pending


def test_key_command_runs_without_shell_input_and_secrets(desk: Desk) -> None:
    """No shell expands the words, stdin is empty and no secret variable is inherited."""
    code = (
        "import os, sys;"
        "ok = sys.argv[1] == '$HOME;*' and sys.stdin.read() == '' and os.environ.get('MARK') == '1';"
        "ok = ok and not any(n.startswith(('ANTICAPTCHA', 'REPORT_BRIDGE')) for n in os.environ);"
        f"print('{KEY}' if ok else '')"
    )
    source = desk.started(
        command=python(code) + " '$HOME;*'",
        environ={"MARK": "1", "ANTICAPTCHA_CLIENT_KEY": KEY, "REPORT_BRIDGE_LEDGER_PASSWORD": "x"},
    )
    assert revealed(source) == KEY


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (python(f"import sys; print('{KEY}'); print('{KEY}', file=sys.stderr); sys.exit(3)"), "code 3"),
        (python("print('short')"), "characters"),
        (python(f"print(' {KEY}')"), "blanks"),
        (python("pass"), "empty"),
        ("/nonexistent/program", "started"),
        ("'unclosed", "quotes"),
        ("''", "started"),
        ("# ", "started"),
    ],
)
def test_failing_key_command_is_told_without_its_output(
    desk: Desk, capfd: pytest.CaptureFixture[str], command: str, reason: str
) -> None:
    """A command without a usable key is one event with the reason, and nothing reaches stderr."""
    source = desk.started(command=command)
    assert source.current() is None
    assert desk.names() == ["key_unreadable"]
    assert reason in desk.events[0][1]["reason"]
    assert capfd.readouterr() == ("", "")


def test_hanging_key_command_is_ended_with_its_children(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that does not end in time is killed, its children too."""
    monkeypatch.setattr(keys, "COMMAND_TIMEOUT_S", 0.5)
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    child = f"import time; f = open({str(alive)!r}, 'w'); time.sleep(600)"
    source = desk.source(
        command=python(
            f"import subprocess, sys; subprocess.run([sys.executable, '-I', '-S', '-c', {child!r}])"
        )
    )
    with open(alive, encoding="ascii") as pipe:  # opened by the child, closed by its end
        assert pipe.read() == ""
    wait_ready(source)
    assert desk.names() == ["key_unreadable"]


def test_endless_output_is_cut(desk: Desk) -> None:
    """A command that never stops printing is ended and refused."""
    source = desk.started(command=python("while True: print('x' * 1000)"))
    assert source.current() is None
    assert desk.names() == ["key_unreadable"]


def test_reload_runs_the_command_again_but_not_in_a_loop(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unknown key the command runs again, not more often than every 30 s."""
    path = Path(write_key(tmp_path / "key", KEY))
    source = desk.started(command=python(f"print(open({str(path)!r}).read())"))
    write_key(path, OTHER)
    source.reload()
    assert not source.is_pending
    assert revealed(source) == KEY
    monkeypatch.setattr(keys, "RERUN_S", 0.0)
    source.reload()
    wait_ready(source)
    assert revealed(source) == OTHER
    assert desk.names() == ["key_loaded", "key_reloaded"]
