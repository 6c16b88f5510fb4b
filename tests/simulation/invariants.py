"""What must be true of every run, written once from the contract, and the history that it is judged by.

The history holds what really happened: attempts as the network saw them, answers as the callers read them,
commits as the disk took them. Rules about begun attempts are judged while it runs, the others at the end.
Where a rule is suspended (a ledger that could not be read, a clock that was set) it says so.
"""

from __future__ import annotations

import calendar
import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

from bridge.core.model import DONE, Begin, Begun, Claim, Claimed, Record, Resume, Row, Settle, Sweep, Swept, Withdraw
from bridge.ledger.port import Restore, Restored, Teach
from bridge.ledger.translation import hash_account
from tests.simulation.callers import Request
from tests.simulation.network import Attempt
from tests.simulation.plan import EPOCH, KEYS

if TYPE_CHECKING:
    from tests.simulation.disk import SimStore
    from tests.simulation.process import Process
    from tests.simulation.world import World

MOST_SENDS: Final = 2
MOST_ATTEMPTS: Final = 4
SLACK_S: Final = 0.3
"""How late an answer may be in a world whose disk works, turns of the loop and commits included."""
SKEW_S: Final = 2.6
"""How wrong a clock may be unnoticed: 2 s are tolerated, and a Date header has whole seconds."""
_DISPROVING: Final = frozenset({1, 10, 11, 21, 55})
_LONGEST_S: Final = {"key": 3600.0, "address": 86400.0, "method": 86400.0, "quality": 600.0, "transport": 60.0}
NEVER: Final = float("inf")


class Story:
    """All that has to do with one task of one account."""

    def __init__(self, key: str, task_id: int) -> None:
        self.key = key
        self.task_id = task_id
        self.attempts: list[Attempt] = []
        self.requests: list[Request] = []
        self.is_loose = False
        """True if an attempt was begun that the ledger's file did not know of: other bridges could not either."""
        self.crashes = 0
        """Lives that ended between the commit of a beginning and the end of its attempt."""
        self.begun_by: Process | None = None
        self.finals: list[tuple[float, Process]] = []
        """When an ending that forbids any other attempt was committed to the file."""
        self.claims: list[tuple[float, Process]] = []
        self.since = 0.0
        """Since when what happens to the task concerns each other."""
        self.row: Row | None = None
        """As last committed to the file."""

    def forget(self, at: float) -> None:
        """The guard of a day is over by the clock: the task begins anew."""
        self.since = at
        self.finals.clear()
        self.claims.clear()

    def __repr__(self) -> str:
        return f"task {self.task_id} of key {self.key[:1]}"


class Pause:
    """An open pause, as the contract has it: a lower bound of the bridge's own."""

    def __init__(self, rule: str, ends_at: float) -> None:
        self.rule = rule
        self.ends_at = ends_at
        self.probe: Story | None = None


# rule -> (seconds at first, what it is about)
RULES: Final[dict[str, tuple[float, str]]] = {
    "refused": (NEVER, "key"),
    "unauthorized": (600.0, "key"),
    "balance": (600.0, "key"),
    "not_allowed": (600.0, "key and machine"),
    "blocked": (1800.0, "machine"),
    "route": (60.0, "machine"),
    "rate": (60.0, "machine"),
    "withdrawn": (600.0, "method"),
    "quality": (600.0, "key and method"),
    "transport": (5.0, "machine"),
}


def event_of(attempt: Attempt) -> str | None:
    """The rule that the end of an attempt feeds, by the contract's table."""
    met = attempt.meaning
    if met is None:
        return "route" if attempt.failure == "certificate" else None
    if met.kind == "verdict":
        if met.code == "ERROR_RATE_LIMIT":
            return "rate"
        numbers = {1: "refused", 55: "refused", 10: "balance", 11: "not_allowed", 21: "blocked", 14: "withdrawn", 16: "quality"}
        return numbers.get(met.number)
    if met.kind == "nothing":
        return None
    if 300 <= met.number < 400:
        return "route"
    return {401: "unauthorized", 403: "blocked", 404: "withdrawn", 405: "withdrawn", 429: "rate"}.get(met.number)


