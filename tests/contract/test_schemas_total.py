"""Every schema is complete, every list in it agrees with its table, every page agrees with both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from bridge.core.errors import BridgeError, pause_rules, rows
from bridge.core.exits import EXITS
from bridge.core.model import MAX_ATTEMPTS, OUTCOMES, TRANSITIONS
from bridge.core.resources import load_json
from bridge.ledger.trouble import SENTENCES
from bridge.rpc import schemas
from bridge.rpc.discovery import methods
from bridge.rpc.schemas import NO_PARAMS, check
from scripts.generate_openrpc import error_schema

ROOT = Path(__file__).resolve().parents[2]
TABLES = {"advice.json", "errors.json", "events.json", "methods.json", "openrpc.json", "scenario.json"}
"""Files that are data and no shapes of the wire; their own shapes end in .schema.json."""
FILES = sorted(
    path.name
    for path in (ROOT / "schemas").glob("*.json")
    if path.name not in TABLES and not path.name.endswith(".schema.json")
)
OPEN = "rpc.discover.result.json"
"""The one object of any shape: OpenRPC defines it."""
DEFINITIONS = load_json("common.json")["definitions"]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
RULES = {
    "required",
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
}


def parts(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find every schema inside a file, with a JSON pointer."""
    pending = [("", load_json(name))]
    while pending:
        at, part = pending.pop()
        yield f"{name}#{at}", part
        for keyword in ("properties", "patternProperties", "definitions"):
            pending += [(f"{at}/{keyword}/{key}", value) for key, value in part.get(keyword, {}).items()]
        if "items" in part:
            pending.append((f"{at}/items", part["items"]))


ALL = [pair for name in FILES for pair in parts(name)]


@pytest.mark.parametrize("name", FILES)
def test_files_are_draft_07_schemas_named_by_their_file(name: str) -> None:
    """Each file is a valid schema whose id is its name."""
    schema = load_json(name)
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert schema["$id"] == name


def test_every_file_is_used_by_a_method() -> None:
    """The files are those that the methods name, the shared parts, and the data of errors."""
    named = {"common", "report.error", "protocol.error"}
    for method in methods():
        named |= {name for name in (method.params, method.result, error_schema(method)) if name}
    assert set(FILES) == {f"{name}.json" for name in named}


def test_objects_are_closed() -> None:
    """No object takes members that its schema does not name."""
    for at, part in ALL:
        if part.get("type") == "object" and at != f"{OPEN}#":
            assert part["additionalProperties"] is False, at


def test_members_are_described_with_their_unit() -> None:
    """Each member has a description, and one that is counted in a unit names it."""
    for at, part in ALL:
        for name, member in part.get("properties", {}).items():
            assert member["description"].endswith("."), f"{at}/{name}"
            if name.endswith("Seconds"):
                assert "second" in member["description"].lower(), f"{at}/{name}"
            if name.endswith("Ms") and "properties" not in member:
                assert "milliseconds" in member["description"].lower(), f"{at}/{name}"


def test_member_names_need_no_escapes() -> None:
    """Names are words, so that a path is a JSON Pointer once slashes are put in."""
    for at, part in ALL:
        for name in part.get("properties", {}):
            assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name), at
        for pattern in part.get("patternProperties", {}):
            assert pattern == "^-?[0-9]{1,10}$"


def test_references_name_a_shared_part() -> None:
    """References are written as the readers of schemas expect them, and lead somewhere."""
    for at, part in ALL:
        if "$ref" in part:
            file_name, _, name = part["$ref"].partition("#/definitions/")
            assert file_name == "common.json", at
            assert name in DEFINITIONS, at


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("common.json", OPEN)])
def test_examples_fit(name: str) -> None:
    """Each file has an example, and each example fits."""
    examples = load_json(name)["examples"]
    assert examples
    for example in examples:
        check(name.removesuffix(".json"), example)


def test_every_rule_has_words() -> None:
    """Whatever keyword a schema uses, a refusal can say it in a sentence."""
    for at, part in ALL:
        for rule in RULES & set(part):
            assert schemas._reason(rule, part, False), at
        if part.get("properties"):
            assert schemas._reason("additionalProperties", part, False), at


def test_answers_may_carry_the_mark_of_the_sandbox() -> None:
    """Every result and every error data has room for sandbox."""
    for method in methods():
        for name in (method.result, error_schema(method)):
            if name and f"{name}.json" != OPEN:
                schema = load_json(f"{name}.json")
                if "$ref" in schema:
                    schema = DEFINITIONS[schema["$ref"].rpartition("/")[2]]
                assert "sandbox" in schema["properties"], name
    assert "sandbox" in load_json("protocol.error.json")["properties"]


