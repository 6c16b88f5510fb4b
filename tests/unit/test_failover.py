"""What the ledger promises while one of its stores is in trouble."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.core.counting import HOUR_S, Counts, Note, Tallies
from bridge.core.model import (
    DONE,
    NOT_SENT,
    QUEUED,
    SENDING,
    WAITING,
    Begin,
    Ending,
    Listing,
    Look,
    Narrow,
    Pauses,
    Resume,
    Settle,
    Sweep,
    Window,
)
from bridge.ledger.failover import MAX_RETRY_S, PROBE_BUSY_S, Failover
from bridge.ledger.outbox import CHUNK
from bridge.ledger.port import Ask, Failed, Restore, Unavailable
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.translation import Accounts
from bridge.ledger.trouble import READABLE, SENTENCES, UNREADABLE, LedgerTrouble
from tests.shaky_store import (
    ENDPOINT,
    OK,
    OTHER_METHOD,
    UNSENT,
    ShakyStore,
    Still,
    Times,
    claim,
    open_memory,
    record,
    task,
)

INSTANCE = "0" * 24
UNGUARDED = sorted(set(SENTENCES) - READABLE)
REFUSED = Ending("refused", 1, "key_refused")


def fail_oddly(_: str) -> Any:
    """Fail as nothing that is expected does."""
    raise ZeroDivisionError


class Scene:
    """A pair over a shaky store, with clocks that move by hand."""

    def __init__(
        self, require: bool = False, at_start: str | None = None, pauses: bool = True, sick: str | None = None
    ) -> None:
        self.times = Times()
        self.pauses = pauses
        self.store = self.new_store()
        self.open_fails = at_start
        self.opened = 0
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.bugs: list[BaseException] = []
        self.accounts = Accounts()
        if sick is not None:
            self.store.store.transact([claim(), record()])
            self.store.trouble, self.store.fail = LedgerTrouble(sick), sick
        self.failover = self.make(self.open, require)
        self.failover.open()

    def make(self, open_primary: Any, require: bool = False, open_memory: Any = None) -> Failover:
        """A pair over what is opened so."""
        return Failover(
            open_primary,
            open_memory or self.open_memory,
            self.accounts,
            name_instance=lambda: INSTANCE,
            require=require,
            tell=lambda name, fields: self.events.append((name, fields)),
            on_bug=self.on_bug,
            retry_s=1.0,
            clock=Still(self.times),
        )

    def open_memory(self, name: str) -> SqliteStore:
        return open_memory(self.times, self.pauses, name)

    def new_store(self) -> ShakyStore:
        return ShakyStore(self.open_memory(INSTANCE))

    def add_other_bridge(self, operations: Sequence[Any]) -> None:
        """Let another bridge, which lives on, do something in the ledger."""
        store = self.store.store
        store.is_alive = lambda instance: True
        mine, store.instance = store.instance, open_memory(self.times).instance
        store.transact(operations)
        store.instance = mine

    def on_bug(self, error: BaseException) -> str:
        self.bugs.append(error)
        return "reference"

    def open(self, instance: str) -> ShakyStore:
        assert instance == INSTANCE
        self.opened += 1
        if self.open_fails is not None:
            raise LedgerTrouble(self.open_fails)
        return self.store

    def do(self, op: Any) -> Any:
        return self.failover.run([op])[0]

    def fail(self, kind: str | None, is_openable: bool = True) -> None:
        """Break or mend the ledger; a replaced one gets an empty successor, if it can be opened."""
        self.store.fail = kind
        if not is_openable:
            self.open_fails = kind

    def heal(self) -> None:
        self.store.fail = self.open_fails = None
        self.times.move(MAX_RETRY_S)
        self.failover.tend()

    def row(self, number: int = 1) -> Any:
        """What is in the ledger itself."""
        return self.store.store.transact([Look(task(number))])[0]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@pytest.fixture(autouse=True)
def _no_bugs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fail a test whose scene met an unexpected exception, unless it provokes one."""
    scenes: list[Scene] = []
    start = Scene.__init__

    def remember(self: Scene, *args: Any, **named: Any) -> None:
        start(self, *args, **named)
        scenes.append(self)

    monkeypatch.setattr(Scene, "__init__", remember)
    yield
    if "bug" not in request.node.name:
        assert [scene.bugs for scene in scenes if scene.bugs] == []


# --- good days -----------------------------------------------------------------------------------


def test_good_days_commit_a_batch_at_once() -> None:
    """Operations of one batch share one commit and are durable."""
    scene = Scene(pauses=False)
    results = scene.failover.run([claim(1), claim(2), record(1), Look(task(1))])
    assert [r.status for r in results[:3]] == ["new", "new", "ok"]
    assert all(r.durable for r in results[:3])
    assert results[3].state == DONE
    assert len(scene.store.commits) == 1
    assert scene.events == []


def test_memory_by_choice_is_well_but_not_durable() -> None:
    """A ledger that is wanted in memory has no trouble and promises nothing."""
    scene = Scene()
    failover = scene.make(None)
    failover.open()
    claimed, recorded = failover.run([claim(), record()])
    assert (claimed.durable, claimed.guarded, recorded.durable) == (False, True, False)
    assert failover.outbox.trouble is None
    assert not failover.outbox.is_durable
    assert scene.events == []


def test_store_that_promises_nothing_is_not_quoted_otherwise() -> None:
    """Nothing is called durable in a store that is not, whatever its results say."""
    scene = Scene()
    scene.store.durable = False
    assert not scene.do(claim()).durable
    assert not scene.do(record()).durable


