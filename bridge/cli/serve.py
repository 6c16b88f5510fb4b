"""``report-bridge serve``: speak JSON-RPC on stdin and stdout until the input ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge import __version__
from bridge.core import exits
from bridge.core.redact import Scrubber
from bridge.ops import lifecycle
from bridge.ops.clock import boot_clock
from bridge.ops.logs import Log
from bridge.ops.loop import open_loop
from bridge.settings import Settings, drop_secrets, load
from bridge.wire.framing import Framer
from bridge.wire.stdio import EOF, Writer, open_pump, take_descriptors

if TYPE_CHECKING:
    import argparse

HELP = "Speak JSON-RPC 2.0 on stdin and stdout until the input ends."
EPILOG = """\
examples:
  report-bridge --sandbox                      try it without an account
  report-bridge --key-file ~/.anticaptcha.key  serve a program that spawns it
  jq -c . requests.json | report-bridge        one message per line
"""
SETTLE_S = 2.0
"""How long the end waits for what was given up to be recorded."""
_LOOK_S = 0.2
"""How often a wait looks whether a signal has come."""
_PAUSE_S = 0.01
"""How often a wait looks whether what it waits for is done, if nothing else wakes it."""
LAST_WRITE_S = 2.0
"""How long a stopped bridge waits for its client to read the last answers."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; the settings' flags are added by the caller."""
    parser.add_argument("--stdio", action="store_true", help="accepted and changes nothing")


def run(args: Any) -> int:
    """Serve until the input ends or a signal comes; returns the exit code."""
    settings = load(args.given, os.environ)
    drop_secrets(os.environ)
    scrubber = Scrubber()
    log = Log.open(settings.log_level, settings.log_format, settings.log_file, scrubber)
    for name, fields in settings.notices:
        log.event(name, **fields)
    return Server(settings, log, scrubber).run()


