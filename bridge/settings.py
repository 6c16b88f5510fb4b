"""The settings: one table, and values with their origin.

Flags beat the environment, the environment beats the user's configuration file, the file beats the
defaults. `bridge.settings_table` says which settings there are. Changes nothing except in
`drop_secrets`. Imported by `bridge.app` and `bridge.cli` only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

from bridge.core.exits import ConfigError
from bridge.core.redact import Secret
from bridge.settings_parse import (
    BadValue,
    has_password,
    mask_password,
    parse_choice,
    parse_flag_word,
    parse_integer,
    parse_ledger,
    parse_path,
    parse_proxy,
    parse_seconds,
    parse_upstream,
)
from bridge.settings_sources import find_home, read_environment, read_file, unknown_variables, user_dir
from bridge.settings_table import KEY_SOURCES, MEMORY, ROWS, SECRET_VARIABLES, TABLE, Setting


class Settings:
    """The values of all settings, immutable. Attributes are the names of the table."""

    key_file: str | None
    key_command: str | None
    client_key: Secret | None
    """The key from the environment, unchecked; `bridge.ops.keys` says whether it can be one."""
    url: str
    ledger: str
    """``memory``, a ``postgresql://`` URL or an absolute path."""
    ledger_password: Secret | None
    require_ledger: bool
    concurrency: int
    queue: int
    timeout_s: float
    connect_timeout_s: float
    max_message: int
    max_batch: int
    max_depth: int
    drain_s: float
    pauses: bool
    parent_watch: bool
    proxy: str | None
    ca_file: str | None
    log_level: str
    log_format: str
    log_file: str | None
    metrics_file: str | None
    sandbox: bool

    state_dir: str | None
    """The user's state directory for this program; None if there is none. Not made here."""
    config_file: str | None
    """Where the configuration file is, or would be; None if there is no place for it."""
    notices: tuple[tuple[str, Mapping[str, Any]], ...]
    """Events found while reading, to be logged once there is a log."""

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self.__dict__.update(values)
        self.__dict__["_origins"] = dict(origins)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def origin(self, name: str) -> str:
        """Return where a value comes from: ``flag --url``, ``environment REPORT_BRIDGE_URL``,
        ``file PATH`` or ``default``."""
        origins: Mapping[str, str] = self.__dict__["_origins"]
        return origins.get(name, "default")

    def changed(self, **values: Any) -> Settings:
        """Return a copy with some values replaced; their origin stays. For the sandbox and for tests."""
        merged = {name: value for name, value in self.__dict__.items() if name != "_origins"}
        unknown = values.keys() - merged.keys()
        if unknown:
            raise AttributeError(f"no such setting: {', '.join(sorted(unknown))}")
        return Settings({**merged, **values}, self.__dict__["_origins"])


def load(flags: Mapping[str, str | bool | None], environ: Mapping[str, str]) -> Settings:
    """Read all sources and return the settings.

    Args:
        flags: setting name to the text given on the command line, or to a boolean for a switch;
            None counts as not given.
        environ: the environment; an empty variable counts as not set, except for secrets.

    Raises:
        ConfigError: a value, a file key or a combination cannot be used.
    """
    home = find_home(environ)
    config_dir = user_dir(environ, home, "XDG_CONFIG_HOME", ".config")
    state_dir = user_dir(environ, home, "XDG_STATE_HOME", ".local/state")
    config_file = None if config_dir is None else os.path.join(config_dir, "config.toml")
    in_file = {} if config_file is None else read_file(config_file)
    layers = (
        _Layer("flag", {name: value for name, value in flags.items() if value is not None}, None),
        _Layer("environment", read_environment(environ), None),
        _Layer("file", in_file, config_file),
    )
    values: dict[str, Any] = {row.name: row.default for row in TABLE}
    origins: dict[str, str] = {}
    sandbox = _choose(ROWS["sandbox"], layers, home)
    if sandbox is not None:
        values["sandbox"], origins["sandbox"] = sandbox
    for row in TABLE:
        if row.name in KEY_SOURCES or row.name == "sandbox":
            continue
        # In the sandbox the user's own ledger must not fill with made-up tasks: only what was given
        # for this very start counts.
        chosen = _choose(row, layers[:2] if values["sandbox"] and row.name == "ledger" else layers, home)
        if chosen is not None:
            values[row.name], origins[row.name] = chosen
    if not values["sandbox"]:
        _choose_key_source(layers, home, values, origins)
    notices = list(unknown_variables(environ))
    if values["ledger"] is None:
        values["ledger"] = MEMORY if values["sandbox"] else _default_ledger(state_dir, notices)
    _check_together(values, origins)
    values.update(state_dir=state_dir, config_file=config_file, notices=tuple(notices))
    return Settings(values, origins)


