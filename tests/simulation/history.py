"""What really happened in a run, and the rules about attempts that are judged while it happens.

Attempts as the network saw them, answers as the callers read them, commits as the disk took them. Where a
rule is suspended (a ledger that could not be read, a machine that was off for a day) it says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import (
    DONE,
    Begin,
    Begun,
    Claim,
    Claimed,
    Record,
    Resume,
    Row,
    Settle,
    Sweep,
    Swept,
    Withdraw,
)
from bridge.ledger.port import Restore, Restored, Teach
from bridge.ledger.translation import hash_account
from tests.simulation.callers import Request
from tests.simulation.network import Attempt
from tests.simulation.pausing import NEVER, Pausing
from tests.simulation.plan import KEYS

if TYPE_CHECKING:
    from tests.simulation.disk import SimStore
    from tests.simulation.process import Process
    from tests.simulation.world import World


NOTICED_S: Final = 45.0
"""How long a bridge may be without a ledger that works again: it tries at least every 30 s."""


class Story:
    """All that has to do with one task of one account."""

    def __init__(self, key: str, task_id: int) -> None:
        self.key = key
        self.task_id = task_id
        self.attempts: list[Attempt] = []
        self.requests: list[Request] = []
        self.is_loose = False
        """True if an attempt was begun that the ledger's file, and so other bridges, did not know of."""
        self.crashes = 0
        """Lives that ended between the commit of a beginning and the end of its attempt."""
        self.doubts = 0
        """Beginnings that were committed, and told to have failed: on record until they are taken back."""
        self.begun_by: Process | None = None
        self.beginnings: list[tuple[float, float]] = []
        """From when to when a beginning stood in the file of which nobody else knows whether it was made."""
        self.finals: list[tuple[float, Process]] = []
        """When an ending that forbids any other attempt was committed to the file."""
        self.claims: list[tuple[float, Process]] = []
        self.settled_at = 0.0
        """When an ending was last committed, to a file or in memory; who asks after that begins anew."""
        self.since = 0.0
        """Since when what happens to the task concerns each other."""
        self.row: Row | None = None
        """As last committed to the file."""

    def forget(self, at: float) -> None:
        """The guard of a day is over by the clock: the task begins anew."""
        self.since = at
        self.finals.clear()

    def __repr__(self) -> str:
        return f"task {self.task_id} of key {self.key[:1]}"


