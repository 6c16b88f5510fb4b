"""The methods of the protocol: each turns params into a question to the service or the ledger.

Joins `rpc`, `reports` and `ledger`. Params are checked against ``schemas/`` here and nowhere else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Protocol

from bridge import __version__
from bridge.core.errors import BridgeError
from bridge.core.model import ACCEPTED, Listing, Look, Pauses, PauseState, Resume, Row, Task
from bridge.core.redact import Scrubber, Secret
from bridge.core.resources import load_json
from bridge.ops.clock import boot_clock
from bridge.reports.flight import Report
from bridge.reports.knowledge import rfc3339
from bridge.reports.methods import methods as report_methods
from bridge.reports.pauses import PROOF, PausePolicy
from bridge.reports.service import Service
from bridge.rpc.dispatcher import PENDING, Failure, Method
from bridge.rpc.schemas import Refused, check
from bridge.session import Context, never_admitted

PROTOCOL: Final = 1
_GONE: Final = object()
NAME: Final = "anticaptcha-report-bridge"
STATUS_PATIENCE_S: Final = 0.25
"""How long the status waits for a ledger that does not answer before it tells what was known last."""


class Keys(Protocol):
    """Where the default key comes from."""

    def when_ready(self, use: Callable[[Secret | None], None]) -> None:
        """Hand over the default key, or None, at once if it is known."""


class Ledger(Protocol):
    """What the methods ask of the ledger; see `bridge.ledger.journal.Journal`."""

    def submit(self, op: Any, done: Callable[[Any], None]) -> None:
        """Queue an operation; `done` gets its result after the commit."""

    def when_open(self, use: Callable[[], None]) -> None:
        """Call back once the ledger has been opened, or has failed to."""

    def account(self, secret_text: str) -> str:
        """The account of a client key."""

    def now(self) -> float:
        """Seconds on the ledger's timeline."""

    def status(self) -> Mapping[str, Any]:
        """How the ledger is."""


