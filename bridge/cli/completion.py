"""``report-bridge completion``: completions for a shell, made from the parsers, so that they cannot differ.

The scripts ask nobody at the time of completing, so they answer at once and work without this program.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.cli.call import callable_methods
from bridge.cli.commands import COMMANDS, PROGRAM, TOPICS, make_parser
from bridge.cli.terminal import print_text

_FILES: Final = ("PATH", "FILE", "F")


class Command(NamedTuple):
    """One command."""

    name: str
    words: Sequence[str]
    """What its first word may be; empty if anything."""
    flags: Sequence[argparse.Action]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help="|".join(SHELLS))


def run(args: argparse.Namespace) -> None:
    """Print them."""
    print_text(SHELLS[args.shell](list(read_commands())))


def read_commands() -> Iterator[Command]:
    """Yield every command in the order of the overview."""
    # Words that a command checks itself, because a parser's list would be too strict or too early.
    known = {"call": [*callable_methods()], "help": [*COMMANDS, *TOPICS]}
    for name in COMMANDS:
        parser = make_parser(name)
        first = next((action.choices for action in parser._actions if not action.option_strings), None)
        flags = [action for action in parser._actions if action.option_strings]
        yield Command(name, known.get(name) or list(first or ()), flags)


def _takes_file(flag: argparse.Action) -> bool:
    return str(flag.metavar).partition("|")[0] in _FILES


def make_bash(known: Sequence[Command]) -> str:
    """A completion function for bash; works without the bash-completion package."""
    cases = []
    for command in known:
        cases += [f"    {command.name})", "      case $prev in"]
        for flag in command.flags:
            source = f'-W "{" ".join(flag.choices)}"' if flag.choices else "-f" if _takes_file(flag) else ""
            reply = f'COMPREPLY=($(compgen {source} -- "$cur")); ' if source else ""
            if flag.nargs != 0:
                cases.append(f"        {'|'.join(flag.option_strings)}) {reply}return ;;")
        words = " ".join([*(name for flag in command.flags for name in flag.option_strings), *command.words])
        cases += ["      esac", f'      offered="{words}" ;;']
    return "\n".join(
        [
            f"# completion for {PROGRAM}",
            "_report_bridge() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} offered",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help --version" -- "$cur"))',
            "    return",
            "  fi",
            "  case ${COMP_WORDS[1]} in",
            *cases,
            "    *) return ;;",
            "  esac",
            '  COMPREPLY=($(compgen -W "$offered" -- "$cur"))',
            "}",
            f"complete -o default -F _report_bridge {PROGRAM}",
            "",
        ]
    )


def make_zsh(known: Sequence[Command]) -> str:
    """The function for bash, by zsh's own adapter for such."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{make_bash(known)}"


def make_fish(known: Sequence[Command]) -> str:
    """Lines for fish."""
    begin = f"complete -c {PROGRAM}"
    lines = [f"# completion for {PROGRAM}", f"{begin} -f"]
    for command in known:
        summary = _quote(COMMANDS[command.name].summary)
        lines.append(f"{begin} -n __fish_use_subcommand -a {command.name} -d {summary}")
        seen = f"-n {_quote('__fish_seen_subcommand_from ' + command.name)}"
        if command.words:
            lines.append(f"{begin} {seen} -a {_quote(' '.join(command.words))}")
        for flag in command.flags:
            words = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.option_strings]
            if flag.nargs != 0:
                words.append("-r -F" if _takes_file(flag) else "-x")
            if flag.choices:
                words.append(f"-a {_quote(' '.join(flag.choices))}")
            help = _quote(str(flag.help).removesuffix("."))
            lines.append(f"{begin} {seen} {' '.join(words)} -d {help}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[Sequence[Command]], str]]] = {
    "bash": make_bash,
    "zsh": make_zsh,
    "fish": make_fish,
}
