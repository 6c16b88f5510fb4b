"""Why a report may have been refused, ranked by what is known; error 16 hides many causes.

Names causes only, never decides. The sentences are rows of ``schemas/errors.json``.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from bridge.core.errors import hint
from bridge.reports import methods

MAX_AGE_S: Final = 60.0
"""The upstream forgets a task this long after its worker finished (anti-captcha.com, report methods)."""
CLOSE_AGE_S: Final = 55.0
"""From here on the upstream's whole seconds and the way there can make a report late; a guess."""
MAX_SKEW_S: Final = 2.0
"""Clock differences up to this are rounding: Date headers have whole seconds."""


def rank(
    method: str,
    task_type: str | None = None,
    language_pool: str | None = None,
    age_s: float | None = None,
    clock_skew_s: float | None = None,
    *,
    perhaps_before: bool = False,
    guarded: bool = True,
    durable: bool = True,
) -> list[dict[str, str]]:
    """List the possible causes of ``errorId`` 16, best supported first.

    What is known to be wrong comes first, then what makes it doubtful, then what the caller did
    not tell, last the causes that cannot be checked from here.

    Args:
        age_s: Age of the task when the last attempt began; None without ``completedAt``.
        clock_skew_s: How far the local clock is ahead of the upstream's; None if no Date header came yet.
        perhaps_before: True if an earlier attempt may have been taken.
        guarded: False if other processes could not be asked about the task.
        durable: False if the ledger does not outlast the process.

    Returns:
        Wire forms ``{kind, message}``; never empty.
    """
    row = methods.methods()[method]
    age, skew = age_s or 0.0, abs(clock_skew_s or 0.0)
    fit = methods.FITS if task_type is None else methods.fit(method, task_type)
    better = None if task_type is None else methods.find_fitting(task_type, method)
    causes: tuple[tuple[str, bool, dict[str, int | str]], ...] = (
        # known to be wrong
        ("perhaps_taken_before", perhaps_before, {}),
        ("too_old", age > MAX_AGE_S, {"seconds": ceil(age)}),
        ("method_does_not_fit", fit == methods.WRONG and better is not None, {"method": better or ""}),
        ("no_method_fits", fit == methods.WRONG and better is None, {}),
        ("language_not_english", not methods.takes_language(method, language_pool), {}),
        ("hcaptcha_withdrawn", row.is_withdrawn, {}),
        # doubtful
        ("age_unknown", age_s is None, {}),
        ("close_to_the_end", CLOSE_AGE_S <= age <= MAX_AGE_S, {"seconds": ceil(age)}),
        ("clock_skew", age_s is not None and skew > MAX_SKEW_S, {"seconds": round(skew)}),
        ("reported_elsewhere", not guarded, {}),
        ("ledger_not_durable", not durable, {}),
        # not told
        ("task_type_unknown", task_type is None, {}),
        ("task_type_unlisted", fit == methods.UNKNOWN_TYPE, {}),
        ("language_unknown", row.is_english_only and language_pool is None, {}),
        # not to be checked from here
        ("already_reported", not perhaps_before, {}),
        ("task_failed", True, {}),
        ("other_account", True, {}),
    )
    return [hint(kind, **places) for kind, applies, places in causes if applies]


def explain_wrong_method(method: str, task_type: str | None) -> dict[str, str] | None:
    """Name the method that would fit a task type, for -32012; None if the given one may fit."""
    if task_type is None or methods.fit(method, task_type) != methods.WRONG:
        return None
    better = methods.find_fitting(task_type, method)
    return hint("no_method_fits") if better is None else hint("method_does_not_fit", method=better)


def explain_conflict(stored_method: str) -> dict[str, str]:
    """Name the method of the report on record, for -32011."""
    return hint("stored_method", method=methods.methods()[stored_method].name)
