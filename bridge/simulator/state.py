"""Everything about the simulated upstream that can change, and every verb that changes it.

The control endpoint, the scenario and the Python methods all end here. Has no I/O; its clocks are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from bridge.simulator import replies
from bridge.simulator.faults import EARLY, FAULTS
from bridge.simulator.journal import Journal, Rows, fingerprint
from bridge.simulator.model import HOUR_S, Model, hour_of, make_task, priced
from bridge.simulator.scenario import DEFAULTS, LISTS


class ArmedFault:
    """A fault that is armed.

    Args:
        fault_id: number to name it by.
        wanted: a value of the shape `FAULT`.
        now: monotonic seconds.
    """

    def __init__(self, fault_id: int, wanted: Mapping[str, Any], now: float) -> None:
        self.fault_id = fault_id
        self.fault: str = wanted["fault"]
        self.params = FAULTS[self.fault].fill(wanted)
        self.task_id: int | None = wanted.get("taskId")
        self.method: str | None = wanted.get("method")
        self.remaining: int | None = wanted.get("count")
        self.skip: int = wanted.get("skip", 0)
        self.ends_at: float | None = now + wanted["forSeconds"] if "forSeconds" in wanted else None
        is_early = self.fault in EARLY and self.task_id is None and self.method is None
        self.stage = "begin" if is_early else "call" if FAULTS[self.fault].number else self.fault
        """When it acts: before anything of a request is read, when one was, or as its name says."""

    def describe(self, now: float) -> dict[str, Any]:
        """Return the fault as the control endpoint shows it."""
        left_s = None if self.ends_at is None else max(0.0, round(self.ends_at - now, 3))
        told = {"taskId": self.task_id, "method": self.method, "remaining": self.remaining, "skip": self.skip}
        return {"id": self.fault_id, "fault": self.fault, **self.params, **told, "endsInSeconds": left_s}

    def is_over(self, now: float) -> bool:
        """True once its time or its count is used up."""
        return self.remaining == 0 or (self.ends_at is not None and self.ends_at <= now)

    def use(self) -> bool:
        """Say whether it breaks the call that it has met, and count that."""
        is_passed = self.skip > 0
        if is_passed:
            self.skip -= 1
        elif self.remaining is not None:
            self.remaining -= 1
        return not is_passed


class State:
    """The state of one simulator.

    Args:
        scenario: a checked scenario, applied at the start and after every reset.
        now: seconds that never go back.
        wall: UNIX seconds.
    """

    def __init__(
        self, scenario: Mapping[str, Any], now: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called after faults were armed or disarmed."""
        self.scenario = scenario
        self.now = now
        self._wall = wall
        self.journal: Journal = Journal(now, self.now_s)
        self.resets = 0
        self.begin()

    def begin(self) -> None:
        """Forget everything that calls and commands have changed, and start the scenario again."""
        self.settings: dict[str, Any] = dict(DEFAULTS)
        self.model = Model(self.settings)
        self.armed: list[ArmedFault] = []
        """The armed faults, oldest first."""
        self._fault_ids = count(1)
        self.journal.clear()
        self.resets += 1
        self.began_at = self.now()
        self.apply(self.scenario)
        self.on_change()

    def apply(self, part: Mapping[str, Any]) -> None:
        """Apply the parts of a scenario or of one of its steps."""
        if part.get("clearFaults"):
            self.clear_faults()
        self.change_settings(part.get("settings", {}))
        for name in LISTS:
            for wanted in part.get(name, ()):
                self.make(name, wanted)

    def now_s(self) -> float:
        """Return UNIX seconds on the simulated upstream's clock."""
        return self._wall() + float(self.settings["clockSkewSeconds"])

    def date(self, skew_s: float = 0.0) -> str:
        """Return the simulated upstream's time, and so many seconds on, as an HTTP date."""
        return replies.http_date(int(self.now_s() + skew_s))

    # --- what can be made and set --------------------------------------------------------------

    def make(self, name: str, wanted: Any) -> dict[str, Any]:
        """Make or set something of one of `LISTS`, which has its shape; return it."""
        makers = {
            "accounts": self._set_account,
            "tasks": self._add_task,
            "spending": self._set_spending,
            "faults": self._add_fault,
        }
        return makers[name](wanted)

    def _add_task(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        task_id = wanted.get("taskId") or self.model.new_id()
        end_time = wanted.get("endTime", self.now_s() - wanted.get("ageSeconds", 0.0))
        more = {name: wanted[name] for name in ("languagePool", "endedInError", "reported") if name in wanted}
        task = make_task(task_id, wanted["kind"], end_time, _owner(wanted), **more)
        self.model.tasks[task_id] = task
        return dict(task)

    def _add_fault(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        now = self.now()
        fault = ArmedFault(next(self._fault_ids), wanted, now)
        self.armed.append(fault)
        self.on_change()
        return fault.describe(now)

    def _set_account(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        account = _owner(wanted) or ""
        self.model.accounts[account] = wanted["state"]
        return {"account": account, "state": wanted["state"]}

    def _set_spending(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Set the figures of a queue, in place of the tasks that there are."""
        queue, account, hours = wanted["queue"], _owner(wanted), wanted.get("hours", 1)
        figures = priced(queue, wanted["volume"])
        figures = figures._replace(money=wanted.get("money", figures.money))
        first = hour_of(self.now_s()) - (wanted.get("hoursAgo", 0) + hours - 1) * HOUR_S
        places = [(queue, first + at * HOUR_S) for at in range(hours)]
        self.model.figures.setdefault(account, {}).update(dict.fromkeys(places, figures))
        return {"account": account, "queue": queue, "dateFrom": first, "hours": hours, **figures._asdict()}

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        before = len(self.living())
        self.armed = [fault for fault in self.armed if fault_id not in (None, fault.fault_id)]
        self.on_change()
        return before - len(self.armed)

    def change_settings(self, wanted: Any) -> dict[str, Any]:
        """Change the settings that are named, which have their shapes; return all."""
        self.settings.update(wanted)
        return self.settings

    # --- what there is -------------------------------------------------------------------------

    def list_tasks(self, task_id: int | None = None) -> Rows:
        """Return the known tasks, those of auto mode included."""
        return [dict(task) for task in self.model.known() if task_id in (None, task["taskId"])]

    def list_faults(self) -> Rows:
        """Return the armed faults."""
        now = self.now()
        return [fault.describe(now) for fault in self.living()]

    def list_accounts(self) -> Rows:
        """Return the accounts that were given a state."""
        return [{"account": name, "state": state} for name, state in self.model.accounts.items()]

    def list_spending(self) -> Rows:
        """Return the figures that were set, by the hour."""
        return [
            {"account": account, "queue": queue, "dateFrom": hour, "hours": 1, **figures._asdict()}
            for account, book in self.model.figures.items()
            for (queue, hour), figures in book.items()
        ]

    # --- faults --------------------------------------------------------------------------------

    def living(self) -> list[ArmedFault]:
        """Return the armed faults; those that are over are forgotten."""
        now = self.now()
        self.armed = [fault for fault in self.armed if not fault.is_over(now)]
        return self.armed

    def pick(self, stage: str, method: str | None = None, task_id: int | None = None) -> ArmedFault | None:
        """Return the fault that acts at a stage, and use it: the most closely tied, then the oldest."""
        matching = [
            fault
            for fault in self.living()
            if fault.stage == stage and fault.task_id in (None, task_id) and fault.method in (None, method)
        ]
        matching.sort(key=lambda fault: (fault.task_id is None, fault.method is None))
        return next((fault for fault in matching if fault.use()), None)


def _owner(wanted: Mapping[str, Any]) -> str | None:
    """Return the account that is meant; None: whoever asks."""
    return fingerprint(wanted["clientKey"]) if "clientKey" in wanted else wanted.get("account")
