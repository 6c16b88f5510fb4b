"""Everything about the simulated upstream that can change, and every verb that changes it.

The control endpoint, the scenario and the Python methods all end here, under one lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from bridge.upstream.simulator import magic, replies
from bridge.upstream.simulator.fault_table import FAULT
from bridge.upstream.simulator.faults import FaultBook
from bridge.upstream.simulator.journal import Journal, fingerprint
from bridge.upstream.simulator.scenario import ACCOUNT, SETTINGS, TASK
from bridge.upstream.simulator.world import Facts, Judgement, Settings, Task, World

SETTING_NAMES = {
    "auto": "auto",
    "magic": "magic",
    "strict": "strict",
    "spelling": "spelling",
    "contentType": "content_type",
    "latencySeconds": "latency_s",
    "clockSkewSeconds": "clock_skew_s",
    "windowSeconds": "window_s",
    "otherKeys": "other_keys",
}


class Stage:
    """The state of one simulator.

    Thread safety: every public method takes the lock itself, except those that end in ``_locked``.

    Args:
        scenario: a checked scenario, applied at the start and after every reset.
        auto: start in auto mode, unless the scenario says otherwise.
        latency_s: seconds before every answer, unless the scenario says otherwise.
        wall: UNIX seconds; tests hand in their own.
        monotonic: seconds that never go back; tests hand in their own.
    """

    def __init__(
        self,
        scenario: Mapping[str, Any],
        *,
        auto: bool = True,
        latency_s: float = 0.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self.on_change: Callable[[], None] = _do_nothing
        """Called after faults were armed or disarmed."""
        self.scenario = scenario
        self.monotonic = monotonic
        self._wall = wall
        self._auto, self._latency_s = auto, latency_s
        self.journal = Journal()
        self.began_at = monotonic()
        self.resets = 0
        self.settings = Settings(auto, latency_s)
        self.world = World(self.settings)
        self.faults = FaultBook()
        self._date = (0, "")
        self.begin()

    def begin(self) -> None:
        """Forget everything that calls and commands have changed, and start the scenario again."""
        with self.lock:
            self.settings = Settings(self._auto, self._latency_s)
            self.world = World(self.settings)
            self.faults = FaultBook()
            self.journal.clear()
            self.resets += 1
            self.began_at = self.monotonic()
            self.apply(self.scenario)
        self.on_change()

    def apply(self, part: Mapping[str, Any]) -> None:
        """Apply the parts of a scenario or of one of its steps; it has been checked."""
        with self.lock:
            if part.get("clearFaults"):
                self.clear_faults()
            if "settings" in part:
                self.change_settings(part["settings"])
            for account in part.get("accounts", ()):
                self.set_account(account)
            for task in part.get("tasks", ()):
                self.add_task(task)
            for fault in part.get("faults", ()):
                self.add_fault(fault)

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

    def add_task(self, wanted: Any) -> dict[str, Any]:
        """Create a task; return it.

        Raises:
            NotValid: the description of the task is not as documented.
        """
        TASK.check(wanted)
        with self.lock:
            account = wanted.get("account")
            if "clientKey" in wanted:
                account = fingerprint(wanted["clientKey"])
            task = Task(
                wanted["taskId"] if "taskId" in wanted else self.world.new_id(),
                wanted["kind"],
                wanted.get("endTime", self.now_s() - wanted.get("ageSeconds", 0.0)),
                language_pool=wanted.get("languagePool", "en"),
                ended_in_error=wanted.get("endedInError", False),
                account=account,
                reported=wanted.get("reported", False),
            )
            self.world.add(task)
            return task.describe()

    def tasks(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the known tasks, those of auto mode included."""
        with self.lock:
            known = [*self.world.tasks.values(), *self.world.fresh.values()]
            return [task.describe() for task in known if task_id is None or task.task_id == task_id]

    def add_fault(self, wanted: Any) -> dict[str, Any]:
        """Arm a fault; return it.

        Raises:
            NotValid: the description of the fault is not as documented.
        """
        FAULT.check(wanted)
        with self.lock:
            now = self.monotonic()
            armed = self.faults.arm(wanted, now).describe(now)
        self.on_change()
        return armed

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        with self.lock:
            count = self.faults.disarm(fault_id)
        self.on_change()
        return count

    def list_faults(self) -> list[dict[str, Any]]:
        """Return the armed faults."""
        with self.lock:
            now = self.monotonic()
            return [
                fault.describe(now)
                for fault in self.faults.faults
                if fault.ends_at is None or fault.ends_at > now
            ]

    def set_account(self, wanted: Any) -> dict[str, Any]:
        """Put an account into a state; return it, without its key.

        Raises:
            NotValid: the description of the account is not as documented.
        """
        ACCOUNT.check(wanted)
        with self.lock:
            account = fingerprint(wanted["clientKey"]) if "clientKey" in wanted else wanted["account"]
            self.world.accounts[account] = wanted["state"]
            return {"account": account, "state": wanted["state"]}

    def list_accounts(self) -> list[dict[str, Any]]:
        """Return the accounts that were given a state."""
        with self.lock:
            return [{"account": name, "state": state} for name, state in self.world.accounts.items()]

    def change_settings(self, wanted: Any) -> dict[str, Any]:
        """Change the settings that are named; return all.

        Raises:
            NotValid: a setting is not as documented.
        """
        SETTINGS.check(wanted)
        with self.lock:
            for name, value in wanted.items():
                setattr(self.settings, SETTING_NAMES[name], value)
            return self.list_settings()

    def list_settings(self) -> dict[str, Any]:
        """Return all settings."""
        with self.lock:
            return {name: getattr(self.settings, own) for name, own in SETTING_NAMES.items()}

    def log(
        self, since: int = 0, task_id: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return calls with a number above `since`, oldest first."""
        with self.lock:
            return self.journal.select(since, task_id, limit)

    def deliveries(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return how often each task was delivered and taken."""
        with self.lock:
            return self.journal.deliveries(task_id)

    def counters(self) -> dict[str, int]:
        """Return the counters."""
        with self.lock:
            return self.journal.counters()

    def judge_locked(self, method: str, facts: Facts, account: str) -> Judgement:
        """Apply the rules to a report; the caller holds the lock."""
        invent = self._invent if self.settings.magic else None
        judgement = self.world.judge(method, facts, account, self.now_s(), invent)
        if judgement.reason == "no_such_task" and facts.task_id is not None and self.settings.magic:
            effect = magic.look_up(facts.task_id)
            if effect is not None and effect.situation == "other_spelling":
                return judgement._replace(body=replies.error_body(16, replies.OTHER_SPELLING))
        return judgement

    def _invent(self, task_id: int, method: str, account: str, now_s: float) -> Task | None:
        effect = magic.look_up(task_id)
        if effect is not None and effect.situation is not None:
            if effect.situation in ("no_such_task", "other_spelling"):
                return None
            return magic.make_task(effect.situation, task_id, method, account, now_s, self.settings.window_s)
        if effect is not None or self.settings.auto:
            return self.world.make_fresh(task_id, method, account, now_s)
        return None


def _do_nothing() -> None:
    """Stand in for a listener that is not there yet."""
