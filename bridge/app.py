"""Builds the object graph from the settings; the only module that knows every part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

from bridge.core.exits import ConfigError
from bridge.core.model import Exchange
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine, NoResources
from bridge.ledger import files
from bridge.ledger.writer import Ledger
from bridge.ops.keys import KeySource
from bridge.ops.log import Log
from bridge.ops.machine import load_machine_id
from bridge.ops.metrics import Metrics
from bridge.ops.process import calm_collector, forbid_core_dumps, silence_libraries, undo_inherited
from bridge.reports.advice import queue_names
from bridge.reports.advisor import Advisor
from bridge.reports.answers import rfc3339
from bridge.reports.pauses import PausePolicy
from bridge.reports.reporter import Reporter
from bridge.rpc.dispatcher import Dispatcher
from bridge.rpc.schemas import prepare
from bridge.server.methods import Methods
from bridge.settings import Settings

if TYPE_CHECKING:
    from bridge.ops.metrics_file import MetricsFile
    from bridge.reports.figures import AccountFigures
    from bridge.simulator import Simulator
    from bridge.upstream.client import Client

SANDBOX: Final = "sandbox"
"""Name of the sandbox as an endpoint and as a machine: a sandbox ledger is found again, whatever the port."""
SANDBOX_KEY: Final = "sandbox0sandbox0sandbox0sandbox0"
"""Stands in for a key in the sandbox, which asks for none."""
_HEAD_START_S: Final = 0.005
"""How long requests are read before the ledger is opened, unless one of them needs it."""
_WARM_UP_S: Final = 3.0
"""By then a caller that asks at once has its answer, also where many bridges start together."""
_NO_DRIVER: Final = (
    "The ledger on PostgreSQL needs the driver psycopg; "
    "install it, in the project's folder, with: pip install '.[fleet]'."
)
_CLOSE_S: Final = 5.0
"""How long the end waits for the ledger."""
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class App:
    """A bridge without its streams: everything from the dispatcher down.

    Args:
        settings: What was configured.
        log: Where events go.
        scrubber: Learns every key that is seen.
        engine: Where everything waits.
        boot_id: Names this boot of this machine.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        scrubber: Scrubber,
        engine: Engine,
        boot_id: Callable[[], str | None] = files.boot_id,
    ) -> None:
        self.settings = settings
        self._boot_id = boot_id
        self.log = log
        self.engine = engine
        self._scrubber = scrubber
        self._client: Client | None = None
        self._loading: list[Any] | None = None
        self._metrics_file: MetricsFile | None = None
        self._simulator: Simulator | None = None
        self._has_hinted = False
        self.metrics = Metrics()
        self.keys: KeySource | _SandboxKeys
        if settings.sandbox:
            self.keys = _SandboxKeys()
            self.url = self._start_sandbox()
            self.endpoint, machine = SANDBOX, SANDBOX
        else:
            self.keys = KeySource(engine, settings, scrubber, self.emit)
            self.url = self.endpoint = settings.url
            machine = load_machine_id(settings.state_dir)
        self.policy = PausePolicy(machine, self._context(), enabled=settings.pauses)
        is_memory = settings.ledger == "memory"
        if "://" in settings.ledger and PathFinder.find_spec("psycopg") is None:
            raise ConfigError(_NO_DRIVER)
        self.ledger = Ledger(
            engine,
            None if is_memory else lambda instance: self._open_store(settings.ledger, machine, instance),
            lambda instance: self._open_store(None, machine, instance),
            require=settings.require_ledger,
            on_event=lambda name, fields: self.emit(name, **fields),
            on_error=self._note_ledger_bug,
            boot_id=boot_id,
        )
        self._figures: AccountFigures | None = None
        self._queues = queue_names(settings.account_queues)
        self.advisor = Advisor(self, self.keys, self._queues)
        self.reporter = Reporter(
            self,
            self.advisor,
            concurrency=settings.concurrency,
            timeout_s=settings.timeout_s,
            recovers=not is_memory,
        )
        self.methods = Methods(
            self,
            self.reporter,
            self.advisor,
            self.keys,
            scrubber,
            sandbox=settings.sandbox,
            limits=_limits(settings),
            figures=self._show_figures,
        )
        self.dispatcher = Dispatcher(self.methods.table(), self.note_bug)

    def start(self) -> None:
        """Begin what runs beside the requests: the ledger, and recovery once it is open."""
        # What has come already is answered before the ledger takes the processor's time.
        self.engine.call_at(self.engine.now() + _HEAD_START_S, lambda: self.engine.spawn(self._recover))

    def _recover(self) -> None:
        self.ledger.wait_until_open()
        self.reporter.start()
        key = self.keys.get()
        if key is not None:
            self.reporter.hold(key)
        if self.settings.account_figures:
            from bridge.reports.figures import AccountFigures

            self._figures = AccountFigures(self, self._ask_figures, self.reporter.keys, self._queues)
            self._figures.run()

    def _ask_figures(self, key: Secret, date: int, queue: str) -> Exchange:
        """Ask for the account's own figures, over a connection of its own, so that no report waits for it."""
        from bridge.upstream.client import spending_body

        client = self._client or self._client_or_lack()
        self._scrubber.learn(key)
        until = self.engine.now() + self.settings.timeout_s
        body = spending_body(key, date, queue)
        return client.send("getSpendingStats", body, until=until, leave_by=until, fresh=True)

    def _show_figures(self) -> dict[str, Any]:
        """The members of the status that are counted here."""
        shown = {**self.metrics.figures(), "droppedLogLines": self.log.dropped}
        if self.settings.account_figures:
            asked, failure = None, None
            if self._figures is not None and self._figures.asked_wall is not None:
                asked, failure = rfc3339(self._figures.asked_wall), self._figures.failure
            shown["accountFigures"] = {"askedAt": asked, "failure": failure}
        return shown

    def keep_metrics(self) -> None:
        """Write the figures to the configured file, if there is one, until `close`."""
        if self.settings.metrics_file is not None:
            from bridge.ops.metrics_file import MetricsFile

            self._metrics_file = MetricsFile(
                self.engine, self.settings.metrics_file, self._read_figures, self.emit
            )
            self._metrics_file.start()

    def _read_figures(self) -> Mapping[str, Any]:
        more = {"latencySumMs": self.metrics.latency_sum_ms, "sandbox": self.settings.sandbox}
        return {**self.methods.read_status(), **more}

    def load_client(self) -> None:
        """Load the HTTP client now.

        Raises:
            ConfigError: The CA file or the proxy cannot be used.
        """
        try:
            self._load_client()
        except ValueError as error:
            raise ConfigError(f"The upstream cannot be reached as configured: {error}") from None

    def warm_up_later(self) -> None:
        """Load what the first report needs, once the first answers are out."""
        self.engine.call_at(self.engine.now() + _WARM_UP_S, lambda: self.engine.spawn(self._warm_up))

    def _warm_up(self) -> None:
        try:
            prepare("report.params")
            self._client_now().warm_up()
        except (OSError, ImportError, ValueError):
            # The first attempt will meet the same trouble and tell of it.
            return
        calm_collector()

    def close(self) -> None:
        """Flush the ledger and end the simulator. Reports must have been finished or stopped before."""
        if self._metrics_file is not None:
            self._metrics_file.close()
        self.advisor.finish()
        self.ledger.close(self.engine.now() + _CLOSE_S)
        if self._client is not None:
            self._client.close()
        if self._simulator is not None:
            self._simulator.stop()

    # --- what reports need -------------------------------------------------------------------

    def send(
        self, method: str, key: Secret, task_id: int, *, until: float, leave_by: float, fresh: bool
    ) -> Exchange:
        """Make one HTTP attempt; see `bridge.reports.ports.Ports`."""
        client = self._client or self._client_or_lack()
        # It may have been forgotten among many keys, and an answer may repeat it.
        self._scrubber.learn(key)
        exchange = client.send(method, self._body(key, task_id), until=until, leave_by=leave_by, fresh=fresh)
        if exchange.failure in ("dns", "connect", "timeout") and not exchange.sent:
            self._hint_at_proxy()
        return exchange

    def emit(self, name: str, **fields: Any) -> None:
        """Hand an event to its readers."""
        self.metrics.read(name, fields)
        self.log.event(name, **fields)

    def key_refused(self) -> None:
        """The default key may have been changed: read it again, not on the caller's time."""
        self.keys.reload()

    def scrub(self, text: str) -> str:
        """Replace keys in a text."""
        return self._scrubber.scrub(text)

    def note_bug(self, bug: BaseException) -> str:
        """Log a fault of this program; returns the reference that the caller is told."""
        reference = self.engine.random_bytes(8).hex()
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

    # --- parts -------------------------------------------------------------------------------

    def _client_now(self) -> Client:
        """The HTTP client; its library is loaded on a thread, so that others are answered meanwhile."""
        while self._client is None:
            if self._loading is not None:
                waiter = self.engine.waiter()
                self._loading.append(waiter)
                waiter.wait()
                continue
            self._loading = []
            try:
                try:
                    self.engine.run_in_thread(_import_client)
                except NoResources:
                    _import_client()
                self._load_client()
            finally:
                waiting, self._loading = self._loading, None
                for waiter in waiting:
                    waiter.wake()
        return self._client

    def _client_or_lack(self) -> Client:
        try:
            return self._client_now()
        except (OSError, ImportError) as error:
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                # It was not to be had for want of descriptors, and will be when there are some.
                raise NoResources("no descriptor to load the client with") from error
            raise

    def _load_client(self) -> None:
        from bridge.upstream.client import Client, report_body

        self._body = report_body
        self._client = Client(
            self.engine,
            self.url,
            ca_file=self.settings.ca_file,
            proxy=self.settings.proxy,
            connect_timeout_s=self.settings.connect_timeout_s,
            pool_size=self.settings.concurrency,
        )
        silence_libraries()

    def _start_sandbox(self) -> str:
        from bridge.simulator import Simulator

        self._simulator = Simulator(self.engine)
        return self._simulator.start()

    def _context(self) -> str:
        # Without the proxy's user and password, which do not belong into the ledger.
        proxy = (self.settings.proxy or "").rpartition("@")[2]
        return "\n".join((self.endpoint, proxy, self.settings.ca_file or ""))

    def _open_store(self, place: str | None, machine: str, instance: str) -> Any:
        """Open a ledger on a server, in a file, or, without a place, in memory."""
        common: dict[str, Any] = {
            "policy": self.policy,
            "machine": machine,
            "boot_clock": self.engine.now,
            "wall_clock": self.engine.wall,
            "instance": instance,
            "random_bytes": self.engine.random_bytes,
        }
        if place is not None and "://" in place:
            from bridge.ledger.postgres import PostgresStore

            return PostgresStore(place, password=self.settings.ledger_password, **common)
        from bridge.ledger.sqlite import SqliteStore

        is_own = place is not None and os.path.dirname(place) == self.settings.state_dir
        return SqliteStore.open(place, private_directory=is_own, boot_id=self._boot_id, **common)

    def _hint_at_proxy(self) -> None:
        for name in _PROXY_VARIABLES:
            if os.environ.get(name) and self.settings.proxy is None and not self._has_hinted:
                self._has_hinted = True
                self.emit("proxy_hint", variable=name)


