"""The page about the field names tests that there are."""

from __future__ import annotations

import re

from tests.process import ROOT


def test_every_named_test_is_there() -> None:
    """Each row names at least one test, and none that is gone."""
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    text = (ROOT / "docs" / "field.md").read_text(encoding="utf-8")
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| Situation")
    ]
    assert len(rows) >= 15
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, row
        assert named <= there, named - there
