"""The listener on loopback, its connections, and what happens at its time; all on one engine."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge.engine import Engine, Readiness
from bridge.simulator.call import Ended
from bridge.simulator.connection import Connection
from bridge.simulator.state import State

if TYPE_CHECKING:
    import ssl

_BACKLOG: Final = 1024
_STOP_WAIT_S: Final = 5.0


class Server:
    """Serves the state of a simulator. Belongs to the engine's thread.

    Args:
        engine: runs it.
        state: what is served.
        address: host and port; port 0 picks a free one.
        tls: paths of certificate chain and private key, to serve https.

    Raises:
        OSError: the port cannot be bound, or the certificate cannot be read.
    """

    state: State

    def __init__(
        self, engine: Engine, state: State, address: tuple[str, int], tls: tuple[str, str] | None
    ) -> None:
        self.engine = engine
        self.state = state
        self._address = address
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            import ssl  # plain http does without

            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._listener: socket.socket | None = None
        self._ready: Readiness | None = None
        self._connections: set[Connection] = set()
        self._is_stopping = False
        self._listen()
        host, port = self._address
        shown = f"[{host}]" if ":" in host else host
        self.base_url = f"{'http' if tls is None else 'https'}://{shown}:{port}"
        state.on_change = self._follow_faults
        state.began_at = state.now()
        self._schedule_steps()
        self._follow_faults()

    def stop(self) -> None:
        """Close everything, and wait until it is closed."""
        self._is_stopping = True
        self._close_listener()
        for connection in self._connections:
            connection.interrupt("stopped")
        until = self.engine.now() + _STOP_WAIT_S
        while self._connections and self.engine.now() < until:
            self.engine.sleep(0.001)

    def reset(self) -> None:
        """Forget everything and start the scenario again."""
        self.state.begin()
        self._schedule_steps()

    def disconnect(self) -> int:
        """Close all idle connections that carried calls; return how many."""
        idle = [one for one in self._connections if one.is_idle and one.calls]
        for connection in idle:
            connection.interrupt("closed")
        return len(idle)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed."""
        self._connections.remove(connection)
        self.state.journal.counters["openConnections"] -= 1

    # --- the listener ------------------------------------------------------------------------

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._address = listener.getsockname()[:2]
        self._listener, self._ready = listener, self.engine.readiness(listener.fileno())
        self.engine.spawn(self._accept_all, listener, self._ready)

    def _close_listener(self) -> None:
        if self._listener is not None and self._ready is not None:
            self._ready.interrupt(Ended("stopped"))
            self._ready.close()
            self._listener.close()
            self._listener = self._ready = None

    def _accept_all(self, listener: socket.socket, ready: Readiness) -> None:
        """Greenlet: take connections until the listener is closed."""
        while self._listener is listener:
            try:
                ready.wait_readable()
                fault = self.state.faults.find("slow_accept", self.state.now())
                if fault is not None:
                    self.engine.sleep(fault.params["seconds"])
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
        connection = Connection(self, sock, self._context, journal.counters["acceptedSockets"])
        self._connections.add(connection)
        self.engine.spawn(connection.serve)

    # --- what happens at its time ------------------------------------------------------------

    def _follow_faults(self) -> None:
        """Close or open the listener as the fault ``refuse`` asks."""
        now = self.state.now()
        fault = self.state.faults.find("refuse", now)
        if fault is not None and fault.ends_at is not None:
            if self._listener is not None:
                self._close_listener()
                # The command may have come over a connection: let its answer get out first.
                self.engine.call_at(self.engine.now() + 0.02, self._drop_all)
            self.engine.call_at(self.engine.now() + fault.ends_at - now + 0.001, self._follow_faults)
        elif self._listener is None and not self._is_stopping:
            self._listen()

    def _drop_all(self) -> None:
        for connection in self._connections:
            connection.interrupt("closed" if connection.is_idle else "reset")

    def _schedule_steps(self) -> None:
        for step in self.state.scenario.get("steps", ()):
            take = partial(self._take_step, step, self.state.resets)
            self.engine.call_at(self.engine.now() + step["atSeconds"], take)

    def _take_step(self, step: Mapping[str, Any], run: int) -> None:
        if run == self.state.resets and not self._is_stopping:  # else a reset has started it again
            self.state.apply(step)
            if step.get("disconnect"):
                self.disconnect()
