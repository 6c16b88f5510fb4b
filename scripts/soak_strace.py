"""Kill a bridge at every system call of one report, and let writes fail at every place; needs strace.

For each call that changes something the process is killed at its first, second, ... use, on a fresh
ledger and on an old one, until it lives through the report. Then the order of things and the
recovery are checked as in ``tests/e2e/test_kill_points.py``. Exit 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bridge.simulator import Simulator
from tests.e2e.killjudge import judge_task
from tests.e2e.test_kill_points import NO_KEY, Death, Scene, check_order
from tests.process import BridgeProcess
from tests.world import scratch_directory

FATAL = (
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "flock",
    "connect",
    "sendto",
    "recvfrom",
    "write",
)
"""Calls that make something last or tell somebody something. Strace counts each for itself, by thread."""
FAILING = ("pwrite64", "fsync", "fdatasync", "ftruncate")
ERRORS = ("EIO", "ENOSPC")
MOST = 120
"""No call is used more often than this by one report, or something is wrong."""
AT_ONCE = 3


class Case(NamedTuple):
    """One bridge under strace."""

    call: str
    nth: int
    fresh: bool
    error: str = ""
    """Let the call fail instead; the process lives."""
    lasting: bool = False
    """Let all later ones fail too."""

    @property
    def injection(self) -> str:
        """What strace is told."""
        what = f"error={self.error}" if self.error else "signal=SIGKILL"
        return f"{self.call}:{what}:when={self.nth}{'+' if self.lasting else ''}"


class Workshop:
    """Runs cases, each with a ledger, a task and a key of its own, and keeps the score."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._folder = folder
        self._simulator = simulator
        self._numbers = count(1)
        self.score: Counter[str] = Counter()
        self._old = folder / "old"
        self._old.mkdir()
        scene = Scene(self._old, simulator)
        with BridgeProcess(
            *scene.words(scene.ledger), home=folder, environ={"ANTICAPTCHA_CLIENT_KEY": NO_KEY}
        ) as bridge:
            assert "result" in bridge.call("bridge.listReports")
            assert bridge.close().code == 0

    def run(self, case: Case) -> bool:
        """Run one case; True if the injection met something."""
        nth = next(self._numbers)
        folder = self._folder / f"case-{nth}"
        if case.fresh:
            folder.mkdir()
        else:
            shutil.copytree(self._old, folder)
        try:
            return self._run(case, nth, Scene(folder, self._simulator))
        except AssertionError as breach:
            self.score["broken"] += 1
            print(f"BROKEN: {case}: {str(breach)[:1500]}", flush=True)
            return True
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, case: Case, nth: int, scene: Scene) -> bool:
        trace = scene.folder / "trace"
        words = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={case.call}", "-e", "signal=none"]
        words += ["-e", f"inject={case.injection}", sys.executable]
        told = []
        with BridgeProcess(
            *scene.words(scene.ledger),
            home=scene.folder,
            environ={"ANTICAPTCHA_CLIENT_KEY": scene.key(nth)},
            python=words,
        ) as bridge:
            try:
                bridge.send_line(scene.line(nth))
                line = bridge.read_line()
            except BrokenPipeError:
                line = None  # it died before it read
            if line is not None and line.endswith(b"\n"):
                told.append(scene.note(nth, line))
            ended = bridge.close()
        died = ended.code == -9
        assert died or ended.code == 0, f"exit code {ended.code}: {ended.stderr}"
        assert '"internal_error"' not in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
        met = "(INJECTED)" in trace.read_text() if case.error else died
        death = Death(nth, [case.injection], died, scene.find(nth, scene.ledger), scene.calls(nth), told)
        self.score["deaths" if died else "survivals"] += 1
        if case.error:
            self._check_survivor(death)
        else:
            check_order(death)
        if not case.lasting:
            self._check_recovery(death, scene)
        return met

    def _check_survivor(self, death: Death) -> None:
        """A failing disk costs durability, never the report and never the truth."""
        assert not death.died, death
        assert death.told[0].code == 0, death
        assert len(death.calls) == 1, death
        if death.told[0].data["durable"]:
            assert death.row is not None, death
            assert death.row[3] == "accepted", death
        else:
            self.score["undurable"] += 1
        if death.row is not None:
            assert death.row[3] in (None, "accepted"), death

    def _check_recovery(self, death: Death, scene: Scene) -> None:
        if death.told and not death.told[0].data["durable"] and death.row is None:
            self.score["owed and lost"] += 1  # it was told so, and the next bridge cannot know
            return
        (after,) = scene.recover([death])
        assert judge_task(after.row, after.calls, after.told) == [], after
        assert any(call["taken"] for call in after.calls), f"there was time, and nobody did it: {after}"


def cases_of_kills() -> Iterator[Callable[[int], Case]]:
    """Series of cases in which the process is killed; each takes the number of the use."""
    for fresh, call in product((False, True), FATAL):
        yield lambda nth, call=call, fresh=fresh: Case(call, nth, fresh)  # type: ignore[misc]


def cases_of_errors() -> Iterator[Callable[[int], Case]]:
    """Series of cases in which a write fails."""
    for lasting, error, call in product((False, True), ERRORS, FAILING):
        yield lambda nth, c=call, e=error, s=lasting: Case(c, nth, False, e, s)  # type: ignore[misc]


def main() -> int:
    """Run all series; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="at most so long (20)")
    parser.add_argument("--only", choices=("kills", "errors"), help="only this half")
    args = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed: nothing was checked")
        return 1
    until = time.monotonic() + 60.0 * args.minutes
    series: list[Callable[[int], Case]] = []
    if args.only != "errors":
        series += cases_of_kills()
    if args.only != "kills":
        series += cases_of_errors()
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as folder, Simulator() as simulator:
        workshop = Workshop(Path(folder), simulator)
        is_complete = all(run_series(workshop, make, until) for make in series)
    print(", ".join(f"{name} {number}" for name, number in sorted(workshop.score.items())))
    if not is_complete:
        print(f"out of time after {args.minutes} minutes")
    is_good = is_complete and not workshop.score["broken"]
    print("every promise was kept" if is_good else "NOT PROVEN")
    return 0 if is_good else 1


def run_series(workshop: Workshop, make: Callable[[int], Case], until: float) -> bool:
    """Go on to the next use of the call until there is none; False if the time ran out."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(1, MOST, AT_ONCE):
            if time.monotonic() > until:
                return False
            met: list[Any] = list(pool.map(workshop.run, map(make, range(first, first + AT_ONCE))))
            if not all(met):
                case = make(first + met.index(False))
                where = "fresh" if case.fresh else "old"
                print(f"{case.injection} and beyond on a {where} ledger: never reached", flush=True)
                return True
    print(f"BROKEN: {make(1)}: no end after {MOST} places")
    workshop.score["broken"] += 1
    return True


if __name__ == "__main__":
    sys.exit(main())
