"""Tests of `bridge.reports.verdict`; what each answer proves is in the vectors."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.model import Exchange
from bridge.reports.verdict import clean_text, judge, parse_http_date, verdict_ending

OCT_21 = 1445412480.0
"""Wed, 21 Oct 2015 07:28:00 GMT."""


def answer(body: bytes, status: int | None = 200, **headers: str) -> Exchange:
    """Make a complete answer."""
    return Exchange(
        None, True, status, {name.replace("_", "-"): text for name, text in headers.items()}, body
    )


def same(text: str) -> str:
    """Hide nothing."""
    return text


SAID = b'{"errorId":16,"errorCode":"ERROR_NO_SUCH_CAPCHA_ID","errorDescription":"Gone."}'
TOLD = {"errorId": 16, "errorCode": "ERROR_NO_SUCH_CAPCHA_ID", "errorDescription": "Gone."}
UNREACHED = Exchange("dns", False)


@pytest.mark.parametrize(
    ("exchange", "perhaps", "extra", "kind", "detail"),
    [
        # Number, code and text of a refusal, and nothing of what is not known.
        (
            answer(SAID),
            False,
            {"hints": ["h"], "warnings": None},
            "no_such_captcha",
            {**TOLD, "hints": ["h"]},
        ),
        # A refusing status beside the number; without a number any status.
        (answer(b'{"errorId":55}', 403), False, {}, "account_suspended", {"errorId": 55, "httpStatus": 403}),
        (answer(b"", 404), False, {}, "upstream_http", {"httpStatus": 404}),
        (answer(b""), False, {}, "outcome_unknown", {"httpStatus": 200}),
        # Cause and likelihood.
        (UNREACHED, False, {}, "upstream_unreachable", {"cause": "dns"}),
        (answer(b'{"errorId":16}'), True, {}, "outcome_unknown", {"errorId": 16, "likely": "accepted"}),
        # What was accepted has nothing to explain.
        (answer(b'{"errorId":0}', 403), False, {"warnings": ["w"]}, "accepted", {"warnings": ["w"]}),
        # What the caller of the function knows better replaces what the verdict says.
        (UNREACHED, True, {"httpStatus": 500, "cause": None}, "outcome_unknown", {"httpStatus": 500}),
    ],
)
def test_an_ending_tells_what_is_known(
    exchange: Exchange, perhaps: bool, extra: dict[str, Any], kind: str, detail: dict[str, Any]
) -> None:
    """The ending of a report has what the upstream said, what went wrong and what is likely, and no more."""
    seen = judge(exchange, perhaps)
    end = verdict_ending(seen, extra)
    assert (end.outcome, end.code) == (seen.outcome, seen.code)
    assert (end.kind, end.detail) == (kind, detail)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("a\x00\x1b[0m\t\n", "a\\u0000\\u001b[0m\\u0009\\u000a"),
        ("\x7f\x80\x9f\xa0", "\\u007f\\u0080\\u009f\xa0"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u202a\u202e\u2066\u2069\u200e\u200f\u061c", "\\u202a\\u202e\\u2066\\u2069\\u200e\\u200f\\u061c"),
        ("\ud800\udfff", "\\ud800\\udfff"),
        ("\U0001f600 é", "\U0001f600 é"),
    ],
)
def test_dangerous_characters_become_visible(text: str, cleaned: str) -> None:
    """Characters that could steer a terminal, a log or a reader's eye are written out."""
    assert clean_text(text, same) == cleaned


def test_secrets_are_hidden_before_anything_is_cut() -> None:
    """A key that would be cut in two at the limit is hidden whole."""
    key = "k" * 32
    text = "x" * 500 + key + "y"
    assert clean_text(text, lambda found: found.replace(key, "***")) == "x" * 500 + "***y"
    body = b'{"errorId":900,"errorCode":"' + b"E" * 120 + key.encode() + b'"}'
    seen = judge(answer(body), False, lambda found: found.replace(key, "***"))
    assert seen.error_code == "E" * 120 + "***"


