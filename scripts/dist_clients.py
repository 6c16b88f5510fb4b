"""Packs the clients for people who hand them on: npm tarball, zip of the Go module, the Python file.

`scripts/build_dist.py` calls `build_clients`; as a script it writes into the folder that it is given. The
same sources give the same bytes. Without npm its part is left out and named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from time import gmtime

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bridge import __version__  # noqa: E402  (the path must be set first)

CLIENTS = ROOT / "clients"
_NODE_SOURCES = (
    "package.json",
    "tsconfig.json",
    "tsconfig.cjs.json",
    "README.md",
    "LICENSE",
    "scripts",
    "src",
)
PLATFORMS = ("linux-x64",)
"""Where the program without Python is handed out for; see `scripts/build_program.py`."""
_EPOCH = 1_577_836_800  # 2020-01-01, as hatchling does without a time


def build_clients(target: Path, epoch: int = _EPOCH) -> list[Path]:
    """Write the packages of the clients into a folder, and return their paths.

    Args:
        target: made if it is not there.
        epoch: UNIX seconds that the members of the zip get; npm writes a time of its own.
    """
    target.mkdir(parents=True, exist_ok=True)
    built = [pack_go(target, epoch), Path(shutil.copy(CLIENTS / "python" / "report_bridge.py", target))]
    if shutil.which("npm") is None:
        print("npm package: not built, since npm is missing")
        return built
    return [*built, pack_node(target)]


def pack_go(target: Path, epoch: int) -> Path:
    """Write the zip of the Go module: one folder, for `go mod edit -replace`."""
    folder = CLIENTS / "go"
    path = target / f"anticaptcha-report-bridge-go-{__version__}.zip"
    # interop/ is a module of its own, with clients of other people; the tests need the repository.
    files = {
        source.relative_to(folder).as_posix(): source
        for source in folder.rglob("*")
        if source.suffix in (".go", ".md", ".mod") and not source.name.endswith("_test.go")
    }
    files = {name: source for name, source in files.items() if not name.startswith("interop/")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in sorted({**files, "LICENSE": ROOT / "LICENSE"}.items()):
            member = zipfile.ZipInfo(f"reportbridge/{name}", gmtime(epoch)[:6])
            member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(member, source.read_bytes())
    return path


def pack_node(target: Path) -> Path:
    """Build the Node package away from its sources, and write the npm tarball."""
    folder = CLIENTS / "node"
    if not (folder / "node_modules").exists():
        _run_npm(["ci", "--no-audit", "--no-fund"], folder)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for source in _NODE_SOURCES:
            if (folder / source).is_dir():
                shutil.copytree(folder / source, copy / source)
            else:
                shutil.copy(folder / source, copy / source)
        (copy / "node_modules").symlink_to(folder / "node_modules")
        name_programs(copy / "package.json")
        _run_npm(["pack", "--pack-destination", str(target.resolve())], copy)
    return target / f"anticaptcha-report-bridge-{__version__}.tgz"


def name_programs(package: Path) -> None:
    """Name the packages of the program, one for each platform, as optional: npm takes the one that fits.

    Not in the sources: the lock file could not name packages of the same build.
    """
    facts = json.loads(package.read_text(encoding="utf-8"))
    facts["optionalDependencies"] = {f"{facts['name']}-{platform}": __version__ for platform in PLATFORMS}
    package.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _run_npm(words: list[str], folder: Path) -> None:
    done = subprocess.run(["npm", *words], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"npm {words[0]} failed:\n{done.stdout}{done.stderr}")


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    for path in build_clients(parser.parse_args().target):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
