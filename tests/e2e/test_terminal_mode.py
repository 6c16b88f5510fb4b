"""A person at the terminal: a real bridge behind a real pseudo terminal, typed at as on a keyboard."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.process import PATIENCE_S, ROOT

KEY: Final = "0123456789abcdef" * 2
UP: Final = "\x1b[A"
_CONTROLS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\a]")


class Terminal:
    """A bridge whose stdin and stderr are a terminal, stdout too unless it is named."""

    def __init__(self, home: Path, *words: str, stdout: int | None = None, modules: Path = ROOT) -> None:
        self.master, slave = pty.openpty()
        self.slave = os.dup(slave)
        self.before = termios.tcgetattr(slave)
        self._descriptors = [self.master, self.slave]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *words],
            stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave, start_new_session=True,
            env={"HOME": str(home), "PYTHONPATH": f"{modules}:{ROOT}",
                 "TERM": "xterm", "COLUMNS": "100", "LANG": "C"},
        )  # fmt: skip
        os.close(slave)
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def read_until(self, text: str) -> str:
        """Read until a text is shown, behind the one that was waited for before; return what is between."""
        until = time.monotonic() + PATIENCE_S
        while (at := self.shown.find(text, self._seen)) < 0:
            assert select.select([self.master], [], [], max(0.0, until - time.monotonic()))[0], self.shown
            self.shown += _CONTROLS.sub("", os.read(self.master, 65536).decode(errors="replace"))
        between = self.shown[self._seen : at]
        self._seen = at + len(text)
        return between

    def say(self, line: str) -> str:
        """Type a line and return what is shown until the next prompt; the first prompt is there."""
        self.type(line + "\n")
        self.read_until("\n")
        return self.read_until("\n> ")

    def end(self) -> int:
        """Wait for the end and return the exit code; the terminal is as it was found."""
        code = self.process.wait(PATIENCE_S)
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def hang_up(self) -> None:
        """Let the terminal go away. Idempotent."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()


@pytest.fixture
def terminal(clean_environment: Path) -> Iterator[Callable[..., Terminal]]:
    """Start bridges at terminals, and end them."""
    started: list[Terminal] = []

    def start(*words: str, **more: Any) -> Terminal:
        started.append(Terminal(clean_environment, *words, **more))
        started[-1].read_until("Ctrl-D.\n")
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def person(terminal: Callable[..., Terminal]) -> Terminal:
    """A bridge in the sandbox that waits at its prompt."""
    started = terminal("--sandbox")
    started.read_until("> ")
    return started


def test_a_person_gets_short_forms_and_answers_to_read(person: Terminal) -> None:
    """Short form and JSON are taken, answers read as those of call, mistakes are sentences, Ctrl-D ends."""
    said = person.say("reportIncorrectImageCaptcha taskId=123")
    assert re.match(r"accepted: task 123 \(\d+ ms\)\nstatus +success\n", said)
    assert "framing" in person.say('{"jsonrpc":"2.0","id":"x","method":"bridge.info"}')
    assert "did you mean reportIncorrectImageCaptcha?" in person.say("reportIncorectImageCaptcha taskId=1")
    assert "did you mean taskId?" in person.say("reportIncorrectImageCaptcha taskid=1")
    assert "whole number" in person.say("reportIncorrectImageCaptcha taskId=1e999")
    assert "NAME=VALUE" in person.say("reportIncorrectImageCaptcha 5")
    assert "(parse_error, code -32700)" in person.say("[1")
    assert person.say("").strip() == ""
    assert "(no_such_captcha, code 16)" in person.say("reportIncorrectImageCaptcha taskId=9000000000003001")
    batch = [{"jsonrpc": "2.0", "id": n, "method": "reportIncorrectRecaptcha", "params": {"taskId": n}}
             for n in (7, 8)]  # fmt: skip
    assert person.say(json.dumps(batch)).count("accepted: task") == 2
    person.type("\x04")
    assert person.end() == 0


