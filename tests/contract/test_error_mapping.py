"""What the error mapping promises for every answer there is: properties, not examples.

Codes, numbers and kinds come from the lists frozen by hand, never from the table under test.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core import errors
from bridge.core.model import OUTCOMES, Exchange, Verdict
from bridge.core.redact import Scrubber, Secret
from bridge.reports.verdict import MAX_CODE, MAX_DESCRIPTION, judge, verdict_ending
from tests.contract.frozen import (
    CODES,
    CORNERS,
    RESERVED,
    cell_faults,
    failure_faults,
    refusal_faults,
    status_faults,
    type_faults,
)

KEY = "0123456789abcdefCANARY0123456789"
TOP = 2**31 - 1
FAILURES = ("dns", "connect", "tls", "certificate", "proxy", "reset", "timeout", "cut", "malformed", "window")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(CODES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
answer_like = st.fixed_dictionaries(
    {},
    optional={
        "errorId": st.integers(-5, 60) | st.integers() | json_values,
        "errorCode": st.sampled_from(CODES) | json_values,
        "errorDescription": json_values,
        "status": json_values,
    },
).map(lambda value: json.dumps(value).encode())
bodies = st.one_of(
    st.binary(max_size=60), answer_like, json_values.map(lambda value: json.dumps(value).encode())
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-encoding": st.sampled_from(["identity", "gzip", "", "IDENTITY", "br, gzip"])
        | st.text(max_size=9),
        "retry-after": st.integers().map(str)
        | st.text(max_size=30)
        | st.sampled_from(["Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]),
        "date": st.text(max_size=30) | st.just("Wed, 21 Oct 2015 07:28:00 GMT"),
        "content-type": st.text(max_size=9),
    },
)
exchanges = st.builds(
    Exchange,
    failure=st.none() | st.none() | st.sampled_from(FAILURES) | st.text(max_size=5),
    sent=st.booleans(),
    status=st.none() | st.sampled_from([200, 408, 429, 503]) | st.integers(100, 600) | st.integers(),
    headers=headers,
    body=bodies,
    oversize=st.booleans(),
)
clocks = st.none() | st.floats(-1e12, 1e12)
error_ids = st.integers(1, 60) | st.integers(1, TOP)
names = st.text(max_size=12).filter(lambda name: name not in ("errorId", "errorCode", "errorDescription"))


def is_no_verdict(body: bytes) -> bool:
    """Tell whether a body surely names no errorId."""
    return b"errorId" not in body


def refuse(error_id: int, code: str | None = None, /, **extra: Any) -> Verdict:
    """Judge a certain refusal by the upstream."""
    value = {"errorId": error_id, **({} if code is None else {"errorCode": code}), **extra}
    return judge(Exchange(None, True, 200, {}, json.dumps(value).encode()), False)


@given(exchanges, st.booleans(), clocks)
def test_the_mapping_is_total(exchange: Exchange, perhaps_before: bool, now: float | None) -> None:
    """Any bytes, status, headers and failure give one verdict, made of one event row and one wire row."""
    seen = judge(exchange, perhaps_before, now_wall=now)
    assert seen.outcome in OUTCOMES
    assert seen.next in ("done", "again", "again_once", "again_refused", "wait")
    assert seen.pause is None or seen.pause in errors.pause_rules()
    assert seen.retry_after_s is None or 0 <= seen.retry_after_s <= 1e9
    if seen.outcome == "accepted":
        assert (seen.code, seen.kind, seen.event, seen.next) == (0, "accepted", "accepted", "done")
    else:
        event, wire = errors.find_row(seen.event), errors.find_row(seen.kind)
        assert event.section != "wire"
        assert seen.code == (wire.code if wire.section == "wire" else seen.error_id)
        assert wire.outcome == seen.outcome


@given(exchanges, st.booleans())
def test_the_mapping_is_a_function(exchange: Exchange, perhaps_before: bool) -> None:
    """The same facts always prove the same."""
    assert judge(exchange, perhaps_before) == judge(exchange, perhaps_before)


@given(exchanges, st.booleans(), clocks)
def test_never_more_than_is_known(exchange: Exchange, perhaps_before: bool, now: float | None) -> None:
    """Accepted needs a zero, refused and not sent need certainty, and likely needs error 16 after a loss."""
    seen = judge(exchange, perhaps_before, now_wall=now)
    if seen.perhaps:
        assert seen.outcome in ("accepted", "unknown")
    if perhaps_before:
        assert seen.perhaps
    if seen.outcome == "accepted":
        assert exchange.failure is None
        assert json.loads(exchange.body)["errorId"] == 0
    if seen.outcome == "unknown":
        assert seen.perhaps
        assert (seen.code, seen.kind) == (-32002, "outcome_unknown")
    if seen.outcome == "not_sent":
        assert not exchange.sent or exchange.status in (408, 429)
        assert not seen.is_send
    if exchange.sent and exchange.failure is not None:
        assert seen.perhaps
    assert (seen.likely == "accepted") == (perhaps_before and seen.event == "no_such_captcha")


@given(exchanges)
def test_a_loss_before_changes_only_what_is_known(exchange: Exchange) -> None:
    """After a lost answer an attempt meets the same event and feeds the same pause, but ends as unknown."""
    alone, after = judge(exchange, False), judge(exchange, True)
    assert (after.event, after.next, after.pause, after.is_send) == (
        alone.event,
        alone.next,
        alone.pause,
        alone.is_send,
    )
    assert after.outcome == ("accepted" if alone.outcome == "accepted" else "unknown")
    assert (after.error_id, after.http_status) == (alone.error_id, alone.http_status)


@given(error_ids, st.none() | st.sampled_from(CODES) | st.text(max_size=20))
@example(TOP, None)
def test_certain_refusals_map_to_their_own_number(error_id: int, code: str | None) -> None:
    """The wire code of a certain refusal is the errorId, so the one can be read from the other."""
    seen = refuse(error_id, code)
    assert (seen.outcome, seen.code, seen.error_id) == ("refused", error_id, error_id)


@given(error_ids, error_ids)
def test_certain_refusals_are_told_apart(one: int, other: int) -> None:
    """Two numbers of the upstream never share a wire code."""
    assert (refuse(one).code == refuse(other).code) == (one == other)


@given(st.integers(), st.none() | st.sampled_from(CODES))
@example(-32002, None)
@example(TOP + 1, None)
def test_no_number_of_the_upstream_becomes_a_reserved_code(error_id: int, code: str | None) -> None:
    """A number outside the range of verdicts proves nothing, whatever code stands beside it."""
    seen = refuse(error_id, code)
    if 1 <= error_id <= TOP:
        assert seen.code not in RESERVED.values()
    else:
        assert seen.has_verdict == (error_id == 0)
        assert seen.outcome == ("accepted" if error_id == 0 else "unknown")


@given(
    error_ids | st.just(0),
    st.none() | st.sampled_from(CODES),
    st.dictionaries(names, json_values, max_size=5),
)
def test_extra_members_change_nothing(error_id: int, code: str | None, extra: dict[str, Any]) -> None:
    """Members nobody documented never change a verdict."""
    clean = json.loads(json.dumps(extra).replace("NaN", "0").replace("Infinity", "0"))
    assert refuse(error_id, code, **clean) == refuse(error_id, code)


@given(error_ids, st.none() | st.text(max_size=20).filter(lambda code: code not in CODES))
@example(4711, None)
def test_every_refusal_is_the_vendors(error_id: int, code: str | None) -> None:
    """A known code decides beside any number, a known number beside any other code; the rest is unknown."""
    assert list(refusal_faults(error_id, code)) == []


@given(st.integers(200, 599) | st.sampled_from(CORNERS), st.binary(max_size=20).filter(is_no_verdict))
def test_every_status_is_the_protocols(status: int, body: bytes) -> None:
    """Without a verdict the status alone decides, with and without Retry-After."""
    assert list(status_faults(status, body)) == []


@given(st.sampled_from(FAILURES) | st.text(max_size=8))
@example("gremlins")
def test_every_failure_is_the_protocols(word: str) -> None:
    """Every failure has its row, and of others only whether bytes had left counts."""
    assert list(failure_faults(word)) == []


def test_every_cell_is_the_protocols() -> None:
    """What no answer shows is as it was frozen: the bridge's own errors, the pauses, and no row more."""
    assert list(cell_faults()) == []


