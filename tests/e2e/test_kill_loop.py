"""The kill loop, a short run; ``make soak`` is the long one."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.killjudge import Ask, Tally, Told, judge_task
from tests.e2e.killloop import IMAGE, KillLoop, Plan
from tests.world import scratch_directory

SHORT_S = 6.0


def test_nothing_is_lost_or_false_while_bridges_are_killed() -> None:
    """Three bridges on one ledger are killed at random moments, and every promise holds."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as folder:
        run_short(Path(folder))


def run_short(folder: Path) -> None:
    """Run the loop for some seconds. In memory, where the disk's other users cannot hold up a commit."""
    seed = random.SystemRandom().randrange(1_000_000)
    stop_by = time.monotonic() + SHORT_S
    plan = Plan(seed, bridges=3, tasks=400, kills=16, window_s=(3.5, 6.5), stop_by=stop_by)
    complaints: list[str] = []
    tally = KillLoop(folder, plan, complaints.append).run()
    print(f"seed {seed}: {tally.describe()}")
    assert tally.is_good, "\n".join([f"seed {seed}: {tally.describe()}", *complaints])
    assert tally.kills >= 4
    assert tally.tasks >= 50
    assert tally.adopted > 0
    assert tally.accepted > 0


def call(at: float, taken: bool = False, status: int | None = 200, reason: str = "taken") -> dict[str, Any]:
    """One entry of the upstream's log."""
    return {"at": at, "taken": taken, "status": status, "reason": reason, "fault": None}


def told(at: float, code: int, outcome: str, *, replayed: bool = False) -> Told:
    """What a bot was told."""
    data = {"outcome": outcome, "durable": True, "replayed": replayed}
    message = {"error": {"code": code, "data": data}} if code else {"result": data}
    return Told(Ask(1, IMAGE, 0.0), at, message)


def row(outcome: str | None) -> tuple[Any, ...]:
    """A row of the ledger, done if it has an outcome."""
    return (1, IMAGE, "done" if outcome else "sending", outcome, 1, 1, 0)


TAKEN = call(1.0, taken=True)


@pytest.mark.parametrize(
    ("stored", "calls", "answers", "breach"),
    [
        (None, [TAKEN], [], "lost"),
        (None, [], [told(1.0, -32010, "not_sent")], "lost"),
        (row(None), [TAKEN], [], "lost"),
        (row("accepted"), [call(1.0)], [], "false"),
        (row("refused"), [TAKEN], [], "false"),
        (row("not_sent"), [TAKEN], [], "false"),
        (row("accepted"), [TAKEN], [told(0.5, 0, "accepted")], "false"),
        (row("unknown"), [TAKEN], [told(1.5, -32010, "not_sent")], "false"),
        (row("unknown"), [call(1.0), call(2.0), call(3.0)], [], "twice"),
        (row("unknown"), [call(1.0, status=429)] * 5, [], "twice"),
        (row("unknown"), [TAKEN], [told(1.5, 0, "accepted")], "inconsistent"),
        (row("accepted"), [TAKEN], [told(1.5, 0, "accepted")] * 2, "inconsistent"),
        (row("accepted"), [TAKEN], [told(1.5, -32603, "none")], "inconsistent"),
    ],
)
def test_each_breach_is_seen(
    stored: tuple[Any, ...] | None, calls: list[dict[str, Any]], answers: list[Told], breach: str
) -> None:
    """The judge of the loop notices every kind of broken promise."""
    assert breach in {fault for fault, _ in judge_task(stored, calls, answers)}


@pytest.mark.parametrize(
    ("stored", "calls", "answers"),
    [
        (row("accepted"), [TAKEN], [told(1.5, 0, "accepted"), told(2.0, 0, "accepted", replayed=True)]),
        (row("accepted"), [call(0.5, status=429), call(0.6), TAKEN], [told(0.8, -32002, "unknown")]),
        (row("accepted"), [TAKEN], [told(0.5, -32001, "not_sent")]),
        (row("unknown"), [call(0.5), TAKEN], []),
        (None, [], []),
    ],
)
def test_honest_stories_are_no_breach(
    stored: tuple[Any, ...] | None, calls: list[dict[str, Any]], answers: list[Told]
) -> None:
    """The judge of the loop finds nothing wrong with what may happen."""
    assert judge_task(stored, calls, answers) == []


def test_one_breach_spoils_the_figures() -> None:
    """Runs add up, and one broken promise in any of them is not forgotten."""
    good, bad = Tally(kills=2, tasks=5, accepted=5), Tally(kills=1, lost=1)
    assert good.is_good
    assert (good + bad).kills == 3
    assert not (good + bad).is_good
