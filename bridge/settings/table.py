"""The table of settings: name, type, flag, variable, default, bounds and one sentence of help each.

Data only. The command line, the environment, the configuration file, ``report-bridge config``, help and
documentation are all derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MEMORY: Final = "memory"
ENV_PREFIX: Final = "REPORT_BRIDGE_"


class Setting(NamedTuple):
    """One row of the table of settings."""

    name: str
    """Attribute of `Settings`; seconds end in ``_s``."""
    kind: str
    """``integer``, ``seconds``, ``switch``, ``path``, ``text``, ``upstream``, ``ledger``, ``proxy``,
    ``choice`` or ``secret``; says how `bridge.settings.parsing` turns text into the value."""
    flag: str | None
    """None: there is no flag, since a command line can be seen by everybody on the machine."""
    variable: str
    default: Any
    help: str
    """One sentence for people, without the default."""
    group: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    metavar: str = ""

    @property
    def key(self) -> str:
        """Name for people: the key of the configuration file, and what messages call the setting."""
        return self.name.removesuffix("_s")

    @property
    def in_file(self) -> bool:
        """False: a configuration file may be shared or backed up, so secrets do not belong there."""
        return self.kind != "secret"


def _row(name: str, kind: str, group: str, default: Any, help: str, **more: Any) -> Setting:
    """Build a row whose flag and variable follow from its name, and its metavar from its kind, as most do."""
    short = name.removesuffix("_s")
    flag = None if kind == "secret" else "--" + short.replace("_", "-")
    usual = {"flag": flag, "variable": ENV_PREFIX + short.upper(), "metavar": _METAVARS.get(kind, "")}
    return Setting(name=name, kind=kind, group=group, default=default, help=help, **{**usual, **more})


_METAVARS: Final = {"path": "PATH", "upstream": "URL", "proxy": "URL", "seconds": "SECONDS", "integer": "N"}


_LEVELS: Final = ("debug", "info", "warning", "error")

TABLE: Final[tuple[Setting, ...]] = (
    _row("key_file", "path", "key", None, "File that holds the client key and nothing else.",
         variable="ANTICAPTCHA_CLIENT_KEY_FILE"),
    _row("key_command", "text", "key", None, "Command that prints the client key; run without a shell.",
         metavar="COMMAND"),
    _row("client_key", "secret", "key", None, "The client key itself.", variable="ANTICAPTCHA_CLIENT_KEY"),
    _row("url", "upstream", "upstream", "https://api.anti-captcha.com",
         "Base address of the upstream; plain http only for loopback."),
    _row("proxy", "proxy", "upstream", None, "HTTP proxy to the upstream; never used for loopback."),
    _row("ca_file", "path", "upstream", None, "PEM file with the certificate authorities to trust instead."),
    _row("timeout_s", "seconds", "upstream", 10.0, "Longest time one attempt may take in all, in seconds.",
         low=0.05, high=300),
    _row("connect_timeout_s", "seconds", "upstream", 3.0,
         "Longest time for name, TCP and TLS of one attempt, in seconds.", low=0.05, high=300),
    # Each attempt holds a connection: 1024 are far beyond the point where more of them help.
    _row("concurrency", "integer", "upstream", 32, "Most attempts at the upstream at once.",
         low=1, high=1024),
    _row("pauses", "switch", "upstream", True, "Stop sending when refusals show that going on does harm."),
    _row("account_figures", "switch", "upstream", False,
         "Ask the upstream once an hour how many tasks the account has solved, for advice."),
    _row("account_queues", "text", "upstream", None,
         "Names of the account's reCAPTCHA queues, as its statistics show them, separated by commas.",
         metavar="NAMES"),
    _row("ledger", "ledger", "ledger", None,
         "Where reports are remembered: a file, the word memory, or a postgresql:// URL.",
         metavar="PATH|memory|URL"),
    _row("require_ledger", "switch", "ledger", False, "Refuse reports that the ledger cannot remember."),
    _row("ledger_password", "secret", "ledger", None, "Password for a postgresql:// ledger."),
    # The bounds below keep memory in the hundreds of megabytes and a stack within Python's limit.
    _row("queue", "integer", "wire", 1000, "Most requests admitted and not yet answered.",
         low=1, high=1_000_000),
    _row("max_message", "integer", "wire", 1_048_576, "Longest message in bytes.",
         low=64, high=268_435_456, metavar="BYTES"),
    _row("max_batch", "integer", "wire", 1000, "Most members of a batch.", low=1, high=1_000_000),
    _row("max_depth", "integer", "wire", 64, "Deepest nesting of a message.", low=2, high=500),
    _row("drain_s", "seconds", "process", 8.0, "Time for running work after SIGTERM or SIGHUP, in seconds.",
         low=0, high=3600),
    _row("parent_watch", "switch", "process", True, "End when the parent process is gone."),
    _row("sandbox", "switch", "process", False,
         "Serve against a built-in simulator: no account needed, nothing leaves the machine."),
    _row("log_level", "choice", "log", "warning", "Lowest level that is logged.", choices=_LEVELS),
    _row("log_format", "choice", "log", "auto", "Form of log lines; auto is text on a terminal, else json.",
         choices=("json", "text", "auto")),
    _row("log_file", "path", "log", None, "File to append the log to, instead of stderr."),
    _row("metrics_file", "path", "log", None,
         "File to keep the service's figures in, in the Prometheus text format."),
)  # fmt: skip
"""Every setting, in the order of help and documentation."""

GROUPS: Final[Mapping[str, str]] = {
    "key": "client key",
    "upstream": "upstream",
    "ledger": "ledger",
    "wire": "limits of the wire",
    "process": "process",
    "log": "log and figures",
}

OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "REPORT_BRIDGE_BIN": "Path of the command, for the clients that start it; the bridge itself ignores it.",
}
"""Variables with our prefix that are no settings."""

ROWS: Final[Mapping[str, Setting]] = {row.name: row for row in TABLE}
KEY_SOURCES: Final = ("key_file", "key_command", "client_key")
"""Settings that say where the client key is; one of them at most counts."""
LIBPQ_PASSWORD: Final = "PGPASSWORD"
"""The password of a ledger on a server, as every program with libpq takes it."""
