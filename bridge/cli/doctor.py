"""``report-bridge doctor``: is this installation sound, and what to do about what is not.

Each check looks at one thing and says how it is and how to mend it. It changes nothing, never raises, and no
message holds a secret. Only `check_online` and `bridge.cli.ledger_checks`, where the ledger may be on a
server, use the network.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.util import find_spec
from typing import Any, Final

from bridge.cli.commands import REINSTALL
from bridge.cli.ledger import reading
from bridge.cli.ledger_checks import FAILED, OK, WARNING, Check, check_clock, check_ledger
from bridge.cli.summary import read_advice
from bridge.cli.terminal import Screen, print_json, print_lines
from bridge.cli.version import PACKAGES, version_of
from bridge.core import exits
from bridge.core.errors import failure_row
from bridge.core.exits import ConfigError, ExitError
from bridge.core.redact import Scrubber
from bridge.engine import Engine
from bridge.ops.keys import KeySource
from bridge.ops.process import forbid_core_dumps, undo_inherited
from bridge.reports.verdict import parse_http_date
from bridge.settings import Settings, describe, load

_PINNED: Final = "5.0.9"
"""The one version of jsonrpcserver that will do."""
_SKEW_S: Final = 2.0
"""The difference from which the bridge corrects its clock by the upstream's."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--online", action="store_true", help="also look whether the upstream can be reached")
    parser.add_argument("--full", action="store_true", help="also look for damage in a large ledger")


def run(args: argparse.Namespace) -> int:
    """Run the checks, print what they find as they find it; 1 if one failed."""
    undo_inherited()
    forbid_core_dumps()
    scrubber = Scrubber()
    screen = Screen()
    found: list[Check] = []
    for name, status, message, fix in _run_checks(args, scrubber):
        found.append(Check(name, status, scrubber.scrub(message), fix and scrubber.scrub(fix)))
        if not args.json:
            print_lines(_render(found[-1], screen))
    counts = Counter(check.status for check in found)
    if args.json:
        print_json({"ok": not counts[FAILED], "checks": [check._asdict() for check in found]})
    else:
        told = f"{counts[FAILED]} failed, {counts[WARNING]} to look at, {counts[OK]} in order."
        print_lines(["", told if counts[OK] < len(found) else "Everything is in order."])
    return exits.REFUSED if counts[FAILED] else exits.DONE


def _run_checks(args: argparse.Namespace, scrubber: Scrubber) -> Iterator[Check]:
    yield from check_python()
    yield from check_commands(os.environ)
    yield check_date()
    try:
        settings = load(args.given, os.environ)
    except ConfigError as error:
        yield Check("settings", FAILED, str(error), "Correct the setting that the message names.")
        return
    for secret in (settings.client_key, settings.ledger_password):
        if secret is not None:
            scrubber.learn(secret)
    yield from check_settings(settings)
    yield check_key(settings, scrubber)
    yield from check_ledger(settings, args.full)
    yield from check_advice(args)
    if args.online and not settings.sandbox:
        yield from check_online(settings)


def _render(check: Check, screen: Screen) -> list[str]:
    first, *rest = screen.wrap(check.message, f"{check.status:<8} {check.name:<10} ")
    lines = [screen.paint(check.status, check.status) + first.removeprefix(check.status), *rest]
    return lines if check.fix is None else lines + screen.wrap(check.fix, f"{'':<20}fix: ")


# --- the program -----------------------------------------------------------------------------


def check_python() -> Iterator[Check]:
    """The interpreter and the packages it needs."""
    yield Check("python", OK, f"Python {platform.python_version()} at {sys.executable or 'an unknown place'}")
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


def check_date() -> Check:
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
    if settings.sandbox:
        return Check("key", OK, "the sandbox needs no key")
    events: dict[str, Mapping[str, Any]] = {}
    try:
        key = KeySource(Engine(on_bug=lambda _: None), settings, scrubber, events.__setitem__).get()
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


# --- the ledger and the network -----------------------------------------------------------------------------


def check_advice(args: argparse.Namespace) -> Iterator[Check]:
    """Whether reports count for anything, as far as the ledger knows."""
    try:
        with reading(args) as (settings, _, reader):
            found = read_advice(reader, settings, None)["advice"]
    except ExitError:
        return  # the check of the ledger says so
    for advice in found:
        message = f"account {advice['account']}, {advice['kind']}: {advice['message']}"
        yield Check("advice", WARNING, message, "Do what it says; `report-bridge help report` has the rules.")
    if not found:
        yield Check("advice", OK, "nothing in the last 24 h makes reports worthless, as far as is known")


def check_online(settings: Settings) -> Iterator[Check]:
    """Whether the upstream can be reached, and how far its clock is from ours. Sends no key, no report."""
    from bridge.upstream.client import Client

    engine = Engine(on_bug=lambda _: None)
    until = engine.now() + settings.timeout_s
    try:
        with closing(Client(engine, settings.url, settings)) as client:
            seen = client.send("", b"", until=until, leave_by=lambda: until, fresh=True)
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
    how = "verified TLS" if settings.url.startswith("https:") else "plain HTTP on loopback"
    yield Check("upstream", OK, f"{settings.url} answers over {how} in {seen.elapsed_s * 1000:.0f} ms")
    date_wall = parse_http_date(seen.headers.get("date", ""))
    if date_wall is None:
        fix = "Ask again later, or look what --url names."
        yield Check("skew", WARNING, "the upstream's answer has no date", fix)
        return
    # Its seconds are whole, and the answer was on its way for a while.
    ahead_s = time.time() - seen.elapsed_s / 2 - date_wall - 0.5
    agreed = f"this clock agrees with the upstream's within {_SKEW_S:g} s"
    yield check_clock("skew", ahead_s, _SKEW_S, "the upstream's", agreed)
