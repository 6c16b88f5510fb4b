"""Both framings, limits and hostile descriptors, against the real process over real pipes."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.talk import IMAGE, KEY, Talk, demand_response, error_of
from tests.faultserver import FaultServer, Peer, spell_answer
from tests.process import PATIENCE_S, ROOT

Start = Callable[..., Talk]
INFO = b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}'

VECTORS = ROOT.parent / "shared" / "vectors" / "json_parsing.jsonl"
ROWS: list[dict[str, Any]] = (
    [json.loads(line) for line in VECTORS.read_bytes().splitlines()] if VECTORS.is_file() else []
)
# A handful of the same sort, so that this suite says something where the vectors are not at hand.
OWN_TEXTS = [
    b"[1,]",
    b"{}",
    b"[]",
    b"[NaN]",
    b'["\xff"]',
    b"[" * 9000,
    b'{"a":1,"a":2}',
    b"\xef\xbb\xbf{}",
    b"7",
]


def texts() -> list[tuple[bytes, dict[str, Any] | None]]:
    """Return every text to send, with its vector if it has one."""
    return [(base64.b64decode(row["base64"]), row) for row in ROWS] or [(text, None) for text in OWN_TEXTS]


def framed(payload: bytes) -> bytes:
    """Frame a message with a header."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(payload), payload)


def parse_frames(data: bytes) -> Iterator[Any]:
    """Cut a whole output into header-framed messages, strictly."""
    while data:
        found = re.match(rb"Content-Length: ([0-9]+)\r\n\r\n", data)
        assert found is not None, data[:100]
        end = found.end() + int(found[1])
        message = json.loads(data[found.end() : end])
        for response in message if isinstance(message, list) else [message]:
            demand_response(response)
        yield message
        data = data[end:]


def is_allowed(answer: Any, allowed: dict[str, Any]) -> bool:
    """Tell whether an answer is one that a vector describes."""
    if allowed["kind"] == "batch":
        return (
            isinstance(answer, list)
            and len(answer) == len(allowed["items"])
            and all(
                any(is_allowed(member, one) for one in item)
                for member, item in zip(answer, allowed["items"], strict=True)
            )
        )
    return (
        allowed["kind"] == "error"
        and isinstance(answer, dict)
        and answer["error"]["code"] == allowed["code"]
        and json.dumps(answer["id"]) == allowed["id_raw"]
    )


def demand_vector(answers: list[Any], row: dict[str, Any] | None) -> None:
    """Demand that the answers to one text are those its vector allows."""
    for answer in answers:
        for response in answer if isinstance(answer, list) else [answer]:
            assert response["error"]["code"] in (-32700, -32600)
    if row is None or row["bridge_any_of"] is None:
        assert answers
    elif {"kind": "none"} in row["bridge_any_of"] and not answers:
        pass
    else:
        assert len(answers) == 1, row["name"]
        assert any(is_allowed(answers[0], allowed) for allowed in row["bridge_any_of"]), row["name"]


def test_every_parsing_vector_is_answered_as_a_line(talk: Start) -> None:
    """Whatever the line, it is answered as its vector says and the next request is served."""
    bridge = talk("--sandbox")
    for n, (text, _) in enumerate(texts()):
        bridge.send_bytes(text + b'\n{"jsonrpc":"2.0","id":"mark%d","method":"bridge.info"}\n' % n)
    for n, (_, row) in enumerate(texts()):
        answers = []
        while True:
            message = bridge.read_message()
            if isinstance(message, dict) and message["id"] == f"mark{n}":
                break
            answers.append(message)
        demand_vector(answers, row)
    assert bridge.close().code == 0


def test_every_parsing_vector_is_answered_behind_a_header(clean_environment: Path) -> None:
    """Whatever the body, it is one message, answered as its vector says."""
    data = b"".join(
        framed(text) + framed(b'{"jsonrpc":"2.0","id":"mark%d","method":"bridge.info"}' % n)
        for n, (text, _) in enumerate(texts())
    )
    code, output, _ = run_whole(data, clean_environment, "--sandbox")
    assert code == 0
    answers: list[Any] = []
    rows = iter(texts())
    for message in parse_frames(output):
        if isinstance(message, dict) and str(message["id"]).startswith("mark"):
            _, row = next(rows)
            assert len(answers) == 1
            if row is None or row["framing"] == "line_safe":
                demand_vector(answers, row)
            answers = []
        else:
            answers.append(message)
    assert next(rows, None) is None


