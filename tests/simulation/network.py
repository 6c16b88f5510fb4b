"""The network and the upstream behind it: connections that lead to a model of the documented rules.

Decides for each attempt what the weather makes of it, and keeps what really happened, for the invariants.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.engine import NoResources, TimedOut
from bridge.simulator import model, replies, scenario
from bridge.upstream.connecting import Unreached
from tests.simulation.chance import Dice
from tests.simulation.plan import EPOCH, KEYS, NOT_REACHED, Plan

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

_UNJUDGED: Final = ("reset_before", "swallowed")
_FAILURES: Final = {"dns": "dns", "refused": "connect", "tls": "tls", "certificate": "certificate"}

DATELESS: Final = frozenset({"old_http", "odd_head", "chunked", "garbage"})
"""Fates whose answers have no Date header, so that nobody learns the time from them."""


class Meaning(NamedTuple):
    """What a whole answer says, by the documents."""

    kind: str
    """``verdict``, ``status`` or ``nothing`` (no verdict where one belongs)."""
    number: int = 0
    """The errorId or the HTTP status."""
    code: str = ""
    retry_after_s: float | None = None


class Attempt:
    """One attempt that a bridge has made, as the network saw it."""

    def __init__(
        self, process: Process, number: int, task_id: int, key: str, method: str, fresh: bool
    ) -> None:
        self.process = process
        self.number = number
        """Counts all attempts of a run."""
        self.task_id = task_id
        self.key = key
        self.method = method
        self.fresh = fresh
        self.began_at = process.world.now
        self.durable = process.is_durable
        """True if its beginning was committed to the file."""
        self.left_at: float | None = None
        """When the first byte of the request left."""
        self.connected_at: float | None = None
        self.reused = False
        self.taken_at: float | None = None
        """When the upstream took the report."""
        self.has_arrived = False
        self.judged = ""
        self.got_byte = False
        self.meaning: Meaning | None = None
        """What the answer said, once all of it was read."""
        self.ended_at: float | None = None
        self.failure: str | None = None
        self.fate = ""

    @property
    def is_perhaps(self) -> bool:
        """True if the bridge cannot know whether the report was taken."""
        if self.left_at is None:
            return False
        met = self.meaning
        if met is None or met.kind == "nothing":
            return True
        return met.kind == "status" and met.number >= 500

    @property
    def is_send(self) -> bool:
        """True if it counts as a complete send."""
        met = self.meaning
        return self.left_at is not None and not (
            met is not None and met.kind == "status" and met.number in (408, 429)
        )

    @property
    def is_accepted(self) -> bool:
        """True if the upstream said that it has taken it."""
        return self.meaning is not None and self.meaning.kind == "verdict" and self.meaning.number == 0

    @property
    def is_final(self) -> bool:
        """True if nothing may be sent after it, whatever was known before."""
        met = self.meaning
        if met is None:
            return False
        if met.kind == "verdict":
            return met.code not in ("ERROR_RATE_LIMIT", "ERROR_SERVICE_OVERLOAD")
        return met.kind == "nothing" or (300 <= met.number < 500 and met.number not in (408, 429))

    def __repr__(self) -> str:
        met = None if self.meaning is None else tuple(self.meaning)
        return (
            f"attempt {self.number} of {self.process.name} task {self.task_id} began {self.began_at:.3f} "
            f"left {self.left_at} fate {self.fate} taken {self.taken_at} meaning {met} ended {self.ended_at}"
        )


class Answer(NamedTuple):
    """The bytes of an answer and what they mean."""

    data: bytes
    meaning: Meaning | None
    closes: bool = False


class Network:
    """What lies between the bridges and the upstream, and the upstream."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self._plan = plan
        self._rtt_s: float = plan.setup["rtt_s"]
        self.model = model.Model({**scenario.DEFAULTS, "auto": False, "otherKeys": "unknown"})
        for key, state in zip(KEYS, plan.setup["states"], strict=True):
            self.model.accounts[key] = state
        for task in plan.tasks:
            if task.exists:
                self.model.tasks[task.task_id] = model.make_task(
                    task.task_id,
                    task.kind,
                    EPOCH + task.ended_at,
                    KEYS[task.key],
                    languagePool=task.language_pool,
                )
        self.weather: list[tuple[float, tuple[str, ...]]] = []
        self.attempts: list[Attempt] = []
        self.wires: list[Wire] = []
        self._counts: dict[Any, int] = {}

    def dice(self, *names: object) -> Dice:
        """Chance for the n-th thing of a name."""
        n = self._counts[names] = self._counts.get(names, 0) + 1
        return Dice(self._plan.seed, *names, n)

    def connect(self, process: Process, until: float) -> Wire:
        """Open a connection for a bridge; fits `bridge.upstream.connecting.Connect`."""
        dice = self.dice("connect", process.slot)
        fate = self._choose(dice, lambda fates: fates[0] in NOT_REACHED)
        takes_s = self._rtt_s * dice.between(0.8, 1.5)
        if self._choose(dice, lambda fates: "slow" in fates):
            takes_s += dice.between(0.0, 2.9)
        self.world.log("connect", process.name, fate)
        if fate == "lacking":
            raise NoResources("no descriptor")
        engine = process.engine
        if fate == "unroutable" or engine.now() + takes_s > until:
            engine.sleep(max(0.0, until - engine.now()))
            raise Unreached("connect")
        engine.sleep(takes_s)
        if fate in _FAILURES:
            raise Unreached(_FAILURES[fate])
        wire = Wire(self, process)
        self.wires.append(wire)
        return wire

    def _choose(self, dice: Dice, fits: Callable[[tuple[str, ...]], bool]) -> str:
        for share, fates in self.weather:
            if fits(fates) and dice.chance(share):
                return dice.pick(fates)
        return ""

    def break_idle(self, how: str) -> None:
        """A change of the network: no connection that is open leads anywhere any more."""
        for wire in self.wires:
            wire.broken = how
            if how == "fin" and not wire.is_busy:
                wire.end()
        self.wires.clear()

    # --- a request on its way ----------------------------------------------------------------

    def carry(self, wire: Wire, attempt: Attempt, body: bytes) -> None:
        """Take a request that has left, and let happen what will."""
        dice = self.dice("fate", attempt.task_id, attempt.key)
        fate = attempt.fate = self._choose(dice, lambda fates: fates[0] not in NOT_REACHED)
        there_s, back_s = (self._rtt_s / 2 * dice.between(0.8, 1.6) for _ in range(2))
        if wire.broken:
            attempt.fate = fate = "swallowed" if wire.broken == "silent" else "reset_before"
        self.world.log("left", attempt.process.name, attempt.number, attempt.task_id, fate)
        if fate == "late":
            there_s += dice.between(3.0, 12.0)
        elif fate == "slow":
            back_s += dice.between(0.5, 9.0)
        if fate == "swallowed":
            return
        later = self.world.time.call_in
        if fate == "reset_before":
            later(there_s + back_s, wire.reset)
            return
        later(there_s, lambda: self._arrive(wire, attempt, body, fate, back_s, dice))

    def _arrive(
        self, wire: Wire, attempt: Attempt, body: bytes, fate: str, back_s: float, dice: Dice
    ) -> None:
        attempt.has_arrived = True
        later = self.world.time.call_in
        answer = self._unjudged(attempt, fate, dice)
        if answer is None:
            facts = model.read_body(body)
            now = EPOCH + self.world.now
            judged = self.model.judge(attempt.method, facts, facts.client_key or "", now)
            attempt.judged = judged.reason
            if judged.taken:
                attempt.taken_at = self.world.now
            answer = self._judged(attempt, fate, judged, dice)
        self.world.log("arrived", attempt.number, attempt.judged, attempt.taken_at is not None)
        data = answer.data
        if fate == "reset_after":
            later(back_s, wire.reset)
        elif fate in ("cut_head", "cut_body"):
            body_at = data.index(b"\r\n\r\n") + 4
            cut = dice.whole(1, body_at - 1) if fate == "cut_head" else dice.whole(body_at, len(data) - 1)
            later(back_s, lambda: wire.give(data[:cut], None))
            later(back_s + 0.01, wire.end)
        elif fate == "drip":
            pace_s = dice.pick((0.05, 0.3, 0.9))
            for n in range(len(data)):
                is_last = n == len(data) - 1
                piece, told = data[n : n + 1], attempt if is_last else None
                later(back_s + n * pace_s, lambda piece=piece, told=told: wire.give(piece, told, answer))  # type: ignore[misc]
        elif fate != "hang_after":
            later(back_s, lambda: self._give(wire, attempt, answer))

    def _give(self, wire: Wire, attempt: Attempt, answer: Answer) -> None:
        wire.give(answer.data, attempt, answer)
        if answer.closes:
            wire.end()
        else:
            told = wire.uses
            idle_s: float = self._plan.setup["idle_s"]
            self.world.time.call_in(idle_s, lambda: wire.end() if wire.uses == told else None)

    # --- answers -----------------------------------------------------------------------------

    def _unjudged(self, attempt: Attempt, fate: str, dice: Dice) -> Answer | None:
        """What a door before the upstream answers; None if it lets the request in."""
        if fate[:1].isdigit():
            word, _, retry = fate.partition("+")
            status = int(word)
            if status >= 500 and dice.chance(0.4):
                return None
            return self._by_status(status, retry)
        errors = {
            "rate": (1001, "ERROR_RATE_LIMIT"),
            "overload": (1002, "ERROR_SERVICE_OVERLOAD"),
            "e999": (999, "ERROR_OF_TOMORROW"),
        }
        if fate in errors:
            return self._by_error(*errors[fate])
        if fate == "echo":
            return self._by_error(22, "ERROR_TASK_ABSENT", f"no task in what {attempt.key} sent")
        if fate == "e16-404":
            return self._by_error(16, replies.ERRORS[16], status=404)
        if fate[:1] == "e" and fate[1:].isdigit():
            number = int(fate[1:])
            return self._by_error(number, replies.ERRORS[number])
        return None

    def _judged(self, attempt: Attempt, fate: str, judged: model.Judgement, dice: Dice) -> Answer:
        if fate[:1].isdigit():
            word, _, retry = fate.partition("+")
            return self._by_status(int(word), retry)
        body = judged.body
        said = json.loads(body)
        meaning = Meaning("verdict", judged.error_id, said.get("errorCode", ""))
        head = {"Content-Type": "application/json"}
        nothing = Meaning("nothing")
        if fate == "html":
            return self._answer(200, {"Content-Type": "text/html"}, b"<html>all is well</html>", nothing)
        if fate == "empty":
            return self._answer(200, head, b"", nothing)
        if fate == "gzip":
            return self._answer(200, {**head, "Content-Encoding": "gzip"}, body, nothing)
        if fate == "huge":
            return self._answer(200, head, body + b" " * 70_000, nothing)
        if fate == "not_json":
            return self._answer(200, head, body[:-1], nothing)
        if fate == "garbage":
            return Answer(b"SSH-2.0-OpenSSH_9.6\r\n", None, True)
        if fate == "old_http":
            return Answer(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body, meaning, True)
        if fate == "odd_head":
            odd = dice.pick((b"Server : blank\r\n", b"caf\xe9: 1\r\n", b"nothing at all\r\n", b": empty\r\n"))
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            return Answer(b"HTTP/1.1 200 OK\r\n" + odd + length + body, meaning)
        if fate == "chunked":
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            return Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk, meaning)
        if fate == "interim":
            answer = self._answer(200, head, body, meaning)
            return Answer(b"HTTP/1.1 100 Continue\r\n\r\n" + answer.data, meaning)
        return self._answer(500 if fate == "e0-500" else 200, head, body, meaning)

    def _by_status(self, status: int, retry: str) -> Answer:
        head = {"Content-Type": "text/html"}
        if retry:
            head["Retry-After"] = retry
        if 300 <= status < 400:
            head["Location"] = "https://elsewhere.test/"
        retry_after_s = float(retry) if retry.isdigit() else None
        return self._answer(status, head, b"<html></html>", Meaning("status", status, "", retry_after_s))

    def _by_error(
        self, number: int, code: str, description: str = "as it happens", status: int = 200
    ) -> Answer:
        said = {"errorId": number, "errorCode": code, "errorDescription": description}
        meaning = Meaning("verdict", number, code)
        return self._answer(status, {"Content-Type": "application/json"}, json.dumps(said).encode(), meaning)

    def _answer(self, status: int, head: dict[str, str], body: bytes, meaning: Meaning) -> Answer:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(EPOCH + self.world.now))
        lines = [f"HTTP/1.1 {status} Some Reason", f"Date: {date}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        return Answer("\r\n".join([*lines, "", ""]).encode() + body, meaning)


class Wire:
    """A connection, as the bridge has it; fits `bridge.upstream.streams.Stream`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._waiter = process.engine.waiter()
        self._data = b""
        self._has_ended = False
        self._is_reset = False
        self._answered: tuple[Attempt, Answer] | None = None
        self._attempt: Attempt | None = None
        self.connected_at = network.world.now
        self.uses = 0
        self.broken = ""
        """How the network treats what is sent from now on, if it has changed."""
        self.is_busy = False

    # --- the bridge's side -------------------------------------------------------------------

    def send_all(self, data: bytes, until: float) -> None:
        """Send a request."""
        head, _, body = data.partition(b"\r\n\r\n")
        said = json.loads(body)
        attempt = self._attempt = self._process.flying[said["clientKey"], said["taskId"]]
        attempt.left_at = self._network.world.now
        attempt.reused = self.uses > 0
        attempt.connected_at = self.connected_at
        self.uses += 1
        self.is_busy = True
        self._network.world.history.note_left(attempt)
        method = head.split(b" ", 2)[1].rpartition(b"/")[2].decode("ascii")
        if method != attempt.method:
            self._network.world.break_rule(f"{attempt} left as {method}")
        self._network.carry(self, attempt, body)

    def receive(self, most: int, until: float) -> bytes:
        """Wait for some bytes."""
        engine = self._process.engine
        while not self._data:
            if self._is_reset:
                raise ConnectionResetError("reset by the other side")
            if self._has_ended:
                return b""
            if engine.now() >= until:
                raise TimedOut("nothing more came in time")
            self._waiter.wait(until)
        piece, self._data = self._data[:most], self._data[most:]
        if self._attempt is not None:
            self._attempt.got_byte = True
        if not self._data and self._answered is not None:
            attempt, answer = self._answered
            attempt.meaning, self._answered = answer.meaning, None
            self.is_busy = False
        return piece

    def is_stale(self) -> bool:
        """Tell whether anything has come that nobody waits for."""
        return bool(self._data) or self._has_ended or self._is_reset

    def close(self) -> None:
        """Close it."""
        self._is_reset = True

    # --- the network's side ------------------------------------------------------------------

    def give(self, data: bytes, attempt: Attempt | None, answer: Answer | None = None) -> None:
        """Bytes arrive."""
        if self._is_reset or self._has_ended:
            return
        self._data += data
        if attempt is not None and answer is not None:
            self._answered = (attempt, answer)
        self._waiter.wake()

    def end(self) -> None:
        """The other side closes."""
        self._has_ended = True
        self._waiter.wake()

    def reset(self) -> None:
        """The other side resets."""
        self._is_reset = True
        self._data = b""
        self._waiter.wake()
