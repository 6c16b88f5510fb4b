"""What is handed out, built and used as a stranger would: empty environments, empty folders, no variables."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from scripts import build_program
from scripts.build_dist import build_packages
from scripts.tools import find_pythons
from tests.environments import LOCKED, install, install_locked, make_empty
from tests.process import ROOT

PYTHONS: Final = find_pythons()
OLDEST, *OTHERS = [*PYTHONS] if len(PYTHONS) > 1 else [*PYTHONS] * 2
OLDEST_PIP: Final = {"3.11": "22.3", "3.12": "23.2.1", "3.13": "24.2", "3.14": "25.2"}
"""What `ensurepip` of the first release of each Python holds."""
NEWEST_PIP: Final = "26.3"
"""The newest one that this was tried with: what is published later must not decide what a check says."""
UV: Final = Path(sys.executable).with_name("uv")
EPOCH: Final = 1_700_000_000
INFO: Final = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n'
REQUEST: Final = b'{"jsonrpc":"2.0","id":1,"method":"reportIncorrectImageCaptcha","params":{"taskId":123}}\n'


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the packages once for the tests of this module."""
    folder = tmp_path_factory.mktemp("dist")
    build_packages(folder, EPOCH)
    return folder


def run(words: Sequence[str | Path], folder: Path, given: bytes = b"") -> bytes:
    """Run a command with an empty environment and return what it printed."""
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env={}, input=given, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def demand_service(words: Sequence[str | Path], folder: Path) -> None:
    """Demand that a command reports, finds its schemas, keeps a ledger and plays its demonstration."""
    folder.mkdir()
    answer = json.loads(run([*words, "--sandbox"], folder, REQUEST))
    assert answer["result"]["outcome"] == "accepted"
    assert answer["result"]["sandbox"] is True
    assert json.loads(run([*words, "call", "rpc.discover", "--sandbox"], folder))["openrpc"]
    ledger = ["--sandbox", "--ledger", "ledger.sqlite3"]
    call = run([*words, "call", "reportIncorrectImageCaptcha", "taskId=123", "--json", *ledger], folder)
    assert json.loads(call)["result"]["durable"] is True
    assert b"exit code 0" in run([*words, "demo"], folder)
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {"ledger"}


def make_environment(place: Path, python: str, pip: str, locked: Sequence[str]) -> Path:
    """Make an environment as `make` does, but with a certain pip, and return its interpreter.

    Args:
        place: where it shall be.
        python: the interpreter.
        pip: the version of pip.
        locked: the locked files.
    """
    there = make_empty(place, python)
    run_pip(Path(sys.executable), "--python", there, "install", "--no-compile", f"pip=={pip}")
    run_pip(there, "install", *LOCKED, "-r", ROOT / "requirements" / "installer.txt")
    install_locked(there.with_name("uv"), there, locked)
    return there


def run_pip(python: Path, *words: str | Path) -> None:
    """Have an environment's own pip do something."""
    install(python, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *words)


def demand_quick_start(python: Path) -> None:
    """Demand that a life of one answer costs no more processor time than ``import requests``.

    The middle ratio of several, each measured beside the other: that bears a machine whose speed swings.
    """
    commands: tuple[Sequence[str | Path], ...] = (
        [python.parent / "report-bridge", "--ledger", "memory"],
        [python, "-c", "import requests"],
    )
    tries = [[cpu_of(words, python.parent) for words in commands] for _ in range(6)]
    assert statistics.median(first_answer / measure for first_answer, measure in tries) <= 1.0, tries


