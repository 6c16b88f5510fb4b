"""One call from the moment it was read: which fault breaks it, its verdict, its line in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bridge.simulator import replies
from bridge.simulator.faults import FAULTS, PAGE
from bridge.simulator.journal import fingerprint
from bridge.simulator.model import read_body
from bridge.simulator.reader import Request
from bridge.simulator.state import State

if TYPE_CHECKING:
    from bridge.simulator.connection import Connection


class Ended(Exception):
    """A connection is to end now; its argument says how, for the log."""


class Call:
    """A call to the simulated API.

    Args:
        state: what it is judged against.
        base_url: for redirects.
        request: as read.
        wire: the connection.
        number: number of the call on its connection, from 1.
    """

    def __init__(self, state: State, base_url: str, request: Request, wire: Connection, number: int) -> None:
        self._state = state
        self.base_url = base_url
        self.send, self.pause, self.date = wire.send, wire.pause, state.date
        self.verb, self.method = request.verb, _path_of(request.target)[1:]
        self.keep_alive = request.keep_alive
        self.idle_close_s: float | None = None
        self._verdict: bytes | None = None
        self.facts = facts = read_body(request.body)
        self.client_key = facts.client_key or ""
        self.account = fingerprint(self.client_key)
        journal = state.journal
        journal.counters["requests"] += 1
        journal.counters["connections"] += number == 1
        self.entry = entry = journal.begin(wire.number, number)
        entry.verb, entry.method, entry.headers = self.verb, self.method, request.headers
        entry.task_id, entry.body_keys = facts.task_id, facts.body_keys
        if facts.client_key is not None:
            entry.account = self.account
            self._mask_key(request, facts.client_key.encode("utf-8", "surrogatepass").decode("latin-1"))
            if facts.task_id is not None and self.verb == "POST":
                entry.tally = journal.deliver(self.account, facts.task_id)

    def _mask_key(self, request: Request, key: str) -> None:
        if key in request.target or any(key in name or key in value for name, value in request.headers):
            self.entry.key_in_head = True
            self.entry.method = self.method.replace(key, "***")
            self.entry.headers = tuple(
                (name.replace(key, "***"), value.replace(key, "***")) for name, value in request.headers
            )

    def play(self) -> None:
        """Answer, or do what the fault does that breaks this call.

        Raises:
            Ended: that is what the fault does.
        """
        if self.verb != "POST":
            self.entry.reason = "not_post"
            self.send(self.answer(PAGE, 405, headers="Allow: POST\r\n", content_type="text/html"))
            self.entry.sent = "other"
            return
        latency_s = self._state.settings["latencySeconds"]
        fault, params = self._choose_fault()
        if fault is None:
            self.judge()
        if latency_s > 0:
            self.pause(latency_s)
        if fault is None:
            self.send(self.answer(self.judge()))
            self.entry.sent = "verdict"
            return
        self.entry.fault, kind = fault, FAULTS[fault]
        if params.get("taken"):
            self.judge()
        self.send(kind.play(self, params) or b"")
        self.entry.sent = kind.tells
        if kind.end:
            raise Ended(kind.end)

    def _choose_fault(self) -> tuple[str | None, Mapping[str, Any]]:
        state, task_id, tally = self._state, self.facts.task_id, self.entry.tally
        armed = state.faults.pick(self.method, task_id, state.now()) if state.faults else None
        if armed is not None:
            return armed.name, armed.params
        effect = state.effect_of(task_id)
        if effect is None or (effect.only_first and tally is not None and tally["delivered"] > 1):
            return None, {}
        return effect.fault, effect.params

    def judge(self) -> bytes:
        """Apply the rules, once; return the verdict as JSON. A good report is now taken."""
        if self._verdict is None:
            entry, counters = self.entry, self._state.journal.counters
            judgement = self._state.judge(self.method, self.facts, self.account)
            entry.error_id, entry.reason, self._verdict = judgement
            entry.taken = judgement.taken
            counters["taken"] += entry.taken
            counters["refused"] += entry.error_id != 0
            if entry.taken and entry.tally is not None:
                entry.tally["taken"] += 1
        return self._verdict

    def say(self, error_id: int, code: str | None = None, description: str | None = None) -> bytes:
        """Return an error verdict that stands in for the rules, and note it in the log.

        Args:
            error_id: any number.
            code: None is the usual code of the id.
            description: None is the usual description.
        """
        self.entry.error_id, self.entry.reason = error_id, "fault"
        if code is None:
            code = self._state.model.code_of(error_id, self.method)
        return replies.error_body(error_id, code, description)

    def answer(self, body: bytes, status: int = 200, *, headers: str = "", **unusual: Any) -> bytes:
        """Return a whole answer; `unusual` are arguments of `replies.render` in place of the usual ones."""
        self.entry.status = status
        if not self.keep_alive:
            headers += "Connection: close\r\n"
        usual = {"date": self.date(), "content_type": self._state.settings["contentType"]}
        return replies.render(status, body, headers=headers, **{**usual, **unusual})


def _path_of(target: str) -> str:
    """Return the path of a request target, which clients of proxies send as a whole URL."""
    if "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]
