"""The bridge that is written in an afternoon: read a line, `jsonrpcserver.dispatch`, `requests.post`, print.

naive.py URL KEY
"""

from __future__ import annotations

import sys

import requests
from jsonrpcserver import Result, Success, dispatch, method

URL, KEY = sys.argv[1:3]


@method(name="reportIncorrectImageCaptcha")
def report(taskId: int) -> Result:
    """Report one task."""
    answer = requests.post(
        f"{URL}/reportIncorrectImageCaptcha", json={"clientKey": KEY, "taskId": taskId}, timeout=30
    )
    return Success(answer.json())


for line in sys.stdin:
    print(dispatch(line), flush=True)
