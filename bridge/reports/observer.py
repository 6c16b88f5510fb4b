"""What the bridge knows beside a report, and what it tells of it: refusals, details of endings, hints,
events.

Decides nothing about sending. The sentences are rows of ``schemas/errors.json``. Used by
`bridge.reports.lifecycle` and what serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import ceil
from typing import Any, Final

from bridge.core.errors import hint
from bridge.core.model import CLOSED, Ending, Exchange, PauseEvent, PauseState, Row, Task, Verdict, Window
from bridge.reports import methods
from bridge.reports import window as windows
from bridge.reports.job import Job, Report
from bridge.reports.pauses import PROOF
from bridge.reports.ports import Part, Ports
from bridge.reports.verdict import local_ending, parse_http_date, verdict_ending

TOLERATED_S: Final = 2.0
"""Clocks that differ by less are taken as equal: a Date header has whole seconds."""
CLOSE_AGE_S: Final = 55.0
"""From here on the upstream's whole seconds and the way there can make a report late; a guess."""
CREDIBLE_S: Final = (1_577_836_800.0, 4_102_444_800.0)
"""From 2020 to 2099, UNIX time: what is dated otherwise comes from something that has no clock. Believed, it
would make every task that tells when it was solved too old to be sent, and no answer would come to correct
it."""
_read_date: Final = lru_cache(maxsize=1)(parse_http_date)
"""All answers of one second have the same header."""


class Observer(Part):
    """Words what is known and tells of what happens.

    Args:
        corrected: called when the upstream's clock turns out to be another than was thought.
    """

    def __init__(self, ports: Ports, corrected: Callable[[], object]) -> None:
        super().__init__(ports)
        self._corrected = corrected
        self._offset_s: float | None = None
        """What the upstream's clock is ahead of the timeline: a jump of the local clock does not spoil it."""
        self._told_s = self._corrected_s = 0.0

    # --- before anything is sent -------------------------------------------------------------

    def skew_s(self) -> float | None:
        """Seconds the local clock is ahead of the upstream's; None before the first Date header."""
        return None if self._offset_s is None else self._engine.wall() - self._ledger.now() - self._offset_s

    def wall(self) -> float:
        """UNIX seconds, on the upstream's clock as far as that is known."""
        wall = self._engine.wall()
        upstream = wall if self._offset_s is None else self._ledger.now() + self._offset_s
        return upstream if abs(wall - upstream) > TOLERATED_S else wall

    def age_s(self, completed_at: float | None) -> float | None:
        """Seconds since a task was completed, on the upstream's clock; 0 in the future, None if not told."""
        return None if completed_at is None else max(0.0, self.wall() - completed_at)

    def refuse(self, report: Report, window: Window, now: float) -> Ending | None:
        """Refuse what must not be sent whatever is known of the task: window, method, language, key."""
        if now > windows.starts_by(window, False):
            return self.late(window, report.facts.completed_at)
        explained = explain_wrong_method(report.method, report.facts.task_type)
        if explained is not None:
            return local_ending("wrong_method", hints=[explained])
        if not methods.takes_language(report.method, report.facts.language_pool):
            return local_ending("language_refused")
        return local_ending("key_missing") if report.key is None else None

    def late(self, window: Window, completed_at: float | None) -> Ending:
        """The ending of a report whose window is over: how old the task is by all that was told of it."""
        now = self._ledger.now()
        skew_s = self.skew_s()
        ages = (self.age_s(completed_at), windows.age_s(window, now))
        age_s = max((age for age in ages if age is not None), default=None)
        detail = {
            "ageSeconds": None if age_s is None else round(age_s, 3),
            "clockSkewSeconds": None if skew_s is None else round(-skew_s, 3),
        }
        return local_ending("window_closed")._replace(detail=detail)

    # --- endings -----------------------------------------------------------------------------

    def ending(self, job: Job, verdict: Verdict) -> Ending:
        """The ending that a final verdict means, with what helps to understand it."""
        extra: dict[str, Any] = {}
        if verdict.kind == "window_closed":
            extra = {**self.late(job.window, job.facts.completed_at).detail}
        if verdict.event == "no_such_captcha":
            age_s = windows.age_s(job.window, job.began_at)
            extra["hints"] = rank_hints(job, age_s, self.skew_s(), verdict.outcome != "refused")
        return verdict_ending(job.with_answer(verdict), extra)

    def conflict(self, stored_method: str, outcome: str | None, refusal: Ending | None = None) -> Ending:
        """The ending of a request for another method than the stored one, or refused beside one in flight.

        Args:
            outcome: Of the report on record; None while that is in flight.
        """
        told = (refusal.detail.get("hints") or ()) if refusal is not None else ()
        ending = local_ending("task_conflict", hints=[hint("stored_method", method=stored_method), *told])
        return ending._replace(outcome=outcome)  # type: ignore[arg-type]

    def show_pause(self, state: PauseState) -> dict[str, Any]:
        """A pause as an answer shows it."""
        return self._ports.policy.show(state, self._engine.wall() - self._ledger.now())

    # --- telling -----------------------------------------------------------------------------

    def tell(self, name: str, job: Job | Row, fields: Mapping[str, Any]) -> None:
        """Tell of something that happened to a report."""
        self._tell_of(name, job.task, job.method, fields)

    def tell_settled(self, task: Task, method: str, ending: Ending, fields: Mapping[str, Any]) -> None:
        """Tell how a report ended; without an account if the ledger was not even asked."""
        told = {"outcome": ending.outcome, "kind": ending.kind, "code": ending.code, **fields}
        self._tell_of("report_settled", task, method, told)

    def _tell_of(self, name: str, task: Task, method: str, fields: Mapping[str, Any]) -> None:
        self._emit(name, {"task_id": task.task_id, "method": method, "account": task.account[:8], **fields})

    def learn_time(self, exchange: Exchange) -> None:
        """Compare the clocks by the answer's Date header, and tell of a difference that was not told yet.

        The header may be as old as the exchange took, if this process was stopped since it was written: then
        what is known already is believed as far as it can be true.
        """
        upstream = _read_date(exchange.headers.get("date", ""))
        if upstream is None or not CREDIBLE_S[0] <= upstream < CREDIBLE_S[1]:
            return
        now, wall = self._ledger.now(), self._engine.wall()
        # A header names the second that has begun; its middle is the best guess.
        skew_s = wall - upstream - 0.5
        if exchange.elapsed_s > TOLERATED_S:
            skew_s = min(max(self.skew_s() or 0.0, skew_s - exchange.elapsed_s), skew_s)
        self._offset_s = wall - skew_s - now
        correction_s = skew_s if abs(skew_s) > TOLERATED_S else 0.0
        if correction_s and abs(skew_s - self._told_s) > TOLERATED_S:
            self._told_s = skew_s
            self._emit("clock_skew", {"skew_s": round(skew_s, 1)})
        if abs(correction_s - self._corrected_s) > TOLERATED_S:
            self._corrected_s = correction_s
            self._corrected()

    def tell_pause(self, event: PauseEvent) -> None:
        """Tell that a pause opened, closed or is being probed."""
        state = event.state
        if state.key.rule == PROOF:
            return
        shown = self.show_pause(state)
        told = {"rule": state.key.rule, "scope": shown["scope"], "subject": state.key.subject}
        if state.state != CLOSED:
            until = "when a person resumes it" if shown["endsAt"] is None else f"at {shown['endsAt']}"
            told |= {"cause": shown["cause"], "until": until, "doublings": state.level}
        self._emit(event.name, told)


