"""The simulation: seeds that must pass, seeds that once failed, and a run that is the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tools import find_pythons
from tests.environments import install_locked, make_empty
from tests.simulation.plan import make_plan
from tests.simulation.shrink import shrink
from tests.simulation.world import simulate

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 300
TWICE = 50
PART = 10
REGRESSIONS = {
    54: "an unproven key was paused for 400 days after a boot with a clock that was ahead",
    134: "the same",
    616: "a beginning whose commit had happened, and was told to have failed, was counted as an attempt",
    1170: "what was owed as accepted was dropped for a report that another bridge had claimed and not begun",
    2132: "who is cancelled alone was told that the outcome is durable",
    2317: "a refusal on record was told to the one whose own attempt was perhaps taken",
    3031: "a cancel made a report that was begun in an earlier life not_sent",
    3038: "bridge.resume met an internal error while the ledger was full",
    3092: "bridge.resume met an internal error while the ledger was read-only",
    3501: "after SIGTERM a report whose claim waited for a lock was never answered",
    4456: "the same",
    5125: "a report taken over in a sweep whose commit was told to have failed was left for ever",
    7266: "a ledger that fell silent made forget that another bridge had the report",
    8498: "who had sent twice while the ledger was silent sent again after another bridge's report was seen",
    11876: "what a full ledger had told of another bridge's report was forgotten when it could not be read",
    12837: "who was told off while the ledger was silent hid from later callers what another bridge had sent",
    12906: "an outcome that lost against another bridge's report was called durable",
    18063: "a list that waited for a lock was never answered when the process ended",
    18757: "who was read after the stop was told not_sent of a task that had been sent",
    20586: "a window's end that was told beside a locked ledger did not reach the bridge that had the report",
    21086: "the same",
    25409: "a refusal of another method hid that a request's own report was perhaps taken",
    30735: "what a person had resumed was paused for 400 days after a boot with the right clock",
    30860: "a pause was probed for ever by a report that another bridge had ended",
    49016: "who asked behind a cancel of all who waited for another bridge's report was never answered",
    76873: "a clock that was set back while a request was held up gave its task a new minute",
    311119: "a report that waited behind answers nobody would read waited for ever when stdout was gone",
    322315: "who was to be refused beside a report under way was left without an answer by a locked ledger",
    345842: "what was taken beside a locked ledger was forgotten for what a neighbour had begun",
    345219: "the end of a window that another bridge had told was overwritten by who had the report",
    71375: "a pause whose prober had died stayed probed when another machine took its report over",
}
"""Seeds that found a fault of the program, and which."""


def hold(seeds: range) -> str:
    """Demand that no seed breaks a rule of the contract; returns the hash of each run."""
    told = ""
    for seed in seeds:
        result = simulate(make_plan(seed))
        assert result.broken == [], f"make simulate SEED={seed}"
        told += f"seed {seed}: {result.digest}\n"
    return told


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(TWICE + 1, SEEDS, PART))
def test_every_rule_holds_in_every_world(first: int) -> None:
    """No seed breaks a rule of the contract; the first ones are run by the test of sameness."""
    hold(range(first, first + PART))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_was_found_stays_mended(seed: int) -> None:
    """A seed that once found a fault passes."""
    result = simulate(make_plan(seed))
    assert result.broken == [], REGRESSIONS[seed]


@pytest.mark.timeout(600)
def test_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    """A process with other hashes of strings, of another Python if there is one, sees the same bytes."""
    *_, newest = find_pythons().values()
    there = make_empty(tmp_path / "environment", newest)
    install_locked(Path(sys.executable).with_name("uv"), there, ["build", "runtime"])
    command = [str(there), "-m", "tests.simulation", "1", "--count", str(TWICE), "--each", "--no-shrink"]
    environ = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "2"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as other:
        told = hold(range(1, TWICE + 1))
        assert other.communicate(timeout=300)[0] == told, newest
    assert other.returncode == 0
    assert len({line.split()[-1] for line in told.splitlines()}) == TWICE


@pytest.mark.timeout(900)
def test_failing_run_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a planted fault a seed fails, and what is left of it fails still and has fewer faults and acts."""
    monkeypatch.setattr("bridge.reports.window.REPORTABLE_S", 80.0)
    results = (simulate(make_plan(seed)) for seed in range(1, 100))
    whole = next(result for result in results if result.broken)
    plan = whole.plan
    small = shrink(whole, 60)
    assert small.broken
    assert len(small.plan.acts) < len(plan.acts)
    assert len(small.plan.faults) <= len(plan.faults)
