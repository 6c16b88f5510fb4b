"""The journal's promises about order, groups, callbacks and the outcomes it owes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.model import DONE, Begin, Ending, Look, Settle
from bridge.ledger.dialect import Accounts, hash_account
from bridge.ledger.journal import MAX_BATCH, Failed, Journal, Unavailable
from bridge.ledger.story import OWNED
from bridge.ledger.trouble import SENTENCES, LedgerTrouble
from tests.shaky_store import OK, UNSENT, ShakyStore, Times, claim, open_memory, record, task

PATIENCE_S = 30.0


class Scene:
    """A journal over a shaky store."""

    def __init__(self, held: bool = False, **more: Any) -> None:
        self.times = Times()
        self.store = ShakyStore(open_memory(self.times, enabled=False))
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.gate = threading.Event()
        if not held:
            self.gate.set()
        settings: dict[str, Any] = {"require": False, "retry_s": 1.0, **more}
        self.journal = Journal(
            settings.pop("open_primary", self.open),
            settings.pop("open_memory", lambda: open_memory(self.times, enabled=False)),
            on_event=lambda name, fields: self.events.append((name, fields)),
            on_error=lambda reference, error: self.errors.append((reference, error)),
            boot_clock=lambda: self.times.boot,
            clock=lambda: self.times.boot,
            wall=lambda: self.times.wall,
            **settings,
        )

    def open(self) -> ShakyStore:
        assert self.gate.wait(PATIENCE_S)
        return self.store


def test_everything_queued_is_one_commit_and_answers_come_in_order() -> None:
    """What waits while the ledger opens is committed together, and each is called back in turn."""
    scene = Scene(held=True)
    answers: list[tuple[int, Any]] = []
    for number in range(1, 51):
        scene.journal.submit(claim(number), lambda r, n=number: answers.append((n, r)))  # type: ignore[misc]
    assert answers == []
    assert scene.journal.status()["state"] == "opening"
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)
    assert [n for n, _ in answers] == list(range(1, 51))
    assert all(r.status == "new" and r.durable for _, r in answers)
    assert [len(commit) for commit in scene.store.commits] == [50]
    assert scene.store.is_closed


def test_callback_comes_after_the_commit() -> None:
    """When a caller hears of an operation, the ledger has it."""
    scene = Scene()
    seen: list[Any] = []
    scene.journal.submit(claim(), lambda _: seen.append(scene.store.store.read(Look(task()))))
    assert scene.journal.close(PATIENCE_S)
    assert seen[0].state == "sending"


def test_groups_are_bounded() -> None:
    """A flood is committed in groups of bounded size."""
    scene = Scene(held=True)
    for number in range(1, 2 * MAX_BATCH + 2):
        scene.journal.submit(claim(number), lambda _: None)
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)
    assert [len(commit) for commit in scene.store.commits] == [MAX_BATCH, MAX_BATCH, 1]


def test_callback_that_raises_hurts_nobody_else() -> None:
    """An error in one callback is reported and the next callback is called."""

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    scene = Scene(held=True)
    answers: list[Any] = []
    scene.journal.submit(claim(1), fail)
    scene.journal.submit(claim(2), answers.append)
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)
    assert [type(error) for _, error in scene.errors] == [ZeroDivisionError]
    assert answers[0].status == "new"


def test_program_error_is_answered_with_its_reference() -> None:
    """An operation with a bug gets the reference under which the log has it."""
    scene = Scene()
    answer = scene.journal.call(claim()._replace(window=None), PATIENCE_S)  # type: ignore[arg-type]
    assert isinstance(answer, Failed)
    assert [reference for reference, _ in scene.errors] == [answer.reference]
    assert scene.journal.call(claim(2), PATIENCE_S).status == "new"
    assert scene.journal.close(PATIENCE_S)


def test_call_gives_up_when_its_time_is_over() -> None:
    """A command does not hang on a ledger that does not open."""
    scene = Scene(held=True)
    with pytest.raises(TimeoutError):
        scene.journal.call(Look(task()), 0.01)
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)


def test_submit_after_the_end_is_refused_at_once() -> None:
    """Nobody waits for ever for a journal that is closed."""
    scene = Scene()
    assert scene.journal.close(PATIENCE_S)
    answers: list[Any] = []
    scene.journal.submit(claim(), answers.append)
    assert [type(answer) for answer in answers] == [Unavailable]
    assert answers[0].kind == "closed"
    assert scene.journal.close(PATIENCE_S)


def test_close_does_not_wait_longer_than_told() -> None:
    """A ledger that hangs does not hold up the end."""
    scene = Scene(held=True)
    assert not scene.journal.close(0.01)
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)


def test_close_inside_a_callback_does_not_wait_for_itself() -> None:
    """The journal may be told to end by whom it answers."""
    scene = Scene()
    closed: list[bool] = []
    scene.journal.submit(claim(), lambda _: closed.append(scene.journal.close(PATIENCE_S)))
    assert scene.journal.close(PATIENCE_S)
    assert closed == [False]


def test_no_store_at_all_refuses_everything() -> None:
    """If not even memory can be had, every operation is answered."""
    scene = Scene(open_primary=None, open_memory=lambda: 1 / 0)
    assert isinstance(scene.journal.call(claim(), PATIENCE_S), Unavailable)
    assert scene.journal.account("key")
    assert [type(error) for _, error in scene.errors] == [ZeroDivisionError]


def test_hooks_that_raise_do_not_stop_the_journal() -> None:
    """A log that fails does not take the ledger with it."""
    times = Times()
    store = ShakyStore(open_memory(times))
    store.notices.append(("ledger_network_fs", {}))

    def fail(*_: Any) -> None:
        raise OSError

    journal = Journal(lambda: store, lambda: open_memory(times), require=False, on_event=fail, on_error=fail)
    assert journal.call(claim(), PATIENCE_S).status == "new"
    assert journal.close(PATIENCE_S)


def test_notices_of_the_store_are_told() -> None:
    """What opening found is passed on as events."""
    scene = Scene(held=True)
    scene.store.notices.append(("ledger_network_fs", {"filesystem": "nfs"}))
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)
    assert scene.events == [("ledger_network_fs", {"filesystem": "nfs"})]


def test_account_is_a_keyed_hash_and_does_not_show_the_key() -> None:
    """The same key has one name per ledger secret, 32 hex digits long."""
    scene = Scene()
    name = scene.journal.account("k" * 32)
    assert name == scene.journal.account("k" * 32) == hash_account(scene.store.secret, "k" * 32)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert name != hash_account(b"other", "k" * 32)
    assert name != scene.journal.account("l" * 32)
    assert scene.journal.close(PATIENCE_S)


def test_keys_for_translation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with endless keys does not fill the memory."""
    monkeypatch.setattr("bridge.ledger.dialect.MAX_KEYS", 2)
    accounts = Accounts()
    accounts.settle(b"secret", 0.0)
    names = [accounts.name(text) for text in ("a", "b", "c")]
    assert len(set(names)) == 3
    assert accounts.known() == tuple(names[:2])


