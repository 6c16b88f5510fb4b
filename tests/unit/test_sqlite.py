"""Tests of `bridge.ledger.sqlite` and `bridge.ledger.sqlite_file`: what only SQLite has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from bridge.core.model import (
    Begin,
    Claim,
    Ending,
    Facts,
    Listing,
    Look,
    Record,
    Settle,
    Sweep,
    Task,
    Verdict,
    Window,
)
from bridge.ledger import files, sqlite_file
from bridge.ledger.owners import Owners
from bridge.ledger.port import Ask, Story
from bridge.ledger.reading import open_reader
from bridge.ledger.sqlite import SqliteStore
from bridge.ledger.trouble import READABLE, SENTENCES, LedgerTrouble
from bridge.reports.pauses import PausePolicy
from tests.ledgers import open_file

ROOT = Path(__file__).parents[2]
VERDICT = Verdict("accepted", 0, "accepted", "accepted", "done", False, True, True, True)
Opener = Callable[..., SqliteStore]


def task(number: int) -> Task:
    """A task of the test account."""
    return Task("https://upstream.test", "a" * 32, number)


def claim(number: int = 1) -> Claim:
    """A claim that begins at once."""
    return Claim(task(number), "reportIncorrectImageCaptcha", Window(55.0, None), Facts(), True)


def finish(number: int = 1) -> list[Any]:
    """A whole report."""
    return [claim(number), Record(task(number), VERDICT, 0.0, 5, Ending("accepted", 0, "accepted"))]


@pytest.fixture(autouse=True)
def _rollback_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page is in the file; a write-ahead log would hold them all, and damage would not be met."""
    monkeypatch.setattr(sqlite_file, "JOURNAL", "truncate")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "ledger.db"


@pytest.fixture
def opener(path: Path) -> Iterator[Opener]:
    """Opens stores that are closed after the test."""
    stores: list[SqliteStore] = []

    def open_store(where: Path | None = path, **options: Any) -> SqliteStore:
        given: dict[str, Any] = {"boot_clock": lambda: 1.0, "wall_clock": lambda: 2.0, "busy_s": 0.05}
        store = SqliteStore(
            None if where is None else str(where),
            policy=PausePolicy("m", enabled=False),
            **{**given, **options},
        )
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def outsider(path: Path) -> Iterator[sqlite_file.Connection]:
    """Another program's connection to the same path."""
    connection = open_file(path)
    yield connection
    connection.close()


def trouble(action: Callable[[], Any]) -> str:
    """The kind of trouble that an action raises."""
    with pytest.raises(LedgerTrouble) as caught:
        action()
    return caught.value.kind


def outcome_of(store: SqliteStore, number: int = 1) -> str | None:
    """What a store tells of a report without writing."""
    row = store.transact([Ask(task(number), None)])[0].row
    return None if row is None else row.outcome


# --- opening ---------------------------------------------------------------------------------


def test_file_is_kept_safe(opener: Opener, path: Path) -> None:
    """Settings are read back as they were meant, and the file says whose it is."""
    store = opener()
    assert store._connection.pragma("synchronous") == 2
    assert store._connection.pragma("user_version") == sqlite_file.VERSION
    assert store._connection.pragma("application_id") == sqlite_file.APPLICATION_ID
    assert store._connection.pragma("foreign_keys") == 1
    assert store._connection.pragma("trusted_schema") == 0
    assert (store.kind, store.durable, len(store.secret)) == ("sqlite", True, 32)


