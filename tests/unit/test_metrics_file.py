"""The figures in the Prometheus text format."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.engine import Engine
from bridge.ops import metrics
from bridge.ops.metrics import MetricsFile, render

FIGURES: dict[str, Any] = {
    "startedWall": 1000.0,
    "outcomes": {"accepted": 3, "refused": 1, "unknown": 0, "not_sent": 0},
    "codes": {"16": 1, "-32010": 2},
    "inFlight": 1,
    "queued": 2,
    "latencyMs": {"count": 4, "p50": 140, "p95": 210, "p99": None},
    "latencySumMs": 700,
    "replays": 5,
    "droppedLogLines": 6,
    "pauses": [
        {"scope": "key", "cause": 'od"d\\cause\nü', "state": "open"},
        {"scope": "address", "cause": None, "state": "probing"},
        {"scope": "address", "cause": None, "state": "probing"},
    ],
    "advice": [{"kind": "few_tasks"}, {"kind": "rate_high"}, {"kind": "few_tasks"}],
    "ledger": {"durable": True, "healthy": False, "owed": 7},
}


class Family(NamedTuple):
    """A metric as a reader of the format finds it."""

    kind: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]


_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def parse(text: str) -> dict[str, Family]:
    """Read the text format strictly: every sample inside its family, no family and no sample twice."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    name = ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("# HELP "):
            name, _, help = line.removeprefix("# HELP ").partition(" ")
            assert help.endswith(".")
            assert name not in families
            mark, hash_name, kind = next(lines).removeprefix("# ").split(" ")
            assert (mark, hash_name) == ("TYPE", name)
            assert kind in ("counter", "gauge", "summary")
            assert (kind == "counter") == name.endswith("_total")
            families[name] = Family(kind, {})
            continue
        found = _SAMPLE.fullmatch(line)
        assert found is not None, line
        metric, inner, value = found.groups()
        suffix = metric.removeprefix(name)
        assert suffix in (("", "_sum", "_count") if families[name].kind == "summary" else ("",)), line
        labels = tuple(_LABEL.findall(inner or ""))
        assert _LABEL.sub("", inner or "") == "", line
        assert len(dict(labels)) == len(labels)
        assert (metric, labels) not in families[name].samples
        families[name].samples[metric, labels] = float(value)
    return families


def test_every_figure_is_there_once() -> None:
    """The text can be parsed, and each figure of the status stands in it with its labels."""
    families = parse(render(FIGURES, 1012.5))
    flat = {
        (name.removeprefix("report_bridge_"), *(text for _, text in labels)): value
        for family in families.values()
        for (name, labels), value in family.samples.items()
    }
    del flat[next(key for key in flat if key[0] == "info")]
    assert flat == {
        ("start_time_seconds",): 1000.0,
        ("written_time_seconds",): 1012.5,
        ("reports_total", "accepted"): 3,
        ("reports_total", "refused"): 1,
        ("reports_total", "unknown"): 0,
        ("reports_total", "not_sent"): 0,
        ("errors_total", "16"): 1,
        ("errors_total", "-32010"): 2,
        ("replays_total",): 5,
        ("attempt_seconds", "0.5"): 0.14,
        ("attempt_seconds", "0.95"): 0.21,
        ("attempt_seconds_sum",): 0.7,
        ("attempt_seconds_count",): 4,
        ("in_flight",): 1,
        ("queued",): 2,
        ("log_lines_dropped_total",): 6,
        ("pauses", "key", 'od\\"d\\\\cause\\n\\\\xfc', "open"): 1,
        ("pauses", "address", "", "probing"): 2,
        ("advice", "few_tasks"): 2,
        ("advice", "rate_high"): 1,
        ("ledger_healthy",): 0,
        ("ledger_durable",): 1,
        ("ledger_owed",): 7,
    }


def test_the_checker_of_prometheus_accepts_it() -> None:
    """Where promtool is installed it finds nothing to say, and it does find a name that is wrong."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is missing, so this was left out")
        return
    good = render(FIGURES, 1012.5)
    for text, code in ((good, 0), (good.replace("replays_total", "replays"), 3)):
        words = [promtool, "check", "metrics"]
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr


class Told:
    """Takes events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, fields: Any) -> None:
        self.events.append((name, fields))


