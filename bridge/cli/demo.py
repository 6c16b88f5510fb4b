"""``report-bridge demo``: a real conversation with a bridge in the sandbox, explained line by line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from bridge.core import exits
from bridge.core.text import plural

if TYPE_CHECKING:
    import argparse

HELP = "Show a conversation with the bridge in the sandbox: no account, no key, no network."

_IMAGE: Final = "reportIncorrectImageCaptcha"
_OTHERS_TASK: Final = 9_000_000_000_003_006
"""Magic id of the simulator: a task of another account, refused with error 16."""


class _Scene(NamedTuple):
    """One step: what is said about it, what is sent, and what the answer must hold."""

    title: str
    request: Any
    expected: tuple[str, ...]


def configure(parser: argparse.ArgumentParser) -> None:
    """The demonstration has no flags."""


def run(_args: Any) -> int:
    """Play the scenes against a real bridge process; 0 if every answer was as announced."""
    bridge = subprocess.Popen(
        [sys.executable, "-m", "bridge", "serve", "--sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert bridge.stdin is not None
    assert bridge.stdout is not None
    print(
        "A bridge in the sandbox: the documented API, simulated in its own process.",
        "--> is sent, <-- answered.",
    )
    surprises = sum(not _play(scene, bridge.stdin, bridge.stdout) for scene in _scenes(time.time()))
    bridge.stdin.close()
    code = bridge.wait()
    print(f"\nEnd of input: the bridge finished what it had and ended with exit code {code}.")
    if surprises or code:
        print(f"{plural(surprises, 'answer')} not as announced.", file=sys.stderr)
        return exits.REFUSED
    return exits.DONE


def _play(scene: _Scene, source: IO[bytes], sink: IO[bytes]) -> bool:
    request = json.dumps(scene.request, separators=(",", ":"))
    print(f"\n# {scene.title}\n--> {request}")
    source.write(request.encode("ascii") + b"\n")
    source.flush()
    answer = sink.readline().decode("ascii").rstrip("\n")
    print(f"<-- {answer}")
    return all(part in answer for part in scene.expected)


def _scenes(now: float) -> tuple[_Scene, ...]:
    late = round(now - 75)
    return (
        _Scene(
            "Accepted: the answer to image task 1001 was wrong, and the API took the report.",
            _call(1, _IMAGE, taskId=1001),
            ('"outcome":"accepted"', '"replayed":false'),
        ),
        _Scene(
            "Duplicate: the same report again is answered from the ledger; nothing is sent.",
            _call(2, _IMAGE, taskId=1001),
            ('"outcome":"accepted"', '"replayed":true'),
        ),
        _Scene(
            "Late: the worker finished 75 s ago, the API forgets tasks after 60 s; nothing is sent.",
            _call(3, _IMAGE, taskId=1002, completedAt=late),
            ('"code":-32010', '"ageSeconds":'),
        ),
        _Scene(
            "Wrong kind: a reCAPTCHA task cannot be reported as an image; the hint names the method.",
            _call(4, _IMAGE, taskId=1003, taskType="RecaptchaV2TaskProxyless"),
            ('"code":-32012', "reportIncorrectRecaptcha"),
        ),
        _Scene(
            "Refused by the API: error 16 has many causes; the hints rank them by what is known.",
            _call(5, _IMAGE, taskId=_OTHERS_TASK, completedAt=round(now), taskType="ImageToTextTask"),
            ('"code":16', '"hints":['),
        ),
        _Scene(
            "Bad request: the answer points at the mistake and repeats none of the input.",
            _call(6, _IMAGE, taskId="1004"),
            ('"code":-32602', '"pointer":"/taskId"'),
        ),
        _Scene(
            "Batch: every member is judged alone and answered in its place; a notification is not.",
            [
                _call(7, "reportIncorrectRecaptcha", taskId=1005, taskType="RecaptchaV3TaskProxyless"),
                {"jsonrpc": "2.0", "method": "reportCorrectRecaptcha", "params": {"taskId": 1006}},
                {"jsonrpc": "2.0", "id": 8, "method": "solveCaptcha"},
                _call(9, "bridge.getReport", taskId=1001),
            ],
            ('"id":7,"result"', '"code":-32601', '"id":9,"result"'),
        ),
    )


def _call(id: int, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