# --- trouble at a claim --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_claim_in_trouble_is_sent_and_owed(kind: str) -> None:
    """A new report goes on in any trouble, tells what is not promised, and is written later."""
    scene = Scene()
    scene.fail(kind, is_openable=False)
    claimed = scene.do(claim())
    assert (claimed.status, claimed.gate.status, claimed.durable) == ("new", "begun", False)
    assert claimed.guarded is (kind in READABLE)
    recorded = scene.do(record())
    assert (recorded.status, recorded.durable, recorded.row.outcome) == ("ok", False, "accepted")
    assert scene.failover.outbox.owed == 1
    assert scene.row() is None
    scene.heal()
    row = scene.row()
    assert (row.outcome, row.attempts, row.sends, row.owner) == ("accepted", 1, 1, None)
    assert scene.failover.outbox.owed == 0
    assert scene.events[-1][0] == "ledger_recovered"
    assert scene.events[-1][1]["owed"] == 1


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_tasks_noted_in_trouble_are_counted_later_and_reports_once(kind: str) -> None:
    """Notes are kept by the hour and added when the ledger works again, as are reports that ended."""
    scene = Scene()
    scene.do(claim(2))
    scene.fail(kind, is_openable=False)
    whose, at = claim().task._replace(task_id=0), scene.times.wall - 7_200.0
    scene.failover.run([Note(whose, "image", at, Counts(tasks=1)) for _ in range(50)])
    scene.do(Note(whose, "image", at + 3_600.0, Counts(tasks=1)))
    scene.failover.run([claim(), record()])
    assert type(scene.do(Tallies(whose.endpoint, whose.account))) is tuple
    scene.heal()
    [known] = scene.do(Tallies(whose.endpoint, whose.account))
    hours = [row.counts for row in known.tallies if row.width_s == HOUR_S]
    assert sorted(counts.tasks for counts in hours if counts.tasks) == [1, 50]
    assert sum(counts.sent for counts in hours) == 1


@pytest.mark.parametrize("kind", sorted(SENTENCES))
@pytest.mark.parametrize("ended_in", ["good days", "bad days"])
def test_what_has_ended_is_not_sent_again_in_trouble(kind: str, ended_in: str) -> None:
    """The ledger's word, as durable as it is there, or this process's own answers for a task; owed or not."""
    scene = Scene()
    if ended_in == "bad days":
        scene.fail(kind, is_openable=False)
    scene.failover.run([claim(), record()])
    scene.fail(kind, is_openable=False)
    known = scene.do(claim())
    is_readable = kind in READABLE
    assert (known.status, known.row.outcome, known.guarded) == ("known", "accepted", is_readable)
    assert known.durable is (is_readable and ended_in == "good days")
    assert scene.do(claim(method=OTHER_METHOD)).status == "conflict"


@pytest.mark.parametrize("kind", ["locked", "full", "full from the start"])
def test_own_memory_forgets_after_the_guard(kind: str) -> None:
    """An id that comes back a day later is a new task without the ledger, too, though its outcome is owed."""
    scene = Scene(pauses=False)
    if kind == "full from the start":
        scene.fail("full")
    scene.failover.run([claim(), record()])
    scene.fail(kind.partition(" ")[0])
    scene.times.move(86_401)
    assert scene.do(claim()).status == "new"
    assert scene.failover.outbox.owed == 0
    scene.do(record())
    assert scene.failover.outbox.owed == 1


def test_window_of_an_id_that_has_come_back_holds_in_trouble() -> None:
    """What was told off in memory keeps its window, though the ledger has a former report of the id."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(), record()])
    scene.fail("full")
    scene.times.move(86_401)
    over, late = Window(1.0, None), Ending("not_sent", -32010, "window_closed")
    told_off = claim(begin=False)._replace(window=over, refusal=late)
    assert scene.do(told_off).status == "refused"
    again = scene.do(claim())
    assert (again.status, again.gate.status, again.row.window.until) == ("again", "late", 1.0)


def test_refusal_in_trouble_is_recorded_later() -> None:
    """A local refusal is answered at once and written when it can be."""
    scene = Scene()
    scene.fail("full")
    claimed = scene.do(claim(begin=False)._replace(refusal=UNSENT))
    assert (claimed.status, claimed.durable) == ("refused", False)
    scene.heal()
    assert (scene.row().outcome, scene.row().kind) == ("not_sent", "upstream_unreachable")


def test_task_not_sent_may_be_tried_again_in_trouble() -> None:
    """A report that was certainly not sent begins again, and both lives count for the attempts."""
    scene = Scene(pauses=False)
    scene.fail("full")
    scene.failover.run([claim(), record(ending=UNSENT)])
    again = scene.do(claim())
    assert (again.status, again.row.attempts, again.gate.status) == ("again", 2, "begun")
    scene.do(record())
    scene.heal()
    assert (scene.row().outcome, scene.row().attempts) == ("accepted", 2)
    assert scene.failover.outbox.owed == 0


@pytest.mark.parametrize(("before", "kind"), [(0, "full"), (3, "full"), (3, "locked")])
def test_attempts_of_a_life_end_in_trouble_too(before: int, kind: str) -> None:
    """No fifth attempt begins, wherever the first four were: a task that was not sent brings them along."""
    scene = Scene(pauses=False)
    for made in range(4):
        if made == before:
            scene.fail(kind)
        assert scene.do(claim()).row.attempts == made + 1
        scene.do(record(ending=UNSENT))
    assert scene.do(claim()).gate.status == "spent"


# --- trouble in the middle -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_outcome_that_cannot_be_written_is_answered_and_owed(kind: str) -> None:
    """A report begun in good days ends in bad ones without loss; until then others see it as ours."""
    scene = Scene()
    scene.do(claim())
    scene.fail(kind, is_openable=False)
    recorded = scene.do(record())
    assert (recorded.status, recorded.durable) == ("ok", False)
    assert (recorded.row.attempts, recorded.row.sends) == (1, 1)
    if kind not in ("replaced", "corrupt", "foreign"):
        assert (scene.row().state, scene.row().owner) == (SENDING, scene.store.instance)
    scene.heal()
    assert (scene.row().outcome, scene.row().attempts, scene.row().sends) == ("accepted", 1, 1)
    assert scene.names[-1] == "ledger_recovered"


def test_retry_begins_in_trouble_and_counts() -> None:
    """A report that was waiting for its next attempt goes on with all it has behind it."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(), record(ending=None, perhaps=True)])
    scene.fail("full")
    begun = scene.do(Begin(task()))
    assert (begun.gate.status, begun.durable, begun.guarded) == ("begun", False, True)
    assert (begun.row.state, begun.row.attempts, begun.row.sends, begun.row.perhaps) == (SENDING, 2, 1, True)
    assert scene.do(Begin(task())).gate.status == "lost"
    scene.do(record(ending=None, is_send=False))
    assert scene.do(Look(task())).state == WAITING
    scene.do(Begin(task()))
    scene.do(record(is_send=False))
    scene.heal()
    row = scene.row()
    assert (row.outcome, row.attempts, row.sends, row.perhaps) == ("accepted", 3, 1, True)


