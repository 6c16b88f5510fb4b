"""When a report may begin, by a second reading of the contract: pauses, probes and unproven keys.

A lower bound of what the bridges do: what opens a pause for certain is followed, the doubling is not. Fed by
`history.py` with what the disk has committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tests.simulation.network import Attempt
from tests.simulation.plan import KEYS

if TYPE_CHECKING:
    from tests.simulation.history import Story
    from tests.simulation.process import Process
    from tests.simulation.world import World

NEVER: Final = float("inf")
_DISPROVING: Final = frozenset({1, 10, 11, 21, 55})
"""Errors that do not prove a key."""


class Pause:
    """An open pause, as the contract has it: a lower bound of the bridge's own."""

    def __init__(self, rule: str, ends_at: float) -> None:
        self.rule = rule
        self.ends_at = ends_at
        self.probe: Story | None = None
        self.prober: Process | None = None
        """Who began it."""


# rule -> (seconds at first, what it is about)
RULES: Final[dict[str, tuple[float, str]]] = {
    "refused": (NEVER, "key"),
    "unauthorized": (600.0, "key"),
    "balance": (600.0, "key"),
    "not_allowed": (600.0, "key and machine"),
    "blocked": (1800.0, "machine"),
    "route": (60.0, "machine"),
    "rate": (60.0, "machine"),
    "withdrawn": (600.0, "method"),
    "quality": (600.0, "key and method"),
    "transport": (5.0, "machine"),
}


def event_of(attempt: Attempt) -> str | None:
    """The rule that the end of an attempt feeds, by the contract's table."""
    met = attempt.meaning
    if met is None:
        return "route" if attempt.failure == "certificate" else None
    if met.kind == "verdict":
        if met.code == "ERROR_RATE_LIMIT":
            return "rate"
        numbers = {
            1: "refused",
            55: "refused",
            10: "balance",
            11: "not_allowed",
            21: "blocked",
            14: "withdrawn",
            16: "quality",
        }
        return numbers.get(met.number)
    if met.kind == "nothing":
        return None
    if 300 <= met.number < 400:
        return "route"
    return {401: "unauthorized", 403: "blocked", 404: "withdrawn", 405: "withdrawn", 429: "rate"}.get(
        met.number
    )


