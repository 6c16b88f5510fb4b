"""Finds the Pythons that the package's classifiers promise, and says which are missing.

Printed at the start of `make check`; with `CI` set, fewer than two are an error, so that none is left out
unseen. Tests and `make check-pythons` run on what `find` returns.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_TELL = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"


def promised() -> list[str]:
    """Return the versions that the classifiers name, such as ``3.11``, oldest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)


@cache
def find() -> Mapping[str, str]:
    """Return version and path of one interpreter for each promised version that is there.

    This very interpreter comes first, then those on the search path, then those of pyenv.
    """
    found = {_of_this(): sys.executable}
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


def _of_this() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _candidates(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        yield Path(folder, f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)


def main() -> int:
    """Print one path a line with ``--paths``, else a sentence; returns the exit code."""
    found = find()
    if "--paths" in sys.argv[1:]:
        print(*found.values(), sep="\n")
        return 0
    missing = [version for version in promised() if version not in found]
    print(f"check: Python {', '.join(found)} found" + (f"; {', '.join(missing)} not" if missing else ""))
    if os.environ.get("CI") and len(found) < 2:
        print("check: with CI set at least two of them must be there", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
