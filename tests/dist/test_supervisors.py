"""The examples of docs/operations.md, run as they stand there but for paths and user: a bot that keeps a bridge."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from tests.dist.program import DIST, link_tools, run
from tests.process import PATIENCE_S, ROOT

BOT: Final = """#!/usr/bin/env node
import { Bridge } from "anticaptcha-report-bridge";
import { appendFileSync } from "node:fs";
const note = (text) => appendFileSync(`${process.env.XDG_STATE_HOME}/notes`, `${text}\\n`);
const bridge = await Bridge.start({ sandbox: true, ledger: `${process.env.XDG_STATE_HOME}/ledger.sqlite3` });
const { outcome } = await bridge.reportIncorrectImageCaptcha({ taskId: 5 });
note(`${outcome} ${process.pid} ${bridge.pid}`);
for (const name of ["SIGINT", "SIGTERM"])
  process.once(name, async () => {
    await bridge.close();
    note("closed");
    process.exit(0);
  });
setInterval(() => undefined, 1000);
"""


class Bot(NamedTuple):
    """A bot that is to be supervised."""

    folder: Path
    environ: dict[str, str]

    def example(self, title: str, language: str) -> str:
        """An example of the document, with the paths of this bot."""
        text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
        found = re.search(rf"^### {title}\n.*?^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert found is not None, title
        state, key = self.folder / "state", self.folder / "anticaptcha.key"
        places = {"/opt/bot": self.folder, "/var/lib/bot": state, "/etc/bot/anticaptcha.key": key}
        example = found[1]
        for place, mine in places.items():
            example = example.replace(place, str(mine))
        return example

    def notes(self) -> list[list[str]]:
        """What the bot wrote down."""
        file = self.folder / "state" / "notes"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def bot(tmp_path: Path) -> Bot:
    """A Node bot with the two tarballs, on a machine without Python."""
    (tmp_path / "state").mkdir()
    (tmp_path / "anticaptcha.key").touch()
    environ = {"HOME": str(tmp_path), "PATH": link_tools(tmp_path / "bin", "node", "npm", "env", "sh", "ps")}
    quiet = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, *sorted(DIST.glob("anticaptcha-report-bridge-*.tgz"))], tmp_path, environ=environ)
    (tmp_path / "bot.mjs").write_text(BOT)
    (tmp_path / "bot").write_text('#!/bin/sh\nexec node "$(dirname "$0")/bot.mjs"\n')
    return Bot(tmp_path, environ)


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(pid: str) -> bool:
    """Whether a process runs."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def demand_orderly_life(bot: Bot, stop: Callable[[], object]) -> None:
    """Demand that a killed bot comes back and takes its bridge along, and a stopped one closes it."""
    wait_for(lambda: len(bot.notes()) == 1)
    outcome, first, bridge = bot.notes()[0]
    assert outcome == "accepted"
    os.kill(int(first), signal.SIGKILL)
    wait_for(lambda: len(bot.notes()) == 2)
    wait_for(lambda: not is_alive(bridge))
    outcome, second, bridge = bot.notes()[1]
    assert outcome == "accepted"
    assert is_alive(bridge)
    stop()
    wait_for(lambda: bot.notes()[-1] == ["closed"])
    wait_for(lambda: not is_alive(second) and not is_alive(bridge))
    assert len(bot.notes()) == 3


def test_supervisord(bot: Bot) -> None:
    """supervisord restarts a killed bot, and its stop lets the bot close the bridge."""
    example = re.sub("^user=.*\n", "", bot.example("supervisord", "ini"), flags=re.MULTILINE)
    example = example.replace(f"command={bot.folder}/bot", f"command={bot.folder}/bin/node {bot.folder}/bot.mjs")
    (bot.folder / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={bot.folder}/supervisord.log\npidfile={bot.folder}/pid\n{example}"
    )
    words: list[str | Path] = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", bot.folder / "supervisord.conf"]
    with subprocess.Popen(words, cwd=bot.folder, env=bot.environ, stdout=subprocess.DEVNULL) as supervisor:
        try:
            demand_orderly_life(bot, supervisor.terminate)
            assert supervisor.wait(PATIENCE_S) == 0
        finally:
            supervisor.terminate()


@pytest.fixture
def pm2(bot: Bot) -> Iterator[Callable[..., bytes]]:
    """PM2 as it is locked, with a home of its own; its daemon ends with the test."""
    place = bot.folder / "pm2"
    shutil.copytree(ROOT / "tests" / "dist" / "pm2", place)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"], cwd=place, check=True
    )
    environ = {**bot.environ, "PM2_HOME": str(bot.folder / ".pm2")}

    def call(*words: str | Path) -> bytes:
        return run(["node", place / "node_modules" / "pm2" / "bin" / "pm2", *words], bot.folder, environ=environ)

    yield call
    call("kill")


def test_pm2(bot: Bot, pm2: Callable[..., bytes]) -> None:
    """PM2 restarts a killed bot, and its stop lets the bot close the bridge."""
    (bot.folder / "ecosystem.config.cjs").write_text(bot.example("PM2", "cjs"))
    pm2("start", bot.folder / "ecosystem.config.cjs")
    demand_orderly_life(bot, lambda: pm2("stop", "bot"))
    (described,) = json.loads(pm2("jlist"))
    assert described["pm2_env"]["kill_timeout"] == 30_000
    assert described["pm2_env"]["treekill"] is False


def test_systemd_unit(bot: Bot) -> None:
    """systemd finds nothing to say about the unit, where its tool is there; its settings are those named."""
    unit = bot.folder / "bot.service"
    unit.write_text(bot.example("systemd", "ini"))
    (bot.folder / "bot").chmod(0o755)
    assert f"ExecStart={bot.folder}/bot\n" in unit.read_text()
    if shutil.which("systemd-analyze") is not None:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
        )
        assert (done.returncode, [line for line in done.stderr.splitlines() if "bot.service" in line]) == (0, [])


def test_docker_compose_file(bot: Bot) -> None:
    """The example is YAML, every volume and secret that the bot takes is declared, and it has time to end."""
    compose = yaml.safe_load(bot.example("docker-compose", "yaml"))
    service = compose["services"]["bot"]
    assert [volume.partition(":")[0] for volume in service["volumes"]] == list(compose["volumes"])
    assert service["secrets"] == list(compose["secrets"])
    key = service["environment"]["ANTICAPTCHA_CLIENT_KEY_FILE"]
    assert key == f"/run/secrets/{service['secrets'][0]}"
    assert service["volumes"][0].partition(":")[2] == service["environment"]["XDG_STATE_HOME"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 10
