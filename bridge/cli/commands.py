"""The table of sub-commands, with what each is for and which settings it uses; and their words as arguments.

To add a command, add a row and a module of its name with ``configure(parser)`` and ``run(args)``; what else
its help says goes into ``epilogs``. The flags of settings come from their table.
A message never repeats the value of an argument, since that may be a key given to the wrong flag.
Imports argparse late: the usual starts of the service do without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.core.exits import UsageError
from bridge.core.text import hide_keys, suggest
from bridge.settings.parsing import BadValue
from bridge.settings.table import TABLE, Setting

if TYPE_CHECKING:
    import argparse

PROGRAM: Final = "report-bridge"
DEFAULT: Final = "serve"
REINSTALL: Final = (
    "Install anticaptcha-report-bridge again, in an environment of its own (pipx, or python -m venv)."
)
"""What to do about an installation that lacks something."""
NO_PLACE_FOR_KEYS: Final = (
    "The key does not belong on a command line, which everybody on this machine can see; "
    "use --key-file, --key-command or the variable ANTICAPTCHA_CLIENT_KEY."
)


_SERVES_ONLY = ("concurrency", "drain_s", "parent_watch", "metrics_file", "account_figures", "account_queues")
_ALL = [row.name for row in TABLE if row.flag is not None]
_CALLING = [row.name for row in TABLE if row.group != "wire" and row.name not in _SERVES_ONLY]
_READING = ("url", "ledger")


class Command(NamedTuple):
    """One sub-command."""

    told: str
    """What it does, in a sentence that does for the overview; and what else there is to say."""
    uses: Sequence[str] = ()
    """Names of the settings that it uses and takes the flags of."""

    @property
    def summary(self) -> str:
        """The first sentence without its full stop."""
        return self.told.partition(". ")[0].removesuffix(".")


COMMANDS: Final[Mapping[str, Command]] = {
    "serve": Command(
        "speak JSON-RPC 2.0 on stdin and stdout (without a command, too). Ends with its input.", _ALL
    ),
    "call": Command(
        "do one call and print the answer. The ledger and the pauses are those of the service.", _CALLING
    ),
    "simulate": Command(
        "serve the upstream's API on loopback. It has the report methods with their real rules, and faults "
        "by name, on 127.0.0.1. The base URL goes to stdout. Ends on SIGTERM or SIGINT."
    ),
    "demo": Command("show the bridge at work against the simulator. No account, no key, no network."),
    "history": Command("list, show, export and prune reports, even while a bridge is at work.", _READING),
    "stats": Command(
        "count what became of reports, and why. Shows reasons, ages, latencies, pauses and advice. "
        "Times are UTC.",
        _READING,
    ),
    "pauses": Command(
        "show and end pauses. A pause holds reports back until the next one may try whether it is over.",
        ("key_file", "key_command", *_READING),
    ),
    "doctor": Command(
        "check this installation, with a fix for each fault. Looks at settings, key and ledger, too, and "
        "changes nothing.",
        _ALL,
    ),
    "ledger": Command("copy, check and migrate the ledger.", _READING),
    "snippet": Command("print an integration with the paths of this machine."),
    "completion": Command("print completions for a shell."),
    "config": Command("print every setting with its value and origin. Secrets are masked.", _ALL),
    "version": Command(
        "print the version. With --json it also says what the program stands on, for a fault report."
    ),
    "help": Command("explain a command, a topic or an error code."),
}
"""Name to row, in the order of the overview."""

GROUPS: Final = {"serve": "Run", "simulate": "Try without an account", "history": "Look up"}
"""What stands above which command in the overview."""

_SECRET_FLAGS = ("--key", "--client-key", "--clientKey", "--api-key", "--clientkey")


def parse_arguments(name: str, words: Sequence[str]) -> Any:
    """Parse the words after a command; prints help and raises SystemExit(0) if that is asked for.

    Returns:
        the command's own arguments by name; `given` in it holds the settings' flags.

    Raises:
        UsageError: a word is not understood.
    """
    given, words = _read_settings(name, words)
    if name == DEFAULT and set(words) <= {"--stdio"}:
        # Importing argparse costs 8 ms, a tenth of the whole start.
        return SimpleNamespace(given=given, json=False)
    parser = make_parser(name)
    # A misspelt flag first: the parser would complain of its value, as a word that has no place.
    known = [text for action in parser._actions for text in action.option_strings]
    flags = [word for word in words if word.startswith("--") and word != "--"]
    strange = [word for word in flags if word.partition("=")[0] not in known]
    if not strange:
        args, strange = parser.parse_known_intermixed_args(words)
    if strange:
        raise UsageError(_explain_strange(name, known, strange[0]))
    args.given = given
    return args


def _read_settings(name: str, words: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """Return what the flags of settings say, and the words that are the command's own."""
    known = {flag: (row.name, meaning) for row in settings_of(name) for flag, meaning in flags_of(row)}
    given: dict[str, str | bool] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if word == "--":
            others += [word, *rest]
        elif flag not in known:
            others.append(word)
        else:
            setting, meaning = known[flag]
            if meaning is None and not equals:
                value = next(rest, "--")
            if (meaning is not None and equals) or (not equals and value[:2] == "--"):
                wants = "takes a value" if meaning is None else "takes no value"
                raise UsageError(f"{flag} {wants}; see `{PROGRAM} {name} --help`.")
            given[setting] = value if meaning is None else meaning
    return given, others


