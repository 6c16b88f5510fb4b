"""``report-bridge snippet``: an integration that works here, with absolute paths, to paste and go on from."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from string import Template
from typing import Final

from bridge.cli.main import print_text

HELP = "Print an integration that works on this machine as it is: it starts the bridge in the sandbox."
EPILOG = """Each snippet runs without an account; the comment in it says what to change for a real one.

examples:
  report-bridge snippet python > first_report.py && python3 first_report.py
  report-bridge snippet shell | sh"""

_NODE: Final = """\
// npm install anticaptcha-report-bridge; save as report.mjs; node report.mjs
import { Bridge, ReportError } from "anticaptcha-report-bridge";

const bridge = await Bridge.start({
  path: $path,
  args: $args,
  sandbox: true, // for a real account: keyFile: "/path/to/key" instead
});
try {
  // taskId and endTime are what createTask and getTaskResult answered.
  const endTime = Date.now() / 1000 - 5;
  const result = await bridge.reportIncorrectRecaptcha({
    taskId: 123,
    completedAt: endTime,
    taskType: "RecaptchaV2TaskProxyless",
  });
  console.log(result.outcome);
} catch (error) {
  if (!(error instanceof ReportError)) throw error;
  console.error(error.kind, error.message); // refused, late, paused: nothing to repeat
} finally {
  await bridge.close();
}
"""

_GO: Final = """\
// Save as main.go in a module that requires the package of clients/go.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"anticaptcha-report-bridge/reportbridge"
)

func main() {
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{
		Path:    $path,
		Args:    $go_args,
		Sandbox: true, // for a real account: KeyFile: "/path/to/key" instead
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bridge.Close(ctx) }()

	// The task id and endTime are what createTask and getTaskResult answered.
	endTime := time.Now().Add(-5 * time.Second)
	result, err := bridge.ReportIncorrectRecaptcha(ctx, reportbridge.ReportParams{
		TaskID:      123,
		CompletedAt: reportbridge.UnixSeconds(endTime),
		TaskType:    "RecaptchaV2TaskProxyless",
	})
	var refused *reportbridge.ReportError
	switch {
	case errors.As(err, &refused):
		fmt.Println(refused.Kind, refused) // refused, late, paused: nothing to repeat
	case err != nil:
		log.Println(err)
	default:
		fmt.Println(result.Outcome)
	}
}
"""

_PYTHON: Final = '''\
"""Reports one wrong reCAPTCHA answer; needs nothing but Python."""

import json
import subprocess
import time

# For a real account: "--key-file", "/path/to/key" instead of "--sandbox".
COMMAND = $words + ["--sandbox"]

with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bridge:

    def call(request_id, method, **params):
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        bridge.stdin.write(json.dumps(request) + "\\n")
        bridge.stdin.flush()
        return json.loads(bridge.stdout.readline())

    # taskId and endTime are what createTask and getTaskResult answered.
    end_time = time.time() - 5
    answer = call(1, "reportIncorrectRecaptcha", taskId=123, completedAt=end_time)
    if "error" in answer:
        print(answer["error"]["data"]["kind"], answer["error"]["message"])
    else:
        print(answer["result"]["outcome"])
    bridge.stdin.close()  # the bridge finishes what it has, and ends
'''

_SHELL: Final = """\
#!/bin/sh
# For a real account: --key-file /path/to/key instead of --sandbox.

# One report; the exit code says how it went (report-bridge help exit-codes).
$shell call reportIncorrectImageCaptcha taskId=123 completedAt="$$(date +%s)" --sandbox

# Many: one request per line in, one answer per line out.
$shell --sandbox <<'END'
{"jsonrpc":"2.0","id":1,"method":"reportIncorrectRecaptcha","params":{"taskId":124}}
{"jsonrpc":"2.0","id":2,"method":"reportIncorrectRecaptcha","params":{"taskId":125}}
END
"""

_SYSTEMD: Final = """\
# A bridge for each connection to a socket, for programs that cannot start one themselves.
# For a real account: put the key into /etc/report-bridge.key (mode 0600), take --sandbox away,
# and take the # from the line LoadCredential and add --key-file %d/key to ExecStart.

# --- /etc/systemd/system/report-bridge.socket
[Unit]
Description=Reports to Anti-Captcha.com

[Socket]
ListenStream=/run/report-bridge.sock
SocketMode=0660
Accept=yes

[Install]
WantedBy=sockets.target

# --- /etc/systemd/system/report-bridge@.service
[Unit]
Description=Reports to Anti-Captcha.com, one connection

[Service]
ExecStart=$systemd --no-parent-watch --sandbox
StandardInput=socket
StandardOutput=socket
StandardError=journal
DynamicUser=yes
User=report-bridge
StateDirectory=report-bridge
StateDirectoryMode=0700
Environment=XDG_STATE_HOME=/var/lib
#LoadCredential=key:/etc/report-bridge.key
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes

# --- then
# systemctl daemon-reload && systemctl enable --now report-bridge.socket
# echo '{"jsonrpc":"2.0","id":1,"method":"bridge.info"}' | socat -t 5 - UNIX:/run/report-bridge.sock
"""

_DOCKER: Final = """\
#!/bin/sh
# In the folder of the sources, once: docker build -t anticaptcha-report-bridge .
# -i keeps standard input open; without it the bridge ends at once.
# For a real account: take --sandbox away and the # from the lines below it.
exec docker run -i --rm --init --read-only --tmpfs /tmp \\
  -v report-bridge-state:/state -e XDG_STATE_HOME=/state \\
  anticaptcha-report-bridge --sandbox
#  -v /path/to/key:/run/secrets/anticaptcha:ro \\
#  anticaptcha-report-bridge --key-file /run/secrets/anticaptcha
"""

SNIPPETS: Final = {
    "node": _NODE,
    "go": _GO,
    "python": _PYTHON,
    "shell": _SHELL,
    "systemd": _SYSTEMD,
    "docker": _DOCKER,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("kind", choices=tuple(SNIPPETS), metavar="KIND", help="|".join(SNIPPETS))


def run(args: argparse.Namespace) -> int:
    """Print and return 0."""
    print_text(render_snippet(args.kind, find_words()))
    return 0


def find_words() -> list[str]:
    """The words that start this very program, wherever they are called from."""
    program = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if os.path.basename(program) == "report-bridge" and os.access(program, os.X_OK):
        return [program]
    python = sys.executable or "python3"
    beside = os.path.join(os.path.dirname(python), "report-bridge")
    return [beside] if os.access(beside, os.X_OK) else [python, "-m", "bridge"]


def render_snippet(kind: str, words: Sequence[str]) -> str:
    """Return the text of one snippet.

    Args:
        words: what starts the program, the first one an absolute path.
    """
    quoted = ", ".join(json.dumps(word) for word in words[1:])
    # In a unit file a percent sign begins a specifier, and a dollar a variable.
    unit = [word.replace("%", "%%").replace("$", "$$") for word in words]
    return Template(SNIPPETS[kind]).substitute(
        path=json.dumps(words[0]),
        args=f"[{quoted}]",
        go_args=f"[]string{{{quoted}}}",
        words=json.dumps(list(words)),
        shell=shlex.join(words),
        systemd=" ".join(f'"{word}"' if " " in word else word for word in unit),
    )
