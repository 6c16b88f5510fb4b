"""The simulator as an object: a listener on loopback and a thread that serves it.

For the sandbox, for the command ``simulate`` and for tests. Binds loopback addresses only.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bridge.upstream.simulator.channel import Channel
from bridge.upstream.simulator.connection import Connection
from bridge.upstream.simulator.control import serve_control
from bridge.upstream.simulator.inbound import Request
from bridge.upstream.simulator.loop import READ, Loop
from bridge.upstream.simulator.scenario import SCENARIO, length_s
from bridge.upstream.simulator.stage import Stage

if TYPE_CHECKING:
    import ssl

_BACKLOG: Final = 1024
_ACCEPTS_A_ROUND: Final = 64
_STOP_WAIT_S: Final = 5.0


class Simulator:
    """The documented upstream API on loopback, in a daemon thread.

    Thread safety: every method may be called from any thread.

    Args:
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
        self._scenario = dict(scenario or {})
        SCENARIO.check(self._scenario)
        self._host, self._port, self._tls = host, port, tls
        self.stage = Stage(self._scenario, auto=auto, latency_s=latency_s)
        self.base_url = ""
        self.loop = Loop(self._note_internal_error)
        self._context: ssl.SSLContext | None = None
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[Connection] = set()
        self._accepted = 0
        self._is_stopping = False

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> str:
        """Bind, start the thread, and return the base URL (no slash at its end).

        Raises:
            OSError: the port cannot be bound, or the certificate cannot be read.
        """
        if self._thread is not None:
            return self.base_url
        try:
            if self._tls is not None:
                import ssl

                self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._context.load_cert_chain(*self._tls)
            self._listen()
        except OSError:
            self.stop()
            raise
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"{'https' if self._tls else 'http'}://{shown}:{self._port}"
        self.stage.on_change = lambda: self.loop.post(self._follow_faults)
        self.stage.began_at = self.stage.monotonic()
        self._schedule_steps()
        self._follow_faults()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()
        return self.base_url

    def stop(self) -> None:
        """Close everything and end the thread; a second time does nothing."""
        thread = self._thread
        self.loop.post(self._close_all)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_WAIT_S)
        elif thread is None and not self._is_stopping:
            self._close_all()
            self.loop.run()

    # --- the verbs of the control endpoint ---------------------------------------------------

    def add_task(self, kind: str, **fields: Any) -> int:
        """Create a task and return its id.

        Args:
            kind: one of `world.KINDS`.
            fields: as at the control endpoint, in snake_case (``age_seconds``, ``client_key`` ...).
        """
        task_id: int = self.stage.add_task({"kind": kind, **_camel(fields)})["taskId"]
        return task_id

    def add_fault(self, name: str, **fields: Any) -> int:
        """Arm a fault and return its number.

        Args:
            name: one of `faults.FAULTS`.
            fields: as at the control endpoint, in snake_case (``task_id``, ``for_seconds`` ...).
        """
        fault_id: int = self.stage.add_fault({"fault": name, **_camel(fields)})["id"]
        return fault_id

    def clear_faults(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; return how many."""
        return self.stage.clear_faults(fault_id)

    def set_account(self, client_key: str, state: str) -> None:
        """Put an account into a state."""
        self.stage.set_account({"clientKey": client_key, "state": state})

    def set(self, **settings: Any) -> dict[str, Any]:
        """Change settings, in snake_case (``clock_skew_seconds`` ...); return all of them."""
        return self.stage.change_settings(_camel(settings))

    def log(
        self, since: int = 0, task_id: int | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Return calls with a number above `since`, oldest first."""
        return self.stage.log(since, task_id, limit)

    def deliveries(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return how often each task was delivered, taken, and told to be taken."""
        return self.stage.deliveries(task_id)

    def tasks(self, task_id: int | None = None) -> list[dict[str, Any]]:
        """Return the known tasks."""
        return self.stage.tasks(task_id)

    def counters(self) -> dict[str, int]:
        """Return the counters."""
        return self.stage.counters()

    def reset(self) -> None:
        """Forget everything and start the scenario again."""
        self.stage.begin()
        self.loop.post(self._schedule_steps)

    def disconnect(self) -> int:
        """Close all idle connections that carried calls; return how many."""
        if self._thread is None or threading.current_thread() is self._thread:
            return self._disconnect_idle()
        counted: list[int] = []
        done = threading.Event()

        def close_them() -> None:
            counted.append(self._disconnect_idle())
            done.set()

        self.loop.post(close_them)
        done.wait(_STOP_WAIT_S)
        return counted[0] if counted else 0

    def control(self, request: Request) -> bytes:
        """Serve a request to the control endpoint. Called by connections."""
        return serve_control(self, request)

    def progress(self) -> tuple[float, float, int]:
        """Return seconds since the scenario began, its length in seconds, and the steps to come."""
        elapsed = self.stage.monotonic() - self.stage.began_at
        steps = self._scenario.get("steps", ())
        return elapsed, length_s(self._scenario), sum(step["atSeconds"] > elapsed for step in steps)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed. Called by connections."""
        if connection in self._connections:
            self._connections.remove(connection)
            with self.stage.lock:
                self.stage.journal.open_connections -= 1

    # --- the loop's thread -------------------------------------------------------------------

    def _run(self) -> None:
        self.loop.run()

    def _close_all(self) -> None:
        self._is_stopping = True
        if self._listener is not None:
            self.loop.watch(self._listener, 0, self._on_accept)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.close("stopped")
        self.loop.stop()

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self.loop.watch(listener, READ, self._on_accept)

    def _on_accept(self, _events: int) -> None:
        stage = self.stage
        if stage.faults.faults:
            with stage.lock:
                fault = stage.faults.find("slow_accept", stage.monotonic())
            if fault is not None and self._listener is not None:
                self.loop.watch(self._listener, 0, self._on_accept)
                self.loop.call_later(fault.params["seconds"], self._accept_late)
                return
        self._accept()

    def _accept_late(self) -> None:
        if self._listener is not None:
            self._accept()
            self.loop.watch(self._listener, READ, self._on_accept)

    def _accept(self) -> None:
        journal = self.stage.journal
        for _ in range(_ACCEPTS_A_ROUND):
            if self._listener is None:
                return
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors: leave the queue alone for a moment instead of spinning.
                self.loop.watch(self._listener, 0, self._on_accept)
                self.loop.call_later(0.1, self._accept_late)
                return
            sock.setblocking(False)
            # Faults write in small pieces; each must leave at once.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            self._connections.add(Connection(self, Channel(sock, self._context), self._accepted))
            with self.stage.lock:
                journal.accepted_sockets += 1
                journal.open_connections += 1
                journal.max_open_connections = max(journal.max_open_connections, journal.open_connections)

    def _follow_faults(self) -> None:
        """Close or open the listener as the fault ``refuse`` asks."""
        stage = self.stage
        now = stage.monotonic()
        with stage.lock:
            fault = stage.faults.find("refuse", now)
        if fault is not None and fault.ends_at is not None:
            if self._listener is not None:
                self.loop.watch(self._listener, 0, self._on_accept)
                self._listener.close()
                self._listener = None
                # The command may have come over one of these: let its answer get out first.
                self.loop.call_later(0.02, self._drop_all)
            self.loop.call_later(fault.ends_at - now + 0.001, self._follow_faults)
        elif self._listener is None and not self._is_stopping:
            self._listen()

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            if connection.is_idle:
                connection.close()
            else:
                connection.abort()

    def _disconnect_idle(self) -> int:
        idle = [one for one in self._connections if one.is_idle and one.has_carried_calls]
        for connection in idle:
            connection.close()
        return len(idle)

    def _schedule_steps(self) -> None:
        run = self.stage.resets
        for step in self._scenario.get("steps", ()):
            delay = self.stage.began_at + step["atSeconds"] - self.stage.monotonic()
            self.loop.call_later(max(delay, 0.0), self._step_action(step, run))

    def _step_action(self, step: Mapping[str, Any], run: int) -> Callable[[], None]:
        def take_step() -> None:
            if run != self.stage.resets:
                return  # a reset has started the scenario again
            self.stage.apply(step)
            if step.get("disconnect"):
                self._disconnect_idle()

        return take_step

    def _note_internal_error(self) -> None:
        with self.stage.lock:
            self.stage.journal.internal_errors += 1


def _camel(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn Python's names into the names of the control endpoint."""
    made = {}
    for name, value in fields.items():
        first, *rest = name.split("_")
        made[first + "".join(word.capitalize() for word in rest)] = value
    return made
