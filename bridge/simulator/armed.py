"""The armed faults, and which of them breaks a call. Has no clock: the time is handed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.simulator.faults import EARLY, FAULTS
from bridge.simulator.shapes import to_json


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
        self.is_early = self.fault in EARLY and self.task_id is None and self.method is None
        """True if it acts before anything of a request is read."""

    def describe(self, now: float) -> dict[str, Any]:
        """Return the fault as the control endpoint shows it."""
        left_s = None if self.ends_at is None else max(0.0, round(self.ends_at - now, 3))
        told = to_json(self, ("task_id", "method", "remaining", "skip"))
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


class ArmedFaults:
    """The armed faults, oldest first."""

    def __init__(self) -> None:
        self._armed: list[ArmedFault] = []
        self._last_id = 0

    def __bool__(self) -> bool:
        return bool(self._armed)

    def arm(self, wanted: Mapping[str, Any], now: float) -> ArmedFault:
        """Arm a fault that has the shape `FAULT`."""
        self._last_id += 1
        self._armed.append(ArmedFault(self._last_id, wanted, now))
        return self._armed[-1]

    def disarm(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        before = len(self._armed)
        self._armed = [fault for fault in self._armed if fault_id not in (None, fault.fault_id)]
        return before - len(self._armed)

    def living(self, now: float) -> list[ArmedFault]:
        """Return the faults that are not over."""
        self._armed = [fault for fault in self._armed if not fault.is_over(now)]
        return self._armed

    def pick(self, method: str, task_id: int | None, now: float) -> ArmedFault | None:
        """Return the fault that breaks a call that was read: the most closely tied, then the oldest."""
        matching = [
            fault
            for fault in self.living(now)
            if fault.task_id in (None, task_id) and fault.method in (None, method)
            if FAULTS[fault.fault].number and not fault.is_early  # those have had their turn
        ]
        matching.sort(key=lambda fault: (fault.task_id is None, fault.method is None))
        return next((fault for fault in matching if fault.use()), None)

    def pick_early(self, now: float) -> ArmedFault | None:
        """Return the fault that acts on a connection before anything of a request is read."""
        return next((fault for fault in self.living(now) if fault.is_early and fault.use()), None)

    def find(self, name: str, now: float) -> ArmedFault | None:
        """Return the armed fault of a name, without using it."""
        return next((fault for fault in self.living(now) if fault.fault == name), None)
