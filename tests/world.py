"""A small world in which time is handed out: bridges on one ledger, an upstream, nothing real but SQLite.

The services, the policy and the store are the real ones; threads, sockets and clocks are not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from bridge.core.errors import BridgeError
from bridge.core.model import Exchange, Facts, Look, Moment, Row, Task
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine, NoResources
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.sqlite import SqliteStore
from bridge.reports import verdict as answers
from bridge.reports.job import Report, Requester
from bridge.reports.pauses import PausePolicy
from bridge.reports.reporter import Reporter
from tests.simulation.virtual import VirtualLoop, VirtualTime

EPOCH = 1_800_000_000.0
ENDPOINT = "https://upstream.test"
IMAGE = "reportIncorrectImageCaptcha"
RECAPTCHA = "reportIncorrectRecaptcha"
KEY = Secret("k" * 32)
OTHER_KEY = Secret("o" * 32)


def verdict(error_id: int, code: str = "", status: int = 200, **headers: str) -> Exchange:
    """An exchange that ended in a JSON verdict."""
    body: dict[str, Any] = {"errorId": error_id}
    if error_id == 0:
        body["status"] = "success"
    else:
        body |= {"errorCode": code or f"ERROR_{error_id}", "errorDescription": "as the test says"}
    return Exchange(None, True, status, headers, json.dumps(body).encode(), elapsed_s=0.1)


def http(status: int, **headers: str) -> Exchange:
    """An exchange that ended in an HTTP status without a verdict."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(None, True, status, named, b"<html>no verdict</html>", elapsed_s=0.1)


class Answer(NamedTuple):
    """What a requester was told, with the members of both kinds of answer."""

    result: Any
    code: int = 0
    message: str = ""
    data: Mapping[str, Any] = {}

    @classmethod
    def read(cls, told: answers.Answer) -> Answer:
        """Take an answer apart."""
        if isinstance(told, BridgeError):
            return cls(None, told.code, told.message, told.data)
        return cls(told)


class Attempt(NamedTuple):
    """One attempt that was asked for, with the seconds it was given."""

    method: str
    key: Secret
    task_id: int
    deadline_s: float
    connect_by_s: float
    fresh: bool


class Fate(NamedTuple):
    """What becomes of one attempt."""

    delivered: bool
    """The upstream reads the whole request and decides on it."""
    answer: Exchange | None
    """What the bridge gets instead of the upstream's own decision; None: that decision."""
    lasts_s: float = 0.1


TAKEN = Fate(True, None)
UNREACHED = Fate(False, Exchange("connect", False, elapsed_s=0.05), 0.05)
LOST_ANSWER = Fate(True, Exchange("reset", True, elapsed_s=0.1))
LOST_REQUEST = Fate(False, Exchange("reset", True, elapsed_s=0.1))
STALLED = Fate(False, Exchange("timeout", True, elapsed_s=10.0), 10.0)
NO_RESOURCES = Fate(False, None, -1.0)
STALLED_TAKEN = Fate(True, Exchange("timeout", True, elapsed_s=10.0), 10.0)


class Call(NamedTuple):
    """One delivery that the upstream has decided on."""

    at: float
    task_id: int
    key: str
    method: str
    taken: bool


