"""The scenario and its parts: their published shape, how a value is checked against it, how a file is read.

``schemas/scenario.json`` is the one description of what a scenario file and the control endpoint take. A
refusal names the JSON Pointer and never repeats the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.resources import load_json

Schema = Mapping[str, Any]

SCENARIO: Final[Schema] = load_json("scenario.json")
_DEFINITIONS: Final[Mapping[str, Schema]] = SCENARIO["definitions"]
SETTINGS: Final = _DEFINITIONS["settings"]
DEFAULTS: Final = {name: node["default"] for name, node in SETTINGS["properties"].items()}
"""What can be changed about the simulated upstream while it runs, as it is at first."""
LISTS: Final = {
    name: SCENARIO["properties"][name]["items"] for name in ("accounts", "tasks", "spending", "faults")
}
"""What can be made or set, several at a time, and the shape of one."""


class NotValid(ValueError):
    """A JSON value does not have the documented shape.

    Args:
        pointer: JSON Pointer of the value at fault; empty for the whole document.
        problem: what is wrong, as the rest of a sentence.
    """

    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(f"at {pointer or 'the top level'}: {problem}")
        self.pointer = pointer


def closed(**members: Schema) -> Schema:
    """Return the shape of an object that has no other members than these."""
    return {"type": "object", "properties": members, "additionalProperties": False}


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, or raise `NotValid`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        where = f" (line {problem.lineno})" if isinstance(problem, json.JSONDecodeError) else ""
        raise NotValid("", f"is not JSON{where}") from None


def parse_scenario(text: str) -> dict[str, Any]:
    """Read a scenario.

    Raises:
        NotValid: it is not JSON or not of the documented shape; the sentence names the place.
    """
    scenario: dict[str, Any] = check(read_json(text), SCENARIO)
    return scenario


def load_scenario(path: str) -> dict[str, Any]:
    """Read a scenario file.

    Raises:
        NotValid: as `parse_scenario`.
        OSError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return parse_scenario(file.read())
    except UnicodeDecodeError:
        raise NotValid("", "is not UTF-8") from None


def length_s(scenario: Mapping[str, Any]) -> float:
    """Return when the last thing happens: a step begins, or a fault of limited length ends."""
    ends = [0.0]
    for step in (scenario, *scenario.get("steps", ())):
        begin = step.get("atSeconds", 0.0)
        ends += [begin, *(begin + fault.get("forSeconds", 0.0) for fault in step.get("faults", ()))]
    return max(ends)


# --- checking ---------------------------------------------------------------------------------


def check(value: Any, schema: Schema, pointer: str = "", or_else: str = "") -> Any:
    """Return a value, or raise `NotValid` unless it has a shape, which uses what the published ones do."""
    while "$ref" in schema:
        schema = _DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    if schema.get("anyOf", ())[1:] == [{"type": "null"}]:
        return None if value is None else check(value, schema["anyOf"][0], pointer, ", or null")
    is_good, must = _compare(value, schema)
    if not is_good:
        raise NotValid(pointer, f"must be {must}{or_else}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            check(item, schema["items"], f"{pointer}/{index}")
    elif isinstance(value, dict) and "properties" in schema:
        _check_members(value, schema, pointer)
    return value


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
        raise NotValid(pointer, f"has a member that is not known; known are {', '.join(fields) or 'none'}")
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
