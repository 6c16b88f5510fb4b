"""Who is alive on a ledger: each instance holds a lock on a file of its own.

No time-outs and no process ids, which lie after a suspend or a wrap. Imported by the stores only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from bridge.ledger.files import O_SAFE, check
from bridge.ledger.trouble import from_error

_fcntl: Any
try:
    import fcntl as _fcntl
except ImportError:  # pragma: no cover - Windows: no bridge runs there, so nobody can be alive
    _fcntl = None

BOOT_DIGITS: Final = 8
"""Digits of an instance's name that tell in which boot of which machine it was made."""
_LOCK_SUFFIX: Final = ".lock"
_LONGEST_MARK: Final = 64


def name_instance(boot: str | None, random_bytes: Callable[[int], bytes]) -> str:
    """A name for an instance that is never used twice: its boot, and chance."""
    boot_part = blake2b((boot or "").encode(), digest_size=BOOT_DIGITS // 2).hexdigest()
    return boot_part + random_bytes(8).hex()


class Owners:
    """The instances on one ledger; each holds a lock on a file of its own for as long as it lives.

    The kernel lets go of the lock when a process ends, however it ends. Names are random and never
    used twice, so a dead instance stays dead, and a file that is gone means dead.

    Args:
        path: the ledger's path, or None for a ledger that only this store can see.
        instance: the name of this instance.
    """

    def __init__(self, path: str | None, instance: str) -> None:
        self.instance = instance
        self.mark = ""
        """Which file this instance has open; others can read it as long as the lock is held."""
        self._folder = None if path is None or _fcntl is None else path + ".owners"
        self._own_path = self._path(instance)
        self._descriptor = -1

    def hold(self) -> None:
        """Show that this instance is alive; call it again to heal a lock file that was deleted.

        Raises:
            LedgerTrouble: the lock cannot be had: ``readonly``, ``full``, ``foreign``, ``unreadable``.
        """
        if self._folder is None or self._is_held():
            return
        try:
            with suppress(FileExistsError):
                os.mkdir(self._folder, 0o700)
            check(self._folder, stat.S_ISDIR, 0o700, [])
            while not self._is_held():
                self.release()
                self._descriptor = os.open(self._own_path, os.O_RDWR | os.O_CREAT | O_SAFE, 0o600)
                # A sweeper may hold it for the moment in which it takes the new file for a dead one.
                _fcntl.flock(self._descriptor, _fcntl.LOCK_EX)
                os.ftruncate(self._descriptor, 0)
                os.write(self._descriptor, self.mark.encode("ascii"))
        except OSError as error:
            self.release()
            raise from_error(error) from error

    def live_marks(self) -> list[str]:
        """The marks of all other instances that run."""
        marks: list[str] = []
        for instance in self._others():
            if not self._bury(instance, unlink=False):
                # It may have ended just now.
                with (
                    suppress(OSError),
                    open(self._path(instance), encoding="ascii", errors="replace") as file,
                ):
                    marks.append(file.read(_LONGEST_MARK))
        return marks

    def is_alive(self, instance: str) -> bool:
        """True if that instance still runs."""
        if instance == self.instance:
            return True
        return self._folder is not None and not self._bury(instance, unlink=False)

    def remove_dead(self, keep: Collection[str] = ()) -> int:
        """Delete the lock files of dead instances, except those to keep; how many were deleted."""
        found = [name for name in self._others() if name not in keep]
        return sum(self._bury(name, unlink=True) for name in found)

    def release(self) -> None:
        """Show that this instance is gone. Idempotent."""
        if self._is_held():
            # The lock goes with the descriptor; a file that stays is swept up by others.
            with suppress(OSError):
                os.unlink(self._own_path)
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_held(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._own_path))
        except OSError:
            return False

    def _bury(self, instance: str, unlink: bool) -> bool:
        """Say whether an instance is dead and, if asked, delete its file while nobody can hold it."""
        path = self._path(instance)
        try:
            descriptor = os.open(path, os.O_RDONLY | O_SAFE)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # Never take from somebody who may be alive.
        try:
            # Shared, so that who asks at the same moment is not taken for its holder.
            _fcntl.flock(descriptor, _fcntl.LOCK_SH | _fcntl.LOCK_NB)
            if unlink:
                os.unlink(path)
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _others(self) -> list[str]:
        try:
            names = [] if self._folder is None else os.listdir(self._folder)
        except OSError:
            return []
        found = [name.removesuffix(_LOCK_SUFFIX) for name in names if name.endswith(_LOCK_SUFFIX)]
        return [instance for instance in found if instance != self.instance]

    def _path(self, instance: str) -> str:
        return os.path.join(self._folder or "", instance + _LOCK_SUFFIX)
