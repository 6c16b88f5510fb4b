"""What the unit tests share: the program in this process, an engine, a pipe."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from bridge.cli import main
from bridge.engine import Engine
from tests.world import World, raise_bug

Run = Callable[..., tuple[int, str, str]]


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Start some work aside."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process and return exit code, stdout and stderr."""

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main.main(words)
        out, err = capfd.readouterr()
        return code, out, err

    return run_words


@pytest.fixture
def engine() -> Engine:
    """An engine that runs in the test's own greenlet and lets no bug pass."""
    return Engine(raise_bug)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe; tests may close an end early."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def world() -> World:
    """A new world."""
    return World()
