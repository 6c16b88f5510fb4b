"""Writes every file that is derived from a table; with --check says which of them have drifted.

One module per target makes the text, this one reads and writes. To add a language, write a module
with a `render` and name it in `TARGETS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Run as a script, Python looks for modules beside it only; the package and `scripts` lie one above.
sys.path.insert(0, str(ROOT))

from scripts import (  # noqa: E402  (the path must be set first)
    generate_advice,
    generate_errors,
    generate_go,
    generate_openrpc,
    generate_operations,
    generate_settings,
    generate_typescript,
)
from scripts.generate_model import load_model  # noqa: E402  (as above)

TARGETS: Mapping[str, Callable[[], str]] = {
    "docs/advice.md": generate_advice.render,
    "docs/errors.md": generate_errors.render,
    "docs/operations.md": generate_operations.render,
    "docs/settings.md": generate_settings.render,
    "schemas/openrpc.json": generate_openrpc.render,
    "clients/node/src/generated.ts": lambda: generate_typescript.render(load_model()),
    "clients/go/generated.go": lambda: generate_go.render(load_model()),
}
"""Generated file -> what makes its text."""


def drifted(root: Path = ROOT) -> list[str]:
    """Name the generated files that are missing or differ from what would be written."""
    return [name for name, render in TARGETS.items() if _read(root / name) != render()]


def write(root: Path = ROOT) -> list[str]:
    """Write the generated files that have drifted, and name them."""
    names = drifted(root)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TARGETS[name]().encode())
    return names


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file has drifted")
    is_check = parser.parse_args(arguments).check
    names = drifted() if is_check else write()
    for name in names:
        print(f"{name}: {'has drifted; run make gen' if is_check else 'written'}")
    return 1 if is_check and names else 0


def _read(path: Path) -> str | None:
    # Bytes, not text: a changed line end is drift too.
    return path.read_bytes().decode() if path.exists() else None


if __name__ == "__main__":
    raise SystemExit(main())
