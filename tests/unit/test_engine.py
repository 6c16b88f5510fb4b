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


def test_a_greenlet_that_is_done_serves_again(engine: Engine) -> None:
    """Those that wait at the same time have one each; who comes when they are done takes one of theirs."""
    place = Place(engine)
    for _ in range(3):
        engine.spawn(place.run)
    turn(engine, lambda: place.done == 3)
    assert len(set(place.seen)) == 3
    engine.spawn(place.run)
    turn(engine, lambda: place.done == 4)
    assert place.seen[3] in place.seen[:3]


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
    """Who comes next runs in the same greenlet."""
    bugs: list[BaseException] = []
    engine = Engine(bugs.append)
    seen: list[Any] = []

    def fail() -> None:
        seen.append(getcurrent())
        raise LookupError

    engine.spawn(fail)
    turn(engine, lambda: len(bugs) == 1)
    engine.spawn(fail)
    turn(engine, lambda: len(bugs) == 2)
    assert seen[0] is seen[1]
    assert [type(bug) for bug in bugs] == [LookupError, LookupError]
