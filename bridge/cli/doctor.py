"""``report-bridge doctor``: is this installation sound, and what to do about what is not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from bridge.cli import checks
from bridge.cli.advice import check_advice
from bridge.cli.checks import FAILED, OK, WARNING, Check
from bridge.cli.ledger_checks import check_ledger
from bridge.cli.terminal import Screen, print_json, print_lines
from bridge.core import exits
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber
from bridge.ops.process import forbid_core_dumps, undo_inherited
from bridge.settings import load

HELP = "Check this installation, its settings, key and ledger, with a fix for each fault. Changes nothing."
_COLOURS = {OK: "blue", WARNING: "warn", FAILED: "bad"}


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
    failed, warned = (sum(check.status == status for check in found) for status in (FAILED, WARNING))
    if args.json:
        print_json({"ok": not failed, "checks": [check._asdict() for check in found]})
    elif failed or warned:
        good = len(found) - failed - warned
        print_lines(["", f"{failed} failed, {warned} to look at, {good} in order."])
    else:
        print_lines(["", "Everything is in order."])
    return exits.REFUSED if failed else exits.DONE


def _run_checks(args: argparse.Namespace, scrubber: Scrubber) -> Iterator[Check]:
    yield from checks.check_python()
    yield from checks.check_commands(os.environ)
    yield checks.check_clock()
    try:
        settings = load(args.given, os.environ)
    except ConfigError as error:
        yield Check("settings", FAILED, str(error), "Correct the setting that the message names.")
        return
    for secret in (settings.client_key, settings.ledger_password):
        if secret is not None:
            scrubber.learn(secret)
    yield from checks.check_settings(settings)
    yield checks.check_key(settings, scrubber)
    yield from check_ledger(settings, args.full)
    yield from check_advice(args)
    if args.online and not settings.sandbox:
        yield from checks.check_online(settings)


def _render(check: Check, screen: Screen) -> list[str]:
    first, *rest = screen.wrap(check.message, f"{check.status:<8} {check.name:<10} ")
    width = len(check.status)
    lines = [screen.paint(first[:width], _COLOURS[check.status]) + first[width:], *rest]
    return lines if check.fix is None else lines + screen.wrap(check.fix, f"{'':<20}fix: ")
