"""Turns samples into medians, ratios, targets and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from bench.load import Sample

MAIN: Final = "64 in flight, 20 ms"
ALONE: Final = "1 in flight, 0 ms"
WIDE: Final = "256 in flight, 20 ms"
TLS: Final = "https, 64 in flight, 20 ms"
FRESH: Final = "a new https connection each"
SYNC: Final = "a sync takes 2 ms, 64 in flight, 0 ms"
FLEET: Final = "64 in flight, 20 ms, fleet"
ROWS: Final = "64 in flight, 20 ms, big ledger"
BASE: Final = "requests.Session"

Samples = Mapping[str, Sequence[Sample]]


class Results(NamedTuple):
    """What a run found."""

    samples: Mapping[str, Samples]
    figures: Mapping[str, float]

    def ratio(
        self, group: str, one: str, other: str, what: str, other_group: str | None = None
    ) -> float | None:
        """Return the median over the rounds of one contestant's figure to another's."""
        ones = self.samples.get(group, {}).get(one)
        others = self.samples.get(other_group or group, {}).get(other)
        if not ones or not others:
            return None
        pairs = [(getattr(a, what), getattr(b, what)) for a, b in zip(ones, others, strict=False)]
        return median(a / b for a, b in pairs if b) if any(b for _, b in pairs) else None


class Target(NamedTuple):
    """One row of the table of targets."""

    what: str
    sign: str
    bound: float
    find: Callable[[Results], float | None]
    unit: str = "x"
    wanted: float | None = None
    """What would be better still."""


def _ratio(group: str, one: str, other: str, what: str, other_group: str | None = None) -> Any:
    return lambda results: results.ratio(group, one, other, what, other_group)


def _figure(name: str) -> Any:
    return lambda results: results.figures.get(name)


AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"
TARGETS: Final = (
    Target(
        "instructions a report, thousands",
        AT_MOST,
        550,
        _figure("instructions a report, thousands"),
        wanted=350,
    ),
    Target(
        "throughput, 64 in flight, 20 ms: to the latency bound",
        AT_LEAST,
        0.85,
        _ratio(MAIN, "bridge", "latency bound", "per_second"),
        wanted=0.95,
    ),
    Target(
        "throughput, 256 in flight, 20 ms: to the latency bound",
        AT_LEAST,
        0.50,
        _ratio(WIDE, "bridge", "latency bound", "per_second"),
        wanted=0.70,
    ),
    Target(
        "throughput, 64 in flight, 20 ms: to the official Python client called directly",
        AT_LEAST,
        2.0,
        _ratio(MAIN, "bridge", "official Python client", "per_second"),
    ),
    Target(
        "the same to the official npm client called directly",
        AT_LEAST,
        1.2,
        _ratio(MAIN, "bridge", "official npm client", "per_second"),
    ),
    Target(
        "CPU per report, 64 in flight, to direct `requests.Session`",
        AT_MOST,
        0.25,
        _ratio(MAIN, "bridge", BASE, "cpu_us"),
        wanted=0.15,
    ),
    Target(
        "p50 latency, 1 in flight, 0 ms, to direct `requests.Session`",
        AT_MOST,
        1.5,
        _ratio(ALONE, "bridge", BASE, "p50_ms"),
        wanted=1.0,
    ),
    Target(
        "p99 latency, 64 in flight, to direct `requests.Session`",
        AT_MOST,
        0.30,
        _ratio(MAIN, "bridge", BASE, "p99_ms"),
        wanted=0.24,
    ),
    Target(
        'spawn to first report, to `python -c "import requests"`',
        AT_MOST,
        1.8,
        _figure("start: first report to import, ratio"),
    ),
    Target(
        "spawn to first `bridge.info`, to the same",
        AT_MOST,
        1.0,
        _figure("start: bridge.info to import, ratio"),
    ),
    Target(
        "the same, the worst Python to the best",
        AT_MOST,
        1.2,
        _figure("start: worst Python to best"),
    ),
    Target(
        "30 bridges started at once on one ledger: slowest first answer",
        AT_MOST,
        5,
        _figure("30 bridges started at once: slowest first answer, s"),
        "s",
    ),
    Target(
        "peak memory with 64 in flight", AT_MOST, 60, _figure(f"{MAIN}: peak MB, bridge"), "MB", wanted=45
    ),
    Target(
        "throughput, https against http, kept alive, 64 in flight, 20 ms",
        AT_LEAST,
        0.9,
        _ratio(TLS, "bridge, https", "bridge, http", "per_second"),
    ),
    Target(
        "CPU of a new https connection, to stock requests",
        AT_MOST,
        0.10,
        _ratio(FRESH, "bridge's client", "requests, a new Session each", "cpu_us"),
    ),
    Target(
        "disk that syncs in 2 ms, 64 in flight: group commit to a commit each",
        AT_LEAST,
        5.0,
        _ratio(SYNC, "bridge, group commit", "bridge, a commit each", "per_second"),
    ),
    Target("end of input with 64 in flight: answers lost", AT_MOST, 0, _figure("end: answers lost"), ""),
    Target(
        "end of input: exit after the last answer",
        AT_MOST,
        50,
        _figure("end: exit after the last answer, ms"),
        "ms",
    ),
    Target(
        "a Node bot's own CPU per report through our client, to the official npm client",
        AT_MOST,
        0.15,
        _ratio(MAIN, "through the Node client", "official npm client", "cpu_us"),
    ),
    Target(
        "1,000,000 rows against an empty ledger, CPU per report",
        AT_MOST,
        1.1,
        _ratio(ROWS, "bridge, 1,000,000 rows", "bridge, empty ledger", "cpu_us"),
        wanted=1.0,
    ),
    Target(
        "ledger on PostgreSQL against one in a file, throughput, 64 in flight",
        AT_LEAST,
        0.7,
        _ratio(FLEET, "ledger on PostgreSQL", "ledger in a file", "per_second"),
        wanted=1.0,
    ),
)
"""What the bridge is held to, each as a ratio inside one run where that makes sense."""


def judge(results: Results) -> list[dict[str, Any]]:
    """Hold the results against the targets; `met` is None where there is no figure."""
    rows = []
    for target in TARGETS:
        value = target.find(results)
        met = None
        if value is not None:
            met = value >= target.bound if target.sign == AT_LEAST else value <= target.bound
        row = {"what": target.what, "value": value, "target": f"{target.sign} {target.bound:g}", "met": met}
        rows.append({**row, "wanted": target.wanted, "unit": target.unit})
    return rows


def summarise(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians of every contestant of every group."""
    return {
        group: {
            name: {
                "perSecond": median(s.per_second for s in found),
                "cpuUs": median(s.cpu_us for s in found),
                "p50Ms": median(s.p50_ms for s in found),
                "p99Ms": median(s.p99_ms for s in found),
                "failed": sum(s.failed for s in found),
                "rounds": len(found),
            }
            for name, found in contestants.items()
            if found
        }
        for group, contestants in results.samples.items()
    }


