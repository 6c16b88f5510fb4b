"""The vendor's rules: sixteen of sixteen are told, each shown by a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.core.resources import load_json
from scripts.generate_advice import ADVICE

ROOT = Path(__file__).parents[2]
RULES = load_json("advice.json")["rules"]


def test_every_rule_is_there() -> None:
    """Sixteen rules, none twice, and the page has them all."""
    assert len({rule["says"] for rule in RULES}) == len(RULES) == 16
    page = (ROOT / "docs" / "advice.md").read_text()
    assert all(rule["says"] in page and rule["told"] in page for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["test"])
def test_the_test_of_a_rule_exists(rule: dict[str, str]) -> None:
    """The file is there, and has a test of that name."""
    path, _, name = rule["test"].partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE)


def test_what_is_told_has_the_names_of_the_tables() -> None:
    """Every kind that a rule names is a row of the error table."""
    rows = {
        row.get("kind")
        for section in load_json("errors.json").values()
        if type(section) is list
        for row in section
    }
    named = {word for rule in RULES for word in re.findall(r"`([a-z]+_[a-z_]+)`", rule["told"])}
    assert named <= rows
    assert set(ADVICE) - {"tasks_unknown"} <= named | {"tasks_unknown"}


def test_help_has_every_rule(capfd: pytest.CaptureFixture[str]) -> None:
    """The topic fits a terminal's width and leaves none out."""
    assert main.main(("help", "report")) == 0
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert all(rule["says"] in words for rule in RULES)


def test_the_kinds_of_advice_are_one_list() -> None:
    """Warnings, status and page name the same kinds."""
    kinds = load_json("common.json")["definitions"]["warning"]["properties"]["kind"]["enum"]
    status = load_json("bridge.status.result.json")["properties"]["advice"]["items"]["properties"]["kind"][
        "enum"
    ]
    assert kinds == [row["kind"] for row in load_json("errors.json")["warnings"]]
    assert kinds[-6:] == status == list(ADVICE)
