"""Everything about the simulated upstream that can change, and every verb that changes it.

The control endpoint, the scenario and the Python methods all end here. Has no I/O; its clocks are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.simulator import magic, replies
from bridge.simulator.armed import ArmedFaults
from bridge.simulator.faults import FAULT
from bridge.simulator.journal import Journal, fingerprint
from bridge.simulator.model import HOUR_S, Facts, Figures, Judgement, Model, Settings, Task, hour_of, priced
from bridge.simulator.scenario import ACCOUNT, SETTINGS, SPENDING, TASK
from bridge.simulator.shapes import check, to_json, wire_name

_SETTINGS = {wire_name(name): name for name in Settings.__annotations__}


class State:
    """The state of one simulator.

    Args:
        scenario: a checked scenario, applied at the start and after every reset.
        now: seconds that never go back.
        wall: UNIX seconds.
        auto: start in auto mode, unless the scenario says otherwise.
        latency_s: seconds before every answer, unless the scenario says otherwise.
    """

    def __init__(
        self,
        scenario: Mapping[str, Any],
        now: Callable[[], float],
        wall: Callable[[], float],
        *,
        auto: bool = True,
        latency_s: float = 0.0,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called after faults were armed or disarmed."""
        self.scenario = scenario
        self.now = now
        self._wall = wall
        self._auto, self._latency_s = auto, latency_s
        self.journal = Journal()
        self.resets = 0
        self._date = (0, "")
        self.begin()

    def begin(self) -> None:
        """Forget everything that calls and commands have changed, and start the scenario again."""
        self.settings = Settings()
        self.settings.auto, self.settings.latency_s = self._auto, self._latency_s
        self.model = Model(self.settings, self._invent)
        self.faults = ArmedFaults()
        self.journal.clear()
        self.resets += 1
        self.began_at = self.now()
        self.apply(self.scenario)
        self.on_change()

    def apply(self, part: Mapping[str, Any]) -> None:
        """Apply the parts of a scenario or of one of its steps; it has been checked."""
        if part.get("clearFaults"):
            self.clear_faults()
        self.change_settings(part.get("settings", {}))
        for name, make in (
            ("accounts", self.set_account),
            ("tasks", self.add_task),
            ("spending", self.set_spending),
            ("faults", self.add_fault),
        ):
            for wanted in part.get(name, ()):
                make(wanted)

    def now_s(self) -> float:
        """Return UNIX seconds on the simulated upstream's clock."""
        return self._wall() + self.settings.clock_skew_s

    def date(self, skew_s: float = 0.0) -> str:
        """Return the simulated upstream's time, and so many seconds on, as an HTTP date."""
        second = int(self.now_s() + skew_s)
        if second != self._date[0]:
            # Kept for a second: making it anew for each answer would cost a tenth of the time.
            self._date = (second, replies.http_date(second))
        return self._date[1]

    # --- what can be made and set; all raise NotValid for what is not as documented ------------

    def add_task(self, wanted: Any) -> dict[str, Any]:
        """Create a task; return it."""
        check(wanted, TASK)
        task = Task(
            wanted["taskId"] if "taskId" in wanted else self.model.new_id(),
            wanted["kind"],
            wanted.get("endTime", self.now_s() - wanted.get("ageSeconds", 0.0)),
            language_pool=wanted.get("languagePool", "en"),
            ended_in_error=wanted.get("endedInError", False),
            account=_owner(wanted),
            reported=wanted.get("reported", False),
        )
        self.model.add(task)
        return task.describe()

    def tasks(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the known tasks, those of auto mode included."""
        known = [*self.model.tasks.values(), *self.model.fresh.values()]
        return [task.describe() for task in known if task_id in (None, task.task_id)]

    def add_fault(self, wanted: Any) -> dict[str, Any]:
        """Arm a fault; return it."""
        check(wanted, FAULT)
        now = self.now()
        armed = self.faults.arm(wanted, now).describe(now)
        self.on_change()
        return armed

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        count = self.faults.disarm(fault_id)
        self.on_change()
        return count

    def list_faults(self) -> list[dict[str, Any]]:
        """Return the armed faults."""
        now = self.now()
        return [fault.describe(now) for fault in self.faults.living(now)]

    def set_account(self, wanted: Any) -> dict[str, Any]:
        """Put an account into a state; return it, without its key."""
        check(wanted, ACCOUNT)
        account = _owner(wanted) or ""
        self.model.accounts[account] = wanted["state"]
        return {"account": account, "state": wanted["state"]}

    def list_accounts(self) -> list[dict[str, Any]]:
        """Return the accounts that were given a state."""
        return [{"account": name, "state": state} for name, state in self.model.accounts.items()]

    def set_spending(self, wanted: Any) -> dict[str, Any]:
        """Set the figures of a queue, in place of the tasks that there are; return them."""
        check(wanted, SPENDING)
        queue, account = wanted["queue"], _owner(wanted)
        figures = priced(queue, wanted["volume"])
        figures = Figures(figures.volume, wanted.get("money", figures.money))
        last = hour_of(self.now_s()) - wanted.get("hoursAgo", 0) * HOUR_S
        hours = wanted.get("hours", 1)
        for back in range(hours):
            self.model.figures[account, queue, last - back * HOUR_S] = figures
        first = last - (hours - 1) * HOUR_S
        return {"account": account, "queue": queue, "dateFrom": first, "hours": hours, **figures._asdict()}

    def list_spending(self) -> list[dict[str, Any]]:
        """Return the figures that were set, by the hour."""
        return [
            {"account": account, "queue": queue, "dateFrom": hour, "hours": 1, **figures._asdict()}
            for (account, queue, hour), figures in self.model.figures.items()
        ]

    def change_settings(self, wanted: Any) -> dict[str, Any]:
        """Change the settings that are named; return all."""
        check(wanted, SETTINGS)
        for name, value in wanted.items():
            setattr(self.settings, _SETTINGS[name], value)
        return self.list_settings()

    def list_settings(self) -> dict[str, Any]:
        """Return all settings."""
        return to_json(self.settings, _SETTINGS.values())

    # --- calls -------------------------------------------------------------------------------

    def judge(self, method: str, facts: Facts, account: str) -> Judgement:
        """Apply the rules to a call."""
        judgement = self.model.judge(method, facts, account, self.now_s())
        if judgement.reason == "no_such_task" and self._situation(facts.task_id or 0) == "other_spelling":
            return judgement._replace(body=replies.error_body(16, replies.OTHER_SPELLING))
        return judgement

    def _situation(self, task_id: int) -> str:
        effect = magic.look_up(task_id) if self.settings.magic else None
        return effect.situation.name if effect is not None and effect.situation is not None else ""

    def _invent(self, task_id: int, method: str, account: str, now_s: float) -> Task | None:
        effect = magic.look_up(task_id) if self.settings.magic else None
        if effect is None:
            return self.model.make_fresh(task_id, method, account, now_s)
        return magic.make_task(effect.situation, task_id, method, account, now_s, self.settings.window_s)


def _owner(wanted: Mapping[str, Any]) -> str | None:
    """Return the account that is meant; None: whoever asks."""
    if "clientKey" in wanted:
        return fingerprint(wanted["clientKey"])
    account: str | None = wanted.get("account")
    return account
