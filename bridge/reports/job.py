"""A report being made: the request it came from, who waits for its answer, where it waits itself, and whether
there is another attempt.

Asks nothing of the ledger or the upstream. Imported by `bridge.reports.lifecycle` and what serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from itertools import count
from typing import Any, Final, NamedTuple

from bridge.core.model import MAX_ATTEMPTS, MAX_SENDS, REFUSED, Ending, Facts, Row, Task, Verdict, Window
from bridge.core.redact import Secret
from bridge.engine import TimedOut
from bridge.reports import window as windows
from bridge.reports.ports import Ports
from bridge.reports.verdict import Answer, local_ending, verdict_ending

_numbers: Final = count()
SAID: Final = ("error_id", "error_code", "error_description", "http_status")
"""What of a verdict is in the upstream's own words."""
BACKOFF_S: Final = 0.5
"""Longest wait after a first attempt; doubled after each, which makes 2 s after the last but one."""


class Report(NamedTuple):
    """One request to report a task, validated."""

    method: str
    task_id: int
    key: Secret | None
    facts: Facts = Facts()


class Requester:
    """Who asks for a report and waits for the answer.

    Args:
        respond: called exactly once.
        name: comparable form of the request's id; None for a notification.
        received_at: when the request was read, on the boot clock.
    """

    __slots__ = ("is_cancelled", "is_joined", "name", "received_at", "report", "respond", "warnings")

    def __init__(self, respond: Callable[[Answer], None], name: Hashable | None, received_at: float) -> None:
        self.respond = respond
        self.name = name
        self.received_at = received_at
        self.report: Report
        self.warnings: tuple[Mapping[str, str], ...] = ()
        self.is_joined = False
        """True if another request caused what is sent."""
        self.is_cancelled = False


