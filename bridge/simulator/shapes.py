"""Shapes of JSON values: made and checked as the draft-07 schema that is published.

The scenario file, the control endpoint and `schemas/scenario.json` come from the same nodes, so they
cannot drift apart. A refusal names the JSON Pointer and never repeats the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

Schema = dict[str, Any]

DEFINITIONS: Final[dict[str, Schema]] = {}
"""What `named` has made, by name."""


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


@cache
def wire_name(name: str) -> str:
    """Return Python's name of something as JSON spells it; ``window_s`` is windowSeconds."""
    first, *rest = name.split("_")
    return first + "".join("Seconds" if word == "s" else word.capitalize() for word in rest)


def to_json(one: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes of an object as JSON spells them."""
    return {wire_name(name): getattr(one, name) for name in names}


# --- making -----------------------------------------------------------------------------------


def number(low: float, high: float, note: str = "") -> Schema:
    """A finite number inside a closed range."""
    return _noted({"type": "number", "minimum": low, "maximum": high}, note)


def integer(low: int, high: int, note: str = "") -> Schema:
    """An integer inside a closed range."""
    return _noted({"type": "integer", "minimum": low, "maximum": high}, note)


def text(*choices: str, longest: int = 1_000_000, note: str = "") -> Schema:
    """A string, free or out of a closed list."""
    return _noted({"enum": list(choices)} if choices else {"type": "string", "maxLength": longest}, note)


def flag(note: str = "") -> Schema:
    """True or false."""
    return _noted({"type": "boolean"}, note)


def anything(note: str = "") -> Schema:
    """Any JSON value."""
    return _noted({}, note)


def or_null(node: Schema) -> Schema:
    """A shape, or null."""
    inner = dict(node)
    note = inner.pop("description", "")
    return _noted({"anyOf": [inner, {"type": "null"}]}, note)


def array(node: Schema, note: str = "") -> Schema:
    """An array of values of one shape."""
    return _noted({"type": "array", "items": node}, note)


def shape(
    fields: Mapping[str, Schema],
    *,
    required: Sequence[str] = (),
    one_of: Sequence[str] = (),
    not_both: Sequence[tuple[str, str]] = (),
    note: str = "",
) -> Schema:
    """An object with named members and no others.

    Args:
        fields: shape of each member.
        required: names that must be there.
        one_of: names of which exactly one must be there.
        not_both: pairs of names that exclude each other.
        note: what it is.
    """
    made: Schema = {"type": "object", "properties": dict(fields), "additionalProperties": False}
    if required:
        made["required"] = list(required)
    if one_of:
        made["oneOf"] = [{"required": [name]} for name in one_of]
    if not_both:
        made["allOf"] = [{"not": {"required": list(pair)}} for pair in not_both]
    return _noted(made, note)


def tagged(tag: str, shapes: Mapping[str, Schema]) -> Schema:
    """An object whose member `tag` says which of several shapes it has."""
    return {
        "anyOf": [
            {**one, "properties": {**one["properties"], tag: {"const": name}}} for name, one in shapes.items()
        ]
    }


def named(name: str, node: Schema) -> Schema:
    """A shape that the schema spells once, under ``definitions``, and refers to elsewhere."""
    DEFINITIONS[name] = node
    return {"$ref": f"#/definitions/{name}"}


def _noted(schema: Schema, note: str) -> Schema:
    return {"description": note, **schema} if note else schema


# --- checking ---------------------------------------------------------------------------------


def check(value: Any, schema: Schema, pointer: str = "") -> None:
    """Raise `NotValid` unless a value has a shape that was made here."""
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        first, *others = schema["anyOf"]
        if others == [{"type": "null"}]:
            _check_or_null(value, first, pointer)
        else:
            _check_tagged(value, schema["anyOf"], pointer)
        return
    problem = _problem(value, schema)
    if problem:
        raise NotValid(pointer, problem)
    if schema.get("type") == "array":
        for index, item in enumerate(value):
            check(item, schema["items"], f"{pointer}/{index}")
    elif schema.get("type") == "object":
        for name, item in value.items():
            check(item, schema["properties"][name], f"{pointer}/{name}")


def _check_or_null(value: Any, inner: Schema, pointer: str) -> None:
    if value is None:
        return
    try:
        check(value, inner, pointer)
    except NotValid as refusal:
        if refusal.pointer != pointer:
            raise
        raise NotValid(pointer, f"{refusal.problem}, or null") from None


def _check_tagged(value: Any, shapes: Sequence[Schema], pointer: str) -> None:
    tag = next(name for name, node in shapes[0]["properties"].items() if "const" in node)
    if not isinstance(value, dict):
        raise NotValid(pointer, "must be an object")
    if tag not in value:
        raise NotValid(pointer, f"must have the member {tag}")
    by_name = {one["properties"][tag]["const"]: one for one in shapes}
    if not isinstance(value[tag], str) or value[tag] not in by_name:
        raise NotValid(f"{pointer}/{tag}", f"must be one of {', '.join(by_name)}")
    check(value, by_name[value[tag]], pointer)


def _problem(value: Any, schema: Schema) -> str:
    """Return what is wrong with a value itself, its members left aside; an empty string if nothing is."""
    if "enum" in schema:
        is_good = isinstance(value, str) and value in schema["enum"]
        return "" if is_good else f"must be one of {', '.join(schema['enum'])}"
    match schema.get("type"):
        case "number":
            # NaN fails both comparisons, and bool is an int for Python but not for JSON.
            if type(value) not in (int, float) or not schema["minimum"] <= value <= schema["maximum"]:
                return f"must be a number from {schema['minimum']:g} to {schema['maximum']:g}"
        case "integer":
            if type(value) is not int or not schema["minimum"] <= value <= schema["maximum"]:
                return f"must be an integer from {schema['minimum']} to {schema['maximum']}"
        case "string":
            if not isinstance(value, str) or len(value) > schema["maxLength"]:
                return f"must be a string of at most {schema['maxLength']} characters"
        case "boolean":
            return "" if isinstance(value, bool) else "must be true or false"
        case "array":
            return "" if isinstance(value, list) else "must be an array"
        case "object":
            return _problem_of_object(value, schema)
    return ""


def _problem_of_object(value: Any, schema: Schema) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    if any(name not in schema["properties"] for name in value):
        return f"has a member that is not known; known are {', '.join(schema['properties'])}"
    for name in schema.get("required", ()):
        if name not in value:
            return f"must have the member {name}"
    choices = [branch["required"][0] for branch in schema.get("oneOf", ())]
    if choices and sum(name in value for name in choices) != 1:
        return f"must have exactly one of the members {', '.join(choices)}"
    for rule in schema.get("allOf", ()):
        first, second = rule["not"]["required"]
        if first in value and second in value:
            return f"must not have both {first} and {second}"
    return ""
