"""The tables as they have to be, frozen by hand in ``tests/vectors``, and how those in use differ.

Every function yields pairs of what has to be and what is, the differing ones alone, and asks the program's
own functions only. Imported by the properties of the mapping and by the test that damages the tables.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from bridge.core import errors
from bridge.core.model import Exchange, Verdict
from bridge.reports import methods
from bridge.reports.verdict import judge
from tests.process import ROOT

Faults = Iterator[tuple[Any, Any]]


def read(name: str) -> dict[str, list[Any]]:
    """Read a vector file whose rows are lists, as named tuples."""
    document = json.loads((ROOT / "tests" / "vectors" / name).read_text(encoding="utf-8"))
    makers: dict[str, Any] = {
        section: namedtuple(section, names) for section, names in document["columns"].items()
    }
    return {section: [make(*row) for row in document[section]] for section, make in makers.items()}


MAPPING: Final = read("mapping.json")
TYPES: Final = read("task_types.json")
CODES: Final = sorted(code for row in MAPPING["upstream"] for code in row.codes)
NUMBERS: Final = {row.number for row in MAPPING["upstream"]} - {None}
RESERVED: Final = {row.kind: row.code for row in MAPPING["wire"]}
LISTED: Final = {(row.failure, row.sent) for row in MAPPING["failures"]}
CELLS: Final = {
    "upstream": ("error_id", "error_codes"),
    "http": ("wire", "statuses", "retry_after"),
    "failures": ("wire", "detail", "failure", "sent"),
    "wire": ("code",),
}
"""What the rows of a section have besides what all have."""
WANTED: Final = {
    "upstream": {
        (row.kind, "refused", False, row.retry, row.pause, row.number, tuple(row.codes))
        for row in MAPPING["upstream"]
    },
    "http": {
        (row.kind, *row[5:], row.wire, (row.first, row.last), row.needsRetryAfter)
        for row in MAPPING["statuses"]
    },
    "failures": {
        (row.kind, *row[5:], row.wire, row.cause, row.failure, row.sent)
        for row in MAPPING["failures"]
        if row.failure != "*"
    },
    "wire": {(row.kind, row.outcome, row.retryable, "done", None, row.code) for row in MAPPING["wire"]},
}
RULES: Final = {row.name: (*row[:2], tuple(row.per), *row[3:]) for row in MAPPING["pauses"]}
CORNERS: Final = sorted(
    {end + step for row in MAPPING["statuses"] for end in (row.first, row.last) for step in (-1, 0, 1)}
)
"""Statuses at which a row begins or ends, and their neighbours."""


def differing(*pairs: tuple[Any, Any]) -> Faults:
    """Yield the pairs that are not equal."""
    return (pair for pair in pairs if pair[0] != pair[1])


def show(seen: Verdict) -> tuple[Any, ...]:
    """Return what the mapping decides of a verdict."""
    return (seen.outcome, seen.code, seen.kind, seen.event, seen.next, seen.pause, seen.cause, seen.is_send)


def refusal_faults(number: int, code: str | None, rows: Iterable[Any] = MAPPING["upstream"]) -> Faults:
    """Compare refusals: a known code beside any number, a known number beside any code, and neither.

    Args:
        number: stands beside the codes; 1 to 2^31-1.
        code: stands beside the numbers; none of the list.
        rows: the part of the list that is looked at.
    """
    for row in rows:
        told = {(own, each) for own in (row.number or number, number) for each in row.codes}
        if row.number is not None:
            told |= {(row.number, None), (row.number, code)}
        elif not row.codes and number not in NUMBERS:
            told = {(number, None), (number, code)}
        for error_id, error_code in told:
            body = json.dumps({"errorId": error_id, "errorCode": error_code}).encode()
            wanted = ("refused", error_id, row.kind, row.kind, row.retry, row.pause, None, True)
            yield from differing((wanted, show(judge(Exchange(None, True, 200, {}, body), False))))


def event_faults(row: Any, exchange: Exchange) -> Faults:
    """Compare what an exchange without a verdict proves with the row it has to meet."""
    said = (row.outcome, RESERVED[row.wire], row.wire, row.kind, row.retry, row.pause)
    rest = (getattr(row, "cause", None), row.outcome != "not_sent")
    yield from differing(((*said, *rest), show(judge(exchange, False))))


def status_faults(status: int, body: bytes) -> Faults:
    """Compare answers without a verdict; a status without a row is read as no HTTP at all."""
    for has_retry_after in (True, False):
        exchange = Exchange(None, True, status, {"retry-after": "7"} if has_retry_after else {}, body)
        fitting = [
            row
            for row in MAPPING["statuses"]
            if row.first <= status <= row.last and (has_retry_after or not row.needsRetryAfter)
        ]
        if fitting:
            yield from event_faults(min(fitting, key=lambda row: row.last - row.first), exchange)
        else:
            yield from differing(("answer_malformed", judge(exchange, False).event))


def failure_faults(word: str) -> Faults:
    """Compare exchanges that failed; the word is any, best one that nobody knows."""
    for row in MAPPING["failures"]:
        name = word if row.failure == "*" else row.failure
        if row.failure != "*" or (name, row.sent) not in LISTED:
            yield from event_faults(row, Exchange(name, row.sent, None, {}, b""))


def cell_faults() -> Faults:
    """Compare all cells, for those no answer shows; and nothing may be left over."""
    for section, names in CELLS.items():
        columns = ("kind", "outcome", "retryable", "retry", "pause", *names)
        rows = {tuple(getattr(row, name) for name in columns) for row in errors.rows(section)}
        yield from differing((WANTED[section], rows))
    yield from differing((RULES, {name: tuple(rule) for name, rule in errors.pause_rules().items()}))


def type_faults(spell: Callable[[str], str], unknown: str) -> Faults:
    """Compare the report methods, and which of them fit which task type.

    Args:
        spell: writes a type in another case.
        unknown: name of a type that nobody knows.
    """
    found = methods.methods()
    for row in TYPES["methods"]:
        seen = found[row.name]
        flags = (seen.is_english_only, seen.is_withdrawn)
        yield from differing((row, (seen.name, seen.path, seen.subject, seen.polarity, *flags)))
    polarity = {row.name: row.polarity for row in TYPES["methods"]}
    withdrawn = {row.name for row in TYPES["methods"] if row.withdrawn}
    yield from differing((list(polarity), list(found)))
    for method in polarity:
        last = ["withdrawn_by_vendor"] if method in withdrawn else []
        for row in TYPES["types"]:
            name = spell(row.name)
            fitting = [other for other in row.fits if polarity[other] == polarity[method]]
            ignored = ["ignored_by_vendor"] if method in row.ignores else []
            yield from differing(
                ("fits" if method in row.fits else "wrong", methods.fit(method, name)),
                (fitting[0] if fitting else None, methods.find_fitting(name, method)),
                (ignored + last, [told["kind"] for told in methods.find_warnings(method, name)]),
            )
        yield from differing(
            ("unknown", methods.fit(method, unknown)),
            (["unknown_task_type", *last], [told["kind"] for told in methods.find_warnings(method, unknown)]),
        )
