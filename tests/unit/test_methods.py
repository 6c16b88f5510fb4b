"""Tests of `bridge.reports.methods`; what its rows say is frozen in the vectors of the mapping."""

from __future__ import annotations

import pytest

from bridge.core.resources import load_json
from bridge.reports import methods

IMAGE = "reportIncorrectImageCaptcha"
WRONG_TOKEN = "reportIncorrectRecaptcha"
RIGHT_TOKEN = "reportCorrectRecaptcha"
HCAPTCHA = "reportIncorrectHcaptcha"


def kinds(method: str, task_type: str | None) -> list[str]:
    """List the kinds of the warnings."""
    return [row["kind"] for row in methods.find_warnings(method, task_type)]


@pytest.mark.parametrize(
    ("method", "task_type", "answer"),
    [
        (IMAGE, "ImageToTextTask", "fits"),
        (IMAGE, "ImageToCoordinatesTask", "fits"),
        (IMAGE, "RecaptchaV2Task", "wrong"),
        (IMAGE, "NoCaptchaTask", "wrong"),
        (WRONG_TOKEN, "NoCaptchaTaskProxyless", "fits"),
        (WRONG_TOKEN, "RecaptchaV3TaskProxyless", "fits"),
        (WRONG_TOKEN, "RecaptchaV2EnterpriseTask", "fits"),
        (WRONG_TOKEN, "ImageToTextTask", "wrong"),
        (RIGHT_TOKEN, "RecaptchaV2TaskProxyless", "fits"),
        (RIGHT_TOKEN, "HCaptchaTask", "wrong"),
        (HCAPTCHA, "HCaptchaTaskProxyless", "fits"),
        (HCAPTCHA, "RecaptchaV2Task", "wrong"),
        (WRONG_TOKEN, "TurnstileTask", "wrong"),
        (IMAGE, "FunCaptchaTaskProxyless", "wrong"),
        (WRONG_TOKEN, "QuantumTask", "unknown"),
        (WRONG_TOKEN, "", "unknown"),
        (WRONG_TOKEN, " RecaptchaV2Task", "unknown"),
        (WRONG_TOKEN, "ReCaptchaV2TaskProxyLess", "fits"),
        (IMAGE, "TURNSTILETASK", "wrong"),
    ],
)
def test_fit(method: str, task_type: str, answer: str) -> None:
    """A known type fits or is wrong, whatever its case; any other is unknown."""
    assert methods.fit(method, task_type) == answer


def test_every_covered_type_fits_somewhere_and_no_uncovered_one_does() -> None:
    """The two lists of types do not overlap."""
    table = load_json("methods.json")
    for task_type in table["uncoveredTaskTypes"]:
        assert {methods.fit(method, task_type) for method in methods.methods()} == {"wrong"}
    for row in table["methods"]:
        assert {methods.fit(row["name"], task_type) for task_type in row["taskTypes"]} == {"fits"}
        assert set(row["ignoredTaskTypes"]) <= set(row["taskTypes"])


@pytest.mark.parametrize(
    ("task_type", "like", "found"),
    [
        ("ImageToTextTask", WRONG_TOKEN, IMAGE),
        ("RecaptchaV3TaskProxyless", IMAGE, WRONG_TOKEN),
        ("HCaptchaTask", WRONG_TOKEN, HCAPTCHA),
        ("ImageToTextTask", RIGHT_TOKEN, None),
        ("TurnstileTask", WRONG_TOKEN, None),
        ("QuantumTask", WRONG_TOKEN, None),
    ],
)
def test_the_fitting_method_says_the_same(task_type: str, like: str, found: str | None) -> None:
    """A complaint is only ever replaced by a complaint, and praise by praise."""
    assert methods.find_fitting(task_type, like) == found


def test_warnings_come_with_types_and_methods() -> None:
    """Unknown types, praise for plain V2 and hCaptcha are warned of; nothing else is."""
    assert kinds(WRONG_TOKEN, None) == []
    assert kinds(WRONG_TOKEN, "RecaptchaV2Task") == []
    assert kinds(WRONG_TOKEN, "QuantumTask") == ["unknown_task_type"]
    assert kinds(RIGHT_TOKEN, "RecaptchaV3TaskProxyless") == []
    assert kinds(RIGHT_TOKEN, "RecaptchaV2EnterpriseTask") == []
    assert kinds(RIGHT_TOKEN, "NoCaptchaTask") == ["ignored_by_vendor"]
    assert kinds(RIGHT_TOKEN, "recaptchav2taskproxyless") == ["ignored_by_vendor"]
    assert kinds(HCAPTCHA, None) == ["withdrawn_by_vendor"]
    assert kinds(HCAPTCHA, "QuantumTask") == ["unknown_task_type", "withdrawn_by_vendor"]


def test_an_unknown_method_is_a_mistake() -> None:
    """Only the four methods can be asked about."""
    for ask in (
        lambda: methods.fit("reportCorrectImage", "ImageToTextTask"),
        lambda: methods.find_fitting("ImageToTextTask", "reportCorrectImage"),
        lambda: methods.find_warnings("reportCorrectImage", None),
    ):
        with pytest.raises(KeyError):
            ask()
