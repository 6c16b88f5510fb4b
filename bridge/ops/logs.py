"""The log: events become lines on stderr or in a file, written by a thread of its own.

A caller never waits for the reader of the log: lines are queued, and dropped and counted when the
queue is full. Every string goes through the scrubber. Must not import the standard logging module
at start; `Log.adopt_libraries` tames it once a library has loaded it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.events import DEBUG, EVENTS, LEVEL_NAMES, LEVELS, WARNING, render_sentence
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber

QUEUE_LINES: Final = 1000
"""Events that may wait for the writer: some seconds of the busiest log, under 1 MB of memory."""
ROTATION_CHECK_S: Final = 1.0
"""How often a log file is compared with its path, so that a renamed file is left within a second."""
_POLL_MS: Final = 500

_Entry = tuple[float, int, str, Mapping[str, Any]]


class Log:
    """Where events go. Thread safety: every method may be called from any thread.

    Attributes:
        dropped: events lost because the queue was full or the log could not be written.
        threshold: number of the lowest level that is written; see `bridge.core.events.LEVELS`.
    """

    def __init__(
        self, descriptor: int, *, threshold: int, text: bool, scrubber: Scrubber, path: str | None = None
    ) -> None:
        """Write to an open descriptor; use `Log.open` to choose one by the settings."""
        self.threshold = threshold
        self.dropped = 0
        self._told_dropped = 0
        self._descriptor = descriptor
        self._path = path
        self._checked_at = time.monotonic()
        self._render = _text_line if text else _json_line
        self._scrubber = scrubber
        self._queue: deque[_Entry] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._closing = False

    @classmethod
    def open(
        cls,
        level: str = "warning",
        format: str = "auto",
        file: str | None = None,
        scrubber: Scrubber | None = None,
    ) -> Log:
        """Open the log that the settings ask for.

        Args:
            level: ``debug``, ``info``, ``warning`` or ``error``.
            format: ``json``, ``text``, or ``auto``: text on a terminal, else JSON lines.
            file: path that is appended to and made with mode 0600; default: stderr.
            scrubber: what every string goes through.

        Raises:
            ConfigError: the file cannot be opened.
        """
        descriptor = 2 if file is None else _open_file(file)
        text = format == "text" or (format == "auto" and file is None and _is_terminal(descriptor))
        return cls(descriptor, threshold=LEVELS[level], text=text, scrubber=scrubber or Scrubber(), path=file)

    def event(self, name: str, /, **fields: Any) -> None:
        """Log one event; never raises and never waits.

        Args:
            name: a row of `bridge.core.events.EVENTS`; an unknown one is logged as a warning.
            fields: values of that row's fields; strings are scrubbed before they are written.
        """
        row = EVENTS.get(name)
        level = WARNING if row is None else row.level
        if level < self.threshold:
            return
        try:
            with self._wake:
                if self._closing or len(self._queue) >= QUEUE_LINES:
                    self.dropped += 1
                    return
                self._queue.append((time.time(), level, name, fields))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
                    self._thread.start()
                self._wake.notify_all()
        except Exception:
            # "can't start new thread": the bridge goes on without this line.
            self._thread = None
            self.dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, for at most ``timeout_s`` seconds, and take no more events."""
        until = time.monotonic() + timeout_s
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            while self._thread is not None and (self._queue or self._busy):
                left = until - time.monotonic()
                if left <= 0:
                    return
                self._wake.wait(left)
            if self._path is not None and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def adopt_libraries(self) -> None:
        """Keep the standard logging module off stderr; call it after the libraries have been loaded.

        Their messages become `library_message` events, at level debug only. Libraries log arguments,
        so nothing of them is shown otherwise.
        """
        import logging

        logging.raiseExceptions = False
        logging.lastResort = None
        root = logging.getLogger()
        if self.threshold > DEBUG:
            if not any(isinstance(handler, logging.NullHandler) for handler in root.handlers):
                root.addHandler(logging.NullHandler())
            return
        event = self.event

        class Adopted(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    text = record.getMessage()
                except Exception:
                    text = "(a message that cannot be formatted)"
                event("library_message", library=record.name, severity=record.levelname.lower(), text=text)

        root.addHandler(Adopted())

    # --- the writer's thread -----------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                self._wake.notify_all()
                while not self._queue:
                    if self._closing:
                        return
                    self._wake.wait()
                entry = self._queue.popleft()
                self._busy = True
            self._tell_dropped(entry[0])
            if not self._written(entry):
                with self._wake:
                    self.dropped += 1

    def _tell_dropped(self, at: float) -> None:
        missing = self.dropped - self._told_dropped
        if (
            missing
            and self.threshold <= WARNING
            and self._written((at, WARNING, "log_dropped", {"count": missing}))
        ):
            self._told_dropped += missing

    def _written(self, entry: _Entry) -> bool:
        try:
            at, level, name, fields = entry
            self._reopen_if_moved()
            _write(self._descriptor, self._render(at, level, name, self._scrubber.scrub_value(fields)))
        except Exception:
            return False  # disk full, reader gone, a field that cannot be printed: the next line is tried
        return True

    def _reopen_if_moved(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._checked_at < ROTATION_CHECK_S:
            return
        self._checked_at = now
        here = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except OSError:
            pass
        else:
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                return
        try:
            fresh = _open_file(self._path)
        except ConfigError:
            return  # the old file is still better than none
        os.close(self._descriptor)
        self._descriptor = fresh


def _open_file(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(
            f"The log file {path} cannot be opened ({reason}); name another one with --log-file."
        ) from error


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _write(descriptor: int, line: bytes) -> None:
    """Write a whole line, also to a descriptor in non-blocking mode; waits for the reader."""
    view = memoryview(line)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait_writable(descriptor)


def _wait_writable(descriptor: int) -> None:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(_POLL_MS)


# --- lines -----------------------------------------------------------------------------------


def format_time(at: float) -> str:
    """Return UNIX seconds as RFC 3339 in UTC with milliseconds."""
    whole, fraction = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{fraction:03}Z"


def _json_line(at: float, level: int, name: str, fields: Mapping[str, Any]) -> bytes:
    line: dict[str, Any] = {
        "time": format_time(at),
        "level": LEVEL_NAMES[level],
        "event": name,
        "message": render_sentence(name, fields),
    }
    for field, value in fields.items():
        is_number = not isinstance(value, float) or value - value == 0
        line.setdefault(field, value if is_number else None)  # JSON has no NaN and no Infinity
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


def _text_line(at: float, level: int, name: str, fields: Mapping[str, Any]) -> bytes:
    text = f"{format_time(at)} {LEVEL_NAMES[level]}: {render_sentence(name, fields)}"
    trace = fields.get("trace")
    if trace:
        text = f"{text} | {trace}"
    # One line, one event, and no control sequences on somebody's terminal.
    return text.encode("unicode_escape") + b"\n"


Notify = Callable[..., None]
"""Type of `Log.event`, for parts that are handed it."""
