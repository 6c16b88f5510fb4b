"""What is known and told about a report on its way: endings with their details, and events.

Reads the clocks and the knowledge, decides nothing. Used by `bridge.reports.tower` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.core.model import NOT_SENT, Ending, Exchange, PauseEvent, PauseState, Row, Verdict
from bridge.reports.answers import conflict_ending
from bridge.reports.flight import Flight
from bridge.reports.knowledge import Knowledge
from bridge.reports.pauses import PROOF
from bridge.reports.ports import LedgerPort, Ports
from bridge.reports.verdict import ending as verdict_ending


class Notes:
    """Words the endings of flights and tells of what happens to them.

    Thread safety: none; the service's lock guards it.
    """

    def __init__(self, ledger: LedgerPort, ports: Ports, knowledge: Knowledge) -> None:
        self._ledger = ledger
        self._ports = ports
        self._knowledge = knowledge

    def late(self, flight: Flight) -> Ending:
        """The ending of a report whose window is over, with its age."""
        now, wall = self._ledger.now(), self._ports.wall()
        detail = self._knowledge.late_detail(flight.facts.completed_at, now, wall)
        return Ending(NOT_SENT, -32010, "window_closed", detail)

    def ending(self, flight: Flight, verdict: Verdict) -> Ending:
        """The ending that a final verdict means, with what helps to understand it."""
        extra: dict[str, Any] = {}
        now, wall = self._ledger.now(), self._ports.wall()
        if verdict.kind == "window_closed":
            extra = self._knowledge.late_detail(flight.facts.completed_at, now, wall)
        if verdict.perhaps and verdict.http_status is None and flight.last_status is not None:
            extra["httpStatus"] = flight.last_status
        hints = self._knowledge.hints(flight, verdict, now, wall)
        if hints:
            extra["hints"] = list(hints)
        return verdict_ending(verdict, extra)

    def conflict(self, flight: Flight, row: Row) -> Ending:
        """The ending of a request for another method than the one on record."""
        self._ports.emit("report_conflict", **about(flight), stored_method=row.method, outcome=row.outcome)
        return conflict_ending(row.outcome, self._knowledge.conflict_hints(row.method))

    def tell_attempt(self, flight: Flight, verdict: Verdict, latency_ms: int) -> None:
        """Tell how an attempt ended."""
        self._ports.emit(
            "attempt_done",
            **about(flight),
            attempt=flight.attempts,
            met=verdict.event,
            next=verdict.next,
            http_status=verdict.http_status,
            error_id=verdict.error_id,
            latency_ms=latency_ms,
        )

    def learn_time(self, exchange: Exchange) -> None:
        """Compare the clocks by the answer's Date header."""
        date = exchange.headers.get("date")
        now, wall = self._ledger.now(), self._ports.wall()
        if date is not None and self._knowledge.clocks.learn_date(date, now, wall):
            skew_s = self._knowledge.clocks.skew_s(now, wall)
            self._ports.emit("clock_skew", skew_s=round(skew_s or 0.0, 1))

    def tell_pauses(self, events: Iterable[PauseEvent]) -> None:
        """Tell which pauses opened, closed or are being probed."""
        for event in events:
            if event.state.key.rule == PROOF:
                continue
            shown = self.show_pause(event.state)
            self._ports.emit(
                event.name,
                rule=event.state.key.rule,
                scope=shown["scope"],
                subject=event.state.key.subject,
                cause=shown["cause"],
                until="when a person resumes it" if shown["endsAt"] is None else f"at {shown['endsAt']}",
                doublings=event.state.level,
            )

    def show_pause(self, state: PauseState) -> dict[str, Any]:
        """A pause as the wire shows it."""
        return self._knowledge.show_pause(state, self._ledger.now(), self._ports.wall())


def about(flight: Flight) -> dict[str, Any]:
    """What every event about a report says of it."""
    return {
        "task_id": flight.task.task_id,
        "method": flight.method,
        "account": flight.task.account[:8],
    }
