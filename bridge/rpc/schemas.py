"""The door to fastjsonschema: says whether a value fits a schema of the project, and if not, why.

A refusal never holds anything of the value: keys and caller data must not reach an answer or a log.
The library and each schema load on first use, so a bridge that is only asked who it is pays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bridge.core.resources import load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NO_PARAMS: Final = "none.params"
"""Name of the schema for methods without params; checked here by hand, without the library."""

_ONE: Final[Mapping[str, str]] = {"boolean": "true or false", "null": "null"}
"""Types whose name with an article is no English."""


class Refused(Exception):
    """A value does not fit its schema. What is told comes from the schema, nothing from the value."""

    def __init__(self, pointer: str, rule: str, sentence: str) -> None:
        super().__init__(sentence)
        self.data = {"pointer": pointer, "rule": rule, "sentence": sentence}
        """The members that a -32602 adds to ``error.data``: a JSON Pointer (RFC 6901) to what was refused,
        for a missing or an unexpected member to its parent; the schema keyword; words for people."""


class _Check:
    """One compiled schema."""

    __slots__ = ("failure", "integers", "optional", "subject", "validate")

    def __init__(self, name: str) -> None:
        # Imported here: the import costs 25 ms, which an answer to bridge.info must not pay.
        import fastjsonschema

        schema = load_json(f"{name}.json")
        # Schemas refer to each other by file name, which has no URI scheme: hence the handler for "".
        # Defaults are for readers of the schema; the library would write them into the caller's value.
        self.validate: Callable[[Any], Any] = fastjsonschema.compile(
            schema, handlers={"": load_json}, use_default=False
        )
        self.failure: type[Exception] = fastjsonschema.JsonSchemaValueException
        is_params = name.endswith(".params")
        self.subject = "params" if is_params else "the value"
        self.optional = (
            frozenset(schema["properties"]).difference(schema.get("required", ())) if is_params else ()
        )
        """Members that serializers of many languages write as null where they are not set."""
        self.integers = frozenset(
            member
            for member, part in schema.get("properties", {}).items()
            if _resolve(part).get("type") == "integer"
        )


_checks: dict[str, _Check] = {}


def prepare(name: str) -> _Check:
    """Load and compile a schema now, so that the first check does not pay for it."""
    compiled = _checks.get(name)
    if compiled is None:
        compiled = _checks[name] = _Check(name)
    return compiled


def check(name: str, value: Any) -> Any:
    """Check a value against ``schemas/<name>.json`` and return it.

    The value returned is a copy where something had to be settled: whole floats such as ``5.0`` are integers
    in JSON Schema, so a top-level member that must be an integer is an int in it; and an optional member of
    params that is null is left out. Nothing else is changed.

    Args:
        name: File name without ``.json``, such as ``report.params``.
        value: JSON value made of plain Python types; None for absent params of `NO_PARAMS`.

    Raises:
        Refused: The value does not fit. NaN never fits; an infinity fits only a number without bounds.
    """
    if name == NO_PARAMS:
        _check_no_params(value)
        return value
    compiled = _checks.get(name) or prepare(name)
    if compiled.optional and isinstance(value, dict) and None in value.values():
        value = {key: part for key, part in value.items() if part is not None or key not in compiled.optional}
    refused = None
    try:
        compiled.validate(value)
    except compiled.failure as error:
        refused = _explain(compiled.subject, error)
    # Raised here and not where the library's exception is handled, because that one holds the value
    # and would stay reachable as the context of this one.
    if refused is not None:
        raise refused
    # Every schema of the project wants an object.
    for member in value:
        if value[member].__class__ is float:
            return _settle_floats(compiled, value)
    return value


def _check_no_params(value: Any) -> None:
    if value is None or value == {}:
        return
    if isinstance(value, dict):
        raise Refused("", "additionalProperties", "params must have no members: this method takes none.")
    raise Refused("", "type", "params must be an object.")


def _settle_floats(compiled: _Check, value: dict[str, Any]) -> dict[str, Any]:
    settled = dict(value)
    for member, number in value.items():
        if number.__class__ is float:
            # NaN passes every comparison of the generated code, since each of them is false.
            if number != number:
                raise Refused(f"/{member}", "type", f"{member} must be a number.")
            if member in compiled.integers:
                settled[member] = int(number)
    return settled


def _explain(subject: str, error: Any) -> Refused:
    """Put into words what the library found, from the schema alone.

    The path may be used: schemas name every member they look into, so it holds schema names and
    array indexes only. Names need no RFC 6901 escapes: tests/contract/test_schemas_total.py keeps
    them to ASCII letters and digits (and a leading minus for error codes).
    """
    path, rule, definition = error.path[1:], error.rule, error.definition
    what = [".".join(path) or subject]
    if rule == "required":
        what = [".".join((*path, member)) for member in definition["required"] if member not in error.value]
    reason = _reason(rule, definition, len(what) > 1)
    return Refused("".join(f"/{part}" for part in path), rule, f"{_join(what, 'and')} {reason}.")


def _reason(rule: str, definition: Mapping[str, Any], is_many: bool) -> str:
    own: Mapping[str, str] = definition.get("x-refusal", {})
    if rule in own:
        return own[rule]
    if rule == "required":
        return "are missing" if is_many else "is missing"
    if rule == "additionalProperties":
        return f"may have no other members than {_join(list(definition['properties']), 'and')}"
    limit = definition[rule]
    if rule == "type":
        kinds = [limit] if isinstance(limit, str) else limit
        words = [_ONE.get(kind) or f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in kinds]
        return f"must be {_join(words, 'or')}"
    if rule == "enum":
        return f"must be {_join(['null' if one is None else str(one) for one in limit], 'or')}"
    return _BOUNDS[rule].format(limit)


_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "pattern": "must match {}",
}


def _join(words: list[str], last: str) -> str:
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _resolve(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference into another schema file, as every reference of the project is written."""
    if "$ref" not in part:
        return part
    file_name, _, fragment = part["$ref"].partition("#/definitions/")
    definition: Mapping[str, Any] = load_json(file_name)["definitions"][fragment]
    return definition
