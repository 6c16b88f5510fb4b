"""Where settings come from: the environment, the configuration file and the user's directories.

Finds raw values only; what they mean is `bridge.settings.parsing`'s business. The working directory is
never searched.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from bridge.core.exits import ConfigError
from bridge.core.text import escape, nearest, suggest
from bridge.settings.parsing import BadValue
from bridge.settings.table import ENV_PREFIX, OTHER_VARIABLES, ROWS, TABLE, Setting

_TOML: Final[Mapping[str, tuple[Any, str]]] = {
    "switch": (bool, "boolean; write true or false without quotes"),
    "integer": (int, "number; write it without quotes"),
    "seconds": ((int, float), "number; write it without quotes"),
}
"""Kind of a setting -> what it has to be in the file; all others are strings."""


class Layer(NamedTuple):
    """One source of settings."""

    what: str
    """``flag``, ``environment`` or ``file``."""
    values: Mapping[str, Any]
    """Setting name to text, to a boolean for a switch that is a flag, or to a TOML value."""
    path: str | None = None
    """Of a file."""

    def origin(self, row: Setting) -> str:
        """Say where a value stands, for people."""
        where = {"flag": row.flag, "environment": row.variable}.get(self.what, self.path)
        return f"{self.what} {where}"

    def text(self, row: Setting) -> str | bool:
        """Return a value as text, or a boolean for a switch.

        Raises:
            BadValue: a TOML value has another type than the setting.
        """
        raw = self.values[row.name]
        if self.what != "file":
            given: str | bool = raw
            return given
        types, what = _TOML.get(row.kind, (str, "string; write it in quotes"))
        if not isinstance(raw, types) or (isinstance(raw, bool) and types is not bool):
            raise BadValue(f"is no TOML {what}")
        if isinstance(raw, str | bool):
            return raw
        # Text again, so that bounds, infinities and signs are judged in one place.
        return f"{raw:.9f}" if isinstance(raw, float) else str(raw)

    def absolute(self, path: str, home: str | None) -> str:
        """Make a path absolute: from the file's folder if it stands in the file, else from here.

        Raises:
            BadValue: there is no place to start from.
        """
        if path == "~" or path.startswith("~/"):
            if home is None:
                raise BadValue("begins with ~, but this user has no home directory; write the whole path")
            return os.path.join(home, path[2:])
        if self.path is not None:
            return os.path.join(os.path.dirname(self.path), path)
        try:
            return os.path.abspath(path)
        except OSError:
            raise BadValue("is relative, but the working directory is gone; write the whole path") from None


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return setting name to text for every variable that is set."""
    # An empty variable is how compose files and shells spell "not set". An empty secret is rather a
    # substitution that failed, and must not turn silently into "no key".
    given = {row.name: environ[row.variable] for row in TABLE if row.variable in environ}
    return {name: text for name, text in given.items() if text or ROWS[name].kind == "secret"}


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return a `setting_unknown` event for each variable with our prefix that is no setting."""
    known = {row.variable for row in TABLE} | OTHER_VARIABLES.keys()
    endings = [name.removeprefix(ENV_PREFIX) for name in known]
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known):
        near = nearest(name.removeprefix(ENV_PREFIX), endings)
        hint = "Unset it." if near is None else f"Did you mean {ENV_PREFIX}{near}?"
        found.append(("setting_unknown", {"name": name, "hint": hint}))
    return found


def read_file(path: str | None) -> Mapping[str, Any]:
    """Return setting name to TOML value; nothing if there is no file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds a key that is no setting.
    """
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            import tomllib  # costs 4 ms, and most users have no file

            found = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read ({error.strerror}); make it readable or remove it."
        ) from error
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration file {path} is not UTF-8 text; save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {escape(str(error))}.") from None
    names = {row.key: row.name for row in TABLE if row.in_file}
    for key in found:
        if key not in names:
            raise ConfigError(
                f"The configuration file {path} has a key that is no setting, {_advice(key, names)}"
            )
    return {names[key]: value for key, value in found.items()}


def _advice(key: str, known: Iterable[str]) -> str:
    if key == "client_key":
        return f"{key}; keep the key in a file of its own and name that with key_file."
    for row in TABLE:
        if row.key == key:
            return f"{key}; set it with the environment variable {row.variable}."
    return f"{key!a}{suggest(key, known)}"


# --- the user's directories ------------------------------------------------------------------
# Two rules in a dozen lines instead of platformdirs: that costs 5 ms at every start and one dependency.


def find_home(environ: Mapping[str, str]) -> str | None:
    """Return the user's home directory: HOME, else the user database, else None."""
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError, AttributeError):
            home = environ.get("USERPROFILE", "")
    return home if os.path.isabs(home) else None


def user_dir(environ: Mapping[str, str], home: str | None, variable: str, beneath_home: str) -> str | None:
    """Return this program's folder in a directory of the user; None if there is no such directory."""
    folder = environ.get(variable, "")
    if os.path.isabs(folder):  # the XDG specification has relative ones ignored
        return os.path.join(folder, "report-bridge")
    if home is None:
        return None
    if sys.platform == "darwin":
        beneath_home = "Library/Application Support"
    return os.path.join(home, *beneath_home.split("/"), "report-bridge")
