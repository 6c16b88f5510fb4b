"""The oracle: what single answers prove, written by hand; the lists of codes and rows are frozen apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.core import errors
from bridge.core.model import Exchange, Verdict
from bridge.reports.verdict import judge

DOCUMENT = json.loads((Path(__file__).parents[1] / "vectors" / "verdicts.json").read_text(encoding="utf-8"))
VECTORS: list[dict[str, Any]] = DOCUMENT["vectors"]


def read_exchange(source: dict[str, Any]) -> Exchange:
    """Make the exchange of a vector."""
    if "bodyHex" in source:
        body = bytes.fromhex(source["bodyHex"])
    elif "bodyRepeat" in source:
        text, times = source["bodyRepeat"]
        body = text.encode() * times
    else:
        body = source["body"].encode()
    return Exchange(
        source["failure"],
        source["sent"],
        source["status"],
        source["headers"],
        body,
        source.get("oversize", False),
    )


def describe(seen: Verdict) -> dict[str, Any]:
    """Spell a verdict as the vectors do."""
    return {
        "outcome": seen.outcome,
        "code": seen.code,
        "kind": seen.kind,
        "event": seen.event,
        "next": seen.next,
        "pause": seen.pause,
        "perhaps": seen.perhaps,
        "isSend": seen.is_send,
        "hasStatus": seen.has_status,
        "hasVerdict": seen.has_verdict,
        "errorId": seen.error_id,
        "errorCode": seen.error_code,
        "errorDescription": seen.error_description,
        "httpStatus": seen.http_status,
        "retryAfterSeconds": seen.retry_after_s,
        "cause": seen.cause,
        "likely": seen.likely,
    }


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    """The verdict is the one written by hand."""
    seen = judge(read_exchange(vector["exchange"]), vector["perhapsBefore"])
    assert describe(seen) == vector["expect"]


def test_there_are_enough_vectors() -> None:
    """At least ninety answers are fixed, each with its own name and a description."""
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS) >= 90
    assert all(vector["description"].endswith(".") for vector in VECTORS)


def test_every_row_says_what_to_do() -> None:
    """Every row of the table has a message, a cause and an advice of its own words."""
    for row in errors.rows():
        assert row.message.endswith(".")
        assert row.cause.endswith(".")
        assert row.advice.endswith(".")
        assert row.message != row.cause
