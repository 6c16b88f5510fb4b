"""Who may begin next: slots for attempts, reports ready for one, reports that wait for another.

A data structure, no decisions: the earliest window end goes first, in both queues.
Thread safety: none; the service's lock guards it.
"""

from __future__ import annotations

import heapq
from itertools import count

from bridge.reports import window as windows
from bridge.reports.flight import GATED, READY, Flight


class Runway:
    """Slots and the two queues in front of them.

    Args:
        slots: Most attempts at one time.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._ready: list[tuple[float, int, Flight]] = []
        self._gated: list[tuple[float, int, Flight]] = []
        self._order = count()

    @property
    def has_gated(self) -> bool:
        """True if reports wait for another one (some of them may have gone meanwhile)."""
        return bool(self._gated)

    def take_slot(self, flight: Flight) -> bool:
        """Give a slot to a newcomer, unless none is free or others are ready before it."""
        if self._free <= 0 or self._ready:
            return False
        self._free -= 1
        flight.slot = True
        return True

    def give_back(self, flight: Flight) -> None:
        """Take the slot of a report back; harmless if it has none."""
        if flight.slot:
            flight.slot = False
            self._free += 1

    def queue(self, flight: Flight) -> None:
        """Let a report wait for a slot."""
        flight.phase = READY
        self._push(self._ready, flight)

    def next_ready(self) -> Flight | None:
        """Give a slot to the ready report whose window ends first; None if there is no slot or none waits."""
        while self._free > 0 and self._ready:
            flight = heapq.heappop(self._ready)[2]
            if flight.phase == READY:
                self._free -= 1
                flight.slot = True
                return flight
        return None

    def gate(self, flight: Flight) -> None:
        """Let a report wait for the end of another one's attempt."""
        flight.phase = GATED
        self._push(self._gated, flight)

    def next_gated(self) -> Flight | None:
        """Take out the gated report whose window ends first."""
        while self._gated:
            flight = heapq.heappop(self._gated)[2]
            if flight.phase == GATED:
                return flight
        return None

    def _push(self, heap: list[tuple[float, int, Flight]], flight: Flight) -> None:
        ends = windows.ends_at(flight.window, flight.has_begun)
        heapq.heappush(heap, (ends, next(self._order), flight))


class Roster:
    """Which flights a request's name is waiting for. Thread safety: none; the service's lock guards it."""

    def __init__(self) -> None:
        self._flights: dict[object, list[Flight]] = {}

    def add(self, name: object | None, flight: Flight) -> None:
        """Note that a request of this name waits for the flight; None is no name."""
        if name is not None:
            self._flights.setdefault(name, []).append(flight)

    def remove(self, name: object | None, flight: Flight) -> None:
        """Undo one `add`."""
        found = self._flights.get(name)
        if found is not None:
            found.remove(flight)
            if not found:
                del self._flights[name]

    def find(self, name: object) -> tuple[Flight, ...]:
        """The flights that requests of this name wait for."""
        return tuple(dict.fromkeys(self._flights.get(name, ())))
