"""The program without Python as `make dist` left it, and the hands to use it as a stranger would."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.process import ROOT

DIST: Final = ROOT / "dist"
FOLDER: Final = DIST / "program"
PROGRAM: Final = FOLDER / "report-bridge"
WHEEL: Final = ROOT / ".venv" / "program" / "bin" / "report-bridge"
"""The same version as a wheel, in the environment that was packed."""
REPORT: Final = b'{"jsonrpc":"2.0","id":1,"method":"reportIncorrectImageCaptcha","params":{"taskId":123}}\n'


def run(
    words: Sequence[str | Path], folder: Path, given: bytes = b"", environ: Mapping[str, str] | None = None
) -> bytes:
    """Run a command with an environment as good as empty, and return what it printed."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        env={"HOME": str(folder), **(environ or {})},
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout


def report(words: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """Report in the sandbox and return the result."""
    result: dict[str, Any] = json.loads(run([*words, "--sandbox"], folder, REPORT))["result"]
    return result


def link_tools(place: Path, *names: str) -> str:
    """Make a folder that has these commands and no other, and return it as a PATH."""
    place.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None, name
        (place / name).symlink_to(Path(found).resolve())
    return str(place)