def cpu_of(words: Sequence[str | Path], folder: Path) -> float:
    """Return the processor seconds of a short life."""
    read, write = os.pipe()
    os.write(write, INFO)
    os.close(write)
    with subprocess.Popen(
        list(map(str, words)), stdin=read, stdout=subprocess.DEVNULL, cwd=folder, env={}
    ) as process:
        os.close(read)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder for an environment, which is too large to be kept."""
    yield tmp_path / "environment"
    shutil.rmtree(tmp_path / "environment", ignore_errors=True)


@pytest.mark.timeout(600)
def test_oldest_pip_installs_the_lock_and_both_packages(built: Path, place: Path, tmp_path: Path) -> None:
    """The oldest pip that came with a Python takes the whole lock, and what it installs serves."""
    python = make_environment(place, PYTHONS[OLDEST], OLDEST_PIP[OLDEST], ["build", "runtime", "dev"])
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    run_pip(python, "install", "--no-deps", wheel)
    run([python, "-m", "pip", "check"], tmp_path)
    demand_service([python.parent / "report-bridge"], tmp_path / "wheel")
    run_pip(python, "install", "--no-deps", "--no-build-isolation", "--force-reinstall", source)
    demand_service([python.parent / "report-bridge"], tmp_path / "source")
    demand_quick_start(python)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", OTHERS)
def test_wheel_serves_and_starts_quickly_on_every_other_python(
    version: str, built: Path, place: Path, tmp_path: Path
) -> None:
    """With nothing but what is locked the wheel serves and starts in time; one by the newest pip."""
    (wheel,) = built.glob("*.whl")
    if version == OTHERS[-1]:
        python = make_environment(place, PYTHONS[version], NEWEST_PIP, ["build", "runtime"])
        run_pip(python, "install", "--no-deps", wheel)
        run([python, "-m", "pip", "check"], tmp_path)
    else:
        python = make_empty(place, PYTHONS[version])
        install_locked(UV, python, ["runtime"])
        install(UV, "--quiet", "pip", "install", "--python", python, "--no-deps", wheel)
    demand_service([python.parent / "report-bridge"], tmp_path / "wheel")
    demand_quick_start(python)


def test_packages_are_reproducible(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built again elsewhere, with another hash seed and another mask, every byte is the same."""
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o077)
    try:
        again = build_packages(tmp_path / "again", EPOCH)
    finally:
        os.umask(mask)
    assert len(again) == 2
    assert {path.name: path.read_bytes() for path in built.iterdir()} == {
        path.name: path.read_bytes() for path in again
    }


def test_wheel_holds_what_it_should(built: Path) -> None:
    """The wheel has the program with its tables, and metadata that a package index can show."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        told = archive.read(metadata).decode()
    assert {"bridge/schemas/errors.json", "bridge/ledger/sqlite.sql", "bridge/cli/main.py"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "bridge",
        "anticaptcha_report_bridge",
    }
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    assert re.findall(r"^Provides-Extra: (.*)$", told, re.MULTILINE) == ["fleet"]
    assert "pgserver" not in told
    assert {f"Classifier: Programming Language :: Python :: {version}" for version in PYTHONS} <= set(
        told.splitlines()
    )
    links = re.findall(r"\]\(([^)]+)\)", told)
    assert links
    assert all(link.startswith("https://") for link in links)


def test_source_archive_holds_all_that_its_documents_name(built: Path) -> None:
    """Every file that README and CONTRIBUTING lead to is there, with clients, Makefile and lock."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {str(folder) for name in names for folder in Path(name).parents}
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("https://") or link.rstrip("/") in names | folders, link
    assert {"Makefile", "requirements/dev.txt", "clients/go/bridge.go", "clients/node/package.json"} <= names
    assert not [name for name in names if re.search(r"__pycache__|\.sqlite3|node_modules|\.venv|^\.ci", name)]


def test_container_copies_the_program_and_nothing_else() -> None:
    """The one folder that the container file copies is the one that is let in."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^COPY (\S+) /opt/report-bridge$", text, re.MULTILINE) == let_in == ["dist/program"]


def test_locked_files_are_installed_as_they_are() -> None:
    """Wherever a locked file is installed, no dependency is resolved and every hash is compared."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert " ".join(("LOCKED := install", *LOCKED)) in text
    installs = re.findall(r"\t(.*) -r requirements/\w+\.txt", text)
    assert installs == ["$(PIP) $(LOCKED)", *["$(UV) $(LOCKED)"] * 3]
    assert LOCKED == build_program.LOCKED


