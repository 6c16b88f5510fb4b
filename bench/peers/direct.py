"""Calls the upstream with `requests` as people write it: one Session for all threads, defaults left alone.

    direct.py URL KEY [--each] [--no-env] [--verify FILE] [--fresh]

``--each`` gives each thread a Session, ``--no-env`` sets trust_env to False, ``--fresh`` takes
a new Session, so a new connection, for each report.
"""

from __future__ import annotations

import sys

import requests
from orders import Send, serve

METHOD = "reportIncorrectImageCaptcha"


def main() -> None:
    """Read the words and serve."""
    url, key, *words = sys.argv[1:]
    verify: str | bool = words[words.index("--verify") + 1] if "--verify" in words else True

    def make_session() -> requests.Session:
        session = requests.Session()
        session.verify = verify
        if "--no-env" in words:
            session.trust_env = False
        return session

    def post(session: requests.Session, task_id: int) -> bool:
        response = session.post(f"{url}/{METHOD}", json={"clientKey": key, "taskId": task_id}, timeout=30)
        return bool(response.json().get("errorId") == 0)

    shared = make_session()

    def make_send() -> Send:
        if "--fresh" in words:

            def fresh(task_id: int) -> bool:
                with make_session() as session:
                    return post(session, task_id)

            return fresh
        session = make_session() if "--each" in words else shared
        return lambda task_id: post(session, task_id)

    serve(make_send)


main()
