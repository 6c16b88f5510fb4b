"""Tests of `bridge.reports.runway`, one structure at a time."""

from __future__ import annotations

from bridge.core.model import Facts, Task, Window
from bridge.core.redact import Secret
from bridge.reports.flight import CLOSING, Flight
from bridge.reports.runway import Roster, Runway


def fly(number: int, until: float = 60.0) -> Flight:
    """A new flight whose window ends at this time."""
    task = Task("https://upstream.test", "a" * 32, number)
    return Flight(task, "reportIncorrectImageCaptcha", Secret("k" * 32), Window(until, None), Facts())


def test_slots_are_given_until_none_is_left() -> None:
    """Each slot is given once, and again after it was given back."""
    runway, flights = Runway(2), [fly(n) for n in range(3)]
    assert [runway.take_slot(flight) for flight in flights] == [True, True, False]
    assert [flight.slot for flight in flights] == [True, True, False]
    runway.give_back(flights[2])
    assert not runway.take_slot(flights[2]), "who had none gives none back"
    runway.give_back(flights[0])
    runway.give_back(flights[0])
    assert runway.take_slot(flights[2])
    assert not runway.take_slot(flights[0])


def test_newcomers_do_not_overtake_the_ready() -> None:
    """With somebody ready, a free slot is not for a newcomer."""
    runway, ready = Runway(1), fly(1)
    runway.queue(ready)
    assert not runway.take_slot(fly(2))
    assert runway.next_ready() is ready
    assert ready.slot
    assert runway.next_ready() is None


def test_earliest_end_goes_first_in_both_queues() -> None:
    """The queues are ordered by the ends of the windows, then by arrival, and skip what has gone."""
    runway = Runway(9)
    assert not runway.has_gated
    for put, take in ((runway.queue, runway.next_ready), (runway.gate, runway.next_gated)):
        late, gone, early, second = fly(1, 90.0), fly(2, 10.0), fly(3, 30.0), fly(4, 30.0)
        for flight in (late, gone, early, second):
            put(flight)
        gone.phase = CLOSING
        assert [take() for _ in range(4)] == [early, second, late, None]
        assert not gone.slot
    runway.gate(fly(5))
    assert runway.has_gated


def test_ready_reports_wait_for_a_slot() -> None:
    """Without a slot nobody is taken out."""
    runway, holder, ready = Runway(1), fly(1), fly(2)
    runway.take_slot(holder)
    runway.queue(ready)
    assert runway.next_ready() is None
    runway.give_back(holder)
    assert runway.next_ready() is ready


def test_roster_forgets_who_has_left() -> None:
    """A name stands for each flight as often as it was added, and then for nothing at all."""
    roster, one, other = Roster(), fly(1), fly(2)
    for name, flight in (("n", one), ("n", one), ("n", other), (None, one)):
        roster.add(name, flight)
    assert roster.find("n") == (one, other)
    assert roster.find("m") == ()
    roster.remove("n", one)
    assert roster.find("n") == (one, other)
    roster.remove("n", one)
    assert roster.find("n") == (other,)
    roster.remove("n", other)
    roster.remove("n", other)
    roster.remove(None, one)
    assert roster._flights == {}
