"""What is handed out, built and used as a stranger would: empty environments, empty folders, no variables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from scripts.build_dist import build_packages
from scripts.dist_pyz import NAME, NOT_BUNDLED, read_pins
from tests.process import ROOT

ENVIRON: Final = dict(os.environ)
"""As it was before the tests took it away: installing may need a proxy, a certificate and pip's cache."""
EPOCH: Final = 1_700_000_000
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
    assert json.loads(run([*words, "schema", "report.params"], folder))["required"] == ["taskId"]
    ledger = ["--sandbox", "--ledger", "ledger.sqlite3"]
    call = run([*words, "call", "reportIncorrectImageCaptcha", "taskId=123", "--json", *ledger], folder)
    assert json.loads(call)["result"]["durable"] is True
    assert b"exit code 0" in run([*words, "demo"], folder)
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {"ledger"}


@pytest.mark.timeout(600)
def test_wheel_and_source_archive_work_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """Installed with the locked requirements and nothing else, both packages serve."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", place], check=True, env=ENVIRON, timeout=120)
    python, command = place / "bin" / "python", place / "bin" / "report-bridge"

    def install(*words: str | Path) -> None:
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install"]
        subprocess.run(
            [str(word) for word in (*pip, *words)], check=True, cwd=tmp_path, env=ENVIRON, timeout=400
        )

    requirements = ROOT / "requirements"
    install("--require-hashes", "-r", requirements / "build.txt")
    install("--require-hashes", "--no-build-isolation", "-r", requirements / "runtime.txt")
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    install("--no-deps", wheel)
    run([python, "-m", "pip", "check"], tmp_path)
    demand_service([command], tmp_path / "wheel")
    install("--no-deps", "--no-build-isolation", "--force-reinstall", source)
    demand_service([command], tmp_path / "source")


@pytest.mark.timeout(300)
def test_one_file_works_without_any_package(built: Path, tmp_path: Path) -> None:
    """The one-file program serves on a Python that has nothing but its standard library."""
    demand_service([sys.executable, "-I", "-S", built / NAME], tmp_path / "one")


def test_one_file_trusts_the_certificates_inside(built: Path, tmp_path: Path) -> None:
    """The certificates are read from the archive; nothing is copied out of it."""
    program = (
        f"import sys; sys.path.insert(0, {str(built / NAME)!r})\n"
        "import tempfile; tempfile.mkstemp = tempfile.mkdtemp = None\n"
        "from requests.certs import where\n"
        "from bridge.upstream.connect import make_tls_context\n"
        "print(where(), make_tls_context(where()).cert_store_stats()['x509_ca'])"
    )
    path, count = run([sys.executable, "-I", "-S", "-c", program], tmp_path).decode().split()
    assert path == str(built / NAME / "certifi" / "cacert.pem")
    assert int(count) > 100


def test_one_file_holds_what_it_should(built: Path) -> None:
    """Sources with their bytecode, the tables, a licence for all that is bundled, and nothing compiled."""
    with zipfile.ZipFile(built / NAME) as archive:
        names = archive.namelist()
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time[0] for entry in archive.infolist()} == {2023}
    assert names == sorted(names)
    sources = {name for name in names if name.endswith(".py")}
    assert {f"{name}c" for name in sources} == {name for name in names if name.endswith(".pyc")}
    assert {"bridge/schemas/errors.json", "bridge/ledger/sqlite.sql", "__main__.py"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".pyd"))]
    licensed = {name.split("/")[1] for name in names if name.startswith("licenses/")}
    bundled = {f"{name}-{version}" for name, version in read_pins().items() if name not in NOT_BUNDLED}
    assert licensed == bundled | {"anticaptcha-report-bridge"}
    assert os.access(built / NAME, os.X_OK)
    told = json.loads(run([sys.executable, "-I", "-S", built / NAME, "version", "--json"], built))
    assert told["libraries"]["requests"] == read_pins()["requests"]


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
    assert len(again) == 3
    assert {path.name: path.read_bytes() for path in built.iterdir()} == {
        path.name: path.read_bytes() for path in again
    }


def test_wheel_and_source_archive_hold_what_they_should(built: Path) -> None:
    """The wheel has the program with its tables; the source archive what it is built from."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"bridge/schemas/errors.json", "bridge/ledger/sqlite.sql", "bridge/cli/main.py"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "bridge",
        "anticaptcha_report_bridge",
    }
    assert [name for name in names if name.endswith("/licenses/LICENSE")]
    listing = subprocess.run(
        ["tar", "tzf", str(next(built.glob("*.tar.gz")))], capture_output=True, check=True, text=True
    ).stdout
    assert "/bridge/app.py\n" in listing
    assert re.search(r"__pycache__|\.sqlite3|node_modules|/\.venv", listing) is None


def test_one_file_starts_about_as_fast_as_the_command(built: Path, tmp_path: Path) -> None:
    """Processor time to the first answer is at most 1.4 times that of the installed program."""
    one_file = cpu_to_first_answer([sys.executable, str(built / NAME)], tmp_path)
    installed = cpu_to_first_answer([sys.executable, "-m", "bridge"], tmp_path)
    print(f"one file {one_file * 1000:.0f} ms, installed {installed * 1000:.0f} ms of processor time")
    assert one_file <= 1.4 * installed


def cpu_to_first_answer(words: list[str], folder: Path) -> float:
    """Return the least processor seconds of several short lives; unlike the clock it bears a busy machine."""
    request = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n'
    least = float("inf")
    for _ in range(9):
        read, write = os.pipe()
        os.write(write, request)
        os.close(write)
        with subprocess.Popen(
            [*words, "--ledger", "memory"],
            stdin=read,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
        ) as process:
            os.close(read)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        least = min(least, usage.ru_utime + usage.ru_stime)
    return least


def test_container_copies_what_is_there() -> None:
    """Every path that the container file copies is let in, and the build tools are taken out again."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    let_in = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert source.split("/")[0] in let_in
    pins = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8")
    tools = set(re.findall(r"^([a-z-]+)==", pins, re.MULTILINE))
    removed = re.search(r"uninstall --yes ([^&]*)&&", text)
    assert removed is not None
    assert set(removed[1].replace("\\", " ").split()) == tools | {"pip"}
