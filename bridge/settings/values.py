"""The values of all settings with their origin: which source counts, and what contradicts what.

Changes nothing except in `drop_secrets`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from bridge.core.exits import ConfigError
from bridge.core.text import hide_keys
from bridge.settings.parsing import PARSERS, BadValue, has_password, mask_password
from bridge.settings.sources import Layer, find_home, read_environment, read_file, unknown_variables, user_dir
from bridge.settings.table import KEY_SOURCES, LIBPQ_PASSWORD, MEMORY, ROWS, TABLE, Setting, Settings


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
            return _value(row, nearest[name], home)
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
            notices.append(("ledger_memory", {"reason": reason}))
    _check_together(values, origins)
    hidden = frozenset(secret_variables(environ))
    values.update(state_dir=state_dir, config_file=config_file, hidden=hidden, notices=tuple(notices))
    return Settings(values, origins)


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that hold a secret, and those that say where the key is: one rule for all."""
    rows = [row.variable for row in TABLE if row.kind == "secret" or row.name in KEY_SOURCES]
    urls = [row.variable for row in TABLE if row.kind in ("ledger", "proxy")]
    return [*rows, LIBPQ_PASSWORD, *(name for name in urls if has_password(environ.get(name, "")))]


def drop_secrets(environ: MutableMapping[str, str]) -> None:
    """Remove the variables that hold secrets, so that no child process inherits them.

    Only libpq's own stays: the driver of a ledger on a server reads it when it connects.
    """
    for variable in {*secret_variables(environ)} - {LIBPQ_PASSWORD}:
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


def _value(row: Setting, layer: Layer, home: str | None) -> Any:
    text = layer.text(row)
    if isinstance(text, bool):
        return text
    if row.kind == "ledger" and layer.what == "flag" and "://" in text and has_password(text):
        raise BadValue(
            "holds a password, which everybody on this machine could read in the list of processes; "
            "give the URL without it and set REPORT_BRIDGE_LEDGER_PASSWORD"
        )
    value = PARSERS[row.kind](text, row)
    is_path = row.kind == "path" or (row.kind == "ledger" and value != MEMORY and "://" not in value)
    return layer.absolute(value, home) if is_path else value


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
