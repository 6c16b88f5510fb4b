"""Where the contestants meet: upstreams on loopback, commands, environments, and what is missing here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from bench.load import Caller, Contestant, Server, end

ROOT: Final = Path(__file__).resolve().parent.parent
BENCH: Final = ROOT / "bench"
PEERS: Final = BENCH / "peers"
INSTALLED: Final = BENCH / ".peers"
WORK: Final = BENCH / ".work"
KEY: Final = "0123456789abcdef0123456789abcdef"
_START_S: Final = 20.0


_Kind = TypeVar("_Kind", Server, Caller)


class Missing(Exception):
    """Something that a row needs is not on this machine; the message says what."""


class Arena:
    """Starts what is measured and ends all of it. A context manager.

    Args:
        say: takes a line about what is being prepared.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._upstreams: dict[tuple[float, bool], str] = {}
        self._processes: list[subprocess.Popen[Any]] = []
        self._open: list[Contestant] = []
        self._names = 0
        self.missing: dict[str, str] = {}
        """What was left out, and why."""

    def __enter__(self) -> Arena:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        # Nothing of the user's environment may change what is measured: no proxies, no CA variables.
        kept = {
            name: os.environ[name]
            for name in ("PATH", "LANG", "GOCACHE", "GOPATH", "GOMODCACHE")
            if name in os.environ
        }
        self.environ = {**kept, "HOME": str(WORK), "PYTHONPATH": str(ROOT), "ANTICAPTCHA_CLIENT_KEY": KEY}
        self.peer_environ = {**kept, "HOME": str(WORK)}
        program = WORK / "report-bridge"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bridge "$@"\n')
        program.chmod(0o755)
        self.program = program
        return self

    def __exit__(self, *_: object) -> None:
        self.end_group()
        shutil.rmtree(WORK, ignore_errors=True)

    def end_group(self) -> None:
        """End contestants and upstreams.

        One that remembers all reports of the groups before collects its garbage for 0.4 s at a time, at the
        cost of whoever asks it then.
        """
        self.close_all()
        self._upstreams.clear()
        while self._processes:
            process = self._processes.pop()
            process.terminate()
            end(process)

    def close_all(self) -> None:
        """End the contestants; upstreams stay."""
        while self._open:
            with contextlib.suppress(OSError, EOFError):
                self._open.pop().close()

    def path(self, ending: str) -> str:
        """Return a fresh path in the working folder."""
        self._names += 1
        return str(WORK / f"{self._names}{ending}")

    # --- upstreams ---------------------------------------------------------------------------

    def upstream(self, latency_ms: int, tls: bool = False) -> str:
        """Return the URL of a simulator that waits so long before each answer."""
        known = self._upstreams.get((latency_ms, tls))
        if known is not None:
            return known
        ready = Path(self.path(".ready"))
        command = [sys.executable, "-m", "bridge", "simulate", "--ready-file", str(ready)]
        command += ["--latency", str(latency_ms / 1000)]
        if tls:
            _, cert, key = self.certificates()
            command += ["--tls-cert", cert, "--tls-key", key]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.environ, stdin=quiet, stdout=quiet, stderr=quiet)
        self._processes.append(process)
        until = time.monotonic() + _START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise Missing("the simulator did not start")
            time.sleep(0.01)
        url = ready.read_text().strip()
        self._upstreams[latency_ms, tls] = url
        return url

    def certificates(self) -> tuple[str, str, str]:
        """Return the paths of a CA, and of a certificate for loopback with its key."""
        paths = [str(WORK / name) for name in ("ca.pem", "cert.pem", "key.pem")]
        if not os.path.exists(paths[0]):
            import trustme

            authority = trustme.CA()
            leaf = authority.issue_cert("localhost", "127.0.0.1")
            authority.cert_pem.write_to_path(paths[0])
            leaf.cert_chain_pems[0].write_to_path(paths[1])
            leaf.private_key_pem.write_to_path(paths[2])
        return paths[0], paths[1], paths[2]

    # --- contestants -------------------------------------------------------------------------

    def bridge(
        self,
        url: str,
        load: int,
        *,
        ledger: str | None = None,
        header: bool = False,
        words: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "bridge"),
        python: str = sys.executable,
        under: Sequence[str] = (),
        request: Callable[[int, int], bytes] | None = None,
    ) -> Server:
        """Start a bridge with `--concurrency` set to the load; the ledger is a fresh file.

        Args:
            under: a program with its arguments that runs the bridge, such as one that counts instructions.
            request: makes the message of an id and a task id; default: a report.
        """
        command = [*under, python, *program, *self.flags(url, load, ledger), *words]
        return self._keep(
            Server(command, {**self.environ, **(environ or {})}, header=header, request=request)
        )

    def flags(self, url: str, load: int, ledger: str | None = None) -> list[str]:
        """Return the flags of a bridge under load."""
        ledger = ledger or self.path(".sqlite3")
        return ["--url", url, "--ledger", ledger, "--concurrency", str(load), "--queue", "4000"]

    def peer(self, name: str, url: str, *words: str, speaks: str = "orders") -> Contestant:
        """Start a Python peer in its own environment.

        Raises:
            Missing: the peers are not installed.
        """
        python = INSTALLED / "python" / "bin" / "python"
        if not python.exists():
            raise Missing("the Python peers could not be installed")
        command = [str(python), str(PEERS / f"{name}.py"), url, KEY, *words]
        if speaks == "orders":
            return self._keep(Caller(command, self.peer_environ))
        if speaks == "mcp":
            return self._keep(Server(command, self.peer_environ, request=_call_tool, hello=_MCP_HELLO))
        return self._keep(Server(command, self.peer_environ))

    def npm(self, url: str) -> Contestant:
        """Start the official npm client.

        Raises:
            Missing: there is no Node.js, or the package could not be installed.
        """
        folder = INSTALLED / "node"
        if not (folder / "node_modules").exists():
            raise Missing("Node.js with npm, or the official npm client, is not here")
        return self._keep(
            Caller(["node", str(PEERS / "official_npm.cjs"), url, KEY, str(folder)], self.peer_environ)
        )

    def node_bot(self, url: str, load: int) -> Contestant:
        """Start a Node bot that reports through our client; its CPU is its own, without the bridge's.

        Raises:
            Missing: there is no Node.js, or the client is not built.
        """
        built = ROOT / "clients" / "node" / "dist" / "esm" / "index.js"
        if shutil.which("node") is None or not built.exists():
            raise Missing("Node.js is not here, or clients/node is not built (npm ci && npm run build)")
        words = self.flags(url, load)
        settings = {"path": str(self.program), "args": words, "clientKey": KEY}
        command = ["node", str(PEERS / "node_bot.mjs"), str(built), json.dumps(settings)]
        return self._keep(Caller(command, self.environ))

    def go_bot(self, url: str, load: int) -> Contestant:
        """Start a Go bot that reports through our client; its CPU is its own, without the bridge's.

        Raises:
            Missing: there is no Go, or the bot cannot be built.
        """
        if shutil.which("go") is None or not (ROOT / "clients" / "go" / "go.mod").exists():
            raise Missing("Go is not here")
        binary = INSTALLED / "go_bot"
        # The user's own caches: with an empty home everything would be compiled from nothing.
        built = subprocess.run(
            ["go", "build", "-o", str(binary), "."],
            cwd=PEERS / "go",
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            raise Missing(f"the Go bot cannot be built: {built.stderr.strip()[:200]}")
        settings = {"Path": str(self.program), "Args": self.flags(url, load), "ClientKey": KEY}
        return self._keep(Caller([str(binary), json.dumps(settings)], self.environ))

    def local(self, name: str, url: str, *words: str) -> Contestant:
        """Start a program of ``bench/peers`` that takes orders, with the bridge's own Python."""
        return self._keep(Caller([sys.executable, str(PEERS / f"{name}.py"), url, KEY, *words], self.environ))

    def echo(self) -> Contestant:
        """Start the raw pipe echo."""
        return self._keep(Server([sys.executable, str(PEERS / "echo.py")], self.environ))

    def _keep(self, contestant: _Kind) -> _Kind:
        self._open.append(contestant)
        return contestant


def install(say: Callable[[str], None]) -> None:
    """Install the peers at their pinned versions into a folder of their own, unless they are there."""
    INSTALLED.mkdir(exist_ok=True)
    python = INSTALLED / "python"
    wanted = (BENCH / "requirements.txt").read_text()
    if _read(INSTALLED / "python.done") != wanted:
        say("installing the Python peers")
        shutil.rmtree(python, ignore_errors=True)
        pip = [
            str(python / "bin" / "python"),
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        done = _attempt([sys.executable, "-m", "venv", str(python)])
        done = done and _attempt([*pip, "install", "-r", str(BENCH / "requirements.txt")])
        if done:
            (INSTALLED / "python.done").write_text(wanted)
        else:
            shutil.rmtree(python, ignore_errors=True)
    node = INSTALLED / "node"
    wanted = (PEERS / "package-lock.json").read_text()
    if shutil.which("npm") and _read(INSTALLED / "node.done") != wanted:
        say("installing the npm peer")
        shutil.rmtree(node, ignore_errors=True)
        node.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PEERS / name, node / name)
        if _attempt(["npm", "ci", "--silent", "--no-audit", "--no-fund"], node):
            (INSTALLED / "node.done").write_text(wanted)
        else:
            shutil.rmtree(node, ignore_errors=True)


def _attempt(command: Sequence[str], folder: Path | None = None) -> bool:
    done = subprocess.run(list(command), cwd=folder, stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _call_tool(name: int, task_id: int) -> bytes:
    params = {"name": "report", "arguments": {"task_id": task_id}}
    return json.dumps({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": params}).encode()


_MCP_HELLO: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    b'"capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}',
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
)