def ask_make(folder: Path, question: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run one line of shell with the variables of the Makefile, in the environment of these tests."""
    makefile = folder / "Makefile"
    makefile.write_text(f"include Makefile\n.PHONY: ask\nask:\n\t{question}\n", encoding="utf-8")
    return subprocess.run(
        ["make", "-s", "-C", ROOT, "-f", makefile, "ask", f"VENV={sys.prefix}"],
        env={"PATH": os.defpath, "HOME": str(folder), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("named", ["UV_PYTHON=/nowhere/python", "UV_CACHE_DIR=/dev/null/cache"])
def test_set_up_keeps_to_its_own_environment(tmp_path: Path, named: str) -> None:
    """Another Python that a variable names is left alone; a cache that cannot be made is done without."""
    name, _, value = named.partition("=")
    done = ask_make(tmp_path, "$(UV) check", **{name: value})
    assert done.returncode == 0, done.stderr


def test_set_up_is_not_led_elsewhere(tmp_path: Path) -> None:
    """Whoever installs into a folder of their own by pip, or holds uv to a version, gets the same set-up."""
    file = tmp_path / ".config" / "uv" / "uv.toml"
    file.parent.mkdir(parents=True)
    file.write_text('required-version = "==0.0.1"\n', encoding="utf-8")
    told = ask_make(
        tmp_path, "$(PIP) config list; $(UV) check", PIP_TARGET="/elsewhere", PIP_PREFIX="/elsewhere"
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "elsewhere" not in told.stdout


@pytest.mark.parametrize("way", ["variable", "file"])
def test_set_up_asks_the_index_that_pip_was_told_of(tmp_path: Path, way: str) -> None:
    """Who has only a mirror, and told pip of it by variable or file, gets everything from there."""
    mirror = "http://127.0.0.1:9/simple"
    env = {"UV_HTTP_RETRIES": "0"}
    if way == "variable":
        env["PIP_INDEX_URL"] = mirror
    else:
        (tmp_path / ".pip").mkdir()
        (tmp_path / ".pip" / "pip.conf").write_text(f"[global]\nindex-url = {mirror}\n", encoding="utf-8")
    done = ask_make(tmp_path, "$(UV) install --dry-run --no-cache --no-deps --reinstall idna", **env)
    assert done.returncode != 0
    assert f"{mirror}/idna/" in done.stderr


def test_a_python_that_is_too_old_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """What was named as Python and is none from 3.11 on is called so, not blamed for a missing package."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "python-is-there", f"PYTHON={python}", f"VENV={tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"Python 3.11 or newer is needed (not {python})" in done.stderr


@pytest.mark.parametrize(
    ("command", "asked", "stays"),
    [
        ("exit 0", "", True),
        ("exit 127", "", False),
        ("exit 0", "(3, 12)", False),
        ("exit 0", "(3, 11)", True),
    ],
    ids=["sound", "moved", "another Python", "the same Python"],
)
def test_an_environment_that_does_not_fit_is_made_again(
    tmp_path: Path, command: str, asked: str, stays: bool
) -> None:
    """One that was moved, or is of another Python than the one that is asked for, does not count as made."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".runtime").touch()
    for name, line in (
        ("report-bridge", command),
        ("python", "echo '(3, 11)'"),
        ("asked", f"echo '{asked}'"),
    ):
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        file.chmod(0o755)
    words = [f"PYTHON={tmp_path}/bin/asked"] if asked else []
    subprocess.run(
        ["make", "-s", "-C", ROOT, "help", f"VENV={tmp_path}", *words],
        env={"PATH": os.defpath},
        capture_output=True,
        check=True,
    )
    assert (tmp_path / ".runtime").exists() == stays


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_what_the_checks_lack_is_named(tmp_path: Path, ci: str, code: int) -> None:
    """Where there is one Python and no other tool, the check says so, and with CI set it fails."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "tools.py"],
        env={"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path), "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    missing = done.stdout.splitlines()[-1]
    mine = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert f"check: {mine} (" in done.stdout
    assert mine not in missing
    assert missing.endswith("a browser, Node, npm, Go")
    assert done.returncode == code
    assert ("at least two Pythons" in done.stderr) == bool(code)
