"""The JSON-RPC 2.0 envelope: parsed messages to calls, and the shapes of responses.

Judges every message and every member of a batch alone (specification, sections 4 to 7). Does not
run anything, does not look into params, and knows nothing of reports.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

from bridge.core.errors import BridgeError
from bridge.core.strict_json import Number, Tainted

Id = str | int | Number | None
"""The id of a request, as it was written."""
ID_TYPES: Final = (type(None), str, int, Number)
"""By exact type: true is an int to isinstance."""
Mark = Mapping[str, Any]
"""What every result and the data of every error says besides."""
NO_MARK: Final[Mark] = {}


class Call(NamedTuple):
    """A request or notification whose envelope is right."""

    id: Id
    has_id: bool
    """False for a notification: it is never answered. A request's id may be None all the same."""
    method: str
    params: dict[str, Any] | list[Any] | None
    """As parsed, so numbers may be `Number`; None if there are none, or null."""


class Invalid(NamedTuple):
    """A message that is not a JSON-RPC request; always answered."""

    id: Id
    """The id to answer with: None if it cannot be read."""
    rule: str
    """Row of the section ``rules`` of ``schemas/errors.json``: a flaw of `strict_json.Tainted`, or what is
    wrong with the envelope. Holds no input."""


Member = Call | Invalid


def split(message: Any, max_batch: int) -> Member | list[Member]:
    """Return the call of a parsed message, or a list of the calls of a batch.

    Args:
        message: a value of `strict_json.parse`, or the ``value`` of its `NotAcceptable`.
        max_batch: how many members a batch may have; a larger one is refused as a whole.
    """
    if not isinstance(message, list):
        return _judge(message)
    if not message:
        return Invalid(None, "empty_batch")
    if len(message) > max_batch:
        return Invalid(None, "batch_too_large")
    return [_judge(member) for member in message]


def success_response(id: Id, result: Any) -> dict[str, Any]:
    """Build the response to a request that went well."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_response(id: Id, error: BridgeError, mark: Mark = NO_MARK) -> dict[str, Any]:
    """Build the response to a request that went wrong; `mark` is added to its ``data``."""
    told = {"code": error.code, "message": error.message, "data": {**error.data, **mark}}
    return {"jsonrpc": "2.0", "id": id, "error": told}


def id_key(id: Id) -> Hashable:
    """Return a key that is equal for equal ids: type and value, numbers by their exact value.

    ``1``, ``1.0`` and ``10e-1`` are one id, ``"1"`` is another. Exponents are never expanded.
    """
    if not isinstance(id, Number):
        return id
    # Imported here: nearly all ids are short integers or strings.
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(id.token)
    except InvalidOperation:
        # Nobody counts so far; equal only if written with the same exponent.
        return (id.token.lower().replace("e+", "e"),)


def _judge(message: Any) -> Member:
    flaw = None
    if isinstance(message, Tainted):
        message, flaw = message
    if not isinstance(message, dict):
        return Invalid(None, flaw or "not_an_object")
    id, params = message.get("id"), message.get("params")
    id_is_right = type(id) in ID_TYPES
    if flaw is None:
        if message.get("jsonrpc") != "2.0":
            flaw = "version"
        elif not isinstance(message.get("method"), str):
            flaw = "method"
        elif not id_is_right:
            flaw = "id"
        elif params is None or isinstance(params, dict | list):
            return Call(id, "id" in message, message["method"], params)
        else:
            flaw = "params"
    return Invalid(id if id_is_right else None, flaw)