class _SandboxKeys:
    """The sandbox reads none of the user's key sources."""

    def get(self) -> Secret:
        """The key that stands in for one."""
        return Secret(SANDBOX_KEY)

    def at_hand(self) -> Secret:
        """The same."""
        return self.get()

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
    from bridge.server.conversation import Context

    undo_inherited()
    forbid_core_dumps()
    scrubber = Scrubber()
    log = Log.open(settings.log_level, settings.log_format, settings.log_file, scrubber)
    engine = Engine(lambda bug: app.note_bug(bug))
    log.attach(engine)
    app = App(settings, log, scrubber, engine)
    if settings.ca_file is not None:
        app.load_client()
    app.start()
    waiter = engine.waiter()
    mark = {"sandbox": True} if settings.sandbox else {}
    context = Context(app.dispatcher, Call(1, True, method, None), waiter.wake, engine.now(), mark)

    def ask() -> None:
        outcome = app.dispatcher.dispatch(method, dict(params), context)
        if outcome is not PENDING:
            context.settle(outcome)

    engine.spawn(ask)
    answer = waiter.wait()
    app.reporter.stop()
    app.close()
    log.close()
    response = strict_json.plain(strict_json.parse(answer, 64))
    assert isinstance(response, dict)
    return response


def _import_client() -> None:
    import bridge.upstream.client  # noqa: F401


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
