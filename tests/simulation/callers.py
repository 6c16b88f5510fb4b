"""The caller of one life of a bridge: requests out as bytes, and what it knows of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.simulation.plan import KEYS, METHODS, Act

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World


class Request:
    """One request, and its answers."""

    def __init__(
        self, process: Process, id: Any, method: str, params: dict[str, Any], batch: int | None
    ) -> None:
        self.process = process
        self.id = id
        """None for a notification."""
        self.method = method
        self.params = params
        self.batch = batch
        self.sent_at = process.world.now
        self.read_at: float | None = None
        """When the bridge read it."""
        self.cancelled_at: float | None = None
        self.answers: list[tuple[float, dict[str, Any]]] = []
        self.off_s = process.host.off_s
        """How far the wall clock was ahead when it was sent."""

    @property
    def is_report(self) -> bool:
        return self.method in METHODS

    @property
    def key(self) -> str:
        return str(self.params.get("clientKey", KEYS[0]))

    @property
    def task_id(self) -> int:
        return int(self.params["taskId"])

    @property
    def story(self) -> tuple[str, int]:
        return self.key, self.task_id

    def __repr__(self) -> str:
        return f"request {self.id} of {self.process.name} ({self.method} {self.params}, read {self.read_at})"


class Caller:
    """Speaks to one life of a bridge."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._framing = world.plan.setup["framing"]
        self._batches = 0
        self._is_closed = False

    def act(self, act: Act) -> None:
        """Do what a plan says."""
        more = act.more
        if self._is_closed:
            return
        if act.kind == "report":
            note = {"taskType": more["params"].get("taskType") or "RecaptchaV2TaskProxyless", "cost": 0.001}
            note |= {name: more["params"][name] for name in ("clientKey",) if name in more["params"]}
            self._send({"jsonrpc": "2.0", "method": "bridge.noteTasks", "params": note}, [])
            request = self._make(more, None)
            self._send(_message(request, more), [request])
        elif act.kind == "batch":
            self._batches += 1
            members: list[Any] = []
            requests = []
            for member in more["members"]:
                request = self._make(member, self._batches)
                requests.append(request)
                members.append(_message(request, member))
            if more["odd"]:
                members.append({"jsonrpc": "2.0", "method": "bridge.nothing"})
            self._send(members, requests)
        elif act.kind == "cancel":
            for request in self._world.history.requests:
                if request.process is self._process and request.id == more["id"]:
                    request.cancelled_at = self._world.now
            self._send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": more["id"]}}, [])
        elif act.kind == "ask":
            self.ask(more["id"], more["method"], more["params"])
        elif act.kind == "resume":
            self.ask(more["id"], "bridge.resume", {})
        elif act.kind == "garbage":
            self._send_bytes(b'{"jsonrpc": "2.0", "id": 1, "method"', [])
        elif act.kind == "close":
            self._is_closed = True
            self._process.stopped_at = self._process.stopped_at or self._world.now
            self._process.input.end()

    def ask(self, id: Any, method: str, params: dict[str, Any]) -> Request:
        """Ask one of the bridge's own methods."""
        request = Request(self._process, id, method, params, None)
        self._world.history.add(request)
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        self._send(message, [request])
        return request

    def ask_everything(self) -> None:
        """Ask for all that the bridge knows, at the end."""
        if self._is_closed or not self._process.is_alive:
            return
        history = self._world.history
        for number, story in enumerate(sorted(history.stories)):
            key, task_id = story
            self.ask(f"end-{number}", "bridge.getReport", {"taskId": task_id, "clientKey": key})
        self.ask("end-list", "bridge.listReports", {"limit": 1000})
        self.ask("end-status", "bridge.status", {})

    def _make(self, more: dict[str, Any], batch: int | None) -> Request:
        id = None if more["notify"] else more["id"]
        request = Request(self._process, id, more["method"], more["params"], batch)
        self._world.history.add(request)
        return request

    def _send(self, message: Any, requests: list[Request]) -> None:
        self._send_bytes(json.dumps(message).encode(), requests)

    def _send_bytes(self, data: bytes, requests: list[Request]) -> None:
        if self._framing == "header":
            data = b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
        else:
            data += b"\n"
        self._world.log("sent", self._process.name, data)
        self._process.input.put(data, requests)


def _message(request: Request, more: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if request.id is not None:
        message["id"] = request.id
    return {**message, "method": request.method, "params": request.params}
