"""How one report gets to its end: claim, gate, attempt, record, again or done.

The ledger and the workers call back from their threads; every step takes the lock, decides, hands
on and returns. What waits is an entry in the agenda or a place on the runway, never a thread, so
that the end of a window is always answered on time. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from threading import RLock
from typing import Any, Final

from bridge.core.model import (
    DONE,
    SENDING,
    UNKNOWN,
    Begin,
    Begun,
    Claim,
    Claimed,
    Ending,
    Exchange,
    Gate,
    Narrow,
    Record,
    Recorded,
    Row,
    Settle,
    Window,
)
from bridge.reports import answers
from bridge.reports import flight as phases
from bridge.reports import window as windows
from bridge.reports.agenda import Agenda
from bridge.reports.flight import Attempt, Flight
from bridge.reports.gates import Gates
from bridge.reports.knowledge import Knowledge
from bridge.reports.notes import Notes, about
from bridge.reports.ports import LedgerPort, Ports
from bridge.reports.retry import known_ending, next_attempt_at, refusal_beside, unclaimed_ending
from bridge.reports.runway import Runway
from bridge.reports.verdict import judge

WATCH_S: Final = 0.2  # how often a report of another bridge is looked at
Landed = Callable[[Flight, Ending, bool], None]
"""Told of the end of a flight: with its ending, and whether it is news (False: it was on record)."""


class Tower:
    """Brings flights to their end.

    Args:
        lock: The service's lock, which guards everything here; `agenda` is under it too.
        landed: Called with the lock held when a flight has ended, exactly once for each.
        orphaned: Told of a report that is ours and has no flight.

    Thread safety: public methods expect the lock to be held.
    """

    def __init__(
        self,
        ledger: LedgerPort,
        ports: Ports,
        knowledge: Knowledge,
        lock: RLock,
        agenda: Agenda,
        landed: Landed,
        orphaned: Callable[[Row], None],
        *,
        concurrency: int,
        timeout_s: float,
    ) -> None:
        self._ledger = ledger
        self._ports = ports
        self._notes = Notes(ledger, ports, knowledge)
        self._lock = lock
        self._agenda = agenda
        self._landed = landed
        self._orphaned = orphaned
        self._timeout_s = timeout_s
        self._runway = Runway(concurrency)
        self._gates = Gates(self._runway, agenda, ledger.now, self._make_ready)
        self.is_stopped = False
        self._alarm_at: float | None = None

    # --- from outside ------------------------------------------------------------------------

    def enter(self, flight: Flight, refusal: Ending | None = None) -> None:
        """Begin to report a task, or record that it is refused."""
        if refusal is None and self._ledger.now() > windows.starts_by(flight.window, False):
            refusal = self._notes.late(flight)
        self._claim(flight, refusal)

    def enter_adopted(self, flight: Flight, row: Row) -> None:
        """Go on with a report that was left behind and is ours now."""
        self._ports.emit("report_resumed", **about(flight), state=row.state)
        self._own(flight, row)
        self._make_ready(flight)
        self._move_on()

    def narrow(self, flight: Flight, window: Window) -> None:
        """Take note that the window may end earlier."""
        merged = windows.merge_windows(flight.window, window)
        if merged != flight.window:
            flight.window = merged
            self._ledger.submit(Narrow(flight.task, merged), lambda _: None)
        self._watch_window(flight)
        self._move_on()

    def cancel(self, flight: Flight) -> None:
        """End a report that has not begun."""
        if flight.phase in (phases.CLAIMING, phases.BEGINNING):
            flight.cancelled = True
        elif flight.phase != phases.CLOSING:
            self._close(flight, answers.local_ending("request_cancelled"))
        self._move_on()

    def ask_again(self, flights: Iterable[Flight]) -> None:
        """Let everything that waits for a pause ask again: a pause may have changed."""
        self._gates.wake(everyone=True)
        for flight in flights:
            if flight.phase == phases.DEFERRED and flight.paused:
                self._make_ready(flight)
        self._move_on()

    def give_up(self, flight: Flight) -> None:
        """Let go of a report at the end of the process: never begun ends not_sent, begun is left to
        recovery. What is being committed ends by itself."""
        if flight.phase in (phases.CLAIMING, phases.BEGINNING) and not flight.has_begun:
            return
        if flight.phase == phases.CLOSING:
            return
        if flight.phase in (phases.FLYING, phases.WATCHING) or flight.has_begun:
            self._let_go(flight)
        else:
            self._close(flight, answers.local_ending("shutting_down"))

    def tick(self) -> None:
        """Do what is due."""
        self._alarm_at = None
        try:
            self._agenda.run_due(self._ledger.now())
        finally:
            self._move_on()

    # --- the claim ---------------------------------------------------------------------------

    def _claim(self, flight: Flight, refusal: Ending | None = None) -> None:
        begin = refusal is None and self._runway.take_slot(flight)
        flight.phase = phases.CLAIMING
        op = Claim(flight.task, flight.method, flight.window, flight.facts, begin, refusal)
        self._ledger.submit(op, partial(self._on_claimed, flight, refusal))

    def _on_claimed(self, flight: Flight, refusal: Ending | None, claimed: Claimed | Any) -> None:
        with self._lock:
            if flight.phase == DONE:
                self._runway.give_back(flight)
            elif not isinstance(claimed, Claimed):
                flight.durable = False
                self._land(flight, unclaimed_ending(flight), is_news=not flight.is_theirs)
            else:
                flight.durable, flight.guarded = claimed.durable, claimed.guarded
                self._notes.tell_pauses(claimed.events)
                self._after_claim(flight, refusal, claimed)
            self._move_on()

    def _after_claim(self, flight: Flight, refusal: Ending | None, claimed: Claimed) -> None:
        row = claimed.row
        # A sweep may have taken it over for us in the moment before.
        is_adopted = row.state != DONE and row.owner == self._ledger.instance
        if claimed.status in ("new", "again", "adopted"):
            self._own(flight, row)
            if claimed.status == "adopted":
                self._ports.emit("report_resumed", **about(flight), state=row.state)
            if claimed.gate is not None or flight.cancelled or self.is_stopped:
                self._on_gate(flight, claimed.gate or Gate("begun"))
            else:
                self._make_ready(flight)
            return
        self._runway.give_back(flight)
        if claimed.status == "known":
            flight.adopt(row)
            self._land(flight, answers.row_ending(row), is_news=False)
        elif claimed.status == "conflict":
            flight.attempts = row.attempts
            self._land(flight, self._notes.conflict(flight, row), is_news=False)
            if is_adopted:
                self._orphaned(row)
        elif claimed.status == "refused":
            flight.attempts = row.attempts
            self._land(flight, answers.row_ending(row))
        elif refusal is not None:
            # Somebody has the report, so the refusal is nobody's record; it stands all the same.
            flight.durable = False
            self._land(flight, refusal_beside(refusal, row.attempts > 0))
            if is_adopted:
                self._orphaned(row)
        elif is_adopted:
            self._own(flight, row)
            self._make_ready(flight)
        else:
            self._watch(flight, row)

    def _own(self, flight: Flight, row: Row) -> None:
        """Take over what the ledger knows of a report that is ours now."""
        merged = windows.merge_windows(row.window, flight.window)
        flight.adopt(row)
        flight.window = merged
        flight.is_theirs = False
        if row.state == SENDING:
            # The beginning is counted when the attempt is made.
            flight.attempts -= 1
        self._watch_window(flight)

    def _watch(self, flight: Flight, row: Row) -> None:
        """Another bridge has the report: look again soon, until the window ends."""
        if flight.cancelled:
            self._land(flight, answers.local_ending("request_cancelled", UNKNOWN))
            return
        flight.phase = phases.WATCHING
        flight.attempts = row.attempts
        flight.window = windows.merge_windows(row.window, flight.window)
        self._watch_window(flight)
        self._look_later(flight)

    def _look_later(self, flight: Flight) -> None:
        flight.phase = phases.WATCHING
        flight.is_theirs = True
        if self.is_stopped:
            self._let_go(flight)
            return
        flight.due = self._agenda.add(self._ledger.now() + WATCH_S, lambda: self._look(flight))

    def _look(self, flight: Flight) -> None:
        if flight.phase == phases.WATCHING:
            flight.due = None
            self._claim(flight)

    # --- slots and gates ---------------------------------------------------------------------

    def _make_ready(self, flight: Flight) -> None:
        flight.paused = False
        self._ensure_end(flight)
        if flight.due is not None:
            flight.due.cancel()
            flight.due = None
        self._runway.queue(flight)

    def _fill_slots(self) -> None:
        """Give free slots to the ready reports whose windows end first."""
        while not self.is_stopped and (flight := self._runway.next_ready()) is not None:
            if self._is_too_late(flight):
                # The end of its window, which the agenda holds, answers it.
                self._runway.give_back(flight)
                flight.phase = phases.GATED
                continue
            flight.phase = phases.BEGINNING
            self._ledger.submit(Begin(flight.task), partial(self._on_begun, flight))

    def _on_begun(self, flight: Flight, begun: Begun | Any) -> None:
        with self._lock:
            if flight.phase == DONE:
                self._runway.give_back(flight)
            elif not isinstance(begun, Begun):
                # The row is ours still, and must not be found as if it waited.
                self._runway.give_back(flight)
                self._close(flight, known_ending(flight, answers.local_ending("ledger_unavailable")))
            else:
                flight.durable = flight.durable and begun.durable
                flight.guarded = flight.guarded and begun.guarded
                self._notes.tell_pauses(begun.events)
                self._on_gate(flight, begun.gate)
            self._move_on()

    def _on_gate(self, flight: Flight, gate: Gate) -> None:
        """Do what the ledger decided about the beginning of an attempt."""
        if gate.status == "begun" and not (flight.cancelled or self.is_stopped or self._is_too_late(flight)):
            self._fly(flight)
            return
        self._runway.give_back(flight)
        if gate.status == "lost":
            self._look_later(flight)
        elif flight.cancelled or self.is_stopped:
            kind = "request_cancelled" if flight.cancelled else "shutting_down"
            self._close(flight, known_ending(flight, answers.local_ending(kind)))
        elif gate.status == "begun":
            self._close(flight, known_ending(flight, self._notes.late(flight)))
        elif gate.status == "spent":
            self._close(flight, known_ending(flight, answers.local_ending("upstream_unreachable")))
        elif gate.status == "busy":
            self._ensure_end(flight)
            self._gates.hold(flight)
        else:
            self._pause(flight, gate)

    def _is_too_late(self, flight: Flight) -> bool:
        return self._ledger.now() > windows.starts_by(flight.window, flight.has_begun)

    def _pause(self, flight: Flight, gate: Gate) -> None:
        """Wait without a slot if the next probe lies inside the window, else refuse at once."""
        assert gate.pause is not None
        if gate.until is None or gate.until > windows.starts_by(flight.window, flight.has_begun):
            pause = self._notes.show_pause(gate.pause)
            ending = answers.local_ending("sending_paused", pause=pause)
            self._close(flight, known_ending(flight, ending))
            return
        flight.phase = phases.DEFERRED
        flight.paused = True
        self._ensure_end(flight)
        flight.due = self._agenda.add(gate.until, lambda: self._become_ready(flight))

    def _become_ready(self, flight: Flight) -> None:
        if flight.phase == phases.DEFERRED:
            flight.due = None
            self._make_ready(flight)

    # --- the attempt -------------------------------------------------------------------------

    def _fly(self, flight: Flight) -> None:
        retrying = flight.has_begun
        now = self._ledger.now()
        flight.phase = phases.FLYING
        flight.attempts += 1
        flight.began_at = now
        left_s = windows.sends_by(flight.window, retrying) - now
        attempt = Attempt(flight.method, flight.key, flight.task.task_id, self._timeout_s, max(0.0, left_s))
        self._ports.attempt(attempt, partial(self._on_exchange, flight))

    def _on_exchange(self, flight: Flight, exchange: Exchange) -> None:
        verdict = judge(exchange, flight.perhaps, scrub=self._ports.scrub, now_wall=self._ports.wall())
        with self._lock:
            self._runway.give_back(flight)
            now = self._ledger.now()
            self._notes.learn_time(exchange)
            flight.last = verdict
            if verdict.http_status is not None:
                flight.last_status = verdict.http_status
            flight.perhaps = verdict.perhaps
            flight.sends += verdict.is_send
            latency_ms = round(exchange.elapsed_s * 1000)
            self._notes.tell_attempt(flight, verdict, latency_ms)
            if verdict.error_id == 1:
                self._ports.key_refused()
            chance = 0.0 if verdict.next == "done" else self._ports.chance()
            again_at = None if self.is_stopped else next_attempt_at(flight, verdict, now, chance)
            ending = self._notes.ending(flight, verdict) if again_at is None else None
            op = Record(flight.task, verdict, flight.began_at, latency_ms, ending)
            if flight.phase != DONE:
                flight.phase = phases.CLOSING
            self._ledger.submit(op, partial(self._on_recorded, flight, ending, again_at))
            self._move_on()

    def _on_recorded(
        self, flight: Flight, ending: Ending | None, again_at: float | None, recorded: Recorded | Any
    ) -> None:
        with self._lock:
            is_ours = self._take_record(flight, recorded)
            self._gates.wake(everyone=isinstance(recorded, Recorded) and bool(recorded.events))
            if flight.phase == DONE:
                pass
            elif ending is not None and (is_ours or ending.code == 0):
                self._land(flight, ending)
            elif not is_ours:
                self._follow(flight, recorded.row)
            else:
                assert again_at is not None
                flight.phase = phases.DEFERRED
                self._watch_window(flight)
                flight.due = self._agenda.add(again_at, lambda: self._become_ready(flight))
                if self.is_stopped:
                    self.give_up(flight)
            self._move_on()

    def _take_record(self, flight: Flight, recorded: Recorded | Any) -> bool:
        """Take note of a commit; False if the row belongs to another bridge by now."""
        if not isinstance(recorded, Recorded):
            flight.durable = False
            return True
        flight.durable = recorded.durable
        self._notes.tell_pauses(recorded.events)
        return recorded.status != "lost"

    def _follow(self, flight: Flight, row: Row | None) -> None:
        """Another bridge took the report over: its ending is the truth, as soon as there is one."""
        if row is not None and row.state == DONE:
            self._land(flight, answers.row_ending(row), is_news=False)
        else:
            self._ensure_end(flight)
            self._look_later(flight)

    # --- the end -----------------------------------------------------------------------------

    def _watch_window(self, flight: Flight) -> None:
        """Make sure the report is answered when its window ends."""
        if flight.end is not None:
            flight.end.cancel()
        ends = windows.ends_at(flight.window, flight.has_begun)
        flight.end = self._agenda.add(ends, lambda: self._on_window_end(flight))

    def _ensure_end(self, flight: Flight) -> None:
        if flight.end is None:
            self._watch_window(flight)

    def _on_window_end(self, flight: Flight) -> None:
        flight.end = None
        if flight.phase == phases.WATCHING:
            self._let_go(flight)
        elif flight.phase in (phases.READY, phases.DEFERRED, phases.GATED):
            self._close(flight, known_ending(flight, self._notes.late(flight)))

    def _close(self, flight: Flight, ending: Ending) -> None:
        """End a report of ours without a further attempt."""
        flight.phase = phases.CLOSING
        flight.cancel_timers()
        self._ledger.submit(Settle(flight.task, ending), partial(self._on_settled, flight, ending))

    def _on_settled(self, flight: Flight, ending: Ending, recorded: Recorded | Any) -> None:
        with self._lock:
            if self._take_record(flight, recorded):
                self._land(flight, ending)
            else:
                self._follow(flight, recorded.row)
            # It may have been the probe, or the one that was to prove the key.
            self._gates.wake(everyone=False)
            self._move_on()

    def _let_go(self, flight: Flight) -> None:
        """Answer that the outcome is unknown, while the ledger has none: somebody else will end it."""
        is_theirs = flight.phase == phases.WATCHING
        flight.durable = False
        self._land(flight, answers.local_ending("outcome_unknown", UNKNOWN), is_news=not is_theirs)

    def _land(self, flight: Flight, ending: Ending, is_news: bool = True) -> None:
        if flight.phase == DONE:
            return
        if flight.phase != phases.FLYING:
            self._runway.give_back(flight)
        flight.phase = DONE
        flight.cancel_timers()
        self._landed(flight, ending, is_news)

    def _move_on(self) -> None:
        """Fill the slots that are free and set the alarm; the last thing every step does."""
        self._fill_slots()
        at = self._agenda.next_at()
        if at is not None and (self._alarm_at is None or at < self._alarm_at):
            self._alarm_at = at
            self._ports.alarm(at)
