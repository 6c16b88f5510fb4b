"""The scenario's shape: refusals that name the place, and a schema that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import NotValid, load_scenario, parse_scenario
from bridge.simulator.faults import ENCODINGS, FAULTS, FaultType
from bridge.simulator.model import ACCOUNT_STATES, KINDS, METHODS, SPENDING
from bridge.simulator.scenario import DEFAULTS, LISTS, SCENARIO, check, length_s

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft7Validator(SCENARIO)
DEFINITIONS: dict[str, Any] = SCENARIO["definitions"]

GOOD: list[dict[str, Any]] = [
    {},
    {"description": "x", "$schema": "y"},
    {"settings": {"auto": False, "spelling": "CAPTCHA", "latencySeconds": 0.5, "otherKeys": "unknown"}},
    {"accounts": [{"clientKey": "k", "state": "ok"}, {"account": "0123456789ab", "state": "suspended"}]},
    {"tasks": [{"kind": "image"}, {"kind": "hcaptcha", "taskId": 5, "ageSeconds": 70, "account": "a"}]},
    {"faults": [{"fault": name, "forSeconds": 3} for name in FAULTS]},
    {"spending": [{"queue": "Recaptcha Proxyless", "volume": 80, "hoursAgo": 2, "hours": 3, "money": 1.5}]},
    {"faults": [{"fault": "html", "method": "getSpendingStats"}], "settings": {"numbersAsStrings": True}},
    {"faults": [{"fault": "hang", "seconds": None}, {"fault": "error_id_type", "errorId": [{}]}]},
    {"steps": [{"atSeconds": 5, "clearFaults": True, "disconnect": True, "tasks": [{"kind": "other"}]}]},
]
BAD: list[tuple[Any, str, str]] = [
    ([], "", "at the top level: must be an object"),
    ({"stepz": []}, "", "not known"),
    ({"tasks": {}}, "/tasks", "must be an array"),
    ({"tasks": [{}]}, "/tasks/0", "must have the member kind"),
    ({"tasks": [{"kind": "image"}, {"kind": "imag"}]}, "/tasks/1/kind", "must be one of"),
    ({"tasks": [{"kind": []}]}, "/tasks/0/kind", "must be one of"),
    ({"tasks": [{"kind": "image", "taskId": 0}]}, "/tasks/0/taskId", "integer from 1"),
    ({"tasks": [{"kind": "image", "taskId": True}]}, "/tasks/0/taskId", "integer from 1"),
    ({"tasks": [{"kind": "image", "endTime": 1, "ageSeconds": 1}]}, "/tasks/0", "both endTime and ageS"),
    ({"accounts": [{"state": "ok"}]}, "/accounts/0", "exactly one of the members clientKey, account"),
    ({"accounts": [{"state": "ok", "clientKey": "a", "account": "b"}]}, "/accounts/0", "exactly one"),
    ({"faults": [{"seconds": 1}]}, "/faults/0", "must have the member fault"),
    ({"faults": ["hang"]}, "/faults/0", "must be an object"),
    ({"faults": [{"fault": "hung"}]}, "/faults/0/fault", "must be one of latency, hang"),
    ({"faults": [{"fault": {}}]}, "/faults/0/fault", "must be one of"),
    ({"faults": [{"fault": "hang", "seconds": "1"}]}, "/faults/0/seconds", "86400, or null"),
    ({"faults": [{"fault": "refuse"}]}, "/faults/0", "forSeconds"),
    ({"faults": [{"fault": "slow_accept", "taskId": 5}]}, "/faults/0", "not known"),
    ({"faults": [{"fault": "hang_before", "taskId": 7}]}, "/faults/0", "not known"),
    ({"faults": [{"fault": "html", "taken": 1}]}, "/faults/0/taken", "true or false"),
    ({"faults": [{"fault": "body"}]}, "/faults/0/fault", "must be one of"),
    ({"steps": [{}]}, "/steps/0", "must have the member atSeconds"),
    ({"steps": [{"atSeconds": -1}]}, "/steps/0/atSeconds", "number from 0"),
    ({"steps": [{"atSeconds": 1, "steps": []}]}, "/steps/0", "not known"),
    ({"spending": [{"queue": "x"}]}, "/spending/0", "must have the member volume"),
    ({"spending": [{"queue": "x", "volume": -1}]}, "/spending/0/volume", "integer from 0"),
    ({"description": 5}, "/description", "string of at most"),
]


@pytest.mark.parametrize("scenario", GOOD)
def test_good_scenario_passes(scenario: dict[str, Any]) -> None:
    """What is as documented is accepted, by the check and by the schema."""
    assert parse_scenario(json.dumps(scenario)) == scenario
    VALIDATOR.validate(scenario)


@pytest.mark.parametrize(("scenario", "pointer", "words"), BAD)
def test_bad_scenario_is_refused_with_its_place(scenario: Any, pointer: str, words: str) -> None:
    """A refusal names the place and what is wrong, and the schema refuses the same."""
    with pytest.raises(NotValid) as caught:
        parse_scenario(json.dumps(scenario))
    assert caught.value.pointer == pointer
    assert words in str(caught.value)
    assert not VALIDATOR.is_valid(scenario)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "{} {}"])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    """A file that is no JSON is refused in a sentence."""
    with pytest.raises(NotValid, match="is not JSON"):
        parse_scenario(text)


def test_infinite_and_missing_numbers_are_refused() -> None:
    """Numbers that JSON does not have are refused although Python's reader takes them."""
    for text in ("NaN", "Infinity"):
        with pytest.raises(NotValid, match="must be a number"):
            parse_scenario(f'{{"steps": [{{"atSeconds": {text}}}]}}')