def test_second_send_is_the_last_in_trouble() -> None:
    """No third complete send begins, wherever the first two were."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(), record(ending=None, perhaps=True)])
    scene.fail("locked")
    scene.failover.run([Begin(task()), record(ending=None, perhaps=True)])
    assert scene.do(Begin(task())).gate.status == "spent"


def test_settled_in_trouble_is_settled_later() -> None:
    """The end of a window is told at once and written when it can be."""
    scene = Scene()
    scene.do(claim(begin=False))
    scene.fail("full")
    assert scene.do(Settle(task(), UNSENT)).status == "ok"
    assert scene.do(Settle(task(), UNSENT)).status == "lost"
    scene.heal()
    assert scene.row().outcome == NOT_SENT


def test_operation_on_an_unknown_report_is_lost() -> None:
    """What was never ours is not made up in bad days."""
    scene = Scene()
    scene.fail("full")
    assert scene.do(Begin(task())).gate.status == "lost"
    assert scene.do(record()).status == "lost"


def test_report_begun_in_memory_ends_durable_if_the_ledger_is_back() -> None:
    """Healing in the middle of a report makes its outcome durable, with the intent written first."""
    scene = Scene()
    scene.fail("locked")
    scene.do(claim())
    scene.heal()
    assert (scene.row().state, scene.row().owner) == (SENDING, scene.store.instance)
    recorded = scene.do(record())
    assert (recorded.status, recorded.durable) == ("ok", True)
    assert scene.row().outcome == "accepted"
    assert scene.failover.outbox.held == {}


def test_commit_whose_answer_was_lost_is_not_counted_twice() -> None:
    """A claim that was committed although it failed is ours, and no attempt of it was made."""
    scene = Scene(pauses=False)
    scene.store.fails_after_commit = True
    scene.fail("full")
    claimed = scene.do(claim())
    assert (claimed.status, claimed.row.owner, claimed.row.state) == ("elsewhere", INSTANCE, QUEUED)
    assert scene.do(Begin(task())).row.attempts == 1
    scene.do(record())
    scene.heal()
    assert (scene.row().outcome, scene.row().owner, scene.row().attempts) == ("accepted", None, 1)
    assert scene.failover.outbox.owed == 0


# --- pauses --------------------------------------------------------------------------------------


def refused_key(number: int = 1) -> Any:
    """A verdict that pauses the key."""
    return record(number, REFUSED, pause="key_refused", error_id=1, has_verdict=True, has_status=True)


@pytest.mark.parametrize("kind", sorted(SENTENCES))
def test_pause_known_before_holds_in_trouble(kind: str) -> None:
    """A refused key is not called again, whatever the ledger's trouble; another key is."""
    scene = Scene()
    scene.failover.run([claim(1), refused_key()])
    scene.fail(kind, is_openable=False)
    claimed = scene.do(claim(2))
    assert (claimed.status, claimed.gate.status, claimed.guarded) == ("new", "paused", kind in READABLE)
    assert claimed.gate.pause.key.rule == "key_refused"
    assert scene.do(Begin(task(2))).gate.status == "paused"
    assert [p.key.rule for p in scene.do(Pauses(ENDPOINT)) if p.key.rule != "proof"] == ["key_refused"]
    assert scene.do(claim(3, account="b" * 32)).gate.status == "begun"


@pytest.mark.parametrize("kind", ["full", "locked"])
def test_refusal_in_trouble_opens_a_pause(kind: str) -> None:
    """A wrong key costs one call, and stays paused when the ledger is back."""
    scene = Scene()
    scene.fail(kind)
    scene.do(claim())
    assert [event.name for event in scene.do(refused_key()).events] == ["pause_opened"]
    assert scene.do(claim(2)).gate.status == "paused"
    scene.heal()
    assert scene.do(claim(3)).gate.status == "paused"


def test_refusal_of_a_report_begun_before_the_trouble_opens_a_pause() -> None:
    """What a report of good days teaches in bad ones is learnt for the bad ones too."""
    scene = Scene()
    scene.do(claim())
    scene.fail("locked")
    assert [event.name for event in scene.do(refused_key()).events] == ["pause_opened"]
    assert scene.do(claim(2)).gate.status == "paused"


def test_probe_whose_end_could_not_be_written_blocks_nobody() -> None:
    """The first report of a key proves it also if the full ledger could not be told."""
    scene = Scene()
    scene.do(claim())
    assert scene.do(claim(2)).gate.status == "busy"
    scene.fail("full")
    assert scene.do(Begin(task(2))).gate.status == "busy"
    scene.do(record())
    assert scene.do(Begin(task(2))).gate.status == "begun"


def test_a_pause_of_an_unwritable_ledger_is_resumed_in_memory() -> None:
    """A person's word counts although it cannot be written; it is written as soon as it can be."""
    scene = Scene()
    scene.failover.run([claim(1), refused_key()])
    scene.fail("full")
    assert scene.do(claim(2)).gate.status == "paused"
    (resumed,) = scene.do(Resume(ENDPOINT, None, None))
    assert resumed.key.rule == "key_refused"
    assert scene.do(Begin(task(2))).gate.status == "begun"
    scene.heal()
    states = {state.key: state.state for state in scene.do(Pauses(ENDPOINT))}
    assert states[resumed.key] == "probing"


# --- coming back ---------------------------------------------------------------------------------


