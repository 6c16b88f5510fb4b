"""The JSON parsing vectors, answered as the bridge answers lines and bodies, inside one process.

A vector is a text and the answers it may get (``bridge_any_of``). Texts with a line feed inside have
no such list, since as lines they are several messages: what each of these is owed stands here.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.core.errors import BridgeError, rule
from bridge.core.strict_json import NotAcceptable, NotJson, dump, parse
from bridge.rpc.envelope import Invalid, error_response, split
from bridge.wire.framing import Event, Framer, Oversize

# The vectors are other people's and not copied into the project. Where they do not lie beside it, these
# tests have nothing to read and are not collected.
VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "json_parsing.jsonl"
ROWS: list[dict[str, Any]] = (
    [json.loads(line) for line in VECTORS.read_bytes().splitlines()] if VECTORS.is_file() else []
)

NOT_JSON = {"kind": "error", "code": -32700, "id_raw": "null"}
NO_REQUEST = {"kind": "error", "code": -32600, "id_raw": "null"}

# As lines: each piece between line feeds is a message of its own. A lone number is JSON but no request.
LINES_OWED = {
    "n_array_newlines_unclosed.json": [NOT_JSON, NO_REQUEST, NOT_JSON],
    "n_array_unclosed_with_new_lines.json": [NOT_JSON, NO_REQUEST, NOT_JSON],
    "n_string_unescaped_newline.json": [NOT_JSON, NOT_JSON],
    "y_array_with_1_and_newline.json": [NOT_JSON, NOT_JSON],
    "y_object_with_newlines.json": [NOT_JSON, NOT_JSON, NOT_JSON],
}
# As one body: a line feed is white space, or an error inside a string.
BODY_OWED = {
    "n_array_newlines_unclosed.json": NOT_JSON,
    "n_array_unclosed_with_new_lines.json": NOT_JSON,
    "n_string_unescaped_newline.json": NOT_JSON,
    "y_array_with_1_and_newline.json": {"kind": "batch", "items": [[NO_REQUEST]]},
    "y_object_with_newlines.json": NO_REQUEST,
}


def refusal(kind: str) -> BridgeError:
    """What is wrong with a message that is JSON."""
    return BridgeError("invalid_request", rule(kind))


def answer(event: Event) -> Any:
    """Answer one event of the framer as the service does; no vector is a call."""
    if not isinstance(event, bytes):
        is_large = isinstance(event, Oversize)
        return error_response(None, refusal("message_too_large") if is_large else BridgeError("parse_error"))
    try:
        value = parse(event, 64)
    except NotJson:
        return error_response(None, BridgeError("parse_error"))
    except NotAcceptable as refused:
        value = refused.value
    verdict = split(value, 1000)
    if isinstance(verdict, list):
        return [
            error_response(member.id, refusal(member.rule))
            for member in verdict
            if isinstance(member, Invalid)
        ]
    assert isinstance(verdict, Invalid)
    return error_response(verdict.id, refusal(verdict.rule))


def is_allowed(given: Any, allowed: dict[str, Any]) -> bool:
    """Tell whether an answer is the one that a vector describes."""
    given = json.loads(dump(given), parse_int=str, parse_float=str)
    if allowed["kind"] == "batch":
        return (
            isinstance(given, list)
            and len(given) == len(allowed["items"])
            and all(
                any(is_allowed(member, one) for one in item)
                for member, item in zip(given, allowed["items"], strict=True)
            )
        )
    return (
        allowed["kind"] == "error"
        and isinstance(given, dict)
        and given["error"]["code"] == str(allowed["code"])
        and json.dumps(given["id"]) == allowed["id_raw"]
    )


def text_of(row: dict[str, Any]) -> bytes:
    """Return the text of a vector."""
    text = base64.b64decode(row["base64"])
    assert len(text) == row["bytes"]
    return text


def feed(framer: Framer, data: bytes, step: int) -> list[Event]:
    """Feed a whole stream in portions and end it."""
    events: list[Event] = []
    for position in range(0, len(data), step):
        events += framer.feed(data[position : position + step])
    return events + framer.end()


def is_utf8(text: bytes) -> bool:
    """Tell whether a text is UTF-8."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def say_line(text: bytes, place: str) -> list[Any]:
    """Answer a text that comes as a line, somewhere in a stream."""
    data = text if place == "without line feed" else text + b"\n"
    data = b"7\n" + data if place == "later" else data
    answers = [answer(event) for event in feed(Framer(1 << 20), data, 1 if "byte" in place else 1 << 20)]
    if place == "later":
        assert is_allowed(answers.pop(0), NO_REQUEST)
    return answers


def is_well_answered(row: dict[str, Any], answers: list[Any]) -> bool:
    """Tell whether a line got the answers that its vector allows."""
    if row["framing"] == "contains_newline":
        owed = LINES_OWED[row["name"]]
        return len(answers) == len(owed) and all(map(is_allowed, answers, owed))
    if row["framing"] == "blank_line":
        return {"kind": "none"} in row["bridge_any_of"] and answers == []
    return len(answers) == 1 and any(is_allowed(answers[0], allowed) for allowed in row["bridge_any_of"])


def say_body(text: bytes) -> Any:
    """Answer a text that comes behind a header."""
    (event,) = feed(Framer(1 << 20), b"Content-Length: %d\r\n\r\n%b" % (len(text), text), 1 << 20)
    assert event == text
    return answer(event)


def is_taken(text: bytes) -> bool:
    """Tell whether a text parses."""
    try:
        parse(text, 64)
    except NotJson:
        return False
    except NotAcceptable:
        pass
    return True


# One test for all vectors, which names those that fail: hundreds would take longer than what they do.
if ROWS:

    def test_all_vectors_are_known_by_framing() -> None:
        """Each vector has its answers listed, by itself or here."""
        assert len(ROWS) == 318
        assert (
            {row["name"] for row in ROWS if row["bridge_any_of"] is None} == set(LINES_OWED) == set(BODY_OWED)
        )
        assert {row["framing"] for row in ROWS} == {"line_safe", "blank_line", "contains_newline"}

    @pytest.mark.parametrize("place", ["first, whole", "first, byte by byte", "without line feed", "later"])
    def test_a_line_is_answered_as_its_vector_says(place: str) -> None:
        """A text sent as a line gets one of the answers it may get, wherever in the stream it stands."""
        assert [row["name"] for row in ROWS if not is_well_answered(row, say_line(text_of(row), place))] == []

    def test_a_body_is_answered_as_its_vector_says() -> None:
        """A text sent behind a header is one message, and gets one of the answers it may get."""
        wrong = []
        for row in ROWS:
            given = say_body(text_of(row))
            if not any(is_allowed(given, one) for one in row["bridge_any_of"] or [BODY_OWED[row["name"]]]):
                wrong.append(row["name"])
        assert wrong == []

    def test_json_is_told_from_what_is_not() -> None:
        """A text that must parse is never a parse error, one that must not parse always is."""
        wrong = []
        for row in ROWS:
            text = text_of(row)
            # Where the suite leaves it open, everything in plain UTF-8 is JSON to us, whatever its numbers.
            is_plain = b"\0" not in text and not text.startswith(b"\xef\xbb\xbf") and is_utf8(text)
            if is_taken(text) != {"y": True, "n": False, "i": is_plain}[row["expect"]]:
                wrong.append(row["name"])
        assert wrong == []
