"""``report-bridge schema``: the JSON Schemas that requests and answers follow."""

from __future__ import annotations

import argparse

from bridge.cli.main import print_text
from bridge.core.exits import UsageError
from bridge.core.resources import load_json, load_text
from bridge.settings_sources import suggest

HELP = "Print a JSON Schema (draft-07) of the protocol, or one of its tables; without a name, list them."
_TABLES = ("common", "errors", "methods", "openrpc")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="name from the list, such as report.params")


def run(args: argparse.Namespace) -> int:
    """Print and return 0."""
    names = list_names()
    if args.name is None:
        width = max(map(len, names))
        print_text("".join(f"{name:<{width}}  {_title(name)}\n" for name in names))
        return 0
    name = args.name.removesuffix(".json")
    if name not in names:
        raise UsageError(f"There is no such schema{suggest(name, names, '; did you mean {}?')} List them: report-bridge schema.")
    print_text(load_text(f"{name}.json").rstrip("\n") + "\n")
    return 0


def list_names() -> list[str]:
    """Return the names of all schemas and tables, from the table of methods and what it leads to."""
    return sorted({*_TABLES, *_schema_names()})


def _schema_names() -> list[str]:
    """Return every file that the OpenRPC document was made from."""
    from bridge.rpc.discovery import SCHEMA_FILES

    return [name.removesuffix(".json") for name in SCHEMA_FILES]


def _title(name: str) -> str:
    content = load_json(f"{name}.json")
    text = str(content.get("description") or content.get("info", {}).get("description", ""))
    return text.partition(". ")[0].removesuffix(".")
