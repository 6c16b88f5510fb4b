"""Makes a failing plan smaller: leaves out faults, callers' acts and tasks while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.simulation.plan import Plan
from tests.simulation.world import Result, simulate

T = TypeVar("T")


def shrink(result: Result, most: int = 200) -> Result:
    """The smallest failing run that was found in so many tries."""
    best, left = result, most

    def try_plan(plan: Plan) -> bool:
        nonlocal best, left
        left -= 1
        tried = simulate(plan)
        if tried.broken:
            best = tried
        return bool(tried.broken)

    def leave_out(things: Sequence[T], fill: Callable[[tuple[T, ...]], Plan]) -> None:
        """Leave out halves, then smaller parts, then single ones."""
        size = max(1, len(things) // 2)
        kept = tuple(things)
        while left > 0:
            at = 0
            while at < len(kept) and left > 0:
                fewer = kept[:at] + kept[at + size :]
                if try_plan(fill(fewer)):
                    kept = fewer
                else:
                    at += size
            if size == 1:
                return
            size //= 2

    leave_out(best.plan.faults, lambda faults: best.plan._replace(faults=faults))
    leave_out(best.plan.acts, lambda acts: best.plan._replace(acts=acts))
    used = {act.more["params"]["taskId"] for act in best.plan.acts if act.kind == "report"}
    used |= {
        m["params"]["taskId"] for act in best.plan.acts if act.kind == "batch" for m in act.more["members"]
    }
    fewer = tuple(task for task in best.plan.tasks if task.task_id in used)
    if len(fewer) < len(best.plan.tasks):
        try_plan(best.plan._replace(tasks=fewer))
    return best
