"""The files of a ledger: made privately, checked for strangers, and where they are.

Knows nothing of databases and never opens an existing ledger file: closing any descriptor of it
would drop the locks that the database holds in this process. Imported by the stores only.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from bridge.ledger.port import Notice
from bridge.ledger.trouble import FOREIGN, READONLY, REPLACED, LedgerTrouble, from_error

_NETWORK: Final = (
    "nfs nfs4 cifs smb2 smb3 smbfs ncpfs afs coda ceph lustre glusterfs gpfs gfs2 ocfs2 beegfs "
    "orangefs 9p virtiofs vboxsf prl_fs fuse.sshfs fuse.s3fs fuse.rclone fuse.glusterfs fuse.ceph fuse.cephfs"
)
NETWORK_KINDS: Final = frozenset(_NETWORK.split())
"""File systems whose locks or flushes depend on another machine."""

SIDECARS: Final = ("-journal", "-wal", "-shm")
"""What SQLite puts beside its file."""

LOOSE: Final = 0o077
"""Modes that let others in."""
O_SAFE: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags of every descriptor that is opened: no link is followed, no child inherits it."""


class Prepared(NamedTuple):
    """A ledger file that is safe to open."""

    found: os.stat_result
    """Which file it is."""
    writable: bool
    """False if the modes forbid it to its owner, even where a superuser could."""
    notices: tuple[Notice, ...]


# --- the ledger's file -----------------------------------------------------------------------


def prepare(path: str, private_directory: bool = False) -> Prepared:
    """Make the ledger's file if it is missing, and check it and its sidecars.

    Args:
        path: where the ledger is or shall be; a missing directory is made for this user alone.
        private_directory: True if the directory is the program's own: loose modes are repaired.

    Raises:
        LedgerTrouble: ``foreign``, ``readonly``, ``full``, ``unreadable``.
    """
    directory = os.path.dirname(os.path.abspath(path))
    notices: list[Notice] = []
    try:
        _make_directory(directory)
        if private_directory:
            _repair(directory, os.lstat(directory), 0o700, notices)
        with suppress(FileExistsError):
            # A new file is nobody else's yet, so closing it here drops no lock.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | O_SAFE, 0o600))
        for suffix in SIDECARS:
            with suppress(FileNotFoundError):
                check(path + suffix, stat.S_ISREG, 0o600, notices)
        found = check(path, stat.S_ISREG, 0o600, notices)
        folder = os.stat(directory)
    except OSError as error:
        raise from_error(error) from error
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX and os.name == "posix":
        notices.append(("ledger_directory_loose", {"path": directory, "mode": _octal(folder)}))
    kind = file_system(directory)
    if kind in NETWORK_KINDS:
        notices.append(("ledger_network_fs", {"path": path, "filesystem": kind}))
    return Prepared(found, _is_writable(found) and _is_writable(folder), tuple(notices))


def verify(path: str, opened: os.stat_result) -> None:
    """Check that the path still names the file that was opened, and that it may be written.

    Raises:
        LedgerTrouble: ``replaced`` or ``readonly``.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise LedgerTrouble(REPLACED) from error
    if not os.path.samestat(found, opened):
        raise LedgerTrouble(REPLACED)
    if not _is_writable(found):
        raise LedgerTrouble(READONLY)


def is_in_place(path: str, opened: os.stat_result) -> bool:
    """True if the path still names this file."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), opened)
    return False


def has_changed(path: str, wall: float, within_s: float) -> bool:
    """True if somebody has written to the ledger, or to what is beside it, in the last seconds."""
    for suffix in ("", *SIDECARS):
        with suppress(OSError):
            if 0.0 <= wall - os.lstat(path + suffix).st_mtime <= within_s:
                return True
    return False


def find_companions(path: str) -> dict[str, os.stat_result]:
    """The files that SQLite keeps beside a ledger while it has a write-ahead log, by their paths."""
    found: dict[str, os.stat_result] = {}
    for suffix in ("-wal", "-shm"):
        with suppress(OSError):
            found[path + suffix] = os.lstat(path + suffix)
    return found


def remove_companions(companions: Mapping[str, os.stat_result]) -> None:
    """Delete what a ledger has left beside a path that is another ledger's now.

    SQLite cannot tell whose log it finds: it would put the old ledger's pages into the new one.
    """
    for path, opened in companions.items():
        if is_in_place(path, opened):
            with suppress(OSError):
                os.unlink(path)


def _make_directory(directory: str) -> None:
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        _make_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)


def check(path: str, is_kind: Callable[[int], bool], most: int, notices: list[Notice]) -> os.stat_result:
    """Refuse what is of another kind, or another user's, and close it to others.

    Args:
        most: the modes that it may have.
        notices: told if it had others.

    Raises:
        LedgerTrouble: ``foreign``.
        OSError: it cannot be looked at.
    """
    found = os.lstat(path)
    is_ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not is_kind(found.st_mode) or not is_ours:
        raise LedgerTrouble(FOREIGN)
    _repair(path, found, most, notices)
    return found


def _repair(path: str, found: os.stat_result, most: int, notices: list[Notice]) -> None:
    if os.name != "posix" or not found.st_mode & LOOSE:
        return
    if stat.S_ISLNK(found.st_mode):
        raise LedgerTrouble(FOREIGN)
    try:
        os.chmod(path, stat.S_IMODE(found.st_mode) & most)
    except OSError as error:
        raise LedgerTrouble(FOREIGN) from error
    notices.append(("ledger_modes_repaired", {"path": path, "mode": _octal(found)}))


def _is_writable(found: os.stat_result) -> bool:
    # A file its owner may not write is meant to be left alone, also by a superuser who could.
    return bool(found.st_mode & stat.S_IWUSR)


def _octal(found: os.stat_result) -> str:
    return format(stat.S_IMODE(found.st_mode), "04o")


# --- where we are ----------------------------------------------------------------------------


def file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """The kind of file system a path is on (``ext4``, ``nfs4`` ...), or None if nobody says.

    Args:
        mounts: a file in the format of the default.

    Source: proc(5), section ``/proc/pid/mountinfo``.
    """
    with suppress(OSError), open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        device = os.stat(path).st_dev
        for line in file:
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2:3] == [f"{os.major(device)}:{os.minor(device)}"]:
                return kind.split(" ")[0]
    return None


def boot_id() -> str | None:
    """A name of this boot of this machine, or None if nobody says."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return _ask_sysctl() if sys.platform == "darwin" else None


def _ask_sysctl() -> str | None:  # pragma: no cover - macOS
    import subprocess  # Late: only macOS pays for it.

    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=2, env={}, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("ascii", "replace").strip() or None