def test_time_is_the_ledgers() -> None:
    """Now is the boot clock moved to the ledger's timeline."""
    scene = Scene()
    assert scene.journal.now() == scene.times.boot + scene.store.clock_offset_s
    assert scene.journal.instance == scene.store.instance
    assert scene.journal.close(PATIENCE_S)


def test_status_tells_how_the_ledger_is() -> None:
    """Kind, health and debts are there for people to see."""
    scene = Scene()
    scene.journal.call(claim(), PATIENCE_S)
    assert scene.journal.status()["durable"]
    expected = {"kind": "sqlite", "durable": True, "healthy": True, "state": "ok", "owed": 0, "message": None}
    assert scene.journal.status() == expected
    scene.store.fail = "full"
    scene.journal.call(record(), PATIENCE_S)
    expected = {**expected, "durable": False, "healthy": False, "state": "full", "owed": 1}
    assert scene.journal.status() == {**expected, "message": SENTENCES["full"]}
    assert not scene.journal.durable
    assert scene.journal.close(PATIENCE_S)


def test_many_threads_each_get_their_own_answer() -> None:
    """Operations of many threads are answered once each and never mixed up."""
    scene = Scene()
    wrong: list[Any] = []

    def work(first: int) -> None:
        for number in range(first, first + 50):
            claimed = scene.journal.call(claim(number), PATIENCE_S)
            recorded = scene.journal.call(record(number), PATIENCE_S)
            if (claimed.row.task.task_id, recorded.row.task.task_id) != (number, number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(1 + 50 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert scene.journal.close(PATIENCE_S)
    assert wrong == []


# --- collecting and delivering ---------------------------------------------------------------


class Elsewhere:
    """What the journal delivers, called when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.has_some = threading.Semaphore(0)

    def __call__(self, call: Any) -> None:
        self.calls.append(call)
        self.has_some.release()

    def run(self) -> None:
        """Wait for a delivery and call what there is."""
        assert self.has_some.acquire(timeout=PATIENCE_S)
        self.calls.pop(0)()


def test_what_is_collected_is_one_commit_when_it_is_handed_on() -> None:
    """Operations of the collecting thread wait for the flush, in order, and then go together."""
    scene = Scene()
    assert scene.journal.call(Look(task(99)), PATIENCE_S) is None
    scene.journal.collect()
    answers: list[tuple[int, Any]] = []
    told = threading.Semaphore(0)

    def note(number: int, result: Any) -> None:
        answers.append((number, result))
        told.release()

    for number in range(1, 31):
        scene.journal.submit(claim(number), partial(note, number))
    assert not told.acquire(timeout=0.05)
    assert scene.store.commits == []
    scene.journal.flush()
    for _ in range(30):
        assert told.acquire(timeout=PATIENCE_S)
    assert [n for n, _ in answers] == list(range(1, 31))
    assert {r.status for _, r in answers} == {"new"}
    assert [len(commit) for commit in scene.store.commits] == [30]
    scene.journal.flush()
    assert scene.journal.close(PATIENCE_S)
    assert len(scene.store.commits) == 1


def test_other_threads_are_not_kept_waiting_by_who_collects() -> None:
    """Only the thread that said so collects; everybody else's operations go at once."""
    scene = Scene()
    scene.journal.collect()
    mine: list[Any] = []
    scene.journal.submit(claim(1), mine.append)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(scene.journal.call(claim(2), PATIENCE_S)))
    thread.start()
    thread.join(PATIENCE_S)
    assert answers[0].status == "new"
    assert mine == []
    scene.journal.flush()
    assert scene.journal.close(PATIENCE_S)
    assert mine[0].status == "new"


def test_results_are_told_where_they_are_delivered() -> None:
    """A batch is delivered as one call, after its commit, and told by whoever makes that call."""
    elsewhere = Elsewhere()
    scene = Scene(held=True, deliver=elsewhere)
    answers: list[tuple[int, str, int]] = []
    for number in range(1, 6):
        scene.journal.submit(
            claim(number),
            lambda r, n=number: answers.append((n, r.status, threading.get_ident())),  # type: ignore[misc]
        )
    scene.gate.set()
    assert elsewhere.has_some.acquire(timeout=PATIENCE_S)
    assert answers == []
    assert [len(commit) for commit in scene.store.commits] == [5]
    elsewhere.calls.pop(0)()
    assert answers == [(n, "new", threading.get_ident()) for n in range(1, 6)]
    assert elsewhere.calls == []
    assert scene.journal.close(PATIENCE_S)


def test_batches_are_delivered_in_the_order_of_their_commits() -> None:
    """Whoever delivers gets one call after the other, as the ledger took them."""
    elsewhere = Elsewhere()
    scene = Scene(deliver=elsewhere)
    answers: list[int] = []
    for number in range(1, 200):
        scene.journal.submit(claim(number), lambda _, n=number: answers.append(n))  # type: ignore[misc]
    while len(answers) < 199:
        elsewhere.run()
    assert answers == list(range(1, 200))
    assert scene.journal.close(PATIENCE_S)


def test_delivered_callback_that_raises_hurts_nobody_else() -> None:
    """A fault in one callback is told, and the rest of its batch is told its results."""
    elsewhere = Elsewhere()
    scene = Scene(held=True, deliver=elsewhere)
    answers: list[Any] = []

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    scene.journal.submit(claim(1), fail)
    scene.journal.submit(claim(2), answers.append)
    scene.gate.set()
    elsewhere.run()
    assert [r.status for r in answers] == ["new"]
    assert [type(error) for _, error in scene.errors] == [ZeroDivisionError]
    assert scene.journal.close(PATIENCE_S)


def test_what_is_collected_at_the_end_is_still_committed() -> None:
    """Closing hands on what its thread has collected."""
    scene = Scene()
    scene.journal.collect()
    answers: list[Any] = []
    for number in (1, 2):
        scene.journal.submit(claim(number), answers.append)
    assert scene.journal.close(PATIENCE_S)
    assert [r.status for r in answers] == ["new", "new"]
    assert [len(commit) for commit in scene.store.commits] == [2]


def test_what_is_collected_after_the_end_is_refused_when_it_is_handed_on() -> None:
    """A collector that comes too late hears so at its flush, once, and nothing is committed."""
    scene = Scene()
    scene.journal.collect()
    assert scene.journal.close(PATIENCE_S)
    answers: list[Any] = []
    for number in (1, 2):
        scene.journal.submit(claim(number), answers.append)
    assert answers == []
    scene.journal.flush()
    scene.journal.flush()
    assert [answer.kind for answer in answers] == ["closed", "closed"]
    assert scene.store.commits == []


def test_a_ledger_may_be_left_closed_for_a_while() -> None:
    """Told not to start, the journal opens nothing; who asks for the ledger's time cannot do without."""
    opened: list[int] = []

    def open_it() -> Any:
        opened.append(1)
        return open_memory(Times())

    scene = Scene(starts=False, open_primary=None, open_memory=open_it)
    answers: list[Any] = []
    used: list[str] = []
    scene.journal.submit(claim(), answers.append)
    scene.journal.when_open(lambda: used.append("now"))
    assert scene.journal.status()["state"] == "opening"
    assert (opened, answers, used) == ([], [], [])
    assert scene.journal.now() > 0.0
    scene.journal.start()
    scene.journal.start()
    assert scene.journal.close(PATIENCE_S)
    assert (opened, used) == ([1], ["now"])
    assert [answer.status for answer in answers] == ["new"]


def test_a_journal_that_was_never_started_ends_in_order() -> None:
    """Closing commits what was queued, although nobody had opened the ledger."""
    scene = Scene(starts=False)
    answers: list[Any] = []
    scene.journal.submit(claim(), answers.append)
    assert scene.journal.close(PATIENCE_S)
    assert [answer.status for answer in answers] == ["new"]
    assert scene.store.is_closed


def test_a_large_collection_is_no_large_commit() -> None:
    """What was collected goes into as many commits as it would have otherwise, in order."""
    scene = Scene(held=True)
    scene.journal.collect()
    answers: list[Any] = []
    for number in range(1, MAX_BATCH + 51):
        scene.journal.submit(claim(number), answers.append)
    scene.journal.flush()
    scene.journal.submit(claim(9_000), answers.append)
    scene.gate.set()
    assert scene.journal.close(PATIENCE_S)
    assert [len(commit) for commit in scene.store.commits] == [MAX_BATCH, 51]
    assert len(answers) == MAX_BATCH + 51


# --- the property: whatever goes wrong, nothing is lost and nothing false is said ----------------

KINDS = [*sorted(SENTENCES), None, None, None]
REFUSED = Ending("refused", 7, "other_refusal")
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
        self.file = open_memory(self.times, enabled=False)
        self.stores: list[ShakyStore] = []
        self.answers: list[Any] = []
        self.submitted = 0
        self.told: dict[int, Any] = {}
        self.errors: list[BaseException] = []

    def open(self) -> ShakyStore:
        if self.broken is not None:
            raise LedgerTrouble(self.broken)
        if self.stores and self.stores[-1].fail == "replaced":
            # What was written to the lost file is lost with it; only what is owed goes to the new one.
            lost = self.file
            self.told = {n: e for n, e in self.told.items() if not says(lost, n, e)}
            self.file = open_memory(self.times, enabled=False)
        store = ShakyStore(self.file)
        store.fails_after_commit = self.fails_after_commit
        self.stores.append(store)
        return store

    def set_trouble(self, kind: str | None) -> None:
        """Break or mend; the kinds that need another opening keep the old store broken."""
        self.broken = None if kind in (None, "full", "readonly", "locked", "newer", "replaced") else kind
        if self.stores and self.stores[-1].fail != "replaced":
            self.stores[-1].fail = kind


def says(store: Any, number: int, ending: Ending) -> bool:
    """True if a store says that a report ended like that."""
    row = store.read(Look(task(number)))
    return row is not None and (row.state, row.outcome, row.kind) == (DONE, ending.outcome, ending.kind)


def operation(number: int, name: str) -> Any:
    """An operation on a report; the number decides how it would end."""
    return {
        "claim": claim(number),
        "record": record(number, ending={3: REFUSED, 4: UNSENT}.get(number, OK)),
        "retry": record(number, ending=None, is_send=False),
        "begin": Begin(task(number)),
        "settle": Settle(task(number), UNSENT),
        "look": Look(task(number)),
    }[name]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=14), ambiguous=st.booleans(), starts_broken=st.booleans())
