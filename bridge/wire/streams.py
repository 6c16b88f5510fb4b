"""The standard streams as descriptors: taken out of everybody else's reach, and the reading of one.

Works on what was inherited: pipes, sockets, files, terminals, blocking or not; `bridge.engine.Outlet` writes.
Knows nothing of framing. Never uses `sys.stdin` or `sys.stdout`. Linux and macOS only.
"""

from __future__ import annotations

import os
from typing import Final

from bridge.engine import Engine

CHUNK_BYTES: Final = 65536
"""Most bytes read at once: the capacity of a pipe on Linux."""


def take_descriptors() -> tuple[int, int]:
    """Take private copies of standard input and output, and put them out of everybody else's reach.

    Afterwards descriptor 0 is the null device and descriptor 1 is standard error, so that no stray print and
    no child can touch the wire. The copies are closed on exec and never 0, 1 or 2. Input that is closed at
    the start has ended; output that is closed has lost its reader.

    Returns:
        The copies of descriptor 0 and descriptor 1.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() takes the lowest free number, which is this one. An output opened to read refuses writes.
            os.set_inheritable(os.open(os.devnull, mode), True)
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


class Reader:
    """Reads a descriptor, chunk by chunk, until its end or until it is stopped."""

    def __init__(self, engine: Engine, fd: int) -> None:
        self._fd = fd
        self._readiness = engine.readiness(fd)
        self._is_stopped = False

    def read(self) -> bytes:
        """Wait for the next bytes; none at the end of input, which a read error is too, and once stopped."""
        while not self._is_stopped:
            try:
                self._readiness.wait_readable()
                return os.read(self._fd, CHUNK_BYTES)
            except BlockingIOError:
                continue  # somebody else was faster
            except OSError:
                break
        return b""

    def stop(self) -> None:
        """Read no more: a waiting `read` returns."""
        self._is_stopped = True
        self._readiness.interrupt(OSError("nothing more is to be read"))
