"""Changes the code in small ways and looks whether a test notices: mutation testing of the core rules.

Works in a temporary copy; a mutant exists only in the memory of a forked process. Chance is seeded.
A complete run with ``--write`` renews ``docs/mutants.md`` and keeps the reasons noted there.
Ends with 1 if a module scores below the target or a survivor has no reason.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.mutants import Mutant, apply, find_mutants  # noqa: E402 - the script runs without being installed

ROOT = Path(__file__).resolve().parents[1]
SUMMARY = ROOT / "docs" / "mutants.md"
TARGET = 0.9
_UNIT = [f"tests/unit/test_{name}.py" for name in ("service", "window", "recovery", "agenda", "pauses")]
_LEDGER = ["tests/contract/test_ledger_store.py", "tests/unit/test_recovery.py"]
PLAN = {
    "bridge/reports/verdict.py": ["tests/unit/test_verdict.py", "tests/contract/test_verdict_oracle.py"],
    **{
        f"bridge/reports/{name}.py": sorted(_UNIT, key=lambda path, name=name: f"_{name}." not in path)  # type: ignore[misc]
        for name in ("window", "retry", "pauses", "runway", "tower", "service")
    },
    **{f"bridge/ledger/{name}.py": _LEDGER for name in ("sqlite_steps", "steps", "sqlite_rows")},
}
"""Module -> the tests that must notice, the likeliest first."""
_OPTIONS = ["-x", "-q", "-k", "not postgres", "--tb=no", "-p", "no:cacheprovider"]
_PLUGINS = ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin"]


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
        self._name, self._path, self._code = path.removesuffix(".py").replace("/", "."), path, code

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:  # type: ignore[override]
        if fullname != self._name:
            return None
        loader = _Loader(fullname, str(Path(self._path).resolve()))
        loader.code = self._code
        return ModuleSpec(fullname, loader, origin=loader.path)


def run_tests(path: str, code: CodeType, limit_s: float, log: str = os.devnull) -> bool:
    """Run a module's tests on a mutant in a process of its own; True if all of them pass in time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            sys.meta_path.insert(0, _Finder(path, code))  # type: ignore[arg-type]
            status = int(pytest.main([*_PLUGINS, *_OPTIONS, "--basetemp=scratch", *PLAN[path]]))
            sys.stdout.flush()
        finally:
            os._exit(status)
    until = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > until:
            # The tests' own children go with it: the session is its own process group.
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.005)


def try_mutants(path: str, mutants: Sequence[Mutant]) -> Score:
    """Run the tests on each mutant and tell of those that nothing noticed."""
    source = Path(path).read_text(encoding="utf-8")
    for _ in range(2):  # the first run compiles the tests, the second one is timed
        began = time.monotonic()
        if not run_tests(path, compile(source, path, "exec"), 300.0, "baseline.log"):
            sys.exit(f"{path}: the tests fail without a mutant\n{Path('baseline.log').read_text()[-2000:]}")
    limit_s = 10.0 + 8 * (time.monotonic() - began)
    began = time.monotonic()
    survivors = []
    for mutant in mutants:
        if run_tests(path, compile(apply(source, mutant), path, "exec"), limit_s):
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


def read_reasons(section: str) -> dict[str, str]:
    """The reasons noted in a section, by what names a survivor."""
    rows = (re.split(r" (?<!\\)\| ", line.strip("| ")) for line in section.splitlines() if line[:3] == "| `")
    return {f"{row[0]} {row[1]}": row[2] for row in rows if len(row) == 3 and row[2]}


def write_section(score: Score, reasons: dict[str, str]) -> tuple[str, int]:
    """Render a section; also tells how many survivors have no reason."""
    killed = score.total - len(score.survivors)
    day = datetime.now(UTC).date().isoformat()
    lines = [f"{killed} of {score.total} killed, {score.share:.1%}, on {day}."]
    rows = []
    missing = 0
    for mutant in score.survivors:
        name = f"`{mutant.place}`", f"`{_cell(mutant.what)}`"
        reason = reasons.get(" ".join(name), "")
        missing += not reason
        rows.append(f"| {name[0]} | {name[1]} | {reason} |")
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
    for name in ("bridge", "schemas", "tests"):
        shutil.copytree(ROOT / name, Path(folder, name), ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    os.chdir(folder)
    sys.path[:] = [
        folder,
        *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "scripts"))),
    ]
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HYPOTHESIS_PROFILE": "mutate", "TMPDIR": folder}
    settings.register_profile(
        "mutate",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=50,
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
            score = try_mutants(path, mutants)
            section, missing = write_section(score, read_reasons(sections.get(path, "")))
            failed = failed or missing > 0 or (options.sample is None and score.share < TARGET)
            sections[path] = section
            if options.write:
                write_summary(sections)
        os.chdir(ROOT)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
