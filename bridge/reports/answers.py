"""Endings put into words for the wire: results, error data, and what may still be tried. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.core.errors import BridgeError, wire_row
from bridge.core.model import ACCEPTED, MAX_ATTEMPTS, NOT_SENT, UNKNOWN, Ending, Row

Answer = Mapping[str, Any] | BridgeError
"""What a requester is told: a result, or an error of ``schemas/errors.json``."""


def local_ending(kind: str, **detail: Any) -> Ending:
    """An ending that the bridge itself decides, of the table's row `kind`."""
    row = wire_row(kind)
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
    may_help = retryable and attempts < MAX_ATTEMPTS and ending.outcome == NOT_SENT
    error = {"outcome": ending.outcome, "retryable": may_help and wire_row(ending.kind).retryable}
    return BridgeError(ending.kind, {**error, **known, **ending.detail, **notes}, ending.code)
