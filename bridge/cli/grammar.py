"""The command line as a value: commands, their flags and words, read from the parsers themselves.

What completions and the manual are made of, so that neither can differ from what is understood.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final, NamedTuple

from bridge.cli.commands import COMMANDS, TOPICS
from bridge.cli.flags import make_parser

_FILES: Final = ("PATH", "FILE", "F")


class Flag(NamedTuple):
    """One flag of a command."""

    names: tuple[str, ...]
    help: str
    metavar: str | None
    """None: it takes no value."""
    choices: tuple[str, ...]
    is_file: bool
    group: str
    """Title of its group; empty for the command's own flags."""


class Grammar(NamedTuple):
    """One command."""

    name: str
    summary: str
    description: str
    epilog: str
    words: tuple[str, ...]
    """What its first word may be; empty if anything."""
    metavars: tuple[str, ...]
    """Its words as a usage line has them."""
    flags: tuple[Flag, ...]


def read_grammar() -> Iterator[Grammar]:
    """Yield every command in the order of the overview."""
    for name, command in COMMANDS.items():
        parser = make_parser(name)
        words: tuple[str, ...] = ()
        metavars = []
        flags = []
        for group in parser._action_groups:
            own = group.title in ("options", "positional arguments", None)
            for action in group._group_actions:
                if action.help == argparse.SUPPRESS:
                    continue
                choices = tuple(str(choice) for choice in action.choices or ())
                metavar = action.metavar if isinstance(action.metavar, str) else None
                if not action.option_strings:
                    words = words or choices
                    metavars.append(_spell_word(action, metavar))
                    continue
                takes = action.nargs != 0
                flags.append(
                    Flag(
                        tuple(action.option_strings),
                        (action.help or "").replace("%%", "%"),
                        (metavar or "|".join(choices) or action.dest.upper()) if takes else None,
                        choices,
                        (metavar or "").split("|")[0] in _FILES,
                        "" if own else str(group.title),
                    )
                )
        yield Grammar(
            name,
            command.summary,
            parser.description or "",
            parser.epilog or "",
            _known_words(name) or words,
            tuple(metavars),
            tuple(flags),
        )


def _known_words(name: str) -> tuple[str, ...]:
    """Words that the command checks itself, because a parser's list would be too strict or too early."""
    if name == "call":
        from bridge.rpc.discovery import methods

        return tuple(method.name for method in methods() if method.result)
    if name == "schema":
        from bridge.cli.schema import list_names

        return tuple(list_names())
    return (*COMMANDS, *TOPICS) if name == "help" else ()


def _spell_word(action: argparse.Action, metavar: str | None) -> str:
    word = metavar or action.dest.upper()
    if action.nargs == "?":
        return f"[{word}]"
    return f"[{word} ...]" if action.nargs == "*" else word
