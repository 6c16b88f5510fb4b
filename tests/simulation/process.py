"""One bridge process: the real server on virtual streams, clocks, disk and network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from bridge.app import App
from bridge.cli.serve import Server
from bridge.core.model import Exchange
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine
from bridge.ledger.sqlite import SqliteStore
from bridge.ops.log import Log
from bridge.settings import Settings
from bridge.settings.table import TABLE
from bridge.upstream.client import Client, report_body
from tests.simulation.chance import Dice
from tests.simulation.disk import SimStore
from tests.simulation.network import DATELESS, Attempt
from tests.simulation.plan import KEYS
from tests.simulation.virtual import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.world import Host, World

URL = "https://upstream.test"


class Loop(VirtualLoop):
    """The loop of a process that can be killed or suspended at any turn."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.time)
        self._process = process
        self.turns = 0
        self.at_turn: dict[int, Callable[[], object]] = {}
        """What is to happen when so many turns are over."""
        self._held: list[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        self.handlers: dict[int, Callable[[int], object]] = {}
        self.has_world = True
        switch = self.switch

        def wait() -> Any:
            if not self.has_world:
                raise GreenletExit
            return switch()

        self.switch = wait

    def run(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self._held is not None:
            self._held.append((call, arguments))
            return
        self.turns += 1
        call(*arguments)
        if self.at_turn and self.turns in self.at_turn:
            self.at_turn.pop(self.turns)()

    def ring_in(self, seconds: float, call: Callable[[], object]) -> None:
        # Clocks count from other beginnings, so a timer could ring a rounding error too early for ever.
        super().ring_in(max(seconds, 1e-6), call)

    def random_bytes(self, count: int) -> bytes:
        return self._process.chance.some_bytes(count)

    def on_signal(self, number: int, call: Callable[[int], object]) -> None:
        self.handlers[number] = call

    def suspend(self) -> None:
        """Do nothing from now on."""
        if self._held is None:
            self._held = []

    def resume(self) -> None:
        """Go on with what has come due meanwhile."""
        held, self._held = self._held or [], None
        for call, arguments in held:
            self.call_soon(call, *arguments)

    @property
    def is_suspended(self) -> bool:
        return self._held is not None


class Input:
    """What a bridge reads; fits `bridge.wire.streams.Reader`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._waiter = process.engine.waiter()
        self._data: deque[tuple[bytes, Any]] = deque()
        self._has_ended = False
        self._is_stopped = False

    def read(self) -> bytes:
        while not self._data and not self._has_ended and not self._is_stopped:
            self._waiter.wait()
        if self._is_stopped or not self._data:
            return b""
        data, requests = self._data.popleft()
        self._process.note_read(requests)
        return data

    def stop(self) -> None:
        self._is_stopped = True
        self._waiter.wake()

    def put(self, data: bytes, requests: Any) -> None:
        self._data.append((data, requests))
        self._waiter.wake()

    def end(self) -> None:
        self._has_ended = True
        self._waiter.wake()


class Output:
    """Where a bridge writes; fits `bridge.engine.Outlet`."""

    def __init__(
        self, process: Process, on_room: Callable[[], object], on_lost: Callable[[int], object]
    ) -> None:
        self._process = process
        self._on_room = on_room
        self._on_lost = on_lost
        self._pieces: deque[tuple[bytes, float]] = deque()
        self.backlog_bytes = 0
        self.is_read = True
        self.is_gone = False

    @property
    def backlog(self) -> int:
        return len(self._pieces)

    def put(self, piece: bytes) -> None:
        self._pieces.append((piece, self._process.world.now))
        self.backlog_bytes += len(piece)
        if self.is_read:
            self._process.engine.call_soon(self.take)

    def take(self) -> None:
        """The client reads what is there."""
        if self.is_gone:
            lost = len(self._pieces)
            self._pieces.clear()
            self.backlog_bytes = 0
            if lost:
                self._on_lost(lost)
        elif self.is_read and self._pieces:
            while self._pieces:
                piece, put_at = self._pieces.popleft()
                self.backlog_bytes -= len(piece)
                self._process.world.history.note_answer(self._process, piece, put_at)
            self._on_room()

    def drain(self, until: float | None) -> bool:
        while self._pieces and (until is None or self._process.engine.now() < until):
            self._process.engine.sleep(0.05)
        return not self._pieces


class Lines:
    """The log's outlet."""

    backlog = 0

    def __init__(self, process: Process) -> None:
        self._process = process

    def put(self, piece: bytes) -> None:
        self._process.note_line(piece)

    def drain(self, until: float | None) -> bool:
        return True

    def flush(self) -> bool:
        return True


class SimLog(Log):
    def __init__(self, process: Process, scrubber: Scrubber) -> None:
        self._process = process
        super().__init__(process.engine, "debug", "json", None, scrubber)

    def _open_outlet(self) -> Any:
        return Lines(self._process)


class SimApp(App):
    """The real app in a world of its own."""

    def __init__(self, process: Process, settings: Settings) -> None:
        self.process = process
        super().__init__(settings)

    def boot_id(self) -> str:
        return self.process.host.boot_id

    def make_engine(self) -> Engine:
        def note(bug: BaseException) -> None:
            self.process.world.break_rule(f"{self.process.name}: nobody caught {type(bug).__name__}: {bug}")
            self.note_bug(bug)

        loop: Any = self.process.loop
        self.process.engine = Engine(note, loop, self.process.host)
        return self.process.engine

    def open_log(self) -> Log:
        return SimLog(self.process, self.scrubber)

    def _load_client(self) -> Client:
        process = self.process
        self._body = report_body
        self._client = Client(
            self.engine,
            self.url,
            self.settings,
            connect=lambda until: process.world.network.connect(process, until),
        )
        return self._client

    def _warm_up(self) -> None:
        self.prepare()

    def _open_store(self, place: str | None, instance: str) -> SqliteStore:
        SimStore.arriving = self.process
        return SimStore(
            place,
            policy=self.policy,
            boot_clock=self.engine.now,
            wall_clock=self.engine.wall,
            instance=instance,
            boot_id=self.boot_id,
            random_bytes=self.engine.random_bytes,
        )

    def send(self, method: str, key: Secret, task_id: int, **moments: Any) -> Exchange:
        process = self.process
        attempt = process.begin_attempt(method, key.reveal(), task_id, moments["fresh"])
        try:
            exchange = super().send(method, key, task_id, **moments)
        except BaseException as error:
            process.end_attempt(attempt, type(error).__name__)
            raise
        process.end_attempt(attempt, exchange.failure)
        return exchange


class Process:
    """One life of a bridge."""

    engine: Engine

    def __init__(self, world: World, slot: int, life: int) -> None:
        self.world = world
        self.slot = slot
        self.life = life
        self.name = f"{slot}.{life}"
        self.host: Host = world.host
        self.machine: int = world.plan.setup["machines"][slot]
        self.chance = Dice(world.plan.seed, "process", slot, life)
        self.stores: list[SimStore] = []
        self.flying: dict[tuple[str, int], Attempt] = {}
        self.started_at = world.now
        self.ended_at: float | None = None
        self.exit_code: int | None = None
        """None while it runs, and after it was killed."""
        self.stopped_at: float | None = None
        """When it was told to stop."""
        self.knows_time_at: float | None = None
        self.suspended: list[tuple[float, float]] = []
        self.loop = Loop(self)
        self.app = SimApp(self, _settings(world, slot))
        self.input = Input(self)
        self.output = Output(self, lambda: self.server.go_on(), lambda _: self.server.lose_stdout())
        reader: Any = self.input
        outlet: Any = self.output
        self.server = Server(self.app, reader, outlet)
        self.engine.spawn(self._serve)

    def _serve(self) -> None:
        self.exit_code = self.server.run()
        self.ended_at = self.world.now
        self.world.log("exit", self.name, self.exit_code)
        self.loop.kill()
        for store in self.stores:
            store.die()
        self.world.disk.release(self)
        self.world.history.note_end(self)
        self.world.note_end(self)

    @property
    def is_alive(self) -> bool:
        return self.loop.is_alive

    @property
    def is_durable(self) -> bool:
        return self.app.ledger.durable

    def kill(self) -> None:
        """End as by SIGKILL."""
        if not self.is_alive:
            return
        self.world.log("kill", self.name)
        self.loop.kill()
        self.ended_at = self.world.now
        for store in self.stores:
            store.die()
        self.world.disk.release(self)
        self.world.history.note_end(self)
        self.world.note_end(self)

    def signal(self, number: int) -> None:
        """A signal comes."""
        if self.is_alive and self.stopped_at is None and number in self.loop.handlers:
            self.stopped_at = self.world.now
            self.world.log("signal", self.name, number)
            handler = self.loop.handlers[number]
            self.loop.call_soon(handler, number)

    # --- what is seen ------------------------------------------------------------------------

    def begin_attempt(self, method: str, key: str, task_id: int, fresh: bool) -> Attempt:
        attempts = self.world.network.attempts
        attempt = Attempt(self, len(attempts), task_id, key, method, fresh)
        attempts.append(attempt)
        if (key, task_id) in self.flying:
            self.world.break_rule(f"{self.name}: two attempts for task {task_id} at one time")
        self.flying[key, task_id] = attempt
        self.world.history.note_attempt(attempt)
        return attempt

    def end_attempt(self, attempt: Attempt, failure: str | None) -> None:
        if not self.is_alive:
            return
        attempt.ended_at = self.world.now
        attempt.failure = failure
        self.flying.pop((attempt.key, attempt.task_id), None)
        is_dated = attempt.meaning is not None and attempt.fate not in DATELESS
        if is_dated and self.knows_time_at is None:
            self.knows_time_at = self.world.now
        self.world.log("attempt", self.name, attempt.number, failure)

    def note_read(self, requests: Any) -> None:
        for request in requests:
            request.read_at = self.world.now

    def note_line(self, piece: bytes) -> None:
        self.world.history.note_line(self, piece)


def _settings(world: World, slot: int) -> Settings:
    setup = world.plan.setup
    values: dict[str, Any] = {row.name: row.default for row in TABLE}
    values.update(
        client_key=Secret(KEYS[0]),
        url=URL,
        ledger="memory" if setup["ledger"] == "memory" else world.disk.path,
        require_ledger=setup["require"] and setup["ledger"] == "file",
        concurrency=setup["concurrency"],
        queue=setup["queue"],
        timeout_s=setup["timeout_s"],
        drain_s=setup["drain_s"],
        pauses=setup["pauses"],
        parent_watch=False,
        sandbox=False,
        state_dir=world.state_dir(setup["machines"][slot]),
        config_file=None,
        hidden=frozenset(),
        notices=(),
    )
    return Settings(values, {"client_key": "environment"})
