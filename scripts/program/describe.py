"""Writes what is inside the program without Python: a licence of every part, and the list as CycloneDX.

Run by `scripts/build_program.py` with the Python whose packages were packed. A file of which no part, or a
part of which no licence is known, is an error: nothing is handed on that may not be.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

HERE = Path(__file__).resolve().parent
DEBIAN_DOC = Path("/usr/share/doc")
DEBIAN_LICENSES = Path("/usr/share/common-licenses")
_LICENSE_FILE = re.compile(r"\.dist-info/(.*/)?[^/]*(LICEN[CS]E|NOTICE|COPYING|AUTHORS)[^/]*$", re.IGNORECASE)


class Library(NamedTuple):
    """A C library that came with a package or from the system."""

    files: str
    """What its file names match."""
    name: str
    license: str
    """The SPDX expression."""
    debian: str
    """The Debian package whose copyright file has the text."""
    common: tuple[str, ...] = ()
    """Licences which that file only names."""
    version: bytes = rb"(?!)"
    """Finds the version in one of the files."""


# fmt: off
LIBRARIES = (
    Library(r"lib(ssl|crypto)", "OpenSSL", "Apache-2.0", "libssl3", ("Apache-2.0",), rb"OpenSSL (3\.[0-9.]+) "),
    Library(r"libpq", "PostgreSQL libpq", "PostgreSQL", "libpq5"),
    Library(r"lib(gssapi_krb5|krb5|k5crypto|krb5support)", "MIT Kerberos", "MIT", "libkrb5-3", (), rb"krb5-(1\.[0-9.]+)"),
    Library(r"libcom_err", "libcom_err", "MIT", "libcom-err2"),
    Library(r"libkeyutils", "keyutils", "LGPL-2.0-or-later", "libkeyutils1", ("LGPL-2",)),
    Library(r"lib(ldap|lber)", "OpenLDAP", "OLDAP-2.8", "libldap-2.5-0"),
    Library(r"libsasl2", "Cyrus SASL", "BSD-4-Clause", "libsasl2-2"),
    Library(r"libcrypt-", "libcrypt of the GNU C library", "LGPL-2.1-or-later", "libc6", ("LGPL-2.1",)),
    Library(r"lib(stdc\+\+|gcc_s)", "GCC runtime", "GPL-3.0-or-later WITH GCC-exception-3.1", "libgcc-s1", ("GPL-3",)),
    Library(r"libz\.", "zlib", "Zlib", "zlib1g", (), rb"(?:de|in)flate (1\.[0-9.]+) Copyright"),
    Library(r"libffi", "libffi", "MIT", "libffi8"),
    # Some Pythons have these two inside, others beside.
    Library(r"libexpat", "Expat", "MIT", "libexpat1"),
    Library(r"libmpdec", "libmpdec", "BSD-2-Clause", "libmpdec3"),
)
# fmt: on


class Part(NamedTuple):
    """One component: its entry in the list, and the text of its licence."""

    entry: dict[str, Any]
    text: str


def find_parts(packed: list[tuple[str, Path]], lib: Path) -> Iterator[Part]:
    """Yield every part of the program.

    Args:
        packed: where each packed file lies inside `lib`, and where it came from.
        lib: the folder of the finished program.
    """
    origins = {
        Path(str(dist.locate_file(file))).resolve(): dist
        for dist in metadata.distributions()
        for file in dist.files or ()
    }
    packages: dict[str, metadata.Distribution] = {}
    libraries: dict[Library, list[Path]] = {}
    for place, source in packed:
        name = Path(place).name
        library = next((row for row in LIBRARIES if re.match(row.files, name)), None)
        if library is not None:
            libraries.setdefault(library, []).append(lib / place)
        elif (dist := origins.get(source.resolve())) is not None:
            packages[dist.name] = dist
        elif not is_of_python(source):
            raise SystemExit(f"{source}: of what it is a part is not known; add it to LIBRARIES")
    packages["pyinstaller"] = metadata.distribution(
        "pyinstaller"
    )  # its bootloader is the program's first file
    yield make_python()
    for dist in packages.values():
        yield make_package(dist)
    yield Part(make_entry("libev", None, "BSD-2-Clause"), (HERE / "libev.txt").read_text(encoding="utf-8"))
    yield make_sqlite()
    for library, files in libraries.items():
        yield make_library(library, [file for file in files if file.exists()])


def is_of_python(source: Path) -> bool:
    """True for the standard library, part of which is packed already, and the interpreter's own library."""
    homes = [sysconfig.get_path("stdlib"), sysconfig.get_config_var("LIBDIR"), sys.base_prefix]
    return (
        source.name == "base_library.zip"
        or source.name.startswith("libpython")
        or any(source.resolve().is_relative_to(Path(home).resolve()) for home in homes if home != "/usr")
    )


