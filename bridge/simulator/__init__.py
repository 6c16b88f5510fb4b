"""The documented upstream API on loopback: the bridge's sandbox, and a test double for anybody.

A second, independent reading of the vendor's documents: of the bridge it imports the engine and nothing else.
"""

from __future__ import annotations

from bridge.simulator.journal import fingerprint
from bridge.simulator.scenario import load_scenario, parse_scenario, scenario_schema
from bridge.simulator.shapes import NotValid
from bridge.simulator.simulator import Simulator

__all__ = ["NotValid", "Simulator", "fingerprint", "load_scenario", "parse_scenario", "scenario_schema"]
