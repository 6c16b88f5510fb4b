"""Fills a ledger with made-up reports, for measures and for looking at pictures.

The same seed gives the same reports. Half a year of history at most; nothing here is a real task.

    python scripts/fill_ledger.py ledger.sqlite3 --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bridge.engine import SystemClock
from bridge.ledger.sqlite import SqliteStore
from bridge.reports.pauses import PausePolicy

ENDPOINT: Final = "https://api.example.test"
ACCOUNTS: Final = ("5f3a9c0e" * 4, "c41d77b2" * 4)
OWNER: Final = "0" * 20
METHODS: Final = ("reportIncorrectImageCaptcha", "reportIncorrectRecaptcha", "reportCorrectRecaptcha")
TYPES: Final = ("ImageToTextTask", "RecaptchaV2TaskProxyless", "RecaptchaV3TaskProxyless")
_REPORT: Final = (
    "INSERT INTO reports (seq, account_id, task_id, method, state, outcome, attempts, sends, perhaps, "
    "window_until, completed_at, task_type, language_pool, age_s, code, kind, detail, recorded_wall, "
    "finished_wall, finished_at, latency_ms) "
    "VALUES (?, ?, ?, ?, 'done', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_STEP: Final = 20_000

_TROUBLES: Final[tuple[tuple[float, str, int, str, dict[str, Any]], ...]] = (
    # share, outcome, code, kind, detail
    (0.030, "refused", 16, "no_such_captcha", {"errorId": 16, "errorCode": "ERROR_NO_SUCH_CAPCHA_ID"}),
    (0.006, "not_sent", -32001, "upstream_unreachable", {"cause": "connect"}),
    (0.002, "not_sent", -32001, "upstream_unreachable", {"cause": "dns"}),
    (0.008, "unknown", -32002, "outcome_unknown", {}),
    (0.003, "refused", -32003, "upstream_http", {"httpStatus": 403}),
    (0.005, "not_sent", -32012, "wrong_method", {}),
    (0.004, "not_sent", -32021, "sending_paused", {}),
    (0.001, "refused", 10, "zero_balance", {"errorId": 10, "errorCode": "ERROR_ZERO_BALANCE"}),
)
_PAUSES: Final = {10: "key_balance", -32003: "address_blocked", -32001: "transport", 16: "quality"}


def fill(path: str, rows: int, *, days: float = 30.0, seed: int = 1, until_wall: float | None = None) -> None:
    """Make a ledger and put reports into it.

    Args:
        path: where; a ledger that is there already gets more rows.
        rows: how many reports.
        days: over how long they are spread, ending at `until_wall`.
        seed: of the random numbers.
        until_wall: UNIX seconds of the newest report; default: now.
    """
    policy = PausePolicy("fill")
    SqliteStore(path, policy=policy, boot_clock=SystemClock.now, wall_clock=SystemClock.wall).close()
    until = time.time() if until_wall is None else until_wall
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    first = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM reports").fetchone()[0]
    for account in ACCOUNTS:
        connection.execute(
            "INSERT OR IGNORE INTO accounts (endpoint, account) VALUES (?, ?)", (ENDPOINT, account)
        )
    ids = [row[0] for row in connection.execute("SELECT id FROM accounts ORDER BY id")]
    made = _make(random.Random(seed), first, rows, ids, until - days * 86_400, until)
    while batch := list(islice(made, _STEP)):
        connection.execute("BEGIN")
        connection.executemany(_REPORT, (report for report, _ in batch))
        connection.executemany(_EVENT, (event for _, events in batch for event in events))
        connection.execute("COMMIT")
    connection.close()


def _make(
    chance: random.Random, first: int, rows: int, accounts: Sequence[int], since: float, until: float
) -> Iterator[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
    for index in range(rows):
        recorded = since + (until - since) * (index + chance.random()) / rows
        which = 0 if chance.random() < 0.5 else 1 if chance.random() < 0.7 else 2
        # Most are told within seconds; a tail is told late, as bots with a queue do.
        age = chance.expovariate(1 / 9) if chance.random() < 0.85 else chance.uniform(10, 110)
        knows_age = chance.random() < 0.9
        detail: dict[str, Any] = {}
        outcome, code, kind = "accepted", 0, "accepted"
        if knows_age and age >= 60:
            outcome, code, kind, detail = "not_sent", -32010, "window_closed", {"ageSeconds": round(age, 1)}
        elif chance.random() < age / 250:
            outcome, code, kind, detail = _TROUBLES[0][1:]
        else:
            point = chance.random()
            for row in _TROUBLES:
                point -= row[0]
                if point < 0:
                    _, outcome, code, kind, detail = row
                    break
        begun = outcome != "not_sent" or code == -32001
        latency = round(chance.lognormvariate(4.9, 0.5)) if begun else None
        attempts = 0 if not begun else 2 if outcome == "unknown" or code == -32001 else 1
        seq = first + index
        finished = recorded + (latency or 0) / 1000
        report = (
            seq, accounts[0] if chance.random() < 0.8 else accounts[-1], 700_000_000 + seq, METHODS[which],
            outcome, attempts, min(attempts, 1 if begun and code != -32001 else 0), outcome == "unknown",
            recorded - age + 60, recorded - age if knows_age else None, TYPES[which],
            "en" if which == 0 else None, age if knows_age else None, code, kind,
            json.dumps(detail, separators=(",", ":")), recorded, finished, finished, latency,
        )  # fmt: skip
        yield report, list(_tell(seq, recorded, finished, outcome, code, kind, latency, chance.random()))


def _tell(
    seq: int,
    recorded: float,
    finished: float,
    outcome: str,
    code: int,
    kind: str,
    latency: int | None,
    x: float,
) -> Iterator[tuple[Any, ...]]:
    if latency is None:
        told = json.dumps({"outcome": outcome, "kind": kind})
        yield seq, 1, recorded, "refused_locally", told
        return
    yield seq, 1, recorded, "claimed", json.dumps({"owner": OWNER})
    yield seq, 2, recorded, "begun", '{"attempt":1}'
    yield seq, 3, finished, "settled", json.dumps({"outcome": outcome, "kind": kind, "latencyMs": latency})
    if code in _PAUSES and x < 0.02:
        told = json.dumps({"rule": _PAUSES[code], "cause": kind, "endsAt": finished + 600})
        yield seq, 4, finished, "pause_opened", told


def main() -> int:
    """Parse the command line and fill."""
    parser = argparse.ArgumentParser(description="Fill a ledger with made-up reports.")
    parser.add_argument("path", help="file of the ledger; made if it is missing")
    parser.add_argument("--rows", type=int, default=100_000, help="how many reports (default 100000)")
    parser.add_argument("--days", type=float, default=30.0, help="over how many days (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default 1)")
    args = parser.parse_args()
    began = time.monotonic()
    fill(args.path, args.rows, days=args.days, seed=args.seed)
    print(f"{args.rows} reports in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
