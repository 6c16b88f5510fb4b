"""The kill loop of a fleet: whole machines are killed while their server restarts, and all is kept."""

from __future__ import annotations

import contextlib
import random
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.killloop import KEYS, Bot, KillLoop, Plan
from tests.fleet import Ledger
from tests.pgserver import PgServer

SHORT_S = 9.0
MACHINES = 2


class FleetLoop(KillLoop):
    """The kill loop with a PostgreSQL ledger and machines of several bridges.

    Every kill ends a whole machine: each has a home, an environment and bridges of its own. Between the
    kills the server drops all connections, or restarts.
    """

    def __init__(
        self, folder: Path, plan: Plan, server: PgServer, note: Callable[[str], None] = print
    ) -> None:
        super().__init__(folder, plan, note)
        self._fleet = Ledger(server)
        self.troubles = 0

    def run(self) -> Any:
        """Run to the end with trouble at the server, check everything and return the figures."""
        self._later(1.5, self._trouble_server)
        return super().run()

    def _start(self, slot: int) -> None:
        plan, server = self._plan, self._fleet.server
        home = self._folder / f"machine-{slot % MACHINES}"
        home.mkdir(exist_ok=True)
        words = ["--url", self._simulator.base_url, "--ledger", server.url(self._fleet.database)]
        words += ["--timeout", str(plan.timeout_s), "--connect-timeout", "1", "--log-level", "info"]
        words += ["--log-format", "json", "--no-pauses"]
        bot = Bot(words, KEYS[slot // MACHINES % len(KEYS)], home, self._started)
        self._started += 1
        self._bots[slot] = bot
        assert bot.process.stdout is not None
        self._selector.register(bot.process.stdout, selectors.EVENT_READ, bot)

    def _kill_one(self) -> None:
        plan, chance = self._plan, self._chance
        if self._kills >= plan.kills or self._is_over or self._is_closing:
            return
        self._later(chance.uniform(0.4, 1.6) * plan.kill_every_s, self._kill_one)
        machine = chance.randrange(MACHINES)
        for slot in range(machine, plan.bridges, MACHINES):
            bot = self._bots[slot]
            if bot is None:
                continue
            assert bot.process.stdout is not None
            with contextlib.suppress(KeyError):
                self._selector.unregister(bot.process.stdout)
            bot.kill()
            self._bots[slot] = None
            self._retired.append(bot)
            self._kills += 1
            back = lambda slot=slot, bot=bot: self._come_back(slot, bot)  # noqa: E731
            self._later(chance.uniform(0.0, 0.5), back)

    def _trouble_server(self) -> None:
        """Drop every connection, or restart the server in a moment."""
        if self._is_over or self._is_closing:
            return
        server = self._fleet.server
        self.troubles += 1
        if self._chance.random() < 0.6:
            server.drop_connections(self._fleet.database)
        else:
            server.stop()
            server.start()
        self._later(self._chance.uniform(1.0, 3.0), self._trouble_server)

    def _check_file(self) -> None:
        """The server looks after its files itself."""

    def _is_ledger_made(self) -> bool:
        return self._fleet.is_made()

    def _select(self, statement: str) -> list[Any]:
        rows = self._fleet.select(statement.replace("perhaps", "perhaps::int"))
        return [tuple(_typed(value) for value in row) for row in rows]


def _typed(value: str) -> Any:
    return None if value == "" else int(value) if value.lstrip("-").isdigit() else value


def test_nothing_is_lost_or_false_while_machines_are_killed(pg_server: PgServer, tmp_path: Path) -> None:
    """Four bridges on two machines and their server fail at random moments, and every promise holds."""
    seed = random.SystemRandom().randrange(1_000_000)
    plan = Plan(
        seed,
        bridges=4,
        tasks=300,
        kills=12,
        kill_every_s=1.2,
        window_s=(6.0, 9.0),
        stop_by=time.monotonic() + SHORT_S,
    )
    complaints: list[str] = []
    loop = FleetLoop(tmp_path, plan, pg_server, complaints.append)
    tally = loop.run()
    print(f"seed {seed}: {tally.describe()}, server troubles {loop.troubles}")
    assert tally.is_good, "\n".join([f"seed {seed}: {tally.describe()}", *complaints])
    assert tally.kills >= 4
    assert tally.tasks >= 50
    assert tally.accepted > 0
    assert loop.troubles > 0
