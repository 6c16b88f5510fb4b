"""The simulator as an object: for the sandbox, for the command ``simulate`` and for tests.

Serves on the engine it is given, or on one of its own in a thread of its own. Binds loopback addresses only.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Any, Final, TypeVar

from bridge.engine import Engine, SystemClock, Waiter
from bridge.simulator.scenario import SCENARIO, length_s
from bridge.simulator.server import Server
from bridge.simulator.shapes import check, wire_name
from bridge.simulator.state import State

_WAIT_S: Final = 5.0
"""How long another thread waits for the simulator's."""

T = TypeVar("T")


class Simulator:
    """The documented upstream API on loopback.

    Args:
        engine: serves; without one a daemon thread does, and every method may be called from any thread.
        port: 0 picks a free one.
        host: a loopback address.
        scenario: a scenario as read from its file.
        auto: start in auto mode.
        tls: paths of certificate chain and private key, to serve https.
        latency_s: seconds before every answer.

    Raises:
        NotValid: the scenario is not as documented.
        ValueError: the host is not a loopback address.
    """

    def __init__(
        self,
        engine: Engine | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        scenario: Mapping[str, Any] | None = None,
        auto: bool = True,
        tls: tuple[str, str] | None = None,
        latency_s: float = 0.0,
    ) -> None:
        if not host.startswith("127.") and host != "::1":
            raise ValueError("the simulator serves loopback addresses only")
        given = dict(scenario or {})
        check(given, SCENARIO)
        given["settings"] = {"auto": auto, "latencySeconds": latency_s, **given.get("settings", {})}
        wall = SystemClock.wall if engine is None else engine.wall
        # Not the engine's clock: other programs compare the log's times with their own.
        self.state = State(given, time.monotonic, wall)
        self.base_url = ""
        self._address, self._tls = (host, port), tls
        self._engine = engine
        self._server: Server | None = None
        self._own: tuple[Thread, Engine, Waiter] | None = None
        """A thread, its engine, and what ends it; unless the engine is somebody else's."""

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Begin to serve, and return the base URL (no slash at its end).

        Raises:
            OSError: the port cannot be bound, or the certificate cannot be read.
        """
        if not self.base_url:
            engine = self._engine or self._start_thread()
            try:
                self._do(self._serve, engine)
            except OSError:
                self.stop()
                raise
        return self.base_url

    def stop(self) -> None:
        """Close everything; a second time does nothing."""
        if self._own is not None:
            thread, engine, stopped = self._own
            engine.call_soon_from_thread(stopped.wake)
            thread.join(_WAIT_S)
        elif self._server is not None:
            self._server.stop()
        self._own = self._server = None

    def _serve(self, engine: Engine) -> None:
        self._server = Server(engine, self.state, self._address, self._tls)
        self.base_url = self._server.base_url

    def _start_thread(self) -> Engine:
        begun: SimpleQueue[tuple[Engine, Waiter]] = SimpleQueue()

        def run() -> None:
            engine = Engine(lambda _: self.note_bug())
            stopped = engine.waiter()
            begun.put((engine, stopped))
            stopped.wait()
            if self._server is not None:
                self._server.stop()
            engine.close()

        thread = Thread(target=run, name="simulator", daemon=True)
        thread.start()
        self._own = (thread, *begun.get())
        return self._own[1]

    def _do(self, act: Callable[..., T], *words: Any) -> T:
        """Do something where the state belongs."""
        if self._own is None:
            return act(*words)
        done: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

        def run() -> None:
            try:
                done.put((act(*words), None))
            except Exception as problem:
                done.put((None, problem))

        self._own[1].call_soon_from_thread(run)
        result: T
        result, problem = done.get(timeout=_WAIT_S)
        if problem is not None:
            raise problem
        return result

    def note_bug(self) -> None:
        """Count a fault of the simulator itself."""
        self.state.journal.counters["internalErrors"] += 1

    # --- the verbs of the control endpoint; fields as there, in snake_case ---------------------

    def add_task(self, kind: str, **fields: Any) -> int:
        """Create a task (``age_seconds``, ``client_key`` ...) and return its id."""
        task_id: int = self._do(self.state.make, "tasks", {"kind": kind, **_wire(fields)})["taskId"]
        return task_id

    def add_fault(self, name: str, **fields: Any) -> int:
        """Arm a fault (``task_id``, ``for_seconds`` ...) and return its number."""
        fault_id: int = self._do(self.state.make, "faults", {"fault": name, **_wire(fields)})["id"]
        return fault_id

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        return self._do(self.state.clear_faults, fault_id)

    def set_account(self, client_key: str, state: str) -> None:
        """Put an account into a state."""
        self._do(self.state.make, "accounts", {"clientKey": client_key, "state": state})

    def set_spending(self, queue: str, volume: int, **fields: Any) -> None:
        """Set the figures of a queue (``hours_ago``, ``hours``, ``money``, ``client_key`` ...)."""
        self._do(self.state.make, "spending", {"queue": queue, "volume": volume, **_wire(fields)})

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings (``clock_skew_seconds`` ...); return all of them."""
        return dict(self._do(self.state.change_settings, _wire(settings)))

    def log(
        self, since: int = 0, task_id: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return calls with a number above `since`, oldest first."""
        return self._do(self.state.journal.select, since, task_id, limit)

    def deliveries(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return how often each task was delivered, taken, and told to be taken."""
        return self._do(self.state.journal.deliveries, task_id)

    def tasks(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the known tasks."""
        return self._do(self.state.list_tasks, task_id)

    def counters(self) -> dict[str, int]:
        """Return the counters."""
        return self._do(lambda: dict(self.state.journal.counters))

    def reset(self) -> None:
        """Forget everything and start the scenario again."""
        self._do(self.state.begin if self._server is None else self._server.reset)

    def disconnect(self) -> int:
        """Close all idle connections that carried calls; return how many."""
        return 0 if self._server is None else self._do(self._server.disconnect)

    def progress(self) -> tuple[float, float, int]:
        """Return seconds since the scenario began, its length in seconds, and the steps to come."""
        scenario, elapsed = self.state.scenario, self.state.now() - self.state.began_at
        to_come = sum(step["atSeconds"] > elapsed for step in scenario.get("steps", ()))
        return elapsed, length_s(scenario), to_come


def _wire(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {wire_name(name): value for name, value in fields.items()}