def test_nothing_is_lost_and_nothing_false_is_said(
    steps: Sequence[Any], ambiguous: bool, starts_broken: bool
) -> None:
    """Whatever breaks: one answer each, durable means committed, every told outcome is written at last."""
    world = World(ambiguous, starts_broken)
    journal = Journal(
        world.open,
        lambda: open_memory(world.times, enabled=False),
        require=False,
        on_event=lambda name, fields: None,
        on_error=lambda reference, error: world.errors.append(error),
        boot_clock=lambda: world.times.boot,
        clock=lambda: world.times.boot,
        wall=lambda: world.times.wall,
    )
    for what, value in [*steps, ("break", None), ("wait", 100.0)]:
        if what == "break":
            journal.call(Look(task(9)), PATIENCE_S)
            world.set_trouble(value)
        elif what == "wait":
            world.times.move(value)
            journal.call(Look(task(9)), PATIENCE_S)
        else:
            submit_all(world, journal, value)
    assert journal.close(PATIENCE_S)
    assert world.errors == []
    assert len(world.answers) == world.submitted
    file = world.file
    for number, ending in world.told.items():
        assert says(file, number, ending)


def submit_all(world: World, journal: Journal, steps: Sequence[tuple[int, str]]) -> None:
    """Submit a batch, wait for it, and judge each answer by what the file says then."""
    over = threading.Event()
    order: list[int] = []

    def answer(place: int, number: int, op: Any, result: Any) -> None:
        order.append(place)
        world.answers.append(result)
        assert not isinstance(result, Failed | Unavailable)
        if isinstance(op, Look):
            return
        ending = getattr(op, "ending", None)
        if ending is not None and result.status == "ok":
            world.told[number] = ending
        if getattr(result, "status", None) in OWNED:
            world.told.pop(number, None)
        is_last = all(n != number for n, _ in steps[place + 1 :])
        if result.durable and is_last and getattr(result, "status", None) in ("ok", "new", "again"):
            in_file = world.file.read(Look(task(number)))
            assert in_file is not None
            assert (in_file.state, in_file.outcome) == (result.row.state, result.row.outcome)
            assert ending is None or says(world.file, number, ending)

    world.submitted += len(steps)
    wrong: list[BaseException] = []

    def guarded(place: int, number: int, op: Any, result: Any) -> None:
        try:
            answer(place, number, op, result)
        except BaseException as error:
            wrong.append(error)
        if place == len(steps) - 1:
            over.set()

    for place, (number, name) in enumerate(steps):
        op = operation(number, name)
        journal.submit(op, lambda r, p=place, n=number, o=op: guarded(p, n, o, r))  # type: ignore[misc]
    assert over.wait(PATIENCE_S)
    assert order == list(range(len(steps)))
    if wrong:
        raise wrong[0]
