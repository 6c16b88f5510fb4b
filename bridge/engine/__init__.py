"""The engine: greenlets of one thread, everything that waits, and the one clock.

The only room that knows gevent. Everybody else spawns, waits and sleeps through an `Engine` that is
handed in. With another loop and clock the same bridge runs without real time (`tests/simulation`).
"""

from bridge.engine.core import Engine, NoResources, Readiness, SystemClock, TimedOut, Timer, Waiter
from bridge.engine.outlet import Outlet

__all__ = ["Engine", "NoResources", "Outlet", "Readiness", "SystemClock", "TimedOut", "Timer", "Waiter"]
