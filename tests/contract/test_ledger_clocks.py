"""Clocks that are wrong: whatever they said in other boots, nothing is sent late, twice, or forgotten."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.errors import pause_rules
from bridge.core.model import (
    DONE,
    GUARD_S,
    NOT_SENT,
    Begin,
    Claim,
    Ending,
    Facts,
    Listing,
    Look,
    Prune,
    Record,
    Settle,
    Sweep,
    Task,
    Verdict,
    Window,
)
from bridge.ledger.postgres import GRACE_S
from bridge.ledger.sqlite import SqliteStore
from bridge.reports.pauses import PausePolicy
from tests.ledgers import BACKENDS, find_damage, make_of
from tests.world import server_store

ENDPOINT = "https://upstream.test"
ACCOUNT = "a" * 32
IMAGE = "reportIncorrectImageCaptcha"
DAY = 86_400.0
TRUE_START = 1_800_000_000.0
WINDOW_S = 60.0
TAKEN = Ending("accepted", 0, "accepted")
REFUSED = Ending("refused", 1, "key_refused")
UNSENT = Ending(NOT_SENT, -32001, "upstream_unreachable")
GOOD = Verdict("accepted", 0, "accepted", "accepted", "done", False, True, True, True)
NO_DNS = Verdict(NOT_SENT, -32001, "upstream_unreachable", "dns", "again", False, False, False, False)
TASK = Task(ENDPOINT, ACCOUNT, 7)


_BOOTS = itertools.count()
"""No boot has the name of another one."""


class Machine:
    """One machine with a true time that nobody there knows, and boots with wrong clocks."""

    def __init__(self, place: str, pauses: bool = False) -> None:
        self.place = place
        self.pauses = pauses
        self.is_server = self.place.startswith("postgresql:")
        self.true = TRUE_START
        self.booted_at = self.true
        self.wrong_s = 0.0
        self.store: Any = None

    def boot(self, wrong_s: float) -> Any:
        """Start again: nothing is alive any more, and the clock says what it says."""
        if self.store is not None:
            if not self.is_server:
                self.store._owners.release()
            self.store.close()
        self.booted_at, self.wrong_s = self.true, wrong_s
        told: dict[str, Any] = {
            "policy": PausePolicy("machine", enabled=self.pauses),
            "boot_clock": lambda: self.true - self.booted_at,
            "wall_clock": lambda: self.true + self.wrong_s,
        }
        if self.is_server:
            # The server has no boots of ours: what is wrong is its own clock.
            told["wall_clock"] = lambda: self.true
            self.store = server_store(lambda: self.true + self.wrong_s)(self.place, **told)
        else:
            boot = f"boot {next(_BOOTS)}"
            self.store = SqliteStore(self.place, boot_id=lambda: boot, **told)
        self.true += GRACE_S + 0.1
        return self.store

    def claim(self, age_s: float | None = 0.0, begin: bool = True) -> Any:
        """Ask for the task, that was completed so many seconds ago by true time."""
        now = self.now
        window = Window(None, now) if age_s is None else Window(now + WINDOW_S - age_s, None)
        return self.do(Claim(TASK, IMAGE, window, Facts(), begin))

    def do(self, op: Any) -> Any:
        return self.store.transact([op])[0]

    @property
    def now(self) -> float:
        """The ledger's time."""
        return self.true - self.booted_at + float(self.store.clock_offset_s)

    def row(self) -> Any:
        return self.do(Look(TASK))


def place_of(kind: str, request: pytest.FixtureRequest) -> str:
    """A new ledger of a kind: its file, or its address."""
    return str(make_of(kind, request)())


@pytest.fixture(params=BACKENDS)
def machine(request: pytest.FixtureRequest) -> Any:
    """A machine that boots with the right time first."""
    made = Machine(place_of(request.param, request))
    yield made
    made.store.close()


