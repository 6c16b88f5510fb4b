"""Who asked for which report, who joins whom, and what each is told.

Every task that is being reported has one `Job`, which lives in a greenlet of its own; requests
for the same task wait for its ending together. Imported by the app and `bridge.server`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from bridge.core import model
from bridge.core.errors import BridgeError, warning
from bridge.core.model import NOT_SENT, UNKNOWN, Ending, Row, Task
from bridge.core.redact import Secret
from bridge.reports import methods
from bridge.reports import window as windows
from bridge.reports.advisor import Advisor
from bridge.reports.job import Interrupted, Job, Report, Requester
from bridge.reports.lifecycle import Lifecycle
from bridge.reports.observer import Observer
from bridge.reports.ports import Part, Ports
from bridge.reports.verdict import answer_ending, local_ending

SWEEP_S: Final = 1.0
"""How often reports of dead bridges are looked for."""
PRUNE_STEP: Final = 500
"""Reports deleted at once, so that nobody waits long for the ledger."""
PRUNE_PAUSE_S: Final = 5.0
PRUNE_S: Final = 3600.0
"""How often old reports are looked for."""


class Reporter(Part):
    """Reports tasks, each at most as often as is safe, and answers everybody who asked.

    The ledger must be open.

    Args:
        recovers: The ledger lasts: look for reports that other bridges on it left behind.
    """

    def __init__(self, ports: Ports, recovers: bool) -> None:
        super().__init__(ports)
        self.advisor = Advisor(ports)
        self._observer = Observer(ports, self._correct_windows)
        self._lifecycle = Lifecycle(ports, self._observer, self._adopt_orphan)
        self._recovers = recovers
        self.keys: dict[str, Secret] = {}
        """Keys by account: reports of these accounts that were left behind can be taken up."""
        self._jobs: dict[Task, Job] = {}
        self._beside: dict[Requester, tuple[Job, Ending | None]] = {}
        """Requests that wait for a look at the ledger, each with the report in flight and its own refusal."""
        self._unguarded = warning("duplicates_unguarded")

    # --- requests ----------------------------------------------------------------------------

    def submit(self, report: Report, requester: Requester) -> None:
        """Take a report; the requester is answered exactly once, later. Never waits."""
        requester.report, requester.is_joined = report, False
        requester.warnings = methods.find_warnings(report.method, report.facts.task_type)
        now = self._ledger.now()
        age_s = self._observer.age_s(report.facts.completed_at)
        waited_s = self._engine.now() - requester.received_at
        if age_s is not None:
            # It was completed before it was told, whatever was done to the clock since.
            age_s = max(age_s, waited_s)
        window = windows.open_window(now - waited_s if age_s is None else now, age_s)
        refusal = self._observer.refuse(report, window, now)
        if report.key is None or self._lifecycle.is_stopped:
            # Without a look at the ledger nothing more can be said of the task than that.
            ending = local_ending("shutting_down") if report.key or not refusal else refusal
            can_start = now <= windows.starts_by(window, False)
            self._respond(requester, report.task_id, ending, retryable=can_start)
            nobodys = Task(self._ports.endpoint, "", report.task_id)
            told = {"attempts": 0, "replayed": False, "durable": False}
            self._observer.tell_settled(nobodys, report.method, ending, told)
            return
        task = Task(self._ports.endpoint, self.hold(report.key), report.task_id)
        self.advisor.expect(task.account)
        job = self._jobs.get(task)
        if job is None:
            facts = report.facts if age_s is None else report.facts._replace(age_s=age_s)
            job = self._jobs[task] = Job(self._ports, task, report.method, report.key, window, facts)
            job.requesters.append(requester)
            self._engine.spawn(self._live, job, refusal)
        elif job.method != report.method or refusal is not None:
            self._lifecycle.narrow(job, window)
            self._engine.spawn(self._refuse_beside, job, requester, refusal)
        else:
            requester.is_joined = True
            job.requesters.append(requester)
            self._lifecycle.narrow(job, window)

    def _correct_windows(self) -> None:
        """Let windows end by the upstream's clock as it is known now."""
        for job in tuple(self._jobs.values()):
            told = (job.facts, *(requester.report.facts for requester in job.requesters))
            ages = [age for facts in told if (age := self._observer.age_s(facts.completed_at)) is not None]
            if ages:
                job.correct(self._ledger.now() + windows.REPORTABLE_S - max(ages))
                self._lifecycle.move(job)

    def _refuse_beside(self, job: Job, requester: Requester, refusal: Ending | None) -> None:
        """Answer a request that cannot join the report in flight: another method, or refused by itself."""
        # The ledger answers in order, so by then it has said what became of the claim.
        self._beside[requester] = job, refusal
        self._ledger.call(model.Look(job.task))
        if self._beside.pop(requester, None) is None:
            return
        is_left = self._lifecycle.is_stopped and job.is_under_way
        if self._jobs.get(job.task) is job or is_left:
            self._tell_conflict(requester, job, refusal)
        else:
            self.submit(requester.report, requester)

    def _tell_conflict(self, requester: Requester, job: Job, refusal: Ending | None) -> None:
        ending = self._observer.conflict(job.method, None, refusal)
        self._respond(requester, job.task.task_id, ending, attempts=job.attempts, durable=False)

    def cancel(self, name: Hashable) -> None:
        """Let go every request of that name whose report has not begun; unknown names are ignored."""
        for job in tuple(self._jobs.values()):
            asked = [requester for requester in job.requesters if requester.name == name]
            if asked:
                self._cancel(job, asked)

    def _cancel(self, job: Job, asked: list[Requester]) -> None:
        begun = job.is_under_way or job.is_theirs
        leaving = [requester for requester in asked if requester.is_joined or job.is_theirs or not begun]
        for requester in leaving:
            requester.is_cancelled = True
        everybody = len(leaving) == len(job.requesters)
        if not begun and everybody and not all(r.is_joined for r in leaving):
            job.interrupt(Interrupted("request_cancelled"))
            return
        # They go while the report goes on; what they are told is committed nowhere.
        outcome = NOT_SENT if job.is_claimed and not begun else UNKNOWN
        ending = local_ending("request_cancelled")._replace(outcome=outcome)
        for requester in leaving:
            job.requesters.remove(requester)
            can_start = self._can_start(job)
            self._respond(requester, job.task.task_id, ending, attempts=job.attempts, retryable=can_start)
        if not begun and job.requesters:
            job.requesters[0].is_joined = False
        if job.is_theirs and not job.requesters:
            job.is_answered = True
            job.interrupt(Interrupted("request_cancelled"))

    def resume_waiting(self) -> None:
        """Ask again for every report that waits for a pause: a pause may have changed."""
        for job in self._jobs.values():
            if job.is_paused:
                job.wake()

    def counts(self) -> tuple[int, int]:
        """How many reports have an attempt under way, and how many wait."""
        sending = sum(job.is_sending for job in self._jobs.values())
        return sending, len(self._jobs) - sending

    # --- one report --------------------------------------------------------------------------

    def _live(self, job: Job, refusal: Ending | None = None, row: Row | None = None) -> None:
        """Let a report live, and answer everybody who waits for it."""
        try:
            ending, is_news = self._lifecycle.live(job, refusal, row)
        except Exception as bug:
            self._forget(job)
            error = BridgeError("internal_error", {"reference": self._ports.note_bug(bug)})
            for requester in job.requesters:
                requester.respond(error)
        else:
            self._answer(job, ending, is_news)

    # --- what nobody asks for ----------------------------------------------------------------

    def _sweep(self) -> None:
        """Take up what dead bridges left behind."""
        while not self._lifecycle.is_stopped:
            swept = self._ledger.call(model.Sweep(self._ports.endpoint, frozenset(self.keys)))
            if isinstance(swept, model.Swept):
                for row in swept.adopted:
                    # Who has stopped meanwhile leaves it to the next bridge.
                    if not self._lifecycle.is_stopped:
                        self._take_over(row)
                for row in swept.settled:
                    self._observer.tell("report_abandoned", row, {"outcome": row.outcome})
            self._engine.sleep(SWEEP_S)

    def _take_over(self, row: Row) -> None:
        """Go on with a report that was left behind and is ours now."""
        job = self._jobs.get(row.task)
        if job is None:
            key = self.keys[row.task.account]
            job = self._jobs[row.task] = Job(self._ports, row.task, row.method, key, row.window, row.facts)
            job.adopt(row)
            self._engine.spawn(self._live, job, None, row)
        elif job.is_theirs:
            # It asks again, and will find that the report is ours.
            job.wake()

    def _adopt_orphan(self, row: Row) -> None:
        self._jobs.pop(row.task, None)
        self._take_over(row)

    def _prune(self) -> None:
        """Delete reports that are older than anybody may ask for, in small steps."""
        # In memory they are kept as long as they guard against duplicates.
        age_s = model.HISTORY_S if self._recovers else model.GUARD_S
        self._engine.sleep(PRUNE_PAUSE_S)
        while not self._lifecycle.is_stopped:
            deleted = self._ledger.call(model.Prune(self._engine.wall() - age_s, PRUNE_STEP))
            self._engine.sleep(PRUNE_PAUSE_S if deleted == PRUNE_STEP else PRUNE_S)

    # --- answers -----------------------------------------------------------------------------

    def _answer(self, job: Job, ending: Ending, is_news: bool) -> None:
        """Answer everybody who waits for the report, once."""
        self._forget(job)
        leaving, job.requesters = job.requesters, []
        if job.is_answered or ending.kind == "request_cancelled":
            # Who came while the cancellation of others took effect begins anew.
            for requester in leaving:
                if not requester.is_cancelled:
                    self.submit(requester.report, requester)
            leaving = [requester for requester in leaving if requester.is_cancelled]
        if job.is_answered:
            return
        job.is_answered = True
        task = job.task
        # Only who is told of an error is told whether trying again can help.
        can_start = ending.code != 0 and self._can_start(job)
        known = {"attempts": job.attempts, "durable": job.durable}
        is_conflict = ending.kind == "task_conflict"
        if is_news:
            self.advisor.touch(task.account)
        for requester in leaving:
            if requester.name is not None:
                # Who comes next is told nothing: it is no news then.
                requester.warnings = (*requester.warnings, *self.advisor.warnings(task.account))
            if not is_news and not is_conflict:
                requester.is_joined = True
            self._respond(requester, task.task_id, ending, job.guarded, retryable=can_start, **known)
        if not is_conflict:
            self._observer.tell_settled(task, job.method, ending, {"replayed": not is_news, **known})

    def _can_start(self, job: Job) -> bool:
        soonest = max(self._ledger.now(), job.closed_until)
        return soonest <= windows.starts_by(job.window, job.has_begun)

    def _forget(self, job: Job) -> None:
        if self._jobs.get(job.task) is job:
            del self._jobs[job.task]

    def _respond(
        self, requester: Requester, task_id: int, ending: Ending, guarded: bool = True, **known: Any
    ) -> None:
        """Answer a requester; what is known of the report besides are members of `answer_ending`."""
        requester.respond(
            answer_ending(
                ending,
                task_id=task_id,
                replayed=requester.is_joined,
                elapsed_ms=round((self._engine.now() - requester.received_at) * 1000),
                warnings=requester.warnings if guarded else (*requester.warnings, self._unguarded),
                **known,
            )
        )

    # --- beginning and end -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for reports that dead bridges left behind, and for old ones."""
        if self._recovers:
            self._engine.spawn(self._sweep)
        self._engine.spawn(self._prune)

    def hold(self, key: Secret) -> str:
        """Make a key known, so that open reports of its account can be resumed; returns the account."""
        account = self._ledger.account(key.reveal())
        self.keys.setdefault(account, key)
        return account

    def stop(self, can_answer: bool = True) -> int:
        """Give up what is still open: never begun ends not_sent, begun is left to recovery.

        Args:
            can_answer: False if nobody can be told; then all is left to recovery.

        Returns:
            The number of reports that were open.
        """
        self._lifecycle.is_stopped = True
        self._lifecycle.leaves_all = not can_answer
        still_open = tuple(self._jobs.values())
        for job in still_open:
            if job.is_sending:
                self._abandon(job)
            else:
                job.interrupt(Interrupted("shutting_down"))
        return len(still_open)

    def give_up(self) -> None:
        """Answer what is open even now, because the ledger does not tell: nobody knows what it commits."""
        for job in tuple(self._jobs.values()):
            self._abandon(job)
        while self._beside:
            requester, (job, refusal) = self._beside.popitem()
            self._tell_conflict(requester, job, refusal)

    def _abandon(self, job: Job) -> None:
        """Answer a report that is left to recovery."""
        job.durable = False
        self._answer(job, local_ending("outcome_unknown"), is_news=True)
