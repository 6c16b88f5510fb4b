"""Opens a ledger for people, whatever kind it is. Imported by the command line."""

from __future__ import annotations

from bridge.core.redact import Secret
from bridge.ledger.statistics import NoLedger, Reader


def open_reader(ledger: str, boot_s: float, wall: float, password: Secret | None = None) -> Reader:
    """Open the ledger of the settings for reading.

    Args:
        ledger: ``memory``, a ``postgresql://`` URL or a path.
        boot_s: seconds since boot now, suspend included.
        wall: UNIX seconds now.
        password: for a server, one that the usual sources do not have.

    Raises:
        NoLedger: there is none, or none that can be read from outside.
        LedgerTrouble: it is there and cannot be read.
    """
    if ledger == "memory":
        raise NoLedger(
            "The ledger is kept in memory, so only the running bridge can read it: "
            "call bridge.listReports there, or name a file with --ledger."
        )
    if "://" in ledger:
        from bridge.ledger.postgres_reader import PostgresReader

        return PostgresReader.open(ledger, password, wall)
    from bridge.ledger.sqlite_reader import SqliteReader

    return SqliteReader(ledger, boot_s, wall)
