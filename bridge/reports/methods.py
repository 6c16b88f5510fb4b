"""Which report method fits which task type, read from ``schemas/methods.json``.

Only looks names up: it must not decide what happens to a report. Imported by `bridge.reports` and the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from bridge.core.errors import warning
from bridge.core.resources import load_json

FITS: Final = "fits"
WRONG: Final = "wrong"
UNKNOWN_TYPE: Final = "unknown"


class Method(NamedTuple):
    """One report method of the upstream; task type names are in lower case."""

    name: str
    path: str
    summary: str
    subject: str
    """What it is about: ``image``, ``recaptcha`` or ``hcaptcha``."""
    polarity: str
    """``incorrect`` or ``correct``."""
    is_english_only: bool
    """True if the upstream takes reports about tasks of the English pool only."""
    is_withdrawn: bool
    """True if the vendor has withdrawn the tasks it is about."""
    task_types: frozenset[str]
    ignored_task_types: frozenset[str]
    """Types the vendor takes a report about, then ignores it."""


_COLUMNS: Final = ("name", "path", "summary", "subject", "polarity", "englishOnly", "withdrawn")


@cache
def _table() -> tuple[Mapping[str, Method], frozenset[str]]:
    """Every method by its name, and every task type that is known."""
    source = load_json("methods.json")
    rows = {entry["name"]: _make_method(entry) for entry in source["methods"]}
    known = _lower(source["uncoveredTaskTypes"]).union(*(row.task_types for row in rows.values()))
    return rows, known


def _make_method(entry: Mapping[str, Any]) -> Method:
    plain = (entry[column] for column in _COLUMNS)
    return Method._make((*plain, _lower(entry["taskTypes"]), _lower(entry["ignoredTaskTypes"])))


def _lower(names: list[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def methods() -> Mapping[str, Method]:
    """Return every report method by its name, in the table's order."""
    return _table()[0]


@lru_cache(maxsize=256)
def fit(method: str, task_type: str) -> str:
    """Tell whether a report method fits a task type.

    Names that differ only in case are the same: clients spell ``Recaptcha`` and ``ReCaptcha``.

    Returns:
        ``fits``, ``wrong`` (a known type of another method or of none) or ``unknown``.

    Raises:
        KeyError: no such method.
    """
    rows, known_types = _table()
    name = task_type.lower()
    if name in rows[method].task_types:
        return FITS
    return WRONG if name in known_types else UNKNOWN_TYPE


def find_fitting(task_type: str, like: str) -> str | None:
    """Find the method that fits a task type and has another method's polarity.

    A complaint is never offered in place of praise: it is not what the caller meant.

    Args:
        task_type: the upstream's name of the type.
        like: the method whose polarity is wanted.

    Raises:
        KeyError: no such method.
    """
    name, polarity = task_type.lower(), methods()[like].polarity
    fitting = (row.name for row in methods().values() if name in row.task_types and row.polarity == polarity)
    return next(fitting, None)


def takes_language(method: str, language_pool: str | None) -> bool:
    """True if the upstream takes a report about a task of that pool, as far as it was told."""
    return language_pool in (None, "en") or not methods()[method].is_english_only


@lru_cache(maxsize=256)
def find_warnings(method: str, task_type: str | None) -> tuple[Mapping[str, str], ...]:
    """List what an answer should warn of, given the method and what the caller told.

    Returns:
        Wire forms ``{kind, message}``; empty if there is nothing to say.

    Raises:
        KeyError: no such method.
    """
    row = methods()[method]
    warned = {
        "unknown_task_type": task_type is not None and fit(method, task_type) == UNKNOWN_TYPE,
        "ignored_by_vendor": task_type is not None and task_type.lower() in row.ignored_task_types,
        "withdrawn_by_vendor": row.is_withdrawn,
    }
    return tuple(warning(kind) for kind, applies in warned.items() if applies)