def test_trouble_and_its_end_are_told_once() -> None:
    """One change is one event, however many operations meet it."""
    scene = Scene(pauses=False)
    scene.fail("full")
    for number in range(1, 6):
        scene.failover.run([claim(number), record(number)])
        scene.times.move(1.0)
        scene.failover.tend()
    scene.heal()
    assert scene.names == ["ledger_degraded", "ledger_recovered"]
    degraded, recovered = scene.events[0][1], scene.events[1][1]
    assert (degraded["state"], degraded["operation"]) == ("full", "written")
    assert degraded["sentence"] == SENTENCES["full"]
    assert (recovered["state"], recovered["owed"]) == ("ok", 5)
    assert recovered["down_s"] == pytest.approx(5.0 + MAX_RETRY_S)


def test_trouble_that_changes_is_told_again() -> None:
    """A full ledger that becomes locked is two troubles and one recovery."""
    scene = Scene()
    scene.fail("full")
    scene.do(claim())
    scene.fail("locked")
    scene.times.move(1.0)
    scene.failover.tend()
    scene.do(record())
    scene.heal()
    assert [fields["state"] for _, fields in scene.events] == ["full", "locked", "ok"]
    assert scene.events[1][1]["operation"] == "read"


def test_ledger_in_trouble_is_left_alone_between_tries() -> None:
    """The ledger is tried once in a retry interval, with little patience for locks."""
    scene = Scene(pauses=False)
    scene.fail("locked")
    scene.do(claim())
    tries = scene.store.tries
    assert scene.store.busy_s == PROBE_BUSY_S
    assert scene.failover.tend() == pytest.approx(1.0)
    for number in range(2, 10):
        scene.do(claim(number))
    assert scene.store.tries == tries
    scene.times.move(1.0)
    scene.failover.tend()
    assert scene.store.tries == tries + 1
    scene.heal()
    assert scene.store.busy_s == 2.0


@pytest.mark.parametrize(("lasts_s", "rests_s"), [(2.0, 8.0), (100.0, MAX_RETRY_S)])
def test_slow_tries_become_rare(lasts_s: float, rests_s: float) -> None:
    """Tries that take long leave most of the time to those who want answers, but none is put off for ever."""
    scene = Scene()
    scene.fail("locked")
    scene.do(claim())
    scene.times.move(1.0)
    run = scene.store.transact

    def wait_for_lock(operations: Any) -> list[Any]:
        scene.times.move(lasts_s)
        return run(operations)

    scene.store.transact = wait_for_lock  # type: ignore[method-assign]
    assert scene.failover.tend() == pytest.approx(rests_s)
    scene.fail(None)
    scene.times.move(rests_s)
    scene.failover.tend()
    assert scene.failover.outbox.trouble is None


def test_outcome_that_the_ledger_knows_otherwise_is_given_up_and_counted() -> None:
    """If another bridge reported the task meanwhile, the ledger's word stays."""
    scene = Scene()
    scene.fail("locked")
    scene.failover.run([claim(), record()])
    scene.store.store.transact([claim(), record(ending=REFUSED)])
    scene.heal()
    assert scene.row().outcome == "refused"
    assert scene.failover.outbox.owed == 0
    assert "1 were known otherwise" in scene.events[-1][1]["sentence"]


def test_idle_ledger_recovers_without_anything_owed() -> None:
    """Trouble that left no debt ends by a write that changes nothing."""
    scene = Scene()
    scene.fail("locked")
    assert scene.do(Sweep(ENDPOINT, frozenset())).adopted == ()
    assert scene.failover.tend() == pytest.approx(1.0)
    scene.heal()
    assert scene.failover.outbox.is_durable
    assert scene.failover.tend() is None


def test_after_a_sweep_that_may_have_been_committed_it_looks_for_its_own() -> None:
    """The next sweep that works takes up what is ours and unknown; those after it do not look."""
    scene = Scene()
    known = scene.do(claim(1)).row.task
    scene.fail("unreadable")
    scene.do(Sweep(ENDPOINT, frozenset()))
    scene.heal()
    scene.failover.run([Sweep(ENDPOINT, frozenset()), claim(2)])
    scene.do(Sweep(ENDPOINT, frozenset()))
    sweeps = [op.ours for commit in scene.store.commits for op in commit if isinstance(op, Sweep)]
    assert sweeps[-2:] == [frozenset({known, known._replace(task_id=2)}), None]


# --- files that come and go ----------------------------------------------------------------------


