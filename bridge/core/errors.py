"""The error table ``schemas/errors.json`` as values, and the one exception that crosses module borders.

The table decides codes, messages, retries and pauses; no other module repeats them.
Must not know reports, wire or upstream. Imported by every layer; the table is read on first use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from bridge.core.resources import load_json

UNKNOWN_CODE: Final = "unknown_code"
"""Kind of the row for every upstream error that the table does not name."""
SECTIONS: Final = ("wire", "upstream", "http", "failures")


class Row(NamedTuple):
    """One row of the table; the columns are explained in ``schemas/errors.schema.json``."""

    section: str
    """``wire``, ``upstream``, ``http`` or ``failures``."""
    kind: str
    message: str
    outcome: str | None
    retryable: bool
    """Default of the wire member: may the caller try again."""
    retry: str
    """What the bridge itself does next; the words of `bridge.core.model.Verdict.next`."""
    pause: str | None
    """Name of the pause rule that the event feeds."""
    cause: str
    advice: str
    code: int | None = None
    """Wire code of a row of ``wire``; None elsewhere."""
    error_id: int | None = None
    error_codes: tuple[str, ...] = ()
    wire: str | None = None
    """For ``http`` and ``failures``: the kind of the wire row the event becomes."""
    detail: str | None = None
    """For ``failures``: the word in the wire member ``cause``."""
    statuses: tuple[int, int] = (0, -1)
    """For ``http``: first and last status; the first row that holds a status counts."""
    retry_after: bool = False
    """For ``http``: True if the row needs a readable Retry-After header."""
    failure: str | None = None
    """For ``failures``: the word of `bridge.core.model.Exchange.failure`."""
    sent: bool | None = None
    """For ``failures``: whether the first byte of the request had left."""
    source: str | None = None


class PauseRule(NamedTuple):
    """When one kind of pause opens, and how long it lasts; lengths in seconds."""

    name: str
    scope: str
    """Wire scope: ``key``, ``address``, ``method``, ``quality`` or ``transport``."""
    per: tuple[str, ...]
    """What one pause is about: some of ``account``, ``machine``, ``method``, in this order."""
    threshold: int
    """Events that open it."""
    consecutive: bool
    """True if any other event between them starts the count again."""
    window_s: float | None
    """Events older than this do not count; None: age does not matter."""
    first_s: float | None
    """Until the first probe; None if only a person ends the pause."""
    factor: float
    """What a failed probe multiplies the length by."""
    max_s: float | None
    manual: bool
    """True if only a person, or another key, ends it."""
    lifted_by_context: bool
    """True if a start with another url, proxy or CA ends it."""


class _Table(NamedTuple):
    rows: Mapping[str, Row]
    upstream: Mapping[int | str | None, Row]
    """Those of the section, by ``errorId`` and by each ``errorCode``."""
    failures: Mapping[tuple[str | None, bool | None], Row]
    pauses: Mapping[str, PauseRule]
    sentences: Mapping[str, Mapping[str, str]]
    """Those of ``hints``, ``warnings`` and ``rules``, by kind."""


@cache
def _table() -> _Table:
    source = load_json("errors.json")
    rows = [Row(section, **_columns(entry)) for section in SECTIONS for entry in source[section]]
    return _Table(
        {row.kind: row for row in rows},
        {name: row for row in rows for name in (row.error_id, *row.error_codes) if name is not None},
        {(row.failure, row.sent): row for row in rows if row.section == "failures"},
        {entry["name"]: PauseRule(**_columns(entry)) for entry in source["pauses"]},
        {
            section: {entry["kind"]: entry["message"] for entry in source[section]}
            for section in ("hints", "warnings", "rules")
        },
    )


def _columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {_spell(name): tuple(cell) if isinstance(cell, list) else cell for name, cell in entry.items()}


@cache
def _spell(column: str) -> str:
    """Spell a column as we do: ``errorCodes`` is ``error_codes``, ``firstSeconds`` is ``first_s``."""
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", column.replace("Seconds", "S"))


def rows(section: str | None = None) -> tuple[Row, ...]:
    """List the rows of one section, or of all, in the table's order."""
    return tuple(row for row in _table().rows.values() if section is None or row.section == section)


def find_row(kind: str) -> Row:
    """Find the row of a kind in any section.

    Raises:
        KeyError: no section has it.
    """
    return _table().rows[kind]


def upstream_row(error_id: int, error_code: str | None) -> Row:
    """Find the row of an upstream error; it is always found.

    A known ``errorCode`` wins, because one number is printed for two codes and some codes have
    no number; then the ``errorId``; else it is the row ``unknown_code``.
    """
    table = _table()
    return table.upstream.get(error_code) or table.upstream.get(error_id) or table.rows[UNKNOWN_CODE]


def http_row(status: int, has_retry_after: bool) -> Row | None:
    """Find the row of an HTTP status that came without a JSON verdict; None outside 200 to 599.

    Args:
        status: the answer's status.
        has_retry_after: True if a readable Retry-After header came with it.
    """
    for row in rows("http"):
        first, last = row.statuses
        if first <= status <= last and (has_retry_after or not row.retry_after):
            return row
    return None


def failure_row(failure: str, is_sent: bool) -> Row:
    """Find the row of an exchange that failed; it is always found.

    Whatever a failure is called: once a byte has left nothing is certain, and before that
    nothing was delivered.

    Args:
        failure: the word of `bridge.core.model.Exchange.failure`.
        is_sent: True once the first byte of the request may have left.
    """
    row = _table().failures.get((failure, is_sent))
    return row or find_row("connection_reset" if is_sent else "connect_failure")


def pause_rules() -> Mapping[str, PauseRule]:
    """Return every pause rule by its name."""
    return _table().pauses


def hint(kind: str, **numbers: int | str) -> dict[str, str]:
    """Make the wire form of a hint.

    Args:
        kind: row of the table's section ``hints``.
        numbers: values for the sentence's places; numbers, or words of the bridge's own tables.

    Raises:
        KeyError: unknown kind, or a place without a value.
    """
    return {"kind": kind, "message": _table().sentences["hints"][kind].format(**numbers)}


def warning(kind: str, **places: int | str) -> dict[str, str]:
    """Make the wire form of a warning.

    Args:
        kind: row of the table's section ``warnings``.
        places: values for the sentence's places, as for `hint`.

    Raises:
        KeyError: unknown kind, or a place without a value.
    """
    return {"kind": kind, "message": _table().sentences["warnings"][kind].format(**places)}


def rule(kind: str) -> dict[str, str]:
    """Make the members of ``error.data`` that say what is wrong with a message.

    Raises:
        KeyError: unknown kind.
    """
    return {"rule": kind, "sentence": _table().sentences["rules"][kind]}


class BridgeError(Exception):
    """A call that ends in a wire error; the only exception that crosses module borders.

    Args:
        kind: row of the sections ``wire`` or ``upstream``.
        data: other members of the wire error's ``data``.
        code: wire code; needed for kinds of ``upstream``, whose code is the upstream's ``errorId``.
    """

    def __init__(self, kind: str, data: Mapping[str, Any] | None = None, code: int | None = None) -> None:
        row = find_row(kind)
        super().__init__(row.message)
        self.kind = kind
        self.message = row.message
        self.data: dict[str, Any] = {"kind": kind, **(data or {})}
        number = row.code if code is None else code
        assert number is not None, f"kind {kind!r} has no code of its own; hand one in"
        self.code = number
