"""Bad days replayed: what each bot sees, how many calls the upstream sees, and how it heals."""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge.core.model import Exchange
from bridge.simulator import Simulator
from tests.process import BridgeProcess
from tests.world import Attempt, Bridge, World, http, scratch_directory

IMAGE = "reportIncorrectImageCaptcha"
RECAPTCHA = "reportIncorrectRecaptcha"
KEY, BETTER_KEY = "k" * 32, "b" * 32
PAUSED, LATE = -32021, -32010

StartBots = Callable[..., list[BridgeProcess]]


@pytest.fixture
def upstream() -> Iterator[Simulator]:
    """The simulated upstream."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the ledger is: in memory, where nobody waits for a disk."""
    with tempfile.TemporaryDirectory(dir=scratch_directory()) as name:
        yield Path(name)


@pytest.fixture
def start_bots(bridge_process: Callable[..., BridgeProcess], upstream: Simulator, folder: Path) -> StartBots:
    """Start so many bots on one machine, each with a bridge of its own on the common ledger."""

    def start(count: int, *words: str) -> list[BridgeProcess]:
        common = ("--url", upstream.base_url, "--ledger", str(folder / "ledger.db"), *words)
        return [bridge_process(*common, environ={"ANTICAPTCHA_CLIENT_KEY": KEY}) for _ in range(count)]

    return start


class Seen:
    """What a bot sees of its report."""

    def __init__(self, message: dict[str, Any]) -> None:
        error = message.get("error")
        self.code = 0 if error is None else error["code"]
        self.data: dict[str, Any] = message["result"] if error is None else error["data"]

    @property
    def pause(self) -> str | None:
        """Scope and cause of the pause it met."""
        pause = self.data.get("pause")
        return None if pause is None else f"{pause['scope']}/{pause['cause']}"


def ask(bot: BridgeProcess, task_id: int, method: str = IMAGE, **told: Any) -> Seen:
    """Report a task completed a moment ago."""
    return Seen(bot.call(method, {"taskId": task_id, "completedAt": time.time() - 5, **told}))


def ask_all(bots: list[BridgeProcess], first: int, each: int = 1) -> list[Seen]:
    """Let all bots report tasks of their own at the same time."""
    for place, bot in enumerate(bots):
        for nth in range(each):
            bot.send(IMAGE, {"taskId": first + place * each + nth, "completedAt": time.time() - 5})
    return [Seen(bot.read_message()) for bot in bots for _ in range(each)]


def calls(upstream: Simulator) -> int:
    """How many reports the upstream was sent so far."""
    return upstream.counters()["requests"]


def pauses(bot: BridgeProcess) -> list[str]:
    """Scopes and causes of the pauses that a bot's bridge shows."""
    shown = bot.call("bridge.status")["result"]["pauses"]
    return [f"{pause['scope']}/{pause['cause']}" for pause in shown if pause["state"] != "closed"]


def test_a_wrong_key_in_ten_bots(upstream: Simulator, start_bots: StartBots) -> None:
    """One bot hears it from the upstream, all others from the pause; a person and a good key heal it."""
    upstream.set_account(KEY, "unknown")
    bots = start_bots(10)
    seen = ask_all(bots, 1, each=5)
    assert Counter(one.code for one in seen) == {1: 1, PAUSED: 49}
    assert {one.pause for one in seen if one.code == PAUSED} == {"key/key_does_not_exist"}
    assert not any(one.data["retryable"] for one in seen)
    assert calls(upstream) == 1
    assert ask(bots[3], 100, clientKey=BETTER_KEY).code == 0
    assert ask(bots[4], 101).code == PAUSED
    upstream.set_account(KEY, "ok")
    assert len(bots[0].call("bridge.resume", {"scope": "key"})["result"]["resumed"]) == 1
    assert [one.code for one in ask_all(bots, 200)] == [0] * 10
    assert pauses(bots[9]) == []
    assert calls(upstream) == 1 + 1 + 10


