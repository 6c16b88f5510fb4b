"""Where the client key comes from: the environment, a file that may change, or a command.

`KeySource.get` blocks its greenlet while a command or a file is being read on a thread of the engine. The
key is handed to the scrubber before anybody else sees it and is never part of a message.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber, Secret
from bridge.core.text import escape, hide_keys
from bridge.engine import Engine, TimedOut, Waiter

MIN_LENGTH: Final = 16
MAX_LENGTH: Final = 128
COMMAND_TIMEOUT_S: Final = 10.0
"""Time for a key command: enough for a password manager, short enough to be noticed."""
_LACKS: Final = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, None})
"""What the system says if it has no process, descriptor or memory to spare; None: there is no thread."""
RERUN_S: Final = 30.0
"""How long a key command rests that was run after a refusal: a command that tells another wrong key each time
must not make as many refused calls."""
PATIENCE_S: Final = COMMAND_TIMEOUT_S + 1.0
"""How long `KeySource.get` waits for what is being read; a pipe that nobody writes to never ends."""
_READ_BYTES: Final = 8192
_QUOTES: Final = frozenset("\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb")
_BRACKETS: Final = frozenset("<>[](){}")


class KeyFault(ValueError):
    """A source gives no usable key; the text says why and never holds any of the input."""


def check_key(text: str) -> Secret:
    """Return text as a key: 16 to 128 visible ASCII characters.

    A byte order mark and one trailing newline are cut. What people put around a key by mistake is refused
    by name, since the upstream would count it as a wrong key.

    Raises:
        KeyFault: it cannot be a key.
    """
    text = re.sub(r"\r?\n\Z", "", text.removeprefix("\ufeff"))
    bare = text.strip()
    ends = {bare[:1], bare[-1:]}
    is_named = re.match(r"([^\s=]+\s+)?[^\W\d][\w.-]*\s*=[= ]*[^= ]", bare)
    is_address = bare.startswith(("/", "~/", "./")) or "://" in bare
    wrong_length = f"it has {len(text)} characters; a key has {MIN_LENGTH} to {MAX_LENGTH}"
    _refuse(
        (not bare, "it is empty"),
        (is_named, "there is a name with an equals sign before the key; keep the key alone"),
        (ends & _QUOTES, "there are quotes around the key; remove them"),
        (ends & _BRACKETS, "there are brackets around the key; remove them"),
        (is_address, "it is a path or an address, not a key; name a file with --key-file"),
        (bare.startswith(("$", "%")), "it is the name of a variable that nobody has replaced by its value"),
        (bare.endswith((",", ";")), "there is a comma or semicolon after the key; remove it"),
        ("\0" in text, "there are NUL characters in it; save it as plain text"),
        (re.search(r"\s", text), "there are blanks or line breaks in or around the key; remove them"),
        (re.search("[^!-~]", text), "it holds characters other than visible ASCII"),
        (not MIN_LENGTH <= len(text) <= MAX_LENGTH, wrong_length),
    )
    return Secret(text)


def _refuse(*faults: tuple[object, str]) -> None:
    """Raise the first fault that is met."""
    for is_met, sentence in faults:
        if is_met:
            raise KeyFault(sentence)


class KeySettings(Protocol):
    """What of the settings says where the key is."""

    client_key: Secret | None
    """The key itself, from the environment."""
    key_file: str | None
    """Absolute path of a file."""
    key_command: str | None
    """Command line, split as a shell would but run without one."""
    hidden: frozenset[str]
    """Names of the variables that no child of ours may see."""

    def origin(self, name: str) -> str:
        """Where a setting was given, for messages."""


class KeySource:
    """The key of the settings, as it is now.

    Args:
        engine: where what blocks is awaited.
        settings: names at most one source.
        scrubber: learns every key before it is used.
        emit: told of events.

    Raises:
        ConfigError: the key of the environment or of a file cannot be used. A command, or a file that is a
            pipe, is only started here.
    """

    def __init__(
        self, engine: Engine, settings: KeySettings, scrubber: Scrubber, emit: Callable[..., None]
    ) -> None:
        self._engine = engine
        self._path = settings.key_file or ""
        self._command = settings.key_command or ""
        self._hidden = settings.hidden
        self._scrubber = scrubber
        self._emit = emit
        self._current: Secret | None = None
        self._signature: tuple[int, ...] | None = None
        """Of the file as it was read last; None: it is a pipe, and is read once."""
        self._told_mode: int | None = None
        self._told_fault = ""
        self._began_at: float | None = None
        """When reading began, on the boot clock; None while nothing is being read."""
        self._due_at: float | None = None
        """When to read again in any case: the key was refused, or nothing could be had to read it."""
        self._rests_until = float("-inf")
        self._waiting: list[Waiter] = []
        name = "key_file" if self._path else "key_command" if self._command else "client_key"
        self._origin = settings.origin(name)
        try:
            # As process substitution gives it: readable once.
            self._is_pipe = bool(self._path) and stat.S_ISFIFO(os.stat(self._path).st_mode)
            if settings.client_key is not None:
                self._take(check_key(settings.client_key.reveal()))
            elif self._command or self._is_pipe:
                self._begin()
            elif self._path:
                self._take_file(*_read_file(self._path, False))
        except (KeyFault, OSError) as error:
            fault = self._say(error)
            raise ConfigError(f"The client key ({self._origin}) cannot be used: {fault}.") from None

    def get(self) -> Secret | None:
        """Return the key to use now; waits while it is being read, None if there is none."""
        if self._began_at is None and self._is_due():
            self._begin()
        if self._began_at is not None:
            waiter = self._engine.waiter()
            self._waiting.append(waiter)
            with suppress(TimedOut):
                waiter.wait(self._began_at + PATIENCE_S)
        return self._current

    def at_hand(self) -> Secret | None:
        """Return the key to use now if `get` need not wait for it; else None."""
        return None if self._began_at is not None or self._is_due() else self._current

    def reload(self) -> None:
        """Read the source again in the background, since the upstream does not know the key (errorId 1).

        A command that was run for that less than 30 s ago is run for who asks when they are over. A key that
        does not change stays in use.
        """
        if self._began_at is None and (self._signature is not None or self._command):
            self._due_at = max(self._engine.now(), self._rests_until)
            if self._is_due():
                self._begin()

    # --- reading -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._began_at = self._engine.now()
        if self._command and self._due_at is not None:
            self._rests_until = self._began_at + RERUN_S
        self._due_at = None
        self._engine.spawn(self._read)

    def _read(self) -> None:
        run = self._engine.run_in_thread
        try:
            if self._command:
                environ = {name: value for name, value in os.environ.items() if name not in self._hidden}
                output = _decode(run(_run, self._command, environ))
                # What comes after the first line is for people, as with `pass`.
                self._take(check_key(output.partition("\n")[0].removesuffix("\r")))
            else:
                self._take_file(*run(_read_file, self._path, self._is_pipe))
            self._told_fault = ""
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _LACKS:
                # The next who asks tries again.
                self._due_at = self._began_at
            self._complain(error)
        finally:
            self._began_at = None
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.wake()

    def _is_due(self) -> bool:
        """True if the source must be read before its key is used."""
        if self._due_at is not None:
            return self._engine.now() >= self._due_at
        if self._signature is None:
            return False
        try:
            return _sign(os.stat(self._path)) != self._signature
        except OSError as error:
            self._complain(error)
            return False

    def _take_file(self, data: bytes, status: os.stat_result) -> None:
        if not self._is_pipe:
            # Whatever it holds: what is wrong is not read again before it changes.
            self._signature = _sign(status)
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077 and self._told_mode != mode and os.name == "posix":
                self._told_mode = mode
                self._emit("key_file_loose", {"path": self._path, "mode": f"{mode:04o}"})
        self._take(check_key(_decode(data)))

    def _take(self, key: Secret) -> None:
        self._scrubber.learn(key, keep=True)
        before, self._current = self._current, key
        if before is None:
            self._emit("key_loaded", {"source": self._origin})
        elif before != key:
            self._emit("key_reloaded", {"source": self._origin})

    def _say(self, error: Exception) -> str:
        if isinstance(error, KeyFault):
            return str(error)
        if isinstance(error, OSError) and error.strerror and not self._command:
            return f"the file {escape(hide_keys(self._path))} cannot be read ({error.strerror})"
        # The type only: the text may hold the output.
        return f"reading it failed ({type(error).__name__})"

    def _complain(self, error: Exception) -> None:
        fault = self._say(error)
        if fault != self._told_fault:
            self._told_fault = fault
            consequence = "" if self._current is None else "; the key read before stays in use"
            told = {"source": self._origin, "reason": fault, "consequence": consequence}
            self._emit("key_unreadable", told)


# --- files -----------------------------------------------------------------------------------


def _sign(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _read_file(path: str, is_pipe: bool) -> tuple[bytes, os.stat_result]:
    # Who writes to a pipe is awaited; what has taken a file's place is not to hold anybody up.
    wait = 0 if is_pipe else os.O_NONBLOCK
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | wait)) as file:
        status = os.fstat(file.fileno())  # before reading: a write in between is then seen next time
        return file.read(_READ_BYTES) or b"", status


def _decode(data: bytes) -> str:
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff")) or (0 in data[:2] and any(data[:2]))
    _refuse((len(data) >= _READ_BYTES, "it is far too long to be a key"))
    _refuse((is_utf16, "it is UTF-16; save it as UTF-8 or plain ASCII"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise KeyFault("it is not text") from None


# --- commands --------------------------------------------------------------------------------


def _run(command: str, environ: dict[str, str]) -> bytes:
    """Run a command without a shell, to its end, and return its output if it is known to have ended with 0.

    What it leaves running in the background may keep the output open: nobody waits for that.
    """
    import shlex
    import signal
    import subprocess

    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        # The library takes an exit status that is lost for 0.
        raise KeyFault("nobody can tell how the command ended, since SIGCHLD is ignored")
    try:
        words = shlex.split(command)
    except ValueError:
        raise KeyFault("the command's quotes do not match") from None
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # What a password program says may hold secrets that no scrubber knows.
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        if getattr(error, "errno", 0) in _LACKS:
            raise
        reason = getattr(error, "strerror", None) or "it cannot be run"
        raise KeyFault(f"the command {escape(hide_keys(words[0]))} cannot be started ({reason})") from None
    assert process.stdout is not None  # asked for above
    with process.stdout as pipe:
        with suppress(subprocess.TimeoutExpired):
            process.wait(COMMAND_TIMEOUT_S)
        is_late = process.returncode is None
        if is_late:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # What it wrote before its end is in the pipe, or it wrote more than any key has.
        os.set_blocking(pipe.fileno(), False)
        output = b""
        with suppress(BlockingIOError):
            output = os.read(pipe.fileno(), _READ_BYTES)
    code = process.returncode
    _refuse(
        (len(output) >= _READ_BYTES, "the command prints far more than a key"),
        (is_late, f"the command took longer than {COMMAND_TIMEOUT_S:g} s"),
        (code < 0, f"the command was ended by signal {-code}"),
        (code > 0, f"the command ended with code {code}; run it by hand to see why"),
    )
    return output
