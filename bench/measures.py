"""What is measured: groups of contestants, interleaved, each under its load.

A group takes the arena and puts figures into the result; what it cannot do it names there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any, Final, NamedTuple

from bench.arena import INSTALLED, PEERS, ROOT, Arena, Missing
from bench.load import Contestant, Sample, cpu_of_command, make_note, make_request, next_task_range, peak_kib

SETTLED_S: Final = 9.0
"""By then a bridge, also one that runs slowly under a counter, has done what it does once after its start."""
BASE: Final = "requests.Session"
"""The contestant that most ratios are to."""
Make = Callable[[], Contestant]
Samples = dict[str, list[Sample]]


class Extent(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    spawns: int
    """Starts of each kind that are timed."""
    rows: int
    """Of the big ledger."""


QUICK: Final = Extent(3, 0.8, 15, 1_000_000)
FULL: Final = Extent(7, 2.0, 21, 1_000_000)


class Bench:
    """One run: the arena, the extent, and the figures so far."""

    def __init__(self, arena: Arena, extent: Extent, say: Callable[[str], None]) -> None:
        self.arena = arena
        self.extent = extent
        self.say = say
        self.samples: dict[str, Samples] = {}
        self.figures: dict[str, float] = {}

    def interleave(
        self, group: str, load: int, makers: Mapping[str, Make], rounds: int | None = None
    ) -> None:
        """Measure contestants in turn, A B C, then C B A, so that the machine's moods hit all alike."""
        contestants: dict[str, Contestant] = {}
        for name, make in makers.items():
            try:
                contestant = make()
                contestant.run(load, 0.3)  # connections, threads, caches; a wrong key would show here
                contestants[name] = contestant
            except Missing as missing:
                self.arena.missing[name] = str(missing)
            except (EOFError, OSError, TimeoutError) as error:
                self.arena.missing[name] = f"it failed: {error}"
        found: Samples = {name: [] for name in contestants}
        for turn in range(rounds or self.extent.rounds):
            order = list(contestants)
            for name in order if turn % 2 == 0 else reversed(order):
                self.say(f"{group}, round {turn + 1}: {name}")
                found[name].append(contestants[name].run(load, self.extent.seconds))
        self.samples[group] = found
        self.note_memory(group, contestants)
        self.arena.close_all()

    def note_memory(self, group: str, contestants: Mapping[str, Contestant]) -> None:
        """Take the highest resident memory of each."""
        for name, contestant in contestants.items():
            process: Any = getattr(contestant, "process", None)
            if process is not None and (kib := peak_kib(process.pid)):
                self.figures[f"{group}: peak MB, {name}"] = round(kib / 1024, 1)


# --- groups ----------------------------------------------------------------------------------


def measure_main(bench: Bench) -> None:
    """64 in flight, upstream 20 ms, plain http: everybody."""
    arena = bench.arena
    url = arena.upstream(20)
    makers: dict[str, Make] = {
        "latency bound": lambda: arena.local("bound", url),
        "bridge": lambda: arena.bridge(url, 64),
        "bridge, ledger in memory": lambda: arena.bridge(url, 64, ledger="memory"),
        "bridge, header framing": lambda: arena.bridge(url, 64, header=True),
        BASE: lambda: arena.peer("direct", url),
        "requests.Session, one for each thread": lambda: arena.peer("direct", url, "--each"),
        "the same, trust_env off": lambda: arena.peer("direct", url, "--each", "--no-env"),
        "official Python client": lambda: arena.peer("official_python", url),
        "official npm client": lambda: arena.npm(url),
        "naive jsonrpcserver loop": lambda: arena.peer("naive", url, speaks="pipes"),
        "MCP SDK server": lambda: arena.peer("mcp_server", url, speaks="mcp"),
        "through the Node client": lambda: arena.node_bot(url, 64),
        "through the Go client": lambda: arena.go_bot(url, 64),
        "raw pipe echo": arena.echo,
    }
    bench.interleave("64 in flight, 20 ms", 64, makers)


def measure_alone(bench: Bench) -> None:
    """1 in flight, upstream 0 ms: what the bridge adds to one report."""
    arena = bench.arena
    url = arena.upstream(0)
    makers: dict[str, Make] = {
        "bridge": lambda: arena.bridge(url, 1),
        "bridge, ledger in memory": lambda: arena.bridge(url, 1, ledger="memory"),
        BASE: lambda: arena.peer("direct", url),
        "requests.Session, trust_env off": lambda: arena.peer("direct", url, "--no-env"),
        "official Python client": lambda: arena.peer("official_python", url),
        "official npm client": lambda: arena.npm(url),
    }
    bench.interleave("1 in flight, 0 ms", 1, makers)


