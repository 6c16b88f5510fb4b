"""Keeps the figures of the process in a file, in the Prometheus text format.

The file is replaced whole, so a reader never sees half of it. Holds counts and the names of rules, never a
key, a task or an account. Imported late by `bridge.app`, and only if the setting asks for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from bridge import __version__
from bridge.engine import Engine, NoResources

PERIOD_S: Final = 15.0
"""Time between two writes: Prometheus asks every 15 s to 60 s by habit."""
_PREFIX: Final = "report_bridge_"
_QUANTILES: Final = (("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99"))


class MetricsFile:
    """Writes a file every `PERIOD_S` seconds.

    Args:
        path: The file; its directory has to exist.
        read: Returns the result of ``bridge.status`` and ``latencySumMs`` beside it; may wait.
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
        self._started_wall: float | None = None
        self._is_failing = False

    def start(self) -> None:
        """Write now and from now on."""
        self._engine.spawn(self._keep)

    def close(self) -> None:
        """Write a last time, and stop."""
        self._is_ending = True
        self.write()

    def _keep(self) -> None:
        while not self._is_ending:
            self.write()
            self._engine.sleep(PERIOD_S)

    def write(self) -> None:
        """Write the figures as they are now; a failure is told, not raised."""
        figures, now = self._read(), self._engine.wall()
        if self._started_wall is None:
            # Once only: counted anew it would move with the clock, and look like a restart.
            self._started_wall = now - figures["uptimeSeconds"]
        text = render(figures, self._started_wall, now).encode("ascii")
        try:
            # On a thread, since nobody knows how long a disk takes.
            self._engine.run_in_thread(_replace, self._path, text, until=self._engine.now() + PERIOD_S)
        except (NoResources, TimeoutError):
            return  # the file's own time shows that it is old
        except OSError as error:
            if not self._is_failing:
                reason = error.strerror or type(error).__name__
                self._tell("metrics_unwritable", path=self._path, reason=reason)
            self._is_failing = True
        else:
            self._is_failing = False


def render(figures: Mapping[str, Any], started_wall: float, now_wall: float) -> str:
    """Return the text of the file.

    Args:
        figures: The result of ``bridge.status`` with ``latencySumMs``.
        started_wall: When the process started, UNIX seconds.
        now_wall: UNIX seconds.
    """
    families = _families(figures, round(started_wall, 3), round(now_wall, 3))
    return "".join(line + "\n" for family in families for line in family)


def _families(figures: Mapping[str, Any], started: float, written: float) -> Iterable[list[str]]:
    latency, ledger = figures["latencyMs"], figures["ledger"]
    sandbox = "true" if figures.get("sandbox") else "false"
    yield _family(
        "info", "gauge", "Version of the program.", [({"version": __version__, "sandbox": sandbox}, 1)]
    )
    yield _family("start_time_seconds", "gauge", "When the process started, UNIX time.", [({}, started)])
    yield _family("written_time_seconds", "gauge", "When this file was written, UNIX time.", [({}, written)])
    outcomes = [({"outcome": name}, count) for name, count in figures["outcomes"].items()]
    yield _family("reports_total", "counter", "Reports that ended, by outcome; replays left out.", outcomes)
    codes = [({"code": code}, count) for code, count in figures["codes"].items()]
    yield _family("errors_total", "counter", "Errors answered, by code; see docs/errors.md.", codes)
    yield _family("replays_total", "counter", "Answers that needed no send.", [({}, figures["replays"])])
    yield [
        *_head("attempt_seconds", "summary", "Length of an attempt; quantiles over the last 4096."),
        *(
            _sample("attempt_seconds", {"quantile": quantile}, latency[name] / 1000)
            for quantile, name in _QUANTILES
            if latency[name] is not None
        ),
        _sample("attempt_seconds_sum", {}, figures["latencySumMs"] / 1000),
        _sample("attempt_seconds_count", {}, latency["count"]),
    ]
    yield _family("in_flight", "gauge", "Attempts under way.", [({}, figures["inFlight"])])
    yield _family("queued", "gauge", "Reports with no attempt under way.", [({}, figures["queued"])])
    dropped = figures["droppedLogLines"]
    yield _family("log_lines_dropped_total", "counter", "Log lines that nobody read.", [({}, dropped)])
    yield _family("pauses", "gauge", "Pauses that are not closed.", _count_pauses(figures["pauses"]))
    advice: dict[str, int] = {}
    for one in figures["advice"]:
        advice[one["kind"]] = advice.get(one["kind"], 0) + 1
    counted = [({"kind": kind}, count) for kind, count in sorted(advice.items())]
    yield _family("advice", "gauge", "Accounts whose reports may be worth nothing, by kind.", counted)
    yield _family("ledger_healthy", "gauge", "1 if the ledger works.", [({}, int(ledger["healthy"]))])
    yield _family(
        "ledger_durable", "gauge", "1 if outcomes outlive the process.", [({}, int(ledger["durable"]))]
    )
    yield _family("ledger_owed", "gauge", "Outcomes not yet written to the ledger.", [({}, ledger["owed"])])


def _count_pauses(pauses: Iterable[Mapping[str, Any]]) -> list[tuple[dict[str, str], int]]:
    counts: dict[tuple[str, str, str], int] = {}
    for pause in pauses:
        key = (pause["scope"], pause["cause"] or "", pause["state"])
        counts[key] = counts.get(key, 0) + 1
    return [
        ({"scope": scope, "cause": cause, "state": state}, count)
        for (scope, cause, state), count in sorted(counts.items())
    ]


def _family(name: str, kind: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    return [*_head(name, kind, help), *(_sample(name, labels, value) for labels, value in samples)]


def _head(name: str, kind: str, help: str) -> list[str]:
    return [f"# HELP {_PREFIX}{name} {help}", f"# TYPE {_PREFIX}{name} {kind}"]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{_PREFIX}{name}{{{shown}}} {value!r}" if shown else f"{_PREFIX}{name} {value!r}"


def _escape(text: str) -> str:
    safe = text.encode("ascii", "backslashreplace").decode("ascii")
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _replace(path: str, data: bytes) -> None:
    # Not ending like the file itself, so that a collector of *.prom leaves it alone.
    draft = f"{path}.{os.getpid()}.draft"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    # Others may read it: the collector is another user, and there is no secret in it.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(draft, flags, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
