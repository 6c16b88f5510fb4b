"""Every way a bridge may come to its end, with work under way and without."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.simulator import Simulator
from tests.e2e.talk import IMAGE, KEY, Talk, error_of, wait_for
from tests.process import PATIENCE_S, ROOT, Ended, block_signals, ignore_signals

Start = Callable[..., Talk]
WITH_KEY = {"ANTICAPTCHA_CLIENT_KEY": KEY}


def demand_quiet(ended: Ended) -> None:
    """Demand that stderr holds no traceback."""
    assert "Traceback" not in ended.stderr
    assert "internal_error" not in ended.stderr


# --- end of input ----------------------------------------------------------------------------


def test_end_of_input_finishes_what_was_accepted(talk: Start, simulator: Simulator) -> None:
    """Reports under way, waiting for a slot and parked are all answered before the exit."""
    simulator.add_fault("latency", seconds=0.1)
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "4", "--queue", "6", "--no-pauses", environ=WITH_KEY
    )
    names = [bridge.send(IMAGE, {"taskId": n}) for n in range(1, 21)]
    bridge.close_input()
    answers = bridge.read_all(names)
    assert all(answer["result"]["outcome"] == "accepted" for answer in answers.values())
    ended = bridge.wait()
    assert ended.code == 0
    assert ended.stdout == b""
    demand_quiet(ended)


def test_end_of_input_ends_with_the_windows(talk: Start, simulator: Simulator) -> None:
    """With an upstream that hangs, the end comes when the windows are over, and all is answered."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "2", "--timeout", "1", "--no-pauses", environ=WITH_KEY
    )
    completed_at = time.time() - 55
    names = [bridge.send(IMAGE, {"taskId": n, "completedAt": completed_at}) for n in range(1, 9)]
    bridge.close_input()
    answers = bridge.read_all(names, timeout_s=30)
    kinds = {error_of(answer) for answer in answers.values()}
    # On a busy machine a second may be too short to connect: then it is certain that nothing was sent.
    assert kinds <= {(-32002, "outcome_unknown"), (-32010, "window_closed"), (-32001, "upstream_unreachable")}
    ended = bridge.wait()
    assert ended.code == 0


def test_an_unfinished_last_line_is_still_a_message(talk: Start) -> None:
    """What stands behind the last line end is taken when the input ends."""
    bridge = talk("--sandbox")
    bridge.send_bytes(b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"taskId":1}}' % IMAGE.encode())
    bridge.close_input()
    assert bridge.read_message()["result"]["outcome"] == "accepted"
    assert bridge.wait().code == 0


# --- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("drain", ["8", "0"])
def test_an_idle_bridge_ends_at_once(talk: Start, number: int, drain: str) -> None:
    """SIGTERM and SIGHUP end an idle bridge with exit code 0, long before the drain time."""
    bridge = talk("--sandbox", "--drain", drain)
    bridge.sync()
    began = time.monotonic()
    bridge.signal(number)
    ended = bridge.wait()
    assert ended.code == 0
    assert time.monotonic() - began < 7
    demand_quiet(ended)


@pytest.mark.parametrize("drain", ["30", "0.2"])
def test_a_stopped_bridge_waits_for_who_reads_its_answers(talk: Start, drain: str) -> None:
    """Within the drain time a busy client gets every answer whole; what it does not take then is told."""
    reader, writer = os.pipe()
    bridge = talk("--sandbox", "--drain", drain, stdout=writer)
    os.close(writer)
    names = [bridge.send("rpc.discover") for _ in range(5)]  # one alone is more than a pipe holds
    assert select.select([reader], [], [], PATIENCE_S)[0]
    bridge.signal(signal.SIGTERM)
    is_lost = drain == "0.2"
    ended = bridge.wait() if is_lost else None
    if not is_lost:
        time.sleep(3.0)  # longer than the last answers of all are waited for
    with os.fdopen(reader, "rb") as stream:
        lines = stream.read().splitlines(keepends=True)
    whole = [json.loads(line)["id"] for line in lines if line.endswith(b"\n")]
    ended = ended or bridge.wait()
    if is_lost:
        assert (ended.code, whole) == (75, [])
        assert [event["event"] for event in ended.events] == ["answers_unread"]
    else:
        assert (ended.code, whole, ended.stderr) == (0, names, "")