def drop_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove the variables that hold secrets, so that no child process inherits them."""
    for variable in SECRET_VARIABLES:
        environ.pop(variable, None)


def describe(settings: Settings) -> list[tuple[str, Any, str]]:
    """Return ``(name, value to show, origin)`` for every setting, secrets masked."""
    rows: list[tuple[str, Any, str]] = []
    for row in TABLE:
        value, origin = getattr(settings, row.name), settings.origin(row.name)
        if row.kind == "secret":
            value = None if value is None else "set"
        elif row.name == "key_command" and value is not None:
            program, _, arguments = value.strip().partition(" ")
            value = f"{program} ***" if arguments else program  # arguments may hold a token
        elif row.kind in ("ledger", "proxy") and value is not None and "://" in value:
            value = mask_password(value)
        rows.append((row.key, value, origin))
    return rows


# --- choosing among the sources --------------------------------------------------------------


class _Layer(NamedTuple):
    what: str
    values: Mapping[str, Any]
    path: str | None

    def origin(self, row: Setting) -> str:
        if self.what == "flag":
            return f"flag {row.flag}"
        if self.what == "environment":
            return f"environment {row.variable}"
        return f"file {self.path}"


def _choose(row: Setting, layers: tuple[_Layer, ...], home: str | None) -> tuple[Any, str] | None:
    for layer in layers:
        if row.name in layer.values:
            origin = layer.origin(row)
            try:
                return _value(row, layer.values[row.name], layer, home), origin
            except BadValue as error:
                raise ConfigError(f"The setting {row.key} ({origin}) {error}.") from None
    return None


def _choose_key_source(
    layers: tuple[_Layer, ...], home: str | None, values: dict[str, Any], origins: dict[str, str]
) -> None:
    """Take the key's source from the first layer that names one; two in one layer contradict each other."""
    for layer in layers:
        named = [ROWS[name] for name in KEY_SOURCES if name in layer.values]
        if len(named) > 1:
            both = " and ".join(layer.origin(row) if layer.path is None else row.key for row in named)
            place = "" if layer.path is None else f" in the file {layer.path}"
            raise ConfigError(f"The client key has more than one source{place}: {both}; keep one of them.")
        if named:
            chosen = _choose(named[0], (layer,), home)
            assert chosen is not None  # the row was found in this very layer
            values[named[0].name], origins[named[0].name] = chosen
            return


def _value(row: Setting, raw: Any, layer: _Layer, home: str | None) -> Any:
    if layer.what == "file":
        raw = _text_of_toml(row, raw)
    if isinstance(raw, bool):
        return raw
    text: str = raw
    match row.kind:
        case "integer":
            return parse_integer(text, int(row.low), int(row.high))
        case "seconds":
            return parse_seconds(text, row.low, row.high)
        case "switch":
            return parse_flag_word(text)
        case "choice":
            return parse_choice(text, row.choices)
        case "upstream":
            return parse_upstream(text)
        case "proxy":
            return parse_proxy(text)
        case "path":
            return _absolute(parse_path(text), layer, home)
        case "ledger":
            return _ledger(text, layer, home)
        case "secret":
            if not text:
                raise BadValue("is empty; set it to a value or do not set it")
            return Secret(text)
        case _:
            if not text.strip():
                raise BadValue("is empty")
            return text


def _text_of_toml(row: Setting, raw: Any) -> Any:
    """Bring a TOML value into the form of the other sources: text, or a boolean for a switch."""
    if row.kind == "switch":
        if not isinstance(raw, bool):
            raise BadValue("is no TOML boolean; write true or false without quotes")
        return raw
    if row.kind in ("integer", "seconds"):
        if isinstance(raw, bool) or not isinstance(raw, int if row.kind == "integer" else (int, float)):
            raise BadValue("is no TOML number; write it without quotes")
        # Text again, so that bounds, infinities and signs are judged in one place.
        return repr(raw) if isinstance(raw, int) else f"{raw:.9f}"
    if not isinstance(raw, str):
        raise BadValue("is no TOML string; write it in quotes")
    return raw


def _ledger(text: str, layer: _Layer, home: str | None) -> str:
    if layer.what == "flag" and "://" in text and has_password(text):
        raise BadValue(
            "holds a password, which everybody on this machine could read in the list of processes; "
            "give the URL without it and set REPORT_BRIDGE_LEDGER_PASSWORD"
        )
    ledger = parse_ledger(text)
    return ledger if ledger == MEMORY or "://" in ledger else _absolute(ledger, layer, home)


def _absolute(path: str, layer: _Layer, home: str | None) -> str:
    """Make a path absolute: from the file's folder if it stands in the file, else from here."""
    if path == "~" or path.startswith("~/"):
        if home is None:
            raise BadValue("begins with ~, but this user has no home directory; write the whole path")
        return os.path.join(home, path[2:])
    if layer.path is not None:
        return os.path.join(os.path.dirname(layer.path), path)
    try:
        return os.path.abspath(path)
    except OSError:
        raise BadValue("is relative, but the working directory is gone; write the whole path") from None


def _check_together(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    if values["require_ledger"] and values["ledger"] == MEMORY:
        raise ConfigError(
            f"The setting require_ledger ({origins['require_ledger']}) asks for a lasting ledger, but "
            f"the ledger is memory ({origins.get('ledger', 'default')}); name a file with --ledger."
        )
    ca_file = values["ca_file"]
    if ca_file is not None and not (os.path.isfile(ca_file) and os.access(ca_file, os.R_OK)):
        raise ConfigError(
            f"The setting ca_file ({origins['ca_file']}) is no file that can be read; "
            "give the path of a PEM file."
        )


def _default_ledger(state_dir: str | None, notices: list[tuple[str, Mapping[str, Any]]]) -> str:
    if state_dir is not None:
        return os.path.join(state_dir, "ledger.sqlite3")
    notices.append(
        ("ledger_memory", {"reason": "this user has no home directory; name a file with --ledger"})
    )
    return MEMORY
