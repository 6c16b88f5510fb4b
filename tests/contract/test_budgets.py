"""Guards against decay, without clocks: what a report may cost, and what the start may load."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bench.budgets import MARGIN, STORED, count, per_report, public_modules

HEAVY = frozenset({"asyncio", "decimal", "email", "http", "jsonschema", "requests", "ssl", "urllib3"})
"""What made other starts slow; each takes 10 to 90 ms to load."""
REMEDY = "look for what made it grow; if it is worth it: python -m bench.budgets --write"


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a bridge counted while it started and reported."""
    return count(str(tmp_path_factory.mktemp("budgets")))


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    """The budgets that were stored."""
    budgets: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return budgets


def close_over(names: list[str]) -> set[str]:
    """Return what loading these modules of the standard library loads in this version of Python."""
    library = [name for name in names if name in sys.stdlib_module_names]
    code = f"import sys, {', '.join(library)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(public_modules(loaded.stdout.split()))


def test_a_report_costs_no_more_than_its_budget(counts: dict[str, Any], stored: dict[str, Any]) -> None:
    """Calls, commits, writes and connections stay within a tenth of what is stored; there is no garbage."""
    found = per_report(counts)
    assert found.keys() == stored["perReport"].keys()
    over = {
        name: (value, stored["perReport"][name])
        for name, value in found.items()
        if value > MARGIN * stored["perReport"][name] + 0.05
    }
    assert not over, f"(now, stored): {over}; {REMEDY}"


def test_the_counters_count(counts: dict[str, Any]) -> None:
    """A report is two commits and one write over a connection that was there, and some hundred calls."""
    found = per_report(counts)
    assert (found["commits"], found["writes"], found["connections"]) == (2.0, 1.0, 0.0)
    assert found["calls"] > 100
    assert counts["marks"][-1]["connections"] == 1


def test_the_start_loads_what_is_known_and_nothing_more(
    counts: dict[str, Any], stored: dict[str, Any]
) -> None:
    """Up to the first answer only listed modules are loaded, and what Python itself adds to them."""
    loaded = set(public_modules(counts["modules"]))
    assert "bridge.app" in loaded
    unknown = loaded - set(stored["modules"]) - close_over(stored["modules"])
    assert not unknown, f"newly loaded at start: {sorted(unknown)}; {REMEDY}"


def test_the_start_loads_nothing_heavy(counts: dict[str, Any], stored: dict[str, Any]) -> None:
    """No slow library is loaded before the first answer, and none has crept into the list."""
    assert not HEAVY & set(public_modules(counts["modules"]))
    assert not HEAVY & set(stored["modules"])
