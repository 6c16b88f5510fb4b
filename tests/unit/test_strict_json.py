"""Strict JSON: what is accepted, what is refused how, and what is kept."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.strict_json import (
    DEEPEST,
    UNREADABLE,
    NotAcceptable,
    NotJson,
    Number,
    Tainted,
    dump,
    parse,
    plain,
)
from bridge.settings.table import ROWS

NUMBERS = ["0", "-0", "7", "-7", "999999999999999", "-999999999999999", "1000000000000000"]
NUMBERS += [
    "9007199254740993",
    "1.0",
    "1e400",
    "-1E+5",
    "0.1e-7",
    "9" * 5000,
    "1." + "0" * 5000,
    "123e999999999999",
]

JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | JSON_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(JSON_TEXT, inner),
    max_leaves=30,
)
# Words of JSON, right and wrong, so that random sequences of them often are JSON.
WORDS = st.sampled_from(
    [
        *("[", "]", "{", "}", ",", ":", "[[[[", "]]]]", " ", "\t", "\n", "\x0c", "\ufeff", "é"),
        *("1", "-0", "01", "1.", "1e5", ".5", "true", "null", "nul", "NaN", "-Infinity", "Infinity"),
        *('"a"', '"b"', '"', '\\"', "\\", r'"\u00e9"', r'"\ud83d\ude00"', r'"\ud800"', r'"\x"', '"\x01"'),
    ]
)


def refusal(data: bytes, max_depth: int = 64) -> Any:
    """Return what can still be read of a text that is JSON but not acceptable."""
    with pytest.raises(NotAcceptable) as caught:
        parse(data, max_depth)
    return caught.value.value


@given(JSON_VALUES, st.booleans())
def test_every_value_is_read_as_the_standard_library_reads_it(value: Any, ascii_only: bool) -> None:
    """Ordinary JSON means what it always means."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert plain(parse(text.encode(), DEEPEST)) == json.loads(text)


@given(st.lists(WORDS, max_size=12).map("".join))
@example('[{"":' * 100)
@example("[" * 300 + "]" * 300)
@example("[" * 300 + "]" * 299 + "}")
@example("[" * 300 + "NaN" + "]" * 300)
def test_texts_are_judged_alike_with_and_without_recursion(text: str) -> None:
    """What is too deep to be read and checked in pieces is JSON exactly if the standard library reads it."""

    def is_json(judge: Callable[..., object], *arguments: object) -> bool:
        with suppress(NotAcceptable):
            try:
                judge(*arguments)
            except (NotJson, ValueError):
                return False
        return True

    # The standard library reads more words than JSON has.
    bare = re.sub("Infinity|NaN", "x", text).strip(" \t\n\r")
    expected = is_json(json.loads, bare)
    assert [is_json(parse, text.encode(), depth) for depth in (0, 1, 3, DEEPEST)] == [expected] * 4


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"  ", b"[1", b"[1]]", b"{'a':1}", b"NaN", b'{"a":NaN}', b"[Infinity]", b"-Infinity"),
        *(b'{"a":1,}', b"01", b'"\t"', b"\xef\xbb\xbf{}", b"\xff\xfe[\x00]\x00", b"\x00[\x00]"),
        *(b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xff"', b"\x0c1", "\u00a01".encode(), "\u0661".encode()),
        b'{"a":1,"a":2',
        b'{"a":1,"a":NaN}',
        b'["\\ud800"',
        b"[" * 100_000,
        b'[{"":' * 50_000,
        b"[" * 300 + b"]" * 299,
        b"[" * 300 + b"]" * 301,
        b"[" * 300 + b"\xff" + b"]" * 300,
        b'"' + b"\\" * 1001 + b'"' + b"[" * 500,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_is_not_json_is_refused_as_such(data: bytes) -> None:
    """Everything outside RFC 8259, and every encoding but UTF-8, is not JSON."""
    with pytest.raises(NotJson):
        parse(data, 64)


@pytest.mark.parametrize("token", NUMBERS, ids=lambda token: token[:20])
def test_every_number_comes_back_digit_for_digit(token: str) -> None:
    """What was read as a number is written with the same token."""
    assert dump(parse(f'{{"id":[{token}]}}'.encode(), 64)) == f'{{"id":[{token}]}}'.encode()


def test_short_integers_are_plain_and_all_other_numbers_keep_their_token() -> None:
    """Only integers of at most 15 digits, minus zero excepted, become int."""
    assert [type(parse(token.encode(), 1)) for token in NUMBERS[:8]] == [int, Number, int, int, int, int] + [
        Number
    ] * 2
    assert type(parse(b"1.0", 1)) is Number


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("-0", 0),
        ("9007199254740993", 2**53 + 1),
        ("1.5", 1.5),
        ("1e2", 100),
        ("5.0", 5),
        ("-0.0", 0),
        ("1e300", int(1e300)),
        ("1e400", math.inf),
        ("-1e400", -math.inf),
        ("9" * 5000, math.inf),
        ("1e-400", 0),
        ("50e-1", 5),
        ("0.99999999999999999999", math.nextafter(1.0, 0.0)),
        ("-1.00000000000000000001", -math.nextafter(1.0, 0.0)),
        ("4503599627370497.5", math.nextafter(2.0**52, 0.0)),
        ("-4503599627370496.5", -math.nextafter(2.0**52, 0.0)),
        ("9007199254740991.4", math.nextafter(2.0**52, 0.0)),
        ("4503599627370497.0", 2**52 + 1),
        ("9007199254740991.0", 2**53 - 1),
        ("1e23", int(1e23)),
    ],
)
def test_numbers_become_python_numbers_without_raising(token: str, value: float) -> None:
    """A whole number is an integer however it is written, and no other; one that is too large is infinite."""
    number = Number(token).to_python()
    assert number == value
    assert type(number) is type(value)


