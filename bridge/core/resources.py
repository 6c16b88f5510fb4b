"""Reads the data files of the ``schemas/`` folder, wherever the program runs from.

A wheel carries the folder inside the package, a source checkout has it beside it.
Must read nothing else and never write. Imported by every module that is driven by a table.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cache
from typing import Any

_FOLDER = "schemas"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The folder inside the package comes first: beside an installed package lie the folders of strangers.
_PLACES = (os.path.join(_PACKAGE, _FOLDER), os.path.join(os.path.dirname(_PACKAGE), _FOLDER))


@cache
def load_json(name: str) -> Any:
    """Read one data file as JSON; every caller gets the same value and must not change it.

    Args:
        name: file name inside the folder, with forward slashes; a constant of the program.

    Raises:
        FileNotFoundError: the program was packed without that file.

    Thread safety: any thread; two threads at once may both read, and get equal values.
    """
    for place in _PLACES:
        with suppress(OSError), open(os.path.join(place, *name.split("/")), encoding="utf-8") as file:
            return json.load(file)
    raise FileNotFoundError(f"data file {name!r} is missing from this installation")
