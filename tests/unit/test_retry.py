"""When there is another attempt, and what is known if there is none."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.model import Ending, Facts, Row, Task, Verdict, Window
from bridge.core.redact import Secret
from bridge.engine import Engine
from bridge.reports.job import Job
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import timeless

NOW = 1000.0
FAR = Window(1060.0, None)
AGAIN = Verdict("not_sent", -32001, "upstream_unreachable", "connect", "again", False, False, False, False)
RESEND = Verdict("unknown", -32002, "outcome_unknown", "reset", "again_once", True, True, False, False)
REFUSED = Verdict("refused", 16, "no_such_captcha", "no_such_captcha", "done", False, True, True, True)


def make_job(window: Window = FAR, **known: Any) -> Job:
    """A job after its first attempt."""
    task = Task("https://upstream.test", "a" * 32, 7)
    engine = Engine(print, VirtualLoop(VirtualTime()))
    job = Job(timeless(engine), task, "reportIncorrectImageCaptcha", Secret("k" * 32), window, Facts())
    job.attempts = 1
    for name, value in known.items():
        setattr(job, name, value)
    return job


@pytest.mark.parametrize(
    ("attempts", "chance", "at"), [(1, 0.0, 1000.0), (1, 1.0, 1000.5), (2, 0.5, 1000.5), (3, 1.0, 1002.0)]
)
def test_next_attempt_comes_after_the_back_off(attempts: int, chance: float, at: float) -> None:
    """The wait grows with the attempts made and is measured from the end of the last one."""
    assert make_job(attempts=attempts).next_attempt_at(AGAIN, NOW, chance) == at


@pytest.mark.parametrize(("attempts", "sends", "is_allowed"), [(3, 1, True), (4, 0, False), (2, 2, False)])
def test_budget_ends_the_attempts(attempts: int, sends: int, is_allowed: bool) -> None:
    """Four attempts or two sends are the last ones."""
    at = make_job(attempts=attempts, sends=sends).next_attempt_at(AGAIN, NOW, 0.5)
    assert (at is not None) == is_allowed


def test_what_the_ledger_knows_of_a_report_goes_on_counting() -> None:
    """A report that is taken over has its sends and facts behind it; what only began is no attempt yet."""
    job, facts = make_job(Window(1055.0, None), attempts=0), Facts(completed_at=990.0, task_type="A")
    whose = (job.task, job.method)
    row = Row(1, *whose, "sending", None, "me", 3, 1, True, FAR, facts, None, None, {}, 0.0, None, None)
    job.adopt(row)
    assert (job.attempts, job.sends, job.perhaps, job.is_begun) == (2, 1, True, True)
    assert (job.window, job.facts) == (Window(1055.0, None), facts)
    job.adopt(row._replace(state="waiting", sends=2))
    assert (job.attempts, job.is_begun, job.next_attempt_at(AGAIN, NOW, 0.0)) == (3, False, None)


def test_a_window_is_narrowed_and_never_widened() -> None:
    """Whoever knows of an earlier end is heard, and told whether that was news."""
    job = make_job()
    assert [job.narrow(Window(until, None)) for until in (1070.0, 1060.0, 1050.0, 1050.0)] == [
        False,
        False,
        True,
        False,
    ]
    assert job.window == Window(1050.0, None)


def test_final_verdict_has_no_next_attempt() -> None:
    """What is done is done, whatever the budget."""
    assert make_job().next_attempt_at(AGAIN._replace(next="done"), NOW, 0.5) is None


def test_longer_of_back_off_and_what_the_upstream_asks_counts() -> None:
    """A Retry-After lengthens the wait and never shortens it."""
    waits = {s: make_job().next_attempt_at(AGAIN._replace(retry_after_s=s), NOW, 1.0) for s in (0.1, 7.0)}
    assert waits == {0.1: 1000.5, 7.0: 1007.0}


@pytest.mark.parametrize(
    ("verdict", "needs"),
    [
        (AGAIN._replace(next="wait"), "a start"),
        (AGAIN._replace(next="wait", perhaps=True), "a start"),
        (RESEND._replace(next="again_refused", perhaps=False), "a start"),
        (RESEND, "five seconds"),
        (AGAIN._replace(perhaps=True), "five seconds"),
    ],
)
@pytest.mark.parametrize(
    ("window", "lasts"),
    [
        (FAR, {"a start": 1058.0, "five seconds": 1055.0}),
        (Window(None, NOW), {"a start": 1030.0, "five seconds": 1025.0}),
        (Window(1060.0, NOW - 10), {"a start": 1020.0, "five seconds": 1015.0}),
    ],
)
def test_last_moment_of_another_attempt(
    verdict: Verdict, needs: str, window: Window, lasts: dict[str, float]
) -> None:
    """Up to the last start; what may have been taken, and was not refused, is not sent again so late."""
    last = lasts[needs]
    for late_s, at in ((0.0, last), (0.25, None)):
        asked = verdict._replace(retry_after_s=last - NOW + late_s)
        job = make_job(window, last=asked, perhaps=asked.perhaps)
        assert job.next_attempt_at(asked, NOW, 0.0) == at


LATE = Ending("not_sent", -32010, "window_closed")
SPENT = Ending("not_sent", -32001, "upstream_unreachable")
PAUSED = Ending("not_sent", -32011, "sending_paused")


@pytest.mark.parametrize(
    ("last", "perhaps", "otherwise", "code"),
    [
        (None, True, LATE, -32002),
        (RESEND, True, LATE, -32002),
        (REFUSED._replace(outcome="unknown", code=-32002, kind="outcome_unknown"), True, PAUSED, -32002),
        (None, False, LATE, -32010),
        (None, False, PAUSED, -32011),
        (REFUSED, False, PAUSED, 16),
        (REFUSED, False, LATE, 16),
        (AGAIN, False, LATE, -32001),
        (AGAIN._replace(code=-32003, kind="upstream_rate_limited"), False, SPENT, -32003),
        (AGAIN, False, PAUSED, -32011),
    ],
)
def test_what_is_known_without_a_further_attempt(
    last: Verdict | None, perhaps: bool, otherwise: Ending, code: int
) -> None:
    """What may have been taken is unknown; else the last attempt speaks, unless somebody else ended it."""
    known = make_job(last=last, perhaps=perhaps).known_ending(otherwise)
    assert known.code == code
    assert known.outcome == ("unknown" if perhaps else "refused" if code == 16 else "not_sent")
