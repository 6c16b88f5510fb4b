"""Tests of `bridge.ops.pruning`: old reports go in small steps."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.model import Prune
from bridge.ops.pruning import KEEP_S, LATER_S, SOON_S, STEP, prune_step


@pytest.mark.parametrize(
    ("result", "pause_s"), [(STEP, SOON_S), (STEP - 1, LATER_S), (0, LATER_S), (OSError(), LATER_S)]
)
def test_a_full_step_is_followed_by_another(result: Any, pause_s: float) -> None:
    """While there is more, the next step comes soon; else, and after trouble, much later."""
    asked: list[Prune] = []
    told: list[float] = []

    def submit(op: Prune, done: Any) -> None:
        asked.append(op)
        done(result)

    prune_step(submit, lambda: 10 * KEEP_S, told.append)
    assert asked == [Prune(9 * KEEP_S, STEP)]
    assert told == [pause_s]
