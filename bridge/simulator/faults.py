"""The faults by name: what each does on the wire, its parameters, its number among the magic ids.

A fault is a function that plays one call: it takes the report in with `Call.judge` at the moment the
simulated upstream does (before all else if its parameter ``taken`` says so), waits through the call, and
returns what is sent. Its docstring is its line in the documentation, its parameters' shapes are in
``schemas/scenario.json``. Numbers are published and must not change. All times are in seconds.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.simulator import replies

if TYPE_CHECKING:
    from bridge.simulator.connection import Call

Params = Mapping[str, Any]
Play = Callable[["Call", Params], bytes | None]


class FaultType(NamedTuple):
    """One kind of fault."""

    number: int
    """Its place among the magic ids; 0 if it acts on connections, so that it is tied to no task or method."""
    tells: str
    """What a call that ends this way was sent: ``verdict``, ``other``, ``part`` or ``nothing``."""
    end: str
    """How the connection ends after it: ``closed`` or ``reset``; empty if it goes on."""
    play: Play
    params: Params
    """The parameters and their defaults."""

    def fill(self, given: Params) -> dict[str, Any]:
        """Return all parameters, the defaults of those that are not given included."""
        return {name: given.get(name, default) for name, default in self.params.items()}


FAULTS: Final[dict[str, FaultType]] = {}
"""Fault name -> type."""

EARLY: Final = frozenset({"reset_before", "hang_before"})
"""Faults that, tied to nothing, act before a request is read."""

_PAGE_TYPE: Final = "text/html; charset=utf-8"
PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Be right back</h1></body></html>\n"
)


def _octets(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


ENCODINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "raw": lambda key: key,
    "percent": lambda key: "".join(f"%{octet:02X}" for octet in _octets(key)),
    "percent_partly": lambda key: "".join(
        f"%{octet:02x}" if at % 3 == 0 or octet > 126 else chr(octet) for at, octet in enumerate(_octets(key))
    ),
    "base64": lambda key: base64.b64encode(_octets(key)).decode(),
    "base64_shifted": lambda key: base64.b64encode(b"x" + _octets(key)).decode(),
    "base64url": lambda key: base64.urlsafe_b64encode(b"xy" + _octets(key)).decode(),
    "hex": lambda key: _octets(key).hex(),
    "hex_upper": lambda key: _octets(key).hex().upper(),
    "json": lambda key: "".join(f"\\u{ord(letter):04x}" for letter in key),
    "html": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "html_hex": lambda key: "".join(f"&#x{ord(letter):x};" for letter in key),
}
"""Encodings in which `echo_key` repeats the key."""


def _fault(number: int, tells: str = "verdict", end: str = "", **params: Any) -> Callable[[Play], Play]:
    """Put a function into the table under its own name."""

    def add(play: Play) -> Play:
        FAULTS[play.__name__] = FaultType(number, tells, end, play, params)
        return play

    return add


@_fault(1, seconds=1.0)
def latency(call: Call, params: Params) -> bytes:
    """Takes the report, waits, answers."""
    body = call.judge()
    call.pause(params["seconds"])
    return call.answer(body)


@_fault(2, "nothing", "closed", seconds=None, taken=False)
def hang(call: Call, params: Params) -> None:
    """Reads the report and never answers; closes after `seconds` if given."""
    call.pause(params["seconds"])


@_fault(3, "nothing", "reset")
def reset_before(call: Call, _: Params) -> None:
    """Resets before the report is read (tied to a task or method: once that much is known); never taken."""


@_fault(4, "nothing", "reset")
def reset_read(call: Call, _: Params) -> None:
    """Reads the whole report, resets, not taken."""


@_fault(5, "nothing", "reset")
def reset_after(call: Call, _: Params) -> None:
    """Takes the report, resets without an answer."""
    call.judge()


@_fault(6, "nothing", "closed")
def close_read(call: Call, _: Params) -> None:
    """Reads the report, closes without an answer, not taken."""


@_fault(7, "nothing", "closed")
def close_after(call: Call, _: Params) -> None:
    """Takes the report, closes without an answer."""
    call.judge()


@_fault(8, seconds=0.5)
def drip_headers(call: Call, params: Params) -> bytes:
    """Takes the report, sends the head of the answer byte by byte, `seconds` apart."""
    head, body = _parts(call.answer(call.judge()))
    _drip(call, head, params["seconds"])
    return body


@_fault(9, seconds=0.5)
def drip_body(call: Call, params: Params) -> None:
    """Takes the report, sends the body of the answer byte by byte, `seconds` apart."""
    head, body = _parts(call.answer(call.judge()))
    call.send(head)
    _drip(call, body, params["seconds"])


@_fault(10, "other", seconds=0.05, taken=True)
def endless_continue(call: Call, params: Params) -> None:
    """Sends `100 Continue` for ever, `seconds` apart."""
    while True:
        call.send(replies.CONTINUE)
        call.pause(params["seconds"])


@_fault(11, "part", "closed", taken=True)
def cut_headers(call: Call, params: Params) -> bytes:
    """Sends half of the head, closes."""
    head, _ = _parts(call.answer(call.judge() if params["taken"] else replies.SUCCESS))
    return head[: len(head) // 2]


@_fault(12, "part", "closed", taken=True)
def cut_body(call: Call, params: Params) -> bytes:
    """Sends the head and half of the promised body, closes."""
    head, body = _parts(call.answer(call.judge() if params["taken"] else replies.SUCCESS))
    return head + body[: len(body) // 2]


@_fault(13, "other", "closed", taken=True)
def garbage(call: Call, _: Params) -> bytes:
    """Sends bytes that are not HTTP, closes."""
    return bytes(range(128, 256)) + b"\r\n\x00\x01 this is not HTTP\r\n\r\n"


@_fault(14, "other", taken=False)
def html(call: Call, _: Params) -> bytes:
    """Answers 200 with an HTML page."""
    return call.answer(PAGE, content_type=_PAGE_TYPE)


@_fault(15, "other", taken=False)
def empty(call: Call, _: Params) -> bytes:
    """Answers 200 with an empty body."""
    return call.answer(b"")


@_fault(16, "other", status=500, retryAfterSeconds=None, retryAfterForm="seconds", taken=False)
def status(call: Call, params: Params) -> bytes:
    """Answers with an HTTP status and a page; a 3xx carries a Location."""
    wait, form, code = params["retryAfterSeconds"], params["retryAfterForm"], params["status"]
    told = {"seconds": int(wait or 0), "date": call.date(wait or 0.0), "junk": "soon, very soon"}
    headers = f"Location: {_elsewhere(call)}\r\n" if code in (301, 302, 303, 307, 308) else ""
    if wait is not None or form == "junk":
        headers += f"Retry-After: {told[form]}\r\n"
    return call.answer(PAGE, code, headers=headers, content_type=_PAGE_TYPE)


@_fault(17, "other", bytes=0)
def gzip(call: Call, params: Params) -> bytes:
    """Takes the report, answers with a gzip body; `bytes` is its unpacked size."""
    body, block = call.judge(), b" " * 2**20
    blocks, rest = divmod(max(params["bytes"] - len(body), 0), len(block))
    body += block[:rest]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # After a full flush nothing refers back, so that one packed block does for all: 200 MB take no time.
    packed = [packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in (body, block)]
    packed[1] *= blocks
    crc = zlib.crc32(body)
    for _ in range(blocks):
        crc = zlib.crc32(block, crc)
    end = struct.pack("<II", crc, len(body) + blocks * len(block))
    whole = b"".join((b"\x1f\x8b\x08", bytes(7), *packed, packer.flush(), end))
    return call.answer(whole, headers="Content-Encoding: gzip\r\n")


@_fault(18, "other", status=307, location=None, taken=False)
def redirect(call: Call, params: Params) -> bytes:
    """Redirects, to `/_redirected/<method>` of the simulator unless `location` is given."""
    location = _elsewhere(call) if params["location"] is None else params["location"]
    return call.answer(b"", params["status"], headers=f"Location: {location}\r\n")


@_fault(19, "other", bytes=1_048_576)
def oversize(call: Call, params: Params) -> bytes:
    """Takes the report, answers with a true verdict padded to `bytes`."""
    return call.answer(call.judge().ljust(params["bytes"]))


@_fault(20, "other", text="[0]", status=200, taken=True)
def not_object(call: Call, params: Params) -> bytes:
    """Answers 200 with JSON that is not an object (or any other `text`)."""
    return call.answer(params["text"].encode("utf-8", "surrogatepass"), params["status"])


@_fault(21, "other", errorId="0", missing=False)
def error_id_type(call: Call, params: Params) -> bytes:
    """Takes the report, answers with an `errorId` that is no integer or out of range, or `missing`."""
    verdict = {**json.loads(call.judge()), "errorId": params["errorId"]}
    if params["missing"]:
        del verdict["errorId"]
    return call.answer(replies.to_bytes(verdict))


@_fault(22, status=500)
def verdict_status(call: Call, params: Params) -> bytes:
    """Answers with the true verdict under another HTTP status."""
    return call.answer(call.judge(), params["status"])


@_fault(23, form="skew", skewSeconds=300.0)
def wrong_date(call: Call, params: Params) -> bytes:
    """Answers well with a Date header that is off, missing or unreadable."""
    dates = {"skew": call.date(params["skewSeconds"]), "missing": None, "junk": "half past nine"}
    return call.answer(call.judge(), date=dates[params["form"]])


@_fault(24)
def rate_limit(call: Call, _: Params) -> bytes:
    """Answers ERROR_RATE_LIMIT, not taken."""
    return call.answer(call.say(replies.RATE_LIMIT_ID))


@_fault(25)
def service_overload(call: Call, _: Params) -> bytes:
    """Answers ERROR_SERVICE_OVERLOAD, not taken."""
    return call.answer(call.say(replies.SERVICE_OVERLOAD_ID))


@_fault(26, errorId=7777, errorCode="ERROR_FROM_THE_FUTURE", errorDescription=None)
def error(call: Call, params: Params) -> bytes:
    """Answers with any error id, code and description, not taken."""
    return call.answer(call.say(params["errorId"], params["errorCode"], params["errorDescription"]))


@_fault(27, encoding="raw", errorId=24)
def echo_key(call: Call, params: Params) -> bytes:
    """Answers with an error whose description repeats the key in an `encoding`."""
    told = ENCODINGS[params["encoding"]](call.client_key)
    body = call.say(params["errorId"], None, f"The key {told} is not what we expected.")
    # The escapes of "json" themselves go over the wire.
    return call.answer(body.replace(b"\\\\u", b"\\u") if params["encoding"] == "json" else body)


@_fault(28, seconds=0.0)
def close_idle(call: Call, params: Params) -> bytes:
    """Answers well, then closes the connection after `seconds` without a request."""
    call.idle_close_s = params["seconds"]
    return call.answer(call.judge())


@_fault(29, end="closed")
def connection_close(call: Call, _: Params) -> bytes:
    """Answers well with `Connection: close`, closes."""
    return call.answer(call.judge(), headers="Connection: close\r\n")


@_fault(30)
def chunked(call: Call, _: Params) -> bytes:
    """Answers well, in chunks."""
    body = call.judge()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:], b""))
    return call.answer(chunks, framing="Transfer-Encoding: chunked\r\n")


@_fault(31, bytes=262_144)
def huge_headers(call: Call, params: Params) -> bytes:
    """Takes the report, answers with a head of `bytes`."""
    line = "X-Filler: {}\r\n".format("x" * 986)
    return call.answer(call.judge(), headers=line * (params["bytes"] // len(line) + 1))


@_fault(32)
def extra_bytes(call: Call, _: Params) -> bytes:
    """Answers well, then sends bytes that belong to no request."""
    return call.answer(call.judge()) + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n"


@_fault(33, "other", "closed", text="SSH-2.0-Simulator\r\n", taken=False)
def raw(call: Call, params: Params) -> bytes:
    """Sends `text`, one byte a character, instead of an answer, closes."""
    return str(params["text"]).encode("latin-1", "replace")


# What acts on connections is played by them and by the simulator, not here.


@_fault(0, seconds=None, taken=False)
def hang_before(call: Call, _: Params) -> None:
    """Reads nothing for `seconds` (null: for ever); with https the handshake stays open."""


@_fault(0, seconds=1.0)
def slow_accept(call: Call, _: Params) -> None:
    """Accepts connections only after `seconds`."""


@_fault(0)
def refuse(call: Call, _: Params) -> None:
    """Refuses connections and drops the open ones, control endpoint included, for `forSeconds`."""


PLAIN: Final = FaultType(0, "verdict", "", lambda call, _: call.answer(call.judge()), {})
"""What is played if no fault breaks the call: its verdict."""


def _refuse_verb(call: Call, _: Params) -> bytes:
    return call.answer(PAGE, 405, headers="Allow: POST\r\n", content_type="text/html")


NOT_POST: Final = FaultType(0, "other", "", _refuse_verb, {})
"""What is played if the verb is not POST."""


def _parts(answer: bytes) -> tuple[bytes, bytes]:
    start = answer.index(b"\r\n\r\n") + 4
    return answer[:start], answer[start:]


def _drip(call: Call, data: bytes, seconds: float) -> None:
    for at in range(len(data)):
        call.send(data[at : at + 1])
        call.pause(seconds)


def _elsewhere(call: Call) -> str:
    return f"{call.base_url}/_redirected/{call.method}"