class Interrupted(Exception):
    """What ends a report at a waiting point, from outside.

    Args:
        kind: row of ``schemas/errors.json``: ``window_closed``, ``shutting_down``, or ``request_cancelled``,
            where everybody who wanted the report has taken it back before it began.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Lost(Exception):
    """Another bridge has taken the report over."""


class Settled(Exception):
    """The report has its ending; nothing more is sent.

    Args:
        is_news: False if that was on record, or is another bridge's.
    """

    def __init__(self, ending: Ending, *, is_news: bool = True) -> None:
        super().__init__(ending.kind)
        self.ending = ending
        self.is_news = is_news


class Job:
    """One task being reported by this bridge, from its claim to its answer. Runs in a greenlet of its own.

    Times are on the ledger's timeline.
    """

    def __init__(
        self, ports: Ports, task: Task, method: str, key: Secret, window: Window, facts: Facts
    ) -> None:
        self._ports = ports
        self._waiter = ports.engine.waiter()
        self._woken = False
        self.number = next(_numbers)
        """Grows with each job."""
        self.task = task
        self.method = method
        self.key = key
        self.told = self.window = window
        """Its window as requests and the ledger tell it, and by the upstream's clock as that is known now."""
        self._until: float | None = None
        self.facts = facts
        self.requesters: list[Requester] = []
        self.attempts = 0
        """Attempts that were made in the task's life."""
        self.former_attempts = 0
        """Those of earlier lives that ended not_sent: they were certainly not taken."""
        self.made = 0
        """Those that this job has made."""
        self.sends = 0
        self.perhaps = False
        self.last: Verdict | None = None
        self.said: dict[str, Any] = {}
        """What the upstream said last: members of a verdict."""
        self.began_at = 0.0
        self.is_claimed = False
        """True once the ledger has told what is known of the task."""
        self.interruption: Interrupted | None = None
        """What is to end it at its next waiting point."""
        self.has_slot = False
        self.is_begun = False
        """True if a beginning was committed that no attempt has followed; it may have been taken back."""
        self.is_sending = False
        self.waits_for: Hashable = None
        """The pause that another report probes, as this one waited for last."""
        self.is_paused = False
        """True while it waits for the end of a pause."""
        self.is_theirs = False
        """True while another bridge has it: what that did with it is not known here."""
        self.is_answered = False
        self.closed_until = float("-inf")
        """Until when trying again cannot help, as far as is known."""
        self.wants_fresh = False
        """True if the next attempt is to open a new connection."""
        self.durable = True
        self.guarded = True

    @property
    def has_begun(self) -> bool:
        """True once an attempt was made in the task's life, or is being made."""
        return self.attempts > 0

    @property
    def is_under_way(self) -> bool:
        """True once it may be taken, or might have been: it is not let go any more."""
        return self.perhaps or self.attempts > self.former_attempts

    @property
    def is_spent(self) -> bool:
        """True if nothing more may be sent for the task, whatever a ledger says that does not know of all."""
        return self.attempts >= MAX_ATTEMPTS or self.sends >= MAX_SENDS

    def adopt(self, row: Row) -> None:
        """Take over what the ledger knows; a beginning is counted when the attempt is made.

        What this job knows better stays: it may have sent while the ledger was silent, and then have lost the
        report to another bridge.
        """
        self.is_begun = row.state == "sending"
        self.attempts = max(row.attempts - self.is_begun, self.made)
        self.sends = max(row.sends, self.sends)
        self.perhaps = row.perhaps or self.perhaps
        self._set_window(row.window.narrowed_by(self.told))
        self.facts = row.facts
        met = self.interruption
        if met is not None and met.kind == "request_cancelled" and self.is_under_way:
            # Begun in an earlier life, as nobody here knew when it was cancelled: it ends as it ends.
            self.interruption = None

    # --- waiting -----------------------------------------------------------------------------

    def pause(self, until: float | None = None) -> None:
        """Wait until a moment of the timeline, or until woken: here it can be ended from outside.

        Raises:
            Interrupted: nothing more is to be sent.
        """
        self._woken = False
        while not self._woken:
            if self.interruption is not None:
                raise self.interruption
            ends_at = windows.ends_at(self.window, self.has_begun)
            at = ends_at if until is None else min(until, ends_at)
            try:
                self._waiter.wait(self._ports.engine.now() + (at - self._ports.ledger.now()))
            except TimedOut:
                if at == ends_at:
                    raise Interrupted("window_closed") from None
                return

    def wake(self) -> None:
        """Let it go on, if it waits."""
        self._woken = True
        self._waiter.wake()

    def narrow(self, window: Window) -> bool:
        """Take note that its window may end earlier; False if it does not."""
        before = self.told
        self._set_window(before.narrowed_by(window))
        return self.told != before

    def correct(self, until: float) -> None:
        """Take note of when it ends by the upstream's clock; the next Date header may say otherwise."""
        self._until = until
        self._set_window(self.told)

    def _set_window(self, told: Window) -> None:
        before, self.told = self.window, told
        self.window = told if self._until is None else told.narrowed_by(Window(self._until, None))
        if self.window != before:
            self._waiter.wake()

    def interrupt(self, interruption: Interrupted) -> None:
        """End it at its present or next waiting point."""
        self.interruption = interruption
        self._waiter.throw(interruption)

    # --- after an attempt --------------------------------------------------------------------

    def starts_by(self) -> float:
        """The last moment the next attempt may start: earlier if it may be the second send."""
        latest = windows.starts_by(self.window, self.has_begun)
        if not self.perhaps or (self.last is not None and self.last.next == "wait"):
            return latest
        return min(latest, windows.ends_at(self.window, self.has_begun) - windows.RESEND_LEFT_S)

    def next_attempt_at(self, verdict: Verdict, now: float, chance: float) -> float | None:
        """When to try again; None if the verdict is final, the budget is spent or the window too short.

        The attempt has been counted, and is the last one.

        Args:
            now: The end of the attempt, on the timeline.
            chance: A random number from 0 to 1, for the jitter.
        """
        if verdict.next == "done" or self.is_spent:
            return None
        at = now + chance * BACKOFF_S * 2.0 ** (self.attempts - 1)
        if verdict.retry_after_s is not None:
            at = max(at, now + verdict.retry_after_s)
        return at if at <= self.starts_by() else None

    def with_answer(self, verdict: Verdict) -> Verdict:
        """A verdict that leaves the outcome unknown, with what the upstream said last."""
        is_answered = not verdict.perhaps or verdict.http_status is not None
        return verdict if is_answered else verdict._replace(**self.said)

    def known_ending(self, otherwise: Ending) -> Ending:
        """What is known of a report that gets no further attempt.

        Args:
            otherwise: The ending if no attempt taught anything: nothing was sent.
        """
        last = self.last
        is_silent = otherwise.kind in ("window_closed", "upstream_unreachable")
        if last is not None and (self.perhaps or last.outcome == REFUSED or is_silent):
            return verdict_ending(self.with_answer(last), {})
        return local_ending("outcome_unknown") if self.perhaps else otherwise
