"""The command line as values: commands, their flags and words, read from the parsers themselves.

What completions and the manual are made of, so that neither can differ from what is understood.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final, NamedTuple

from bridge.cli.commands import COMMANDS, TOPICS
from bridge.cli.flags import make_parser, read_epilog, settings_of, shown_flag, spell_word

_FILES: Final = ("PATH", "FILE", "F")


class Flag(NamedTuple):
    """One flag of a command."""

    names: tuple[str, ...]
    help: str
    metavar: str | None
    """None: it takes no value."""
    choices: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether its value is the name of a file."""
        return (self.metavar or "").split("|")[0] in _FILES


class Command(NamedTuple):
    """One command."""

    name: str
    description: str
    examples: str
    words: tuple[str, ...]
    """What its first word may be; empty if anything."""
    metavars: tuple[str, ...]
    """Its words as a usage line has them."""
    own: tuple[Flag, ...]
    settings: tuple[Flag, ...]

    @property
    def flags(self) -> tuple[Flag, ...]:
        """All flags."""
        return self.own + self.settings


def read_commands() -> Iterator[Command]:
    """Yield every command in the order of the overview."""
    for name in COMMANDS:
        parser = make_parser(name)
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        words = [action for action in shown if not action.option_strings]
        yield Command(
            name,
            (parser.description or "").replace("\n", " "),
            read_epilog(name),
            _known_words(name) or next((_choices(word) for word in words), ()),
            tuple(map(spell_word, words)),
            tuple(_read_flag(action) for action in shown if action.option_strings),
            tuple(_settings_flags(name)),
        )


def _read_flag(action: argparse.Action) -> Flag:
    choices = _choices(action)
    metavar = action.metavar if isinstance(action.metavar, str) else "|".join(choices) or action.dest.upper()
    names = tuple(action.option_strings)
    return Flag(
        names, (action.help or "").replace("%%", "%"), None if action.nargs == 0 else metavar, choices
    )


def _settings_flags(name: str) -> Iterator[Flag]:
    for row in settings_of(name):
        takes = row.kind != "switch"
        metavar = (row.metavar or "|".join(row.choices)) if takes else None
        text = row.help if takes or not row.default else f"Turns off: {row.help}"
        yield Flag((shown_flag(row),), text.removesuffix("."), metavar, row.choices)


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(str(choice) for choice in action.choices or ())


def _known_words(name: str) -> tuple[str, ...]:
    """Words that the command checks itself, because a parser's list would be too strict or too early."""
    if name == "call":
        from bridge.rpc.discovery import methods

        return tuple(method.name for method in methods() if method.result)
    if name == "schema":
        from bridge.cli.schema import list_names

        return tuple(list_names())
    return (*COMMANDS, *TOPICS) if name == "help" else ()
