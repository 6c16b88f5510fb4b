"""Why reports will be worth nothing, said before they are. Pure: counts and a time in, sentences out.

The vendor ignores reports in silence: those of an account with few tasks, with a share of reported tasks
that jumps or is far from others', or with too few confirmed ones. Source: its report pages, and for the
usual share of 8 to 12 % its older text (docs/advice.md). Thresholds without a source there are ours.
Imported by the policy, `bridge.reports.advisor` and the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import exp, lgamma, log
from typing import Final, NamedTuple

from bridge.core.counting import DAY_S, FINE_S, HOUR_S, Counts, Tallied, Tally, add
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

    day: Stretch
    told_s: float
    """For how much of the day the tasks are known for certain."""
    rows: tuple[Sequence[Stretch], ...]
    """The day, or the end of it, cut into stretches in one way and in another."""
    is_most: bool = False
    """True if the number of tasks is an upper bound."""
    source: str = "were noted"


# --- counting --------------------------------------------------------------------------------


def tally(row: Row, now: float) -> tuple[str, float, Counts] | None:
    """What a report that has ended adds, about which subject, and when its task was solved at the latest.

    A complaint counts where its task was noted, or before it: so no stretch of time has the complaint
    without the task. If nobody told when that was, it is as long ago as a report may come.
    """
    method = methods().get(row.method)
    is_late = row.kind == "window_closed"
    if method is None or not (is_late or row.outcome in (ACCEPTED, UNKNOWN, REFUSED)):
        return None
    until = now if row.window.until is None else min(row.window.until, now + REPORTABLE_S)
    counts = Counts(
        wrong=int(method.polarity == "incorrect" and row.outcome in (ACCEPTED, UNKNOWN)),
        sent=int(not is_late),
        refused=int(row.outcome == REFUSED and row.code == 16),
        late=int(is_late),
    )
    return method.subject, max(until - REPORTABLE_S, now - HOUR_S), counts


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
    found: dict[str, Advice] = {}

    def say(kind: str, **places: int | str) -> None:
        message = warning(kind, **places)["message"]
        found.setdefault(kind, Advice(kind, known.task.account[:8], message))

    day = sum_day(known.tallies, now)
    for subject in USUAL:
        if subject in day:
            _judge(subject, day[subject], known, now, queues, say)
    total = Counts()
    for counts in day.values():
        total = add(total, counts)
    if total.refused >= 10 and total.refused >= 0.05 * total.sent:
        say("many_refused", refused=total.refused, sent=total.sent)
    reports = total.sent + total.late
    if total.late >= 5 and total.late >= 0.02 * reports:
        say("often_late", late=total.late, reports=reports)
    return tuple(found.values())


def _judge(
    subject: str, counts: Counts, known: Tallied, now: float, queues: Sequence[str], say: Callable[..., None]
) -> None:
    """Judge how many tasks of one subject there are, and how many of them were reported."""
    basis = None
    if subject == "recaptcha":
        basis = _find_figured(counts, known, now, queues)
    if basis is None and counts.tasks:
        basis = _find_noted(subject, counts, known.tallies, now)
    if basis is None:
        if subject == "recaptcha" and counts.wrong >= MIN_UNTOLD:
            say("tasks_unknown", wrong=counts.wrong)
        return
    day, usual = basis.day, USUAL[subject]
    tasks = f"at most {day.tasks}" if basis.is_most else f"{day.tasks}"
    places = {"name": _NAMES[subject], "rule": _RULES[subject], "source": basis.source}
    if subject == "recaptcha" and day.wrong and basis.told_s >= SETTLING_S:
        is_whole = basis.told_s >= DAY_S - HOUR_S
        pace = day.tasks if is_whole else round(day.tasks * DAY_S / basis.told_s)
        if pace < MIN_TASKS:
            so_far = "" if is_whole else f" so far, which makes {pace} a day"
            say("few_tasks", tasks=tasks, so_far=so_far, least=MIN_TASKS, **places)
    jump = min((found for rows in basis.rows for found in _find_jumps(day, rows, usual)), default=None)
    if jump is not None:
        recent = jump[1]
        before = Stretch(day.at, day.tasks - recent.tasks, day.wrong - recent.wrong)
        minutes = max(1, round((now - recent.at) / 60))
        percents = {"share": _percent(recent), "before": _percent(before)}
        say("rate_jump", wrong=recent.wrong, tasks=recent.tasks, minutes=minutes, **percents, **places)
    if day.wrong >= MIN_WRONG and day.share >= FAR * usual and _is_above(day, usual):
        percents = {"share": _percent(day), "usual": f"{usual:.0%}"}
        say("rate_high", wrong=day.wrong, tasks=tasks, **percents, **places)


def _percent(stretch: Stretch) -> str:
    return f"{stretch.share:.0%}"


def _find_noted(subject: str, counts: Counts, tallies: Sequence[Tally], now: float) -> Basis:
    rows: dict[int, list[Stretch]] = {HOUR_S: [], FINE_S: []}
    first = now
    for row in tallies:
        if row.subject == subject and now - DAY_S - HOUR_S < row.at <= now + _SLACK_S:
            rows[row.width_s].append(Stretch(row.at, row.counts.tasks, row.counts.wrong))
            if row.counts.tasks:
                # Only what lies wholly after the first note is known for certain.
                first = min(first, row.at + row.width_s)
    day = Stretch(now - DAY_S, counts.tasks, counts.wrong)
    return Basis(day, min(now - first, DAY_S), tuple(rows.values()))


def _find_figured(counts: Counts, known: Tallied, now: float, queues: Sequence[str]) -> Basis | None:
    """The tasks by the account's statistics, unless more were noted or not every queue is told of."""
    figures = sorted(
        (
            one
            for one in known.figures
            if now - DAY_S - HOUR_S < one.at <= now and one.queue in (queues or ("",))
        ),
        key=lambda one: one.at,
    )
    if not figures or now - figures[-1].at - HOUR_S > FRESH_S or {one.queue for one in figures} < set(queues):
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
    day = Stretch(now - DAY_S, tasks, counts.wrong)
    source = "are in the account's own statistics"
    return Basis(day, DAY_S, (rows,) if queues else (), not queues, source)


