"""``python -m bench``: measure everything side by side and print the ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench import report
from bench.arena import BENCH, ROOT, WORK, Arena, Missing, install
from bench.measures import FULL, GROUPS, QUICK, Bench
from bridge import __version__
from bridge.ledger import sqlite_file

BUDGET_S: Final = 285.0
"""A quick run begins no further group after the time this leaves; the promise is five minutes."""
_LONGEST_S: Final[dict[str, float]] = {
    "main": 70.0,
    "rows": 60.0,
    "instructions": 60.0,
    "figures": 160.0,
    "matrix": 30.0,
}
_USUAL_S: Final = 20.0
PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- bench:begin -->", "<!-- bench:end -->")


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and measure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the bridge beside its peers."
    )
    parser.add_argument(
        "--full", action="store_true", help="more rounds and the whole matrix; takes half an hour"
    )
    parser.add_argument("--only", action="append", choices=GROUPS, help="one group; may be said again")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument(
        "--verbose", action="store_true", help="say what is going on, also without a terminal"
    )
    args = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    result = measure(args.full, args.only or list(GROUPS), args.verbose)
    text = report.render(result)
    (BENCH / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(text, end="")
    if args.write:
        write_page(text)
    if result["missing"] and os.environ.get("CI"):
        print("bench: with CI set nothing may be left out", file=sys.stderr)
        return 1
    return 0


def measure(is_full: bool, groups: Sequence[str], verbose: bool) -> dict[str, Any]:
    """Run the groups and return the result."""

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif verbose:
            print(f"{time.monotonic() - began:6.1f} {text}", file=sys.stderr, flush=True)

    began = time.monotonic()
    install(say)
    began = time.monotonic()
    with Arena(say) as arena:
        bench = Bench(arena, FULL if is_full else QUICK, say)
        machine = _machine()
        for name in groups:
            if not is_full and time.monotonic() - began + _LONGEST_S.get(name, _USUAL_S) > BUDGET_S:
                arena.missing[f"group {name}"] = "no time was left for it"
                continue
            try:
                GROUPS[name](bench)
            except Missing as missing:
                arena.missing[f"group {name}"] = str(missing)
            except (EOFError, OSError, TimeoutError, AssertionError, subprocess.CalledProcessError) as error:
                arena.missing[f"group {name}"] = f"it failed: {error!r}"
            arena.end_group()
        say("")
    results = report.Results(bench.samples, bench.figures)
    return {
        "machine": machine,
        "versions": _versions(),
        "date": time.strftime("%Y-%m-%d"),
        "tookS": round(time.monotonic() - began),
        "targets": report.judge(results),
        "groups": report.summarise(results),
        "samples": {
            group: {n: [s._asdict() for s in f] for n, f in found.items()}
            for group, found in bench.samples.items()
        },
        "figures": bench.figures,
        "missing": arena.missing,
    }


def write_page(text: str) -> None:
    """Put the tables between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    PAGE.write_text(f"{head}{MARKS[0]}\n{text}{MARKS[1]}{tail}", encoding="utf-8")


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    disk = "disk unknown"
    longest = ""
    for line in _lines("/proc/mounts"):
        _, where, kind, *_ = line.split()
        if str(WORK).startswith(where) and len(where) >= len(longest):
            longest, disk = where, f"ledger on {kind}"
    busy = f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} cores, {model}, {platform.system()} {platform.release()}, {disk}{busy}"


def _versions() -> str:
    told = [
        f"bridge {__version__}",
        f"Python {platform.python_version()}",
        f"SQLite {sqlite_file.sqlite_version}",
        ssl.OPENSSL_VERSION,
    ]
    for name in ("requests", "jsonrpcserver", "fastjsonschema"):
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"{name} not installed as a package")
    for line in _lines(str(BENCH / "requirements.txt")):
        if line.startswith(("anticaptchaofficial", "mcp")):
            told.append(line.strip().replace("==", " "))
    locked = json.loads((BENCH / "peers" / "package.json").read_text())["dependencies"]
    told += [f"{name} {number}" for name, number in locked.items()]
    for tool, words in (("node", "--version"), ("go", "version")):
        if shutil.which(tool):
            told.append(
                subprocess.run([tool, words], capture_output=True, text=True, check=False).stdout.strip()
            )
    return ", ".join(told)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())
