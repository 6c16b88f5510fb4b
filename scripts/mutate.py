"""Changes the code in small ways and looks whether a test notices: mutation testing of the core rules.

Works in a temporary copy; a mutant exists only in the memory of a forked process. Chance is seeded.
A complete run with ``--write`` renews ``docs/mutants.md`` and keeps the reasons noted there.
Ends with 1 if a module scores below the target or a survivor has no reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest
from _pytest.main import pytest_runtestloop
from hypothesis import HealthCheck, Phase, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.mutants import Mutant, apply, find_functions, find_mutants

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = ROOT / "docs" / "mutants.md"
TARGET = 0.9
_NAMES = (
    "reporter",
    "lifecycle",
    "window",
    "recovery",
    "admission",
    "attempts",
    "pauses",
    "retry",
    "skew",
    "job",
)
_REPORTS = [f"tests/unit/test_{name}.py" for name in _NAMES]
_LIVES = [
    *_REPORTS,
    "tests/unit/test_advisor.py",
    "tests/contract/test_report_machine.py",
    "tests/contract/test_two_bridges.py",
]
_WORLDS = "tests/simulation/test_simulation.py::"
_LIVES += [f"{_WORLDS}test_every_rule_holds_in_every_world[{first}]" for first in range(51, 101, 10)]
_LIVES += [f"{_WORLDS}test_what_was_found_stays_mended"]
_LEDGER = ["tests/contract/test_ledger_store.py", "tests/unit/test_recovery.py"]
_LEDGER += ["tests/contract/test_ledger_batch.py", "tests/unit/test_ledger_moments.py"]
_LEDGER += ["tests/contract/test_ledger_clocks.py", "tests/contract/test_ledger_counts.py"]
_LEDGER += ["tests/unit/test_rows.py", "tests/unit/test_work.py", "tests/unit/test_sqlite_batch.py"]
PLAN = {
    "bridge/reports/verdict.py": ["tests/unit/test_verdict.py", "tests/contract/test_verdict_oracle.py"],
    "bridge/reports/window.py": _REPORTS,
    "bridge/reports/pauses.py": _REPORTS,
    "bridge/reports/admission.py": _REPORTS,
    "bridge/reports/job.py": _LIVES,
    "bridge/reports/lifecycle.py": _LIVES,
    "bridge/reports/reporter.py": _LIVES,
    "bridge/ledger/sqlite_batch.py": _LEDGER,
    "bridge/ledger/transactions.py": _LEDGER,
    "bridge/ledger/work.py": _LEDGER,
    "bridge/ledger/rows.py": _LEDGER,
}
"""Module -> the tests that must notice."""
_OPTIONS = [
    "-x",
    "-q",
    "-k",
    "not postgres and not any_clock and not on_a_server",
    "--tb=line",
    "-p",
    "no:cacheprovider",
    "--basetemp=scratch",
]
_OPTIONS += ["-p", "pytest_timeout", "--timeout=30", "-p", "_hypothesis_pytestplugin"]
_PLAIN = (str, int, float, bytes, tuple, frozenset, dict, list, type(None))


class Score(NamedTuple):
    """What became of one module's mutants."""

    module: str
    total: int
    survivors: list[Mutant]

    @property
    def share(self) -> float:
        """The part that was noticed."""
        return 1 - len(self.survivors) / self.total if self.total else 1.0


class _Loader(SourceFileLoader):
    """Loads one module from code that is in no file."""

    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class _Finder(PathFinder):
    """Finds the mutant before the module it was made of."""

    def __init__(self, path: str, code: CodeType) -> None:
        self._name, self._path, self._code = _dotted(path), path, code

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:  # type: ignore[override]
        if fullname != self._name:
            return None
        loader = _Loader(fullname, str(Path(self._path).resolve()))
        loader.code = self._code
        return ModuleSpec(fullname, loader, origin=loader.path)


class _Trials:
    """A pytest plugin that, in place of the test loop, runs the loop on mutant after mutant."""

    def __init__(self, path: str, mutants: Sequence[Mutant]) -> None:
        self._path, self._mutants = path, mutants
        self._source = Path(path).read_text(encoding="utf-8")
        self.unnoticed: list[int] = []
        self.limit_s = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try all mutants on the tests that were collected once."""
        timed = Path("durations.json")
        if not _in_child(lambda: _time_tests(session, timed), 600.0):
            sys.exit(f"{self._path}: the tests fail without a mutant")
        # Most mutants fall at once: the quick tests go first.
        durations = json.loads(timed.read_text(encoding="utf-8"))
        self.limit_s = 3.0 + 3 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        session.items.sort(key=lambda item: round(durations[item.nodeid], 1))
        for number, mutant in enumerate(self._mutants):
            code = compile(apply(self._source, mutant), self._path, "exec")
            _KILLER.unlink(missing_ok=True)
            if _in_child(partial(_try_in_place, self._path, code, session), self.limit_s):
                self.unnoticed.append(number)
            elif _KILLER.exists():
                # What noticed this one often notices the next ones, too.
                name = _KILLER.read_text(encoding="utf-8")
                session.items.sort(key=lambda item: item.nodeid != name)
        return True


_KILLER = Path("killer.txt")
"""Where a child leaves the name of the test that failed."""


class _Witness:
    """A pytest plugin that notes which test fails."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            _KILLER.write_text(report.nodeid, encoding="utf-8")


