"""What the kill loop and the kill points find out: the figures, and what counts as a broken promise.

Compares the ledger, the answers to bots and the upstream's log about one task. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NO_SEND = (408, 429)
"""Answers with these statuses say that nothing was taken in; they are no sends."""


class Tally(NamedTuple):
    """What a run, or many, came to."""

    kills: int = 0
    tasks: int = 0
    answers: int = 0
    lost: int = 0
    false: int = 0
    inconsistent: int = 0
    more_than_twice: int = 0
    damaged: int = 0
    bugs: int = 0
    adopted: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    not_sent: int = 0
    late_calls: int = 0
    """Calls that the upstream read after the window had ended, by its own clock."""
    degraded: int = 0
    """How often a bridge said that it could not use the ledger."""
    unguarded: int = 0
    """Breaches that such a bridge had warned of: the contract gives up the guard for it, out loud."""

    def __add__(self, other: object) -> Tally:
        assert isinstance(other, Tally)
        return Tally(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def is_good(self) -> bool:
        """True if every promise was kept."""
        return not (
            self.lost or self.false or self.inconsistent or self.more_than_twice or self.damaged or self.bugs
        )

    def describe(self) -> str:
        """The figures in one line."""
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self._asdict().items())


class Ask(NamedTuple):
    """One request of a bot."""

    task_id: int
    method: str
    asked_at: float


class Told(NamedTuple):
    """What a bot was told, and when."""

    ask: Ask
    at: float
    message: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        error = self.message.get("error")
        data: Mapping[str, Any] = self.message["result"] if error is None else error.get("data") or {}
        return data

    @property
    def code(self) -> int:
        error = self.message.get("error")
        return 0 if error is None else error["code"]


def judge_task(
    row: tuple[Any, ...] | None, calls: list[dict[str, Any]], answers: list[Told]
) -> list[tuple[str, str]]:
    """Compare what is on record and what was told with what the upstream saw; the breaches found.

    Args:
        row: ``task_id, method, state, outcome, attempts, sends, perhaps`` of the ledger; None: no row.
        calls: of the upstream's log, about this task.
        answers: everything that bots were told about it.
    """
    breaches: list[tuple[str, str]] = []
    taken_at = [call["at"] for call in calls if call["taken"]]
    read = [call for call in calls if call["reason"] != "unread"]
    sends = [call for call in read if call["status"] not in NO_SEND]
    durable = [one for one in answers if one.data.get("durable") and one.code != -32011]
    if row is None:
        if calls or durable:
            breaches.append(("lost", "the upstream or a bot heard of it, and the ledger has nothing"))
    elif row[2] != "done":
        breaches.append(("lost", "it never came to an end"))
    elif row[3] == "accepted" and not taken_at:
        breaches.append(("false", "accepted, but never taken"))
    elif row[3] in ("refused", "not_sent") and taken_at:
        breaches.append(("false", f"{row[3]}, but taken"))
    if len(sends) > 2 or len(calls) > 4:
        breaches.append(("twice", f"{len(sends)} complete sends in {len(calls)} attempts"))
    for one in answers:
        outcome = one.data.get("outcome")
        before = [at for at in taken_at if at < one.at]
        if outcome == "accepted" and not before:
            breaches.append(("false", "told accepted before it was taken"))
        elif outcome in ("refused", "not_sent") and before and one.code != -32011:
            breaches.append(("false", f"told {outcome} after it had been taken"))
        if one.code in (-32700, -32600, -32601, -32602, -32603):
            breaches.append(("inconsistent", f"told {one.code}"))
    ends = {one.data["outcome"] for one in durable if one.data["outcome"] in ("accepted", "refused")}
    if row is not None and row[2] == "done" and ends - {row[3]}:
        breaches.append(("inconsistent", f"told {sorted(ends)}, and the ledger says {row[3]}"))
    fresh = [one for one in answers if one.code == 0 and not one.data["replayed"]]
    if len(fresh) > 1:
        breaches.append(("inconsistent", "two bots were told that their request was the one that was sent"))
    return breaches
