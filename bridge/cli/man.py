"""``report-bridge man``: the manual page, made from the parsers and the tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from bridge import __version__
from bridge.cli.commands import PROGRAM
from bridge.cli.parsers import Command, Flag, read_commands
from bridge.cli.terminal import print_lines
from bridge.core.exits import EXITS
from bridge.settings.table import OTHER_VARIABLES, TABLE

HELP = "Print the manual page in roff."


def configure(parser: argparse.ArgumentParser) -> None:
    """There are no flags."""


def run(_args: argparse.Namespace) -> int:
    """Print and return 0."""
    print_lines(render_manual(list(read_commands())))
    return 0


def render_manual(commands: Sequence[Command]) -> list[str]:
    """Return the page in the macros of man(7)."""
    lines = [
        f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"',
        ".SH NAME",
        f"{_roff(PROGRAM)} \\- reports wrong and right captcha answers to Anti\\-Captcha.com",
        ".SH SYNOPSIS",
        f".B {_roff(PROGRAM)}",
        "[\\fICOMMAND\\fR] [\\fIFLAGS\\fR]",
        ".SH DESCRIPTION",
        "Speaks JSON\\-RPC 2.0 on standard input and output, one message per line, and passes reports on to",
        "the API of Anti\\-Captcha.com: once for each task, inside the minute in which the API takes them.",
        "Without a command it does what",
        ".B serve",
        "does.",
        ".SH COMMANDS",
    ]
    for command in commands:
        usage = " ".join(_roff(word) for word in command.metavars)
        lines += [".SS", f"{_roff(command.name)} \\fI{usage}\\fR" if usage else _roff(command.name)]
        lines.append(_roff(command.description))
        lines += _flags(flag for flag in command.own if "-h" not in flag.names)
        if command.examples:
            lines += [".PP", ".nf", *(_roff(line) for line in command.examples.splitlines()), ".fi"]
        if command.settings:
            names = ", ".join(_roff(flag.names[0]) for flag in command.settings)
            lines += [".PP", f"Of the flags under SETTINGS it takes {names}."]
    serve = next(command for command in commands if command.name == "serve")
    lines += [".SH SETTINGS", *_flags(serve.settings), ".SH ENVIRONMENT"]
    lines += _entries((".B", row.variable, row.help) for row in TABLE)
    lines += _entries((".B", name, sentence) for name, sentence in OTHER_VARIABLES.items())
    lines.append(".SH EXIT STATUS")
    lines += _entries((".B", str(code), sentence) for code, sentence in EXITS.items())
    lines.append(".SH FILES")
    config = "The configuration file; XDG_CONFIG_HOME moves it."
    ledger = "What is remembered of reports; XDG_STATE_HOME moves it."
    lines += _entries([(".I", "~/.config/report-bridge/config.toml", config)])
    return lines + _entries([(".I", "~/.local/state/report-bridge/ledger.sqlite3", ledger)])


def _entries(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    return [line for macro, name, text in rows for line in (".TP", f"{macro} {_roff(name)}", _roff(text))]


def _flags(flags: Iterable[Flag]) -> list[str]:
    lines = []
    for flag in flags:
        names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in flag.names)
        value = "" if flag.metavar is None else f" \\fI{_roff(flag.metavar)}\\fR"
        lines += [".TP", f"{names}{value}", _roff(flag.help)]
    return lines


def _roff(text: str) -> str:
    """Escape what roff would take for itself: backslashes, hyphens, and marks at the beginning of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text
