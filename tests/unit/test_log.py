"""Tests of `bridge.ops.log` and of the table in `bridge.core.events`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.core.events import LEVELS, events, render_sentence
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber, Secret
from bridge.engine import Engine
from bridge.ops import log as logs
from bridge.ops.log import Log
from bridge.ops.process import silence_libraries

KEY = "0123456789abcdef0123456789abcdef"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a log file."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


@pytest.fixture
def piped() -> Iterator[tuple[int, int]]:
    """Give a pipe and close both ends afterwards."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_until(engine: Engine, reader: int, is_enough: Callable[[bytes], bool]) -> bytes:
    """Read a pipe that the engine of this thread fills, which must not be waited for."""
    os.set_blocking(reader, False)
    received = b""
    while not is_enough(received):
        with contextlib.suppress(BlockingIOError):
            received += os.read(reader, 65536)
        engine.sleep(0.001)
    return received


def fail(bug: BaseException) -> None:
    """Let no bug of a greenlet pass."""
    raise bug


def open_log(path: str, level: str, format: str, scrubber: Scrubber | None = None) -> Log:
    """Open a log file."""
    return Log(Engine(fail), level, format, path, scrubber or Scrubber())


def log_to(descriptor: int, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Open a log whose stderr is something else."""
    monkeypatch.setattr(logs, "STDERR", descriptor)
    return Log(engine, "debug", "json", None, Scrubber())


def test_every_event_is_a_complete_row() -> None:
    """Each row has a known level, a sentence over declared fields only, known types and a description."""
    types = {"string", "integer", "number", "boolean"}
    for name, row in events().items():
        assert row.level in LEVELS, name
        assert row.description.endswith("."), name
        used = {field for _, field, _, _ in string.Formatter().parse(row.sentence) if field}
        assert used <= set(row.fields), name
        assert {kind.removesuffix("?") for kind in row.fields.values()} <= types, name
        assert not {"time", "level", "event", "message"} & set(row.fields), name


def test_sentence_survives_missing_and_odd_fields() -> None:
    """A sentence is rendered whether its fields are there or not."""
    assert "?" in render_sentence("log_dropped", {})


def test_event_becomes_a_json_line(tmp_path: Path) -> None:
    """An event is one JSON object with time, level, event, message and its fields."""
    path = tmp_path / "log"
    log = open_log(str(path), "debug", "json")
    log.event("log_dropped", count=1024)
    log.event("clock_skew", skew_s=float("nan"))
    log.close(10)
    first, second = read_lines(path)
    assert list(first) == ["time", "level", "event", "message", "count"]
    assert first["level"] == "warning"
    assert first["event"] == "log_dropped"
    assert "1024" in first["message"]
    assert first["count"] == 1024
    assert second["skew_s"] is None
    assert first["time"].endswith("Z")
    assert len(first["time"]) == len("2026-01-02T03:04:05.678Z")


def test_log_file_is_private_and_appended_to(tmp_path: Path) -> None:
    """It has mode 0600 and is never truncated; after the close, which may be repeated, events are counted."""
    path = tmp_path / "log"
    for _ in range(2):
        log = open_log(str(path), "warning", "auto")
        log.event("stdout_gone")
        log.close(10)
        log.close(10)
        log.event("stdout_gone")
        assert log.dropped == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_lines(path)) == 2


def test_log_file_that_cannot_be_opened_is_a_configuration_error(tmp_path: Path) -> None:
    """A missing folder, or a pipe that nobody reads, ends with exit code 3, a sentence with flag and path."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing/log", "pipe"):
        with pytest.raises(ConfigError, match=f"{name} cannot be opened .* --log-file") as caught:
            open_log(str(tmp_path / name), "warning", "auto")
        assert caught.value.exit_code == 3


