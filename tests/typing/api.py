"""What other people's tests may import, as types: checked by mypy, never run."""

from __future__ import annotations

from typing import Any

from bridge.simulator import NotValid, Simulator, fingerprint, load_scenario, parse_scenario


def use_the_simulator() -> None:
    """Start a simulated upstream, break something, and ask what happened."""
    with Simulator(port=0, latency_s=0.01) as simulator:
        url: str = simulator.base_url
        task: int = simulator.add_task("image")
        fault: int = simulator.add_fault("hang", task_id=task)
        simulator.clear_faults(fault)
        log: list[dict[str, Any]] = simulator.log(task_id=task)
        counters: dict[str, Any] = simulator.counters()
        print(url, log, counters, fingerprint("key"))


def read_a_scenario(path: str) -> dict[str, Any] | None:
    """Read a scenario file, or say what is wrong with it."""
    try:
        return dict(load_scenario(path)) or dict(parse_scenario("{}"))
    except NotValid as error:
        print(error)
        return None