def test_nothing_is_promised_without_flushes(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library does not take the setting that flushes each commit, answers do not say durable."""

    class Careless(sqlite_file.Connection):
        def pragma(self, name: str, *value: Any, **more: Any) -> Any:
            return 1 if (name, value) == ("synchronous", ()) else super().pragma(name, *value, **more)

    monkeypatch.setattr(sqlite_file, "Connection", Careless)
    store = opener()
    assert store.durable is False
    assert store.transact([claim()])[0].durable is False
    assert "ledger_not_durable" in [name for name, _ in store.notices]


def test_memory_leaves_no_file(opener: Opener, tmp_path: Path) -> None:
    """A ledger in memory is the same code without a promise."""
    store = opener(None)
    assert store.transact([claim()])[0].durable is False
    assert (store.kind, store.durable, os.listdir(tmp_path)) == ("memory", False, [])


def test_odd_characters_in_the_path(opener: Opener, tmp_path: Path) -> None:
    """A path is a name, not an address."""
    path = tmp_path / "a%20b?mode=memory#c d\u00e9" / "l.db"
    opener(path).transact([claim()])
    assert path.stat().st_size > 0


def test_reports_survive_a_restart(opener: Opener) -> None:
    """What was committed is there after closing and opening again, with the same secret."""
    first = opener()
    first.transact(finish())
    first.close()
    first.close()
    second = opener()
    assert second.transact([claim()])[0].status == "known"
    assert second.secret == first.secret
    assert trouble(lambda: first.transact([Look(task(1))])[0]) == "unreadable"


def test_next_boot_has_its_own_timeline(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts in one boot share the timeline; a new boot makes a new one; no name makes one for each."""
    monkeypatch.setattr(files, "boot_id", lambda: "first")
    assert opener(wall_clock=lambda: 101.0).clock_offset_s == 100.0
    assert opener(wall_clock=lambda: 900.0).clock_offset_s == 100.0
    monkeypatch.setattr(files, "boot_id", lambda: "second")
    assert opener(wall_clock=lambda: 900.0).clock_offset_s == 899.0
    monkeypatch.setattr(files, "boot_id", lambda: None)
    assert opener(wall_clock=lambda: 700.0).clock_offset_s == 699.0


def test_many_openers_make_one_ledger(opener: Opener) -> None:
    """Instances that start together on nothing agree on schema and secret."""
    secrets: list[bytes] = []
    start = threading.Barrier(4)

    def run() -> None:
        start.wait()
        secrets.append(opener(busy_s=30.0).secret)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 4
    assert len(set(secrets)) == 1


def test_database_of_another_program_is_left_alone(
    opener: Opener, outsider: sqlite_file.Connection, path: Path
) -> None:
    """A foreign database is refused and not one byte of it changes."""
    outsider.execute("CREATE TABLE notes (text)")
    before = path.read_bytes()
    assert trouble(opener) == "foreign"
    assert path.read_bytes() == before


def test_text_file_is_not_a_ledger(opener: Opener, path: Path) -> None:
    """A file that is no database is refused and not overwritten."""
    path.write_text("groceries: milk\n" * 100)
    assert trouble(opener) == "corrupt"
    assert path.read_text().startswith("groceries")


def test_damage_is_found_when_opening(opener: Opener, path: Path) -> None:
    """A ledger with a page of rubbish in its middle is not trusted."""
    store = opener()
    store.transact([claim(number) for number in range(1, 65)])
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:20480] = b"\xa5" * 12288
    path.write_bytes(data)
    assert trouble(opener) == "corrupt"


def test_ledger_without_secret_is_damaged(opener: Opener, outsider: sqlite_file.Connection) -> None:
    """Without its secret a ledger cannot name accounts."""
    opener().close()
    outsider.execute("DELETE FROM meta WHERE name = 'secret'")
    assert trouble(opener) == "corrupt"


def test_newer_ledger_is_read_and_never_written(
    opener: Opener, outsider: sqlite_file.Connection, path: Path
) -> None:
    """A version from the future answers questions and stays as it is."""
    store = opener()
    store.transact(finish())
    secret = store.secret
    store.close()
    outsider.execute(f"PRAGMA user_version = {sqlite_file.VERSION + 1}")
    before = path.read_bytes()
    store = opener()
    assert store.trouble is not None
    assert store.trouble.kind == "newer"
    assert store.secret == secret
    assert outcome_of(store) == "accepted"
    assert trouble(lambda: store.transact([claim(2)])) == "newer"
    assert path.read_bytes() == before


