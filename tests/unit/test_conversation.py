"""One conversation without a process: refusals, admission, batches, cancels, how language clients end it."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.errors import BridgeError
from bridge.core.resources import load_json
from bridge.engine import Engine
from bridge.rpc.dispatcher import PENDING, Dispatcher
from bridge.server import conversation
from bridge.server.conversation import Context, Conversation
from bridge.wire.framing import Framer
from tests.simulation.virtual import VirtualLoop, VirtualTime
from tests.world import Clock, raise_bug

RULES = {row["kind"]: row["message"] for row in load_json("errors.json")["rules"]}
CANARY = "CANARY"


class Sink:
    """Takes answers; what is written is up to the test."""

    def __init__(self) -> None:
        self.backlog = 0
        self.backlog_bytes = 0
        self.pieces: list[bytes] = []

    def put(self, piece: bytes) -> None:
        self.pieces.append(piece)


class Desk:
    """A conversation with three methods: a report, a question that waits, one that does not."""

    def __init__(self, queue: int = 3, **kwargs: Any) -> None:
        self.time = VirtualTime()
        self.engine = Engine(raise_bug, VirtualLoop(self.time), Clock(self.time))
        self.sink = Sink()
        self.reports: list[Context] = []
        self.cancelled: list[Any] = []
        self.changes = 0
        self.on_report: Callable[[Context], object] = self.reports.append
        table = {
            "report": self.report,
            "wait": self.wait,
            "bridge.resume": self.wait,
            "tell": self.tell,
            "crash": self.crash,
        }
        methods: Any = SimpleNamespace(
            dispatcher=Dispatcher(table, lambda bug: "0123456789abcdef", kwargs.pop("mark", {})),
            limits={"maxBatch": 5, "maxDepth": 8, "queue": queue},
            reports={"report"},
            cancel=self.cancelled.append,
        )
        sink: Any = self.sink
        framer = Framer(kwargs.pop("max_message", 100_000))
        self.talk = Conversation(self.engine, methods, framer, sink, self.note_change, **kwargs)

    def report(self, context: Context, params: dict[str, Any]) -> Any:
        context.is_taken = True
        self.on_report(context)
        return PENDING

    def wait(self, context: Context, params: dict[str, Any]) -> Any:
        self.engine.call_at(self.engine.now() + 1.0, lambda: context.settle({"told": 1}))
        return PENDING

    def tell(self, context: Context, params: dict[str, Any]) -> Any:
        return {"told": params}

    def crash(self, context: Context, params: dict[str, Any]) -> Any:
        raise RuntimeError(CANARY)

    def note_change(self) -> None:
        self.changes += 1

    def say(self, method: str, id: Any = None, **more: Any) -> None:
        """Feed a request, or without an id a notification."""
        message = {"jsonrpc": "2.0", "method": method, **more}
        if id is not None:
            message["id"] = id
        self.feed(json.dumps(message).encode() + b"\n")

    def feed(self, data: bytes) -> None:
        self.talk.feed(data)
        self.time.run()

    def answers(self) -> list[Any]:
        """What was answered since the last look."""
        pieces, self.sink.pieces = self.sink.pieces, []
        return [json.loads(piece.rpartition(b"\r\n")[2]) for piece in pieces]

    def errors(self) -> list[tuple[Any, int, dict[str, Any]]]:
        """Id, code and data of what was answered, all of them errors."""
        return [(a["id"], a["error"]["code"], a["error"]["data"]) for a in self.answers()]


def framed(text: str) -> bytes:
    """Frame a message with a header."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(text), text.encode())


OK = '"jsonrpc":"2.0","id":1,"method":"tell"'


# --- what is refused -------------------------------------------------------------------------


INVALID: list[tuple[str, Any, str]] = [
    ("not_an_object", None, '"CANARY"'),
    ("version", 1, '{"id":1,"jsonrpc":"CANARY","method":"tell"}'),
    ("method", 1, '{"id":1,"jsonrpc":"2.0","method":["CANARY"]}'),
    ("id", None, '{"id":["CANARY"],"jsonrpc":"2.0","method":"tell"}'),
    ("params", 1, '{OK,"params":"CANARY"}'),
    ("empty_batch", None, "[]"),
    ("batch_too_large", None, "[1,2,3,4,5,6]"),
    ("repeated_name", 1, '{OK,"CANARY":1,"CANARY":2}'),
    ("lone_surrogate", 1, '{OK,"CANARY":"\\ud800"}'),
    ("too_deep", 1, '{OK,"CANARY":[[[[[[[[[]]]]]]]]]}'),
    ("message_too_large", None, '{OK,"CANARY":"' + "x" * 2000 + '"}'),
]


