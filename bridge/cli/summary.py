"""From counts to what a person wants to know: totals, reasons, ages against the wall, latencies.

Pure: figures in, JSON-ready values out. What is not recorded is left out and named, never guessed.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate, zip_longest
from typing import Any, Final

from bridge.cli.times import show_time
from bridge.core.errors import find_row, rows, upstream_row
from bridge.core.model import ACCEPTED, NOT_SENT, OUTCOMES, REFUSED
from bridge.ledger.statistics import IN_FLIGHT, Age, Cause, Cell, Figures, Latency, Pause

Rows = Sequence[Mapping[str, Any]]

WALL_S: Final = 60
"""The upstream forgets a task this long after the worker finished it."""
AGES: Final = f"Age of the task at the report, against the {WALL_S}-second wall"
STATES: Final = (*OUTCOMES, IN_FLIGHT)
FATES: Final = ("accepted", "error16", "tooLate", "other")
"""What becomes of a report, as far as its age has to do with it."""
_FATES: Final = {"error_16": "error16", "window_closed": "tooLate"}
_HOURS: Final = {"day": "%Y-%m-%d", "hour": "%Y-%m-%d %H:00"}
GROUPS: Final = (*_HOURS, "method", "error", "account")
NAMES: Final = {name: name.replace("_", " ") for name in ("reports", *STATES, *FATES, "pauses")} | {
    "error16": "error 16",
    "tooLate": "too late",
}
"""What is counted, as a table's head."""
MEANINGS: Final = NAMES | {"accepted": "accepted by the API", "unknown": "unknown, perhaps taken"}
"""What became of a report, in words that promise nothing."""
COLUMNS: Final = ("reports", "accepted", "refused", "error16", "unknown", "not_sent")
"""What a table shows of each group."""
_EDGES: Final = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 75, 90, 120, 300)
WALL_AT: Final = _EDGES.index(WALL_S)
"""Before this one of the bins of ages is the wall."""
_LATENCY_EDGES: Final = (0, 50, 100, 200, 300, 500, 750, 1000, 2000, 3000, 5000, 10000)
_NOTES: Final = [
    "Accepted means that the API took the report in. "
    "Whether it is confirmed or money comes back, the API does not tell.",
    "Replays (duplicates answered from the ledger) are not recorded, so what they saved is not counted here; "
    "bridge.status of a running bridge counts them since its start.",
]


def summarise(figures: Figures, by: str) -> dict[str, Any]:
    """Work out everything but the advice.

    Args:
        by: one of `GROUPS`.
    """
    codes: dict[str, Counter[int]] = {state: Counter() for state in STATES}
    for cell, many in figures.cells.items():
        codes[cell.outcome][cell.code] += many
    outcomes = {state: counts.total() for state, counts in codes.items()}
    hours = [cell.hour for cell in figures.cells]
    return {
        "reports": sum(outcomes.values()),
        "first": _spell_hour(min(hours)) if hours else None,
        "last": _spell_hour(max(hours)) if hours else None,
        "outcomes": outcomes,
        "refused": _reasons(REFUSED, codes[REFUSED], figures.causes),
        "notSent": _reasons(NOT_SENT, codes[NOT_SENT], figures.causes),
        "ages": _ages(figures.ages),
        "latency": _latency(figures.latencies),
        "pauses": _pauses(figures.pauses),
        "by": by,
        "groups": _groups(figures, by),
        "timeline": _timeline(figures),
        "notes": _NOTES,
    }


@cache  # there are far more cells than hours
def _spell_hour(hour: int, form: str = "%Y-%m-%dT%H:00Z") -> str:
    return show_time(hour * 3600, form)


def _reasons(outcome: str, codes: Counter[int], causes: Counter[Cause]) -> list[dict[str, Any]]:
    told = []
    for code, many in sorted(codes.items(), key=lambda item: (-item[1], item[0])):
        found = {cause: n for (of, cause), n in causes.most_common() if of == code and cause != "other"}
        told.append({"code": code, "outcome": outcome, **explain(code), "reports": many, "causes": found})
    return told


def explain(code: int) -> dict[str, str]:
    """The kind, the sentence and the advice of a wire code."""
    if code > 0:
        row = upstream_row(code, None)
    else:
        row = next((row for row in rows("wire") if row.code == code), find_row("internal_error"))
    return {"kind": row.kind, "message": row.message, "advice": row.advice}


# --- ages and latencies ----------------------------------------------------------------------


def _ages(ages: Counter[Age]) -> dict[str, Any]:
    known: Counter[int] = Counter()
    fates: Counter[tuple[int, str]] = Counter()
    for age, many in ages.items():
        if age.seconds is not None:
            known[age.seconds] += many
            fate = "accepted" if age.outcome == ACCEPTED else _FATES.get(age.fate, "other")
            fates[age.seconds, fate] += many
    return {
        "known": known.total(),
        "unknown": ages.total() - known.total(),
        "past60": sum(many for seconds, many in known.items() if seconds >= WALL_S),
        "p50": quantile(known, 0.5),
        "p95": quantile(known, 0.95),
        "bins": _bins(fates, _EDGES, FATES, WALL_AT + 1),
    }


