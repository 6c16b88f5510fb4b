"""Builds the object graph from the settings; the only module that knows every part."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

from bridge.core.exits import ConfigError
from bridge.core.model import Exchange, Pauses
from bridge.core.redact import Scrubber, Secret
from bridge.ledger.journal import Journal
from bridge.methods import Methods
from bridge.ops.clock import boot_clock, wall_clock
from bridge.ops.keys import KeySource
from bridge.ops.lifecycle import calm_collector, forbid_core_dumps, forbid_piped_core_dumps
from bridge.ops.logs import Log
from bridge.ops.loop import Loop
from bridge.ops.machine import load_machine_id
from bridge.ops.metrics import Metrics
from bridge.ops.workers import Alarm, Workers
from bridge.reports.flight import Attempt
from bridge.reports.knowledge import Knowledge
from bridge.reports.pauses import PausePolicy
from bridge.reports.service import Service
from bridge.rpc.dispatcher import Dispatcher
from bridge.rpc.schemas import prepare
from bridge.sending import Sender
from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.ledger.store import Store
    from bridge.ops.metrics_file import MetricsFile
    from bridge.upstream.client import Client
    from bridge.upstream.simulator import Simulator

SANDBOX_KEY: Final = "sandbox0sandbox0sandbox0sandbox0"
"""Stands in for a key in the sandbox, which asks for none."""
_WARM_UP_S: Final = 0.3
"""By then a caller that asks something at once has its answer, and was not slowed down by imports."""
_NO_DRIVER: Final = (
    "The ledger on PostgreSQL needs the driver psycopg; "
    "install it, in the project's folder, with: pip install '.[fleet]'."
)
_CLOSE_S: Final = 5.0
"""How long the end waits for the ledger."""


class App:
    """A bridge without its streams: everything from the dispatcher down.

    Args:
        settings: What was configured.
        log: Where events go.
        scrubber: Learns every key that is seen.
        loop: Where answers are awaited and the ledger's results are taken; None: each on a thread.
    """

    def __init__(self, settings: Settings, log: Log, scrubber: Scrubber, loop: Loop | None = None) -> None:
        forbid_core_dumps()
        self.settings = settings
        self.log = log
        self._scrubber = scrubber
        self._loop = loop
        self._simulator: Simulator | None = None
        self._client: Client | None = None
        self._metrics_file: MetricsFile | None = None
        self._client_lock = threading.Lock()
        self.metrics = Metrics()
        self.keys: KeySource | _SandboxKeys = (
            _SandboxKeys() if settings.sandbox else KeySource(settings, scrubber, self.emit)
        )
        self.endpoint = self._start_sandbox() if settings.sandbox else settings.url
        machine = load_machine_id(None if settings.sandbox else settings.state_dir)
        self._policy = PausePolicy(machine, self._context(), enabled=settings.pauses)
        is_memory = settings.ledger == "memory"
        if "://" in settings.ledger:
            if PathFinder.find_spec("psycopg") is None:
                raise ConfigError(_NO_DRIVER)
            # Before the ledger's thread imports its driver, which must not meet our stand-ins.
            Dispatcher({}, self.note_bug)
        self.journal = Journal(
            None if is_memory else lambda: self._open_store(settings.ledger, machine),
            lambda: self._open_store(None, machine),
            require=settings.require_ledger,
            on_event=lambda name, fields: self.emit(name, **fields),
            on_error=self._note_ledger_bug,
            deliver=None if loop is None else loop.post,
            starts=loop is None,
        )
        soon = _at_once if loop is None else loop.post
        self._alarm = Alarm(self.journal.now, lambda: soon(self.service.tick), self.note_bug)
        self._sender = Sender(
            self._client_now,
            Workers(settings.concurrency, self.note_bug),
            loop,
            ended=self._note_exchange,
            elsewhere=self._call_elsewhere if loop is None else loop.post,
            on_bug=self.note_bug,
        )
        if loop is not None:
            # What has come already is answered before the ledger takes the processor's time.
            loop.post(self.journal.start)
            self.journal.collect()
            loop.flushes.append(self.journal.flush)
        self.service = Service(
            self.journal,
            self,
            endpoint=self.endpoint,
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
            knowledge=Knowledge(self._policy.scope, durable=not is_memory),
            sandbox=settings.sandbox,
            recovers=not is_memory,
        )
        self.methods = Methods(
            self.service,
            self.journal,
            self._policy,
            self.keys,
            scrubber,
            endpoint=self.endpoint,
            sandbox=settings.sandbox,
            limits=_limits(settings),
            figures=self.metrics.figures,
            dropped_lines=lambda: log.dropped,
            wall=wall_clock,
        )
        self.dispatcher = Dispatcher(self.methods.table(), self.note_bug)

    def start(self) -> None:
        """Begin what runs beside the requests: recovery, and loading the HTTP client."""
        self.keys.when_ready(self._hold)
        self.journal.when_open(self.service.start)

    def keep_metrics(self) -> None:
        """Write the figures to the configured file, if there is one, until `close`."""
        if self.settings.metrics_file is not None:
            from bridge.ops.metrics_file import MetricsFile

            self._metrics_file = MetricsFile(
                self.settings.metrics_file, self._read_figures, self.emit, wall_clock
            )
            self._metrics_file.start()

    def _read_figures(self, done: Callable[[Mapping[str, Any]], None]) -> None:
        self.methods.read_status(lambda status: done({**status, "latencySumMs": self.metrics.latency_sum_ms}))

    def load_client(self) -> None:
        """Load the HTTP client now.

        Raises:
            ConfigError: The CA file or the proxy cannot be used.
        """
        try:
            self._client_now()
        except ValueError as error:
            raise ConfigError(f"The upstream cannot be reached as configured: {error}") from None

    def warm_up_later(self) -> None:
        """Load what the first report needs, on another thread, once the first answers are out."""

        def warm_up() -> None:
            forbid_piped_core_dumps()
            prepare("report.params")
            # The first attempt will meet the same trouble and tell of it.
            with suppress(OSError, ValueError):
                self._client_now().warm_up()
            calm_collector()

        timer = threading.Timer(_WARM_UP_S, warm_up)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Flush the ledger and end the simulator. Reports must have been finished or stopped before."""
        if self._loop is not None:
            self.journal.deliver_itself()
            # What was on its way to the loop before.
            self._loop.turn(fired=False)
        if self._metrics_file is not None:
            self._metrics_file.close()
        self.journal.close(_CLOSE_S)
        if self._client is not None:
            self._client.close()
        if self._simulator is not None:
            self._simulator.stop()

    def _hold(self, key: Secret | None) -> None:
        if key is not None and not self.settings.sandbox:
            self.journal.when_open(lambda: self.service.hold(key))

    # --- the service's ports -----------------------------------------------------------------

    def attempt(self, attempt: Attempt, done: Callable[[Exchange], None]) -> None:
        """Make one HTTP attempt."""
        self._sender.send(attempt, done, self.journal.committed_boot)

    def wall(self) -> float:
        """UNIX time as the host believes it."""
        return wall_clock()

    def chance(self) -> float:
        """A random number from 0 to 1."""
        return int.from_bytes(os.urandom(7), "big") / (1 << 56)

    def alarm(self, at: float | None) -> None:
        """Call `Service.tick` at this moment."""
        self._alarm.set(at)

    def emit(self, name: str, **fields: Any) -> None:
        """Hand an event to its readers."""
        self.metrics.read(name, fields)
        self.log.event(name, **fields)

    def key_refused(self) -> None:
        """The default key may have been changed: read it again, not on the caller's time."""
        with suppress(RuntimeError):
            threading.Thread(target=self.keys.reload, name="key-reload", daemon=True).start()

    def scrub(self, text: str) -> str:
        """Replace keys in a text."""
        return self._scrubber.scrub(text)

    def note_bug(self, bug: BaseException) -> str:
        """Log a fault of this program; returns the reference that the caller is told."""
        reference = os.urandom(8).hex()
        self._note_ledger_bug(reference, bug)
        return reference

    def _note_ledger_bug(self, reference: str, bug: BaseException) -> None:
        trace = None
        if self.settings.log_level == "debug":
            import traceback

            trace = "".join(traceback.format_exception(bug))
        where = bug.__traceback__.tb_frame.f_code.co_name if bug.__traceback__ else "?"
        error = f"{type(bug).__name__}: {bug}"
        self.log.event("internal_error", reference=reference, where=where, error=error, trace=trace)

    def _note_exchange(self, attempt: Attempt, exchange: Exchange) -> None:
        if exchange.failure in ("dns", "connect", "timeout") and not exchange.sent:
            self._hint_at_proxy()
        # It may have been forgotten among many keys, and an answer may repeat it.
        self._scrubber.learn(attempt.key)

    def _call_elsewhere(self, call: Callable[[], None]) -> None:
        # On the ledger's thread, because the caller is still in the middle of its step.
        self.journal.submit(Pauses(self.endpoint), lambda _: call())

    # --- parts -------------------------------------------------------------------------------

    def _client_now(self) -> Client:
        with self._client_lock:
            if self._client is None:
                from bridge.upstream.client import Client

                self._client = Client(
                    self.endpoint,
                    ca_file=self.settings.ca_file,
                    proxy=self.settings.proxy,
                    connect_timeout_s=self.settings.connect_timeout_s,
                    pool_size=self.settings.concurrency,
                )
                self.log.adopt_libraries()
            return self._client

    def _start_sandbox(self) -> str:
        from bridge.upstream.simulator import Simulator

        self._simulator = Simulator()
        return self._simulator.start()

    def _context(self) -> str:
        # Without the proxy's user and password, which do not belong into the ledger.
        proxy = (self.settings.proxy or "").rpartition("@")[2]
        return "\n".join((self.endpoint, proxy, self.settings.ca_file or ""))

    def _open_store(self, path: str | None, machine: str) -> Store:
        if path is not None and "://" in path:
            return self._open_server(path, machine)
        from bridge.ledger.sqlite import SqliteStore

        is_own = path is not None and os.path.dirname(path) == self.settings.state_dir
        return SqliteStore.open(
            path,
            policy=self._policy,
            machine=machine,
            boot_clock=boot_clock,
            wall_clock=wall_clock,
            private_directory=is_own,
        )

    def _open_server(self, url: str, machine: str) -> Store:
        from bridge.ledger.postgres import PostgresStore

        store = PostgresStore.open(
            url,
            password=self.settings.ledger_password,
            policy=self._policy,
            machine=machine,
            boot_clock=boot_clock,
            wall_clock=wall_clock,
            instance=self._instance,
        )
        # A connection that is made again goes on under the same name, so that the rows stay ours.
        self._instance = store.instance
        return store

    def _hint_at_proxy(self) -> None:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            if os.environ.get(name) and self.settings.proxy is None and not self._hinted:
                self._hinted = True
                self.emit("proxy_hint", variable=name)

    _hinted = False
    _instance: str | None = None


