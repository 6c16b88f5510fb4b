"""Tests of `bridge.cli.snippet`: what is printed fits its readers, and this very installation."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from bridge.cli import snippet
from tests.process import ROOT
from tests.unit.conftest import Run


@pytest.mark.parametrize("kind", snippet.SNIPPETS)
def test_snippets_hold_absolute_paths(run: Run, kind: str) -> None:
    """Every snippet is printed whole, and starts this very program, with the clients of this very tree."""
    code, out, err = run("snippet", kind)
    assert (code, err) == (0, "")
    assert "$path" not in out
    assert "--sandbox" in out or "andbox: true" in out
    assert kind == "docker" or json.dumps(snippet.find_words()[0])[1:-1] in out
    assert kind not in ("node", "go", "docker") or f"{ROOT}" in out


@pytest.mark.parametrize("words", [["/opt/a b/report-bridge"], ["/usr/bin/python3", "-m", "bridge"]])
def test_snippets_quote_what_they_start(words: list[str]) -> None:
    """Blanks in a path survive in every language."""
    assert json.dumps(words[0]) in snippet.render_snippet("node", words, "/src")
    assert json.dumps(words[0]) in snippet.render_snippet("go", words, "/src")
    ast.parse(snippet.render_snippet("python", words, "/src"))
    checked = subprocess.run(
        ["/bin/sh", "-n"], input=snippet.render_snippet("shell", words, "/src"), text=True, check=False
    )
    assert checked.returncode == 0
    unit = snippet.render_snippet("systemd", words, "/src")
    assert "ExecStart=" + ('"/opt/a b/report-bridge"' if len(words) == 1 else " ".join(words)) in unit


def test_unit_files_have_no_specifier_by_accident() -> None:
    """A percent sign in a path is doubled."""
    assert "/opt/50%%/report-bridge" in snippet.render_snippet("systemd", ["/opt/50%/report-bridge"], "/src")


def test_find_words_prefers_the_command_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Called as an installed command, that very file is named; else the interpreter is."""
    command = tmp_path / "report-bridge"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(command)])
    assert snippet.find_words() == [str(command)]
    monkeypatch.setattr("sys.argv", ["/x/__main__.py"])
    monkeypatch.setattr("sys.executable", str(tmp_path / "none" / "python"))
    assert snippet.find_words()[1:] == ["-m", "bridge"]
