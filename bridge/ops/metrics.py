"""Counts and latencies since the process started: one reader of the events, asked by the status."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

from bridge.core.model import OUTCOMES

_REMEMBERED: Final = 4096
"""Latencies kept for the quantiles: the last ones, since what holds now is asked for."""


class Metrics:
    """Reads events and keeps figures."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._latencies_ms: deque[int] = deque(maxlen=_REMEMBERED)
        self._latency_count = 0
        self.latency_sum_ms = 0
        """Milliseconds of all attempts together."""
        self._replays = 0

    def read(self, name: str, fields: dict[str, Any]) -> None:
        """Take note of an event; those that are not counted are ignored."""
        if name == "report_settled" and fields["replayed"]:
            self._replays += 1
        elif name == "report_settled":
            self._outcomes[fields["outcome"]] += 1
            if fields["code"]:
                self._codes[str(fields["code"])] += 1
        elif name == "report_conflict":
            self._codes["-32011"] += 1
        elif name == "attempt_done":
            self._latency_count += 1
            self.latency_sum_ms += fields["latency_ms"]
            self._latencies_ms.append(fields["latency_ms"])

    def figures(self) -> dict[str, Any]:
        """Return the members of ``bridge.status`` that are counted here."""
        latencies = sorted(self._latencies_ms)
        return {
            "outcomes": {name: self._outcomes[name] for name in OUTCOMES},
            "codes": dict(sorted(self._codes.items())),
            "replays": self._replays,
            "latencyMs": {
                "count": self._latency_count,
                **{f"p{percent}": _quantile(latencies, percent) for percent in (50, 95, 99)},
            },
        }


def _quantile(ordered: list[int], percent: int) -> int | None:
    """The smallest value that at least this share of the values do not exceed."""
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else None