def test_ledger_that_cannot_be_written_when_it_is_opened_recovers(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that exists is opened for reading, and written as soon as it can be."""

    def fail(_: Owners) -> None:
        raise LedgerTrouble("full")

    opener().transact(finish())
    with monkeypatch.context() as patch:
        patch.setattr(Owners, "hold", fail)
        store = opener()
        assert store.trouble is not None
        assert store.trouble.kind == "full"
        assert outcome_of(store) == "accepted"
        assert trouble(lambda: store.transact([claim(2)])) == "full"
    assert store.transact([claim(2)])[0].status == "new"
    assert store.trouble is None


def test_new_ledger_that_nobody_can_own_is_refused(opener: Opener, path: Path) -> None:
    """Without room for its locks a ledger cannot be shared safely."""
    Path(f"{path}.owners").touch()
    assert trouble(opener) == "foreign"


# --- trouble while it is open ----------------------------------------------------------------


def test_write_protected_ledger_is_read(opener: Opener, path: Path) -> None:
    """A file that may not be written still tells duplicates, before and after opening."""
    store = opener()
    store.transact(finish())
    path.chmod(0o400)
    assert trouble(lambda: store.transact([claim(2)])) == "readonly"
    late = opener()
    assert late.trouble is not None
    assert late.trouble.kind == "readonly"
    assert trouble(lambda: late.transact([claim(2)])) == "readonly"
    for each in (store, late):
        assert outcome_of(each) == "accepted"
    path.chmod(0o600)
    assert store.transact([claim(2)])[0].status == "new"


def test_missing_ledger_cannot_be_made_read_only(opener: Opener, path: Path) -> None:
    """An empty file that may not be written is no ledger."""
    path.touch()
    path.chmod(0o400)
    assert trouble(opener) == "readonly"


def test_full_ledger_is_read_and_recovers(opener: Opener) -> None:
    """When no page can be added reads go on, and writes do again once there is room."""
    store = opener()
    store.transact(finish())
    pages = store._connection.pragma("page_count")
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    assert trouble(lambda: [store.transact([claim(n)]) for n in range(2, 500)]) == "full"
    assert outcome_of(store) == "accepted"
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.transact([claim(600)])[0].status == "new"


def test_locked_ledger_says_so_and_recovers(opener: Opener, outsider: sqlite_file.Connection) -> None:
    """Another program's lock is waited for a while and then told."""
    store = opener()
    outsider.execute("BEGIN EXCLUSIVE")
    assert trouble(lambda: store.transact([claim()])) == "locked"
    assert trouble(lambda: store.transact([Listing(None)])[0]) == "locked"
    assert trouble(opener) == "locked"
    outsider.execute("ROLLBACK")
    assert store.transact([claim()])[0].status == "new"


def test_a_foreign_lock_is_waited_for_once_although_a_bridge_was_here_just_now(
    opener: Opener, outsider: sqlite_file.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has just been written is no sign that bridges wait for each other: one has to live."""
    clocks: dict[str, Any] = {"boot_clock": time.monotonic, "wall_clock": time.time}
    opener(**clocks).close()
    outsider.execute("BEGIN EXCLUSIVE")
    tries: list[Any] = []
    identify = sqlite_file.identify

    def count(connection: sqlite_file.Connection) -> int:
        tries.append(connection)
        return identify(connection)

    monkeypatch.setattr(sqlite_file, "identify", count)
    assert trouble(lambda: opener(**clocks)) == "locked"
    assert len(tries) == 1
    outsider.execute("ROLLBACK")


def test_a_foreign_lock_is_no_queue_although_a_neighbour_has_just_committed(
    opener: Opener, outsider: sqlite_file.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a bridge that lives a lock is waited for as without one, unless others go on committing."""
    clocks: dict[str, Any] = {"boot_clock": time.monotonic, "wall_clock": time.time, "busy_s": 0.2}
    store, neighbour = opener(**clocks), opener(**clocks)
    tries: list[Any] = []
    commit = store._commit

    def count(operations: Any, opening: str) -> list[Any]:
        tries.append(operations)
        return commit(operations, opening)

    monkeypatch.setattr(store, "_commit", count)
    neighbour.transact([claim()])
    outsider.execute("BEGIN IMMEDIATE")
    assert trouble(lambda: store.transact([claim(2)])) == "locked"
    # Once more at most, if the neighbour's commit fell into the first wait.
    assert len(tries) <= 2


def test_commit_that_is_locked_out_leaves_nothing(opener: Opener, outsider: sqlite_file.Connection) -> None:
    """A reader that stays blocks the commit; the batch is undone and can be repeated."""
    store = opener()
    outsider.execute("BEGIN")
    outsider.execute("SELECT count(*) FROM reports").fetchone()
    assert trouble(lambda: store.transact([claim()])) == "locked"
    outsider.execute("ROLLBACK")
    assert store.transact([Look(task(1))])[0] is None
    assert store.transact([claim()])[0].status == "new"


def test_events_are_never_changed(opener: Opener) -> None:
    """History can be added to and pruned, not rewritten."""
    store = opener()
    store.transact(finish())
    with pytest.raises(sqlite_file.Error, match="never changed"):
        store._connection.execute("UPDATE events SET name = 'x'")


# --- journal, errors, schema -----------------------------------------------------------------


def test_a_journal_that_rolls_back_is_given_up_when_alone(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger without a write-ahead log gets one from whoever finds nobody in the middle of a commit."""
    opener().close()
    monkeypatch.setattr(sqlite_file, "JOURNAL", "wal")
    store = opener()
    assert store._connection.pragma("journal_mode") == "wal"
    assert store.transact(finish())[1].durable


def test_every_result_code_has_a_kind() -> None:
    """Whatever SQLite says becomes a kind with a sentence, and reading never claims to be readable."""
    codes = [getattr(apsw, name) for name in dir(apsw) if name.startswith("SQLITE_")]
    for code in (code for code in codes if isinstance(code, int)):
        error: Any = sqlite_file.Error("secret text")
        error.extendedresult = code
        for writing in (True, False):
            found = sqlite_file.translate(error, writing)
            assert found.kind in SENTENCES
            assert "secret" not in found.sentence
            assert writing or found.kind not in READABLE
    assert sqlite_file.translate(sqlite_file.Error("closed"), True).kind == "unreadable"


# --- a write-ahead log and what is beside the file -------------------------------------------


@pytest.fixture
def log(_rollback_journal: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledgers have a write-ahead log."""
    monkeypatch.setattr(sqlite_file, "JOURNAL", "wal")


def companions(path: Path) -> list[str]:
    """What lies beside a ledger while it has a write-ahead log."""
    return sorted(
        name.removeprefix(path.name) for name in os.listdir(path.parent) if name.endswith(("-wal", "-shm"))
    )


def numbers(path: Path) -> list[Any]:
    """The tasks in a ledger that nobody uses, which must be whole."""
    connection = open_file(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [found[0] for found in connection.execute("SELECT task_id FROM reports ORDER BY 1").fetchall()]
    finally:
        connection.close()


def make_other(path: Path, opener: Opener, number: int) -> Path:
    """Make another ledger beside, with one report."""
    other = path.with_name(f"other-{number}.db")
    store = opener(other)
    store.transact(finish(number))
    store.close()
    return other


@pytest.mark.usefixtures("log")
def test_at_rest_a_ledger_is_one_file(opener: Opener, path: Path, tmp_path: Path) -> None:
    """After the last bridge has left, everything is in the file, and any SQLite may open it."""
    store = opener()
    store.transact(finish(1))
    assert companions(path) == ["-shm", "-wal"]
    store.close()
    assert companions(path) == []
    assert path.read_bytes()[18:20] == b"\1\1"
    copy = tmp_path / "elsewhere" / "copy.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert numbers(copy) == [1]


@pytest.mark.usefixtures("log")
def test_the_log_stays_while_somebody_uses_it(opener: Opener, path: Path) -> None:
    """Only the last one to leave can make the ledger one file again; nobody else is disturbed."""
    first, second = opener(), opener()
    first.transact(finish(1))
    first.close()
    assert companions(path) == ["-shm", "-wal"]
    assert second.transact(finish(2))[1].status == "ok"
    second.close()
    assert companions(path) == []
    assert numbers(path) == [1, 2]


@pytest.mark.usefixtures("log")
def test_a_ledger_left_by_a_crash_has_everything(opener: Opener, path: Path, tmp_path: Path) -> None:
    """What lies there after a kill, log and all, is opened with every report."""
    store = opener()
    store.transact(finish(1))
    ruin = tmp_path / "ruin" / path.name
    ruin.parent.mkdir()
    for suffix in ("", "-wal"):
        (ruin.parent / (path.name + suffix)).write_bytes(Path(f"{path}{suffix}").read_bytes())
    heir = opener(ruin)
    assert heir.transact([claim(1)])[0].status == "known"
    heir.close()
    assert companions(ruin) == []
    assert numbers(ruin) == [1]


@pytest.mark.usefixtures("log")
def test_a_replaced_ledger_leaves_nothing_to_the_new_one(opener: Opener, path: Path) -> None:
    """The log of the old ledger goes when it is let go, so that its pages cannot get into the new one."""
    store = opener()
    store.transact(finish(1))
    make_other(path, opener, 2).rename(path)
    assert trouble(lambda: store.transact(finish(3))) == "replaced"
    store.close()
    assert companions(path) == []
    assert numbers(path) == [2]
    assert opener().transact([claim(2)])[0].status == "known"


@pytest.mark.usefixtures("log")
def test_a_deleted_ledger_leaves_nothing_to_the_next_one(opener: Opener, path: Path) -> None:
    """After a deletion the next ledger of that name begins empty."""
    store = opener()
    store.transact(finish(1))
    path.unlink()
    assert trouble(lambda: store.transact(finish(2))) == "replaced"
    store.close()
    assert companions(path) == []
    fresh = opener()
    assert fresh.transact([claim(1)])[0].status == "new"
    assert fresh.secret != store.secret
    fresh.close()
    assert numbers(path) == [1]


@pytest.mark.usefixtures("log")
def test_a_moved_ledger_is_complete_where_it_is(opener: Opener, path: Path, tmp_path: Path) -> None:
    """Moved away without its log, the file has everything once its bridge has let go."""
    store = opener()
    for number in range(1, 30):
        store.transact(finish(number))
    moved = tmp_path / "elsewhere" / "moved.db"
    moved.parent.mkdir()
    path.rename(moved)
    assert trouble(lambda: store.transact(finish(99))) == "replaced"
    store.close()
    assert os.listdir(moved.parent) == ["moved.db"]
    assert companions(path) == []
    assert numbers(moved) == list(range(1, 30))


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "deleted"])
def test_nobody_opens_beside_the_log_of_another_ledger(
    opener: Opener, path: Path, tmp_path: Path, is_replaced: bool
) -> None:
    """While a bridge has the ledger open that was here before, a new one waits: the log is the old one's."""
    other = tmp_path / "other" / "l.db"
    opener(other).transact(finish(7))
    opener(other).close()
    old = opener()
    old.transact(finish(1))
    path.unlink()
    if is_replaced:
        path.write_bytes(other.read_bytes())
        path.chmod(0o600)
    with pytest.raises(LedgerTrouble, match="lets go of it") as caught:
        opener()
    assert caught.value.kind == "locked"
    assert trouble(lambda: old.transact(finish(2))) == "replaced"
    old.close()
    new = opener()
    new.transact(finish(3))
    new.close()
    assert 1 not in numbers(path)


@pytest.mark.usefixtures("log")
def test_the_log_of_a_new_ledger_is_left_alone(opener: Opener, path: Path, tmp_path: Path) -> None:
    """Moved away with its log, a ledger takes nothing from the one that was made in its place."""
    old = opener()
    old.transact(finish(1))
    moved = tmp_path / "elsewhere" / path.name
    moved.parent.mkdir()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").rename(f"{moved}{suffix}")
    new = opener()
    new.transact(finish(2))
    beside = files.find_companions(str(path))
    assert len(beside) == 2
    old.close()
    after = files.find_companions(str(path))
    assert after.keys() == beside.keys()
    assert all(os.path.samestat(after[name], found) for name, found in beside.items())
    assert new.transact(finish(3))[1].status == "ok"
    new.close()
    assert numbers(path) == [2, 3]
    assert numbers(moved) == [1]


@pytest.mark.usefixtures("log")
def test_a_copy_is_one_file(opener: Opener, path: Path) -> None:
    """What a copy was written to needs no log beside it, and no SQLite that knows logs."""
    opener().close()
    with closing(open_reader(str(path), 0.0, 0.0)) as target:
        target.write([("UPDATE meta SET name = name", ())])
    assert files.find_companions(str(path)) == {}
    assert path.read_bytes()[18:20] == b"\1\1"  # 2 stands for a write-ahead log


def test_only_the_files_that_were_meant_are_removed(tmp_path: Path) -> None:
    """Companions are known by what they are, not by their names."""
    path = tmp_path / "l.db"
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    wal.write_bytes(b"old")
    shm.write_bytes(b"old")
    found = files.find_companions(str(path))
    assert set(found) == {str(wal), str(shm)}
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"new")
    fresh.rename(wal)
    files.remove_companions(found)
    files.remove_companions(found)
    assert wal.read_bytes() == b"new"
    assert not shm.exists()


# --- what is remembered of our own reports ---------------------------------------------------


def sweep() -> Sweep:
    """Take over what the dead have left."""
    return Sweep("https://upstream.test", frozenset({"a" * 32}))


def bury(store: SqliteStore, path: Path) -> None:
    """Make a store look dead to the others, as if somebody had deleted its lock file."""
    (Path(f"{path}.owners") / f"{store.instance}.lock").unlink()


RETRY = VERDICT._replace(outcome="unknown", next="again", perhaps=True)


@pytest.mark.parametrize(
    "operation",
    [
        finish(1)[1],
        Record(task(1), RETRY, 0.0, 5, None),
        Settle(task(1), Ending("not_sent", -32010, "window_closed")),
        Begin(task(1)),
    ],
    ids=["finish", "defer", "settle", "begin"],
)
def test_nothing_is_written_to_what_another_bridge_took_over(
    opener: Opener, path: Path, operation: Any
) -> None:
    """Each change alone finds out that the report is somebody else's, and leaves it as it is."""
    mine, theirs = opener(), opener()
    mine.transact([claim(1)])
    bury(mine, path)
    theirs.transact([sweep()])
    before = theirs.transact([Look(task(1))])[0]
    (result,) = mine.transact([operation])
    assert (result.gate.status if isinstance(operation, Begin) else result.status) == "lost"
    assert result.row == theirs.transact([Look(task(1))])[0] == before


def test_a_report_that_another_process_took_over_is_lost(opener: Opener, path: Path) -> None:
    """A bridge elsewhere counts as one beside."""
    mine = opener()
    mine.transact([claim(1)])
    bury(mine, path)
    taker = """
import sys
import time
from bridge.core.model import Sweep
from bridge.ledger.sqlite import SqliteStore
from bridge.reports.pauses import PausePolicy
store = SqliteStore(sys.argv[1], policy=PausePolicy("m", enabled=False),
                         boot_clock=lambda: 1.0, wall_clock=lambda: 2.0)
swept = store.transact([Sweep("https://upstream.test", frozenset({"a" * 32}))])[0]
print(len(swept.adopted), flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", taker, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        assert [r.status for r in mine.transact([finish(1)[1], claim(2)])] == ["lost", "new"]
    finally:
        child.communicate(timeout=60)
    assert child.returncode == 0


def test_what_was_undone_is_not_remembered(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a batch that could not be written, reports are as the file has them."""
    store = opener()
    store.transact([claim(1)])
    flush = store.flush

    def fail() -> None:
        flush()
        raise sqlite_file.Error("no")

    monkeypatch.setattr(store, "flush", fail)
    assert trouble(lambda: store.transact([finish(1)[1]])) == "unreadable"
    monkeypatch.setattr(store, "flush", flush)
    assert store.transact([Look(task(1))])[0].state == "sending"
    assert store.transact([finish(1)[1]])[0].status == "ok"
    assert [name for _, name, _ in store.transact([Story(1)])[0]] == ["claimed", "begun", "settled"]
