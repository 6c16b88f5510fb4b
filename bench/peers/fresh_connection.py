"""Sends reports through the bridge's own client, each over a new connection; runs with the bridge's Python.

fresh_connection.py URL KEY CA_FILE
"""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

from orders import Send, serve  # type: ignore[import-not-found]  # beside this file

from bridge.core.redact import Secret
from bridge.engine import Engine
from bridge.upstream.client import Client, report_body

PATIENCE_S = 20.0


class Desk(threading.local):
    """An engine and a client for each thread: an engine belongs to the one that made it."""

    def __init__(self, url: str, ca_file: str) -> None:
        self.engine = Engine(_fail)
        # A pool that keeps nothing makes every report pay for its connection.
        told: Any = SimpleNamespace(ca_file=ca_file, proxy=None, connect_timeout_s=5.0, concurrency=0)
        self.client = Client(self.engine, url, told)


def _fail(bug: BaseException) -> None:
    raise bug


def main() -> None:
    """Serve orders."""
    url, key, ca_file = sys.argv[1:4]
    secret = Secret(key)
    desk = Desk(url, ca_file)

    def make_send() -> Send:
        def send(task_id: int) -> bool:
            until = desk.engine.now() + PATIENCE_S
            exchange = desk.client.send(
                "reportIncorrectImageCaptcha",
                report_body(secret, task_id),
                until=until,
                leave_by=lambda: until,
                fresh=True,
            )
            return b'"errorId":0' in exchange.body.replace(b" ", b"")

        return send

    serve(make_send)


main()
