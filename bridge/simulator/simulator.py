"""The simulator as an object: for the sandbox, for the command ``simulate`` and for tests.

Serves on the engine it is given, or on one of its own in a thread of its own. Binds loopback addresses only.
"""

from __future__ import annotations

import re
import socket
import time
from _queue import SimpleQueue
from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bridge.engine import Engine, Readiness, Waiter
from bridge.simulator.connection import Connection, Ended
from bridge.simulator.journal import Rows
from bridge.simulator.scenario import LISTS, SCENARIO, SETTINGS, check, length_s
from bridge.simulator.state import State

if TYPE_CHECKING:
    import ssl

_BACKLOG: Final = 1024
_WAIT_S: Final = 5.0
"""How long another thread waits for the simulator's, and the end for its connections."""

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

    engine: Engine
    state: State

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
        given = dict(check(scenario or {}, SCENARIO))
        given["settings"] = {"auto": auto, "latencySeconds": latency_s, **given.get("settings", {})}
        # Not the engine's clock: other programs compare the log's times with their own.
        self.state = State(given, time.monotonic, time.time)
        self.base_url = ""
        self._address, self._tls = (host, port), tls
        self._has_thread = engine is None
        if engine is not None:
            self.engine = engine
        self.context: ssl.SSLContext | None = None
        """Given if https is served."""
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._is_running = False

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
            if self._tls is not None:
                import ssl  # plain http does without

                self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self.context.load_cert_chain(*self._tls)
            listener = self._bind()
            if self._has_thread:
                self._start_thread()
            self._is_running = True
            self._do(self._serve, listener)
        return self.base_url

    def stop(self) -> None:
        """Close everything; a second time does nothing."""
        if self._is_running and self._has_thread:
            self.engine.call_soon_from_thread(self._stopped.wake)
            self._thread.join(_WAIT_S)
        elif self._is_running:
            self._close()

    def _start_thread(self) -> None:
        begun: SimpleQueue[tuple[Engine, Waiter]] = SimpleQueue()

        def run() -> None:
            engine = Engine(lambda _: self.note_bug())
            stopped = engine.waiter()
            begun.put((engine, stopped))
            stopped.wait()
            self._close()
            engine.close()

        self._thread = Thread(target=run, name="simulator", daemon=True)
        self._thread.start()
        self.engine, self._stopped = begun.get()

    def _do(self, act: Callable[..., T], *words: Any) -> T:
        """Do something where the state belongs."""
        if not self._is_running or self.engine.is_here():
            return act(*words)
        done: SimpleQueue[T] = SimpleQueue()
        self.engine.call_soon_from_thread(lambda: done.put(act(*words)))
        return done.get(timeout=_WAIT_S)

    def note_bug(self) -> None:
        """Count a fault of the simulator itself."""
        self.state.journal.counters["internalErrors"] += 1

    # --- the verbs of the control endpoint; fields as there, in snake_case ---------------------

    def add_task(self, kind: str, **fields: Any) -> int:
        """Create a task (``age_seconds``, ``client_key`` ...) and return its id."""
        return int(self._make("tasks", kind=kind, **fields)["taskId"])

    def add_fault(self, name: str, **fields: Any) -> int:
        """Arm a fault (``task_id``, ``for_seconds`` ...) and return its number."""
        return int(self._make("faults", fault=name, **fields)["id"])

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        return self._do(self.state.clear_faults, fault_id)

    def set_account(self, client_key: str, state: str) -> None:
        """Put an account into a state."""
        self._make("accounts", client_key=client_key, state=state)

    def set_spending(self, queue: str, volume: int, **fields: Any) -> None:
        """Set the figures of a queue (``hours_ago``, ``hours``, ``money``, ``client_key`` ...)."""
        self._make("spending", queue=queue, volume=volume, **fields)

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings (``clock_skew_seconds`` ...); return all of them."""
        return dict(self._do(self.state.change_settings, check(_wire(settings), SETTINGS)))

    def log(self, since: int = 0, task_id: int | None = None, limit: int | None = None) -> Rows:
        """Return calls with a number above `since`, oldest first."""
        return self._do(self.state.journal.select, since, task_id, limit)

    def deliveries(self, task_id: int | None = None) -> Rows:
        """Return how often each task was delivered, taken, and told to be taken."""
        return self._do(self.state.journal.deliveries, task_id)

    def tasks(self, task_id: int | None = None) -> Rows:
        """Return the known tasks."""
        return self._do(self.state.list, "tasks", task_id)

    def counters(self) -> dict[str, int]:
        """Return the counters."""
        return self._do(lambda: dict(self.state.journal.counters))

    def reset(self) -> None:
        """Forget everything and start the scenario again."""
        self._do(self.state.begin)
        if self._is_running:
            self._do(self._schedule_steps)

    def disconnect(self) -> int:
        """Close all idle connections that carried calls; return how many."""
        return self._do(self._interrupt, "closed", lambda one: one.is_idle and one.calls > 0)

    def progress(self) -> tuple[float, float]:
        """Return seconds since the scenario began, and its length in seconds."""
        return self.state.now() - self.state.began_at, length_s(self.state.scenario)

    def _make(self, name: str, **fields: Any) -> dict[str, Any]:
        return self._do(self.state.make, name, check(_wire(fields), LISTS[name]))

    # --- serving, in the engine's thread -------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        self._listen(listener)
        host, port = self._address
        shown = f"[{host}]" if ":" in host else host
        self.base_url = f"{'http' if self._tls is None else 'https'}://{shown}:{port}"
        self.state.on_change = self._follow_faults
        self.state.began_at = self.state.now()
        self._schedule_steps()
        self._follow_faults()

    def _close(self) -> None:
        """Close everything, and wait until it is closed."""
        self._is_running = False
        self._close_listener()
        self._interrupt("stopped")
        until = self.engine.now() + _WAIT_S
        while self._connections and self.engine.now() < until:
            self.engine.sleep(0.001)

    def _interrupt(self, end: str, is_meant: Callable[[Connection], bool] = lambda _: True) -> int:
        """End connections; return how many."""
        meant = [one for one in self._connections if is_meant(one)]
        for connection in meant:
            connection.interrupt(end)
        return len(meant)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        self._connections.remove(connection)
        self.state.journal.counters["openConnections"] -= 1

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._address = listener.getsockname()[:2]
        return listener

    def _listen(self, listener: socket.socket) -> None:
        self._listener = listener
        self._ready = self.engine.readiness(listener.fileno())
        self.engine.spawn(self._accept_all, listener, self._ready)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._ready.interrupt(Ended("stopped"))
            self._ready.close()
            self._listener.close()
            self._listener = None

    def _accept_all(self, listener: socket.socket, ready: Readiness) -> None:
        """Greenlet: take connections until the listener is closed."""
        while self._listener is listener:
            try:
                ready.wait_readable()
                fault = self.state.pick("slow_accept")
                if fault is not None:
                    self.engine.sleep(fault["seconds"])
                while self._listener is listener:
                    self._take(listener.accept()[0])
            except BlockingIOError:
                continue
            except OSError:
                self.engine.sleep(0.1)  # out of descriptors: leave the queue alone for a moment
            except Ended:
                return

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        # Faults write in small pieces; each must leave at once.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        journal = self.state.journal
        journal.counters["acceptedSockets"] += 1
        journal.rise("openConnections", "maxOpenConnections")
        connection = Connection(self, sock, journal.counters["acceptedSockets"])
        self._connections.add(connection)
        self.engine.spawn(connection.serve)

    def _follow_faults(self) -> None:
        """Close or open the listener as the fault ``refuse`` asks."""
        fault = self.state.pick("refuse")
        if fault is not None:
            if self._listener is not None:
                self._close_listener()
                # The command may have come over a connection: let its answer get out first.
                self.engine.call_at(self.engine.now() + 0.02, self._drop_all)
            left_s = fault["endsAt"] - self.state.now()
            self.engine.call_at(self.engine.now() + left_s + 0.001, self._follow_faults)
        elif self._listener is None and self._is_running:
            self._listen(self._bind())

    def _drop_all(self) -> None:
        self._interrupt("closed", lambda one: one.is_idle)
        self._interrupt("reset", lambda one: not one.is_idle)

    def _schedule_steps(self) -> None:
        for step in self.state.scenario.get("steps", ()):
            take = partial(self._take_step, step, self.state.resets)
            self.engine.call_at(self.engine.now() + step["atSeconds"], take)

    def _take_step(self, step: Mapping[str, Any], run: int) -> None:
        if run == self.state.resets and self._is_running:  # else a reset has started it again
            self.state.apply(step)
            if step.get("disconnect"):
                self.disconnect()


def _wire(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Spell names as JSON does: ``age_seconds`` is ageSeconds."""
    return {re.sub("_.", lambda found: found[0][1:].upper(), name): one for name, one in fields.items()}