class Server:
    """One bridge process, from its first byte to its exit code."""

    def __init__(self, settings: Settings, log: Log, scrubber: Scrubber) -> None:
        from bridge.app import App
        from bridge.session import Session

        on_terminal = os.isatty(0)
        source, sink = take_descriptors()
        self._settings = settings
        self._log = log
        loop = None if os.environ.get("_BRIDGE_THREADS") == "1" else open_loop(self._note_bug)
        self._pump = open_pump(source, loop)
        self._writer = Writer(sink, on_broken=self._on_stdout_gone)
        self._on_terminal = on_terminal
        self._app = App(settings, log, scrubber, loop)
        if loop is not None:
            self._writer.collect()
            loop.flushes.append(self._writer.flush)
        if settings.ca_file is not None:
            self._app.load_client()
        console: dict[str, Any] = {}
        if on_terminal:
            from bridge.cli.console import Console

            console_ = Console()
            console = {"translate": console_.translate, "render": console_.render}
        self._session = Session(
            Framer(settings.max_message),
            self._writer,
            self._app.dispatcher,
            max_batch=settings.max_batch,
            max_depth=settings.max_depth,
            queue=settings.queue,
            slow=self._app.methods.slow,
            cancel=self._app.methods.cancel,
            wake=self._pump.wake,
            mark={"sandbox": True} if settings.sandbox else {},
            **console,
        )
        self._app.methods.framing = lambda: self._session.framer.framing
        self._pump.on_wake = self._on_wake
        self._bytes = 0
        self._told_bracket = False
        self._ending = False
        self._signals = lifecycle.Signals(self._on_signal, self._on_sigint, on_terminal)

    def run(self) -> int:
        """Serve; returns the exit code."""
        lifecycle.calm_collector()
        self._signals.install(self._pump.wake_fd)
        if self._settings.parent_watch:
            parent = os.getppid()
            lifecycle.watch_parent(lambda: self._on_parent_gone(parent))
        self._app.start()
        self._app.warm_up_later()
        self._app.keep_metrics()
        self._log.event(
            "started",
            version=__version__,
            pid=os.getpid(),
            url=self._app.endpoint,
            ledger=self._settings.ledger if "://" not in self._settings.ledger else "postgresql",
            sandbox=self._settings.sandbox,
        )
        if self._on_terminal:
            self._hint()
        reason = self._pump.run(self._feed, self._session.ready)
        if reason == EOF:
            self._session.end()
            self._notice_input()
            if not self._bytes and not self._on_terminal:
                self._log.event("empty_input")
        undone = self._finish(reason)
        self._app.close()
        code = self._exit_code(undone)
        self._log.event("stopped", exit_code=code, undone=undone)
        self._log.close(1.0)
        return code

    # --- while it runs -----------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        self._bytes += len(data)
        self._session.feed(data)
        self._notice_input()
        if self._session.framer.failed:
            self._pump.stop(EOF)

    def _notice_input(self) -> None:
        if self._session.framer.saw_lone_bracket and not self._told_bracket:
            self._told_bracket = True
            self._log.event("lone_bracket")

    def _on_wake(self) -> None:
        self._session.unpark()
        if self._ending and self._session.is_idle:
            self._pump.stop("idle")

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        self._log.event("signal_received", signal=name, drain_s=self._settings.drain_s)
        self._pump.stop(f"signal {number}")

    def _on_sigint(self) -> None:
        self._log.event("sigint_ignored")

    def _on_parent_gone(self, parent: int) -> None:
        self._log.event("parent_gone", parent_pid=parent)
        self._pump.stop("parent gone")

    def _on_stdout_gone(self) -> None:
        self._log.event("stdout_gone")
        self._pump.stop("stdout gone")

    # --- the end -----------------------------------------------------------------------------

    def _finish(self, reason: str) -> int:
        """Let what was accepted end as it should; returns how many reports were given up."""
        self._log.event("stopping", reason=reason, in_flight=sum(self._app.service.counts()))
        self._ending = True
        while not self._session.is_idle and self._signals.stopped_by is None:
            self._pump.run(_ignore, _never)
        for is_done in (self._app.service.is_idle, lambda: self._writer.drain(0.0)):
            while self._signals.stopped_by is None and not self._wait_for(is_done, _LOOK_S):
                pass
        return 0 if self._signals.stopped_by is None else self._stop()

    def _stop(self) -> int:
        """A signal: some seconds for what is running, then give up the rest."""
        from bridge.session import never_admitted

        ends_at = boot_clock() + self._settings.drain_s
        # An event of its own: the pump keeps only the first of several reasons to stop.
        drained = threading.Event()

        def end_drain() -> None:
            drained.set()
            self._pump.stop("drained")

        timer = threading.Timer(self._settings.drain_s, end_drain)
        timer.daemon = True
        timer.start()
        while not self._session.is_idle and not drained.is_set():
            self._pump.run(_ignore, _never)
        is_idle = self._app.service.is_idle
        self._wait_for(is_idle, max(0.0, ends_at - boot_clock()))
        undone = self._app.service.stop()
        self._wait_for(is_idle, SETTLE_S)
        undone += self._app.methods.give_up()
        undone += self._session.drop_parked(never_admitted("shutting_down"))
        self._writer.drain(LAST_WRITE_S)
        return undone

    def _wait_for(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Go on with everything but reading until something is done; False if the time ran out."""
        ends_at = boot_clock() + timeout_s
        while not is_done():
            left_s = ends_at - boot_clock()
            if left_s <= 0.0:
                return False
            self._pump.pause(min(left_s, _PAUSE_S))
        return True

    def _note_bug(self, bug: BaseException) -> str:
        return self._app.note_bug(bug)

    def _exit_code(self, undone: int) -> int:
        if self._writer.broken:
            return exits.STDOUT_GONE
        if self._signals.stopped_by == signal.SIGINT and not self._on_terminal:
            return exits.SIGINT
        return exits.UNDONE if undone else exits.DONE

    def _hint(self) -> None:
        hint = (
            "report-bridge: type a method with its params, such as\n"
            "  reportIncorrectImageCaptcha taskId=123\n"
            "or one JSON-RPC message per line; end with Ctrl-D. `report-bridge --help` tells more.\n"
        )
        os.write(2, hint.encode("ascii"))


def _ignore(_data: bytes) -> None:
    """Nothing is read any more."""


def _never() -> bool:
    return False
