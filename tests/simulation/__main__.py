"""``python -m tests.simulation``: run seeds, replay one, make a failing one smaller."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.simulation.plan import STEPS, Plan, make_plan
from tests.simulation.shrink import shrink
from tests.simulation.world import Result, simulate


def main(words: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds in a row")
    parser.add_argument("--steps", type=int, default=STEPS, help="what callers do in a run, about")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that fails")
    parser.add_argument("--no-shrink", action="store_true", help="leave a failing seed as it is")
    parser.add_argument(
        "--each", action="store_true", help="print the hash of every seed's run and nothing else"
    )
    parser.add_argument("--having", help="run only seeds with a fault of this kind, such as disk or power")
    parser.add_argument("--trace", action="store_true", help="print what happens, line by line")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    args = parser.parse_args(words)
    if args.jobs > 1:
        return _share(args)
    began_at, virtual_s, failed = time.monotonic(), 0.0, 0
    for seed in range(args.seed, args.seed + args.count):
        plan = make_plan(seed, args.steps)
        if args.having and all(fault.kind != args.having for fault in plan.faults):
            continue
        result = simulate(plan, keeps=args.trace)
        virtual_s += result.seconds
        if args.trace:
            print("\n".join(result.lines))
        if args.each or args.count == 1 or result.broken:
            print(f"seed {seed}: {result.digest}", flush=True)
        if result.broken:
            failed += 1
            _tell(result, args.steps, not args.no_shrink)
            if not args.keep_going:
                break
    if args.each:
        return 1 if failed else 0
    took_s = time.monotonic() - began_at
    pace = f"{virtual_s:.0f} s in {took_s:.1f} s: {virtual_s / took_s:.0f} times real time"
    print(f"{args.count} seeds, {failed} failed, {pace}")
    return 1 if failed else 0


def _share(args: argparse.Namespace) -> int:
    """Let several processes run the seeds; returns the worst exit code."""
    part = -(-args.count // args.jobs)
    firsts = range(args.seed, args.seed + args.count, part)
    words = ["--steps", str(args.steps), *(["--keep-going"] if args.keep_going else [])]
    commands = [
        [sys.executable, "-m", "tests.simulation", str(first), "--count", str(part), *words]
        for first in firsts
    ]
    return max(child.wait() for child in [subprocess.Popen(command) for command in commands])


def _tell(result: Result, steps: int, may_shrink: bool) -> None:
    print("\n".join(f"  {sentence}" for sentence in result.broken))
    seed = result.plan.seed
    print(f"  replay: make simulate SEED={seed} STEPS={steps}    (with TRACE=1: line by line)")
    if may_shrink:
        print(_describe(shrink(result).plan))


def _describe(plan: Plan) -> str:
    lines = [f"  smallest that fails still: {plan.setup}"]
    lines += [f"    {task}" for task in plan.tasks]
    lines += [f"    {act}" for act in plan.acts]
    lines += [f"    {fault}" for fault in plan.faults]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