@pytest.mark.parametrize(("rule", "id", "text"), INVALID)
def test_an_invalid_request_is_told_what_is_wrong(rule: str, id: Any, text: str) -> None:
    """-32600 has a rule of the table and its sentence, and nothing of the input but the id."""
    desk = Desk(max_message=1000)
    desk.feed(text.replace("OK", OK).encode() + b"\n")
    [piece] = desk.sink.pieces
    assert CANARY.encode() not in piece
    [(told_id, code, data)] = desk.errors()
    assert (told_id, code) == (id, -32600)
    assert data == {"kind": "invalid_request", "rule": rule, "sentence": RULES[rule]}
    desk.say("tell", 2)
    assert desk.answers()[0]["result"]


BROKEN = [
    ("framing_header", b"Content-Type\r\n\r\n"),
    ("framing_length", b"Content-Length: x\r\n\r\n"),
    ("framing_truncated", b"Content-Length: 9\r\n\r\n{}"),
]


@pytest.mark.parametrize(("rule", "data"), BROKEN)
def test_a_broken_framing_is_told_and_ends_the_input(rule: str, data: bytes) -> None:
    """One parse error with a rule, then nothing more is served."""
    desk = Desk()
    desk.feed(data)
    desk.talk.end()
    assert desk.errors() == [(None, -32700, {"kind": "parse_error", "rule": rule, "sentence": RULES[rule]})]
    if rule != "framing_truncated":
        assert desk.talk.is_over
        desk.feed(framed("{" + OK + "}"))
        assert desk.answers() == []


def test_every_rule_of_the_table_is_told_by_a_test() -> None:
    """The table has the rules that are told above, and no others."""
    assert {row[0] for row in [*INVALID, *BROKEN]} == set(RULES)


def test_what_is_not_json_has_no_rule() -> None:
    """A parse error of a line says no more than that, and marks come with every error."""
    desk = Desk(mark={"sandbox": True})
    desk.feed(b"hello\n[]\n")
    assert [data for _, _, data in desk.errors()] == [
        {"kind": "parse_error", "sandbox": True},
        {"kind": "invalid_request", "rule": "empty_batch", "sentence": RULES["empty_batch"], "sandbox": True},
    ]


def test_marks_come_with_every_answer() -> None:
    """Results of methods that wait and of others, reports and refusals say that it is the sandbox."""
    desk = Desk(mark={"sandbox": True})
    desk.say("tell", 1)
    desk.say("wait", 2)
    desk.say("report", 3)
    desk.say("report", 4)
    desk.reports[0].settle({"status": "success"})
    desk.reports[1].settle(BridgeError("key_missing", {"outcome": "not_sent"}))
    desk.time.run(2.0)
    answers = sorted(desk.answers(), key=lambda answer: str(answer["id"]))
    told = [answer["result"] if "result" in answer else answer["error"]["data"] for answer in answers]
    assert [data["sandbox"] for data in told] == [True] * 4


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("tel", "tell"),
        ("TELL", "tell"),
        ("rport", "report"),
        (CANARY, None),
        ("t" * 100_000, None),
        ("", None),
    ],
)
def test_a_name_that_is_near_is_suggested(name: str, suggestion: str | None) -> None:
    """-32601 names the method that was probably meant, never what was asked for."""
    desk = Desk(max_message=1 << 20)
    desk.say(name, 1)
    [(_, code, data)] = desk.errors()
    assert code == -32601
    assert data == {"kind": "method_not_found", **({"suggestion": suggestion} if suggestion else {})}


def test_a_bug_is_an_internal_error_with_a_reference() -> None:
    """Neither its text nor its type is told; a result that JSON cannot hold is one, too."""
    desk = Desk()
    desk.say("crash", 1)
    desk.say("report", 2)
    desk.reports[0].settle({"x": float("nan")})
    assert desk.errors() == [
        (id, -32603, {"kind": "internal_error", "reference": "0123456789abcdef"}) for id in (1, 2)
    ]