class WallClock:
    """A clock whose wall time is set."""

    def __init__(self, *walls: float) -> None:
        self._walls = list(walls)
        self.now = Engine(fail).now

    def wall(self) -> float:
        return self._walls.pop(0) if len(self._walls) > 1 else self._walls[0]


def fail(bug: BaseException) -> None:
    """Let no bug of a greenlet pass."""
    raise bug


def make(path: Path, tell: Told, *walls: float) -> MetricsFile:
    """A metrics file of an engine with these wall times."""
    return MetricsFile(Engine(fail, clock=WallClock(*walls)), str(path), read, tell)


def read() -> Mapping[str, Any]:
    """The figures."""
    return FIGURES


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    """A write leaves a new file with the whole text, readable by all, and no draft."""
    path = tmp_path / "bridge.prom"
    path.write_text("old")
    held = path.open()
    told = Told()
    make(path, told, 1012.5).write()
    with held:
        assert held.read() == "old"
    assert parse(path.read_text())["report_bridge_start_time_seconds"].samples == {
        ("report_bridge_start_time_seconds", ()): 1000.0
    }
    assert path.stat().st_mode & 0o077 & ~0o044 == 0
    assert os.listdir(tmp_path) == ["bridge.prom"]
    assert told.events == []


def test_failure_is_told_once_until_it_is_over(tmp_path: Path) -> None:
    """A file that cannot be written costs one event, and another one only after it could be written."""
    folder = tmp_path / "later"
    told = Told()
    file = make(folder / "bridge.prom", told, 1012.5)
    file.write()
    file.write()
    folder.mkdir()
    file.write()
    assert [name for name, _ in told.events] == ["metrics_unwritable"]
    (folder / "bridge.prom").unlink()
    (folder / "bridge.prom").mkdir()
    file.write()
    assert [fields["reason"] for _, fields in told.events] == ["No such file or directory", "Is a directory"]
    assert os.listdir(folder) == ["bridge.prom"]


def test_start_time_does_not_move_with_the_clock(tmp_path: Path) -> None:
    """A clock that is set does not make the process look restarted."""
    file = make(tmp_path / "f", Told(), 1012.5, 5000.0)
    file.write()
    file.write()
    assert "report_bridge_start_time_seconds 1000.0\n" in (tmp_path / "f").read_text()
    assert "report_bridge_written_time_seconds 5000.0\n" in (tmp_path / "f").read_text()


def test_file_is_written_again_and_again_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there soon after the start, written every period, and a last time at the end."""
    monkeypatch.setattr(metrics, "PERIOD_S", 0.02)
    path = tmp_path / "f"
    walls = [1012.5 + number for number in range(500)]
    engine = Engine(fail, clock=WallClock(*walls))
    file = MetricsFile(engine, str(path), read, Told())
    engine.spawn(file.keep)

    def written() -> float:
        [line] = [line for line in path.read_text().splitlines() if line.startswith("report_bridge_written")]
        return float(line.split()[1])

    while not path.exists() or written() < 1014.5:
        engine.sleep(0.005)
    monkeypatch.setattr(metrics, "PERIOD_S", 60.0)
    engine.sleep(0.1)
    before = written()
    file.close()
    assert written() == before + 1


def test_a_disk_that_stands_still_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that does not end is left alone after a period; others run meanwhile."""
    go = threading.Event()
    monkeypatch.setattr(metrics, "PERIOD_S", 1.0)
    monkeypatch.setattr(metrics, "put_file", lambda path, data: go.wait(60))
    engine = Engine(fail)
    told = Told()
    file = MetricsFile(engine, str(tmp_path / "f"), read, told)
    ticks: list[int] = []

    def tick() -> None:
        for number in range(3):
            ticks.append(number)
            engine.sleep(0.005)

    engine.spawn(tick)
    file.write()
    go.set()
    assert ticks == [0, 1, 2]
    assert told.events == []