@given(
    st.sampled_from([str, str.lower, str.upper, str.swapcase]),
    st.text(max_size=20).filter(lambda name: not name.lower().endswith(("task", "taskproxyless"))),
)
def test_every_task_type_is_the_vendors(spell: Callable[[str], str], unknown: str) -> None:
    """Each type fits the methods it was frozen with, in any case of letters, and others are unknown."""
    assert list(type_faults(spell, unknown)) == []


@given(exchanges, st.booleans())
def test_whatever_is_told_can_be_written(exchange: Exchange, perhaps_before: bool) -> None:
    """Every ending is ASCII-clean JSON with texts of limited length and no raw control characters."""
    end = verdict_ending(judge(exchange, perhaps_before), {})
    text = json.dumps(end.detail, allow_nan=False)
    text.encode("ascii")
    json.dumps(end.detail, ensure_ascii=False).encode("utf-8")
    assert len(end.detail.get("errorCode", "")) <= MAX_CODE
    description = end.detail.get("errorDescription", "")
    assert len(description) <= MAX_DESCRIPTION
    assert all(char >= " " and not "\x7f" <= char <= "\x9f" for char in description)
    assert None not in end.detail.values()


KEY_FORMS = (
    KEY,
    "".join(f"%{ord(char):02X}" for char in KEY),
    "".join(f"%{ord(char):02x}" if char.isdigit() else char for char in KEY),
    "".join(f"\\u{ord(char):04x}" for char in KEY),
    KEY.encode().hex(),
    KEY.encode().hex().upper(),
    base64.b64encode(KEY.encode()).decode(),
    base64.urlsafe_b64encode(b"x" + KEY.encode()).decode(),
    base64.b64encode(b"xy" + KEY.encode()).decode(),
    "".join(f"&#{ord(char)};" for char in KEY),
)


@given(
    st.sampled_from(KEY_FORMS),
    st.text(max_size=5),
    st.integers(0, 600),
    st.text(max_size=5),
    st.sampled_from(["errorCode", "errorDescription", "status"]),
    st.integers(-1, 60),
    st.booleans(),
    st.booleans(),
)
def test_the_key_is_never_told(
    form: str,
    before: str,
    fill: int,
    after: str,
    member: str,
    error_id: int,
    escaped: bool,
    perhaps_before: bool,
) -> None:
    """The account key in any encoding, at any place of an answer, is in no part of the verdict."""
    scrubber = Scrubber()
    scrubber.learn(Secret(KEY))
    text = "-".join((before, "." * fill, form, after))
    body = json.dumps({"errorId": error_id, member: text}, ensure_ascii=escaped).encode(
        "utf-8", "surrogatepass"
    )
    seen = judge(Exchange(None, True, 200, {}, body), perhaps_before, scrubber.scrub)
    told = json.dumps([seen, verdict_ending(seen, {})])
    written = json.dumps([seen, verdict_ending(seen, {})], ensure_ascii=False)
    for secret in KEY_FORMS:
        # The base64 forms differ at their ends with what surrounds the key.
        core = secret.strip("=")[4:-4]
        assert core not in told
        assert core not in written
