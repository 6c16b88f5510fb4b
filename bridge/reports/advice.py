"""Why reports will be worth nothing, said before they are. Pure: counts and a time in, sentences out.

The vendor ignores reports in silence: those of an account with few tasks, with a share of reported tasks
that jumps or is far from others', or with too few confirmed ones. Source: its report pages, and for the
usual share of 8 to 12 % its older text (docs/advice.md). Thresholds without a source there are ours.
Imported by the policy, `bridge.reports.advisor` and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import chain
from math import exp, log
from typing import Final, NamedTuple

from bridge.core.counting import DAY_S, HOUR_S, KEPT_S, Counts, Tallied, Tally, add
from bridge.core.errors import warning
from bridge.core.model import ACCEPTED, REFUSED, UNKNOWN, Row
from bridge.reports.methods import methods
from bridge.reports.window import REPORTABLE_S

MIN_TASKS: Final = 100
"""reCAPTCHA tasks in 24 h below which no report of the account counts. Source: the report pages."""
USUAL: Final = {"recaptcha": 0.12, "image": 0.33}
"""Upper end of a usual share of reported tasks. reCAPTCHA: the vendor's older text. Images: ours."""
FAR: Final = 1.5
"""So many times the usual share is far from it; ours."""
JUMP: Final = 2.0
"""So many times the share of before is a jump, if it is above the usual one too; ours."""
MIN_WRONG: Final = 8
"""Complaints below which no share is judged; with fewer, one bad minute would do."""
MIN_BEFORE: Final = 50
"""Tasks that the time before a jump must have."""
CHANCE: Final = 1e-9
"""A difference counts if chance alone makes it less often. Looked at again with every report and for every
stretch of the day, about 200,000 times a busy day, it still misleads one account in 5,000 a day at most."""
SETTLING_S: Final = 4 * HOUR_S
"""Time after the first note before a day is foretold from it; ours."""
FRESH_S: Final = 3 * HOUR_S
"""Figures whose last hour ended before that say nothing of now; ours."""
MIN_UNTOLD: Final = 20
"""Complaints after which the number of tasks is asked for; ours."""
_SLACK_S: Final = 2.0
_NAMES: Final = {"recaptcha": "reCAPTCHA", "image": "image"}
_RULES: Final = {
    "recaptcha": "The vendor compares accounts, and ignores all reports of one that jumps or is far off, for "
    "days",
    "image": "Three moderators look at each, two must agree, and below half confirmed all reports are "
    "ignored; that record cannot be reset",
}


class Advice(NamedTuple):
    """One thing to change."""

    kind: str
    """A row of ``schemas/errors.json``, section ``warnings``."""
    account: str
    """8 hex digits, as the wire shows it."""
    message: str


class Stretch(NamedTuple):
    """Complaints and tasks of some time."""

    at: float
    """When it begins."""
    tasks: int
    wrong: int

    @property
    def share(self) -> float:
        """The part of the tasks that was reported. A task that nobody noted was one, too."""
        return self.wrong / max(self.tasks, self.wrong, 1)


class Basis(NamedTuple):
    """What is known of the tasks of one subject, and from where."""

    tasks: int
    """Those of the day."""
    told_s: float
    """For how much of the day the tasks are known for certain."""
    rows: tuple[Sequence[Stretch], ...]
    """The day, or the end of it, cut into stretches in one way and in another."""
    is_most: bool = False
    """True if the number of tasks is an upper bound."""
    source: str = "were noted"


Judgement = Iterator[tuple[str, dict[str, int | str]]]
"""Kinds of advice, each with what its sentence has places for."""


# --- counting --------------------------------------------------------------------------------


def tally(row: Row, now: float) -> tuple[str, float, Counts] | None:
    """What a report that has ended adds, about which subject, and when its task was solved at the latest.

    A complaint counts where its task was noted, or before it: so no stretch of time has the complaint
    without the task. If nobody told when that was, it is as long ago as a report may come.
    """
    counted = _count(row.method, row.outcome, row.code, row.kind == "window_closed")
    if counted is None:
        return None
    until = now if row.window.until is None else min(row.window.until, now + REPORTABLE_S)
    subject, counts = counted
    return subject, max(until - REPORTABLE_S, now - HOUR_S), counts


