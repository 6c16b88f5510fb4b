"""Reports that wait for another one's attempt, and when they ask again.

An attempt of this bridge wakes them when it ends; one of another bridge is polled for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.reports.agenda import Agenda
from bridge.reports.flight import Flight
from bridge.reports.runway import Runway

POLL_S: Final = 0.25
"""How often the first report that waits for another bridge's probe asks again."""


class Gates:
    """The gated reports of a runway.

    Args:
        now: Seconds on the timeline of the agenda.
        ready: Lets a report ask again.

    Thread safety: none; the service's lock guards it.
    """

    def __init__(
        self, runway: Runway, agenda: Agenda, now: Callable[[], float], ready: Callable[[Flight], None]
    ) -> None:
        self._runway = runway
        self._agenda = agenda
        self._now = now
        self._ready = ready
        self._polling = False

    def hold(self, flight: Flight) -> None:
        """Let a report wait for the end of another one's attempt."""
        self._runway.gate(flight)
        self._poll_later()

    def wake(self, everyone: bool) -> None:
        """Let gated reports ask again: all, or the one whose window ends first."""
        while (flight := self._runway.next_gated()) is not None:
            self._ready(flight)
            if not everyone:
                return

    def _poll_later(self) -> None:
        if not self._polling and self._runway.has_gated:
            self._polling = True
            self._agenda.add(self._now() + POLL_S, self._poll)

    def _poll(self) -> None:
        self._polling = False
        self.wake(everyone=False)
        self._poll_later()
