"""What the tests of the real process share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from tests.e2e.talk import Talk


@pytest.fixture
def talk(clean_environment: Path) -> Iterator[Callable[..., Talk]]:
    """Start bridges: called with a command line it returns a `Talk`, which ends with the test."""
    with ExitStack() as stack:

        def start(*words: str, **kwargs: Any) -> Talk:
            kwargs.setdefault("home", clean_environment)
            return stack.enter_context(Talk(*words, **kwargs))

        yield start


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Serve a simulated upstream while the test runs."""
    with Simulator() as running:
        yield running
