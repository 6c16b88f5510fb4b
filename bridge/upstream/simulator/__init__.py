"""The documented upstream API on loopback: the bridge's sandbox, and a test double for anybody.

A second, independent reading of the vendor's documents: imports nothing of the bridge but itself,
and only the standard library.
"""

from __future__ import annotations

from bridge.upstream.simulator.checks import NotValid
from bridge.upstream.simulator.journal import fingerprint
from bridge.upstream.simulator.scenario import load_scenario, parse_scenario, scenario_schema
from bridge.upstream.simulator.server import Simulator

__all__ = ["NotValid", "Simulator", "fingerprint", "load_scenario", "parse_scenario", "scenario_schema"]