def test_lists_agree_with_their_tables() -> None:
    """What is spelled in a table is spelled the same in the schemas."""
    table = load_json("errors.json")
    record = DEFINITIONS["record"]["properties"]
    error = load_json("report.error.json")["properties"]
    ledger = load_json("bridge.status.result.json")["properties"]["ledger"]["properties"]
    reports = [entry["name"] for entry in load_json("methods.json")["methods"]]
    changes = [change for changes in TRANSITIONS.values() for change in changes.items()]
    states = {state for before, after in changes for state in (before, *after) if state}
    assert DEFINITIONS["hint"]["properties"]["kind"]["enum"] == [row["kind"] for row in table["hints"]]
    assert DEFINITIONS["warning"]["properties"]["kind"]["enum"] == [row["kind"] for row in table["warnings"]]
    keywords = sorted({*RULES, "additionalProperties"})
    told = load_json("protocol.error.json")["properties"]["rule"]["enum"]
    assert told == [*keywords, *(row["kind"] for row in table["rules"])]
    assert DEFINITIONS["method"]["enum"] == reports
    assert DEFINITIONS["outcome"]["enum"] == list(OUTCOMES)
    assert DEFINITIONS["outcomeOrNull"]["enum"] == [*OUTCOMES, None]
    assert set(DEFINITIONS["pauseScope"]["enum"]) == {rule.scope for rule in pause_rules().values()}
    assert set(record["state"]["enum"]) == states
    assert set(error["cause"]["enum"]) == {row.detail for row in rows("failures") if row.detail}
    assert set(SENTENCES) <= set(ledger["state"]["enum"])
    for part in (record, error):
        assert part["attempts"]["maximum"] == MAX_ATTEMPTS


def test_kinds_and_codes_fit_where_they_are_told() -> None:
    """Every kind fits the pattern of kinds, every code the limits of a record's code."""
    record = DEFINITIONS["record"]["properties"]
    pattern = re.compile(record["kind"]["pattern"].replace("$", r"\Z"))
    for row in rows():
        assert pattern.search(row.kind)
        code = row.code or row.error_id or 1
        assert record["code"]["minimum"] <= code <= record["code"]["maximum"]


def exchanges() -> list[tuple[str, dict[str, Any]]]:
    """Read the messages that docs/protocol.md shows."""
    lines = [line for line in PROTOCOL.splitlines() if line.startswith(("--> ", "<-- "))]
    return [(line[:3], json.loads(line[4:])) for line in lines]


def test_messages_of_the_protocol_page_are_real() -> None:
    """Every request and answer that the page shows fits the schemas and the error table."""
    by_name = {method.name: method for method in methods()}
    codes = {row.kind: row.code or row.error_id for row in rows()}
    words = {row.kind: row.message for row in rows()}
    asked: dict[Any, str] = {}
    for arrow, message in exchanges():
        assert message["jsonrpc"] == "2.0"
        if arrow == "-->":
            method = by_name[message["method"]]
            asked[message.get("id")] = message["method"]
            if message.get("id") != 9:
                check(method.params, message.get("params", {} if method.params == NO_PARAMS else None))
        elif "result" in message:
            check(str(by_name[asked.pop(message["id"])].result), message["result"])
        else:
            error = message["error"]
            is_protocol = -32700 <= error["code"] <= -32600
            check(
                "protocol.error" if is_protocol else str(error_schema(by_name[asked.pop(message["id"])])),
                error["data"],
            )
            assert error["code"] == codes[error["data"]["kind"]]
            assert error["message"] == words[error["data"]["kind"]]
    assert len(exchanges()) > 15


def test_the_refused_request_of_the_page_is_refused_as_it_says() -> None:
    """The page's example of invalid params is what the check of params says."""
    [request] = [message for arrow, message in exchanges() if arrow == "-->" and message.get("id") == 9]
    [answer] = [message for arrow, message in exchanges() if arrow == "<--" and message.get("id") == 9]
    with pytest.raises(BridgeError) as caught:
        check("report.params", request["params"])
    assert answer["error"]["data"] == caught.value.data


def test_protocol_page_explains_every_member_and_method() -> None:
    """Nothing that a schema names is missing on the page."""
    for at, part in ALL:
        for name in part.get("properties", {}):
            assert f"`{name}`" in PROTOCOL or f"`{{{name}," in PROTOCOL or name == "message", f"{at}/{name}"
    for method in methods():
        assert method.name in PROTOCOL


def test_protocol_page_lists_every_exit_code() -> None:
    """Each exit code of the program has a row on the page."""
    listed = {
        int(code)
        for line in PROTOCOL.splitlines()
        if re.match(r"\| \d[\d, ]* \|", line)
        for code in line.split("|")[1].split(",")
    }
    assert listed == set(EXITS)