def test_replaced_file_is_opened_at_once_and_live_reports_claimed_there() -> None:
    """A deleted ledger is made anew, and what is under way is written to it."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(1), claim(2, begin=False), record(1, ending=None, perhaps=True)])
    old = scene.store
    old.fail = "replaced"
    scene.store = scene.new_store()
    claimed = scene.do(claim(3))
    assert old.is_closed
    assert (claimed.status, claimed.durable, claimed.guarded) == ("new", True, True)
    assert {n: scene.row(n).state for n in (1, 2, 3)} == {1: WAITING, 2: QUEUED, 3: SENDING}
    begun = scene.do(Begin(task(1)))
    assert (begun.gate.status, begun.row.attempts, begun.row.perhaps) == ("begun", 2, True)
    recorded = scene.do(record(1))
    assert (recorded.durable, recorded.row.attempts) == (True, 2)
    assert scene.names == ["ledger_degraded", "ledger_recovered"]


def test_account_keeps_its_name_when_the_ledger_has_another_secret() -> None:
    """A ledger opened later uses names of its own, and nobody outside notices."""
    scene = Scene(at_start="unreadable")
    account = scene.accounts.name("k" * 32)
    scene.do(claim(account=account))
    scene.do(record(account=account))
    scene.heal()
    inside = scene.store.commits[-1][-1].row.task.account
    assert inside != account
    known = scene.do(claim(account=account))
    assert (known.status, known.row.task.account, known.durable) == ("known", account, True)
    rows, _ = scene.do(Listing(ENDPOINT))
    assert [row.task.account for row in rows] == [account]


def test_ledger_that_cannot_be_opened_is_tried_ever_more_rarely() -> None:
    """Starting without a ledger is told once as memory; tries become rarer up to a limit."""
    scene = Scene(at_start="unreadable")
    assert scene.names == ["ledger_memory"]
    assert scene.failover.outbox.primary is None
    claimed = scene.do(claim())
    assert (claimed.status, claimed.durable, claimed.guarded) == ("new", False, False)
    waits = []
    for _ in range(7):
        wait_s = scene.failover.tend()
        assert wait_s is not None
        waits.append(wait_s)
        scene.times.move(wait_s)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert scene.opened == 7
    scene.do(record())
    scene.heal()
    assert scene.names == ["ledger_memory", "ledger_recovered"]
    assert scene.failover.outbox.is_durable


def test_required_ledger_that_fills_up_again_is_tried_ever_more_rarely() -> None:
    """With nothing owed only a report tells that a disk is still full; the log is not filled with it."""
    scene = Scene(require=True, pauses=False)
    waits: list[float | None] = []
    for number in range(1, 8):
        scene.fail("full")
        assert isinstance(scene.do(claim(number)), Unavailable)
        scene.fail(None)
        waits.append(scene.failover.tend())
        scene.times.move(waits[-1] or 0.0)
        scene.failover.tend()
        assert scene.names[-1] == "ledger_recovered"
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    scene.times.move(MAX_RETRY_S)
    scene.fail("full")
    scene.do(claim(8))
    assert scene.failover.tend() == 1


def test_ledger_found_unwritable_at_the_start_is_read_and_opened_again() -> None:
    """A read-only file guards from the first report on; only a new opening can make it writable."""
    scene = Scene(sick="readonly")
    sick = scene.store
    assert scene.names == ["ledger_degraded"]
    assert scene.do(claim()).status == "known"
    scene.failover.run([claim(2), record(2)])
    scene.store = scene.new_store()
    scene.heal()
    assert sick.is_closed
    assert scene.row(2).outcome == "accepted"


# --- required ------------------------------------------------------------------------------------


def test_required_ledger_refuses_new_reports_only() -> None:
    """With a required ledger nothing begins in trouble, but what is known and what ended is told."""
    scene = Scene(require=True, pauses=False)
    scene.failover.run([claim(1), record(1), claim(2), claim(3, begin=False)])
    scene.fail("full")
    assert scene.do(claim(4)) == Unavailable("full", SENTENCES["full"])
    assert scene.do(claim(1)).status == "known"
    assert isinstance(scene.do(Begin(task(3))), Unavailable)
    assert scene.do(Settle(task(3), UNSENT)).status == "ok"
    assert scene.do(record(2)).status == "ok"
    scene.heal()
    assert scene.row(2).outcome == "accepted"
    assert scene.row(3).outcome == NOT_SENT
    assert scene.do(claim(4)).status == "new"


def test_required_ledger_that_never_opened_refuses() -> None:
    """With a required ledger and none to be had, nothing is sent."""
    scene = Scene(require=True, at_start="unreadable")
    assert isinstance(scene.do(claim()), Unavailable)


# --- reading -------------------------------------------------------------------------------------


def test_reading_shows_what_is_owed() -> None:
    """Look-ups and lists tell the truth, not the stale row."""
    scene = Scene(pauses=False)
    scene.do(claim(1))
    scene.times.move(1.0)
    scene.failover.run([claim(2), record(2)])
    scene.fail("full")
    scene.times.move(1.0)
    scene.failover.run([record(1), claim(3), record(3)])
    assert scene.do(Look(task(1))).outcome == "accepted"
    assert scene.do(Look(task(2))).outcome == "accepted"
    assert scene.do(Look(task(3))).outcome == "accepted"
    assert scene.do(Look(task(4))) is None
    rows, cursor = scene.do(Listing(ENDPOINT))
    assert ([(row.task.task_id, row.state) for row in rows], cursor) == (
        [(3, DONE), (2, DONE), (1, DONE)],
        None,
    )
    scene.fail("unreadable")
    assert scene.do(Look(task(2))).outcome == "accepted"
    rows, _ = scene.do(Listing(ENDPOINT, outcome="accepted"))
    assert {row.task.task_id for row in rows} == {1, 3}


@pytest.mark.parametrize("told_in", ["good days", "bad days"])
def test_what_was_told_of_others_holds_when_the_ledger_falls_silent(told_in: str) -> None:
    """A report that another bridge has, or has ended, is not sent by who has heard of it."""
    scene = Scene()
    scene.add_other_bridge([claim(1), record(1), claim(2)])
    if told_in == "bad days":
        scene.fail("full")
    assert [scene.do(claim(n)).status for n in (1, 2)] == ["known", "elsewhere"]
    scene.fail("unreadable")
    assert [scene.do(claim(n)).status for n in (1, 2, 3)] == ["known", "elsewhere", "new"]
    assert scene.do(Begin(task(2))).gate.status == "lost"


def test_who_was_told_off_in_the_dark_hears_of_others_once_the_ledger_can_be_read() -> None:
    """A refusal that was kept in memory hides neither what another bridge has under way nor what it ended."""
    scene = Scene()
    scene.fail("unreadable")
    late = Ending("not_sent", -32010, "window_closed")
    scene.failover.run([claim(n)._replace(begin=False, refusal=late) for n in (1, 2, 3)])
    scene.add_other_bridge([claim(1), record(1), claim(2)])
    scene.fail("readonly")
    scene.failover.outbox.is_guarded = True
    assert [scene.do(claim(n)).status for n in (1, 2, 3)] == ["known", "elsewhere", "again"]


def test_who_was_told_off_in_trouble_hears_of_others_beside_a_former_report_of_the_id() -> None:
    """What another bridge did since is told, though the ledger had a former report of the id before."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(), record()])
    scene.fail("full")
    scene.times.move(86_401)
    late = Ending("not_sent", -32010, "window_closed")
    told_off = claim(begin=False)._replace(refusal=late)
    assert scene.do(told_off).status == "refused"
    scene.add_other_bridge([claim(), record()])
    assert scene.do(claim()).status == "known"


