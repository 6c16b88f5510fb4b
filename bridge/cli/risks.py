"""What in the figures puts money or the account at risk, under the rules that the vendor has published.

Pure. Every sentence says what was seen, what the rule is and what to do. Thresholds without a source in
the vendor's pages are ours and are called so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.model import NOT_SENT
from bridge.ledger.statistics import IN_FLIGHT, Figures

MIN_TASKS_A_DAY: Final = 100
"""reCAPTCHA tasks a day below which the vendor does not count reports. Source: its report pages."""
USUAL_RATE: Final = 0.12
"""Upper end of the steady share of reports that older vendor texts call usual."""
_LEAST: Final = 20
"""Reports below which a share says nothing; our choice."""
_COMPLAINTS: Final = ("reportIncorrectRecaptcha",)


def find_risks(summary: Mapping[str, Any], figures: Figures, tasks_a_day: int | None) -> list[dict[str, str]]:
    """List the warnings, most expensive first.

    Args:
        summary: of `bridge.cli.summary.summarise`.
        tasks_a_day: reCAPTCHA tasks the account submits in a day, if the user told.
    """
    found = [
        _find_late(summary),
        _find_16(summary),
        _find_untold(summary),
        _find_jump(figures),
        *_judge_volume(figures, tasks_a_day),
        _find_hcaptcha(figures),
    ]
    return [{"kind": kind, "message": message} for kind, message in filter(None, found)]


Risk = tuple[str, str] | None


def _find_late(summary: Mapping[str, Any]) -> Risk:
    past, known = summary["ages"]["past60"], summary["ages"]["known"]
    if past < 5 or past < known * 0.02:
        return None
    return "late", (
        f"{past:,} of {known:,} reports whose age is known came 60 s or more after the worker had "
        "finished; the API has forgotten the task by then. Report as soon as the answer has failed, and "
        "poll for results more often."
    )


def _find_16(summary: Mapping[str, Any]) -> Risk:
    count = sum(row["reports"] for row in summary["refused"] if row["code"] == 16)
    sent = sum(n for name, n in summary["outcomes"].items() if name not in (NOT_SENT, IN_FLIGHT))
    if count < 10 or count < sent * 0.05:
        return None
    ages = summary["ages"]
    causes = []
    if ages["error16Near60"] > count * 0.1:
        causes.append(f"{ages['error16Near60']:,} were 45 s old or older, so they may have arrived too late")
    if ages["error16AgeUnknown"] > count * 0.1:
        causes.append(
            f"{ages['error16AgeUnknown']:,} came without completedAt, so nobody can tell "
            "whether they were late: pass endTime"
        )
    causes.append(
        "the others: a task of another key, a method that does not fit the task's kind (pass taskType), "
        "an image outside the English pool (pass languagePool), a task that failed, "
        "or one that was reported before"
    )
    return "error_16", f"{count:,} of {sent:,} sent reports met error 16. Likely: {'; '.join(causes)}."


def _find_untold(summary: Mapping[str, Any]) -> Risk:
    unknown, reports = summary["ages"]["unknown"], summary["reports"]
    if unknown < _LEAST or unknown < reports * 0.5:
        return None
    return "age_unknown", (
        f"{unknown:,} of {reports:,} reports came without completedAt. With it the bridge sends nothing "
        "that is too late and can tell why a report was refused: pass the endTime of getTaskResult."
    )


def _find_jump(figures: Figures) -> Risk:
    days: Counter[int] = Counter()
    for cell, many in figures.cells.items():
        if cell.method in _COMPLAINTS:
            days[cell.hour // 24] += many
    if len(days) < 4:
        return None
    *before, last = sorted(days)
    usual = _median([days[day] for day in before[-7:]])
    if days[last] < _LEAST or days[last] < 3 * usual:
        return None
    return "jump", (
        f"{days[last]:,} reports of wrong reCAPTCHA tokens on the last day, {usual:g} on a usual one. "
        "The vendor compares accounts and ignores all reports of one whose rate jumps, for days: look "
        "whether the site has changed."
    )


def _median(values: list[int]) -> float:
    # The library's costs 16 ms to import.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _judge_volume(figures: Figures, tasks_a_day: int | None) -> list[Risk]:
    days: Counter[int] = Counter()
    for cell, many in figures.cells.items():
        if cell.method in _COMPLAINTS:
            days[cell.hour // 24] += many
    if tasks_a_day is None or not days:
        return []
    if tasks_a_day < MIN_TASKS_A_DAY:
        return [
            (
                "few_tasks",
                f"{tasks_a_day} reCAPTCHA tasks a day are fewer than the {MIN_TASKS_A_DAY} from which the "
                "vendor counts reports: complaints of this account are taken in and then ignored.",
            )
        ]
    busiest = max(days.values())
    if busiest > tasks_a_day * USUAL_RATE:
        rate = 100 * busiest / tasks_a_day
        return [
            (
                "high_rate",
                f"On the busiest day {rate:.0f}% of {tasks_a_day:,} tasks were reported as wrong; "
                "a steady 8 to 12% is what vendor texts call usual. A rate far off gets reports ignored: "
                "look for a cause on your side.",
            )
        ]
    return []


def _find_hcaptcha(figures: Figures) -> Risk:
    count = sum(n for cell, n in figures.cells.items() if cell.method == "reportIncorrectHcaptcha")
    if not count:
        return None
    return "withdrawn", (
        f"{count:,} hCaptcha reports: the vendor has withdrawn hCaptcha tasks, so such reports "
        "can hardly be accepted."
    )