# --- null ------------------------------------------------------------------------------------


def test_params_of_null_are_left_out() -> None:
    """A method gets no params, a method that does not exist is not found."""
    desk = Desk()
    desk.say("tell", 1, params=None)
    assert desk.answers()[0]["result"] == {"told": {}}
    desk.say("nope", 1, params=None)
    assert desk.errors()[0][1] == -32601


# --- admission -------------------------------------------------------------------------------


def test_at_most_so_many_reports_are_admitted_and_others_are_heard() -> None:
    """With a full queue questions are answered and cancels heard; one more report stops the reading."""
    desk = Desk()
    for id in (1, 2, 3):
        assert desk.talk.has_room()
        desk.say("report", id)
    assert desk.talk.has_room()
    desk.say("tell", "q")
    desk.say("$/cancelRequest", params={"id": 1})
    assert [answer["id"] for answer in desk.answers()] == ["q"]
    assert desk.cancelled == [(1,)]
    desk.say("report", 4)
    assert not desk.talk.has_room()
    assert (len(desk.reports), desk.talk.unanswered) == (3, 4)
    changes = desk.changes
    desk.reports[1].settle({"done": 2})
    desk.time.run()
    assert desk.changes > changes
    assert desk.talk.has_room()
    assert [context.call.id for context in desk.reports] == [1, 2, 3, 4]
    assert desk.answers() == [{"jsonrpc": "2.0", "id": 2, "result": {"done": 2}}]


def test_batch_members_are_admitted_singly() -> None:
    """A batch with more reports than there is room for is served bit by bit, and answered once, in order."""
    desk = Desk(queue=2)
    members = [{"jsonrpc": "2.0", "id": id, "method": "report"} for id in (1, 2, 3)]
    note = {"jsonrpc": "2.0", "method": "tell"}
    desk.feed(json.dumps([*members, note, {"jsonrpc": "2.0", "id": 4, "method": "tell"}]).encode() + b"\n")
    assert len(desk.reports) == 2
    for position in (1, 0, 2):
        desk.reports[position].settle(position)
        desk.time.run()
    [batch] = desk.answers()
    assert [answer["id"] for answer in batch] == [1, 2, 3, 4]
    desk.feed(json.dumps([note, note]).encode() + b"\n")
    assert desk.answers() == []


def test_a_question_that_waits_is_cancelled() -> None:
    """Not only reports: whoever asked with that id is told, once, and what would have come is dropped."""
    desk = Desk()
    desk.say("wait", id=1)
    desk.say("$/cancelRequest", params={"id": 1})
    desk.time.run(2.0)
    (answer,) = desk.answers()
    assert (answer["error"]["code"], answer["error"]["data"]) == (-32800, {"kind": "request_cancelled"})
    assert desk.talk.is_idle


def test_what_resumes_a_pause_is_not_called_undone() -> None:
    """It may be under way in the ledger when the cancel comes, so it is answered as it ends."""
    desk = Desk()
    desk.say("bridge.resume", id=1)
    desk.say("$/cancelRequest", params={"id": 1})
    assert desk.answers() == []
    desk.time.run(2.0)
    assert [answer["result"] for answer in desk.answers()] == [{"told": 1}]