def test_every_parsing_vector_as_an_upstream_body_is_unknown(talk: Start) -> None:
    """A complete 200 whose body is no verdict means that nobody knows, and is never sent again."""
    bodies = iter([text for text, _ in texts()])

    def script(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(spell_answer(next(bodies)))

    with FaultServer(script) as server:
        bridge = talk(
            "--url", server.url, "--ledger", "memory", "--log-level", "error",
            environ={"ANTICAPTCHA_CLIENT_KEY": KEY},
        )  # fmt: skip
        for n in range(len(texts())):
            response = bridge.report(1000 + n)
            assert error_of(response) == (-32002, "outcome_unknown")
            data = response["error"]["data"]
            assert (data["outcome"], data["attempts"], data["httpStatus"]) == ("unknown", 1, 200)
        assert len(server.requests) == len(texts())


# --- line framing ----------------------------------------------------------------------------


def run_whole(data: bytes, home: Path, *words: str, **kwargs: Any) -> tuple[int, bytes, bytes]:
    """Give a bridge its whole input at once; return exit code, output and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words],
        input=data,
        capture_output=True,
        env={"HOME": str(home), "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE_S,
        check=False,
        **kwargs,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (INFO, 1),
        (INFO + b"\r\n", 1),
        (b"\n\r\n  \t \n" + INFO + b"\n\n\n", 1),
        (b"\xef\xbb\xbf" + INFO + b"\n" + INFO, 2),
        (b"\n\n" + INFO + b"\n\xe2\x80\xa8" + INFO + b"\n", 2),
        (INFO + b"\n" + INFO + b"\n" + INFO, 3),
        (b"c" + INFO + b"\n" + INFO, 2),
        (b"", 0),
        (b"\n", 0),
    ],
)
def test_lines_are_taken_as_people_write_them(clean_environment: Path, data: bytes, answers: int) -> None:
    """CR, blank lines, a byte order mark and a last line without LF are accepted."""
    code, output, _ = run_whole(data, clean_environment, "--sandbox")
    assert code == 0
    assert output.count(b"\n") == len(output.splitlines()) == answers


def test_a_lone_bracket_gets_a_hint(clean_environment: Path) -> None:
    """Who sends indented JSON is told once on stderr how to send one message per line."""
    code, output, stderr = run_whole(b"{\n}\n[\n]\n{\n", clean_environment, "--sandbox")
    assert code == 0
    assert output.count(b"\n") == 5
    assert stderr.count(b"jq -c") == 1


def test_empty_input_gets_a_hint(clean_environment: Path) -> None:
    """End of input before any byte is told on stderr, and is no error."""
    code, output, stderr = run_whole(b"", clean_environment, "--sandbox")
    assert (code, output) == (0, b"")
    assert stderr.count(b"docker") == 1
    assert b"run -i" in stderr


def test_a_line_over_the_limit_is_one_error(talk: Start) -> None:
    """A line as long as allowed is served, one byte more is one error with id null."""
    bridge = talk("--sandbox", "--max-message", "200")
    for end in (b"\n", b"\r\n"):
        bridge.send_bytes(INFO + b" " * (200 - len(INFO)) + end)
        assert "result" in bridge.read_message()
        bridge.send_bytes(INFO + b" " * (201 - len(INFO)) + end)
        message = bridge.read_message()
        assert error_of(message) == (-32600, "invalid_request")
        assert message["id"] is None
    bridge.send_bytes(b"x" * 300_000)
    assert error_of(bridge.read_message()) == (-32600, "invalid_request")
    bridge.send_bytes(b"y" * 300_000 + b"\n" + INFO + b"\n")
    assert "result" in bridge.read_message()


def test_bytes_may_come_one_by_one(talk: Start) -> None:
    """A request that arrives byte by byte is served like any other."""
    bridge = talk("--sandbox")
    for byte in b"\xef\xbb\xbf" + INFO + b"\r\n":
        bridge.send_bytes(bytes([byte]))
    assert "result" in bridge.read_message()


# --- header framing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n\r\n",
        b"content-length:%d\n\n",
        b"CONTENT-LENGTH:   00%d  \r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: %d\r\nX: 1\r\n\r\n",
        b"\xef\xbb\xbfContent-Length: %d\r\n\r\n",
    ],
)
def test_headers_are_taken_as_they_are_written(clean_environment: Path, head: bytes) -> None:
    """Any case, other headers, bare LF: the answer comes with a header too, and info says so."""
    data = head % len(INFO) + INFO + framed(INFO) + b"\r\n" + framed(b"\n" + INFO + b"\n")
    code, output, _ = run_whole(data, clean_environment, "--sandbox")
    assert code == 0
    messages = list(parse_frames(output))
    assert [message["result"]["framing"] for message in messages] == ["header"] * 3


@pytest.mark.parametrize(
    "bad",
    [
        b"Content-Length: -5\r\n\r\n", b"Content-Length: x\r\n\r\n", b"Content-Type: x\r\n\r\n",
        b"junk\r\n\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"Content-Length: 1000\r\n\r\n{", b"Content-Length", b"X" * 100_000,
    ],
)  # fmt: skip
def test_headers_beyond_repair_end_the_input(clean_environment: Path, bad: bytes) -> None:
    """One error, then as at the end of input: what was accepted is still answered, exit code 0."""
    report = b'{"jsonrpc":"2.0","id":2,"method":"%b","params":{"taskId":5}}' % IMAGE.encode()
    data = framed(report) + framed(INFO) + bad
    code, output, stderr = run_whole(data, clean_environment, "--sandbox")
    assert code == 0, stderr
    messages = list(parse_frames(output))
    assert len(messages) == 3
    errors = [message for message in messages if "error" in message]
    assert [(error["id"], *error_of(error)) for error in errors] == [(None, -32700, "parse_error")]


def test_the_input_ends_with_the_first_bad_header(clean_environment: Path) -> None:
    """Nothing that follows a header beyond repair is served, though the pipe stays open."""
    with Talk("--sandbox", home=clean_environment) as bridge:
        bridge.send_bytes(b"Content-Length: no\r\n\r\n" + framed(INFO) * 3)
        ended = bridge.wait()
        assert ended.code == 0
        assert len(list(parse_frames(ended.stdout))) == 1


def test_a_body_over_the_limit_is_skipped(clean_environment: Path) -> None:
    """A body too long is one error, its bytes are dropped and the next message is served."""
    data = framed(b"x" * 100_000) + framed(INFO) + framed(b"") + framed(INFO)
    code, output, _ = run_whole(data, clean_environment, "--sandbox", "--max-message", "1000")
    assert code == 0
    messages = list(parse_frames(output))
    codes = [message["error"]["code"] if "error" in message else 0 for message in messages]
    assert codes == [-32600, 0, -32700, 0]


# --- descriptors -----------------------------------------------------------------------------


def test_descriptors_may_be_non_blocking(clean_environment: Path) -> None:
    """Pipes inherited in non-blocking mode lose and tear nothing, however slowly they are read."""
    to_child, to_us = os.pipe(), os.pipe()
    for end in (to_child[0], to_us[1]):
        os.set_blocking(end, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "--sandbox"],
        stdin=to_child[0], stdout=to_us[1], stderr=subprocess.PIPE,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(to_child[0])
    os.close(to_us[1])
    try:
        count = 60
        writer = threading.Thread(target=pour, args=(to_child[1], [discover(n) for n in range(count)]))
        writer.start()
        time.sleep(0.5)  # the pipe towards us fills up meanwhile
        with open(to_us[0], "rb") as stream:
            names = []
            for line in stream:
                message = json.loads(line)
                assert message["result"]["openrpc"]
                names.append(message["id"])
        writer.join(PATIENCE_S)
        assert names == list(range(count))
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.communicate()


def pour(descriptor: int, lines: list[bytes]) -> None:
    """Write everything and close."""
    with open(descriptor, "wb") as stream:
        stream.writelines(lines)


def discover(n: int) -> bytes:
    """Ask for the longest answer there is."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"rpc.discover"}\n' % n


def test_files_serve_as_streams(clean_environment: Path) -> None:
    """stdin and stdout may be regular files."""
    source, sink = clean_environment / "in", clean_environment / "out"
    source.write_bytes(b"".join(discover(n) for n in range(10)) + INFO)
    with source.open("rb") as given, sink.open("wb") as taken:
        done = subprocess.run(
            [sys.executable, "-m", "bridge", "--sandbox"], stdin=given, stdout=taken, check=False,
            env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)}, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in sink.read_bytes().splitlines()] == [*range(10), 1]


