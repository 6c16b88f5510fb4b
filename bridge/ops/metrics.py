"""Counts and latencies since the process started, for the status, and the file that shows them to Prometheus.

The file is replaced whole, so a reader never sees half of it. Holds counts and the names of rules, never a
key, a task or an account.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bridge import __version__
from bridge.core.model import OUTCOMES
from bridge.engine import Engine, NoResources
from bridge.ops.process import put_file

_REMEMBERED: Final = 4096
"""Latencies kept for the quantiles: the last ones, since what holds now is asked for."""

PERIOD_S: Final = 15.0
"""Time between two writes: Prometheus asks every 15 s to 60 s by habit."""
_PREFIX: Final = "report_bridge_"
_Family = tuple[str, str, str, Mapping[str, float]]
"""Name, type, help, and values by what follows the name: labels, or the end of a summary's names."""
_QUANTILES: Final = (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))


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

    def read(self, name: str, fields: Mapping[str, Any]) -> None:
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


class MetricsFile:
    """Writes a file every `PERIOD_S` seconds.

    Args:
        path: The file; its directory has to exist.
        read: Returns what `render` is to show; may wait.
        tell: Takes name and fields of the event that the file cannot be written, once until it can be again.
    """

    def __init__(
        self, engine: Engine, path: str, read: Callable[[], Mapping[str, Any]], tell: Callable[..., None]
    ) -> None:
        self._engine = engine
        self._path = path
        self._read = read
        self._tell = tell
        self._is_ending = False
        self._is_failing = False

    def keep(self) -> None:
        """Write now and from now on."""
        while not self._is_ending:
            self.write()
            self._engine.sleep(PERIOD_S)

    def close(self) -> None:
        """Write a last time, and stop."""
        self._is_ending = True
        self.write()

    def write(self) -> None:
        """Write the figures as they are now; a failure is told, not raised."""
        text = render(self._read(), self._engine.wall()).encode("ascii")
        try:
            # On a thread, since nobody knows how long a disk takes.
            self._engine.run_in_thread(put_file, self._path, text, until=self._engine.now() + PERIOD_S)
        except (NoResources, TimeoutError):
            return  # the file's own time shows that it is old
        except OSError as error:
            if not self._is_failing:
                reason = error.strerror or type(error).__name__
                self._tell("metrics_unwritable", {"path": self._path, "reason": reason})
            self._is_failing = True
        else:
            self._is_failing = False


def render(figures: Mapping[str, Any], now_wall: float) -> str:
    """Return the text of the file.

    Args:
        figures: The result of ``bridge.status`` with ``latencySumMs`` and ``startedWall``, UNIX seconds.
        now_wall: UNIX seconds.
    """
    return "".join(
        f"# HELP {_PREFIX}{name} {help}\n# TYPE {_PREFIX}{name} {kind}\n"
        + "".join(f"{_PREFIX}{name}{series} {value!r}\n" for series, value in samples.items())
        for name, kind, help, samples in _families(figures, round(now_wall, 3))
    )


def _families(figures: Mapping[str, Any], written: float) -> Iterable[_Family]:
    info = _labels(version=__version__, sandbox="true" if figures.get("sandbox") else "false")
    yield "info", "gauge", "Version of the program.", {info: 1}
    # Counted anew from the uptime it would move with the clock, and look like a restart.
    started = round(figures["startedWall"], 3)
    yield "start_time_seconds", "gauge", "When the process started, UNIX time.", {"": started}
    yield "written_time_seconds", "gauge", "When this file was written, UNIX time.", {"": written}
    outcomes = {_labels(outcome=name): count for name, count in figures["outcomes"].items()}
    yield "reports_total", "counter", "Reports that ended, by outcome; replays left out.", outcomes
    codes = {_labels(code=code): count for code, count in figures["codes"].items()}
    yield "errors_total", "counter", "Errors answered, by code; see docs/errors.md.", codes
    yield "replays_total", "counter", "Answers that needed no send.", {"": figures["replays"]}
    latency = figures["latencyMs"]
    known = [(quantile, latency[name]) for quantile, name in _QUANTILES if latency[name] is not None]
    attempts = {_labels(quantile=quantile): value / 1000 for quantile, value in known}
    attempts |= {"_sum": figures["latencySumMs"] / 1000, "_count": latency["count"]}
    yield "attempt_seconds", "summary", "Length of an attempt; quantiles over the last 4096.", attempts
    yield "in_flight", "gauge", "Attempts under way.", {"": figures["inFlight"]}
    yield "queued", "gauge", "Reports with no attempt under way.", {"": figures["queued"]}
    dropped = figures["droppedLogLines"]
    yield "log_lines_dropped_total", "counter", "Log lines that nobody read.", {"": dropped}
    pauses = Counter(
        _labels(scope=pause["scope"], cause=pause["cause"] or "", state=pause["state"])
        for pause in figures["pauses"]
    )
    yield "pauses", "gauge", "Pauses that are not closed.", dict(sorted(pauses.items()))
    advice = Counter(_labels(kind=one["kind"]) for one in figures["advice"])
    told = "Accounts whose reports may be worth nothing, by kind."
    yield "advice", "gauge", told, dict(sorted(advice.items()))
    ledger = figures["ledger"]
    yield "ledger_healthy", "gauge", "1 if the ledger works.", {"": int(ledger["healthy"])}
    yield "ledger_durable", "gauge", "1 if outcomes outlive the process.", {"": int(ledger["durable"])}
    yield "ledger_owed", "gauge", "Outcomes not yet written to the ledger.", {"": ledger["owed"]}


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items()) + "}"


def _escape(text: str) -> str:
    safe = text.encode("ascii", "backslashreplace").decode("ascii")
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