def test_a_bug_on_the_way_to_a_method_ends_that_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets a reference, and the next one an answer."""

    def fail(*_: Any) -> Any:
        raise OSError("no descriptor")

    desk = Desk()
    with monkeypatch.context() as broken:
        broken.setattr(Dispatcher, "dispatch", fail)
        desk.say("tell", id=1)
    desk.say("tell", id=2)
    first, second = desk.answers()
    assert (first["error"]["code"], second["result"]) == (-32603, {"told": {}})


def test_what_waits_for_room_can_be_cancelled_and_given_up() -> None:
    """A parked request is answered as never admitted, by its id or at the end, and the rest go on."""
    desk = Desk(queue=1)
    for id in (1, 2, 3, 2, 4):
        desk.say("report", id)
    desk.say("$/cancelRequest", params={"id": 2})
    assert [(id, code, data["kind"]) for id, code, data in desk.errors()] == [
        (2, -32800, "request_cancelled")
    ] * 2
    desk.reports[0].settle(1)
    desk.time.run()
    assert [context.call.id for context in desk.reports] == [1, 3]
    desk.answers()
    assert desk.talk.give_up() == 1
    [(id, code, data)] = desk.errors()
    assert (id, code) == (4, -32032)
    assert data["outcome"] == "not_sent"
    assert data["retryable"] is True
    assert desk.talk.unanswered == 1


def test_many_that_wait_for_room_may_all_be_answered_at_once() -> None:
    """Reports that are answered as soon as they are admitted let each other in without end or depth."""
    desk = Desk(queue=1)
    desk.say("report", 0)
    for id in range(1, 3000):
        desk.say("report", id)
    desk.on_report = lambda context: context.settle(BridgeError("key_missing"))
    desk.reports[0].settle(1)
    desk.time.run()
    assert [answer["id"] for answer in desk.answers()] == list(range(3000))
    assert desk.talk.unanswered == 0


def test_a_client_that_does_not_read_stops_the_reading() -> None:
    """Answers that nobody takes count, by number and by size."""
    desk = Desk(queue=10)
    assert desk.talk.has_room()
    desk.sink.backlog = 10
    assert not desk.talk.has_room()
    desk.sink.backlog, desk.sink.backlog_bytes = 9, conversation.MOST_BACKLOG_BYTES
    assert not desk.talk.has_room()
    desk.sink.backlog_bytes -= 1
    assert desk.talk.has_room()


def test_a_report_whose_answer_nobody_has_read_is_unanswered() -> None:
    """No more are admitted than may be unanswered, and the next one as soon as an answer is read."""
    desk = Desk(queue=3)
    desk.sink.backlog = 2
    desk.say("report", 1)
    desk.say("report", 2)
    assert [context.call.id for context in desk.reports] == [1]
    assert not desk.talk.has_room()
    desk.sink.backlog = 1
    changes = desk.changes
    desk.talk.go_on()
    assert [context.call.id for context in desk.reports] == [1, 2]
    assert (desk.changes, desk.talk.has_room()) == (changes + 1, True)


@pytest.mark.parametrize("way", ["read", "given up"])
def test_what_was_read_waits_while_nobody_reads_the_answers(way: str) -> None:
    """However much came at once, memory holds no more answers than a client may leave unread."""
    desk = Desk()
    desk.sink.backlog_bytes = conversation.MOST_BACKLOG_BYTES
    desk.feed(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"tell"}\n' % id for id in range(3)))
    assert (desk.answers(), desk.talk.is_idle, desk.talk.has_room()) == ([], False, False)
    if way == "read":
        desk.sink.backlog_bytes -= 1
        desk.talk.go_on()
    else:
        assert desk.talk.give_up() == 0
    assert [answer["id"] for answer in desk.answers()] == [0, 1, 2]
    assert desk.talk.is_idle


def test_questions_that_wait_are_bounded_too() -> None:
    """As many questions may be open as reports; then nothing more is read."""
    desk = Desk(queue=2)
    desk.say("wait", 1)
    assert desk.talk.has_room()
    desk.say("wait", 2)
    assert not desk.talk.has_room()
    desk.time.run(1.0)
    assert desk.talk.has_room()


# --- the end of a language client ------------------------------------------------------------


def test_shutdown_and_exit_end_a_conversation_with_headers() -> None:
    """shutdown is answered with null, exit counts as end of input, and nothing behind it is served."""
    desk = Desk()
    data = framed('{"jsonrpc":"2.0","id":8,"method":"shutdown","params":null}')
    desk.feed(data)
    assert desk.answers() == [{"jsonrpc": "2.0", "id": 8, "result": None}]
    desk.feed(
        framed('{"jsonrpc":"2.0","id":9,"method":"exit"}') + framed('{"jsonrpc":"2.0","method":"shutdown"}')
    )
    assert [(id, code) for id, code, _ in desk.errors()] == [(9, -32601)]
    desk.feed(framed('{"jsonrpc":"2.0","method":"exit"}') + framed("{" + OK + "}"))
    assert desk.talk.is_over
    desk.talk.end()
    assert desk.answers() == []


def test_shutdown_and_exit_mean_nothing_in_lines() -> None:
    """With one message per line there are no such methods, and the conversation goes on."""
    desk = Desk()
    desk.say("shutdown", 1)
    desk.say("exit")
    assert [(id, code) for id, code, _ in desk.errors()] == [(1, -32601)]
    assert not desk.talk.is_over
