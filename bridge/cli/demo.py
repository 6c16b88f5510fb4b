"""``report-bridge demo``: a real conversation with a bridge in the sandbox, explained line by line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from string import Template
from typing import Any, Final

from bridge.cli.commands import read_text
from bridge.cli.terminal import print_lines
from bridge.core import exits
from bridge.core.text import plural

_LATE_S: Final = 75
"""Age of the task that is too late: the API forgets tasks after 60 s."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The demonstration has no flags."""


def run(_args: Any) -> int:
    """Play the scenes against a real bridge process; 0 if every answer was as announced."""
    bridge = subprocess.Popen(
        [sys.executable, "-m", "bridge", "serve", "--sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="ascii",
    )
    assert bridge.stdin is not None
    assert bridge.stdout is not None
    told = "A bridge in the sandbox: the documented API, simulated in its own process."
    print_lines([f"{told} --> is sent, <-- answered."])
    surprises = 0
    now = round(time.time())
    # What is shown: the title of each step, what is sent, and what the answer must hold.
    text = Template(read_text("demo.txt")).substitute(now=now, late=now - _LATE_S)
    for scene in json.loads(text):
        request = json.dumps(scene["request"], separators=(",", ":"))
        print_lines(["", f"# {scene['title']}", f"--> {request}"])
        print(request, file=bridge.stdin, flush=True)
        answer = bridge.stdout.readline().rstrip("\n")
        print_lines([f"<-- {answer}"])
        surprises += not all(part in answer for part in scene["expected"])
    bridge.stdin.close()
    code = bridge.wait()
    print_lines(["", f"End of input: the bridge finished what it had and ended with exit code {code}."])
    if surprises or code:
        print(f"{plural(surprises, 'answer')} not as announced.", file=sys.stderr)
        return exits.REFUSED
    return exits.DONE
