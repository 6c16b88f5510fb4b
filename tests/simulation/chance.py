"""Chance that has a name: the same seed and name give the same numbers, on every Python and hash seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Numbers that follow from names, such as a seed and what it is for.

    Only `random` and `getrandbits` of the library are used: the others have changed between versions.
    """

    def __init__(self, *names: object) -> None:
        self._random = random.Random("/".join(map(str, names)))

    def number(self) -> float:
        """From 0 up to 1."""
        return self._random.random()

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self._random.random() < probability

    def between(self, least: float, most: float) -> float:
        """Evenly between two numbers."""
        return least + (most - least) * self._random.random()

    def whole(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return least + int((most - least + 1) * self._random.random())

    def pick(self, things: Sequence[T]) -> T:
        """One of several."""
        return things[int(len(things) * self._random.random())]

    def pick_by(self, weights: Sequence[tuple[T, float]]) -> T:
        """One of several, each as often as its weight says."""
        left = sum(weight for _, weight in weights) * self._random.random()
        for thing, weight in weights:
            left -= weight
            if left < 0.0:
                return thing
        return weights[-1][0]

    def some_bytes(self, count: int) -> bytes:
        """Bytes."""
        return self._random.getrandbits(8 * count).to_bytes(count, "big")
