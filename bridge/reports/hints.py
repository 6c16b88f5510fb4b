"""Why a report may have been refused, ranked by what is known; error 16 hides many causes.

Names causes only, never decides. The sentences are rows of ``schemas/errors.json``.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from bridge.core.errors import hint
from bridge.reports import methods

MAX_AGE_S: Final = 60.0
"""The upstream forgets a task this long after its worker finished (anti-captcha.com, report methods)."""
CLOSE_AGE_S: Final = 55.0
"""From here on the upstream's whole seconds and the way there can make a report late; a guess."""
MAX_SKEW_S: Final = 2.0
"""Clock differences up to this are rounding: Date headers have whole seconds."""


class HintFacts(NamedTuple):
    """What is known about a refused report."""

    method: str
    task_type: str | None = None
    language_pool: str | None = None
    age_s: float | None = None
    """Age of the task when the last attempt began; None without ``completedAt``."""
    clock_skew_s: float | None = None
    """How far the local clock is ahead of the upstream's; None if no Date header came yet."""
    perhaps_before: bool = False
    """True if an earlier attempt may have been taken."""
    guarded: bool = True
    """False if other processes could not be asked about the task."""
    durable: bool = True
    """False if the ledger does not outlast the process."""


def rank(facts: HintFacts) -> tuple[dict[str, str], ...]:
    """List the possible causes of ``errorId`` 16, best supported first.

    What is known to be wrong comes first, then what makes it doubtful, then what the caller did
    not tell, last the causes that cannot be checked from here.

    Returns:
        Wire forms ``{kind, message}``; never empty.
    """
    return (
        *_known(facts),
        *_doubtful(facts),
        *_untold(facts),
        *([] if facts.perhaps_before else [hint("already_reported")]),
        hint("task_failed"),
        hint("other_account"),
    )


def _known(facts: HintFacts) -> list[dict[str, str]]:
    method = methods.methods()[facts.method]
    found = []
    if facts.perhaps_before:
        found.append(hint("perhaps_taken_before"))
    if facts.age_s is not None and facts.age_s > MAX_AGE_S:
        found.append(hint("too_old", seconds=ceil(facts.age_s)))
    if facts.task_type is not None:
        found.extend(explain_wrong_method(facts.method, facts.task_type))
    if method.is_english_only and facts.language_pool not in (None, "en"):
        found.append(hint("language_not_english"))
    if method.is_withdrawn:
        found.append(hint("hcaptcha_withdrawn"))
    return found


def _doubtful(facts: HintFacts) -> list[dict[str, str]]:
    found = []
    if facts.age_s is None:
        found.append(hint("age_unknown"))
    elif CLOSE_AGE_S <= facts.age_s <= MAX_AGE_S:
        found.append(hint("close_to_the_end", seconds=ceil(facts.age_s)))
    if facts.age_s is not None and facts.clock_skew_s is not None and abs(facts.clock_skew_s) > MAX_SKEW_S:
        found.append(hint("clock_skew", seconds=round(abs(facts.clock_skew_s))))
    if not facts.guarded:
        found.append(hint("reported_elsewhere"))
    if not facts.durable:
        found.append(hint("ledger_not_durable"))
    return found


def _untold(facts: HintFacts) -> list[dict[str, str]]:
    found = []
    if facts.task_type is None:
        found.append(hint("task_type_unknown"))
    elif methods.fit(facts.method, facts.task_type) == methods.UNKNOWN_TYPE:
        found.append(hint("task_type_unlisted"))
    if methods.methods()[facts.method].is_english_only and facts.language_pool is None:
        found.append(hint("language_unknown"))
    return found


def explain_wrong_method(method: str, task_type: str) -> tuple[dict[str, str], ...]:
    """Name the method that would fit a task type, for -32012; empty if the given one may fit."""
    if methods.fit(method, task_type) != methods.WRONG:
        return ()
    better = methods.find_fitting(task_type, method)
    return (hint("no_method_fits") if better is None else hint("method_does_not_fit", method=better),)


def explain_conflict(stored_method: str) -> tuple[dict[str, str], ...]:
    """Name the method of the report on record, for -32011."""
    return (hint("stored_method", method=methods.methods()[stored_method].name),)
