"""The thread beside a PostgreSQL ledger: it shows that the bridge lives, and brings a lost session back.

The server ends a session that says nothing for `IDLE_S`: that is how neighbours learn of a bridge that
froze or vanished. Nobody's report waits for a connection to be made. Imported by `postgres` only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

IDLE_S: Final = 3.5
"""The server ends a session that is silent for so long. Three beats and a half: one may be late."""
BEAT_S: Final = 1.0
"""Silence after which the thread says something."""
RETRY_FIRST_S: Final = 0.05
RETRY_MOST_S: Final = 1.0
"""Longest wait between two tries to connect; shorter than the grace that neighbours give, so that a bridge
that lives keeps its reports when a server restarts. A thousand tries a second of a fleet of five hundred
cost a server that is up less than the reports do."""


class Pulse:
    """Runs a beat while there is a session, and a try to connect while there is none.

    Args:
        beat: does what is due; True if there is a session.
        connect: tries to come back; True if there is a session now.
    """

    def __init__(self, beat: Callable[[], bool], connect: Callable[[], bool]) -> None:
        self._beat = beat
        self._connect = connect
        self._wake = Event()
        self._is_over = False
        self._thread = Thread(target=self._run, name="ledger-pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hurry(self) -> None:
        """The session is lost: try to come back now."""
        self._wake.set()

    def stop(self) -> None:
        """End soon; a try to connect that is under way is not waited for."""
        self._is_over = True
        self._wake.set()

    def _run(self) -> None:
        retry_s = RETRY_FIRST_S
        while not self._is_over:
            if self._beat():
                self._wake.wait(BEAT_S)
                retry_s = RETRY_FIRST_S
            elif not self._connect():
                # Not all at the same moment.
                self._wake.wait(retry_s * random.uniform(0.5, 1.0))
                retry_s = min(retry_s * 2, RETRY_MOST_S)
            self._wake.clear()
