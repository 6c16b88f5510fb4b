"""Writes schemas/openrpc.json, the document that rpc.discover answers with."""

from __future__ import annotations

import json

from bridge import __version__
from bridge.rpc.discovery import document


def render() -> str:
    """Return the text of the OpenRPC document."""
    return json.dumps(document(__version__), indent=1) + "\n"
