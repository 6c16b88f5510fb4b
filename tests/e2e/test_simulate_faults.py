"""What each fault and magic id does on a real socket, and that the log tells the truth about it."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.engine import Engine
from bridge.simulator import Simulator, fingerprint, magic, replies
from bridge.simulator.faults import FAULTS

KEY = "0123456789abcdef0123456789abcdef"
IMAGE = "reportIncorrectImageCaptcha"
PATIENCE_S = 20.0


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Serve for one test; a fault of the simulator itself fails it."""
    with Simulator() as running:
        yield running
        assert running.counters()["internalErrors"] == 0


def make_request(task_id: int, method: str = IMAGE, key: str = KEY, headers: str = "") -> bytes:
    """Return a report as bytes."""
    body = json.dumps({"clientKey": key, "taskId": task_id}).encode()
    head = f"POST /{method} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(simulator: Simulator) -> socket.socket:
    """Open a connection."""
    host, port = simulator.base_url.split("//")[1].split(":")
    sock = socket.create_connection((host, int(port)), PATIENCE_S)
    sock.settimeout(PATIENCE_S)
    return sock


def is_whole(data: bytes) -> bool:
    """Say whether an answer with a Content-Length is complete."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return body.endswith(b"0\r\n\r\n")


def read_answer(sock: socket.socket, *, to_the_end: bool = False) -> tuple[bytes, str]:
    """Read one answer; return it and how it ended: ``open``, ``eof`` or ``reset``."""
    data = b""
    while to_the_end or not is_whole(data):
        try:
            piece = sock.recv(1 << 20)
        except ConnectionResetError:
            return data, "reset"
        if not piece:
            return data, "eof"
        data += piece
    return data, "open"


def call(simulator: Simulator, task_id: int, method: str = IMAGE, **options: Any) -> tuple[bytes, str]:
    """Report on a connection of its own."""
    with connect(simulator) as sock:
        sock.sendall(make_request(task_id, method))
        return read_answer(sock, **options)


def verdict_of(answer: bytes) -> Any:
    """Return the JSON in an answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def status_of(answer: bytes) -> int:
    """Return the HTTP status of an answer."""
    assert answer.startswith(b"HTTP/1.1 ")
    return int(answer.split()[1])


def header_of(answer: bytes, name: str) -> str | None:
    """Return a header of an answer."""
    for line in answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
        if line.lower().startswith(name.lower() + ":"):
            return line.partition(":")[2].strip()
    return None


