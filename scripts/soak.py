"""Kill bridges for a long time and count broken promises; exit 1 if there is one.

Runs of the kill loop, each with its own seed and ledger, until there are enough kills and tasks or
the time is over. With ``--state`` the figures outlive an interruption and the next call goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.e2e.killjudge import Tally
from tests.e2e.killloop import KillLoop, Plan
from tests.world import scratch_directory

TASKS_A_RUN = 1000
KILLS_A_RUN = 50
LONGEST_RUN_S = 45.0
"""What a run takes after its last kill: windows, recovery, the end of input. Not begun with less left."""


def main() -> int:
    """Run and print the figures; returns the exit code."""
    args = parse_arguments()
    state = load_state(args.state)
    total = Tally(**state["total"])
    seed: int = args.seed if args.seed is not None else state["seed"]
    until = time.monotonic() + 60.0 * args.minutes
    while total.is_good and (total.kills < args.kills or total.tasks < args.tasks):
        if until - time.monotonic() < LONGEST_RUN_S:
            print(f"out of time after {args.minutes} minutes; call again with --state to go on", flush=True)
            break
        began_at = time.monotonic()
        plan = make_plan(seed, until - LONGEST_RUN_S)
        print(f"seed {seed}: {plan.bridges} bridges, pauses {'on' if plan.pauses else 'off'}", flush=True)
        with tempfile.TemporaryDirectory(prefix="soak-", dir=args.folder or scratch_directory()) as folder:
            tally = KillLoop(Path(folder), plan, report).run()
        print(f"  {time.monotonic() - began_at:.0f} s: {tally.describe()}", flush=True)
        total += tally
        seed += 1
        save_state(args.state, {"seed": seed, "total": total._asdict()})
    print(f"total: {total.describe()}")
    enough = total.kills >= args.kills and total.tasks >= args.tasks
    print("every promise was kept" if total.is_good else "PROMISES WERE BROKEN", flush=True)
    return 0 if total.is_good and (enough or args.state) else 1


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="at least so many kills (1000)")
    parser.add_argument("--tasks", type=int, default=20_000, help="at least so many tasks (20000)")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most so long (30)")
    parser.add_argument("--seed", type=int, help="seed of the first run")
    parser.add_argument("--state", type=Path, help="file that keeps the figures between calls")
    parser.add_argument("--folder", type=Path, help="where ledgers are made (in memory)")
    return parser.parse_args()


def make_plan(seed: int, stop_by: float) -> Plan:
    """Draw the circumstances of a run from its seed."""
    chance = random.Random(seed)
    return Plan(
        seed,
        bridges=chance.randint(1, 4),
        tasks=TASKS_A_RUN,
        kills=KILLS_A_RUN,
        kill_every_s=chance.choice((0.25, 0.4, 0.6)),
        window_s=chance.choice(((3.5, 8.0), (6.0, 12.0))),
        pauses=chance.random() < 0.4,
        stop_by=stop_by,
    )


def load_state(path: Path | None) -> dict[str, Any]:
    """The figures of earlier calls."""
    if path is not None and path.exists():
        state: dict[str, Any] = json.loads(path.read_text())
        return state
    return {"seed": random.SystemRandom().randrange(1_000_000), "total": Tally()._asdict()}


def save_state(path: Path | None, state: dict[str, Any]) -> None:
    """Keep the figures, whole or not at all."""
    if path is not None:
        draft = path.with_name(path.name + ".new")
        draft.write_text(json.dumps(state))
        draft.replace(path)


def report(line: str) -> None:
    """Print what should not have been, shortened."""
    print("  " + line[:2000], flush=True)


if __name__ == "__main__":
    sys.exit(main())
