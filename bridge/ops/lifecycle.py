"""The life of the process: signals, the parent, and what must not outlive it.

Turns what happens to the process into one call each; decides nothing about reports.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

PARENT_LOOK_S: Final = 1.0
"""How often the parent is looked at; its end must be noticed within 5 s."""

_COLLECT_EVERY: Final = 10_000
"""Objects made and not freed between two looks for cycles: those of some hundred reports in flight."""


class Signals:
    """What signals mean while serving.

    Args:
        stop: Called at the first signal that ends the service, with its number.
        ignored: Called once when a SIGINT is left to the parent.
        on_terminal: True if a person at a terminal sends SIGINT.

    The second ending signal ends the process at once with 128 plus its number.
    """

    def __init__(self, stop: Callable[[int], None], ignored: Callable[[], None], on_terminal: bool) -> None:
        self._stop = stop
        self._ignored = ignored
        self._on_terminal = on_terminal
        self._interrupts = 0
        self.stopped_by: int | None = None

    def install(self, wake_fd: int) -> None:
        """Listen; must be called in the main thread.

        Args:
            wake_fd: Non-blocking descriptor that a signal writes to, so that a poll returns.
        """
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            number = getattr(signal, name, None)
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                signal.signal(number, self._on_signal)
        if hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT and not self._on_terminal and self.stopped_by is None:
            self._interrupts += 1
            if self._interrupts == 1:
                self._ignored()
                return
        if self.stopped_by is not None:
            os._exit(128 + number)
        self.stopped_by = number
        self._stop(number)


def watch_parent(on_gone: Callable[[], None]) -> bool:
    """Call `on_gone` once when the process that started us has ended.

    Returns:
        False if there is no parent to watch: it is process 0 or 1 already.
    """
    parent = os.getppid()
    if parent in (0, 1):
        return False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_LOOK_S)
        on_gone()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    return True


def calm_collector() -> None:
    """Let the garbage collector pass over what will stay, and come more rarely.

    A report leaves no cycles behind; at its default the collector takes a tenth of the time of each.
    """
    import gc

    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)


def forbid_core_dumps() -> None:
    """Keep memory, and with it keys, out of core files. Best effort where the system has no such limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass


def forbid_piped_core_dumps() -> None:
    """Keep memory also from core handlers that ignore the limit (Linux). Best effort; costs an import."""
    try:
        import ctypes

        pr_set_dumpable: Final = 4
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_dumpable, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError, TypeError):
        pass
