"""The table of settings: name, type, flag, variable, default, bounds and one sentence of help each.

Each stands once, in `Settings`, which has the values; `TABLE` has what is said of them. The command line, the
environment, the configuration file, ``report-bridge config``, help and documentation are all derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from bridge.core.events import LEVELS
from bridge.core.redact import Secret

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
    limit: str | None = None
    """Name of the member that tells it among the ``limits`` of ``bridge.info``."""

    @property
    def key(self) -> str:
        """Name for people: the key of the configuration file, and what messages call the setting."""
        return self.name.removesuffix("_s")

    @property
    def in_file(self) -> bool:
        """False: a configuration file may be shared or backed up, so secrets do not belong there."""
        return self.kind != "secret"


def _row(*columns: Any, **more: Any) -> Any:
    """Say what a setting is; it is made once its name is known."""
    return partial(_make, *columns, **more)


def _make(kind: str, group: str, default: Any, help: str, *, name: str, **more: Any) -> Setting:
    """Make a row whose flag and variable follow from its name, and its metavar from its kind, as most do."""
    short = name.removesuffix("_s")
    flag = None if kind == "secret" else "--" + short.replace("_", "-")
    usual = {"flag": flag, "variable": ENV_PREFIX + short.upper(), "metavar": _METAVARS.get(kind, "")}
    return Setting(name=name, kind=kind, group=group, default=default, help=help, **{**usual, **more})


_METAVARS: Final = {"path": "PATH", "upstream": "URL", "proxy": "URL", "seconds": "SECONDS", "integer": "N"}


class Settings:
    """The values of all settings, immutable."""

    # fmt: off
    key_file: str | None = _row("path", "key", None, "File that holds the client key and nothing else.",
        variable="ANTICAPTCHA_CLIENT_KEY_FILE")
    key_command: str | None = _row("text", "key", None,
        "Command that prints the client key; run without a shell.", metavar="COMMAND")
    client_key: Secret | None = _row("secret", "key", None, "The client key itself.",
        variable="ANTICAPTCHA_CLIENT_KEY")
    """The key from the environment, unchecked; `bridge.ops.keys` says whether it can be one."""
    url: str = _row("upstream", "upstream", "https://api.anti-captcha.com",
        "Base address of the upstream; plain http only for loopback.")
    proxy: str | None = _row("proxy", "upstream", None,
        "HTTP proxy to the upstream; never used for loopback.")
    ca_file: str | None = _row("path", "upstream", None,
        "PEM file with the certificate authorities to trust instead.")
    timeout_s: float = _row("seconds", "upstream", 10.0,
        "Longest time one attempt may take in all, in seconds.", low=0.05, high=300, limit="timeoutSeconds")
    connect_timeout_s: float = _row("seconds", "upstream", 3.0,
        "Longest time for name, TCP and TLS of one attempt, in seconds.",
        low=0.05, high=300, limit="connectTimeoutSeconds")
    # Each attempt holds a connection: 1024 are far beyond the point where more of them help.
    concurrency: int = _row("integer", "upstream", 32, "Most attempts at the upstream at once.",
        low=1, high=1024, limit="concurrency")
    pauses: bool = _row("switch", "upstream", True,
        "Stop sending when refusals show that going on does harm.")
    account_figures: bool = _row("switch", "upstream", False,
        "Ask the upstream once an hour how many tasks the account has solved, for advice.")
    account_queues: str | None = _row("text", "upstream", None,
        "Names of the account's reCAPTCHA queues, as its statistics show them, separated by commas.",
        metavar="NAMES")
    ledger: str = _row("ledger", "ledger", None,
        "Where reports are remembered: a file, the word memory, or a postgresql:// URL.",
        metavar="PATH|memory|URL")
    """``memory``, a ``postgresql://`` URL or an absolute path."""
    require_ledger: bool = _row("switch", "ledger", False, "Refuse reports that the ledger cannot remember.")
    ledger_password: Secret | None = _row("secret", "ledger", None, "Password for a postgresql:// ledger.")
    # The bounds below keep memory in the hundreds of megabytes and a stack within Python's limit.
    queue: int = _row("integer", "wire", 1000, "Most requests admitted and not yet answered.",
        low=1, high=1_000_000, limit="queue")
    max_message: int = _row("integer", "wire", 1_048_576, "Longest message in bytes.",
        low=64, high=268_435_456, metavar="BYTES", limit="maxMessage")
    max_batch: int = _row("integer", "wire", 1000, "Most members of a batch.",
        low=1, high=1_000_000, limit="maxBatch")
    max_depth: int = _row("integer", "wire", 64, "Deepest nesting of a message.",
        low=2, high=256, limit="maxDepth")
    drain_s: float = _row("seconds", "process", 8.0,
        "Time for running work after SIGTERM or SIGHUP, in seconds.", low=0, high=3600, limit="drainSeconds")
    parent_watch: bool = _row("switch", "process", True, "End when the parent process is gone.")
    sandbox: bool = _row("switch", "process", False,
        "Serve against a built-in simulator: no account needed, nothing leaves the machine.")
    log_level: str = _row("choice", "log", "warning", "Lowest level that is logged.", choices=LEVELS)
    log_format: str = _row("choice", "log", "auto",
        "Form of log lines; auto is text on a terminal, else json.", choices=("json", "text", "auto"))
    log_file: str | None = _row("path", "log", None, "File to append the log to, instead of stderr.")
    metrics_file: str | None = _row("path", "log", None,
        "File to keep the service's figures in, in the Prometheus text format.")
    # fmt: on

    state_dir: str | None
    """The user's state directory for this program; None if there is none. Not made here."""
    config_file: str | None
    """Where the configuration file is, or would be; None if there is no place for it."""
    hidden: frozenset[str]
    """The variables that no child of ours may see."""
    notices: tuple[tuple[str, Mapping[str, Any]], ...]
    """Events found while reading, to be logged once there is a log."""

    _origins: Mapping[str, str]

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self.__dict__.update(values, _origins=dict(origins))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings do not change: {name}")

    def __delattr__(self, name: str) -> None:
        self.__setattr__(name, None)

    def origin(self, name: str) -> str:
        """Return where a value comes from: ``flag --url``, ``environment REPORT_BRIDGE_URL``, ``file PATH``
        or ``default``."""
        return self._origins.get(name, "default")


TABLE: Final[tuple[Setting, ...]] = tuple(
    make(name=name) for name, make in vars(Settings).items() if isinstance(make, partial)
)
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
