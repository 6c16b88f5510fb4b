"""Answers whose heads are odd, and that curl and browsers accept all the same; each accepts a report."""

from __future__ import annotations

BODY = b'{"errorId":0,"status":"success"}'
LENGTH = b"Content-Length: 32\r\n"


def spell(*odd: bytes, framing: bytes = LENGTH, body: bytes = BODY) -> bytes:
    """Spell an answer with odd header lines."""
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in odd) + framing + b"\r\n" + body


CHUNKS = b"20\r\n" + BODY + b"\r\n0\r\n\r\n"
ODD: dict[str, bytes] = {
    "a blank before the colon": spell(b"Server : nginx"),
    "a tab before the colon": spell(b"Server\t: nginx"),
    "a blank before the length's colon": spell(framing=b"Content-Length : 32\r\n"),
    "a blank inside a name": spell(b"X Powered By: y"),
    "a name outside ASCII": spell("X-Pr\xe9nom: y".encode("latin-1"), "X-\u540d: z".encode()),
    "a value outside ASCII": spell("X: \xe9\u540d".encode()),
    "controls in a value": spell(b"X: a\0b\x01\x7f"),
    "a line without a colon": spell(b"this is no header line"),
    "an empty name": spell(b": y"),
    "a colon alone": spell(b":"),
    "an odd first line": spell(b" folded onto nothing"),
    "a folded line": spell(b"X: y", b"  z"),
    "chunked twice in one line": spell(framing=b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS),
    "chunked in two lines": spell(framing=b"Transfer-Encoding: chunked\r\n" * 2, body=CHUNKS),
    "identity": spell(b"Transfer-Encoding: identity"),
    "identity and chunked": spell(framing=b"Transfer-Encoding: identity, chunked\r\n", body=CHUNKS),
    "chunked and a length": spell(b"Transfer-Encoding: chunked", body=CHUNKS),
    "padded chunk sizes": spell(
        framing=b"Transfer-Encoding: chunked\r\n", body=CHUNKS.replace(b"20\r\n", b"20   \r\n")
    ),
    "two equal lengths": spell(LENGTH[:-2]),
    "102 lines": spell(*[b"X-%d: y" % number for number in range(101)]),
    "500 lines": spell(*[b"X-%d: y" % number for number in range(500)]),
    "bare line feeds": spell(b"X: y").replace(b"\r\n", b"\n"),
    "an empty line first": b"\r\n" + spell(b"X: y"),
    "no reason": spell().replace(b"200 OK", b"200"),
    "a double blank": spell().replace(b" 200", b"  200"),
    "a reason outside ASCII": spell().replace(b"OK", b"\xe9\x01"),
}