def test_help_is_typed_as_people_type_it(person: Terminal) -> None:
    """help and ? list the methods, explain one of them and an error; what is neither is told."""
    for word in ("help", "?"):
        said = person.say(word)
        assert all(name in said for name in ("reportIncorrectHcaptcha", "bridge.resume", "quit"))
    assert "endTime" in person.say("help reportIncorrectRecaptcha")
    assert "no_such_captcha: " in person.say("help 16")
    assert "window_closed: " in person.say("? -32010")
    assert "There is no such" in person.say("help me")


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_two_words_end_it(person: Terminal, word: str) -> None:
    """Both words that people try end it as the end of input does."""
    person.type(f"{word}\n")
    assert person.end() == 0


def test_words_are_completed(person: Terminal) -> None:
    """Tab completes methods, the terminal's own words and members; a second one lists what is possible."""
    person.type("reportC\ttaskI\t5\n")
    assert "reportCorrectRecaptcha taskId=5" in person.read_until("accepted: task 5")
    person.read_until("> ")
    person.type("bridge.listReports l\t1 limit\tx\n")
    assert "bridge.listReports limit=1 limitx" in person.read_until("NAME=VALUE")
    person.read_until("> ")
    person.type("he\trepo\t\t\t")
    person.read_until("reportIncorrectRecaptcha")
    person.type("IncorrectI\t\n")
    person.read_until("languagePool")


def test_lines_are_edited_and_remembered_but_no_key(
    terminal: Callable[..., Terminal], clean_environment: Path
) -> None:
    """The arrow keys bring lines back, also the next time; one with a key, in any form, is kept nowhere."""
    first = terminal("--sandbox")
    first.read_until("> ")
    first.type("reportIncorrectImageCaptcha taskId=12\x1b[D9\n")
    first.read_until("accepted: task 192")
    first.read_until("> ")
    first.say("reportIncorrectImageCaptcha oops=5")
    first.say(f"reportIncorrectImageCaptcha taskId=7 clientKey={KEY}")
    first.say(f"reportIncorrectImageCaptcha taskId=7 clientkey={KEY}")
    first.say(f"reportIncorrectImageCaptcha {KEY}")
    first.say(KEY)
    first.say(f'{{"jsonrpc":"2.0","id":1,"method":"bridge.resume","params":{{"clientKey":"{KEY}"}}}}')
    first.type(f"{UP}\n")
    first.read_until("oops")
    first.read_until("> ")
    first.type("quit\n")
    assert first.end() == 0
    files = [path for path in clean_environment.rglob("*") if path.is_file()]
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
    kept = next(path for path in files if path.name == "typed-lines")
    assert kept.read_text() == "reportIncorrectImageCaptcha taskId=192\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    second = terminal("--sandbox")
    second.read_until("> ")
    second.type(f"{UP}\n")
    second.read_until("accepted: task 192")


ESCAPED: Final = "".join(f"\\u{ord(char):04x}" for char in KEY)


@pytest.mark.parametrize(
    "line",
    [
        f'{{"id":1,"method":"bridge.resume","params":{{"client\\u004bey":"{KEY}"}}}}',
        f'{{"id":1,"method":"bridge.noteTasks","params":{{"taskType":"{KEY}"}}}}',
        f'{{"id":1,"method":"bridge.noteTasks","params":{{"taskType":"{ESCAPED}"}}}}',
        f"bridge.noteTasks taskType={KEY}",
        f"bridge.noteTasks taskType=a-{KEY}",
    ],
)
def test_a_key_in_the_wrong_place_is_not_remembered(
    person: Terminal, clean_environment: Path, line: str
) -> None:
    """A key that nobody has learnt, escaped or as another value, is not in the file of typed lines."""
    person.say("bridge.info")
    person.say(line)
    person.type("quit\n")
    assert person.end() == 0
    assert next(clean_environment.rglob("typed-lines")).read_text() == "bridge.info\n"


def test_long_words_that_are_no_keys_are_remembered(person: Terminal, clean_environment: Path) -> None:
    """Task ids of any length and task types are what people type most, and are kept."""
    lines = [
        "reportIncorrectImageCaptcha taskId=9007199254740991",
        "bridge.noteTasks taskType=RecaptchaV2EnterpriseTaskProxyless count=3",
    ]
    for line in lines:
        person.say(line)
    person.type("quit\n")
    assert person.end() == 0
    assert next(clean_environment.rglob("typed-lines")).read_text().splitlines() == lines


