"""``report-bridge help``: commands, and topics that are printed from their tables."""

from __future__ import annotations

import argparse
import sys
import textwrap

from bridge.cli.commands import COMMANDS, TOPICS
from bridge.cli.main import overview, print_text
from bridge.core.exits import EXITS, UsageError

HELP = "Explain a command, or a topic: " + ", ".join(TOPICS) + "."
_WIDTH = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "topic", nargs="?", metavar="TOPIC", help="a command or a topic; default: the overview"
    )


def run(args: argparse.Namespace) -> int:
    """Print and return 0."""
    name = args.topic
    if name is None:
        print_text(overview())
    elif name in COMMANDS:
        from bridge.cli.flags import make_parser

        make_parser(name).print_help(sys.stdout)
    elif name in TOPICS:
        print_text(render_topic(name))
    else:
        from bridge.core.text import suggest

        known = [*COMMANDS, *TOPICS]
        nearest = suggest(name, known, "; did you mean {}?")
        raise UsageError(f"There is no such topic{nearest} Topics: {', '.join(TOPICS)}.")
    return 0


def render_topic(name: str) -> str:
    """Return the text of one topic."""
    return {"environment": _environment, "errors": _errors, "exit-codes": _exit_codes}[name]()


def _exit_codes() -> str:
    lines = ["Exit codes. While serving, upstream trouble is an answer, never an exit code.", ""]
    for code, meaning in EXITS.items():
        lines += _entry(f"{code:>5}  ", meaning)
    return "\n".join(lines) + "\n"


def _environment() -> str:
    from bridge.cli.flags import format_default
    from bridge.settings.table import GROUPS, OTHER_VARIABLES, TABLE

    lines = [
        "Settings. Flags beat variables, variables beat the configuration file, the file beats defaults.",
        "An empty variable counts as not set, except a key. Seconds are decimal numbers; switches are",
        "1/0, true/false, on/off or yes/no. `report-bridge config` prints what holds and where it is from.",
    ]
    for group, title in GROUPS.items():
        lines += ["", title]
        for row in TABLE:
            if row.group != group:
                continue
            names = [row.flag, row.variable, row.key if row.in_file else None]
            if row.kind == "switch" and row.default:
                names[0] = f"--no-{row.flag[2:]}" if row.flag else None
            lines.append("  " + ", ".join(filter(None, names)))
            bounds = f", from {row.low:.15g} to {row.high:.15g}" if row.high else ""
            lines += _entry("      ", f"{row.help} Default: {format_default(row)}{bounds}.")
    lines += ["", "other variables"]
    for variable, sentence in OTHER_VARIABLES.items():
        lines += [f"  {variable}", *_entry("      ", sentence)]
    return "\n".join(lines) + "\n"


def _errors() -> str:
    from bridge.core.resources import load_json

    table = load_json("errors.json")
    lines = [
        "Errors. The number says why: positive ones are the upstream's errorId, negative ones are ours.",
        "",
    ]
    for title, section in (("Said by the bridge", "wire"), ("Said by the upstream", "upstream")):
        lines += [title, ""]
        for row in table[section]:
            code = row.get("code", row.get("errorId"))
            lines.append(f"  {'-' if code is None else code:>6}  {row['kind']}: {row['message']}")
            lines += _entry("          ", row["advice"])
        lines.append("")
    return "\n".join(lines)


def _entry(indent: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent))
