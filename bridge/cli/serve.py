"""``report-bridge serve``: speak JSON-RPC on stdin and stdout until the input ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge import __version__
from bridge.cli.commands import PROGRAM
from bridge.core import exits
from bridge.engine import Outlet, TimedOut
from bridge.ops.process import calm_collector, forbid_core_dumps, hear_signals, undo_inherited, watch_parent
from bridge.settings import drop_secrets, load
from bridge.wire.framing import Framer
from bridge.wire.streams import Reader, take_descriptors

if TYPE_CHECKING:
    import argparse

    from bridge.app import App
    from bridge.cli.console import Console

SETTLE_S: Final = 2.0
"""How long the end waits for what was given up to be recorded."""
LOOK_S: Final = 0.02
"""How often the end looks whether what nobody tells it of is done."""
LAST_WRITE_S: Final = 2.0
"""How long a stopped bridge waits for its client to read the last answers."""
LOG_S: Final = 1.0
"""How long the end waits for the reader of the log."""
_HINT: Final = b"""\
report-bridge: type a method with its params, such as
  reportIncorrectImageCaptcha taskId=123
or one JSON-RPC message per line. Tab completes; help tells more; end with Ctrl-D.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; the settings' flags are added by the caller."""
    parser.add_argument("--stdio", action="store_true", help="accepted and changes nothing")
    parser.add_argument("--json", action="store_true", help="typed at a terminal: answers as they are")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}", help="print it")


def run(args: Any) -> int:
    """Serve until the input ends or a signal comes; returns the exit code."""
    if os.name != "posix":
        raise exits.ConfigError("Serving needs Linux or macOS; on Windows run report-bridge inside WSL.")
    undo_inherited()
    forbid_core_dumps()
    settings = load(args.given, os.environ)
    drop_secrets(os.environ)
    # Before anything opens descriptors of its own, which would take the numbers of those that are closed.
    source, sink = take_descriptors()
    from bridge.app import App

    app = App(settings)
    console = None
    if os.isatty(source):
        from bridge.cli.console import Console

        console = Console(source, sink, settings.state_dir, app.scrubber, args.json)
    outlet = Outlet(sink, app.engine, on_room=lambda: server.go_on(), on_lost=lambda _: server.lose_stdout())
    server = Server(app, Reader(app.engine, source), outlet, console)
    return server.run(args.interrupts)