class History:
    """Everything that the rules look at."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: list[Request] = []
        self.stories: dict[tuple[str, int], Story] = {}
        self.open: set[Story] = set()
        """Those whose report is not done in the ledger's file."""
        self._accounts: dict[bytes | None, dict[str, str]] = {}
        self.pausing = Pausing(world)
        self.clock_was_set = False
        self.off_s: list[float] = []
        """For how long machines were off, by their clocks."""
        self.boots: list[tuple[float, float]] = []
        """When a machine booted, and by how much its time went forward then, at least."""

    def story(self, key: str, task_id: int) -> Story:
        """The story of a task."""
        found = self.stories.get((key, task_id))
        if found is None:
            found = self.stories[key, task_id] = Story(key, task_id)
        return found

    def add(self, request: Request) -> None:
        """A caller asks."""
        self.requests.append(request)
        if request.is_report:
            self.story(*request.story).requests.append(request)

    # --- what happens ------------------------------------------------------------------------

    def note_attempt(self, attempt: Attempt) -> None:
        """An attempt is made."""
        world = self.world
        story = self.story(attempt.key, attempt.task_id)
        before, process = (
            [other for other in story.attempts if other.began_at >= story.since],
            attempt.process,
        )
        story.attempts.append(attempt)
        if not attempt.durable and world.plan.setup["ledger"] == "file":
            story.is_loose = True
        world.log("try", process.name, attempt.number, attempt.task_id, attempt.fresh)
        flying = len(process.flying)
        if flying > world.plan.setup["concurrency"]:
            world.break_rule(f"{process.name} makes {flying} attempts at one time")
        mine = [other for other in before if other.process is process]
        for at, owner in story.finals:
            if not story.is_loose and (world.plan.setup["ledger"] == "file" or owner is process):
                world.break_rule(
                    f"{story}: {attempt} after its ending was committed at {at:.3f} by {owner.name}"
                )
        earlier = [other for other in (mine if story.is_loose else before) if other.failure != "NoResources"]
        if earlier and not attempt.fresh and not self._is_forgotten(story, process):
            world.break_rule(f"{story}: {attempt} is not the first and may use a kept connection")
        if mine and mine[-1].meaning is not None and mine[-1].meaning.retry_after_s is not None:
            wait_s = world.now - (mine[-1].ended_at or 0.0)
            again = mine[-1].meaning.retry_after_s
            if wait_s < again - 0.01 and mine[-1].ended_at is not None and self._same_job(story, mine[-1]):
                world.break_rule(
                    f"{story}: {attempt} comes {wait_s:.3f} s after an answer that asked for {again}"
                )

    def _same_job(self, story: Story, earlier: Attempt) -> bool:
        """True if the report had no ending since an attempt, and nobody who asked for it was let go."""
        return story.settled_at < (earlier.ended_at or 0.0) and not any(
            request.cancelled_at is not None for request in story.requests
        )

    def _is_forgotten(self, story: Story, process: Process) -> bool:
        """True if the bridge cannot know what was before: its memory was its ledger."""
        if self.world.plan.setup["ledger"] == "file":
            return False
        return not any(a.process is process and a.failure != "NoResources" for a in story.attempts[:-1])

    def note_answer(self, process: Process, piece: bytes, put_at: float) -> None:
        """A client reads what a bridge wrote a while ago."""
        world = self.world
        world.log_bytes(process, "answer", piece)
        self.check_secret(process.name, piece)
        text = piece
        if piece.startswith(b"Content-"):
            head, _, text = piece.partition(b"\r\n\r\n")
            if int(head.split(b":")[1]) != len(text):
                world.break_rule(f"{process.name}: the length of an answer is wrong")
        elif not piece.endswith(b"\n") or b"\n" in piece[:-1]:
            world.break_rule(f"{process.name}: an answer is not one line")
        said = json.loads(text)
        members = said if isinstance(said, list) else [said]
        asked = [request for request in self.requests if request.process is process]
        batches = set()
        for member in members:
            if member.get("id") is None:
                continue  # the answer to garbage
            fits = [request for request in asked if request.id == member["id"]]
            if not fits:
                world.break_rule(f"{process.name}: an answer to nobody: {member}")
                continue
            if member.get("result", {}).get("durable") is False:
                self._check_health(process, put_at, member)
            request = min(fits, key=lambda request: len(request.answers))
            request.answers.append((put_at, member))
            batches.add(request.batch)
            if isinstance(said, list) != (request.batch is not None):
                world.break_rule(f"{request}: answered {member} in the wrong form")
        if isinstance(said, list) and len(batches) > 1:
            world.break_rule(f"{process.name}: one answer to several batches")

    def _check_health(self, process: Process, at: float, member: dict[str, Any]) -> None:
        """A ledger that works again is used again."""
        disk, plan = self.world.disk, self.world.plan
        if plan.setup["ledger"] == "file" and disk.is_well and at - disk.well_since > NOTICED_S:
            self.world.break_rule(f"{process.name} is without its ledger for too long: {member}")

    def note_line(self, process: Process, piece: bytes) -> None:
        """A bridge logs."""
        self.world.log_bytes(process, "log", piece)
        self.check_secret(process.name, piece)
        if b'"event":"ledger_degraded"' in piece or b'"event":"ledger_memory"' in piece:
            plan = self.world.plan
            # Where opening is slow, those who start together wait for each other longer than a bridge waits.
            is_slow = plan.setup["slots"] * plan.setup["opening_s"] > 2.0
            is_hindered = is_slow or any(f.kind in ("disk", "suspend") for f in plan.faults)
            if plan.setup["ledger"] == "file" and not is_hindered:
                self.world.break_rule(
                    f"{process.name} is without its ledger, though that works: {piece.decode()[:300]}"
                )
            disk = self.world.disk
            if b'"state":"lost"' in piece and not (disk.state or disk.slow_s or disk.holder):
                self.world.break_rule(f"{process.name} gives up what it owes, though the ledger works")
        if b'"event":"internal_error"' in piece:
            self.world.break_rule(f"{process.name} logs {piece.decode()[:400]}")

    def check_secret(self, where: str, data: bytes) -> None:
        """No key may be seen."""
        for key in KEYS:
            if key.encode() in data:
                self.world.break_rule(f"{where}: a key in {data!r}"[:400])

    def note_end(self, process: Process) -> None:
        """A bridge has ended, or was killed."""
        for story in self.stories.values():
            if story.begun_by is process:
                self._end_beginning(story)
                story.crashes += 1
        self.pausing.end(process)
        for attempt in process.flying.values():
            attempt.ended_at = None

    def forget(self) -> None:
        """What was known of keys and pauses was in the memory of a bridge that has ended."""
        self.pausing = Pausing(self.world)

    def note_clock(self) -> None:
        """A wall clock was set."""
        self.clock_was_set = True

    def note_boot(self, forward_s: float, least_s: float, off_s: float) -> None:
        """A machine boots; pauses that end by the clock may end otherwise now."""
        self.off_s.append(off_s + max(0.0, forward_s))
        if is_guard_over(self.world):
            for story in self.stories.values():
                story.forget(self.world.now)
        self.boots.append((self.world.now, least_s))
        self.pausing.boot()

    def note_left(self, attempt: Attempt) -> None:
        """A request leaves, perhaps over a kept connection."""
        if not attempt.reused or attempt.connected_at is None:
            return
        for other in self.world.network.attempts:
            if other.process is not attempt.process or other.ended_at is None:
                continue
            is_dead = other.reused and other.left_at is not None and not other.got_byte
            is_older = attempt.connected_at < other.ended_at <= attempt.began_at - 0.001
            failed = is_dead and is_older and other.failure in ("reset", "timeout", "cut")
            if failed and not self._was_used(attempt, other.ended_at):
                self.world.break_rule(f"{attempt} uses a connection as old as one that failed: {other}")

    def _was_used(self, attempt: Attempt, at: float) -> bool:
        """True if a connection was at work at a moment, and has shown since that it lives."""
        return any(
            other.process is attempt.process
            and other.connected_at == attempt.connected_at
            and other.got_byte
            and other.began_at <= at < (other.ended_at or at)
            for other in self.world.network.attempts
        )

    # --- what is committed -------------------------------------------------------------------

    def _key_of(self, store: SimStore, account: str) -> str:
        # In memory accounts are named as the first store of the process names them.
        for secret in (store.secret, store.process.app.ledger._accounts.secret):
            names = self._accounts.get(secret)
            if names is None and secret is not None:
                names = self._accounts[secret] = {hash_account(secret, key): key for key in KEYS}
            if names is not None and account in names:
                return names[account]
        raise AssertionError(f"an account of no key: {account}")

    def note_doubt(self, store: SimStore, operations: Any) -> None:
        """A store has committed operations and tells that they failed."""
        for operation in operations:
            if isinstance(operation, Begin) or (isinstance(operation, Claim) and operation.begin):
                task = operation.task
                self.story(self._key_of(store, task.account), task.task_id).doubts += 1

    def note_commit(self, process: Process, store: SimStore, operations: Any, results: Any) -> None:
        """A store has committed operations."""
        in_file = store.disk is not None
        names = [type(operation).__name__ for operation in operations]
        if names != ["Sweep"] and names != ["Prune"]:
            self.world.log("commit", process.name, in_file, *names)
        is_truth = in_file or self.world.plan.setup["ledger"] == "memory"
        for operation, result in zip(operations, results, strict=True):
            kind = type(operation)
            if kind is Sweep and isinstance(result, Swept):
                for row in (*result.adopted, *result.settled):
                    self._lose(self.story(self._key_of(store, row.task.account), row.task.task_id), row)
            elif kind is Resume:
                self.pausing.resume()
            elif kind is Teach:
                # What was learnt in memory is not followed here; from now on the file knows it.
                self.pausing.resume()
                proofs = [state.key.subject for _, state in operation.pauses if state.key.rule == "proof"]
                self.pausing.prove(self._key_of(store, account) for account in proofs)
            elif kind is Restore and isinstance(result, Restored):
                task = result.row.task
                story = self.story(self._key_of(store, task.account), task.task_id)
                if is_truth and in_file:
                    self._lose(story, result.row)
                    self.pausing.release(story)
                    story.claims.append((self.world.now, process))
            elif kind in (Claim, Begin, Record, Settle, Withdraw):
                story = self.story(self._key_of(store, operation.task.account), operation.task.task_id)
                self._note_report(process, story, operation, result, is_truth)

    def _note_report(
        self, process: Process, story: Story, operation: Any, result: Any, is_truth: bool
    ) -> None:
        if is_truth and result.row is not None:
            self._set_row(story, result.row)
        if isinstance(result, Claimed | Begun):
            if isinstance(operation, Claim):
                if is_truth:
                    story.claims.append((self.world.now, process))
                if isinstance(result, Claimed) and result.status == "adopted":
                    self._lose(story, result.row)
            if result.gate is not None and result.gate.status == "begun":
                story.begun_by = process
                if is_truth:
                    story.beginnings.append((self.world.now, NEVER))
                    self.pausing.begin(process, story)
                else:
                    story.is_loose = True
            return
        if result.status == "lost":
            return
        if story.begun_by is process and is_truth:
            self._end_beginning(story)
        if operation.ending is not None:
            story.settled_at = self.world.now
        self.pausing.leave(story)
        if isinstance(operation, Record):
            self.pausing.learn(process, story, is_truth)
            if is_truth and operation.ending is not None and operation.ending.outcome != "not_sent":
                story.finals.append((self.world.now, process))
        else:
            self.pausing.release(story)

    def _set_row(self, story: Story, row: Row) -> None:
        story.row = row
        if row.state == DONE:
            self.open.discard(story)
        else:
            self.open.add(story)

    def _end_beginning(self, story: Story) -> None:
        story.begun_by = None
        if story.beginnings:
            story.beginnings[-1] = (story.beginnings[-1][0], self.world.now)

    def _lose(self, story: Story, row: Row) -> None:
        self._set_row(story, row)
        self._end_beginning(story)
        self.pausing.leave(story)


def is_guard_over(world: World) -> bool:
    """True if a machine was off for so long, or its clock says so, that tasks may be forgotten."""
    return any(at_s > 80000.0 for at_s in world.history.off_s)


def outcome_of(answer: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The outcome that an answer tells, and its members."""
    data = answer.get("result") or answer["error"].get("data") or {}
    return data.get("outcome"), data
