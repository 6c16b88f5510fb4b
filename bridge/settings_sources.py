"""Where settings come from: the environment, the configuration file and the user's directories.

Finds raw values only; what they mean is `bridge.settings`'s business. The working directory is never
searched. Imported by `bridge.settings`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from bridge.core.exits import ConfigError
from bridge.settings_table import ENV_PREFIX, OTHER_VARIABLES, TABLE


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return setting name to text for every variable that is set."""
    found = {}
    for row in TABLE:
        text = environ.get(row.variable)
        # An empty variable is how compose files and shells spell "not set". An empty secret is
        # rather a substitution that failed, and must not turn silently into "no key".
        if text is not None and (text or row.kind == "secret"):
            found[row.name] = text
    return found


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return a `setting_unknown` event for each variable with our prefix that is no setting."""
    known = {row.variable for row in TABLE} | OTHER_VARIABLES.keys()
    strange = sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)
    endings = [name.removeprefix(ENV_PREFIX) for name in known]
    sentence = f"; did you mean {ENV_PREFIX}{{}}?"
    return [
        ("setting_unknown", {"name": name, "hint": suggest(name.removeprefix(ENV_PREFIX), endings, sentence)})
        for name in strange
    ]


def suggest(word: str, known: Iterable[str], sentence: str) -> str:
    """Return the sentence with the nearest known word in it, or a full stop if none is near."""
    from difflib import get_close_matches  # only ever needed on the way to a message

    near = get_close_matches(word, sorted(known), 1, 0.7)
    return sentence.format(near[0]) if near else "."


def read_file(path: str) -> Mapping[str, Any]:
    """Return setting name to TOML value; nothing if there is no file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds a key that is no setting.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(1_000_001)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read ({error.strerror}); make it readable or remove it."
        ) from error
    import tomllib  # costs 4 ms, and most users have no file

    try:
        if len(data) > 1_000_000:
            raise ValueError("larger than 1 MB")
        found = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration file {path} is not UTF-8 text; save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from None
    names = {row.key: row.name for row in TABLE if row.in_file}
    for key in found:
        if key not in names:
            raise ConfigError(
                f"The configuration file {path} has a key that is no setting, {_advice(key, names)}."
            )
    return {names[key]: value for key, value in found.items()}


def _advice(key: str, known: Iterable[str]) -> str:
    if key == "client_key":
        return f"{key}; keep the key in a file of its own and name that with key_file."
    for row in TABLE:
        if row.key == key:
            return f"{key}; set it with the environment variable {row.variable}."
    return f"{key!a}{suggest(key, known, '; did you mean {}?')}"


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
