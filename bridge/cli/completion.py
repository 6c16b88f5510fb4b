"""``report-bridge completion``: completions for a shell, made from the parsers.

The scripts ask nobody at the time of completing, so they answer at once and work without this program.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from bridge.cli.commands import COMMANDS, PROGRAM
from bridge.cli.parsers import Command, Flag, read_commands
from bridge.cli.terminal import print_text

HELP = "Print completions for a shell."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help="|".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    """Print and return 0."""
    print_text(SHELLS[args.shell](list(read_commands())))
    return 0


def _flag_names(flags: Iterable[Flag]) -> list[str]:
    return [name for flag in flags for name in flag.names]


def make_bash(known: list[Command]) -> str:
    """A completion function for bash; works without the bash-completion package."""
    cases = []
    for command in known:
        files = "|".join(_flag_names(flag for flag in command.flags if flag.is_file))
        values = [f'        {files}) COMPREPLY=($(compgen -f -- "$cur")); return ;;'] if files else []
        for flag in command.flags:
            if flag.choices:
                values.append(
                    f'        {"|".join(flag.names)}) COMPREPLY=($(compgen -W "{" ".join(flag.choices)}"'
                    ' -- "$cur")); return ;;'
                )
            elif flag.metavar is not None and not flag.is_file:
                values.append(f"        {'|'.join(flag.names)}) return ;;")
        words = " ".join((*_flag_names(command.flags), *command.words))
        body = ["      case $prev in", *values, "      esac"] if values else []
        cases.append("\n".join([f"    {command.name})", *body, f'      words="{words}" ;;']))
    commands = " ".join(COMMANDS)
    return "\n".join(
        [
            f"# bash completion for {PROGRAM}",
            "_report_bridge() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W "{commands} --help --version" -- "$cur"))',
            "    return",
            "  fi",
            "  case ${COMP_WORDS[1]} in",
            *cases,
            "    *) return ;;",
            "  esac",
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            f"complete -o default -F _report_bridge {PROGRAM}",
            "",
        ]
    )


def make_zsh(known: list[Command]) -> str:
    """A completion function for zsh's own system."""
    lines = [
        f"#compdef {PROGRAM}",
        "_report_bridge() {",
        "  local -a commands",
        "  commands=(",
        *(f"    {_zsh(f'{c.name}:{COMMANDS[c.name].summary}')}" for c in known),
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
        "  fi",
        "  local command=$words[2]",
        "  shift words",
        "  (( CURRENT-- ))",
        "  case $command in",
    ]
    for command in known:
        lines.append(f"    {command.name})")
        lines.append("      _arguments \\")
        for flag in command.flags:
            value = ""
            if flag.metavar is not None:
                what = f"({' '.join(flag.choices)})" if flag.choices else "_files" if flag.is_file else " "
                value = f":{flag.metavar.replace(':', ' ')}:{what}"
            text = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
            lines += [f"        {_zsh(f'{name}[{text}]{value}')} \\" for name in flag.names]
        lines.append(f"        {_zsh('*:word:(' + ' '.join(command.words) + ')')} ;;")
    lines += ["  esac", "}", '_report_bridge "$@"', ""]
    return "\n".join(lines)


def _zsh(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def make_fish(known: list[Command]) -> str:
    """Lines for fish."""
    lines = [f"# fish completion for {PROGRAM}", f"complete -c {PROGRAM} -f"]
    for command in known:
        summary = _fish(COMMANDS[command.name].summary)
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name} -d {summary}")
        seen = f"-n {_fish('__fish_seen_subcommand_from ' + command.name)}"
        if command.words:
            lines.append(f"complete -c {PROGRAM} {seen} -a {_fish(' '.join(command.words))}")
        for flag in command.flags:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names)
            value = "" if flag.metavar is None else " -r -F" if flag.is_file else " -x"
            if flag.choices:
                value += f" -a {_fish(' '.join(flag.choices))}"
            lines.append(f"complete -c {PROGRAM} {seen} {names}{value} -d {_fish(flag.help)}")
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[list[Command]], str]]] = {
    "bash": make_bash,
    "zsh": make_zsh,
    "fish": make_fish,
}
