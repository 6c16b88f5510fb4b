"""Tests of `bridge.ledger.files`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bridge.ledger import files
from bridge.ledger.files import boot_id, file_system, prepare, verify
from bridge.ledger.trouble import READABLE, SENTENCES, LedgerTrouble, from_error


def mode(path: Path) -> int:
    """The permission bits of a path."""
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(path: Path) -> str:
    """The kind of trouble that preparing a path raises."""
    with pytest.raises(LedgerTrouble) as caught:
        prepare(str(path))
    return caught.value.kind


def test_missing_ledger_is_made_private(tmp_path: Path) -> None:
    """File and new directories are for this user alone, whatever the umask."""
    path = tmp_path / "a" / "b" / "ledger.db"
    before = os.umask(0)
    try:
        prepared = prepare(str(path))
    finally:
        os.umask(before)
    assert [mode(path), mode(path.parent), mode(path.parent.parent)] == [0o600, 0o700, 0o700]
    assert prepared.writable
    assert "ledger_modes_repaired" not in [name for name, _ in prepared.notices]
    assert os.path.samestat(prepare(str(path)).found, prepared.found)


def test_loose_modes_are_repaired_with_a_notice(tmp_path: Path) -> None:
    """A ledger and sidecars that others may read are closed to them."""
    path, journal = tmp_path / "ledger.db", tmp_path / "ledger.db-journal"
    for each in (path, journal):
        each.touch()
        each.chmod(0o644)
    notices = [fields for name, fields in prepare(str(path)).notices if name == "ledger_modes_repaired"]
    assert [mode(path), mode(journal)] == [0o600, 0o600]
    assert sorted(fields["mode"] for fields in notices) == ["0644", "0644"]


def test_only_a_private_directory_is_repaired(tmp_path: Path) -> None:
    """A directory of the user keeps its modes; the program's own is closed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    names = [name for name, _ in prepare(str(folder / "ledger.db")).notices]
    assert (mode(folder), names[0]) == (0o777, "ledger_directory_loose")
    prepare(str(folder / "ledger.db"), private_directory=True)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("suffix", ["", *files.SIDECARS])
def test_symlinks_are_refused(tmp_path: Path, suffix: str) -> None:
    """Neither the ledger nor a sidecar may lead elsewhere, not even to nothing."""
    (tmp_path / f"ledger.db{suffix}").symlink_to(tmp_path / "target")
    assert refusal(tmp_path / "ledger.db") == "foreign"
    (tmp_path / "target").write_bytes(b"precious")
    assert refusal(tmp_path / "ledger.db") == "foreign"
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_what_is_not_a_plain_file_is_refused(tmp_path: Path) -> None:
    """Directories, pipes and devices are no ledgers."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        assert refusal(path) == "foreign"


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that somebody else owns is not opened."""
    path = tmp_path / "ledger.db"
    prepare(str(path))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert refusal(path) == "foreign"


def test_path_below_a_file_is_unreadable(tmp_path: Path) -> None:
    """A file where a directory is needed is told, not overwritten."""
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "ledger.db") == "unreadable"


def test_write_protected_file_is_not_writable(tmp_path: Path) -> None:
    """Modes are taken at their word, also by a superuser."""
    path = tmp_path / "ledger.db"
    prepare(str(path))
    path.chmod(0o400)
    assert not prepare(str(path)).writable


def test_verify_notices_a_deleted_or_replaced_file(tmp_path: Path) -> None:
    """The path must go on naming the file that was opened."""
    path = tmp_path / "ledger.db"
    opened = prepare(str(path)).found

    def verdict() -> str:
        with pytest.raises(LedgerTrouble) as caught:
            verify(str(path), opened)
        return caught.value.kind

    verify(str(path), opened)
    path.chmod(0o400)
    assert verdict() == "readonly"
    keep = path.rename(tmp_path / "kept")
    assert verdict() == "replaced"
    path.write_bytes(keep.read_bytes())
    assert verdict() == "replaced"


def test_file_system_is_that_of_the_device(tmp_path: Path) -> None:
    """The kernel says on which device a path is, and of what kind that is; nothing is made up."""
    number = tmp_path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    other = "31 21 0:0 / /mnt rw shared:5 master:1 - tmpfs none rw"
    mine = f"30 21 {device} / /mnt/my\\040share rw shared:6 - nfs4 host:/x rw,vers=4"
    mounts = tmp_path / "mountinfo"
    for lines, kind in (([other, "broken line", "", mine], "nfs4"), ([other], None)):
        mounts.write_text("\n".join(lines))
        assert file_system(str(tmp_path), str(mounts)) == kind
    assert file_system(str(tmp_path), str(tmp_path / "missing")) is None
    assert file_system(str(tmp_path / "missing"), str(mounts)) is None


def test_network_file_system_gives_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger whose locks depend on another machine is used, and said to be so."""
    monkeypatch.setattr(files, "file_system", lambda _: "nfs4")
    path = str(tmp_path / "ledger.db")
    assert prepare(path).notices[-1] == ("ledger_network_fs", {"path": path, "filesystem": "nfs4"})


def test_boot_has_one_name() -> None:
    """The name of this boot does not change while it lasts."""
    assert boot_id() == boot_id()


def test_errors_of_the_file_system_become_kinds() -> None:
    """Every error number has a kind with a sentence; unknown ones are unreadable."""
    assert from_error(OSError(errno.ENOSPC, "")).kind == "full"
    assert from_error(OSError(errno.EROFS, "")).kind == "readonly"
    assert from_error(OSError("odd")).kind == "unreadable"
    assert all(from_error(OSError(number, "")).kind in SENTENCES for number in errno.errorcode)


def test_trouble_says_whether_reading_goes_on() -> None:
    """Full, read-only and newer ledgers are still asked for duplicates."""
    assert {"full", "readonly", "newer"} == READABLE
    assert str(LedgerTrouble("full")) == SENTENCES["full"]