def make_entry(name: str, version: str | None, expression: str, **more: Any) -> dict[str, Any]:
    """Return a component of the list."""
    entry = {"type": "library", "bom-ref": name.lower().replace(" ", "-"), "name": name, **more}
    return entry | ({"version": version} if version else {}) | {"licenses": [{"expression": expression}]}


def make_python() -> Part:
    """The interpreter and its standard library."""
    places = [Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", DEBIAN_DOC / "python3" / "copyright"]
    text = next((place.read_text(encoding="utf-8") for place in places if place.exists()), None)
    if text is None:
        raise SystemExit(f"the licence of Python lies in none of {', '.join(map(str, places))}")
    return Part(make_entry("Python", platform.python_version(), "Python-2.0"), text)


def make_sqlite() -> Part:
    """The SQLite inside apsw."""
    import apsw

    said = "The authors of SQLite have dedicated it to the public domain: https://sqlite.org/copyright.html\n"
    return Part(make_entry("SQLite", apsw.sqlite_lib_version(), "blessing"), said)


def make_package(dist: metadata.Distribution) -> Part:
    """A distribution of the package index."""
    texts = [
        Path(str(dist.locate_file(file))).read_text(encoding="utf-8", errors="replace")
        for file in dist.files or ()
        if _LICENSE_FILE.search(file.as_posix())
    ]
    if not texts:
        raise SystemExit(f"{dist.name} {dist.version}: its package has no licence file")
    purl = f"pkg:pypi/{dist.name.lower().replace('_', '-')}@{dist.version}"
    entry = make_entry(dist.name, dist.version, "", purl=purl)
    facts = dist.metadata.json
    rows = (row.rpartition(" :: ")[2] for row in facts.get("classifier", ()) if row.startswith("License ::"))
    named = " and ".join(rows) or str(facts.get("license", "see its file")).partition("\n")[0]
    said = facts.get("license_expression")
    entry["licenses"] = [{"expression": said}] if said else [{"license": {"name": named}}]
    return Part(entry, "\n\n".join(texts))


def make_library(library: Library, files: list[Path]) -> Part:
    """A C library; which version is known where its file says so, which file always."""
    places = [DEBIAN_DOC / library.debian / "copyright", *(DEBIAN_LICENSES / name for name in library.common)]
    if missing := [str(place) for place in places if not place.exists()]:
        raise SystemExit(
            f"the licence of {library.name} is missing here: {', '.join(missing)}; install {library.debian}"
        )
    found = [found for file in files for found in re.findall(library.version, file.read_bytes())]
    parts = [
        {"type": "file", "name": file.name, "hashes": [{"alg": "SHA-256", "content": _sum(file)}]}
        for file in files
    ]
    entry = make_entry(library.name, found[0].decode() if found else None, library.license, components=parts)
    return Part(entry, "\n\n".join(place.read_text(encoding="utf-8") for place in places))


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_list(parts: list[Part], version: str, epoch: int, target: Path) -> None:
    """Write the list of parts, valid against the schema of its format."""
    bom: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(),
            "component": {
                "type": "application",
                "bom-ref": "program",
                "name": "report-bridge",
                "version": version,
            },
        },
        "components": [part.entry for part in parts],
    }
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom))}"
    text = json.dumps(bom, indent=1) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise SystemExit(f"the list of parts does not fit its schema: {error}")
    target.write_text(text, encoding="utf-8")


def main(folder: Path, packed: Path, epoch: int) -> int:
    """Write `LICENSES/` and `sbom.cdx.json` into the folder of the program; returns the exit code."""
    rows = [(place, Path(source)) for place, source in json.loads(packed.read_text(encoding="utf-8"))]
    parts = sorted(find_parts(rows, folder / "lib"), key=lambda part: str(part.entry["name"]).lower())
    (folder / "LICENSES").mkdir()
    for part in parts:
        name = re.sub(
            r"[^A-Za-z0-9.+-]+", "-", f"{part.entry['name']}-{part.entry.get('version', '')}".rstrip("-")
        )
        (folder / "LICENSES" / f"{name}.txt").write_text(part.text, encoding="utf-8")
    write_list(parts, metadata.version("anticaptcha-report-bridge"), epoch, folder / "sbom.cdx.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
