"""What PostgreSQL's refusals mean for the ledger, as kinds and sentences that hold nothing of the address.

Knows no connection. Imported by the PostgreSQL ledger's modules only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.ledger import trouble as kinds
from bridge.ledger.trouble import LedgerTrouble

NO_DRIVER: Final = (
    "A PostgreSQL ledger needs the extra 'fleet': pip install '.[fleet]' in the project's folder."
)
UNUSABLE_URL: Final = "The ledger's URL cannot be used: write postgresql://user@host:port/database."
TOO_OLD: Final = "The ledger's server is too old: PostgreSQL 14 or later is needed."
NOT_UTF8: Final = "The ledger's database is not encoded in UTF-8, so some texts do not fit: choose another."
NO_SCHEMA: Final = (
    "The ledger's database has no tables and its role may not make them: run 'report-bridge ledger migrate' "
    "as a role that may."
)
STRANGE_SCHEMA: Final = (
    "The ledger's database has a schema report_bridge that is not a ledger: choose another database."
)
CLOCK_MOVED: Final = "The ledger's server has another clock than before; the ledger is opened again."
FORMER_SERVER: Final = (
    "The ledger's server is one that its standby has replaced: it must not take writes; end it, and if it is "
    "meant to be the ledger, start the bridge again."
)
NOT_ALLOWED: Final = "The ledger's role lacks a privilege: see the fleet page for what it needs."

SENTENCES: Final[Mapping[str, str]] = {
    kinds.FULL: "The ledger's server has no space left: free some on its disk.",
    kinds.READONLY: "The ledger's server takes no writes: it is a standby or set to read-only.",
    kinds.LOCKED: "The ledger's server is too slow, or another session holds a lock: see pg_stat_activity.",
    kinds.UNREADABLE: "The ledger's server does not answer: check that it runs and can be reached.",
    kinds.CORRUPT: "The ledger's database is damaged or not a ledger: run 'report-bridge ledger check'.",
    kinds.NEWER: "The ledger was brought to a newer version: "
    "it is read but not written; install that version.",
    kinds.FOREIGN: "The ledger's session changes between transactions: connect to the server itself, "
    "or let the pooler work in session mode.",
    kinds.REPLACED: "The ledger's address leads to another ledger now: start again if that is meant.",
}
"""Kind -> what it means on a server and what to do."""

AGAIN: Final = frozenset({"40001", "40P01"})
"""A race that was lost, or a deadlock: the same batch may well succeed now."""
GONE: Final = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53300", ""})
"""The session ended with it."""
_STATES: Final[Mapping[str, str]] = {
    kinds.CORRUPT: "22 23 3F 42 XX",
    # A prepared statement that is not there any more, or there already: somebody else has our session.
    kinds.FOREIGN: "26000 42P05",
    kinds.FULL: "53",
    kinds.LOCKED: "40001 40P01 55 57014",
    kinds.READONLY: "25006 42501",
    kinds.UNREADABLE: "53200 XX000",
}
"""Kind -> SQLSTATEs, and classes of them. What is not here says that the server cannot be used now."""
_KINDS: Final = {state: kind for kind, states in _STATES.items() for state in states.split()}
_STARTING: Final = "The ledger's server is starting."
_ENDING: Final = "The ledger's server is ending."
PASSING: Final = frozenset({SENTENCES[kinds.UNREADABLE], _STARTING, _ENDING})
"""Reasons for which there is no connection now and there may be one in a moment."""
_CONNECT: Final = (
    # What libpq's text contains -> what to say. Only our own words leave this module.
    ("no password supplied", "The ledger's server asks for a password: give one by the usual sources."),
    ("password authentication", "The ledger's server refused the password or the role."),
    ("too many", "The ledger's server has no connection left: raise max_connections."),
    ("remaining connection slots", "The ledger's server has no connection left: raise max_connections."),
    ("root certificate file", "The file of trusted certificates cannot be read: check sslrootcert."),
    (
        "does not match host name",
        "The ledger's server has a certificate for another name: check the host in the address.",
    ),
    ("certificate", "The ledger's server has no certificate that is trusted: check sslmode and sslrootcert."),
    ("SSL", "The ledger's server and the settings disagree about TLS: check sslmode."),
    ("pg_hba", "The ledger's server lets nobody in from here: check its pg_hba.conf."),
    ("does not exist", "The ledger's server has no such database or role."),
    ("translate host name", "The name of the ledger's server cannot be resolved."),
    ("resolve host", "The name of the ledger's server cannot be resolved."),
    ("service file", "The service file of the ledger's address cannot be used."),
    ("definition of service", "The service of the ledger's address is not defined."),
    ("starting up", _STARTING),
    ("shutting down", _ENDING),
    ("read-write", "The ledger's server takes no writes, and the address asks for one that does."),
)


def explain(state: str) -> LedgerTrouble:
    """Say what a SQLSTATE means.

    Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
    """
    kind = _KINDS.get(state) or _KINDS.get(state[:2], kinds.UNREADABLE)
    return LedgerTrouble(kind, NOT_ALLOWED if state == "42501" else SENTENCES[kind])


def explain_connect(told: str) -> str:
    """Say why there is no connection, in words of our own."""
    for part, sentence in _CONNECT:
        if part in told:
            return sentence
    return SENTENCES[kinds.UNREADABLE]


def trouble(kind: str) -> LedgerTrouble:
    """The trouble of a kind, in the words for a server."""
    return LedgerTrouble(kind, SENTENCES[kind])
