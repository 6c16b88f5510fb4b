"""From counts to what a person wants to know: totals, reasons, ages against the wall, latencies.

Pure: figures in, JSON-ready values out. What is not recorded is left out and named, never guessed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bridge.cli.times import show_day, show_time
from bridge.core.errors import find_row, rows, upstream_row
from bridge.core.model import ACCEPTED, NOT_SENT, OUTCOMES, REFUSED
from bridge.ledger.statistics import IN_FLIGHT, Age, Cell, Figures

WALL_S: Final = 60
"""The upstream forgets a task this long after the worker finished it."""
STATES: Final = (*OUTCOMES, IN_FLIGHT)
GROUPS: Final = ("day", "hour", "method", "error", "account")
FATES: Final = ("accepted", "error16", "tooLate", "other")
"""What becomes of a report, as far as its age has to do with it."""
_EDGES: Final = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 75, 90, 120, 300, None)
_LATENCY_EDGES: Final = (0, 50, 100, 200, 300, 500, 750, 1000, 2000, 3000, 5000, 10000, None)
NOT_RECORDED: Final = (
    "Replays (duplicates answered from the ledger) are not recorded, so what they saved is not counted here; "
    "bridge.status of a running bridge counts them since its start."
)
HONEST: Final = (
    "Accepted means that the API took the report in. "
    "Whether it is confirmed or money comes back, the API does not tell."
)


def summarise(figures: Figures, by: str) -> dict[str, Any]:
    """Work out everything but the advice.

    Args:
        by: one of `GROUPS`.
    """
    outcomes: Counter[str] = Counter()
    codes: Counter[tuple[str, int]] = Counter()
    for cell, many in figures.cells.items():
        outcomes[cell.outcome] += many
        if cell.outcome not in (ACCEPTED, IN_FLIGHT):
            codes[cell.outcome, cell.code] += many
    hours = sorted({cell.hour for cell in figures.cells})
    first, last = (_spell_hour(hours[at]) if hours else None for at in (0, -1))
    return {
        "reports": outcomes.total(),
        "first": first,
        "last": last,
        "firstHour": first,
        "lastHour": last,
        "outcomes": {name: outcomes[name] for name in STATES},
        "refused": _reasons(figures, codes, REFUSED),
        "notSent": _reasons(figures, codes, NOT_SENT),
        "ages": _ages(figures.ages),
        "latency": _latency(figures),
        "pauses": _pauses(figures),
        "by": by,
        "groups": _groups(figures, by),
        "timeline": _timeline(figures),
        "notes": [HONEST, NOT_RECORDED],
    }


def _spell_hour(hour: int) -> str:
    return show_time(hour * 3600, "%Y-%m-%dT%H:00Z")


def _reasons(figures: Figures, codes: Counter[tuple[str, int]], outcome: str) -> list[dict[str, Any]]:
    found = []
    for (of, code), many in sorted(codes.items(), key=lambda item: (-item[1], item[0])):
        if of != outcome:
            continue
        causes = {
            c.cause: n for c, n in figures.causes.most_common() if c.code == code and c.cause != "other"
        }
        found.append({"code": code, **explain(code), "reports": many, "causes": causes})
    return found


def explain(code: int) -> dict[str, str]:
    """The kind, the sentence and the advice of a wire code."""
    if code > 0:
        row = upstream_row(code, None)
    else:
        row = next((row for row in rows("wire") if row.code == code), find_row("internal_error"))
    return {"kind": row.kind, "message": row.message, "advice": row.advice}


# --- ages and latencies ----------------------------------------------------------------------


def _fate(age: Age) -> str:
    if age.outcome == ACCEPTED:
        return "accepted"
    return {"error_16": "error16", "window_closed": "tooLate"}.get(age.fate, "other")


def _ages(ages: Counter[Age]) -> dict[str, Any]:
    told: Counter[int] = Counter()
    fates: dict[int, Counter[str]] = {}
    unknown = past = 0
    late16 = unknown16 = 0
    for age, many in ages.items():
        fate = _fate(age)
        if age.seconds is None:
            unknown += many
            unknown16 += many if fate == "error16" else 0
            continue
        told[age.seconds] += many
        past += many if age.seconds >= WALL_S else 0
        late16 += many if fate == "error16" and age.seconds >= WALL_S - 15 else 0
        fates.setdefault(_bin(age.seconds, _EDGES), Counter())[fate] += many
    bins = [
        {"from": low, "to": high, **{name: fates.get(index, Counter())[name] for name in FATES}}
        for index, (low, high) in enumerate(itertools.pairwise(_EDGES))
    ]
    while len(bins) > 13 and not any(bins[-1][name] for name in FATES):
        bins.pop()
    return {
        "known": told.total(),
        "unknown": unknown,
        "past60": past,
        "p50": quantile(told, 0.5),
        "p95": quantile(told, 0.95),
        "error16Near60": late16,
        "error16AgeUnknown": unknown16,
        "bins": bins,
    }


def _latency(figures: Figures) -> dict[str, Any]:
    whole: Counter[int] = Counter()
    methods: dict[str, Counter[int]] = {}
    bins: Counter[int] = Counter()
    for latency, many in figures.latencies.items():
        whole[latency.milliseconds] += many
        methods.setdefault(latency.method, Counter())[latency.milliseconds] += many
        bins[_bin(latency.milliseconds, _LATENCY_EDGES)] += many
    return {
        "attempts": whole.total(),
        "p50Ms": quantile(whole, 0.5),
        "p95Ms": quantile(whole, 0.95),
        "methods": {
            name: {"attempts": c.total(), "p50Ms": quantile(c, 0.5), "p95Ms": quantile(c, 0.95)}
            for name, c in sorted(methods.items())
        },
        "bins": [
            {"from": low, "to": high, "reports": bins[index]}
            for index, (low, high) in enumerate(itertools.pairwise(_LATENCY_EDGES))
        ],
    }


def _bin(value: int, edges: Sequence[int | None]) -> int:
    for index, high in enumerate(edges[1:]):
        if high is None or value < high:
            return index
    return len(edges) - 2


def quantile(counts: Mapping[int, int], part: float) -> int | None:
    """The value below or at which that part of all values lies; None if there are none."""
    left = part * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return None


# --- groups and the timeline -----------------------------------------------------------------


def _pauses(figures: Figures) -> list[dict[str, Any]]:
    found: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], int] = {}
    for pause, many in figures.pauses.items():
        name = (pause.rule, pause.cause)
        found[name] += many
        last[name] = max(last.get(name, 0), pause.hour)
    return [
        {
            "rule": rule,
            "cause": cause,
            "openings": many,
            "lastHour": _spell_hour(last[rule, cause]),
        }
        for (rule, cause), many in found.most_common()
    ]


def _groups(figures: Figures, by: str) -> list[dict[str, Any]]:
    names: dict[str, Callable[[Cell], Any]] = {
        "day": lambda cell: cell.hour // 24,
        "hour": lambda cell: cell.hour,
        "method": lambda cell: cell.method,
        "error": lambda cell: _error_name(cell),
    }
    found: dict[Any, Counter[str]] = {}
    if by == "account":
        for age, many in figures.ages.items():
            group = found.setdefault(age.account, Counter())
            group[age.outcome] += many
            group["error16"] += many if age.fate == "error_16" else 0
    else:
        name = names[by]
        for cell, many in figures.cells.items():
            group = found.setdefault(name(cell), Counter())
            group[cell.outcome] += many
            group["error16"] += many if cell.code == 16 else 0
    ordered: Iterable[Any] = sorted(found)
    if by == "error":
        ordered = sorted(found, key=lambda name: -sum(found[name][state] for state in STATES))
    return [
        {
            by: _spell(by, name),
            "reports": sum(found[name][state] for state in STATES),
            **{state: found[name][state] for state in STATES},
            "error16": found[name]["error16"],
        }
        for name in ordered
    ]


def _spell(by: str, name: Any) -> str:
    if by == "day":
        return show_day(name)
    return show_time(name * 3600, "%Y-%m-%d %H:00") if by == "hour" else str(name)


def _error_name(cell: Cell) -> str:
    if cell.outcome in (ACCEPTED, IN_FLIGHT):
        return "none"
    return f"{cell.code} {explain(cell.code)['kind']}"


def _timeline(figures: Figures) -> dict[str, Any]:
    """Outcomes and pauses by day, or by hour if all of it is short; gaps are filled."""
    hours = {cell.hour for cell in figures.cells} | {pause.hour for pause in figures.pauses}
    if not hours:
        return {"unit": "day", "points": []}
    unit = "hour" if max(hours) - min(hours) < 72 else "day"
    size = 1 if unit == "hour" else 24
    points: dict[int, Counter[str]] = {
        at: Counter() for at in range(min(hours) // size, max(hours) // size + 1)
    }
    for cell, many in figures.cells.items():
        points[cell.hour // size][cell.outcome] += many
    for pause, many in figures.pauses.items():
        points[pause.hour // size]["pauses"] += many
    form = "%m-%d %H:00" if unit == "hour" else "%Y-%m-%d"
    return {
        "unit": unit,
        "points": [
            {"at": show_time(at * size * 3600, form), **{n: counts[n] for n in (*STATES, "pauses")}}
            for at, counts in points.items()
        ],
    }
