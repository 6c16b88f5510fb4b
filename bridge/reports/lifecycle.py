"""The life of a report: one report, one function, from its claim to its answer.

```
submit --> claim (committed) --> known? elsewhere for good?  answer from the ledger
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
          settled --> answer everybody who asked
```

Every wait but a commit and a send is a `Job.pause`: there the window's end, a cancel and the end of the
process come up as exceptions. Everything runs in the engine's thread, so nothing needs a lock. Imported by
the app and `bridge.server`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

from bridge.core.errors import BridgeError
from bridge.core.model import (
    DONE,
    GUARD_S,
    HISTORY_S,
    NOT_SENT,
    UNKNOWN,
    Begin,
    Begun,
    Claim,
    Claimed,
    Ending,
    Exchange,
    Facts,
    Gate,
    Look,
    Narrow,
    Operation,
    PauseEvent,
    Prune,
    Record,
    Recorded,
    Row,
    Settle,
    Sweep,
    Swept,
    Task,
    Window,
    Withdraw,
)
from bridge.core.redact import Secret
from bridge.engine import Engine, NoResources
from bridge.reports import answers, methods
from bridge.reports import window as windows
from bridge.reports.admission import SingleFlight, Slots
from bridge.reports.answers import Answer
from bridge.reports.job import (
    Cancelled,
    Draining,
    Interrupted,
    Job,
    Lost,
    Report,
    Requester,
    Settled,
    WindowOver,
)
from bridge.reports.observer import Observer
from bridge.reports.pauses import is_transport_probe
from bridge.reports.retry import known_ending, next_attempt_at
from bridge.reports.verdict import judge

WATCH_S: Final = 0.2
"""How often a report of another bridge is looked at."""
STALE_S: Final = 2.5
"""An attempt that could not be made so long after its beginning is not made: neighbours take over what a
silent bridge had begun, at the earliest after 3.5 s."""
SCARCE_S: Final = 0.5
"""How long to wait after this machine lacked a descriptor or a thread for an attempt."""
SWEEP_S: Final = 1.0
"""How often reports of dead bridges are looked for."""
PRUNE_STEP: Final = 500
"""Reports deleted at once, so that nobody waits long for the ledger."""
PRUNE_PAUSE_S: Final = 5.0
PRUNE_S: Final = 3600.0
"""How often old reports are looked for."""


class LedgerPort(Protocol):
    """A ledger that commits; see `bridge.ledger.writer.Ledger`."""

    committed_at: float
    """When the commit whose results are being handed back was done, on the boot clock."""

    @property
    def instance(self) -> str:
        """Name of this bridge as the owner of rows."""

    def call(self, op: Operation) -> Any:
        """Wait for the commit of an operation; its result, or something else if the ledger cannot do it."""

    def post(self, op: Operation) -> None:
        """The same without waiting."""

    def account(self, key_text: str) -> str:
        """The account of a client key."""

    def now(self) -> float:
        """Seconds on the ledger's timeline."""


class Ports(Protocol):
    """What reports need of the world besides the ledger and the engine."""

    def send(
        self, method: str, key: Secret, task_id: int, *, until: float, leave_by: float, fresh: bool
    ) -> Exchange:
        """Make one HTTP attempt. Moments are on the boot clock; `fresh` asks for a new connection."""

    def emit(self, name: str, **fields: Any) -> None:
        """Tell of a notable thing; see `bridge.core.events`."""

    def key_refused(self) -> None:
        """The key was refused (errorId 1): read the default key again."""

    def scrub(self, text: str) -> str:
        """Replace keys in a text."""

    def note_bug(self, bug: BaseException) -> str:
        """Log a fault of this program; the reference that the caller is told."""


