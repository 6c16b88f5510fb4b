"""The way that is taken only where it must be, plain imports, beside the usual one: a variable chooses it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from bridge.simulator.magic import describe as describe_magic
from tests.e2e.talk import IMAGE, KEY, MAGIC, Talk, error_of, wait_for
from tests.e2e.test_spec_examples import EXAMPLES

WAYS: dict[str, dict[str, str]] = {
    "as usual": {},
    "plain imports": {"_BRIDGE_PLAIN_IMPORTS": "1"},
}
ENV = {"ANTICAPTCHA_CLIENT_KEY": KEY}
Start = Callable[..., Talk]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, str]:
    """The variables of each way."""
    return WAYS[request.param]


def codes(message: Any) -> Any:
    """What a message answers: ids with codes, or that it is a result; batches in an order."""
    if isinstance(message, list):
        return sorted((codes(one) for one in message), key=repr)
    return (repr(message["id"]), message["error"]["code"] if "error" in message else "result")


EXPECTED: list[Any] = [
    *[-32601] * 4, None, None, -32601, -32700, -32600, -32700, -32600, [-32600], [-32600] * 3,
    [-32600, *[-32601] * 4], None, -32601, -32601, -32601, None,
]  # fmt: skip
"""What the specification's examples are answered by a service that has none of their methods."""


def only_codes(answer: Any) -> Any:
    """The codes of an answer alone."""
    return sorted((code for _, code in answer), reverse=True) if isinstance(answer, list) else answer[1]


@pytest.mark.parametrize("framing", ["line", "header"])
def test_the_examples_of_the_specification_are_answered(
    talk: Start, way: dict[str, str], framing: str
) -> None:
    """Whichever way the service takes, every example gets its answer and the others get none."""
    sent = [text.encode() for _, text, _ in EXAMPLES]
    bridge = talk("--sandbox", environ=way)
    if framing == "line":
        bridge.send_bytes(b"".join(text + b"\n" for text in sent))
        output = bridge.close().stdout
        answers = [json.loads(line) for line in output.splitlines()]
    else:
        bridge.send_bytes(b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(text), text) for text in sent))
        output = bridge.close().stdout
        answers = []
        while output:
            head, _, output = output.partition(b"\r\n\r\n")
            length = int(head.removeprefix(b"Content-Length: "))
            answers.append(json.loads(output[:length]))
            output = output[length:]
    found = sorted((only_codes(codes(answer)) for answer in answers), key=repr)
    assert found == sorted((code for code in EXPECTED if code is not None), key=repr)


def test_reports_are_made_joined_replayed_and_remembered(
    talk: Start, way: dict[str, str], simulator: Simulator, tmp_path: Path
) -> None:
    """Answers, replays, the ledger and the exit code are the same on every way."""
    words = ("--url", simulator.base_url, "--ledger", str(tmp_path / "l.db"))
    bridge = talk(*words, environ={**ENV, **way})
    names = [bridge.send(IMAGE, {"taskId": 1 + number // 2}) for number in range(100)]
    answers = bridge.read_all(names)
    results = [answers[name]["result"] for name in names]
    assert all(result["outcome"] == "accepted" and result["durable"] for result in results)
    assert sum(not result["replayed"] for result in results) == 50
    assert bridge.report(50)["result"]["replayed"]
    assert bridge.call("bridge.getReport", {"taskId": 7})["result"]["outcome"] == "accepted"
    status = bridge.call("bridge.status")["result"]
    assert (status["outcomes"]["accepted"], status["inFlight"], status["ledger"]["healthy"]) == (50, 0, True)
    ended = bridge.close()
    assert (ended.code, ended.stderr, ended.stdout) == (0, "", b"")
    # Whoever comes next, on the usual way, finds it all.
    heir = talk(*words, environ=ENV)
    assert heir.report(33)["result"]["replayed"]
    assert heir.close().code == 0


def test_the_end_of_input_waits_for_every_answer(talk: Start, way: dict[str, str], tmp_path: Path) -> None:
    """What was accepted before the end is answered, more of it than may be sent at once."""
    bridge = talk(
        "--sandbox", "--concurrency", "3", "--no-pauses", "--ledger", str(tmp_path / "l.db"), environ=way
    )
    names = [bridge.send(IMAGE, {"taskId": number}) for number in range(1, 41)]
    ended = bridge.close()
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert sorted(answer["id"] for answer in answers) == names
    assert {answer["result"]["outcome"] for answer in answers} == {"accepted"}
    assert ended.code == 0


def test_a_signal_ends_what_has_begun_and_what_has_not(
    talk: Start, way: dict[str, str], tmp_path: Path
) -> None:
    """After the drain the report under way is unknown and the waiting one was not sent."""
    with Simulator(latency_s=30.0) as slow:
        bridge = talk(
            "--url", slow.base_url, "--concurrency", "1", "--no-pauses", "--drain", "0.2",
            "--ledger", str(tmp_path / "l.db"), environ={**ENV, **way},
        )  # fmt: skip
        first, second = bridge.send(IMAGE, {"taskId": 1}), bridge.send(IMAGE, {"taskId": 2})
        wait_for(lambda: bridge.call("bridge.status")["result"]["inFlight"] == 1)
        bridge.signal(signal.SIGTERM)
        answers = bridge.read_all([first, second])
        assert error_of(answers[first]) == (-32002, "outcome_unknown")
        assert error_of(answers[second]) == (-32032, "shutting_down")
        assert bridge.wait().code == 75


def test_nothing_is_sent_after_a_cancel(talk: Start, way: dict[str, str], tmp_path: Path) -> None:
    """A request that was cancelled as soon as it was made is answered, and its task stays free."""
    bridge = talk("--sandbox", "--ledger", str(tmp_path / "l.db"), environ=way)
    bridge.sync()
    request = json.dumps({"jsonrpc": "2.0", "id": "c", "method": IMAGE, "params": {"taskId": 5}}).encode()
    cancel = json.dumps({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": "c"}}).encode()
    # In one write, so that the cancel is read before anything can have begun.
    bridge.send_bytes(request + b"\n" + cancel + b"\n")
    assert error_of(bridge.read_message()) == (-32800, "request_cancelled")
    answer = bridge.report(5)["result"]
    assert (answer["outcome"], answer["replayed"]) == ("accepted", False)
    assert bridge.close().code == 0


def test_upstream_trouble_is_told_alike(talk: Start) -> None:
    """What the upstream may do to an attempt ends as the same answer, wherever it is awaited."""
    troubles = [MAGIC + number for number in (1, 2, 10, 16, 21, 55)]
    troubles += [row["taskId"] for row in describe_magic()["faults"]]
    found = []
    for way in WAYS.values():
        bridge = talk("--sandbox", "--no-pauses", "--concurrency", "64", "--timeout", "2.5", environ=way)
        names = {bridge.send(IMAGE, {"taskId": number}): number for number in troubles}
        answers = bridge.read_all(names)
        found.append({names[name]: what_became(answer) for name, answer in answers.items()})
        assert bridge.close().code == 0
    assert found == [found[0]] * 2
    assert len(set(found[0].values())) > 8


def what_became(answer: Any) -> tuple[Any, ...]:
    """Code, outcome, kind and cause of a report's answer."""
    if "result" in answer:
        return (0, answer["result"]["outcome"])
    data = answer["error"]["data"]
    return answer["error"]["code"], data["outcome"], data["kind"], data.get("cause")
