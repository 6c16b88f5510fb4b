"""Bots without Python: the npm tarballs and the Go module, installed and run where no Python can be found."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Final

import pytest

from scripts.build_program import hash_file
from tests.dist.program import DIST, FOLDER, link_tools, run
from tests.process import PATIENCE_S, ROOT

NODE_BOT: Final = """import { Bridge, ReportError } from "anticaptcha-report-bridge";
const bridge = await Bridge.start({ sandbox: true });
try {
  const result = await bridge.reportIncorrectImageCaptcha({ taskId: 7654321 });
  console.log(result.taskId, result.outcome);
} catch (error) {
  if (error instanceof ReportError) console.error(error.kind, error.outcome);
  else throw error;
}
await bridge.close();
"""
GO_BOT: Final = """package main

import (
	"context"
	_ "embed"
	"fmt"
	"log"
	"os"

	"anticaptcha-report-bridge/reportbridge"
)

//go:embed program.tar.gz
var archive []byte

func main() {
	ctx := context.Background()
	path, err := reportbridge.UnpackProgram(archive, os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Path: path, Sandbox: true})
	if err != nil {
		log.Fatal(err)
	}
	defer bridge.Close(ctx)
	result, err := bridge.ReportIncorrectImageCaptcha(ctx, reportbridge.ReportParams{TaskID: 7654321})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.TaskID, result.Outcome)
}
"""
INSTALL_S: Final = 10.0


@pytest.fixture
def node_only(tmp_path: Path) -> dict[str, str]:
    """Variables with Node and npm on the PATH, and nothing else."""
    return {"PATH": link_tools(tmp_path / "bin", "node", "npm"), "HOME": str(tmp_path)}


@pytest.fixture
def node_bot(tmp_path: Path, node_only: dict[str, str]) -> Path:
    """An empty folder into which the two tarballs were installed, without a registry."""
    folder = tmp_path / "bot"
    folder.mkdir()
    tarballs = sorted(DIST.glob("anticaptcha-report-bridge-*.tgz"))
    assert len(tarballs) == 2
    quiet = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, *tarballs], folder, environ=node_only)
    return folder


def test_node_alone_reports(tmp_path: Path, node_only: dict[str, str]) -> None:
    """Two tarballs, ten lines, no Python: the first report within 10 s of an empty folder."""
    begun = time.monotonic()
    assert len(NODE_BOT.splitlines()) == 10
    folder = tmp_path / "bot"
    folder.mkdir()
    (folder / "bot.mjs").write_text(NODE_BOT)
    tarballs = sorted(DIST.glob("anticaptcha-report-bridge-*.tgz"))
    quiet = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, *tarballs], folder, environ=node_only)
    assert run(["node", "bot.mjs"], folder, environ=node_only) == b"7654321 accepted\n"
    assert time.monotonic() - begun < INSTALL_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_npx_leaves_no_orphan(number: int, node_bot: Path, node_only: dict[str, str]) -> None:
    """A bridge started by `npx` answers, and is gone soon after npx was killed and its input let go."""
    environ = {**node_only, "PATH": f"{node_only['PATH']}:/bin"}  # npx starts a shell
    npx = Path(shutil.which("npx") or "npx").resolve()
    with subprocess.Popen(
        ["node", npx, "--offline", "anticaptcha-report-bridge", "--sandbox"],
        cwd=node_bot, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"bridge.info"}\n')
        process.stdin.flush()
        assert b'"protocol":1' in process.stdout.readline()
        assert len(find_session(process.pid)) >= 2
        process.send_signal(number)
        process.wait(PATIENCE_S)
        process.stdin.close()
        until = time.monotonic() + PATIENCE_S
        while find_session(process.pid):
            assert time.monotonic() < until, find_session(process.pid)
            time.sleep(0.05)


def find_session(leader: int) -> list[str]:
    """What still runs in the session of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = place.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, session = fields.split()[:4]
        if int(session) == leader and state != "Z":
            found.append(name)
    return found


def test_go_alone_reports(tmp_path: Path) -> None:
    """A Go bot with the archive inside unpacks it once, checks it, and reports where no Python is."""
    bot = tmp_path / "bot"
    bot.mkdir()
    with zipfile.ZipFile(next(DIST.glob("*-go-*.zip"))) as archive:
        archive.extractall(bot)
    (bot / "main.go").write_text(GO_BOT)
    shutil.copy(next(DIST.glob("report-bridge-*.tar.gz")), bot / "program.tar.gz")
    environ = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPATH": str(tmp_path / "go")}
    steps: list[list[str | Path]] = [
        ["mod", "init", "example.test/bot"],
        ["mod", "edit", "-require=anticaptcha-report-bridge/reportbridge@v0.0.0"],
        ["mod", "edit", "-replace=anticaptcha-report-bridge/reportbridge=./reportbridge"],
        ["build", "-o", tmp_path / "gobot", "."],
    ]
    for words in steps:
        run(["go", *words], bot, environ=environ)
    empty = {"PATH": link_tools(tmp_path / "bin")}
    bot_words: list[str | Path] = [tmp_path / "gobot", tmp_path / "cache", hash_file(FOLDER / "SHA256SUMS")]
    for _ in range(2):
        assert run(bot_words, tmp_path, environ=empty) == b"7654321 accepted\n"
    assert ROOT not in (tmp_path / "cache").resolve().parents
