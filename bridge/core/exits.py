"""The exit codes of the command, as a table, and the errors that end a process before it serves.

Every exit code is spelled here and nowhere else; ``report-bridge help exit-codes`` prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

EXITS: Final[dict[int, str]] = {}
"""Exit code to its meaning, one sentence or two."""


def _exit(code: int, meaning: str) -> int:
    EXITS[code] = meaning
    return code


DONE: Final = _exit(0, "Done. While serving: everything accepted was answered.")
REFUSED: Final = _exit(1, "A check failed, or a call was refused, paused or late.")
USAGE: Final = _exit(2, "The command line was not understood.")
CONFIG: Final = _exit(
    3, "The configuration cannot be used; the message names the setting, its origin and the way out."
)
KEY: Final = _exit(4, "The client key is missing, or the upstream does not know it (errorId 1).")
UNKNOWN: Final = _exit(
    5, "The outcome of the call is unknown: the report may have been taken and will not be sent again."
)
UNREACHED: Final = _exit(6, "The upstream was not reached; nothing was delivered.")
INTERNAL: Final = _exit(70, "Internal error: a fault of this program.")
STDOUT_GONE: Final = _exit(74, "Nobody reads stdout any more, or it cannot be written.")
UNDONE: Final = _exit(75, "Stopped by a signal with work undone; the next start takes it up.")
SIGHUP: Final = _exit(129, "Ended at once by a second SIGHUP.")
SIGINT: Final = _exit(130, "Ended by SIGINT.")
SIGTERM: Final = _exit(143, "Ended at once by a second SIGTERM.")

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


class OutputError(ExitError, OSError):
    """Standard output cannot be written, for another reason than that its reader has gone."""

    exit_code = STDOUT_GONE

    def __init__(self, error: OSError) -> None:
        super().__init__(f"Standard output cannot be written: {error.strerror}.")
