"""Tests of `bridge.core.resources`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.core import resources

ROOT = Path(__file__).resolve().parents[2]
PROBE = "from bridge.core import resources\nprint(len(resources.load_json('errors.json')['wire']))\n"


def run_probe(import_path: Path, folder: Path) -> list[int]:
    """Read the error table in a fresh interpreter that imports the package from somewhere else."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROBE],
        cwd=folder,
        env={"PYTHONPATH": str(import_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def expected() -> list[int]:
    """Say what the probe must print."""
    text = (ROOT / "schemas" / "errors.json").read_text(encoding="utf-8")
    return [len(json.loads(text)["wire"])]


def copy_package(target: Path) -> None:
    """Copy the part of the package that reads data files."""
    (target / "core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "core/resources.py"):
        shutil.copy(ROOT / "bridge" / name, target / name)


def test_a_checkout_reads_the_folder_beside_the_package() -> None:
    """A source checkout reads ``schemas/`` beside the package."""
    text = (ROOT / "schemas" / "errors.json").read_text(encoding="utf-8")
    assert json.loads(text) == resources.load_json("errors.json")


def test_an_installed_package_prefers_its_own_folder(tmp_path: Path) -> None:
    """An installed package reads its own folder, not a stranger's beside it."""
    copy_package(tmp_path / "site" / "bridge")
    shutil.copytree(ROOT / "schemas", tmp_path / "site" / "bridge" / "schemas")
    (tmp_path / "site" / "schemas").mkdir()
    (tmp_path / "site" / "schemas" / "errors.json").write_text('{"wire": []}', encoding="utf-8")
    assert run_probe(tmp_path / "site", tmp_path) == expected()


def test_a_missing_file_is_named() -> None:
    """A file that was not packed is named, without the machine's paths."""
    with pytest.raises(FileNotFoundError, match=r"^data file 'none/such\.json' is missing"):
        resources.load_json("none/such.json")
