"""What the bridge knows besides the report: the upstream's clock, fitting methods, likely causes.

Pure: the caller hands in the time. Decides the refusals that need no ledger and words the details.
"""

from __future__ import annotations

from typing import Any, Final

from bridge.core.errors import warning
from bridge.core.model import Ending, PauseState, Verdict
from bridge.reports import hints, methods
from bridge.reports.answers import local_ending, show_pause
from bridge.reports.flight import Flight, Report
from bridge.reports.window import REPORTABLE_S

TOLERATED_SKEW_S: Final = 2.0
"""Clocks that differ by less are taken as equal: a Date header has whole seconds."""


class Clocks:
    """How far the local clock is from the upstream's, learnt from Date headers.

    Kept against the timeline, so a jump of the local clock does not spoil it. Thread safety: none.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._told_s = 0.0
        self._date = ""
        self._upstream = 0.0

    def learn_date(self, date: str, now: float, wall: float) -> bool:
        """Take note of a Date header; True if the difference is worth telling and was not told yet."""
        if date != self._date:  # all answers of one second say the same
            from email.utils import parsedate_to_datetime

            try:
                self._upstream = parsedate_to_datetime(date).timestamp()
            except (ValueError, TypeError, OverflowError, IndexError):
                return False
            self._date = date
        upstream = self._upstream
        # A header names the second that has begun; its middle is the best guess.
        self._offset_s = upstream + 0.5 - now
        skew = wall - upstream - 0.5
        if abs(skew) <= TOLERATED_SKEW_S or abs(skew - self._told_s) <= TOLERATED_SKEW_S:
            return False
        self._told_s = skew
        return True

    def skew_s(self, now: float, wall: float) -> float | None:
        """Seconds the local clock is ahead of the upstream's; None before the first Date header."""
        return None if self._offset_s is None else wall - now - self._offset_s

    def upstream_wall(self, now: float, wall: float) -> float:
        """UNIX time on the upstream's clock, as well as it is known."""
        skew = self.skew_s(now, wall)
        return wall if skew is None or abs(skew) <= TOLERATED_SKEW_S else wall - skew


class Knowledge:
    """Answers the service's questions about a report.

    Args:
        scope: Tells the wire scope of a pause.
        durable: True if the ledger outlasts the process.

    Thread safety: none; the service's lock guards it.
    """

    def __init__(self, scope: Any, durable: bool) -> None:
        self._scope = scope
        self._durable = durable
        self.clocks = Clocks()
        self.unguarded = warning("duplicates_unguarded")

    def warnings(self, report: Report) -> tuple[dict[str, str], ...]:
        """What every answer to this request should warn of."""
        return methods.find_warnings(report.method, report.task_type)

    def refuse(self, report: Report) -> Ending | None:
        """Refuse what must not be sent, whatever is known of the task."""
        if report.task_type is not None and methods.fit(report.method, report.task_type) == methods.WRONG:
            explained = hints.explain_wrong_method(report.method, report.task_type)
            return local_ending("wrong_method", hints=list(explained) or None)
        method = methods.methods()[report.method]
        if method.is_english_only and report.language_pool not in (None, "en"):
            return local_ending("language_refused")
        return local_ending("key_missing") if report.key is None else None

    def age_s(self, completed_at: float | None, now: float, wall: float) -> float | None:
        """Seconds since the task was completed, on the upstream's clock; 0 if that is in the future."""
        if completed_at is None:
            return None
        return max(0.0, self.clocks.upstream_wall(now, wall) - completed_at)

    def late_detail(self, completed_at: float | None, now: float, wall: float) -> dict[str, Any]:
        """Say how late it is: members of -32010."""
        age = self.age_s(completed_at, now, wall)
        skew = self.clocks.skew_s(now, wall)
        return {
            "ageSeconds": None if age is None else round(age, 3),
            "clockSkewSeconds": None if skew is None else round(-skew, 3),
        }

    def hints(self, flight: Flight, verdict: Verdict, now: float, wall: float) -> tuple[dict[str, str], ...]:
        """Rank the causes of a refusal that hides them; nothing for others."""
        if verdict.event != "no_such_captcha":
            return ()
        age = None
        if flight.window.until is not None:
            age = REPORTABLE_S - (flight.window.until - flight.began_at)
        return hints.rank(
            hints.HintFacts(
                method=flight.method,
                task_type=flight.facts.task_type,
                language_pool=flight.facts.language_pool,
                age_s=age,
                clock_skew_s=self.clocks.skew_s(now, wall),
                perhaps_before=verdict.outcome != "refused",
                guarded=flight.guarded,
                durable=self._durable and flight.durable,
            )
        )

    def conflict_hints(self, stored_method: str) -> tuple[dict[str, str], ...]:
        """Name the method of the report that is in the way."""
        return hints.explain_conflict(stored_method)

    def show_pause(self, state: PauseState, now: float, wall: float) -> dict[str, Any]:
        """A pause as the wire shows it."""
        return show_pause(state, self._scope(state), lambda at: rfc3339(at - now + wall))


def rfc3339(wall: float) -> str:
    """UNIX seconds as RFC 3339 in UTC with milliseconds."""
    from time import gmtime, strftime

    whole, part = divmod(round(wall * 1000), 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{part:03d}Z"
