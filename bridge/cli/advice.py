"""What the counts of the last day advise, and what is claimed: for ``stats``, its page and ``doctor``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.cli.checks import OK, WARNING, Check
from bridge.cli.ledger_arguments import reading
from bridge.core.exits import ExitError
from bridge.core.text import plural
from bridge.engine import SystemClock
from bridge.ledger.statistics import Reader
from bridge.reports.advice import advise, queue_names, sum_day
from bridge.settings import Settings


def read_advice(
    reader: Reader, settings: Settings, endpoint: str | None, account: str = ""
) -> dict[str, Any]:
    """The members ``advice`` and ``claims`` of the figures, over the last 24 hours.

    Args:
        endpoint: None is any.
        account: the first hex digits of an account.
    """
    now, queues = SystemClock.wall(), queue_names(settings.account_queues)
    told: dict[str, Any] = {"advice": [], "claims": []}
    for known in reader.tallied():
        if endpoint not in (None, known.task.endpoint) or not known.task.account.startswith(account):
            continue
        told["advice"] += [found._asdict() for found in advise(known, now, queues)]
        for subject, counts in sorted(sum_day(known.tallies, now).items()):
            if counts.wrong:
                price = counts.cost / counts.costed if counts.costed else None
                claim = {"account": known.task.account[:8], "subject": subject, "complaints": counts.wrong}
                claim |= {"costOfTask": price, "claimed": None if price is None else price * counts.wrong}
                told["claims"].append(claim)
    return told


def spell_advice(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Advice and claims in sentences, by title."""
    return {
        "Advice, from the last 24 hours": [
            f"{one['account']}: {one['message']}" for one in summary["advice"]
        ],
        "At stake in the last 24 hours: claims, not refunds": list(map(_spell_claim, summary["claims"])),
    }


def _spell_claim(claim: dict[str, Any]) -> str:
    """A claim in words: what was complained about may come back, and nobody tells whether it does."""
    told = f"{plural(claim['complaints'], claim['subject'] + ' complaint')} of account {claim['account']}"
    if claim["claimed"] is None:
        return f"{told}; the cost of a task is not known: pass cost to bridge.noteTasks"
    return f"{told}, {claim['claimed']:.4f} claimed at {claim['costOfTask']:.5f} a task"


def check_advice(args: argparse.Namespace) -> Iterator[Check]:
    """Whether reports count for anything, as far as the ledger knows."""
    try:
        with reading(args) as (settings, reader):
            found = read_advice(reader, settings, None)["advice"]
    except ExitError:
        return  # the check of the ledger says so
    for advice in found:
        message = f"account {advice['account']}, {advice['kind']}: {advice['message']}"
        yield Check("advice", WARNING, message, "docs/advice.md has the vendor's rules.")
    if not found:
        yield Check("advice", OK, "nothing in the last 24 h makes reports worthless, as far as is known")
