"""What one answer, or the lack of one, proves about a report: the mapping of upstream errors.

Pure and total: any bytes, status, headers or failure give one verdict, never an exception.
The rows of ``schemas/errors.json`` say what follows; this module only finds the row.
It never states more than is known, and puts endings into words for the wire. Imported by `bridge.reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from bridge.core import errors, model, strict_json
from bridge.core.model import ACCEPTED, NOT_SENT, REFUSED, UNKNOWN, Ending, Exchange, Row, Verdict
from bridge.core.text import escape_char

MAX_DESCRIPTION: Final = 512
"""Characters of the upstream's text that are passed on, after escaping."""
MAX_CODE: Final = 512
"""Characters of the upstream's errorCode that are passed on; the longest known one has 42."""
MAX_ERROR_ID: Final = 2**31 - 1
MAX_DEPTH: Final = 200
"""Nesting that is still read; far below what would exhaust the interpreter's stack."""
MAX_WAIT_S: Final = 1e9
"""Longest Retry-After that is told apart; no window is that long."""

Answer = Mapping[str, Any] | errors.BridgeError
"""What a requester is told: a result, or an error of ``schemas/errors.json``."""

_LIKELY_KIND: Final = "no_such_captcha"
_DATE_FORMS: Final = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")


class _Answer(NamedTuple):
    """The three members of a JSON verdict."""

    error_id: int
    code: str | None
    description: str | None


_TAKEN: Final = _Answer(0, None, None)
_ACCEPTED: Final = Ending(ACCEPTED, 0, ACCEPTED)
_USUAL_BODIES: Final = frozenset(
    {b'{"errorId":0,"status":"success"}', b'{"errorId": 0, "status": "success"}'}
)
"""What the upstream says to nearly every report, as the usual encoders write it; parsing it costs 20 us."""


def judge(
    exchange: Exchange, perhaps_before: bool, scrub: Callable[[str], str] = str, now_wall: float | None = None
) -> Verdict:
    """Tell what is known after one attempt.

    A complete answer counts as an answer to the request whatever `Exchange.sent` says.

    Args:
        exchange: what the attempt met.
        perhaps_before: True if an earlier attempt may have been taken.
        scrub: hides secrets in upstream text; applied before anything is cut off.
        now_wall: UNIX seconds, for a Retry-After date in an answer without a Date header.

    Source: the bridge's protocol, sections on reports and errors; anti-captcha.com/apidoc/errors.
    """
    answer = _read_answer(exchange)
    wait_s = _read_retry_after(exchange, now_wall)
    status = exchange.status if 100 <= (exchange.status or 0) <= 999 else None
    if answer is not None and answer.error_id == 0:
        return Verdict(
            ACCEPTED, 0, ACCEPTED, ACCEPTED, "done", perhaps_before, True, True, True, http_status=status
        )
    row = _find_row(exchange, answer, wait_s)
    perhaps = perhaps_before or row.outcome == UNKNOWN
    outcome, code, kind = _conclude(row, answer, perhaps)
    error_id, error_code, description = answer or (None, None, None)
    return Verdict(
        outcome=outcome,
        code=code,
        kind=kind,
        event=row.kind,
        next=row.retry,
        perhaps=perhaps,
        is_send=row.outcome != NOT_SENT,
        has_status=status is not None,
        has_verdict=answer is not None,
        # The transport pause counts attempts without a status; one that was read ends the run.
        pause=None if row.pause == "transport" and status is not None else row.pause,
        error_id=error_id,
        error_code=None if error_code is None else _clean_code(error_code, scrub),
        error_description=None if description is None else clean_text(description, scrub),
        http_status=status,
        # Who is asked to come back later does so, whether a status or an errorCode says that it is too much.
        retry_after_s=wait_s if row.retry in ("wait", "again_refused") else None,
        cause=row.detail,
        likely=ACCEPTED if perhaps and row.kind == _LIKELY_KIND else None,
    )


def verdict_ending(verdict: Verdict, extra: Mapping[str, Any]) -> Ending:
    """Make the final answer of a verdict, as it is stored and told.

    Args:
        verdict: the last attempt's verdict.
        extra: further members of the answer (hints, warnings, pause ...); they win, and None is left out.
    """
    if verdict.outcome == ACCEPTED and not extra:
        return _ACCEPTED
    detail: dict[str, Any] = {}
    if verdict.outcome != ACCEPTED:
        # Beside an errorId the status says something only if it is not the usual one.
        is_usual = verdict.error_id is not None and 200 <= (verdict.http_status or 200) <= 299
        detail = {
            "errorId": verdict.error_id,
            "errorCode": verdict.error_code,
            "errorDescription": verdict.error_description,
            "likely": verdict.likely,
            "cause": verdict.cause,
            "httpStatus": None if is_usual else verdict.http_status,
        }
    kept = {name: value for name, value in {**detail, **extra}.items() if value is not None}
    return Ending(verdict.outcome, verdict.code, verdict.kind, kept)


