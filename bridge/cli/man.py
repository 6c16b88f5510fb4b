"""``report-bridge man``: the manual page, made from the parsers and the tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from bridge import __version__
from bridge.cli.commands import PROGRAM
from bridge.cli.grammar import Flag, Grammar, read_grammar
from bridge.cli.main import print_text
from bridge.core.exits import EXITS
from bridge.settings.table import OTHER_VARIABLES, TABLE

HELP = "Print the manual page in roff."
EPILOG = """examples:
  report-bridge man > ~/.local/share/man/man1/report-bridge.1
  report-bridge man | man -l -"""


def configure(parser: argparse.ArgumentParser) -> None:
    """There are no flags."""


def run(_args: argparse.Namespace) -> int:
    """Print and return 0."""
    print_text(render_manual(list(read_grammar())))
    return 0


def render_manual(grammar: list[Grammar]) -> str:
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
    for command in grammar:
        usage = " ".join(_roff(word) for word in command.metavars)
        lines += [".SS", f"{_roff(command.name)} \\fI{usage}\\fR" if usage else _roff(command.name)]
        lines.append(_roff(command.description))
        lines += _flags(flag for flag in command.flags if not flag.group and "-h" not in flag.names)
        if command.epilog:
            lines += [".PP", ".nf", *(_roff(line) for line in command.epilog.splitlines()), ".fi"]
        if any(flag.group for flag in command.flags):
            lines += [".PP", "It takes the flags under SETTINGS, too."]
    serve = next(command for command in grammar if command.name == "serve")
    lines += [".SH SETTINGS", *_flags(flag for flag in serve.flags if flag.group)]
    lines.append(".SH ENVIRONMENT")
    for row in TABLE:
        lines += [".TP", f".B {_roff(row.variable)}", _roff(row.help)]
    for name, sentence in OTHER_VARIABLES.items():
        lines += [".TP", f".B {_roff(name)}", _roff(sentence)]
    lines.append(".SH EXIT STATUS")
    for code, sentence in EXITS.items():
        lines += [".TP", f".B {code}", _roff(sentence)]
    lines += [
        ".SH FILES",
        ".TP",
        ".I ~/.config/report\\-bridge/config.toml",
        "The configuration file; XDG_CONFIG_HOME moves it.",
        ".TP",
        ".I ~/.local/state/report\\-bridge/ledger.sqlite3",
        "What is remembered of reports; XDG_STATE_HOME moves it.",
    ]
    return "\n".join(lines) + "\n"


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
