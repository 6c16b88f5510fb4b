"""The entry point: finds the command, runs it, and turns every way of ending into an exit code.

Imports next to nothing: the service starts through here. Usage and configuration mistakes are one
sentence on stderr; what is a fault of this program is one line, without exception text.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from bridge.cli.commands import COMMANDS, DEFAULT, REINSTALL, explain_unknown_command, parse_arguments
from bridge.core import exits
from bridge.core.exits import ExitError, OutputError, UsageError

_ALIASES = {"-h": "help", "--help": "help", "-V": "version", "--version": "version"}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code; see `bridge.core.exits`.

    Args:
        words: the command line without the program; default: that of the process.
    """
    try:
        return _flush_stdout(_run(list(sys.argv[1:] if words is None else words)))
    except ExitError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return exits.SIGINT
    except BrokenPipeError:
        return exits.STDOUT_GONE
    except SystemExit as leaving:
        # argparse has printed help; `exit` of other kinds is not used in this program.
        return _flush_stdout(exits.DONE) if not leaving.code else exits.INTERNAL
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        return _say(f"The Python package {package} is missing. {REINSTALL}", exits.CONFIG)
    except Exception as error:
        return _say(_explain_internal(error), exits.INTERNAL)


def run() -> None:
    """Run the command of this process and end it, without tearing the interpreter down.

    By now everything is written and closed. What is left would be freed piece by piece, which takes
    longer than the last report: 170 ms after the last answer, against 7 ms.
    """
    code = main()
    atexit._run_exitfuncs()
    os._exit(code)


def _run(words: list[str]) -> int:
    first = words[0] if words else ""
    if first in _ALIASES:
        name, words = _ALIASES[first], []
    elif first in COMMANDS:
        name = words.pop(0)
    elif not first or first.startswith("-"):
        name = DEFAULT
    else:
        raise UsageError(explain_unknown_command(first))
    interrupts: list[int] = []
    if name == DEFAULT and not os.isatty(0):
        from signal import SIGINT, signal

        # A child leaves it to its parent, also before it serves. Then it is told, and the second one drains.
        # Not as SIG_IGN, which would be handed on to children.
        signal(SIGINT, lambda number, _: interrupts.append(number))
    command, args = import_module(f"bridge.cli.{name}"), parse_arguments(name, words)
    args.interrupts = interrupts
    code: int | None = command.run(args)
    return code or exits.DONE


def _say(sentence: str, code: int) -> int:
    from bridge.cli.terminal import warn

    with suppress(OSError, AttributeError):  # it may be None
        sys.stdout.flush()
    warn(sentence.replace("\n", " "))
    return code


def _explain_internal(error: Exception) -> str:
    if os.environ.get("REPORT_BRIDGE_LOG_LEVEL", "").lower() != "debug":
        kind = type(error).__name__
        return f"Internal error ({kind}); REPORT_BRIDGE_LOG_LEVEL=debug shows where. Please report it."
    import traceback

    # Places only: the text of an exception may hold anything, a key too.
    places = traceback.extract_tb(error.__traceback__)
    steps = " > ".join(f"{os.path.basename(place.filename)}:{place.lineno}" for place in places)
    return f"Internal error ({type(error).__name__}) at {steps}"


def _flush_stdout(code: int) -> int:
    """Return the code, or that standard output cannot be written; why is said unless its reader has gone."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return exits.STDOUT_GONE
    except OSError as error:
        return _say(str(OutputError(error)), exits.STDOUT_GONE)
    return code
