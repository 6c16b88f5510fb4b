"""Plants single faults into a copy of the program and looks whether the simulation finds them.

Each plant is a change of text, so one that no longer fits the code is an error. Prints a row for each, for the
table in ``docs/simulation.md``. Nothing of the working tree is touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
REPORTS: Final = "bridge/reports/"
LEDGER: Final = "bridge/ledger/"


class Plant(NamedTuple):
    """One fault."""

    name: str
    path: str
    old: str
    new: str
    having: str = ""
    """Only seeds with such a fault are run: others could not find it."""


_R = REPORTS
PLANTS: Final = (
    # order of commit and send
    Plant("an attempt begins before its beginning is committed", _R + "lifecycle.py",
          "gate = self._begin(job)", 'self._ledger.post(model.Begin(job.task)); gate = Gate("begun")'),
    Plant("an answer is given before its commit", _R + "lifecycle.py",
          "recorded = self._ledger.call(op)", 'self._ledger.post(op); recorded = model.Recorded("ok", None)'),
    Plant("R1: a cancel behind a committed beginning is not heeded", _R + "lifecycle.py",
          "if job.interruption is not None:\n            raise job.interruption\n        retrying", "retrying"),
    Plant("R1: a beginning without an attempt is settled, not taken back", _R + "lifecycle.py",
          "(model.Withdraw if job.is_begun else model.Settle)", "model.Settle"),
    Plant("R1: what is withdrawn stays counted", LEDGER + "transactions.py",
          "attempts = row.attempts - 1\n        row = row._replace(state=WAITING", "attempts = row.attempts\n        row = row._replace(state=WAITING"),
    Plant("an attempt that lacked a descriptor is counted", _R + "lifecycle.py",
          "            job.attempts -= 1\n", ""),
    Plant("an attempt whose beginning was slow is made all the same", _R + "lifecycle.py",
          "if boot - committed_at > STALE_S:", "if False:"),
    # windows
    Plant("the window is not looked at after the commit", _R + "lifecycle.py",
          "if now > job.starts_by():\n            raise Interrupted(\"window_closed\")", "pass"),
    Plant("bytes may leave until the attempt's deadline", _R + "lifecycle.py",
          "leave_by=partial(self._leave_by, job, retrying)", "leave_by=lambda: boot + self._ports.timeout_s"),
    Plant("the transport does not heed the window", "bridge/upstream/client.py",
          "if now >= leave_by:\n                raise Unreached", "if False:\n                raise Unreached"),
    Plant("a task may be reported for 70 s", _R + "window.py", "REPORTABLE_S: Final = 60.0", "REPORTABLE_S: Final = 70.0"),
    Plant("without a time a first attempt may start for 70 s", _R + "window.py",
          "UNANCHORED_FIRST_S: Final = 55.0", "UNANCHORED_FIRST_S: Final = 70.0"),
    Plant("without a time a retry may start for 50 s", _R + "window.py",
          "UNANCHORED_RETRY_S: Final = 30.0", "UNANCHORED_RETRY_S: Final = 50.0"),
    Plant("of two windows the later counts", "bridge/core/model.py", "return min(one, other)", "return max(one, other)"),
    Plant("a waiting report sleeps through the end of its window", _R + "job.py",
          "at = ends_at if until is None else min(until, ends_at)", "at = ends_at if until is None else until"),
    Plant("a joined request does not narrow the window", _R + "job.py", "self._set_window(before.narrowed_by(window))", "pass"),
    Plant("the local clock is corrected the wrong way", _R + "observer.py", "else self._ledger.now() + self._offset_s", "else 2 * wall - self._ledger.now() - self._offset_s"),
    Plant("the ledger does not see that a window is over", LEDGER + "work.py",
          "return self.policy.is_late(self.now, row.window, row.attempts > 0)", "return False"),
    # attempts
    Plant("a task may have five attempts", "bridge/core/model.py", "MAX_ATTEMPTS: Final = 4", "MAX_ATTEMPTS: Final = 5"),
    Plant("a task may have three sends", "bridge/core/model.py", "MAX_SENDS: Final = 2", "MAX_SENDS: Final = 3"),
    Plant("F4: a second attempt may use a kept connection", _R + "lifecycle.py",
          "fresh=retrying or job.wants_fresh", "fresh=job.wants_fresh"),
    Plant("F4: dead connections are kept", "bridge/upstream/client.py", "self.let_go()\n            raise", "pass\n            raise", "nat"),
    Plant("a Retry-After is not heeded", _R + "job.py", "at = max(at, now + verdict.retry_after_s)", "pass"),
    Plant("a lost request counts as never sent", "bridge/upstream/client.py", "            call.is_sent = True\n", ""),
    Plant("what was perhaps taken is forgotten by the next verdict", _R + "verdict.py",
          "perhaps = perhaps_before or row.outcome == UNKNOWN", "perhaps = row.outcome == UNKNOWN"),
    Plant("a 16 after a lost answer is a refusal", _R + "verdict.py",
          "if answer is not None and not perhaps:", "if answer is not None:"),
    Plant("attempts are counted twice on adoption", _R + "job.py",
          "max(row.attempts - self.is_begun, self.made)", "max(row.attempts + self.is_begun, self.made)"),
    Plant("more attempts at one time than slots", _R + "admission.py",
          "if not job.has_slot and self._free and not self._waiting.entries:\n            self._free -= 1", "if not job.has_slot:\n            self._free -= 1"),
    Plant("a slot is not given back by a report that ends without an attempt", _R + "lifecycle.py",
          "        finally:\n            self._slots.give_back(job)\n            # It may have", "        finally:\n            # It may have"),
    # duplicates, joins, take-over
    Plant("refused and unknown reports are sent again", LEDGER + "transactions.py",
          "if row.state == DONE and row.outcome == NOT_SENT:", 'if row.state == DONE and row.outcome != "accepted":'),
    Plant("finished reports guard nothing", LEDGER + "work.py", "return age <= GUARD_S", "return False"),
    Plant("reports of living bridges are taken over by a claim", LEDGER + "transactions.py",
          "if row.owner is None or work.is_alive(row.owner):", "if row.owner is None:"),
    Plant("a sweep takes the reports of the living", LEDGER + "sqlite_batch.py",
          "if owner == self.instance or not self.is_alive(owner)]", "]"),
    Plant("a begun report is adopted as if nothing had left", LEDGER + "transactions.py",
          "perhaps=row.perhaps or was_sending,", "perhaps=row.perhaps,"),
    Plant("an adopted attempt is no send", LEDGER + "transactions.py",
          "sends=min(row.sends + was_sending, MAX_SENDS),\n        perhaps", "sends=row.sends,\n        perhaps", "kill"),
    Plant("who owns a report is not looked at", LEDGER + "work.py",
          "entry.row.owner == self.instance else None", "entry.row.owner is not None else None"),
    Plant("a begun report of the dead ends as not sent", _R + "pauses.py",
          'if row.perhaps or row.state == "sending":', "if False:", "kill"),
    Plant("what was perhaps taken may end as not sent", LEDGER + "transactions.py",
          "if ending.outcome == NOT_SENT and perhaps:\n        # What", "if False:\n        # What", "kill"),
    Plant("what another boot left keeps its window", LEDGER + "work.py",
          "return row.window.narrowed_by(Window(self.now, None)) if is_astray else row.window", "return row.window", "power"),
    Plant("what others did to pauses is not read again", LEDGER + "sqlite_batch.py",
          "if is_reading or self._connection.data_version() != self._version:", "if is_reading:"),
    Plant("a joined request is not told that it is one", _R + "reporter.py", "            requester.is_joined = True\n            job.requesters", "            job.requesters"),
    Plant("a begun report is cancelled", _R + "reporter.py",
          "begun = job.is_under_way or job.is_theirs", "begun = False"),
    Plant("a stop leaves who is being sent unanswered", _R + "reporter.py",
          'self._answer(job, local_ending("outcome_unknown"), is_news=True)', "pass"),
    Plant("reports behind a full queue are forgotten", "bridge/server/conversation.py",
          "while self._parked and self._reports_beyond", "while False and self._reports_beyond"),
    Plant("a report that another bridge has is never looked at again", _R + "lifecycle.py",
          "job.pause(self._ledger.now() + WATCH_S)", "job.pause(self._ledger.now() + 1000.0)", "kill"),
    # pauses
    Plant("pauses that end by themselves are not heeded", _R + "pauses.py",
          "elif state.ends_at is None or now < state.ends_at:", "elif state.ends_at is None:"),
    Plant("a refused key may be tried again", _R + "pauses.py",
          "elif state.ends_at is None or now < state.ends_at:", "elif state.ends_at is not None and now < state.ends_at:"),
    Plant("unproven keys are not single-flight", _R + "pauses.py",
          "return PauseState(key, OPEN, ends_at=0.0)", "return PauseState(key)"),
    Plant("several reports probe at one time", _R + "pauses.py", "waiting = waiting or state\n", "pass\n"),
    Plant("F6: a pause keeps the times of a wrong clock", _R + "pauses.py",
          "state = self.mend_times(now, told)", "state = told", "power"),
    Plant("a refusal of the key proves it", _R + "pauses.py",
          "verdict.has_verdict and verdict.pause not in _DISPROVING", "verdict.has_verdict"),
    Plant("twice as many refusals open a quality pause", _R + "pauses.py",
          "if state.streak + 1 < rule.threshold:", "if state.streak + 1 < 2 * rule.threshold:"),
    Plant("silence of the upstream opens no pause", _R + "pauses.py",
          "if verdict.pause != rule.name:", 'if verdict.pause != rule.name or rule.name == "transport":'),
    Plant("a probe that is withdrawn is not let go", LEDGER + "transactions.py",
          "    if row.attempts:\n        work.release_probes(row.task, row.owner, row.method)\n", ""),
    Plant("who waits for another one's attempt is not woken", _R + "admission.py",
          "(POLL_S)\n            self.wake(everyone=False)", "(POLL_S)"),
    # the ledger's bad days
    Plant("R3: a queue of bridges counts as a foreign lock", LEDGER + "sqlite.py", "QUEUE: Final = 5", "QUEUE: Final = 1"),
    Plant("owed outcomes are not written at the end", LEDGER + "failover.py",
          "        if outbox.trouble is not None:\n            self._heal(self._busy_s)\n        while", "        while", "disk"),
    Plant("what memory learnt about pauses is not told to the ledger", LEDGER + "outbox.py",
          "*self._lessons(), *self._notes", "*self._notes", "disk"),
    Plant("what is committed in memory is called durable", LEDGER + "outbox.py",
          "answer = answer._replace(durable=told and self.keeps)", "answer = answer._replace(durable=True)"),
    Plant("an owed outcome is dropped", LEDGER + "outbox.py",
          "        self.held.setdefault(task, before)\n        self.live", "        self.live"),
    Plant("a locked ledger is asked all the same", LEDGER + "failover.py",
          "outbox.is_guarded = primary is not None and trouble.kind not in SILENT", "outbox.is_guarded = True", "disk"),
    Plant("the end of trouble is not noticed", LEDGER + "failover.py",
          "            if started_at >= self._retry_at:", "            if False:", "disk"),
    Plant("an unavailable ledger's answer is taken for pauses", "bridge/server/methods.py",
          "if isinstance(found, Unavailable | Failed):\n            raise", "if not isinstance(found, tuple):\n            raise"),
    Plant("what the upstream repeats of the key is told", _R + "lifecycle.py", "self._ports.scrubber.scrub", "str"),
)  # fmt: skip


def main() -> int:
    """Plant all, or those whose names hold a word; returns 1 if one was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="plant only what holds one of these words")
    parser.add_argument("--seeds", type=int, default=2000, help="most seeds for each")
    parser.add_argument("--seconds", type=float, default=3600.0, help="most seconds for each")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many")
    args = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory(prefix="plants-") as folder:
        copy = Path(folder)
        for name in ("bridge", "tests", "schemas"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for plant in PLANTS[args.skip :]:
            if args.words and not any(word in plant.name for word in args.words):
                continue
            path = copy / plant.path
            text = path.read_text(encoding="utf-8")
            if plant.old not in text:
                print(f"| {plant.name} | `{plant.path}` | does not fit the code any more |", flush=True)
                missed += 1
                continue
            path.write_text(text.replace(plant.old, plant.new, 1), encoding="utf-8")
            found = find(copy, plant.having, args.seeds, args.seconds)
            path.write_text(text, encoding="utf-8")
            missed += found.startswith("not found")
            print(f"| {plant.name} | `{plant.path.removeprefix('bridge/')}` | {found} |", flush=True)
    return 1 if missed else 0


def find(copy: Path, having: str, seeds: int, seconds: float) -> str:
    """Run seeds until one fails; says which, and what was noticed."""
    began_at = time.monotonic()
    command = [sys.executable, "-m", "tests.simulation", "1", "--count", str(seeds), "--no-shrink"]
    command += ["--having", having] if having else []
    environ = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"not found in {seconds:.0f} s"
    told = re.search(r"^seed (\d+): .*\n +(at .*)$", done.stdout, re.MULTILINE)
    if told is None and done.returncode:
        return "seed ?: the simulation itself fails: " + done.stderr.strip().rpartition("\n")[2][:100]
    if told is None:
        return f"not found in {seeds} seeds"
    sentence = re.sub(r"^at [\d.]+: ", "", told[2])
    return f"seed {told[1]} ({time.monotonic() - began_at:.0f} s): {sentence[:110]}".replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