def entry_of(simulator: Simulator, task_id: int | None, *, ended: bool = True) -> dict[str, Any]:
    """Return the last log entry about a task, once it has ended."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        entries = [entry for entry in simulator.log() if entry["taskId"] == task_id]
        if entries and (entries[-1]["endedAt"] is not None or not ended):
            return entries[-1]
        assert time.monotonic() < limit, entries
        time.sleep(0.005)


# --- faults that end with the connection ------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "params", "ending", "sent", "taken"),
    [
        ("reset_before", {"taskId": 7}, "reset", "nothing", False),
        ("reset_before", {"method": IMAGE}, "reset", "nothing", False),
        ("reset_read", {}, "reset", "nothing", False),
        ("reset_after", {}, "reset", "nothing", True),
        ("close_read", {}, "eof", "nothing", False),
        ("close_after", {}, "eof", "nothing", True),
        ("hang", {"seconds": 0.05}, "eof", "nothing", False),
        ("hang", {"seconds": 0.05, "taken": True}, "eof", "nothing", True),
        ("garbage", {}, "eof", "other", True),
        ("garbage", {"taken": False}, "eof", "other", False),
        ("raw", {"text": "\x00junk"}, "eof", "other", False),
        ("raw", {"taken": True}, "eof", "other", True),
        ("cut_headers", {}, "eof", "part", True),
        ("cut_body", {}, "eof", "part", True),
        ("cut_body", {"taken": False}, "eof", "part", False),
        ("connection_close", {}, "eof", "verdict", True),
        ("close_idle", {}, "eof", "verdict", True),
    ],
)
def test_fault_that_ends_the_connection(
    simulator: Simulator, fault: str, params: dict[str, Any], ending: str, sent: str, taken: bool
) -> None:
    """The connection ends as the fault says, and the log says what was taken and sent."""
    simulator.add_fault(fault, **params)
    answer, how = call(simulator, 7, to_the_end=True)
    entry = entry_of(simulator, 7)
    assert how == ending
    assert is_whole(answer) is (sent == "verdict")
    assert bool(answer) is (sent != "nothing")
    assert (entry["fault"], entry["sent"], entry["taken"]) == (fault, sent, taken)
    closed = "reset" if ending == "reset" else "answered" if fault == "close_idle" else "closed"
    assert entry["end"] == closed
    delivery = simulator.deliveries(7)[0]
    assert (delivery["delivered"], delivery["taken"]) == (1, int(taken))
    assert delivery["told"] == int(sent == "verdict")


# --- faults that answer and keep the connection -----------------------------------------------


@pytest.mark.parametrize(
    ("fault", "params", "status", "sent", "taken"),
    [
        ("latency", {"seconds": 0.05}, 200, "verdict", True),
        ("drip_headers", {"seconds": 0.0005}, 200, "verdict", True),
        ("drip_body", {"seconds": 0.002}, 200, "verdict", True),
        ("html", {}, 200, "other", False),
        ("html", {"taken": True}, 200, "other", True),
        ("empty", {}, 200, "other", False),
        ("empty", {"taken": True}, 200, "other", True),
        ("status", {}, 500, "other", False),
        ("status", {"status": 404, "taken": True}, 404, "other", True),
        ("gzip", {}, 200, "other", True),
        ("redirect", {}, 307, "other", False),
        ("redirect", {"status": 308, "taken": True}, 308, "other", True),
        ("oversize", {}, 200, "other", True),
        ("not_object", {}, 200, "other", True),
        ("error_id_type", {}, 200, "other", True),
        ("verdict_status", {}, 500, "verdict", True),
        ("wrong_date", {}, 200, "verdict", True),
        ("rate_limit", {}, 200, "verdict", False),
        ("service_overload", {}, 200, "verdict", False),
        ("error", {}, 200, "verdict", False),
        ("echo_key", {}, 200, "verdict", False),
        ("chunked", {}, 200, "verdict", True),
        ("huge_headers", {}, 200, "verdict", True),
        ("close_idle", {"seconds": 30}, 200, "verdict", True),
    ],
)
def test_fault_that_answers(
    simulator: Simulator, fault: str, params: dict[str, Any], status: int, sent: str, taken: bool
) -> None:
    """The answer is as the fault says, the connection serves the next call, and the log is true."""
    simulator.add_fault(fault, **{"taskId": 7, **params})
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        answer, how = read_answer(sock)
        assert (status_of(answer), how) == (status, "open")
        sock.sendall(make_request(8))
        assert verdict_of(read_answer(sock)[0])["errorId"] == 0
    entry = entry_of(simulator, 7)
    assert (entry["fault"], entry["status"], entry["sent"], entry["end"]) == (fault, status, sent, "answered")
    assert entry["taken"] is taken
    assert entry_of(simulator, 8)["numberOnConnection"] == 2
    assert simulator.deliveries(7)[0]["told"] == int(sent == "verdict" and taken)


def test_every_fault_is_tried_above() -> None:
    """No fault is without a test of its effect on the wire."""
    marks = [
        *test_fault_that_ends_the_connection.pytestmark,
        *test_fault_that_answers.pytestmark,
    ]
    tried = {case[0] for mark in marks for case in mark.args[1]}
    alone = {"endless_continue", "extra_bytes", "hang_before", "slow_accept", "refuse"}
    assert tried | alone == set(FAULTS)


def test_hang_lasts_until_the_client_leaves(simulator: Simulator) -> None:
    """A hanging call stays open, and ends in the log when its client goes."""
    simulator.add_fault("hang", taken=True)
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        entry = entry_of(simulator, 7, ended=False)
        assert (entry["end"], simulator.counters()["inFlight"]) == ("open", 1)
    entry = entry_of(simulator, 7)
    assert (entry["end"], entry["sent"], entry["taken"]) == ("client_gone", "nothing", True)
    assert simulator.counters()["inFlight"] == 0


def test_continues_never_end(simulator: Simulator) -> None:
    """`100 Continue` comes again and again and no answer after it."""
    simulator.add_fault("endless_continue", seconds=0.001)
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        data = b""
        while data.count(b"HTTP/1.1 100 Continue\r\n\r\n") < 20:
            data += sock.recv(4096)
        assert b"200" not in data
    entry = entry_of(simulator, 7)
    assert (entry["end"], entry["sent"], entry["taken"]) == ("client_gone", "part", True)


def test_extra_bytes_follow_the_answer(simulator: Simulator) -> None:
    """A good answer is followed by bytes that answer nothing."""
    simulator.add_fault("extra_bytes")
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        data = b""
        while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"{}\n"):
            data += sock.recv(4096)
    assert replies.SUCCESS + b"HTTP/1.1 200 OK" in data


def test_reset_before_leaves_the_bytes_unread(simulator: Simulator) -> None:
    """Tied to nothing the fault resets before it knows the call, and spares the control endpoint."""
    simulator.add_fault("reset_before", count=1)
    with connect(simulator) as sock:
        sock.sendall(b"GET /_control/faults HTTP/1.1\r\n\r\n")
        assert len(verdict_of(read_answer(sock)[0])["faults"]) == 1
        sock.sendall(make_request(7))
        assert read_answer(sock) == (b"", "reset")
    entry = entry_of(simulator, None)
    assert (entry["reason"], entry["fault"], entry["end"]) == ("unread", "reset_before", "reset")
    assert simulator.deliveries() == []
    assert simulator.counters()["unread"] == 1
    assert verdict_of(call(simulator, 7)[0])["errorId"] == 0


def test_hang_before_reads_later(simulator: Simulator) -> None:
    """Nothing is read for a while, then service goes on."""
    simulator.add_fault("hang_before", seconds=0.1, count=1)
    begun = time.monotonic()
    answer, _ = call(simulator, 7)
    assert time.monotonic() - begun >= 0.1
    assert verdict_of(answer)["errorId"] == 0
    assert entry_of(simulator, None)["end"] == "resumed"


def test_slow_accept_delays_the_service(simulator: Simulator) -> None:
    """Connections wait in the queue while the fault lasts."""
    simulator.add_fault("slow_accept", seconds=0.15)
    begun = time.monotonic()
    assert verdict_of(call(simulator, 7)[0])["errorId"] == 0
    assert time.monotonic() - begun >= 0.1
    simulator.clear_faults()


def test_refuse_closes_the_port_for_its_time(simulator: Simulator) -> None:
    """Nobody can connect until the time is over, and open connections are gone."""
    with connect(simulator) as sock:
        sock.sendall(make_request(6))
        read_answer(sock)
        simulator.add_fault("refuse", for_seconds=0.3)
        assert read_answer(sock)[1] in ("eof", "reset")
    with pytest.raises(ConnectionRefusedError):
        connect(simulator)
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        try:
            assert verdict_of(call(simulator, 7)[0])["errorId"] == 0
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
    else:
        raise AssertionError("the port never opened again")


# --- what the answers hold --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"status": 429, "retryAfterSeconds": 7}, "7"),
        ({"status": 503, "retryAfterForm": "junk"}, "soon, very soon"),
        ({"status": 503}, None),
    ],
)
def test_retry_after(simulator: Simulator, params: dict[str, Any], expected: str | None) -> None:
    """Retry-After has the form asked for."""
    simulator.add_fault("status", **params)
    assert header_of(call(simulator, 7)[0], "Retry-After") == expected


def test_retry_after_as_a_date_follows_the_clock(simulator: Simulator) -> None:
    """A date lies so many seconds after the Date header."""
    from email.utils import parsedate_to_datetime

    simulator.add_fault("status", status=503, retry_after_seconds=90, retry_after_form="date")
    answer, _ = call(simulator, 7)
    dates = [header_of(answer, name) for name in ("Retry-After", "Date")]
    late, now = (parsedate_to_datetime(text) for text in dates if text is not None)
    assert 89 <= (late - now).total_seconds() <= 91


@pytest.mark.parametrize("skew", [300, -300])
def test_date_can_be_wrong(simulator: Simulator, skew: float) -> None:
    """The Date header is off by the skew, while the window is not."""
    from email.utils import parsedate_to_datetime

    simulator.add_fault("wrong_date", skew_seconds=skew)
    answer, _ = call(simulator, 7)
    told = header_of(answer, "Date")
    assert told is not None
    assert abs(parsedate_to_datetime(told).timestamp() - time.time() - skew) < 30
    assert verdict_of(answer)["errorId"] == 0


@pytest.mark.parametrize(("form", "expected"), [("missing", None), ("junk", "half past nine")])
def test_date_can_be_missing_or_junk(simulator: Simulator, form: str, expected: str | None) -> None:
    """The Date header can be left out or be no date."""
    simulator.add_fault("wrong_date", form=form)
    assert header_of(call(simulator, 7)[0], "Date") == expected


def test_gzip_unpacks_to_the_verdict(simulator: Simulator) -> None:
    """A packed answer holds the verdict and as many blanks as asked for."""
    simulator.add_fault("gzip", bytes=5_000_000)
    answer, _ = call(simulator, 7)
    assert header_of(answer, "Content-Encoding") == "gzip"
    unpacked = zlib.decompress(answer.partition(b"\r\n\r\n")[2], 31)
    assert len(unpacked) == 5_000_000
    assert json.loads(unpacked)["errorId"] == 0


def test_oversize_is_a_long_true_verdict(simulator: Simulator) -> None:
    """A long answer has the length asked for and is still JSON."""
    simulator.add_fault("oversize", bytes=3_000_000)
    answer, _ = call(simulator, 7)
    assert len(answer.partition(b"\r\n\r\n")[2]) == 3_000_000
    assert verdict_of(answer)["status"] == "success"


def test_followed_redirect_shows_in_the_log(simulator: Simulator) -> None:
    """The Location leads to a path of the simulator whose calls are logged."""
    simulator.add_fault("redirect", method=IMAGE)
    location = header_of(call(simulator, 7)[0], "Location")
    assert location == f"{simulator.base_url}/_redirected/{IMAGE}"
    answer, _ = call(simulator, 7, f"_redirected/{IMAGE}")
    assert verdict_of(answer)["errorId"] == 14
    assert [entry["method"] for entry in simulator.log(task_id=7)] == [IMAGE, f"_redirected/{IMAGE}"]


def test_chunked_answer_holds_the_verdict(simulator: Simulator) -> None:
    """The chunks put together are the verdict."""
    simulator.add_fault("chunked")
    answer, _ = call(simulator, 7)
    assert header_of(answer, "Transfer-Encoding") == "chunked"
    pieces = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert b"".join(pieces[1::2]) == replies.SUCCESS


def test_head_is_as_long_as_asked(simulator: Simulator) -> None:
    """The head of the answer outgrows what clients accept."""
    simulator.add_fault("huge_headers", bytes=100_000)
    assert call(simulator, 7)[0].index(b"\r\n\r\n") > 100_000


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("raw", KEY),
        ("percent", "".join(f"%{ord(letter):02X}" for letter in KEY)),
        ("percent_partly", "%3012%33"),
        ("base64", base64.b64encode(KEY.encode()).decode()),
        ("base64_shifted", base64.b64encode(b"x" + KEY.encode()).decode()),
        ("base64url", base64.urlsafe_b64encode(b"xy" + KEY.encode()).decode()),
        ("hex", KEY.encode().hex()),
        ("hex_upper", KEY.encode().hex().upper()),
        ("json", "\\u0030\\u0031"),
        ("html", "&#48;&#49;"),
        ("html_hex", "&#x30;&#x31;"),
    ],
)
def test_key_is_echoed_in_an_encoding(simulator: Simulator, encoding: str, told: str) -> None:
    """The description repeats the key in the encoding asked for, and the log does not."""
    simulator.add_fault("echo_key", encoding=encoding)
    answer, _ = call(simulator, 7)
    assert told in answer.decode()
    assert verdict_of(answer)["errorId"] == 24
    assert KEY not in json.dumps(simulator.log())


def test_content_type_can_be_the_old_one(simulator: Simulator) -> None:
    """Verdicts can come as text/html, as the vendor's were seen to."""
    assert header_of(call(simulator, 7)[0], "Content-Type") == "application/json"
    simulator.set(content_type="text/html; charset=utf-8")
    answer, _ = call(simulator, 8)
    assert header_of(answer, "Content-Type") == "text/html; charset=utf-8"
    assert verdict_of(answer)["errorId"] == 0