def local_ending(kind: str, **detail: Any) -> Ending:
    """An ending that the bridge itself decides, of the table's row `kind`."""
    row = errors.find_row(kind)
    assert row.code is not None
    told = {name: value for name, value in detail.items() if value is not None}
    return Ending(row.outcome or UNKNOWN, row.code, kind, told)


def row_ending(row: Row) -> Ending:
    """The stored ending of a report that is done."""
    return Ending(row.outcome or UNKNOWN, row.code or 0, row.kind or "outcome_unknown", row.detail)


def answer_ending(
    ending: Ending,
    *,
    task_id: int = 0,
    attempts: int = 0,
    replayed: bool = False,
    durable: bool = False,
    elapsed_ms: int = 0,
    retryable: bool = True,
    warnings: tuple[Mapping[str, str], ...] = (),
) -> Answer:
    """Tell a requester how its report ended.

    Args:
        retryable: Whether trying again can help inside the window; only looked at when the
            ending's row says that it is worth trying at all.
    """
    known = {"attempts": attempts, "replayed": replayed, "durable": durable}
    notes = {"warnings": list(warnings)} if warnings else {}
    if ending.code == 0:
        success = {"status": "success", "taskId": task_id, "outcome": ACCEPTED}
        return {**success, **known, "elapsedMs": elapsed_ms, **notes}
    may_help = retryable and attempts < model.MAX_ATTEMPTS and ending.outcome == NOT_SENT
    error = {"outcome": ending.outcome, "retryable": may_help and errors.find_row(ending.kind).retryable}
    return errors.BridgeError(ending.kind, {**error, **known, **ending.detail, **notes}, ending.code)


def clean_text(text: str, scrub: Callable[[str], str]) -> str:
    """Make upstream text safe to pass on: secrets hidden, control characters visible, cut to size.

    Control characters, line and paragraph separators, characters that turn the reading direction
    and lone surrogates become ``\\u`` and four digits; no such escape is cut in two.
    """
    cleaned = ""
    for piece in map(escape_char, scrub(text)):
        if len(cleaned) + len(piece) > MAX_DESCRIPTION:
            break
        cleaned += piece
    return cleaned


def parse_http_date(text: str) -> float | None:
    """Read a date of an HTTP header as UNIX seconds, in any of the three forms; None if it is none.

    Source: RFC 9110, section 5.6.7.
    """
    from datetime import UTC, datetime  # rare, and slow to load: not at start

    for form in _DATE_FORMS:
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            continue
    return None


# --- finding the row ----------------------------------------------------------------------------


def _find_row(exchange: Exchange, answer: _Answer | None, wait_s: float | None) -> errors.Row:
    if answer is not None:
        return errors.upstream_row(answer.error_id, answer.code)
    if exchange.failure is not None:
        return errors.failure_row(exchange.failure, exchange.sent)
    # A complete answer with a status outside 200 to 599 is as unreadable as no HTTP at all.
    return errors.http_row(exchange.status or 0, wait_s is not None) or errors.failure_row("malformed", True)


def _conclude(row: errors.Row, answer: _Answer | None, perhaps: bool) -> tuple[str, int, str]:
    if answer is not None and not perhaps:
        return REFUSED, answer.error_id, row.kind
    final = errors.find_row("outcome_unknown" if perhaps else row.wire or "outcome_unknown")
    return final.outcome or UNKNOWN, final.code or 0, final.kind


# --- reading the answer -------------------------------------------------------------------------


def _read_answer(exchange: Exchange) -> _Answer | None:
    if exchange.failure is not None or exchange.oversize or exchange.status is None or exchange.status < 200:
        return None
    if exchange.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        return None
    if exchange.body in _USUAL_BODIES:
        return _TAKEN
    try:
        value = strict_json.parse_foreign(exchange.body.removeprefix(b"\xef\xbb\xbf"), MAX_DEPTH)
    except strict_json.NotJson:
        return None
    error_id = value.get("errorId") if isinstance(value, dict) else None
    if type(error_id) is not int or not 0 <= error_id <= MAX_ERROR_ID:
        return None
    texts = (value.get(name) for name in ("errorCode", "errorDescription"))
    return _Answer(error_id, *(text if isinstance(text, str) else None for text in texts))


def _clean_code(code: str, scrub: Callable[[str], str]) -> str:
    # Passed on as it came, but half a surrogate pair could not be written as JSON.
    return scrub(code).encode(errors="backslashreplace").decode()[:MAX_CODE]


# --- reading Retry-After ------------------------------------------------------------------------


def _read_retry_after(exchange: Exchange, now_wall: float | None) -> float | None:
    text = exchange.headers.get("retry-after", "").strip()
    if exchange.failure is not None or not text or not text.isascii():
        return None
    if text.isdigit():
        return min(float(text), MAX_WAIT_S)
    until = parse_http_date(text)
    now = parse_http_date(exchange.headers.get("date", ""))
    now = now_wall if now is None else now
    return None if until is None or now is None else min(max(until - now, 0.0), MAX_WAIT_S)
