"""``report-bridge snippet``: an integration that works here, with absolute paths, to paste and go on from."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from string import Template
from typing import Final

from bridge.cli.commands import read_text
from bridge.cli.terminal import print_text

SNIPPETS: Final = ("node", "go", "python", "shell", "systemd", "docker")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", choices=SNIPPETS, metavar="KIND", help="|".join(SNIPPETS))


def run(args: argparse.Namespace) -> None:
    """Print it."""
    print_text(render_snippet(args.kind, find_words(), find_sources()))


def find_words() -> list[str]:
    """The words that start this very program, wherever they are called from."""
    program = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if os.path.basename(program) == "report-bridge" and os.access(program, os.X_OK):
        return [program]
    python = sys.executable or "python3"
    beside = os.path.join(os.path.dirname(python), "report-bridge")
    return [beside] if os.access(beside, os.X_OK) else [python, "-m", "bridge"]


def find_sources() -> str:
    """The project's folder; a place to fill in where the program is installed without it."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return folder if os.path.isdir(os.path.join(folder, "clients", "node")) else "/path/to/report-bridge"


def render_snippet(kind: str, words: Sequence[str], sources: str) -> str:
    """Return the text of one snippet.

    Args:
        words: what starts the program, the first one an absolute path.
        sources: the project's folder.
    """
    quoted = ", ".join(json.dumps(word) for word in words[1:])
    # In a unit file a percent sign begins a specifier, and a dollar a variable.
    unit = [word.replace("%", "%%").replace("$", "$$") for word in words]
    return Template(read_text(f"snippets/{kind}.txt")).substitute(
        sources=shlex.quote(sources),
        path=json.dumps(words[0]),
        args=f"[{quoted}]",
        go_args=f"[]string{{{quoted}}}",
        words=json.dumps(list(words)),
        shell=shlex.join(words),
        systemd=" ".join(f'"{word}"' if " " in word else word for word in unit),
    )