class Upstream:
    """The upstream's rules as far as they matter here: one report per task, known keys, a window."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.attempts: list[tuple[float, Attempt]] = []
        self.completed: dict[int, float] = {}
        self.known_keys = {KEY.reveal(), OTHER_KEY.reveal()}
        self.wrong: set[int] = set()
        self.refused_resources = 0
        self.loads_s = 0.0
        """How long the client takes to be loaded, each time that it is asked for."""
        self.fates: Iterator[Fate] = iter(())

    def taken(self, task_id: int) -> bool:
        return any(call.taken for call in self.calls if call.task_id == task_id)

    def decide(self, at: float, attempt: Attempt) -> Exchange:
        key = attempt.key.reveal()
        late = at > self.completed.get(attempt.task_id, at) + 60.0
        fits = key in self.known_keys and attempt.task_id not in self.wrong
        taken = fits and not late and not self.taken(attempt.task_id)
        self.calls.append(Call(at, attempt.task_id, key, attempt.method, taken))
        if taken:
            return verdict(0)
        if key not in self.known_keys:
            return verdict(1, "ERROR_KEY_DOES_NOT_EXIST")
        return verdict(16, "ERROR_NO_SUCH_CAPCHA_ID")


class World:
    """Hands out time."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.time.t = 1000.0
        self.upstream = Upstream()

    @property
    def t(self) -> float:
        return self.time.t

    @t.setter
    def t(self, t: float) -> None:
        self.time.t = t

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass; what is due at its end is done too."""
        self.time.run(seconds)


def raise_bug(bug: BaseException) -> None:
    """Let no bug of a greenlet pass."""
    raise bug


class Clock:
    """The clocks of one bridge in a world.

    Args:
        fast_s: how far its wall clock is ahead.
    """

    def __init__(self, time: VirtualTime, fast_s: float = 0.0) -> None:
        self._time = time
        self._fast_s = fast_s

    def now(self) -> float:
        return self._time.t

    def wall(self) -> float:
        return EPOCH + self._time.t + self._fast_s


def timeless(engine: Engine) -> Any:
    """What a job needs of its ports, with a ledger whose timeline is the engine's."""
    return SimpleNamespace(engine=engine, ledger=engine)


def server_store(clock: Callable[[], float]) -> type[PostgresStore]:
    """The real store on a real server, whose clock says what a test says; who has no session is dead."""

    class ServerStore(PostgresStore):
        grace_s = 0.0

        def _tell_time(self, epoch: float) -> tuple[float, float]:
            return clock(), clock()

    return ServerStore


class _Ledger:
    """A store whose commits take no time; fits `bridge.reports.ports.LedgerPort`."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.committed_at = 0.0
        self.asked: list[tuple[float, Any]] = []

    @property
    def instance(self) -> str:
        return self._bridge.store.instance

    is_open = True

    def wait_until_open(self) -> None:
        """It always is."""

    def post(self, op: Any, done: Callable[[Any], object] = lambda _: None) -> None:
        self._bridge.engine.spawn(lambda: done(self.call(op)))

    def call(self, op: Any) -> Any:
        bridge = self._bridge
        self.asked.append((bridge.world.t, op))
        result = bridge.trouble if bridge.trouble is not None else bridge.store.transact([op])[0]
        self.committed_at = bridge.world.t
        bridge.engine.sleep(0.0)
        return result

    def account(self, key_text: str) -> str:
        return hashlib.blake2b(key_text.encode(), key=self._bridge.store.secret, digest_size=16).hexdigest()

    def now(self) -> float:
        return self._bridge.world.t + self._bridge.store.clock_offset_s

    def status(self) -> dict[str, Any]:
        return {}


class NoKeys:
    """There is no default key; notes when it is to be read again."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def reload(self) -> None:
        self._bridge.emit("key_refused", {})

    def get(self) -> Secret | None:
        return None

    at_hand = get


