"""The one exception of the ledger: what is wrong with it, and what a person can do about it.

Every store and the code around its files raises `LedgerTrouble` and nothing of its library.
Imported by the whole ledger and by whoever decides what to do without one.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

FULL: Final = "full"
READONLY: Final = "readonly"
LOCKED: Final = "locked"
UNREADABLE: Final = "unreadable"
CORRUPT: Final = "corrupt"
FOREIGN: Final = "foreign"
NEWER: Final = "newer"
REPLACED: Final = "replaced"

READABLE: Final = frozenset({FULL, READONLY, NEWER})
"""Kinds that leave the ledger readable: it is still asked for duplicates and pauses."""
REOPENED: Final = frozenset({REPLACED, CORRUPT, FOREIGN})
"""Kinds after which the open store is of no more use, whatever happens to its path."""
SILENT: Final = REOPENED | {LOCKED}
"""Kinds after which the store is not even asked. One that is merely unreadable is asked and may fail."""

SENTENCES: Final[Mapping[str, str]] = {
    FULL: "The ledger cannot grow: free some space on its disk or raise the quota.",
    READONLY: "The ledger cannot be written: allow its file and its directory to be written.",
    LOCKED: "The ledger is locked by another program: end what holds its file open for writing.",
    UNREADABLE: "The ledger cannot be read: check that its path is a readable file on a working disk.",
    CORRUPT: "The ledger is damaged, or is no ledger: name the right one, "
    "or move a damaged one away and the next start makes a new one.",
    FOREIGN: "The ledger is not safely ours: it must be a plain file of this user, or choose another path.",
    NEWER: "The ledger was written by a newer version: it is read but not written; install that version.",
    REPLACED: "The ledger's file was deleted or replaced while it was open: leave it alone and start again.",
}
"""Kind -> what it means and what to do. Total: every kind has its sentence."""

_NO_DESCRIPTOR: Final = "The ledger cannot be opened: no descriptor is left, raise the limit of open files."
_ERRNOS: Final[Mapping[int, str]] = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: FULL,
    errno.EROFS: READONLY,
    errno.EACCES: READONLY,
    errno.EPERM: READONLY,
    errno.ELOOP: FOREIGN,
}


class LedgerTrouble(Exception):
    """The ledger cannot do what was asked.

    Args:
        kind: a name of `SENTENCES`.
        sentence: what it means and what to do, without values of the caller; default by kind.
    """

    is_in_doubt = False
    """True if it came in the middle of a commit, which may have happened."""

    def __init__(self, kind: str, sentence: str | None = None) -> None:
        self.kind = kind
        self.sentence = SENTENCES[kind] if sentence is None else sentence
        self.reason = self.sentence.rstrip(".")
        """The sentence as part of another one."""
        super().__init__(self.sentence)


def from_error(error: Exception) -> LedgerTrouble:
    """Translate an error of the file system, or an unexpected one; the caller chains it as the cause."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return LedgerTrouble(UNREADABLE, _NO_DESCRIPTOR)
    return LedgerTrouble(_ERRNOS.get(number or 0, UNREADABLE))