def make_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    import argparse

    from bridge.cli.terminal import print_text

    class Parser(argparse.ArgumentParser):
        """Says what is wrong in one sentence, without the values given."""

        def error(self, message: str) -> Any:
            about, colon, what = message.partition(": ")
            if "required" in about:
                missing = next(action for action in self._actions if not action.option_strings)
                message = f"{missing.metavar} is missing: {missing.help}"
            elif about.startswith("argument ") and colon:
                message = f"{about[9:]} {what.replace('expected one argument', 'takes a value')}"
            end = " See" if message.endswith("?") else "; see"
            raise UsageError(f"{hide_keys(message)}{end} `{self.prog} --help`.")

        def print_help(self, file: object = None) -> None:
            print_text(self.format_help())

        def _check_value(self, action: argparse.Action, value: Any) -> None:
            if action.choices is not None and value not in action.choices:
                near = suggest(str(value), action.choices).removesuffix(".")
                raise argparse.ArgumentError(action, f"is one of {', '.join(action.choices)}{near}")

    rows, told, epilog = settings_of(name), COMMANDS[name].told, ""
    with suppress(FileNotFoundError):
        epilog = read_text(f"epilogs/{name}.txt")
    has_actions = "actions:" in epilog
    if rows:
        names = " ".join(shown_flag(row) for row in rows)
        also = _fill(f"also (`{PROGRAM} help environment` explains them): {names}", "  ")
        epilog = f"{also}\n\n{epilog}"
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=_fill(f"{told[0].upper()}{told[1:]}"),
        epilog=epilog,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, 2, 18, 80),
        allow_abbrev=False,
        add_help=False,
    )
    # Understood, and told elsewhere: whoever reads the help has found it.
    hidden = parser.add_argument_group()
    hidden.add_argument("-h", "--help", action="help", help="print this help")
    import_module(f"bridge.cli.{name}").configure(parser)
    parser._positionals.title, parser._optionals.title = "words", "flags"
    forms = {"?": "[{}]", "*": "[{} ...]"}
    words = [
        forms.get(str(action.nargs), "{}").format(action.metavar)
        for action in parser._actions
        if not action.option_strings
    ]
    parser.usage = " ".join(["%(prog)s", *words, "[FLAGS]"])
    # They have been read when the parser gets the rest.
    for row in rows:
        for flag, meaning in flags_of(row):
            text = f"Turns off: {row.help}" if meaning is False else row.help
            action = hidden.add_argument(flag, dest="setting", help=text, metavar=row.metavar or "VALUE")
            action.choices, action.nargs = row.choices or None, None if meaning is None else 0
    parser._action_groups = [parser._optionals] if has_actions else [parser._positionals, parser._optionals]
    return parser


def read_text(name: str) -> str:
    """Return a text that stands beside the commands.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    with open(os.path.join(os.path.dirname(__file__), *name.split("/")), encoding="utf-8") as file:
        return file.read()


def settings_of(name: str) -> list[Setting]:
    """Return the settings whose flags a command takes."""
    return [row for row in TABLE if row.flag is not None and row.name in COMMANDS[name].uses]


def flags_of(row: Setting) -> Iterator[tuple[str, bool | None]]:
    """Yield each flag of a setting with what it means; None: the value comes with it."""
    if row.flag is not None:
        is_switch = row.kind == "switch"
        yield row.flag, True if is_switch else None
        if is_switch:
            yield f"--no-{row.flag[2:]}", False


def shown_flag(row: Setting) -> str:
    """Return the flag that changes something; its opposite is there to beat a variable."""
    flag = row.flag or ""
    return f"--no-{flag[2:]}" if row.kind == "switch" and row.default else flag


def number(
    parse: Callable[[str, float, float], float], low: int, high: int, told: str
) -> Callable[[str], float]:
    """Return what reads an argument that is a number, as one of the settings' parsers does.

    Args:
        told: what to say if it is none; the value is not repeated.
    """
    from argparse import ArgumentTypeError

    def read(text: str) -> float:
        with suppress(BadValue):
            return parse(text, low, high)
        raise ArgumentTypeError(told)

    return read


def format_value(value: object, nothing: str = "none") -> str:
    """Return the value of a setting as a person writes it."""
    if value is None:
        return nothing
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fill(text: str, indent: str = "") -> str:
    import textwrap

    return textwrap.fill(text, 78, subsequent_indent=indent, break_on_hyphens=False)


# --- mistakes --------------------------------------------------------------------------------


def explain_unknown_command(word: str) -> str:
    """Return the sentence about a first word that is no command."""
    if word.isascii() and word.lower().startswith(("report", "bridge.", "rpc.")):
        return f"Methods are called by `{PROGRAM} call METHOD`; see `{PROGRAM} call --help`."
    if not word.isascii() or not word.replace("-", "").isalpha() or len(word) > 24:
        return f"The first word is no command; see `{PROGRAM} --help`."
    nearest = suggest(word, COMMANDS, f"; did you mean `{PROGRAM} {{}}`?")
    return f"There is no command {word}{nearest} See `{PROGRAM} --help`."


def _explain_strange(name: str, known: Sequence[str], word: str) -> str:
    flags = f"`{PROGRAM} {name} --help`"
    if not word.startswith("-"):
        if word in COMMANDS:
            return f"The command has to come first: `{PROGRAM} {word} ...`."
        return f"There is one argument too many; see {flags}."
    flag = word.partition("=")[0]
    if flag in _SECRET_FLAGS:
        return NO_PLACE_FOR_KEYS
    if len(flag) > 40 or not flag.isascii() or not flag.replace("-", "").replace("_", "").isalnum():
        return f"A flag is not known; see {flags}."
    if any(flag == known_flag for row in TABLE for known_flag, _ in flags_of(row)):
        return f"{name} does not take {flag}: it has no use for that setting."
    return f"The flag {hide_keys(flag)} is not known{suggest(flag, known)} See {flags}."
