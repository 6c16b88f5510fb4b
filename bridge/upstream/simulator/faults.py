"""The armed faults, and which of them breaks a call.

Guarded by its caller's lock; the time is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.upstream.simulator.fault_table import EARLY, FAULTS, FaultType


class Fault:
    """A fault that is armed."""

    __slots__ = ("ends_at", "fault_id", "method", "name", "params", "remaining", "skip", "task_id")

    def __init__(self, fault_id: int, wanted: Mapping[str, Any], now: float) -> None:
        """Arm a fault.

        Args:
            fault_id: number to name it by.
            wanted: a value that `FAULT` has accepted.
            now: monotonic seconds.
        """
        self.fault_id = fault_id
        self.name: str = wanted["fault"]
        self.params = {
            param: wanted.get(param, default) for param, (_, default) in FAULTS[self.name].params.items()
        }
        self.task_id: int | None = wanted.get("taskId")
        self.method: str | None = wanted.get("method")
        self.remaining: int | None = wanted.get("count")
        self.skip: int = wanted.get("skip", 0)
        length = wanted.get("forSeconds")
        self.ends_at: float | None = None if length is None else now + length

    @property
    def kind(self) -> FaultType:
        """The type of the fault."""
        return FAULTS[self.name]

    def describe(self, now: float) -> dict[str, Any]:
        """Return the fault as the control endpoint shows it."""
        return {
            "id": self.fault_id,
            "fault": self.name,
            **self.params,
            "taskId": self.task_id,
            "method": self.method,
            "remaining": self.remaining,
            "skip": self.skip,
            "endsInSeconds": None if self.ends_at is None else max(0.0, round(self.ends_at - now, 3)),
        }


class FaultBook:
    """The armed faults, and which of them breaks a call."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._last_id = 0

    def arm(self, wanted: Mapping[str, Any], now: float) -> Fault:
        """Arm a fault that `FAULT` has accepted."""
        self._last_id += 1
        fault = Fault(self._last_id, wanted, now)
        self.faults.append(fault)
        return fault

    def disarm(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        kept = [] if fault_id is None else [fault for fault in self.faults if fault.fault_id != fault_id]
        count = len(self.faults) - len(kept)
        self.faults = kept
        return count

    def pick(self, method: str, task_id: int | None, now: float) -> Fault | None:
        """Return the fault that breaks a call that was read: the most closely tied, then the oldest."""
        matching = []
        for fault in self._living(now):
            if fault.kind.is_global or (fault.task_id is not None and fault.task_id != task_id):
                continue
            if fault.method is not None and fault.method != method:
                continue
            rank = 2 * (fault.task_id is not None) + (fault.method is not None)
            if rank == 0 and fault.name in EARLY:
                continue  # had its turn before the call was read
            matching.append((-rank, fault.fault_id, fault))
        return self._use_first([fault for _, _, fault in sorted(matching, key=lambda row: row[:2])])

    def pick_early(self, now: float) -> Fault | None:
        """Return the fault that acts on a connection before anything of a request is read."""
        return self._use_first(
            [
                fault
                for fault in self._living(now)
                if fault.name in EARLY and fault.task_id is None and fault.method is None
            ]
        )

    def find(self, name: str, now: float) -> Fault | None:
        """Return the armed fault of a name, without using it."""
        for fault in self._living(now):
            if fault.name == name:
                return fault
        return None

    def _living(self, now: float) -> list[Fault]:
        if any(fault.ends_at is not None and fault.ends_at <= now for fault in self.faults):
            self.faults = [fault for fault in self.faults if fault.ends_at is None or fault.ends_at > now]
        return self.faults

    def _use_first(self, matching: list[Fault]) -> Fault | None:
        for fault in matching:
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.remaining is not None:
                fault.remaining -= 1
                if fault.remaining <= 0:
                    self.faults = [other for other in self.faults if other is not fault]
            return fault
        return None
