"""The use case from the requests' side: who asked for what, who joins whom, what each is told.

A monitor: every public method may be called from any thread, takes the lock, decides, hands work
to the ports and returns; it never blocks on I/O. `bridge.reports.tower` brings the reports to
their end.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import partial
from typing import Any, Final

from bridge.core.model import (
    DONE,
    GUARD_S,
    HISTORY_S,
    NOT_SENT,
    UNKNOWN,
    Ending,
    Facts,
    Look,
    Prune,
    Row,
    Sweep,
    Swept,
    Task,
)
from bridge.core.redact import Secret
from bridge.reports import answers
from bridge.reports import flight as phases
from bridge.reports import window as windows
from bridge.reports.agenda import Agenda
from bridge.reports.flight import Flight, Reply, Report, Requester
from bridge.reports.knowledge import Knowledge
from bridge.reports.ports import LedgerPort, Ports
from bridge.reports.retry import refusal_beside
from bridge.reports.runway import Roster
from bridge.reports.tower import Tower

SWEEP_S: Final = 1.0
"""How often reports of dead bridges are looked for."""
PRUNE_STEP: Final = 500
"""Reports deleted at once, so that nobody waits long for the ledger."""
PRUNE_PAUSE_S: Final = 5.0
PRUNE_S: Final = 3600.0
"""How often old reports are looked for."""


class Service:
    """Reports tasks, each at most as often as is safe, and answers everybody who asked.

    Args:
        endpoint: Canonical base URL of the upstream.
        concurrency: Most attempts at one time.
        timeout_s: Total seconds an attempt may take.
        sandbox: Mark every answer as coming from the sandbox.
        recovers: Look for reports that other bridges on the ledger left behind.

    Thread safety: all public methods may be called from any thread.
    """

    def __init__(
        self,
        ledger: LedgerPort,
        ports: Ports,
        *,
        endpoint: str,
        concurrency: int,
        timeout_s: float,
        knowledge: Knowledge,
        sandbox: bool = False,
        recovers: bool = False,
    ) -> None:
        self._ledger = ledger
        self._ports = ports
        self._endpoint = endpoint
        self._knowledge = knowledge
        self._sandbox = sandbox
        self._recovers = recovers
        self._lock = threading.RLock()
        self._agenda = Agenda()
        self._flights: dict[Task, Flight] = {}
        self._roster = Roster()
        self._keys: dict[str, Secret] = {}
        self._tower = Tower(
            ledger,
            ports,
            knowledge,
            self._lock,
            self._agenda,
            self._on_landed,
            self._take_over,
            concurrency=concurrency,
            timeout_s=timeout_s,
        )

    # --- requests ----------------------------------------------------------------------------

    def submit(
        self, report: Report, reply: Reply, name: Hashable | None = None, waited_s: float = 0.0
    ) -> None:
        """Take a report; `reply` is called exactly once, from any thread.

        Args:
            name: Comparable form of the request's id, for `cancel`; None if it has none.
            waited_s: Seconds since the request was received.
        """
        with self._lock:
            received_at = self._ledger.now() - waited_s
            requester = Requester(reply, name, received_at, self._knowledge.warnings(report))
            refusal = self._knowledge.refuse(report)
            if report.key is None or self._tower.is_stopped:
                ending = refusal or answers.local_ending("shutting_down")
                age_s = self._knowledge.age_s(report.completed_at, received_at, self._ports.wall())
                can_start = age_s is None or age_s <= windows.REPORTABLE_S - windows.LEAST_LEFT_S
                self._answer(requester, report.task_id, ending, 0, durable=False, can_start=can_start)
                self._tell(report.method, "", report.task_id, ending)
                return
            task = Task(self._endpoint, self._ledger.account(report.key.reveal()), report.task_id)
            self._keys.setdefault(task.account, report.key)
            self._take(task, report, requester, refusal)

    def _take(self, task: Task, report: Report, requester: Requester, refusal: Ending | None) -> None:
        """Report a task, or join the flight that reports it."""
        flight = self._flights.get(task)
        now = self._ledger.now()
        age_s = self._knowledge.age_s(report.completed_at, now, self._ports.wall())
        window = windows.open_window(requester.received_at if age_s is None else now, age_s)
        if flight is None:
            assert report.key is not None
            facts = Facts(report.completed_at, report.task_type, report.language_pool, age_s)
            flight = Flight(task, report.method, report.key, window, facts)
            self._flights[task] = flight
            self._seat(flight, requester)
            self._tower.enter(flight, refusal)
        elif refusal is not None:
            ending = refusal_beside(refusal, flight.has_begun or flight.is_theirs)
            self._answer(requester, task.task_id, ending, flight.attempts, durable=False)
        elif flight.method != report.method:
            # The ledger answers in order, so by then it knows what became of the claim.
            self._ledger.submit(Look(task), partial(self._on_looked, flight, report, requester))
        else:
            requester.joined = True
            self._seat(flight, requester)
            self._tower.narrow(flight, window)

    def _on_looked(self, flight: Flight, report: Report, requester: Requester, row: Row | Any) -> None:
        """Answer a request that asks for another method than the flight's."""
        with self._lock:
            stored = row if isinstance(row, Row) else None
            outcome = None if stored is None else stored.outcome
            if flight.phase == DONE and outcome in (None, NOT_SENT):
                self._take(flight.task, report, requester, None)
                return
            hints = self._knowledge.conflict_hints(flight.method if stored is None else stored.method)
            ending = answers.conflict_ending(outcome, hints)
            durable = outcome is not None and flight.durable
            self._answer(requester, flight.task.task_id, ending, flight.attempts, durable)

    def cancel(self, name: Hashable) -> None:
        """Let go every request of that name whose report has not begun; unknown names are ignored."""
        with self._lock:
            for flight in self._roster.find(name):
                is_theirs = flight.phase == phases.WATCHING
                begun = flight.has_begun or is_theirs or flight.phase == phases.FLYING
                mine = [r for r in flight.requesters if r.name == name]
                leaving = [r for r in mine if r.joined or is_theirs or not begun]
                for requester in leaving:
                    requester.cancelled = True
                only_joined = all(requester.joined for requester in leaving)
                if begun or only_joined or len(leaving) < len(flight.requesters):
                    self._leave(flight, leaving, begun)
                    if is_theirs and not flight.requesters:
                        self._forget(flight)
                        flight.phase = DONE
                        flight.cancel_timers()
                elif leaving:
                    self._tower.cancel(flight)

    def _leave(self, flight: Flight, leaving: list[Requester], begun: bool) -> None:
        """Answer requesters who go while the report itself goes on."""
        ending = answers.local_ending("request_cancelled", UNKNOWN if begun else NOT_SENT)
        for requester in leaving:
            self._unseat(flight, requester)
            self._answer(requester, flight.task.task_id, ending, flight.attempts, flight.durable)
        if not begun and flight.requesters and all(r.joined for r in flight.requesters):
            flight.requesters[0].joined = False

    def resume_waiting(self) -> None:
        """Ask again for every report that waits for a pause: a pause may have changed."""
        with self._lock:
            self._tower.ask_again(tuple(self._flights.values()))

    def tick(self) -> None:
        """Do what is due; the alarm calls it."""
        with self._lock:
            self._tower.tick()

    def counts(self) -> tuple[int, int]:
        """How many reports have an attempt under way, and how many wait."""
        with self._lock:
            flying = sum(flight.phase == phases.FLYING for flight in self._flights.values())
            return flying, len(self._flights) - flying

    # --- answers -----------------------------------------------------------------------------

    def _on_landed(self, flight: Flight, ending: Ending, is_news: bool) -> None:
        self._forget(flight)
        if ending.kind == "request_cancelled":
            self._restart(flight)
        now = self._ledger.now()
        can_start = now <= windows.starts_by(flight.window, flight.has_begun)
        for requester in tuple(flight.requesters):
            if not is_news and ending.kind != "task_conflict":
                requester.joined = True
            self._unseat(flight, requester)
            self._answer(
                requester,
                flight.task.task_id,
                ending,
                flight.attempts,
                flight.durable,
                flight.guarded,
                can_start,
            )
        if ending.kind != "task_conflict":
            task = flight.task
            self._tell(
                flight.method,
                task.account[:8],
                task.task_id,
                ending,
                attempts=flight.attempts,
                replayed=not is_news,
                durable=flight.durable,
            )

    def _tell(
        self,
        method: str,
        account: str,
        task_id: int,
        ending: Ending,
        attempts: int = 0,
        replayed: bool = False,
        durable: bool = False,
    ) -> None:
        self._ports.emit(
            "report_settled",
            task_id=task_id,
            method=method,
            account=account,
            outcome=ending.outcome,
            kind=ending.kind,
            code=ending.code,
            attempts=attempts,
            replayed=replayed,
            durable=durable,
        )

    def _restart(self, flight: Flight) -> None:
        """Requesters who came while the cancellation of others was being committed begin anew."""
        staying = [r for r in flight.requesters if not r.cancelled]
        if not staying:
            return
        fresh = Flight(flight.task, flight.method, flight.key, flight.window, flight.facts)
        for requester in staying:
            self._unseat(flight, requester)
            self._seat(fresh, requester)
        staying[0].joined = False
        self._flights[fresh.task] = fresh
        self._tower.enter(fresh)

    def _answer(
        self,
        requester: Requester,
        task_id: int,
        ending: Ending,
        attempts: int,
        durable: bool,
        guarded: bool = True,
        can_start: bool = True,
    ) -> None:
        warnings = requester.warnings if guarded else (*requester.warnings, self._knowledge.unguarded)
        requester.reply(
            answers.answer_ending(
                ending,
                task_id=task_id,
                attempts=attempts,
                replayed=requester.joined,
                durable=durable,
                elapsed_ms=max(0, round((self._ledger.now() - requester.received_at) * 1000)),
                retryable=can_start,
                warnings=warnings,
                sandbox=self._sandbox,
            )
        )

    # --- after a crash, and before the end ---------------------------------------------------

    def start(self) -> None:
        """Begin to look for reports that dead bridges left behind, and for old ones."""
        if self._recovers:
            self._sweep()
        with self._lock:
            self._agenda.add(self._ledger.now() + PRUNE_PAUSE_S, self._prune)
            self._tower.tick()

    def _prune(self) -> None:
        """Delete reports that are older than anybody may ask for, in small steps."""
        # In memory they are kept as long as they guard against duplicates.
        age_s = HISTORY_S if self._recovers else GUARD_S
        self._ledger.submit(Prune(self._ports.wall() - age_s, PRUNE_STEP), self._on_pruned)

    def _on_pruned(self, deleted: int | Any) -> None:
        with self._lock:
            pause_s = PRUNE_PAUSE_S if deleted == PRUNE_STEP else PRUNE_S
            self._agenda.add(self._ledger.now() + pause_s, self._prune)
            self._tower.tick()

    def hold(self, key: Secret) -> None:
        """Make a key known, so that open reports of its account can be resumed."""
        account = self._ledger.account(key.reveal())
        with self._lock:
            self._keys.setdefault(account, key)

    def _sweep(self) -> None:
        with self._lock:
            if not self._tower.is_stopped:
                self._ledger.submit(Sweep(self._endpoint, frozenset(self._keys)), self._on_swept)

    def _on_swept(self, swept: Swept | Any) -> None:
        with self._lock:
            # First of all, so that whatever happens here cannot end the sweeping.
            self._agenda.add(self._ledger.now() + SWEEP_S, self._sweep)
            if isinstance(swept, Swept):
                for row in swept.adopted:
                    self._take_over(row)
                for row in swept.settled:
                    self._ports.emit(
                        "report_abandoned",
                        task_id=row.task.task_id,
                        method=row.method,
                        account=row.task.account[:8],
                        outcome=row.outcome,
                    )
            self._tower.tick()

    def _take_over(self, row: Row) -> None:
        flight = self._flights.get(row.task)
        if flight is None:
            flight = Flight(row.task, row.method, self._keys[row.task.account], row.window, row.facts)
            self._flights[row.task] = flight
        elif flight.phase != phases.WATCHING:
            # Its claim is on the way and will find that the report is ours.
            return
        self._tower.enter_adopted(flight, row)

    def is_idle(self) -> bool:
        """True if nothing is in flight."""
        with self._lock:
            return not self._flights

    def stop(self) -> int:
        """Give up what is still open: never begun ends not_sent, begun is left to recovery.

        Returns:
            The number of reports that were open.
        """
        with self._lock:
            self._tower.is_stopped = True
            still_open = tuple(self._flights.values())
            for flight in still_open:
                self._tower.give_up(flight)
            return len(still_open)

    # --- who waits for what ------------------------------------------------------------------

    def _seat(self, flight: Flight, requester: Requester) -> None:
        flight.requesters.append(requester)
        self._roster.add(requester.name, flight)

    def _unseat(self, flight: Flight, requester: Requester) -> None:
        flight.requesters.remove(requester)
        self._roster.remove(requester.name, flight)

    def _forget(self, flight: Flight) -> None:
        self._flights.pop(flight.task, None)
