"""Moves a ledger from one kind of store to another: reports with their stories, pauses, and the secret.

The copy can be broken off anywhere and goes on where it was. Both ends are `End`s; this module knows no
kind of store. Imported by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

STEP: Final = 500
"""Reports in one commit: a second of work is lost at most when a copy is broken off."""


class Bundle(NamedTuple):
    """One report as it is carried: its columns by name, with ``endpoint`` and ``account``, and its story."""

    columns: Mapping[str, Any]
    events: Sequence[tuple[int, float, str, str]]
    """Number, UNIX time, name, and data as JSON."""


class NotCopied(Exception):
    """The copy cannot be made. The text is a sentence for people."""


class End(Protocol):
    """One end of a copy. Every method raises `LedgerTrouble`."""

    secret: bytes
    """Accounts are named with it, so both ends must have the same."""

    def count(self) -> int:
        """How many reports there are."""

    def is_at_work(self) -> bool:
        """True if a bridge works on it now."""

    def read(self, after_seq: int, limit: int) -> list[Bundle]:
        """The reports that follow, in the order of their numbers."""

    def read_pauses(self) -> list[Mapping[str, Any]]:
        """All pauses, by column."""

    def position(self, source: str) -> int | None:
        """The number up to which a source was copied here; None if that never began, -1 once it is done."""

    def begin(self, source: str, secret: bytes) -> None:
        """Take over the secret of a source; the ledger is empty."""

    def write(self, source: str, bundles: Sequence[Bundle], position: int) -> None:
        """Store reports with their stories, and how far that goes, in one commit."""

    def finish(self, source: str, pauses: Sequence[Mapping[str, Any]]) -> None:
        """Store the pauses and note that the copy is complete."""

    def close(self) -> None:
        """Let go. Idempotent."""


def name_source(secret: bytes) -> str:
    """A name for a ledger that tells nothing of its secret."""
    return blake2b(secret, digest_size=8, person=b"copy").hexdigest()


def copy(source: End, target: End, progress: Callable[[int, int], None]) -> int:
    """Copy all reports; how many were copied now.

    Args:
        progress: told how many of how many are there.

    Raises:
        NotCopied: one of the ledgers is in use, or they cannot become one.
    """
    if source.is_at_work():
        raise NotCopied("A bridge works on the ledger that is to be copied: end it first.")
    name = name_source(source.secret)
    position = target.position(name)
    if position == -1:
        raise NotCopied(
            "This ledger was copied before, and completely: use the copy, or begin with an empty one."
        )
    if position is None:
        if target.count():
            raise NotCopied("The ledger that is to be written holds other reports: begin with an empty one.")
        target.begin(name, source.secret)
        position = 0
    total, copied = source.count(), 0
    already = target.count()
    progress(already, total)
    while bundles := source.read(position, STEP):
        position = bundles[-1].columns["seq"]
        target.write(name, bundles, position)
        copied += len(bundles)
        progress(already + copied, total)
    target.finish(name, source.read_pauses())
    return copied
