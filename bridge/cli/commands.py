"""The table of sub-commands: name, module, what each is for, and whether it takes the settings' flags.

To add a command, add a row and a module with ``HELP``, ``configure(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

PROGRAM: Final = "report-bridge"
DEFAULT: Final = "serve"


class Command(NamedTuple):
    """One sub-command."""

    module: str
    group: str
    summary: str
    """A few words for the overview, no full stop."""
    takes_settings: bool


COMMANDS: Final[Mapping[str, Command]] = {
    "serve": Command(
        "bridge.cli.serve", "run", "speak JSON-RPC 2.0 on stdin and stdout (without a command, too)", True
    ),
    "call": Command("bridge.cli.call", "run", "do one call and print the answer", True),
    "simulate": Command("bridge.cli.simulate", "try", "serve the upstream's API on loopback", False),
    "demo": Command("bridge.cli.demo", "try", "show the bridge at work against the simulator", False),
    "history": Command("bridge.cli.history", "look", "list, show, export and prune reports", True),
    "stats": Command("bridge.cli.stats", "look", "count what became of reports, and why", True),
    "pauses": Command("bridge.cli.pauses", "look", "show and end pauses", True),
    "doctor": Command(
        "bridge.cli.doctor", "look", "check this installation, with a fix for each fault", True
    ),
    "ledger": Command("bridge.cli.ledger", "look", "copy, check and migrate the ledger", True),
    "snippet": Command("bridge.cli.snippet", "look", "print an integration that works here", False),
    "completion": Command("bridge.cli.completion", "look", "print completions for a shell", False),
    "man": Command("bridge.cli.man", "look", "print the manual page", False),
    "config": Command("bridge.cli.config", "look", "print every setting with its origin", True),
    "schema": Command("bridge.cli.schema", "look", "print a JSON Schema, or list them", False),
    "version": Command("bridge.cli.version", "look", "print the version", False),
    "help": Command("bridge.cli.topics", "look", "explain a command or a topic", False),
}
"""Name to row, in the order of the overview."""

GROUPS: Final[Mapping[str, str]] = {"run": "Run", "try": "Try without an account", "look": "Look up"}

TOPICS: Final[Mapping[str, str]] = {
    "environment": "every setting with its flag, variable and file key",
    "errors": "every error code, what it means and what to do",
    "exit-codes": "what the exit code says",
}
"""Topics of ``report-bridge help``."""
