"""Feeds damaged answers to the parser of upstream answers for a bounded time.

Starts from the bodies of ``tests/vectors/verdicts.json``, damages them, and asks of each verdict
what must hold for all. Prints the seed and the body of the first violation and exits 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bridge.core import errors  # noqa: E402 - the script also runs from a checkout that is not installed
from bridge.core.model import OUTCOMES, Exchange, Verdict  # noqa: E402
from bridge.reports.verdict import MAX_CODE, MAX_DESCRIPTION, judge, verdict_ending  # noqa: E402

MAX_BODY = 65536
PIECES = (
    *(b'"errorId":' + number for number in (b"0", b"16", b"-1", b"1.0", b"2147483648", b"90")),
    *(b'"errorCode":', b'"ERROR_RATE_LIMIT"', b"\\u0000", b"\\ud800", b"NaN", b"-0", b"1e999", b"9" * 50),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"null", b"true", b" ", b"\n"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xc3\x28"),
)
FAILURES = (
    None,
    None,
    None,
    None,
    "reset",
    "timeout",
    "cut",
    "malformed",
    "dns",
    "certificate",
    "window",
    "?",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"content-encoding": "gzip"},
    {"retry-after": "5"},
    {"retry-after": "9" * 400},
    {"date": "?"},
)


def load_seeds() -> list[bytes]:
    """Collect the bodies of the vectors."""
    document = json.loads((ROOT / "tests" / "vectors" / "verdicts.json").read_text(encoding="utf-8"))
    exchanges = [vector["exchange"] for vector in document["vectors"]]
    bodies = {exchange["body"].encode() for exchange in exchanges if exchange.get("body")}
    return sorted(
        bodies | {bytes.fromhex(exchange["bodyHex"]) for exchange in exchanges if "bodyHex" in exchange}
    )


def damage(body: bytes, dice: random.Random) -> bytes:
    """Change a body at up to eight places: cut, insert, repeat, flip."""
    changed = bytearray(body)
    for _ in range(dice.randrange(9)):
        at = dice.randrange(len(changed) + 1)
        action = dice.randrange(5)
        if action == 0:
            changed[at:at] = dice.choice(PIECES)
        elif action == 1:
            del changed[at : at + dice.randrange(1, 9)]
        elif action == 2:
            changed[at:at] = changed[at : at + dice.randrange(1, 40)] * dice.randrange(1, 4)
        elif action == 3 and changed:
            changed[at % len(changed)] = dice.randrange(256)
        else:
            changed[at:at] = dice.choice(PIECES) * dice.choice((1, 2, 300, 3000))
    return bytes(changed[:MAX_BODY])


def check(exchange: Exchange, perhaps_before: bool, seen: Verdict) -> None:
    """Ask what must hold for every verdict; an AssertionError is a find."""
    assert seen.outcome in OUTCOMES
    assert seen.pause is None or seen.pause in errors.pause_rules()
    assert not (seen.perhaps and seen.outcome in ("refused", "not_sent"))
    assert not perhaps_before or seen.perhaps
    assert (seen.outcome == "unknown") == (seen.code == -32002)
    if seen.outcome == "accepted":
        value = json.loads(exchange.body.decode("utf-8-sig"), parse_int=lambda token: ("integer", token))
        assert exchange.failure is None
        assert value["errorId"] in (("integer", "0"), ("integer", "-0"))
    else:
        errors.find_row(seen.event)
        errors.find_row(seen.kind)
    if seen.outcome == "refused" and seen.has_verdict:
        assert 1 <= seen.code <= 2**31 - 1
    detail = verdict_ending(seen, {}).detail
    json.dumps(detail, allow_nan=False, ensure_ascii=False).encode("utf-8")
    assert len(detail.get("errorCode", "")) <= MAX_CODE
    assert len(detail.get("errorDescription", "")) <= MAX_DESCRIPTION


def fuzz(seconds: float, seed: int) -> int:
    """Run until the time is over.

    Args:
        seconds: length of the run.
        seed: start of the dice; the same seed gives the same answers.

    Returns:
        The number of answers judged.
    """
    dice = random.Random(seed)
    seeds = load_seeds()
    count = 0
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        exchange = Exchange(
            dice.choice(FAILURES),
            dice.random() < 0.8,
            dice.choice((None, 100, 200, 200, 200, 204, 302, 401, 403, 408, 429, 500, 503, 999)),
            dice.choice(HEADERS),
            damage(dice.choice(seeds), dice),
            dice.random() < 0.05,
        )
        perhaps_before = dice.random() < 0.3
        try:
            check(exchange, perhaps_before, judge(exchange, perhaps_before))
        except Exception:
            print(
                f"seed {seed}, answer {count}: {exchange!r}, perhaps before: {perhaps_before}",
                file=sys.stderr,
            )
            raise
        count += 1
    return count


def main() -> int:
    """Read the arguments, run, and say how much was tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the run (default 10)")
    parser.add_argument("--seed", type=int, default=None, help="start of the dice (default: random, printed)")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    count = fuzz(options.seconds, seed)
    print(f"{count} answers judged in {options.seconds:g} s, seed {seed}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