# --- how likely by chance --------------------------------------------------------------------


def _find_jumps(day: Stretch, rows: Sequence[Stretch], usual: float) -> Iterator[tuple[float, Stretch]]:
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
            chance = exact_chance(recent, before)
            if chance < CHANCE:
                yield chance, recent


def exact_chance(recent: Stretch, before: Stretch) -> float:
    """How likely so many or more of all complaints fall into one stretch by chance alone.

    Fisher's exact test, one-sided: with the number of complaints given, those in the stretch follow the
    hypergeometric distribution if the share is the same in both. It is exact for the smallest counts, where
    tests that take counts for normal are not. Source: R. A. Fisher, The Logic of Inductive Inference, Journal
    of the Royal Statistical Society 98 (1935); A. Agresti, Categorical Data Analysis, section 3.5.
    """
    drawn, rest = max(recent.tasks, recent.wrong), max(before.tasks, before.wrong, 0)
    marked = recent.wrong + max(before.wrong, 0)
    plain = drawn + rest - marked
    chance = exp(
        _log_choose(marked, recent.wrong)
        + _log_choose(plain, drawn - recent.wrong)
        - _log_choose(drawn + rest, drawn)
    )
    total, wrong = 0.0, recent.wrong
    while chance > total * 1e-9 and wrong <= min(marked, drawn):
        total += chance
        chance *= (marked - wrong) * (drawn - wrong) / ((wrong + 1.0) * (plain - drawn + wrong + 1.0))
        wrong += 1
    return min(total, 1.0)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _is_above(day: Stretch, usual: float) -> bool:
    """True if a usual share would hardly ever lead to so many complaints.

    Chernoff's bound on the binomial tail, which holds for any number. Source: H. Chernoff, A Measure of
    Asymptotic Efficiency, Annals of Mathematical Statistics 23 (1952).
    """
    share, tasks = day.share, max(day.tasks, day.wrong)
    if share <= usual:
        return False
    distance = share * log(share / usual)
    if share < 1.0:
        distance += (1.0 - share) * log((1.0 - share) / (1.0 - usual))
    return tasks * distance > -log(CHANCE)
