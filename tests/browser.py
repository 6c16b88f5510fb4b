"""A real browser without a window, driven over the pipe of the DevTools protocol; standard library only."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from scripts.tools import find_browser

PATIENCE_S: Final = 90.0
"""How long one answer may take: long, since the machine may be busy."""
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # the tests may run as root, and the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    # Nothing may leave the machine, whatever the browser has in mind.
    "--proxy-server=http://127.0.0.1:9",
)


class Tab:
    """One page in the browser."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._ids = 0
        self._rest = b""
        self._session: str | None = None
        self.requests: list[str] = []
        """Addresses that the page has asked for."""
        self.complaints: list[str] = []
        """What the page or the browser wrote to the console."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._ids += 1
        message: dict[str, Any] = {"id": self._ids, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._sink, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = self._read(until)
            if answer.get("id") == self._ids:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._source], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._source, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: Mapping[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])

    def show(self, page: Path, width: int, scheme: str) -> None:
        """Load a page as a screen of that width and that colour scheme shows it."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=page.as_uri())
        until = time.monotonic() + PATIENCE_S
        while self.ask("document.readyState") != "complete" or self.ask("location.protocol") != "file:":
            assert time.monotonic() < until, "the page never came"

    def ask(self, expression: str) -> Any:
        """Evaluate an expression in the page and return its value."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def shoot(self) -> bytes:
        """A picture of the whole page, as PNG."""
        import base64

        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])


@contextmanager
def browsing(profile: Path) -> Iterator[Tab]:
    """Start a browser and open a page in it.

    Args:
        profile: an empty folder for what it writes.
    """
    read_ours, write_theirs = os.pipe()
    read_theirs, write_ours = os.pipe()
    # The browser reads descriptor 3 and writes descriptor 4.
    command = f'exec "$@" 3<&{read_theirs} 4>&{write_theirs}'
    program = find_browser()
    assert program is not None, "no Chromium or Chrome on PATH: run scripts/install_browser.sh"
    words = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    environ = {"HOME": str(profile), "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, "bash", *words],
        pass_fds=(read_theirs, write_theirs),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # its complaints on stderr are shown with a test that fails
        env=environ,
        start_new_session=True,
    )
    os.close(read_theirs)
    os.close(write_theirs)
    try:
        yield Tab(read_ours, write_ours)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(PATIENCE_S)
        os.close(read_ours)
        os.close(write_ours)
