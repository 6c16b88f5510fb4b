"""Takes notes of solved tasks, and has advice at hand when an answer is given. Decides nothing about sending.

Notes are counted here for a moment and go to the ledger together; what is advised comes from the ledger, so
that every bridge of it says the same. Imported by the app, the reporter and `bridge.server`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from bridge.core.counting import DAY_S, HOUR_S, Counts, Note, Tallied, Tallies, add
from bridge.core.model import Task
from bridge.core.redact import Secret
from bridge.reports.advice import Advice, advise, find_subject
from bridge.reports.ports import Part, Ports

NOTE_S: Final = 1.0
"""How long notes are counted before they are committed together."""
LOOKS: Final = 20
"""So often in a second accounts are looked at: it takes less than a hundredth of a processor."""
OLD_S: Final = 60.0
"""An account that was not looked at for so long is looked at before its report is answered."""
AGAIN_S: Final = {"tasks_unknown": DAY_S}
"""Kind -> how long it is not told again to the same account; an hour for the others."""


class Advisor(Part):
    """Counts notes, and knows what is to be said of each account."""

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._noted: dict[tuple[Secret | None, str], Counts] = {}
        self._stale: dict[str, None] = {}
        self._looks, self._counted_at = float(LOOKS), 0.0
        """So many looks are free, and since when more are to be added."""
        self._read_at: dict[str, float] = {}
        self._known: dict[str, tuple[Advice, ...]] = {}
        self._told_at: dict[tuple[str, str, str], float] = {}

    # --- notes -------------------------------------------------------------------------------

    def note(self, key: Secret | None, task_type: str, count: int, cost: float | None) -> int:
        """Take note of solved tasks; returns how many, which is 0 if no method is about their type."""
        subject = find_subject(task_type)
        if subject is None:
            return 0
        if not self._noted:
            # At once if nothing has opened the ledger yet and read the default key.
            wait_s = NOTE_S if self._ledger.is_open else 0.0
            self._engine.call_at(self._engine.now() + wait_s, partial(self._engine.spawn, self._commit))
        counts = Counts(count) if cost is None else Counts(count, count, cost)
        self._noted[key, subject] = add(self._noted.get((key, subject), Counts()), counts)
        return count

    def _commit(self) -> None:
        """Commit what was noted, once the ledger is open and the default key is known."""
        self._ledger.wait_until_open()
        self.flush(self._ports.keys.get() if any(key is None for key, _ in self._noted) else None)
        # What has no key is nobody's.
        self._noted.clear()

    def flush(self, default: Secret | None = None) -> None:
        """Hand what was noted to the ledger, as far as that is open and the key is known."""
        if not self._ledger.is_open:
            return
        default = default or self._ports.keys.at_hand()
        for (key, subject), counts in tuple(self._noted.items()):
            whose = key or default
            if whose is not None:
                task = Task(self._ports.endpoint, self._ledger.account(whose.reveal()), 0)
                self._ledger.post(Note(task, subject, self._ledger.now(), counts))
                del self._noted[key, subject]

    # --- advice ------------------------------------------------------------------------------

    def expect(self, account: str) -> None:
        """A report of an account begins: its answer may have to tell something.

        What is read here comes back before the answer, since the ledger keeps the order.
        """
        now = self._engine.now()
        is_old = now - self._read_at.get(account, -OLD_S) >= OLD_S
        self._looks = min(self._looks + (now - self._counted_at) * LOOKS, LOOKS)
        self._counted_at = now
        if is_old or (self._looks >= 1.0 and account in self._stale):
            self._looks = max(self._looks - 1.0, 0.0)
            self._stale.pop(account, None)
            self._read(account)

    def touch(self, account: str) -> None:
        """A report of an account has ended."""
        self._stale[account] = None

    def finish(self) -> None:
        """Commit the last notes, and look at what has changed: at the end it is told as events still."""
        self.flush()
        for account in self._stale:
            self._read(account)
        self._stale.clear()

    def _read(self, account: str) -> None:
        self._read_at[account] = self._engine.now()
        self.flush()
        self._ledger.post(Tallies(self._ports.endpoint, account), partial(self._take, account))

    def _take(self, account: str, found: Any) -> None:
        # Anything but a plain tuple says why the ledger does not tell.
        if type(found) is tuple:
            self._known[account] = self.judge(found)
            for advice in self._known[account]:
                if self._is_news("event", advice):
                    told = {"account": account[:8], "kind": advice.kind, "sentence": advice.message}
                    self._emit("advice", told)

    def judge(self, found: Sequence[Tallied]) -> tuple[Advice, ...]:
        """What is to be said of some accounts."""
        now = self._ledger.now()
        return tuple(advice for known in found for advice in advise(known, now, self._ports.queues))

    def warnings(self, account: str) -> tuple[dict[str, str], ...]:
        """What an answer about an account has to tell, that no answer has told lately."""
        if not self._known.get(account):
            return ()
        news = [advice for advice in self._known[account] if self._is_news("answer", advice)]
        return tuple({"kind": advice.kind, "message": advice.message} for advice in news)

    def _is_news(self, reader: str, advice: Advice) -> bool:
        key, now = (reader, advice.account, advice.kind), self._engine.now()
        if now - self._told_at.get(key, -DAY_S) < AGAIN_S.get(advice.kind, HOUR_S):
            return False
        self._told_at[key] = now
        return True
