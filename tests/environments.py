"""Environments of other Pythons, made from what is locked as `make` makes its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.process import ROOT

ENVIRON: Final = dict(os.environ)
"""As it was before the tests took it away: installing may need a proxy, a certificate and a cache."""
LOCKED: Final = ("--no-deps", "--require-hashes", "--no-build-isolation")
INSTALL_S: Final = 400
"""How long an installation may take; most of it is the network."""


def make_empty(place: Path, python: str) -> Path:
    """Make an environment with nothing in it, and return its interpreter."""
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True, env=ENVIRON, timeout=INSTALL_S)
    return place / "bin" / "python"


def install_locked(uv: Path, python: Path, names: Sequence[str]) -> None:
    """Install locked files into the environment of an interpreter."""
    for name in names:
        file = ROOT / "requirements" / f"{name}.txt"
        install(uv, "--quiet", "--system-certs", "pip", "install", "--python", python, *LOCKED, "-r", file)


def install(*words: str | Path) -> None:
    """Run an installer; a failure shows what it said."""
    done = subprocess.run(
        words,
        env=ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
