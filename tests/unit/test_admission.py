"""Who may send next: slots, and reports that wait for another one's attempt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from bridge.core.model import Facts, PauseKey, Task, Window
from bridge.core.redact import Secret
from bridge.engine import Engine
from bridge.reports.admission import POLL_S, SingleFlight, Slots
from bridge.reports.job import Interrupted, Job
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import Clock, raise_bug, timeless

NUMBERS = count(1)
KEY = PauseKey("proof", "a" * 32)


@pytest.fixture
def time() -> VirtualTime:
    """A time that is handed out."""
    return VirtualTime()


@pytest.fixture
def engine(time: VirtualTime) -> Engine:
    """An engine in that time; a bug ends the test."""
    return Engine(raise_bug, VirtualLoop(time), Clock(time))


def make_job(engine: Engine, until: float = 60.0) -> Job:
    """A new job whose window ends at this time."""
    task = Task("https://upstream.test", "a" * 32, next(NUMBERS))
    return Job(
        timeless(engine), task, "reportIncorrectImageCaptcha", Secret("k" * 32), Window(until, None), Facts()
    )


def start(engine: Engine, wait: Callable[[Job], object], jobs: list[Job], order: list[Job]) -> None:
    """Let jobs wait; they are noted in the order in which they go on."""

    def run(job: Job) -> None:
        try:
            wait(job)
        except Interrupted:
            return
        order.append(job)

    for job in jobs:
        engine.spawn(run, job)


def test_slots_are_given_until_none_is_left(engine: Engine) -> None:
    """Each slot is given once, and again after it was given back; who had none gives none back."""
    slots, jobs = Slots(2), [make_job(engine) for _ in range(3)]
    assert [slots.take_free(job) for job in jobs] == [True, True, False]
    slots.give_back(jobs[2])
    assert not slots.take_free(jobs[2])
    slots.give_back(jobs[0])
    slots.give_back(jobs[0])
    assert slots.take_free(jobs[2])
    assert not slots.take_free(jobs[0])


def test_newcomers_do_not_overtake_those_who_wait(engine: Engine, time: VirtualTime) -> None:
    """A slot that is given back goes to who waits for it, not to whom asks next."""
    slots, holder, waiting, newcomer = Slots(1), make_job(engine), make_job(engine), make_job(engine)
    order: list[Job] = []
    assert slots.take_free(holder)
    start(engine, slots.take, [waiting], order)
    time.run()
    slots.give_back(holder)
    assert not slots.take_free(newcomer)
    time.run()
    assert order == [waiting]
    assert waiting.has_slot


def test_earliest_window_end_goes_first(engine: Engine, time: VirtualTime) -> None:
    """Slots and turns go by the tenths of a second of the ends, then by arrival; who has gone is skipped."""
    slots, flight, holder = Slots(1), SingleFlight(engine), make_job(engine)
    slots.take_free(holder)

    def wake_one(_job: Job) -> None:
        flight.wake(everyone=False)

    ways: list[tuple[Callable[[Job], None], Callable[[Job], None]]] = [
        (slots.take, slots.give_back),
        (partial(flight.wait, key=KEY), wake_one),
    ]
    for wait, go_on in ways:
        jobs = [make_job(engine, until) for until in (90.0, 10.0, 30.3, 30.0, 29.96)]
        late, gone, third, early, second = jobs
        order: list[Job] = []
        start(engine, wait, jobs, order)
        time.run()
        gone.interrupt(Interrupted("request_cancelled"))
        time.run()
        go_on(holder)
        for went in (1, 2, 3, 4):
            time.run()
            assert order == [early, second, third, late][:went]
            go_on(order[-1])


def test_what_is_nudged_while_its_turn_comes_is_not_forgotten(engine: Engine, time: VirtualTime) -> None:
    """A window that is narrowed in the same moment as a slot is given does not lose the slot."""
    slots, holder, waiting = Slots(1), make_job(engine), make_job(engine)
    order: list[Job] = []
    slots.take_free(holder)
    start(engine, slots.take, [waiting], order)
    time.run()
    assert waiting.narrow(Window(50.0, None))
    slots.give_back(holder)
    time.run(1.0)
    assert order == [waiting]


def test_everybody_is_woken_when_a_pause_has_changed(engine: Engine, time: VirtualTime) -> None:
    """All that wait for another attempt ask again; without a word the first one asks now and then."""
    flight, order = SingleFlight(engine), list[Job]()
    jobs = [make_job(engine, until) for until in (50.0, 40.0)]
    start(engine, partial(flight.wait, key=KEY), jobs, order)
    time.run(0.3)
    assert order == jobs[1:]
    flight.wake(everyone=True)
    time.run()
    assert order == [jobs[1], jobs[0]]


def test_those_who_wait_are_asked_one_after_another(engine: Engine, time: VirtualTime) -> None:
    """Without a word each of them asks in its turn, though who asked before does not wait any more."""
    flight, order = SingleFlight(engine), list[Job]()
    jobs = [make_job(engine, until) for until in (40.0, 50.0, 60.0)]
    start(engine, partial(flight.wait, key=KEY), jobs, order)
    for asked in (1, 2, 3):
        time.run(POLL_S + 0.01)
        assert order == jobs[:asked]


def test_who_was_given_a_slot_keeps_no_other_from_the_next(engine: Engine, time: VirtualTime) -> None:
    """Whose turn has come does not wait any more, even before it goes on."""
    slots, order = Slots(2), list[Job]()
    first, second, waiting, newcomer = (make_job(engine) for _ in range(4))
    assert slots.take_free(first)
    assert slots.take_free(second)
    start(engine, slots.take, [waiting], order)
    time.run()
    slots.give_back(first)
    slots.give_back(second)
    assert slots.take_free(newcomer)
    assert waiting.has_slot


def test_who_learns_of_an_earlier_end_goes_earlier(engine: Engine, time: VirtualTime) -> None:
    """A window that got narrower while its report waits counts as it is now."""
    slots, holder = Slots(1), make_job(engine)
    early, late = make_job(engine, 50.0), make_job(engine, 55.0)
    order: list[Job] = []
    assert slots.take_free(holder)
    start(engine, slots.take, [early, late], order)
    time.run()
    assert late.narrow(Window(40.0, None))
    slots.move(late)
    slots.move(holder)
    slots.give_back(holder)
    time.run()
    assert order == [late]


def test_who_asks_again_keeps_his_place(engine: Engine, time: VirtualTime) -> None:
    """Of windows that end together the older report goes first, however often it has asked in vain."""
    flight, older, newer = SingleFlight(engine), make_job(engine), make_job(engine)
    order: list[Job] = []

    def wait_twice(job: Job) -> None:
        flight.wait(job, KEY)
        flight.wait(job, KEY)

    start(engine, wait_twice, [older, newer], order)
    time.run(2.5 * POLL_S)
    assert order == [older]


def test_who_waits_for_another_attempt_is_in_nobodys_way(engine: Engine, time: VirtualTime) -> None:
    """However many wait for the attempt of one account: those of others ask as if they were alone."""
    flight, order = SingleFlight(engine), list[Job]()
    many, other = [make_job(engine, 20.0) for _ in range(5)], make_job(engine)

    def wait_long(job: Job) -> None:
        while True:
            flight.wait(job, KEY)

    start(engine, wait_long, many, order)
    start(engine, partial(flight.wait, key=PauseKey("proof", "b" * 32)), [other], order)
    time.run(1.5 * POLL_S)
    assert order == [other]