def _loop(session: pytest.Session) -> bool:
    try:
        pytest_runtestloop(session)
    except session.Failed:
        return False
    return not session.testsfailed


def _time_tests(session: pytest.Session, file: Path) -> bool:
    durations: dict[str, float] = dict.fromkeys((item.nodeid for item in session.items), 0.0)

    class Stopwatch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            durations[report.nodeid] += report.duration

    session.config.pluginmanager.register(Stopwatch())
    passed = _loop(session)
    file.write_text(json.dumps(durations), encoding="utf-8")
    return passed


def _try_in_place(path: str, code: CodeType, session: pytest.Session) -> bool:
    """Turn the loaded module into the mutant, whose functions and classes others hold already, and test."""
    module = sys.modules[_dotted(path)]
    fresh: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(code, fresh)
    _patch_names(vars(module), fresh, partial(_rename, module))
    session.config.pluginmanager.register(_Witness())
    return _loop(session)


def _rename(module: ModuleType, name: str, value: Any) -> None:
    old = vars(module)[name]
    for other in [*sys.modules.values()]:
        if getattr(other, "__dict__", {}).get(name, None) is old:
            setattr(other, name, value)


def _patch_names(old: Mapping[str, Any], new: Mapping[str, Any], put: Callable[[str, Any], None]) -> None:
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, property) and isinstance(before, property):
            value, before = value.fget, before.fget
        if isinstance(value, FunctionType) and isinstance(before, FunctionType):
            if value.__module__ == before.__module__:
                before.__code__ = value.__code__
                before.__defaults__, before.__kwdefaults__ = value.__defaults__, value.__kwdefaults__
        elif isinstance(value, type) and isinstance(before, type):
            if value.__module__ == before.__module__ and value is not before:
                _patch_names(vars(before), dict(vars(value)), partial(setattr, before))
        elif not name.startswith("__") and isinstance(value, _PLAIN) and value != before:
            put(name, value)


