"""Reads the schemas into a small model of types that every client language can express.

Refuses, with a JSON pointer, any schema construct that one of the languages could not carry: then
the schema must change, or every language must learn it. Imported by the generators only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bridge.core.resources import load_json
from bridge.rpc.discovery import methods

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that JavaScript's numbers hold exactly (ECMA-262, Number.MAX_SAFE_INTEGER)."""

_ANNOTATIONS = {"$schema", "$id", "title", "description", "examples", "default", "x-refusal"}
_TIMES = {"Timestamp", "TimestampOrNull"}
_KEYWORDS = {
    "string": {"enum", "minLength", "maxLength", "pattern"},
    "boolean": {"enum"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties", "patternProperties"},
    "null": set[str](),
}


class Unsupported(Exception):
    """A schema says something that not every client language can carry."""


class Type(NamedTuple):
    """A type: exactly one of the forms that `form` names."""

    form: str
    """``string``, ``boolean``, ``integer``, ``number``; ``named`` (see `name`), ``list`` and ``map``
    (of `item`), ``open`` (an object of any shape), ``id`` (string, number or null)."""
    is_nullable: bool = False
    name: str = ""
    item: Type | None = None
    values: tuple[str, ...] = ()
    """The only values of a string, or none if any will do."""
    is_zero_valid: bool = True
    """False if the empty string, 0 or false does not fit, so that it can stand for "absent"."""
    is_time: bool = False
    """True for a string that holds an RFC 3339 time."""


class Field(NamedTuple):
    """A member of an object."""

    name: str
    type: Type
    is_required: bool
    description: str


class Struct(NamedTuple):
    """An object type with named members."""

    name: str
    description: str
    fields: tuple[Field, ...]


class Alias(NamedTuple):
    """A name for an object of any shape."""

    name: str
    description: str


class Enum(NamedTuple):
    """A named set of strings."""

    name: str
    description: str
    values: tuple[str, ...]


class Error(NamedTuple):
    """A row of the error table as a client needs it."""

    kind: str
    code: int | None
    """Wire code; None for a row that is known by its errorCode only."""
    outcome: str | None
    is_retryable: bool
    message: str


class Call(NamedTuple):
    """A method with the names of its types."""

    name: str
    summary: str
    params: str
    result: str | None


class TaskType(NamedTuple):
    """A task type of the upstream with the methods that report a wrong and a right answer of it."""

    name: str
    wrong: str | None
    right: str | None


class Model(NamedTuple):
    """Everything that is generated for a client language."""

    structs: tuple[Struct, ...]
    enums: tuple[Enum, ...]
    aliases: tuple[Alias, ...]
    calls: tuple[Call, ...]
    errors: tuple[Error, ...]
    task_types: tuple[TaskType, ...]


def load_model() -> Model:
    """Read all schemas that methods use, the methods and the error table.

    Raises:
        Unsupported: A schema uses a construct that not every language can carry.
    """
    reader = Reader()
    reader.read_shared()
    calls = [
        Call(
            method.name,
            method.summary,
            reader.read_file(method.params),
            reader.read_file(method.result) if method.result else None,
        )
        for method in methods()
    ]
    for name in ("report.error", "protocol.error"):
        reader.read_file(name)
    return Model(
        tuple(sorted(reader.structs.values())),
        tuple(sorted(reader.enums.values())),
        tuple(sorted(reader.aliases.values())),
        tuple(calls),
        tuple(_errors()),
        tuple(sorted(_task_types())),
    )


class Reader:
    """Collects the named types of schemas.

    Args:
        load: How a schema file is read; the tests hand in their own.
    """

    def __init__(self, load: Any = load_json) -> None:
        self._load = load
        self.structs: dict[str, Struct] = {}
        self.enums: dict[str, Enum] = {}
        self.aliases: dict[str, Alias] = {}

    def read_shared(self) -> None:
        """Read the shared definitions; first, so that named sets are known wherever they are used."""
        for name in self._load("common.json")["definitions"]:
            self._read({"$ref": f"common.json#/definitions/{name}"}, "common.json#")

    def read_file(self, name: str) -> str:
        """Read ``<name>.json`` and return the name of its type."""
        file_name = f"{name}.json"
        read = self._read(self._load(file_name), f"{file_name}#")
        if read.form == "named":
            return read.name
        raise Unsupported(f"{file_name}#: the whole of a file must be an object with a title")

    def _read(self, part: Mapping[str, Any], at: str) -> Type:
        if "$ref" in part:
            file_name, _, fragment = part["$ref"].partition("#/definitions/")
            unknown = set(part) - {"$ref"} - _ANNOTATIONS
            if unknown or not fragment or not file_name:
                raise Unsupported(f"{at}/$ref: must be file#/definitions/name, with nothing to check beside")
            return self._read(self._load(file_name)["definitions"][fragment], part["$ref"])
        kinds = part.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not kinds or not set(kinds) <= set(_KEYWORDS):
            raise Unsupported(f"{at}/type: every schema must name its JSON types")
        known = _ANNOTATIONS.union({"type"}, *(_KEYWORDS[kind] for kind in kinds))
        for keyword in sorted(set(part) - known):
            raise Unsupported(f"{at}/{keyword}: this keyword cannot be carried into every client language")
        if set(kinds) == {"string", "number", "null"}:
            return Type("id")
        names = [kind for kind in kinds if kind != "null"]
        if len(names) != 1:
            raise Unsupported(f"{at}/type: one type, or one type and null")
        read = getattr(self, f"_read_{names[0]}")(part, at)._replace(is_nullable="null" in kinds)
        if read.is_nullable and names[0] in ("array", "object"):
            raise Unsupported(f"{at}/type: an array or object may be left out, but not be null")
        return read  # type: ignore[no-any-return]

    def _read_string(self, part: Mapping[str, Any], at: str) -> Type:
        is_zero_valid = not ({"enum", "pattern"} & set(part) or part.get("minLength", 0) > 0)
        if "enum" not in part:
            return Type("string", is_zero_valid=is_zero_valid, is_time=part.get("title") in _TIMES)
        values = tuple(value for value in part["enum"] if value is not None)
        if not all(isinstance(value, str) and value for value in values):
            raise Unsupported(f"{at}/enum: the values of a string must be strings that are not empty")
        if "title" in part and len(values) == len(part["enum"]):
            self.enums[part["title"]] = Enum(part["title"], part["description"], values)
        # The nullable twin of a named enum has the same values, and gets the same name.
        name = next((enum.name for enum in self.enums.values() if enum.values == values), "")
        return Type("string", name=name, values=values, is_zero_valid=False)

    def _read_boolean(self, part: Mapping[str, Any], at: str) -> Type:
        if part.get("enum", [True]) != [True]:
            raise Unsupported(f"{at}/enum: a boolean may be limited to true only")
        return Type("boolean", is_zero_valid="enum" not in part)

    def _read_integer(self, part: Mapping[str, Any], at: str) -> Type:
        low, high = part.get("minimum"), part.get("maximum")
        if low is None or high is None or low < -MAX_SAFE_INTEGER or high > MAX_SAFE_INTEGER:
            raise Unsupported(f"{at}: an integer needs a minimum and a maximum within 2^53-1")
        return Type("integer", is_zero_valid=low <= 0 <= high)

    def _read_number(self, part: Mapping[str, Any], at: str) -> Type:
        return Type("number", is_zero_valid=part.get("minimum", 0) <= 0)

    def _read_array(self, part: Mapping[str, Any], at: str) -> Type:
        if not isinstance(part.get("items"), dict):
            raise Unsupported(f"{at}/items: an array needs one schema for all its items")
        item = self._read(part["items"], f"{at}/items")
        # An empty list is sent as absent only where it may not be sent at all.
        return Type("list", item=item, is_zero_valid=part.get("minItems", 0) == 0)

    def _read_object(self, part: Mapping[str, Any], at: str) -> Type:
        title = part.get("title")
        if not title:
            raise Unsupported(f"{at}/title: an object needs a title, which names its type")
        closed = part.get("additionalProperties")
        if closed is True and not {"properties", "patternProperties"} & set(part):
            self.aliases[title] = Alias(title, part["description"])
            return Type("named", name=title)
        if closed is not False:
            raise Unsupported(f"{at}/additionalProperties: must be false, or true for an object of any shape")
        patterns = part.get("patternProperties", {})
        if patterns:
            if len(patterns) != 1 or "properties" in part:
                raise Unsupported(f"{at}/patternProperties: one pattern, and no properties beside")
            [(pattern, value)] = patterns.items()
            return Type("map", item=self._read(value, f"{at}/patternProperties/{_escape(pattern)}"))
        fields = tuple(self._fields(part, at))
        struct = Struct(title, part["description"], fields)
        if self.structs.setdefault(title, struct) != struct:
            raise Unsupported(f"{at}/title: two different objects have this title")
        return Type("named", name=title)

    def _fields(self, part: Mapping[str, Any], at: str) -> Iterator[Field]:
        for name, value in part.get("properties", {}).items():
            if "description" not in value:
                raise Unsupported(f"{at}/properties/{name}/description: every member is described")
            type_ = self._read(value, f"{at}/properties/{name}")
            yield Field(name, type_, name in part.get("required", []), value["description"])


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _errors() -> Iterator[Error]:
    table = load_json("errors.json")
    for row in [*table["wire"], *table["upstream"]]:
        code = row.get("code", row.get("errorId"))
        yield Error(row["kind"], code, row["outcome"], row["retryable"], row["message"])


def _task_types() -> Iterator[TaskType]:
    table = load_json("methods.json")
    polarities = {
        (name, row["polarity"]): row["name"] for row in table["methods"] for name in row["taskTypes"]
    }
    for name in {*table["uncoveredTaskTypes"], *(name for name, _ in polarities)}:
        yield TaskType(name, polarities.get((name, "incorrect")), polarities.get((name, "correct")))
