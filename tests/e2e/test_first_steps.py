"""What a newcomer pastes first, as printed: the blocks of the READMEs that set things up, and the snippets.

A ``sh`` block of a README is run in an empty folder, in the README's order; a program whose first line says
``NAME; run it with: COMMAND`` is saved and run. The project lies in ``~/report-bridge``, the command nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from bridge.cli.snippet import render_snippet
from tests.e2e.talk import KEY
from tests.e2e.test_docs import BLOCKS
from tests.environments import ENVIRON
from tests.process import ROOT

LEFT_OUT: Final = shutil.ignore_patterns(".*", "node_modules", "dist", "__pycache__", "*.sqlite3")
INSTALL_S: Final = 280
SAYS: Final = {
    "README.md": (("make",), "exit code 0"),
    "clients/node/README.md": (("node", "npm"), "outcome: 'accepted'"),
    "clients/go/README.md": (("go",), "\naccepted\n"),
}
"""What a page needs, and what is printed in the end."""
INSTALL: Final = "python3 -m venv ~/.report-bridge && ~/.report-bridge/bin/pip install "
"""The line of every page that installs the program; the folder comes behind it."""


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """Make a home with a copy of the project in it, and return its environment; only caches are shared."""
    home = tmp_path / "home"
    shutil.copytree(ROOT, home / "report-bridge", ignore=LEFT_OUT)
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    (home / "bin" / "editor").write_text(f'#!/bin/sh\nprintf %s {KEY} > "$1"\n')
    (home / "bin" / "editor").chmod(0o755)
    folders = [
        folder
        for folder in ENVIRON["PATH"].split(os.pathsep)
        if not (Path(folder) / "report-bridge").exists()
    ]
    old = Path(ENVIRON.get("HOME", "/nonexistent"))
    shared = {
        "PIP_CACHE_DIR": old / ".cache" / "pip",
        "UV_CACHE_DIR": old / ".cache" / "uv",
        "npm_config_cache": old / ".npm",
        "npm_config_userconfig": old / ".npmrc",
        "GOCACHE": old / ".cache" / "go-build",
    }
    # What the checks of the clients have compiled is not compiled again, and what is not imported not at all.
    race = "-race " if shutil.which("cc") else ""
    quick = {"PIP_NO_COMPILE": "1", "GOFLAGS": f"{race}-gcflags=all=-l"}
    own = {"HOME": home, "PATH": os.pathsep.join([str(home / "bin"), *folders]), "EDITOR": "editor"}
    return {
        **{name: str(value) for name, value in shared.items()},
        **ENVIRON,
        **quick,
        **{k: str(v) for k, v in own.items()},
    }


def is_missing(*tools: str) -> bool:
    """Tell whether a tool is missing, so that what needs it is left out; with CI set that is an error."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    assert not missing or not os.environ.get("CI"), f"{missing} missing, and with CI set nothing is left out"
    print(*(f"{tool} is missing, so this was left out" for tool in missing))
    return bool(missing)


def run(script: str, folder: Path, environ: dict[str, str]) -> str:
    """Paste lines into a shell in a folder, and return what it says."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["/bin/sh", "-e"],
        input=script,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=INSTALL_S,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


@pytest.mark.timeout(600)
def test_readmes_and_snippets_can_be_followed(newcomer: dict[str, str], tmp_path: Path) -> None:
    """Whoever pastes the blocks of each README, then the snippet of each client, has made first reports.

    One home for all, since installing takes its time: so nothing may spoil what an earlier page did.
    """
    home = tmp_path / "home"
    command = home / ".report-bridge" / "bin" / "report-bridge"
    built: set[str] = set()
    for page, (tools, words) in SAYS.items():
        if is_missing(*tools):
            continue
        folder = home / "report-bridge" if page == "README.md" else tmp_path / Path(page).parent.name
        folder.mkdir(exist_ok=True)
        script = ""
        for block in BLOCKS:
            named = re.match(r"// (\S+); run it with: (.+)\n", block.text)
            if block.page == page and named:
                (folder / named[1]).write_text(block.text)
                script += named[2] + "\n"
            elif block.page == page and block.kind == "sh":
                script += block.text
        installing = re.findall(rf"^{re.escape(INSTALL)}(\S+).*\n", script, re.MULTILINE)
        assert installing == ["." if page == "README.md" else "~/report-bridge"]
        if page != "README.md":
            # Installed already, from the same folder.
            script = re.sub(rf"^{re.escape(INSTALL)}.*\n", "", script, flags=re.MULTILINE)
        assert words in run(script, folder, newcomer)
        built |= set(re.findall(r"^\(cd .*$", script.replace("~", str(home)), re.MULTILINE))
    again = [line for block in BLOCKS if block.page == "README.md" for line in block.text.splitlines()]
    about_key = [line for line in again if "anticaptcha.key" in line]
    run(
        "\n".join(about_key),
        tmp_path,
        {**newcomer, "EDITOR": "true", "PATH": f"{command.parent}:{newcomer['PATH']}"},
    )
    key = home / ".anticaptcha.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == (KEY, 0o600)
    for kind, name in (("node", "report.mjs"), ("go", "main.go")):
        folder = tmp_path / f"snippet-{kind}"
        text = render_snippet(kind, [str(command)], str(home / "report-bridge"))
        if not is_missing(*SAYS[f"clients/{kind}/README.md"][0]):
            assert f"this as {name}" in text
            # What was built for the page need not be built again.
            lines = [line for line in re.findall(r"^//   (.*)$", text, re.MULTILINE) if line not in built]
            folder.mkdir()
            (folder / name).write_text(text)
            assert run("\n".join(lines), folder, newcomer).splitlines()[-1] == "accepted"


def test_every_readme_begins_with_what_is_run() -> None:
    """The first block of each README is one that a test runs as printed, and names no package of an index."""
    firsts = {block.page: block for block in reversed(BLOCKS) if block.page.endswith("README.md")}
    # Two lines to change in a bot that there is: tests/e2e/test_python_client.py runs them in one.
    assert set(firsts) - {"clients/python/README.md"} == set(SAYS)
    assert {block.kind for page, block in firsts.items() if page in SAYS} == {"sh"}
    for block in BLOCKS:
        assert re.search(r"(pip|npm) install ['\"]?anticaptcha", block.text) is None, block.name


def test_docker_snippet_can_be_followed_to_the_letter(tmp_path: Path) -> None:
    """The sandbox's command becomes the one with a key when what the comment says is done."""
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    text = render_snippet("docker", ["/bin/report-bridge"], str(ROOT))
    found = re.search(r"docker build -f (\S+) -t (\S+) (\S+)", text)
    assert found is not None
    assert Path(found[1]).is_file()
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    printed = run(text, tmp_path, environ).split()
    assert printed[-2:] == [found[2], "--sandbox"]
    _, _, rest = text.partition(" --sandbox\n")
    real = run(re.sub(r"^#(?! )|^#(?=  )", "", rest, flags=re.MULTILINE), tmp_path, environ).split()
    assert real[-3:] == [found[2], "--key-file", "/run/anticaptcha.key"]
    assert f"/path/to/key:{real[-1]}:ro" in real
    assert real[:-5] == printed[:-2]
