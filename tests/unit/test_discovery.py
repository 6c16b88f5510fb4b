"""bridge.rpc.discovery: the OpenRPC document says what the schemas and the error table say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from bridge.core.errors import rows
from bridge.rpc.discovery import Method, methods
from scripts.generate_openrpc import document, list_kinds, read

DOCUMENT = document("1.2.3")
REPORTS = [method.name for method in methods() if method.params == "report.params"]


def built(name: str) -> dict[str, Any]:
    """Return the method of the document with a name."""
    [method] = [method for method in DOCUMENT["methods"] if method["name"] == name]
    assert isinstance(method, dict)
    return method


def references(part: Any) -> Iterator[str]:
    """Find every reference in a part of the document."""
    if isinstance(part, list):
        for one in part:
            yield from references(one)
    elif isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)


def test_every_method_is_listed_once_by_name() -> None:
    """All methods are there, all take params by name."""
    names = [method["name"] for method in DOCUMENT["methods"]]
    assert names == [method.name for method in methods()]
    assert len(set(names)) == len(names)
    assert {method["paramStructure"] for method in DOCUMENT["methods"]} == {"by-name"}


def test_every_reference_leads_somewhere() -> None:
    """References point into the document, and each component is used."""
    found = set(references(DOCUMENT))
    for reference in found:
        assert reference.startswith("#/components/")
        part: Any = DOCUMENT
        for step in reference.split("/")[1:]:
            part = part[step]
    used = {name.rpartition("/")[2] for name in found if "/schemas/" in name}
    assert used == set(DOCUMENT["components"]["schemas"])


def test_required_params_come_first_and_error_codes_are_unique() -> None:
    """OpenRPC wants optional params after required ones, and forbids two errors of one code in a method."""
    errors = DOCUMENT["components"]["errors"]
    for method in DOCUMENT["methods"]:
        order = [param["required"] for param in method["params"]]
        assert order == sorted(order, reverse=True)
        codes = [errors[one["$ref"].rpartition("/")[2]]["code"] for one in method.get("errors", [])]
        assert len(set(codes)) == len(codes)
    assert [param["name"] for param in built("bridge.getReport")["params"]] == ["taskId", "clientKey"]


def test_every_coded_row_is_an_error_of_the_document() -> None:
    """No row with a code is left out, none is invented."""
    coded = {
        row.kind for section in ("wire", "upstream") for row in rows(section) if row.code or row.error_id
    }
    assert set(DOCUMENT["components"]["errors"]) == coded


def test_report_errors_of_the_document_fit_their_place() -> None:
    """A report can be answered with every upstream error, and with no error of other methods."""
    kinds = {one["$ref"].rpartition("/")[2] for one in built(REPORTS[0])["errors"]}
    assert {row.kind for row in rows("upstream") if row.error_id} <= kinds
    assert "report_not_found" not in kinds
    assert "outcome" not in DOCUMENT["components"]["errors"]["parse_error"]["data"]
    assert DOCUMENT["components"]["errors"]["outcome_unknown"]["data"] == {
        "kind": "outcome_unknown",
        "outcome": "unknown",
        "retryable": False,
    }


def test_reports_name_their_task_types() -> None:
    """The task types that fit are told with the method."""
    assert "ImageToTextTask" in built("reportIncorrectImageCaptcha")["x-task-types"]


def test_examples_fit_their_schemas() -> None:
    """Each example of the document passes the schemas beside it."""
    count = 0
    for method in DOCUMENT["methods"]:
        for example in method.get("examples", []):
            count += 1
            result = {**method["result"]["schema"], "components": DOCUMENT["components"]}
            Draft7Validator(result).validate(example["result"]["value"])
            schemas = {param["name"]: param["schema"] for param in method["params"]}
            for param in example["params"]:
                schema = {**schemas[param["name"]], "components": DOCUMENT["components"]}
                Draft7Validator(schema).validate(param["value"])
    assert count >= len(DOCUMENT["methods"]) - 2


def test_schemas_lose_what_only_the_bridge_reads() -> None:
    """Ids would move the base of references, and the bridge's own keywords mean nothing to others."""
    text = json.dumps(DOCUMENT)
    assert '"$id"' not in text
    assert '"x-refusal"' not in text
    assert read("report.params")["properties"]["taskId"]["$ref"] == "#/components/schemas/TaskId"


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_kinds_of_a_method_are_rows_of_the_table(method: Method) -> None:
    """Each kind a method names is one of the wire."""
    assert set(list_kinds(method)) <= {row.kind for row in rows("wire")}
