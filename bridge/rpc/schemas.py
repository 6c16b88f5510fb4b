"""The door to fastjsonschema: says whether params fit their schema, and if not, why.

A refusal never holds anything of the value: keys and caller data must not reach an answer or a log.
The library and each schema load on first use, so a bridge that is only asked who it is pays nothing.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from bridge.core.errors import BridgeError
from bridge.core.resources import load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NO_PARAMS: Final = "none.params"
"""Name of the schema for methods without params; checked here by hand, without the library."""

_ONE: Final[Mapping[str, str]] = {"boolean": "true or false", "null": "null"}
"""Types whose name with an article is no English."""


def check(name: str, params: Any) -> Any:
    """Check params against ``schemas/<name>.json`` and return them.

    An optional member that is null is left out of what is returned, which is a copy then. Nothing else is
    changed.

    Args:
        name: File name without ``.json``, such as ``report.params``.
        params: JSON value made of plain Python types; None for absent params of `NO_PARAMS`.

    Raises:
        BridgeError: They do not fit (``invalid_params``). Its data has ``pointer``, a JSON Pointer (RFC 6901)
            to what was refused, for a missing or an unexpected member to its parent; ``rule``, the schema
            keyword; ``sentence``, words for people. All come from the schema, nothing from the value.
    """
    if name != NO_PARAMS:
        return prepare(name)(params)
    if params is None or params == {}:
        return params
    if isinstance(params, dict):
        raise _refusal("", "additionalProperties", "params must have no members: this method takes none.")
    raise _refusal("", "type", "params must be an object.")


@cache
def prepare(name: str) -> Callable[[Any], Any]:
    """Load and compile a schema, so that the first check does not pay for it; returns what checks."""
    # Imported here: the import costs 25 ms, which an answer to bridge.info must not pay.
    import fastjsonschema

    schema = load_json(f"{name}.json")
    # Schemas refer to each other by file name, which has no URI scheme: hence the handler for "".
    # Defaults are for readers of the schema; the library would write them into the caller's value.
    validate = fastjsonschema.compile(schema, handlers={"": load_json}, use_default=False)
    # Serializers of many languages write members as null that are not set.
    optional = frozenset(schema.get("properties", ())).difference(schema.get("required", ()))

    def check_one(value: Any) -> Any:
        if isinstance(value, dict) and None in value.values():
            value = {key: part for key, part in value.items() if part is not None or key not in optional}
        refused = None
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValueException as error:
            refused = _explain(error)
        # Raised here and not where the library's exception is handled, because that one holds the value
        # and would stay reachable as the context of this one.
        if refused is not None:
            raise refused
        return value

    return check_one


def _refusal(pointer: str, rule: str, sentence: str) -> BridgeError:
    return BridgeError("invalid_params", {"pointer": pointer, "rule": rule, "sentence": sentence})


def _explain(error: Any) -> BridgeError:
    """Put into words what the library found, from the schema alone.

    The path may be used: schemas name every member they look into, so it holds schema names and
    array indexes only. Names need no RFC 6901 escapes: tests/contract/test_schemas_total.py keeps
    them to ASCII letters and digits (and a leading minus for error codes).
    """
    path, rule, definition = error.path[1:], error.rule, error.definition
    what = [".".join(path) or "params"]
    if rule == "required":
        what = [".".join((*path, member)) for member in definition["required"] if member not in error.value]
    reason = _reason(rule, definition, len(what) > 1)
    return _refusal("".join(f"/{part}" for part in path), rule, f"{_join(what, 'and')} {reason}.")


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
