"""Sends reports through the bridge's own client, each over a new connection; runs with the bridge's Python.

fresh_connection.py URL KEY CA_FILE
"""

from __future__ import annotations

import sys

from orders import Send, serve

from bridge.core.redact import Secret
from bridge.upstream.client import Client


def main() -> None:
    """A pool that keeps nothing makes every report pay for its connection."""
    url, key, ca_file = sys.argv[1:4]
    client = Client(url, ca_file=ca_file, proxy=None, connect_timeout_s=5.0, pool_size=0)
    secret = Secret(key)

    def make_send() -> Send:
        def send(task_id: int) -> bool:
            exchange = client.send(
                "reportIncorrectImageCaptcha", secret, task_id, deadline_s=20.0, connect_by_s=20.0
            )
            return b'"errorId":0' in exchange.body.replace(b" ", b"")

        return send

    serve(make_send)


main()