def test_a_code_is_found_before_it_is_hidden() -> None:
    """Hiding secrets does not change what an error means."""
    body = b'{"errorId":900,"errorCode":"ERROR_RATE_LIMIT"}'
    assert judge(answer(body), False, lambda _: "***").kind == "rate_limit"


@pytest.mark.parametrize("half", ["d800", "dbff", "dc00", "dfff"])
def test_half_a_character_in_a_code_is_written_out(half: str) -> None:
    """A code that no JSON text could carry is made writable; the rest stays as it came."""
    body = f'{{"errorId":900,"errorCode":"X\\u{half}\\u0007"}}'.encode()
    assert judge(answer(body), False).error_code == f"X\\u{half}\x07"


def test_empty_texts_stay() -> None:
    """A text without characters is a text."""
    seen = judge(answer(b'{"errorId":900,"errorCode":"","errorDescription":""}'), False)
    assert (seen.error_code, seen.error_description) == ("", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", OCT_21),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", OCT_21),
        ("Wed Oct 21 07:28:00 2015", OCT_21),
        (" Wed, 21 Oct 2015 07:28:00 GMT ", OCT_21),
        ("Wed, 21 Oct 2015 07:28:00", None),
        ("Wed, 21 Oct 2015 07:28:00 +0200", None),
        ("Wed, 32 Oct 2015 07:28:00 GMT", None),
        ("", None),
        ("soon", None),
    ],
)
def test_dates_are_read_in_three_forms(text: str, seconds: float | None) -> None:
    """All forms of HTTP are read, and nothing else."""
    assert parse_http_date(text) == seconds


def test_a_date_counts_from_the_answers_date_else_from_the_clock() -> None:
    """The upstream's own date is the better anchor; the clock helps where there is none."""
    late = "Wed, 21 Oct 2015 07:28:30 GMT"
    dated = answer(b"", 429, retry_after=late, date="Wed, 21 Oct 2015 07:28:00 GMT")
    assert judge(dated, False, now_wall=0.0).retry_after_s == 30
    undated = answer(b"", 429, retry_after=late)
    assert judge(undated, False, now_wall=OCT_21 + 10).retry_after_s == 20
    odd = answer(b"", 429, retry_after=late, date="yesterday")
    assert judge(odd, False, now_wall=OCT_21).retry_after_s == 30
    assert judge(odd, False).retry_after_s is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("999999999", 999_999_999), *((text, 1e9) for text in ("1000000001", "9" * 11, "9" * 400, "9" * 5000))],
)
def test_an_absurd_wait_is_only_very_long(text: str, seconds: float) -> None:
    """Thirty years are as long as any wait gets: a number no clock could hold is that."""
    assert judge(answer(b"", 429, retry_after=text), False).retry_after_s == seconds


@pytest.mark.parametrize(
    ("name", "wait_s"), [("RATE_LIMIT", 20), ("SERVICE_OVERLOAD", 20), ("NO_SUCH_CAPCHA_ID", None)]
)
def test_a_wait_counts_beside_a_verdict_that_is_tried_again(name: str, wait_s: float | None) -> None:
    """Whether the upstream calls it a limit or an overload, it says itself when to come back."""
    body = f'{{"errorId":900,"errorCode":"ERROR_{name}"}}'.encode()
    assert judge(answer(body, 503, retry_after="20"), False).retry_after_s == wait_s


@pytest.mark.parametrize("text", ["\u0661", "\xb2", "1e3", "0x10", "+5", "5;", ""])
def test_what_is_no_number_is_no_wait(text: str) -> None:
    """Only ASCII digits are seconds."""
    assert judge(answer(b"", 429, retry_after=text), False).retry_after_s is None


