"""The bridge with counters: Python calls in all threads, commits, writes to stdout, garbage, and so on.

Writes them to the file that the environment variable BENCH_COUNTS names when the bridge ends. Measures
the program as it is: only functions at the rim are wrapped, and periodic sweeps put off.
"""

from __future__ import annotations

import sys

_BEFORE = frozenset(sys.modules)

import gc  # noqa: E402  # as below
import os  # noqa: E402  # after the look at what Python itself has loaded
import threading  # noqa: E402
from types import FrameType  # noqa: E402
from typing import Any  # noqa: E402

_COUNTS = {"calls": 0, "commits": 0, "operations": 0, "writes": 0, "connections": 0, "garbage": 0}
_MARKS: list[dict[str, int]] = []
_MODULES: list[str] = []
_PLACES: dict[Any, int] = {}
_WARM = 11  # bench.budgets.WARM reports and the first bridge.info
_OURS = frozenset(sys.modules) - _BEFORE


def _profile(frame: FrameType, event: str, _argument: Any) -> None:
    if event == "call":
        _COUNTS["calls"] += 1
        code = frame.f_code
        _PLACES[code] = _PLACES.get(code, 0) + 1


def _count_writes() -> None:
    from bridge.engine import Outlet

    put = Outlet.put

    def counted(self: Outlet, piece: bytes) -> None:
        if self.fd != 2:
            if not _MARKS:
                _MODULES.extend(set(sys.modules) - _BEFORE - _OURS)
            _COUNTS["writes"] += 1
            # Objects that only the collector frees, since they hold each other.
            _COUNTS["garbage"] += gc.collect()
            _MARKS.append(dict(_COUNTS))
            if len(_MARKS) == _WARM:
                _PLACES.clear()
        put(self, piece)

    Outlet.put = counted  # type: ignore[method-assign]


def _count_commits() -> None:
    from bridge.core.model import Prune, Sweep
    from bridge.ledger.sqlite import SqliteStore
    from bridge.ledger.transfer import READS

    uncounted = READS | {Sweep, Prune}
    transact = SqliteStore.transact

    def counted(self: SqliteStore, operations: Any) -> Any:
        real = [op for op in operations if type(op) not in uncounted]
        _COUNTS["commits"] += bool(real)
        _COUNTS["operations"] += len(real)
        return transact(self, operations)

    SqliteStore.transact = counted  # type: ignore[method-assign]


def _count_connections(adapter: Any) -> None:
    connect = adapter._connect

    def counted(until: float) -> Any:
        _COUNTS["connections"] += 1
        return connect(until)

    adapter._connect = counted


def _wrap_late() -> None:
    from bridge import app
    from bridge.app import App

    app._HEAD_START_S = 1.0  # type: ignore[misc]  # goes by the clock
    load_client = App._load_client

    def wrapped(self: App) -> Any:
        client = load_client(self)
        _count_connections(*client._session.adapters.values())
        _count_commits()
        return client

    App._load_client = wrapped  # type: ignore[method-assign]
    App.warm_up_later = lambda self: None  # type: ignore[method-assign]  # goes by the clock


def main() -> int:
    """Serve with the counters on."""
    from bridge.cli.main import main as serve
    from bridge.reports import reporter

    reporter.SWEEP_S = 3600.0  # type: ignore[misc]  # sweeps go by the clock, and counts must not
    _count_writes()
    _wrap_late()
    threading.setprofile(_profile)
    sys.setprofile(_profile)
    code = serve()
    sys.setprofile(None)
    threading.setprofile(None)
    import json

    top = sorted(_PLACES.items(), key=lambda item: -item[1])[:100]
    told = {
        "marks": _MARKS,
        "modules": sorted(_MODULES),
        "top": [(f"{os.path.basename(code.co_filename)}:{code.co_name}", number) for code, number in top],
    }
    with open(os.environ["BENCH_COUNTS"], "w", encoding="ascii") as file:
        json.dump(told, file)
    return code


if __name__ == "__main__":
    sys.exit(main())
