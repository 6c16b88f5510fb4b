"""What nobody asks for: taking up what dead bridges left behind, and deleting what is old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.core.model import GUARD_S, HISTORY_S, Prune, Row, Sweep, Swept
from bridge.core.redact import Secret
from bridge.reports.observer import Observer
from bridge.reports.ports import Ports

SWEEP_S: Final = 1.0
"""How often reports of dead bridges are looked for."""
PRUNE_STEP: Final = 500
"""Reports deleted at once, so that nobody waits long for the ledger."""
PRUNE_PAUSE_S: Final = 5.0
PRUNE_S: Final = 3600.0
"""How often old reports are looked for."""


class Recovery:
    """Looks after a ledger, beside the reports.

    Args:
        lasts: The ledger outlasts the process, so others may have left something there.
        take_over: Goes on with a report that is ours now.
    """

    def __init__(
        self, ports: Ports, observer: Observer, lasts: bool, take_over: Callable[[Row], None]
    ) -> None:
        self._ports = ports
        self._engine = ports.engine
        self._observer = observer
        self._lasts = lasts
        self._take_over = take_over
        self.keys: dict[str, Secret] = {}
        """Keys by account: the reports of these accounts can be taken up."""
        self.is_stopped = False

    def start(self) -> None:
        """Begin."""
        if self._lasts:
            self._engine.spawn(self._sweep)
        self._engine.spawn(self._prune)

    def _sweep(self) -> None:
        while not self.is_stopped:
            swept = self._ports.ledger.call(Sweep(self._ports.endpoint, frozenset(self.keys)))
            if isinstance(swept, Swept):
                for row in swept.adopted:
                    self._go_on(row)
                for row in swept.settled:
                    self._observer.tell("report_abandoned", row, outcome=row.outcome)
            self._engine.sleep(SWEEP_S)

    def _go_on(self, row: Row) -> None:
        """Take a report over; who has stopped meanwhile leaves it to the next bridge."""
        if not self.is_stopped:
            self._take_over(row)

    def _prune(self) -> None:
        """Delete reports that are older than anybody may ask for, in small steps."""
        # In memory they are kept as long as they guard against duplicates.
        age_s = HISTORY_S if self._lasts else GUARD_S
        self._engine.sleep(PRUNE_PAUSE_S)
        while not self.is_stopped:
            deleted = self._ports.ledger.call(Prune(self._engine.wall() - age_s, PRUNE_STEP))
            self._engine.sleep(PRUNE_PAUSE_S if deleted == PRUNE_STEP else PRUNE_S)
