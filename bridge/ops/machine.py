"""Who this machine is: an id kept in the state directory, for pauses that concern one machine."""

from __future__ import annotations

import os
from contextlib import suppress


def load_machine_id(directory: str | None) -> str:
    """Read the machine's id, or make one.

    Args:
        directory: The user's state directory; None or one that cannot be written gives an id for
            this process alone, so that nothing is shared by mistake.
    """
    fresh = os.urandom(8).hex()
    if directory is None:
        return fresh
    path = os.path.join(directory, "machine-id")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        # Written aside and linked, so that another process never reads half an id.
        aside = f"{path}.{fresh}"
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(fresh + "\n")
        try:
            with suppress(FileExistsError):
                os.link(aside, path)
        finally:
            os.unlink(aside)
        with open(path, encoding="ascii") as file:
            found = file.read(64).strip()
    except (OSError, ValueError):
        return fresh
    return found if found.isalnum() else fresh
