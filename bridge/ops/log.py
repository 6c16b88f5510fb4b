"""The log: events become lines on stderr or in a file.

Nobody waits for the reader of the log: lines that it does not take wait in an outlet, and are dropped and
counted when too many do. Every string goes through the scrubber. Must not import the standard logging module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from bridge.core.events import LEVELS, events, render_sentence
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber
from bridge.core.text import rfc3339
from bridge.engine import Engine, Outlet

STDERR: Final = 2
QUEUE_LINES: Final = 1000
"""Lines that may wait for the reader: some seconds of the busiest log, under 1 MB of memory."""
ROTATION_CHECK_S: Final = 1.0
"""How often a log file is compared with its path, so that a renamed file is left within a second."""


class Log:
    """Where events go.

    Belongs to the engine's thread.

    Args:
        level: the lowest that is written: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``json``, ``text``, or ``auto``: text on a terminal, else JSON lines.
        path: of a file that is appended to and made with mode 0600; None: stderr.
        scrubber: what every string goes through.

    Raises:
        ConfigError: the file cannot be opened.

    Attributes:
        dropped: events lost because too many lines were waiting or the log could not be written.
    """

    def __init__(self, engine: Engine, level: str, format: str, path: str | None, scrubber: Scrubber) -> None:
        levels = LEVELS[LEVELS.index(level) :]
        self._told = frozenset(name for name, row in events().items() if row.level in levels)
        self.dropped = 0
        self._told_dropped = 0
        self._engine = engine
        self._descriptor = STDERR if path is None else _open_file(path)
        self._outlet = self._open_outlet()
        self._path = path
        self._checked_at = 0.0
        is_text = format == "text" or (format == "auto" and path is None and os.isatty(STDERR))
        self._render = _text_line if is_text else _json_line
        self._scrubber = scrubber
        self._is_closed = False

    def event(self, name: str, /, **fields: Any) -> None:
        """As `tell`, with the fields as arguments."""
        self.tell(name, fields)

    def tell(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log one event; never raises and never waits.

        Args:
            name: a row of `bridge.core.events.events`.
            fields: values of that row's fields; strings are scrubbed before they are written.
        """
        if name not in self._told:
            return
        if self._is_closed or self._outlet.backlog >= QUEUE_LINES:
            self.dropped += 1
            return
        try:
            clean = {field: self._scrubber.scrub_value(value) for field, value in fields.items()}
            at = self._engine.wall()
            line = self._render(at, name, clean)
            self._reopen_if_moved(at)
        except Exception:
            self.dropped += 1  # a field that cannot be printed, a folder that is gone: the next line is tried
        else:
            self._outlet.put(line)

    def flush(self) -> None:
        """Write at once what can be: the process may end before the engine turns."""
        self._outlet.flush()

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most ``timeout_s`` seconds, and take no more events.

        The descriptor is left to the end of the process, which is next.
        """
        self._is_closed = True
        self._outlet.drain(self._engine.now() + timeout_s)

    # --- writing -----------------------------------------------------------------------------

    def _open_outlet(self) -> Outlet:
        return Outlet(self._descriptor, self._engine, on_room=self._tell_dropped, on_lost=self._note_lost)

    def _note_lost(self, count: int) -> None:
        self.dropped += count

    def _tell_dropped(self) -> None:
        missing = self.dropped - self._told_dropped
        if missing and not self._outlet.backlog and not self._is_closed:
            self._told_dropped = self.dropped
            self.event("log_dropped", count=missing)

    def _reopen_if_moved(self, at: float) -> None:
        if self._path is None or 0.0 <= at - self._checked_at < ROTATION_CHECK_S:
            return
        self._checked_at = at
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                return
        if not self._outlet.flush():
            return  # somebody still waits to write to it
        with suppress(ConfigError):  # the old file is still better than none
            fresh = _open_file(self._path)
            os.close(self._descriptor)
            self._descriptor = fresh
            self._outlet = self._open_outlet()


def _open_file(path: str) -> int:
    try:
        # A named pipe that nobody reads would be waited for.
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(
            f"The log file {path} cannot be opened ({reason}); name another one with --log-file."
        ) from error


# --- lines -----------------------------------------------------------------------------------


def _json_line(at: float, name: str, fields: Mapping[str, Any]) -> bytes:
    line: dict[str, Any] = {
        "time": rfc3339(at),
        "level": events()[name].level,
        "event": name,
        "message": render_sentence(name, fields),
    }
    for field, value in fields.items():
        is_number = not isinstance(value, float) or value - value == 0
        line.setdefault(field, value if is_number else None)  # JSON has no NaN and no Infinity
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


def _text_line(at: float, name: str, fields: Mapping[str, Any]) -> bytes:
    text = f"{rfc3339(at)} {events()[name].level}: {render_sentence(name, fields)}"
    if fields.get("trace"):
        text = f"{text} | {fields['trace']}"
    # One line, one event, and no control sequences on somebody's terminal.
    return text.encode("unicode_escape") + b"\n"