# --- magic ids --------------------------------------------------------------------------------

LONG = {"hang", "latency", "drip_headers", "drip_body", "endless_continue"}


def magic_ids() -> list[int]:
    """Return every magic id whose effect takes no time, first-call-only twins included."""
    numbers = [*(number for number in replies.ERRORS if number < 1000), 999, 5016]
    numbers += [1000 + kind.number for name, kind in FAULTS.items() if kind.number and name not in LONG]
    numbers += [number + 500 for number in numbers if 1000 < number < 1500]
    numbers += [2200, 2404, 2408, 2429, 2500, 2503, 2599, 4500]
    numbers += [3000 + number for number in magic.SITUATIONS]
    numbers += [
        3100 + number + twin
        for number, (name, params) in magic.VARIANTS.items()
        for twin in (0, 500)
        if name not in LONG and params.get("bytes", 0) < 10_000_000
    ]
    return numbers


def test_magic_ids_do_what_the_table_says(simulator: Simulator) -> None:
    """Each magic id breaks its call by the fault of the table, with nothing set up."""
    for number in magic_ids():
        task_id = magic.BASE + number
        effect = magic.look_up(task_id)
        assert effect is not magic.ORDINARY
        answer, how = call(simulator, task_id)
        entry = entry_of(simulator, task_id)
        assert entry["fault"] == effect.fault, number
        if effect.fault is None:
            assert status_of(answer) == 200
        elif effect.fault == "error":
            assert verdict_of(answer)["errorId"] == effect.params["errorId"]
        elif effect.fault in ("status", "redirect", "verdict_status"):
            assert status_of(answer) == effect.params["status"]
        elif FAULTS[effect.fault].tells == "nothing":
            assert (answer, how) in ((b"", "eof"), (b"", "reset"))
        if effect.only_first:
            again = call(simulator, task_id)[0]
            assert verdict_of(again)["errorId"] in (0, 16)
            assert entry_of(simulator, task_id)["fault"] is None