def test_refusal_does_not_repeat_the_value() -> None:
    """A key in the wrong place does not come back in the sentence."""
    with pytest.raises(NotValid) as caught:
        parse_scenario('{"accounts": [{"state": "SECRET", "SECRET": "SECRET"}]}')
    assert "SECRET" not in str(caught.value)


def test_file_is_read_with_or_without_mark(tmp_path: Path) -> None:
    """A byte order mark is accepted, another encoding is not."""
    path = tmp_path / "scenario.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert load_scenario(str(path)) == {}
    path.write_bytes("{}".encode("utf-16"))
    with pytest.raises(NotValid, match="UTF-8"):
        load_scenario(str(path))


def test_published_schema_is_the_one_that_is_checked() -> None:
    """What is checked is the published file, which is a schema, and its lists are those of the code."""
    assert json.loads((ROOT / "schemas" / "scenario.json").read_text()) == SCENARIO
    jsonschema.Draft7Validator.check_schema(SCENARIO)
    enums = {name: DEFINITIONS[name]["enum"] for name in ("method", "encoding")}
    assert enums == {"method": [*METHODS, SPENDING], "encoding": [*ENCODINGS]}
    assert DEFINITIONS["task"]["properties"]["kind"]["enum"] == [*KINDS]
    states = (
        DEFINITIONS["account"]["properties"]["state"],
        DEFINITIONS["settings"]["properties"]["otherKeys"],
    )
    assert all(state["enum"] == [*ACCOUNT_STATES] for state in states)
    step = SCENARIO["properties"]["steps"]["items"]
    for part in ("settings", *LISTS):
        assert SCENARIO["properties"][part] == step["properties"][part]
    check(DEFAULTS, DEFINITIONS["settings"])


@pytest.mark.parametrize(("name", "kind"), FAULTS.items())
def test_published_faults_are_those_of_the_code(name: str, kind: FaultType) -> None:
    """Each fault is published with its line, its parameters (null if that is a default), and its ties."""
    [published] = [
        one for one in DEFINITIONS["fault"]["anyOf"] if one["properties"]["fault"] == {"enum": [name]}
    ]
    line = (kind.play.__doc__ or "").replace("`", "").removesuffix(".")
    assert published["description"] == line[0].lower() + line[1:]
    tied = ("taskId", "method") if kind.number else ()
    counted = () if name in ("refuse", "slow_accept") else ("count", "skip")
    assert [*published["properties"]] == ["fault", *kind.params, *tied, *counted, "forSeconds"]
    for param, default in kind.params.items():
        node = published["properties"][param]
        assert (node.get("anyOf", ())[1:] == [{"type": "null"}]) is (default is None)
    assert published["required"] == (["fault", "forSeconds"] if name == "refuse" else ["fault"])


def test_every_published_fault_exists() -> None:
    """The published names of faults are those of the code, in their order."""
    assert DEFINITIONS["fault"]["properties"]["fault"]["enum"] == [*FAULTS]
    assert len(DEFINITIONS["fault"]["anyOf"]) == len(FAULTS)


def test_documented_scenario_is_valid() -> None:
    """The example in the documentation can be used as it is."""
    text = (ROOT / "docs" / "simulator.md").read_text()
    example = text.split("```json\n")[1].split("```")[0]
    assert length_s(parse_scenario(example)) == 200


def test_length_counts_the_faults() -> None:
    """A scenario lasts until its last step and its last fault are over."""
    assert length_s({}) == 0
    assert length_s({"faults": [{"fault": "hang", "forSeconds": 9}], "steps": [{"atSeconds": 5}]}) == 9
    assert length_s({"steps": [{"atSeconds": 5, "faults": [{"fault": "hang", "forSeconds": 9}]}]}) == 14


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 100)
    | st.sampled_from(["image", "ok", "hang", "latency", "refuse", "en", "x"])
    | st.floats(0.5, 0.6),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    *SCENARIO["properties"],
                    *["atSeconds", "kind", "taskId", "fault", "forSeconds", "seconds", "state"],
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_check_and_schema_agree(value: Any) -> None:
    """Whatever the value, the check refuses exactly what the schema refuses."""
    try:
        check(value, SCENARIO)
    except NotValid:
        assert not VALIDATOR.is_valid(value)
    else:
        assert VALIDATOR.is_valid(value)
