"""From the ledger's counts to what a person wants to know: totals, reasons, ages, latencies, charts, advice.

Values are ready for JSON. What is not recorded is left out and named, never guessed.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate, zip_longest
from typing import Any, Final, NamedTuple

from bridge.cli.ledger import show_time
from bridge.core.errors import find_row, rows, upstream_row
from bridge.core.model import ACCEPTED, NOT_SENT, OUTCOMES, REFUSED
from bridge.core.text import plural
from bridge.engine import SystemClock
from bridge.ledger.statistics import IN_FLIGHT, Age, Cause, Cell, Figures, Latency, Pause, Reader
from bridge.reports.advice import advise, queue_names, sum_day
from bridge.settings import Settings

Rows = Sequence[Mapping[str, Any]]

WALL_S: Final = 60
"""The upstream forgets a task this long after the worker finished it."""
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
        "bins": _bins(fates, "seconds", _EDGES, FATES, WALL_AT + 1),
    }


def _latency(latencies: Counter[Latency]) -> dict[str, Any]:
    methods: dict[str, Counter[int]] = defaultdict(Counter)
    for latency, many in sorted(latencies.items()):
        methods[latency.method][latency.milliseconds] += many
    whole = sum(methods.values(), Counter[int]())
    counts = Counter({(milliseconds, "reports"): many for milliseconds, many in whole.items()})
    return {
        **_attempts(whole),
        "methods": {name: _attempts(took_ms) for name, took_ms in methods.items()},
        "bins": _bins(counts, "ms", _LATENCY_EDGES, ("reports",), 4),
    }


def _attempts(took_ms: Counter[int]) -> dict[str, Any]:
    return {"attempts": took_ms.total(), "p50Ms": quantile(took_ms, 0.5), "p95Ms": quantile(took_ms, 0.95)}


def _bins(
    counts: Counter[tuple[int, str]], unit: str, edges: Sequence[int], names: Iterable[str], least: int
) -> list[dict[str, Any]]:
    """Counts of names by value, from each edge to the next; what is empty at the end is left out.

    Args:
        least: so many bins are shown in any case.
    """
    last = max((bisect(edges, value) for value, _ in counts), default=0)
    bins: list[dict[str, Any]] = [
        {unit: f"{low}+" if high is None else f"{low}-{high}", "from": low, "to": high}
        | dict.fromkeys(names, 0)
        for low, high in list(zip_longest(edges, edges[1:]))[: max(last, least)]
    ]
    for (value, name), many in counts.items():
        bins[bisect(edges, value) - 1][name] += many
    return bins


def quantile(counts: Mapping[int, int], part: float) -> int | None:
    """The value below or at which that part of all values lies; None if there are none."""
    values = sorted(counts)
    reached = list(accumulate(counts[value] for value in values))
    return values[bisect_left(reached, part * reached[-1])] if values else None


# --- groups and the timeline -----------------------------------------------------------------


def _pauses(pauses: Counter[Pause]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (hour, rule, cause), many in sorted(pauses.items()):
        row = found.setdefault((rule, cause), {"rule": rule, "cause": cause, "openings": 0})
        row |= {"openings": row["openings"] + many, "lastHour": _spell_hour(hour)}
    return sorted(found.values(), key=lambda row: -row["openings"])


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


# --- charts and tables -----------------------------------------------------------------------


class Chart(NamedTuple):
    """What happened by day or hour, or from one edge to the next."""

    title: str
    words: str
    """If nothing was counted, that is all there is to show."""
    unit: str
    """What its rows are told apart by."""
    names: Sequence[str]
    """What is counted in each of them."""
    rows: Rows

    def counted(self) -> list[str]:
        """Those of its names of which there is something."""
        return [name for name in self.names if any(row[name] for row in self.rows)]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of its numbers."""
        cells = [[str(row[self.unit]), *(f"{row[name]:,}" for name in self.names)] for row in self.rows]
        return [self.unit, *(NAMES[name] for name in self.names)], cells


def charts(facts: Mapping[str, Any]) -> tuple[Chart, ...]:
    """Outcomes over time, ages, latencies, pauses and groups."""
    ages, latency, timeline = facts["ages"], facts["latency"], facts["timeline"]
    told_ages = "No report told completedAt, so no age is known. Pass the endTime of getTaskResult."
    if ages["known"]:
        told_ages = f"Half came within {ages['p50']} s, 95% within {ages['p95']} s. {ages['past60']:,} of "
        told_ages += f"{ages['known']:,} came after the wall; of {ages['unknown']:,} the age is unknown."
    told_latency = "Nothing was sent."
    if latency["attempts"]:
        told_latency = (
            f"Of {plural(latency['attempts'], 'attempt')} half took at most {latency['p50Ms']:,} ms, "
        )
        told_latency += f"95% at most {latency['p95Ms']:,} ms."
    opened = ["{rule} ({cause}): {openings:,}, last {lastHour}.".format_map(row) for row in facts["pauses"]]
    told_pauses = " ".join(opened) or "No pause opened."
    against = f"Age of the task at the report, against the {WALL_S}-second wall"
    unit, rows = timeline["unit"], timeline["rows"]
    return (
        Chart("Outcomes over time", "", unit, STATES, rows),
        Chart(against, told_ages, "seconds", FATES, ages["bins"]),
        Chart("How long the last attempt took", told_latency, "ms", ["reports"], latency["bins"]),
        Chart("Pauses: when the bridge stopped itself", told_pauses, unit, ["pauses"], rows),
        Chart(f"By {facts['by']}", "", facts["by"], COLUMNS, facts["groups"]),
    )


# --- advice ----------------------------------------------------------------------------------


def read_advice(
    reader: Reader, settings: Settings, endpoint: str | None, account: str = ""
) -> dict[str, Any]:
    """The members ``advice`` and ``claims`` of the figures, over the last 24 hours.

    Args:
        endpoint: None is any.
        account: the first hex digits of an account.
    """
    now, queues = SystemClock.wall(), queue_names(settings.account_queues)
    told: dict[str, Any] = {"advice": [], "claims": []}
    for known in reader.tallied():
        if endpoint not in (None, known.task.endpoint) or not known.task.account.startswith(account):
            continue
        told["advice"] += [found._asdict() for found in advise(known, now, queues)]
        for subject, counts in sorted(sum_day(known.tallies, now).items()):
            if counts.wrong:
                price = counts.cost / counts.costed if counts.costed else None
                claim = {"account": known.task.account[:8], "subject": subject, "complaints": counts.wrong}
                claim |= {"costOfTask": price, "claimed": None if price is None else price * counts.wrong}
                told["claims"].append(claim)
    return told


def spell_advice(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Advice and claims in sentences, by title."""
    return {
        "Advice, from the last 24 hours": [
            f"{one['account']}: {one['message']}" for one in summary["advice"]
        ],
        "At stake in the last 24 hours: claims, not refunds": list(map(_spell_claim, summary["claims"])),
    }


def _spell_claim(claim: dict[str, Any]) -> str:
    """A claim in words: what was complained about may come back, and nobody tells whether it does."""
    told = f"{plural(claim['complaints'], claim['subject'] + ' complaint')} of account {claim['account']}"
    if claim["claimed"] is None:
        return f"{told}; the cost of a task is not known: pass cost to bridge.noteTasks"
    return f"{told}, {claim['claimed']:.4f} claimed at {claim['costOfTask']:.5f} a task"
