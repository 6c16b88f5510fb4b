"""``report-bridge schema``: the JSON Schemas that requests and answers follow."""

from __future__ import annotations

import argparse
from typing import Any

from bridge.cli.terminal import print_text
from bridge.core.exits import UsageError
from bridge.core.resources import load_json, load_text
from bridge.core.text import suggest

HELP = "Print a JSON Schema (draft-07) of the protocol, or one of its tables; without a name, list them."
_TABLES = ("common", "errors", "errors.schema", "methods", "openrpc", "scenario")


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
        nearest = suggest(name, names)
        raise UsageError(f"There is no such schema{nearest} List them with `report-bridge schema`.")
    print_text(load_text(f"{name}.json").rstrip("\n") + "\n")
    return 0


def list_names() -> list[str]:
    """Return the names of all schemas and tables: what the methods refer to, and the shared parts."""
    from bridge.rpc.discovery import methods

    names = {name for method in methods() for name in (method.params, method.result, method.error) if name}
    return sorted(names.union(_TABLES))


def _title(name: str) -> str:
    content: dict[str, Any] = load_json(f"{name}.json")
    text = content.get("description") or content.get("info", {}).get("description")
    if text is None:
        text = load_json(content["$schema"])["description"]  # a table: its own schema describes it
    return str(text).partition(". ")[0].removesuffix(".")
