"""The settings: a table of them, parsers, where raw values come from, and the values with their origin.

Flags beat the environment, the environment beats the user's configuration file, the file beats the
defaults. Only `bridge.app` and `bridge.cli` know this room.
"""

from bridge.settings.table import Settings
from bridge.settings.values import describe, drop_secrets, load

__all__ = ["Settings", "describe", "drop_secrets", "load"]
