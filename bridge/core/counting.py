"""What is counted of an account, in which stretches of time, and the operations upon it. Values only.

The rows stay few: fine stretches are kept for an hour, hours for a day and one more. Imported by every layer.
"""

from __future__ import annotations

from operator import add as plus
from typing import Final, NamedTuple

from bridge.core import model
from bridge.core.model import Task

FINE_S: Final = 20
"""Length of a fine stretch: short enough to see a jump within 20 reports at 300,000 tasks a day."""
HOUR_S: Final = 3600
DAY_S: Final = 86_400
KEPT_S: Final = {FINE_S: HOUR_S, HOUR_S: DAY_S + HOUR_S}
"""Length of a stretch -> how long its counts are kept, in seconds."""


class Counts(NamedTuple):
    """Figures that only ever grow by addition, so that any number of bridges can count together."""

    tasks: int = 0
    """Solved tasks that were noted."""
    costed: int = 0
    """Those of them whose cost was told."""
    cost: float = 0.0
    """What they cost together, in the currency of the account."""
    wrong: int = 0
    """Complaints that the upstream took, or may have taken."""
    sent: int = 0
    """Reports that the upstream took, may have taken, or refused; praise too."""
    refused: int = 0
    """Those of them that met errorId 16."""
    late: int = 0
    """Reports that were not sent because their window was over."""


def add(one: Counts, other: Counts) -> Counts:
    """Both together."""
    return Counts._make(map(plus, one, other))


class Tally(NamedTuple):
    """What was counted of an account in one stretch of the timeline."""

    subject: str
    """What the tasks are about: a subject of ``schemas/methods.json``."""
    width_s: int
    at: float
    """When the stretch begins."""
    counts: Counts


class Figure(NamedTuple):
    """Solved tasks of one hour, as the upstream's own statistics tell them."""

    queue: str
    """Name of a queue; empty for all of them together."""
    at: float
    """When the hour begins on the timeline; not a full one."""
    tasks: int


class Note(NamedTuple):
    """Count solved tasks. Result: None."""

    task: Task
    """Names the account; its task id is 0."""
    subject: str
    at: float
    counts: Counts


class Consult(NamedTuple):
    """Take the right to ask for an account's figures now.

    Result: True if nobody took it for so long, and nothing is paused.
    """

    task: Task
    every_s: float


class Learn(NamedTuple):
    """Keep an account's figures of one queue in place of older ones. Result: None."""

    task: Task
    queue: str
    figures: tuple[Figure, ...]


class Tallies(NamedTuple):
    """Read what was counted in the last day. Result: a tuple of `Tallied`."""

    endpoint: str
    account: str | None
    """None: the accounts with most reports."""


class Tallied(NamedTuple):
    """What is known of one account."""

    task: Task
    tallies: tuple[Tally, ...]
    figures: tuple[Figure, ...] = ()


Operation = model.Operation | Note | Consult | Learn | Tallies
"""Everything that a ledger can be asked to do."""
