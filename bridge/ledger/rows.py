"""What the stores agree on about rows: how old and new knowledge merge, and how data is written down.

Pure. Imported by the stores' steps and rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.model import Ending, Facts, PauseState, Record, Task, Verdict, Window

encode: Final[Callable[[Any], str]] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""JSON as it is stored: ASCII, compact. One encoder, because making one costs more than using it."""


_MEMO_SIZE: Final = 1024
_memo: dict[tuple[Any, ...], str] = {}


def encode_told(name: str, data: Mapping[str, Any]) -> str:
    """JSON of what a story tells; most stories tell the same, and making it costs more than finding it.

    Args:
        name: the event, which says of what type each value is.
    """
    try:
        key = (name, *data.items())
        known = _memo.get(key)
    except TypeError:
        return encode(data)  # something that has no hash
    if known is None:
        if len(_memo) >= _MEMO_SIZE:
            _memo.clear()
        known = _memo[key] = encode(data)
    return known


def merge_windows(old: Window, new: Window) -> Window:
    """The earliest end and the earliest receipt that any request about a task told."""
    return Window(_earliest(old.until, new.until), _earliest(old.since, new.since))


def merge_facts(old: Facts, new: Facts) -> Facts:
    """What the newest request told, completed by what earlier ones told."""
    timed = old if new.completed_at is None else new
    return Facts(
        timed.completed_at,
        new.task_type or old.task_type,
        new.language_pool or old.language_pool,
        timed.age_s,
    )


def _earliest(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def probe_name(task: Task) -> str:
    """The name by which a pause knows its probing report."""
    return f"{task.account}/{task.task_id}"


def is_probe(state: PauseState, owner: str, task: Task) -> bool:
    """True if this report of this owner is the probe of the pause."""
    return state.probe_owner == owner and state.probe_task == probe_name(task)


def told_ending(ending: Ending) -> dict[str, Any]:
    """What the story of a report tells of its end."""
    return {"outcome": ending.outcome, "kind": ending.kind}


def told_attempt(op: Record) -> dict[str, Any]:
    """What the story of a report tells of an attempt."""
    verdict: Verdict = op.verdict
    met: dict[str, Any] = {"event": verdict.event, "latencyMs": op.latency_ms}
    if verdict.http_status is not None:
        met["httpStatus"] = verdict.http_status
    return met
