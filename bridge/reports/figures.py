"""Asks the upstream how many tasks an account has solved: seldom, never in the way, and only if it is set.

One read-only call an hour and account, whatever number of bridges shares the ledger; none while anything is
paused, or before a report has reached the upstream. What fails is told in the status, and opens no pause.
Source: https://anti-captcha.com/apidoc/methods/getSpendingStats. Imported late by the app.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.counting import DAY_S, HOUR_S, Consult, Figure, Learn, Tallied, Tallies
from bridge.core.model import Exchange, Task
from bridge.core.redact import Secret
from bridge.reports.ports import Part, Ports
from bridge.reports.verdict import clean_text

LOOK_S: Final = 60.0
"""How often it is looked whether an account may be asked about; chance adds up to as much, so that bridges do
not ask together."""
_FAR_S: Final = 1e12
"""Times beyond are none."""
_MOST: Final = 10**9
"""Tasks an hour beyond are none; no account solves so many, and sums of absurd numbers have no end."""

Ask = Callable[[Secret, int, str], Exchange]
"""Makes the call: key, UNIX time of the first hour, and name of a queue or nothing."""


class AccountFigures(Part):
    """Keeps the ledger's figures of accounts fresh.

    Args:
        keys: the keys that are known, by account.
    """

    def __init__(self, ports: Ports, ask: Ask, keys: Mapping[str, Secret]) -> None:
        super().__init__(ports)
        self._ask_upstream = ask
        self._keys = keys
        # Without names the totals of all queues are asked for.
        self._queues = ports.queues or ("",)
        self.asked_wall: float | None = None
        """When the upstream was asked last, UNIX time."""
        self.failure: str | None = None
        """Why the last call told nothing; None if it did."""

    def run(self) -> None:
        """Ask again and again, as long as the ledger lets it."""
        while True:
            self._engine.sleep(LOOK_S * (1.0 + self._engine.chance()))
            for account, key in tuple(self._keys.items()):
                self._consider(account, key)

    def _consider(self, account: str, key: Secret) -> None:
        """Ask about an account, unless it is not the time or not our turn."""
        task = Task(self._ports.endpoint, account, 0)
        known = self._ledger.call(Tallies(self._ports.endpoint, account))
        if not any(row.counts.sent for one in known if isinstance(one, Tallied) for row in one.tallies):
            return
        if self._ledger.call(Consult(task, float(HOUR_S))) is not True:
            return
        # One call an hour: of several queues the one that was asked about longest ago.
        asked = {figure.queue: figure.at for one in known for figure in one.figures if not figure.tasks}
        queue = min(self._queues, key=lambda name: asked.get(name, 0.0))
        self.asked_wall = self._engine.wall()
        try:
            exchange = self._ask_upstream(key, int(self.asked_wall) - DAY_S, queue)
        except (OSError, ImportError):
            self.failure = "this machine lacked the means"
            return
        to_timeline = self._ledger.now() - self._engine.wall()
        found = read_answer(exchange, queue, to_timeline)
        if isinstance(found, str):
            self.failure = clean_text(found, self._ports.scrubber.scrub)
        else:
            self.failure = None
            # An hour without tasks at the end shows when it was asked, also if there were none at all.
            self._ledger.call(Learn(task, queue, (*found, Figure(queue, self._ledger.now() - HOUR_S, 0))))


def read_answer(exchange: Exchange, queue: str, to_timeline: float) -> tuple[Figure, ...] | str:
    """The figures in an answer, or why there are none. Numbers may be written as texts.

    Args:
        to_timeline: what makes a moment of the timeline of UNIX time.
    """
    if exchange.failure is not None:
        return f"the upstream was not reached ({exchange.failure})"
    try:
        answer: dict[str, Any] = json.loads(exchange.body)
        if int(answer["errorId"]):
            return f"the upstream refused ({answer.get('errorCode')})"
        hours: list[dict[str, Any]] = answer["data"][-48:]
        figures = [
            Figure(queue, float(hour["dateFrom"]) + to_timeline, int(float(hour["volume"]))) for hour in hours
        ]
        if not all(abs(figure.at) < _FAR_S and 0 <= figure.tasks <= _MOST for figure in figures):
            raise ValueError
        return tuple(figure for figure in figures if figure.tasks)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return "the answer could not be understood"
