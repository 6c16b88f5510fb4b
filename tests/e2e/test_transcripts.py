"""The transcripts of raw conversations, held with the real process and with its parts in this process."""

from __future__ import annotations

import base64
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pytest

from bridge.app import App
from bridge.cli.commands import parse_arguments
from bridge.server.conversation import Conversation
from bridge.settings import load
from bridge.wire.framing import Framer
from tests.e2e.talk import Talk
from tests.process import PATIENCE_S, ROOT

FILES = sorted((ROOT / "tests" / "vectors" / "transcripts").glob("wire-*.json"))
TRANSCRIPTS = [
    pytest.param(transcript, id=f"{path.stem}: {transcript['name']}")
    for path in FILES
    for transcript in json.loads(path.read_text())["transcripts"]
]
ANY = "<any>"


class Peer(Protocol):
    """The bridge's end of a conversation."""

    def write(self, data: bytes) -> None:
        """Give it bytes."""

    def read(self) -> bytes:
        """Return the next message, without its frame."""

    def end(self) -> None:
        """End its input."""

    def finish(self) -> int:
        """Return its exit code; nothing unread may be left."""


def read_framed(stream: BinaryIO) -> bytes:
    """Read one message in either framing."""
    line = stream.readline()
    if not line.startswith(b"Content-Length: "):
        return line.removesuffix(b"\n")
    assert stream.readline() == b"\r\n"
    return stream.read(int(line.split()[1]))


class ProcessPeer:
    """The real process."""

    def __init__(self, home: Path, args: list[str]) -> None:
        source, sink = os.pipe()
        self.bridge = Talk(*args, home=home, stdout=sink)
        os.close(sink)
        self._stream = os.fdopen(source, "rb")

    def write(self, data: bytes) -> None:
        self.bridge.send_bytes(data)

    def read(self) -> bytes:
        return read_framed(self._stream)

    def end(self) -> None:
        self.bridge.close_input()

    def finish(self) -> int:
        assert self._stream.read() == b""
        return self.bridge.wait().code

    def close(self) -> None:
        self.bridge.kill()
        self._stream.close()


class InnerPeer:
    """A conversation in this process, on the sandbox."""

    backlog = backlog_bytes = 0

    def __init__(self, args: list[str]) -> None:
        settings = load(parse_arguments("serve", args).given, {})
        self._app = App(settings)
        self._engine = self._app.engine
        self._answers: list[bytes] = []
        outlet: Any = self
        self._conversation = Conversation(
            self._engine, self._app.methods, Framer(settings.max_message), outlet, lambda: None
        )
        self._app.methods.framing = lambda: self._conversation.framer.framing
        self._app.start()
        self._is_open = True

    def put(self, piece: bytes) -> None:
        """Take an answer, as an outlet does."""
        self._answers.append(piece)

    def write(self, data: bytes) -> None:
        # In two pieces, cut where nothing is prepared for it.
        cut = len(data) // 2
        self._conversation.feed(data[:cut])
        self._conversation.feed(data[cut:])

    def read(self) -> bytes:
        self._wait_for(lambda: bool(self._answers))
        return read_framed(io.BytesIO(self._answers.pop(0)))

    def end(self) -> None:
        self._conversation.end()

    def finish(self) -> int:
        self._wait_for(lambda: not self._conversation.unanswered)
        self.close()
        assert self._answers == []
        return 0

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._app.reporter.stop()
            self._app.close()
            self._app.log.close(1.0)

    def _wait_for(self, is_done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_done():
            assert time.monotonic() < until
            self._engine.sleep(0.001)


def demand_like(given: Any, expected: Any, place: str = "") -> None:
    """Demand that an answer is the expected one; `ANY` stands for whatever is there."""
    if expected == ANY:
        return
    assert type(given) is type(expected), f"{place}: {given!r}, not {expected!r}"
    if isinstance(expected, dict):
        assert sorted(given) == sorted(expected), place
        for name, value in expected.items():
            demand_like(given[name], value, f"{place}/{name}")
    elif isinstance(expected, list):
        assert len(given) == len(expected), place
        for position, value in enumerate(expected):
            demand_like(given[position], value, f"{place}/{position}")
    else:
        assert given == expected, f"{place}: {given!r}, not {expected!r}"


class Digits(str):
    """A number as it was written."""


def read_exactly(text: bytes | str) -> Any:
    """Parse JSON, leaving numbers as they are written."""
    return json.loads(text, parse_int=Digits, parse_float=Digits)


def hold(transcript: dict[str, Any], peer: Peer) -> None:
    """Hold a conversation as a transcript says."""
    framed = transcript.get("framing") == "header"
    for step in transcript["steps"]:
        [(what, value)] = step.items()
        if what == "-->":
            data = value.encode()
            peer.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data) if framed else data + b"\n")
        elif what == "--> base64":
            data = base64.b64decode(value)
            peer.write(data if framed else data + b"\n")
        elif what == "<--":
            demand_like(read_exactly(peer.read()), read_exactly(value))
        elif what == "end":
            peer.end()
        else:
            assert what == "exit"
            assert peer.finish() == value


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_the_process_holds_the_conversation(clean_environment: Path, transcript: dict[str, Any]) -> None:
    """The real process says exactly what the transcript says, and nothing else."""
    peer = ProcessPeer(clean_environment, transcript["args"])
    try:
        hold(transcript, peer)
    finally:
        peer.close()


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_its_parts_hold_the_conversation(transcript: dict[str, Any]) -> None:
    """The same parts joined without a process say the same."""
    peer = InnerPeer(transcript["args"])
    try:
        hold(transcript, peer)
    finally:
        peer.close()


def test_transcripts_are_well_formed() -> None:
    """Names are unique, steps are known, and each conversation comes to its end."""
    assert [path.stem for path in FILES] == ["wire-envelopes", "wire-reports"]
    known: dict[str, Callable[[Any], bool]] = {
        "-->": lambda value: isinstance(value, str) and "\n" not in value,
        "--> base64": lambda value: bool(base64.b64decode(value, validate=True)),
        "<--": lambda value: isinstance(read_exactly(value), dict | list),
        "end": lambda value: value is True,
        "exit": lambda value: value == 0,
    }
    for path in FILES:
        transcripts = json.loads(path.read_text())["transcripts"]
        assert len({transcript["name"] for transcript in transcripts}) == len(transcripts)
        for transcript in transcripts:
            assert transcript["description"].endswith(".")
            for step in transcript["steps"]:
                [(what, value)] = step.items()
                assert known[what](value), step
            assert "exit" in transcript["steps"][-1]
