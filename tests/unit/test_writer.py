"""The writer's promises about order, groups and answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.core.model import Look
from bridge.engine import Engine
from bridge.ledger.port import Failed, Unavailable
from bridge.ledger.translation import Accounts, hash_account
from bridge.ledger.trouble import SENTENCES
from bridge.ledger.writer import MAX_BATCH, Ledger
from tests.shaky_store import ShakyStore, Still, Times, claim, open_memory, record, task

PATIENCE_S = 30.0


class Scene:
    """A ledger over a shaky store, on the real engine; it opens when the gate does."""

    def __init__(self, held: bool = False, **more: Any) -> None:
        self.times = Times()
        self.store: ShakyStore | None = None
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.errors: list[tuple[str, BaseException]] = []
        self.bugs: list[BaseException] = []
        self.notices: list[Any] = []
        self.gate = threading.Event()
        if not held:
            self.gate.set()
        self.engine = Engine(self.bugs.append, clock=Still(self.times))
        settings: dict[str, Any] = {"require": False, "retry_s": 1.0, **more}
        self.ledger = Ledger(
            self.engine,
            settings.pop("open_primary", self.open),
            settings.pop("open_memory", lambda name: open_memory(self.times, False, name)),
            on_event=settings.pop("on_event", lambda name, fields: self.events.append((name, fields))),
            on_error=lambda reference, error: self.errors.append((reference, error)),
            boot_id=lambda: "boot",
            **settings,
        )

    def open(self, instance: str) -> ShakyStore:
        assert self.gate.wait(PATIENCE_S)
        self.store = ShakyStore(open_memory(self.times, False, instance))
        self.store.notices += self.notices
        return self.store

    def close(self, seconds: float = PATIENCE_S) -> bool:
        return self.ledger.close(self.times.boot + seconds)

    @property
    def commits(self) -> list[int]:
        assert self.store is not None
        return [len(commit) for commit in self.store.commits]


def test_everything_asked_in_one_turn_is_one_commit_and_answers_come_in_order() -> None:
    """What waits while the ledger opens is committed together, and each is answered in turn."""
    scene = Scene(held=True)
    answers: list[tuple[int, Any]] = []
    for number in range(1, 51):
        scene.ledger.post(claim(number), lambda r, n=number: answers.append((n, r)))  # type: ignore[misc]
    assert answers == []
    assert scene.ledger.status()["state"] == "opening"
    scene.gate.set()
    assert scene.close()
    assert [n for n, _ in answers] == list(range(1, 51))
    assert all(r.status == "new" and r.durable for _, r in answers)
    assert scene.commits == [50]


def test_answer_comes_after_the_commit() -> None:
    """When a caller hears of an operation, the ledger has it; and when it was committed."""
    scene = Scene()
    assert scene.ledger.call(claim()).status == "new"
    assert scene.store is not None
    assert scene.store.store.transact([Look(task())])[0].state == "sending"
    assert scene.ledger.committed_at == scene.times.boot
    assert scene.close()


def test_groups_are_bounded() -> None:
    """A flood is committed in groups of bounded size."""
    scene = Scene(held=True)
    for number in range(1, 2 * MAX_BATCH + 2):
        scene.ledger.post(claim(number))
    scene.gate.set()
    assert scene.close()
    assert scene.commits == [MAX_BATCH, MAX_BATCH, 1]


def test_a_wave_is_answered_in_order() -> None:
    """Whatever is begun before all of it is asked for, everybody is answered in turn."""
    scene = Scene()
    scene.ledger.wait_until_open()
    got: list[int] = []
    for number in range(1, 61):
        scene.ledger.post(claim(number), lambda result: got.append(result.row.task.task_id))
    scene.ledger.call(claim(61))
    assert got == list(range(1, 61))
    assert scene.close()


def test_who_raises_hurts_nobody_else() -> None:
    """An error of one who is answered is reported and the next one is answered, and a log may fail."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    scene = Scene(held=True, on_event=fail)
    scene.notices.append(("ledger_network_fs", {}))
    answers: list[Any] = []
    scene.ledger.post(claim(1), fail)
    scene.ledger.post(claim(2), answers.append)
    scene.gate.set()
    assert scene.close()
    assert [type(bug) for bug in scene.bugs] == [ZeroDivisionError] * 2
    assert answers[0].status == "new"


def test_program_error_is_answered_with_its_reference() -> None:
    """An operation with a bug gets the reference under which the log has it."""
    scene = Scene()
    answer = scene.ledger.call(claim()._replace(window=None))  # type: ignore[arg-type]
    assert isinstance(answer, Failed)
    assert scene.ledger.call(claim(2)).status == "new"
    assert [reference for reference, _ in scene.errors] == [answer.reference]
    assert scene.close()


def test_what_comes_after_the_end_is_refused_at_once() -> None:
    """Nobody waits for ever for a ledger that is closed."""
    scene = Scene()
    assert scene.close()
    answers: list[Any] = [scene.ledger.call(claim())]
    scene.ledger.post(claim(), answers.append)
    assert [type(answer) for answer in answers] == [Unavailable] * 2
    assert answers[0].kind == "closed"