def test_plain_turns_all_numbers_and_leaves_the_rest() -> None:
    """Numbers are turned at every level; other values stay as they are."""
    told = plain(parse(b'{"a":[1.5,{"b":-0}],"c":null,"d":"1e3"}', 64))
    assert told == {"a": [1.5, {"b": 0}], "c": None, "d": "1e3"}


def test_numbers_are_equal_by_token() -> None:
    """Two numbers are the same value if they were written the same way."""
    assert Number("1.0") == Number("1.0")
    assert Number("1.0") != Number("1.00")
    assert Number("1.0") != 1.0
    assert len({Number("1.0"), Number("1.0"), Number("1e0")}) == 2
    assert repr(Number("1e0")) == "Number('1e0')"


def test_digit_and_recursion_limits_of_the_process_stay_untouched() -> None:
    """Parsing huge numbers and deep texts changes no limit of the interpreter."""
    before = sys.get_int_max_str_digits(), sys.getrecursionlimit()
    parse(b"9" * 10_000, 64)
    refusal(b"[" * 10_000 + b"]" * 10_000)
    assert (sys.get_int_max_str_digits(), sys.getrecursionlimit()) == before


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"id":1,"id":1}', {}),
        (b'{"id":1,"id":2,"id":3}', {}),
        (b'{"id":1,"\\u0069d":2,"method":"m"}', {"method": "m"}),
        (b'{"id":1,"params":{"a":1,"a":2}}', {"id": 1, "params": {}}),
        (b'{"id":1,"x":[[{"a":{"b":0,"b":0}}]]}', {"id": 1, "x": [[{"a": {}}]]}),
    ],
)
def test_repeated_names_are_refused_and_left_out(data: bytes, value: Any) -> None:
    """A repeated name at any level taints the text; what it might mean is not guessed."""
    assert refusal(data) == Tainted(value, "repeated_name")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\ud800"', UNREADABLE),
        (b'"\\uDFFF\\uD800"', UNREADABLE),
        (b'{"id":"\\udfff","method":"m"}', {"id": UNREADABLE, "method": "m"}),
        (b'{"id":7,"\\uD800":1}', {"id": 7, "\ud800": 1}),
        (b'{"id":7,"a":[["\\ud83d\\ude00","\\ud83d"]]}', {"id": 7, "a": [["\U0001f600", UNREADABLE]]}),
    ],
)
def test_lone_surrogates_are_refused_and_blotted_out(data: bytes, value: Any) -> None:
    """Half of a surrogate pair, in a name or a value, taints the text."""
    assert refusal(data) == Tainted(value, "lone_surrogate")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'["\\\\ud800"]', ["\\ud800"]),
        (b'{"\\uD83D\\uDE00":[1]}', {"\U0001f600": [1]}),
    ],
)
def test_whole_surrogate_pairs_are_accepted(data: bytes, value: Any) -> None:
    """An escaped pair is one character, and an escaped backslash starts no escape."""
    assert parse(data, 64) == value


def test_depth_is_counted_from_the_whole_text() -> None:
    """A text nested as deep as allowed is read; one level more is refused."""
    assert parse(b'[{"a":[[]]}]', 4) == [{"a": [[]]}]
    assert refusal(b'[{"a":[[]]}]', 3) == [Tainted({"a": [UNREADABLE]}, "too_deep")]
    assert refusal(b'[{"a":[[]]}]', 0) == Tainted(UNREADABLE, "too_deep")


def test_brackets_inside_strings_are_not_depth() -> None:
    """Only structure nests."""
    data = dump(["[" * 100, '{\\"[' * 100, {"[{": '"[['}])
    assert parse(data, 2) == json.loads(data)


@pytest.mark.parametrize("text", [r'"\""', r'"\\"', r'"\\\""', r'"\\\\"', r'"a\"b\"c\""'])
def test_escapes_inside_strings_do_not_hide_depth(text: str) -> None:
    """Structure behind a string counts, however the string ends."""
    assert refusal(b"[%b,[[]]]" % text.encode(), 2)[1] == Tainted([UNREADABLE], "too_deep")
    assert parse(b"[%b,[[]]]" % text.encode(), 3) == [json.loads(text), [[]]]


