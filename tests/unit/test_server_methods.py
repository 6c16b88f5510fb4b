"""The methods of the protocol, on a ledger and a key source that answer when the test says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.core.counting import Counts, Note, Tallied, Tallies, Tally, add
from bridge.core.errors import BridgeError
from bridge.core.model import Facts, Look, PauseKey, Pauses, PauseState, Resume, Row, Task, Window
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine, Waiter
from bridge.ledger.port import Unavailable
from bridge.reports.advisor import Advisor
from bridge.reports.job import Report, Requester
from bridge.reports.pauses import PROOF, PausePolicy
from bridge.server.conversation import Conversation
from bridge.server.methods import OPENING_S, STATUS_PATIENCE_S, Methods
from bridge.wire.framing import Framer
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import EPOCH, Clock, raise_bug

KEY = "k" * 32
IMAGE = "reportIncorrectImageCaptcha"
QUESTIONS = ("bridge.status", "bridge.getReport", "bridge.listReports", "bridge.resume")


class Lifecycle:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Report, Requester]] = []
        self.cancelled: list[Any] = []
        self.held: list[Secret] = []
        self.resumed = 0

    def submit(self, report: Report, requester: Requester) -> None:
        self.submitted.append((report, requester))

    def cancel(self, name: Any) -> None:
        self.cancelled.append(name)

    def counts(self) -> tuple[int, int]:
        return 1, 2

    def hold(self, key: Secret) -> str:
        self.held.append(key)
        return key.reveal()[0] * 32

    def resume_waiting(self) -> None:
        self.resumed += 1


class Ledger:
    """Answers at once once it is open, with what the test has put there; a silent one never does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._openers: list[Waiter] = []
        self.committed_at, self.instance = 0.0, "me"
        self.is_open = False
        self.is_silent = False
        self.asked: list[Any] = []
        self.posted: list[Any] = []
        self.results: dict[type, Any] = {}

    def open(self) -> None:
        self.is_open = True
        for waiter in self._openers:
            waiter.wake()

    def wait_until_open(self) -> None:
        if not self.is_open:
            waiter = self._engine.waiter()
            self._openers.append(waiter)
            waiter.wait()

    def call(self, op: Any) -> Any:
        self.wait_until_open()
        self.asked.append(op)
        return self.results.get(type(op))

    def post(self, op: Any, done: Any = lambda _: None) -> None:
        self.posted.append(op)
        if not self.is_silent:
            self._engine.call_soon(done, self.results.get(type(op)))

    def account(self, key_text: str) -> str:
        assert self.is_open
        return key_text[0] * 32

    def now(self) -> float:
        return self._engine.now() + 1000.0

    def status(self) -> Mapping[str, Any]:
        return {"kind": "memory"}


class Keys:
    """Has a key, or will have one."""

    def __init__(self, engine: Engine) -> None:
        self._waiters: list[Waiter] = []
        self._engine = engine
        self.key: Secret | None = Secret(KEY)
        self.is_pending = False

    def get(self) -> Secret | None:
        if self.is_pending:
            waiter = self._engine.waiter()
            self._waiters.append(waiter)
            waiter.wait()
        return self.key

    def at_hand(self) -> Secret | None:
        return None if self.is_pending else self.key

    def come(self) -> None:
        self.is_pending = False
        for waiter in self._waiters:
            waiter.wake()


