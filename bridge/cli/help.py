"""``report-bridge help``: commands, topics that are printed from their tables, and single error codes."""

from __future__ import annotations

import argparse
from typing import Final

from bridge.cli.commands import COMMANDS, GROUPS, PROGRAM, format_value, make_parser, shown_flag
from bridge.cli.terminal import Screen, print_lines, print_text
from bridge.core.errors import Row, rows
from bridge.core.exits import EXITS, UsageError
from bridge.core.resources import load_json
from bridge.core.text import suggest
from bridge.settings import table


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    topic = f"command, topic ({', '.join(TOPICS)}), or a code, kind or name of an error"
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help=topic)
    parser.add_argument("code", nargs="?", metavar="CODE", help="of an error, after the topic errors")


def run(args: argparse.Namespace) -> None:
    """Print it."""
    name, code = args.topic, args.code
    if code is not None and name != "errors":
        raise UsageError("Only the topic errors takes a further word: a code.")
    if name is None:
        print_text(_overview())
    elif name in COMMANDS:
        make_parser(name).print_help()
    else:
        print_lines(TOPICS[name][1]() if name in TOPICS and code is None else explain(code or name))


def _overview() -> str:
    listed = ""
    for name, row in COMMANDS.items():
        listed += f"\n{GROUPS[name]}:\n" if name in GROUPS else ""
        listed += f"  {name:<12}{row.summary}\n"
    topics = "".join(f"  {name:<12}{summary}\n" for name, (summary, _) in TOPICS.items())
    return f"""\
usage: {PROGRAM} [COMMAND] [FLAGS]

Reports wrong and right captcha answers to Anti-Captcha.com: JSON-RPC 2.0 on stdin and stdout.
{listed}
Topics (report-bridge help TOPIC):
{topics}
Flags of a command: report-bridge COMMAND --help. Also here: --help, --version.

Examples:
  report-bridge call reportIncorrectImageCaptcha taskId=123 --sandbox
  report-bridge --key-file ~/.anticaptcha.key < requests.jsonl
  echo '{{"jsonrpc":"2.0","id":1,"method":"bridge.info"}}' | report-bridge
"""


def _exit_codes() -> list[str]:
    lines = ["Exit codes. While serving, upstream trouble is an answer, never an exit code.", ""]
    for code, meaning in EXITS.items():
        lines += _entry(f"{code:>5}  ", meaning)
    return lines


def _rules() -> list[str]:
    lines = ["What the vendor says about reports, and what the bridge does about it."]
    for rule in load_json("advice.json")["rules"]:
        lines += ["", *_entry("  ", rule["says"]), *_entry("      ", rule["told"].replace("`", ""))]
    return lines


def _environment() -> list[str]:
    lines = [
        *_entry("", "Settings. Flags beat variables, variables beat the configuration file, the file beats "
        "defaults. An empty variable counts as not set, except a key. Seconds are decimal numbers; switches "
        "are 1/0, true/false, on/off or yes/no, and --no- before the name of a flag turns it off. "
        "`report-bridge config` prints what holds and where it is from."),
    ]  # fmt: skip
    for group, title in table.GROUPS.items():
        lines += ["", title]
        for row in table.TABLE:
            if row.group == group:
                names = [shown_flag(row), row.variable, row.key if row.in_file else ""]
                lines.append("  " + ", ".join(filter(None, names)))
                bounds = f", from {row.low:.15g} to {row.high:.15g}" if row.high else ""
                lines += _entry("      ", f"{row.help} Default: {format_value(row.default)}{bounds}.")
    lines += ["", "other variables"]
    for variable, sentence in table.OTHER_VARIABLES.items():
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
        for row in rows(section):
            lines += _row(row)
    return lines


def explain(word: str) -> list[str]:
    """Return what an error means, what to do, and what lies behind it.

    Args:
        word: its code, kind, or name at the upstream.

    Raises:
        UsageError: there is no such error.
    """
    names = [(name, row) for row in (*rows("wire"), *rows("upstream")) for name in _names(row)]
    found = [row for name, row in names if name == word.lower()]
    if not found:
        near = suggest(word.lower(), [*COMMANDS, *TOPICS, *(name for name, _ in names)])
        raise UsageError(f"There is no such command, topic or error code{near} Topics: {', '.join(TOPICS)}.")
    return [line for row in found for line in (*_row(row), *_entry(" " * 10, row.cause))]


def _code(row: Row) -> str:
    code = row.error_id if row.code is None else row.code
    return "-" if code is None else str(code)


def _names(row: Row) -> set[str]:
    return {_code(row), row.kind, *map(str.lower, row.error_codes)}


def _row(row: Row) -> list[str]:
    lines = _entry(f"  {_code(row):>6}  ", f"{row.kind}: {row.message}")
    return lines + (_entry(" " * 10, row.advice) if row.advice else [])


def _entry(first: str, text: str) -> list[str]:
    return Screen().wrap(text, first, always=True)


TOPICS: Final = {
    "environment": ("every setting with its flag, variable and file key", _environment),
    "errors": ("every error code, what it means and what to do; `help 16` has one", _errors),
    "exit-codes": ("what the exit code says", _exit_codes),
    "report": ("the vendor's rules about reports, and what the bridge does about each", _rules),
}
"""What there is to read besides the commands, in a few words, and what makes it."""
