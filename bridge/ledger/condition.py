"""How the ledger is at the moment, and what it last told, so that trouble makes the bridge forget nothing.

Imported by `bridge.ledger.failover` and its fallback only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from bridge.core.model import DONE, NOT_SENT, QUEUED, SENDING, WAITING, Narrow, Row, Task
from bridge.ledger.port import Known, Store, Unavailable
from bridge.ledger.translation import View
from bridge.ledger.trouble import LedgerTrouble

MAX_RECENT: Final = 4_096
"""Reports, finished or of other bridges, remembered in case the ledger becomes unreadable; about 4 MB."""


class Condition:
    """The ledger, its trouble, and our own reports as it last told them.

    Args:
        on_trouble: told when a question fails in good days.
        on_bug: takes an unexpected exception.
        finished_at: turns an instant of the wall clock into one of the timeline.

    Thread safety: written by one thread; `primary` and `trouble` may be read by any.
    """

    def __init__(
        self,
        on_trouble: Callable[[LedgerTrouble], None],
        on_bug: Callable[[BaseException], str],
        finished_at: Callable[[float], float],
    ) -> None:
        self._on_trouble = on_trouble
        self._on_bug = on_bug
        self._finished_at = finished_at
        self.instance = ""
        self.primary: Store | None = None
        self.view: View | None = None
        self.trouble: LedgerTrouble | None = None
        self.is_readable = False
        """With trouble: True if the ledger still answers questions."""
        self.live: dict[Task, Row] = {}
        """Our own reports."""
        self._recent: OrderedDict[Task, Row] = OrderedDict()  # a dict finds its first key slowly

    @property
    def is_durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self.trouble is None and self.keeps

    @property
    def keeps(self) -> bool:
        """True if what the ledger has survives this process."""
        return self.primary is not None and self.primary.durable

    @property
    def is_guarded(self) -> bool:
        """True if duplicates and pauses of other processes can be seen."""
        return self.trouble is None or self.is_readable

    def is_alive(self, instance: str) -> bool:
        """Whether a prober of a pause still runs; of others only the ledger can know that."""
        if instance == self.instance:
            return True
        return bool(
            instance and self.primary is not None and self.is_guarded and self.primary.is_alive(instance)
        )

    def unavailable(self) -> Unavailable:
        """The refusal that names the trouble."""
        assert self.trouble is not None
        return Unavailable(self.trouble.kind, self.trouble.sentence)

    def question(self, ask: Callable[[View], Any]) -> Any:
        """Ask the ledger something; None if it cannot be asked."""
        if self.view is None or not self.is_guarded:
            return None
        try:
            return ask(self.view)
        except LedgerTrouble as trouble:
            if self.trouble is None:
                self._on_trouble(trouble)
        except Exception as error:
            self._on_bug(error)
        self.is_readable = False
        return None

    # --- what the ledger told ----------------------------------------------------------------

    def follow(self, row: Row) -> None:
        """Remember what the ledger said about a report."""
        task = row.task
        if row.owner == self.instance:
            self.live[task] = row
            return
        self.live.pop(task, None)
        self._remember(row)

    def _remember(self, row: Row) -> None:
        recent = self._recent
        recent[row.task] = row
        recent.move_to_end(row.task)
        if len(recent) > MAX_RECENT:
            recent.popitem(last=False)

    def follow_narrow(self, op: Narrow) -> None:
        """Remember that a window ends earlier."""
        for rows in (self.live, self._recent):
            row = rows.get(op.task)
            if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
                rows[op.task] = row._replace(window=row.window.narrowed_by(op.window))

    def find_truth(self, task: Task, known: Known | None) -> tuple[Row | None, float | None]:
        """A report as the ledger has it or last told it, and when it was finished."""
        live = self.live.get(task)
        row = None if known is None else known.row
        if live is not None and (row is None or row.owner in (None, self.instance)):
            return live, None
        if row is not None:
            if row.owner == self.instance and row.state == SENDING:
                # It was committed and nobody was told, so no attempt has followed.
                attempts = row.attempts - 1
                row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
            elif row.owner != self.instance:
                self._remember(row)
            assert known is not None
            return row, known.finished_at
        recent = self._recent.get(task) if known is None else None
        if recent is None or recent.finished_wall is None:
            return recent, None
        return recent, self._finished_at(recent.finished_wall)
