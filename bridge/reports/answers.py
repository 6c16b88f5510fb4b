"""Endings put into words for the wire: results, error data, and what may still be tried. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from time import gmtime, strftime
from typing import Any, Final, NamedTuple

from bridge.core.errors import wire_row
from bridge.core.model import ACCEPTED, MAX_ATTEMPTS, NOT_SENT, UNKNOWN, Ending, PauseState, Row

ROUNDING_S: Final = 1e-6
"""More than a time of today is off as a number of seconds, so that a whole millisecond stays one."""


class Answer(NamedTuple):
    """What a requester is told: a result, or an error of ``schemas/errors.json``."""

    result: Mapping[str, Any] | None
    code: int = 0
    message: str = ""
    data: Mapping[str, Any] = {}


def local_ending(kind: str, outcome: str = NOT_SENT, **detail: Any) -> Ending:
    """An ending that the bridge itself decides, of the table's row `kind`."""
    row = wire_row(kind)
    assert row.code is not None
    told = {name: value for name, value in detail.items() if value is not None}
    return Ending(outcome, row.code, kind, told)


def row_ending(row: Row) -> Ending:
    """The stored ending of a report that is done."""
    return Ending(row.outcome or UNKNOWN, row.code or 0, row.kind or "outcome_unknown", row.detail)


def answer_ending(
    ending: Ending,
    *,
    task_id: int,
    attempts: int,
    replayed: bool,
    durable: bool,
    elapsed_ms: int,
    retryable: bool = False,
    warnings: tuple[Mapping[str, str], ...] = (),
    sandbox: bool = False,
) -> Answer:
    """Tell a requester how its report ended.

    Args:
        retryable: Whether trying again can help inside the window; only looked at when the
            ending's row says that it is worth trying at all.
    """
    if ending.code == 0:
        result: dict[str, Any] = {
            "status": "success",
            "taskId": task_id,
            "outcome": ACCEPTED,
            "attempts": attempts,
            "replayed": replayed,
            "durable": durable,
            "elapsedMs": elapsed_ms,
        }
        if warnings:
            result["warnings"] = list(warnings)
        if sandbox:
            result["sandbox"] = True
        return Answer(result)
    row = wire_row(ending.kind)
    worth_trying = row.retryable and ending.outcome == NOT_SENT
    data: dict[str, Any] = {
        "kind": ending.kind,
        "outcome": ending.outcome,
        "retryable": worth_trying and retryable and attempts < MAX_ATTEMPTS,
        "attempts": attempts,
        "replayed": replayed,
        "durable": durable,
    }
    data.update(ending.detail)
    if warnings:
        data["warnings"] = list(warnings)
    if sandbox:
        data["sandbox"] = True
    return Answer(None, ending.code, row.message, data)


def conflict_ending(outcome: str | None, hints: tuple[Mapping[str, str], ...]) -> Ending:
    """The answer to another method for a task that has its report.

    Args:
        outcome: Of the report on record; None while that is in flight.
    """
    return local_ending("task_conflict", hints=list(hints) or None)._replace(outcome=outcome)  # type: ignore[arg-type]


def show_pause(state: PauseState, scope: str, show: Callable[[float], str]) -> dict[str, Any]:
    """A pause as the wire shows it; `show` makes an RFC 3339 time of a moment of the timeline."""
    return {
        "scope": scope,
        "cause": state.cause,
        "openedAt": None if state.opened_at is None else show(state.opened_at),
        "endsAt": None if state.ends_at is None else show(state.ends_at),
        "manual": state.ends_at is None,
    }


def rfc3339(wall: float) -> str:
    """UNIX seconds as RFC 3339 in UTC with the milliseconds that have passed."""
    whole, part = divmod(floor((wall + ROUNDING_S) * 1000), 1000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(whole))}.{part:03d}Z"