@pytest.mark.parametrize("number", [1001, 1002, 1008, 1009, 1010, 3112, 3115, 3116])
def test_slow_magic_ids_keep_the_client_waiting(simulator: Simulator, number: int) -> None:
    """A magic id that takes its time has no whole answer while the client waits shortly."""
    task_id = magic.BASE + number
    with connect(simulator) as sock:
        sock.sendall(make_request(task_id))
        entry = entry_of(simulator, task_id, ended=False)
        sock.settimeout(0.05)
        data = b""
        try:
            data = sock.recv(20)
        except TimeoutError:
            assert number not in (1008, 1009, 1010)
        assert replies.SUCCESS not in data
    effect = magic.look_up(task_id)
    assert effect is not magic.ORDINARY
    assert entry["fault"] == effect.fault


def test_magic_bomb_unpacks_to_two_hundred_megabytes(simulator: Simulator) -> None:
    """The packed bomb is small on the wire, and a whole gzip file."""
    answer, _ = call(simulator, magic.BASE + 3117)
    assert 100_000 < len(answer) < 400_000
    unpacker, size = zlib.decompressobj(31), 0
    piece = unpacker.decompress(answer.partition(b"\r\n\r\n")[2], 1 << 20)
    while piece:
        size += len(piece)
        piece = unpacker.decompress(unpacker.unconsumed_tail, 1 << 20)
    assert (size, unpacker.eof) == (209_715_200, True)


