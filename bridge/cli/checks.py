"""The checks of ``report-bridge doctor``: each looks at one thing and says how it is and how to mend it.

A check changes nothing, never raises, and no message holds a secret. Only `check_online` and
`bridge.cli.ledger_checks`, where the ledger may be on a server, use the network.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from bridge.cli.commands import REINSTALL
from bridge.cli.version import version_of
from bridge.core.errors import failure_row
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber
from bridge.settings import Settings, describe

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"

PACKAGES: Final = ("requests", "jsonrpcserver", "oslash", "fastjsonschema", "gevent", "httptools", "apsw")
_PINNED: Final = "5.0.9"
"""The one version of jsonrpcserver that will do."""
_SKEW_S: Final = 2.0
"""The difference from which the bridge corrects its clock by the upstream's."""


class Check(NamedTuple):
    """What one check found."""

    name: str
    status: str
    message: str
    fix: str | None = None


# --- the program -----------------------------------------------------------------------------


def check_python() -> Iterator[Check]:
    """The interpreter and the packages it needs."""
    where = sys.executable or "an unknown place"
    yield Check("python", OK, f"Python {platform.python_version()} at {where}")
    versions = {name: version_of(name) for name in PACKAGES}
    wrong = [f"{name} is missing" for name in PACKAGES if find_spec(name) is None]
    if (found := versions.get("jsonrpcserver")) not in (None, _PINNED):
        wrong.append(f"jsonrpcserver {found} instead of {_PINNED}")
    if wrong:
        yield Check("packages", FAILED, ", ".join(wrong), REINSTALL)
    else:
        shown = (f"{name} {version or ''}".rstrip() for name, version in versions.items())
        yield Check("packages", OK, ", ".join(shown))


def check_commands(environ: Mapping[str, str]) -> Iterator[Check]:
    """Which commands of this name the shell and the clients would find."""
    chosen = environ.get("REPORT_BRIDGE_BIN")
    if chosen and not os.access(chosen, os.X_OK):
        fix = "Set REPORT_BRIDGE_BIN to the absolute path of the command, or unset it."
        yield Check("command", FAILED, "REPORT_BRIDGE_BIN names no program that can be run", fix)
    found: dict[str, str] = {}
    for folder in environ.get("PATH", "").split(os.pathsep):
        if folder and (path := shutil.which("report-bridge", path=folder)):
            found.setdefault(os.path.realpath(path), path)
    first, *others = found.values() or [None]
    if others:
        fix = f"Remove the others, or name one in REPORT_BRIDGE_BIN; now {first} is taken."
        yield Check("command", WARNING, f"{len(found)} commands on PATH: {', '.join(found.values())}", fix)
    elif first:
        yield Check("command", OK, f"on PATH as {first}")
    elif not chosen:
        fix = "Put its folder on PATH, or give the clients its absolute path (REPORT_BRIDGE_BIN)."
        yield Check("command", WARNING, "report-bridge is not on PATH", fix)


def check_clock() -> Check:
    """Whether the clock can be right: not before this program was installed."""
    installed = os.stat(__file__).st_mtime if os.path.isfile(__file__) else 0.0
    if time.time() < min(installed, 4e9) - 86_400:
        fix = "Set the clock; let NTP keep it (systemd: timedatectl set-ntp true)."
        return Check("clock", FAILED, "the clock is earlier than the installation of this program", fix)
    return Check("clock", OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


# --- settings and key ------------------------------------------------------------------------


def check_settings(settings: Settings) -> Iterator[Check]:
    """Where the settings come from, and variables that are none."""
    origins = [f"{name} from {origin}" for name, _, origin in describe(settings) if origin != "default"]
    yield Check("settings", OK, "; ".join(origins) or "all settings have their defaults")
    for name, fields in settings.notices:
        if name == "setting_unknown":
            yield Check("settings", WARNING, f"{fields['name']} is no setting", fields["hint"])


def check_key(settings: Settings, scrubber: Scrubber) -> Check:
    """Whether the source of the key gives one; it is read, and shown to nobody."""
    from bridge.engine import Engine
    from bridge.ops.keys import KeySource

    if settings.sandbox:
        return Check("key", OK, "the sandbox needs no key")
    events: dict[str, dict[str, Any]] = {}

    def note(name: str, **fields: Any) -> None:
        events[name] = fields

    try:
        key = KeySource(Engine(on_bug=lambda _: None), settings, scrubber, note).get()
    except ConfigError as error:
        return Check("key", FAILED, str(error), "Correct that, or name another file with --key-file.")
    if fault := events.get("key_unreadable"):
        return Check("key", FAILED, f"the source gives no key: {fault['reason']}", "Correct that source.")
    if key is None:
        fix = "Name a file of mode 0600 that holds it with --key-file, or send clientKey with each call."
        return Check("key", WARNING, "no key is set", fix)
    if loose := events.get("key_file_loose"):
        told = f"a key was read, but others may read its file, too (mode {loose['mode']})"
        return Check("key", WARNING, told, f"chmod 600 {loose['path']}")
    return Check("key", OK, f"a key was read ({events['key_loaded']['source']})")


# --- the network -----------------------------------------------------------------------------


def spell_skew(skew_s: float, whose: str) -> str:
    """Say how far this machine's clock is from another one."""
    return f"this clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} {whose}"


def check_online(settings: Settings) -> Iterator[Check]:
    """Whether the upstream can be reached, and how far its clock is from ours. Sends no key, no report."""
    from bridge.engine import Engine
    from bridge.reports.verdict import parse_http_date
    from bridge.upstream.client import Client

    engine = Engine(on_bug=lambda _: None)
    until = engine.now() + settings.timeout_s
    try:
        client = Client(
            engine,
            settings.url,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            connect_timeout_s=settings.connect_timeout_s,
            pool_size=0,
        )
        seen = client.send("", b"", until=until, leave_by=until, fresh=True)
    except (OSError, ValueError):
        yield Check("upstream", FAILED, "it cannot be asked", "Check --url, --proxy and --ca-file.")
        return
    if seen.failure is not None:
        row = failure_row(seen.failure, seen.sent)
        fix = row.advice
        if settings.proxy is None and any(name.lower() == "https_proxy" for name in os.environ):
            fix += " HTTPS_PROXY is set, but proxies of the environment are ignored: use --proxy."
        yield Check("upstream", FAILED, f"{settings.url}: {row.message}", fix)
        return
    yield Check("upstream", OK, f"{settings.url} answers in {seen.elapsed_s * 1000:.0f} ms")
    date_wall = parse_http_date(seen.headers.get("date", ""))
    if date_wall is None:
        fix = "Ask again later, or look what --url names."
        yield Check("skew", WARNING, "the upstream's answer has no date", fix)
        return
    # Its seconds are whole, and the answer was on its way for a while.
    skew_s = time.time() - seen.elapsed_s / 2 - date_wall - 0.5
    if abs(skew_s) > _SKEW_S:
        fix = "Let NTP keep the clock (systemd: timedatectl set-ntp true); the bridge corrects it meanwhile."
        yield Check("skew", WARNING, spell_skew(skew_s, "the upstream's"), fix)
    else:
        yield Check("skew", OK, "this clock agrees with the upstream's within 2 s")
