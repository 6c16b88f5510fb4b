"""A report being made, on its own: what it is at first, and what it learns."""

from __future__ import annotations

import pytest

from bridge.core.model import Facts, Row, Task, Window
from bridge.core.redact import Secret
from bridge.engine import Engine
from bridge.reports.job import Interrupted, Job
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import timeless

IMAGE = "reportIncorrectImageCaptcha"


def make_job() -> Job:
    """A job that nothing has happened to."""
    engine = Engine(print, VirtualLoop(VirtualTime()))
    task = Task("https://upstream.test", "a" * 32, 7)
    return Job(timeless(engine), task, IMAGE, Secret("k" * 32), Window(9.0, None), Facts())


def test_a_new_job_has_done_nothing_and_lacks_nothing() -> None:
    """Until a ledger or the upstream says otherwise nothing was begun or sent, and no warning is due."""
    job = make_job()
    assert (job.attempts, job.made, job.sends) == (0, 0, 0)
    assert [job.is_begun, job.has_begun, job.is_spent, job.wants_fresh] == [False] * 4
    assert [job.durable, job.guarded] == [True] * 2


@pytest.mark.parametrize(
    ("kind", "attempts", "is_ended"),
    [("request_cancelled", 0, True), ("request_cancelled", 1, False), ("shutting_down", 1, True)],
)
def test_a_cancel_comes_too_late_for_what_was_begun_before(kind: str, attempts: int, is_ended: bool) -> None:
    """A report that was begun in an earlier life is not taken back; it stops with the process."""
    job, interruption = make_job(), Interrupted(kind)
    job.interrupt(interruption)
    known = (job.window, job.facts, None, None)
    job.adopt(Row(1, job.task, IMAGE, "waiting", None, "me", attempts, 0, False, *known, {}, 0.0, None, None))
    assert job.interruption is (interruption if is_ended else None)