@pytest.mark.parametrize(
    ("fault", "code", "scope"),
    [
        ({"name": "error", "error_id": 21, "error_code": "ERROR_IP_BLOCKED"}, 21, "address/ip_blocked"),
        ({"name": "status", "status": 403}, -32003, "address/http_forbidden"),
    ],
)
def test_a_blocked_address(
    upstream: Simulator, start_bots: StartBots, fault: dict[str, Any], code: int, scope: str
) -> None:
    """After one sign of a block nobody on this machine sends, whatever its key, until the probe is taken."""
    bots = start_bots(4)
    assert [one.code for one in ask_all(bots, 1)] == [0] * 4
    fault_id = upstream.add_fault(**fault)
    assert ask(bots[0], 10).code == code
    after = [ask(bot, 20 + place) for place, bot in enumerate(bots)]
    assert [(one.code, one.pause) for one in after] == [(PAUSED, scope)] * 4
    assert ask(bots[1], 30, clientKey=BETTER_KEY).pause == scope
    assert calls(upstream) == 5
    # Resumed too early: the probe finds the block again, and the pause goes on, longer.
    bots[2].call("bridge.resume", {"scope": "address"})
    assert ask(bots[2], 40).code == code
    assert ask(bots[3], 41).code == PAUSED
    upstream.clear_faults(fault_id)
    bots[2].call("bridge.resume", {"scope": "address"})
    assert ask(bots[1], 50).code == 0
    assert [one.code for one in ask_all(bots, 60)] == [0] * 4
    assert calls(upstream) == 5 + 1 + 5


def test_a_site_change_that_makes_every_report_wrong(upstream: Simulator, start_bots: StartBots) -> None:
    """Ten refusals with 16 in a row stop that key and method for every bot, and nothing else."""
    bots = start_bots(4)
    assert [one.code for one in ask_all(bots, 1)] == [0] * 4
    # The tasks are now of a kind that the called method does not fit.
    for task_id in range(100, 200):
        upstream.add_task("recaptcha_v2", task_id=task_id)
    codes = [ask(bots[nth % 4], 100 + nth).code for nth in range(40)]
    assert codes == [16] * 10 + [PAUSED] * 30
    assert ask(bots[0], 150).pause == "quality/no_such_captcha"
    assert calls(upstream) == 4 + 10
    assert ask(bots[1], 151, RECAPTCHA).code == 0
    assert ask(bots[2], 200, clientKey=BETTER_KEY).code == 0
    bots[0].call("bridge.resume", {"scope": "quality"})
    assert [ask(bots[3], 160).code, ask(bots[3], 161).code] == [16, PAUSED]
    # The program is mended.
    bots[0].call("bridge.resume", {"scope": "quality"})
    assert [one.code for one in ask_all(bots, 300)] == [0] * 4
    assert pauses(bots[0]) == []


def test_an_upstream_that_is_away_for_some_seconds(upstream: Simulator, start_bots: StartBots) -> None:
    """While nobody answers few calls are tried; every report that has the time goes through afterwards."""
    bots = start_bots(3)
    assert [one.code for one in ask_all(bots, 1)] == [0] * 3
    sockets = upstream.counters()["acceptedSockets"]
    upstream.add_fault("reset_before", for_seconds=3.0)
    began_at = time.monotonic()
    seen = ask_all(bots, 100, each=20)
    took_s = time.monotonic() - began_at
    tried = upstream.counters()["acceptedSockets"] - sockets
    # A reset may have come after the report was taken, so those that met it may stay unknown.
    assert {one.code for one in seen} <= {0, 16, -32002}, Counter(one.code for one in seen)
    assert sum(one.code == 0 for one in seen) >= 20
    assert tried < 60 + 60
    assert 2.0 < took_s < 55.0
    assert all(row["taken"] == 1 for row in upstream.deliveries())
    assert [one.code for one in ask_all(bots, 500)] == [0] * 3
    assert pauses(bots[0]) == []


