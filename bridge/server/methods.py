"""The methods of the protocol: each turns params into a report, or into a question to the ledger.

Joins `rpc`, `reports` and the ledger. Params are checked against ``schemas/`` here and nowhere else. What has
to wait for the ledger or a key is served in a greenlet of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from bridge import __version__
from bridge.core.counting import Operation, Tallies
from bridge.core.errors import BridgeError
from bridge.core.model import ACCEPTED, Facts, Listing, Look, Pauses, PauseState, Resume, Row, Task
from bridge.core.redact import Secret
from bridge.core.resources import load_json
from bridge.core.text import ROUNDING_S, rfc3339
from bridge.ledger.port import Failed, Unavailable
from bridge.reports.job import Report, Requester
from bridge.reports.lifecycle import SCARCE_S
from bridge.reports.methods import UNKNOWN_TYPE, fit
from bridge.reports.methods import methods as report_methods
from bridge.reports.pauses import PROOF
from bridge.reports.ports import Part, Ports
from bridge.reports.reporter import Reporter
from bridge.reports.window import UNANCHORED_FIRST_S
from bridge.rpc.discovery import methods
from bridge.rpc.dispatcher import PENDING, Dispatcher, Method
from bridge.rpc.schemas import check
from bridge.server.conversation import Context

PROTOCOL: Final = 1
NAME: Final = "anticaptcha-report-bridge"
STATUS_PATIENCE_S: Final = 0.25
"""How long the status waits for a ledger that does not answer before it tells what was known last."""
OPENING_S: Final = 2.5
"""The same while the ledger is opened, when nothing is known: longer than a foreign lock is waited for."""


class Methods(Part):
    """The methods, behind their dispatcher.

    Args:
        told: Members of ``bridge.info``: ``sandbox`` and ``limits``.
        figures: The members of the status that are counted elsewhere.
    """

    def __init__(
        self, ports: Ports, reporter: Reporter, told: Mapping[str, Any], figures: Callable[[], dict[str, Any]]
    ) -> None:
        super().__init__(ports)
        self._reporter = reporter
        self._advisor = reporter.advisor
        self._told = told
        self.limits = told["limits"]
        self.cancel = reporter.cancel
        """Let go every report of that name that has not begun."""
        self._figures = figures
        self.started_wall = self._engine.wall()
        self._started_at = self._engine.now()
        self._aside = 0
        """Calls that wait in greenlets of their own."""
        self._pauses: list[dict[str, Any]] = []
        self._advice: list[dict[str, Any]] = []
        self.framing: Callable[[], str] = lambda: "line"
        self.reports: Final = frozenset(report_methods())
        """Names of the methods that report."""
        mark = {"sandbox": True} if told["sandbox"] else {}
        self.dispatcher = Dispatcher(self._table(), ports.note_bug, mark)

    def _table(self) -> dict[str, Method]:
        """Name to method."""
        at_once = {
            "rpc.discover": lambda _: load_json("openrpc.json"),
            "bridge.info": self._info,
            "bridge.noteTasks": self._note_tasks,
        }
        aside = {
            "bridge.status": lambda _: self.read_status(),
            "bridge.getReport": self._get_report,
            "bridge.listReports": self._list_reports,
            "bridge.resume": self._resume,
        }
        schemas = {method.name: method.params for method in methods()}

        def tell(name: str, context: Context, params: Any) -> Any:
            given = check(schemas[name], params)
            if name in at_once:
                return at_once[name](given)
            return self._serve_aside(context, partial(aside[name], given), context.settle)

        own = {name: partial(tell, name) for name in (*at_once, *aside)}
        return {**dict.fromkeys(self.reports, self._report), **own}

    # --- what may wait -----------------------------------------------------------------------

    def _serve_aside(
        self, context: Context, wait: Callable[[], Any], go_on: Callable[[Any], object]
    ) -> object:
        """Have something wait in a greenlet of its own, and go on with what comes unless it was let go."""

        def serve() -> None:
            try:
                found = wait()
                if not context.is_settled:
                    go_on(found)
            except Exception as error:
                context.settle(error)
            self._aside -= 1

        self._aside += 1
        self._engine.spawn(serve)
        return PENDING

    # --- reports -----------------------------------------------------------------------------

    def _report(self, context: Context, params: dict[str, Any]) -> Any:
        try:
            asked = self._read_report(context, params)
        except OSError:
            # What checks them is loaded when it is first needed, and this machine may lack a descriptor.
            asked = None
        # Nobody overtakes those that wait for the ledger to open.
        if asked is not None and asked.key is not None and self._ledger.is_open and not self._aside:
            self._submit(context, asked)
            return PENDING
        wait = partial(self._await_means, context, params, asked)
        return self._serve_aside(context, wait, partial(self._submit, context))

    def _read_report(self, context: Context, params: dict[str, Any]) -> Report:
        given = check("report.params", params)
        key, told = self._given_key(given) or self._ports.keys.at_hand(), given.get
        facts = Facts(told("completedAt"), told("taskType"), told("languagePool"))
        return Report(context.call.method, given["taskId"], key, facts)

    def _submit(self, context: Context, report: Report) -> None:
        task_type = report.facts.task_type
        if task_type is not None and fit(report.method, task_type) == UNKNOWN_TYPE:
            # It is kept and shown, and nobody else has looked at what it says.
            if report.key is not None:
                self._ports.scrubber.learn(report.key)
            facts = report.facts._replace(task_type=self._ports.scrubber.scrub(task_type))
            report = report._replace(facts=facts)
        context.is_taken = True
        self._reporter.submit(report, Requester(context.settle, context.name, context.received_at))

    def _await_means(self, context: Context, params: dict[str, Any], report: Report | None) -> Report:
        """Wait for the means to check a report, for the key and for the ledger."""
        while report is None:
            self._engine.sleep(SCARCE_S)
            try:
                report = self._read_report(context, params)
            except OSError:
                if self._engine.now() - context.received_at > UNANCHORED_FIRST_S:
                    raise
        if report.key is None:
            report = report._replace(key=self._ports.keys.get())
        self._ledger.wait_until_open()
        return report

    def _given_key(self, given: Mapping[str, Any]) -> Secret | None:
        text = given.get("clientKey")
        if text is None:
            return None
        key = Secret(text)
        self._ports.scrubber.learn(key)
        return key

    # --- about the bridge --------------------------------------------------------------------

    def _info(self, _given: Mapping[str, Any]) -> Any:
        return {
            "name": NAME,
            "version": __version__,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "framing": self.framing(),
            **self._told,
        }

    def read_status(self) -> dict[str, Any]:
        """The result of ``bridge.status``; waits a moment for the ledger to tell pauses and counts."""
        self._advisor.flush()
        found: list[Any] = []
        waiter = self._engine.waiter()
        self._ledger.post(Pauses(self._ports.endpoint), found.append)
        self._ledger.post(Tallies(self._ports.endpoint, None), waiter.wake)
        patience_s = STATUS_PATIENCE_S if self._ledger.is_open else OPENING_S
        with suppress(TimeoutError):
            tallied, states = waiter.wait(self._engine.now() + patience_s), found[0]
            # Anything but a plain tuple says why the ledger does not tell.
            if type(states) is tuple:
                self._pauses = [self._show_pause(state) for state in states if state.key.rule != PROOF]
            if type(tallied) is tuple:
                self._advice = [advice._asdict() for advice in self._advisor.judge(tallied)]
        sending, waiting = self._reporter.counts()
        return {
            "since": rfc3339(self.started_wall),
            "uptimeSeconds": round(self._engine.now() - self._started_at, 3),
            **self._figures(),
            "inFlight": sending,
            "queued": waiting,
            "pauses": self._pauses,
            "advice": self._advice,
            "ledger": dict(self._ledger.status()),
        }

    def _resume(self, given: Mapping[str, Any]) -> Any:
        key = self._given_key(given)
        self._ledger.wait_until_open()
        account = None if key is None else self._reporter.hold(key)
        states = self._ask_ledger(Resume(self._ports.endpoint, given.get("scope"), account))
        self._reporter.resume_waiting()
        return {"resumed": [self._show_pause(state) for state in states]}

    def _note_tasks(self, given: Mapping[str, Any]) -> Any:
        key = self._given_key(given)
        return {"noted": self._advisor.note(key, given["taskType"], given.get("count", 1), given.get("cost"))}

    def _show_pause(self, state: PauseState) -> dict[str, Any]:
        now = self._ledger.now()
        # What a wrong clock wrote stays in the ledger until a report meets it.
        shown = self._ports.policy.show(self._ports.policy.mend_times(now, state), self._engine.wall() - now)
        return {**shown, "state": state.state, **dict(self._ports.policy.parts(state.key))}

    # --- what the ledger knows ---------------------------------------------------------------

    def _ask_ledger(self, op: Operation) -> Any:
        found = self._ledger.call(op)
        if isinstance(found, Unavailable | Failed):
            raise BridgeError("ledger_unavailable")
        return found

    def _get_report(self, given: Mapping[str, Any]) -> Any:
        key = self._given_key(given) or self._ports.keys.get()
        if key is None:
            raise BridgeError("key_missing")
        self._ledger.wait_until_open()
        task = Task(self._ports.endpoint, self._reporter.hold(key), given["taskId"])
        row = self._ask_ledger(Look(task))
        if row is None:
            raise BridgeError("report_not_found")
        return show_record(row)

    def _list_reports(self, given: Mapping[str, Any]) -> Any:
        cursor, since = given.get("cursor"), given.get("since")
        wanted = {name: given[name] for name in ("outcome", "method", "limit") if name in given}
        # A time that was shown includes what was recorded in its millisecond.
        since_wall = None if since is None else since - ROUNDING_S
        before_seq = None if cursor is None else int(cursor)
        listing = Listing(self._ports.endpoint, since_wall, before_seq=before_seq, **wanted)
        rows, following = self._ask_ledger(listing)
        reports = [show_record(row) for row in rows]
        return {"reports": reports, "nextCursor": None if following is None else str(following)}


def show_record(row: Row) -> dict[str, Any]:
    """A row of the ledger as the wire shows it (``schemas/bridge.getReport.result.json``)."""
    is_error = row.outcome not in (None, ACCEPTED)
    return {
        "taskId": row.task.task_id,
        "method": row.method,
        "account": row.task.account[:8],
        "state": row.state,
        "outcome": row.outcome,
        "code": row.code if is_error else None,
        "kind": row.kind if is_error else None,
        "attempts": row.attempts,
        "recordedAt": rfc3339(row.recorded_wall),
        "finishedAt": None if row.finished_wall is None else rfc3339(row.finished_wall),
    }
