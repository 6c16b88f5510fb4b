"""Writes schemas/openrpc.json, the document that rpc.discover answers with, from schemas and error table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from bridge import __version__
from bridge.core.resources import load_json
from bridge.rpc.discovery import Method, methods

OPENRPC = "1.4.1"
"""Version of the OpenRPC specification that the document follows; the schema allows 1.4.x."""

MAX_ERROR_ID = 2**31 - 1
"""Largest errorId of the upstream that is a verdict."""


PROTOCOL_KINDS: Final = ("invalid_request", "invalid_params", "internal_error")
"""Kinds of the JSON-RPC errors that any method can be answered with."""
_KINDS: Final = {
    "bridge.getReport": "report_not_found key_missing ledger_unavailable",
    "bridge.listReports": "ledger_unavailable",
    "bridge.resume": "ledger_unavailable",
}
"""Method of the bridge's own -> kinds of the section ``wire`` that it can be answered with besides."""
_REPORT_KINDS: Final = (
    "request_cancelled upstream_unreachable outcome_unknown upstream_http window_closed task_conflict "
    "wrong_method language_refused key_missing sending_paused ledger_unavailable shutting_down"
)


def error_schema(method: Method) -> str | None:
    """Name the schema of ``error.data`` of errors that are not JSON-RPC's own; None for a notification."""
    if method.result is None:
        return None
    return "report.error" if method.result == "report.result" else "protocol.error"


def list_kinds(method: Method) -> list[str]:
    """List the kinds of the table's section ``wire`` that a method can be answered with."""
    is_report = method.result == "report.result"
    return [*PROTOCOL_KINDS, *(_REPORT_KINDS if is_report else _KINDS.get(method.name, "")).split()]


def render() -> str:
    """Return the text of the OpenRPC document."""
    return json.dumps(document(__version__), indent=1) + "\n"


def document(version: str) -> dict[str, Any]:
    """Build the OpenRPC document of the whole interface.

    Args:
        version: Version of the program.

    Source: OpenRPC specification 1.4, https://spec.open-rpc.org.
    """
    built = [_method(method) for method in methods()]
    return {
        "openrpc": OPENRPC,
        "x-generated": "Written by scripts/generate.py from schemas/; do not edit.",
        "info": {
            "title": "anticaptcha-report-bridge",
            "version": version,
            "description": "Reports wrong and right captcha answers to Anti-Captcha.com. JSON-RPC 2.0 on "
            "standard input and output; params are by name. docs/protocol.md explains it, docs/errors.md "
            "every error.",
        },
        "servers": [
            {
                "name": "stdio",
                "url": "stdio:report-bridge",
                "summary": "Start the command and talk to its standard input and output.",
                "description": "One message per line, or Content-Length headers: the answers use the framing "
                "of the first request. End of input ends the process once everything is answered. With "
                "headers, `shutdown` is answered with null and the notification `exit` counts as end of "
                "input, as language clients expect.",
            }
        ],
        "methods": built,
        "components": {"schemas": _component_schemas(built), "errors": _errors()},
    }


def read(name: str) -> Any:
    """Load a schema by name and rewrite its references to the components of the document."""
    return _rewrite(load_json(f"{name}.json"))


def _method(method: Method) -> dict[str, Any]:
    params = read(method.params)
    required = params.get("required", [])
    # OpenRPC wants required params first.
    names = sorted(params["properties"], key=lambda name: name not in required)
    built: dict[str, Any] = {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {
                "name": name,
                "description": params["properties"][name]["description"],
                "required": name in required,
                "schema": params["properties"][name],
            }
            for name in names
        ],
    }
    if method.result is None:
        return built
    built["result"] = {"name": "result", "schema": {"$ref": _component(method.result)}}
    kinds = list_kinds(method)
    if error_schema(method) == "report.error":
        kinds += [row["kind"] for row in load_json("errors.json")["upstream"] if row["errorId"] is not None]
        built["x-task-types"] = _task_types(method.name)
        built["x-other-errors"] = (
            f"A positive code is the upstream's errorId, unchanged: any from 1 to {MAX_ERROR_ID} may come, "
            "listed or not. Match on data.kind first; an unlisted one has the kind unknown_code."
        )
    built["errors"] = [{"$ref": f"#/components/errors/{kind}"} for kind in kinds]
    # The specification has no schema for the data of an error, so it is told beside.
    built["x-error-data"] = {
        "protocol": {"kinds": list(PROTOCOL_KINDS), "schema": {"$ref": _component("protocol.error")}},
        "others": {"schema": {"$ref": _component(str(error_schema(method)))}},
    }
    examples = _examples(method)
    if examples:
        built["examples"] = examples
    return built


def _task_types(name: str) -> list[str]:
    [entry] = [entry for entry in load_json("methods.json")["methods"] if entry["name"] == name]
    types: list[str] = entry["taskTypes"]
    return types


def _errors() -> dict[str, Any]:
    table = load_json("errors.json")
    errors = {}
    for row in [*table["wire"], *table["upstream"]]:
        code = row.get("code", row.get("errorId"))
        if code is not None:
            data: dict[str, Any] = {"kind": row["kind"]}
            if row["outcome"] is not None:
                data.update(outcome=row["outcome"], retryable=row["retryable"])
            errors[row["kind"]] = {"code": code, "message": row["message"], "data": data}
    return errors


def _examples(method: Method) -> list[dict[str, Any]]:
    results = load_json(f"{method.result}.json").get("examples", [])
    params = load_json(f"{method.params}.json")["examples"]
    return [
        {
            "name": f"example {number}",
            "params": [{"name": name, "value": value} for name, value in given.items()],
            "result": {"name": "result", "value": results[0]},
        }
        for number, given in enumerate(params, 1)
        if results
    ]


def _component(schema: str) -> str:
    """Return the reference to a schema's component; one without a title just refers to another."""
    whole = load_json(f"{schema}.json")
    return f"#/components/schemas/{whole['title'] if 'title' in whole else _title(whole['$ref'])}"


def _title(reference: str) -> str:
    file_name, _, name = reference.partition("#/definitions/")
    title: str = load_json(file_name)["definitions"][name]["title"]
    return title


# Ids would move the base that references are resolved against; x-refusal is for bridge.rpc.schemas.
_DROPPED = frozenset({"$id", "$schema", "x-refusal"})


def _rewrite(part: Any) -> Any:
    if isinstance(part, list):
        return [_rewrite(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: f"#/components/schemas/{_title(value)}" if name == "$ref" else _rewrite(value)
        for name, value in part.items()
        if name not in _DROPPED
    }


def _component_schemas(built: list[dict[str, Any]]) -> dict[str, Any]:
    """Collect the schemas that the methods refer to, and those that these refer to, by title."""
    shared = _rewrite(load_json("common.json")["definitions"])
    by_title = {part["title"]: part for part in shared.values()}
    for method in methods():
        for name in (method.result, error_schema(method), "protocol.error"):
            schema = read(name) if name else {}
            if "title" in schema:
                by_title[schema["title"]] = schema
    used: dict[str, Any] = {}
    pending = sorted(set(_references(built)))
    while pending:
        title = pending.pop().rpartition("/")[2]
        if title not in used:
            used[title] = by_title[title]
            pending += _references(used[title])
    return dict(sorted(used.items()))


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from _references(one)
    elif isinstance(part, dict):
        reference = part.get("$ref", "")
        if reference.startswith("#/components/schemas/"):
            yield reference
        for value in part.values():
            yield from _references(value)
