"""How one ledger's accounts and times are said in another one's.

A bridge names accounts with the secret, and times on the timeline, of the first store it opened. A store
opened later (the file, after a start in memory) has its own; a `View` translates at its door, so that
nobody else ever meets two names for one account. Does no I/O. Imported by the outbox, the writer and readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from bridge.core.counting import Figure, Note, Tally
from bridge.core.model import Gate, PauseState, Record, Window
from bridge.ledger.port import Known, Restore, Seen, Store

MAX_KEYS: Final = 10_000
"""Keys remembered for translation. A guess; nobody has so many, and memory must stay bounded."""


def hash_account(secret: bytes, text: str) -> str:
    """Name a client key: keyed BLAKE2b, 128 bits, as 32 hex digits.

    BLAKE2b and not HMAC-SHA256, because it has the key built in and needs no OpenSSL at start.
    """
    data = text.encode("utf-8", "surrogatepass")
    return blake2b(data, key=secret[:64], digest_size=16, person=b"account").hexdigest()


class Accounts:
    """The names of accounts for the life of this process, and the keys they came from.

    Thread safety: `name` may be called from any thread once `settle` has been called.
    """

    def __init__(self) -> None:
        self.secret: bytes | None = None
        self.offset_s = 0.0
        self.keys: dict[str, str] = {}
        """Account -> key."""
        self.names: dict[str, str] = {}

    def settle(self, secret: bytes, offset_s: float) -> None:
        """Take secret and timeline of the first store; later calls change nothing."""
        if self.secret is None:
            self.offset_s = offset_s
            self.secret = secret

    def name(self, text: str) -> str:
        """The account of a key in this process."""
        known = self.names.get(text)
        if known is not None:
            return known
        assert self.secret is not None
        account = hash_account(self.secret, text)
        if len(self.keys) < MAX_KEYS:
            self.names[text] = account
            self.keys[account] = text
        return account


def see(store: Store, accounts: Accounts) -> Store | View:
    """A store in the words of `Accounts`: itself, if it has the same."""
    is_same = (store.secret, store.clock_offset_s) == (accounts.secret, accounts.offset_s)
    return store if is_same else View(store, accounts)


class View:
    """A store that speaks the names and times of `Accounts`.

    Thread safety: that of the store.
    """

    def __init__(self, store: Store, accounts: Accounts) -> None:
        self.store = store
        self._accounts = accounts
        self._shift_s = store.clock_offset_s - accounts.offset_s
        self._outside: dict[str, str] = {}

    def transact(self, operations: Sequence[Any]) -> list[Any]:
        """As `Store.transact`."""
        said = [translate(op, self._name_inside, self._shift_s) for op in operations]
        return [self._tell(answer) for answer in self.store.transact(said)]

    @property
    def seen(self) -> Seen:
        """As `Store.seen`."""
        told = {place: self._tell(tuple(states.values())) for place, states in self.store.seen.items()}
        return {place: {state.key: state for state in states} for place, states in told.items()}

    def _tell(self, value: Any) -> Any:
        return translate(value, self._name_outside, -self._shift_s)

    def _name_inside(self, account: str) -> str:
        text = self._accounts.keys.get(account)
        return account if text is None else hash_account(self.store.secret, text)

    def _name_outside(self, inside: str) -> str:
        keys = self._accounts.keys
        if len(self._outside) < len(keys):
            self._outside = {self._name_inside(account): account for account in tuple(keys)}
        return self._outside.get(inside, inside)


_TIMES: Final[Mapping[type, tuple[str, ...]]] = {
    **dict.fromkeys((Tally, Figure, Note), ("at",)),
    **dict.fromkeys((Restore, Known), ("finished_at",)),
    Window: ("until", "since"),
    Gate: ("until",),
    Record: ("began_at", "again_at"),
    PauseState: ("opened_at", "ends_at"),
}
"""Value -> what of it is a time on the timeline."""


def translate(value: Any, name: Callable[[str], str], shift_s: float) -> Any:
    """An operation, an answer or a part of them with accounts named anew and times moved.

    No other text is an account's name, so accounts are found wherever they are: alone, or with a task or a
    method behind a slash.
    """
    kind = type(value)
    if kind is str:
        return "/".join(map(name, value.split("/")))
    if kind is frozenset:
        return frozenset([translate(part, name, shift_s) for part in value])
    if not isinstance(value, tuple):
        return value
    parts = tuple([translate(part, name, shift_s) for part in value])
    if kind is tuple:
        return parts
    moved: Any = kind(*parts)
    for field in _TIMES.get(kind, ()):
        at = getattr(moved, field)
        if at is not None:
            moved = moved._replace(**{field: at + shift_s})
    if kind is PauseState:
        moved = moved._replace(recent=tuple([(at + shift_s, task) for at, task in moved.recent]))
    return moved