class Methods:
    """The methods as a table for the dispatcher."""

    def __init__(
        self,
        service: Service,
        ledger: Ledger,
        policy: PausePolicy,
        keys: Keys,
        scrubber: Scrubber,
        *,
        endpoint: str,
        sandbox: bool,
        limits: Mapping[str, Any],
        figures: Callable[[], dict[str, Any]],
        dropped_lines: Callable[[], int],
        wall: Callable[[], float],
    ) -> None:
        self._service = service
        self._ledger = ledger
        self._policy = policy
        self._keys = keys
        self._scrubber = scrubber
        self._endpoint = endpoint
        self._sandbox = sandbox
        self._limits = limits
        self._figures = figures
        self._dropped_lines = dropped_lines
        self._wall = wall
        self._started_wall = wall()
        self._started_boot = boot_clock()
        self._lock = threading.Lock()
        self._waiting: dict[Context, object] = {}
        """Reports that wait for the key or for the ledger to open."""
        self._pauses: list[dict[str, Any]] = []
        self.framing: Callable[[], str] = lambda: "line"
        self.slow = frozenset(report_methods())
        """Names of the methods that report."""

    def table(self) -> dict[str, Method]:
        """Name to method, for `bridge.rpc.dispatcher.Dispatcher`."""
        return {
            **{name: self._reporter(name) for name in self.slow},
            "rpc.discover": self._discover,
            "bridge.info": self._info,
            "bridge.status": self._status,
            "bridge.getReport": self._get_report,
            "bridge.listReports": self._list_reports,
            "bridge.resume": self._resume,
        }

    # --- reports -----------------------------------------------------------------------------

    def _reporter(self, name: str) -> Method:
        def report(context: Context, params: dict[str, Any]) -> Any:
            given = _checked("report.params", params)
            key = self._given_key(given)

            def submit(key: Secret | None) -> None:
                report = Report(
                    name,
                    given["taskId"],
                    key,
                    given.get("completedAt"),
                    given.get("taskType"),
                    given.get("languagePool"),
                )
                # Until the ledger is open the reader must not wait for it.
                self._ledger.when_open(lambda: hand_on(report))

            def hand_on(report: Report) -> None:
                with self._lock:
                    if self._waiting.pop(context, _GONE) is _GONE:
                        return  # cancelled, or given up at the end, while it waited
                waited_s = boot_clock() - context.received_boot
                self._service.submit(report, context.answer, context.name, waited_s)

            with self._lock:
                self._waiting[context] = None
            if key is None:
                self._keys.when_ready(submit)
            else:
                submit(key)
            return PENDING

        return report

    def cancel(self, name: Hashable) -> None:
        """Let go every request of that name that has not begun, wherever it waits."""
        self._let_go("request_cancelled", lambda context: context.name == name)
        self._service.cancel(name)

    def give_up(self) -> int:
        """Answer what still waits for a key or the ledger, at the end; returns how many those were."""
        return self._let_go("shutting_down", lambda _context: True)

    def _let_go(self, kind: str, is_meant: Callable[[Context], bool]) -> int:
        with self._lock:
            leaving = [context for context in self._waiting if is_meant(context)]
            for context in leaving:
                del self._waiting[context]
        for context in leaving:
            context.settle(never_admitted(kind))
        return len(leaving)

    def _given_key(self, given: Mapping[str, Any]) -> Secret | None:
        text = given.get("clientKey")
        if text is None:
            return None
        key = Secret(text)
        self._scrubber.learn(key)
        return key

    # --- about the bridge --------------------------------------------------------------------

    def _discover(self, _context: Context, params: dict[str, Any]) -> Any:
        _checked("none.params", params)
        return load_json("openrpc.json")

    def _info(self, _context: Context, params: dict[str, Any]) -> Any:
        _checked("none.params", params)
        return {
            "name": NAME,
            "version": __version__,
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "sandbox": self._sandbox,
            "framing": self.framing(),
            "limits": dict(self._limits),
        }

    def _status(self, context: Context, params: dict[str, Any]) -> Any:
        _checked("none.params", params)
        self.read_status(context.settle)
        return PENDING

    def read_status(self, done: Callable[[dict[str, Any]], None]) -> None:
        """Hand over the result of ``bridge.status``, soon and on another thread."""
        once = threading.Lock()

        def tell() -> None:
            if once.acquire(blocking=False):
                done(self._marked(self._status_now()))

        def on_pauses(states: Any) -> None:
            if isinstance(states, tuple):
                self._pauses = [self._show_pause(s) for s in states if s.key.rule != PROOF]
            timer.cancel()
            tell()

        timer = threading.Timer(STATUS_PATIENCE_S, tell)
        timer.daemon = True
        timer.start()
        self._ledger.submit(Pauses(self._endpoint), on_pauses)

    def _status_now(self) -> dict[str, Any]:
        flying, waiting = self._service.counts()
        return {
            "since": rfc3339(self._started_wall),
            "uptimeSeconds": round(boot_clock() - self._started_boot, 3),
            **self._figures(),
            "inFlight": flying,
            "queued": waiting,
            "droppedLogLines": self._dropped_lines(),
            "pauses": self._pauses,
            "ledger": dict(self._ledger.status()),
        }

    def _resume(self, context: Context, params: dict[str, Any]) -> Any:
        given = _checked("bridge.resume.params", params)
        key = self._given_key(given)

        def on_resumed(states: Any) -> None:
            if not isinstance(states, tuple):
                context.settle(_unavailable())
                return
            self._service.resume_waiting()
            context.settle(self._marked({"resumed": [self._show_pause(state) for state in states]}))

        def ask() -> None:
            account = None if key is None else self._ledger.account(key.reveal())
            self._ledger.submit(Resume(self._endpoint, given.get("scope"), account), on_resumed)

        self._ledger.when_open(ask)
        return PENDING

    def _show_pause(self, state: PauseState) -> dict[str, Any]:
        now, wall = self._ledger.now(), self._wall()

        def show(at: float | None) -> str | None:
            return None if at is None else rfc3339(at - now + wall)

        shown = {
            "scope": self._policy.scope(state),
            "cause": state.cause,
            "state": state.state,
            "openedAt": show(state.opened_at),
            "endsAt": show(state.ends_at),
            "manual": state.ends_at is None,
        }
        for name, value in self._policy.parts(state.key):
            shown[name] = value
        return shown

    # --- what the ledger knows ---------------------------------------------------------------

    def _get_report(self, context: Context, params: dict[str, Any]) -> Any:
        given = _checked("bridge.getReport.params", params)

        def look(key: Secret | None) -> None:
            if key is None:
                context.settle(_failure("key_missing"))
                return
            text = key.reveal()
            self._ledger.when_open(lambda: ask(text))

        def ask(text: str) -> None:
            task = Task(self._endpoint, self._ledger.account(text), given["taskId"])
            self._ledger.submit(Look(task), on_row)

        def on_row(row: Any) -> None:
            if isinstance(row, Row):
                context.settle(self._marked(show_record(row)))
            else:
                context.settle(_failure("report_not_found") if row is None else _unavailable())

        key = self._given_key(given)
        if key is None:
            self._keys.when_ready(look)
        else:
            look(key)
        return PENDING

    def _list_reports(self, context: Context, params: dict[str, Any]) -> Any:
        given = _checked("bridge.listReports.params", params)
        cursor = given.get("cursor")

        def on_rows(found: Any) -> None:
            if not isinstance(found, tuple):
                context.settle(_unavailable())
                return
            rows, following = found
            cursor = None if following is None else str(following)
            reports = [show_record(row) for row in rows]
            context.settle(self._marked({"reports": reports, "nextCursor": cursor}))

        self._ledger.submit(
            Listing(
                self._endpoint,
                since_wall=given.get("since"),
                outcome=given.get("outcome"),
                method=given.get("method"),
                limit=given.get("limit", 100),
                before_seq=None if cursor is None else int(cursor),
            ),
            on_rows,
        )
        return PENDING

    def _marked(self, result: dict[str, Any]) -> dict[str, Any]:
        if self._sandbox:
            result["sandbox"] = True
        return result


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


def _checked(schema: str, params: dict[str, Any]) -> Any:
    try:
        return check(schema, params)
    except Refused as refused:
        raise BridgeError("invalid_params", refused.data()) from None


def _failure(kind: str) -> Failure:
    error = BridgeError(kind)
    return Failure(error.code, error.message, error.data)


def _unavailable() -> Failure:
    return _failure("ledger_unavailable")
