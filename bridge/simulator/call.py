"""One call from the moment it was read: which fault breaks it, its verdict, its line in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from bridge.simulator import magic, replies
from bridge.simulator.faults import FAULTS, PAGE
from bridge.simulator.journal import fingerprint
from bridge.simulator.model import read_body
from bridge.simulator.reader import Request
from bridge.simulator.state import State

if TYPE_CHECKING:
    from bridge.simulator.connection import Connection


class Ended(Exception):
    """A connection is to end now.

    Args:
        end: how the call that is under way ends, for the log.
        sent: what its client was sent; None: told by the bytes that left.
    """

    def __init__(self, end: str, sent: str | None = None) -> None:
        super().__init__(end)
        self.end = end
        self.sent = sent


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
        self.send, self.pause = wire.send, wire.pause
        self.path = _path_of(request.target)
        self.method = self.path[1:]
        self.verb = request.verb
        self.keep_alive = request.keep_alive
        self.idle_close_s: float | None = None
        self.tells = "verdict"
        self._verdict: bytes | None = None
        self.facts = facts = read_body(request.body)
        self.client_key = facts.client_key or ""
        self.account = fingerprint(self.client_key)
        journal = state.journal
        journal.counters["requests"] += 1
        journal.counters["connections"] += number == 1
        self.entry = entry = journal.begin(state.now(), state.now_s(), wire.number, number)
        self._tally = None
        if facts.task_id is not None and facts.client_key is not None and self.verb == "POST":
            self._tally = journal.deliver(self.account, facts.task_id)
        entry.verb, entry.method, entry.headers = self.verb, self.method, request.headers
        entry.task_id, entry.body_keys = facts.task_id, facts.body_keys
        if facts.client_key is not None:
            entry.account = self.account
            self._mask_key(request, facts.client_key.encode("utf-8", "surrogatepass").decode("latin-1"))

    def _mask_key(self, request: Request, key: str) -> None:
        if key in request.target or any(key in name or key in value for name, value in request.headers):
            self.entry.key_in_head = True
            self.entry.method = self.method.replace(key, "***")
            self.entry.headers = tuple(
                (name.replace(key, "***"), value.replace(key, "***")) for name, value in request.headers
            )

    def play(self) -> None:
        """Answer, or do what the fault does that breaks this call."""
        if self.verb != "POST":
            self.entry.reason, self.tells = "not_post", "other"
            self.send(self.answer(PAGE, 405, headers="Allow: POST\r\n", content_type="text/html"))
            return
        fault, params = self._choose_fault()
        latency_s = self._state.settings.latency_s
        if fault is not None:
            self.entry.fault = fault
            self.tells = FAULTS[fault].tells
            if latency_s > 0:
                self.pause(latency_s)
            if params.get("taken"):
                self.judge()
            FAULTS[fault].play(self, params)
            return
        verdict = self.judge()
        if latency_s > 0:
            self.pause(latency_s)
        self.send(self.answer(verdict))

    def _choose_fault(self) -> tuple[str | None, Mapping[str, Any]]:
        state, task_id = self._state, self.facts.task_id
        armed = state.faults.pick(self.method, task_id, state.now()) if state.faults else None
        if armed is not None:
            return armed.name, armed.params
        effect = magic.look_up(task_id) if task_id is not None and state.settings.magic else None
        if effect is None or (effect.only_first and self._tally is not None and self._tally["delivered"] > 1):
            return None, {}
        return effect.fault, effect.params

    def judge(self) -> bytes:
        """Apply the rules, once; return the verdict as JSON. A good report is now taken."""
        if self._verdict is None:
            judgement = self._state.judge(self.method, self.facts, self.account)
            counters = self._state.journal.counters
            counters["taken"] += judgement.taken
            counters["refused"] += judgement.error_id != 0
            if judgement.taken and self._tally is not None:
                self._tally["taken"] += 1
            self.entry.taken = judgement.taken
            self.entry.reason = judgement.reason
            self.entry.error_id = judgement.error_id
            self._verdict = judgement.body
        return self._verdict

    def say(self, error_id: int, code: str | None, description: str | None) -> bytes:
        """Return an error verdict that stands in for the rules, and note it in the log.

        Args:
            error_id: any number.
            code: None is the usual code of the id.
            description: None is the usual description.
        """
        self.entry.error_id = error_id
        self.entry.reason = "fault"
        if code is None:
            code = self._state.model.code_of(error_id, self.method)
        return replies.error_body(error_id, code, description)

    def date(self, skew_s: float = 0.0) -> str:
        """Return the time on the upstream's clock, and so many seconds on, as an HTTP date."""
        return self._state.date(skew_s)

    def answer(self, body: bytes, status: int = 200, *, headers: str = "", **unusual: Any) -> bytes:
        """Return a whole answer; `unusual` are arguments of `replies.render` in place of the usual ones."""
        self.entry.status = status
        if not self.keep_alive:
            headers += "Connection: close\r\n"
        usual = {"date": self.date(), "content_type": self._state.settings.content_type}
        return replies.render(status, body, headers=headers, **{**usual, **unusual})

    def close(self) -> NoReturn:
        """End the connection in order."""
        raise Ended("closed", self.tells)

    def reset(self) -> NoReturn:
        """Throw the connection away; the client sees a reset."""
        raise Ended("reset", self.tells)

    def finish(self, end: str, sent: str) -> None:
        """Note how the call ended and what the client was sent."""
        self.entry.sent = sent
        if sent == "verdict" and self.entry.error_id == 0 and self._tally is not None:
            self._tally["told"] += 1
        self._state.journal.finish(self.entry, self._state.now(), end)


def _path_of(target: str) -> str:
    """Return the path of a request target, which clients of proxies send as a whole URL."""
    if "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]