def rank_hints(
    job: Job, age_s: float | None, clock_skew_s: float | None, perhaps_before: bool
) -> list[dict[str, str]]:
    """List the possible causes of ``errorId`` 16, which hides many, best supported first.

    What is known to be wrong comes first, then what makes it doubtful, then what the caller did
    not tell, last the causes that cannot be checked from here.

    Args:
        age_s: Age of the task when the last attempt began; None without ``completedAt``.
        clock_skew_s: How far the local clock is ahead of the upstream's; None if no Date header came yet.
        perhaps_before: True if an earlier attempt may have been taken.

    Returns:
        Wire forms ``{kind, message}``; never empty.
    """
    method, facts = job.method, job.facts
    row, task_type = methods.methods()[method], facts.task_type
    age, skew = age_s or 0.0, abs(clock_skew_s or 0.0)
    fit = methods.FITS if task_type is None else methods.fit(method, task_type)
    better = None if task_type is None else methods.find_fitting(task_type, method)
    causes: tuple[tuple[str, bool, dict[str, int | str]], ...] = (
        # known to be wrong
        ("perhaps_taken_before", perhaps_before, {}),
        ("too_old", age > windows.REPORTABLE_S, {"seconds": ceil(age)}),
        ("method_does_not_fit", fit == methods.WRONG and better is not None, {"method": better or ""}),
        ("no_method_fits", fit == methods.WRONG and better is None, {}),
        ("language_not_english", not methods.takes_language(method, facts.language_pool), {}),
        ("hcaptcha_withdrawn", row.is_withdrawn, {}),
        # doubtful
        ("age_unknown", age_s is None, {}),
        ("close_to_the_end", CLOSE_AGE_S <= age <= windows.REPORTABLE_S, {"seconds": ceil(age)}),
        ("clock_skew", age_s is not None and skew > TOLERATED_S, {"seconds": round(skew)}),
        ("reported_elsewhere", not job.guarded, {}),
        ("ledger_not_durable", not job.durable, {}),
        # not told
        ("task_type_unknown", task_type is None, {}),
        ("task_type_unlisted", fit == methods.UNKNOWN_TYPE, {}),
        ("language_unknown", row.is_english_only and facts.language_pool is None, {}),
        # not to be checked from here
        ("already_reported", not perhaps_before, {}),
        ("task_failed", True, {}),
        ("other_account", True, {}),
    )
    return [hint(kind, **places) for kind, applies, places in causes if applies]


def explain_wrong_method(method: str, task_type: str | None) -> dict[str, str] | None:
    """Name the method that would fit a task type, for -32012; None if the given one may fit."""
    if task_type is None or methods.fit(method, task_type) != methods.WRONG:
        return None
    better = methods.find_fitting(task_type, method)
    return hint("no_method_fits") if better is None else hint("method_does_not_fit", method=better)