def test_what_waits_behind_unread_answers_ends_with_their_reader(talk: Start) -> None:
    """When a client that does not read closes its end, what waits for room goes on, and the bridge ends."""
    reader, writer = os.pipe()
    bridge = talk("--sandbox", "--queue", "1", "--no-pauses", stdout=writer)
    os.close(writer)
    discover = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'  # one answer is more than a pipe holds
    report = b'{"jsonrpc":"2.0","id":2,"method":"%b","params":{"taskId":1}}\n' % IMAGE.encode()
    bridge.send_bytes(discover * 3 + report)  # in one piece: what is behind unread answers is not read
    assert select.select([reader], [], [], PATIENCE_S)[0]
    os.close(reader)
    ended = bridge.wait()
    assert (ended.code, [event["event"] for event in ended.events]) == (74, ["stdout_gone"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_up_what_does_not_end(talk: Start, simulator: Simulator, number: int) -> None:
    """After the drain time the never begun end not_sent, the begun are left to recovery, exit code 75."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--concurrency", "1", "--queue", "3", "--drain", "0.5", "--no-pauses",
        environ=WITH_KEY,
    )  # fmt: skip
    begun = bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    others = [bridge.send(IMAGE, {"taskId": n}) for n in range(2, 7)]
    joined = bridge.send(IMAGE, {"taskId": 1})
    time.sleep(0.3)  # the last of them are read and parked, or not read: both are to be answered or not sent
    bridge.signal(number)
    answers = {}
    while (line := bridge.read_line()) is not None:
        message = json.loads(line)
        answers[message["id"]] = message
    assert error_of(answers[begun]) == (-32002, "outcome_unknown")
    assert answers[begun]["error"]["data"]["retryable"] is False
    for name in others[:2]:
        assert error_of(answers[name]) == (-32032, "shutting_down")
        data = answers[name]["error"]["data"]
        assert (data["outcome"], data["retryable"], data["attempts"]) == ("not_sent", True, 0)
    for name in (*others[2:], joined):
        assert name not in answers or answers[name]["error"]["code"] in (-32032, -32002)
    ended = bridge.wait()
    assert ended.code == 75
    demand_quiet(ended)
    assert {entry["taskId"] for entry in simulator.log()} == {1}
    simulator.clear_faults()
    after = talk("--url", simulator.base_url, environ=WITH_KEY)
    record = after.call("bridge.getReport", {"taskId": 2})["result"]
    assert (record["state"], record["outcome"], record["kind"]) == ("done", "not_sent", "shutting_down")
    done = wait_for(lambda: _if_done(after.call("bridge.getReport", {"taskId": 1})["result"]))
    assert done["outcome"] in ("accepted", "unknown")
    assert after.report(2)["result"]["outcome"] == "accepted"


def _if_done(record: dict[str, str]) -> dict[str, str] | None:
    return record if record["state"] == "done" else None


def test_a_signal_gives_up_what_waits_for_a_key(talk: Start, simulator: Simulator) -> None:
    """A report that waits for a slow key command is answered shutting_down, exit code 75."""
    bridge = talk("--url", simulator.base_url, "--drain", "0.3", "--key-command", "sleep 30")
    name = bridge.send(IMAGE, {"taskId": 1})
    bridge.sync()
    bridge.signal(signal.SIGTERM)
    message = bridge.read_message()
    assert (message["id"], *error_of(message)) == (name, -32032, "shutting_down")
    assert bridge.wait().code == 75


def test_a_signal_lets_running_work_finish(talk: Start, simulator: Simulator) -> None:
    """What ends within the drain time is answered as always, and the exit code is 0."""
    simulator.add_fault("latency", seconds=1.5)
    bridge = talk("--url", simulator.base_url, "--no-pauses", "--drain", "30", environ=WITH_KEY)
    names = [bridge.send(IMAGE, {"taskId": n}) for n in (1, 2, 3)]
    wait_for(lambda: simulator.counters()["inFlight"] == 3)
    bridge.signal(signal.SIGTERM)
    bridge.read_error("")
    time.sleep(0.2)
    with contextlib.suppress(BrokenPipeError):
        bridge.send(IMAGE, {"taskId": 4})
    answers = bridge.read_all(names)
    assert all("result" in answer for answer in answers.values())
    ended = bridge.wait()
    assert ended.code == 0
    assert ended.stdout == b""
    assert simulator.deliveries(4) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_second_signal_ends_at_once(
    talk: Start, simulator: Simulator, number: signal.Signals, code: int
) -> None:
    """Who signals twice does not want to wait for the drain."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--drain", "60", "--timeout", "60", "--log-level", "info",
        environ=WITH_KEY,
    )  # fmt: skip
    bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    bridge.signal(number)
    bridge.read_error("stopping")
    bridge.signal(number)
    assert bridge.wait().code == code


def test_the_first_interrupt_of_a_child_is_ignored(talk: Start, simulator: Simulator) -> None:
    """SIGINT is left to the parent once, with one line on stderr; the second one drains, exit code 130."""
    simulator.add_fault("hang")
    bridge = talk("--url", simulator.base_url, "--drain", "0.2", environ=WITH_KEY)
    name = bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    bridge.signal(signal.SIGINT)
    bridge.read_error("sigint_ignored")
    bridge.sync()
    bridge.signal(signal.SIGINT)
    answer = bridge.read_message()
    assert (answer["id"], *error_of(answer)) == (name, -32002, "outcome_unknown")
    ended = bridge.wait()
    assert ended.code == 130
    assert ended.stderr.count("sigint_ignored") == 1


@pytest.mark.parametrize(("count", "exit_code"), [(1, 0), (2, 130)])
def test_an_interrupt_before_a_child_serves_is_left_to_the_parent(
    clean_environment: Path, count: int, exit_code: int
) -> None:
    """Of interrupts while the bridge is being loaded the first one is told, and the second one ends it."""
    code = (
        "import builtins, os, signal, sys\n"
        "real = builtins.__import__\n"
        "def load(name, *rest):\n"
        "    if name == 'bridge.settings':\n"
        "        builtins.__import__ = real\n"
        f"        for _ in range({count}):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = load\n"
        "sys.argv = ['report-bridge', 'serve', '--sandbox']\n"
        "from bridge.cli.main import run\n"
        "run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n',
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == exit_code
    assert [json.loads(line)["result"]["sandbox"] for line in done.stdout.splitlines()] == [True] * (
        2 - count
    )
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"sigint_ignored") == 1


@pytest.mark.parametrize("is_ignored", [False, True])
def test_an_interrupt_ends_a_single_call(talk: Start, simulator: Simulator, is_ignored: bool) -> None:
    """Ctrl-C ends `call` with 130 and without a word, unless it is a job whose shell leaves it alone."""
    simulator.add_fault("latency", seconds=2.0)
    call = talk(
        "call", IMAGE, "taskId=1", "--url", simulator.base_url, "--ledger", "memory",
        environ=WITH_KEY, preexec_fn=ignore_interrupts if is_ignored else None,
    )  # fmt: skip
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    call.signal(signal.SIGINT)
    ended = call.wait()
    assert (ended.code, ended.stderr) == (0 if is_ignored else 130, "")
    assert ended.stdout.startswith(b"accepted") == is_ignored


def ignore_interrupts() -> None:
    """Do as a shell that starts a job in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_signal_ends_a_bridge_whose_client_does_not_read(talk: Start, clean_environment: Path) -> None:
    """Answers that nobody reads do not keep a stopped bridge alive."""
    source, sink = os.pipe()
    bridge = talk("--sandbox", "--drain", "0.3", stdout=sink)
    os.close(sink)
    for n in range(40):
        bridge.send_line(b'{"jsonrpc":"2.0","id":%d,"method":"rpc.discover"}' % n)
    assert select.select([source], [], [], PATIENCE_S)[0]
    time.sleep(0.3)  # the pipe fills up meanwhile
    bridge.signal(signal.SIGTERM)
    ended = bridge.wait()
    assert ended.code in (0, 75)
    demand_quiet(ended)
    os.close(source)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("handed_down", [block_signals, ignore_signals])
def test_a_parent_cannot_disable_signals(
    talk: Start, simulator: Simulator, number: int, handed_down: Callable[[], None]
) -> None:
    """Whatever the parent blocked or ignored, a signal drains, and the second one ends the bridge at once."""
    simulator.add_fault("hang")
    bridge = talk(
        "--url", simulator.base_url, "--drain", "60", "--timeout", "60", "--log-level", "info",
        environ=WITH_KEY, preexec_fn=handed_down,
    )  # fmt: skip
    bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    bridge.signal(number)
    bridge.read_error("requests still to be answered: 1.")
    bridge.signal(number)
    assert bridge.wait().code == 128 + number


def test_the_end_counts_what_is_still_to_be_answered(talk: Start, clean_environment: Path) -> None:
    """A request that was read and not answered yet is told in the log, whatever it waits for."""
    given = clean_environment / "given"
    given.write_text(json.dumps({"jsonrpc": "2.0", "id": 1, "method": IMAGE, "params": {"taskId": 1}}))
    with given.open("rb") as stdin:
        bridge = talk("--sandbox", "--log-level", "info", stdin=stdin)
        ended = bridge.wait()
    [stopping] = [event for event in ended.events if event["event"] == "stopping"]
    assert (stopping["reason"], stopping["in_flight"]) == ("end of input", 1)


def test_closed_standard_descriptors_are_noticed(talk: Start) -> None:
    """Without input the bridge ends at once; without output as when the reader is gone, exit code 74."""
    bridge = talk("--sandbox", stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(0))
    ended = bridge.wait()
    assert ended.code == 0
    assert "empty_input" in ended.stderr
    bridge = talk("--sandbox", preexec_fn=lambda: os.close(1))
    bridge.send(IMAGE, {"taskId": 1})
    ended = bridge.wait()
    assert ended.code == 74
    assert "stdout_gone" in ended.stderr
    demand_quiet(ended)
    bridge = talk("--sandbox", preexec_fn=lambda: os.close(2))
    assert bridge.report(1)["result"]["outcome"] == "accepted"
    assert bridge.close().code == 0


def test_a_log_file_does_not_take_the_place_of_a_closed_output(talk: Start, clean_environment: Path) -> None:
    """Answers go to standard output or nowhere: what is opened for the log has another number."""
    log = clean_environment / "log"
    bridge = talk("--sandbox", "--log-file", str(log), preexec_fn=lambda: os.close(1))
    bridge.send("bridge.info")
    assert bridge.wait().code == 74
    text = log.read_text()
    assert "stdout_gone" in text
    assert "result" not in text


def test_exit_ends_a_bridge_that_is_spoken_to_with_headers(talk: Start, simulator: Simulator) -> None:
    """The notification exit counts as end of input though the pipe stays open."""
    simulator.add_fault("latency", seconds=0.3)
    bridge = talk("--url", simulator.base_url, environ=WITH_KEY)
    for text in (
        f'{{"jsonrpc":"2.0","id":1,"method":"{IMAGE}","params":{{"taskId":1}}}}',
        '{"jsonrpc":"2.0","id":2,"method":"shutdown"}',
        '{"jsonrpc":"2.0","method":"exit"}',
        '{"jsonrpc":"2.0","id":3,"method":"bridge.info"}',
    ):
        bridge.send_bytes(b"Content-Length: %d\r\n\r\n%b" % (len(text), text.encode()))
    ended = bridge.wait()
    assert ended.code == 0
    answers = [json.loads(found) for found in re.findall(rb"\{.*?\}(?=Content-Length|$)", ended.stdout)]
    assert [answer["id"] for answer in answers] == [2, 1]
    assert answers[0]["result"] is None
    assert answers[1]["result"]["outcome"] == "accepted"


# --- stdout and the parent gone --------------------------------------------------------------


def test_stdout_gone_is_exit_code_74(talk: Start, simulator: Simulator) -> None:
    """When nobody reads any more, the report under way is still recorded; no traceback, exit code 74."""
    simulator.add_fault("latency", seconds=0.5)
    source, sink = os.pipe()
    bridge = talk("--url", simulator.base_url, stdout=sink, environ=WITH_KEY)
    os.close(sink)
    bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    os.close(source)
    bridge.send("bridge.info")
    ended = bridge.wait()
    assert ended.code == 74
    assert ended.stderr.count("stdout_gone") == 1
    demand_quiet(ended)
    after = talk("--url", simulator.base_url, environ=WITH_KEY)
    assert after.call("bridge.getReport", {"taskId": 1})["result"]["outcome"] == "accepted"


def test_what_nobody_can_be_told_of_is_left_to_the_next_bridge(talk: Start, simulator: Simulator) -> None:
    """A report that waits when its reader is gone and the signal comes is sent by who comes next."""
    simulator.add_fault("latency", seconds=5.0, count=1)
    source, sink = os.pipe()
    words = ("--url", simulator.base_url, "--concurrency", "1", "--drain", "0.2")
    bridge = talk(*words, stdout=sink, environ=WITH_KEY)
    os.close(sink)
    bridge.send(IMAGE, {"taskId": 1})
    wait_for(lambda: simulator.counters()["inFlight"] == 1)
    bridge.send(IMAGE, {"taskId": 2})
    os.close(source)
    bridge.send("bridge.info")
    bridge.read_error("stdout_gone")
    bridge.signal(signal.SIGTERM)
    assert bridge.wait().code == 74
    after = talk("--url", simulator.base_url, environ=WITH_KEY)
    wait_for(lambda: after.call("bridge.getReport", {"taskId": 2})["result"]["outcome"] == "accepted")


def test_stdout_gone_while_much_waits_to_be_written(talk: Start) -> None:
    """A reader that goes away with a full pipe ends the bridge, too."""
    source, sink = os.pipe()
    bridge = talk("--sandbox", stdout=sink)
    os.close(sink)
    for n in range(40):
        bridge.send_line(b'{"jsonrpc":"2.0","id":%d,"method":"rpc.discover"}' % n)
    time.sleep(0.3)
    os.close(source)
    ended = bridge.wait()
    assert ended.code == 74
    demand_quiet(ended)


ORPHAN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "bridge", *sys.argv[1:]])
time.sleep(600)
"""


@pytest.mark.parametrize("watch", [True, False])
def test_a_gone_parent_is_noticed_though_the_pipe_stays_open(
    clean_environment: Path, simulator: Simulator, watch: bool
) -> None:
    """The bridge finishes and ends when its parent is killed, unless it was told not to look."""
    simulator.add_fault("latency", seconds=2.5)
    words = ["--url", simulator.base_url, *(() if watch else ("--no-parent-watch",))]
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT), **WITH_KEY},
    )  # fmt: skip
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stderr is not None
    try:
        request = f'{{"jsonrpc":"2.0","id":7,"method":"{IMAGE}","params":{{"taskId":1}}}}\n'
        parent.stdin.write(request.encode())
        parent.stdin.flush()
        wait_for(lambda: simulator.counters()["inFlight"] == 1)
        parent.kill()
        parent.wait()
        assert json.loads(parent.stdout.readline())["result"]["outcome"] == "accepted"
        if watch:
            assert parent.stdout.readline() == b""
            assert b"parent_gone" in parent.stderr.read()
        else:
            ready, _, _ = select.select([parent.stdout], [], [], 2.5)
            assert not ready
            parent.stdin.close()
            assert parent.stdout.readline() == b""
    finally:
        parent.kill()
        for pipe in (parent.stdin, parent.stdout, parent.stderr):
            pipe.close()