class Desk:
    """The methods behind the real dispatcher."""

    def __init__(self, sandbox: bool = False) -> None:
        self.time = VirtualTime()
        self.engine = Engine(raise_bug, VirtualLoop(self.time), Clock(self.time))
        self.lifecycle = Lifecycle()
        self.ledger = Ledger(self.engine)
        self.keys = Keys(self.engine)
        self.scrubber = Scrubber()
        self.emitted: list[Any] = []
        self.endpoint = "https://upstream.test"
        self.queues = ()
        self.policy = PausePolicy("machine", "context")
        self.emit = self.emitted.append
        self.note_bug = lambda bug: "0123456789abcdef"
        ports: Any = self  # of which the methods need these members
        reporter: Any = self.lifecycle
        reporter.advisor = Advisor(ports)
        told: Any = {"sandbox": sandbox, "limits": {"queue": 100, "maxBatch": 5, "maxDepth": 8}}
        self.methods = Methods(ports, reporter, told, lambda: {"droppedLogLines": 7})
        outlet: Any = self
        self.talk = Conversation(self.engine, self.methods, Framer(1 << 20), outlet, lambda: None)
        self.answers: list[tuple[Any, Any]] = []

    backlog = backlog_bytes = 0

    def put(self, piece: bytes) -> None:
        """Take an answer, as an outlet does."""
        answer = json.loads(piece)
        self.answers.append((answer["id"], answer.get("result", answer.get("error"))))

    def call(self, method: str, params: dict[str, Any] | None = None, id: Any = 1) -> None:
        """Call as a client does."""
        self.say({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.talk.feed(json.dumps(message).encode() + b"\n")
        self.time.run()

    def cancel(self, id: Any) -> None:
        """Cancel as a client does."""
        self.say({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": id}})


@pytest.fixture
def desk() -> Desk:
    """Methods on a ledger that is open."""
    made = Desk()
    made.ledger.open()
    return made


def row(task: Task, outcome: str | None = "refused") -> Row:
    """A report on record."""
    state = "waiting" if outcome is None else "done"
    return Row(
        3, task, IMAGE, state, outcome, None, 1, 1, False, Window(None, 1.0), Facts(), 16, "no_such_captcha",
        {}, EPOCH, EPOCH + 1.5, 120,
    )  # fmt: skip


# --- reports ---------------------------------------------------------------------------------


def test_a_report_goes_on_with_all_that_was_told(desk: Desk) -> None:
    """Params become a report, nulls left out, and the requester answers the call."""
    params = {
        "taskId": 5,
        "clientKey": "x" * 16,
        "completedAt": 7.5,
        "taskType": None,
        "languagePool": "en",
    }
    desk.time.run(2.0)
    desk.call(IMAGE, params, id="me")
    [(report, requester)] = desk.lifecycle.submitted
    assert report == Report(IMAGE, 5, Secret("x" * 16), Facts(7.5, None, "en"))
    assert (requester.name, requester.received_at) == (("me",), 2.0)
    requester.respond(BridgeError("no_such_captcha", code=16))
    [(name, told)] = desk.answers
    assert (name, told["code"], told["data"]) == ("me", 16, {"kind": "no_such_captcha"})


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("ImageToTextTask", "ImageToTextTask"),
        ("TurnstileTask", "TurnstileTask"),
        ("NewTask", "NewTask"),
        ("x" * 16, "***"),
        (f"New{'X' * 16}Task", "New***Task"),
        (f"for={KEY}", "for=***"),
    ],
)
@pytest.mark.parametrize("given", ["x" * 16, None])
def test_a_task_type_that_holds_a_key_is_kept_without_it(
    desk: Desk, told: str, kept: str, given: str | None
) -> None:
    """Keys of the request, of earlier ones and of the settings are cut out of a type before it is kept."""
    desk.scrubber.learn(Secret(KEY), keep=True)
    desk.call(IMAGE, {"taskId": 1, "clientKey": "x" * 16})
    desk.call(IMAGE, {"taskId": 2, "taskType": told, "clientKey": given})
    assert desk.lifecycle.submitted[1][0].facts.task_type == kept


def test_a_key_forgotten_while_its_report_waited_is_cut_out_all_the_same() -> None:
    """However many keys came meanwhile, the request's own is known when its type is kept."""
    desk = Desk()
    desk.call(IMAGE, {"taskId": 1, "clientKey": "z" * 16, "taskType": "z" * 16})
    for number in range(1200):
        desk.call("bridge.noteTasks", {"taskType": "TurnstileTask", "clientKey": f"{number:016}"})
    desk.ledger.open()
    desk.time.run()
    assert desk.lifecycle.submitted[0][0].facts.task_type == "***"


def test_nobody_overtakes_those_that_wait_for_the_ledger() -> None:
    """Who comes in the moment in which it opens comes after those that came before."""
    desk = Desk()
    for number in (1, 2):
        desk.call(IMAGE, {"taskId": number})
    desk.ledger.open()
    desk.call(IMAGE, {"taskId": 3})
    assert [report.task_id for report, _ in desk.lifecycle.submitted] == [1, 2, 3]


def test_a_report_waits_for_the_key_and_the_ledger_and_keeps_nobody_waiting() -> None:
    """Without key or ledger a report waits, others with a key of their own do not wait for that one."""
    desk = Desk()
    desk.keys.is_pending = True
    desk.call(IMAGE, {"taskId": 1}, id=1)
    desk.call(IMAGE, {"taskId": 2, "clientKey": KEY}, id=2)
    desk.call("bridge.info", id=3)
    assert [id for id, _ in desk.answers] == [3]
    desk.time.run(4.0)
    desk.ledger.open()
    desk.time.run()
    assert [report.task_id for report, _ in desk.lifecycle.submitted] == [2]
    desk.keys.come()
    desk.time.run()
    assert [report.task_id for report, _ in desk.lifecycle.submitted] == [2, 1]
    assert [requester.received_at for _, requester in desk.lifecycle.submitted] == [0.0, 0.0]


@pytest.mark.parametrize("for_key", [True, False])
def test_what_waits_for_key_or_ledger_can_be_cancelled_and_given_up(for_key: bool) -> None:
    """It is answered once, as never admitted, and is not reported when key and ledger come."""
    desk = Desk()
    if for_key:
        desk.ledger.open()
        desk.keys.is_pending = True
    for id in (1, 2, 1, 3):
        desk.call(IMAGE, {"taskId": 1}, id=id)
    desk.cancel(1)
    assert desk.lifecycle.cancelled == [(1,)]
    assert [(id, error["code"]) for id, error in desk.answers] == [(1, -32800)] * 2
    assert desk.talk.give_up() == 2
    assert [(id, error["code"]) for id, error in desk.answers[2:]] == [(2, -32032), (3, -32032)]
    for _, error in desk.answers:
        assert (error["data"]["outcome"], error["data"]["attempts"]) == ("not_sent", 0)
    desk.keys.come()
    desk.ledger.open()
    desk.time.run()
    assert desk.lifecycle.submitted == []
    assert len(desk.answers) == 4
    assert desk.talk.give_up() == 0


def test_a_fault_while_waiting_is_answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key source that fails as only a bug does leaves no request without an answer."""

    def crash() -> Any:
        raise RuntimeError("secret text")

    desk.keys.is_pending = True
    monkeypatch.setattr(desk.keys, "get", crash)
    desk.call(IMAGE, {"taskId": 1})
    [(id, error)] = desk.answers
    assert (id, error["code"]) == (1, -32603)
    assert error["data"] == {"kind": "internal_error", "reference": "0123456789abcdef"}


@pytest.mark.parametrize("method", [IMAGE, "rpc.discover", "bridge.info", *QUESTIONS])
def test_params_that_do_not_fit_are_refused(desk: Desk, method: str) -> None:
    """Every method checks its params, and says where and why they do not fit."""
    desk.call(method, {"taskId": 1, "no such member": 1})
    [(_, error)] = desk.answers
    assert error["code"] == -32602
    assert {"kind", "pointer", "rule", "sentence"} == set(error["data"])


# --- questions -------------------------------------------------------------------------------


def test_a_question_keeps_nobody_waiting_and_is_answered_once() -> None:
    """Others are answered meanwhile, who cancels is let go; what is not told by the end is not known."""
    desk = Desk()
    for id, method in enumerate(QUESTIONS[1:]):
        desk.call(method, {"taskId": 1} if method == "bridge.getReport" else None, id=id)
    desk.call("bridge.info", id="info")
    desk.cancel(1)
    assert [id for id, _ in desk.answers] == ["info", 1]
    assert desk.talk.give_up() == 0
    assert [(id, error["code"], error["data"]) for id, error in desk.answers[1:]] == [
        (1, -32800, {"kind": "request_cancelled"}),
        (0, -32031, {"kind": "ledger_unavailable"}),
        (2, -32031, {"kind": "ledger_unavailable"}),
    ]
    desk.ledger.open()
    desk.time.run()
    assert len(desk.answers) == 4


@pytest.mark.parametrize("asked", [Pauses, Resume])
def test_a_pause_of_a_wrong_clock_is_shown_mended(desk: Desk, asked: type) -> None:
    """What was opened in the future is shown as opened now, and ends by its own length from now."""
    opened_at = desk.ledger.now() + 400 * 86_400.0
    key = PauseKey("key_balance", "a" * 32)
    pause = PauseState(key, "open", "zero_balance", opened_at=opened_at, ends_at=opened_at + 600.0)
    desk.ledger.results[asked] = (pause,)
    desk.call("bridge.status" if asked is Pauses else "bridge.resume")
    [(_, told)] = desk.answers
    [shown] = told["pauses" if asked is Pauses else "resumed"]
    assert (shown["openedAt"], shown["endsAt"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:10:00.000Z")


def test_status_tells_what_was_known_last_if_the_ledger_is_silent(desk: Desk) -> None:
    """Pauses come from the ledger, single-flight left out; without an answer soon, from the last one."""
    pause = PauseState(PauseKey("method_unknown", IMAGE), "open", "http_not_found", opened_at=900.0)
    proof = PauseState(PauseKey(PROOF, "a" * 32), "open")
    desk.ledger.results[Pauses] = (pause, proof)
    desk.call("bridge.status")
    [(_, status)] = desk.answers
    [shown] = status["pauses"]
    assert (shown["cause"], shown["endsAt"], shown["manual"]) == ("http_not_found", None, True)
    assert shown["openedAt"] == "2027-01-15T07:58:20.000Z"
    assert (status["inFlight"], status["queued"], status["droppedLogLines"]) == (1, 2, 7)
    desk.ledger.is_silent = True
    desk.call("bridge.status")
    assert len(desk.answers) == 1
    desk.time.run(STATUS_PATIENCE_S)
    assert desk.answers[1][1]["pauses"] == [shown]
    assert desk.answers[1][1]["uptimeSeconds"] == STATUS_PATIENCE_S


def test_a_status_waits_for_the_ledger_to_open(desk: Desk) -> None:
    """Asked first of all it tells the pauses that the ledger keeps, and waits for that, but not for ever."""
    desk.ledger.is_open, desk.ledger.is_silent = False, True
    desk.call("bridge.status")
    desk.time.run(OPENING_S - 0.1)
    assert desk.answers == []
    desk.time.run(0.1)
    assert len(desk.answers) == 1


def test_a_record_is_looked_up_by_key_and_task(desk: Desk) -> None:
    """The record of a task, or that there is none, no key, or no ledger that could tell."""
    desk.ledger.results[Look] = row(Task("e", "a1b2c3d4e5", 9))
    desk.call("bridge.getReport", {"taskId": 9})
    assert desk.ledger.asked == [Look(Task("https://upstream.test", "k" * 32, 9))]
    [(_, record)] = desk.answers
    assert record == {
        "taskId": 9,
        "method": IMAGE,
        "account": "a1b2c3d4",
        "state": "done",
        "outcome": "refused",
        "code": 16,
        "kind": "no_such_captcha",
        "attempts": 1,
        "recordedAt": "2027-01-15T08:00:00.000Z",
        "finishedAt": "2027-01-15T08:00:01.500Z",
    }
    desk.ledger.results[Look] = None
    desk.call("bridge.getReport", {"taskId": 9, "clientKey": "z" * 16})
    desk.ledger.results[Look] = Unavailable("locked", "It is locked.")
    desk.call("bridge.getReport", {"taskId": 9})
    desk.keys.key = None
    desk.call("bridge.getReport", {"taskId": 9})
    assert [error["code"] for _, error in desk.answers[1:]] == [-32014, -32031, -32020]
    assert desk.ledger.asked[1].task.account == "z" * 32
    assert [key.reveal()[0] for key in desk.lifecycle.held] == ["k", "z", "k"]


def test_resume_turns_pauses_and_wakes_those_who_wait(desk: Desk) -> None:
    """Scope and account limit it; a ledger that cannot be written is an error."""
    desk.ledger.results[Resume] = ()
    desk.call("bridge.resume", {"scope": "key", "clientKey": KEY})
    assert desk.ledger.asked == [Resume("https://upstream.test", "key", "k" * 32)]
    assert desk.answers == [(1, {"resumed": []})]
    assert (desk.lifecycle.resumed, len(desk.lifecycle.held)) == (1, 1)
    desk.ledger.results[Resume] = Unavailable("full", "The disk is full.")
    desk.call("bridge.resume")
    assert desk.answers[1][1]["code"] == -32031


@pytest.mark.parametrize("method", ["bridge.info", "bridge.status", "bridge.getReport", "bridge.resume"])
def test_results_of_the_sandbox_say_so(method: str) -> None:
    """Every result about the bridge has the mark."""
    desk = Desk(sandbox=True)
    desk.ledger.open()
    desk.ledger.results = {Look: row(Task("e", "a1", 9), None), Resume: ()}
    desk.call(method, {"taskId": 9} if method == "bridge.getReport" else None)
    assert desk.answers[0][1]["sandbox"] is True


# --- solved tasks ----------------------------------------------------------------------------


def notes(desk: Desk) -> list[Note]:
    """The notes that the ledger was handed."""
    return [op for op in desk.ledger.posted if isinstance(op, Note)]


def test_notes_are_counted_and_committed_together(desk: Desk) -> None:
    """Any number of calls becomes one operation for each account and subject a second later."""
    other = "o" * 32
    for _ in range(1000):
        desk.call("bridge.noteTasks", {"taskType": "RecaptchaV2TaskProxyless", "cost": 0.5})
        desk.call("bridge.noteTasks", {"taskType": "imagetotexttask", "count": 3, "clientKey": other})
    assert desk.answers[0][1] == {"noted": 1}
    assert desk.answers[1][1] == {"noted": 3}
    desk.time.run(1.5)
    found: dict[tuple[str, str], Counts] = {}
    for op in notes(desk):
        key = (op.task.account[0], op.subject)
        found[key] = add(found.get(key, Counts()), op.counts)
    assert found == {
        ("k", "recaptcha"): Counts(tasks=1000, costed=1000, cost=500.0),
        ("o", "image"): Counts(tasks=3000),
    }
    assert len(notes(desk)) <= 4


def test_a_note_of_a_type_that_nobody_reports_counts_nothing(desk: Desk) -> None:
    """The answer says so, and the ledger hears nothing."""
    desk.call("bridge.noteTasks", {"taskType": "TurnstileTaskProxyless"})
    assert desk.answers[0][1] == {"noted": 0}
    desk.time.run(1.5)
    assert notes(desk) == []


@pytest.mark.parametrize("count", [0, -1, 1.5, "1"])
def test_a_note_is_checked(desk: Desk, count: Any) -> None:
    """A count that is none is refused like any other params."""
    desk.call("bridge.noteTasks", {"taskType": "ImageToTextTask", "count": count})
    assert desk.answers[0][1]["code"] == -32602


def test_notes_wait_for_the_ledger_and_the_key() -> None:
    """What is noted before either is there is not lost."""
    desk = Desk()
    desk.keys.is_pending = True
    desk.call("bridge.noteTasks", {"taskType": "ImageToTextTask"})
    desk.time.run(1.5)
    desk.ledger.open()
    desk.time.run(1.5)
    assert notes(desk) == []
    desk.keys.come()
    desk.time.run(1.5)
    assert [op.counts for op in notes(desk)] == [Counts(tasks=1)]


def test_the_status_has_the_advice_of_the_ledger(desk: Desk) -> None:
    """What the ledger has counted is judged when it is asked for, also right after other bridges counted."""
    whose = Task("https://upstream.test", "a1b2c3d4" * 4, 0)
    row = Tally("recaptcha", 3600, 0.0, Counts(sent=30, wrong=30, refused=10))
    desk.ledger.results |= {Pauses: (), Tallies: (Tallied(whose, (row,)),)}
    desk.call("bridge.status")
    advice = desk.answers[0][1]["advice"]
    assert [(one["kind"], one["account"]) for one in advice] == [
        ("tasks_unknown", "a1b2c3d4"),
        ("many_refused", "a1b2c3d4"),
    ]