# --- clients of all kinds ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        b"GET\r\n\r\n",
        b"POST /m HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /m HTTP/1.1\r\nX: " + b"y" * 40_000,
        b"\x00" * 50_000,
        b"\n\n\n\n",
    ],
)
def test_malformed_http_ends_one_connection_only(simulator: Simulator, sent: bytes) -> None:
    """What is no HTTP gets a 4xx and a closed connection; others are served on."""
    with connect(simulator) as good, connect(simulator) as bad:
        bad.sendall(sent)
        answer, how = read_answer(bad, to_the_end=True)
        assert how in ("eof", "reset")
        if answer:
            assert status_of(answer) in (400, 431)
        good.sendall(make_request(7))
        assert verdict_of(read_answer(good)[0])["errorId"] == 0
    assert simulator.counters()["malformed"] == 1


def test_client_that_vanishes_is_survived(simulator: Simulator) -> None:
    """Resets in the middle of a head, a body and an answer leave the service alone."""
    simulator.add_fault("latency", task_id=5, seconds=0.05)
    for piece in (make_request(5)[:20], make_request(5)[:-3], make_request(5), b""):
        sock = connect(simulator)
        sock.sendall(piece)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert verdict_of(call(simulator, 7)[0])["errorId"] == 0
    limit = time.monotonic() + PATIENCE_S
    while simulator.counters()["openConnections"] and time.monotonic() < limit:
        time.sleep(0.01)
    assert simulator.counters()["openConnections"] == simulator.counters()["inFlight"] == 0


