"""A run: bridges, their callers, the network and the disk in one virtual time, by one plan."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

from bridge import app as bridge_app
from bridge.cli import serve as bridge_serve
from tests.simulation.callers import Caller
from tests.simulation.disk import Disk, SimStore
from tests.simulation.history import History
from tests.simulation.invariants import check_all
from tests.simulation.network import Network
from tests.simulation.plan import EPOCH, KEYS, Act, Fault, Plan
from tests.simulation.process import Process
from tests.simulation.rest import check_rest
from tests.simulation.virtual import StandsStill, VirtualTime
from tests.world import scratch_directory

REST_S: Final = 82.0
"""Longest time after the last fault until all is at rest: a window, an attempt, and some."""
MOST_BROKEN: Final = 20


class Host:
    """One boot of the machine: its two clocks. Fits `bridge.engine.core.Clock`."""

    def __init__(self, time: VirtualTime, number: int, off_s: float) -> None:
        self._time = time
        self._booted_at = time.t
        self.boot_id = f"boot-{number}"
        self.off_s = off_s
        """How far the wall clock is ahead of the truth."""
        self.first_off_s = off_s
        """How far it was when the machine booted, which the ledger's timeline follows."""

    def now(self) -> float:
        return self._time.t - self._booted_at + 17.0

    def wall(self) -> float:
        return EPOCH + self._time.t + self.off_s


class Result:
    """What a run has shown."""

    def __init__(self, plan: Plan, digest: str, broken: list[str], seconds: float, lines: list[str]) -> None:
        self.plan = plan
        self.digest = digest
        """Hash of everything that happened."""
        self.broken = broken
        """The rules that were broken."""
        self.seconds = seconds
        """Virtual seconds."""
        self.lines = lines
        """What happened, if that was asked for."""