def tell_ages(ages: Mapping[str, Any]) -> str:
    """What is known of the ages, in a sentence or two."""
    if not ages["known"]:
        return "No report told completedAt, so no age is known. Pass the endTime of getTaskResult."
    return (
        f"Half came within {ages['p50']} s, 95% within {ages['p95']} s. {ages['past60']:,} of "
        f"{ages['known']:,} came after the wall; of {ages['unknown']:,} the age is unknown."
    )


def _latency(latencies: Counter[Latency]) -> dict[str, Any]:
    methods: dict[str, Counter[int]] = defaultdict(Counter)
    for latency, many in sorted(latencies.items()):
        methods[latency.method][latency.milliseconds] += many
    whole = sum(methods.values(), Counter[int]())
    counts = Counter({(milliseconds, "reports"): many for milliseconds, many in whole.items()})
    return {
        **_attempts(whole),
        "methods": {name: _attempts(took_ms) for name, took_ms in methods.items()},
        "bins": _bins(counts, _LATENCY_EDGES, ("reports",), 4),
    }


def _attempts(took_ms: Counter[int]) -> dict[str, Any]:
    return {"attempts": took_ms.total(), "p50Ms": quantile(took_ms, 0.5), "p95Ms": quantile(took_ms, 0.95)}


def _bins(
    counts: Counter[tuple[int, str]], edges: Sequence[int], names: Iterable[str], least: int
) -> list[dict[str, Any]]:
    """Counts of names by value, from each edge to the next; what is empty at the end is left out.

    Args:
        least: so many bins are shown in any case.
    """
    last = max((bisect(edges, value) for value, _ in counts), default=0)
    ends = list(zip_longest(edges, edges[1:]))[: max(last, least)]
    bins: list[dict[str, Any]] = [{"from": low, "to": high, **dict.fromkeys(names, 0)} for low, high in ends]
    for (value, name), many in counts.items():
        bins[bisect(edges, value) - 1][name] += many
    return bins


def quantile(counts: Mapping[int, int], part: float) -> int | None:
    """The value below or at which that part of all values lies; None if there are none."""
    values = sorted(counts)
    reached = list(accumulate(counts[value] for value in values))
    return values[bisect_left(reached, part * reached[-1])] if values else None


def count_table(first: str, rows: Rows, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: what a row is about, by the name of that member, and some of its counts."""
    labels = [str(row[first]) if first in row else _spell_bin(row) for row in rows]
    cells = [[label, *(f"{row[name]:,}" for name in names)] for label, row in zip(labels, rows, strict=True)]
    return [first, *(NAMES[name] for name in names)], cells


def _spell_bin(row: Mapping[str, Any]) -> str:
    return f"{row['from']}+" if row["to"] is None else f"{row['from']}-{row['to']}"


# --- groups and the timeline -----------------------------------------------------------------


def _pauses(pauses: Counter[Pause]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (hour, rule, cause), many in sorted(pauses.items()):
        row = found.setdefault((rule, cause), {"rule": rule, "cause": cause, "openings": 0})
        row |= {"openings": row["openings"] + many, "lastHour": _spell_hour(hour)}
    return sorted(found.values(), key=lambda row: -row["openings"])


def tell_pauses(pauses: Rows) -> list[str]:
    """The pauses that opened, each in a sentence."""
    told = [f"{row['rule']} ({row['cause']}): {row['openings']:,}, last {row['lastHour']}." for row in pauses]
    return told or ["No pause opened."]


def _groups(figures: Figures, by: str) -> list[dict[str, Any]]:
    groups = [{by: name, **counts} for name, counts in sorted(_count(figures, by).items())]
    return sorted(groups, key=lambda group: -group["reports"]) if by == "error" else groups


def _count(figures: Figures, by: str) -> dict[str, dict[str, int]]:
    """Outcomes, all of them and those of error 16, by name of the group; none for any other name."""
    if by == "account":
        counted = [(age.account, age.outcome, age.fate == "error_16", n) for age, n in figures.ages.items()]
    else:
        counted = [(_name(cell, by), cell.outcome, cell.code == 16, n) for cell, n in figures.cells.items()]
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("reports", *STATES, "error16"), 0))
    for name, outcome, is_error16, many in counted:
        found[name]["reports"] += many
        found[name][outcome] += many
        found[name]["error16"] += many * is_error16
    return found


def _name(cell: Cell, by: str) -> str:
    if by in _HOURS:
        return _spell_hour(cell.hour, _HOURS[by])
    if by == "method":
        return cell.method
    return (
        f"{cell.code} {explain(cell.code)['kind']}" if cell.outcome not in (ACCEPTED, IN_FLIGHT) else "none"
    )


def _timeline(figures: Figures) -> dict[str, Any]:
    """Outcomes and pauses by day, or by hour if all of it is short; gaps are filled."""
    hours = [cell.hour for cell in figures.cells] + [pause.hour for pause in figures.pauses] or [0]
    first, last = min(hours), max(hours)
    unit = "hour" if last - first < 72 else "day"
    pauses: Counter[str] = Counter()
    for pause, many in figures.pauses.items():
        pauses[_spell_hour(pause.hour, _HOURS[unit])] += many
    found = _count(figures, unit)
    names = dict.fromkeys(_spell_hour(hour, _HOURS[unit]) for hour in range(first, last + 1))
    return {"unit": unit, "rows": [{unit: name, **found[name], "pauses": pauses[name]} for name in names]}
