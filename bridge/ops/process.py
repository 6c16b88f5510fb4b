"""The process itself: nothing that a parent handed down disables it, and nobody may dump its memory."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

_COLLECT_EVERY: Final = 10_000
"""Objects made and not freed between two looks for cycles: those of some hundred reports in flight."""
_PR_SET_DUMPABLE: Final = 4


def undo_inherited() -> None:
    """Take back what a parent handed down that would disable us, before a child is started or a signal heard.

    An ignored SIGCHLD loses the exit status of children, an ignored SIGTERM would be handed on to them, a
    blocked signal never comes, and gevent's variables are meant for another program.
    """
    for name in [name for name in os.environ if name.startswith("GEVENT")]:
        del os.environ[name]
    if os.name != "posix":
        return
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


def forbid_core_dumps() -> None:
    """Keep memory, and with it keys, out of core dumps: of files, and of handlers that Linux pipes a core to.

    A limit of 0 does not bind such a handler; one of exactly 1 byte does, and is too small for a file. To be
    called before a key is read; best effort where the system has no such limit.

    Source: Linux, fs/coredump.c (`coredump_pipe`): the handlers themselves are started with a limit of 1.
    """
    try:
        import resource

        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        except ValueError:  # the parent allows less than 1, which no handler heeds
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            hide_memory()
    except (ImportError, OSError, ValueError):
        hide_memory()


def hide_memory() -> None:
    """Keep memory from debuggers of the same user, too (Linux). Best effort; costs the import of ctypes."""
    with suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def silence_libraries() -> None:
    """Keep what libraries log off stderr, since it may hold arguments. To be called once they are loaded."""
    import logging

    logging.disable()


def calm_collector() -> None:
    """Let the garbage collector pass over what will stay, and come more rarely.

    A report leaves no cycles behind; at its default the collector takes a tenth of the time of each.
    """
    import gc

    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