@pytest.mark.parametrize("wrong_s", [-400 * DAY, -3600.0, -30.0, 30.0, 3600.0, 400 * DAY])
@pytest.mark.parametrize("was_begun", [False, True])
def test_window_of_another_boot_is_over(machine: Machine, wrong_s: float, was_begun: bool) -> None:
    """Whatever the clock said when a report was left, two minutes later it is not sent any more."""
    machine.boot(wrong_s)
    machine.claim(begin=was_begun)
    machine.true += 120.0
    machine.boot(0.0)
    adopted = machine.claim(age_s=None)
    assert (adopted.status, adopted.gate.status) == ("adopted", "late")
    assert machine.do(Begin(TASK)).gate.status == "late"


@pytest.mark.parametrize("wrong_s", [-400 * DAY, 3600.0, 400 * DAY])
def test_what_another_boot_left_is_ended_by_who_has_no_key(machine: Machine, wrong_s: float) -> None:
    """A report that nobody can resume gets its outcome in the next boot, not when a wrong time has come."""
    machine.boot(wrong_s)
    machine.claim()
    machine.true += 120.0
    machine.boot(0.0)
    (ended,) = machine.do(Sweep(ENDPOINT, frozenset())).settled
    assert (ended.state, ended.outcome) == (DONE, "unknown")


@pytest.mark.parametrize("wrong_s", [-400 * DAY, -2 * DAY, -3600.0])
def test_a_boot_with_a_clock_behind_does_not_undo_the_guard(machine: Machine, wrong_s: float) -> None:
    """What is asked for while the clock is wrong is known then, and when it is right again, with its time."""
    machine.boot(0.0)
    machine.claim()
    machine.do(Record(TASK, GOOD, 0.0, 5, TAKEN))
    for error_s in (wrong_s, 0.0):
        machine.true += 60.0
        machine.boot(error_s)
        known = machine.claim()
        assert known.status == "known"
        assert abs(known.row.finished_wall - known.row.recorded_wall) < 1.0
    machine.true += GUARD_S
    assert machine.claim().status == "new"


@pytest.mark.parametrize("wrong_s", [-400 * DAY, -3600.0, 0.0, 3600.0, 400 * DAY])
@pytest.mark.parametrize("then_s", [-400 * DAY, 0.0, 400 * DAY])
def test_guard_holds_in_the_next_boot_and_ends(machine: Machine, wrong_s: float, then_s: float) -> None:
    """A task that was taken is not sent again a minute later; an id that comes back is free.

    Where the clock was ahead by less than a day, it is free that much later.
    """
    machine.boot(wrong_s)
    machine.claim()
    machine.do(Record(TASK, GOOD, 0.0, 5, TAKEN))
    machine.true += 60.0
    machine.boot(then_s)
    is_told = not (then_s - wrong_s > GUARD_S)  # a clock that says a day has passed is believed
    assert (machine.claim().status == "known") is is_told
    ahead_s = wrong_s - then_s
    machine.true += GUARD_S + 120.0 + (ahead_s if 0.0 < ahead_s < GUARD_S else 0.0)
    if is_told:
        assert machine.claim().status == "new"


def test_history_outlives_a_clock_that_is_ahead(machine: Machine) -> None:
    """In a boot whose clock has jumped over months nothing is deleted in the first day."""
    machine.boot(0.0)
    machine.claim()
    machine.do(Record(TASK, GOOD, 0.0, 5, TAKEN))
    machine.true += 60.0
    store = machine.boot(400 * DAY)
    before = Prune(machine.true + machine.wrong_s - 90 * DAY)
    assert machine.do(before) == 0
    machine.true += DAY + 1.0
    assert machine.do(before) == 1
    assert store.transact([Listing(None)])[0] == ((), None)


class Boot(NamedTuple):
    """One life of the machine."""

    wrong_s: float
    steps: tuple[str, ...]