class History:
    """Everything that the rules look at."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: list[Request] = []
        self.stories: dict[tuple[str, int], Story] = {}
        self.written: dict[str, int] = {}
        self.open: set[Story] = set()
        """Those whose report is not done in the ledger's file."""
        self._accounts: dict[bytes | None, dict[str, str]] = {}
        self._proven: set[str] = set()
        self._flight: dict[str, dict[Story, Process]] = {key: {} for key in KEYS}
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._rates: dict[int, list[tuple[float, Story]]] = {}
        self._streaks: dict[tuple[str, str], int] = {}
        self.disk_at: list[float] = []
        """When the disk was spoilt."""
        self.mended_at = NEVER
        self.clock_was_set = False
        self.off_s: list[float] = []
        """For how long machines were off, by their clocks."""
        self.boots: list[tuple[float, float]] = []
        """When a machine booted, and by how much its wall clock went forward then."""

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
        before, process = [other for other in story.attempts if other.began_at >= story.since], attempt.process
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
                world.break_rule(f"{story}: {attempt} after its ending was committed at {at:.3f} by {owner.name}")
        earlier = [other for other in (mine if story.is_loose else before) if other.failure != "NoResources"]
        if earlier and not attempt.fresh and not self._is_forgotten(story, process):
            world.break_rule(f"{story}: {attempt} is not the first and may use a kept connection")
        if mine and mine[-1].meaning is not None and mine[-1].meaning.retry_after_s is not None:
            wait_s = world.now - (mine[-1].ended_at or 0.0)
            again = mine[-1].meaning.retry_after_s
            if wait_s < again - 0.01 and mine[-1].ended_at is not None and self._same_job(story, mine[-1]):
                world.break_rule(f"{story}: {attempt} comes {wait_s:.3f} s after an answer that asked for {again}")

    def _same_job(self, story: Story, earlier: Attempt) -> bool:
        """True if nobody was answered about the task since an attempt."""
        return not any(
            at >= (earlier.ended_at or 0.0) for request in story.requests for at, _ in request.answers
        ) and not any(request.cancelled_at is not None for request in story.requests)

    def _is_forgotten(self, story: Story, process: Process) -> bool:
        """True if the bridge cannot know what was before: its memory was its ledger."""
        if self.world.plan.setup["ledger"] == "file":
            return False
        return not any(attempt.process is process for attempt in story.attempts[:-1])

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
            request = min(fits, key=lambda request: len(request.answers))
            request.answers.append((put_at, member))
            batches.add(request.batch)
            if isinstance(said, list) != (request.batch is not None):
                world.break_rule(f"{request}: answered {member} in the wrong form")
        if isinstance(said, list) and len(batches) > 1:
            world.break_rule(f"{process.name}: one answer to several batches")

    def note_line(self, process: Process, piece: bytes) -> None:
        """A bridge logs."""
        self.world.log_bytes(process, "log", piece)
        self.check_secret(process.name, piece)
        if b'"event":"ledger_degraded"' in piece or b'"event":"ledger_memory"' in piece:
            plan = self.world.plan
            if plan.setup["ledger"] == "file" and not any(f.kind in ("disk", "suspend") for f in plan.faults):
                self.world.break_rule(f"{process.name} is without its ledger, and nothing is wrong with it: {piece.decode()[:300]}")
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
                story.begun_by = None
                story.crashes += 1
        for flight in self._flight.values():
            for story in [story for story, owner in flight.items() if owner is process]:
                del flight[story]
        for pause in self._pauses.values():
            if pause.probe is not None and any(a.process is process for a in pause.probe.attempts[-1:]):
                pause.probe = None
        for attempt in process.flying.values():
            attempt.ended_at = None

    def forget(self) -> None:
        """What was known of keys and pauses was in the memory of a bridge that has ended."""
        self._proven.clear()
        self._pauses.clear()
        self._rates.clear()
        self._streaks.clear()
        for flight in self._flight.values():
            flight.clear()

    def note_disk(self) -> None:
        """The disk was spoilt."""
        self.disk_at.append(self.world.now)

    def note_clock(self) -> None:
        """A wall clock was set."""
        self.clock_was_set = True

    def note_boot(self, forward_s: float, off_s: float) -> None:
        """A machine boots; pauses that end by the clock may end otherwise now."""
        self.off_s.append(off_s + max(0.0, forward_s))
        if is_guard_over(self.world):
            for story in self.stories.values():
                story.forget(self.world.now)
        self.boots.append((self.world.now, forward_s))
        for name in [name for name, pause in self._pauses.items() if pause.ends_at != NEVER]:
            del self._pauses[name]
        self._streaks.clear()

    def note_mended(self) -> None:
        """The faults are over."""
        self.mended_at = self.world.now

    def note_rest(self) -> None:
        """All should be at rest."""
        for process in self.world.processes:
            if process.is_alive:
                check_rest(self.world, process)

    def note_left(self, attempt: Attempt) -> None:
        """A request leaves, perhaps over a kept connection."""
        if not attempt.reused or attempt.connected_at is None:
            return
        for other in self.world.network.attempts:
            is_dead = other.reused and other.left_at is not None and not other.got_byte and other.ended_at is not None
            if other.process is attempt.process and is_dead and attempt.connected_at < other.ended_at <= attempt.began_at - 0.001:
                is_cut = other.failure in ("reset", "timeout", "cut")
                if is_cut:
                    self.world.break_rule(f"{attempt} uses a connection as old as the one that failed {other}")

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
                self._pauses.clear()
            elif kind is Teach:
                # What was learnt in memory is not followed here; from now on the file knows it.
                self._pauses.clear()
                proofs = [state.key.subject for _, state in operation.pauses if state.key.rule == "proof"]
                self._proven.update(self._key_of(store, account) for account in proofs)
            elif kind is Restore and isinstance(result, Restored):
                task = result.row.task
                story = self.story(self._key_of(store, task.account), task.task_id)
                if is_truth and in_file:
                    self._lose(story, result.row)
                    story.claims.append((self.world.now, process))
            elif kind in (Claim, Begin, Record, Settle, Withdraw):
                story = self.story(self._key_of(store, operation.task.account), operation.task.task_id)
                self._note_report(process, story, operation, result, is_truth)

    def _note_report(self, process: Process, story: Story, operation: Any, result: Any, is_truth: bool) -> None:
        if is_truth and result.row is not None:
            self._set_row(story, result.row)
        if isinstance(result, Claimed | Begun):
            if isinstance(operation, Claim):
                if is_truth:
                    story.claims.append((self.world.now, process))
                if result.status == "adopted":
                    self._lose(story, result.row)
            if result.gate is not None and result.gate.status == "begun":
                story.begun_by = process
                if is_truth:
                    self._judge_beginning(process, story)
                else:
                    story.is_loose = True
            return
        if result.status == "lost":
            return
        if story.begun_by is process and is_truth:
            story.begun_by = None
        self._flight[story.key].pop(story, None)
        if isinstance(operation, Record):
            self._learn(process, story, is_truth)
            if is_truth and operation.ending is not None and operation.ending.outcome != "not_sent":
                story.finals.append((self.world.now, process))
        else:
            for pause in self._pauses.values():
                if pause.probe is story:
                    pause.probe = None

    def _set_row(self, story: Story, row: Row) -> None:
        story.row = row
        if row.state == DONE:
            self.open.discard(story)
        else:
            self.open.add(story)

    def _lose(self, story: Story, row: Row) -> None:
        self._set_row(story, row)
        story.begun_by = None
        self._flight[story.key].pop(story, None)

    def _about(self, rule: str, process: Process, story: Story, method: str) -> str:
        about = RULES[rule][1]
        parts = {"key": story.key, "machine": str(process.machine), "method": method}
        return "/".join(parts[word] for word in about.split(" and "))

    def _method(self, story: Story) -> str:
        return story.row.method if story.row is not None else ""

    def _judge_beginning(self, process: Process, story: Story) -> None:
        """An attempt is begun in the file: nothing may hold it back."""
        world, now, key = self.world, self.world.now, story.key
        flight = self._flight[key]
        if not world.plan.setup["pauses"]:
            return
        if key not in self._proven:
            others = [other for other in flight if other is not story]
            if others:
                world.break_rule(f"{story} begins while {others[0]} is in flight and the key is unproven")
        flight[story] = process
        for rule in RULES:
            pause = self._pauses.get((rule, self._about(rule, process, story, self._method(story))))
            if pause is None:
                continue
            if now < pause.ends_at - 0.02:
                world.break_rule(f"{story} begins in {process.name} although {rule} pauses until {pause.ends_at:.3f}")
            elif pause.probe is not None and pause.probe is not story:
                world.break_rule(f"{story} begins in {process.name} beside {pause.probe}, which probes {rule}")
            else:
                pause.probe = story

    def _learn(self, process: Process, story: Story, is_truth: bool) -> None:
        """The end of an attempt is committed: what it teaches about pauses and the key."""
        attempts = [attempt for attempt in story.attempts if attempt.process is process]
        if not attempts or not is_truth or not self.world.plan.setup["pauses"]:
            return
        attempt = attempts[-1]
        met = attempt.meaning
        if met is not None and met.kind == "verdict" and met.number not in _DISPROVING:
            self._proven.add(story.key)
        self._count_transport(process, story, attempt)
        event = event_of(attempt)
        was_perhaps = any(other.is_perhaps for other in story.attempts if other is not attempt)
        for rule, (first_s, _) in RULES.items():
            name = (rule, self._about(rule, process, story, attempt.method))
            pause = self._pauses.get(name)
            feeds = event == rule and rule != "transport"
            if rule == "quality" and feeds and was_perhaps and (pause is None or pause.probe is not story):
                feeds = False
                self._streaks[name] = 0
            if pause is not None and pause.probe is story:
                del self._pauses[name]
                if feeds:
                    self._pauses[name] = Pause(rule, self.world.now + first_s)
                self._streaks[name] = 0
            elif pause is not None or rule == "transport":
                continue
            elif feeds and self._is_enough(process, story, rule, name):
                self._pauses[name] = Pause(rule, self.world.now + first_s)
                self._streaks[name] = 0
            elif not feeds and rule == "quality":
                self._streaks[name] = 0

    def _is_enough(self, process: Process, story: Story, rule: str, name: tuple[str, str]) -> bool:
        if rule == "rate":
            seen = [(at, other) for at, other in self._rates.get(process.machine, ()) if other is not story]
            seen = [(at, other) for at, other in seen if self.world.now - at < 59.9]
            self._rates[process.machine] = [*seen, (self.world.now, story)]
            is_enough = len(seen) >= 2
            if is_enough:
                self._rates[process.machine] = []
            return is_enough
        if rule == "quality":
            self._streaks[name] = self._streaks.get(name, 0) + 1
            return self._streaks[name] >= 10
        return True

    def _count_transport(self, process: Process, story: Story, attempt: Attempt) -> None:
        name = ("transport", str(process.machine))
        pause = self._pauses.get(name)
        silent = attempt.meaning is None and not attempt.got_byte and attempt.failure not in ("certificate", "window")
        if pause is not None:
            if pause.probe is story:
                del self._pauses[name]
                self._streaks[name] = 0
                if silent:
                    self._pauses[name] = Pause("transport", self.world.now + 5.0)
            return
        self._streaks[name] = self._streaks.get(name, 0) + 1 if silent else 0
        if self._streaks[name] >= 5:
            self._pauses[name] = Pause("transport", self.world.now + 5.0)
            self._streaks[name] = 0


