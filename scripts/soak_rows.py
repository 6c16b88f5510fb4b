"""Measure a bridge on a ledger with ten million reports against one on an empty ledger, for both kinds.

The bridges take turns, A B then B A, so that the machine's moods hit both. Prints reports a second, CPU of
the bridge for each, and the ratios of their medians; exits with 1 if a full ledger costs too much.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.arena import ROOT, Arena
from bench.load import Sample
from bridge.ledger.postgres import PostgresStore
from bridge.reports.pauses import PausePolicy
from tests.fleet import Ledger
from tests.pgserver import PgServer

LOAD: Final = 64
CPU_BOUND: Final = 1.25
"""CPU for a report on the full ledger against the empty one, at most."""
STEP: Final = 500_000
_FILL: Final = (
    "INSERT INTO reports SELECT n, 1 + n % 2, 700000000 + n, true, 3, 'reportIncorrectImageCaptcha', 'done', "
    "CASE WHEN n % 10 = 0 THEN 'refused' ELSE 'accepted' END, NULL, 1, 1, false, {at} + 50, NULL, {at} - 10, "
    "'ImageToTextTask', 'en', 10.0, CASE WHEN n % 10 = 0 THEN 16 ELSE 0 END, "
    "CASE WHEN n % 10 = 0 THEN 'no_such_captcha' ELSE 'accepted' END, NULL, {at}, {at} + 0.2, {at} + 0.2, "
    "180 FROM generate_series({first}, {last}) AS n"
)
_STORY: Final = (
    "INSERT INTO events SELECT n, nth, {at}, (ARRAY['claimed', 'begun', 'settled'])[nth], "
    """(ARRAY['{{"owner":"00000000000000000000"}}', '{{"attempt":1}}', """
    """'{{"outcome":"accepted","kind":"accepted","latencyMs":180}}'])[nth]::json """
    "FROM generate_series({first}, {last}) AS n, generate_series(1, 3) AS nth"
)


def fill_server(ledger: Ledger, rows: int, days: float = 30.0) -> None:
    """Put reports into a server's ledger, shaped as the bridge's own statements would have left them."""
    PostgresStore(
        ledger.server.url(ledger.database),
        policy=PausePolicy("rows"),
        boot_clock=time.monotonic,
        wall_clock=time.time,
    ).close()
    ledger.select(
        "INSERT INTO accounts (endpoint, account) SELECT 'https://api.example.test', repeat(c, 32) "
        "FROM unnest(ARRAY['a', 'b']) AS c"
    )
    at = f"({time.time() - days * 86_400} + n * {days * 86_400 / rows})"
    # Every event has its report here, which need not be looked up for each.
    settings = (
        "search_path = report_bridge",
        "synchronous_commit = off",
        "session_replication_role = replica",
    )
    begin = [f"SET {setting}" for setting in settings]
    for first in range(1, rows + 1, STEP):
        last = min(first + STEP - 1, rows)
        run(ledger, *begin, *(text.format(at=at, first=first, last=last) for text in (_FILL, _STORY)))
    run(ledger, f"SELECT setval('report_bridge.report_numbers', {rows})")
    run(ledger, "VACUUM ANALYZE")


def run(ledger: Ledger, *statements: str) -> None:
    """Run statements as the superuser, however long they take."""
    server = ledger.server
    address = f"postgresql://postgres@/{ledger.database}?host={server.sockets}&port={server.port}"
    words = [word for text in statements for word in ("-c", text)]
    command = [str(server.programs / "psql"), "-Xqo", os.devnull, "-vON_ERROR_STOP=1", address, *words]
    subprocess.run(command, check=True, env={})


def measure(
    arena: Arena, kind: str, url: str, ledgers: tuple[str, str], rounds: int, seconds: float
) -> float:
    """Let two bridges take turns; the ratio of their CPU for a report."""
    bridges = [arena.bridge(url, LOAD, ledger=ledger) for ledger in ledgers]
    for bridge in bridges:
        bridge.run(LOAD, 0.5)
    found: list[list[Sample]] = [[], []]
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            found[which].append(bridges[which].run(LOAD, seconds))
    arena.close_all()
    cpu = [median(one.cpu_s / one.reports for one in samples) * 1e6 for samples in found]
    speed = [median(one.per_second for one in samples) for samples in found]
    failed = sum(one.failed for samples in found for one in samples)
    for name, which in (("empty", 0), ("full", 1)):
        print(f"{kind}, {name}: {speed[which]:,.0f} reports a second, {cpu[which]:.0f} us of CPU each")
    print(
        f"{kind}, full against empty: throughput {speed[1] / speed[0]:.3f}, CPU {cpu[1] / cpu[0]:.3f} "
        f"({rounds} rounds of {seconds} s each, {failed} failed)",
        flush=True,
    )
    return cpu[1] / cpu[0] if not failed else float("inf")


def main() -> int:
    """Fill, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="reports in the full ledgers (10000000)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each bridge (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (2)")
    parser.add_argument("--only", choices=("sqlite", "postgres"), help="one kind of ledger")
    args = parser.parse_args()
    ratios = []
    with Arena(lambda text: print(text, flush=True)) as arena:
        url = arena.upstream(20)
        if args.only != "postgres":
            big, began_at = arena.path(".sqlite3"), time.monotonic()
            filler = [sys.executable, str(ROOT / "scripts" / "fill_ledger.py"), big, "--rows", str(args.rows)]
            subprocess.run(filler, env=arena.environ, stdout=subprocess.DEVNULL, check=True)
            size = os.path.getsize(big) / 1e9
            print(f"sqlite: {args.rows:,} reports, {size:.2f} GB, {time.monotonic() - began_at:.0f} s")
            ledgers = (arena.path(".sqlite3"), big)
            ratios.append(measure(arena, "sqlite", url, ledgers, args.rounds, args.seconds))
            os.unlink(big)
        if args.only != "sqlite":
            url = arena.upstream(20)
            with PgServer(durable=True, max_wal_size="8GB") as server:
                empty, full = Ledger(server), Ledger(server)
                began_at = time.monotonic()
                fill_server(full, args.rows)
                size = int(full.select("SELECT pg_database_size(current_database())")[0][0]) / 1e9
                print(f"postgres: {args.rows:,} reports, {size:.2f} GB, {time.monotonic() - began_at:.0f} s")
                places = (server.url(empty.database), server.url(full.database))
                ratios.append(measure(arena, "postgres", url, places, args.rounds, args.seconds))
    is_good = max(ratios) <= CPU_BOUND
    print("a full ledger costs what an empty one does" if is_good else "A FULL LEDGER COSTS MORE", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