@lru_cache(1024)
def _count(name: str, outcome: str | None, code: int | None, is_late: bool) -> tuple[str, Counts] | None:
    """Return the subject and what one such report adds to its counts, or None if it says nothing."""
    method = methods().get(name)
    if method is None or not (is_late or outcome in (ACCEPTED, UNKNOWN, REFUSED)):
        return None
    counts = Counts(
        wrong=int(method.polarity == "incorrect" and outcome in (ACCEPTED, UNKNOWN)),
        sent=int(not is_late),
        refused=int(outcome == REFUSED and code == 16),
        late=int(is_late),
    )
    return method.subject, counts


def find_subject(task_type: str) -> str | None:
    """What a task type is about, by any method that fits it; None if none does."""
    name = task_type.lower()
    return next((row.subject for row in methods().values() if name in row.task_types), None)


def queue_names(setting: str | None) -> tuple[str, ...]:
    """The names in the setting ``account_queues``."""
    return tuple(filter(None, map(str.strip, (setting or "").split(","))))


def sum_day(tallies: Iterable[Tally], now: float) -> dict[str, Counts]:
    """The last 24 hours by subject; of the oldest hour, which is half over, the part that is not."""
    found: dict[str, Counts] = {}
    for row in tallies:
        if row.width_s == HOUR_S and row.at <= now + _SLACK_S:
            part = min(1.0, (row.at + HOUR_S - (now - DAY_S)) / HOUR_S)
            if part > 0.0:
                counts = row.counts
                if part < 1.0:
                    cost = counts.cost * part
                    counts = Counts._make(round(number * part) for number in counts)._replace(cost=cost)
                found[row.subject] = add(found.get(row.subject, Counts()), counts)
    return found


# --- advice ----------------------------------------------------------------------------------


def advise(known: Tallied, now: float, queues: Sequence[str] = ()) -> tuple[Advice, ...]:
    """What is to be said of one account; at most one of a kind.

    Args:
        known: Its counts and figures, times on the same clock as `now`.
        queues: Names of its reCAPTCHA queues, if the settings tell them; else figures are of all queues.
    """
    day = sum_day(known.tallies, now)
    tasks = (_judge_tasks(subject, day[subject], known, now, queues) for subject in USUAL if subject in day)
    found: dict[str, Advice] = {}
    for kind, places in chain(*tasks, _judge_reports(day)):
        if kind not in found:
            found[kind] = Advice(kind, known.task.account[:8], warning(kind, **places)["message"])
    return tuple(found.values())


def _judge_reports(day: Mapping[str, Counts]) -> Judgement:
    """Judge how many reports were refused, or came too late."""
    total = reduce(add, day.values(), Counts())
    if total.refused >= 10 and total.refused >= 0.05 * total.sent:
        yield "many_refused", {"refused": total.refused, "sent": total.sent}
    reports = total.sent + total.late
    if total.late >= 5 and total.late >= 0.02 * reports:
        yield "often_late", {"late": total.late, "reports": reports}


def _judge_tasks(
    subject: str, counts: Counts, known: Tallied, now: float, queues: Sequence[str]
) -> Judgement:
    """Judge how many tasks of one subject there are, and how many of them were reported."""
    is_token = subject == "recaptcha"
    basis = _find_figured(counts, known, now, queues) if is_token else None
    if basis is None and counts.tasks:
        basis = _find_noted(subject, counts, known.tallies, now)
    if basis is None:
        if is_token and counts.wrong >= MIN_UNTOLD:
            yield "tasks_unknown", {"wrong": counts.wrong}
        return
    day, usual = Stretch(now - DAY_S, basis.tasks, counts.wrong), USUAL[subject]
    tasks = f"at most {day.tasks}" if basis.is_most else f"{day.tasks}"
    places: dict[str, int | str] = {"name": _NAMES[subject], "rule": _RULES[subject], "source": basis.source}
    if is_token and day.wrong and basis.told_s >= SETTLING_S:
        is_whole = basis.told_s >= DAY_S - HOUR_S
        pace = day.tasks if is_whole else round(day.tasks * DAY_S / basis.told_s)
        if pace < MIN_TASKS:
            so_far = "" if is_whole else f" so far, which makes {pace} a day"
            yield "few_tasks", {**places, "tasks": tasks, "so_far": so_far, "least": MIN_TASKS}
    jump = min((found for rows in basis.rows for found in _find_jumps(day, rows, usual)), default=None)
    if jump is not None:
        _, recent, before = jump
        shares = {"share": f"{recent.share:.0%}", "before": f"{before.share:.0%}"}
        minutes = max(1, round((now - recent.at) / 60))
        figures = {"wrong": recent.wrong, "tasks": recent.tasks, "minutes": minutes}
        yield "rate_jump", {**places, **shares, **figures}
    if day.wrong >= MIN_WRONG and day.share >= FAR * usual and find_chance(day, usual) < CHANCE:
        shares = {"share": f"{day.share:.0%}", "usual": f"{usual:.0%}"}
        yield "rate_high", {**places, "wrong": day.wrong, "tasks": tasks, **shares}


