"""The exit codes of the command, as a table, and the errors that end a process before it serves.

Every exit code is spelled here and nowhere else; ``report-bridge help exit-codes`` prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
CONFIG: Final = 3
KEY: Final = 4
UNKNOWN: Final = 5
UNREACHED: Final = 6
INTERNAL: Final = 70
STDOUT_GONE: Final = 74
UNDONE: Final = 75
SIGHUP: Final = 129
SIGINT: Final = 130
SIGTERM: Final = 143

EXITS: Final[Mapping[int, str]] = {
    DONE: "Done. While serving: everything accepted was answered.",
    REFUSED: "A check failed, or a call was refused, paused or late.",
    USAGE: "The command line was not understood.",
    CONFIG: "The configuration cannot be used; the message names the setting, its origin and the way out.",
    KEY: "The client key is missing, or the upstream does not know it (errorId 1).",
    UNKNOWN: "The outcome of the call is unknown: the report may have been taken and will not be sent again.",
    UNREACHED: "The upstream was not reached; nothing was delivered.",
    INTERNAL: "Internal error: a fault of this program.",
    STDOUT_GONE: "Nobody reads stdout any more.",
    UNDONE: "Stopped by a signal with work undone; the next start takes it up.",
    SIGHUP: "Ended at once by a second SIGHUP.",
    SIGINT: "Ended by SIGINT.",
    SIGTERM: "Ended at once by a second SIGTERM.",
}
"""Exit code to its meaning, one sentence or two."""

_BY_CODE: Final[Mapping[int, int]] = {
    **dict.fromkeys((1, -32020), KEY),
    **dict.fromkeys((-32600, -32601, -32602, -32700), USAGE),
    -32002: UNKNOWN,
    -32001: UNREACHED,
    -32603: INTERNAL,
    -32032: UNDONE,
}


def exit_for(response: Mapping[str, Any]) -> int:
    """Return the exit code that a command ends with after this JSON-RPC response."""
    error = response.get("error")
    return DONE if error is None else _BY_CODE.get(error["code"], REFUSED)


class ExitError(Exception):
    """A sentence for the person at the terminal, and the exit code to leave with."""

    exit_code = INTERNAL


class ConfigError(ExitError):
    """The configuration cannot be used. The message names the setting, its origin and the fix."""

    exit_code = CONFIG


class UsageError(ExitError):
    """The command line was not understood. The message says what to write instead."""

    exit_code = USAGE
