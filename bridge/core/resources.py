"""Reads the data files of the ``schemas/`` folder, wherever the program runs from.

A wheel carries the folder inside the package, a source checkout has it beside it.
Must read nothing else and never write. Imported by every module that is driven by a table.
"""

from __future__ import annotations

import json
import os
from typing import Any

_FOLDER = "schemas"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The folder inside the package comes first: beside an installed package lie the folders of strangers.
_PLACES = (os.path.join(_PACKAGE, _FOLDER), os.path.join(os.path.dirname(_PACKAGE), _FOLDER))

_texts: dict[str, str] = {}
_values: dict[str, Any] = {}


def load_text(name: str) -> str:
    """Read one data file as text.

    Args:
        name: file name inside the folder, with forward slashes; a constant of the program.

    Raises:
        FileNotFoundError: the program was packed without that file.

    Thread safety: any thread; two threads at once may both read, and get equal text.
    """
    text = _texts.get(name)
    if text is None:
        text = _texts[name] = _read(name).decode("utf-8")
    return text


def load_json(name: str) -> Any:
    """Read one data file as JSON; every caller gets the same value and must not change it.

    Args:
        name: as for `load_text`.

    Raises:
        FileNotFoundError: the program was packed without that file.
    """
    if name not in _values:
        _values[name] = json.loads(load_text(name))
    return _values[name]


def _read(name: str) -> bytes:
    for place in _PLACES:
        try:
            with open(os.path.join(place, *name.split("/")), "rb") as file:
                return file.read()
        except OSError:
            continue
    raise FileNotFoundError(f"data file {name!r} is missing from this installation")
