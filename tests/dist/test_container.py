"""The container, or what stands for it where no engine answers: the folder alone in an empty root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from scripts.build_dist import IMAGE, find_engine
from tests.dist.program import FOLDER, REPORT

PLACE: Final = "opt/report-bridge"


def find_c_library() -> set[Path]:
    """Every file outside the folder that `ldd` names for a file of it: the C library and its loader."""
    binaries = [path for path in FOLDER.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"]
    # As the program's own loader does: the libraries of the folder come first.
    environ = {**os.environ, "LD_LIBRARY_PATH": f"{FOLDER / 'lib'}:{FOLDER / 'lib' / 'psycopg_binary.libs'}"}
    said = subprocess.run(
        ["ldd", *binaries], env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert "not found" not in said
    found = {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE)}
    return {path for path in found if not path.is_relative_to(FOLDER)}


@pytest.fixture
def container(tmp_path: Path) -> list[str]:
    """The words that start the program in its container, or in a root that has nothing else."""
    engine = find_engine()
    if engine is not None:
        return [engine, "run", "-i", "--rm", "--init=false", "--read-only", IMAGE]
    libraries = find_c_library()
    assert {path.name for path in libraries} <= {
        *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2"),
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    for path in libraries:
        copy = tmp_path / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), copy)
    shutil.copytree(FOLDER, tmp_path / PLACE)
    # What every container has beside the image, as far as the program asks for it.
    for name in ("proc", "dev", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "dev" / "null").touch()
    space = ["--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc=/proc"]
    return ["unshare", *space, f"--root={tmp_path}", "--wd=/", f"/{PLACE}/report-bridge"]


def test_runs_with_nothing_but_the_c_library(container: list[str]) -> None:
    """Without Python, shell and /etc it reports in the sandbox, and plays its demonstration."""
    words = [*container, "--sandbox", "--ledger", "memory"]
    done = subprocess.run(words, input=REPORT, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["outcome"] == "accepted"
    done = subprocess.run([*container, "demo"], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.stdout.decode().endswith("ended with exit code 0.\n"), done.stderr
