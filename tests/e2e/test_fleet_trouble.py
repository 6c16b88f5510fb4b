"""A server in trouble: the bridge goes on as it promised, says so, and writes afterwards what it owes."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bridge.simulator import Simulator
from tests.fleet import IMAGE, Fleet, Ledger, Relay, code_of, prove
from tests.pgserver import PASSWORD, ROLE, PgServer
from tests.process import BridgeProcess

Start = Callable[..., BridgeProcess]
Trouble = Callable[[Ledger, Relay], AbstractContextManager[None]]


@pytest.fixture
def ledger(pg_server: PgServer) -> Ledger:
    """The empty ledger of this test."""
    return Ledger(pg_server)


@pytest.fixture
def fleet(bridge_process: Start, simulator: Simulator, ledger: Ledger, tmp_path: Path) -> Fleet:
    """Start bridges on machines of their own, on the ledger of this test."""
    return Fleet(bridge_process, simulator, ledger, tmp_path)


def wait_until_well(bridge: BridgeProcess) -> dict[str, Any]:
    """Wait until a bridge says that its ledger is, and return what it says."""
    until = time.monotonic() + 40
    while True:
        told: dict[str, Any] = bridge.call("bridge.status")["result"]["ledger"]
        if told["healthy"] and told["owed"] == 0:
            return told
        assert time.monotonic() < until, told
        time.sleep(0.05)


def kinds(answer: dict[str, Any]) -> list[str]:
    """The warnings of an answer."""
    return [warning["kind"] for warning in answer["result"].get("warnings", [])]


# --- the troubles ----------------------------------------------------------------------------


@contextmanager
def no_connection_left(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """Strangers take every connection that the server has, the bridge's too."""
    server = ledger.server
    address = {"host": str(server.sockets), "port": server.port, "user": "postgres", "dbname": "postgres"}
    with contextlib.ExitStack() as strangers:

        def fill() -> list[psycopg.Connection[Any]]:
            taken: list[psycopg.Connection[Any]] = []
            try:
                while True:
                    taken.append(psycopg.connect(**address, autocommit=True))  # type: ignore[arg-type]
                    strangers.callback(taken[-1].close)
            except psycopg.OperationalError:
                return taken

        killer = fill()[-1]
        ended = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
        while killer.execute(ended, [ledger.database]).fetchall():
            fill()
        yield


