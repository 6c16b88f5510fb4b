"""What `make dist` packs of the clients; `scripts/check_clients.sh` installs and uses the packages."""

from __future__ import annotations

import filecmp
import shutil
import zipfile
from pathlib import Path

import pytest

from bridge import __version__
from scripts import dist_clients
from tests.process import ROOT


def test_go_module_is_whole_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zip has one folder with the sources of the module, no test, and no time of its own."""
    first = dist_clients.pack_go(tmp_path, 1_700_000_000)
    (tmp_path / "again").mkdir()
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert filecmp.cmp(first, dist_clients.pack_go(tmp_path / "again", 1_700_000_000), shallow=False)
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert {entry.date_time[0] for entry in archive.infolist()} == {2023}
    sources = {path.name for path in (ROOT / "clients" / "go").glob("*.go") if "_test" not in path.name}
    assert {f"reportbridge/{name}" for name in sources | {"go.mod", "README.md", "LICENSE"}} <= set(names)
    assert "reportbridge/examples/bot/main.go" in names
    assert [name for name in names if "interop" in name or "_test" in name] == []
    assert first.name == f"anticaptcha-report-bridge-go-{__version__}.zip"


def test_without_npm_its_package_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zip and Python file are written, and one line says what is missing."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    built = dist_clients.build_clients(tmp_path / "dist")
    assert [path.suffix for path in built] == [".zip", ".py"]
    assert all(path.exists() for path in built)
    assert capsys.readouterr().out == "npm package: not built, since npm is missing\n"
