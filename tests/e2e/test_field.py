"""What users met: situations of the field, each in the real process as it was met."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from bridge.simulator import Simulator
from tests.authority import Authority
from tests.e2e.talk import HCAPTCHA, IMAGE, KEY, RECAPTCHA, Talk, error_of, wait_for
from tests.faultserver import FaultServer, Peer, answer_once, spell_answer
from tests.oddheads import ODD

Start = Callable[..., Talk]
WITH_KEY = {"ANTICAPTCHA_CLIENT_KEY": KEY}
KEPT = 8


class Network:
    """Connections from before a change of the network die in one way; later ones work."""

    def __init__(self, die: Callable[[Peer], None]) -> None:
        self.has_changed = False
        self._die = die

    def script(self, peer: Peer) -> None:
        """Answer; at first so slowly that reports asked for together have a connection each."""
        is_old = not self.has_changed
        while peer.read_request() is not None:
            if is_old and self.has_changed:
                self._die(peer)
                return
            if is_old:
                peer.server.is_over.wait(0.5)
            peer.send(spell_answer())


@pytest.mark.parametrize("die", [Peer.hold, Peer.reset, lambda peer: None], ids=["silent", "reset", "end"])
@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
def test_a_change_of_the_network_costs_one_attempt(
    talk: Start, authority: Authority, die: Callable[[Peer], None], is_tls: bool
) -> None:
    """With eight dead connections one second attempt is accepted, and later reports go at once."""
    network = Network(die)
    with FaultServer(network.script, authority.serve("127.0.0.1") if is_tls else None) as server:
        words = ["--url", server.url, "--ledger", "memory", "--timeout", "2"]
        bridge = talk(*words, *(("--ca-file", authority.ca_file) if is_tls else ()), environ=WITH_KEY)
        assert "result" in bridge.report(1), "a key that had a verdict lets all go at once"
        names = [bridge.send(IMAGE, {"taskId": number}) for number in range(2, KEPT + 2)]
        assert all("result" in answer for answer in bridge.read_all(names).values())
        network.has_changed = True
        answer = bridge.report(100)
        assert answer["result"]["attempts"] <= 2
        assert [bridge.report(number)["result"]["attempts"] for number in (101, 102)] == [1, 1]
        assert KEPT < server.connections <= KEPT + 2


def test_heads_that_browsers_accept_are_accepted(talk: Start) -> None:
    """However odd the head of an answer is, the report was taken and is said to be, after one request."""
    answers = itertools.cycle(ODD.values())

    def script(peer: Peer) -> None:
        # A connection that ends by itself, while the bridge keeps it, would cost a second request.
        while peer.read_request() is not None:
            peer.send(next(answers))

    with FaultServer(script) as server:
        bridge = talk("--url", server.url, "--ledger", "memory", environ=WITH_KEY)
        for number, what in enumerate(ODD, 1):
            answer = bridge.report(number)
            assert "result" in answer, what
            assert (answer["result"]["outcome"], answer["result"]["attempts"]) == ("accepted", 1), what
        assert len(server.requests) == len(ODD)


def test_the_sandbox_leaves_the_ledger_of_the_environment_alone(talk: Start, tmp_path: Path) -> None:
    """Made-up tasks do not get into the ledger that a variable or a configuration file names."""
    real = tmp_path / "real.sqlite3"
    config = tmp_path / "report-bridge" / "config.toml"
    config.parent.mkdir()
    config.write_text(f'ledger = "{real}"\n')
    for environ in ({"REPORT_BRIDGE_LEDGER": str(real)}, {"XDG_CONFIG_HOME": str(tmp_path)}):
        bridge = talk("--sandbox", environ=environ)
        assert bridge.report(1)["result"]["durable"] is False
        assert bridge.close().code == 0
    assert not real.exists()


def test_a_ledger_of_the_sandbox_is_read_again(talk: Start, tmp_path: Path) -> None:
    """Records, replays and pauses of a sandbox ledger outlive its process, though the port changes."""
    words = ["--sandbox", "--ledger", str(tmp_path / "sandbox.sqlite3")]
    first = talk(*words)
    assert first.report(7)["result"]["replayed"] is False
    assert error_of(first.report(9_000_000_000_000_055))[0] == 55
    assert first.close().code == 0
    again = talk(*words)
    assert again.call("bridge.getReport", {"taskId": 7})["result"]["outcome"] == "accepted"
    assert [each["taskId"] for each in again.call("bridge.listReports")["result"]["reports"]][-1] == 7
    assert again.report(7)["result"]["replayed"] is True
    assert again.call("bridge.status")["result"]["pauses"]
    assert error_of(again.report(8)) == (-32021, "sending_paused")


@pytest.mark.parametrize("is_neighbour", [False, True], ids=["same bridge", "another"])
def test_what_would_be_refused_beside_a_report_under_way_is_a_conflict(
    talk: Start, simulator: Simulator, tmp_path: Path, is_neighbour: bool
) -> None:
    """Another method, or an unfit pool, is -32011 while the report is under way, here and elsewhere."""
    simulator.add_fault("latency", seconds=1.5)
    words = ["--url", simulator.base_url, "--ledger", str(tmp_path / "ledger.sqlite3")]
    bridge = talk(*words, environ=WITH_KEY)
    other = talk(*words, environ=WITH_KEY) if is_neighbour else bridge
    other.sync()
    under_way = bridge.send(RECAPTCHA, {"taskId": 70})
    images = bridge.send(IMAGE, {"taskId": 71})
    wait_for(lambda: simulator.counters()["requests"] >= 1)
    unfit = other.send(HCAPTCHA, {"taskId": 70, "taskType": "RecaptchaV2Task"})
    pool = other.send(IMAGE, {"taskId": 71, "taskType": "ImageToTextTask", "languagePool": "rn"})
    answers = other.read_all([unfit, pool] if is_neighbour else [unfit, pool, under_way, images])
    assert error_of(answers[unfit]) == (-32011, "task_conflict")
    assert error_of(answers[pool]) == (-32011, "task_conflict")
    if is_neighbour:
        answers |= bridge.read_all([under_way, images])
    assert {json.dumps(answers[name].get("result", {}).get("outcome")) for name in (under_way, images)} == {
        '"accepted"'
    }


def test_another_authority_at_the_same_path_lifts_the_pause(
    talk: Start, authority: Authority, tmp_path: Path
) -> None:
    """What a wrong CA has paused goes on after a start with the right one, whatever the file is called."""
    ca_file, ledger = tmp_path / "now.pem", str(tmp_path / "ledger.sqlite3")
    wrong, right = trustme.CA().cert_pem.bytes(), Path(authority.ca_file).read_bytes()
    outcomes = []
    with FaultServer(answer_once(spell_answer()), authority.serve("127.0.0.1")) as server:
        for number, ca in enumerate([wrong, wrong, right], 1):
            ca_file.write_bytes(ca)
            words = ["--url", server.url, "--ledger", ledger, "--ca-file", str(ca_file)]
            bridge = talk(*words, environ=WITH_KEY)
            answer = bridge.report(number)
            outcomes.append("taken" if "result" in answer else error_of(answer)[0])
            assert bridge.close().code == 0
    assert outcomes == [-32001, -32021, "taken"]
