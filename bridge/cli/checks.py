"""The checks of ``report-bridge doctor``: each looks at one thing and says how it is and how to mend it.

A check changes nothing, never raises, and no message holds a secret. Only `check_online` and
`bridge.cli.server_checks`, which has those for a ledger on a server, use the network.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from bridge.cli.commands import REINSTALL
from bridge.core.errors import failure_row
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber
from bridge.core.resources import load_json
from bridge.core.text import plural
from bridge.engine.clock import SystemClock
from bridge.ledger.reading import open_reader
from bridge.ledger.statistics import NoLedger, Reader
from bridge.ledger.trouble import LedgerTrouble
from bridge.settings import Settings, describe

OK: Final = "ok"
WARNING: Final = "warning"
FAILED: Final = "failed"

PACKAGES: Final = ("requests", "jsonrpcserver", "oslash", "fastjsonschema", "gevent", "httptools")
_PINNED: Final = {"jsonrpcserver": "5.0.9"}
QUICK_BYTES: Final = 16 * 1024 * 1024
"""Ledgers up to this size are looked through for damage; 30 ms a MiB were measured."""
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
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", OK, f"Python {version} at {sys.executable or 'an unknown place'}")
    missing = [name for name in PACKAGES if find_spec(name) is None]
    strange = [
        f"{name} {found} instead of {wanted}"
        for name, wanted in _PINNED.items()
        if name not in missing and (found := _version_of(name)) not in (None, wanted)
    ]
    if missing or strange:
        what = ", ".join([*(f"{name} is missing" for name in missing), *strange])
        yield Check("packages", FAILED, what, REINSTALL)
    else:
        shown = [name if (v := _version_of(name)) is None else f"{name} {v}" for name in PACKAGES]
        yield Check("packages", OK, ", ".join(shown))


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_schemas() -> Iterator[Check]:
    """The schemas and tables that the program carries."""
    from bridge.cli.schema import list_names

    broken = []
    names: list[str] = []
    try:
        names = list_names()
        for name in names:
            load_json(f"{name}.json")
    except (OSError, ValueError, KeyError) as error:
        broken.append(type(error).__name__)
    if broken:
        yield Check("schemas", FAILED, "a schema is missing or damaged", "Install the package again.")
    else:
        yield Check("schemas", OK, f"{len(names)} schemas and tables are complete")


def check_commands(environ: Mapping[str, str]) -> Iterator[Check]:
    """Which commands of this name the shell and the clients would find."""
    chosen = environ.get("REPORT_BRIDGE_BIN")
    if chosen and not os.access(chosen, os.X_OK):
        fix = "Set REPORT_BRIDGE_BIN to the absolute path of the command, or unset it."
        yield Check("command", FAILED, "REPORT_BRIDGE_BIN names no program that can be run", fix)
    found: dict[str, str] = {}
    for folder in environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, "report-bridge")
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            found.setdefault(os.path.realpath(path), path)
    if len(found) > 1:
        fix = (
            f"Remove the others, or name one in REPORT_BRIDGE_BIN; now {next(iter(found.values()))} is taken."
        )
        yield Check("command", WARNING, f"{len(found)} commands on PATH: {', '.join(found.values())}", fix)
    elif found:
        yield Check("command", OK, f"on PATH as {next(iter(found.values()))}")
    elif not chosen:
        fix = "Put its folder on PATH, or give the clients its absolute path (REPORT_BRIDGE_BIN)."
        yield Check("command", WARNING, "report-bridge is not on PATH", fix)


# --- streams ---------------------------------------------------------------------------------


def check_streams() -> Iterator[Check]:
    """What the standard streams are; for people who wonder why nothing is answered."""
    kinds = [f"{name} {_kind_of(fd)}" for fd, name in enumerate(("stdin", "stdout", "stderr"))]
    yield Check("streams", OK, ", ".join(kinds))


def _kind_of(descriptor: int) -> str:
    try:
        mode = os.fstat(descriptor).st_mode
        if os.isatty(descriptor):
            return "is a terminal"
    except OSError:
        return "is closed"
    for test, kind in ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISREG, "file")):
        if test(mode):
            return f"is a {kind}"
    return "is a device"


_GUARD: Final = """
import os, sys
sys.path[:] = {path!r}
from bridge.wire.streams import take_descriptors
source, sink = take_descriptors()
print("stray", flush=True)
os.system("echo stray")
os.write(sink, b"wire")
"""


def check_guard() -> Iterator[Check]:
    """Prove in a process of its own that nothing but messages can reach standard output."""
    import subprocess

    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", _GUARD.format(path=sys.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            env={"PATH": os.defpath},
            check=False,
        )
        is_sound = ended.returncode == 0 and ended.stdout == b"wire" and ended.stderr.count(b"stray") == 2
    except (OSError, subprocess.SubprocessError, ValueError):
        is_sound = False
    if is_sound:
        yield Check("guard", OK, "stray prints and children cannot reach the wire")
    else:
        fix = "Run it from a normal shell; if it still fails, report it with `report-bridge version --json`."
        yield Check("guard", FAILED, "a self-test failed: stray output might reach the wire", fix)


# --- settings and key ------------------------------------------------------------------------


def check_settings(settings: Settings) -> Iterator[Check]:
    """Where the settings come from, and variables that are none."""
    origins = [f"{name} from {origin}" for name, _, origin in describe(settings) if origin != "default"]
    yield Check("settings", OK, "; ".join(origins) if origins else "all settings have their defaults")
    for name, fields in settings.notices:
        if name == "setting_unknown":
            yield Check("settings", WARNING, f"{fields['name']} is no setting", fields["hint"])


def check_key(settings: Settings, scrubber: Scrubber) -> Iterator[Check]:
    """Whether the source of the key gives one; it is read, and shown to nobody."""
    from bridge.engine import Engine
    from bridge.ops.keys import KeySource

    if settings.sandbox:
        yield Check("key", OK, "the sandbox needs no key")
        return
    events: dict[str, dict[str, Any]] = {}

    def note(name: str, **fields: Any) -> None:
        events[name] = fields

    try:
        key = KeySource(Engine(on_bug=lambda _: None), settings, scrubber, note).get()
    except ConfigError as error:
        yield Check("key", FAILED, str(error), "Correct that, or name another file with --key-file.")
        return
    if "key_unreadable" in events:
        reason = events["key_unreadable"]["reason"]
        yield Check("key", FAILED, f"the source gives no key: {reason}", "Correct that source.")
    elif key is None:
        fix = (
            "Put it into a file of mode 0600 and name that with --key-file, or send clientKey with each call."
        )
        yield Check("key", WARNING, "no key is set", fix)
    elif "key_file_loose" in events:
        path, mode = events["key_file_loose"]["path"], events["key_file_loose"]["mode"]
        fix = f"chmod 600 {path}"
        yield Check("key", WARNING, f"a key was read, but others may read its file, too (mode {mode})", fix)
    else:
        yield Check("key", OK, f"a key was read ({events['key_loaded']['source']})")


# --- ledger and clock ------------------------------------------------------------------------


def check_ledger(settings: Settings, full: bool) -> Iterator[Check]:
    """Whether reports can be remembered, in a file or in memory.

    Args:
        full: look for damage in a large file, too.
    """
    if settings.ledger == "memory":
        if not settings.sandbox:
            fix = "Name a file with --ledger; without one, duplicates and crashes are not covered."
            yield Check("ledger", WARNING, "reports are remembered in memory only", fix)
        else:
            yield Check("ledger", OK, "the sandbox remembers in memory")
        return
    try:
        reader = open_reader(settings.ledger, SystemClock.now(), SystemClock.wall())
    except NoLedger:
        yield _check_place(settings.ledger)
        return
    except LedgerTrouble as trouble:
        yield Check("ledger", FAILED, "the ledger cannot be read", trouble.sentence)
        return
    try:
        yield from _check_file(settings.ledger, reader, full)
    except LedgerTrouble as trouble:
        yield Check("ledger", FAILED, "the ledger cannot be read", trouble.sentence)
    finally:
        reader.close()


def _check_place(path: str) -> Check:
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    if os.access(folder, os.W_OK | os.X_OK):
        return Check("ledger", OK, f"there is none yet; the first report makes {path}")
    return Check(
        "ledger", FAILED, f"{path} cannot be made", f"Allow {folder} to be written, or use --ledger."
    )


def _check_file(path: str, reader: Reader, full: bool) -> Iterator[Check]:
    health = reader.health()
    size = f"{health['sizeBytes'] / 1_048_576:.1f} MiB"
    trouble = reader.try_write()
    if health["isNewer"]:
        fix = "Install the newer version of report-bridge; this one only reads it."
        yield Check("ledger", FAILED, "a newer version has written the ledger", fix)
    elif trouble is not None:
        yield Check("ledger", FAILED, f"{path} cannot be written now", trouble.sentence)
    else:
        yield Check("ledger", OK, f"{plural(health['reports'], 'report')}, {size}, can be written: {path}")
    modes = stat.S_IMODE(os.stat(path).st_mode)
    if modes & 0o077 and os.name == "posix":
        yield Check("ledger", WARNING, f"others may open the ledger (mode {modes:04o})", f"chmod 600 {path}")
    mode = health["journalMode"]
    if mode == "wal" and not health["walIsSound"]:
        fix = "Stop every bridge on this ledger and start one again: it changes the journal when it is alone."
        message = f"SQLite {health['sqliteVersion']} has a fault with WAL and several processes"
        yield Check("sqlite", WARNING, message, fix)
    else:
        more = (
            "" if health["walIsSound"] else "; with apsw installed a commit would sync once, not three times"
        )
        yield Check("sqlite", OK, f"SQLite {health['sqliteVersion']}, journal {mode}{more}")
    from bridge.ledger.files import NETWORK_KINDS

    if health["filesystem"] in NETWORK_KINDS:
        fix = "Put the ledger on a local disk: locks over a network cannot be relied on."
        yield Check("ledger", WARNING, f"the ledger is on {health['filesystem']}", fix)
    if full or health["sizeBytes"] <= QUICK_BYTES:
        damage = reader.check()
        if damage:
            fix = "Move the file away; the next start makes a new one. Keep the old one for `history export`."
            yield Check("integrity", FAILED, f"the ledger is damaged ({plural(len(damage), 'finding')})", fix)
        else:
            yield Check("integrity", OK, "no damage was found")
    else:
        yield Check("integrity", OK, f"not looked for in {size}; --full looks, and bridges wait for it")


def check_clock() -> Iterator[Check]:
    """Whether the clock can be right: not before this program was installed."""
    installed = os.stat(__file__).st_mtime if os.path.isfile(__file__) else 0.0
    if time.time() < min(installed, 4e9) - 86_400:
        fix = "Set the clock; let NTP keep it (systemd: timedatectl set-ntp true)."
        yield Check("clock", FAILED, "the clock is earlier than the installation of this program", fix)
    else:
        yield Check("clock", OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


# --- the network -----------------------------------------------------------------------------


def check_online(settings: Settings) -> Iterator[Check]:
    """Whether the upstream can be reached, and how far its clock is from ours. Sends no key, no report."""
    from bridge.upstream.probe import look_at

    try:
        sight = look_at(
            settings.url,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            timeout_s=settings.timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )
    except (OSError, ValueError):
        yield Check("upstream", FAILED, "it cannot be asked", "Check --url, --proxy and --ca-file.")
        return
    if sight.failure is not None:
        row = failure_row(sight.failure, sight.failure in ("reset", "timeout", "cut", "malformed"))
        fix = row.advice
        if settings.proxy is None and any(name.lower() == "https_proxy" for name in os.environ):
            fix += " HTTPS_PROXY is set, but proxies of the environment are ignored: use --proxy."
        yield Check("upstream", FAILED, f"{settings.url}: {row.message}", fix)
        return
    how = sight.tls or "plain HTTP on loopback"
    yield Check("upstream", OK, f"{settings.url} answers over {how} in {sight.elapsed_s * 1000:.0f} ms")
    if sight.date_wall is None:
        yield Check(
            "skew", WARNING, "the upstream's answer has no date", "Ask again later, or look what --url names."
        )
        return
    # Its seconds are whole, and the answer was on its way for a while.
    skew_s = time.time() - sight.elapsed_s / 2 - sight.date_wall - 0.5
    if abs(skew_s) > _SKEW_S:
        which = "ahead of" if skew_s > 0 else "behind"
        fix = "Let NTP keep the clock (systemd: timedatectl set-ntp true); the bridge corrects it meanwhile."
        yield Check("skew", WARNING, f"this clock is {abs(skew_s):.0f} s {which} the upstream's", fix)
    else:
        yield Check("skew", OK, "this clock agrees with the upstream's within 2 s")


Checker = Callable[[], Iterator[Check]]
