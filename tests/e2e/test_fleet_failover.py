"""The ledger's server dies for good and its standby takes over, while bridges report."""

from __future__ import annotations

import random
import selectors
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.simulator import Simulator
from tests.e2e.killjudge import NO_SEND, Tally
from tests.e2e.killloop import KEYS, Bot, KillLoop, Plan
from tests.fleet import IMAGE, Fleet, Ledger, prove
from tests.pgserver import PASSWORD, PgServer
from tests.process import BridgeProcess

STOP_S = 40.0
"""After that no task is submitted, whatever has been told."""
KILL_AT_S = 1.0
PROMOTE_AFTER_S = 3.0
"""Longer than a bridge waits for a session that it has just lost, so that each of them has to do without."""
ENOUGH = 20
"""So many durable answers by the new server end the test."""


class Pair:
    """A primary, and a standby that has every commit before the primary says that it is done."""

    def __init__(self) -> None:
        # In its own folder, or else SIGKILL would leave it behind on the machine.
        self.primary = PgServer(dynamic_shared_memory_type="mmap")
        try:
            self.standby = PgServer(primary=self.primary)
        except BaseException:
            self.primary.remove()
            raise
        for name, value in (("synchronous_standby_names", "'*'"), ("synchronous_commit", "on")):
            self.primary.sql(f"ALTER SYSTEM SET {name} = {value}")
        self.primary.sql("SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        while self.primary.sql("SELECT sync_state FROM pg_stat_replication") != [["sync"]]:
            assert time.monotonic() < until
            time.sleep(0.05)

    def url(self, database: str) -> str:
        """An address that leads to whoever of both takes writes."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://bridge@{hosts}/{database}?target_session_attrs=read-write"

    def fail_over(self) -> None:
        """Kill the primary and let the standby take writes."""
        self.primary.kill()
        self.promote()

    def promote(self) -> None:
        """Let the standby take writes."""
        # It names nobody whom it would wait for.
        self.standby.sql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        self.standby.promote()

    def remove(self) -> None:
        """End both."""
        self.standby.remove()
        self.primary.remove()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two servers for one test."""
    both = Pair()
    yield both
    both.remove()


class FailoverLoop(KillLoop):
    """The kill loop in which the server is killed, and no bridge."""

    def __init__(self, folder: Path, plan: Plan, pair: Pair, note: Callable[[str], None]) -> None:
        super().__init__(folder, plan, note)
        self._pair = pair
        self._fleet = Ledger(pair.primary)
        self.over_at = float("inf")
        self.sends: list[int] = []
        """How often each task was delivered whole."""

    def run(self) -> Tally:
        """Run to the end with the death of a server in the middle."""
        self._later(KILL_AT_S, self._fail_over)
        tally = super().run()
        per_task: dict[int, int] = {}
        for call in self._simulator.log():
            if call["reason"] != "unread" and call["status"] not in NO_SEND:
                per_task[call["taskId"]] = per_task.get(call["taskId"], 0) + 1
        self.sends = list(per_task.values())
        return tally

    @property
    def durable_after(self) -> int:
        """Reports that were told durable after the standby had taken over."""
        bots = {bot for bot in (*self._retired, *self._bots) if bot is not None}
        return sum(
            one.at > self.over_at and bool(one.data.get("durable")) for bot in bots for one in bot.told
        )

    @property
    def _is_over(self) -> bool:
        return self.durable_after > ENOUGH or time.monotonic() > self._plan.stop_by

    def _fail_over(self) -> None:
        if not any(bot.told for bot in self._bots if bot is not None):
            # On a busy machine nobody has started yet; the server must die under load.
            self._later(0.2, self._fail_over)
            return
        self._pair.primary.kill()
        self._later(PROMOTE_AFTER_S, self._promote)

    def _promote(self) -> None:
        self._pair.promote()
        self._fleet.server = self._pair.standby
        self.over_at = time.monotonic()

    def _submit_task(self, alive: list[Bot]) -> None:
        """Ask one bridge for each task: while there is no server, no other bridge could know of it."""
        super()._submit_task([self._chance.choice(alive)])

    def _start(self, slot: int) -> None:
        plan = self._plan
        home = self._folder / f"machine-{slot}"
        home.mkdir(exist_ok=True)
        words = ["--url", self._simulator.base_url, "--ledger", self._pair.url(self._fleet.database)]
        words += ["--timeout", str(plan.timeout_s), "--connect-timeout", "1", "--log-level", "info"]
        words += ["--log-format", "json", "--no-pauses"]
        (home / "pgpass").write_text(f"*:*:*:*:{PASSWORD}\n")
        (home / "pgpass").chmod(0o600)
        words[3] += f"&passfile={home / 'pgpass'}"
        bot = Bot(words, KEYS[slot % len(KEYS)], home, self._started)
        self._started += 1
        self._bots[slot] = bot
        assert bot.process.stdout is not None
        self._selector.register(bot.process.stdout, selectors.EVENT_READ, bot)

    def _kill_one(self) -> None:
        """Nobody but the server is killed."""

    def _check_file(self) -> None:
        """The server looks after its files itself."""

    def _is_ledger_made(self) -> bool:
        return self._fleet.is_made()

    def _select(self, statement: str) -> list[Any]:
        rows = self._fleet.select(statement.replace("perhaps", "perhaps::int"))
        return [tuple(_typed(value) for value in row) for row in rows]

    def stderr(self) -> str:
        """What all bridges said."""
        return "".join(bot.stderr.read_text() for bot in self._retired)


def _typed(value: str) -> Any:
    return None if value == "" else int(value) if value.lstrip("-").isdigit() else value


def test_standby_takes_over_under_load(pair: Pair, tmp_path: Path) -> None:
    """The primary is killed, the standby promoted: bridges are durable again, and every promise holds."""
    seed = random.SystemRandom().randrange(1_000_000)
    plan = Plan(
        seed,
        bridges=4,
        tasks=3000,
        kills=100,
        kill_every_s=1.0,
        window_s=(8.0, 12.0),
        timeout_s=1.0,
        stop_by=time.monotonic() + STOP_S,
    )
    complaints: list[str] = []
    loop = FailoverLoop(tmp_path, plan, pair, complaints.append)
    tally = loop.run()
    said = f"seed {seed}: {tally.describe()}, durable afterwards {loop.durable_after}"
    print(said)
    assert tally.is_good, "\n".join([said, *complaints])
    assert tally.tasks >= 50
    assert tally.accepted > 0
    assert tally.degraded >= 1, "the death of the server was noticed"
    assert loop.durable_after > ENOUGH
    assert max(loop.sends) <= 2
    assert tally.unguarded == 0
    assert PASSWORD not in loop.stderr()


def test_former_primary_that_comes_back_is_left_alone(
    pair: Pair, bridge_process: Callable[..., BridgeProcess], simulator: Simulator, tmp_path: Path
) -> None:
    """A bridge that has met the new server writes nothing to the old one, which its address names first."""
    ledger = Ledger(pair.primary)
    fleet = Fleet(bridge_process, simulator, ledger, tmp_path)
    bridge = fleet.start(url=pair.url(ledger.database))
    prove(bridge)
    pair.fail_over()
    ledger.server = pair.standby
    number = 2
    while not bridge.call(IMAGE, {"taskId": number})["result"]["durable"]:
        number += 1
        time.sleep(0.1)
    pair.primary.start()
    pair.primary.sql("ALTER SYSTEM RESET synchronous_standby_names")
    pair.primary.sql("SELECT pg_reload_conf()")
    pair.standby.drop_connections(ledger.database)
    answer = bridge.call(IMAGE, {"taskId": 1000})["result"]
    assert answer["durable"] is False
    told = bridge.call("bridge.status")["result"]["ledger"]
    assert (told["healthy"], "standby has replaced" in told["message"]) == (False, True)
    assert pair.primary.sql("SELECT count(*) FROM report_bridge.reports", database=ledger.database) == [["1"]]
    again = bridge.call(IMAGE, {"taskId": number})["result"]
    assert again["replayed"] is True
    pair.primary.stop()
    ledger.wait_until_done(number + 1, 30)
    assert set(fleet.calls().values()) == {1}
