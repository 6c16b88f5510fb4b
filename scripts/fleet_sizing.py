"""Measure what a report costs a PostgreSQL ledger, and hold the figures of the fleet page against it.

Reports go through the bridge's own statements into a real server; then tables and indexes are measured, a
real idle bridge is listened to, and a simulation of chance arrivals says how many reports share a commit.

    python scripts/fleet_sizing.py            # compare with docs/fleet-figures.json; exit 1 if far off
    python scripts/fleet_sizing.py --write    # write them
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bridge.core.model import ACCEPTED, Claim, Ending, Facts, Record, Task, Verdict, Window
from bridge.ledger.postgres import PostgresStore
from bridge.ledger.postgres_schema import QUERIES
from bridge.reports.pauses import PausePolicy
from bridge.simulator import Simulator
from tests.fleet import IMAGE, Fleet, Ledger, prove
from tests.ledgers import watch
from tests.pgserver import PgServer
from tests.process import BridgeProcess

FIGURES: Final = Path(__file__).resolve().parents[1] / "docs" / "fleet-figures.json"
MARGIN: Final = 0.15
"""How far a figure may be from the one that is stated."""
ACCOUNTS: Final = 8
BATCH: Final = 64
IDLE_S: Final = 12.0
LOAD_S: Final = 5.0
LOAD_RATE: Final = 60.0
"""Reports a second for the bridge that the simulation is compared with."""
ENDPOINT: Final = "https://api.example.test"
METHODS: Final = (IMAGE, "reportIncorrectRecaptcha", "reportCorrectRecaptcha")
_TAKEN: Final = (
    Verdict(ACCEPTED, 0, "accepted", "accepted", "done", False, True, True, True),
    Ending(ACCEPTED, 0, "accepted", {"errorId": 0}),
)
_REFUSED: Final = (
    Verdict("refused", 16, "no_such_captcha", "refused", "done", False, True, True, True, "quality"),
    Ending("refused", 16, "no_such_captcha", {"errorId": 16, "errorCode": "ERROR_NO_SUCH_CAPCHA_ID"}),
)
INDEXES: Final = ("reports_pkey", "reports_identity", "reports_by_time", "reports_by_trouble", "events_pkey")


# --- space -----------------------------------------------------------------------------------


def open_store(ledger: Ledger) -> PostgresStore:
    """The ledger as a bridge opens it."""
    return PostgresStore(
        ledger.server.url(ledger.database),
        policy=PausePolicy("sizing", enabled=False),
        boot_clock=time.monotonic,
        wall_clock=time.time,
    )


def fill(ledger: Ledger, rows: int, chance: random.Random) -> dict[str, float]:
    """Report so many tasks through the bridge's statements; bytes of write-ahead log and seconds for each.

    What is finished leaves a dead row behind. It is cleaned away as often as autovacuum does it in a
    large table, so that the space is that of a ledger in use and not of one that was just filled.
    """
    store = open_store(ledger)
    accounts = [f"{number:032x}" for number in range(ACCOUNTS)]
    before = int(ledger.select("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])
    began_at = time.monotonic()
    for first in range(0, rows, BATCH):
        tasks = [
            # As an upstream numbers them: upwards, for all its customers together.
            Task(ENDPOINT, chance.choice(accounts), 700_000_000 + 7 * number + chance.randrange(7))
            for number in range(first, min(first + BATCH, rows))
        ]
        now = time.time()
        store.transact([make_claim(task, now, chance) for task in tasks])
        store.transact([make_record(task, now, chance) for task in tasks])
        if first // BATCH % 80 == 79:
            ledger.server.sql("VACUUM report_bridge.reports", database=ledger.database)
    took_s = time.monotonic() - began_at
    after = int(ledger.select("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])
    store.close()
    ledger.server.sql("VACUUM ANALYZE", database=ledger.database)
    return {"wal": (after - before) / rows, "seconds": took_s / rows}


def make_claim(task: Task, now: float, chance: random.Random) -> Claim:
    """A report as most bots ask for it."""
    age_s = chance.expovariate(1 / 9)
    if chance.random() < 0.1:
        window, facts = Window(None, now), Facts()
    else:
        pool = "en" if chance.random() < 0.5 else None
        window, facts = Window(now - age_s + 60, None), Facts(now - age_s, "ImageToTextTask", pool, age_s)
    return Claim(task, chance.choice(METHODS), window, facts, True)


def make_record(task: Task, now: float, chance: random.Random) -> Record:
    """How the upstream answers most of them."""
    verdict, ending = _REFUSED if chance.random() < 0.05 else _TAKEN
    return Record(task, verdict, now, round(chance.lognormvariate(4.9, 0.5)), ending)


def measure_space(ledger: Ledger, rows: int) -> dict[str, float]:
    """Bytes per report of tables and indexes, as they are and after indexes were built anew."""
    names = ("reports", "events", *INDEXES)
    sizes = ", ".join(f"pg_relation_size('{name}')" for name in names)
    found = dict(zip(names, map(int, ledger.select(f"SELECT {sizes}")[0]), strict=True))
    assert ledger.count() == rows
    events = int(ledger.select("SELECT count(*) FROM events")[0][0])
    ledger.select("REINDEX TABLE reports")
    ledger.select("REINDEX TABLE events")
    anew = sum(map(int, ledger.select(f"SELECT {sizes}")[0]))
    space = {f"bytes_{name}": size / rows for name, size in found.items()}
    return {
        **space,
        "bytes_all": sum(found.values()) / rows,
        "bytes_all_reindexed": anew / rows,
        "events": events / rows,
    }


# --- commits ---------------------------------------------------------------------------------


def count_commits(ledger: Ledger) -> int:
    """Commits in the ledger's database so far."""
    # A session tells its own at the next thing it does: at its next beat but one at the latest.
    time.sleep(2.2)
    rows = ledger.server.sql(f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{ledger.database}'")
    return int(rows[0][0])


def measure_commits(ledger: Ledger, chance: random.Random, reports: int = 320) -> dict[str, float]:
    """Commits for each report, if it comes alone and if it comes with others."""
    store = open_store(ledger)
    found: dict[str, float] = {}
    numbers = count(2_000_000_000)
    store.transact([make_claim(Task(ENDPOINT, "0" * 32, next(numbers)), time.time(), chance)])
    said: list[str] = []
    watch(store, said.append)
    for name, size in (("commits_alone", 1), (f"commits_of_{BATCH}", BATCH)):
        before, ids = count_commits(ledger), next_id(ledger)
        said.clear()
        for _ in range(0, reports, size):
            tasks = [Task(ENDPOINT, "0" * 32, next(numbers)) for _ in range(size)]
            store.transact([make_claim(task, time.time(), chance) for task in tasks])
            store.transact([make_record(task, time.time(), chance) for task in tasks])
        commits = said.count(QUERIES["commit"])
        # What the server counts has some beats more.
        excess = count_commits(ledger) - before - commits
        assert 0 <= excess < 10, f"the server counted {excess} commits more"
        found[name] = commits / reports
        if size == 1:
            found["transaction_ids_alone"] = (next_id(ledger) - ids) / reports
    store.close()
    return found


def next_id(ledger: Ledger) -> int:
    """The transaction id that is given next."""
    return int(ledger.select("SELECT pg_snapshot_xmax(pg_current_snapshot())")[0][0])


@contextlib.contextmanager
def listening(ledger: Ledger) -> Iterator[Callable[[], int]]:
    """Let the server note every statement of sessions that begin now; gives how many there were."""
    ledger.server.sql(f"ALTER DATABASE {ledger.database} SET log_statement = 'all'")
    try:
        yield lambda: len(re.findall(r"LOG:  (?:execute|statement)", ledger.server.log()))
    finally:
        ledger.server.sql(f"ALTER DATABASE {ledger.database} RESET log_statement")


def measure_idle(fleet: Fleet) -> dict[str, float]:
    """Statements, transactions and round trips a second of a bridge with nothing to do."""
    ledger = fleet.ledger
    with listening(ledger) as statements:
        bridge = fleet.start(machine="idle")
        prove(bridge, 1)
        commits, before = count_commits(ledger), statements()
        began_at = time.monotonic()
        time.sleep(IDLE_S)
        commits, found = count_commits(ledger) - commits, statements() - before
        took_s = time.monotonic() - began_at
        bridge.close()
    return {"idle_statements": found / took_s, "idle_commits": commits / took_s}


def measure_load(fleet: Fleet, chance: random.Random) -> tuple[int, float, float]:
    """Reports, commits for each, and seconds of one commit, of a real bridge under chance arrivals."""
    bridge = fleet.start("--concurrency", "64", machine="load")
    prove(bridge, 2)
    fleet.simulator.add_fault("latency", seconds=0.05)
    probe = open_store(fleet.ledger)
    began_at = time.monotonic()
    for number in range(40):
        probe.transact([make_claim(Task(ENDPOINT, "1" * 32, 1 + number), time.time(), chance)])
    commit_s = (time.monotonic() - began_at) / 40
    probe.close()
    before = count_commits(fleet.ledger)
    began_at = due = time.monotonic()
    reports = 0
    while due < began_at + LOAD_S:
        time.sleep(max(0.0, due - time.monotonic()))
        bridge.send(IMAGE, {"taskId": 1000 + reports, "completedAt": time.time() - 5})
        reports += 1
        due += chance.expovariate(LOAD_RATE)
    for _ in range(reports):
        bridge.read_message()
    busy_s = time.monotonic() - began_at
    # Sweeps and, in the pauses, beats go on.
    commits = count_commits(fleet.ledger) - before - round(busy_s + 2 * 2.2)
    bridge.close()
    return reports, commits / reports, commit_s


def simulate(
    rate: float, bridges: int, commit_s: float, latency_s: float, chance: random.Random, reports: int = 20_000
) -> float:
    """Commits a report when reports arrive by chance; two for each if none is shared.

    A bridge has one journal: what comes while it commits waits and goes together into the next commit. A
    report comes to it twice, when it begins and when the upstream has answered.

    Args:
        rate: reports a second of the whole fleet.
        commit_s: seconds for which a commit keeps the journal busy.
        latency_s: mean of the upstream's time.
    """
    # All bridges are alike and know nothing of each other: one of them is the fleet.
    due: list[float] = []
    at = 0.0
    for _ in range(reports):
        at += chance.expovariate(rate / bridges)
        due += [at, at + chance.lognormvariate(0.0, 0.5) * latency_s]
    heapq.heapify(due)
    free_at, commits = 0.0, 0
    while due:
        start = max(free_at, due[0])
        while due and due[0] <= start:
            heapq.heappop(due)
        commits += 1
        free_at = start + commit_s
    return commits / reports


# --- all together ----------------------------------------------------------------------------


def measure(rows: int, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    """All figures."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sizing-")))
        server = stack.enter_context(PgServer(log_min_messages="warning", autovacuum="off"))
        simulator = stack.enter_context(Simulator())
        ledger = Ledger(server)
        costs = fill(ledger, rows, chance)
        say(f"{rows} reports through the bridge's statements, {1 / costs['seconds']:.0f} a second")
        figures = {**measure_space(ledger, rows), "bytes_wal": costs["wal"]}
        figures |= measure_commits(ledger, chance)
        run: Callable[..., BridgeProcess] = lambda *words, **options: stack.enter_context(  # noqa: E731
            BridgeProcess(*words, **options)
        )
        fleet = Fleet(run, simulator, Ledger(server), folder)
        figures |= measure_idle(fleet)
        reports, commits, commit_s = measure_load(fleet, chance)
        expected = simulate(LOAD_RATE, 1, commit_s, 0.05, chance)
        say(
            f"{reports} reports of a real bridge at {LOAD_RATE:.0f} a second: {commits:.2f} commits each; "
            f"the simulation says {expected:.2f} for a commit of {1000 * commit_s:.1f} ms"
        )
        figures["simulation_error"] = abs(commits - expected) / expected
    for per_s, bridges, commit_ms in SHARED:
        shared = simulate(per_s, bridges, commit_ms / 1000, 0.15, chance)
        figures[f"commits_{per_s}_per_s_{bridges}_bridges_{commit_ms}_ms"] = shared
    return figures


SHARED: Final = tuple(
    (per_s, bridges, commit_ms)
    for per_s, fleets in ((12, (1, 10)), (116, (1, 10, 100)), (1157, (10, 100)))
    for bridges in fleets
    for commit_ms in (2, 10)
)
"""Reports a second, bridges, milliseconds for a commit: the cases of the page."""
SIMULATION_ERROR: Final = 0.25


def compare(found: dict[str, float], stated: dict[str, float]) -> Iterator[str]:
    """What is not as it is stated."""
    for name in sorted(found.keys() | stated.keys()):
        if name == "simulation_error":
            if found[name] > SIMULATION_ERROR:
                yield f"the simulation is {found[name]:.0%} off"
        elif name not in found or name not in stated:
            yield f"{name} is either measured or stated"
        elif abs(found[name] - stated[name]) > MARGIN * stated[name] + 0.02:
            yield f"{name}: {stated[name]} is stated, {found[name]:.3f} was measured"


def rounded(figures: dict[str, Any]) -> dict[str, float]:
    """As they are kept."""
    return {name: round(value, 2) if value < 10 else round(value) for name, value in sorted(figures.items())}


def main() -> int:
    """Measure and compare or write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000, help="reports to measure with (60000)")
    parser.add_argument("--seed", type=int, default=1, help="of the chance (1)")
    parser.add_argument("--write", action="store_true", help="write the figures instead of comparing them")
    args = parser.parse_args()
    figures = measure(args.rows, args.seed, lambda line: print(line, flush=True))
    for name, value in rounded(figures).items():
        print(f"  {name:<40} {value:>10,.2f}")
    if args.write:
        kept = {name: value for name, value in rounded(figures).items() if name != "simulation_error"}
        FIGURES.write_text(json.dumps(kept, indent=2) + "\n")
        return 0
    complaints = list(compare(figures, json.loads(FIGURES.read_text())))
    print("\n".join(complaints) or "all figures are as the page states them")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