def test_slow_reader_gets_everything(simulator: Simulator) -> None:
    """An answer larger than the buffers waits for its reader and is logged as answered at its end."""
    simulator.add_fault("oversize", bytes=30_000_000)
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        assert entry_of(simulator, 7, ended=False)["end"] == "open"
        answer, how = read_answer(sock)
    assert (len(answer) > 30_000_000, how) == (True, "open")
    assert entry_of(simulator, 7)["end"] == "answered"


def test_half_closed_client_is_answered(simulator: Simulator) -> None:
    """A client that closes its sending side still gets its answer, a late one too."""
    simulator.add_fault("latency", seconds=0.05, count=1)
    for task_id in (7, 8):
        with connect(simulator) as sock:
            sock.sendall(make_request(task_id))
            sock.shutdown(socket.SHUT_WR)
            answer, how = read_answer(sock, to_the_end=True)
        assert (verdict_of(answer)["errorId"], how) == (0, "eof")


def test_pipelined_calls_are_answered_in_order(simulator: Simulator) -> None:
    """Calls sent without waiting are served one after another, faults included."""
    simulator.add_fault("latency", task_id=2, seconds=0.05)
    with connect(simulator) as sock:
        sock.sendall(make_request(1) + make_request(2) + make_request(2) + make_request(3))
        data = b""
        while data.count(b'"errorId"') < 4:
            data += sock.recv(65536)
    assert [entry["reason"] for entry in simulator.log()] == ["taken", "taken", "duplicate", "taken"]
    assert simulator.counters()["maxInFlight"] == 1


@pytest.mark.parametrize(("headers", "closes"), [("", False), ("Connection: close\r\n", True)])
def test_connection_is_kept_unless_asked(simulator: Simulator, headers: str, closes: bool) -> None:
    """The connection stays open after an answer, but for clients that want it closed."""
    with connect(simulator) as sock:
        sock.sendall(make_request(7, headers=headers))
        answer, _ = read_answer(sock)
        assert (header_of(answer, "Connection") == "close") is closes
        if closes:
            assert sock.recv(1) == b""
        else:
            sock.sendall(make_request(8))
            assert verdict_of(read_answer(sock)[0])["errorId"] == 0


