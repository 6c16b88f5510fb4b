"""Tests of the hints of `bridge.reports.observer`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.errors import hint
from bridge.core.model import Facts
from bridge.core.resources import load_json
from bridge.reports.observer import explain_wrong_method, rank_hints

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hints.json").read_text(encoding="utf-8"))[
    "vectors"
]


V2 = Facts(task_type="RecaptchaV2Task")


def made(method: str, facts: Facts, guarded: bool = True, durable: bool = True) -> Any:
    """A job as far as hints go."""
    return SimpleNamespace(method=method, facts=facts, guarded=guarded, durable=durable)


def rank(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Rank by the facts of a vector."""
    job = made(
        facts["method"],
        Facts(task_type=facts["taskType"], language_pool=facts["languagePool"]),
        facts["guarded"],
        facts["durable"],
    )
    return rank_hints(job, facts["ageSeconds"], facts["clockSkewSeconds"], facts["perhapsBefore"])


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    """The order of the hints is the one written by hand."""
    assert [row["kind"] for row in rank(vector["facts"])] == vector["expect"]


def test_there_are_enough_vectors() -> None:
    """At least a dozen orderings are fixed, each with its own name and a description."""
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS) >= 12
    assert all(vector["description"].endswith(".") for vector in VECTORS)


def test_every_hint_is_reached() -> None:
    """Every row of the table's hints is told by some vector or by an explanation of a refusal."""
    told = {kind for vector in VECTORS for kind in vector["expect"]}
    told.add(hint("stored_method", method="reportIncorrectRecaptcha")["kind"])
    assert told == {row["kind"] for row in load_json("errors.json")["hints"]}


def test_every_hint_is_told_once() -> None:
    """No vector's answer names a cause twice."""
    for vector in VECTORS:
        rows = rank(vector["facts"])
        assert len({row["kind"] for row in rows}) == len(rows)
        assert not any("{" in row["message"] for row in rows)


def test_seconds_are_told_so_that_late_reads_late() -> None:
    """An age just over the minute is not told as the minute itself."""
    (first, *_) = rank_hints(made("reportIncorrectRecaptcha", V2), 60.2, None, False)
    assert first["kind"] == "too_old"
    assert "61 s after" in first["message"]


def test_the_skew_is_told_without_its_sign() -> None:
    """The clock's difference is a plain number of seconds."""
    (first, *_) = rank_hints(made("reportIncorrectRecaptcha", V2), 5, -7.4, False)
    assert "by 7 s" in first["message"]


def test_a_wrong_method_is_explained() -> None:
    """The method that fits is named; without one the hint says so; a fitting method needs no hint."""
    row = explain_wrong_method("reportIncorrectImageCaptcha", "RecaptchaV2Task")
    assert row is not None
    assert row["kind"] == "method_does_not_fit"
    assert "reportIncorrectRecaptcha" in row["message"]
    row = explain_wrong_method("reportCorrectRecaptcha", "ImageToTextTask")
    assert row is not None
    assert row["kind"] == "no_method_fits"
    assert explain_wrong_method("reportCorrectRecaptcha", "RecaptchaV2Task") is None
    assert explain_wrong_method("reportCorrectRecaptcha", "QuantumTask") is None
