"""Builds the object graph from the settings; the only module that knows every part."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final

from bridge.core.exits import ConfigError
from bridge.core.model import Exchange, Moment
from bridge.core.redact import Scrubber, Secret
from bridge.core.text import hide_keys, rfc3339
from bridge.engine import Engine, NoResources
from bridge.ledger import files
from bridge.ledger.writer import Ledger
from bridge.ops import process
from bridge.ops.keys import KeySource
from bridge.ops.log import Log
from bridge.ops.metrics import Metrics, MetricsFile
from bridge.reports.advice import queue_names
from bridge.reports.pauses import PausePolicy
from bridge.reports.reporter import Reporter
from bridge.rpc.discovery import methods
from bridge.rpc.schemas import prepare
from bridge.server.methods import Methods
from bridge.settings import Settings, drop_secrets
from bridge.settings.table import TABLE

if TYPE_CHECKING:
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
_LOOK_S: Final = 0.01
"""How often who needs the HTTP client looks whether it has been loaded."""
_CLOSE_S: Final = 5.0
"""How long the end waits for the ledger."""
_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


class App:
    """A bridge without its streams: everything from the log and the dispatcher down.

    Args:
        settings: What was configured.

    Raises:
        ConfigError: What the settings name cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.scrubber = scrubber = Scrubber()
        """Learns every key that is seen."""
        self.engine = engine = self.make_engine()
        self.log = self.open_log()
        for name, fields in settings.notices:
            self.log.tell(name, fields)
        self.log.flush()
        self._client: Client | None = None
        self._is_loading = False
        self._metrics_file: MetricsFile | None = None
        self._simulator: Simulator | None = None
        self._figures: AccountFigures | None = None
        self._has_hinted = False
        self.metrics = Metrics()
        if settings.sandbox:
            from bridge.simulator import Simulator

            # It asks for no key, so there is nothing to tell of the one that stands in.
            stand_in = Settings({**vars(settings), "client_key": Secret(SANDBOX_KEY)}, {})
            self.keys = KeySource(engine, stand_in, scrubber, lambda *_: None)
            self._simulator = Simulator(engine)
            self.url = self._simulator.start()
            self.endpoint, machine = SANDBOX, SANDBOX
        else:
            self.keys = KeySource(engine, settings, scrubber, self.emit)
            self.url = self.endpoint = settings.url
            machine = process.load_machine_id(settings.state_dir)
        # Without the proxy's user and password, which do not belong into the ledger.
        route = [self.endpoint, (settings.proxy or "").rpartition("@")[2], ""]
        if settings.ca_file is not None:
            with suppress(OSError), open(settings.ca_file, "rb") as file:  # the client says what is wrong
                route[2] = blake2b(file.read(), digest_size=16).hexdigest()
        self.policy = PausePolicy(machine, "\n".join(route), enabled=settings.pauses)
        is_memory = settings.ledger == "memory"
        if "://" in settings.ledger and PathFinder.find_spec("psycopg") is None:
            from bridge.ledger.postgres_trouble import NO_DRIVER

            raise ConfigError(NO_DRIVER)
        self.ledger = Ledger(
            engine,
            None if is_memory else lambda instance: self._open_store(settings.ledger, instance),
            lambda instance: self._open_store(None, instance),
            kind="memory" if is_memory else "postgres" if "://" in settings.ledger else "sqlite",
            require=settings.require_ledger,
            on_event=self._tell_of_ledger,
            on_error=self._note_ledger_bug,
            boot_id=self.boot_id,
        )
        self.concurrency, self.timeout_s = settings.concurrency, settings.timeout_s
        self.queues = queue_names(settings.account_queues)
        self.reporter = Reporter(self, recovers=not is_memory)
        if settings.account_figures:
            from bridge.reports.figures import AccountFigures

            self._figures = AccountFigures(self, self._ask_figures, self.reporter.keys)
        limits = {row.limit: getattr(settings, row.name) for row in TABLE if row.limit}
        told = {"sandbox": settings.sandbox, "limits": limits}
        self.methods = Methods(self, self.reporter, told, self._show_figures)
        if settings.ca_file is not None:
            self._load_client()

    # --- the world: a simulation has another one ----------------------------------------------

    boot_id = staticmethod(files.boot_id)
    """Names this boot of this machine."""

    def make_engine(self) -> Engine:
        """Make what everything waits in."""
        return Engine(self.note_bug)

    def open_log(self) -> Log:
        """Open what the events go to."""
        told = self.settings
        return Log(self.engine, told.log_level, told.log_format, told.log_file, self.scrubber)

    # --- from start to end -------------------------------------------------------------------

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
        if self._figures is not None:
            self._figures.run()

    def _ask_figures(self, key: Secret, date: int, queue: str) -> Exchange:
        """Ask for the account's own figures, over a connection of its own, so that no report waits for it."""
        client = self.prepare()
        from bridge.upstream.client import spending_body

        self.scrubber.learn(key)
        until = self.engine.now() + self.settings.timeout_s
        body = spending_body(key, date, queue)
        return client.send("getSpendingStats", body, until=until, leave_by=lambda: until, fresh=True)

    def _show_figures(self) -> dict[str, Any]:
        """The members of the status that are counted here."""
        shown = {**self.metrics.figures(), "droppedLogLines": self.log.dropped}
        if self._figures is not None:
            asked = self._figures.asked_wall
            asked_at = None if asked is None else rfc3339(asked)
            shown["accountFigures"] = {"askedAt": asked_at, "failure": self._figures.failure}
        return shown

    def keep_metrics(self) -> None:
        """Write the figures to the configured file, if there is one, until `close`."""
        path = self.settings.metrics_file
        if path is not None:
            self._metrics_file = MetricsFile(self.engine, path, self._read_figures, self.emit)
            self.engine.spawn(self._metrics_file.keep)

    def _read_figures(self) -> Mapping[str, Any]:
        besides = {"latencySumMs": self.metrics.latency_sum_ms, "startedWall": self.methods.started_wall}
        return {**self.methods.read_status(), **self.methods.dispatcher.mark, **besides}

    def warm_up_later(self) -> None:
        """Load what the first report needs, once the first answers are out."""
        self.engine.call_at(self.engine.now() + _WARM_UP_S, lambda: self.engine.spawn(self._warm_up))

    def _warm_up(self) -> None:
        try:
            for method in methods():
                # What a call needs must not be looked for when no descriptor is left.
                prepare(method.params)
            import_module("html.entities")
            self.prepare().warm_up()
        except (OSError, ImportError):
            # The first attempt will meet the same trouble and tell of it.
            return
        process.calm_collector()

    def close(self) -> None:
        """Flush the ledger and end the simulator. Reports must have been finished or stopped before."""
        if self._metrics_file is not None:
            self._metrics_file.close()
        self.reporter.advisor.finish()
        self.ledger.close(self.engine.now() + _CLOSE_S)
        if self._client is not None:
            self._client.close()
        if self._simulator is not None:
            self._simulator.stop()

    # --- what reports need -------------------------------------------------------------------

    def prepare(self) -> Client:
        """The HTTP client; its library is loaded on a thread, so that others are answered meanwhile."""
        while self._is_loading:
            self.engine.sleep(_LOOK_S)
        if self._client is not None:
            return self._client
        self._is_loading = True
        try:
            self.engine.run_in_thread(import_module, "bridge.upstream.client")
            return self._load_client()
        except (OSError, ImportError) as error:
            try:
                os.close(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                # It was not to be had for want of descriptors, and will be when there are some.
                raise NoResources("no descriptor to load the client with") from error
            raise
        finally:
            self._is_loading = False

    def send(
        self, method: str, key: Secret, task_id: int, *, until: float, leave_by: Moment, fresh: bool
    ) -> Exchange:
        """Make one HTTP attempt; see `bridge.reports.ports.Ports`."""
        client = self._client
        assert client is not None
        # It may have been forgotten among many keys, and an answer may repeat it.
        self.scrubber.learn(key)
        exchange = client.send(method, self._body(key, task_id), until=until, leave_by=leave_by, fresh=fresh)
        if exchange.failure in ("dns", "connect", "timeout") and not exchange.sent:
            self._hint_at_proxy()
        return exchange

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Hand an event to its readers."""
        self.metrics.read(name, fields)
        self.log.tell(name, fields)

    def _tell_of_ledger(self, name: str, fields: Mapping[str, Any]) -> None:
        # Nothing of a server's address: it may hold a password.
        place = self.settings.ledger
        self.emit(name, {"path": "on the server" if "://" in place else hide_keys(place), **fields})

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

    def _load_client(self) -> Client:
        from bridge.upstream.client import Client, report_body

        self._body = report_body
        try:
            self._client = Client(self.engine, self.url, self.settings)
        except ValueError as error:
            raise ConfigError(f"The upstream cannot be reached as configured: {error}") from None
        process.silence_libraries()
        return self._client

    def _open_store(self, place: str | None, instance: str) -> Any:
        """Open a ledger on a server, in a file, or, without a place, in memory."""
        common: dict[str, Any] = {
            "policy": self.policy,
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
        return SqliteStore(place, private_directory=is_own, boot_id=self.boot_id, **common)

    def _hint_at_proxy(self) -> None:
        for name in _PROXY_VARIABLES:
            if os.environ.get(name) and self.settings.proxy is None and not self._has_hinted:
                self._has_hinted = True
                self.emit("proxy_hint", {"variable": name})


def run_once(settings: Settings, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Serve one call in this process and return its JSON-RPC response.

    Args:
        method: A method of the protocol.
        params: Its params by name.

    Raises:
        KeyboardInterrupt: A SIGINT came; what was begun is left to the next start.
    """
    from bridge.core import strict_json
    from bridge.rpc.envelope import Call
    from bridge.server.conversation import Context

    process.undo_inherited()
    process.forbid_core_dumps()
    drop_secrets(os.environ)
    app = App(settings)
    engine = app.engine
    app.start()
    waiter = engine.waiter()
    call = Call(1, True, method, dict(params))
    context = Context(app.methods.dispatcher, call, lambda _, answer: waiter.wake(answer), engine.now())
    engine.spawn(context.serve)
    # Python would raise it inside whatever the engine calls. What a shell lets its jobs ignore stays ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        engine.on_signal(signal.SIGINT, lambda _: waiter.throw(KeyboardInterrupt()))
    answer = waiter.wait()
    app.reporter.stop()
    app.close()
    app.log.close()
    response = strict_json.plain(strict_json.parse(answer, 64))
    assert isinstance(response, dict)
    return response
