"""Arbitrary interleavings of requests, answers, losses, crashes, restarts and neighbours.

Whatever happens: nobody is told a falsehood, no task is delivered more than twice, nothing is lost.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.core.model import DONE, Exchange, Listing, Look
from tests.world import (
    ENDPOINT,
    IMAGE,
    KEY,
    LOST_ANSWER,
    LOST_REQUEST,
    OTHER_KEY,
    RECAPTCHA,
    STALLED,
    STALLED_TAKEN,
    TAKEN,
    UNREACHED,
    Bridge,
    Fate,
    World,
    http,
    scratch_directory,
    verdict,
)

FATES = (
    TAKEN,
    TAKEN,
    UNREACHED,
    LOST_ANSWER,
    LOST_REQUEST,
    STALLED,
    STALLED_TAKEN,
    Fate(True, http(200)),
    Fate(True, http(500)),
    Fate(False, http(503, retry_after="2")),
    Fate(False, http(429, retry_after="3")),
    Fate(False, http(408)),
    Fate(False, http(404)),
    Fate(False, verdict(91, "ERROR_RATE_LIMIT")),
    Fate(False, verdict(16, "ERROR_NO_SUCH_CAPCHA_ID")),
    Fate(False, Exchange("window", False)),
    Fate(False, Exchange("certificate", False)),
)
TASKS = st.integers(1, 5)
KEYS = st.sampled_from([KEY, KEY, OTHER_KEY])


class ReportMachine(RuleBasedStateMachine):
    """Up to three bridges on one ledger against one upstream."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=scratch_directory())
        self.path = f"{self.directory.name}/ledger.sqlite3"
        self.world = World()
        self.bridges: list[Bridge] = []
        self.asked: list[tuple[Bridge, int, list[Any]]] = []
        self.judged = 0

    @initialize(fates=st.lists(st.sampled_from(FATES), max_size=60), pauses=st.booleans())
    def begin(self, fates: list[Fate], pauses: bool) -> None:
        """One bridge starts; the fates of the attempts are laid out."""
        self.world.upstream.fates = iter(fates)
        self.pauses = pauses
        self.start()

    def start(self) -> None:
        """Start one more bridge; it holds the usual key in its settings."""
        self.bridges.append(Bridge(self.world, self.path, concurrency=2, pauses=self.pauses, holds=(KEY,)))

    @precondition(lambda self: len(self.bridges) < 3)
    @rule()
    def add_bridge(self) -> None:
        """A neighbour starts."""
        self.start()

    @precondition(lambda self: self.bridges)
    @rule(
        which=st.integers(0, 2),
        task=TASKS,
        key=KEYS,
        age=st.none() | st.floats(-5, 70),
        recaptcha=st.booleans(),
    )
    def report(self, which: int, task: int, key: Any, age: float | None, recaptcha: bool) -> None:
        """A bot asks for a report."""
        bridge = self.bridges[which % len(self.bridges)]
        told = {} if age is None else {"completed_at": bridge.engine.wall() - age}
        # The upstream does not know of the two accounts' ids what the other does.
        number = task if key is KEY else task + 100
        if age is not None:
            self.world.upstream.completed.setdefault(number, self.world.t - max(age, 0.0))
        got = bridge.report(number, RECAPTCHA if recaptcha else IMAGE, key=key, name=("n", task), **told)
        self.asked.append((bridge, number, got))

    @precondition(lambda self: self.bridges)
    @rule(which=st.integers(0, 2), task=TASKS)
    def cancel(self, which: int, task: int) -> None:
        """A bot changes its mind."""
        self.bridges[which % len(self.bridges)].service.cancel(("n", task))

    @rule(seconds=st.sampled_from([0.0, 0.04, 0.3, 1.1, 6.0, 25.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.run(seconds)

    @precondition(lambda self: self.bridges)
    @rule(which=st.integers(0, 2))
    def crash(self, which: int) -> None:
        """A bridge is killed."""
        bridge = self.bridges.pop(which % len(self.bridges))
        bridge.crash()

    @precondition(lambda self: self.bridges)
    @rule(which=st.integers(0, 2))
    def stop(self, which: int) -> None:
        """A bridge ends its drain."""
        bridge = self.bridges.pop(which % len(self.bridges))
        bridge.service.stop()
        self.world.run(0.0)
        bridge.crash()

    @invariant()
    def nobody_is_told_a_falsehood(self) -> None:
        """Every answer is checked against what the upstream had done at that moment."""
        for bridge, number, got in self.asked:
            if got and got[0] is not None:
                self.check(bridge, number, got)

    def check(self, bridge: Bridge, number: int, got: list[Any]) -> None:
        """Judge one answer, once, at the moment it came."""
        answer = got[0]
        got[0] = None
        assert len(got) == 1, "answered twice"
        at = next(when for when, task, told in bridge.answers if told is answer and task == number)
        calls = [call for call in self.world.upstream.calls if call.task_id == number and call.at <= at]
        taken = any(call.taken for call in calls)
        note(f"{number}: {answer.result or (answer.code, answer.data)}")
        if answer.result is not None:
            assert taken
            return
        outcome = answer.data["outcome"]
        if answer.data["kind"] == "task_conflict" and outcome == "accepted":
            assert taken
        elif outcome in ("refused", "not_sent"):
            assert not taken, (number, answer.data)
        assert answer.data["retryable"] is False or not calls or outcome == "not_sent"

    @invariant()
    def nothing_is_delivered_more_than_twice(self) -> None:
        """Two complete sends are the most for one task."""
        for number in {call.task_id for call in self.world.upstream.calls}:
            assert sum(call.task_id == number for call in self.world.upstream.calls) <= 2

    def teardown(self) -> None:
        """In the end every request that nobody killed is answered and every row has its outcome."""
        try:
            if hasattr(self, "pauses"):
                self.settle()
        finally:
            for bridge in self.bridges:
                bridge.crash()
            self.directory.cleanup()

    def settle(self) -> None:
        """Let everything end and look at the ledger."""
        self.start()
        self.world.run(130.0)
        self.nobody_is_told_a_falsehood()
        self.nothing_is_delivered_more_than_twice()
        for bridge, number, got in self.asked:
            assert got or not bridge.alive, f"task {number} was never answered"
        rows, _ = self.bridges[-1].store.transact([Listing(ENDPOINT, limit=1000)])[0]
        for row in rows:
            number = row.task.task_id
            assert row.state == DONE, row
            assert row.attempts <= 4
            if row.outcome == "accepted":
                assert self.world.upstream.taken(number), row
            elif row.outcome in ("refused", "not_sent"):
                assert not self.world.upstream.taken(number), row
            assert self.bridges[-1].store.transact([Look(row.task)])[0] is not None


ReportMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("REPORT_MACHINE_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    # Shrinking a story of thirty steps takes minutes, and the story as it was found tells enough.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestReports = ReportMachine.TestCase
