"""The table of sub-commands: name, module, what each is for, and which settings it uses.

To add a command, add a row and a module with ``HELP``, ``configure(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

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


class Command(NamedTuple):
    """One sub-command."""

    module: str
    group: str
    summary: str
    """A few words for the overview, no full stop."""
    uses: str = ""
    """Which settings it uses and takes the flags of, as `bridge.cli.flags.settings_of` lists them."""


COMMANDS: Final[Mapping[str, Command]] = {
    "serve": Command(
        "bridge.cli.serve", "run", "speak JSON-RPC 2.0 on stdin and stdout (without a command, too)", "all"
    ),
    "call": Command("bridge.cli.call", "run", "do one call and print the answer", "call"),
    "simulate": Command("bridge.cli.simulate", "try", "serve the upstream's API on loopback"),
    "demo": Command("bridge.cli.demo", "try", "show the bridge at work against the simulator"),
    "history": Command("bridge.cli.history", "look", "list, show, export and prune reports", "ledger"),
    "stats": Command("bridge.cli.stats", "look", "count what became of reports, and why", "ledger"),
    "pauses": Command("bridge.cli.pauses", "look", "show and end pauses", "pauses"),
    "doctor": Command(
        "bridge.cli.doctor", "look", "check this installation, with a fix for each fault", "all"
    ),
    "ledger": Command("bridge.cli.ledger", "look", "copy, check and migrate the ledger", "ledger"),
    "snippet": Command("bridge.cli.snippet", "look", "print an integration that works here"),
    "completion": Command("bridge.cli.completion", "look", "print completions for a shell"),
    "config": Command("bridge.cli.config", "look", "print every setting with its origin", "all"),
    "version": Command("bridge.cli.version", "look", "print the version"),
    "help": Command("bridge.cli.help", "look", "explain a command, a topic or an error code"),
}
"""Name to row, in the order of the overview."""

GROUPS: Final[Mapping[str, str]] = {"run": "Run", "try": "Try without an account", "look": "Look up"}

TOPICS: Final[Mapping[str, str]] = {
    "environment": "every setting with its flag, variable and file key",
    "errors": "every error code, what it means and what to do; `help 16` has one",
    "exit-codes": "what the exit code says",
    "report": "the vendor's rules about reports, and what the bridge does about each",
}
"""Topics of ``report-bridge help``."""
