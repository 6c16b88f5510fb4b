"""Everything about the simulated upstream that can change, and every verb that changes it.

The control endpoint, the scenario and the Python methods all end here. Has no I/O; its clocks are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.simulator import magic, replies
from bridge.simulator.armed import ArmedFaults
from bridge.simulator.journal import Journal, fingerprint
from bridge.simulator.model import HOUR_S, Facts, Judgement, Model, Task, hour_of, priced
from bridge.simulator.scenario import DEFAULTS, LISTS, SETTINGS
from bridge.simulator.shapes import check, wire_name


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
        self.journal = Journal(now, self.now_s)
        self.resets = 0
        self._date = (0, "")
        self.begin()

    def begin(self) -> None:
        """Forget everything that calls and commands have changed, and start the scenario again."""
        self.settings = dict(DEFAULTS)
        self.model = Model(self.settings, self._admit)
        self.faults = ArmedFaults()
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
        second = int(self.now_s() + skew_s)
        if second != self._date[0]:
            # Kept for a second: making it anew for each answer would cost a tenth of the time.
            self._date = (second, replies.http_date(second))
        return self._date[1]

    # --- what can be made and set --------------------------------------------------------------

    def make(self, name: str, wanted: Any) -> dict[str, Any]:
        """Make or set something of one of `LISTS`; return it.

        Raises:
            NotValid: it is not as documented.
        """
        check(wanted, LISTS[name])
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
        names = {wire_name(name): name for name in ("language_pool", "ended_in_error", "reported")}
        more = {names[name]: value for name, value in wanted.items() if name in names}
        task = Task(task_id, wanted["kind"], end_time, account=_owner(wanted), **more)
        self.model.add(task)
        return task.describe()

    def _add_fault(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        now = self.now()
        armed = self.faults.arm(wanted, now).describe(now)
        self.on_change()
        return armed

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
        count = self.faults.disarm(fault_id)
        self.on_change()
        return count

    def change_settings(self, wanted: Any) -> dict[str, Any]:
        """Change the settings that are named; return all. Raises NotValid for what is not as documented."""
        check(wanted, SETTINGS)
        self.settings.update(wanted)
        return self.settings

    # --- what there is -------------------------------------------------------------------------

    def list_tasks(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the known tasks, those of auto mode included."""
        known = [*self.model.tasks.values(), *self.model.fresh.values()]
        return [task.describe() for task in known if task_id in (None, task.task_id)]

    def list_faults(self) -> list[dict[str, Any]]:
        """Return the armed faults."""
        now = self.now()
        return [fault.describe(now) for fault in self.faults.living(now)]

    def list_accounts(self) -> list[dict[str, Any]]:
        """Return the accounts that were given a state."""
        return [{"account": name, "state": state} for name, state in self.model.accounts.items()]

    def list_spending(self) -> list[dict[str, Any]]:
        """Return the figures that were set, by the hour."""
        return [
            {"account": account, "queue": queue, "dateFrom": hour, "hours": 1, **figures._asdict()}
            for account, book in self.model.figures.items()
            for (queue, hour), figures in book.items()
        ]

    # --- calls ---------------------------------------------------------------------------------

    def judge(self, method: str, facts: Facts, account: str) -> Judgement:
        """Apply the rules to a call."""
        judgement = self.model.judge(method, facts, account, self.now_s())
        effect = self.effect_of(facts.task_id) if judgement.reason == "no_such_task" else None
        if effect is not None and effect.situation == magic.OTHER_SPELLING:
            return judgement._replace(body=replies.error_body(16, replies.OTHER_SPELLING))
        return judgement

    def effect_of(self, task_id: int | None) -> magic.Effect | None:
        """Return what a task id does by itself, or None if it is an ordinary one."""
        return magic.look_up(task_id) if task_id is not None and self.settings["magic"] else None

    def _admit(self, task: Task) -> bool:
        effect = self.effect_of(task.task_id)
        if effect is None:
            return bool(self.settings["auto"])
        return magic.place(task, effect.situation, self.settings["windowSeconds"])


def _owner(wanted: Mapping[str, Any]) -> str | None:
    """Return the account that is meant; None: whoever asks."""
    return fingerprint(wanted["clientKey"]) if "clientKey" in wanted else wanted.get("account")
