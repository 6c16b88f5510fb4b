"""After an attempt: whether and when there is another, and what is known if there is none."""

from __future__ import annotations

from bridge.core.model import MAX_ATTEMPTS, MAX_SENDS, REFUSED, UNKNOWN, Ending, Verdict
from bridge.reports import window as windows
from bridge.reports.answers import local_ending
from bridge.reports.flight import Flight
from bridge.reports.verdict import ending


def next_attempt_at(flight: Flight, verdict: Verdict, now: float, chance: float) -> float | None:
    """When to try again; None if the verdict is final, the budget is spent or the window too short.

    Args:
        flight: With the attempt counted.
        now: The end of the attempt, on the timeline.
        chance: A random number from 0 to 1, for the jitter.
    """
    if verdict.next == "done" or flight.attempts >= MAX_ATTEMPTS or flight.sends >= MAX_SENDS:
        return None
    at = now + windows.backoff_s(flight.attempts, chance)
    if verdict.retry_after_s is not None:
        at = max(at, now + verdict.retry_after_s)
    is_resend = verdict.next in ("again_once", "again_refused") or verdict.perhaps
    if is_resend and windows.ends_at(flight.window, True) - at < windows.RESEND_LEFT_S:
        return None
    return at if at <= windows.starts_by(flight.window, True) else None


def known_ending(flight: Flight, otherwise: Ending) -> Ending:
    """What is known of a report that gets no further attempt.

    Args:
        otherwise: The ending if no attempt taught anything: nothing was sent.
    """
    last = flight.last
    if flight.perhaps:
        return local_ending("outcome_unknown", UNKNOWN) if last is None else ending(last, {})
    taught = last is not None and (
        last.outcome == REFUSED or otherwise.kind in ("window_closed", "upstream_unreachable")
    )
    return ending(last, {}) if last is not None and taught else otherwise


def unclaimed_ending(flight: Flight) -> Ending:
    """What can be said of a report when the ledger cannot be asked whose it is."""
    if flight.is_theirs or flight.perhaps:
        return local_ending("outcome_unknown", UNKNOWN)
    return local_ending("ledger_unavailable")


def refusal_beside(refusal: Ending, has_begun: bool) -> Ending:
    """A local refusal of a request whose task is being reported by somebody else.

    Args:
        has_begun: Whether an attempt has begun there: then the task may have been taken.
    """
    if not has_begun:
        return refusal
    if refusal.kind == "window_closed":
        return local_ending("outcome_unknown", UNKNOWN)
    return refusal._replace(outcome=UNKNOWN)
