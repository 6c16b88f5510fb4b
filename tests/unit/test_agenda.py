"""What is due when."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from bridge.reports.agenda import Agenda


def test_runs_in_order_of_time_then_of_entry() -> None:
    """Earlier moments first; equal moments in the order they were added."""
    agenda = Agenda()
    done: list[str] = []
    for at, name in ((3.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "z")):
        agenda.add(at, partial(done.append, name))
    agenda.run_due(5.0)
    assert done == ["a", "b", "c"]
    assert agenda.next_at() == 9.0


def test_cancelled_entries_are_forgotten() -> None:
    """A cancelled entry neither runs nor is due; cancelling twice is harmless."""
    agenda = Agenda()
    done: list[int] = []
    entry = agenda.add(1.0, partial(done.append, 1))
    entry.cancel()
    entry.cancel()
    assert agenda.next_at() is None
    agenda.run_due(2.0)
    assert done == []


def test_actions_may_add_and_cancel() -> None:
    """An action that adds something due now gets it run in the same go."""
    agenda = Agenda()
    done: list[str] = []

    def add_more() -> None:
        agenda.add(1.5, partial(done.append, "late"))

    agenda.add(1.0, add_more)
    agenda.run_due(2.0)
    assert done == ["late"]


def test_memory_follows_what_is_alive() -> None:
    """Cancelled entries are dropped in the course of adding."""
    agenda = Agenda()
    for number in range(20_000):
        agenda.add(float(number), lambda: None).cancel()
    assert len(agenda._heap) < 3000


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50), st.floats(0, 100))
def test_exactly_what_is_due_and_alive_runs(entries: list[tuple[float, bool]], now: float) -> None:
    """Whatever was added, exactly the living entries up to now run, each once."""
    agenda = Agenda()
    done: list[int] = []
    for number, (at, alive) in enumerate(entries):
        entry = agenda.add(at, partial(done.append, number))
        if not alive:
            entry.cancel()
    agenda.run_due(now)
    assert sorted(done) == [n for n, (at, alive) in enumerate(entries) if alive and at <= now]
