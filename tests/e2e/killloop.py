"""The kill loop: bridges on one ledger are killed at random moments, and an upstream keeps the truth.

Bots submit tasks through pipes to real processes; those get SIGKILL and start again. Afterwards the
simulator's log, the answers and the ledger are compared: nothing lost, nothing false, nothing sent
a third time. Used by the short run of the tests and by ``scripts/soak.py``.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import selectors
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bridge.simulator import Simulator
from tests.e2e.killjudge import Ask, Tally, Told, judge_task

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "reportIncorrectImageCaptcha"
KEYS = ("a" * 32, "b" * 32)
"""Two accounts, so that some reports are left behind among strangers."""

FATES: tuple[tuple[float, str, Mapping[str, Any]], ...] = (
    # weight, fault, its fields; "" is no fault
    (50, "", {}),
    (12, "latency", {"seconds": 0.3}),
    (4, "reset_before", {"count": 1}),
    (4, "reset_read", {"count": 1}),
    (5, "reset_after", {"count": 1}),
    (3, "reset_after", {}),
    (3, "close_after", {"count": 1}),
    (2, "hang", {"taken": False}),
    (2, "hang", {"taken": True, "count": 1}),
    (3, "cut_body", {"count": 1}),
    (2, "html", {"taken": True}),
    (3, "status", {"status": 500, "count": 1}),
    (2, "status", {"status": 503, "retryAfterSeconds": 1, "count": 1}),
    (1, "status", {"status": 429, "retryAfterSeconds": 1, "count": 1}),
    (1, "rate_limit", {"count": 1}),
    (3, "error", {"errorId": 24, "errorCode": "ERROR_INCORRECT_SESSION_DATA"}),
)


class Plan(NamedTuple):
    """How one run goes."""

    seed: int
    bridges: int
    tasks: int
    kills: int
    kill_every_s: float = 0.4
    window_s: tuple[float, float] = (4.0, 9.0)
    """How much of a task's window is left when it is first asked for."""
    pauses: bool = False
    timeout_s: float = 2.0
    stop_by: float = float("inf")
    """On `time.monotonic`: no new task and no new kill after this."""


