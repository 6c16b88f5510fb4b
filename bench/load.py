"""Contestants under a closed loop: so many reports in flight, each answer makes room for the next.

Two kinds: servers that are spoken to over pipes from here, and programs that call the upstream
themselves and are told how long. CPU is what the operating system has charged to the process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

PATIENCE_S: Final = 120.0
"""How long anything may take to answer before the run is given up."""
METHOD: Final = "reportIncorrectImageCaptcha"
_HAS_CPU_CLOCKS: Final = sys.platform.startswith("linux")
_task_ids = itertools.count(1_000_000_000, 10_000_000)


def next_task_range() -> int:
    """Return the first of ten million task ids that nobody else uses in this run."""
    return next(_task_ids)


class Sample(NamedTuple):
    """What one stretch of load gave."""

    reports: int
    seconds: float
    cpu_s: float
    """Of the measured process, user and system; of its children nothing."""
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.reports / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a report."""
        return 1e6 * self.cpu_s / max(1, self.reports)


class Contestant(Protocol):
    """One side of a comparison."""

    def run(self, load: int, seconds: float) -> Sample:
        """Keep `load` reports in flight for so many seconds."""

    def close(self) -> None:
        """End the process."""


def cpu_of(pid: int) -> float:
    """Seconds of CPU, user and system, that a living process has used, ended threads included."""
    if _HAS_CPU_CLOCKS:
        # The CPU clock of another process, as clock_getcpuclockid(3) makes it; finer than /proc's ticks.
        return time.clock_gettime((~pid << 3) | 2)
    told = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True).stdout
    seconds = 0.0
    for part in told.strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part or 0)
    return seconds


def peak_kib(pid: int) -> int:
    """Highest resident memory of a living process in KiB; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def rank(latencies: Sequence[float], part: float) -> float:
    """Return the quantile of an unordered sequence; 0 if it is empty."""
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Server:
    """A program that is spoken to over its pipes, one JSON message a line.

    Args:
        command: program and arguments.
        environ: its whole environment.
        request: makes the message of an id and a task id.
        hello: messages to say first; those with an id are answered.
        header: use the framing with Content-Length.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        request: Callable[[int, int], bytes] | None = None,
        hello: Sequence[bytes] = (),
        header: bool = False,
        stderr: Any = subprocess.DEVNULL,
    ) -> None:
        self.process = subprocess.Popen(
            list(command),
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)
        self._request = request or make_request
        self._header = header
        self._rest = b""
        self._pending = b""
        self._task = next_task_range()
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        for message in hello:
            self.say(message)
            if b'"id"' in message:
                self.hear()

    # --- single messages ---------------------------------------------------------------------

    def say(self, message: bytes) -> None:
        """Send one message."""
        self._pending += self._frame(message)
        while self._pending:
            self._push()

    def hear(self, timeout_s: float = PATIENCE_S) -> bytes:
        """Return the next message."""
        while True:
            if messages := self._cut(1):
                return messages[0]
            if not self._poll.poll(timeout_s * 1000):
                raise TimeoutError("no answer came")
            self._pull()

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return its response."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": 0, "method": method}
        if params is not None:
            message["params"] = params
        self.say(json.dumps(message).encode())
        response: dict[str, Any] = json.loads(self.hear())
        return response

    # --- load --------------------------------------------------------------------------------

    def run(self, load: int, seconds: float) -> Sample:
        """Keep `load` reports in flight for so many seconds."""
        return self._drive(load, seconds, None)

    def run_count(self, load: int, count: int) -> Sample:
        """Keep `load` reports in flight until so many are answered."""
        return self._drive(load, None, count)

    def _drive(self, load: int, seconds: float | None, count: int | None) -> Sample:
        sent: dict[int, float] = {}
        latencies: list[float] = []
        failed = 0
        self._task += 1
        clock, cpu = time.perf_counter, cpu_of(self.process.pid)
        began = clock()
        until = began + seconds if seconds is not None else float("inf")
        left = count if count is not None else sys.maxsize
        wanted = min(load, left)
        while wanted or sent:
            if wanted:
                at = clock()
                first = self._task
                self._task += wanted
                left -= wanted
                parts = []
                for task in range(first, first + wanted):
                    sent[task] = at
                    parts.append(self._frame(self._request(task, task)))
                self._pending += b"".join(parts)
                wanted = 0
            if self._pending:
                self._push()
            if not self._poll.poll(PATIENCE_S * 1000):
                raise TimeoutError(f"{len(sent)} answers did not come")
            self._pull()
            at = clock()
            for message in self._cut(sys.maxsize):
                place = message.find(b'"id":') + 5
                end = place
                while message[end : end + 1] in b" 0123456789" and end < len(message):
                    end += 1
                began_at = sent.pop(int(message[place:end]))
                latencies.append(at - began_at)
                failed += b'"error"' in message
            if at < until:
                wanted = min(load - len(sent), left)
        took = clock() - began
        used = cpu_of(self.process.pid) - cpu
        p50, p99 = rank(latencies, 0.5), rank(latencies, 0.99)
        return Sample(len(latencies), took, used, p50 * 1000, p99 * 1000, failed)

    # --- bytes -------------------------------------------------------------------------------

    def _frame(self, message: bytes) -> bytes:
        if self._header:
            return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)
        return message + b"\n"

    def _push(self) -> None:
        try:
            self._pending = self._pending[os.write(self._in, self._pending) :]
        except BlockingIOError:
            self._poll.register(self._in, select.POLLOUT)
            self._poll.poll(PATIENCE_S * 1000)
            self._poll.unregister(self._in)
            if any(fd == self._out for fd, _ in self._poll.poll(0)):
                self._pull()

    def _pull(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._out, 1 << 18)
            if not data:
                raise EOFError(f"the program ended with {self.process.wait()}")
            self._rest += data

    def _cut(self, most: int) -> list[bytes]:
        messages: list[bytes] = []
        if not self._header:
            *lines, rest = self._rest.split(b"\n", most) if most < sys.maxsize else self._rest.split(b"\n")
            self._rest = rest
            return [line for line in lines if line]
        while len(messages) < most:
            head, gap, rest = self._rest.partition(b"\r\n\r\n")
            length = int(head.rpartition(b":")[2]) if gap else 0
            if not gap or len(rest) < length:
                break
            messages.append(rest[:length])
            self._rest = rest[length:]
        return messages

    def finish(self) -> tuple[bytes, float, float, int]:
        """Close its input, read to the end and wait for it.

        Returns:
            What it still said, seconds from the end of input to its last byte and from there to
            its end, and the exit code.
        """
        assert self.process.stdin is not None
        while self._pending:
            self._push()
        self.process.stdin.close()
        began = last = time.perf_counter()
        while True:
            if not self._poll.poll(PATIENCE_S * 1000):
                raise TimeoutError("the program did not end")
            data = os.read(self._out, 1 << 18)
            if not data:
                break
            last = time.perf_counter()
            self._rest += data
        code = self.process.wait(PATIENCE_S)
        return self._rest, last - began, time.perf_counter() - last, code

    def close(self) -> None:
        """End it."""
        end(self.process)