# --- at the end ------------------------------------------------------------------------------


def check_all(world: World) -> None:
    """Judge a whole run."""
    history = world.history
    for story in history.stories.values():
        check_limits(world, story)
        check_windows(world, story)
        for request in story.requests:
            for at, answer in request.answers:
                check_truth(world, story, request, at, answer)
        check_row(world, story)
        check_causes(world, story)
    for request in history.requests:
        check_answered(world, request)
    check_records(world)
    check_exits(world)
    for attempt in world.network.attempts:
        if attempt.judged in ("body_members", "task_id_missing", "key_missing", "no_such_method", "body_not_json"):
            world.break_rule(f"{attempt}: the upstream cannot read it ({attempt.judged})")
    if os.path.exists(world.disk.path):
        for suffix in ("", "-wal"):
            if os.path.exists(world.disk.path + suffix):
                with open(world.disk.path + suffix, "rb") as file:
                    history.check_secret("the ledger" + suffix, file.read())


def _outcome(answer: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The outcome that an answer tells, and its members."""
    data = answer.get("result") or answer["error"].get("data") or {}
    return data.get("outcome"), data


def check_truth(world: World, story: Story, request: Request, at: float, answer: dict[str, Any]) -> None:
    """An answer says nothing but what is so."""
    outcome, data = _outcome(answer)
    if outcome is None:
        return
    process = request.process
    memory_only = world.plan.setup["ledger"] == "memory"
    known = [a for a in story.attempts if a.left_at is not None and a.left_at < at]
    is_blind = any(warning["kind"] == "duplicates_unguarded" for warning in data.get("warnings", ()))
    if story.is_loose or memory_only or is_blind:
        # What other bridges did meanwhile could not be known, and an ending on record is told as it is.
        known = [a for a in known if a.process is process and not data.get("replayed")]
    told = f"{request} was answered {outcome} at {at:.3f} ({answer})"
    if answer.get("error", {}).get("code") in (-32800, -32032) and outcome == "not_sent":
        # It is about this request, which was let go before anybody looked for the task.
        known = known if data["attempts"] else []
    elif request.batch is not None and outcome == "not_sent" and not data.get("attempts"):
        # It was refused at once, and told when the last of the batch was done.
        known = [a for a in known if a.began_at < (request.read_at or 0.0)]
    if outcome == "accepted":
        if not any(a.is_accepted and a.taken_at is not None and a.taken_at <= at for a in story.attempts):
            world.break_rule(f"{told}, but the upstream never said so")
    elif outcome in ("refused", "not_sent"):
        for attempt in known:
            if attempt.taken_at is not None:
                world.break_rule(f"{told}, but it was taken: {attempt}")
            elif attempt.is_perhaps:
                world.break_rule(f"{told}, but it was perhaps taken: {attempt}")
        if outcome == "not_sent" and any(a.process is process and a.ended_at is None for a in known if process.is_alive):
            world.break_rule(f"{told}, while it was being sent")
        if outcome == "refused" and "error" in answer and answer["error"]["code"] > 0:
            code = answer["error"]["code"]
            if not any(a.meaning is not None and a.meaning.number == code for a in story.attempts):
                world.break_rule(f"{told}, but the upstream never said that")
    elif outcome == "unknown":
        flying = [a for a in story.attempts if a.began_at <= at and (a.ended_at is None or a.ended_at >= at)]
        elsewhere = [p for _, p in story.claims if p is not process] if not answer.get("result") else []
        is_left = process.stopped_at is not None and process.stopped_at <= at
        is_lost = any(a.is_perhaps for a in story.attempts if a.began_at <= at)
        if not (is_lost or flying or story.crashes or elsewhere or is_left):
            world.break_rule(f"{told}, but nothing was ever lost: {story.attempts}")
    if "attempts" in data:
        made = len([a for a in story.attempts if a.began_at <= at and a.failure != "NoResources"])
        if data["attempts"] > made + story.crashes and not story.is_loose:
            world.break_rule(f"{told}, but {made} attempts were made")
        own = [a for a in story.attempts if a.process is process and a.failure != "NoResources" and a.began_at <= at]
        is_own_news = not data["replayed"] and outcome in ("accepted", "refused") and answer.get("error", {}).get("code") != -32011
        if is_own_news and data["attempts"] < len(own):
            world.break_rule(f"{told}, but {len(own)} attempts were made by it alone")
    if data.get("durable") and outcome != "not_sent" and not world.history.clock_was_set and not is_guard_over(world):
        row = story.row
        is_truth = row is None or row.outcome == outcome
        if not is_truth and answer.get("error", {}).get("code") != -32011:
            world.break_rule(f"{told} and durable, but the ledger says {row and row.outcome}")
    pause = data.get("pause")
    if pause and pause["endsAt"]:
        wall = EPOCH + at + process.host.off_s
        left_s = _seconds(pause["endsAt"]) - wall
        if left_s > _LONGEST_S[pause["scope"]] + 5.0 and not world.history.clock_was_set:
            world.break_rule(f"{told}, but no such pause may last that long")


def _seconds(text: str) -> float:
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float(text[19:-1])


def is_guard_over(world: World) -> bool:
    """True if a machine was off for so long, or its clock says so, that tasks may be forgotten."""
    return any(at_s > 80000.0 for at_s in world.history.off_s)


def check_limits(world: World, story: Story) -> None:
    """At most two complete sends and four attempts in a task's life."""
    made = [a for a in story.attempts if a.failure != "NoResources"]
    if world.history.boots:
        # A guard lasts a day; a machine that was off for longer begins anew.
        days = sorted({sum(at < a.began_at for at, _ in world.history.boots) for a in made})
        groups = [[a for a in made if sum(at < a.began_at for at, _ in world.history.boots) == day] for day in days]
        groups = groups if is_guard_over(world) else [made]
    else:
        groups = [made]
    for group in groups:
        lives = [group]
        if story.is_loose or world.plan.setup["ledger"] == "memory":
            lives = [[a for a in group if a.process is p] for p in world.processes]
        for life in lives:
            sends = [a for a in life if a.is_send]
            if len(life) > MOST_ATTEMPTS or len(sends) > MOST_SENDS:
                world.break_rule(f"{story}: {len(life)} attempts and {len(sends)} complete sends: {life}")


def check_windows(world: World, story: Story) -> None:
    """No byte leaves after the earliest window end that was known."""
    for attempt in story.attempts:
        if attempt.left_at is None:
            continue
        retrying = any(a.began_at < attempt.began_at and a.failure != "NoResources" for a in story.attempts)
        for request in story.requests:
            end = window_end(world, request, attempt.left_at, retrying)
            if end is None or request.read_at is None or request.read_at > attempt.began_at - 0.01:
                continue
            if request.process is not attempt.process or world.plan.setup["queue"] < 100:
                # It must have been heard of: not by another bridge alone, and not behind a full queue.
                if story.is_loose or world.plan.setup["ledger"] == "memory":
                    continue
                is_known = any(p is request.process and request.read_at <= at < attempt.began_at - 0.01 for at, p in story.claims)
                if not is_known:
                    continue
            if attempt.left_at > end:
                world.break_rule(f"{story}: {attempt} left after the window of {request}, which ended at {end:.3f}")


def window_end(world: World, request: Request, at: float, retrying: bool) -> float | None:
    """The last moment by which a byte may leave for a request; None if it sets no window."""
    if request.read_at is None or not request.answers:
        return None
    for _, answer in request.answers:
        code = answer.get("error", {}).get("code")
        if code in (-32011, -32012, -32013, -32020, -32031, -32032, -32602, -32603):
            return None
    backward = sum(max(0.0, -forward) for boot, forward in world.history.boots if request.read_at < boot <= at)
    read_at, process = request.read_at, request.process
    told = request.params.get("completedAt")
    if told is None:
        return read_at + (32.0 if retrying else 57.0) + backward + 0.05
    off_s = process.host.off_s
    knows = process.knows_time_at is not None and process.knows_time_at < read_at
    wrong = 0.0 if knows else max(0.0, -min(off_s, request.off_s))
    if world.history.clock_was_set and not knows:
        wrong = NEVER
    return min(read_at + 60.0, max(read_at, told - EPOCH + 60.0 + wrong + SKEW_S)) + backward + 0.05


def check_answered(world: World, request: Request) -> None:
    """One answer for each request, by the end of its window and its last attempt."""
    process = request.process
    count = len(request.answers)
    if request.id is None:
        return
    if count > 1:
        world.break_rule(f"{request} was answered {count} times: {request.answers}")
    if request.read_at is None:
        return
    is_whole = not process.output.is_gone and (process.is_alive or process.exit_code is not None)
    if process.exit_code is not None and process.output.backlog:
        is_whole = False
    if count == 0:
        if is_whole:
            world.break_rule(f"{request} was never answered")
        return
    at = request.answers[0][0]
    setup = world.plan.setup
    if not request.is_report:
        if at > request.read_at + 2.0 + _delays(world, request.read_at, at, process):
            world.break_rule(f"{request} was answered after {at - request.read_at:.3f} s")
        return
    together = [request]
    if request.batch is not None:
        together = [r for r in world.history.requests if r.process is process and r.batch == request.batch]
    latest = max(_latest_answer(world, member, at) for member in together)
    latest += SLACK_S + _delays(world, request.read_at, at, process)
    if setup["queue"] < 100:
        latest += 60.0 + setup["timeout_s"]
    if at > latest and process.output.is_read:
        world.break_rule(f"{request} was answered at {at:.3f}, after {latest:.3f}")


def _latest_answer(world: World, request: Request, at: float) -> float:
    """By when a report must have its ending: the end of its window, or that of the attempt it waits for."""
    assert request.read_at is not None
    end = window_end(world, request, at, False)
    latest = request.read_at + 60.0 if end is None else end
    attempts = world.history.story(*request.story).attempts
    in_flight = any(a.process is request.process and a.began_at <= latest + 1.0 for a in attempts)
    return latest + (world.plan.setup["timeout_s"] if in_flight else 0.0)


def _delays(world: World, begin: float, end: float, process: Process) -> float:
    """What held a bridge up between two moments, besides itself."""
    held = sum(max(0.0, min(end, until) - max(begin, since)) for since, until in process.suspended)
    for fault in world.plan.faults:
        since, lasts_s = fault.at, fault.more.get("lasts_s", 0.0)
        if fault.kind == "disk" and since < end and since + lasts_s > begin:
            held += 12.0 + 3 * fault.more["slow_s"]
        if fault.kind == "suspend" and since < end and since + lasts_s > begin:
            held += 12.0 + lasts_s
    for act in world.plan.acts:
        if act.kind == "unread" and act.at < end and act.at + act.more["lasts_s"] > begin and act.slot == process.slot:
            held += act.more["lasts_s"]
    # Opening the ledger in a crowd takes its time.
    return held + 5 * world.plan.setup["opening_s"] + 10 * world.plan.setup["commit_s"]


def check_causes(world: World, story: Story) -> None:
    """One request causes a send, the others are replayed; who was let go before causes none."""
    news = [
        (request, at)
        for request in story.requests
        for at, answer in request.answers
        if answer.get("result", {}).get("replayed") is False
    ]
    if len(news) > len([a for a in story.attempts if a.is_accepted]):
        world.break_rule(f"{story}: more than one request is told that it caused the send: {news}")
    for request in story.requests:
        if request.cancelled_at is None or request.batch is not None or not request.answers:
            continue
        let_go_at, process = request.cancelled_at, request.process
        others = [r for r in story.requests if r is not request and r.process is process]
        later = [a for a in story.attempts if a.process is process and a.began_at > let_go_at + 0.001]
        earlier = [a for a in story.attempts if a.began_at <= let_go_at + 0.001]
        answered_at, answer = request.answers[0]
        is_quick = request.read_at is not None and request.read_at <= let_go_at < answered_at
        if is_quick and later and not others and not earlier and not story.crashes and not process.suspended:
            if later[0].began_at < answered_at and world.plan.setup["queue"] > 100:
                world.break_rule(f"{request} was let go at {let_go_at:.3f}, but {later[0]} followed: {answer}")


def check_row(world: World, story: Story) -> None:
    """What the ledger says in the end is true, and counts what was made."""
    row = story.row
    made = [a for a in story.attempts if a.failure != "NoResources"]
    if world.plan.setup["ledger"] == "memory" or story.is_loose:
        return
    if row is None:
        if made:
            world.break_rule(f"{story}: the ledger never heard of {made}")
        return
    if row.state != DONE:
        world.break_rule(f"{story} is {row.state} in the end")
        return
    taken = any(a.taken_at is not None for a in made)
    if is_guard_over(world):
        return
    if row.outcome == "accepted" and not any(a.is_accepted for a in made):
        world.break_rule(f"{story} is accepted in the ledger, but {made}")
    if row.outcome in ("refused", "not_sent") and (taken or any(a.is_perhaps for a in made)):
        world.break_rule(f"{story} is {row.outcome} in the ledger, but {made}")
    if row.outcome == "unknown" and not story.crashes and not any(a.is_perhaps for a in made):
        world.break_rule(f"{story} is unknown in the ledger, but {made}")
    if not len(made) <= row.attempts <= min(MOST_ATTEMPTS, len(made) + story.crashes):
        world.break_rule(f"{story} has {row.attempts} attempts on record, {story.crashes} crashes, but {made}")


def check_rest(world: World, process: Process) -> None:
    """A while after the last fault nothing is left to do."""
    reporter = process.app.reporter
    lifecycle = reporter._lifecycle
    conversation = process.server._conversation
    left = {
        "jobs": len(reporter._jobs),
        "names": len(reporter._names),
        "used slots": world.plan.setup["concurrency"] - lifecycle._slots._free,
        "waiting for a slot": len(lifecycle._slots._waiting),
        "waiting for another": len(lifecycle._flight._waiting),
        "unanswered": conversation.unanswered,
        "open reports": conversation._open_reports,
        "waiting for the ledger": len(process.app.methods._waiting),
        "owed": process.app.ledger._outbox.owed,
        "held": len(process.app.ledger._outbox._held),
        "backlog": process.output.backlog,
        "attempts": len(process.flying),
    }
    for what, count in left.items():
        if count:
            world.break_rule(f"{process.name} is not at rest: {count} {what}")
    status = process.app.ledger.status()
    if not status["healthy"]:
        world.break_rule(f"{process.name} is not at rest: the ledger is {status}")


def check_records(world: World) -> None:
    """Records, lists and status agree, in every bridge."""
    records: dict[tuple[str, int], dict[str, Any]] = {}
    for request in world.history.requests:
        if not str(request.id).startswith("end-") or not request.answers:
            continue
        answer = request.answers[0][1]
        if request.method == "bridge.getReport":
            if "error" in answer:
                kind = answer["error"]["data"]["kind"]
                row = world.history.story(*request.story).row
                if kind != "report_not_found" or (row is not None and world.plan.setup["ledger"] == "file"):
                    world.break_rule(f"{request}: {answer}")
                continue
            # A bridge that could not open its ledger at first names accounts in its own way until it ends.
            record = {name: value for name, value in answer["result"].items() if name != "account"}
            known = records.setdefault(request.story, record)
            if known != record:
                world.break_rule(f"two records of one report: {known} and {record}")
            row = world.history.story(*request.story).row
            if row is not None and not world.history.story(*request.story).is_loose:
                if (record["outcome"], record["attempts"], record["method"]) != (row.outcome, row.attempts, row.method):
                    world.break_rule(f"{record} is shown, but {row} was committed")
    for request in world.history.requests:
        if request.id == "end-list" and request.answers:
            listed = request.answers[0][1]["result"]["reports"]
            listed = [{name: value for name, value in record.items() if name != "account"} for record in listed]
            for record in records.values():
                if record not in listed and world.plan.setup["ledger"] == "file":
                    world.break_rule(f"{record} is not in the list of {request.process.name}")
        if request.id == "end-status" and request.answers:
            check_status(world, request)


def check_status(world: World, request: Request) -> None:
    """The status counts what was answered."""
    status = request.answers[0][1]["result"]
    process = request.process
    if status["inFlight"] or status["queued"]:
        world.break_rule(f"{process.name} is not at rest: {status}")
    for pause in status["pauses"]:
        if pause["state"] == "probing":
            world.break_rule(f"{process.name}: a probe that never ends: {pause}")
    news: dict[str, int] = {}
    for other in world.history.requests:
        if other.process is process and other.is_report:
            for _, answer in other.answers:
                outcome, data = _outcome(answer)
                code = answer.get("error", {}).get("code")
                if outcome is not None and data.get("replayed") is False and code not in (-32011, -32800, -32032):
                    news[outcome] = news.get(outcome, 0) + 1
    for outcome, count in news.items():
        if status["outcomes"][outcome] < count:
            world.break_rule(f"{process.name} has answered {news}, but counts {status['outcomes']}")


def check_exits(world: World) -> None:
    """Every bridge that was told to end has ended, and says how."""
    for process in world.processes:
        if process.is_alive:
            world.break_rule(f"{process.name} never ended")
        elif process.exit_code is None:
            continue
        elif process.output.is_gone and process.exit_code in (0, 74, 75):
            continue
        elif process.exit_code not in (0, 75):
            world.break_rule(f"{process.name} ended with {process.exit_code}")
