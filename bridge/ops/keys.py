"""Where the client key comes from: the environment, a file that may change, or a command.

`KeySource.current` never waits: a command, or a file that is no regular one, is read by a background
thread. The key is handed to the scrubber before anybody else sees it and is never part of a message.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber, Secret

MIN_LENGTH: Final = 16
MAX_LENGTH: Final = 128
COMMAND_TIMEOUT_S: Final = 10.0
"""Time for a key command: enough for a password manager, short enough to be noticed."""
RERUN_S: Final = 30.0
"""Least time between two runs of a key command, so that refusals do not become a loop of runs."""
_READ_BYTES: Final = 8192

_HIDDEN: Final = frozenset(
    {"ANTICAPTCHA_CLIENT_KEY", "ANTICAPTCHA_CLIENT_KEY_FILE", "REPORT_BRIDGE_LEDGER_PASSWORD"}
)
"""Variables that a key command does not inherit."""

_Signature = tuple[int, int, int, int, int]


class KeyFault(ValueError):
    """A source gives no usable key; the text says why and never holds any of the input."""


def check_key(text: str) -> Secret:
    """Return text as a key: 16 to 128 visible ASCII characters after one trailing newline was cut.

    Raises:
        KeyFault: it cannot be a key.
    """
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise KeyFault("it is empty")
    if text.strip() != text or any(char.isspace() for char in text):
        raise KeyFault("there are blanks or line breaks in or around the key; remove them")
    if not all("!" <= char <= "~" for char in text):
        raise KeyFault("it holds characters other than visible ASCII")
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise KeyFault(f"it has {len(text)} characters; a key has {MIN_LENGTH} to {MAX_LENGTH}")
    return Secret(text)


class KeySettings(Protocol):
    """What of the settings says where the key is."""

    @property
    def client_key(self) -> Secret | None:
        """The key itself, from the environment."""

    @property
    def key_file(self) -> str | None:
        """Absolute path of a file."""

    @property
    def key_command(self) -> str | None:
        """Command line, split as a shell would but run without one."""

    def origin(self, name: str) -> str:
        """Where a setting was given, for messages."""


class KeySource:
    """The key of the settings, as it is now.

    Thread safety: all methods may be called from any thread; callbacks of `when_ready` run on the
    thread that has read the key, or at once on the caller's.
    """

    def __init__(
        self,
        settings: KeySettings,
        scrubber: Scrubber,
        notify: Callable[..., None],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Read the source for the first time; a command is only started.

        Args:
            settings: names at most one source.
            scrubber: learns every key before it is used.
            notify: `Log.event`.
            environ: environment for the command; default: that of the process. Its key variables
                are not handed on.

        Raises:
            ConfigError: the key of the environment or of a file cannot be used.
        """
        self._file = settings.key_file
        self._command = settings.key_command
        self._scrubber = scrubber
        self._notify = notify
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._current: Secret | None = None
        self._signature: _Signature | None = None
        self._told_mode: int | None = None
        self._told_fault = ""
        self._pending = False
        self._ran_at = float("-inf")
        self._waiting: list[Callable[[Secret | None], None]] = []
        name = "key_file" if self._file else "key_command" if self._command else "client_key"
        self._origin = settings.origin(name)
        try:
            if settings.client_key is not None:
                self._take(check_key(settings.client_key.reveal()))
            elif self._file is not None and not _is_stream(self._file):
                self._read_file()
            elif self._file is not None or self._command is not None:
                self._begin_background()
        except KeyFault as fault:
            raise ConfigError(f"The client key ({self._origin}) cannot be used: {fault}.") from None

    def current(self) -> Secret | None:
        """Return the key to use now; None if there is none, or none yet (see `is_pending`)."""
        if self._file is not None and not self._pending and self._signature is not None:
            self._refresh_file(force=False)
        return self._current

    @property
    def is_pending(self) -> bool:
        """Whether the key is being read in the background right now."""
        return self._pending

    def when_ready(self, callback: Callable[[Secret | None], None]) -> None:
        """Call back with the key to use now, once nothing is being read any more; at once if so already."""
        with self._lock:
            if self._pending:
                self._waiting.append(callback)
                return
        callback(self.current())

    def reload(self) -> None:
        """Read the source again, since the upstream does not know the key (errorId 1).

        A file is read at once; a command runs in the background, at most every 30 s. A key that
        does not change stays in use.
        """
        if self._file is not None and self._signature is not None:
            self._refresh_file(force=True)
        elif self._command is not None:
            with self._lock:
                is_due = not self._pending and time.monotonic() - self._ran_at >= RERUN_S
            if is_due:
                self._begin_background()

    # --- a file ------------------------------------------------------------------------------

    def _refresh_file(self, *, force: bool) -> None:
        assert self._file is not None  # both callers have asked
        try:
            if force or _signature(self._file) != self._signature:
                self._read_file()
                self._told_fault = ""
        except KeyFault as fault:
            self._complain(fault)

    def _read_file(self) -> None:
        assert self._file is not None  # all callers have asked
        with self._lock:
            try:
                descriptor = os.open(self._file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            except OSError as error:
                raise KeyFault(f"the file cannot be read ({error.strerror})") from None
            try:
                status = os.fstat(descriptor)
                # Remembered before reading: a write in between is then seen next time.
                self._signature = _signature_of(status)
                data = os.read(descriptor, _READ_BYTES)
            except OSError as error:
                raise KeyFault(f"the file cannot be read ({error.strerror})") from None
            finally:
                os.close(descriptor)
            self._warn_if_loose(status.st_mode)
        self._take(check_key(_decode(data)))

    def _warn_if_loose(self, mode: int) -> None:
        assert self._file is not None  # the caller has read it
        if mode & 0o077 and self._told_mode != mode and os.name == "posix":
            self._told_mode = mode
            self._notify("key_file_loose", path=self._file, mode=f"{stat.S_IMODE(mode):04o}")

    # --- a command, or a file that is a stream -----------------------------------------------

    def _begin_background(self) -> None:
        with self._lock:
            if self._pending:
                return
            self._pending = True
            self._ran_at = time.monotonic()
        threading.Thread(target=self._read_background, name="key", daemon=True).start()

    def _read_background(self) -> None:
        try:
            if self._command is not None:
                output = _run(self._command, {k: v for k, v in self._environ.items() if k not in _HIDDEN})
            else:
                assert self._file is not None  # started only with a file or a command
                output = _read_stream(self._file)
            self._take(check_key(_decode(output)))
        except KeyFault as fault:
            self._complain(fault)
        except Exception as error:
            # Nobody would see it on this thread. The type only: the text may hold the output.
            self._complain(KeyFault(f"reading it failed ({type(error).__name__})"))
        finally:
            with self._lock:
                self._pending = False
                waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback(self._current)

    # --- both --------------------------------------------------------------------------------

    def _take(self, key: Secret) -> None:
        self._scrubber.learn(key, keep=True)
        with self._lock:
            before, self._current = self._current, key
        if before is None:
            self._notify("key_loaded", source=self._origin)
        elif before != key:
            self._notify("key_reloaded", source=self._origin)

    def _complain(self, fault: KeyFault) -> None:
        if str(fault) == self._told_fault:
            return
        self._told_fault = str(fault)
        consequence = "" if self._current is None else "; the key read before stays in use"
        self._notify("key_unreadable", source=self._origin, reason=str(fault), consequence=consequence)


def _decode(data: bytes) -> str:
    if len(data) >= _READ_BYTES:
        raise KeyFault("it is far too long to be a key")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFault("it is not text") from None


def _signature_of(status: os.stat_result) -> _Signature:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _signature(path: str) -> _Signature:
    try:
        return _signature_of(os.stat(path))
    except OSError as error:
        raise KeyFault(f"the file cannot be read ({error.strerror})") from None


def _is_stream(path: str) -> bool:
    """Return whether a path is a pipe or the like, as process substitution gives it: readable once."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise KeyFault(f"the file cannot be read ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise KeyFault("it is a directory")
    return not stat.S_ISREG(mode)


def _read_stream(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return _read_all(file.fileno(), time.monotonic() + COMMAND_TIMEOUT_S)
    except OSError as error:
        raise KeyFault(f"it cannot be read ({error.strerror})") from None


def _run(command: str, environ: Mapping[str, str]) -> bytes:
    """Run a command without a shell and return its first line; its whole process group ends with it."""
    import shlex
    import signal
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError:
        raise KeyFault("the command's quotes do not match") from None
    if not words:
        raise KeyFault("the command is empty")
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # What a password program says may hold secrets that no scrubber knows.
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it cannot be run"
        raise KeyFault(f"the command cannot be started ({reason})") from None
    until = time.monotonic() + COMMAND_TIMEOUT_S
    with process:
        assert process.stdout is not None  # asked for above
        try:
            output = _read_all(process.stdout.fileno(), until)
            if len(output) >= _READ_BYTES:
                raise KeyFault("the command prints far more than a key")
            code = process.wait(max(0.01, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise KeyFault(f"the command took longer than {COMMAND_TIMEOUT_S:g} s") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        raise KeyFault(f"the command ended with code {code}; run it by hand to see why")
    first, newline, _ = output.partition(b"\n")
    return first + newline


def _read_all(descriptor: int, until: float) -> bytes:
    """Read to the end or to a size no key has; the whole in the time given."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    data = b""
    while len(data) < _READ_BYTES:
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise KeyFault(f"nothing complete came within {COMMAND_TIMEOUT_S:g} s")
        piece = os.read(descriptor, _READ_BYTES - len(data))
        if not piece:
            break
        data += piece
    return data
