"""A report being made, before anything has happened to it."""

from __future__ import annotations

from bridge.core.model import Facts, Task, Window
from bridge.core.redact import Secret
from bridge.engine import Engine
from bridge.engine.virtual import VirtualLoop, VirtualTime
from bridge.reports.job import Job


def test_a_new_job_has_done_nothing_and_lacks_nothing() -> None:
    """Until a ledger or the upstream says otherwise nothing was begun or sent, and no warning is due."""
    engine = Engine(print, VirtualLoop(VirtualTime()))
    task = Task("https://upstream.test", "a" * 32, 7)
    job = Job(engine, 0.0, task, "reportIncorrectImageCaptcha", Secret("k" * 32), Window(9.0, None), Facts())
    assert (job.attempts, job.made, job.sends) == (0, 0, 0)
    assert [job.is_begun, job.has_begun, job.is_spent, job.wants_fresh] == [False] * 4
    assert [job.durable, job.guarded] == [True] * 2