def test_the_raw_form_is_one_message_a_line(terminal: Callable[..., Terminal]) -> None:
    """With --json the answers are the messages that a program would get."""
    raw = terminal("--sandbox", "--json")
    raw.read_until("> ")
    assert json.loads(raw.say("bridge.info"))["result"]["sandbox"] is True
    assert json.loads(raw.say("[1"))["error"]["code"] == -32700


def test_answers_may_go_into_a_file(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Who types at a terminal with stdout elsewhere sees prompt and line, and the file gets answers only."""
    with (tmp_path / "out").open("wb") as file:
        person = terminal("--sandbox", "--json", stdout=file.fileno())
        person.read_until("> ")
        person.type("bridge.info\nquit\n")
        assert person.end() == 0
    assert json.loads((tmp_path / "out").read_bytes())["result"]["protocol"] == 1


def test_what_goes_into_a_file_has_no_colours(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Answers that a person reads later are plain text, whatever the terminal can show."""
    with (tmp_path / "out").open("wb") as file:
        person = terminal("--sandbox", stdout=file.fileno())
        person.read_until("> ")
        person.type("reportIncorrectImageCaptcha taskId=5\nquit\n")
        assert person.end() == 0
    text = (tmp_path / "out").read_text("ascii")
    assert "accepted: task 5" in text
    assert "\x1b" not in text


def test_a_python_without_readline_still_serves(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """Where Python was built without it, lines are taken as the terminal gives them."""
    (tmp_path / "readline.py").write_text("raise ImportError\n")
    person = terminal("--sandbox", modules=tmp_path)
    person.read_until("> ")
    assert "accepted: task 5" in person.say("reportIncorrectImageCaptcha taskId=5")
    person.type("quit\n")
    assert person.end() == 0


STRANGE = [
    "=", "a=b=c", "x =", "{not json", "é\u2028", "bridge.info x=[1", "bridge.info =", "nope x=" + "[" * 3000,
    *(
        f"reportIncorrectImageCaptcha taskId={value}"
        for value in ("", "NaN", "Infinity", "-1e999", '"\\ud800"', "[" * 90 + "]" * 90, "9" * 3000)
    ),
]  # fmt: skip


def test_strange_typing_never_ends_the_program(person: Terminal) -> None:
    """Whatever a person types is answered."""
    for typed in STRANGE:
        person.type(typed + "\n")
        person.read_until(".\n")
        person.read_until("> ")
    person.type("\x04")
    assert person.end() == 0
    assert "Traceback" not in person.shown


def test_bytes_that_are_no_text_are_answered_and_lose_nothing(
    person: Terminal, clean_environment: Path
) -> None:
    """A line in another encoding does not end the thread that reads, nor empty what is remembered."""
    person.say("bridge.info")
    foreign = (
        b'{"x":"\xff"}',
        b"bridge.info \xff=1",
        b"bridge.noteTasks taskType=\xff",
        b"\xff",
        b"help \xff",
    )
    for typed in foreign:
        os.write(person.master, typed + b"\n")
        person.read_until("\n")
        person.read_until("> ")
    person.say("bridge.status")
    person.type("quit\n")
    assert person.end() == 0
    assert "Traceback" not in person.shown
    kept = next(clean_environment.rglob("typed-lines")).read_text()
    assert kept.startswith("bridge.info\n")
    assert kept.endswith("bridge.status\n")


def test_an_interrupt_at_the_terminal_stops(person: Terminal) -> None:
    """Ctrl-C is a person's wish to stop: at once if nothing runs, exit code 0."""
    person.say("bridge.info")
    person.process.send_signal(signal.SIGINT)
    assert person.end() == 0


def test_a_terminal_that_goes_away_is_the_end(terminal: Callable[..., Terminal]) -> None:
    """A window that was closed, or a line that broke, types no more, though no signal says so."""
    bridge = terminal("--sandbox", "--no-parent-watch")
    bridge.read_until("> ")
    bridge.hang_up()
    assert bridge.process.wait(PATIENCE_S) == 74  # who could read is gone, too
