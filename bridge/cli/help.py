"""``report-bridge help``: commands, topics that are printed from their tables, and single error codes."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from bridge.cli.commands import COMMANDS, TOPICS
from bridge.cli.main import overview
from bridge.cli.terminal import print_lines, print_text
from bridge.core.exits import EXITS, UsageError
from bridge.core.resources import load_json
from bridge.core.text import suggest

HELP = "Explain a command, an error code, or a topic: " + ", ".join(TOPICS) + "."
_WIDTH: Final = 80


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "topic", nargs="?", metavar="TOPIC", help="command, topic, or a code, kind or name of an error"
    )
    parser.add_argument("code", nargs="?", metavar="CODE", help="of an error, after the topic errors")


def run(args: argparse.Namespace) -> int:
    """Print and return 0."""
    name, code = args.topic, args.code
    if name == "errors" and code is None:
        print_lines(_errors())
    elif name == "errors":
        print_lines(explain(code))
    elif code is not None:
        raise UsageError("Only the topic errors takes a further word: a code.")
    elif name is None:
        print_text(overview())
    elif name in COMMANDS:
        from bridge.cli.flags import make_parser

        make_parser(name).print_help(sys.stdout)
    elif name in TOPICS:
        print_lines({"exit-codes": _exit_codes, "report": _rules}.get(name, _environment)())
    else:
        print_lines(explain(name))
    return 0


def _exit_codes() -> list[str]:
    lines = ["Exit codes. While serving, upstream trouble is an answer, never an exit code.", ""]
    for code, meaning in EXITS.items():
        lines += _entry(f"{code:>5}  ", meaning)
    return lines


def _rules() -> list[str]:
    from bridge.reports.rules import RULES

    lines = ["What the vendor says about reports, and what the bridge does about it."]
    for rule in RULES:
        lines += ["", *_entry("  ", rule.says), *_entry("      ", rule.told.replace("`", ""))]
    return lines


def _environment() -> list[str]:
    from bridge.cli.flags import format_default, shown_flag
    from bridge.settings.table import GROUPS, OTHER_VARIABLES, TABLE

    lines = [
        *_entry("", "Settings. Flags beat variables, variables beat the configuration file, the file beats "
        "defaults. An empty variable counts as not set, except a key. Seconds are decimal numbers; switches "
        "are 1/0, true/false, on/off or yes/no, and --no- before the name of a flag turns it off. "
        "`report-bridge config` prints what holds and where it is from."),
    ]  # fmt: skip
    for group, title in GROUPS.items():
        lines += ["", title]
        for row in TABLE:
            if row.group == group:
                names = [shown_flag(row), row.variable, row.key if row.in_file else ""]
                lines.append("  " + ", ".join(filter(None, names)))
                bounds = f", from {row.low:.15g} to {row.high:.15g}" if row.high else ""
                lines += _entry("      ", f"{row.help} Default: {format_default(row)}{bounds}.")
    lines += ["", "other variables"]
    for variable, sentence in OTHER_VARIABLES.items():
        lines += [f"  {variable}", *_entry("      ", sentence)]
    return lines


def _errors() -> list[str]:
    lines = _entry(
        "",
        "Errors. The number says why: positive ones are the upstream's errorId, negative ones are ours. "
        "`report-bridge help 16` explains one.",
    )
    for title, section in (("Said by the bridge", "wire"), ("Said by the upstream", "upstream")):
        lines += ["", title, ""]
        for row in load_json("errors.json")[section]:
            lines += _row(row)
    return lines


def explain(word: str) -> list[str]:
    """Return what an error means, what to do, and what lies behind it.

    Args:
        word: its code, kind, or name at the upstream.

    Raises:
        UsageError: there is no such error.
    """
    found = [row for row in _rows() if word.lower() in _names(row)]
    if not found:
        known = [*COMMANDS, *TOPICS, *(name for row in _rows() for name in _names(row))]
        raise UsageError(
            f"There is no such command, topic or error code{suggest(word.lower(), known)} "
            f"Topics: {', '.join(TOPICS)}."
        )
    return [line for row in found for line in (*_row(row), *_entry(" " * 10, row["cause"]))]


def _rows() -> Iterator[dict[str, Any]]:
    for section in ("wire", "upstream"):
        yield from load_json("errors.json")[section]


def _code(row: dict[str, Any]) -> str:
    code = row.get("code", row.get("errorId"))
    return "-" if code is None else str(code)


def _names(row: dict[str, Any]) -> list[str]:
    codes = [str(name).lower() for name in row.get("errorCodes", ())]
    return [_code(row), row["kind"], *codes]


def _row(row: dict[str, Any]) -> list[str]:
    lines = _entry(f"  {_code(row):>6}  ", f"{row['kind']}: {row['message']}")
    return lines + (_entry("          ", row["advice"]) if row["advice"] else [])


def _entry(indent: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
