"""Shapes of JSON values: made and checked as the draft-07 schema that is published.

The scenario file, the control endpoint and `schemas/scenario.json` come from the same nodes, so they
cannot drift apart. A refusal names the JSON Pointer and never repeats the value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
        super().__init__(f"at {pointer or 'the top level'}: {problem}")
        self.pointer = pointer


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
    return _noted(note, type="number", minimum=low, maximum=high)


def integer(low: int, high: int, note: str = "") -> Schema:
    """An integer inside a closed range."""
    return _noted(note, type="integer", minimum=low, maximum=high)


def text(*choices: str, longest: int = 1_000_000, note: str = "") -> Schema:
    """A string, free or out of a closed list."""
    return _noted(note, enum=list(choices)) if choices else _noted(note, type="string", maxLength=longest)


def flag(note: str = "") -> Schema:
    """True or false."""
    return _noted(note, type="boolean")


def or_null(node: Schema) -> Schema:
    """A shape, or null."""
    return {"anyOf": [node, {"type": "null"}]}


def array(node: Schema, note: str = "") -> Schema:
    """An array of values of one shape."""
    return _noted(note, type="array", items=node)


def shape(note: str, /, *rules: str | tuple[str, str], **fields: Schema) -> Schema:
    """An object with named members and no others.

    Args:
        note: what it is.
        rules: names of members that must be there, and pairs of names that exclude each other.
        fields: shape of each member.
    """
    wanted = {
        "required": [rule for rule in rules if isinstance(rule, str)],
        "allOf": [{"not": {"required": list(rule)}} for rule in rules if isinstance(rule, tuple)],
    }
    more = {name: rule for name, rule in wanted.items() if rule}
    return _noted(note, type="object", properties=fields, additionalProperties=False, **more)


def tagged(tag: str, shapes: Mapping[str, Schema]) -> Schema:
    """An object whose member `tag` says which of several shapes it has; each allows its own name there."""
    tags = {tag: text(*shapes)}
    return {"type": "object", "properties": tags, "required": [tag], "anyOf": list(shapes.values())}


def named(name: str, node: Schema) -> Schema:
    """A shape that the schema spells once, under ``definitions``, and refers to elsewhere."""
    DEFINITIONS[name] = node
    return {"$ref": f"#/definitions/{name}"}


def _noted(note: str, **schema: Any) -> Schema:
    return {"description": note, **schema} if note else schema


# --- reading and checking ---------------------------------------------------------------------


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, or raise `NotValid`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        where = f" (line {problem.lineno})" if isinstance(problem, json.JSONDecodeError) else ""
        raise NotValid("", f"is not JSON{where}") from None


def check(value: Any, schema: Schema, pointer: str = "", or_else: str = "") -> None:
    """Raise `NotValid` unless a value has a shape that was made here."""
    while "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    if schema.get("anyOf", ())[1:] == [{"type": "null"}]:
        if value is not None:
            check(value, schema["anyOf"][0], pointer, ", or null")
        return
    is_good, must = _compare(value, schema)
    if not is_good:
        raise NotValid(pointer, f"must be {must}{or_else}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            check(item, schema["items"], f"{pointer}/{index}")
    elif isinstance(value, dict) and "properties" in schema:
        _check_members(value, schema, pointer)


def _compare(value: Any, schema: Schema) -> tuple[bool, str]:
    """Say whether a value itself is good, its members left aside, and what it must be."""
    match schema:
        case {"enum": choices}:
            return isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"
        case {"type": "number", "minimum": low, "maximum": high}:
            # NaN fails both comparisons, and bool is an int for Python but not for JSON.
            return type(value) in (int, float) and low <= value <= high, f"a number from {low:g} to {high:g}"
        case {"type": "integer", "minimum": low, "maximum": high}:
            return type(value) is int and low <= value <= high, f"an integer from {low} to {high}"
        case {"type": "string", "maxLength": longest}:
            is_good = isinstance(value, str) and len(value) <= longest
            return is_good, f"a string of at most {longest} characters"
        case {"type": "boolean"}:
            return isinstance(value, bool), "true or false"
        case {"type": "array"}:
            return isinstance(value, list), "an array"
        case {"type": "object"}:
            return isinstance(value, dict), "an object"
    return True, "anything"


def _check_members(value: Mapping[str, Any], schema: Schema, pointer: str) -> None:
    fields = schema["properties"]
    if "additionalProperties" in schema and not value.keys() <= fields.keys():
        raise NotValid(pointer, f"has a member that is not known; known are {', '.join(fields)}")
    for name in schema.get("required", ()):
        if name not in value:
            raise NotValid(pointer, f"must have the member {name}")
    choices = [branch["required"][0] for branch in schema.get("oneOf", ())]
    if choices and sum(name in value for name in choices) != 1:
        raise NotValid(pointer, f"must have exactly one of the members {', '.join(choices)}")
    for rule in schema.get("allOf", ()):
        if value.keys() >= set(rule["not"]["required"]):
            raise NotValid(pointer, f"must not have both {' and '.join(rule['not']['required'])}")
    for name, node in fields.items():
        if name in value:
            check(value[name], node, f"{pointer}/{name}")
    if "anyOf" in schema:
        [tag] = schema["required"]
        chosen = next(one for one in schema["anyOf"] if value[tag] in one["properties"][tag]["enum"])
        check(value, chosen, pointer)
