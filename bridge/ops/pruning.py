"""Forgetting reports that are old enough, in small steps beside the service.

Decides only when and how much; the ledger never deletes what still guards its task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.core.model import Prune

KEEP_S: Final = 90 * 86_400.0
"""How long history is kept."""
STEP: Final = 200
"""Reports per step: some 10 ms of the ledger's time, so a report that waits behind it hardly notices."""
SOON_S: Final = 0.2
"""Pause between two steps while there is more to delete."""
LATER_S: Final = 6 * 3600.0
"""Pause once nothing is left to delete."""


def prune_step(
    submit: Callable[[Prune, Callable[[Any], None]], None],
    wall: Callable[[], float],
    again: Callable[[float], None],
) -> None:
    """Delete a few old reports, then say when to come back.

    Args:
        submit: hands an operation to the ledger; the callback gets its result.
        wall: UNIX seconds.
        again: called once with the seconds until the next step; also if the ledger could not do it.
    """

    def on_result(deleted: Any) -> None:
        again(SOON_S if deleted == STEP else LATER_S)

    submit(Prune(wall() - KEEP_S, STEP), on_result)