@pytest.mark.parametrize(
    "text",
    [
        *("1e", "1e+", "1.", ".5", "+1", "-", "01", "nul", "NaN"),
        *('"\\x"', '"\\u12g4"', '"\t"', "1 1", '{"a"}', "{1:2}"),
    ],
)
def test_what_is_too_deep_to_be_read_is_still_checked(text: str) -> None:
    """A text that is too deep and broken where it is deepest is no JSON."""
    with pytest.raises(NotJson):
        parse(b"[" * 300 + text.encode() + b"]" * 300, 64)


def test_wide_texts_are_not_deep() -> None:
    """Many brackets side by side are accepted."""
    assert parse(dump([{"a": [n]} for n in range(1000)]), 3) == [{"a": [n]} for n in range(1000)]


def test_no_setting_allows_more_than_the_deepest() -> None:
    """A limit beyond the safe one is cut to it, and no setting promises more."""
    assert ROWS["max_depth"].high == DEEPEST
    assert parse(b"[" * DEEPEST + b"]" * DEEPEST, 10**6)
    assert refusal(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), 10**6)


@pytest.mark.parametrize(
    ("opening", "middle", "closing"),
    [(b"[", b"", b"]"), (b'{"a":[1,', b"2", b"]}"), (b' { "\\"[" : ', b'"\\ud800"', b" } ")],
)
def test_extremely_deep_texts_are_judged_without_recursion(
    opening: bytes, middle: bytes, closing: bytes
) -> None:
    """Half a million levels are refused for their depth if closed, as no JSON if not."""
    count = 500_000 // len(opening)
    data = b'[7,{"id":8,"x":' + opening * count + middle + closing * count + b',"y":{"z":[]}}]'
    first, second = refusal(data, 3)
    assert (first, second.reason) == (7, "too_deep")
    assert second.value["id"] == 8
    assert second.value["y"] == {"z": UNREADABLE}
    with pytest.raises(NotJson):
        parse(data[:-3], 3)


def test_flaws_taint_only_their_member_of_an_array() -> None:
    """In an array each member is tainted for itself, and sound ones stay as they are."""
    data = (
        b'[{"id":1},{"id":2,"id":2},{"id":3,"a":"\\ud800"},{"id":4,"a":[[[]]]},5,"\\ud800",[{"a":1,"a":1}]]'
    )
    assert refusal(data, 4) == [
        {"id": 1},
        Tainted({}, "repeated_name"),
        Tainted({"id": 3, "a": UNREADABLE}, "lone_surrogate"),
        Tainted({"id": 4, "a": [[UNREADABLE]]}, "too_deep"),
        5,
        Tainted(UNREADABLE, "lone_surrogate"),
        Tainted([{}], "repeated_name"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b" " * 200_000 + b"x",
        b"[" * 70 + b" " * 200_000 + b"x",
        b'["' + b'\\"' * 100_000,
        b"[" * 70 + b'"' + b'\\"' * 100_000,
    ],
)
def test_hostile_texts_take_linear_time(data: bytes) -> None:
    """Long blanks and long strings without an end are refused at once (else this runs for minutes)."""
    with pytest.raises(NotJson):
        parse(data, 64)


@pytest.mark.parametrize(
    "data", [b'{"key":"canary', b'\xff"canary"', b'{"a":"canary","a":NaN}', b'"canary" 1']
)
def test_exceptions_hold_no_input(data: bytes) -> None:
    """Neither the exception nor what it was made from repeats what the peer sent."""
    with pytest.raises(NotJson) as caught:
        parse(data, 64)
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in repr(vars(error)) + repr(error.args)
        error = error.__context__


@given(JSON_VALUES)
def test_what_is_dumped_is_one_ascii_line_that_means_the_same(value: Any) -> None:
    """A dumped value is read back unchanged."""
    data = dump(value)
    assert data.isascii()
    assert b"\n" not in data
    assert json.loads(data) == value


def test_numbers_are_dumped_verbatim_among_everything_else() -> None:
    """A number token is written as it was read, wherever it stands."""
    value = {"id": Number("1e400"), "a": [None, True, 1, 1.5, "\u00e9\n", (Number("-0"),), {}]}
    assert dump(value) == b'{"id":1e400,"a":[null,true,1,1.5,"\\u00e9\\n",[-0],{}]}'


@pytest.mark.parametrize("extra", [None, Number("1.0")])
def test_lone_surrogates_are_dumped_as_replacement_characters(extra: Any) -> None:
    """Whatever text gets into an answer, strict readers can read it."""
    value = {"a\udc00": ["x\ud800y", "\U0001f600", "\\ud800"], "b": extra}
    assert json.loads(dump(value)) == {
        "a\ufffd": ["x\ufffdy", "\U0001f600", "\\ud800"],
        "b": None if extra is None else 1.0,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}, [Number("1.0"), math.nan]])
def test_nan_and_infinity_are_never_dumped(value: Any) -> None:
    """A value that JSON cannot say raises and writes nothing."""
    with pytest.raises(ValueError, match="JSON compliant"):
        dump(value)


@pytest.mark.parametrize("value", [object(), {"a": b"x"}, [Number("1.0"), object()], {1: Number("1.0")}])
def test_foreign_types_are_never_dumped(value: Any) -> None:
    """A value of a type that JSON has not raises."""
    with pytest.raises(TypeError):
        dump(value)
