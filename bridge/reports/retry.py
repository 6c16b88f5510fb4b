"""After an attempt: whether and when there is another, and what is known if there is none. Pure."""

from __future__ import annotations

from bridge.core.model import REFUSED, Ending, Verdict
from bridge.reports import window as windows
from bridge.reports.answers import local_ending
from bridge.reports.job import Job
from bridge.reports.verdict import ending


def next_attempt_at(job: Job, verdict: Verdict, now: float, chance: float) -> float | None:
    """When to try again; None if the verdict is final, the budget is spent or the window too short.

    Args:
        job: With the attempt counted.
        now: The end of the attempt, on the timeline.
        chance: A random number from 0 to 1, for the jitter.
    """
    if verdict.next == "done" or job.is_spent:
        return None
    at = now + windows.backoff_s(job.attempts, chance)
    if verdict.retry_after_s is not None:
        at = max(at, now + verdict.retry_after_s)
    is_second_guess = verdict.next == "again_once" or (verdict.perhaps and verdict.next != "wait")
    if is_second_guess and windows.ends_at(job.window, True) - at < windows.RESEND_LEFT_S:
        return None
    return at if at <= windows.starts_by(job.window, True) else None


def known_ending(job: Job, otherwise: Ending) -> Ending:
    """What is known of a report that gets no further attempt.

    Args:
        otherwise: The ending if no attempt taught anything: nothing was sent.
    """
    last = job.last
    if job.perhaps:
        return local_ending("outcome_unknown") if last is None else ending(last, {})
    is_silent = otherwise.kind in ("window_closed", "upstream_unreachable")
    return ending(last, {}) if last is not None and (last.outcome == REFUSED or is_silent) else otherwise
