"""The life of a report: one report, one function, from its claim to its answer.

```
start ---> claim (committed) --> known? elsewhere for good?  answer from the ledger
             |
             v
   +-> wait for permission: a slot, the end of a pause, another one's attempt
   |   begin (committed)             cancelled, stopped, too late: taken back
   |   send, within the seconds left
   |   judge
   |   record (committed)
   |         |
   +---------+ again: sleep until then
             |
             v
          settled --> answered by whoever keeps the requests
```

Every wait but a commit and a send is a `Job.pause`: there the window's end, a cancel and the end of the
process come up as exceptions. Everything runs in the engine's thread, so nothing needs a lock. Imported by
`bridge.reports.reporter`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from bridge.core import model
from bridge.core.model import DONE, NOT_SENT, OPEN, REFUSED, SENDING, Ending, Gate, PauseEvent, Row, Window
from bridge.engine import NoResources
from bridge.reports import window as windows
from bridge.reports.admission import SingleFlight, Slots
from bridge.reports.job import SAID, Interrupted, Job, Lost, Settled
from bridge.reports.observer import Observer
from bridge.reports.pauses import end_of, is_transport_probe
from bridge.reports.ports import Part, Ports
from bridge.reports.verdict import judge, local_ending, row_ending

WATCH_S: Final = 0.2
"""How often a report of another bridge is looked at."""
STALE_S: Final = 2.5
"""An attempt that could not be made so long after its beginning is not made: neighbours take over what a
silent bridge had begun, at the earliest after 3.5 s."""
SCARCE_S: Final = 0.5
"""How long to wait after this machine lacked a descriptor or a thread for an attempt."""


class Lifecycle(Part):
    """Brings reports to their endings.

    Args:
        orphaned: Told of a report that is ours and that no job is about.
    """

    def __init__(self, ports: Ports, observer: Observer, orphaned: Callable[[Row], None]) -> None:
        super().__init__(ports)
        self._observer = observer
        self._orphaned = orphaned
        self._slots = Slots(ports.concurrency)
        self._flight = SingleFlight(ports.engine)
        self.is_stopped = False
        """True once nothing is tried again, because the process ends."""
        self.leaves_all = False
        """True if then nobody can be answered: what was never begun is left to recovery, too."""

    def narrow(self, job: Job, window: Window) -> None:
        """The earliest window end that is known of a task holds, whoever told it."""
        if job.narrow(window):
            self.move(job)
            self._ledger.post(model.Narrow(job.task, job.told))

    def move(self, job: Job) -> None:
        """Let a report whose window ends at another time wait where it belongs."""
        self._slots.move(job)
        self._flight.move(job)

    def live(self, job: Job, refusal: Ending | None = None, row: Row | None = None) -> tuple[Ending, bool]:
        """The life of one report, whatever ends it.

        Args:
            refusal: what the request that asks for it is refused with, if nothing is known of the task.
            row: what was left behind by another bridge and is ours now.

        Returns:
            The ending, and whether it is news. Not what was raised: that knows the frames that would hold it.
        """
        try:
            try:
                return self._report(job, refusal, row), True
            except Interrupted as interruption:
                self._end_early(job, interruption.kind)
        except Settled as settled:
            return settled.ending, settled.is_news
        finally:
            self._slots.give_back(job)
            # It may have been the probe, or the one that was to prove the key.
            self._flight.wake(everyone=False)

    def _report(self, job: Job, refusal: Ending | None, row: Row | None) -> Ending:
        """The way of a report that nothing ends early. Returns its ending, committed.

        Raises:
            Settled: it has its ending without an attempt of ours.
            Interrupted: it is to end early.
        """
        if row is not None:
            self._resume(job, row)
        gate: Gate | None = None
        is_ours = row is not None
        while True:
            try:
                if not is_ours:
                    gate, is_ours = self._claim(job, refusal), True
                if gate is None:
                    self._slots.take(job)
                    gate = self._begin(job)
                if gate.status == "begun" and not job.is_spent:
                    ending = self._attempt(job)
                    if ending is not None:
                        return ending
                elif gate.status == "paused":
                    self._wait_for_pause(job, gate)
                elif gate.status == "busy":
                    self._slots.give_back(job)
                    assert gate.pause is not None
                    self._flight.wait(job, gate.pause.key)
                elif gate.status == "late":
                    raise Interrupted("window_closed")
                elif gate.status == "lost":
                    raise Lost
                else:
                    self._give_up(job, local_ending("upstream_unreachable"))
                gate = None
            except Lost:
                # Look again soon.
                self._slots.give_back(job)
                job.is_theirs, is_ours, refusal = True, False, None
                job.pause(self._ledger.now() + WATCH_S)

    def _claim(self, job: Job, refusal: Ending | None) -> Gate | None:
        """Make the report ours.

        Returns:
            What became of the first beginning; None if none was asked for.

        Raises:
            Settled: there is nothing to send.
            Lost: another bridge has the report.
        """
        begin = refusal is None and self._slots.take_free(job)
        claimed = self._ledger.call(model.Claim(job.task, job.method, job.told, job.facts, begin, refusal))
        if not isinstance(claimed, model.Claimed):
            job.durable = False
            kind = "outcome_unknown" if job.is_theirs or job.perhaps else "ledger_unavailable"
            raise Settled(local_ending(kind), is_news=not job.is_theirs)
        job.durable, job.guarded, job.is_claimed = claimed.durable, claimed.guarded, True
        self._note_pauses(job, claimed.events)
        row, status = claimed.row, claimed.status
        # A sweep may have taken it over for us in the moment before.
        is_ours = row.state != DONE and row.owner == self._ledger.instance
        if status in ("new", "again", "adopted") or (status == "elsewhere" and is_ours):
            # Again means that an earlier life has ended not_sent.
            job.former_attempts = row.attempts - (row.state == SENDING) if status == "again" else 0
            job.adopt(row)
            job.is_theirs = False
            if status in ("adopted", "elsewhere"):
                self._resume(job, row)
            return claimed.gate
        job.attempts = row.attempts
        if status == "known" or (status == "conflict" and _is_in_doubt(job, row)):
            raise _told_elsewhere(job, row)
        if status == "refused":
            raise Settled(row_ending(row))
        if status == "conflict":
            self._observer.tell("report_conflict", job, {"stored_method": row.method, "outcome": row.outcome})
            if is_ours:
                self._orphaned(row)
            job.durable = job.durable and row.outcome is not None
            raise Settled(self._observer.conflict(row.method, row.outcome, refusal), is_news=False)
        job.narrow(row.window)
        raise Lost

    def _resume(self, job: Job, row: Row) -> None:
        """Tell that a report is taken over, and wait as long as the upstream asked who had it before."""
        self._observer.tell("report_resumed", job, {"state": row.state})
        # Another bridge's timeline may be another one; then it is no longer than was asked.
        now, detail = self._ledger.now(), row.detail
        again_at = min(detail.get("againAt", now), now + detail.get("waitS", 0.0))
        if again_at > now:
            self._slots.give_back(job)
            job.pause(again_at)

    def _begin(self, job: Job) -> Gate:
        """Commit the beginning of an attempt, if it may begin."""
        begun = self._ledger.call(model.Begin(job.task))
        if not isinstance(begun, model.Begun):
            # The row is ours still, and must not be found as if it waited.
            self._give_up(job, local_ending("ledger_unavailable"))
        job.guarded = job.guarded and begun.guarded
        if begun.row is not None and begun.gate.status != "lost":
            job.adopt(begun.row)
        self._note_pauses(job, begun.events)
        return begun.gate

    def _note_pauses(self, job: Job, events: tuple[PauseEvent, ...]) -> None:
        for event in events:
            self._observer.tell_pause(event)
        # Old connections may be what is wrong.
        job.wants_fresh = bool(events) and any(map(is_transport_probe, events))

    def _wait_for_pause(self, job: Job, gate: Gate) -> None:
        """Wait without a slot if the next probe lies inside the window, else refuse at once."""
        self._slots.give_back(job)
        assert gate.pause is not None
        if gate.until is None or gate.until > windows.starts_by(job.window, job.has_begun):
            self._give_up(job, local_ending("sending_paused", pause=self._observer.show_pause(gate.pause)))
        job.is_paused = True
        try:
            job.pause(gate.until)
        finally:
            job.is_paused = False

    def _attempt(self, job: Job) -> Ending | None:
        """Make the attempt that has begun: send, judge, record, and wait until there may be another.

        Returns:
            The ending, committed; None if the report asks for a slot again.
        """
        try:
            exchange = self._send(job)
        except NoResources:
            # The beginning is taken back, and it asks again in a moment.
            self._slots.give_back(job)
            self._commit(job, model.Withdraw(job.task, None))
            job.pause(self._ledger.now() + SCARCE_S)
            return None
        return self._judge(job, exchange)

    def _send(self, job: Job) -> model.Exchange:
        """Send what has begun.

        Raises:
            NoResources: this machine lacks what an attempt takes, or was too slow to make it.
            Interrupted: it is to end before.
        """
        committed_at = self._ledger.committed_at
        self._ports.prepare()
        if job.interruption is not None:
            raise job.interruption
        retrying = job.has_begun
        now = self._ledger.now()
        if now > job.starts_by():
            raise Interrupted("window_closed")
        boot = self._engine.now()
        if boot - committed_at > STALE_S:
            raise NoResources("neighbours may have taken it over")
        job.attempts += 1
        job.is_begun, job.is_sending = False, True
        job.began_at = now
        try:
            exchange = self._ports.send(
                job.method,
                job.key,
                job.task.task_id,
                until=boot + self._ports.timeout_s,
                leave_by=partial(self._leave_by, job, retrying),
                fresh=retrying or job.wants_fresh,
            )
        except NoResources:
            job.attempts -= 1
            raise
        finally:
            job.is_sending = False
            self._slots.give_back(job)
        job.made += 1
        return exchange

    def _leave_by(self, job: Job, retrying: bool) -> float:
        """When no byte of an attempt may leave any more, on the boot clock; a request that joins may know."""
        left_s = windows.starts_by(job.window, retrying) + windows.LEAST_LEFT_S - self._ledger.now()
        return self._engine.now() + left_s

    def _judge(self, job: Job, exchange: model.Exchange) -> Ending | None:
        """Say what an attempt proves and commit it: the ending, or wait until there may be another one."""
        verdict = judge(exchange, job.perhaps, self._ports.scrubber.scrub, self._observer.wall())
        now = self._ledger.now()
        self._observer.learn_time(exchange)
        job.last, job.perhaps = verdict, verdict.perhaps
        job.sends += verdict.is_send
        is_done = verdict.next == "done"
        if verdict.http_status is not None and not is_done:
            job.said = {name: getattr(verdict, name) for name in SAID}
        job.closed_until = float("inf") if is_done else now + (verdict.retry_after_s or 0.0)
        latency_ms = round(exchange.elapsed_s * 1000)
        told = {
            "met": verdict.event,
            "http_status": verdict.http_status,
            "error_id": verdict.error_id,
            "attempt": job.attempts,
            "next": verdict.next,
            "latency_ms": latency_ms,
        }
        self._observer.tell("attempt_done", job, told)
        if verdict.error_id == 1:
            self._ports.keys.reload()
        again_at = None
        if not (is_done or self.is_stopped):
            again_at = job.next_attempt_at(verdict, now, self._engine.chance())
        ending = self._observer.ending(job, verdict) if again_at is None else None
        asked_at = None if verdict.retry_after_s is None else again_at
        self._commit(job, model.Record(job.task, verdict, job.began_at, latency_ms, ending, asked_at))
        if again_at is not None:
            job.pause(again_at)
        return ending

    def _give_up(self, job: Job, otherwise: Ending) -> NoReturn:
        """Commit what is known of a report that gets no further attempt, and end it with that."""
        self._settle(job, job.known_ending(otherwise))

    def _settle(self, job: Job, ending: Ending) -> NoReturn:
        """Commit an ending without an attempt, and end the report with it; a beginning is taken back."""
        self._commit(job, (model.Withdraw if job.is_begun else model.Settle)(job.task, ending))
        raise Settled(ending)

    def _commit(self, job: Job, op: model.Record | model.Settle | model.Withdraw) -> None:
        """Commit what became of the report.

        Raises:
            Settled: another bridge has taken the report over and ended it: that ending is the truth.
            Lost: another bridge has taken it over and is at it.
        """
        recorded = self._ledger.call(op)
        if not isinstance(recorded, model.Recorded):
            job.durable = False
            return
        job.durable = recorded.durable and recorded.status != "lost"
        for event in recorded.events:
            self._observer.tell_pause(event)
            if event.state.state == OPEN:
                job.closed_until = max(job.closed_until, end_of(event.state))
        if type(op) is model.Record:
            self._flight.wake(everyone=bool(recorded.events))
        if recorded.status != "lost" or (op.ending is not None and op.ending.code == 0):
            return
        row = recorded.row
        if row is None or row.state != DONE:
            raise Lost
        # What is answered is what is on record.
        job.durable, job.attempts = recorded.durable, row.attempts
        raise _told_elsewhere(job, row)

    def _end_early(self, job: Job, kind: str) -> NoReturn:
        """End a report whose window is over, that was cancelled, or whose process ends."""
        unknown = local_ending("outcome_unknown")
        if job.is_theirs or (kind == "shutting_down" and (job.is_under_way or self.leaves_all)):
            if job.is_begun:
                with suppress(Lost):
                    self._commit(job, model.Withdraw(job.task, None))
            # Somebody else will end it.
            job.durable = False
            raise Settled(unknown, is_news=not job.is_theirs)
        ending = local_ending(kind)
        if kind == "window_closed":
            ending = job.known_ending(self._observer.late(job.window, job.facts.completed_at))
        try:
            self._settle(job, ending)
        except Lost:
            raise Settled(unknown, is_news=False) from None


def _told_elsewhere(job: Job, row: Row) -> Settled:
    """The ending on record, which another bridge has committed or an earlier request."""
    if _is_in_doubt(job, row):
        job.durable = False
        return Settled(local_ending("outcome_unknown"))
    return Settled(row_ending(row), is_news=False)


def _is_in_doubt(job: Job, row: Row) -> bool:
    """True if what another one was refused, not knowing of this job, may be what was taken from it."""
    return job.perhaps and row.outcome in (REFUSED, NOT_SENT)
