"""How the ledger is at the moment, and what it last told, so that trouble makes the bridge forget nothing.

Imported by `bridge.ledger.failover` and its outbox only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from bridge.core.model import DONE, NOT_SENT, QUEUED, SENDING, WAITING, Narrow, Row, Task
from bridge.ledger.port import Known, Store
from bridge.ledger.translation import View
from bridge.ledger.trouble import LedgerTrouble

MAX_RECENT: Final = 4_096
"""Reports, finished or of other bridges, remembered in case the ledger becomes unreadable; about 4 MB."""
OTHERS: Final = "others"
"""Owner in memory of what a living bridge has, as far as anybody knows."""


class Condition:
    """The ledger, its trouble, and the reports as it last told them.

    Thread safety: written by one thread; `primary` and `trouble` may be read by any.
    """

    def __init__(self) -> None:
        self.instance = ""
        self.view: View | None = None
        self.trouble: LedgerTrouble | None = None
        self.is_guarded = True
        """True if duplicates and pauses of other processes can be seen: it works, or at least answers."""
        self.live: dict[Task, Row] = {}
        """Our own reports."""
        self._recent: OrderedDict[Task, Row] = OrderedDict()  # a dict finds its first key slowly

    @property
    def primary(self) -> Store | None:
        """The store that is open."""
        view = self.view
        return None if view is None else view.store

    @property
    def is_durable(self) -> bool:
        """True if what is committed now survives this process."""
        return self.trouble is None and self.keeps

    @property
    def keeps(self) -> bool:
        """True if what the ledger has survives this process."""
        primary = self.primary
        return primary is not None and primary.durable

    def is_alive(self, instance: str) -> bool:
        """Whether a prober of a pause still runs; of others only the ledger can know that."""
        if instance in (self.instance, OTHERS):
            return True
        return bool(
            instance and self.view is not None and self.is_guarded and self.view.store.is_alive(instance)
        )

    # --- what the ledger told ----------------------------------------------------------------

    def follow(self, row: Row) -> None:
        """Remember what the ledger said about a report."""
        task, recent = row.task, self._recent
        if row.owner == self.instance:
            self.live[task] = row
            return
        self.live.pop(task, None)
        recent[task] = row
        recent.move_to_end(task)
        if len(recent) > MAX_RECENT:
            recent.popitem(last=False)

    def follow_narrow(self, op: Narrow) -> None:
        """Remember that a window ends earlier."""
        for rows in (self.live, self._recent):
            row = rows.get(op.task)
            if row is not None and (row.state != DONE or row.outcome == NOT_SENT):
                rows[op.task] = row._replace(window=row.window.narrowed_by(op.window))

    def recall(self, task: Task, known: Known | None) -> Row | None:
        """A report as the ledger has it, or as it last told it if it cannot be asked."""
        row = None if known is None else known.row
        live = self.live.get(task)
        if live is not None and (row is None or row.owner in (None, self.instance)):
            return live
        if known is None:
            return self._recent.get(task)
        if row is not None and row.owner != self.instance:
            self.follow(row)
        elif row is not None and row.state == SENDING:
            # It was committed and nobody was told, so no attempt has followed.
            attempts = row.attempts - 1
            row = row._replace(state=WAITING if attempts else QUEUED, attempts=attempts)
        return row