def measure_wide(bench: Bench) -> None:
    """256 in flight, upstream 20 ms."""
    arena = bench.arena
    url = arena.upstream(20)
    makers: dict[str, Make] = {
        "latency bound": lambda: arena.local("bound", url),
        "bridge": lambda: arena.bridge(url, 256),
        "bridge, ledger in memory": lambda: arena.bridge(url, 256, ledger="memory"),
        BASE: lambda: arena.peer("direct", url),
        "official npm client": lambda: arena.npm(url),
    }
    bench.interleave("256 in flight, 20 ms", 256, makers)


def measure_matrix(bench: Bench) -> None:
    """The bridge against `requests.Session` over loads and upstreams not measured otherwise."""
    arena = bench.arena
    cells = [(8, 0), (64, 0), (8, 20), (64, 100)]
    if bench.extent is FULL:
        cells = [(load, ms) for ms in (0, 20, 100) for load in (1, 8, 64, 256)]
    for load, latency_ms in cells:
        url = arena.upstream(latency_ms)
        makers: dict[str, Make] = {
            "bridge": partial(arena.bridge, url, load),
            BASE: partial(arena.peer, "direct", url),
        }
        bench.interleave(
            f"{load} in flight, {latency_ms} ms (matrix)", load, makers, min(2, bench.extent.rounds)
        )


def measure_tls(bench: Bench) -> None:
    """64 in flight, upstream 20 ms: https against http, connections kept."""
    arena = bench.arena
    plain, secure = arena.upstream(20), arena.upstream(20, tls=True)
    ca_file = arena.certificates()[0]
    makers: dict[str, Make] = {
        "bridge, http": lambda: arena.bridge(plain, 64),
        "bridge, https": lambda: arena.bridge(secure, 64, words=["--ca-file", ca_file]),
        "requests.Session, https": lambda: arena.peer("direct", secure, "--verify", ca_file),
    }
    bench.interleave("https, 64 in flight, 20 ms", 64, makers)


def measure_connections(bench: Bench) -> None:
    """A new https connection for each report, one at a time, with the CA bundle that requests ships."""
    arena = bench.arena
    secure = arena.upstream(0, tls=True)
    bundle = arena.path(".pem")
    python = INSTALLED / "python" / "bin" / "python"
    if not python.exists():
        raise Missing("the Python peers could not be installed")
    # A bundle of the usual size with our CA at its end: loading it is what a connection costs.
    where = subprocess.run(
        [str(python), "-c", "import certifi; print(certifi.where())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with open(where, "rb") as usual, open(arena.certificates()[0], "rb") as own, open(bundle, "wb") as both:
        both.write(usual.read() + b"\n" + own.read())
    makers: dict[str, Make] = {
        "bridge's client": lambda: arena.local("fresh_connection", secure, bundle),
        "requests, a new Session each": lambda: arena.peer("direct", secure, "--verify", bundle, "--fresh"),
    }
    bench.interleave("a new https connection each", 1, makers)


def measure_sync(bench: Bench) -> None:
    """A disk that needs 2 ms to sync: group commit against a commit for each operation."""
    arena = bench.arena
    url = arena.upstream(0)
    library = arena.path(".so")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        raise Missing("a C compiler is not here (the slow disk is a library that is preloaded)")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, str(PEERS / "slow_sync.c")], check=True
    )
    preload = {"LD_PRELOAD": library}
    program = [str(PEERS / "single_commits.py")]
    makers: dict[str, Make] = {
        "bridge, group commit": lambda: arena.bridge(url, 64, environ=preload),
        "bridge, a commit each": lambda: arena.bridge(url, 64, environ=preload, program=program),
    }
    bench.interleave("a sync takes 2 ms, 64 in flight, 0 ms", 64, makers)


def measure_rows(bench: Bench) -> None:
    """A ledger with a million reports against an empty one."""
    arena = bench.arena
    url = arena.upstream(20)
    big = arena.path(".sqlite3")
    rows = bench.extent.rows
    bench.say(f"filling a ledger with {rows:,} reports")
    filler = [sys.executable, str(ROOT / "scripts" / "fill_ledger.py"), big, "--rows", str(rows)]
    subprocess.run(filler, env=arena.environ, stdout=subprocess.DEVNULL, check=True)
    os.sync()  # what the system still has to write would be in the way of one of them
    bench.figures["big ledger, MB"] = round(os.path.getsize(big) / 1e6)
    makers: dict[str, Make] = {
        "bridge, empty ledger": lambda: arena.bridge(url, 64),
        "bridge, 1,000,000 rows": lambda: arena.bridge(url, 64, ledger=big),
    }
    bench.interleave("64 in flight, 20 ms, big ledger", 64, makers, max(5, bench.extent.rounds))


