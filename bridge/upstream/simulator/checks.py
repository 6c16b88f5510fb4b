"""Shapes of JSON values: each node checks a value and renders itself as draft-07 schema.

The scenario file, the control endpoint and `schemas/scenario.json` come from the same nodes, so they
cannot drift apart. A refusal names the JSON Pointer and never repeats the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class NotValid(ValueError):
    """A JSON value does not have the documented shape.

    Args:
        pointer: JSON Pointer of the value at fault; empty for the whole document.
        problem: what is wrong, as the rest of a sentence.
    """

    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(f"at {pointer}: {problem}" if pointer else f"at the top level: {problem}")
        self.pointer = pointer
        self.problem = problem


class Node(Protocol):
    """One shape."""

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""


class Number:
    """A finite number inside a closed range."""

    def __init__(self, low: float, high: float, note: str = "") -> None:
        self.low, self.high, self.note = low, high, note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        # NaN fails both comparisons, and bool is an int for Python but not for JSON.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not self.low <= value <= self.high
        ):
            raise NotValid(pointer, f"must be a number from {self.low:g} to {self.high:g}")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        return _noted({"type": "number", "minimum": self.low, "maximum": self.high}, self.note)


class Integer:
    """An integer inside a closed range."""

    def __init__(self, low: int, high: int, note: str = "") -> None:
        self.low, self.high, self.note = low, high, note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise NotValid(pointer, f"must be an integer from {self.low} to {self.high}")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        return _noted({"type": "integer", "minimum": self.low, "maximum": self.high}, self.note)


class Text:
    """A string, free or out of a closed list."""

    def __init__(self, *choices: str, longest: int = 1_000_000, note: str = "") -> None:
        self.choices, self.longest, self.note = choices, longest, note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if self.choices:
            if value not in self.choices or not isinstance(value, str):
                raise NotValid(pointer, f"must be one of {', '.join(self.choices)}")
        elif not isinstance(value, str) or len(value) > self.longest:
            raise NotValid(pointer, f"must be a string of at most {self.longest} characters")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        if self.choices:
            return _noted({"enum": list(self.choices)}, self.note)
        return _noted({"type": "string", "maxLength": self.longest}, self.note)


class Flag:
    """True or false."""

    def __init__(self, note: str = "") -> None:
        self.note = note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if not isinstance(value, bool):
            raise NotValid(pointer, "must be true or false")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        return _noted({"type": "boolean"}, self.note)


class Anything:
    """Any JSON value."""

    def __init__(self, note: str = "") -> None:
        self.note = note

    def check(self, value: Any, pointer: str = "") -> None:
        """Accept."""

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        return _noted({}, self.note)


class OrNull:
    """A shape, or null."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if value is None:
            return
        try:
            self.node.check(value, pointer)
        except NotValid as refusal:
            if refusal.pointer != pointer:
                raise
            raise NotValid(pointer, f"{refusal.problem}, or null") from None

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        inner = self.node.schema()
        note = inner.pop("description", "")
        return _noted({"anyOf": [inner, {"type": "null"}]}, note)


class List:
    """An array of values of one shape."""

    def __init__(self, node: Node, note: str = "") -> None:
        self.node, self.note = node, note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if not isinstance(value, list):
            raise NotValid(pointer, "must be an array")
        for index, item in enumerate(value):
            self.node.check(item, f"{pointer}/{index}")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        return _noted({"type": "array", "items": self.node.schema()}, self.note)


class Shape:
    """An object with named members and no others.

    Args:
        fields: shape of each member.
        required: names that must be there.
        one_of: names of which exactly one must be there.
        not_both: pairs of names that exclude each other.
    """

    def __init__(
        self,
        fields: Mapping[str, Node],
        *,
        required: Sequence[str] = (),
        one_of: Sequence[str] = (),
        not_both: Sequence[tuple[str, str]] = (),
        note: str = "",
    ) -> None:
        self.fields, self.required, self.one_of = fields, required, one_of
        self.not_both, self.note = not_both, note

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if not isinstance(value, dict):
            raise NotValid(pointer, "must be an object")
        for name in value:
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise NotValid(pointer, f"has a member that is not known; known are {known}")
        for name in self.required:
            if name not in value:
                raise NotValid(pointer, f"must have the member {name}")
        if self.one_of and sum(name in value for name in self.one_of) != 1:
            raise NotValid(pointer, f"must have exactly one of the members {', '.join(self.one_of)}")
        for first, second in self.not_both:
            if first in value and second in value:
                raise NotValid(pointer, f"must not have both {first} and {second}")
        for name, item in value.items():
            self.fields[name].check(item, f"{pointer}/{name}")

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        made: dict[str, Any] = {
            "type": "object",
            "properties": {name: node.schema() for name, node in self.fields.items()},
            "additionalProperties": False,
        }
        if self.required:
            made["required"] = list(self.required)
        if self.one_of:
            made["oneOf"] = [{"required": [name]} for name in self.one_of]
        if self.not_both:
            made["allOf"] = [{"not": {"required": list(pair)}} for pair in self.not_both]
        return _noted(made, self.note)


class Named:
    """A shape that the schema spells once, under ``definitions``, and refers to elsewhere."""

    def __init__(self, name: str, node: Node) -> None:
        self.name, self.node = name, node

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        self.node.check(value, pointer)

    def schema(self) -> dict[str, Any]:
        """Render a reference."""
        return {"$ref": f"#/definitions/{self.name}"}


class Tagged:
    """An object whose member `tag` says which of several shapes it has."""

    def __init__(self, tag: str, shapes: Mapping[str, Shape]) -> None:
        self.tag, self.shapes = tag, shapes

    def check(self, value: Any, pointer: str = "") -> None:
        """Raise `NotValid` unless the value has this shape."""
        if not isinstance(value, dict):
            raise NotValid(pointer, "must be an object")
        if self.tag not in value:
            raise NotValid(pointer, f"must have the member {self.tag}")
        name = value[self.tag]
        if not isinstance(name, str) or name not in self.shapes:
            raise NotValid(f"{pointer}/{self.tag}", f"must be one of {', '.join(self.shapes)}")
        self.shapes[name].check(value, pointer)

    def schema(self) -> dict[str, Any]:
        """Render the shape as a draft-07 schema."""
        made = []
        for name, shape in self.shapes.items():
            schema = shape.schema()
            schema["properties"] = {**schema["properties"], self.tag: {"const": name}}
            made.append(schema)
        return {"anyOf": made}


def _noted(schema: dict[str, Any], note: str) -> dict[str, Any]:
    return {"description": note, **schema} if note else schema
