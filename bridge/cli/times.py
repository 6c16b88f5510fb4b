"""Times as people write them, and as they are shown. Everything is UTC, as in the records."""

from __future__ import annotations

import argparse
import re
import time
from datetime import UTC, datetime
from typing import Final

DAY_S: Final = 86_400.0
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}
HELP: Final = "2026-01-31T08:00Z, UNIX seconds, or how long ago: 24h, 7d"


def parse_time(text: str) -> float:
    """Turn a date, a UNIX time or a length back from now into UNIX seconds; without a zone it is UTC.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if ago:
        return max(0.0, time.time() - float(ago[1]) * _UNITS[ago[2]])
    if re.fullmatch(r"\d{5,11}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a time: {HELP}") from None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def show_time(wall: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(wall, UTC).strftime(form)


def show_length(seconds: float) -> str:
    """Return a length of time in the unit that fits it."""
    for unit, length in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