def _find_noted(subject: str, counts: Counts, tallies: Sequence[Tally], now: float) -> Basis:
    own = [row for row in tallies if row.subject == subject and row.at <= now + _SLACK_S]
    rows = tuple(
        [Stretch(row.at, row.counts.tasks, row.counts.wrong) for row in own if row.width_s == width]
        for width in KEPT_S
    )
    # Only what lies wholly after the first note is known for certain.
    first = min((row.at + row.width_s for row in own if row.counts.tasks), default=now)
    return Basis(counts.tasks, min(now - first, DAY_S), rows)


def _find_figured(counts: Counts, known: Tallied, now: float, queues: Sequence[str]) -> Basis | None:
    """The tasks by the account's statistics, unless more were noted or not every queue is told of."""
    named = queues or ("",)
    figures = [one for one in known.figures if one.queue in named and now - DAY_S - HOUR_S < one.at <= now]
    latest = max((one.at for one in figures), default=float("-inf"))
    if now - latest - HOUR_S > FRESH_S or {one.queue for one in figures} < set(queues):
        return None
    tasks = round(sum(min(1.0, (one.at + HOUR_S - now + DAY_S) / HOUR_S) * one.tasks for one in figures))
    if counts.tasks and (not queues or counts.tasks >= tasks):
        return None
    hours = [row for row in known.tallies if row.subject == "recaptcha" and row.width_s == HOUR_S]
    rows = [
        Stretch(one.at, one.tasks, sum(h.counts.wrong for h in hours if 0.0 <= h.at - one.at < HOUR_S))
        for one in figures
        if one.tasks
    ]
    return Basis(tasks, DAY_S, (rows,) if queues else (), not queues, "are in the account's own statistics")


# --- how likely by chance --------------------------------------------------------------------


def _find_jumps(
    day: Stretch, rows: Sequence[Stretch], usual: float
) -> Iterator[tuple[float, Stretch, Stretch]]:
    """The ends of a day in which clearly more tasks were reported than before, with how likely that is.

    Every end is a candidate, since nobody knows when the jump was; `CHANCE` is strict enough for that.
    """
    tasks = wrong = 0
    for row in sorted(rows, reverse=True):
        tasks, wrong = tasks + row.tasks, wrong + row.wrong
        recent = Stretch(row.at, tasks, wrong)
        before = Stretch(day.at, day.tasks - tasks, day.wrong - wrong)
        if before.tasks < MIN_BEFORE:
            return
        if wrong >= MIN_WRONG and recent.share > max(usual, JUMP * before.share):
            chance = find_chance(recent, day.share)
            if chance < CHANCE:
                yield chance, recent, before


def find_chance(stretch: Stretch, usual: float) -> float:
    """How likely, at most, so many complaints are by chance where `usual` is the share.

    Chernoff's bound on the binomial tail, which holds for any number. It holds as well for a part of a day
    whose complaints are given and whose share is `usual`. Source: H. Chernoff, A Measure of Asymptotic
    Efficiency, Annals of Mathematical Statistics 23 (1952); W. Hoeffding, Probability Inequalities for Sums
    of Bounded Random Variables, Journal of the American Statistical Association 58 (1963), section 6.
    """
    share = stretch.share
    if share <= usual:
        return 1.0
    distance = share * log(share / usual)
    if share < 1.0:
        distance += (1.0 - share) * log((1.0 - share) / (1.0 - usual))
    return exp(-max(stretch.tasks, stretch.wrong) * distance)
