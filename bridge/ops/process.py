"""The process and its machine: what a parent handed down, signals, the parent's end, core dumps, an id.

Turns each thing that happens from outside into one call; decides nothing about reports.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bridge.engine import Engine

_COLLECT_EVERY: Final = 10_000
"""Objects made and not freed between two looks for cycles: those of some hundred reports in flight."""
_PR_SET_DUMPABLE: Final = 4
PARENT_LOOK_S: Final = 1.0
"""How often the parent is looked at; its end must be noticed within 5 s."""


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

        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    except (ImportError, OSError, ValueError):
        # The parent may allow less than 1, which is then in force, and which no handler heeds. Memory is kept
        # from debuggers of the same user, too (Linux); costs the import of ctypes.
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


def hear_signals(
    engine: Engine, stop: Callable[[int], object], ignored: Callable[[], object], on_terminal: bool
) -> Callable[[int], None]:
    """Listen to signals from now on; a SIGHUP that the parent ignores (nohup) stays ignored.

    The second ending signal ends the process at once with 128 plus its number.

    Args:
        stop: Called at the first signal that ends the service, with its number.
        ignored: Called once when a SIGINT is left to the parent.
        on_terminal: True if a person at a terminal sends SIGINT.

    Returns:
        What hears a signal; to be called with those that came before.
    """
    spares_interrupt, is_stopping = not on_terminal, False

    def hear(number: int) -> None:
        nonlocal spares_interrupt, is_stopping
        if is_stopping:
            os._exit(128 + number)
        if number == signal.SIGINT and spares_interrupt:
            spares_interrupt = False
            ignored()
        else:
            is_stopping = True
            stop(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            engine.on_signal(number, hear)
    return hear


def watch_parent(engine: Engine, on_gone: Callable[[int], object]) -> None:
    """Tell `on_gone` once when the process that started us has ended, unless that is process 0 or 1."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            engine.sleep(PARENT_LOOK_S)
        on_gone(parent)

    if parent not in (0, 1):
        engine.spawn(watch)


def load_machine_id(directory: str | None) -> str:
    """Read the id of this machine, for pauses that concern it alone, or make one.

    Args:
        directory: The user's state directory; None or one that cannot be written gives an id for
            this process alone, so that nothing is shared by mistake.
    """
    fresh = os.urandom(8).hex()
    if directory is None:
        return fresh
    path = os.path.join(directory, "machine-id")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            put_file(path, f"{fresh}\n".encode("ascii"), 0o600, os.link)
        with open(path, encoding="ascii") as file:
            found = file.read(64).strip()
    except (OSError, ValueError):
        return fresh
    return found if found.isalnum() else fresh


def put_file(
    path: str, data: bytes, mode: int = 0o644, place: Callable[[str, str], object] = os.replace
) -> None:
    """Put a file into place in one step, so that a reader sees all of it or none.

    Args:
        mode: As it is, others may read it: there must be no secret in it.
        place: What puts a draft into place; `os.link` leaves a file that is there already.

    Raises:
        OSError: the folder cannot be written.
    """
    # Not ending like the file itself, so that a collector of *.prom leaves it alone.
    draft = f"{path}.{os.urandom(8).hex()}.draft"
    try:
        with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            file.write(data)
        place(draft, path)
    finally:
        with suppress(OSError):
            os.unlink(draft)