if hasattr(resource, "prlimit"):  # Linux: limits of another process

    def test_a_full_disk(upstream: Simulator, start_bots: StartBots) -> None:
        """The bot whose ledger is full goes on undurably and still knows what its neighbour has done."""
        full, fine = start_bots(2)
        assert [ask(full, 1).data["durable"], ask(fine, 2).data["durable"]] == [True, True]
        _, hard = resource.prlimit(full.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (4096, hard))
        undurable = ask(full, 3)
        assert (undurable.code, undurable.data["durable"]) == (0, False)
        assert ask(full, 2).data["replayed"]
        assert (ask(fine, 4).code, ask(full, 4).data["replayed"]) == (0, True)
        assert calls(upstream) == 4
        resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until = time.monotonic() + 45.0
        while full.call("bridge.status")["result"]["ledger"]["owed"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        known = ask(fine, 3)
        assert (known.code, known.data["replayed"], known.data["durable"]) == (0, True, True)
        assert calls(upstream) == 4


def test_a_clock_that_is_seventy_seconds_fast(upstream: Simulator, start_bots: StartBots) -> None:
    """Until the upstream's clock is known tasks look too old; one answer of it puts that right."""
    upstream.set(clock_skew_seconds=-70.0)
    (bot,) = start_bots(1)
    just_now = time.time() - 70.0
    early = ask(bot, 1, completedAt=just_now)
    assert (early.code, early.data["clockSkewSeconds"]) == (LATE, None)
    assert 69.0 < early.data["ageSeconds"] < 110.0
    assert calls(upstream) == 0
    assert Seen(bot.call(IMAGE, {"taskId": 2})).code == 0
    assert ask(bot, 3, completedAt=time.time() - 70.0).code == 0
    really_late = ask(bot, 4, completedAt=time.time() - 70.0 - 61.0)
    assert (really_late.code, calls(upstream)) == (LATE, 2)
    assert 68.0 < abs(really_late.data["clockSkewSeconds"]) < 72.0
    assert 60.0 < really_late.data["ageSeconds"] < 110.0
    skews = [event for event in bot.close().events if event["event"] == "clock_skew"]
    assert len(skews) == 1
    assert "set the clock right" in skews[0]["message"]


def test_a_block_of_hours_is_probed_ever_more_rarely() -> None:
    """An address that stays blocked is probed after half an hour, then ever later, a day at the most."""
    world = World()
    bot = Bridge(world)
    assert bot.ask(1).code == 0
    decide = world.upstream.decide
    probed_at: list[float] = []

    def refuse(at: float, attempt: Attempt) -> Exchange:
        probed_at.append(at)
        return http(403)

    world.upstream.decide = refuse  # type: ignore[method-assign]
    for nth in range(6 * 24 * 4):
        bot.ask(100 + nth)
        world.run(900.0)
    waits = [round((later - at) / 1800) for at, later in pairwise(probed_at)]
    assert waits[:6] == [1, 2, 4, 8, 16, 32]
    assert set(waits[6:]) <= {48, 49}
    assert len(waits) >= 8
    world.upstream.decide = decide  # type: ignore[method-assign]
    world.run(86_400.0)
    assert [bot.ask(10_000 + nth).code for nth in range(3)] == [0, 0, 0]


def test_a_site_change_is_probed_every_ten_minutes() -> None:
    """While every report meets 16 one is sent every ten minutes, and the first good one ends it."""
    world = World()
    bot = Bridge(world)
    assert bot.ask(1).code == 0
    world.upstream.wrong.update(range(100, 1000))
    began = len(world.upstream.calls)
    for nth in range(360):
        bot.ask(100 + nth)
        world.run(20.0)
    # Two hours: the ten that open the pause, then one probe every ten minutes.
    assert 10 + 10 <= len(world.upstream.calls) - began <= 10 + 12
    world.run(600.0)
    assert bot.ask(5_000).code == 0
    assert bot.ask(5_001).code == 0