@contextmanager
def read_only(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """An administrator, or a provider whose disk fills up, sets the server to read-only."""
    change = f"ALTER DATABASE {ledger.database} "
    ledger.server.sql(change + "SET default_transaction_read_only = on")
    ledger.server.drop_connections(ledger.database)
    try:
        yield
    finally:
        ledger.server.sql(change + "RESET default_transaction_read_only")
        ledger.server.drop_connections(ledger.database)


@contextmanager
def read_only_in_use(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """The same for all sessions that are there, which stay."""
    server = ledger.server
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    time.sleep(0.2)
    try:
        yield
    finally:
        undo = "SET default_transaction_read_only = off"
        server.sql(undo, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@contextmanager
def no_right_to_write(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """Somebody takes the role's right to write."""
    ledger.select(f"REVOKE INSERT, UPDATE ON reports FROM {ROLE}")
    try:
        yield
    finally:
        ledger.select(f"GRANT INSERT, UPDATE ON reports TO {ROLE}")


@contextmanager
def no_right_at_all(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """Somebody takes every right of the role."""
    ledger.select(
        f"REVOKE ALL ON reports, events, pauses, accounts, tallies, figures, meta, versions FROM {ROLE}"
    )
    try:
        yield
    finally:
        ledger.select(
            f"GRANT ALL ON reports, events, pauses, accounts, tallies, figures, meta, versions TO {ROLE}"
        )


@contextmanager
def crashed(ledger: Ledger, _relay: Relay) -> Iterator[None]:
    """The server crashes and is back later."""
    ledger.server.stop(signal.SIGQUIT)
    try:
        yield
    finally:
        ledger.server.start()


UNGUARDED = "duplicates_unguarded"


@pytest.mark.parametrize(
    ("trouble", "state", "words", "is_guarded"),
    [
        (no_connection_left, "unreadable", "max_connections", False),
        (read_only, "readonly", "takes no writes", True),
        (read_only_in_use, "readonly", "takes no writes", True),
        (no_right_to_write, "readonly", "lacks a privilege", True),
        (no_right_at_all, "readonly", "lacks a privilege", False),
        (crashed, "unreadable", "does not answer", False),
    ],
)
def test_trouble_is_survived_and_told(
    fleet: Fleet, ledger: Ledger, trouble: Trouble, state: str, words: str, is_guarded: bool
) -> None:
    """Reports go on without a promise, the log says it once, the status always, and all is written later."""
    with Relay(ledger.server.port) as relay:
        bridge = fleet.start(port=relay.port)
        prove(bridge)
        with trouble(ledger, relay):
            for number in (2, 3):
                answer = bridge.call(IMAGE, {"taskId": number})
                assert code_of(answer) == 0
                assert answer["result"]["durable"] is False
                assert (UNGUARDED in kinds(answer)) is not is_guarded
            again = bridge.call(IMAGE, {"taskId": 1})["result"]
            if is_guarded:
                assert again["replayed"] is True
            until = time.monotonic() + 20
            while True:
                told = bridge.call("bridge.status")["result"]["ledger"]
                assert (told["healthy"], told["durable"], told["state"]) == (False, False, state)
                if words in told["message"]:
                    break
                assert time.monotonic() < until, told
                time.sleep(0.05)
            assert told["owed"] >= 2
        assert wait_until_well(bridge)["durable"] is True
        assert ledger.wait_until_done(3, 30) < 30
        prove(bridge, 4)
        ended = bridge.close()
    assert [event["event"] for event in ended.events] == ["ledger_degraded", "ledger_recovered"]
    assert ended.events[0]["state"] == state
    assert PASSWORD not in ended.stderr
    assert ended.code == 0
    assert ledger.count("outcome = 'accepted'") == 4


def test_bridges_that_are_cut_off_or_slow_concern_nobody_else(fleet: Fleet, ledger: Ledger) -> None:
    """One bridge loses its way to the server and one is slow: both go on, and a third stays durable."""
    with Relay(ledger.server.port) as frozen, Relay(ledger.server.port) as slow:
        lone = [fleet.start(port=way.port, machine=name) for way, name in ((frozen, "one"), (slow, "two"))]
        other = fleet.start(machine="three")
        for number, bridge in enumerate((*lone, other), 1):
            prove(bridge, number)
        frozen.freeze()
        slow.delay_s = 3.3
        for number, bridge in enumerate(lone, 4):
            bridge.send(IMAGE, {"taskId": number})
        for number in (6, 7):
            prove(other, number)
        for bridge in lone:
            answer = bridge.read_message()
            assert (code_of(answer), answer["result"]["durable"]) == (0, False)
            assert UNGUARDED in kinds(answer)
            told = bridge.call("bridge.status")["result"]["ledger"]
            assert (told["healthy"], told["state"], told["owed"]) == (False, "unreadable", 1)
            assert "does not answer" in told["message"]
        assert other.call("bridge.status")["result"]["ledger"]["healthy"] is True
        frozen.thaw()
        slow.delay_s = 0.0
        slow.cut()
        for number, bridge in enumerate(lone, 8):
            wait_until_well(bridge)
            prove(bridge, number)
            assert [event["event"] for event in bridge.close().events] == [
                "ledger_degraded",
                "ledger_recovered",
            ]
        assert other.close().events == []
    assert ledger.count("outcome = 'accepted'") == 9
    assert fleet.calls() == dict.fromkeys(range(1, 10), 1)
    assert ledger.select("SELECT count(*) FROM events WHERE name = 'adopted'") == [["0"]]
