"""Engines and child processes: nobody's exit status is collected by somebody else."""

from __future__ import annotations

import subprocess
import sys
import threading

from bridge.engine import Engine


def test_engines_leave_the_exit_status_of_children_alone() -> None:
    """With several engines one after the other, in several threads, every child's exit code is known."""
    codes: list[int] = []

    def use_engine() -> None:
        engine = Engine(on_bug=lambda _: None)
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"])
        engine.sleep(0.3)
        codes.append(child.wait())
        engine.close()

    for _ in range(3):
        thread = threading.Thread(target=use_engine)
        thread.start()
        thread.join()
    assert codes == [3, 3, 3]
