"""``report-bridge version``: which program this is and what it stands on."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata
from typing import Final

from bridge import __version__
from bridge.cli.terminal import print_json, print_text

PACKAGES: Final = ("requests", "jsonrpcserver", "oslash", "fastjsonschema", "gevent", "httptools", "apsw")
"""What the bridge cannot do without."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> None:
    """Print it."""
    if not args.json:
        print_text(f"report-bridge {__version__}\n")
        return
    from bridge.ledger import sqlite_file
    from bridge.server.methods import PROTOCOL

    facts = {
        "name": "anticaptcha-report-bridge",
        "version": __version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "platform": sys.platform,
        "sqlite": sqlite_file.sqlite_version,
        "libraries": {name: version_of(name) for name in (*PACKAGES, "psycopg")},
    }
    print_json(facts, indent=None)


def version_of(library: str) -> str | None:
    """Return the version of an installed package; None if it is not installed, or does not tell."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