class Pausing:
    """What holds attempts back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._proven: set[str] = set()
        self._flight: dict[str, dict[Story, Process]] = {key: {} for key in KEYS}
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._rates: dict[int, list[tuple[float, Story]]] = {}
        self._streaks: dict[tuple[str, str], int] = {}
        self._unsure: dict[tuple[str, str], float] = {}
        """Streaks of silence that are perhaps longer than is known here, and when they began here.

        No run is long enough for the end of any other pause to matter.
        """

    def end(self, process: Process) -> None:
        """A bridge has ended: what it had in flight holds nobody back."""
        for flight in self._flight.values():
            for story in [story for story, owner in flight.items() if owner is process]:
                del flight[story]
        for pause in self._pauses.values():
            if pause.prober is process:
                pause.probe = pause.prober = None

    def boot(self) -> None:
        """By the clock of another boot a pause may end otherwise."""
        for name in [name for name, pause in self._pauses.items() if pause.ends_at != NEVER]:
            del self._pauses[name]
        self._unsure.update(dict.fromkeys(self._streaks, NEVER))
        self._streaks.clear()
        self._rates.clear()

    def resume(self) -> None:
        """All may be probed, because somebody said so or nobody here knows better."""
        for pause in self._pauses.values():
            pause.ends_at = min(pause.ends_at, self._world.now)

    def prove(self, keys: Iterable[str]) -> None:
        """Keys are proven."""
        self._proven.update(keys)

    def leave(self, story: Story) -> None:
        """A report is in flight no more."""
        self._flight[story.key].pop(story, None)

    def release(self, story: Story) -> None:
        """A report probes nothing any more."""
        for pause in self._pauses.values():
            if pause.probe is story:
                pause.probe = None

    def _about(self, rule: str, process: Process, story: Story, method: str) -> str:
        about = RULES[rule][1]
        parts = {"key": story.key, "machine": str(process.machine), "method": method}
        return "/".join(parts[word] for word in about.split(" and "))

    def _method(self, story: Story) -> str:
        return story.row.method if story.row is not None else ""

    def begin(self, process: Process, story: Story) -> None:
        """An attempt is begun in the file: nothing may hold it back."""
        world, now, key = self._world, self._world.now, story.key
        flight = self._flight[key]
        if not world.plan.setup["pauses"]:
            return
        if key not in self._proven:
            others = [other for other in flight if other is not story]
            if others:
                world.break_rule(f"{story} begins while {others[0]} is in flight and the key is unproven")
        flight[story] = process
        for rule in RULES:
            pause = self._pauses.get((rule, self._about(rule, process, story, self._method(story))))
            if pause is None:
                continue
            if now < pause.ends_at - 0.02:
                world.break_rule(
                    f"{story} begins in {process.name} although {rule} pauses until {pause.ends_at:.3f}"
                )
            elif pause.probe is not None and pause.probe is not story:
                world.break_rule(
                    f"{story} begins in {process.name} beside {pause.probe}, which probes {rule}"
                )
            else:
                pause.probe, pause.prober = story, process

    def learn(self, process: Process, story: Story, is_truth: bool) -> None:
        """The end of an attempt is committed: what it teaches about pauses and the key."""
        attempts = [attempt for attempt in story.attempts if attempt.process is process]
        if not attempts or not self._world.plan.setup["pauses"]:
            return
        attempt = attempts[-1]
        if not is_truth:
            # What is learnt beside a silent ledger is told to it afterwards: streaks may have been broken, or
            # be longer than is known here, and a pause that is probed may be taken for a longer one.
            self._streaks[("quality", self._about("quality", process, story, attempt.method))] = 0
            name = ("transport", str(process.machine))
            self._streaks[name], self._unsure[name] = 0, NEVER
            self._pauses.pop(name, None)
            return
        met = attempt.meaning
        if met is not None and met.kind == "verdict" and met.number not in _DISPROVING:
            self._proven.add(story.key)
        self._count_transport(process, story, attempt)
        event = event_of(attempt)
        was_perhaps = story.crashes or any(
            other.is_perhaps for other in story.attempts if other is not attempt
        )
        for rule, (first_s, _) in RULES.items():
            name = (rule, self._about(rule, process, story, attempt.method))
            pause = self._pauses.get(name)
            feeds = event == rule and rule != "transport"
            if rule == "quality" and feeds and was_perhaps and (pause is None or pause.probe is not story):
                continue
            if pause is not None and pause.probe is story:
                del self._pauses[name]
                if feeds:
                    self._pauses[name] = Pause(rule, self._world.now + first_s)
                self._streaks[name] = 0
            elif pause is not None or rule == "transport":
                continue
            elif feeds and self._is_enough(process, story, rule, name):
                self._pauses[name] = Pause(rule, self._world.now + first_s)
                self._streaks[name] = 0
            elif not feeds and rule == "quality":
                self._streaks[name] = 0

    def _is_enough(self, process: Process, story: Story, rule: str, name: tuple[str, str]) -> bool:
        if rule == "rate":
            seen = [(at, other) for at, other in self._rates.get(process.machine, ()) if other is not story]
            seen = [(at, other) for at, other in seen if self._world.now - at < 59.9]
            self._rates[process.machine] = [*seen, (self._world.now, story)]
            is_enough = len(seen) >= 2
            if is_enough:
                self._rates[process.machine] = []
            return is_enough
        if rule == "quality":
            self._streaks[name] = self._streaks.get(name, 0) + 1
            return self._streaks[name] >= 10
        return True

    def _count_transport(self, process: Process, story: Story, attempt: Attempt) -> None:
        name = ("transport", str(process.machine))
        pause = self._pauses.get(name)
        silent = (
            attempt.meaning is None
            and not attempt.got_byte
            and attempt.failure not in ("certificate", "window")
        )
        if pause is not None:
            if pause.probe is story:
                del self._pauses[name]
                self._streaks[name] = 0
                if silent:
                    self._pauses[name] = Pause("transport", self._world.now + 5.0)
            return
        if not silent:
            self._streaks[name] = 0
            if attempt.meaning is None:
                # It may count all the same: of an answer that broke off, not every byte makes a status.
                self._unsure[name] = NEVER
            else:
                self._unsure.pop(name, None)
            return
        self._streaks[name] = self._streaks.get(name, 0) + 1
        if name in self._unsure:
            self._unsure[name] = min(self._unsure[name], self._world.now)
        if self._streaks[name] >= 5:
            self._pauses[name] = Pause("transport", self._unsure.pop(name, self._world.now) + 5.0)
            self._streaks[name] = 0
