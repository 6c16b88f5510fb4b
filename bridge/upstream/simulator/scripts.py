"""What each fault does on the wire, as a script of steps that has no I/O.

A script yields bytes to send, a float to wait that many seconds, or one of `CLOSE`, `RESET`, `HANG`.
It calls `Call.judge` at the moment the simulated upstream takes the report in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Protocol

from bridge.upstream.simulator import replies

CLOSE: Final = "close"
"""End the connection in order."""
RESET: Final = "reset"
"""Throw the connection away; the client sees a reset."""
HANG: Final = "hang"
"""Do nothing more until the client leaves."""

Step = bytes | float | Literal["close", "reset", "hang"]
Params = Mapping[str, Any]


class Call(Protocol):
    """What a script may ask of the call it breaks."""

    client_key: str
    path: str
    base_url: str
    idle_close_s: float | None

    def date(self, skew_s: float = 0.0) -> str:
        """Return the time on the upstream's clock, and so many seconds on, as an HTTP date."""

    def judge(self) -> bytes:
        """Apply the rules, once; return the verdict as JSON. A good report is now taken."""

    def say(self, error_id: int, code: str | None, description: str | None) -> bytes:
        """Return an error verdict that stands in for the rules, and note it in the log."""

    def answer(
        self,
        body: bytes,
        status: int = 200,
        *,
        headers: str = "",
        date: str | None = "",
        content_type: str | None = "",
        framing: str | None = None,
    ) -> bytes:
        """Return a whole answer; `date` and `content_type` are the usual ones unless given."""


Script = Callable[[Call, Params], Iterator[Step]]

PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Sorry</title></head><body><h1>Be right back</h1></body></html>\n"
)


def latency(call: Call, params: Params) -> Iterator[Step]:
    """Take the report, wait, then answer."""
    body = call.judge()
    yield float(params["seconds"])
    yield call.answer(body)


def hang(call: Call, params: Params) -> Iterator[Step]:
    """Read the report and never answer."""
    _maybe_take(call, params)
    if params["seconds"] is None:
        yield HANG
    yield float(params["seconds"])
    yield CLOSE


def reset_unread(call: Call, params: Params) -> Iterator[Step]:
    """Reset without looking at the report; also serves a read one that is not taken."""
    yield RESET


def reset_after(call: Call, params: Params) -> Iterator[Step]:
    """Take the report, then reset."""
    call.judge()
    yield RESET


def close_read(call: Call, params: Params) -> Iterator[Step]:
    """Read the report, do not take it, close."""
    yield CLOSE


def close_after(call: Call, params: Params) -> Iterator[Step]:
    """Take the report, close without an answer."""
    call.judge()
    yield CLOSE


def drip_headers(call: Call, params: Params) -> Iterator[Step]:
    """Send the head of the answer byte by byte."""
    whole = call.answer(call.judge())
    end = whole.index(b"\r\n\r\n") + 4
    yield from _drip(whole[:end], params["seconds"])
    yield whole[end:]


def drip_body(call: Call, params: Params) -> Iterator[Step]:
    """Send the head at once and the body byte by byte."""
    whole = call.answer(call.judge())
    end = whole.index(b"\r\n\r\n") + 4
    yield whole[:end]
    yield from _drip(whole[end:], params["seconds"])


def endless_continue(call: Call, params: Params) -> Iterator[Step]:
    """Send ``100 Continue`` for ever."""
    _maybe_take(call, params)
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield float(params["seconds"])


