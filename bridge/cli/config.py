"""``report-bridge config``: every setting as it would be used, with its origin; secrets masked."""

from __future__ import annotations

import argparse
import os

from bridge.cli.commands import format_value
from bridge.cli.terminal import Screen, print_json, print_lines
from bridge.core.events import render_sentence
from bridge.core.text import hide_keys
from bridge.settings import describe, load


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> None:
    """Print them; a configuration that cannot be used ends as it does for the service."""
    settings = load(args.given, os.environ)
    rows = [(name, _hide(name, value), origin) for name, value, origin in describe(settings)]
    if args.json:
        values = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        notices = [{"event": name, **fields} for name, fields in settings.notices]
        print_json({"settings": values, "configFile": settings.config_file, "notices": notices})
        return
    screen = Screen()
    table = [(name, format_value(value, "not set"), origin) for name, value, origin in rows]
    lines = screen.table(("setting", "value", "origin"), table, left=3)
    if len(lines) > len(table) + 1:  # a column has no room
        lines = [line for n, v, o in table for line in screen.wrap(f"{v}  ({o})", f"{n:<18}")]
    path = settings.config_file
    place = "none" if path is None else path if os.path.exists(path) else f"{path} (not there, not needed)"
    lines += ["", *screen.wrap(f"configuration file: {place}")]
    for event, fields in settings.notices:
        lines += screen.wrap(f"warning: {render_sentence(event, fields)}")
    print_lines(lines)


def _hide(name: str, value: object) -> object:
    """What is no file may be the key itself, given in the place of one."""
    is_strange = name == "key_file" and isinstance(value, str) and not os.path.exists(value)
    return hide_keys(str(value)) if is_strange else value