def measure_start(bench: Bench) -> None:
    """Spawn to first answer, against importing `requests`; on every Python that `make check-pythons` left."""
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = {path.parts[-3].removeprefix("py"): str(path) for path in ROOT.glob(".venv/py3.*/bin/python")}
    ratios = {
        version: _start_ratios(bench, python) for version, python in {**others, mine: sys.executable}.items()
    }
    for version, (info, first) in sorted(ratios.items()):
        bench.figures[f"start: bridge.info to import, Python {version}, ratio"] = info
        bench.figures[f"start: first report to import, Python {version}, ratio"] = first
    (
        bench.figures["start: bridge.info to import, ratio"],
        bench.figures["start: first report to import, ratio"],
    ) = ratios[mine]
    if others:
        spreads = [max(each) / min(each) for each in zip(*ratios.values(), strict=True)]
        bench.figures["start: worst Python to best"] = round(max(spreads), 3)


def _start_ratios(bench: Bench, python: str) -> tuple[float, float]:
    """Spawn to first `bridge.info` and to first report with a Python, each to its ``import requests``."""
    arena = bench.arena
    url = arena.upstream(0)
    plain: list[float] = []
    info: list[float] = []
    first: list[float] = []
    for turn in range(bench.extent.spawns + 1):
        bench.say(f"start, {python}, round {turn}")
        imported, _ = cpu_of_command([python, "-c", "import requests"], arena.environ)
        began = time.perf_counter()
        server = arena.bridge(url, 1, python=python)
        server.ask("bridge.info")
        informed = time.perf_counter() - began
        server.close()
        began = time.perf_counter()
        server = arena.bridge(url, 1, python=python)
        server.say(make_request(1, next_task_range()))
        assert b'"result"' in server.hear()
        reported = time.perf_counter() - began
        server.close()
        if turn:  # the first one compiled and filled caches
            plain.append(imported)
            info.append(informed)
            first.append(reported)
    arena.close_all()
    return round(_paired(info, plain), 3), round(_paired(first, plain), 3)


CROWD: Final = 30
"""Bridges that a supervisor starts at once."""


def measure_crowd(bench: Bench) -> None:
    """Many bridges started at once on one new ledger: until the last one has given its first answer."""
    arena = bench.arena
    url = arena.upstream(0)
    slowest: list[float] = []
    for turn in range(3):
        bench.say(f"crowd, round {turn + 1}")
        ledger = arena.path(".sqlite3")
        task = next_task_range()
        began = time.perf_counter()
        servers = [arena.bridge(url, 8, ledger=ledger) for _ in range(CROWD)]
        for server in servers:
            server.say(make_request(1, task))
        for server in servers:
            assert b'"result"' in server.hear()
        slowest.append(time.perf_counter() - began)
        arena.close_all()
    bench.figures[f"{CROWD} bridges started at once: slowest first answer, s"] = round(max(slowest), 2)


def measure_end(bench: Bench) -> None:
    """End of input with 64 in flight: answers lost, and how long the exit takes after the last one."""
    arena = bench.arena
    url = arena.upstream(20)
    lost = 0
    exits: list[float] = []
    for turn in range(max(5, bench.extent.rounds)):
        bench.say(f"end of input, round {turn + 1}")
        server = arena.bridge(url, 64)
        server.run(64, 0.3)
        base = next_task_range()
        server.say(b"\n".join(make_request(n, base + n) for n in range(64)))
        rest, _, after, code = server.finish()
        lost += 64 - rest.count(b'"result"') + (code != 0)
        exits.append(after)
    arena.close_all()
    bench.figures["end: answers lost"] = lost
    bench.figures["end: exit after the last answer, ms"] = round(median(exits) * 1000, 1)


def measure_stream(bench: Bench) -> None:
    """10,000 members as ten batches, written as fast as they are taken; memory must stay flat."""
    arena = bench.arena
    url = arena.upstream(0)
    bench.say("a stream of 10,000 members")
    server = arena.bridge(url, 64)
    server.run(64, 0.3)
    base = next_task_range()
    began = time.perf_counter()
    for part in range(10):
        members = b",".join(make_request(n, base + n) for n in range(part * 1000, part * 1000 + 1000))
        server.say(b"[" + members + b"]")
    answers = sum(server.hear().count(b'"result"') for _ in range(10))
    took = time.perf_counter() - began
    bench.figures["stream of 10,000: answers"] = answers
    bench.figures["stream of 10,000: a second"] = round(10_000 / took)
    bench.figures["stream of 10,000: peak MB"] = round(peak_kib(server.process.pid) / 1024, 1)
    arena.close_all()


