"""Every block of the documents is executed and compared, or is named here with the reason why it is not.

In a ``console`` block a line that begins with ``$`` is a command and what follows is its whole output;
``…`` stands for anything, alone on a line for any lines; ``[exit code N]`` is for codes that are not 0.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from bridge.cli.commands import COMMANDS, make_parser
from bridge.simulator import Simulator
from tests.e2e.talk import KEY, Talk, demand
from tests.process import ROOT

PAGES: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(path for path in (ROOT / "clients").rglob("*.md") if "node_modules" not in path.parts),
        *(ROOT / "tests" / "vectors").glob("*.md"),
        *(ROOT / "bench").glob("*.md"),
    ]
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it is, for the name of a test."""
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """How it is checked; see `CHECKS`."""
        return self.language or ("transcript" if self.text.startswith("--> ") else "plain")


def read_blocks() -> list[Block]:
    """Return the fenced blocks of all pages."""
    blocks = []
    for path in PAGES:
        inside: list[str] | None = None
        language, start = "", 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.lstrip().startswith("```"):
                if inside is not None:
                    inside.append(line)
            elif inside is None:
                inside, language, start = [], line.strip().removeprefix("```"), number
            else:
                blocks.append(
                    Block(path.relative_to(ROOT).as_posix(), start, language, "\n".join(inside) + "\n")
                )
                inside = None
        assert inside is None, f"{path} has a block without an end"
    return blocks


TUTORIAL: Final = "docs/tutorial.md"
BLOCKS: Final = read_blocks()

NOT_RUN: Final = {
    ("docs/operations.md", "docker run"): "needs a container engine",
    ("docs/operations.md", "/var/log/report-bridge.log {"): "configuration of logrotate",
    ("docs/ledger.md", "reports, methods -->"): "a drawing",
    ("docs/simulation.md", "make simulate SEED"): "tests/simulation runs the same, and some take minutes",
    ("docs/performance.md", "make bench"): "measures for minutes, and wants the machine for itself",
    ("docs/simulator.md", "report-bridge simulate ["): "a synopsis; its flags are looked up in the parser",
    ("clients/python/README.md", "bridge = report_bridge"): "test_python_client.py does the same",
    (
        "docs/shipping.md",
        "python3 -m venv",
    ): "installs from the package index; test_packages.py installs the packages",
    ("docs/shipping.md", "python3 -m pip install --target"): "as above",
    ("docs/shipping.md", "npm install"): "tests/dist/test_bots.py installs the same tarballs",
}
"""Blocks that are not executed: page and first words, and why."""


def reason_not_run(block: Block) -> str | None:
    """Return why a block is not executed; None if it is."""
    for (page, start), reason in NOT_RUN.items():
        if block.page == page and block.text.startswith(start):
            return reason
    if block.page == "docs/architecture.md" and block.kind == "plain":
        return "a drawing"
    if block.page.endswith("README.md"):
        return "installs; test_first_steps.py does so in an empty folder"
    return None


# --- console ---------------------------------------------------------------------------------


class Step(NamedTuple):
    """A command of a console block and what it has to print."""

    command: str
    output: str
    exit_code: int


def read_steps(text: str) -> list[Step]:
    """Split a console block into its commands."""
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], "", 0))
        elif found := re.fullmatch(r"\[exit code (\d+)\]", line):
            steps[-1] = steps[-1]._replace(exit_code=int(found[1]))
        else:
            steps[-1] = steps[-1]._replace(output=steps[-1].output + line + "\n")
    return steps


def fits(shown: str, real: str) -> bool:
    """Tell whether an output is what a block shows."""
    pattern = ""
    for line in shown.splitlines():
        if line == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(map(re.escape, line.split("…"))) + "\n"
    return re.fullmatch(pattern, real) is not None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make an empty working directory with what the documents take for granted, and the command beside it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command = Path(sys.executable).parent / "report-bridge"
    if command.exists():
        (programs / "report-bridge").symlink_to(command)
    else:
        # An environment in which the tree was not installed: the same program by way of -m.
        (programs / "report-bridge").write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m bridge "$@"\n'
        )
        (programs / "report-bridge").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "reportIncorrectImageCaptcha",
        "params": {"taskId": 123},
    }
    (work / "requests.jsonl").write_text(json.dumps(request) + "\n")
    return work