def test_a_pipe_with_a_reader_is_a_log_file(tmp_path: Path) -> None:
    """What somebody reads through a named pipe arrives there."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    log = open_log(str(tmp_path / "pipe"), "info", "json")
    log.event("lone_bracket")
    log.close()
    assert json.loads(os.read(reader, 65536))["event"] == "lone_bracket"
    os.close(reader)


def test_events_below_the_level_leave_nothing(tmp_path: Path) -> None:
    """An event that is not wanted is not even looked at."""
    log = open_log(str(tmp_path / "log"), "error", "json")
    log.event("log_dropped", count=1)
    log.close(1)
    assert log.dropped == 0
    assert (tmp_path / "log").read_bytes() == b""


def test_text_format_is_one_line_without_control_characters(tmp_path: Path) -> None:
    """A text line is readable, escapes control characters and stays one line."""
    path = tmp_path / "log"
    log = open_log(str(path), "debug", "text")
    log.event("internal_error", reference="r1", where="x\x1b[2J", error="two\nlines \u2028é", trace="a\nb")
    log.close(10)
    text = path.read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert " error: Internal error in x\\x1b[2J, reference r1: two\\nlines \\u2028\\xe9 | a\\nb" in text


def test_secrets_never_reach_the_log(tmp_path: Path) -> None:
    """A learnt secret is masked in strings, errors, nested values and messages, and in JSON escapes."""
    path = tmp_path / "log"
    scrubber = Scrubber()
    scrubber.learn(Secret(KEY))
    log = open_log(str(path), "debug", "json", scrubber)
    log.event("key_unreadable", source="x", reason=f"body {KEY}", more={"name": KEY})
    log.event("internal_error", error=ValueError(KEY.encode().hex()))
    log.event("empty_input", detail=[KEY])
    log.close(10)
    text = path.read_text(encoding="ascii")
    assert len(read_lines(path)) == 3
    assert KEY[:12] not in text
    assert KEY.encode().hex()[:12] not in text


def test_a_log_that_nobody_reads_never_blocks(
    piped: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full pipe events are dropped and counted, and told once there is a reader again."""
    monkeypatch.setattr(logs, "QUEUE_LINES", 20)
    reader, writer = piped
    engine = Engine(fail)
    log = log_to(writer, engine, monkeypatch)
    for _ in range(2000):
        log.event("empty_input", filler="x" * 1000)
        engine.sleep(0)
    assert log.dropped > 1000
    lost = log.dropped
    received = read_until(engine, reader, lambda got: b"log_dropped" in got and got.endswith(b"\n"))
    lines = [json.loads(line) for line in received.splitlines()]
    assert [line["count"] for line in lines if line["event"] == "log_dropped"] == [lost]
    assert len(lines) == 2000 - lost + 1


def test_a_reader_that_never_comes_holds_up_the_end_for_a_moment_only(
    piped: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits as long as it was told to, and then leaves the rest."""
    engine = Engine(fail)
    log = log_to(piped[1], engine, monkeypatch)
    log.event("empty_input", filler="x" * 100_000)
    began = time.monotonic()
    log.close(0.05)
    assert 0.05 <= time.monotonic() - began < 30
    # The pipe is closed with the test, and nobody may still wait for it.
    read_until(engine, piped[0], lambda got: got.endswith(b"\n"))


def test_what_is_said_while_the_process_starts_is_not_lost(
    piped: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits can be written before the engine turns, and what did not fit is written by it later."""
    reader, writer = piped
    engine = Engine(fail)
    log = log_to(writer, engine, monkeypatch)
    log.event("log_dropped", count=1)
    log.flush()
    assert json.loads(os.read(reader, 65536))["count"] == 1
    os.set_blocking(writer, False)
    log.event("empty_input", filler="y" * 300_000)
    log.flush()
    received = read_until(engine, reader, lambda got: got.endswith(b"\n"))
    assert json.loads(received)["filler"] == "y" * 300_000
    log.close(10)


def test_a_log_that_cannot_be_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to a broken pipe raises nothing and counts each lost event once."""
    reader, writer = os.pipe()
    os.close(reader)
    log = log_to(writer, Engine(fail), monkeypatch)
    for _ in range(3):
        log.event("log_dropped", count=1)
    log.close(10)
    os.close(writer)
    assert log.dropped == 3


def test_rotated_file_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the file was renamed, lines go to a new file under the old name."""
    monkeypatch.setattr(logs, "ROTATION_CHECK_S", 0.0)
    path = tmp_path / "log"
    log = open_log(str(path), "warning", "json")
    log.event("log_dropped", count=1)
    path.rename(tmp_path / "log.1")
    log.event("log_dropped", count=2)
    log.close(10)
    assert [line["count"] for line in read_lines(tmp_path / "log.1")] == [1]
    assert [line["count"] for line in read_lines(path)] == [2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_libraries_say_nothing_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Warnings and errors that a library logs do not reach stderr."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root.manager, "disable", 0)
    silence_libraries()
    logging.getLogger("urllib3.pool").warning("Retrying %s", KEY)
    logging.getLogger("urllib3.pool").critical("Retrying %d", KEY)
    logging.error("Internal error: %s", KEY)
    assert capfd.readouterr().err == ""