def test_a_socket_serves_as_both_streams(clean_environment: Path) -> None:
    """A socket pair, as some launchers use it, is served like pipes; half-closing it ends the input."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "--sandbox"], stdin=theirs.fileno(), stdout=theirs.fileno(),
            env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        theirs.close()
        ours.settimeout(PATIENCE_S)
        ours.sendall(b"".join(discover(n) for n in range(20)))
        ours.shutdown(socket.SHUT_WR)
        data = b""
        while piece := ours.recv(1 << 16):
            data += piece
        assert [json.loads(line)["id"] for line in data.splitlines()] == list(range(20))
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_descriptors_may_be_closed_at_the_start(clean_environment: Path, closed: tuple[int, ...]) -> None:
    """A bridge started without one of its streams ends by itself, and says so if its answer is lost."""
    words = [sys.executable, "-m", "bridge", "--sandbox", "--log-level", "debug"]
    shell = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *words], input=INFO + b"\n", capture_output=True,
        env={"HOME": str(clean_environment), "PYTHONPATH": str(ROOT)}, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == (74 if closed == (1,) else 0)
    if 0 not in closed and 1 not in closed:
        assert json.loads(done.stdout)["result"]["protocol"] == 1
    else:
        assert done.stdout == b""
    assert b"Traceback" not in done.stderr


def test_nobody_has_to_read_stderr(talk: Start, clean_environment: Path) -> None:
    """A full stderr blocks nothing: log lines are dropped and counted."""
    source, sink = os.pipe()
    with talk("--sandbox", "--no-pauses", "--log-level", "debug", stderr=sink) as bridge:
        os.close(sink)
        names = [bridge.send(IMAGE, {"taskId": n}) for n in range(1, 801)]
        bridge.read_all(names)
        dropped = bridge.call("bridge.status")["result"]["droppedLogLines"]
        assert dropped > 0
        assert bridge.close().code == 0
    os.close(source)


def test_stderr_may_be_gone(talk: Start, clean_environment: Path) -> None:
    """A closed stderr disturbs nothing."""
    source, sink = os.pipe()
    os.close(source)
    with talk("--sandbox", "--log-level", "debug", stderr=sink) as bridge:
        os.close(sink)
        for n in range(1, 20):
            assert "result" in bridge.report(n)
        assert bridge.close().code == 0
