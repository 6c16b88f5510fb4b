"""What a parent and a terminal can do to a process, tried on processes of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.ops import process
from bridge.ops.process import PARENT_LOOK_S
from tests.process import PATIENCE_S, block_signals, ignore_signals

PROGRAM = """
import sys
from bridge.engine import Engine
from bridge.ops.process import hear_signals, undo_inherited, watch_parent
def fail(bug): raise bug
undo_inherited()
engine = Engine(fail)
news = engine.waiter()
def say(text):
    print(text, flush=True)
def stop(number):
    say(f"stop {number}")
    if "quick" in sys.argv:
        news.wake()
hear_signals(engine, stop, lambda: say("ignored"), "terminal" in sys.argv)
if "watch" in sys.argv:
    watch_parent(engine, lambda _: (say("gone"), news.wake()))
    say("watches")
say("ready")
news.wait()
"""


class Program:
    """The program, and what it says."""

    def __init__(self, *words: str, **kwargs: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
            **kwargs,
        )
        self.expect("ready") if "watch" not in words else self.expect("watches")

    def expect(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == line + "\n"

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def programs() -> Iterator[contextlib.ExitStack]:
    """Close what was started."""
    with contextlib.ExitStack() as stack:
        yield stack


def start(stack: contextlib.ExitStack, *words: str, **kwargs: Any) -> Program:
    """Start the program and wait until it listens."""
    program = Program(*words, **kwargs)
    stack.callback(program.close)
    return program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("handed_down", [None, block_signals, ignore_signals])
def test_what_a_parent_hands_down_does_not_disable_it(
    programs: contextlib.ExitStack, number: int, handed_down: Any
) -> None:
    """Signals that the parent has blocked or ignored are heard, and the second one ends the process."""
    program = start(programs, preexec_fn=handed_down)
    program.send(number)
    program.expect(f"stop {int(number)}")
    program.send(number)
    assert program.wait() == 128 + number


@pytest.mark.parametrize("handed_down", [block_signals, ignore_signals])
def test_children_inherit_nothing_of_it(programs: contextlib.ExitStack, handed_down: Any) -> None:
    """Signals are neither blocked nor ignored in the process and what it starts; a SIGHUP of nohup is."""
    program = start(programs, preexec_fn=handed_down)
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    numbers = (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT)
    for name in ("SigBlk", "SigIgn"):
        assert not any(int(fields[name], 16) >> (number - 1) & 1 for number in numbers), name


def test_nohup_is_respected(programs: contextlib.ExitStack) -> None:
    """A SIGHUP that the parent ignores stays ignored."""
    program = start(programs, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    program.send(signal.SIGHUP)
    program.send(signal.SIGTERM)
    program.expect("stop 15")


def test_an_interrupt_at_a_terminal_stops(programs: contextlib.ExitStack) -> None:
    """A person means it; the process goes on by itself to its end."""
    program = start(programs, "terminal", "quick")
    program.send(signal.SIGINT)
    program.expect("stop 2")
    assert program.wait() == 0


def test_any_two_signals_end_it(programs: contextlib.ExitStack) -> None:
    """The second signal need not be the first one again, and a SIGINT counts then."""
    program = start(programs)
    program.send(signal.SIGTERM)
    program.expect("stop 15")
    program.send(signal.SIGINT)
    assert program.wait() == 130


def test_a_gone_parent_is_noticed(programs: contextlib.ExitStack) -> None:
    """When the process that started it has ended, it is told within the time between two looks."""
    reader, writer = os.pipe()
    middle = subprocess.Popen(
        [
            sys.executable, "-c",
            "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1], 'watch']);"
            "input()", PROGRAM,
        ],
        stdin=subprocess.PIPE, stdout=writer, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(writer)
    with os.fdopen(reader) as said:
        assert [said.readline(), said.readline()] == ["watches\n", "ready\n"]
        began = time.monotonic()
        middle.communicate(b"\n", PATIENCE_S)
        assert said.readline() == "gone\n"
        assert time.monotonic() - began < 5 * PARENT_LOOK_S
        assert said.readline() == ""


# --- memory ----------------------------------------------------------------------------------

CRASH = """
import os, resource, sys
from bridge.ops.process import forbid_core_dumps
set_limit = resource.setrlimit
def refuse(what, limits):
    if limits[1] > 0:
        raise ValueError("not allowed to raise maximum limit")
    set_limit(what, limits)
if "limited" in sys.argv:
    set_limit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit = refuse
forbid_core_dumps()
limits, ctypes_is_loaded = resource.getrlimit(resource.RLIMIT_CORE), "ctypes" in sys.modules
import ctypes
pr_get_dumpable = 3
print(*limits, ctypes_is_loaded, ctypes.CDLL(None).prctl(pr_get_dumpable, 0, 0, 0, 0), flush=True)
os.abort()
"""


@pytest.mark.parametrize(("words", "said"), [([], "1 1 False 1"), (["limited"], "0 0 True 0")])
def test_no_core_is_dumped(tmp_path: Path, words: list[str], said: str) -> None:
    """The limit is 1 byte, which binds handlers too; where that cannot be had the memory is hidden."""
    done = subprocess.run(
        [sys.executable, "-c", CRASH, *words],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.strip() == said
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_without_limits_and_without_ctypes_nothing_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a system does not have is left out."""
    for name in ("resource", "ctypes"):
        monkeypatch.setitem(sys.modules, name, None)
    process.forbid_core_dumps()
