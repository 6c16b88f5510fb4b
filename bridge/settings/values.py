"""The values of all settings with their origin: where raw values come from, which source counts, and what
contradicts what.

Changes nothing except in `drop_secrets`. The working directory is never searched.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple

import bridge.settings.table as table
from bridge.core.exits import ConfigError
from bridge.core.text import escape, hide_keys, nearest, suggest
from bridge.settings.parsing import PARSERS, BadValue, has_password, mask_password
from bridge.settings.table import KEY_SOURCES, MEMORY, ROWS, TABLE, Setting, Settings

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

    def value(self, row: Setting, home: str | None) -> Any:
        """Return a value as the setting has it.

        Raises:
            BadValue: it cannot be used.
        """
        text = self.values[row.name]
        if self.what == "file":
            text = _read_toml(row, text)
        if isinstance(text, bool):
            return text
        if row.kind == "ledger" and self.what == "flag" and "://" in text and has_password(text):
            raise BadValue(
                "holds a password, which everybody on this machine could read in the list of processes; "
                "give the URL without it and set REPORT_BRIDGE_LEDGER_PASSWORD"
            )
        value = PARSERS[row.kind](text, row)
        is_path = row.kind == "path" or (row.kind == "ledger" and value != MEMORY and "://" not in value)
        return self._absolute(value, home) if is_path else value

    def _absolute(self, path: str, home: str | None) -> str:
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


def _read_toml(row: Setting, raw: Any) -> str | bool:
    types, what = _TOML.get(row.kind, (str, "string; write it in quotes"))
    if not isinstance(raw, types) or (isinstance(raw, bool) and types is not bool):
        raise BadValue(f"is no TOML {what}")
    if isinstance(raw, str | bool):
        return raw
    # Text again, so that bounds, infinities and signs are judged in one place.
    return f"{raw:.9f}" if isinstance(raw, float) else str(raw)


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return setting name to text for every variable that is set."""
    # An empty variable is how compose files and shells spell "not set". An empty secret is rather a
    # substitution that failed, and must not turn silently into "no key".
    given = {row.name: environ[row.variable] for row in TABLE if row.variable in environ}
    return {name: text for name, text in given.items() if text or ROWS[name].kind == "secret"}


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return a `setting_unknown` event for each variable with our prefix that is no setting."""
    known = {row.variable for row in TABLE} | table.OTHER_VARIABLES.keys()
    endings = {name.removeprefix(table.ENV_PREFIX).removeprefix("ANTICAPTCHA_"): name for name in known}
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name in sorted(name for name in environ if name.startswith(table.ENV_PREFIX) and name not in known):
        near = nearest(name.removeprefix(table.ENV_PREFIX), endings)
        hint = "Unset it." if near is None else f"Did you mean {endings[near]}?"
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
        fault = escape(hide_keys(str(error)))
        raise ConfigError(f"The configuration file {path} is not valid TOML: {fault}.") from None
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
    return f"{hide_keys(ascii(key))}{suggest(key, known)}"


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


# --- values ----------------------------------------------------------------------------------


def load(flags: Mapping[str, str | bool], environ: Mapping[str, str]) -> Settings:
    """Read all sources and return the settings.

    Args:
        flags: setting name to the text given on the command line, or to a boolean for a switch.
        environ: the environment; an empty variable counts as not set, except for secrets.

    Raises:
        ConfigError: a value, a file key or a combination cannot be used.
    """
    home = find_home(environ)
    config_dir = user_dir(environ, home, "XDG_CONFIG_HOME", ".config")
    state_dir = user_dir(environ, home, "XDG_STATE_HOME", ".local/state")
    config_file = None if config_dir is None else os.path.join(config_dir, "config.toml")
    layers = (
        Layer("flag", flags),
        Layer("environment", read_environment(environ)),
        Layer("file", read_file(config_file), config_file),
    )
    nearest = {name: layer for layer in reversed(layers) for name in layer.values}

    def value_of(name: str) -> Any:
        row = ROWS[name]
        if name not in nearest:
            return row.default
        try:
            return nearest[name].value(row, home)
        except BadValue as error:
            raise ConfigError(f"The setting {row.key} ({nearest[name].origin(row)}) {error}.") from None

    in_sandbox = value_of("sandbox")
    if in_sandbox:
        # Made-up tasks must not fill a ledger that was named for real ones.
        unused = {*KEY_SOURCES} if nearest.get("ledger") is layers[0] else {*KEY_SOURCES, "ledger"}
    else:
        unused = {*KEY_SOURCES} - {_find_key_source(layers)}
    for name in unused:
        nearest.pop(name, None)
    values = {name: value_of(name) for name in ROWS}
    origins = {name: layer.origin(ROWS[name]) for name, layer in nearest.items()}
    notices = unknown_variables(environ)
    if values["ledger"] is None:
        is_kept = state_dir is not None and not in_sandbox
        values["ledger"] = os.path.join(state_dir or "", "ledger.sqlite3") if is_kept else MEMORY
        if state_dir is None and not in_sandbox:
            reason = "this user has no home directory; name a file with --ledger"
            notices.append(("ledger_memory", {"path": "ledger.sqlite3", "reason": reason}))
    _check_together(values, origins)
    hidden = frozenset(secret_variables(environ))
    values.update(state_dir=state_dir, config_file=config_file, hidden=hidden, notices=tuple(notices))
    return Settings(values, origins)


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that hold a secret, and those that say where the key is: one rule for all."""
    rows = [row.variable for row in TABLE if row.kind == "secret" or row.name in KEY_SOURCES]
    urls = [row.variable for row in TABLE if row.kind in ("ledger", "proxy")]
    return [*rows, table.LIBPQ_PASSWORD, *(name for name in urls if has_password(environ.get(name, "")))]