class Bot:
    """A program with a bridge of its own: submits through a pipe, notes what it is told and when."""

    def __init__(self, words: list[str], key: str, folder: Path, nth: int) -> None:
        self.stderr = folder / f"stderr-{nth}"
        environ = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "ANTICAPTCHA_CLIENT_KEY": key}
        with open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge", *words],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.key = key
        self.pending: dict[int, Ask] = {}
        self.told: list[Told] = []
        self.asked: set[int] = set()
        self.is_read_out = False
        self._rest = b""
        self._ids = count(1)

    def ask(self, task_id: int, method: str, params: Mapping[str, Any]) -> None:
        """Send a request; nobody minds if the process has just died."""
        name = next(self._ids)
        self.asked.add(task_id)
        self.pending[name] = Ask(task_id, method, time.monotonic())
        request = {"jsonrpc": "2.0", "id": name, "method": method, "params": {"taskId": task_id, **params}}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def read(self) -> None:
        """Take what is there."""
        assert self.process.stdout is not None
        while not self.is_read_out:
            try:
                data = os.read(self.process.stdout.fileno(), 65536)
            except BlockingIOError:
                return
            at = time.monotonic()
            if not data:
                self.is_read_out = True
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                self.told.append(Told(self.pending.pop(message["id"]), at, message))

    def kill(self) -> None:
        """End it by SIGKILL, and read what it had written."""
        self.process.kill()
        self.process.wait()
        self.read()
        self.close()

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class KillLoop:
    """One run of the loop in a folder of its own.

    Args:
        note: takes a line about everything that should not have been.
    """

    def __init__(self, folder: Path, plan: Plan, note: Callable[[str], None] = print) -> None:
        self._folder = folder
        self._plan = plan
        self._note = note
        self._chance = random.Random(plan.seed)
        self._ledger = folder / "ledger.db"
        self._simulator = Simulator(auto=False)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._selector = selectors.DefaultSelector()
        self._bots: list[Bot | None] = [None] * plan.bridges
        self._started = 0
        self._retired: list[Bot] = []
        self._tasks: dict[int, tuple[str, dict[str, Any]]] = {}
        """Task -> key and params."""
        self._kills = self._damaged = self._lost = 0
        self._is_closing = False
        self._unguarded: set[int] = set()
        """Tasks that were asked of a bridge without its ledger."""

    # --- the run -----------------------------------------------------------------------------

    def run(self) -> Tally:
        """Run to the end, check everything and return the figures."""
        try:
            with self._simulator:
                for slot in range(self._plan.bridges):
                    self._start(slot)
                self._later(0.3, self._kill_one)
                self._later(0.0, self._submit_one)
                self._later(1.0, self._refuse_a_while)
                self._loop(lambda: self._is_over)
                self._settle()
                return self._judge()
        finally:
            for bot in self._bots:
                if bot is not None:
                    bot.kill()
            self._selector.close()

    @property
    def _is_over(self) -> bool:
        out_of_time = time.monotonic() > self._plan.stop_by
        return out_of_time or (self._kills >= self._plan.kills and len(self._tasks) >= self._plan.tasks)

    def _loop(self, is_done: Callable[[], bool], until: float = float("inf")) -> bool:
        """Read answers and do what is due; False if the time ran out."""
        while not is_done():
            now = time.monotonic()
            if now > until:
                return False
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
                now = time.monotonic()
            wait_s = min(0.05, self._due[0][0] - now) if self._due else 0.05
            for ready, _ in self._selector.select(max(0.0, wait_s)):
                bot: Bot = ready.data
                bot.read()
                if bot.is_read_out:
                    self._selector.unregister(ready.fileobj)
        return True

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), do))

    def _start(self, slot: int) -> None:
        plan = self._plan
        words = ["--url", self._simulator.base_url, "--ledger", str(self._ledger), "--log-format", "json"]
        words += ["--timeout", str(plan.timeout_s), "--connect-timeout", "1", "--log-level", "info"]
        if not plan.pauses:
            words.append("--no-pauses")
        bot = Bot(words, KEYS[slot % len(KEYS)], self._folder, self._started)
        self._started += 1
        self._bots[slot] = bot
        assert bot.process.stdout is not None
        self._selector.register(bot.process.stdout, selectors.EVENT_READ, bot)

    # --- what happens ------------------------------------------------------------------------

    def _submit_one(self) -> None:
        plan, chance = self._plan, self._chance
        if len(self._tasks) >= plan.tasks or self._is_over or self._is_closing:
            return
        alive = [bot for bot in self._bots if bot is not None]
        if alive:
            self._submit_task(alive)
        # The tasks are spread over the kills, in bursts: a bot often has several answers at once.
        pace_s = plan.kill_every_s * plan.kills / plan.tasks
        self._later(0.0 if chance.random() < 0.5 else chance.uniform(0.0, 4.0 * pace_s), self._submit_one)

    def _submit_task(self, alive: list[Bot]) -> None:
        chance = self._chance
        task_id = 1_000_000 + len(self._tasks)
        key = chance.choice(KEYS)
        completed_at = round(time.time() - 60.0 + chance.uniform(*self._plan.window_s), 3)
        self._simulator.add_task("image", task_id=task_id, end_time=completed_at, client_key=key)
        fault, fields = chance.choices([f[1:] for f in FATES], [f[0] for f in FATES])[0]
        if fault:
            self._simulator.add_fault(fault, task_id=task_id, **fields)
        self._tasks[task_id] = (key, {"completedAt": completed_at})
        for bot in chance.sample(alive, len(alive) if chance.random() < 0.1 else 1):
            self._ask(bot, task_id)
            if chance.random() < 0.02:
                self._ask(bot, task_id, "reportIncorrectRecaptcha")

    def _ask(self, bot: Bot, task_id: int, method: str = IMAGE) -> None:
        key, params = self._tasks[task_id]
        bot.ask(task_id, method, params if bot.key == key else {**params, "clientKey": key})

    def _kill_one(self) -> None:
        plan, chance = self._plan, self._chance
        if self._kills >= plan.kills or self._is_over or self._is_closing:
            return
        self._later(chance.uniform(0.2, 1.8) * plan.kill_every_s, self._kill_one)
        slots = [slot for slot, bot in enumerate(self._bots) if bot is not None]
        if not slots:
            return
        slot = chance.choice(slots)
        bot = self._bots[slot]
        assert bot is not None
        assert bot.process.stdout is not None
        with contextlib.suppress(KeyError):
            self._selector.unregister(bot.process.stdout)
        bot.kill()
        self._bots[slot] = None
        self._retired.append(bot)
        self._kills += 1
        if chance.random() < 0.5:
            # Let those who live roll back what the dead one left, before we do it by looking.
            self._come_back(slot, bot)
            self._later(0.1, self._check_file)
        else:
            self._check_file()
            self._later(chance.uniform(0.0, 0.5), lambda: self._come_back(slot, bot))

    def _come_back(self, slot: int, dead: Bot) -> None:
        """The bot's bridge starts again, and it asks again for part of what was not answered."""
        self._start(slot)
        bot = self._bots[slot]
        assert bot is not None
        for ask in dead.pending.values():
            if self._chance.random() < 0.5:
                self._ask(bot, ask.task_id, ask.method)

    def _refuse_a_while(self) -> None:
        """The upstream is away for a moment."""
        if not self._is_over and not self._is_closing:
            self._simulator.add_fault("refuse", for_seconds=self._chance.uniform(0.05, 0.5))
            self._later(self._chance.uniform(2.0, 5.0), self._refuse_a_while)

    # --- the end and the verdict -------------------------------------------------------------

    def _settle(self) -> None:
        """Let everything end: what is open ends with its window at the latest."""
        self._is_closing = True
        plan = self._plan
        patience_s = plan.window_s[1] + 2 * plan.timeout_s + 20.0
        dead_slots = [slot for slot, bot in enumerate(self._bots) if bot is None]
        self._due.clear()
        for slot in dead_slots:
            self._start(slot)
        looked_at = 0.0
        is_empty = False

        def is_settled() -> bool:
            nonlocal looked_at, is_empty
            if time.monotonic() - looked_at > 0.25:
                looked_at = time.monotonic()
                # The first bridges may all have been killed before one of them had made the ledger.
                open_ = "SELECT count(*) FROM reports WHERE state <> 'done'"
                is_empty = self._is_ledger_made() and self._select(open_)[0][0] == 0
            return is_empty and not any(bot.pending for bot in self._bots if bot is not None)

        self._loop(is_settled, time.monotonic() + patience_s)
        for slot, bot in enumerate(self._bots):
            assert bot is not None
            assert bot.process.stdin is not None
            bot.process.stdin.close()
            self._loop(lambda bot=bot: bot.is_read_out, time.monotonic() + patience_s)  # type: ignore[misc]
            code = bot.process.wait(patience_s)
            if code != 0:
                self._complain(f"a bridge ended with {code} at the end of its input")
            for ask in bot.pending.values():
                self._complain(f"task {ask.task_id}: asked and never answered")
            bot.close()
            self._retired.append(bot)
            self._bots[slot] = None
        self._check_file()

    def _complain(self, text: str) -> None:
        self._lost += 1
        self._note(f"seed {self._plan.seed}: LOST: {text}")

    def _judge(self) -> Tally:
        columns = "task_id, method, state, outcome, attempts, sends, perhaps"
        rows = {values[0]: values for values in self._select(f"SELECT {columns} FROM reports")}
        calls: dict[int, list[dict[str, Any]]] = {}
        for entry in self._simulator.log():
            if entry["taskId"] is not None:
                calls.setdefault(entry["taskId"], []).append(entry)
        told: dict[int, list[Told]] = {}
        for bot in self._retired:
            for one in bot.told:
                told.setdefault(one.ask.task_id, []).append(one)
        found: Counter[str] = Counter(lost=self._lost)
        events = self._read_events()
        for task_id in self._tasks:
            row, answers = rows.get(task_id), told.get(task_id, [])
            for fault, why in judge_task(row, calls.get(task_id, []), answers):
                if task_id in self._unguarded:
                    found["unguarded"] += 1
                    continue
                found[fault] += 1
                shown = ("at", "fault", "reason", "status", "taken")
                log = [[call[name] for name in shown] for call in calls.get(task_id, [])]
                said = [(one.at, one.message.get("error") or one.message["result"]) for one in answers]
                line = f"task {task_id}: {why}; row {row}; calls {log}; told {said}"
                self._note(f"seed {self._plan.seed}: {fault.upper()}: {line}")
        outcomes = Counter(values[3] for values in rows.values())
        adopted = self._select("SELECT count(*) FROM events WHERE name = 'adopted'")[0][0]
        late = sum(call["reason"] == "late" for entries in calls.values() for call in entries)
        return Tally(
            kills=self._kills,
            tasks=len(self._tasks),
            answers=sum(map(len, told.values())),
            lost=found["lost"],
            false=found["false"],
            inconsistent=found["inconsistent"],
            more_than_twice=found["twice"],
            damaged=self._damaged,
            bugs=events["internal_error"],
            adopted=adopted,
            accepted=outcomes["accepted"],
            refused=outcomes["refused"],
            unknown=outcomes["unknown"],
            not_sent=outcomes["not_sent"],
            late_calls=late,
            degraded=events["ledger_degraded"] + events["ledger_memory"],
            unguarded=found["unguarded"],
        )

    def _read_events(self) -> Counter[str]:
        names: Counter[str] = Counter()
        for bot in self._retired:
            for line in bot.stderr.read_text().splitlines():
                event = json.loads(line)["event"] if line.startswith("{") else "internal_error"
                names[event] += 1
                if event in ("ledger_degraded", "ledger_memory"):
                    self._unguarded |= bot.asked
                if event == "internal_error" or event.startswith("ledger_"):
                    self._note(f"seed {self._plan.seed}: {bot.stderr.name}: {line}")
        return names

    def _check_file(self) -> None:
        """Ask SQLite itself whether the file is whole."""
        if self._ledger.exists() and self._ledger.stat().st_size:
            found = self._select("PRAGMA integrity_check")
            if found != [("ok",)]:
                self._damaged += 1
                self._note(f"seed {self._plan.seed}: DAMAGED: {found}")

    def _is_ledger_made(self) -> bool:
        return self._select("SELECT 1 FROM sqlite_master WHERE name = 'reports'") != []

    def _select(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self._ledger, timeout=60.0)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()
