"""What happens to the process from outside: signals, and the end of its parent.

Turns each into one call; decides nothing about reports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

from bridge.engine import Engine

PARENT_LOOK_S: Final = 1.0
"""How often the parent is looked at; its end must be noticed within 5 s."""


class Signals:
    """What signals mean while serving.

    Args:
        stop: Called at the first signal that ends the service, with its number.
        ignored: Called once when a SIGINT is left to the parent.
        on_terminal: True if a person at a terminal sends SIGINT.

    The second ending signal ends the process at once with 128 plus its number.
    """

    def __init__(
        self, engine: Engine, stop: Callable[[int], object], ignored: Callable[[], object], on_terminal: bool
    ) -> None:
        self._engine = engine
        self._stop = stop
        self._ignored = ignored
        self._spares_interrupt = not on_terminal
        self.stopped_by: int | None = None

    def install(self) -> None:
        """Listen from now on; a SIGHUP that the parent ignores (nohup) stays ignored."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._engine.on_signal(number, self._on_signal)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT and self._spares_interrupt and self.stopped_by is None:
            self._spares_interrupt = False
            self._ignored()
            return
        if self.stopped_by is not None:
            os._exit(128 + number)
        self.stopped_by = number
        self._stop(number)


def watch_parent(engine: Engine, on_gone: Callable[[], object]) -> bool:
    """Call `on_gone` once when the process that started us has ended.

    Returns:
        False if there is no parent to watch: it is process 0 or 1 already.
    """
    parent = os.getppid()
    if parent in (0, 1):
        return False

    def watch() -> None:
        while os.getppid() == parent:
            engine.sleep(PARENT_LOOK_S)
        on_gone()

    engine.spawn(watch)
    return True
