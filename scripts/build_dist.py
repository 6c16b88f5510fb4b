"""Builds all that is handed on, and a container image where an engine is; then uses it as a stranger would.

Run by `make dist`. Two builds of the same commit by the same Python give the same bytes: times come from
SOURCE_DATE_EPOCH, else from the last commit, and members are sorted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.build_program import build_program, hash_file
from scripts.dist_clients import build_clients

ROOT = Path(__file__).resolve().parent.parent
_ENGINES = ("docker", "podman")
IMAGE = "report-bridge"


def build_packages(target: Path, epoch: int) -> list[Path]:
    """Build wheel and source archive into a folder, and return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    before = set(target.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target.resolve())],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )
    if done.returncode != 0:
        raise RuntimeError(f"hatchling failed:\n{done.stdout}{done.stderr}")
    return sorted(set(target.iterdir()) - before)


def find_epoch() -> int:
    """Return the UNIX time that the packages' files get."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    found = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return int(found) if found else 1_577_836_800  # 2020-01-01, as hatchling does without a time


def find_engine() -> str | None:
    """Return the first container engine that answers."""
    for engine in _ENGINES:
        if shutil.which(engine) is not None:
            answer = subprocess.run([engine, "info"], capture_output=True, check=False, timeout=60)
            if answer.returncode == 0:
                return engine
    return None


def build_image() -> None:
    """Build the container image, or say why not."""
    engine = find_engine()
    if engine is None:
        print(f"container image: not built, since no engine answers ({', '.join(_ENGINES)})")
        return
    subprocess.run([engine, "build", "-f", "Containerfile", "-t", IMAGE, "."], cwd=ROOT, check=True)
    print(f"container image: {IMAGE}, built by {engine}")


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--no-image", action="store_true", help="build no container image")
    args = parser.parse_args()
    target = ROOT / "dist"
    shutil.rmtree(target, ignore_errors=True)
    epoch = find_epoch()
    packages = build_packages(target, epoch)
    (wheel,) = (path for path in packages if path.suffix == ".whl")
    built = [*packages, *build_clients(target, epoch), *build_program(wheel, target, epoch)]
    sums = [f"{hash_file(path)}  {path.name}\n" for path in built]
    (target / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    for path, line in zip(built, sums, strict=True):
        print(f"{line.rstrip()}  {path.stat().st_size:,} bytes")
    if not args.no_image:
        build_image()
    if not (target / "program").exists():
        return 0
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/dist"], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