def test_reading_trouble_in_good_days_is_noticed() -> None:
    """A ledger that fails to read is in trouble, and the question is answered from memory."""
    scene = Scene()
    scene.failover.run([claim(), record()])
    scene.fail("unreadable")
    assert scene.do(Look(task())).outcome == "accepted"
    assert scene.failover.outbox.trouble is not None


# --- program errors ------------------------------------------------------------------------------


def test_bug_in_one_operation_fails_that_one_alone() -> None:
    """An operation that no store can run does not take its batch with it, nor harm the ledger."""
    scene = Scene(pauses=False)
    broken = claim(2)._replace(window=None)  # type: ignore[arg-type]
    results = scene.failover.run([claim(1), broken, claim(3), Look(None)])  # type: ignore[arg-type]
    failed = Failed("reference")
    assert [getattr(r, "status", r) for r in results] == ["new", failed, "new", failed]
    assert all(results[i].durable for i in (0, 2))
    assert scene.failover.outbox.trouble is None
    scene.fail("full")
    assert isinstance(scene.do(broken), Failed)
    assert scene.bugs


def test_bug_in_one_owed_report_keeps_the_others_going() -> None:
    """An owed report that cannot be written stays owed, is told at the end, and blocks nobody."""
    scene = Scene(pauses=False)
    scene.fail("full")
    for number in (1, 2, 3):
        scene.failover.run([claim(number), record(number)])
    run = scene.store.transact

    def fail_on_two(operations: Any) -> list[Any]:
        if any(isinstance(op, Restore) and op.row.task == task(2) for op in operations):
            raise ZeroDivisionError
        return run(operations)

    scene.store.transact = fail_on_two  # type: ignore[method-assign]
    scene.heal()
    assert [scene.row(n) and scene.row(n).outcome for n in (1, 2, 3)] == ["accepted", None, "accepted"]
    assert scene.failover.outbox.owed == 1
    scene.failover.close()
    assert scene.events[-1][0] == "ledger_lost"
    assert scene.events[-1][1]["owed"] == 1


def test_bug_in_opening_memory_by_choice_is_over_at_the_next_try() -> None:
    """A start without a descriptor for anything is over when there are some, in memory too."""
    scene = Scene()
    faults = [OSError(24, "Too many open files")] * 2

    def open_scarce(name: str) -> Any:
        if faults:
            raise faults.pop()
        return scene.open_memory(name)

    failover = scene.make(None, open_memory=open_scarce)
    failover.open()
    guarded = [failover.outbox.is_guarded]
    scene.times.move(1.5)
    failover.tend()
    assert [*guarded, failover.outbox.is_guarded] == [False, True]
    assert failover.run([claim()])[0].status == "new"
    assert scene.names == ["ledger_memory", "ledger_recovered"]
    assert [type(error) for error in scene.bugs] == [OSError], "only that memory itself could not be had"
    failover.close()


def test_bug_in_opening_is_like_a_ledger_that_cannot_be_read() -> None:
    """An unexpected exception while opening leaves the service working in memory."""
    scene = Scene()
    scene.failover._open_primary = fail_oddly
    scene.fail("replaced")
    assert scene.do(claim()).durable is False
    assert scene.failover.outbox.trouble is not None
    assert scene.failover.outbox.trouble.kind == "unreadable"


def test_bug_in_asking_is_like_a_ledger_that_cannot_be_read() -> None:
    """A look that fails in an unknown way leaves the report unguarded, not unsent."""
    scene = Scene()
    scene.fail("full")
    transact = scene.store.transact
    scene.store.transact = (  # type: ignore[method-assign]
        lambda operations: [1 / 0] if type(operations[0]) is Ask else transact(operations)
    )
    claimed = scene.do(claim())
    assert (claimed.status, claimed.guarded) == ("new", False)


def test_bug_in_the_try_to_come_back_is_trouble_and_loses_nothing() -> None:
    """A ledger that fails in an unknown way while it is tried stays in trouble, and is tried at the end."""
    scene = Scene(pauses=False)
    scene.fail("full")
    scene.failover.run([claim(), record()])
    run = scene.store.transact
    scene.store.transact = lambda operations: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    scene.heal()
    assert scene.failover.outbox.trouble is not None
    assert (scene.failover.outbox.trouble.kind, scene.failover.outbox.owed) == ("unreadable", 1)
    assert {type(error) for error in scene.bugs} == {ZeroDivisionError}
    scene.store.transact = run  # type: ignore[method-assign]
    scene.failover.close()
    assert scene.row().outcome == "accepted"
    assert scene.failover.outbox.owed == 0


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_in_doubt", [True, False])
def test_a_commit_that_was_lost_is_made_up_for_at_once(is_in_doubt: bool) -> None:
    """Neighbours learn what was begun meanwhile without waiting for the usual second."""
    scene = Scene(pauses=False)
    scene.store.is_in_doubt = is_in_doubt
    scene.fail("unreadable")
    scene.failover.run([claim()])
    scene.fail(None)
    scene.failover.tend()
    row = scene.row()
    assert (row is not None and row.state == "sending") == is_in_doubt


def test_closing_writes_what_is_owed() -> None:
    """The last chance to write is taken whatever the retry interval says."""
    scene = Scene()
    scene.fail("locked")
    scene.failover.run([claim(), record()])
    scene.fail(None)
    scene.failover.close()
    assert scene.row().outcome == "accepted"
    assert scene.store.is_closed
    assert scene.names[-1] == "ledger_recovered"


def test_closing_tells_what_could_not_be_written() -> None:
    """Outcomes that end with the process are counted in an event."""
    scene = Scene()
    scene.fail("full")
    scene.failover.run([claim(), record()])
    scene.failover.close()
    name, fields = scene.events[-1]
    assert (name, fields["owed"], "space" in fields["reason"]) == ("ledger_lost", 1, True)


