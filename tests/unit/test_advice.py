"""Tests of the advice: what is counted, what is said of it, and how seldom it misleads on generated days."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import comb
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.counting import DAY_S, FINE_S, HOUR_S, KEPT_S, Counts, Figure, Tallied, Tally, add
from bridge.core.model import Facts, Row, Task, Window
from bridge.reports import advice
from bridge.reports.advice import Stretch, advise, find_chance, find_subject, sum_day, tally

TASK = Task("https://upstream", "a1b2c3d4" * 4, 0)
T0 = 1_000_000_000.0 - 1_000_000_000.0 % HOUR_S


class Books:
    """Counts as a ledger keeps them, for one account."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, int], Tally] = {}
        self.figures: list[Figure] = []

    def count(self, at: float, subject: str = "recaptcha", **counts: float) -> None:
        more = Counts(**counts)  # type: ignore[arg-type]
        for width in KEPT_S:
            key = (subject, width, int(at // width))
            before = self.rows.get(key)
            after = more if before is None else add(before.counts, more)
            self.rows[key] = Tally(subject, width, key[2] * float(width), after)

    def known(self, now: float) -> Tallied:
        kept = tuple(row for row in self.rows.values() if row.at + row.width_s > now - KEPT_S[row.width_s])
        return Tallied(TASK, kept, tuple(self.figures))

    def say(self, now: float, queues: tuple[str, ...] = ()) -> dict[str, str]:
        return {kind: message for kind, _, message in advise(self.known(now), now, queues)}

    def prune(self, now: float) -> None:
        gone = [key for key in self.rows if (key[2] + 1) * key[1] <= now - KEPT_S[key[1]]]
        for key in gone:
            del self.rows[key]


def live(
    books: Books, start: float, a_day: int, share: float, chance: random.Random, seconds: float
) -> Iterator[float]:
    """Let an account solve tasks and report some; yields the time of every complaint after it was counted."""
    now = start
    while (now := now + chance.expovariate(a_day / DAY_S)) < start + seconds:
        books.count(now, tasks=1)
        if chance.random() < share:
            books.count(now + chance.uniform(-5.0, 0.0), wrong=1, sent=1)
            yield now


def ended(
    method: str = "reportIncorrectRecaptcha", outcome: str = "accepted", code: int = 0, **more: Any
) -> Row:
    """A report that has ended."""
    whose, window = TASK._replace(task_id=5), Window(None, T0)
    row = Row(
        1, whose, method, "done", outcome, None, 1, 1, False, window, Facts(), code, outcome, {}, T0, T0, 9
    )
    return row._replace(**more)


# --- what is counted -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "counts"),
    [
        (ended(), Counts(wrong=1, sent=1)),
        (ended(outcome="unknown", code=-32002), Counts(wrong=1, sent=1)),
        (ended(outcome="refused", code=16), Counts(sent=1, refused=1)),
        (ended(outcome="refused", code=11), Counts(sent=1)),
        (ended("reportCorrectRecaptcha"), Counts(sent=1)),
        (ended(outcome="not_sent", code=-32010, kind="window_closed"), Counts(late=1)),
    ],
)
def test_a_report_counts_as_what_the_upstream_saw(row: Row, counts: Counts) -> None:
    """What may have been taken counts as a complaint, error 16 as refused, a closed window as late."""
    assert tally(row, T0 + 1.0) == ("recaptcha", T0 - 59.0, counts)


@pytest.mark.parametrize(
    "row", [ended(outcome="not_sent", code=-32021, kind="sending_paused"), ended("other")]
)
def test_what_nobody_saw_does_not_count(row: Row) -> None:
    """A report that was not sent for another reason, or of a method nobody knows, adds nothing."""
    assert tally(row, T0) is None


@pytest.mark.parametrize(
    ("until", "at"), [(T0 + 60.0, T0), (T0 + 20.0, T0 - 40.0), (T0 + 900.0, T0), (T0 - 90_000.0, T0 - HOUR_S)]
)
def test_a_complaint_counts_when_its_task_was_solved(until: float, at: float) -> None:
    """It is put where its completion was, never after now and never before what is kept."""
    found = tally(ended(window=Window(until, None)), T0)
    assert found is not None
    assert found[1] == at


@pytest.mark.parametrize(
    ("name", "subject"),
    [("RecaptchaV3TaskProxyless", "recaptcha"), ("imagetotexttask", "image"), ("TurnstileTask", None)],
)
def test_a_task_type_has_a_subject(name: str, subject: str | None) -> None:
    """It is what the methods that fit it are about, however it is spelled."""
    assert find_subject(name) == subject


def eighths(least_s: float) -> st.SearchStrategy[float]:
    """Moments of two days, in eighths: none is rounded into another hour when added to the beginning."""
    return st.integers(int(least_s) * 8, int(2 * DAY_S) * 8).map(lambda count: count / 8)


@given(st.lists(eighths(0.0), max_size=40), eighths(DAY_S))
def test_a_day_has_what_the_last_24_hours_had(times: list[float], now: float) -> None:
    """Sums lie between what came after the oldest hour and what came since it began."""
    books = Books()
    for at in times:
        books.count(T0 + at, tasks=1)
    told = sum_day(books.known(T0 + now).tallies, T0 + now).get("recaptcha", Counts()).tasks
    passed = [at for at in times if (at // HOUR_S) * HOUR_S <= now + 2.0]
    edge = (now - DAY_S) // HOUR_S * HOUR_S
    assert sum(at >= edge + HOUR_S for at in passed) <= told <= sum(at >= edge for at in passed)


def test_a_day_loses_an_old_hour_little_by_little() -> None:
    """At the edge of an hour nothing jumps: of the oldest hour counts the part that is not a day old."""
    books = Books()
    books.count(T0 + 60.0, tasks=60, costed=60, cost=6.0)
    sums = [sum_day(books.known(T0 + DAY_S + s).tallies, T0 + DAY_S + s) for s in (0.0, 900.0, 3599.0)]
    assert [day["recaptcha"].tasks for day in sums] == [60, 45, 0]
    assert sums[1]["recaptcha"].cost == 4.5


# --- how likely by chance --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "wrong", "usual", "chance"),
    [(9, 9, 0.1, 1e-9), (4, 2, 0.25, 9 / 16), (10, 0, 0.5, 1.0), (10, 5, 0.5, 1.0), (0, 3, 0.5, 1 / 8)],
)
def test_the_chance_of_a_share_is_bounded(tasks: int, wrong: int, usual: float, chance: float) -> None:
    """Known shares have their known bounds, and what is usual or less is no surprise."""
    assert find_chance(Stretch(0.0, tasks, wrong), usual) == pytest.approx(chance)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_chance_is_never_understated(
    wrong: int, right: int, wrong_before: int, right_before: int
) -> None:
    """By Fisher's exact test a part of a day has so many of its complaints no more often than is said."""
    tasks, day, complaints = wrong + right, wrong + right + wrong_before + right_before, wrong + wrong_before
    ways = (
        comb(complaints, more) * comb(day - complaints, tasks - more)
        for more in range(wrong, min(complaints, tasks) + 1)
    )
    bound = find_chance(Stretch(0.0, tasks, wrong), Stretch(0.0, day, complaints).share)
    assert sum(ways) / comb(day, tasks) <= bound * (1.0 + 1e-9)
    assert bound <= 1.0


# --- generated days --------------------------------------------------------------------------


def test_steady_accounts_are_left_alone() -> None:
    """Of 1,000 accounts that report 8 to 12 % of their tasks for a day, looked at with every report, one at
    most is told of a jump, and none of a share that is far off."""
    misled = high = 0
    for number in range(1000):
        chance = random.Random(number)
        books = Books()
        kinds: set[str] = set()
        for now in live(
            books, T0, chance.choice((150, 150, 400, 1000)), chance.uniform(0.08, 0.12), chance, DAY_S
        ):
            books.prune(now)
            kinds |= books.say(now).keys()
        misled += "rate_jump" in kinds
        high += "rate_high" in kinds
    assert (misled <= 1, high) == (True, 0), (misled, high)


@pytest.mark.parametrize("a_day", [150, 700, 3000, 12_000, 90_000, 300_000])
@pytest.mark.parametrize("seed", range(3))
def test_a_jump_is_told_within_20_reports(a_day: int, seed: int) -> None:
    """From one task in ten to every one: it is told with the 20th complaint at the latest, at any pace."""
    chance = random.Random(seed)
    books = Books()
    start = T0 + chance.uniform(0.0, HOUR_S)
    day = DAY_S if a_day < 5000 else 2 * HOUR_S
    *_, now = live(books, start, a_day, 0.1, chance, day)
    assert "rate_jump" not in books.say(now)
    for _, now in zip(range(20), live(books, start + day, a_day, 1.0, chance, 9.0 * DAY_S), strict=False):
        books.prune(now)
        told = books.say(now)
        if "rate_jump" in told:
            assert "were reported as wrong in the last" in told["rate_jump"]
            return
    raise AssertionError(books.say(now))


@pytest.mark.parametrize("every", [8, 10])
def test_an_account_with_80_tasks_a_day_hears_of_it_before_its_tenth_report(every: int) -> None:
    """Few tasks are told from the pace of the first day, long before it is over."""
    books, reports, told_at = Books(), 0, None
    for number in range(1, 81):
        now = T0 + number * DAY_S / 80
        books.count(now, tasks=1)
        if number % every == 0:
            reports += 1
            books.count(now, wrong=1, sent=1)
            told_at = told_at or (reports if "few_tasks" in books.say(now) else None)
    assert told_at is not None
    assert told_at < 10


def test_enough_tasks_are_not_called_few() -> None:
    """With 110 tasks a day nothing is said, at any hour of three days and at the edges of hours."""
    books = Books()
    for number in range(330):
        books.count(T0 + number * DAY_S / 110, tasks=1, wrong=int(number % 10 == 0), sent=1)
        for second in (0.0, 0.001, 1800.0):
            assert "few_tasks" not in books.say(T0 + number * DAY_S / 110 + second)


def test_a_quiet_start_is_not_called_few() -> None:
    """Nothing is foretold from the first hours."""
    books = Books()
    books.count(T0, tasks=3, wrong=1)
    assert books.say(T0 + 4.0 * HOUR_S) == {}
    assert "12 reCAPTCHA" not in books.say(T0 + 5.1 * HOUR_S)["few_tasks"]
    assert (
        "3 reCAPTCHA tasks were noted in 24 h so far, which makes 18 a day"
        in books.say(T0 + 5.0 * HOUR_S)["few_tasks"]
    )


# --- the other kinds -------------------------------------------------------------------------


def test_a_high_share_is_told_with_the_rule_of_its_subject() -> None:
    """A steady share far above the usual one is told for tokens and for images, each with its own rule."""
    books = Books()
    books.count(T0, tasks=400, wrong=120, sent=120)
    assert "120 of 400 reCAPTCHA tasks (30%)" in books.say(T0 + 5.0)["rate_high"]
    books = Books()
    books.count(T0, "image", tasks=400, wrong=120, sent=120)
    assert books.say(T0 + 5.0) == {}
    books.count(T0, "image", wrong=160, sent=160)
    assert "three moderators" in books.say(T0 + 5.0)["rate_high"].lower()


@pytest.mark.parametrize(
    ("counts", "kinds"),
    [
        ({"sent": 100, "refused": 9}, set()),
        ({"sent": 100, "refused": 10}, {"many_refused"}),
        ({"sent": 1000, "refused": 49}, set()),
        ({"sent": 100, "late": 4}, set()),
        ({"sent": 100, "late": 5}, {"often_late"}),
        ({"sent": 19, "wrong": 19}, set()),
        ({"sent": 20, "wrong": 20}, {"tasks_unknown"}),
        ({"sent": 20, "wrong": 20, "tasks": 200}, set()),
    ],
)
def test_a_kind_is_told_from_its_threshold_on(counts: dict[str, Any], kinds: set[str]) -> None:
    """One report less and nothing is said."""
    books = Books()
    books.count(T0, **counts)
    assert books.say(T0 + 5.0).keys() == kinds


def test_every_sentence_has_figures_a_rule_and_what_to_do() -> None:
    """All six kinds are filled in completely, and none repeats the account's name."""
    books = Books()
    books.count(T0 - 9.0 * HOUR_S, tasks=90, wrong=2, sent=2)
    books.count(T0, tasks=9, wrong=60, sent=90, refused=30, late=30)
    found = books.say(T0 + 1.0)
    books = Books()
    books.count(T0, wrong=50, sent=50)
    found |= books.say(T0 + 1.0)
    books = Books()
    books.count(T0 - 20.0 * HOUR_S, tasks=60, wrong=2, sent=2)
    found |= books.say(T0 + 1.0)
    assert found.keys() == {
        "few_tasks",
        "rate_jump",
        "rate_high",
        "many_refused",
        "often_late",
        "tasks_unknown",
    }
    for message in found.values():
        assert "{" not in message
        assert any(letter.isdigit() for letter in message)
        assert TASK.account[:8] not in message


# --- the account's own figures ---------------------------------------------------------------


def figured(volume: int, hours: int = 24, queue: str = "") -> list[Figure]:
    """An account's figures for the hours before `T0`, which begin 45 minutes past."""
    return [Figure(queue, T0 - 900.0 - n * HOUR_S, volume) for n in range(1, hours + 1)]


def test_figures_of_all_queues_are_an_upper_bound() -> None:
    """They prove that there are few tasks, and how high the share is at least, and are said to be a bound."""
    books = Books()
    books.figures = figured(3)
    books.count(T0, wrong=40, sent=40)
    told = books.say(T0)
    assert told.keys() == {"few_tasks", "rate_high"}
    assert "at most 71 reCAPTCHA tasks are in the account's own statistics" in told["few_tasks"]
    books.figures = figured(300)
    assert books.say(T0) == {}


def test_figures_of_named_queues_count_together() -> None:
    """Nothing is concluded before every queue has been told; then their sum is the number of tasks."""
    books = Books()
    books.count(T0, wrong=30, sent=30)
    books.figures = figured(2, queue="A")
    assert books.say(T0, ("A", "B")).keys() == {"tasks_unknown"}
    books.figures += figured(1, queue="B")
    assert "71 reCAPTCHA tasks" in books.say(T0, ("A", "B"))["few_tasks"]


def test_figures_show_a_jump_by_the_hour() -> None:
    """With the queues named, complaints of an hour are held against its tasks."""
    books = Books()
    books.figures = figured(20, queue="A")
    for hour in range(24):
        books.count(T0 - (hour + 1) * HOUR_S, wrong=40 if hour < 1 else 2, sent=2)
    assert "rate_jump" in books.say(T0, ("A",))


def test_old_figures_say_nothing() -> None:
    """Hours after the last one told, the number of tasks is unknown again."""
    books = Books()
    books.figures = figured(1)
    books.count(T0 + 5.0 * HOUR_S, wrong=30, sent=30)
    assert books.say(T0 + 5.0 * HOUR_S).keys() == {"tasks_unknown"}


def test_noted_tasks_are_more_exact_than_an_upper_bound() -> None:
    """What was noted counts, unless the account's named queues have more."""
    books = Books()
    books.count(T0 - HOUR_S, tasks=300, wrong=30, sent=30)
    books.figures = figured(1)
    assert books.say(T0) == {}
    books.figures = figured(1, queue="A")
    assert books.say(T0, ("A",)) == {}


# --- properties ------------------------------------------------------------------------------

_COUNTS = st.fixed_dictionaries(
    {name: st.integers(0, 300) for name in ("tasks", "wrong", "sent", "refused", "late")}
)
_SUBJECTS = st.sampled_from(["recaptcha", "image", "hcaptcha"])
_STORIES = st.lists(st.tuples(st.floats(0.0, 1.2 * DAY_S), _SUBJECTS, _COUNTS))


@settings(max_examples=60)
@given(_STORIES, st.randoms(use_true_random=False))
def test_the_order_of_counting_does_not_matter(
    story: list[tuple[float, str, dict[str, int]]], chance: random.Random
) -> None:
    """Bridges that counted the same, in any order and any grouping, say the same; nothing fails."""
    one, other = Books(), Books()
    for at, subject, counts in story:
        one.count(T0 + at, subject, **counts)
    shuffled = [(at, subject, {name: n}) for at, subject, counts in story for name, n in counts.items()]
    chance.shuffle(shuffled)
    for at, subject, counts in shuffled:
        other.count(T0 + at, subject, **counts)
    now = T0 + 1.2 * DAY_S
    assert one.say(now) == other.say(now)


@given(st.floats(-40.0 * DAY_S, 40.0 * DAY_S).map(lambda s: s - s % HOUR_S))
def test_only_differences_of_time_matter(shift: float) -> None:
    """The same story at another time says the same: the wall clock's value enters nowhere."""
    books, moved = Books(), Books()
    for hour in range(30):
        for one, at in ((books, T0 + hour * 3600.0), (moved, T0 + shift + hour * 3600.0)):
            one.count(at + 7.0, tasks=20, wrong=18 if hour == 29 else 2, sent=2, late=hour % 2)
    assert books.say(T0 + 29.5 * HOUR_S) == moved.say(T0 + shift + 29.5 * HOUR_S) != {}


def test_what_lies_in_the_future_does_not_count() -> None:
    """Rows of a boot whose clock was ahead are as if they were not there."""
    books = Books()
    books.count(T0 + 5.0 * HOUR_S, tasks=5, wrong=400, sent=400, refused=300, late=99)
    assert books.say(T0) == {}


def test_fine_stretches_fit_into_hours() -> None:
    """Both cuts of time have the same edges, so that a day less its end is what came before."""
    assert HOUR_S % FINE_S == 0
    assert advice.CHANCE * 200_000 <= 1 / 5000
