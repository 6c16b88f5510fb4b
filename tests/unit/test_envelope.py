"""The JSON-RPC envelope: which messages are calls, and which id an answer carries."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import BridgeError
from bridge.core.strict_json import NotAcceptable, Number, dump, parse
from bridge.rpc.envelope import (
    Call,
    Invalid,
    error_response,
    id_key,
    split,
    success_response,
)


def read(text: str, max_batch: int = 10) -> Any:
    """Split a message as the service does."""
    try:
        value = parse(text.encode(), 8)
    except NotAcceptable as refused:
        value = refused.value
    return split(value, max_batch)


def request(**members: str) -> str:
    """Write a request, some of its members replaced by other JSON texts; an empty one is left out."""
    members = {"jsonrpc": '"2.0"', "id": "1", "method": '"m"', **members}
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text) + "}"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        (request(), Call(1, True, "m", None)),
        (request(id=""), Call(None, False, "m", None)),
        (request(id="null"), Call(None, True, "m", None)),
        (request(id='"1"'), Call("1", True, "m", None)),
        (request(id='""', method='""'), Call("", True, "", None)),
        (request(id="1e400"), Call(Number("1e400"), True, "m", None)),
        (request(id="9007199254740993"), Call(Number("9007199254740993"), True, "m", None)),
        (request(params="[]"), Call(1, True, "m", [])),
        (request(params="null"), Call(1, True, "m", None)),
        (request(id="", params="null"), Call(None, False, "m", None)),
        (request(params='{"a":1.0}'), Call(1, True, "m", {"a": Number("1.0")})),
        (request(traceparent='"00-1-2-00"', result="1"), Call(1, True, "m", None)),
    ],
)
def test_right_envelopes_are_calls(text: str, call: Call) -> None:
    """Strings, numbers, null and nothing are ids; extra members do not matter."""
    assert read(text) == call


@pytest.mark.parametrize(
    ("text", "invalid"),
    [
        ("1", Invalid(None, "not_an_object")),
        ('"x"', Invalid(None, "not_an_object")),
        ("null", Invalid(None, "not_an_object")),
        ("1.5", Invalid(None, "not_an_object")),
        ("{}", Invalid(None, "version")),
        (request(jsonrpc=""), Invalid(1, "version")),
        (request(jsonrpc='"1.0"'), Invalid(1, "version")),
        (request(jsonrpc='"2.00"'), Invalid(1, "version")),
        (request(jsonrpc="2.0"), Invalid(1, "version")),
        (request(jsonrpc="2"), Invalid(1, "version")),
        (request(method=""), Invalid(1, "method")),
        (request(method="1"), Invalid(1, "method")),
        (request(method="null"), Invalid(1, "method")),
        (request(id="", method="1"), Invalid(None, "method")),
        (request(method="", result="19"), Invalid(1, "method")),
        (request(id='"a"', method="", error='{"code":1}'), Invalid("a", "method")),
        (request(id="true"), Invalid(None, "id")),
        (request(id="false"), Invalid(None, "id")),
        (request(id="[1]"), Invalid(None, "id")),
        (request(id='{"a":1}'), Invalid(None, "id")),
        (request(id="{}", method=""), Invalid(None, "method")),
        (request(params="1"), Invalid(1, "params")),
        (request(params="1.0"), Invalid(1, "params")),
        (request(params="true"), Invalid(1, "params")),
        (request(id="-0", params='"a"'), Invalid(Number("-0"), "params")),
        ("[]", Invalid(None, "empty_batch")),
        # An id is echoed from a tainted message exactly if it is not itself tainted.
        (request(x='{"a":1,"a":1}'), Invalid(1, "repeated_name")),
        (request(x='0,"id":1'), Invalid(None, "repeated_name")),
        (request(x='0,"method":1'), Invalid(1, "repeated_name")),
        (request(id='"\\ud800"'), Invalid(None, "lone_surrogate")),
        (request(method='"\\ud800"', id="1.0"), Invalid(Number("1.0"), "lone_surrogate")),
        (request(params="[" * 8 + "]" * 8), Invalid(1, "too_deep")),
        (request(id="[" * 8 + "]" * 8), Invalid(None, "too_deep")),
        (request(id="true", x='"\\ud800"'), Invalid(None, "lone_surrogate")),
        ('"\\ud800"', Invalid(None, "lone_surrogate")),
    ],
)
def test_wrong_envelopes_are_invalid_and_keep_a_readable_id(text: str, invalid: Invalid) -> None:
    """Each rule of the specification has its refusal, with the id if there is one to read."""
    assert read(text) == invalid


def test_batch_members_are_judged_alone() -> None:
    """Each bad member is invalid for itself, and the good ones are calls."""
    tainted = request(id="5", x='"\\ud800"')
    text = f"[{request()},1,{request(id='')},{request(id='true')},{tainted},[{request()}],[]]"
    assert read(text) == [
        Call(1, True, "m", None),
        Invalid(None, "not_an_object"),
        Call(None, False, "m", None),
        Invalid(None, "id"),
        Invalid(5, "lone_surrogate"),
        Invalid(None, "not_an_object"),
        Invalid(None, "not_an_object"),
    ]


def test_a_batch_over_the_limit_is_refused_as_a_whole() -> None:
    """As many members as allowed are judged; one more is one error."""
    assert read("[1,1,1]", 3) == [Invalid(None, "not_an_object")] * 3
    assert read("[1,1,1,1]", 3) == Invalid(None, "batch_too_large")


ids = st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
tokens = st.from_regex(r"\A-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?\Z")


@given(ids, st.none() | st.booleans() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text()))
def test_any_value_gives_a_verdict_and_the_id_comes_back(id: Any, filler: Any) -> None:
    """Whatever a message holds, it is a call or invalid, and its id is echoed as written."""
    for member in ("jsonrpc", "method", "params", "extra"):
        message = {"jsonrpc": "2.0", "method": "m", "id": id, member: filler}
        verdict = read(dump(message).decode())
        assert isinstance(verdict, Call | Invalid)
        assert dump(verdict.id) == dump(id)
        assert isinstance(read(dump(filler).decode()), Invalid | list)


@given(tokens, tokens)
def test_number_ids_are_one_id_exactly_if_they_are_one_number(one: str, other: str) -> None:
    """Keys compare as exact decimal numbers do."""
    for second in (other, one + "0" if "." in one and "e" not in one.lower() else other):
        keys = [id_key(parse(token.encode(), 1)) for token in (one, second)]
        assert (keys[0] == keys[1]) == (Decimal(one) == Decimal(second))
        assert (hash(keys[0]) == hash(keys[1])) or keys[0] != keys[1]


wholes = st.from_regex(r"\A-?[1-9][0-9]{0,20}([eE][+-]?[0-9]{1,3})?\Z")


@given(wholes, st.integers(1, 30))
def test_shifting_point_and_exponent_keeps_the_id(token: str, zeros: int) -> None:
    """A number written with more zeros and a smaller exponent is the same id."""
    mantissa, _, exponent = token.lower().partition("e")
    other = f"{mantissa}{'0' * zeros}.{'0' * zeros}e{int(exponent or 0) - zeros}"
    assert id_key(Number(token)) == id_key(parse(other.encode(), 1)) == id_key(parse(token.encode(), 1))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("1", "1e0", True),
        ("1", '"1"', False),
        ("0", "-0", True),
        ("0", "0e999999999999", True),
        ("0", "null", False),
        ("-0.0", "0", True),
        ("100", "1E+2", True),
        ("-100", "-1e2", True),
        ("9007199254740993", "9007199254740992", False),
        ("9007199254740993", "9007199254740993.0", True),
        ("0.1", "1e-1", True),
        ("0.0010", "10.0e-4", True),
        ("-1.5", "-15e-1", True),
        ("1e999999999", "10e999999998", True),
        ("1e999999999", "1e-999999999", False),
        ("1e999999999", "1e999999998", False),
        ("1e" + "9" * 1000, "1e+" + "9" * 1000, True),
        ("1e" + "9" * 1000, "1e-" + "9" * 1000, False),
        ("1e" + "9" * 1000, "2e" + "9" * 1000, False),
        ("1" * 100_000, "1" * 99_999 + "2", False),
        ("1" + "0" * 100_000, "1e100000", True),
        ("1" + "0" * 999_999, "1e" + "0" * 1000 + "999999", True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_ids_are_told_apart_by_type_and_value(one: str, other: str, same: bool) -> None:
    """Numbers are compared exactly and without expanding exponents."""
    assert (id_key(parse(one.encode(), 1)) == id_key(parse(other.encode(), 1))) == same


def test_responses_have_the_members_of_the_specification() -> None:
    """A response says version, id and either result or error, whose data says its kind."""
    assert success_response(Number("1e400"), {"a": 1}) == {
        "jsonrpc": "2.0",
        "id": Number("1e400"),
        "result": {"a": 1},
    }
    refused = BridgeError("no_such_captcha", {"attempts": 1}, code=16)
    assert error_response("a", refused, {"sandbox": True}) == {
        "jsonrpc": "2.0",
        "id": "a",
        "error": {
            "code": 16,
            "message": refused.message,
            "data": {"kind": "no_such_captcha", "attempts": 1, "sandbox": True},
        },
    }
    assert error_response(Number("7.0"), refused)["id"] == Number("7.0")
    assert refused.data == {"kind": "no_such_captcha", "attempts": 1}