def measure_fleet(bench: Bench) -> None:
    """The ledger on PostgreSQL, synced, on the same disk, against the file."""
    try:
        from tests.pgserver import PgServer
    except ImportError:
        raise Missing("the embedded PostgreSQL is not here (make .venv/.stamp)") from None
    arena = bench.arena
    url = arena.upstream(20)
    bench.say("starting PostgreSQL")
    with PgServer(durable=True) as server:
        ledger = server.url(server.make_database())
        for load in (1, 8, 64):
            makers: dict[str, Make] = {
                "ledger in a file": partial(arena.bridge, url, load),
                "ledger on PostgreSQL": partial(arena.bridge, url, load, ledger=ledger),
            }
            bench.interleave(f"{load} in flight, 20 ms, fleet", load, makers)


def measure_instructions(bench: Bench) -> None:
    """Instructions that a report takes in user space, and a note of solved tasks."""
    report = _count_instructions(bench, "reports", make_request, 100)
    note = _count_instructions(bench, "notes", make_note, 400)
    bench.figures["instructions a report, thousands"] = round(report / 1000)
    bench.figures["instructions a note, thousands"] = round(note / 1000)
    bench.figures["a note to a report, instructions"] = round(note / report, 3)


def _count_instructions(bench: Bench, name: str, request: Callable[[int, int], bytes], few: int) -> float:
    """What one message costs: a long run minus one of `few`; what is done once is done in both."""
    arena = bench.arena
    counter = shutil.which("valgrind")
    if counter is None:
        raise Missing("valgrind is not here")
    url = arena.upstream(0)
    counts: dict[int, int] = {}
    # What Python compiles at a first start would be counted in the first run alone.
    warm = arena.bridge(url, 8, request=request)
    warm.run_count(8, few)
    warm.finish()
    for count in (few, 11 * few):
        bench.say(f"instructions of {count} {name}")
        told = arena.path(".callgrind")
        under = [counter, "-q", "--tool=callgrind", f"--callgrind-out-file={told}"]
        # As many in flight as there is room for: otherwise the count depends on who wakes when.
        server = arena.bridge(url, 8, under=under, request=request)
        settled_at = time.monotonic() + SETTLED_S
        server.run_count(8, count)
        time.sleep(max(0.0, settled_at - time.monotonic()))
        server.finish()
        with open(told, encoding="ascii", errors="replace") as file:
            counts[count] = next(int(line.split()[1]) for line in file if line.startswith("totals:"))
    arena.close_all()
    return (counts[11 * few] - counts[few]) / (10 * few)


def measure_notes(bench: Bench) -> None:
    """Notes of solved tasks, one a message: how many a second, and what they leave in memory and file."""
    arena = bench.arena
    url = arena.upstream(0)
    bench.say("notes of solved tasks")
    ledger = arena.path(".sqlite3")
    server = arena.bridge(url, 64, ledger=ledger, request=make_note)
    server.run(64, 5.0)  # until all is loaded that a first report would need
    before, size = peak_kib(server.process.pid), _size(ledger)
    sample = server.run(64, 10.0)
    bench.figures["notes a second"] = round(sample.per_second)
    bench.figures["notes: failed"] = sample.failed
    bench.figures["notes: memory grown in 10 s, MB"] = round(
        (peak_kib(server.process.pid) - before) / 1024, 1
    )
    bench.figures["notes: file grown in 10 s, KiB"] = (_size(ledger) - size) // 1024
    arena.close_all()


def _size(path: str) -> int:
    return sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))


def measure_figures(bench: Bench) -> None:
    """A report's latency beside the call for the account's figures, which comes in the second minute."""
    arena = bench.arena
    url = arena.upstream(20)
    p99: dict[bool, float] = {}
    for is_asked in (False, True):
        bench.say(f"account figures: {'with' if is_asked else 'without'}")
        server = arena.bridge(url, 64, words=["--account-figures"] if is_asked else [])
        server.run(64, 57.0)
        p99[is_asked] = server.run(64, 12.0).p99_ms
        asked = server.ask("bridge.status")["result"].get("accountFigures")
        arena.close_all()
        if is_asked:
            bench.figures["account figures: were asked for"] = int(bool(asked and asked.get("askedAt")))
    bench.figures["account figures: p99 beside the call to p99 without"] = round(p99[True] / p99[False], 2)


GROUPS: Final[Mapping[str, Callable[[Bench], None]]] = {
    "main": measure_main,
    "start": measure_start,
    "crowd": measure_crowd,
    "alone": measure_alone,
    "wide": measure_wide,
    "https": measure_tls,
    "connections": measure_connections,
    "sync": measure_sync,
    "end": measure_end,
    "stream": measure_stream,
    "instructions": measure_instructions,
    "notes": measure_notes,
    "fleet": measure_fleet,
    "rows": measure_rows,
    "figures": measure_figures,
    "matrix": measure_matrix,
}
"""In the order of their weight: what does not fit into the time is left out from the end."""


def _paired(ones: list[float], others: list[float]) -> float:
    return median(one / other for one, other in zip(ones, others, strict=True))
