"""Kill and freeze machines of a fleet, and measure how long a neighbour takes to finish what they left open.

In each round a bridge begins reports that the upstream does not answer, and then dies or vanishes behind
a relay that stands still. Prints p50, p99 and the longest time, and exits with 1 if a bound was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg

from bridge.simulator import Simulator
from tests.fleet import Fleet, Ledger, Relay, prove
from tests.pgserver import PgServer
from tests.process import BridgeProcess

BOUNDS_S = {"killed": 5.0, "vanished": 10.0}
"""Until when all has to be finished, by the way in which the machine ends."""
PATIENCE_S = 40.0
WORDS = ("--concurrency", "64", "--timeout", "30")
"""An attempt that hangs longer than a round: only a neighbour can finish it."""


class Round(NamedTuple):
    """What one round came to."""

    first_s: float
    """Until the first report was finished."""
    last_s: float
    unfinished: int
    excess: int
    """Tasks that were delivered more than twice."""


class Soak:
    """Rounds with one survivor and one ledger."""

    def __init__(self, fleet: Fleet, relay: Relay, reports: int) -> None:
        self._fleet = fleet
        self._relay = relay
        self._reports = reports
        self._next = 1_000
        self._survivor = fleet.start(*WORDS, machine="survivor")
        prove(self._survivor, 1)
        server = fleet.ledger.server
        address = {"host": str(server.sockets), "port": server.port, "user": "postgres"}
        self._eye = psycopg.connect(**address, dbname=fleet.ledger.database, autocommit=True)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close what this opened; the bridges are the caller's."""
        self._eye.close()

    def run(self, how: str) -> Round:
        """Run one round."""
        first = self._next
        self._next += self._reports + 1
        is_killed = how == "killed"
        bridge = self._fleet.start(
            *WORDS, machine=f"machine-{first}", port=None if is_killed else self._relay.port
        )
        try:
            prove(bridge, first)
            self._fleet.open_reports(bridge, self._reports, first + 1)
            if is_killed:
                bridge.signal(signal.SIGKILL)
            else:
                self._relay.freeze()
                bridge.signal(signal.SIGSTOP)
            return self._watch(first + 1, time.monotonic())
        finally:
            bridge.kill()
            self._relay.thaw()

    def _watch(self, first: int, ended_at: float) -> Round:
        tasks = range(first, first + self._reports)
        ask = "SELECT count(*) FROM report_bridge.reports WHERE state = 'done' AND task_id BETWEEN %s AND %s"
        first_s = math.nan
        while True:
            row = self._eye.execute(ask, [tasks[0], tasks[-1]]).fetchone()
            took_s = time.monotonic() - ended_at
            done = 0 if row is None else int(row[0])
            if done and math.isnan(first_s):
                first_s = took_s
            if done == self._reports or took_s > PATIENCE_S:
                calls = Counter(e["taskId"] for e in self._fleet.simulator.log() if e["taskId"] in tasks)
                excess = sum(number > 2 for number in calls.values())
                return Round(first_s, took_s, self._reports - done, excess)
            time.sleep(0.01)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def describe(how: str, rounds: list[Round]) -> str:
    """The figures of one way in one line."""
    last = [one.last_s for one in rounds]
    figures = f"p50 {quantile(last, 0.5):.2f} s, p99 {quantile(last, 0.99):.2f} s, max {max(last):.2f} s"
    unfinished, excess = sum(one.unfinished for one in rounds), sum(one.excess for one in rounds)
    return (
        f"{how}: {len(rounds)} rounds, {figures} (bound {BOUNDS_S[how]:.0f} s), "
        f"fastest {min(one.first_s for one in rounds):.2f} s, unfinished {unfinished}, "
        f"delivered more than twice {excess}"
    )


def main() -> int:
    """Run the rounds and print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--killed", type=int, default=30, help="rounds that end with a kill (30)")
    parser.add_argument("--vanished", type=int, default=10, help="rounds that end with silence (10)")
    parser.add_argument("--reports", type=int, default=50, help="open reports in each round (50)")
    args = parser.parse_args()
    is_good = True
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="takeover-")))
        server = stack.enter_context(PgServer())
        simulator = stack.enter_context(Simulator())
        relay = stack.enter_context(Relay(server.port))
        run: Callable[..., BridgeProcess] = lambda *words, **options: stack.enter_context(  # noqa: E731
            BridgeProcess(*words, **options)
        )
        soak = Soak(Fleet(run, simulator, Ledger(server), folder), relay, args.reports)
        stack.callback(soak.close)
        for how, number in (("killed", args.killed), ("vanished", args.vanished)):
            rounds = []
            for nth in range(number):
                rounds.append(soak.run(how))
                print(f"  {how} {nth + 1}: {rounds[-1].last_s:.2f} s", flush=True)
            if rounds:
                print(describe(how, rounds), flush=True)
                is_good &= all(
                    one.last_s <= BOUNDS_S[how] and not one.unfinished and not one.excess for one in rounds
                )
    print("every bound was kept" if is_good else "A BOUND WAS BROKEN", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
