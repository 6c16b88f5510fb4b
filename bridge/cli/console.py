"""A person at the terminal: a short form to type, and answers that can be read.

Used only if stdin is a terminal; programs get the wire protocol and nothing else.
"""

from __future__ import annotations

import json
from itertools import count


class Console:
    """Translates what is typed, and renders what is answered."""

    def __init__(self) -> None:
        self._ids = count(1)

    def translate(self, line: bytes) -> bytes:
        """Turn ``method name=value ...`` into a request; leave JSON as it is.

        A value that is JSON is taken as such, anything else is a string.
        """
        text = line.strip()
        if text[:1] in (b"{", b"["):
            return line
        method, *pairs = text.decode("utf-8", "replace").split()
        params = {}
        for pair in pairs:
            name, equals, value = pair.partition("=")
            params[name] = _value(value) if equals else True
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method}
        if params:
            request["params"] = params
        return json.dumps(request).encode("ascii")

    def render(self, payload: bytes) -> bytes:
        """Indent an answer."""
        return json.dumps(json.loads(payload), indent=2).encode("ascii")


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    # NaN and numbers beyond a float cannot be written as JSON again.
    return value if value not in (float("inf"), float("-inf")) and value == value else text
