"""The engine's greenlets: each runs one function at a time, and the next one when it is done."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

import pytest
from greenlet import getcurrent

from bridge.engine import Engine, core

PATIENCE_S: Final = 20.0


class Place:
    """Remembers who has run in which greenlet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seen: list[Any] = []
        self.done = 0

    def run(self) -> None:
        """Take note of the greenlet, and wait a turn."""
        self.seen.append(getcurrent())
        self._engine.sleep(0.0)
        self.done += 1


def turn(engine: Engine, is_done: Callable[[], bool]) -> None:
    """Let the engine turn until something is so."""
    until = engine.now() + PATIENCE_S
    while not is_done():
        assert engine.now() < until
        engine.sleep(0.0)


def test_no_more_rest_than_a_full_load_takes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a burst leaves behind beyond that ends."""
    monkeypatch.setattr(core, "MOST_RESTING", 2)
    place = Place(engine)
    for _ in range(5):
        engine.spawn(place.run)
    turn(engine, lambda: place.done == 5)
    assert sorted(greenlet.dead for greenlet in place.seen) == [False, False, True, True, True]


def test_what_a_greenlet_was_given_is_let_go() -> None:
    """A key that was handed to a function is gone with its report, though the greenlet rests; so is a bug."""
    bugs: list[str] = []
    engine = Engine(lambda bug: bugs.append(str(bug)))
    place = Place(engine)
    kept = weakref.ref(place)

    def fail(_given: Place) -> None:
        raise LookupError("a bug")

    engine.spawn(place.run)
    engine.spawn(fail, place)
    del place
    turn(engine, lambda: kept() is None)
    assert bugs == ["a bug"]


def test_a_bug_ends_nothing_but_its_function() -> None:
    """Each is told, and who comes next runs."""
    bugs: list[BaseException] = []
    engine = Engine(bugs.append)
    for number in (1, 2):
        engine.spawn(lambda: 1 / 0)
        turn(engine, lambda number=number: len(bugs) == number)  # type: ignore[misc]
    assert [type(bug) for bug in bugs] == [ZeroDivisionError] * 2