def test_close_does_not_wait_longer_than_told() -> None:
    """A ledger that hangs does not hold up the end."""
    scene = Scene(held=True)
    assert not scene.close(-1.0)
    scene.gate.set()


def test_no_store_at_all_refuses_everything() -> None:
    """If not even memory can be had, every operation is answered."""
    scene = Scene(open_primary=None, open_memory=lambda name: 1 / 0)
    assert isinstance(scene.ledger.call(claim()), Failed)
    assert scene.ledger.account("key")
    assert {type(error) for _, error in scene.errors} == {ZeroDivisionError}
    assert scene.ledger.status()["state"] == "unreadable"


def test_notices_of_the_store_are_told() -> None:
    """What opening found is passed on as events."""
    scene = Scene(held=True)
    scene.notices.append(("ledger_network_fs", {"filesystem": "nfs"}))
    scene.gate.set()
    assert scene.close()
    assert scene.events == [("ledger_network_fs", {"filesystem": "nfs"})]


def test_account_is_a_keyed_hash_and_does_not_show_the_key() -> None:
    """The same key has one name per ledger secret, 32 hex digits long."""
    scene = Scene()
    scene.ledger.wait_until_open()
    name = scene.ledger.account("k" * 32)
    assert scene.store is not None
    assert name == scene.ledger.account("k" * 32) == hash_account(scene.store.secret, "k" * 32)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")
    assert name != hash_account(b"other", "k" * 32)
    assert name != scene.ledger.account("l" * 32)
    assert scene.close()


def test_keys_for_translation_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with endless keys does not fill the memory."""
    monkeypatch.setattr("bridge.ledger.translation.MAX_KEYS", 2)
    accounts = Accounts()
    accounts.settle(b"secret", 0.0)
    names = [accounts.name(text) for text in ("a", "b", "c")]
    assert len(set(names)) == 3
    assert list(accounts.keys) == names[:2]


def test_time_is_the_ledgers() -> None:
    """Now is the boot clock moved to the ledger's timeline."""
    scene = Scene()
    scene.ledger.wait_until_open()
    assert scene.store is not None
    assert scene.ledger.now() == scene.times.boot + scene.store.clock_offset_s
    assert scene.ledger.instance == scene.store.instance
    assert scene.close()


def test_status_tells_how_the_ledger_is() -> None:
    """Kind, health and debts are there for people to see."""
    scene = Scene()
    scene.ledger.call(claim())
    assert scene.store is not None
    expected = {"kind": "sqlite", "durable": True, "healthy": True, "state": "ok", "owed": 0, "message": None}
    assert scene.ledger.status() == expected
    scene.store.fail = "full"
    scene.ledger.call(record())
    expected = {**expected, "durable": False, "healthy": False, "state": "full", "owed": 1}
    assert scene.ledger.status() == {**expected, "message": SENTENCES["full"]}
    assert not scene.ledger.durable
    assert scene.close()


def test_ledger_may_be_left_closed_for_a_while() -> None:
    """Nothing is opened before it is asked for; one that was never started ends in order."""
    scene = Scene()
    scene.engine.sleep(0.0)
    assert (scene.store, scene.ledger.is_open) == (None, False)
    scene.ledger.start()
    scene.ledger.wait_until_open()
    assert scene.ledger.is_open
    assert scene.close()
    unused = Scene()
    assert unused.close()


def test_nobody_overtakes_those_who_wait_for_it_to_open() -> None:
    """Who comes in the very turn in which it opens goes on after those who came before."""
    scene = Scene(held=True)
    order: list[int] = []

    def come(number: int) -> None:
        scene.ledger.wait_until_open()
        assert scene.ledger.is_open
        order.append(number)

    posted: list[Any] = []
    soon = scene.engine.call_soon_from_thread

    def post(*call: Any) -> None:
        soon(*call)
        posted.append(call)

    scene.engine.call_soon_from_thread = post  # what comes together in one turn
    scene.ledger.start()
    for number in range(3):
        scene.engine.spawn(come, number)
    scene.engine.sleep(0.0)
    scene.engine.call_soon_from_thread(scene.engine.spawn, come, 3)
    scene.gate.set()
    until = time.monotonic() + PATIENCE_S
    while len(posted) < 2:
        assert time.monotonic() < until, "the ledger did not open"
        time.sleep(0.001)
    while len(order) < 4:
        scene.engine.sleep(0.0)
    assert order == [0, 1, 2, 3]
    assert scene.close()


def test_no_bug_in_what_is_done_unasked_ends_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug while the ledger is looked after or closed is told; what others ask is done all the same."""
    scene = Scene()

    def break_down(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(scene.ledger._failover, "tend", break_down)
    monkeypatch.setattr(scene.ledger._failover, "close", break_down)
    answers: list[Any] = []
    scene.ledger.post(claim(1), answers.append)
    assert scene.close()
    assert [answer.status for answer in answers] == ["new"]
    assert {type(bug) for bug in scene.bugs} == {ZeroDivisionError}