def drop_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove the variables that hold secrets, so that no child process inherits them.

    Only libpq's own stays: the driver of a ledger on a server reads it when it connects.
    """
    for variable in {*secret_variables(environ)} - {table.LIBPQ_PASSWORD}:
        environ.pop(variable, None)


def describe(settings: Settings) -> list[tuple[str, Any, str]]:
    """Return ``(name, value to show, origin)`` for every setting, secrets masked."""
    rows: list[tuple[str, Any, str]] = []
    for row in TABLE:
        value = getattr(settings, row.name)
        if value is not None and row.kind == "secret":
            value = "set"
        elif value is not None and row.name == "key_command":
            program, _, arguments = value.strip().partition(" ")
            value = f"{program} ***" if arguments else program  # arguments may hold a token
        elif value is not None and row.kind in ("ledger", "proxy"):
            value = mask_password(value)
        rows.append((row.key, value, settings.origin(row.name)))
    return rows


def _find_key_source(layers: Sequence[Layer]) -> str | None:
    """Find the source of the key in the first layer that names one; two in one contradict each other."""
    for layer in layers:
        named = [ROWS[name] for name in KEY_SOURCES if name in layer.values]
        if len(named) > 1:
            both = " and ".join(layer.origin(row) if layer.path is None else row.key for row in named)
            place = "" if layer.path is None else f" in the file {layer.path}"
            raise ConfigError(f"The client key has more than one source{place}: {both}; keep one of them.")
        if named:
            return named[0].name
    return None


def _check_together(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    if values["require_ledger"] and values["ledger"] == MEMORY:
        raise ConfigError(
            f"The setting require_ledger ({origins['require_ledger']}) asks for a lasting ledger, but "
            f"the ledger is memory ({origins.get('ledger', 'default')}); name a file with --ledger."
        )
    # Queues have names of words; what is named here goes to the upstream, and into the ledger as it is.
    if re.search(r"(?<![^\s,])[0-9a-fA-F]{32}(?![^\s,])", values["account_queues"] or ""):
        raise ConfigError(
            f"The setting account_queues ({origins['account_queues']}) holds what looks like a client key; "
            "name the queues as the account's statistics show them."
        )
    ca_file = values["ca_file"]
    if ca_file is not None and not (os.path.isfile(ca_file) and os.access(ca_file, os.R_OK)):
        raise ConfigError(
            f"The setting ca_file ({origins['ca_file']}) is no file that can be read: "
            f"{hide_keys(ca_file)}; give the path of a PEM file."
        )