def _dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def _in_child(work: Callable[[], bool], limit_s: float, log: str = os.devnull) -> bool:
    """Do something in a forked process; True if it says so before it has used so much processor time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 1))
            status = 0 if work() else 1
            sys.stdout.flush()
        finally:
            os._exit(status)
    until = time.monotonic() + 10 * limit_s  # for those that hang without doing anything
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > until:
            # The tests' own children go with it: the session is its own process group.
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.003)


def _run_anew(path: str, code: CodeType) -> bool:
    """Load everything with the mutant in its place and run the tests."""
    sys.meta_path.insert(0, _Finder(path, code))
    return pytest.main([*_OPTIONS, *PLAN[path]]) == 0


def _run_trials(path: str, mutants: Sequence[Mutant], result: Path) -> bool:
    trials = _Trials(path, mutants)
    if pytest.main([*_OPTIONS, *PLAN[path]], plugins=[trials]) != 0:
        return False
    result.write_text(json.dumps([trials.limit_s, trials.unnoticed]), encoding="utf-8")
    return True


def try_mutants(path: str, mutants: Sequence[Mutant]) -> Score:
    """Run the tests on each mutant and tell of those that nothing noticed."""
    began = time.monotonic()
    source = Path(path).read_text(encoding="utf-8")
    result = Path("result.json")
    if not _in_child(lambda: _run_trials(path, mutants, result), 36_000.0, "trials.log"):
        sys.exit(f"{path}: the tests fail without a mutant\n{Path('trials.log').read_text()[-3000:]}")
    limit_s, unnoticed = json.loads(result.read_text(encoding="utf-8"))
    survivors = []
    functions = find_functions(source)
    for mutant in (mutants[number] for number in unnoticed):
        # A patch in place reaches what functions do, but not what was computed while modules were loaded.
        code = compile(apply(source, mutant), path, "exec")
        if mutant.place in functions or _in_child(partial(_run_anew, path, code), limit_s + 10.0):
            survivors.append(mutant)
            print(f"{path}:{mutant.line}: {mutant.place}: {mutant.what}", flush=True)
    score = Score(path, len(mutants), survivors)
    took_s = time.monotonic() - began
    killed = score.total - len(survivors)
    print(f"{path}: {killed}/{score.total} killed, {score.share:.1%}, {took_s:.0f} s", flush=True)
    return score


# --- the summary --------------------------------------------------------------------------------


def read_sections() -> dict[str, str]:
    """The sections of the summary by module."""
    text = SUMMARY.read_text(encoding="utf-8") if SUMMARY.exists() else ""
    parts = re.split(r"^## `(.+)`\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _name(mutant: Mutant) -> str:
    return f"`{mutant.place}` `{_cell(mutant.what)}`"


def read_reasons(section: str) -> dict[str, str]:
    """The survivors of a section by what names them, each with its reason or nothing."""
    rows = (re.split(r" (?<!\\)\| ", line.strip("| ")) for line in section.splitlines() if line[:3] == "| `")
    return {f"{row[0]} {row[1]}": row[2] if len(row) == 3 else "" for row in rows}


def write_section(score: Score, reasons: dict[str, str]) -> tuple[str, int]:
    """Render a section; also tells how many survivors have no reason."""
    killed = score.total - len(score.survivors)
    day = datetime.now(UTC).date().isoformat()
    lines = [f"{killed} of {score.total} killed, {score.share:.1%}, on {day}."]
    rows = []
    missing = 0
    for mutant in score.survivors:
        reason = reasons.get(_name(mutant), "")
        missing += not reason
        rows.append(f"| `{mutant.place}` | `{_cell(mutant.what)}` | {reason} |")
    if rows:
        lines += ["", "| Where | Mutant | Why it survives |", "| --- | --- | --- |", *dict.fromkeys(rows)]
    return "\n".join(lines), missing


def write_summary(sections: dict[str, str]) -> None:
    """Write the whole summary."""
    head = [
        "# Mutants",
        "",
        "Written by `make mutate`; only the last column of the tables is written by hand, and kept.",
        "A mutant is the code with one small change; it is killed if a test of the plan in",
        "`scripts/mutate.py` fails. The target is 90 % for each module.",
        "",
        "| Module | Result |",
        "| --- | --- |",
    ]
    head += [f"| `{path}` | {sections[path].splitlines()[0]} |" for path in PLAN if path in sections]
    body = [f"\n## `{path}`\n\n{sections[path]}" for path in PLAN if path in sections]
    SUMMARY.write_text("\n".join([*head, *body]) + "\n", encoding="utf-8")


# --- the command --------------------------------------------------------------------------------


def _prepare(folder: str) -> None:
    """Copy what the tests need and load, once for all mutants, what no mutant can touch."""
    ignore = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    for name in ("bridge", "schemas", "scripts", "tests"):
        shutil.copytree(ROOT / name, Path(folder, name), ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    sys.path[:] = [
        folder,
        *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "scripts"))),
    ]
    os.environ |= {
        "REPORT_MACHINE_EXAMPLES": "25",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HYPOTHESIS_PROFILE": "mutate",
        "TMPDIR": folder,
    }
    settings.register_profile(
        "mutate",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=20,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )


def choose(modules: Sequence[str], sample: int | None, seed: int) -> Iterator[tuple[str, list[Mutant]]]:
    """The mutants of each module, all or a share of a random sample."""
    found = [(path, mutant) for path in modules for mutant in find_mutants((ROOT / path).read_text("utf-8"))]
    if sample is not None and sample < len(found):
        chosen = set(random.Random(seed).sample(range(len(found)), sample))
        found = [pair for number, pair in enumerate(found) if number in chosen]
    for path in modules:
        yield path, [mutant for owner, mutant in found if owner == path]


def main() -> int:
    """Read the command line and try the mutants; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--module", action="append", choices=[Path(path).stem for path in PLAN])
    parser.add_argument("--sample", type=int, help="try only so many mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="renew docs/mutants.md")
    parser.add_argument(
        "--again", action="store_true", help="after new tests: try only what is noted to have survived"
    )
    parser.add_argument("--list", action="store_true", help="only show the mutants")
    options = parser.parse_args()
    if options.write and options.sample is not None:
        parser.error("a sample is no score to write down")
    modules = [path for path in PLAN if not options.module or Path(path).stem in options.module]
    chosen = list(choose(modules, options.sample, options.seed))
    print(f"seed {options.seed}, {sum(len(mutants) for _, mutants in chosen)} mutants", flush=True)
    if options.list:
        for path, mutants in chosen:
            print(*(f"{path}:{m.line}: {m.place}: {m.what}" for m in mutants), sep="\n")
        return 0
    sections, failed = read_sections(), False
    with tempfile.TemporaryDirectory() as folder:
        _prepare(folder)
        for path, mutants in chosen:
            reasons = read_reasons(sections.get(path, ""))
            tried = [m for m in mutants if _name(m) in reasons] if options.again else mutants
            score = try_mutants(path, tried)._replace(total=len(mutants))
            section, missing = write_section(score, reasons)
            failed = failed or missing > 0 or (options.sample is None and score.share < TARGET)
            sections[path] = section
            if options.write:
                write_summary(sections)
        os.chdir(ROOT)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
