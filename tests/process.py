"""The real process under test: ``python -m bridge`` with pipes, and a hand to talk to it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0
"""How long a test waits for what should come at once: long, since the machine may be busy."""


def block_signals() -> None:
    """Do as a parent that has blocked signals: what it starts inherits its mask."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD])


def ignore_signals() -> None:
    """Do as a parent that ignores the end of its children, and being asked to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Ended(NamedTuple):
    """How the process ended."""

    code: int
    stderr: str
    stdout: bytes
    """What came on stdout and was not read as a message."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of the log."""
        return [json.loads(line) for line in self.stderr.splitlines() if line.startswith("{")]


class BridgeProcess:
    """A running bridge. A context manager: leaving it kills what still runs.

    Args:
        words: command line after the program.
        environ: the whole environment of the process; default: as good as empty, with ``HOME``.
        home: home directory of the process.
        python: interpreter; default: the one that runs the tests.
        kwargs: handed on to `subprocess.Popen`.
    """

    def __init__(
        self,
        *words: str,
        home: Path | str,
        environ: Mapping[str, str] | None = None,
        python: Sequence[str] = (sys.executable,),
        **kwargs: Any,
    ) -> None:
        base = {"HOME": str(home), "PYTHONPATH": str(ROOT)}
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_FILE"):
            if name in os.environ:
                base[name] = os.environ[name]
        kwargs.setdefault("stdin", subprocess.PIPE)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*python, "-m", "bridge", *words], env={**base, **(environ or {})}, bufsize=0, **kwargs
        )
        self._ids = 0
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._errors: list[bytes] = []
        self._readers: list[threading.Thread] = []
        if self.process.stdout is not None:
            self._read(self.process.stdout, self._take_output)
        if self.process.stderr is not None:
            self._read(self.process.stderr, self._take_errors)

    def __enter__(self) -> BridgeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def call(self, method: str, params: Any = None, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Send a request and return the next message, which must be its response."""
        name = self.send(method, params)
        response: dict[str, Any] = self.read_message(timeout_s)
        assert response["id"] == name, "another request was answered first: use send and read_message"
        return response

    def send(self, method: str, params: Any = None) -> int:
        """Send a request with a fresh id and return the id."""
        self._ids += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": self._ids, "method": method}
        if params is not None:
            request["params"] = params
        self.send_line(json.dumps(request).encode())
        return self._ids

    def send_line(self, line: bytes) -> None:
        """Write bytes and a line end."""
        self.send_bytes(line + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) or 0 :]

    def read_message(self, timeout_s: float = PATIENCE_S) -> Any:
        """Return the next line of stdout as JSON."""
        line = self.read_line(timeout_s)
        assert line is not None, "stdout ended"
        return json.loads(line)

    def read_line(self, timeout_s: float = PATIENCE_S) -> bytes | None:
        """Return the next line of stdout with its end, or None at the end of the output."""
        return self._lines.get(timeout=timeout_s)

    def read_error(self, text: str, timeout_s: float = PATIENCE_S) -> str:
        """Wait until stderr holds a text, and return all of stderr so far."""
        until = time.monotonic() + timeout_s
        while text.encode() not in b"".join(self._errors):
            assert time.monotonic() < until, f"stderr never said {text!r}"
            time.sleep(0.005)
        return b"".join(self._errors).decode("ascii")

    def close_input(self) -> None:
        """Close stdin: the end of input."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Close stdin, wait for the end and return how it was."""
        if self.process.stdin is not None:
            self.close_input()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = PATIENCE_S) -> Ended:
        """Wait for the process to end by itself."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(timeout_s)
        rest = b""
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                rest += line
        self._close_pipes()
        return Ended(code, b"".join(self._errors).decode("ascii"), rest)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self, pipe: Any, take: Any) -> None:
        reader = threading.Thread(target=take, args=(pipe,), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _take_output(self, pipe: Any) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while data := pipe.read(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._lines.put(line + b"\n")
        if rest:
            self._lines.put(rest)
        self._lines.put(None)

    def _take_errors(self, pipe: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := pipe.read(65536):
                self._errors.append(data)