def test_expectation_is_met(simulator: Simulator) -> None:
    """A client that waits for a 100 before its body gets one."""
    head, _, body = make_request(7, headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with connect(simulator) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert verdict_of(read_answer(sock)[0])["errorId"] == 0


def test_other_verbs_are_not_allowed(simulator: Simulator) -> None:
    """Anything but POST is 405 and takes nothing."""
    with connect(simulator) as sock:
        sock.sendall(make_request(7).replace(b"POST", b"PUT", 1))
        answer, _ = read_answer(sock)
    assert (status_of(answer), header_of(answer, "Allow")) == (405, "POST")
    assert (entry_of(simulator, 7)["reason"], simulator.deliveries()) == ("not_post", [])


def test_two_clients_at_once(simulator: Simulator) -> None:
    """Two clients that report the same tasks at the same time get each task taken once."""
    verdicts: list[int] = []

    def report_all() -> None:
        with connect(simulator) as sock:
            for task_id in range(1, 201):
                sock.sendall(make_request(task_id))
                verdicts.append(verdict_of(read_answer(sock)[0])["errorId"])

    threads = [threading.Thread(target=report_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(verdicts) == [0] * 200 + [16] * 200
    assert all((row["delivered"], row["taken"]) == (2, 1) for row in simulator.deliveries())
    counters = simulator.counters()
    assert (counters["connections"], counters["requests"], counters["taken"]) == (2, 400, 200)


def test_concurrent_calls_are_counted(simulator: Simulator) -> None:
    """The counter of calls under way at once reaches what clients do."""
    simulator.add_fault("hang")
    socks = [connect(simulator) for _ in range(5)]
    for task_id, sock in enumerate(socks, 1):
        sock.sendall(make_request(task_id))
    for task_id in range(1, 6):
        entry_of(simulator, task_id, ended=False)
    for sock in socks:
        sock.close()
    entry_of(simulator, 5)
    counters = simulator.counters()
    assert (counters["maxInFlight"], counters["maxOpenConnections"]) == (5, 5)


def test_idle_connection_closes_after_its_time(simulator: Simulator) -> None:
    """The fault closes a connection that stays idle, and spares one that is used."""
    simulator.add_fault("close_idle", seconds=0.2, task_id=7)
    with connect(simulator) as idle, connect(simulator) as used:
        for sock in (idle, used):
            sock.sendall(make_request(7))
            read_answer(sock)
        used.sendall(make_request(8))
        read_answer(used)
        assert idle.recv(1) == b""
        used.sendall(make_request(9))
        assert verdict_of(read_answer(used)[0])["errorId"] == 0


def test_disconnect_closes_idle_connections(simulator: Simulator) -> None:
    """Connections that carried calls are closed at once, by method and by control call."""
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        read_answer(sock)
        assert simulator.disconnect() == 1
        assert sock.recv(1) == b""
    with connect(simulator) as sock, connect(simulator) as control:
        sock.sendall(make_request(8))
        read_answer(sock)
        control.sendall(b"POST /_control/disconnect HTTP/1.1\r\n\r\n")
        assert verdict_of(read_answer(control)[0]) == {"closed": 1}
        assert sock.recv(1) == b""


def test_control_endpoint_over_http(simulator: Simulator) -> None:
    """A task and a fault made over HTTP decide the next call, which the log then shows."""

    def ask(verb: str, path: str, value: Any = None) -> Any:
        body = b"" if value is None else json.dumps(value).encode()
        with connect(simulator) as sock:
            head = f"{verb} /_control/{path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}"
            sock.sendall(head.encode() + b"\r\n\r\n" + body)
            return verdict_of(read_answer(sock, to_the_end=True)[0])

    task_id = ask("POST", "tasks", {"kind": "hcaptcha", "clientKey": KEY})["taskId"]
    ask("POST", "faults", {"fault": "reset_after", "taskId": task_id, "count": 1})
    assert call(simulator, task_id, "reportIncorrectHcaptcha") == (b"", "reset")
    assert verdict_of(call(simulator, task_id, "reportIncorrectHcaptcha")[0])["errorId"] == 16
    assert ask("GET", "deliveries")["deliveries"] == [
        {"taskId": task_id, "account": fingerprint(KEY), "delivered": 2, "taken": 1, "told": 0}
    ]
    assert len(ask("GET", "log")["entries"]) == 2
    assert ask("GET", "counters")["connections"] == 2
    assert ask("POST", "reset") == {"reset": True}
    assert ask("GET", "tasks") == {"tasks": []}


def wait_for_service(simulator: Simulator) -> None:
    """Wait until calls are no longer answered 503."""
    limit = time.monotonic() + PATIENCE_S
    while status_of(call(simulator, 7)[0]) == 503:
        assert time.monotonic() < limit


def test_steps_happen_at_their_time() -> None:
    """Steps arm and clear faults as time goes on, and begin anew after a reset."""
    scenario = {
        "faults": [{"fault": "status", "status": 503}],
        "steps": [
            {"atSeconds": 0.1, "clearFaults": True},
            {"atSeconds": 3600, "faults": [{"fault": "html"}]},
        ],
    }

    with Simulator(scenario=scenario) as simulator:
        wait_for_service(simulator)
        elapsed, length = simulator.progress()
        assert 0.1 <= elapsed < length == 3600
        simulator.reset()
        wait_for_service(simulator)


def test_stop_ends_open_calls_and_frees_the_port() -> None:
    """Stopping closes hanging calls, and the port can be served again at once."""
    simulator = Simulator()
    simulator.start()
    assert simulator.start() == simulator.base_url
    simulator.add_fault("hang")
    with connect(simulator) as sock:
        sock.sendall(make_request(7))
        entry_of(simulator, 7, ended=False)
        simulator.stop()
        assert sock.recv(1) == b""
        assert entry_of(simulator, 7)["end"] == "stopped"
    port = int(simulator.base_url.rpartition(":")[2])
    with Simulator(port=port) as again:
        assert verdict_of(call(again, 7)[0])["errorId"] == 0
        with pytest.raises(OSError, match="in use"):
            Simulator(port=port).start()


def test_serves_on_an_engine_that_is_given() -> None:
    """On somebody's engine it serves, breaks and stops as in a thread of its own, and leaves nothing open."""
    bugs: list[BaseException] = []
    engine = Engine(bugs.append)
    simulator = Simulator(engine)
    until = engine.now() + PATIENCE_S
    with simulator:
        simulator.add_fault("hang", task_id=9, seconds=0.05)
        for task_id, verdict in ((7, 0), (7, 16)):
            answer, _ = engine.run_in_thread(call, simulator, task_id, until=until)
            assert verdict_of(answer)["errorId"] == verdict
        assert engine.run_in_thread(call, simulator, 9, until=until) == (b"", "eof")
        simulator.add_fault("hang", task_id=9)
        sock = connect(simulator)
        sock.sendall(make_request(9))
        while not simulator.counters()["inFlight"]:
            engine.sleep(0.005)
    assert simulator.log()[-1]["end"] == "stopped"
    assert (simulator.counters()["openConnections"], simulator.counters()["internalErrors"], bugs) == (
        0,
        0,
        [],
    )
    sock.close()
    with pytest.raises(ConnectionRefusedError):
        connect(simulator)


def test_figures_over_http(simulator: Simulator) -> None:
    """`getSpendingStats` answers on the wire, and follows what was set."""
    simulator.set_spending("Recaptcha Proxyless", 80, hours=24, client_key=KEY)
    body = json.dumps({"clientKey": KEY, "queue": "Recaptcha Proxyless"}).encode()
    with connect(simulator) as sock:
        head = f"POST /getSpendingStats HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        told = verdict_of(read_answer(sock)[0])
    assert told["errorId"] == 0
    assert [record["volume"] for record in told["data"]] == [80] * 24
    assert simulator.log()[0]["reason"] == "figures"


def test_latency_setting_delays_every_answer() -> None:
    """Faults and plain answers alike wait for the latency."""
    with Simulator(latency_s=0.1) as simulator:
        simulator.add_fault("html", task_id=8)
        for task_id in (7, 8):
            begun = time.monotonic()
            assert status_of(call(simulator, task_id)[0]) == 200
            assert time.monotonic() - begun >= 0.1


# --- https ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Return paths of certificate, key and authority for 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    paths = (str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(paths[0])
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    return paths


def test_https_serves_answers_faults_and_large_bodies(certificate: tuple[str, str, str]) -> None:
    """Over TLS calls are served, kept alive and broken as over plain http."""
    cert, key, authority = certificate
    trust = ssl.create_default_context(cafile=authority)
    with Simulator(tls=(cert, key)) as simulator:
        assert simulator.base_url.startswith("https://127.0.0.1:")
        simulator.add_fault("oversize", task_id=8, bytes=3_000_000)
        simulator.add_fault("reset_after", task_id=9)
        with trust.wrap_socket(connect(simulator), server_hostname="127.0.0.1") as sock:
            for task_id in (7, 8):
                sock.sendall(make_request(task_id))
                assert verdict_of(read_answer(sock)[0])["errorId"] == 0
            sock.sendall(make_request(9))
            answer, how = read_answer(sock)
            # OpenSSL shows a reset as an early end.
            assert (answer, how in ("reset", "eof")) == (b"", True)
        simulator.add_fault("reset_before", count=1)
        with connect(simulator) as bare, pytest.raises(OSError, match=r"reset|EOF"):
            trust.wrap_socket(bare, server_hostname="127.0.0.1")
        with connect(simulator) as bare:
            bare.sendall(make_request(10))
            assert replies.SUCCESS not in read_answer(bare, to_the_end=True)[0]
        assert entry_of(simulator, 9)["taken"] is True
        assert simulator.counters()["internalErrors"] == 0


def test_certificate_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing or broken certificate stops the start and leaves nothing open."""
    broken = tmp_path / "broken.pem"
    broken.write_text("junk")
    for path in (str(broken), str(tmp_path / "missing.pem")):
        with pytest.raises(OSError, match=r"PEM|No such file"):
            Simulator(tls=(path, path)).start()