def render(result: Mapping[str, Any]) -> str:
    """Write a result as Markdown: machine, targets, groups, figures, what was left out."""
    lines = [f"{result['machine']}. {result['versions']}. {result['date']}, {result['tookS']} s.", ""]
    lines += ["| What | Value | Target | Met | Wanted |", "|---|---|---|---|---|"]
    for row in result["targets"]:
        met = {True: "yes", False: "**no**", None: "not measured"}[row["met"]]
        value = "" if row["value"] is None else f"{row['value']:.3g} {row['unit']}".strip()
        wanted = "" if row["wanted"] is None else f"{row['wanted']:g}"
        lines.append(f"| {row['what']} | {value} | {row['target']} | {met} | {wanted} |")
    for group, contestants in result["groups"].items():
        lines += [
            "",
            f"**{group}**",
            "",
            "| | reports/s | CPU, us each | p50, ms | p99, ms |",
            "|---|---|---|---|---|",
        ]
        for name, found in contestants.items():
            figures = f"{found['perSecond']:,.0f} | {found['cpuUs']:,.0f}"
            figures += f" | {found['p50Ms']:.1f} | {found['p99Ms']:.1f}"
            note = f" ({found['failed']} failed)" if found["failed"] else ""
            lines.append(f"| {name}{note} | {figures} |")
    lines += ["", "| Figure | |", "|---|---|"]
    lines += [f"| {name} | {value:,g} |" for name, value in result["figures"].items()]
    for name, why in result["missing"].items():
        lines += ["", f"Left out: {name}: {why}."]
    return "\n".join(lines) + "\n"