class World:
    """One simulated world.

    Args:
        keeps: keep what happened, line by line.
    """

    def __init__(self, plan: Plan, scratch: str, keeps: bool = False) -> None:
        self.plan = plan
        self.time = VirtualTime(plan.seed)
        self._scratch = scratch
        self._hash = blake2b(digest_size=16)
        self._keeps = keeps
        self.lines: list[str] = []
        self.broken: list[str] = []
        self.is_over = False
        """True once no bridge is started again."""
        setup = plan.setup
        self._boots = 1
        self._is_off = False
        self.host = Host(self.time, 1, setup["wall"])
        self.is_crowded = setup["slots"] > 1
        self.disk = Disk(self, os.path.join(scratch, "ledger"), setup["commit_s"], setup["opening_s"])
        self.network = Network(self, plan)
        self.history = History(self)
        self.processes: list[Process] = []
        self._current: dict[int, Process] = {}
        self._callers: dict[int, Caller] = {}
        self._back_s: dict[int, float] = {}
        pid = os.getpid()
        self._real = [
            (scratch.encode(), b"SCRATCH"),
            (b'"pid":%d,' % pid, b'"pid":PID,'),
            (b"(process %d)" % pid, b"(process PID)"),
        ]
        """What differs from one run to the next, and stands in the bridge's first line of the log only."""

    @property
    def now(self) -> float:
        """Seconds of true time since the beginning."""
        return self.time.t

    def log(self, *words: Any) -> None:
        """Take note of something that happened; it must be the same in every run of the seed."""
        self._hash.update(f"{self.time.t:.6f} {words}\n".encode())
        if self._keeps:
            self.lines.append(f"{self.time.t:10.4f} " + " ".join(map(str, words)))

    def log_bytes(self, process: Process, kind: str, data: bytes) -> None:
        """Take note of bytes that a bridge wrote."""
        for text, name in self._real:
            data = data.replace(text, name)
        self.log(kind, process.name, data)

    def break_rule(self, sentence: str) -> None:
        """A rule was broken."""
        if len(self.broken) < MOST_BROKEN and sentence not in self.broken:
            self.broken.append(f"at {self.time.t:.3f}: {sentence}")

    def state_dir(self, machine: int) -> str:
        """The state directory of a machine, with its id."""
        folder = os.path.join(self._scratch, f"machine{machine}")
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            with open(os.path.join(folder, "machine-id"), "w", encoding="ascii") as file:
                file.write(f"machine{machine}\n")
        return folder

    # --- a run -------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen, and judge it."""
        plan, later = self.plan, self.time.call_in
        for slot, at in enumerate(plan.setup["starts"]):
            later(at, lambda slot=slot: self._start(slot))  # type: ignore[misc]
        for act in plan.acts:
            later(act.at, lambda act=act: self._act(act))  # type: ignore[misc]
        for fault in plan.faults:
            later(fault.at, lambda fault=fault: self._break(fault))  # type: ignore[misc]
        ends = [fault.at + fault.more.get("off_s", 0.0) for fault in plan.faults]
        try:
            self._let_pass(ends)
        except StandsStill as told:
            self.break_rule(f"a bridge works for ever and gets nowhere: {told}")
        else:
            check_all(self)

    def _let_pass(self, ends: Sequence[float]) -> None:
        """All that the plan has, then peace, questions, and the end of input."""
        plan = self.plan
        self.time.run(max([plan.setup["horizon"], *(act.at for act in plan.acts), *ends]) + 0.5)
        self._mend()
        self.time.run(REST_S)
        for process in self.processes:
            if process.is_alive:
                check_rest(self, process)
        for slot in self._current:
            self._callers[slot].ask_everything()
        self.time.run(4.0)
        self.is_over = True
        for process in self._current.values():
            if process.is_alive:
                process.stopped_at = self.now
                process.input.end()
        self.time.run(8.0)

    def close(self) -> None:
        """Let go of everything."""
        for process in self.processes:
            process.loop.has_world = False
            for store in process.stores:
                store.die()
        # What waits is never collected, since nobody can look into its stack: so it is ended.
        here = getcurrent()
        for waiting in gc.get_objects():
            if isinstance(waiting, greenlet) and waiting.parent is self.time.driver:
                waiting.parent = here
                waiting.throw(GreenletExit)
        self.time.driver.parent = here
        self.time.driver.throw(GreenletExit)
        if "arriving" in vars(SimStore):
            del SimStore.arriving

    def digest(self) -> str:
        """Hash of everything that happened."""
        return self._hash.hexdigest()

    # --- processes ---------------------------------------------------------------------------

    def _start(self, slot: int) -> None:
        current = self._current.get(slot)
        if self.is_over or self._is_off or (current is not None and current.is_alive):
            return
        life = sum(process.slot == slot for process in self.processes) + 1
        self.log("start", slot, life)
        process = self._current[slot] = Process(self, slot, life)
        self.processes.append(process)
        self._callers[slot] = Caller(self, process)

    def note_end(self, process: Process) -> None:
        """A process has ended; it is started again after a while."""
        if self.plan.setup["ledger"] == "memory":
            self.history.forget()
        back_s = self._back_s.pop(process.slot, 1.0)
        self.time.call_in(back_s, lambda: self._start(process.slot))

    # --- what callers do ---------------------------------------------------------------------

    def _act(self, act: Act) -> None:
        process = self._current.get(act.slot)
        if process is None or not process.is_alive:
            return
        if act.kind == "term":
            self._back_s[act.slot] = act.more["back_s"]
            process.signal(signal.SIGTERM)
        elif act.kind == "unread":
            output = process.output
            output.is_read = False

            def read_again() -> None:
                output.is_read = True
                if process.is_alive:
                    process.engine.call_soon(output.take)

            self.time.call_in(act.more["lasts_s"], read_again)
        elif act.kind == "deaf":
            self._back_s[act.slot] = act.more["back_s"]
            process.output.is_gone = True
        else:
            if act.kind == "close":
                self._back_s[act.slot] = act.more["back_s"]
            self._callers[act.slot].act(act)

    # --- faults ------------------------------------------------------------------------------

    def _break(self, fault: Fault) -> None:
        more = fault.more
        self.log("fault", fault.kind, sorted(more.items()))
        later = self.time.call_in
        if fault.kind == "weather":
            weather = (more["share"], tuple(more["fates"]))
            self.network.weather.append(weather)
            later(more["lasts_s"], lambda: self._clear(weather))
        elif fault.kind == "kill":
            self._at_turn(more["slot"], more["turns"], lambda process: self._kill(process, more["back_s"]))
        elif fault.kind == "suspend":
            slots = range(self.plan.setup["slots"]) if more["slot"] < 0 else (more["slot"],)
            for slot in slots:
                self._at_turn(slot, more["turns"], lambda process: self._suspend(process, more["lasts_s"]))
        elif fault.kind == "power":
            self._cut_power(more["off_s"], more["wall"])
        elif fault.kind == "clock":
            self.host.off_s += more["by"]
            self.history.note_clock()
        elif fault.kind == "disk":
            self._spoil_disk(more)
        elif fault.kind == "nat":
            self.network.break_idle(more["how"])
        elif fault.kind == "account":
            accounts, key = self.network.model.accounts, KEYS[more["key"]]
            before, accounts[key] = accounts[key], more["state"]
            later(more["lasts_s"], lambda: accounts.update({key: before}))

    def _clear(self, weather: tuple[float, tuple[str, ...]]) -> None:
        if weather in self.network.weather:
            self.network.weather.remove(weather)

    def _at_turn(self, slot: int, turns: int, call: Any) -> None:
        process = self._current.get(slot)
        if process is None or not process.is_alive:
            return
        if turns == 0:
            call(process)
        else:
            process.loop.at_turn[process.loop.turns + turns] = lambda: call(process)

    def _kill(self, process: Process, back_s: float) -> None:
        if process.is_alive:
            self._back_s[process.slot] = back_s
            process.kill()

    def _suspend(self, process: Process, lasts_s: float) -> None:
        if not process.is_alive or process.loop.is_suspended:
            return
        self.log("suspend", process.name)
        process.suspended.append((self.now, self.now + lasts_s))
        process.loop.suspend()
        self.time.call_in(lasts_s, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        if process.loop.is_suspended:
            self.log("wake", process.name)
            process.suspended[-1] = (process.suspended[-1][0], self.now)
            process.loop.resume()

    def _cut_power(self, off_s: float, wall: float) -> None:
        for process in self._current.values():
            process.kill()
        if not self._is_off:
            self._is_off = True
            self.time.call_in(off_s, lambda: self._boot(wall, off_s))

    def _boot(self, wall: float, off_s: float) -> None:
        before = self.host
        self._is_off = False
        self._boots += 1
        self.host = Host(self.time, self._boots, wall)
        self.history.note_boot(wall - before.off_s, wall - max(before.off_s, before.first_off_s), off_s)
        self.log("boot", self._boots)
        for slot in range(self.plan.setup["slots"]):
            self._start(slot)

    def _spoil_disk(self, more: dict[str, Any]) -> None:
        disk, kind = self.disk, more["kind"]
        if kind == "deleted":
            return
        if kind == "slow":
            disk.slow_s = more["slow_s"]
        else:
            disk.state = kind
        self.time.call_in(more["lasts_s"], self._mend_disk)

    def _mend_disk(self) -> None:
        self.disk.state, self.disk.slow_s, self.disk.well_since = "", 0.0, self.time.t

    def _mend(self) -> None:
        """The end of all faults; everybody who is dead is started again."""
        self.log("mend")
        self.network.weather.clear()
        self._mend_disk()
        for slot in range(self.plan.setup["slots"]):
            process = self._current.get(slot)
            if process is not None:
                process.loop.at_turn.clear()
                process.output.is_read = True
                if process.is_alive:
                    self._wake(process)
                    process.engine.call_soon(process.output.take)


@contextmanager
def _calm() -> Iterator[None]:
    """What belongs to a whole operating system process is left alone by those that share one."""
    modules: tuple[Any, ...] = (bridge_app, bridge_serve)
    kept = [module.calm_collector for module in modules]
    for module in modules:
        module.calm_collector = lambda: None
    # A run is short, and collecting in it would look again and again at all that the tests have loaded.
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for module, calm in zip(modules, kept, strict=True):
            module.calm_collector = calm


def simulate(plan: Plan, keeps: bool = False) -> Result:
    """Run a plan."""
    scratch = tempfile.mkdtemp(prefix="simulation-", dir=scratch_directory())
    try:
        with _calm():
            return _simulate(plan, scratch, keeps)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        gc.collect()
        gc.unfreeze()


def _simulate(plan: Plan, scratch: str, keeps: bool) -> Result:
    world = World(plan, scratch, keeps)
    try:
        world.run()
    finally:
        world.close()
    return Result(plan, world.digest(), world.broken, world.now, world.lines)
