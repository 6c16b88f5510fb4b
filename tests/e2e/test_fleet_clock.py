"""A server whose clock is not the one that it had: after a failover, or when somebody has set it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bridge.core.model import ACCEPTED, Claim, Ending, Facts, Record, Task, Verdict, Window
from bridge.engine import Engine
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.writer import Ledger as Writer
from bridge.reports.pauses import PausePolicy
from tests.fleet import IMAGE, Ledger
from tests.pgserver import PgServer

PATIENCE_S = 30.0
GOOD = Verdict(ACCEPTED, 0, "accepted", "accepted", "done", False, True, True, True)


class Bridge:
    """A ledger on a server, with a clock that can be moved against the server's."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.behind_s = 0.0
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.errors: list[BaseException] = []
        self.engine = Engine(self.errors.append, clock=self)
        self.writer = Writer(
            self.engine,
            self._open,
            lambda name: SqliteStore(None, instance=name, **self._common()),
            require=False,
            on_event=lambda name, fields: self.events.append((name, fields)),
            on_error=lambda reference, error: self.errors.append(error),
            retry_s=0.05,
        )
        self.writer.wait_until_open()
        self.account = self.writer.account("k" * 32)

    def now(self) -> float:
        return time.monotonic() - self.behind_s

    def wall(self) -> float:
        return time.time()

    def _common(self) -> dict[str, Any]:
        policy = PausePolicy("m", enabled=False)
        return {"policy": policy, "boot_clock": self.now, "wall_clock": self.wall}

    def _open(self, instance: str) -> PostgresStore:
        url = self.ledger.server.url(self.ledger.database)
        return PostgresStore(url, instance=instance, **self._common())

    def task(self, number: int) -> Task:
        return Task("https://upstream.test", self.account, number)

    def claim(self, number: int) -> Any:
        window = Window(self.writer.now() + 60, None)
        return self.writer.call(Claim(self.task(number), IMAGE, window, Facts(), True))

    def record(self, number: int) -> Any:
        ending = Ending(ACCEPTED, 0, "accepted")
        return self.writer.call(Record(self.task(number), GOOD, time.time(), 12, ending))


@pytest.fixture
def bridge(pg_server: PgServer) -> Iterator[Bridge]:
    """A bridge on the empty ledger of this test."""
    running = Bridge(Ledger(pg_server))
    yield running
    assert running.writer.close(running.engine.now() + PATIENCE_S)


def test_server_with_another_clock_is_measured_again(bridge: Bridge) -> None:
    """What is begun after a failover ends by the new server's clock; what was begun before is kept."""
    assert bridge.claim(1).status == "new"
    assert bridge.record(1).durable is True
    assert bridge.claim(2).status == "new"
    bridge.behind_s = -30.0
    bridge.ledger.server.drop_connections(bridge.ledger.database)
    until = time.monotonic() + PATIENCE_S
    number = 3
    while bridge.claim(number).durable is False:
        number += 1
        assert time.monotonic() < until
    left = "SELECT window_until - extract(epoch FROM clock_timestamp()) FROM reports WHERE task_id = "
    assert 50 < float(bridge.ledger.select(f"{left} {number}")[0][0]) < 61
    assert bridge.claim(1).status == "known"
    assert bridge.record(2).durable is True
    assert bridge.ledger.count("state = 'done' AND task_id <= 2") == 2
    degraded = [fields["sentence"] for name, fields in bridge.events if name == "ledger_degraded"]
    assert ["clock" in sentence for sentence in degraded] == [True]


def test_clock_that_moves_under_a_session_is_noticed(bridge: Bridge) -> None:
    """Somebody sets the server's clock while all sessions stay: the next beat tells."""
    assert bridge.claim(1).status == "new"
    bridge.behind_s = 30.0
    left = "SELECT window_until - extract(epoch FROM clock_timestamp()) FROM reports WHERE task_id = "
    until = time.monotonic() + PATIENCE_S
    number = 2
    while True:
        time.sleep(1.1)
        if bridge.claim(number).durable and float(bridge.ledger.select(f"{left} {number}")[0][0]) > 50:
            break
        number += 1
        assert time.monotonic() < until
    assert bridge.record(1).durable is True