CLOCKS = st.sampled_from([-400 * DAY, -2 * DAY, -3600.0, -30.0, 0.0, 0.0, 30.0, 3600.0, 2 * DAY, 400 * DAY])
STEPS = st.sampled_from(["claim", "claim", "begin", "fail", "take", "settle", "sweep", "s1", "s20", "s90"])
BOOTS = st.lists(st.builds(Boot, CLOCKS, st.lists(STEPS, max_size=8).map(tuple)), min_size=1, max_size=4)


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 120), ("postgres", 40)])
def test_no_attempt_after_the_window_by_any_clock_that_can_be_known(
    request: pytest.FixtureRequest, kind: str, examples: int
) -> None:
    """Over boots with any clocks, no attempt begins long after the window of the first request."""
    ledger = make_of(kind, request)()

    @settings(max_examples=examples)
    @given(BOOTS)
    def try_all(boots: list[Boot]) -> None:
        ledger.select("DELETE FROM events")
        ledger.select("DELETE FROM reports")
        live_through(Machine(str(ledger)), boots)

    try_all()


def live_through(machine: Machine, boots: list[Boot]) -> None:
    """Live through the boots; what must not happen is asserted at every step."""
    asked_at: float | None = None
    for wrong_s, steps in boots:
        machine.boot(wrong_s)
        for step in steps:
            gate = None
            if step == "claim":
                claimed = machine.claim(age_s=None)
                gate = claimed.gate
                if claimed.status == "new":
                    asked_at = machine.true
            elif step == "begin":
                gate = machine.do(Begin(TASK)).gate
            elif step in ("fail", "take"):
                verdict, ending = (GOOD, TAKEN) if step == "take" else (NO_DNS, None)
                machine.do(Record(TASK, verdict, 0.0, 5, ending))
            elif step == "settle":
                machine.do(Settle(TASK, UNSENT))
            elif step == "sweep":
                machine.do(Sweep(ENDPOINT, frozenset({ACCOUNT})))
            else:
                machine.true += float(step[1:])
            row = machine.row()
            if gate is not None and gate.status == "begun":
                assert asked_at is not None
                # A clock that was set in between by less than a minute cannot be known to be wrong.
                assert machine.true - asked_at <= WINDOW_S + 30.0
            if row is not None:
                assert row.attempts <= 4
                assert (row.owner is None) == (row.state == DONE)
        assert find_damage(machine.place) == ()
    machine.boot(0.0)
    machine.true += 200.0
    machine.do(Sweep(ENDPOINT, frozenset()))
    row = machine.row()
    assert row is None or row.state == DONE, "every report gets its outcome"
    machine.store.close()


BANS = st.sampled_from(["key_refused", "address_blocked", "key_balance"])
PAUSING = st.lists(
    st.tuples(CLOCKS, st.lists(BANS | st.sampled_from(["s20", "s90", "s4000"]), max_size=6)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 60), ("postgres", 30)])
def test_no_pause_outlasts_its_rule_by_any_clock(
    request: pytest.FixtureRequest, kind: str, examples: int
) -> None:
    """Whatever clocks opened a pause, in the next boot it ends within the longest time of its rule."""
    ledger = make_of(kind, request)()

    @settings(max_examples=examples)
    @given(PAUSING)
    def try_all(boots: list[tuple[float, list[str]]]) -> None:
        for table in ("events", "reports", "pauses"):
            ledger.select(f"DELETE FROM {table}")
        machine = Machine(str(ledger), pauses=True)
        number = 0
        for wrong_s, steps in [*boots, (0.0, ["key_refused"])]:
            machine.boot(wrong_s)
            for step in steps:
                if step.startswith("s"):
                    machine.true += float(step[1:])
                    continue
                number += 1
                task = Task(ENDPOINT, ACCOUNT, number)
                window = Window(machine.now + WINDOW_S, None)
                gate = machine.do(Claim(task, IMAGE, window, Facts(), True)).gate
                if gate.status == "begun":
                    machine.do(Record(task, refusal(step), machine.now, 5, REFUSED))
                    continue
                machine.do(Settle(task, UNSENT))
                if gate.status == "paused" and gate.until is not None:
                    rule = pause_rules()[gate.pause.key.rule]
                    assert rule.max_s is not None
                    assert gate.until - machine.now <= rule.max_s
        machine.store.close()

    try_all()


def refusal(rule: str) -> Verdict:
    """A verdict of the upstream that feeds a pause."""
    return Verdict("refused", 1, rule, rule, "done", False, True, True, True, rule)