def test_debts_beyond_all_measure_are_dropped_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded also if the ledger stays away for ever."""
    monkeypatch.setattr("bridge.ledger.outbox.MAX_OWED", 3)
    scene = Scene(pauses=False)
    scene.fail("full")
    scene.do(claim(9))
    for number in range(1, 6):
        scene.failover.run([claim(number), record(number)])
    assert scene.failover.outbox.owed == 3
    assert {t.task_id for t in scene.failover.outbox.held} == {9, 3, 4, 5}


def test_claim_to_what_is_ours_is_answered_by_its_state() -> None:
    """A second claim to a report in flight finds it taken; to one that waits, finds it ours."""
    scene = Scene(pauses=False)
    scene.failover.run([claim(1), claim(2, begin=False)])
    scene.fail("locked")
    assert scene.do(claim(1)).status == "elsewhere"
    assert scene.do(claim(1, method=OTHER_METHOD)).status == "conflict"
    assert scene.do(claim(2, method=OTHER_METHOD)).status == "conflict"
    own = scene.do(claim(2))
    assert (own.status, own.row.owner) == ("elsewhere", INSTANCE)
    assert scene.do(Begin(task(2))).row.attempts == 1


# --- windows -------------------------------------------------------------------------------------

EARLIER = Window(1_699_999_990.0, 1_699_999_980.0)


@pytest.mark.parametrize("kind", sorted(SENTENCES))
@pytest.mark.parametrize("narrowed_in", ["good days", "bad days"])
def test_window_that_is_narrowed_stays_so_in_trouble(kind: str, narrowed_in: str) -> None:
    """An earlier end holds at once, is remembered, and is in the ledger when that works again."""
    scene = Scene()
    scene.do(claim(begin=False))
    if narrowed_in == "good days":
        scene.do(Narrow(task(), EARLIER))
        assert scene.row().window == EARLIER
    scene.fail(kind, is_openable=False)
    if narrowed_in == "bad days":
        assert scene.do(Narrow(task(), EARLIER)) is None
    assert scene.do(Look(task())).window == EARLIER
    scene.heal()
    assert scene.row().window == EARLIER
    assert scene.do(Begin(task())).row.window == EARLIER


def test_report_not_sent_in_trouble_is_tried_again_inside_the_narrowed_window() -> None:
    """A second life in bad days has the earliest end of the first; a sent report keeps its own."""
    scene = Scene(pauses=False)
    scene.fail("full")
    scene.failover.run([claim(), record(ending=UNSENT), Narrow(task(), EARLIER)])
    assert scene.do(claim()).row.window == EARLIER
    done = scene.do(record()).row
    scene.do(Narrow(task(), Window(1.0, 1.0)))
    assert scene.do(Look(task())) == done
    scene.heal()
    assert (scene.row().outcome, scene.row().window) == ("accepted", EARLIER)


def test_attempt_of_a_narrowed_report_still_counts_in_a_new_ledger() -> None:
    """A ledger that has to be told everything hears that the attempt has begun."""
    scene = Scene(pauses=False)
    scene.do(claim())
    scene.fail("locked")
    scene.do(Narrow(task(), EARLIER))
    scene.fail("replaced")
    scene.store = scene.new_store()
    scene.heal()
    scene.heal()
    assert scene.opened == 2
    assert (scene.row().state, scene.row().attempts, scene.row().window) == (SENDING, 1, EARLIER)


# --- pauses of good days in bad ones, and the other way round ------------------------------------


def test_pause_of_another_bridge_holds_when_the_ledger_cannot_be_read() -> None:
    """A pause that was only met, not opened here, is remembered too."""
    scene = Scene()
    scene.store.store.transact([claim(1), refused_key()])
    assert scene.do(claim(2)).gate.status == "paused"
    scene.fail("locked")
    assert scene.do(claim(3)).gate.status == "paused"


def test_pause_resumed_before_is_probed_when_the_ledger_cannot_be_read() -> None:
    """After a person resumed it, one report probes without the ledger, and its success ends the pause."""
    scene = Scene()
    scene.failover.run([claim(1), refused_key()])
    scene.do(Resume(ENDPOINT, None, None))
    scene.fail("locked")
    assert scene.do(claim(2)).gate.status == "begun"
    assert scene.do(claim(3)).gate.status == "busy"
    scene.do(record(2))
    assert scene.do(Begin(task(3))).gate.status == "begun"


def test_pause_ended_by_another_bridge_is_not_remembered() -> None:
    """An attempt that the ledger let begin proves that the pause is over."""
    scene = Scene()
    scene.failover.run([claim(1), refused_key()])
    scene.store.store.transact([Resume(ENDPOINT, None, None), claim(2), record(2)])
    assert scene.do(claim(3)).gate.status == "begun"
    scene.fail("locked")
    assert scene.do(claim(4)).gate.status == "begun"


def test_pause_opened_in_trouble_holds_before_all_is_paid() -> None:
    """What a refusal in bad days forbids is in the ledger before the next attempt may begin."""
    scene = Scene()
    scene.failover.run([claim(1), record(1)])
    scene.fail("full")
    for number in range(2, 2 * CHUNK):
        scene.failover.run([claim(number), record(number)])
    scene.failover.run([claim(1_000), refused_key(1_000)])
    scene.heal()
    assert scene.failover.outbox.trouble is None
    assert scene.failover.outbox.held
    assert scene.do(claim(1_001)).gate.status == "paused"


def test_owed_reports_are_written_in_chunks_and_in_order() -> None:
    """Nobody waits for debts that forbid nothing; the oldest are paid first, and the end is told once."""
    scene = Scene()
    scene.failover.run([claim(1_000), record(1_000)])
    scene.fail("full")
    for number in range(1, 131):
        scene.failover.run([claim(number), record(number)])
    scene.heal()
    assert scene.do(claim(1_001)).gate.status == "begun"
    assert scene.failover.outbox.held
    while scene.failover.tend() == 0.0:
        pass
    owed = [op.row.task.task_id for commit in scene.store.commits for op in commit if isinstance(op, Restore)]
    assert owed == list(range(1, 131))
    assert scene.names == ["ledger_degraded", "ledger_recovered"]
    assert scene.events[-1][1]["owed"] == 130


def test_pause_opened_in_trouble_outlives_what_was_heard_before() -> None:
    """A pause that ended in good days and came back in bad ones holds when the ledger gets worse."""
    scene = Scene()
    scene.failover.run([claim(1), refused_key(), Resume(ENDPOINT, None, None)])
    scene.failover.run([claim(2), record(2)])
    scene.fail("full")
    scene.failover.run([claim(3), refused_key(3)])
    scene.fail("locked")
    assert scene.do(claim(4)).gate.status == "paused"


# --- the property: whatever goes wrong, nothing is lost and nothing false is said ----------------

KINDS = [*sorted(SENTENCES), None, None, None]
OTHER = Ending("refused", 7, "other_refusal")
STEPS = st.one_of(
    st.tuples(st.just("break"), st.sampled_from(KINDS)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 40.0])),
    st.tuples(
        st.just("batch"),
        st.lists(
            st.tuples(
                st.integers(1, 4), st.sampled_from(["claim", "record", "retry", "begin", "settle", "look"])
            ),
            min_size=1,
            max_size=8,
        ),
    ),
)


class World:
    """A ledger that breaks in every way; what was told is kept and compared with what is true."""

    def __init__(self, fails_after_commit: bool, starts_broken: bool) -> None:
        self.times = Times()
        self.fails_after_commit = fails_after_commit
        self.broken: str | None = "unreadable" if starts_broken else None
        self.file = open_memory(self.times, False, INSTANCE)
        self.stores: list[ShakyStore] = []
        self.told: dict[int, Any] = {}
        self.errors: list[BaseException] = []

    def open(self, instance: str) -> ShakyStore:
        if self.broken is not None:
            raise LedgerTrouble(self.broken)
        if self.stores and self.stores[-1].fail == "replaced":
            # What was written to the lost file is lost with it; only what is owed goes to the new one.
            lost = self.file
            self.told = {n: e for n, e in self.told.items() if not says(lost, n, e)}
            self.file = open_memory(self.times, False, INSTANCE)
        store = ShakyStore(self.file)
        store.fails_after_commit = self.fails_after_commit
        self.stores.append(store)
        return store

    def note_error(self, error: BaseException) -> str:
        """Keep what would be logged."""
        self.errors.append(error)
        return "reference"

    def set_trouble(self, kind: str | None) -> None:
        """Break or mend; the kinds that need another opening keep the old store broken."""
        self.broken = None if kind in (None, "full", "readonly", "locked", "newer", "replaced") else kind
        if self.stores and self.stores[-1].fail != "replaced":
            self.stores[-1].fail = kind


def says(store: Any, number: int, ending: Ending) -> bool:
    """True if a store says that a report ended like that."""
    row = store.transact([Look(task(number))])[0]
    return row is not None and (row.state, row.outcome, row.kind) == (DONE, ending.outcome, ending.kind)


def operation(number: int, name: str) -> Any:
    """An operation on a report; the number decides how it would end."""
    return {
        "claim": claim(number),
        "record": record(number, ending={3: OTHER, 4: UNSENT}.get(number, OK)),
        "retry": record(number, ending=None, is_send=False),
        "begin": Begin(task(number)),
        "settle": Settle(task(number), UNSENT),
        "look": Look(task(number)),
    }[name]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=14), ambiguous=st.booleans(), starts_broken=st.booleans())
@example(
    steps=[("batch", [(4, "claim"), (4, "record")]), ("break", "full"), ("batch", [(4, "claim")])],
    ambiguous=True,
    starts_broken=False,
)
def test_nothing_is_lost_and_nothing_false_is_said(
    steps: Sequence[Any], ambiguous: bool, starts_broken: bool
) -> None:
    """Whatever breaks: one answer each, durable means committed, every told outcome is written at last."""
    world = World(ambiguous, starts_broken)
    failover = Failover(
        world.open,
        lambda name: open_memory(world.times, False, name),
        Accounts(),
        name_instance=lambda: INSTANCE,
        require=False,
        tell=lambda name, fields: None,
        on_bug=world.note_error,
        retry_s=1.0,
        clock=Still(world.times),
    )
    failover.open()
    for what, value in [*steps, ("break", None), ("wait", 100.0)]:
        if what == "break":
            world.set_trouble(value)
        elif what == "wait":
            world.times.move(value)
            failover.tend()
        else:
            run_all(world, failover, value)
            failover.tend()
    failover.close()
    assert world.errors == []
    for number, ending in world.told.items():
        assert says(world.file, number, ending)


def run_all(world: World, failover: Failover, steps: Sequence[tuple[int, str]]) -> None:
    """Run a batch and judge each answer by what the file says then."""
    operations = [operation(number, name) for number, name in steps]
    results = failover.run(operations)
    assert len(results) == len(steps)
    for place, ((number, _), op, result) in enumerate(zip(steps, operations, results, strict=True)):
        assert not isinstance(result, Failed | Unavailable)
        if isinstance(op, Look):
            continue
        ending = getattr(op, "ending", None)
        if ending is not None and result.status == "ok":
            world.told[number] = ending
        # Claimed by a commit whose answer was lost, it is found as ours: that ending is over, too.
        if getattr(result, "status", None) in ("new", "again", "adopted", "elsewhere"):
            world.told.pop(number, None)
        is_last = all(n != number for n, _ in steps[place + 1 :])
        if result.durable and is_last and getattr(result, "status", None) in ("ok", "new", "again"):
            in_file = world.file.transact([Look(task(number))])[0]
            assert in_file is not None
            assert (in_file.state, in_file.outcome) == (result.row.state, result.row.outcome)
            assert ending is None or says(world.file, number, ending)


def test_lack_of_descriptors_is_trouble_and_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that no descriptor is left for is opened when there is one again, and the cause is named."""
    scene = Scene(at_start=UNREADABLE)

    def fail(_: str) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(scene.failover, "_open_primary", fail)
    scene.times.move(MAX_RETRY_S)
    scene.failover.tend()
    trouble = scene.failover.outbox.trouble
    assert trouble is not None
    assert "no descriptor is left" in trouble.sentence
    monkeypatch.undo()
    scene.heal()
    assert scene.failover.outbox.trouble is None
    assert scene.bugs == []