def cut_headers(call: Call, params: Params) -> Iterator[Step]:
    """Send half of the head and close."""
    whole = call.answer(_body_or_success(call, params))
    yield whole[: whole.index(b"\r\n\r\n") // 2]
    yield CLOSE


def cut_body(call: Call, params: Params) -> Iterator[Step]:
    """Promise the whole body, send half of it and close."""
    whole = call.answer(_body_or_success(call, params))
    start = whole.index(b"\r\n\r\n") + 4
    yield whole[: start + (len(whole) - start) // 2]
    yield CLOSE


def garbage(call: Call, params: Params) -> Iterator[Step]:
    """Send bytes that are not HTTP and close."""
    _maybe_take(call, params)
    yield bytes(range(128, 256)) + b"\r\n\x00\x01 this is not HTTP\r\n\r\n"
    yield CLOSE


def html(call: Call, params: Params) -> Iterator[Step]:
    """Answer 200 with a page for people."""
    _maybe_take(call, params)
    yield call.answer(PAGE, content_type="text/html; charset=utf-8")


def empty(call: Call, params: Params) -> Iterator[Step]:
    """Answer 200 without a body."""
    _maybe_take(call, params)
    yield call.answer(b"")


def status(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a status code, a page, and a Retry-After if asked for."""
    _maybe_take(call, params)
    headers = ""
    wait = params["retryAfterSeconds"]
    form = params["retryAfterForm"]
    if form == "junk":
        headers = "Retry-After: soon, very soon\r\n"
    elif wait is not None and form == "date":
        headers = f"Retry-After: {call.date(wait)}\r\n"
    elif wait is not None:
        headers = f"Retry-After: {int(wait)}\r\n"
    code = params["status"]
    if code in (301, 302, 303, 307, 308):
        headers += f"Location: {call.base_url}/_redirected{call.path}\r\n"
    yield call.answer(PAGE, code, headers=headers, content_type="text/html; charset=utf-8")


def redirect(call: Call, params: Params) -> Iterator[Step]:
    """Redirect; a client that follows shows in the log as method ``_redirected/<method>``."""
    _maybe_take(call, params)
    location = params["location"]
    if location is None:
        location = f"{call.base_url}/_redirected{call.path}"
    yield call.answer(b"", params["status"], headers=f"Location: {location}\r\n")


def gzip(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a gzip body, blown up to so many bytes if asked for."""
    import zlib

    body = call.judge()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(body)
    missing = params["bytes"] - len(body)
    blanks = b" " * 65536
    while missing > 0:
        packed += packer.compress(blanks[:missing])
        missing -= len(blanks)
    packed += packer.flush()
    yield call.answer(packed, headers="Content-Encoding: gzip\r\n")


def oversize(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a true verdict followed by blanks, so many bytes in all."""
    body = call.judge()
    yield call.answer(body + b" " * (params["bytes"] - len(body)))


def chunked(call: Call, params: Params) -> Iterator[Step]:
    """Answer in chunks, as the vendor's server was seen to do."""
    body = call.judge()
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
    yield call.answer(chunks + b"0\r\n\r\n", framing="Transfer-Encoding: chunked\r\n")


def huge_headers(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a head of so many bytes."""
    lines = "X-Filler: {}\r\n".format("x" * 986)
    yield call.answer(call.judge(), headers=lines * (params["bytes"] // len(lines) + 1))


def extra_bytes(call: Call, params: Params) -> Iterator[Step]:
    """Answer well, then send bytes that belong to nothing."""
    yield call.answer(call.judge()) + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n"


def body(call: Call, params: Params) -> Iterator[Step]:
    """Answer with the given text as body."""
    _maybe_take(call, params)
    yield call.answer(params["text"].encode("utf-8", "surrogatepass"), params["status"])


def raw(call: Call, params: Params) -> Iterator[Step]:
    """Send the given text, one byte a character, instead of an answer, and close."""
    _maybe_take(call, params)
    yield params["text"].encode("latin-1", "replace")
    yield CLOSE


def changed_error_id(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a verdict whose ``errorId`` is replaced, or left out if it is null and so asked."""
    verdict = json.loads(call.judge())
    if params["missing"]:
        del verdict["errorId"]
    else:
        verdict["errorId"] = params["errorId"]
    yield call.answer(json.dumps(verdict, separators=(",", ":")).encode())


def verdict_status(call: Call, params: Params) -> Iterator[Step]:
    """Answer with a true verdict under another HTTP status."""
    yield call.answer(call.judge(), params["status"])


def wrong_date(call: Call, params: Params) -> Iterator[Step]:
    """Answer well with a Date header that is wrong, missing or unreadable."""
    body = call.judge()
    form = params["form"]
    if form == "skew":
        yield call.answer(body, date=call.date(params["skewSeconds"]))
    else:
        yield call.answer(body, date=None if form == "missing" else "half past nine")


def error(call: Call, params: Params) -> Iterator[Step]:
    """Answer with an error of the API whatever the rules say; the report is not taken."""
    yield call.answer(call.say(params["errorId"], params["errorCode"], params["errorDescription"]))


def rate_limit(call: Call, params: Params) -> Iterator[Step]:
    """Answer ERROR_RATE_LIMIT."""
    yield call.answer(call.say(replies.RATE_LIMIT_ID, None, None))


def service_overload(call: Call, params: Params) -> Iterator[Step]:
    """Answer ERROR_SERVICE_OVERLOAD."""
    yield call.answer(call.say(replies.SERVICE_OVERLOAD_ID, None, None))


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


def echo_key(call: Call, params: Params) -> Iterator[Step]:
    """Answer with an error whose description repeats the key."""
    told = ENCODINGS[params["encoding"]](call.client_key)
    description = f"The key {told} is not what we expected."
    if params["encoding"] == "json":
        # The escapes themselves go over the wire, so they are written past the encoder.
        plain = call.say(params["errorId"], None, "The key @@ is not what we expected.")
        yield call.answer(plain.replace(b"@@", told.encode()))
    else:
        yield call.answer(call.say(params["errorId"], None, description))


def close_idle(call: Call, params: Params) -> Iterator[Step]:
    """Answer well and close the connection after so many idle seconds, without a warning."""
    yield call.answer(call.judge())
    call.idle_close_s = params["seconds"]


def connection_close(call: Call, params: Params) -> Iterator[Step]:
    """Answer well with ``Connection: close`` and close."""
    yield call.answer(call.judge(), headers="Connection: close\r\n")
    yield CLOSE


def _drip(data: bytes, seconds: float) -> Iterator[Step]:
    for at in range(len(data)):
        yield data[at : at + 1]
        yield float(seconds)


def _maybe_take(call: Call, params: Params) -> None:
    if params["taken"]:
        call.judge()


def _body_or_success(call: Call, params: Params) -> bytes:
    return call.judge() if params["taken"] else replies.SUCCESS