class Lifecycle:
    """Reports tasks, each at most as often as is safe, and answers everybody who asked.

    The ledger must be open.

    Args:
        endpoint: Name of the upstream in the ledger: its canonical base URL.
        scope: Tells the wire scope of a pause.
        concurrency: Most attempts at one time.
        timeout_s: Total seconds an attempt may take.
        sandbox: Mark every answer as coming from the sandbox.
        recovers: The ledger lasts: look for reports that other bridges on it left behind.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: LedgerPort,
        ports: Ports,
        *,
        endpoint: str,
        scope: Callable[[Any], str],
        concurrency: int,
        timeout_s: float,
        sandbox: bool = False,
        recovers: bool = False,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._ports = ports
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._sandbox = sandbox
        self._recovers = recovers
        self._observer = Observer(engine, ledger.now, ports.emit, scope, recovers)
        self._slots = Slots(concurrency)
        self._flight = SingleFlight(engine)
        self._jobs: dict[Task, Job] = {}
        self._keys: dict[str, Secret] = {}
        self._names: dict[Hashable, list[Job]] = {}
        self._is_stopped = False

    # --- requests ----------------------------------------------------------------------------

    def submit(self, report: Report, requester: Requester) -> None:
        """Take a report; the requester is answered exactly once, later. Never waits."""
        requester.warnings = methods.find_warnings(report.method, report.task_type)
        age_s = self._observer.age_s(report.completed_at)
        now = self._ledger.now()
        received_at = now - (self._engine.now() - requester.received_at)
        window = windows.open_window(received_at if age_s is None else now, age_s)
        refusal = self._observer.refuse(report, window)
        if report.key is None or self._is_stopped:
            ending = refusal or answers.local_ending("shutting_down")
            self._respond(
                requester, report.task_id, ending, can_start=now <= windows.starts_by(window, False)
            )
            self._observer.tell_refused(report, ending)
            return
        task = Task(self._endpoint, self._ledger.account(report.key.reveal()), report.task_id)
        self._keys.setdefault(task.account, report.key)
        job = self._jobs.get(task)
        if job is None:
            facts = Facts(report.completed_at, report.task_type, report.language_pool, age_s)
            self._start(self._make_job(task, report.method, report.key, window, facts), [requester], refusal)
        elif job.method != report.method or refusal is not None:
            self._engine.spawn(self._refuse_beside, job, report, requester, refusal)
        else:
            self._join(job, requester, window)

    def _make_job(self, task: Task, method: str, key: Secret, window: Window, facts: Facts) -> Job:
        return Job(self._engine, self._ledger.now() - self._engine.now(), task, method, key, window, facts)

    def _start(
        self, job: Job, requesters: list[Requester], refusal: Ending | None = None, row: Row | None = None
    ) -> None:
        self._jobs[job.task] = job
        for requester in requesters:
            self._seat(job, requester)
        self._engine.spawn(self._live, job, refusal, row)

    def _join(self, job: Job, requester: Requester, window: Window) -> None:
        requester.is_joined = True
        self._seat(job, requester)
        if job.narrow(window):
            self._ledger.post(Narrow(job.task, job.window))

    def _refuse_beside(self, job: Job, report: Report, requester: Requester, refusal: Ending | None) -> None:
        """Answer a request that cannot join the report in flight: another method, or refused by itself."""
        # The ledger answers in order, so by then it knows what became of the claim.
        row = self._ledger.call(Look(job.task))
        outcome = row.outcome if isinstance(row, Row) else None
        if self._jobs.get(job.task) is not job and outcome in (None, NOT_SENT):
            self.submit(report, requester)
            return
        stored = row.method if isinstance(row, Row) else job.method
        ending = self._observer.conflict(stored, outcome, refusal)
        self._respond(requester, report.task_id, ending, job.attempts, outcome is not None and job.durable)

    def cancel(self, name: Hashable) -> None:
        """Let go every request of that name whose report has not begun; unknown names are ignored."""
        for job in dict.fromkeys(self._names.get(name, ())):
            begun = job.has_begun or job.is_theirs or job.is_sending
            leaving = [
                r for r in job.requesters if r.name == name and (r.is_joined or job.is_theirs or not begun)
            ]
            if not leaving:
                continue
            for requester in leaving:
                requester.is_cancelled = True
            everybody = len(leaving) == len(job.requesters)
            if not begun and everybody and not all(r.is_joined for r in leaving):
                if not job.is_closing:
                    job.interrupt(Cancelled())
                continue
            self._leave(job, leaving, begun)
            if job.is_theirs and not job.requesters:
                job.is_answered = True
                job.interrupt(Cancelled())

    def _leave(self, job: Job, leaving: list[Requester], begun: bool) -> None:
        """Answer requesters who go while the report itself goes on."""
        ending = answers.local_ending("request_cancelled", UNKNOWN if begun else NOT_SENT)
        for requester in leaving:
            self._unseat(job, requester)
            self._respond(requester, job.task.task_id, ending, job.attempts, job.durable)
        if not begun and job.requesters and all(r.is_joined for r in job.requesters):
            job.requesters[0].is_joined = False

    def resume_waiting(self) -> None:
        """Ask again for every report that waits for a pause: a pause may have changed."""
        self._flight.wake(everyone=True)
        for job in self._jobs.values():
            if job.is_paused:
                job.wake()

    def counts(self) -> tuple[int, int]:
        """How many reports have an attempt under way, and how many wait."""
        sending = sum(job.is_sending for job in self._jobs.values())
        return sending, len(self._jobs) - sending

    def is_idle(self) -> bool:
        """True if nothing is in flight."""
        return not self._jobs

    # --- one report --------------------------------------------------------------------------

    def _live(self, job: Job, refusal: Ending | None, row: Row | None) -> None:
        """One report from its claim to its answer, whatever ends it."""
        try:
            try:
                ending, is_news = self._report(job, refusal, row), True
            except Interrupted as interruption:
                ending, is_news = self._end_early(job, interruption)
        except Settled as settled:
            ending, is_news = settled.ending, settled.is_news
        except Exception as bug:
            job.durable = False
            error = BridgeError("internal_error", {"reference": self._ports.note_bug(bug)})
            self._answer_bug(job, error)
            ending, is_news = answers.local_ending("outcome_unknown", UNKNOWN), True
        finally:
            self._slots.give_back(job)
        self._answer(job, ending, is_news)
        # It may have been the probe, or the one that was to prove the key.
        self._flight.wake(everyone=False)

    def _report(self, job: Job, refusal: Ending | None, row: Row | None) -> Ending:
        """The way of a report that nothing ends early. Returns its ending, committed."""
        if row is not None:
            self._observer.tell("report_resumed", job, state=row.state)
            gate = None
        else:
            gate = self._claim(job, refusal)
        while True:
            try:
                if gate is None:
                    self._slots.take(job)
                    gate = self._begin(job)
                if gate.status == "begun":
                    ending, again_at = self._attempt(job)
                    if ending is not None:
                        return ending
                    if again_at is not None:
                        job.pause(again_at)
                elif gate.status == "paused":
                    self._wait_for_pause(job, gate)
                elif gate.status == "busy":
                    self._slots.give_back(job)
                    self._flight.wait(job)
                elif gate.status == "late":
                    raise WindowOver
                elif gate.status == "lost":
                    raise Lost
                else:
                    return self._settle(job, known_ending(job, answers.local_ending("upstream_unreachable")))
                gate = None
            except Lost:
                self._watch(job)
                gate = self._claim(job, None)

    def _watch(self, job: Job) -> None:
        """Another bridge has the report: look again soon."""
        self._slots.give_back(job)
        job.is_theirs = True
        job.is_begun = False
        job.pause(self._ledger.now() + WATCH_S)

    def _claim(self, job: Job, refusal: Ending | None) -> Gate | None:
        """Make the report ours, waiting while another bridge has it.

        Returns:
            What became of the first beginning; None if none was asked for.

        Raises:
            Settled: there is nothing to send.
        """
        while True:
            begin = refusal is None and self._slots.take_free(job)
            claimed = self._ledger.call(Claim(job.task, job.method, job.window, job.facts, begin, refusal))
            if not isinstance(claimed, Claimed):
                job.durable = False
                unknown = job.is_theirs or job.perhaps
                ending = answers.local_ending("outcome_unknown", UNKNOWN) if unknown else None
                raise Settled(ending or answers.local_ending("ledger_unavailable"), is_news=not job.is_theirs)
            job.durable, job.guarded = claimed.durable, claimed.guarded
            self._note_pauses(job, claimed.events)
            row, status = claimed.row, claimed.status
            # A sweep may have taken it over for us in the moment before.
            is_ours = row.state != DONE and row.owner == self._ledger.instance
            if status in ("new", "again", "adopted") or (status == "elsewhere" and is_ours):
                if status == "adopted":
                    self._observer.tell("report_resumed", job, state=row.state)
                job.adopt(row)
                job.is_theirs = False
                return claimed.gate
            job.attempts = row.attempts
            if status == "known":
                raise Settled(answers.row_ending(row), is_news=False)
            if status == "refused":
                raise Settled(answers.row_ending(row), is_news=True)
            if status == "conflict":
                self._observer.tell("report_conflict", job, stored_method=row.method, outcome=row.outcome)
                if is_ours:
                    self._jobs.pop(job.task, None)
                    self._take_over(row)
                raise Settled(self._observer.conflict(row.method, row.outcome, refusal), is_news=False)
            job.window = windows.merge_windows(row.window, job.window)
            self._watch(job)

    def _begin(self, job: Job) -> Gate:
        """Commit the beginning of an attempt, if it may begin."""
        begun = self._ledger.call(Begin(job.task))
        if not isinstance(begun, Begun):
            # The row is ours still, and must not be found as if it waited.
            raise Settled(
                self._settle(job, known_ending(job, answers.local_ending("ledger_unavailable"))), is_news=True
            )
        job.durable = job.durable and begun.durable
        job.guarded = job.guarded and begun.guarded
        if begun.row is not None and begun.gate.status != "lost":
            job.adopt(begun.row)
        self._note_pauses(job, begun.events)
        return begun.gate

    def _note_pauses(self, job: Job, events: tuple[PauseEvent, ...]) -> None:
        self._observer.tell_pauses(events)
        # Old connections may be what is wrong.
        job.wants_fresh = any(is_transport_probe(event) for event in events)

    def _wait_for_pause(self, job: Job, gate: Gate) -> None:
        """Wait without a slot if the next probe lies inside the window, else refuse at once."""
        self._slots.give_back(job)
        assert gate.pause is not None
        if gate.until is None or gate.until > windows.starts_by(job.window, job.has_begun):
            raise Settled(
                self._settle(job, known_ending(job, self._observer.paused(gate.pause))), is_news=True
            )
        job.is_paused = True
        try:
            job.pause(gate.until)
        finally:
            job.is_paused = False

    def _attempt(self, job: Job) -> tuple[Ending | None, float | None]:
        """Make the attempt that has begun: send, judge, record.

        Returns:
            The ending, committed; or None and when to try again (None: ask for a slot at once).
        """
        committed_at = self._ledger.committed_at
        if job.interruption is not None:
            raise job.interruption
        retrying = job.has_begun
        now = self._ledger.now()
        if now > windows.starts_by(job.window, retrying):
            raise WindowOver
        if self._engine.now() - committed_at > STALE_S:
            return self._withdraw(job, None), None
        job.attempts += 1
        job.is_begun, job.is_sending = False, True
        job.began_at = now
        boot = self._engine.now()
        try:
            exchange = self._ports.send(
                job.method,
                job.key,
                job.task.task_id,
                until=boot + self._timeout_s,
                leave_by=boot + windows.sends_by(job.window, retrying) - now,
                fresh=retrying or job.wants_fresh,
            )
        except NoResources:
            job.attempts -= 1
            job.is_begun = True
            return self._withdraw(job, None), now + SCARCE_S
        finally:
            job.is_sending = False
            self._slots.give_back(job)
        return self._judge(job, exchange)

    def _judge(self, job: Job, exchange: Exchange) -> tuple[Ending | None, float | None]:
        """Say what an attempt proves, and commit it."""
        verdict = judge(exchange, job.perhaps, scrub=self._ports.scrub, now_wall=self._engine.wall())
        now = self._ledger.now()
        self._observer.learn_time(exchange)
        job.last, job.perhaps = verdict, verdict.perhaps
        job.sends += verdict.is_send
        if verdict.http_status is not None:
            job.last_status = verdict.http_status
        latency_ms = round(exchange.elapsed_s * 1000)
        self._observer.tell_attempt(job, verdict, latency_ms)
        if verdict.error_id == 1:
            self._ports.key_refused()
        chance = 0.0 if verdict.next == "done" else self._engine.chance()
        again_at = None if self._is_stopped else next_attempt_at(job, verdict, now, chance)
        ending = self._observer.ending(job, verdict) if again_at is None else None
        return self._commit(
            job, Record(job.task, verdict, job.began_at, latency_ms, ending), ending
        ), again_at

    def _settle(self, job: Job, ending: Ending) -> Ending:
        """Commit an ending without an attempt."""
        if job.is_begun:
            return self._withdraw(job, ending) or ending
        return self._commit(job, Settle(job.task, ending), ending) or ending

    def _withdraw(self, job: Job, ending: Ending | None) -> Ending | None:
        """Take back a beginning that no attempt followed, and commit the ending if there is one."""
        job.is_begun = False
        return self._commit(job, Withdraw(job.task, ending), ending)

    def _commit(self, job: Job, op: Record | Settle | Withdraw, ending: Ending | None) -> Ending | None:
        """Commit what became of the report.

        Returns:
            The ending that was given.

        Raises:
            Settled: another bridge has taken the report over and ended it: that ending is the truth.
            Lost: another bridge has taken it over and is at it.
        """
        job.is_closing = ending is not None
        recorded = self._ledger.call(op)
        job.is_closing = False
        if not isinstance(recorded, Recorded):
            job.durable = False
            return ending
        job.durable = recorded.durable
        self._observer.tell_pauses(recorded.events)
        if type(op) is Record:
            self._flight.wake(everyone=bool(recorded.events))
        if recorded.status != "lost" or (ending is not None and ending.code == 0):
            return ending
        if recorded.row is not None and recorded.row.state == DONE:
            raise Settled(answers.row_ending(recorded.row), is_news=False)
        raise Lost

    def _end_early(self, job: Job, interruption: Interrupted) -> tuple[Ending, bool]:
        """End a report whose window is over, that was cancelled, or whose process ends."""
        unknown = answers.local_ending("outcome_unknown", UNKNOWN)
        if job.is_theirs or (isinstance(interruption, Draining) and job.has_begun):
            if job.is_begun:
                self._withdraw(job, None)
            # Somebody else will end it.
            job.durable = False
            return unknown, not job.is_theirs
        if isinstance(interruption, WindowOver):
            ending = known_ending(job, self._observer.late(job.window, job.facts.completed_at))
        elif isinstance(interruption, Cancelled):
            ending = answers.local_ending("request_cancelled")
        else:
            ending = answers.local_ending("shutting_down")
        try:
            return self._settle(job, ending), True
        except Lost:
            return unknown, False

    # --- answers -----------------------------------------------------------------------------

    def _answer(self, job: Job, ending: Ending, is_news: bool) -> None:
        """Answer everybody who waits for the report, once."""
        if self._jobs.get(job.task) is job:
            del self._jobs[job.task]
        if job.is_answered:
            return
        job.is_answered = True
        if ending.kind == "request_cancelled":
            self._restart(job)
        can_start = self._ledger.now() <= windows.starts_by(job.window, job.has_begun)
        is_conflict = ending.kind == "task_conflict"
        for requester in tuple(job.requesters):
            if not is_news and not is_conflict:
                requester.is_joined = True
            self._unseat(job, requester)
            self._respond(
                requester, job.task.task_id, ending, job.attempts, job.durable, job.guarded, can_start
            )
        if not is_conflict:
            self._observer.tell(
                "report_settled",
                job,
                outcome=ending.outcome,
                kind=ending.kind,
                code=ending.code,
                attempts=job.attempts,
                replayed=not is_news,
                durable=job.durable,
            )

    def _answer_bug(self, job: Job, error: BridgeError) -> None:
        job.is_answered = True
        for requester in tuple(job.requesters):
            self._unseat(job, requester)
            requester.respond(Answer(None, error.code, error.message, error.data))

    def _restart(self, job: Job) -> None:
        """Requesters who came while the cancellation of others was being committed begin anew."""
        staying = [requester for requester in job.requesters if not requester.is_cancelled]
        if not staying:
            return
        for requester in staying:
            self._unseat(job, requester)
        staying[0].is_joined = False
        self._start(self._make_job(job.task, job.method, job.key, job.window, job.facts), staying)

    def _respond(
        self,
        requester: Requester,
        task_id: int,
        ending: Ending,
        attempts: int = 0,
        durable: bool = False,
        guarded: bool = True,
        can_start: bool = True,
    ) -> None:
        warnings = requester.warnings if guarded else (*requester.warnings, self._observer.unguarded)
        requester.respond(
            answers.answer_ending(
                ending,
                task_id=task_id,
                attempts=attempts,
                replayed=requester.is_joined,
                durable=durable,
                elapsed_ms=max(0, round((self._engine.now() - requester.received_at) * 1000)),
                retryable=can_start,
                warnings=warnings,
                sandbox=self._sandbox,
            )
        )

    def _seat(self, job: Job, requester: Requester) -> None:
        job.requesters.append(requester)
        if requester.name is not None:
            self._names.setdefault(requester.name, []).append(job)

    def _unseat(self, job: Job, requester: Requester) -> None:
        job.requesters.remove(requester)
        if requester.name is not None:
            jobs = self._names[requester.name]
            jobs.remove(job)
            if not jobs:
                del self._names[requester.name]

    # --- after a crash, and before the end ---------------------------------------------------

    def start(self) -> None:
        """Begin to look for reports that dead bridges left behind, and for old ones."""
        if self._recovers:
            self._engine.spawn(self._sweep)
        self._engine.spawn(self._prune)

    def hold(self, key: Secret) -> None:
        """Make a key known, so that open reports of its account can be resumed."""
        self._keys.setdefault(self._ledger.account(key.reveal()), key)

    def _sweep(self) -> None:
        while not self._is_stopped:
            swept = self._ledger.call(Sweep(self._endpoint, frozenset(self._keys)))
            if isinstance(swept, Swept):
                for row in swept.adopted:
                    self._take_over(row)
                for row in swept.settled:
                    self._observer.tell_abandoned(row)
            self._engine.sleep(SWEEP_S)

    def _take_over(self, row: Row) -> None:
        """Go on with a report that was left behind and is ours now."""
        job = self._jobs.get(row.task)
        if job is None:
            key = self._keys[row.task.account]
            job = self._make_job(row.task, row.method, key, row.window, row.facts)
            job.adopt(row)
            self._start(job, [], row=row)
        elif job.is_theirs:
            # It asks again, and will find that the report is ours.
            job.wake()

    def _prune(self) -> None:
        """Delete reports that are older than anybody may ask for, in small steps."""
        # In memory they are kept as long as they guard against duplicates.
        age_s = HISTORY_S if self._recovers else GUARD_S
        self._engine.sleep(PRUNE_PAUSE_S)
        while not self._is_stopped:
            deleted = self._ledger.call(Prune(self._engine.wall() - age_s, PRUNE_STEP))
            self._engine.sleep(PRUNE_PAUSE_S if deleted == PRUNE_STEP else PRUNE_S)

    def stop(self) -> int:
        """Give up what is still open: never begun ends not_sent, begun is left to recovery.

        Returns:
            The number of reports that were open.
        """
        self._is_stopped = True
        still_open = tuple(self._jobs.values())
        for job in still_open:
            if job.is_sending:
                job.durable = False
                self._answer(job, answers.local_ending("outcome_unknown", UNKNOWN), is_news=True)
            elif not job.is_closing:
                job.interrupt(Draining())
        return len(still_open)