class Server:
    """One bridge process, from its first byte to its exit code.

    Args:
        reader: where the protocol is read.
        outlet: where it is written. Whoever makes it has `go_on` called when there is room, and
            `lose_stdout` when nobody reads it any more.
        console: a person types, and nothing is read from `reader`.
    """

    def __init__(self, app: App, reader: Reader, outlet: Outlet, console: Console | None = None) -> None:
        from bridge.server.conversation import Conversation

        self._app = app
        self._settings = settings = app.settings
        self._log = app.log
        self._engine = app.engine
        self._source = console or reader
        self._console = console
        self._outlet = outlet
        self._news = app.engine.waiter()
        """Where the main greenlet waits for room to read, and for the end."""
        self._conversation = conversation = Conversation(
            app.engine,
            app.methods,
            Framer(settings.max_message),
            outlet,
            self._news.wake,
            render=None if console is None else console.render,
        )
        self.go_on = conversation.go_on
        """Go on with what was read, as far as there is room."""
        app.methods.framing = lambda: conversation.framer.framing
        self._stopped_by: int | None = None
        """Number of the signal that ends the service."""
        self._reason: str | None = None
        """Why nothing more is read."""
        self._is_stdout_gone = False

    def run(self, interrupts: Sequence[int] = ()) -> int:
        """Serve; returns the exit code.

        Args:
            interrupts: signals that came before.
        """
        calm_collector()
        is_terminal, ignored = self._console is not None, partial(self._log.event, "sigint_ignored")
        hear = hear_signals(self._engine, self._on_signal, ignored, is_terminal)
        for number in interrupts:
            hear(number)
        if self._settings.parent_watch:
            watch_parent(self._engine, self._on_parent_gone)
        self._app.start()
        self._app.warm_up_later()
        self._app.keep_metrics()
        self._log.event(
            "started",
            version=__version__,
            pid=os.getpid(),
            url=self._app.url,
            ledger=self._settings.ledger if "://" not in self._settings.ledger else "postgresql",
            sandbox=self._settings.sandbox,
        )
        if self._console is not None:
            os.write(2, _HINT)
            self._console.start(self._engine)
        self._read()
        undone = self._finish()
        self._app.close()
        code = self._exit_code(undone)
        self._log.event("stopped", exit_code=code, undone=undone)
        self._log.close(LOG_S)
        return code

    # --- while it runs -----------------------------------------------------------------------

    def _read(self) -> None:
        """Read and serve until there is a reason to stop."""
        conversation = self._conversation
        # A person is asked for the next line once the last one is answered.
        is_ready = conversation.has_room if self._console is None else self._is_answered
        has_input = has_told_bracket = False
        while self._reason is None:
            if not is_ready():
                self._news.wait()
                continue
            data = self._source.read()
            if data:
                has_input = True
                conversation.feed(data)
            elif self._reason is None:
                conversation.end()
                if not has_input and self._console is None:
                    self._log.event("empty_input")
            if conversation.framer.saw_lone_bracket and not has_told_bracket:
                has_told_bracket = True
                self._log.event("lone_bracket")
            if not data or conversation.is_over:
                self._stop_reading("end of input")

    def _stop_reading(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        self._source.stop()
        self._news.wake()

    def _on_signal(self, number: int) -> None:
        self._stopped_by, name = number, signal.Signals(number).name
        self._log.event("signal_received", signal=name, drain_s=self._settings.drain_s)
        self._stop_reading(name)

    def _on_parent_gone(self, parent: int) -> None:
        self._log.event("parent_gone", parent_pid=parent)
        self._stop_reading("parent gone")

    def lose_stdout(self) -> None:
        """Nobody reads the answers any more."""
        if not self._is_stdout_gone:
            self._is_stdout_gone = True
            self._log.event("stdout_gone")
            self._stop_reading("stdout gone")
        # Answers that are dropped make room as those do that are read.
        self.go_on()

    # --- the end -----------------------------------------------------------------------------

    def _finish(self) -> int:
        """Let what was accepted end as it should; returns how many reports and answers were given up."""
        now, reporter = self._engine.now, self._app.reporter
        self._log.event("stopping", reason=self._reason, in_flight=self._conversation.unanswered)
        self._wait_for(lambda: self._stopped_by or self._is_done())
        if self._stopped_by is None:
            return 0
        # Some seconds for what is running and for who reads the answers, then the rest is given up.
        self._wait_for(self._is_done, now() + self._settings.drain_s)
        undone = reporter.stop(can_answer=not self._is_stdout_gone)
        self._wait_for(lambda: not any(reporter.counts()), now() + SETTLE_S)
        reporter.give_up()
        undone += self._conversation.give_up()
        if not self._outlet.drain(now() + LAST_WRITE_S):
            self._log.event("answers_unread", count=self._outlet.backlog)
            undone += self._outlet.backlog
        return undone

    def _wait_for(self, is_done: Callable[[], object], until: float = float("inf")) -> None:
        """Wait until something is done, or until a moment of the boot clock."""
        while not is_done() and (now := self._engine.now()) < until:
            with suppress(TimedOut):
                self._news.wait(min(now + LOOK_S, until))

    def _is_done(self) -> bool:
        return self._is_answered() and not any(self._app.reporter.counts())

    def _is_answered(self) -> bool:
        return self._conversation.is_idle and not self._outlet.backlog

    def _exit_code(self, undone: int) -> int:
        if self._is_stdout_gone:
            return exits.STDOUT_GONE
        if self._stopped_by == signal.SIGINT and self._console is None:
            return exits.SIGINT
        return exits.UNDONE if undone else exits.DONE
