"""What a report costs, counted and not timed: Python calls, commits, writes, connections, loaded modules.

    python -m bench.budgets            print the counts of this tree beside the stored ones
    python -m bench.budgets --write    store them in tests/vectors/budgets.json

Reports go one after another, so that the counts hardly vary. `tests/contract/test_budgets.py` holds
every change against the stored ones. Call counts are those of CPython 3.11; later ones make fewer.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
STORED: Final = ROOT / "tests" / "vectors" / "budgets.json"
COUNTER: Final = Path(__file__).resolve().parent / "peers" / "counter.py"
WARM: Final = 10
"""Reports before counting begins: they load, connect and prove the key."""
COUNTED: Final = 60
MARGIN: Final = 1.10
"""How much more than stored is accepted."""
_PATIENCE_S: Final = 60.0
_KEY: Final = "0123456789abcdef0123456789abcdef"


def count(folder: str) -> dict[str, Any]:
    """Run a bridge with its counters on against a simulator, and return what it counted.

    Args:
        folder: for the ledger and other files of the run.
    """
    environ = {
        "HOME": folder,
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(ROOT),
        "ANTICAPTCHA_CLIENT_KEY": _KEY,
        "BENCH_COUNTS": os.path.join(folder, "counts.json"),
    }
    ready = os.path.join(folder, "ready")
    quiet = subprocess.DEVNULL
    simulate = [sys.executable, "-m", "bridge", "simulate", "--ready-file", ready]
    upstream = subprocess.Popen(simulate, env=environ, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        until = time.monotonic() + _PATIENCE_S
        while not os.path.exists(ready):
            assert upstream.poll() is None, "the simulator did not start"
            assert time.monotonic() < until, "the simulator did not start in time"
            time.sleep(0.01)
        url = Path(ready).read_text(encoding="ascii").strip()
        ledger = os.path.join(folder, "ledger.sqlite3")
        words = ["--url", url, "--ledger", ledger, "--concurrency", "4", "--no-parent-watch"]
        _talk([sys.executable, str(COUNTER), *words], environ)
    finally:
        upstream.terminate()
        upstream.wait(_PATIENCE_S)
    counts: dict[str, Any] = json.loads(Path(environ["BENCH_COUNTS"]).read_text(encoding="ascii"))
    return counts


def _talk(command: list[str], environ: dict[str, str]) -> None:
    bridge = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert bridge.stdin is not None
    assert bridge.stdout is not None
    try:
        bridge.stdin.write(b'{"jsonrpc":"2.0","id":0,"method":"bridge.info"}\n')
        bridge.stdin.flush()
        answers = [bridge.stdout.readline()]
        for number in range(1, WARM + COUNTED + 1):
            params = b'{"taskId":%d,"taskType":"ImageToTextTask","languagePool":"en"}' % (1_000_000 + number)
            request = b'{"jsonrpc":"2.0","id":%d,"method":"reportIncorrectImageCaptcha","params":%b}\n'
            bridge.stdin.write(request % (number, params))
            bridge.stdin.flush()
            answers.append(bridge.stdout.readline())
        bridge.stdin.close()
        bridge.wait(_PATIENCE_S)
    finally:
        bridge.kill()
        bridge.wait()
        bridge.stdout.close()
    for answer in answers:
        assert b'"result"' in answer, answer


def per_report(counts: dict[str, Any]) -> dict[str, float]:
    """Return what one report costs, over those after the warm ones."""
    marks = counts["marks"]
    first, last = marks[WARM], marks[WARM + COUNTED]
    return {name: round((last[name] - first[name]) / COUNTED, 2) for name in last}


def public_modules(modules: Iterable[str]) -> list[str]:
    """Reduce module names: ours in full, others to their package, private ones left out."""
    names = set()
    for name in modules:
        top = name.partition(".")[0]
        names.add(name if top == "bridge" else top)
    return sorted(name for name in names if not name.startswith("_"))


def main() -> int:
    """Count, compare, and store if asked to."""
    with tempfile.TemporaryDirectory() as folder:
        counts = count(folder)
    found: dict[str, Any] = {"perReport": per_report(counts), "modules": public_modules(counts["modules"])}
    stored = (
        json.loads(STORED.read_text(encoding="utf-8"))
        if STORED.exists()
        else {"perReport": {}, "modules": []}
    )
    for name, value in found["perReport"].items():
        print(f"{name:<12} {value:>9} (stored {stored['perReport'].get(name)})")
    for word, names in (("new", set(found["modules"]) - set(stored["modules"])),
                        ("gone", set(stored["modules"]) - set(found["modules"]))):  # fmt: skip
        print(f"modules {word}: {', '.join(sorted(names)) or 'none'}")
    if "--top" in sys.argv:
        for name, value in counts["top"]:
            print(f"{value / COUNTED:8.1f} {name}")
    if "--write" in sys.argv:
        # What is counted in ones is stored in ones: the last wake-up of a run may come too late to be seen.
        small = {name: math.ceil(value) for name, value in found["perReport"].items() if value < 5}
        found["perReport"] = {**found["perReport"], **small}
        about = "What starting and reporting may cost; written by python -m bench.budgets --write."
        STORED.write_text(json.dumps({"description": about, **found}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
