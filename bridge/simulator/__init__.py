"""The documented upstream API on loopback: the bridge's sandbox, and a test double for anybody.

A second, independent reading of the vendor's documents: of the bridge it imports the engine, and
what reads a data file.
"""

from __future__ import annotations

from bridge.simulator.journal import fingerprint
from bridge.simulator.scenario import NotValid, load_scenario, parse_scenario
from bridge.simulator.simulator import Simulator

__all__ = ["NotValid", "Simulator", "fingerprint", "load_scenario", "parse_scenario"]
