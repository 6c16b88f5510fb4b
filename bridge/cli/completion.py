"""``report-bridge completion``: completions for a shell, made from the parsers, so that they cannot differ.

The scripts ask nobody at the time of completing, so they answer at once and work without this program.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from shlex import quote
from typing import Final

from bridge.cli.call import callable_methods
from bridge.cli.commands import COMMANDS, PROGRAM, make_parser
from bridge.cli.help import TOPICS
from bridge.cli.terminal import print_text

_FILES: Final = ("PATH", "PATH|memory|URL", "FILE", "F")
"""What a file is called in a command's help."""


Command = tuple[str, Sequence[str], Sequence[argparse.Action]]
"""The name of a command, what its first word may be (empty if anything), and its flags."""


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
        yield name, known.get(name) or list(first or ()), flags


def make_bash(known: Sequence[Command]) -> str:
    """A completion function for bash; works without the bash-completion package."""
    # Where nothing is offered, bash offers the names of files.
    cases = ""
    for name, words, flags in known:
        for flag in flags:
            if flag.nargs != 0:
                case = f"{name} {flag.option_strings[-1]}"
                cases += f'      "{case}") offered="{" ".join(flag.choices or ())}" ;;\n'
        offered = " ".join([*(flag.option_strings[-1] for flag in flags), *words])
        cases += f'      "{name} "*) offered="{offered}" ;;\n'
    return f"""\
# completion for {PROGRAM}
_report_bridge() {{
  local offered=
  if [ "$COMP_CWORD" -eq 1 ]; then
    offered="{" ".join(COMMANDS)} --help --version"
  else
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{cases}    esac
  fi
  COMPREPLY=($(compgen -W "$offered" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _report_bridge {PROGRAM}
"""


def make_zsh(known: Sequence[Command]) -> str:
    """The function for bash, by zsh's own adapter for such."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{make_bash(known)}"


def make_fish(known: Sequence[Command]) -> str:
    """Lines for fish."""
    begin = f"complete -c {PROGRAM}"
    lines = [f"# completion for {PROGRAM}", f"{begin} -f"]
    for name, words, flags in known:
        summary = quote(COMMANDS[name].summary)
        lines.append(f"{begin} -n __fish_use_subcommand -a {name} -d {summary}")
        seen = f"{begin} -n '__fish_seen_subcommand_from {name}'"
        lines.append(f"{seen} -a {quote(' '.join(words))}")
        for flag in flags:
            takes = ""
            if flag.nargs != 0:
                takes = (
                    "-r -F " if flag.metavar in _FILES else f"-x -a {quote(' '.join(flag.choices or ()))} "
                )
            help = quote(str(flag.help).removesuffix("."))
            lines.append(f"{seen} -l {flag.option_strings[-1][2:]} {takes}-d {help}")
    return "\n".join(lines) + "\n"


SHELLS: Final[Mapping[str, Callable[[Sequence[Command]], str]]] = {
    "bash": make_bash,
    "zsh": make_zsh,
    "fish": make_fish,
}
