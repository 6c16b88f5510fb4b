"""How one ledger's accounts and times are said in another one's.

A bridge names accounts with the secret, and times on the timeline, of the first store it opened. A
store opened later (the file, after a start in memory) has its own; a `View` translates at its door,
so that nobody else ever meets two names for one account. Does no I/O. Imported by the journal only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from bridge.core.model import (
    Begun,
    Claim,
    Claimed,
    Gate,
    Heed,
    Listing,
    Look,
    Narrow,
    Operation,
    PauseEvent,
    Pauses,
    PauseState,
    Record,
    Recorded,
    Resume,
    Row,
    Sweep,
    Swept,
    Task,
    Window,
)
from bridge.ledger.store import Store

MAX_KEYS: Final = 10_000
"""Keys remembered for translation. A guess; nobody has so many, and memory must stay bounded."""


def hash_account(secret: bytes, text: str) -> str:
    """Name a client key: keyed BLAKE2b, 128 bits, as 32 hex digits.

    BLAKE2b and not HMAC-SHA256, because it has the key built in and needs no OpenSSL at start.
    """
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    data = text.encode("utf-8", "surrogatepass")
    return str(blake2b(data, key=secret[:64], digest_size=16, person=b"account").hexdigest())


class Accounts:
    """The names of accounts for the life of this process, and the keys they came from.

    Thread safety: `name` may be called from any thread once `settle` has been called.
    """

    __slots__ = ("_keys", "_names", "offset_s", "secret")

    def __init__(self) -> None:
        self.secret: bytes | None = None
        self.offset_s = 0.0
        self._keys: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def settle(self, secret: bytes, offset_s: float) -> None:
        """Take secret and timeline of the first store; later calls change nothing."""
        if self.secret is None:
            self.offset_s = offset_s
            self.secret = secret

    def name(self, text: str) -> str:
        """The account of a key in this process."""
        assert self.secret is not None
        known = self._names.get(text)
        if known is not None:
            return known
        account = hash_account(self.secret, text)
        if len(self._keys) < MAX_KEYS:
            self._names[text] = account
            self._keys[account] = text
        return account

    def key_of(self, account: str) -> str | None:
        """The key behind an account that `name` made."""
        return self._keys.get(account)

    def known(self) -> tuple[str, ...]:
        """All accounts made so far."""
        return tuple(self._keys)


class View:
    """A store that speaks the names and times of `Accounts`.

    Thread safety: that of the store.
    """

    __slots__ = ("_accounts", "_inside", "_is_plain", "_outside", "_shift_s", "store")

    def __init__(self, store: Store, accounts: Accounts, opaque: bool = False) -> None:
        """``opaque``: the store's own secret names nobody, as in memory, so names need no change."""
        self.store = store
        self._accounts = accounts
        self._shift_s = store.clock_offset_s - accounts.offset_s
        same_names = opaque or store.secret == accounts.secret
        self._inside: dict[str, str] | None = None if same_names else {}
        self._outside: dict[str, str] = {}
        self._is_plain = same_names and self._shift_s == 0.0

    def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """As `Store.transact`."""
        if self._is_plain:
            return self.store.transact(operations)
        return [self._tell(r) for r in self.store.transact([self._ask(op) for op in operations])]

    def read(self, operation: Look | Listing | Pauses) -> Any:
        """As `Store.read`."""
        return self._tell(self.store.read(self._ask(operation)))

    def peek(self, claim: Claim) -> Claimed | None:
        """As `Store.peek`."""
        known: Claimed | None = self._tell(self.store.peek(self._ask(claim)))
        return known

    def peek_gate(self, task: Task, method: str, window: Window) -> Gate:
        """As `Store.peek_gate`."""
        gate: Gate = self._tell(
            self.store.peek_gate(self._task(task), method, self._window(window, self._shift_s))
        )
        return gate

    # --- towards the store -------------------------------------------------------------------

    def _account(self, account: str) -> str:
        if self._inside is None:
            return account
        inside = self._inside.get(account)
        if inside is None:
            text = self._accounts.key_of(account)
            inside = account if text is None else hash_account(self.store.secret, text)
            self._inside[account] = inside
            self._outside[inside] = account
        return inside

    def _task(self, task: Task) -> Task:
        return task._replace(account=self._account(task.account))

    def _ask(self, op: Any) -> Any:
        if self._is_plain:
            return op
        kind = type(op)
        if kind is Sweep:
            return op._replace(accounts=frozenset(self._account(a) for a in op.accounts))
        if kind is Resume:
            return op if op.account is None else op._replace(account=self._account(op.account))
        if kind is Heed:
            pauses = [self._pause(p, self._account, self._shift_s) for p in op.pauses]
            return op._replace(pauses=tuple(pauses))
        if not hasattr(op, "task"):
            return op
        op = op._replace(task=self._task(op.task))
        if kind is Claim or kind is Narrow:
            return op._replace(window=self._window(op.window, self._shift_s))
        if kind is Record:
            return op._replace(began_at=op.began_at + self._shift_s)
        return op

    # --- from the store ----------------------------------------------------------------------

    def _named(self, inside: str) -> str:
        if self._inside is None:
            return inside
        if inside not in self._outside:
            for account in self._accounts.known():
                self._account(account)
        return self._outside.get(inside, inside)

    def _tell(self, value: Any) -> Any:
        if self._is_plain:
            return value
        how = _TELLERS.get(type(value))
        return value if how is None else how(self, value)

    def _tell_tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([self._tell(item) for item in value])

    def _tell_row(self, row: Row) -> Row:
        task = row.task._replace(account=self._named(row.task.account))
        return row._replace(task=task, window=self._window(row.window, -self._shift_s))

    def _tell_claimed(self, value: Claimed) -> Claimed:
        row, gate, events = self._tell(value.row), self._tell(value.gate), self._tell_tuple(value.events)
        return value._replace(row=row, gate=gate, events=events)

    def _tell_begun(self, value: Begun) -> Begun:
        row, gate, events = self._tell(value.row), self._tell(value.gate), self._tell_tuple(value.events)
        return value._replace(row=row, gate=gate, events=events)

    def _tell_recorded(self, value: Recorded) -> Recorded:
        return value._replace(row=self._tell(value.row), events=self._tell_tuple(value.events))

    def _tell_swept(self, value: Swept) -> Swept:
        return Swept(self._tell_tuple(value.adopted), self._tell_tuple(value.settled))

    def _tell_gate(self, value: Gate) -> Gate:
        return value._replace(pause=self._tell(value.pause), until=_later(value.until, -self._shift_s))

    def _tell_event(self, value: PauseEvent) -> PauseEvent:
        return value._replace(state=self._tell(value.state))

    def _tell_pause(self, value: PauseState) -> PauseState:
        return self._pause(value, self._named, -self._shift_s)

    # --- both ways ---------------------------------------------------------------------------

    @staticmethod
    def _pause(value: PauseState, name: Callable[[str], str], shift_s: float) -> PauseState:
        def rename(probe: str) -> str:
            account, slash, task_id = probe.partition("/")
            return name(account) + slash + task_id

        subject = "/".join([name(part) for part in value.key.subject.split("/")])
        return value._replace(
            key=value.key._replace(subject=subject),
            recent=tuple([(at + shift_s, rename(task)) for at, task in value.recent]),
            opened_at=_later(value.opened_at, shift_s),
            ends_at=_later(value.ends_at, shift_s),
            probe_task=None if value.probe_task is None else rename(value.probe_task),
        )

    @staticmethod
    def _window(window: Window, shift_s: float) -> Window:
        return Window(_later(window.until, shift_s), _later(window.since, shift_s))


def _later(at: float | None, shift_s: float) -> float | None:
    return None if at is None else at + shift_s


_TELLERS: Final[dict[type, Callable[[View, Any], Any]]] = {
    tuple: View._tell_tuple,
    Row: View._tell_row,
    Claimed: View._tell_claimed,
    Begun: View._tell_begun,
    Recorded: View._tell_recorded,
    Swept: View._tell_swept,
    Gate: View._tell_gate,
    PauseEvent: View._tell_event,
    PauseState: View._tell_pause,
}
