"""``report-bridge doctor``: is this installation sound, and what to do about what is not."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from bridge.cli import checks, server_checks
from bridge.cli.advice import check_advice
from bridge.cli.checks import FAILED, OK, WARNING, Check, Checker
from bridge.cli.terminal import Progress, Screen, print_json, print_lines
from bridge.core import exits
from bridge.core.exits import ConfigError
from bridge.core.redact import Scrubber
from bridge.ops.process import forbid_core_dumps, undo_inherited
from bridge.settings import load
from bridge.settings.parsing import is_database

HELP = "Check this installation, its settings, key and ledger, with a fix for each fault. Changes nothing."
_COLOURS = {OK: "blue", WARNING: "warn", FAILED: "bad"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; the settings' flags are added by the caller."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--online", action="store_true", help="also look whether the upstream can be reached")
    parser.add_argument("--full", action="store_true", help="also look for damage in a large ledger")


def run(args: argparse.Namespace) -> int:
    """Run the checks, print what they found; 1 if one failed."""
    undo_inherited()
    forbid_core_dumps()
    scrubber = Scrubber()
    found = [
        Check(name, status, scrubber.scrub(message), fix and scrubber.scrub(fix))
        for name, status, message, fix in _run_checks(args, scrubber)
    ]
    has_failed = any(check.status == FAILED for check in found)
    if args.json:
        print_json({"ok": not has_failed, "checks": [check._asdict() for check in found]})
    else:
        print_lines(_render(found, Screen()))
    return exits.REFUSED if has_failed else exits.DONE


def _run_checks(args: argparse.Namespace, scrubber: Scrubber) -> Iterator[Check]:
    steps: list[Checker] = [
        checks.check_python,
        checks.check_schemas,
        lambda: checks.check_commands(os.environ),
        checks.check_streams,
        checks.check_guard,
        checks.check_clock,
    ]
    try:
        settings = load(args.given, os.environ)
    except ConfigError as error:
        trouble = Check("settings", FAILED, str(error), "Correct the setting that the message names.")
        steps.append(lambda: iter([trouble]))
    else:
        for secret in (settings.client_key, settings.ledger_password):
            if secret is not None:
                scrubber.learn(secret)
        check_ledger = server_checks.check_server if is_database(settings.ledger) else checks.check_ledger
        steps += [
            lambda: checks.check_settings(settings),
            lambda: checks.check_key(settings, scrubber),
            lambda: check_ledger(settings, args.full),
            lambda: check_advice(settings),
        ]
        if args.online and not settings.sandbox:
            steps.append(lambda: checks.check_online(settings))
    progress = Progress("checking")
    for done, step in enumerate(steps):
        progress.tell(done, len(steps))
        yield from step()
    progress.end()


def _render(found: list[Check], screen: Screen) -> list[str]:
    lines = []
    for check in found:
        first, *rest = screen.wrap(check.message, " " * 20, f"{check.status:<8} {check.name:<10} ")
        width = len(check.status)
        lines += [screen.paint(first[:width], _COLOURS[check.status]) + first[width:], *rest]
        if check.fix is not None:
            lines += screen.wrap(check.fix, " " * 25, f"{'':<20}fix: ")
    failed = sum(check.status == FAILED for check in found)
    warned = sum(check.status == WARNING for check in found)
    if failed or warned:
        counts = f"{failed} failed, {warned} to look at, {len(found) - failed - warned} in order."
        return [*lines, "", counts]
    return [*lines, "", "Everything is in order."]
