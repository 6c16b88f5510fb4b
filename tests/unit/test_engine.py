"""The engine's greenlets: each runs one function at a time, and the next one when it is done."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from greenlet import getcurrent

from bridge.engine import Engine, core


class Place:
    """Remembers who has run in which greenlet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seen: list[Any] = []

    def run(self, seconds: float = 0.0) -> None:
        """Take note of the greenlet, and wait."""
        self.seen.append(getcurrent())
        self._engine.sleep(seconds)


def test_a_greenlet_that_is_done_serves_again(engine: Engine) -> None:
    """Those that wait at the same time have one each; who comes when they are done takes one of theirs."""
    place = Place(engine)
    for _ in range(3):
        engine.spawn(place.run, 0.001)
    engine.sleep(0.01)
    assert len(set(place.seen)) == 3
    engine.spawn(place.run)
    engine.sleep(0.001)
    assert place.seen[3] in place.seen[:3]


def test_no_more_rest_than_a_full_load_takes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a burst leaves behind beyond that ends."""
    monkeypatch.setattr(core, "MOST_RESTING", 2)
    place = Place(engine)
    for _ in range(5):
        engine.spawn(place.run)
    engine.sleep(0.01)
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
    engine.sleep(0.001)
    assert bugs == ["a bug"]
    assert kept() is None


def test_a_bug_ends_nothing_but_its_function() -> None:
    """Who comes next runs in the same greenlet."""
    bugs: list[BaseException] = []
    engine = Engine(bugs.append)
    seen: list[Any] = []

    def fail() -> None:
        seen.append(getcurrent())
        raise LookupError

    for _ in range(2):
        engine.spawn(fail)
        engine.sleep(0.001)
    assert seen[0] is seen[1]
    assert [type(bug) for bug in bugs] == [LookupError, LookupError]
