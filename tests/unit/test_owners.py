"""Tests of `bridge.ledger.owners`."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.ledger.owners import Owners
from bridge.ledger.trouble import LedgerTrouble


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a ledger is."""
    return str(tmp_path / "ledger.db")


@pytest.fixture
def mine(path: str) -> Iterator[Owners]:
    """An instance that lives."""
    owners = Owners(path, "mine")
    owners.hold()
    yield owners
    owners.release()


def lock(path: str, instance: str) -> Path:
    """The lock file of an instance."""
    return Path(f"{path}.owners", f"{instance}.lock")


def test_lock_file_is_private(path: str, mine: Owners) -> None:
    """Lock and folder are for this user alone, and no child inherits the lock."""
    found = lock(path, "mine")
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    descriptor = mine._descriptor
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)


def test_neighbour_is_alive_while_it_holds_its_lock(path: str, mine: Owners) -> None:
    """A neighbour lives until it lets go; a name without a file is dead."""
    other = Owners(path, "other")
    other.hold()
    assert mine.is_alive("other")
    assert other.is_alive("mine")
    other.release()
    assert not mine.is_alive("other")
    assert not mine.is_alive("never")
    assert mine.is_alive("mine")
    assert not lock(path, "other").exists()


def test_file_that_nobody_locks_is_dead_and_removed(path: str, mine: Owners) -> None:
    """What a killed instance left is swept up, living and kept ones are not."""
    for name in ("killed", "kept"):
        lock(path, name).touch()
    assert not mine.is_alive("killed")
    assert mine.remove_dead(keep={"kept"}) == 1
    assert sorted(os.listdir(f"{path}.owners")) == ["kept.lock", "mine.lock"]
    neighbour = Owners(path, "neighbour")
    assert neighbour.remove_dead() == 1
    assert mine.is_alive("mine")


def test_who_asks_is_not_taken_for_the_holder(path: str, mine: Owners) -> None:
    """A dead instance is dead for everybody who asks at the same moment, and the asking needs no write."""
    lock(path, "killed").touch()
    lock(path, "killed").chmod(0o400)
    with lock(path, "killed").open("rb") as asked:
        fcntl.flock(asked, fcntl.LOCK_SH)
        assert not mine.is_alive("killed")
        assert mine.live_marks() == []


def test_deleted_lock_file_is_made_again(path: str, mine: Owners) -> None:
    """An instance whose file was deleted heals itself with the next hold."""
    other = Owners(path, "other")
    lock(path, "mine").unlink()
    assert not other.is_alive("mine")
    mine.hold()
    assert other.is_alive("mine")


def test_hold_and_release_can_be_repeated(path: str, mine: Owners) -> None:
    """Holding twice keeps the same lock, releasing twice does nothing."""
    descriptor = mine._descriptor
    mine.hold()
    assert mine._descriptor == descriptor
    mine.release()
    mine.release()
    assert not Owners(path, "other").is_alive("mine")


def test_lock_that_cannot_be_judged_counts_as_alive(path: str, mine: Owners) -> None:
    """Nothing is taken from an instance whose lock cannot be opened."""
    lock(path, "odd").symlink_to(lock(path, "mine"))
    assert mine.is_alive("odd")
    assert mine.remove_dead() == 0


def test_folder_of_a_stranger_is_refused(path: str, tmp_path: Path) -> None:
    """A folder that is a link is not used; a loose one is closed."""
    folder = Path(f"{path}.owners")
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerTrouble) as caught:
        Owners(path, "mine").hold()
    assert caught.value.kind == "foreign"
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o755)
    owners = Owners(path, "mine")
    owners.hold()
    owners.release()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_folder_that_cannot_be_made_is_trouble(path: str) -> None:
    """A place without room for locks is told as trouble of the ledger."""
    with pytest.raises(LedgerTrouble):
        Owners(f"{path}/not/there", "mine").hold()


def test_in_memory_only_this_instance_lives() -> None:
    """A ledger that nobody shares has no lock files."""
    owners = Owners(None, "mine")
    owners.hold()
    assert owners.is_alive("mine")
    assert not owners.is_alive("other")
    assert owners.remove_dead() == 0
    owners.release()


def test_sweepers_never_kill_a_newborn(path: str, mine: Owners) -> None:
    """An instance that begins to hold while others sweep ends up with a file in place."""
    stop = threading.Event()

    def sweep() -> None:
        sweeper = Owners(path, "sweeper")
        while not stop.is_set():
            sweeper.remove_dead()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for number in range(100):
            born = Owners(path, f"born{number}")
            born.hold()
            assert mine.is_alive(f"born{number}")
            assert lock(path, f"born{number}").exists()
            born.release()
    finally:
        stop.set()
        thread.join()
