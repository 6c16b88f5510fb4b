"""A closed loop in threads, for peers that call the upstream themselves; see `bench.load.Caller`.

Runs in the peers' own environment, so it imports nothing of this project.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable

Send = Callable[[int], bool]
"""Reports one task; True if the upstream took it."""


def serve(make_send: Callable[[], Send]) -> None:
    """Obey orders from stdin until it ends; each thread of a load makes its own `Send` once."""
    sends: list[Send] = []
    for line in sys.stdin:
        order = json.loads(line)
        while len(sends) < order["load"]:
            sends.append(make_send())
        print(json.dumps(_drive(sends[: order["load"]], order["seconds"], order["first"])), flush=True)


def _drive(sends: list[Send], seconds: float, first: int) -> dict[str, object]:
    tasks = itertools.count(first)
    latencies: list[float] = []
    failed: list[int] = []
    clock = time.perf_counter
    began = clock()
    until = began + seconds

    def loop(send: Send) -> None:
        while (at := clock()) < until:
            if not send(next(tasks)):
                failed.append(1)
            latencies.append(clock() - at)

    threads = [threading.Thread(target=loop, args=(send,)) for send in sends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = clock() - began
    return {"reports": len(latencies), "seconds": took, "latencies": latencies, "failed": len(failed)}
