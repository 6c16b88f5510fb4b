"""One call from the moment it was read: which fault breaks it, its verdict, its line in the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.upstream.simulator import magic, replies
from bridge.upstream.simulator.fault_table import FAULTS
from bridge.upstream.simulator.inbound import Request
from bridge.upstream.simulator.journal import Tally, fingerprint
from bridge.upstream.simulator.scripts import Step, latency
from bridge.upstream.simulator.stage import Stage
from bridge.upstream.simulator.world import read_body


class LiveCall:
    """A call to the simulated API; satisfies `scripts.Call`.

    Args:
        stage: the state it is judged against.
        base_url: for redirects.
        request: as read.
        connection: number of the connection, from 1.
        number: number of the call on its connection, from 1.
    """

    __slots__ = (
        "_body",
        "account",
        "base_url",
        "client_key",
        "entry",
        "facts",
        "idle_close_s",
        "keep_alive",
        "method",
        "path",
        "stage",
        "tally",
        "tells",
        "verb",
    )

    def __init__(self, stage: Stage, base_url: str, request: Request, connection: int, number: int) -> None:
        head = request.head
        self.stage = stage
        self.base_url = base_url
        self.path = _path_of(head.path)
        self.method = self.path[1:]
        self.verb = head.verb
        self.keep_alive = head.keep_alive
        self.idle_close_s: float | None = None
        self.tells = "verdict"
        self._body: bytes | None = None
        self.facts = facts = read_body(request.body, stage.settings.strict)
        self.client_key = facts.client_key or ""
        self.account = fingerprint(self.client_key)
        with stage.lock:
            journal = stage.journal
            journal.requests += 1
            if number == 1:
                journal.connections += 1
            self.entry = entry = journal.begin(stage.monotonic(), stage.now_s(), connection, number)
            self.tally: Tally | None = None
            if facts.task_id is not None and facts.client_key is not None and self.verb == "POST":
                self.tally = journal.deliver(self.account, facts.task_id)
        entry.verb = head.verb
        entry.method = self.method
        entry.task_id = facts.task_id
        entry.account = self.account if facts.client_key is not None else None
        entry.body_keys = facts.body_keys
        entry.head = head.raw
        if facts.client_key is not None:
            key = facts.client_key.encode("utf-8", "surrogatepass")
            if key in head.raw:
                entry.key_in_head = True
                entry.head = head.raw.replace(key, b"***")
                entry.method = self.method.replace(facts.client_key, "***")

    def plan(self) -> Iterator[Step] | None:
        """Return what happens on the wire instead of the usual answer, or None."""
        stage = self.stage
        settings = stage.settings
        chosen: tuple[str, Mapping[str, Any]] | None = None
        task_id = self.facts.task_id
        if stage.faults.faults:
            with stage.lock:
                fault = stage.faults.pick(self.method, task_id, stage.monotonic())
            if fault is not None:
                chosen = (fault.name, fault.params)
        if chosen is None and task_id is not None and task_id > magic.BASE and settings.magic:
            effect = magic.look_up(task_id)
            if effect is not None and effect.fault is not None:
                is_first = self.tally is None or self.tally.delivered == 1
                if is_first or not effect.only_first:
                    chosen = (effect.fault, effect.params)
        if chosen is None:
            return latency(self, {"seconds": settings.latency_s}) if settings.latency_s > 0 else None
        name, params = chosen
        kind = FAULTS[name]
        self.entry.fault = name
        self.tells = kind.tells
        script = kind.script(self, params)
        return _after(settings.latency_s, script) if settings.latency_s > 0 else script

    def judge(self) -> bytes:
        """Apply the rules, once; return the verdict as JSON. A good report is now taken."""
        if self._body is None:
            stage = self.stage
            with stage.lock:
                judgement = stage.judge_locked(self.method, self.facts, self.account)
                if judgement.taken:
                    stage.journal.taken += 1
                    if self.tally is not None:
                        self.tally.taken += 1
                else:
                    stage.journal.refused += 1
            self.entry.taken = judgement.taken
            self.entry.reason = judgement.reason
            self.entry.error_id = judgement.error_id
            self._body = judgement.body
        return self._body

    def say(self, error_id: int, code: str | None, description: str | None) -> bytes:
        """Return an error verdict that stands in for the rules, and note it in the log."""
        self.entry.error_id = error_id
        self.entry.reason = "fault"
        return replies.error_body(error_id, code, description)

    def date(self, skew_s: float = 0.0) -> str:
        """Return the time on the upstream's clock, and so many seconds on, as an HTTP date."""
        return self.stage.date(skew_s)

    def answer(
        self,
        body: bytes,
        status: int = 200,
        *,
        headers: str = "",
        date: str | None = "",
        content_type: str | None = "",
        framing: str | None = None,
    ) -> bytes:
        """Return a whole answer; `date` and `content_type` are the usual ones unless given."""
        self.entry.status = status
        if not self.keep_alive:
            headers += "Connection: close\r\n"
        return replies.render(
            status,
            body,
            date=self.stage.date() if date == "" else date,
            content_type=self.stage.settings.content_type if content_type == "" else content_type,
            headers=headers,
            framing=framing,
        )

    def finish(self, end: str, sent: str) -> None:
        """Note how the call ended and what the client was sent."""
        entry = self.entry
        entry.sent = sent
        stage = self.stage
        with stage.lock:
            if sent == "verdict" and entry.error_id == 0 and self.tally is not None:
                self.tally.told += 1
            stage.journal.finish(entry, stage.monotonic(), end)


def _after(seconds: float, script: Iterator[Step]) -> Iterator[Step]:
    yield float(seconds)
    yield from script


def _path_of(target: str) -> str:
    """Return the path of a request target, which clients of proxies send as a whole URL."""
    if "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]
