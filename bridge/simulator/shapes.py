"""How Python's names of things are spelled in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any


@cache
def wire_name(name: str) -> str:
    """Return Python's name of something as JSON spells it; ``window_s`` is windowSeconds."""
    first, *rest = name.split("_")
    return first + "".join("Seconds" if word == "s" else word.capitalize() for word in rest)


def to_json(one: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of an object as JSON spells them."""
    return {wire_name(name): getattr(one, name) for name in names}
