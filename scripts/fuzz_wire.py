"""Feed mutated bytes through framing, JSON and envelope for a while; exit 1 on an exception.

Prints its seed first, so that a failing run can be repeated: ``--seed N``. Needs the package only.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bridge.core.errors import BridgeError, rule
from bridge.core.strict_json import NotAcceptable, NotJson, dump, parse, plain
from bridge.rpc.envelope import (
    Call,
    Member,
    error_response,
    id_key,
    split,
    success_response,
)
from bridge.wire.framing import BadFraming, Event, Framer, Oversize

MAX_MESSAGE = 4096
MAX_DEPTH = 16
MAX_BATCH = 20

REQUEST = b'{"jsonrpc":"2.0","id":1,"method":"reportIncorrectImageCaptcha","params":{"taskId":7374628374}}'
CORPUS = [
    REQUEST + b"\n",
    REQUEST.replace(b'"id":1,', b"") + b"\r\n",
    b"\xef\xbb\xbf" + REQUEST,
    b"[" + REQUEST + b"," + REQUEST.replace(b":1,", b":1e400,") + b",1]\n",
    b"Content-Length: %d\r\n\r\n%b" % (len(REQUEST), REQUEST),
    b"content-type: x\ncontent-length: 2\n\n{}Content-Length: 5000\r\n\r\n" + b"x" * 5000,
    b'{"id":"\\ud83d\\ude00","id":-0}\n{"id":"\\ud800"}\n',
    b"[" * 40 + b"]" * 40 + b"\n" + b"x" * 5000 + b"\n{}\n",
    b'{"a":[1.5e-7,true,null,"\\u0000\\"\\\\"]}\n[]\n\n \n{\n',
]
PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\\ud800",
    b"\\udfff",
    b"-0",
    b"1e9999999999",
]
PIECES += [
    b"Content-Length: ",
    b"\r\n\r\n",
    b"NaN",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xff",
    b"9" * 700,
    b"[" * 300,
]
PIECES += [
    b'"id":',
    b'"jsonrpc":"2.0",',
    b"null",
    b"true",
    b"\xe2\x80\xa8",
    b"\x00",
    b"]" * 300,
    b'{"a":' * 20,
]


def mutate(rng: random.Random) -> bytes:
    """Return a stream made of the corpus, cut, repeated and spoilt at random."""
    data = b"".join(rng.choices(CORPUS, k=rng.randint(1, 3)))
    for _ in range(rng.randint(0, 8)):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice([0, 0, 1, 3, 50]))
        insert = rng.choice([rng.choice(PIECES), rng.randbytes(rng.randint(0, 3)), data[start:stop] * 2])
        data = data[:start] + insert + data[stop:]
    return data


def cut(data: bytes, rng: random.Random, step: int) -> list[Event]:
    """Feed a stream in portions; say what came out of it."""
    framer = Framer(MAX_MESSAGE)
    events: list[Event] = []
    while data:
        size = rng.randint(1, step)
        events += framer.feed(data[:size])
        data = data[size:]
        assert len(framer._pending) <= MAX_MESSAGE + 1 + 8192, "the framer holds more than one message"
    events += framer.end()
    assert framer.failed == any(isinstance(event, BadFraming) for event in events), "failure and event differ"
    return events


def answer_member(member: Member) -> object:
    """Answer a call or what is none, using each part of it."""
    hash(id_key(member.id))
    if isinstance(member, Call):
        plain(member.params)
        return success_response(member.id, member.params)
    return error_response(member.id, BridgeError("invalid_request", rule(member.rule)))


def answer(event: Event) -> object:
    """Answer one event as the service does."""
    if not isinstance(event, bytes):
        told = "message_too_large" if isinstance(event, Oversize) else f"framing_{event.reason}"
        return error_response(None, BridgeError("parse_error", rule(told)))
    try:
        value = parse(event, MAX_DEPTH)
    except NotJson:
        return error_response(None, BridgeError("parse_error"))
    except NotAcceptable as refused:
        value = refused.value
    verdict = split(value, MAX_BATCH)
    if isinstance(verdict, list):
        return [answer_member(member) for member in verdict]
    return answer_member(verdict)


def check(data: bytes, rng: random.Random) -> int:
    """Run one stream; raise if anything is wrong with it, else say how many messages it held."""
    events = cut(data, rng, 1 << 20)
    assert events == cut(data, rng, 7), "the portions matter"
    for event in events:
        line = dump(answer(event))
        assert line.isascii(), "not ASCII"
        assert b"\n" not in line, "not one line"
        json.loads(line, parse_constant=lambda token: 1 / 0, parse_int=str, parse_float=str)
    return len(events)


def main() -> int:
    """Run until the time is over or something breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to run (default 10)")
    parser.add_argument("--seed", type=int, help="repeat the run with this seed")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    streams = messages = 0
    ends_at = time.monotonic() + options.seconds
    while time.monotonic() < ends_at:
        data = mutate(rng)
        try:
            messages += check(data, rng)
        except Exception:
            traceback.print_exc()
            print(f"failed with seed {seed}, stream {streams}: {data!r}", file=sys.stderr)
            return 1
        streams += 1
    print(f"{streams} streams with {messages} messages, no exception")
    return 0


if __name__ == "__main__":
    sys.exit(main())