class _SandboxKeys:
    """The sandbox reads none of the user's key sources."""

    def when_ready(self, use: Callable[[Secret | None], None]) -> None:
        use(Secret(SANDBOX_KEY))

    def reload(self) -> None:
        """There is nothing to read again."""


def run_once(settings: Settings, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Serve one call in this process and return its JSON-RPC response.

    Args:
        method: A method of the protocol.
        params: Its params by name.
    """
    from bridge.core import strict_json
    from bridge.rpc.dispatcher import PENDING
    from bridge.rpc.envelope import Call
    from bridge.session import Context

    scrubber = Scrubber()
    log = Log.open(settings.log_level, settings.log_format, settings.log_file, scrubber)
    app = App(settings, log, scrubber)
    answered = threading.Event()
    answers: list[bytes] = []

    def respond(payload: bytes | None) -> None:
        answers.append(payload or b"null")
        answered.set()

    forbid_piped_core_dumps()
    if settings.ca_file is not None:
        app.load_client()
    app.start()
    mark = {"sandbox": True} if settings.sandbox else {}
    context = Context(app.dispatcher, Call(1, True, method, None), respond, mark)
    outcome = app.dispatcher.dispatch(method, dict(params), context)
    if outcome is not PENDING:
        context.settle(outcome)
    answered.wait()
    app.service.stop()
    app.close()
    log.close(1.0)
    response = strict_json.plain(strict_json.parse(answers[0], 64))
    assert isinstance(response, dict)
    return response


def _at_once(call: Callable[[], None]) -> None:
    call()


def _limits(settings: Settings) -> dict[str, Any]:
    return {
        "maxMessage": settings.max_message,
        "maxBatch": settings.max_batch,
        "maxDepth": settings.max_depth,
        "queue": settings.queue,
        "concurrency": settings.concurrency,
        "timeoutSeconds": settings.timeout_s,
        "connectTimeoutSeconds": settings.connect_timeout_s,
        "drainSeconds": settings.drain_s,
    }
