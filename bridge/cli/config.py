"""``report-bridge config``: every setting as it would be used, with its origin; secrets masked."""

from __future__ import annotations

import argparse
import json
import os

from bridge.cli.main import print_text
from bridge.settings import describe, load

HELP = "Print every setting with the value it would have and its origin. Secrets are masked."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Print and return 0; a configuration that cannot be used ends as it does for the service."""
    settings = load(args.given, os.environ)
    rows = describe(settings)
    if args.json:
        values = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        print_text(
            json.dumps(
                {
                    "settings": values,
                    "configFile": settings.config_file,
                    "notices": [{"event": name, **fields} for name, fields in settings.notices],
                },
                indent=2,
            )
            + "\n"
        )
        return 0
    shown = [(name, _show(value), origin) for name, value, origin in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in shown]
    lines += ["", f"configuration file: {settings.config_file or 'none'}"]
    lines += [
        f"warning: {fields['name']} is no setting and is ignored. {fields['hint']}"
        for _, fields in settings.notices
        if "hint" in fields
    ]
    print_text("\n".join(lines) + "\n")
    return 0


def _show(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
