"""Everything about the simulated upstream that can change, and every verb that changes it.

The control endpoint, the scenario and the Python methods all end here. Has no I/O; its clocks are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from math import inf
from typing import Any

from bridge.simulator import replies
from bridge.simulator.faults import EARLY, FAULTS
from bridge.simulator.journal import Journal, Row, Rows, fingerprint
from bridge.simulator.model import HOUR_S, Model, hour_of, make_task, priced
from bridge.simulator.scenario import DEFAULTS, LISTS


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
        self.armed: Rows = []
        """The armed faults, oldest first, with all their parameters; what is unlimited ends at infinity."""
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
        name, tied = wanted["fault"], {"taskId": wanted.get("taskId"), "method": wanted.get("method")}
        fault = {"id": next(self._fault_ids), "fault": name, **FAULTS[name].fill(wanted)}
        fault |= {**tied, "remaining": wanted.get("count", inf), "skip": wanted.get("skip", 0)}
        fault["endsAt"] = self.now() + wanted.get("forSeconds", inf)
        self.armed.append(fault)
        self.on_change()
        return self._describe(fault)

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
        self.armed = [one for one in self.armed if fault_id not in (None, one["id"])]
        self.on_change()
        return before - len(self.armed)

    def change_settings(self, wanted: Any) -> dict[str, Any]:
        """Change the settings that are named, which have their shapes; return all."""
        self.settings.update(wanted)
        return self.settings

    # --- what there is -------------------------------------------------------------------------

    def list(self, name: str, task_id: int | None = None) -> Rows:
        """Return what there is of one of `LISTS`, of one task or of all: known tasks, armed faults ..."""
        rows: Mapping[str, Iterable[Row]] = {
            "accounts": ({"account": own, "state": state} for own, state in self.model.accounts.items()),
            "tasks": self.model.known(),
            "spending": (
                {"account": account, "queue": queue, "dateFrom": hour, "hours": 1, **figures._asdict()}
                for account, book in self.model.figures.items()
                for (queue, hour), figures in book.items()
            ),
            "faults": map(self._describe, self.living()),
        }
        return [dict(row) for row in rows[name] if task_id in (None, row.get("taskId"))]

    # --- faults --------------------------------------------------------------------------------

    def living(self) -> Rows:
        """Return the armed faults; those whose time or count is used up are forgotten."""
        now = self.now()
        self.armed = [one for one in self.armed if one["remaining"] != 0 and now < one["endsAt"]]
        return self.armed

    def pick(self, stage: str, method: str | None = None, task_id: int | None = None) -> Row | None:
        """Return the fault that acts at a stage, and use it: the most closely tied, then the oldest."""
        ties = {"taskId": (None, task_id), "method": (None, method)}
        matching = [
            fault
            for fault in self.living()
            if _stage_of(fault) == stage and all(fault[name] in met for name, met in ties.items())
        ]
        for fault in sorted(matching, key=lambda one: (one["taskId"] is None, one["method"] is None)):
            if fault["skip"] == 0:
                fault["remaining"] -= 1
                return fault
            fault["skip"] -= 1
        return None

    def _describe(self, fault: Row) -> Row:
        """Return an armed fault as the control endpoint shows it."""
        shown = {name: None if value == inf else value for name, value in fault.items()}
        ends_at = shown.pop("endsAt")
        left_s = None if ends_at is None else max(0.0, round(ends_at - self.now(), 3))
        return {**shown, "endsInSeconds": left_s}


def _stage_of(fault: Row) -> str:
    """Return when a fault acts: before anything of a request is read, when one was, or as its name says."""
    name = fault["fault"]
    is_early = name in EARLY and fault["taskId"] is None and fault["method"] is None
    return "begin" if is_early else "call" if FAULTS[name].number else name


def _owner(wanted: Mapping[str, Any]) -> str | None:
    """Return the account that is meant; None: whoever asks."""
    return fingerprint(wanted["clientKey"]) if "clientKey" in wanted else wanted.get("account")