def test_nesting_is_measured_outside_of_texts() -> None:
    """Brackets inside texts do not nest, and an escaped quote does not end a text."""
    many = "[{" * 300
    body = b'{"errorId":0,"note":"' + many.encode() + b'\\"' + many.encode() + b'\\\\"}'
    assert judge(answer(body), False).outcome == "accepted"
    flat = b'{"errorId":0,"list":[' + b"[]," * 300 + b"[]]}"
    assert judge(answer(flat), False).outcome == "accepted"


def test_an_answer_without_a_status_is_no_answer() -> None:
    """A body nobody can place proves nothing."""
    seen = judge(answer(b'{"errorId":0}', None), False)
    assert (seen.outcome, seen.event, seen.http_status) == ("unknown", "answer_malformed", None)


def test_a_strange_status_with_a_verdict_has_a_verdict() -> None:
    """A JSON verdict wins over a status beyond HTTP, too."""
    assert judge(answer(b'{"errorId":0}', 600), False).outcome == "accepted"
    assert judge(answer(b'{"errorId":0}', 199), False).outcome == "unknown"


def test_a_status_ends_a_run_without_one() -> None:
    """An attempt that read a status does not feed the transport pause, however it ended."""
    assert judge(Exchange("connect", False, 200), False).pause is None
    assert judge(Exchange("connect", False), False).pause == "transport"


@pytest.mark.parametrize(("inner", "outcome"), [(199, "accepted"), (200, "unknown")])
def test_two_hundred_levels_are_read(inner: int, outcome: str) -> None:
    """The limit of nesting is exactly two hundred, the answer's own object included."""
    body = b'{"errorId":0,"list":' + b"[" * inner + b"]" * inner + b"}"
    assert judge(answer(body), False).outcome == outcome


@pytest.mark.parametrize("before", [b'"a":"b"', b'"abc":[' + b"[]," * 300 + b"[]]", b'"\\\\":"\\""'])
def test_what_stands_before_the_nesting_does_not_hide_it(before: bytes) -> None:
    """Texts of odd length and closed brackets are left behind with the depth they began at."""
    deep = b"[" * 200 + b"]" * 200
    body = b"{" + before + b',"errorId":0,"list":' + deep + b"}"
    assert judge(answer(body), False).outcome == "unknown"


@pytest.mark.parametrize(("status", "told"), [(99, None), (100, 100), (999, 999), (1000, None)])
def test_a_status_has_three_digits(status: int, told: int | None) -> None:
    """What cannot be a status is not passed on as one."""
    seen = judge(answer(b"", status), False)
    assert (seen.http_status, seen.has_status) == (told, told is not None)


@pytest.mark.parametrize(("status", "told"), [(200, None), (299, None), (300, 300), (None, None)])
def test_a_status_of_success_is_not_told_beside_the_number(status: int | None, told: int | None) -> None:
    """Beside an errorId only a status outside of 200 to 299 says anything."""
    seen = judge(answer(b'{"errorId":55}'), False)._replace(http_status=status)
    assert verdict_ending(seen, {}).detail == {
        "errorId": 55,
        **({} if told is None else {"httpStatus": told}),
    }


def test_harmless_text_stays_as_it_is() -> None:
    """No printable ASCII character and no letter of another script is written out."""
    text = "".join(map(chr, range(0x20, 0x7F))) + "\xa0\xe9\u0416\u4e2d\U0001f600"
    assert clean_text(text, same) == text
    body = '{"errorId":900,"errorCode":"ERREUR_\xc9\ue000"}'.encode()
    assert judge(answer(body), False).error_code == "ERREUR_\xc9\ue000"


def test_many_brackets_at_the_limit_are_read() -> None:
    """However many brackets there are, two hundred levels are not too deep."""
    deep = b"[" * 199 + b"]" * 199
    body = b'{"errorId":0,"list":' + deep + b',"flat":[' + b"[]," * 300 + b"[]]}"
    assert judge(answer(body), False).outcome == "accepted"
