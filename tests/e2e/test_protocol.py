"""JSON-RPC and the methods, asked of the real process over its pipes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bridge.simulator import Simulator
from tests.e2e.talk import CORRECT, HCAPTCHA, IMAGE, KEY, MAGIC, RECAPTCHA, Talk, demand, error_of, wait_for
from tests.process import ROOT

Start = Callable[..., Talk]

IDS = [
    "0", "-1", "-0", "1.0", "1e0", "1E5", "0.1000", "9007199254740993", "18446744073709551617",
    "1e400", "-1e-999", "1" * 400, '"1"', '""', '"a\\u0000b"', '"\\u00e9\\ud83d\\ude00"', "null",
]  # fmt: skip


def test_ids_come_back_as_the_same_json_value(talk: Start) -> None:
    """An id is echoed digit for digit, in results and in errors, alone and in a batch."""
    bridge = talk("--sandbox")
    for raw in IDS:
        for method in ("bridge.info", "no.such", "bridge.status"):
            bridge.send_line(b'{"jsonrpc":"2.0","id":%b,"method":"%b"}' % (raw.encode(), method.encode()))
            line = bridge.read_line() or b""
            assert b'"id":%b,' % raw.encode() in line
            assert line.isascii()
        bridge.send_line(b'[{"jsonrpc":"2.0","id":%b,"method":"bridge.info"}]' % raw.encode())
        assert b'"id":%b,' % raw.encode() in (bridge.read_line() or b"")
        bridge.send_line(b'{"jsonrpc":"1.0","id":%b,"method":"bridge.info"}' % raw.encode())
        assert b'"id":%b,' % raw.encode() in (bridge.read_line() or b"")


def test_raw_unicode_in_ids_is_escaped_in_answers(talk: Start) -> None:
    """Answers are ASCII and one line, even if the id holds line separators of Unicode."""
    bridge = talk("--sandbox")
    message = bridge.ask('{"jsonrpc":"2.0","id":"\u2028\u0085é😀","method":"bridge.info"}'.encode())
    assert message["id"] == "\u2028\u0085é😀"


def test_ids_of_other_types_are_refused(talk: Start) -> None:
    """An id that is no string, number or null is an invalid request, answered with id null."""
    bridge = talk("--sandbox")
    for raw in (b"true", b"false", b"[]", b"[1]", b"{}", b'{"a":1}'):
        message = bridge.ask(b'{"jsonrpc":"2.0","id":%b,"method":"bridge.info"}' % raw)
        assert error_of(message) == (-32600, "invalid_request"), raw
        assert message["id"] is None, raw


def test_envelopes_are_judged_strictly(talk: Start) -> None:
    """Each flaw of an envelope is -32600 with the id and the rule, and further members are ignored."""
    bridge = talk("--sandbox")
    for flaw, rule in (
        ('"method":"bridge.info"', "version"),
        ('"jsonrpc":2.0,"method":"bridge.info"', "version"),
        ('"jsonrpc":"2.0"', "method"),
        ('"jsonrpc":"2.0","method":null', "method"),
        ('"jsonrpc":"2.0","method":7', "method"),
        ('"jsonrpc":"2.0","method":"bridge.info","params":7', "params"),
        ('"jsonrpc":"2.0","method":"bridge.info","params":"x"', "params"),
        ('"jsonrpc":"2.0","method":"bridge.info","params":false', "params"),
        ('"jsonrpc":"2.0","method":"bridge.info","method":"bridge.info"', "repeated_name"),
        ('"jsonrpc":"2.0","method":"bridge.info","params":{"a":"\\ud800"}', "lone_surrogate"),
        ('"jsonrpc":"2.0","method":"bridge.info","params":' + "[" * 70 + "]" * 70, "too_deep"),
    ):
        message = bridge.ask(('{"id":"me",' + flaw + "}").encode())
        assert error_of(message) == (-32600, "invalid_request"), flaw
        assert message["id"] == "me", flaw
        assert message["error"]["data"]["rule"] == rule
        assert message["error"]["data"]["sentence"]
    extra = '{"jsonrpc":"2.0","id":1,"method":"bridge.info","traceparent":"00-1","_meta":{"x":[1]}}'
    assert "result" in bridge.ask(extra.encode())


def test_what_is_not_json_is_a_parse_error(talk: Start) -> None:
    """Text that is not JSON is answered -32700 with id null, and the next line is served."""
    bridge = talk("--sandbox")
    for raw in (
        b"NaN", b"[Infinity]", b'{"jsonrpc":"2.0","id":-Infinity,"method":"bridge.info"}', b"\xff\xfe{\x00",
        b'{"jsonrpc":"2.0","id":"\xc0\x80","method":"bridge.info"}', b"{'a':1}", b"hello", b"{", b"[1,]",
        b'{"jsonrpc":"2.0","id":01,"method":"bridge.info"}', b'"\xed\xa0\x80"', b"\x00",
    ):  # fmt: skip
        message = bridge.ask(raw)
        assert error_of(message) == (-32700, "parse_error"), raw
        assert message["id"] is None, raw
        bridge.sync()


def test_null_id_is_a_request(talk: Start) -> None:
    """A request whose id is null is answered with id null."""
    message = talk("--sandbox").ask(b'{"jsonrpc":"2.0","id":null,"method":"bridge.info"}')
    assert message["id"] is None
    assert message["result"]["protocol"] == 1


def test_equal_ids_get_an_answer_each(talk: Start) -> None:
    """Requests may share an id; each is answered."""
    bridge = talk("--sandbox")
    for task_id in (1, 2, 3):
        bridge.send_line(
            b'{"jsonrpc":"2.0","id":5,"method":"%b","params":{"taskId":%d}}' % (IMAGE.encode(), task_id)
        )
    assert sorted(bridge.read_message()["result"]["taskId"] for _ in range(3)) == [1, 2, 3]


def test_batch_members_are_judged_alone(talk: Start) -> None:
    """A batch with every sort of member gets exactly the answers it is owed, in one array."""
    bridge = talk("--sandbox")
    members = [
        b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}',
        b'{"jsonrpc":"2.0","method":"bridge.info"}',
        b"1",
        b'{"jsonrpc":"2.0","id":2,"method":"reportIncorrectImageCaptcha","params":{"taskId":77}}',
        b'{"jsonrpc":"2.0","id":3,"method":"nope"}',
        b'{"jsonrpc":"2.0","id":4,"method":"bridge.info","params":[1]}',
        b'{"jsonrpc":"2.0","id":5,"method":"nope","method":"bridge.info"}',
        b'{"jsonrpc":"2.0","id":6,"method":"bridge.info","x":"\\udfff"}',
        b'{"jsonrpc":"2.0","id":7,"method":"bridge.info","x":' + b"[" * 64 + b"]" * 64 + b"}",
        b"[]",
        b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":99}}',
        b'{"jsonrpc":"2.0","id":null,"method":"bridge.info"}',
    ]
    answers = bridge.ask(b"[" + b",".join(members) + b"]")
    codes = [(answer["id"], answer["error"]["code"] if "error" in answer else 0) for answer in answers]
    assert sorted(codes, key=str) == sorted(
        [(1, 0), (None, -32600), (2, 0), (3, -32601), (4, -32602), (5, -32600), (6, -32600),
         (7, -32600), (None, -32600), (None, 0)],
        key=str,
    )  # fmt: skip


def test_batches_with_nothing_to_answer_get_no_answer(talk: Start) -> None:
    """A batch of notifications is silent; an empty one is an invalid request."""
    bridge = talk("--sandbox")
    bridge.send_line(b'[{"jsonrpc":"2.0","method":"bridge.info"},{"jsonrpc":"2.0","method":"nope"}]')
    bridge.send_line(
        b'[{"jsonrpc":"2.0","method":"reportIncorrectImageCaptcha","params":{"taskId":12}},'
        b'{"jsonrpc":"2.0","method":"reportIncorrectImageCaptcha","params":{"taskId":"bad"}}]'
    )
    assert error_of(bridge.ask(b"[]")) == (-32600, "invalid_request")
    report = wait_for(lambda: bridge.call("bridge.getReport", {"taskId": 12}).get("result"))
    assert report["method"] == IMAGE
    bridge.sync()


def test_a_batch_over_the_limit_is_one_error(talk: Start) -> None:
    """One member too many refuses the batch as a whole; as many as allowed are served."""
    bridge = talk("--sandbox", "--max-batch", "3")
    member = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}'
    assert len(bridge.ask(b"[" + b",".join([member] * 3) + b"]")) == 3
    message = bridge.ask(b"[" + b",".join([member] * 4) + b"]")
    assert error_of(message) == (-32600, "invalid_request")
    assert message["id"] is None


def test_nesting_has_a_limit(talk: Start) -> None:
    """The setting is the deepest nesting that is taken."""
    bridge = talk("--sandbox", "--max-depth", "5")
    for depth, is_fine in ((4, True), (5, False), (5000, False), (200_000, False)):
        raw = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info","x":' + b"[" * depth + b"]" * depth + b"}"
        message = bridge.ask(raw)
        assert ("result" in message) == is_fine
        if not is_fine:
            assert error_of(message)[0] == -32600


def test_params_are_refused_with_a_place_and_no_value(talk: Start) -> None:
    """-32602 has pointer, rule and a sentence, and repeats no value or name of the input."""
    bridge = talk("--sandbox")
    canary = "CANARY-9b1c"
    for params, pointer, rule in (
        ({}, "", "required"),
        ({"taskId": canary}, "/taskId", "type"),
        ({"taskId": 0}, "/taskId", "minimum"),
        ({"taskId": 2**53}, "/taskId", "maximum"),
        ({"taskId": 1.5}, "/taskId", "type"),
        ({"taskId": True}, "/taskId", "type"),
        ({"taskId": None}, "/taskId", "type"),
        ({"taskId": 1, canary: canary}, "", "additionalProperties"),
        ({"taskId": 1, "clientKey": canary}, "/clientKey", "minLength"),
        ({"taskId": 1, "clientKey": canary * 20}, "/clientKey", "maxLength"),
        ({"taskId": 1, "clientKey": canary + " with blanks"}, "/clientKey", "pattern"),
        ({"taskId": 1, "languagePool": canary}, "/languagePool", "enum"),
        ({"taskId": 1, "taskType": ""}, "/taskType", "minLength"),
        ({"taskId": 1, "taskType": canary * 9}, "/taskType", "maxLength"),
        ({"taskId": 1, "completedAt": canary}, "/completedAt", "type"),
        ({"taskId": 1, "completedAt": time.time() * 1000}, "/completedAt", "maximum"),
    ):
        response = bridge.call(IMAGE, params)
        assert error_of(response) == (-32602, "invalid_params"), params
        data = response["error"]["data"]
        assert (data["pointer"], data["rule"]) == (pointer, rule), params
        assert data["sentence"]
        assert canary not in json.dumps(response)
        if rule == "maximum" and pointer == "/completedAt":
            assert "milliseconds" in data["sentence"]
    response = bridge.call(IMAGE, [1])
    assert response["error"]["data"]["rule"] == "type"
    huge = bridge.ask(b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"taskId":1e400}}' % IMAGE.encode())
    assert error_of(huge) == (-32602, "invalid_params")


def test_whole_floats_are_integers(talk: Start) -> None:
    """A task id written as 5.0 is the task 5."""
    raw = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"taskId":5.0}}' % IMAGE.encode()
    message = talk("--sandbox").ask(raw)
    assert message["result"]["taskId"] == 5
    assert isinstance(message["result"]["taskId"], int)


SUGGESTED = {
    "rpc.Discover": "rpc.discover",
    "bridge.": "bridge.info",
    "bridge.report": "bridge.getReport",
    "reportincorrectimagecaptcha": IMAGE,
}


def test_null_is_as_left_out(talk: Start) -> None:
    """Null for params or for its optional members is what serializers write that have nothing to say."""
    bridge = talk("--sandbox")
    nothing = dict.fromkeys(("clientKey", "completedAt", "taskType", "languagePool"))
    for method, params in (
        (IMAGE, {"taskId": 1, **nothing}),
        ("bridge.info", None),
        ("bridge.status", None),
        ("bridge.listReports", dict.fromkeys(("since", "outcome", "method", "limit", "cursor"))),
        ("bridge.resume", None),
    ):
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        assert "result" in bridge.ask(json.dumps(request).encode()), method
    note = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": None}
    bridge.send_line(json.dumps(note).encode())
    bridge.sync()


def test_unknown_and_reserved_methods_do_not_exist(talk: Start) -> None:
    """Names that are not in the table are -32601, also those of Python and with reserved beginnings."""
    bridge = talk("--sandbox")
    for name in ("", "nope", "rpc.", "rpc.foo", "rpc.Discover", "__init__", "bridge.", "bridge.report",
                 "$/cancelRequest", "$/unknown", "reportincorrectimagecaptcha", "a" * 1000, "é"):  # fmt: skip
        response = bridge.call(name)
        assert error_of(response) == (-32601, "method_not_found"), name
        told = response["error"]["data"].get("suggestion")
        assert told == SUGGESTED.get(name), name


def test_discover_is_the_published_document(talk: Start) -> None:
    """rpc.discover returns schemas/openrpc.json, and every method in it exists."""
    bridge = talk("--sandbox")
    document = bridge.call("rpc.discover")["result"]
    assert document == json.loads((ROOT / "schemas" / "openrpc.json").read_text())
    for method in document["methods"]:
        if method["name"] != "$/cancelRequest":
            assert bridge.call(method["name"], {"no such member": 1})["error"]["code"] == -32602


def test_info_tells_limits_and_framing(talk: Start) -> None:
    """bridge.info tells who answers and within which limits."""
    bridge = talk("--sandbox", "--queue", "7", "--max-depth", "9", "--timeout", "2.5", "--drain", "0")
    info = bridge.call("bridge.info")["result"]
    assert (info["name"], info["protocol"], info["pid"]) == ("anticaptcha-report-bridge", 1, bridge.pid)
    assert info["sandbox"] is True
    assert info["framing"] == "line"
    assert info["limits"] == {
        "maxMessage": 1048576, "maxBatch": 1000, "maxDepth": 9, "queue": 7, "concurrency": 32,
        "timeoutSeconds": 2.5, "connectTimeoutSeconds": 3, "drainSeconds": 0,
    }  # fmt: skip


def test_every_answer_of_the_sandbox_says_so(talk: Start) -> None:
    """Results and errors of every method carry sandbox in the sandbox."""
    bridge = talk("--sandbox")
    bridge.report(1)
    for method, params in (
        (IMAGE, {"taskId": 1}),
        (IMAGE, {"taskId": MAGIC + 16}),
        (IMAGE, {"taskId": 2, "languagePool": "rn"}),
        (RECAPTCHA, {"taskId": 1}),
        ("bridge.info", None),
        ("bridge.status", None),
        ("bridge.getReport", {"taskId": 1}),
        ("bridge.getReport", {"taskId": 999}),
        ("bridge.listReports", None),
        ("bridge.resume", None),
        (IMAGE, {"taskId": "x"}),
        ("nope", None),
    ):
        response = bridge.call(method, params)
        told = response["result"] if "result" in response else response["error"]["data"]
        assert told.get("sandbox") is True, response


def test_local_refusals_send_nothing(talk: Start, simulator: Simulator) -> None:
    """What is known to be refused is refused here, and the upstream hears nothing of it."""
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    tasks = 100
    for method, params, expected in (
        (IMAGE, {"completedAt": time.time() - 61}, (-32010, "window_closed")),
        (IMAGE, {"completedAt": 0}, (-32010, "window_closed")),
        (IMAGE, {"taskType": "RecaptchaV2Task"}, (-32012, "wrong_method")),
        (IMAGE, {"taskType": "TurnstileTask"}, (-32012, "wrong_method")),
        (RECAPTCHA, {"taskType": "ImageToTextTask"}, (-32012, "wrong_method")),
        (HCAPTCHA, {"taskType": "NoCaptchaTask"}, (-32012, "wrong_method")),
        (IMAGE, {"languagePool": "rn"}, (-32013, "language_refused")),
    ):
        tasks += 1  # what is known of a task's window would hold for the next request, too
        response = bridge.report(tasks, method, **params)
        assert error_of(response) == expected
        data = response["error"]["data"]
        assert (data["outcome"], data["attempts"], data["replayed"]) == ("not_sent", 0, False)
        if expected[0] == -32010:
            assert data["ageSeconds"] >= 60
            assert "clockSkewSeconds" in data
            assert data["retryable"] is False
    assert simulator.counters()["requests"] == 0
    assert bridge.report(32)["result"]["attempts"] == 1


def test_warnings_come_with_accepted_reports(talk: Start) -> None:
    """Unknown task types, ignored and withdrawn reports are sent, with a warning."""
    bridge = talk("--sandbox")
    for task_id, method, task_type, kind in (
        (41, IMAGE, "BrandNewTask", "unknown_task_type"),
        (42, CORRECT, "NoCaptchaTaskProxyless", "ignored_by_vendor"),
        (43, HCAPTCHA, "HCaptchaTask", "withdrawn_by_vendor"),
    ):
        result = bridge.report(task_id, method, taskType=task_type)["result"]
        assert [warning["kind"] for warning in result["warnings"]] == [kind]
    assert "warnings" not in bridge.report(44, IMAGE, taskType="imagetotexttask")["result"]


def test_the_same_task_again_is_replayed_and_another_method_conflicts(
    talk: Start, simulator: Simulator
) -> None:
    """Each final outcome is replayed without a send; another method is told which report is in the way."""
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    for task_id, outcome in ((51, "accepted"), (MAGIC + 16, "refused"), (MAGIC + 1014, "unknown")):
        first, second = bridge.report(task_id), bridge.report(task_id)
        for response, replayed in ((first, False), (second, True)):
            told = response["result"] if "result" in response else response["error"]["data"]
            assert (told["outcome"], told["replayed"], told["durable"]) == (outcome, replayed, True)
        conflict = bridge.report(task_id, RECAPTCHA)
        assert error_of(conflict) == (-32011, "task_conflict")
        assert conflict["error"]["data"]["outcome"] == outcome
        assert conflict["error"]["data"]["hints"]
        assert simulator.deliveries(task_id)[0]["delivered"] == 1


def test_requests_for_a_task_in_flight_join_it(talk: Start, simulator: Simulator) -> None:
    """Of many requests for one task one is sent and all are answered, the joined ones as replayed."""
    simulator.add_fault("latency", task_id=61, seconds=0.5)
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    names = [bridge.send(IMAGE, {"taskId": 61}) for _ in range(20)]
    conflict = bridge.send(RECAPTCHA, {"taskId": 61})
    answers = bridge.read_all([*names, conflict])
    assert error_of(answers.pop(conflict)) == (-32011, "task_conflict")
    assert sorted(answer["result"]["replayed"] for answer in answers.values()) == [False] + [True] * 19
    assert simulator.deliveries(61)[0]["delivered"] == 1


def test_records_are_found_and_listed_page_by_page(talk: Start, simulator: Simulator) -> None:
    """Listing is newest first, filtered, and goes page by page to an end."""
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    before = time.time()
    assert bridge.call("bridge.listReports")["result"] == {"reports": [], "nextCursor": None}
    for task_id in range(71, 78):
        bridge.report(task_id, IMAGE if task_id % 2 else RECAPTCHA)
    bridge.report(MAGIC + 16)
    bridge.report(78, clientKey="another-account-0123456789")
    pages, cursor = [], None
    while True:
        params: dict[str, Any] = {"limit": 4} if cursor is None else {"limit": 4, "cursor": cursor}
        page = bridge.call("bridge.listReports", params)["result"]
        pages.append([report["taskId"] for report in page["reports"]])
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert pages == [[78, MAGIC + 16, 77, 76], [75, 74, 73, 72], [71]]

    def ids(**params: Any) -> list[int]:
        found = bridge.call("bridge.listReports", params)["result"]["reports"]
        return [report["taskId"] for report in found]

    assert ids(method=RECAPTCHA) == [76, 74, 72]
    assert ids(outcome="refused") == [MAGIC + 16]
    assert ids(outcome="refused", method=RECAPTCHA) == []
    assert len(ids(since=before - 1)) == 9
    assert ids(since=time.time() + 5) == []
    for report in bridge.call("bridge.listReports")["result"]["reports"]:
        assert report["taskId"] in ids(since=datetime.fromisoformat(report["recordedAt"]).timestamp())
    assert ids(limit=1) == [78]
    for bad in ({"limit": 0}, {"limit": 1001}, {"outcome": "fine"}, {"method": "x"}, {"cursor": "junk"},
                {"since": "now"}, {"cursor": "9" * 400}, {"cursor": "-1"}, {"cursor": ""}):  # fmt: skip
        response = bridge.call("bridge.listReports", bad)
        assert "error" not in response or response["error"]["code"] == -32602, bad
    record = bridge.call("bridge.getReport", {"taskId": 71})["result"]
    assert (record["state"], record["outcome"], record["attempts"]) == ("done", "accepted", 1)
    assert (record["code"], record["kind"]) == (None, None)
    refused = bridge.call("bridge.getReport", {"taskId": MAGIC + 16})["result"]
    assert (refused["outcome"], refused["code"], refused["kind"]) == ("refused", 16, "no_such_captcha")
    assert error_of(bridge.call("bridge.getReport", {"taskId": 78})) == (-32014, "report_not_found")
    other = bridge.call("bridge.getReport", {"taskId": 78, "clientKey": "another-account-0123456789"})
    assert other["result"]["account"] != record["account"]


def test_status_counts_what_happened(talk: Start, simulator: Simulator) -> None:
    """The figures of bridge.status are those of the reports so far, replays apart."""
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    fresh = bridge.call("bridge.status")["result"]
    assert fresh["outcomes"] == {"accepted": 0, "refused": 0, "unknown": 0, "not_sent": 0}
    assert fresh["latencyMs"] == {"p50": None, "p95": None, "p99": None, "count": 0}
    for task_id in (81, 82, 81, MAGIC + 16, MAGIC + 1014):
        bridge.report(task_id)
    bridge.report(83, languagePool="rn")
    status = bridge.call("bridge.status")["result"]
    assert status["outcomes"] == {"accepted": 2, "refused": 1, "unknown": 1, "not_sent": 1}
    assert status["codes"] == {"16": 1, "-32002": 1, "-32013": 1}
    assert status["replays"] == 1
    assert status["latencyMs"]["count"] == 4
    assert (status["inFlight"], status["queued"]) == (0, 0)
    assert status["ledger"]["durable"] is True
    simulator.add_fault("hang", task_id=84)
    bridge.send(IMAGE, {"taskId": 84})
    wait_for(lambda: bridge.call("bridge.status")["result"]["inFlight"] == 1)


def test_resume_turns_a_pause_into_a_probe(talk: Start, simulator: Simulator) -> None:
    """A refused key pauses sending until a person resumes it; then the next report probes."""
    simulator.set_account(client_key=KEY, state="unknown")
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    assert error_of(bridge.report(91)) == (1, "key_does_not_exist")
    paused = bridge.report(92)
    assert error_of(paused) == (-32021, "sending_paused")
    assert paused["error"]["data"]["pause"]["manual"] is True
    assert paused["error"]["data"]["pause"]["endsAt"] is None
    shown = bridge.call("bridge.status")["result"]["pauses"]
    assert [(pause["scope"], pause["manual"]) for pause in shown] == [("key", True)]
    assert bridge.call("bridge.resume", {"scope": "transport"})["result"]["resumed"] == []
    stranger = {"clientKey": "another-account-0123456789"}
    assert bridge.call("bridge.resume", stranger)["result"]["resumed"] == []
    assert error_of(bridge.report(93)) == (-32021, "sending_paused")
    simulator.set_account(client_key=KEY, state="ok")
    assert len(bridge.call("bridge.resume", {"scope": "key"})["result"]["resumed"]) == 1
    assert bridge.report(94)["result"]["outcome"] == "accepted"
    assert bridge.call("bridge.status")["result"]["pauses"] == []
    assert simulator.counters()["requests"] == 2


def test_a_wrong_key_costs_one_call_however_many_wait(talk: Start, simulator: Simulator) -> None:
    """Fifty requests with a key that is not known reach the upstream once."""
    simulator.set_account(client_key=KEY, state="unknown")
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    names = [bridge.send(IMAGE, {"taskId": 100 + n}) for n in range(50)]
    codes = sorted(answer["error"]["code"] for answer in bridge.read_all(names).values())
    assert codes == [-32021] * 49 + [1]
    assert simulator.counters()["requests"] == 1


# --- cancelling ------------------------------------------------------------------------------


def test_cancelled_requests_are_answered_and_not_sent(talk: Start, simulator: Simulator) -> None:
    """A request that waits for a slot is let go at once; the one that has begun ends as it ends."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "1", "--timeout", "4", "--no-pauses",
        environ={"ANTICAPTCHA_CLIENT_KEY": KEY},
    )  # fmt: skip
    begun = bridge.send(IMAGE, {"taskId": 201, "completedAt": time.time() - 53})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    waiting = bridge.send(IMAGE, {"taskId": 202})
    twin = bridge.send(IMAGE, {"taskId": 202})
    bridge.cancel(begun)
    bridge.cancel(str(waiting))
    bridge.cancel(float(waiting) + 0.5)
    bridge.cancel(12345)
    bridge.cancel(None)
    bridge.send_line(b'{"jsonrpc":"2.0","method":"$/cancelRequest"}')
    bridge.send_line(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":[1]}')
    bridge.send_line(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":{}}}')
    bridge.sync()
    bridge.cancel(twin)
    response = bridge.read_message()
    assert response["id"] == twin
    assert error_of(response) == (-32800, "request_cancelled")
    bridge.cancel(waiting)
    response = bridge.read_message()
    assert response["id"] == waiting
    assert error_of(response) == (-32800, "request_cancelled")
    assert response["error"]["data"]["outcome"] == "not_sent"
    record = bridge.call("bridge.getReport", {"taskId": 202})["result"]
    assert (record["state"], record["outcome"], record["attempts"]) == ("done", "not_sent", 0)
    response = bridge.read_message()
    assert response["id"] == begun
    assert error_of(response) == (-32002, "outcome_unknown")
    assert {entry["taskId"] for entry in simulator.log()} == {201}


def test_cancelling_by_number_needs_the_same_value(talk: Start, simulator: Simulator) -> None:
    """1e0 names the request 1, "1" does not, and long numbers are told apart by their last digit."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "1", "--no-pauses", "--drain", "0",
        environ={"ANTICAPTCHA_CLIENT_KEY": KEY},
    )  # fmt: skip
    bridge.send_line(b'{"jsonrpc":"2.0","id":"busy","method":"%b","params":{"taskId":1}}' % IMAGE.encode())
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    raws = (b"9007199254740993", b'"9007199254740993"', b"9007199254740992", b"1e400")
    for n, raw in enumerate(raws):
        request = b'{"jsonrpc":"2.0","id":%b,"method":"%b","params":{"taskId":%d}}'
        bridge.send_line(request % (raw, IMAGE.encode(), 300 + n))
    for raw, names in zip(raws, (b"90071992547409930e-1", raws[1], raws[2], b"10e399"), strict=True):
        bridge.sync()
        bridge.send_line(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%b}}' % names)
        line = bridge.read_line() or b""
        assert b'"id":%b,' % raw in line
        assert b"-32800" in line


def test_members_of_a_batch_are_cancelled_alone(talk: Start, simulator: Simulator) -> None:
    """A batch is answered once its last member is; a cancelled member has its own error in it."""
    simulator.add_fault("hang", task_id=401)
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "1", "--queue", "2", "--timeout", "4", "--no-pauses",
        environ={"ANTICAPTCHA_CLIENT_KEY": KEY},
    )  # fmt: skip
    members = [
        {"jsonrpc": "2.0", "id": n, "method": IMAGE, "params": {"taskId": n, "completedAt": time.time() - 51}}
        for n in (401, 402, 403, 404)
    ]
    cancels = [{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": n}} for n in (401, 402, 404)]
    bridge.send_line(json.dumps([*members, *cancels]).encode())
    answers = {answer["id"]: answer for answer in bridge.read_message()}
    assert error_of(answers[404]) == (-32800, "request_cancelled")
    assert error_of(answers[402]) == (-32800, "request_cancelled")
    assert set(answers) == {401, 402, 403, 404}
    for n in (402, 404):
        assert simulator.deliveries(n) == []
        data = answers[n]["error"]["data"]
        assert (data["outcome"], data["attempts"]) == ("not_sent", 0)


def test_a_request_that_waits_for_a_key_is_cancelled(talk: Start, simulator: Simulator) -> None:
    """Cancelling reaches requests that wait for a slow key command."""
    bridge = talk("--url", simulator.base_url, "--key-command", "sleep 30")
    first, second = bridge.send(IMAGE, {"taskId": 1}), bridge.send(IMAGE, {"taskId": 1})
    bridge.sync()
    for name in (second, first):
        bridge.cancel(name)
        message = bridge.read_message()
        assert (message["id"], *error_of(message)) == (name, -32800, "request_cancelled")
        assert message["error"]["data"]["outcome"] == "not_sent"


def test_a_cancelled_joiner_leaves_the_report_alone(talk: Start, simulator: Simulator) -> None:
    """Letting go a request that only joined does not stop what it had joined."""
    simulator.add_fault("latency", task_id=501, seconds=2.5)
    bridge = talk("--url", simulator.base_url, environ={"ANTICAPTCHA_CLIENT_KEY": KEY})
    first = bridge.send(IMAGE, {"taskId": 501})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    joined = bridge.send(IMAGE, {"taskId": 501})
    bridge.cancel(joined)
    response = bridge.read_message()
    assert (response["id"], *error_of(response)) == (joined, -32800, "request_cancelled")
    response = bridge.read_message()
    assert response["id"] == first
    assert response["result"]["outcome"] == "accepted"


def test_listed_errors_have_the_published_messages(talk: Start) -> None:
    """Every published upstream error arrives as its own number, with the table's sentence."""
    table = json.loads((ROOT / "schemas" / "errors.json").read_text())
    by_id = {row["errorId"]: row for row in table["upstream"] if row["errorId"]}
    bridge = talk("--sandbox", "--no-pauses")
    for error_id, row in by_id.items():
        response = bridge.report(MAGIC + error_id)
        assert response["error"]["code"] == error_id
        assert response["error"]["data"]["errorId"] == error_id
        assert response["error"]["data"]["outcome"] == "refused"
        if error_id != 12:
            assert response["error"]["message"] == row["message"]
    demand("bridge.status.result", bridge.call("bridge.status")["result"])