class Caller:
    """A program that calls the upstream itself: told ``{"load", "seconds", "first"}``, it answers with
    ``{"reports", "seconds", "latencies", "failed"}``, one JSON object a line."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], stderr: Any = subprocess.DEVNULL
    ) -> None:
        self.process = subprocess.Popen(
            list(command), env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        self._task = next_task_range()

    def run(self, load: int, seconds: float) -> Sample:
        """Keep `load` reports in flight for so many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        cpu = cpu_of(self.process.pid)
        order = {"load": load, "seconds": seconds, "first": self._task}
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE_S + seconds)[0]:
            raise TimeoutError("the program did not answer")
        line = self.process.stdout.readline()
        used = cpu_of(self.process.pid) - cpu
        if not line:
            raise EOFError(f"the program ended with {self.process.wait()}")
        told = json.loads(line)
        self._task += told["reports"] + load + 1
        latencies = told["latencies"]
        p50, p99 = rank(latencies, 0.5), rank(latencies, 0.99)
        return Sample(told["reports"], told["seconds"], used, p50 * 1000, p99 * 1000, told["failed"])

    def close(self) -> None:
        """End it."""
        end(self.process)


def make_request(name: int, task_id: int) -> bytes:
    """Make the request for one report."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"reportIncorrectImageCaptcha","params":{"taskId":%d}}' % (
        name,
        task_id,
    )


def make_note(name: int, _task_id: int) -> bytes:
    """Make the request that notes one solved task."""
    return (
        b'{"jsonrpc":"2.0","id":%d,"method":"bridge.noteTasks",'
        b'"params":{"taskType":"RecaptchaV2TaskProxyless","cost":0.001}}' % name
    )


def end(process: subprocess.Popen[Any]) -> None:
    """Close the input of a process, give it a moment, then kill it."""
    for pipe in (process.stdin,):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def cpu_of_command(command: Sequence[str], environ: Mapping[str, str]) -> tuple[float, float]:
    """Run a command to its end; seconds it took and seconds of CPU it used (wait4)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(list(command), env=dict(environ), check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - began, used