class Bridge:
    """One bridge process, as far as reports go.

    Args:
        path: a ledger's file, or the address of a database; None: in memory.
    """

    def __init__(
        self,
        world: World,
        path: str | None = None,
        *,
        machine: str = "machine",
        concurrency: int = 4,
        pauses: bool = True,
        clock_fast_s: float = 0.0,
        holds: tuple[Secret, ...] = (),
    ) -> None:
        self.world = world
        self.endpoint = ENDPOINT
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[float, int, Answer]] = []
        self.bugs: list[BaseException] = []
        self.loop = VirtualLoop(world.time)
        self.engine = Engine(self.bugs.append, self.loop, Clock(world.time, clock_fast_s))
        self.policy = PausePolicy(machine, "context", enabled=pauses)
        is_server = path is not None and path.startswith("postgresql:")
        # Neighbours are judged by the clock of this machine, which does not move with the world's.
        on_server = server_store(lambda: EPOCH + world.t)
        opens: Any = on_server if is_server else SqliteStore
        self.store: SqliteStore | PostgresStore = opens(
            path,
            policy=self.policy,
            boot_clock=lambda: world.t,
            wall_clock=lambda: EPOCH + world.t,
        )
        self.ledger = _Ledger(self)
        self.keys = NoKeys(self)
        self.scrubber = Scrubber()
        self.scrubber.learn(KEY, keep=True)
        self.trouble: Any = None
        self.concurrency, self.timeout_s = concurrency, 10.0
        self.queues: tuple[str, ...] = ()
        self.service = Reporter(self, recovers=path is not None)
        for key in holds:
            self.service.hold(key)
        self.service.start()

    @property
    def alive(self) -> bool:
        return self.loop.is_alive

    # --- the ports ---------------------------------------------------------------------------

    def prepare(self) -> None:
        if self.world.upstream.loads_s:
            self.engine.sleep(self.world.upstream.loads_s)

    def send(
        self, method: str, key: Secret, task_id: int, *, until: float, leave_by: Moment, fresh: bool
    ) -> Exchange:
        world = self.world
        attempt = Attempt(method, key, task_id, until - world.t, leave_by() - world.t, fresh)
        world.upstream.attempts.append((world.t, attempt))
        fate = next(world.upstream.fates, TAKEN)
        if fate.lasts_s == NO_RESOURCES.lasts_s:
            world.upstream.refused_resources += 1
            raise NoResources("no descriptor")
        answers: list[Exchange] = []

        def arrive() -> None:
            if fate.delivered:
                answers.append(world.upstream.decide(world.t, attempt))

        # What has left this host arrives, whether or not the bridge lives to see it.
        world.time.call_in(fate.lasts_s / 2, arrive)
        self.engine.sleep(fate.lasts_s)
        return fate.answer or answers[0]

    def emit(self, name: str, fields: Any) -> None:
        self.events.append((name, fields))

    def note_bug(self, bug: BaseException) -> str:
        self.bugs.append(bug)
        return "reference"

    # --- for tests ---------------------------------------------------------------------------

    def report(
        self, task_id: int, method: str = IMAGE, *, key: Secret | None = KEY, name: Any = None, **told: Any
    ) -> list[Answer]:
        """Ask for a report; the list holds the answer once there is one."""
        got: list[Answer] = []

        def reply(told: answers.Answer) -> None:
            answer = Answer.read(told)
            got.append(answer)
            self.answers.append((self.world.t, task_id, answer))

        self.service.submit(Report(method, task_id, key, Facts(**told)), Requester(reply, name, self.world.t))
        return got

    def ask(self, task_id: int, method: str = IMAGE, *, within: float = 120.0, **told: Any) -> Answer:
        """Report and let time pass until the answer."""
        got = self.report(task_id, method, **told)
        waited = 0.0
        while not got and waited < within:
            self.world.run(0.05)
            waited += 0.05
        assert len(got) == 1, f"task {task_id}: {len(got)} answers"
        return got[0]

    def crash(self) -> None:
        """End as by SIGKILL: nothing more happens here, the kernel drops the lock."""
        self.loop.kill()
        self.store.close()

    def task(self, task_id: int, key: Secret = KEY) -> Task:
        return Task(ENDPOINT, self.ledger.account(key.reveal()), task_id)


def error(answer: Answer) -> dict[str, Any]:
    """The code and the data of an error."""
    assert answer.result is None
    return {"code": answer.code, **answer.data}


def row(bridge: Bridge, task_id: int = 1) -> Row:
    """A report as the ledger has it."""
    found = bridge.store.transact([Look(bridge.task(task_id))])[0]
    assert isinstance(found, Row)
    return found


def scratch_directory() -> str | None:
    """A directory in memory, where there is one: the ledgers of these tests need not outlive them."""
    return "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