def run_console(block: Block, folder: Path) -> None:
    """Run the commands of a block, one after another, and compare."""
    environ = {
        "HOME": str(folder.parent),
        "PATH": f"{folder.parent / 'bin'}:/usr/bin:/bin",
        "LANG": "C",
    }
    for step in read_steps(block.text):
        done = subprocess.run(
            ["/bin/sh", "-c", step.command],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        output = done.stdout.decode()
        assert done.returncode == step.exit_code, f"{step.command}\n{output}"
        assert fits(step.output, output), f"{step.command}\nprints\n{output}\nand not\n{step.output}"


# --- transcripts -----------------------------------------------------------------------------

STABLE: Final = frozenset(
    {"jsonrpc", "id", "status", "taskId", "outcome", "method", "code", "kind", "message", "errorId", "rule",
     "pointer", "sentence", "errorCode", "state", "name", "protocol", "framing", "nextCursor", "scope"}
)  # fmt: skip
"""Members whose values are told, not only shown as an example."""


def differences(shown: Any, real: Any, at: str = "") -> list[str]:
    """Say where an answer is not like the one shown: other members, other types, other stable values."""
    member = at.rpartition("/")[2]
    if isinstance(shown, dict) and isinstance(real, dict):
        if member == "codes":
            return []
        wrong = [f"{at}/{name}" for name in shown.keys() ^ real.keys()]
        return wrong + [
            line
            for name in shown.keys() & real.keys()
            for line in differences(shown[name], real[name], f"{at}/{name}")
        ]
    if isinstance(shown, list) and isinstance(real, list):
        return differences(shown[0], real[0], f"{at}/0") if shown and real else []
    if member in STABLE and "/ledger/" not in at:
        return [] if shown == real else [f"{at}: {shown!r} is shown, {real!r} came"]
    if shown is None or real is None:
        return []
    number = (int, float)
    same = type(shown) is type(real) or (
        isinstance(shown, number) and isinstance(real, number) and bool not in (type(shown), type(real))
    )
    return [] if same else f"{at}: {shown!r} is shown, {real!r} came".splitlines()


def run_transcript(block: Block, folder: Path) -> None:
    """Say to a bridge what the block says, and compare the answers."""
    key_file = folder / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    with Simulator() as simulator:
        simulator.add_task("image", task_id=7654322, age_seconds=100)
        flags = ["--url", simulator.base_url, "--key-file", str(key_file)]
        with Talk(*flags, home=folder.parent, cwd=folder) as talk:
            if "bridge.getReport" in block.text:
                talk.call("reportIncorrectRecaptcha", {"taskId": 7654321})
            asked = 0
            for line in block.text.splitlines():
                message = json.loads(line[4:])
                if line.startswith("--> "):
                    asked += "id" in message
                    talk.send_line(json.dumps(_present(message)).encode())
                else:
                    assert line.startswith("<-- "), line
                    assert differences(message, talk.read_message()) == []
                    asked -= 1
            assert asked == 0, "a request is shown without its answer"
            ended = talk.close()
            assert ended.stdout == b""
            assert ended.code == 0


def _present(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params", {})
    if "completedAt" in params:
        params["completedAt"] = int(time.time()) - 5
    return message


# --- other kinds -----------------------------------------------------------------------------


def check_json(block: Block, _folder: Path) -> None:
    """Hold a JSON block against the schema of what it shows."""
    value = json.loads(block.text)
    assert block.page == "docs/simulator.md", "say which schema blocks of this page are held against"
    demand("scenario", value)


def run_python(block: Block, folder: Path) -> None:
    """Run a block of Python; with warnings as errors, as all tests."""
    words = [sys.executable, "-W", "error", "-c", block.text.replace("            ...", "", 1)]
    environ = {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    text = block.text
    if "deliveries(" in text:
        # What the dots stand for: somebody reports the task.
        text = re.sub(r"^( *)\.\.\. .*$", rf"\1{_REPORT}", text, flags=re.MULTILINE)
        words[-1] = text
    subprocess.run(words, env=environ, cwd=folder, timeout=60, check=True)


_REPORT: Final = (
    "import requests; requests.post(simulator.base_url + '/reportIncorrectImageCaptcha', "
    f"json={{'clientKey': '{KEY}', 'taskId': task_id}}, timeout=30)"
)


def check_shell(block: Block, _folder: Path) -> None:
    """Have a shell read a block without running it; flags of our command have to exist."""
    subprocess.run(["bash", "-n"], input=block.text.encode(), check=True, timeout=30)
    check_flags(block.text)


def check_ini(block: Block, _folder: Path) -> None:
    """Parse a unit of systemd, in which a name may come twice, or a program of supervisord."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(block.text)
    (section,) = parser.sections()
    assert {"Service": "ExecStart", "program:bot": "command"}[section] in parser[section]


def check_example(block: Block, _folder: Path) -> None:
    """An example for another program: `make dist` reads or runs it, by its language."""
    suite = (ROOT / "tests" / "dist" / "test_supervisors.py").read_text(encoding="utf-8")
    assert f'"{block.language}")' in suite


def check_names(block: Block, _folder: Path) -> None:
    """Demand that the client's sources know every name that an example uses of it; its own tests run it."""
    folder = ROOT / "clients" / ("go" if block.language == "go" else "node")
    endings = (".go",) if block.language == "go" else (".ts",)
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.suffix in endings and "node_modules" not in path.parts and "test" not in path.parts
    )
    used = set(re.findall(r"\b(?:bridge|Bridge|reportbridge)\.(\w+)", block.text))
    used |= set(re.findall(r"[{,]\s*(\w+):", block.text))
    assert used
    assert {name for name in used if re.search(rf"\b{name}\b", sources) is None} == set()


def check_plain(block: Block, _folder: Path) -> None:
    """A plain block is not run, for a reason that is written down; flags in it have to exist."""
    assert reason_not_run(block) is not None, "name the block in NOT_RUN, or make it a console block"
    check_flags(block.text)


CHECKS: Final[dict[str, Callable[[Block, Path], None]]] = {
    "console": run_console,
    "transcript": run_transcript,
    "json": check_json,
    "python": run_python,
    "sh": check_shell,
    "ini": check_ini,
    "cjs": check_example,
    "yaml": check_example,
    "js": check_names,
    "ts": check_names,
    "go": check_names,
    "plain": check_plain,
}


def check_flags(text: str) -> None:
    """Demand that every flag after our command is one of that command."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"[|;&]", line):
            words = part.split("#")[0].split()
            starts = [at for at, word in enumerate(words) if word.endswith("report-bridge")]
            if not starts:
                continue
            rest = words[starts[-1] + 1 :]
            command = rest[0] if rest and rest[0] in COMMANDS else "serve"
            known = {flag for action in make_parser(command)._actions for flag in action.option_strings}
            used = {found[0] for word in rest for found in re.finditer(r"--[a-z][a-z-]*", word)}
            assert used <= known, f"{command} does not know {used - known}"


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.page != TUTORIAL], ids=lambda block: block.name
)
def test_block_is_true(block: Block, folder: Path) -> None:
    """What a block shows is what happens."""
    CHECKS[block.kind](block, folder)


def test_tutorial_can_be_followed(folder: Path) -> None:
    """Its programs are saved and its commands run, in their order and in one folder, as printed.

    What installs is one for one in other pages, where test_first_steps.py runs it.
    """
    home = folder.parent
    (home / "report-bridge").symlink_to(ROOT)
    (home / "bin" / "python3").symlink_to(sys.executable)
    for block in BLOCKS:
        if block.page == TUTORIAL and block.kind == "console":
            run_console(block, folder)
        elif block.page == TUTORIAL and block.kind == "python":
            (folder / block.text.split()[1]).write_text(block.text)
        elif block.page == TUTORIAL:
            check_shell(block, folder)
            others = [other.text for other in BLOCKS if other.page.endswith("README.md")]
            for line in re.sub(r" +#.*", "", block.text).splitlines():
                assert "doctor" in line or any(line in other for other in others), line


def test_most_blocks_are_executed() -> None:
    """The pages are found, and what is not executed is the listed exception."""
    executed = [block for block in BLOCKS if block.kind in ("console", "transcript", "python", "json")]
    print(f"{len(executed)} of {len(BLOCKS)} blocks are executed")
    assert len(executed) >= 20
    for (page, start), reason in NOT_RUN.items():
        assert reason
        assert any(block.page == page and block.text.startswith(start) for block in BLOCKS), (page, start)


def test_every_sh_block_has_its_reason() -> None:
    """A shell block without compared output says here why."""
    sh = [block for block in BLOCKS if block.kind == "sh" and block.page != TUTORIAL]
    assert [block.name for block in sh if reason_not_run(block) is None] == []


@pytest.mark.parametrize(
    ("shown", "real", "is_fit"),
    [
        ("a…c\n", "abc\n", True),
        ("a…c\n", "a\nc\n", False),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n", "a\nb\n", False),
        ("", "x\n", False),
        ("…\n", "", True),
    ],
)
def test_dots_stand_for_anything(shown: str, real: str, is_fit: bool) -> None:
    """Three dots stand for a part of one line, alone on a line for any lines, and nothing else may differ."""
    assert fits(shown, real) is is_fit


def test_differences_of_answers_are_found() -> None:
    """Missing members, other types and other values of stable members are told."""
    shown = {"id": 1, "result": {"elapsedMs": 5, "durable": True, "hints": [{"kind": "a"}]}}
    assert differences(shown, {"id": 1, "result": {"elapsedMs": 7.5, "durable": False, "hints": []}}) == []
    assert differences(shown, {"id": 2, "result": shown["result"]})
    assert differences(shown, {"id": 1, "result": {"elapsedMs": "7", "durable": True, "hints": []}})
    assert differences(shown, {"id": 1, "result": {"elapsedMs": 7, "hints": []}})
    assert differences(shown, {"id": 1, "result": {**shown["result"], "hints": [{"kind": "b"}]}})  # type: ignore[dict-item]


# --- words and links -------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    heads = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link leads to a file of the tree, and every fragment to a heading."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        found = page if not name else (page.parent / name)
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(found), f"{page.name} links to {target}"


def test_spelling(tmp_path: Path) -> None:
    """The pages, every help text, the error table and the settings have no known misspelling."""
    codespell = shutil.which(
        "codespell", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert codespell, "codespell is one of the development requirements"
    helps = tmp_path / "help.txt"
    helps.write_text("\n".join(make_parser(name).format_help() for name in COMMANDS), encoding="utf-8")
    files = [*PAGES, helps, ROOT / "schemas", ROOT / "bridge", ROOT / "Makefile", ROOT / "Containerfile"]
    words = [codespell, "--skip", "*.pyc,__pycache__", "--ignore-words-list", "iif", *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout + done.stderr == ""
    helps.write_text("The procces recieves\n")
    assert subprocess.run([codespell, str(helps)], capture_output=True, timeout=60, check=False).returncode
