"""Tests of snippets and completions: made from the parsers, and fit for their readers."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.cli import completion, snippet
from bridge.cli.commands import COMMANDS, settings_of, shown_flag
from bridge.cli.completion import Command, read_commands
from tests.process import ROOT
from tests.unit.conftest import Run


@pytest.fixture(scope="module")
def commands() -> list[Command]:
    """The command line as a value."""
    return list(read_commands())


@pytest.mark.parametrize("kind", snippet.SNIPPETS)
def test_snippets_hold_absolute_paths(run: Run, kind: str) -> None:
    """Every snippet is printed whole, and starts this very program, with the clients of this very tree."""
    code, out, err = run("snippet", kind)
    assert (code, err) == (0, "")
    assert out == snippet.render_snippet(kind, snippet.find_words(), snippet.find_sources())
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


def test_every_flag_is_read_from_the_parsers(commands: list[Command]) -> None:
    """Each command is there, and each setting's flag with the commands that use it."""
    assert [name for name, _, _ in commands] == list(COMMANDS)
    for name, _, actions in commands:
        flags = {spelled for action in actions for spelled in action.option_strings}
        assert {shown_flag(row) for row in settings_of(name)} <= flags


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completions_name_every_command_and_flag(shell: str, commands: list[Command]) -> None:
    """Nothing that is understood is missing from a completion."""
    script = completion.SHELLS[shell](commands)
    assert script.isascii()
    for name, _, flags in commands:
        assert name in script
        for flag in flags:
            assert all(spelled.lstrip("-") in script for spelled in flag.option_strings)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["his"], ["history"]),
        (["history", "pr"], ["prune"]),
        (["history", "list", "--outcome", "no"], ["not_sent"]),
        (["history", "--form"], ["--format"]),
        (["call", "reportC"], ["reportCorrectRecaptcha"]),
        (["help", "exit"], ["exit-codes"]),
        (["nothing", "x"], []),
        (["serve", "--timeout", ""], []),
    ],
)
def test_bash_completes(words: list[str], expected: list[str], commands: list[Command]) -> None:
    """A real bash answers with the words that fit."""
    bash = shutil.which("bash")
    assert bash is not None
    line = " ".join(f"'{word}'" for word in ["report-bridge", *words])
    script = f"{completion.make_bash(commands)}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
    script += '_report_bridge; printf "%s\\n" "${COMPREPLY[@]}"'
    ended = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == expected
    assert ended.stderr == ""


def test_fish_offers_files_where_one_is_meant(commands: list[Command]) -> None:
    """What takes a file completes to names of files, what takes a number to nothing."""
    lines = completion.make_fish(commands).splitlines()
    offered = {
        line.split(" -l ")[1].split()[0]: line for line in lines if "from serve" in line and " -l " in line
    }
    assert all(" -r -F " in offered[name] for name in ("key-file", "ledger", "log-file"))
    assert " -x -a '' " in offered["timeout"]
    assert " -x -a 'json text auto' " in offered["log-format"]


@pytest.mark.parametrize("word", ["tcsh", "", "--shell"])
def test_another_shell_is_a_usage_mistake(run: Run, word: str) -> None:
    """Shells that are not known end with 2."""
    assert run("completion", word)[0] == 2


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
